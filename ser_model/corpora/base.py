"""What every corpus shares: utterances, the walk over files, and the report of what could not be used."""

import hashlib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar

from ..disk import files_below

Folders = str | Path | Sequence[str | Path]  # the data folder, or that and those of corpora elsewhere
CORPUS_SUFFIXES = (".wav", ".flac")  # what the corpora are distributed as, and what they get repacked to


class CorpusError(ValueError):
    """No usable data where a corpus was looked for, or options that it does not know."""


class NamingError(ValueError):
    """A file name that says nothing, or contradicts its folder; `scan` turns it into a Problem."""


@dataclass(frozen=True, slots=True)
class Utterance:
    """One clip, as its name describes it; the audio is not opened."""

    path: Path
    corpus: str
    speaker: str  # unique across corpora: "ravdess-01", "tess-OAF"
    sex: str | None  # "female" or "male"
    emotion: str  # one of labels.EMOTIONS for the known corpora, free for folder data
    recording: str  # id of the recorded take: files that share it are one take, which no split may part
    intensity: str | None = None
    text: str | None = None
    channel: str = "speech"  # or "song"
    split: str | None = None  # "train", "validation" or "test", where folder data say so
    speaker_known: bool = True  # False: `speaker` only stands for this one file


@dataclass(frozen=True, slots=True)
class Problem:
    """A file that was left out, and why: "<kind>: <details>"; `corpus` is filled in by `find_utterances`."""

    path: Path
    reason: str
    corpus: str = ""

    @property
    def kind(self) -> str:
        """What the summary counts: "badly named", "duplicate", "silent", ..."""
        return self.reason.partition(":")[0]


@dataclass
class Scan:
    """What was found: utterances in sorted order, the files left out, and remarks that a user should read.

    folders: what names are given relative to, see `relative_path`; filled in by `find_utterances`.
    """

    utterances: list[Utterance] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    folders: tuple[Path, ...] = ()


class Corpus:
    """A corpus whose file names tell all; a subclass gives `pattern` and `parse`.

    Options of its constructor have defaults, and `parse` does not depend on them: a clip names its speaker anywhere.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    accent: ClassVar[str | None] = None  # of its acted voices, where somebody knows
    licence: ClassVar[str]
    imposes: ClassVar[str | None] = None  # the Hub's name of the licence that goes over to weights, if any does
    url: ClassVar[str]
    citation: ClassVar[str]
    customary_folders: ClassVar[tuple[str, ...]]
    naming: ClassVar[str]  # an example and its meaning, for messages
    pattern: ClassVar[re.Pattern[str]]  # must match "<folder>/<file name without its ending>" in full
    same_take: ClassVar[dict[str, str]] = {}  # recording -> the recording that it is a copy of

    def parse(self, path: Path, match: re.Match[str]) -> Utterance:
        """The utterance that a matching name describes. Raises NamingError when it contradicts itself or its folder.

        Its `recording` names this clip alone, for a second file of that name is taken for a copy; which clips are of
        one take, `same_take` says.
        """
        raise NotImplementedError

    def wants(self, utterance: Utterance) -> bool:
        """False for clips that the options leave out on purpose."""
        return True

    @classmethod
    def matches(cls, path: Path) -> re.Match[str] | None:
        """The match of this corpus's naming, None for any other file."""
        return cls.pattern.fullmatch(f"{path.parent.name}/{path.stem}")

    def locate(self, data_dir: Path) -> Path:
        """The corpus's folder: `data_dir`/<customary name, in any case> where there is one, else `data_dir` itself."""
        data_dir = Path(data_dir)
        if not data_dir.is_dir():
            raise CorpusError(f"{data_dir} is not a folder; name the folder that holds {self.title}")
        folders = {entry.name.lower(): Path(entry.path) for entry in os.scandir(data_dir) if entry.is_dir()}
        for name in self.customary_folders:
            if name.lower() in folders:
                return folders[name.lower()]
        return data_dir

    def scan(self, root: Path) -> Scan:
        """List the corpus below `root`: utterances in sorted order, and what was left out.

        Of two files that hold the same clip (a second copy of the corpus, a .wav beside its .flac) the first in sorted
        order is taken. Raises CorpusError when nothing is found.
        """
        scan, root = Scan(), Path(root)
        first: dict[str, Path] = {}
        for path in files_below(root, CORPUS_SUFFIXES):
            try:
                utterance = self._read(path)
            except NamingError as error:
                scan.problems.append(Problem(path, f"badly named: {error}"))
                continue
            if not self.wants(utterance):
                continue
            kept = first.setdefault(utterance.recording, path)
            if kept is not path:
                scan.problems.append(Problem(path, f"duplicate: second copy of {kept.relative_to(root)}"))
                continue
            take = self.same_take.get(utterance.recording, utterance.recording)
            scan.utterances.append(replace(utterance, recording=take))
        if not scan.utterances:
            raise CorpusError(self._nothing_found(root, scan.problems))
        return scan

    def _read(self, path: Path) -> Utterance:
        match = self.matches(path)
        if match is None:
            raise NamingError(f"not named as {self.title} names its clips: {self.naming}")
        return self.parse(path, match)

    def _nothing_found(self, root: Path, problems: Sequence[Problem]) -> str:
        others = f"; {len(problems)} other audio files lie there, such as {problems[0].path}" if problems else ""
        return (
            f"no {self.title} clips found below {root}; wanted {' or '.join(CORPUS_SUFFIXES)} files named like "
            f"{self.naming}{others}. Get the corpus from {self.url} and put it into a folder "
            f"{self.customary_folders[0]} of the data folder"
        )


def relative_path(path: str | Path, folders: Folders) -> str:
    """Below the first of `folders` that holds it, with forward slashes, so that no machine's folders are told.

    Of a file that lies in none of them a hash stands for its folder.
    """
    file = Path(os.path.abspath(path))
    for folder in [folders] if isinstance(folders, str | Path) else folders:
        if file.is_relative_to(above := os.path.abspath(folder)):
            return file.relative_to(above).as_posix()
    return f"{hashlib.sha256(os.fsencode(file.parent)).hexdigest()[:8]}/{file.name}"
