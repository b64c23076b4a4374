"""What the page is made of: sections with text, pictures and tables, and the template that lays them out."""

import csv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from jinja2 import Environment
from matplotlib.figure import Figure

ROWS_SHOWN = 30


@dataclass(frozen=True)
class Table:
    """What goes whole into <name>.csv, and with its first `shown` rows into the page."""

    name: str
    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence]
    shown: int = ROWS_SHOWN

    @property
    def shown_rows(self) -> Sequence[Sequence]:
        return self.rows[: self.shown]

    def is_number(self, column: int) -> bool:
        """True for columns to be set flush right."""
        return bool(self.rows) and all(isinstance(row[column], int | float) for row in self.shown_rows)

    def text(self, value: object, column: int) -> str:
        """As shown: all numbers of a column with as many decimals."""
        if not isinstance(value, float):
            return str(value)
        decimals = max(len(str(row[column]).partition(".")[2]) for row in self.shown_rows)
        return f"{value:.{decimals}f}"

    def write(self, folder: Path) -> None:
        with open(folder / f"{self.name}.csv", "w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([self.columns, *self.rows])


@dataclass(frozen=True)
class Picture:
    svg: str
    alt: str
    caption: str


@dataclass
class Section:
    """A part of the page. `hidden` tables are written, but not shown."""

    title: str
    text: list[str] = field(default_factory=list)
    code: str = ""
    pictures: list[Picture] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    hidden: list[Table] = field(default_factory=list)


Draw = Callable[[str, Figure, str, str], Picture]


def render(name: str, summary: Mapping, sections: Sequence[Section]) -> str:
    """The page as HTML. All text is escaped; only the pictures are taken as they are."""
    template = Environment(autoescape=True).from_string(
        Path(__file__).with_name("page.html").read_text(encoding="utf-8")
    )
    return template.render(name=name, summary=summary, sections=sections)
