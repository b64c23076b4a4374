"""A person's own data: a folder for each label, or a CSV or JSONL table."""

import csv
import json
import os
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

from ..audio import AUDIO_SUFFIXES
from ..disk import files_below
from ..labels import composed
from .base import Corpus, CorpusError, NamingError, Problem, Scan, Utterance, relative_path

COLUMNS = ("path", "label", "speaker", "sex", "split", "recording")

TABLES = (".csv", ".jsonl")
_PATH_TOO = "file_name"  # what an audiofolder of Hugging Face calls the path
_SEXES = {"female": "female", "f": "female", "male": "male", "m": "male", "": None}
_SPLITS = {
    "train": "train",
    "validation": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
    "": None,
}


class Folder(Corpus):
    """Reads `path` (absolute, or below the data folder): `<label>/**/<clip>`, or a table with COLUMNS.

    A table needs path (or file_name; absolute, or beside the table) and label. `recording` names the take that a clip
    was cut or made from, so that its parts and copies stay together. `corpus` is what to call the data when a run has
    several folders.
    """

    name = "folder"
    title = "folder"
    licence = "your own data"
    url = ""
    citation = ""
    customary_folders = ()
    naming = "<label>/<any name>, or a .csv or .jsonl table with the columns path and label"

    def __init__(self, path: str | Path, corpus: str = "folder"):
        for option, value in (("path", path), ("corpus", corpus)):
            if not isinstance(value, str | Path) or not str(value):
                raise CorpusError(f"folder: {option} is {value!r}; give a text, in quotes where it looks like a number")
        self.path = Path(path)
        self.name = corpus

    @classmethod
    def matches(cls, path: Path) -> None:
        """None: any name will do, so no name is this corpus's own."""
        return None

    def locate(self, data_dir: Path) -> Path:
        """The folder or table that `path` names."""
        return Path(data_dir) / self.path

    def scan(self, root: Path) -> Scan:
        """List the folder or table `root`; a note says so when speakers are not given."""
        root = Path(root)
        if not root.exists():
            raise CorpusError(f"{root} does not exist; wanted {self.naming}")
        scan = self._scan_folder(root) if root.is_dir() else self._scan_table(root)
        if not scan.utterances:
            first = f"; first problem: {scan.problems[0].path}: {scan.problems[0].reason}" if scan.problems else ""
            raise CorpusError(f"no usable clips in {root}; wanted {self.naming}{first}")
        if unknown := sum(not utterance.speaker_known for utterance in scan.utterances):
            scan.notes.append(
                f"{self.name}: {unknown} of {len(scan.utterances)} clips name no speaker; each counts as a speaker of "
                "its own, so whether a split is speaker-disjoint cannot be checked"
            )
        spellings = defaultdict(set)
        for utterance in scan.utterances:
            if utterance.speaker_known:
                spellings[utterance.speaker.casefold()].add(utterance.speaker.removeprefix(f"{self.name}-"))
        scan.notes += [
            f"{self.name}: the speakers {' and '.join(sorted(alike))} differ by case alone and count as different "
            "people; if they are one, spell them alike"
            for alike in spellings.values()
            if len(alike) > 1
        ]
        return scan

    def _scan_folder(self, root: Path) -> Scan:
        scan = Scan()
        tables = sorted(file.name for file in root.iterdir() if file.suffix.lower() in TABLES)
        if tables := [name for name in tables if not name.startswith(".")]:
            scan.notes.append(
                f"WARNING: {self.name}: {tables[0]} lies there, but is not used, nor the speakers that it may name; "
                f"give path: {(self.path / tables[0]).as_posix()} to use it in place of the folders' names"
            )
        for path in files_below(root, AUDIO_SUFFIXES):
            relative = path.relative_to(root)
            if len(relative.parts) < 2:
                scan.problems.append(Problem(path, "badly named: lies in no label folder"))
                continue
            scan.utterances.append(self._utterance(path, root, relative.as_posix(), {"label": relative.parts[0]}))
        return scan

    def _scan_table(self, table: Path) -> Scan:
        scan = Scan()
        ignored: set[str] = set()
        listed: set[Path] = set()
        for number, row, fault in _rows(table):
            clip = row.get("path", "")
            if not _is_file(table.parent / clip):
                clip = row["path"] = clip.replace("\\", "/")  # a table made on Windows
            path = Path(os.path.normpath(table.parent / clip))
            ignored.update(row.keys() - set(COLUMNS))
            try:
                if fault:
                    raise NamingError(fault)
                utterance = self._read_row(path, table.parent, row)
                if path in listed:
                    raise NamingError("listed before")
            except NamingError as error:
                shown = table if "\n" in clip else path  # an open quote swallows the rows that follow
                scan.problems.append(Problem(shown, f"unusable row: {table.name}, row {number}: {error}"))
                continue
            listed.add(path)
            scan.utterances.append(utterance)
        if ignored:
            unused, known = ", ".join(sorted(ignored)), ", ".join(COLUMNS)
            scan.notes.append(f"{table.name}: columns not used: {unused}; known: {known}")
        scan.utterances.sort(key=lambda utterance: utterance.path.as_posix())
        return scan

    def _read_row(self, path: Path, folder: Path, row: Mapping[str, str]) -> Utterance:
        for column in ("path", "label"):
            if not row.get(column):
                raise NamingError(f"no {column}")
        for column, known in (("sex", _SEXES), ("split", _SPLITS)):
            if row.get(column, "").lower() not in known:
                raise NamingError(f"unknown {column} {row[column]!r}; known: {', '.join(filter(None, known))}")
        if not _is_file(path):
            lines = row["path"].count("\n") + 1
            hint = f": its path goes over {lines} lines; see that every quote is closed" if lines > 1 else ""
            raise NamingError(f"no such file{hint}")
        return self._utterance(path, folder, row["path"], row)

    def _utterance(self, path: Path, folder: Path, clip: str, row: Mapping[str, str]) -> Utterance:
        """`clip` names the file within these data, which lie in `folder`; others may read the speaker alone.

        Files that differ in their endings alone are one take in several formats; so are their copies, which name it.
        """
        speaker, take = row.get("speaker"), row.get("recording") or clip
        if take.lower().endswith(AUDIO_SUFFIXES):
            take = take[: take.rindex(".")]
        return Utterance(
            path=path,
            corpus=self.name,
            speaker=f"{self.name}-{composed(speaker) if speaker else relative_path(path, folder)}",
            sex=_SEXES[row.get("sex", "").lower()],
            emotion=composed(row["label"]),
            recording=f"{self.name}-{composed(take)}",
            split=_SPLITS[row.get("split", "").lower()],
            speaker_known=bool(speaker),
        )


