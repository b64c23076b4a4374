"""CSV for people who open it in a spreadsheet, with names that strangers chose.

For the page's downloads alone. What the command line and training write is read again by programs, to which a name must
come back as it is.
"""

import csv
import io
from collections.abc import Iterable, Sequence

# What makes a spreadsheet take a cell for a formula: https://owasp.org/www-community/attacks/CSV_Injection
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")


def neutral(cell: str) -> str:
    """The cell as text that no spreadsheet calculates: an apostrophe before what would be a formula."""
    return f"'{cell}" if cell.startswith(FORMULA_STARTS) else cell


def csv_bytes(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> bytes:
    """A whole CSV file; it says that it is UTF-8, without which Excel spoils names beyond ASCII."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, quoting=csv.QUOTE_ALL)  # a separator or quote in a name starts no new cell
    writer.writerows([neutral(cell) for cell in row] for row in (columns, *rows))
    return text.getvalue().encode("utf-8-sig", errors="replace")
