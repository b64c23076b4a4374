"""TESS: two actresses, seven emotions, 200 words each."""

import re
from pathlib import Path

from .base import Corpus, NamingError, Utterance

_EMOTIONS = {
    "angry": "angry",
    "disgust": "disgust",
    "fear": "fearful",
    "happy": "happy",
    "neutral": "neutral",
    "ps": "surprised",  # "pleasant surprise"
    "sad": "sad",
}
_FOLDER_EMOTIONS = {**_EMOTIONS, "pleasant_surprise": "surprised", "pleasant_surprised": "surprised"}


class Tess(Corpus):
    """Reads names such as OAF_bar_ps, in whatever folder they lie."""

    name = "tess"
    title = "TESS"
    licence = "CC BY-NC-ND 4.0"
    url = "https://doi.org/10.5683/SP2/E8H2MF"
    citation = (
        "Pichora-Fuller MK, Dupuis K (2020). Toronto emotional speech set (TESS). Borealis. doi:10.5683/SP2/E8H2MF"
    )
    customary_folders = ("TESS", "TESS Toronto emotional speech set data")
    naming = "OAF_bar_angry (OAF or YAF, word, angry | disgust | fear | happy | neutral | ps | sad)"
    # one distributed clip is spelt OA_bite_neutral
    pattern = re.compile(r"([^/]*)/(OA|YA)F?_([a-z]+)_(angry|disgust|fear|happy|neutral|ps|sad)", re.IGNORECASE)

    def parse(self, path: Path, match: re.Match[str]) -> Utterance:
        """See `Corpus.parse`."""
        folder, voice, word, suffix = match.groups()
        speaker, word, emotion = f"{voice.upper()}F", word.lower(), _EMOTIONS[suffix.lower()]
        said = re.fullmatch(r"(OAF|YAF)_(\w+)", folder, re.IGNORECASE)
        if said and (said[1].upper(), _FOLDER_EMOTIONS.get(said[2].lower(), emotion)) != (speaker, emotion):
            raise NamingError(f"the folder says {folder}, the name says {speaker} and {emotion}")
        return Utterance(
            path=path,
            corpus=self.name,
            speaker=f"tess-{speaker}",
            sex="female",
            emotion=emotion,
            recording=f"tess-{speaker}_{word}_{emotion}",
            text=f"Say the word {word}",
        )
