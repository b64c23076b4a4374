"""CREMA-D: 91 actors, 12 sentences, six emotions at up to three levels."""

import csv
import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from .base import Corpus, Scan, Utterance

DEMOGRAPHICS = "VideoDemographics.csv"

_EMOTIONS = {"ANG": "angry", "DIS": "disgust", "FEA": "fearful", "HAP": "happy", "NEU": "neutral", "SAD": "sad"}
_LEVELS = {"LO": "low", "MD": "medium", "HI": "high"}  # XX is "unspecified"
_SENTENCES = {
    "IEO": "It's eleven o'clock",
    "TIE": "That is exactly what happened",
    "IOM": "I'm on my way to the meeting",
    "IWW": "I wonder what this is about",
    "TAI": "The airplane is almost full",
    "MTI": "Maybe tomorrow it will be cold",
    "IWL": "I would like a new alarm clock",
    "ITH": "I think I have a doctor's appointment",
    "DFA": "Don't forget a jacket",
    "ITS": "I think I've seen this before",
    "TSI": "The surface is slick",
    "WSI": "We'll stop in a couple of minutes",
}


class CremaD(Corpus):
    """Reads names such as 1001_DFA_ANG_XX; the speakers' sexes come from VideoDemographics.csv where it lies beside."""

    name = "cremad"
    title = "CREMA-D"
    accent = "North American"
    licence = "ODbL 1.0, contents DbCL 1.0"
    imposes = "other"
    url = "https://github.com/CheyneyComputerScience/CREMA-D"
    citation = (
        "Cao H, Cooper DG, Keutmann MK, Gur RC, Nenkova A, Verma R (2014). CREMA-D: Crowd-sourced Emotional Multimodal "
        "Actors Dataset. IEEE Transactions on Affective Computing 5(4): 377-390. doi:10.1109/TAFFC.2014.2336244"
    )
    customary_folders = ("CREMA-D", "CREMAD", "CREMA")
    naming = "1001_DFA_ANG_XX (actor, sentence, emotion, level)"
    # one distributed clip is spelt 1040_ITH_SAD_X
    pattern = re.compile(
        rf"[^/]*/(10\d\d)_({'|'.join(_SENTENCES)})_({'|'.join(_EMOTIONS)})_(LO|MD|HI|XX?)", re.IGNORECASE
    )

    def parse(self, path: Path, match: re.Match[str]) -> Utterance:
        """See `Corpus.parse`."""
        actor, sentence, emotion, level = (group.upper() for group in match.groups())
        level = "XX" if level == "X" else level
        return Utterance(
            path=path,
            corpus=self.name,
            speaker=f"cremad-{actor}",
            sex=None,
            emotion=_EMOTIONS[emotion],
            recording=f"cremad-{actor}_{sentence}_{emotion}_{level}",
            intensity=_LEVELS.get(level),
            text=_SENTENCES[sentence],
        )

    def scan(self, root: Path) -> Scan:
        """See `Corpus.scan`; a note says so when the sexes are unknown."""
        scan = super().scan(root)
        table = _find_table({utterance.path.parent for utterance in scan.utterances}, Path(root))
        sexes = _read_sexes(table) if table else {}
        scan.utterances = [replace(utterance, sex=sexes.get(utterance.speaker)) for utterance in scan.utterances]
        if unknown := {utterance.speaker for utterance in scan.utterances if utterance.sex is None}:
            where = f"{table} lacks them" if table else f"no {DEMOGRAPHICS} beside the clips; get it from {self.url}"
            scan.notes.append(f"CREMA-D: the sex of {len(unknown)} speakers is unknown ({where})")
        return scan


def _find_table(folders: Iterable[Path], root: Path) -> Path | None:
    """The demographics table in a folder with clips, or in one above it, up to `root`."""
    for folder in sorted(folders):
        for place in (folder, *folder.parents):
            if (place / DEMOGRAPHICS).is_file():
                return place / DEMOGRAPHICS
            if place == root:
                break
    return None


def _read_sexes(table: Path) -> dict[str, str]:
    with open(table, newline="", encoding="utf-8-sig") as file:
        rows = [(row.get("ActorID"), (row.get("Sex") or "").lower()) for row in csv.DictReader(file)]
    return {f"cremad-{actor}": sex for actor, sex in rows if sex in ("female", "male")}
