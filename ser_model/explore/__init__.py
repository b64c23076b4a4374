"""A look at the data that a config asks for: one HTML page that needs nothing beside it, its pictures and its tables.

corpora -> labels -> inspection -> split ──▶ Findings ──▶ sections ──▶ index.html, *.png, *.csv
"""

from pathlib import Path

from matplotlib.figure import Figure

from ..pictures import to_svg
from ..settings import Settings
from .clips import clip_sections
from .findings import look
from .overview import left_out_section, overview_sections, summary
from .page import Picture, render

__all__ = ["explore"]

PNG_DPI = 160  # 670 pixels wide


def explore(
    settings: Settings, data_dir: str | Path, output_dir: str | Path, *, progress: bool = False, num_proc: int = 1
) -> Path:
    """Write index.html, its pictures as PNG and its tables as CSV into `output_dir`; returns the page's path.

    Raises:
        CorpusError: a corpus is unknown or not found, or no clip can be used.
        LabelError: the label scheme makes no sense.
    """
    findings = look(settings, data_dir, progress=progress, num_proc=num_proc)
    output_dir = Path(output_dir)
    output_dir.mkdir(parents=True, exist_ok=True)

    def draw(name: str, figure: Figure, alt: str, caption: str) -> Picture:
        figure.savefig(output_dir / f"{name}.png", dpi=PNG_DPI, facecolor="white")
        return Picture(to_svg(figure), alt, caption)

    sections = [*overview_sections(findings, draw), *clip_sections(findings, draw), left_out_section(findings)]
    for section in sections:
        for table in (*section.tables, *section.hidden):
            table.write(output_dir)
    page = output_dir / "index.html"
    page.write_text(render(settings.name, summary(findings), sections), encoding="utf-8")
    return page
