"""What a part of the torture came to."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Part:
    """A table of two columns, and what went wrong; nothing should."""

    title: str
    rows: list[tuple[str, str]]
    problems: list[str] = field(default_factory=list)

    def markdown(self) -> str:
        lines = [f"## {self.title}\n", "| what | figure |", "| --- | --- |"]
        lines += [f"| {what} | {figure} |" for what, figure in self.rows]
        lines += [f"| **wrong** | {problem} |" for problem in self.problems] or ["| wrong | nothing |"]
        return "\n".join(lines) + "\n"