def _is_file(path: Path) -> bool:
    """False for what no file can be called, too."""
    try:
        return path.is_file()
    except OSError:  # such as one too long
        return False


def _rows(table: Path) -> Iterator[tuple[int, dict[str, str], str]]:
    """Line number, row as stripped strings, and what is wrong with it ("" for nothing) of a CSV or JSONL table."""
    if table.suffix.lower() not in TABLES:
        raise CorpusError(f"{table}: wanted a folder, a .csv or a .jsonl file")
    try:
        with open(table, newline="", encoding="utf-8-sig") as file:  # Excel writes the signature
            for number, row, fault in _csv_rows(file, table) if table.suffix.lower() == ".csv" else _json_rows(file):
                yield number, {key: _text(value) for key, value in row.items()}, fault
    except UnicodeDecodeError as error:
        raise CorpusError(f"{table} is not in UTF-8 ({error}); save it so, in Excel as CSV UTF-8") from error
    except csv.Error as error:
        raise CorpusError(f"{table} is no CSV table ({error}); see that every quote in it is closed") from error


def _text(value: Any) -> str:
    """What is missing is "": None, and NaN, which pandas writes for it."""
    return "" if value is None or value != value else str(value).strip()


def _csv_rows(file: TextIO, table: Path) -> Iterator[tuple[int, dict, str]]:
    reader = csv.DictReader(file)
    columns = [name.strip().lower() for name in reader.fieldnames or ()]  # as people type them
    if "path" not in columns:
        columns = ["path" if name == _PATH_TOO else name for name in columns]
    reader.fieldnames = columns
    if missing := {"path", "label"} - set(columns):
        raise CorpusError(f"{table}: no column {' and '.join(sorted(missing))}; columns, by comma: {columns}")
    if doubled := [name for name in COLUMNS if columns.count(name) > 1]:
        raise CorpusError(f"{table}: several columns are called {doubled[0]}; rename all but one")
    for row in reader:
        surplus = row.pop(None, None)
        yield reader.line_num, row, "more values than columns" if surplus else ""


def _json_rows(file: TextIO) -> Iterator[tuple[int, dict, str]]:
    for number, line in enumerate(file, 1):
        if not line.strip():
            continue
        try:
            row, fault = json.loads(line), ""
        except json.JSONDecodeError as error:
            row, fault = {}, f"not JSON: {error}"
        if isinstance(row, dict) and "path" not in row and _PATH_TOO in row:
            row["path"] = row.pop(_PATH_TOO)
        if not isinstance(row, dict):
            row, fault = {}, "not a JSON object"
        elif strange := [column for column in COLUMNS if isinstance(row.get(column), dict | list | bool)]:
            fault = f"{strange[0]} is {json.dumps(row[strange[0]])}; wanted a text or a number"
        yield number, row, fault
