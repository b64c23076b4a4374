"""RAVDESS: 24 actors, spoken and sung."""

import re
from collections.abc import Sequence
from pathlib import Path

from ..labels import EMOTIONS, nearest
from .base import Corpus, CorpusError, NamingError, Utterance

CHANNELS = {"01": "speech", "02": "song"}
INTENSITIES = {"01": "normal", "02": "strong"}
STATEMENTS = {"01": "Kids are talking by the door", "02": "Dogs are sitting by the door"}


class Ravdess(Corpus):
    """Reads names such as 03-01-06-01-02-01-12; `channels` picks from "speech" and "song"."""

    name = "ravdess"
    title = "RAVDESS"
    accent = "North American"
    licence = "CC BY-NC-SA 4.0"
    imposes = "cc-by-nc-sa-4.0"
    url = "https://zenodo.org/records/1188976"
    citation = (
        "Livingstone SR, Russo FA (2018). The Ryerson Audio-Visual Database of Emotional Speech and Song (RAVDESS). "
        "PLoS ONE 13(5): e0196391. doi:10.1371/journal.pone.0196391"
    )
    customary_folders = ("RAVDESS",)
    naming = "03-01-06-01-02-01-12 (modality-channel-emotion-intensity-statement-repetition-actor, modality 03)"
    # modality 03 is audio alone, the only one with sound files; neutral (01) has no strong (02) form
    pattern = re.compile(r"([^/]*)/(03-(01|02)-(?!01-02)0([1-8])-(01|02)-(01|02)-0[12]-(0[1-9]|1\d|2[0-4]))")
    # byte for byte one recording in the distributed set
    same_take = {"ravdess-03-01-03-01-02-02-07": "ravdess-03-01-03-01-02-01-07"}

    def __init__(self, channels: Sequence[str] = ("speech",)):
        if isinstance(channels, str) or not channels:
            raise CorpusError(f"channels must be a list such as [speech, song]; got {channels!r}")
        for channel in channels:
            if channel not in CHANNELS.values():
                known = ", ".join(CHANNELS.values())
                raise CorpusError(f"unknown channel {channel!r}{nearest(channel, CHANNELS.values())}; known: {known}")
        self.channels = tuple(channels)

    def parse(self, path: Path, match: re.Match[str]) -> Utterance:
        """See `Corpus.parse`."""
        folder, name, channel, emotion, intensity, statement, actor = match.groups()
        said = re.fullmatch(r"actor_(\d+)", folder.lower())
        if said and int(said[1]) != int(actor):
            raise NamingError(f"the folder says actor {said[1]}, the name says actor {actor}")
        return Utterance(
            path=path,
            corpus=self.name,
            speaker=f"ravdess-{actor}",
            sex="male" if int(actor) % 2 else "female",
            emotion=EMOTIONS[int(emotion) - 1],  # RAVDESS's codes 1 to 8 are in our order
            recording=f"ravdess-{name}",
            intensity=INTENSITIES[intensity],
            text=STATEMENTS[statement],
            channel=CHANNELS[channel],
        )

    def wants(self, utterance: Utterance) -> bool:
        """True for the channels asked for."""
        return utterance.channel in self.channels

    def _nothing_found(self, root: Path, problems) -> str:
        return f"{super()._nothing_found(root, problems)} (channels asked for: {', '.join(self.channels)})"
