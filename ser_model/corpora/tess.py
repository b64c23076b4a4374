"""TESS: two actresses, seven emotions, 200 words each."""

import re
import zlib
from pathlib import Path

from .base import Corpus, CorpusError, NamingError, Utterance

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
    """Reads names such as OAF_bar_ps, in whatever folder they lie.

    Args:
        words: the share of its words that are taken, the same ones of both voices and all emotions; two voices with
            1400 clips each would outweigh the many voices of another corpus.
    """

    name = "tess"
    title = "TESS"
    accent = "North American"
    licence = "CC BY-NC-ND 4.0"
    imposes = "cc-by-nc-sa-4.0"  # non-commercial; weights are no recording in a changed form
    url = "https://doi.org/10.5683/SP2/E8H2MF"
    citation = (
        "Pichora-Fuller MK, Dupuis K (2020). Toronto emotional speech set (TESS). Borealis. doi:10.5683/SP2/E8H2MF"
    )
    customary_folders = ("TESS", "TESS Toronto emotional speech set data")
    naming = "OAF_bar_angry (OAF or YAF, word, angry | disgust | fear | happy | neutral | ps | sad)"
    # one distributed clip is spelt OA_bite_neutral
    pattern = re.compile(r"([^/]*)/(OA|YA)F?_([a-z]+)_(angry|disgust|fear|happy|neutral|ps|sad)", re.IGNORECASE)

    def __init__(self, words: float = 1.0):
        if not (isinstance(words, int | float) and 0 < words <= 1):
            raise CorpusError(f"tess: words is {words!r}; give the share of its words to take, above 0 and up to 1")
        self.words = words

    def wants(self, utterance: Utterance) -> bool:
        """See `Corpus.wants`; drawn by the word's own hash, so that it is the same everywhere."""
        word = utterance.text.rpartition(" ")[2]
        return zlib.crc32(word.encode()) < self.words * 2**32

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
