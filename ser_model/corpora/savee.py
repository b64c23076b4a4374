"""SAVEE: four men, seven emotions, 120 sentences each."""

import re
from pathlib import Path

from .base import Corpus, Utterance

_EMOTIONS = {
    "a": "angry",
    "d": "disgust",
    "f": "fearful",
    "h": "happy",
    "n": "neutral",
    "sa": "sad",
    "su": "surprised",
}


class Savee(Corpus):
    """Reads DC_a01 in any folder, and a01 in a folder DC."""

    name = "savee"
    title = "SAVEE"
    accent = "British"
    licence = "free for research after registration"
    imposes = "other"
    url = "http://kahlan.eps.surrey.ac.uk/savee/"
    citation = (
        "Haq S, Jackson PJB (2009). Speaker-dependent audio-visual emotion recognition. Proc. International Conference "
        "on Auditory-Visual Speech Processing (AVSP), 53-58"
    )
    customary_folders = ("SAVEE",)
    naming = "DC_a01, or a01 in a folder DC (DC | JE | JK | KL, then a | d | f | h | n | sa | su, then the number)"
    pattern = re.compile(r"(?:[^/]*/)?(DC|JE|JK|KL)[_/](a|d|f|h|n|sa|su)(\d\d)", re.IGNORECASE)

    def parse(self, path: Path, match: re.Match[str]) -> Utterance:
        """See `Corpus.parse`."""
        speaker, letters, number = match[1].upper(), match[2].lower(), match[3]
        return Utterance(
            path=path,
            corpus=self.name,
            speaker=f"savee-{speaker}",
            sex="male",
            emotion=_EMOTIONS[letters],
            recording=f"savee-{speaker}_{letters}{number}",
        )
