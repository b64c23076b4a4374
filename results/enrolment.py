"""A personal baseline: what a model answers of a voice of which it knows a few seconds, spoken neutrally.

How the speaker's neutral clips differ from those of the training voices is taken off each embedding, in part, before
the classifier judges it. The part is the one that answers the validation speakers of the same run best.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset

from ser_model.data import EmotionData, load_data
from ser_model.inference import EmotionRecognizer
from ser_model.likeness import BATCH_SIZE, embed
from ser_model.metrics import emotion_metrics
from ser_model.modeling_ser import SERForAudioClassification
from ser_model.predictions import Predictions, run_columns
from ser_model.run_files import SETTINGS
from ser_model.settings import load_settings

from .protocols import ResultsError

CLIPS = 2  # of a speaker that are enrolled; they are not judged
SHARES = np.linspace(0, 1, 11)


@dataclass(frozen=True)
class Voices:
    """A part of the data as a model hears it: N clips."""

    rows: Dataset
    embeddings: np.ndarray  # (N, P)
    labels: np.ndarray  # (N,)

    @classmethod
    def of(cls, model: SERForAudioClassification, extractor, data: EmotionData, part: str) -> "Voices":
        batches = list(data.loader(part, BATCH_SIZE))
        embeddings = [embed(model, extractor, batch["waveforms"], batch["lengths"]) for batch in batches]
        labels = [batch["labels"].numpy() for batch in batches]
        return cls(data.rows(part), np.concatenate(embeddings), np.concatenate(labels))

    def enrolled(self, neutral: int) -> dict[str, list[int]]:
        """CLIPS clips of each speaker who has so many: every other one by path, in RAVDESS one of each sentence."""
        own = {}
        for row in sorted(np.flatnonzero(self.labels == neutral), key=self.rows["path"].__getitem__):
            own.setdefault(self.rows["speaker"][row], []).append(int(row))
        return {speaker: rows[::2][:CLIPS] for speaker, rows in own.items() if len(rows) >= 2 * CLIPS - 1}

    def judged(self, model: SERForAudioClassification, neutral: int, usual: np.ndarray, share: float):
        """Probabilities (N, num_labels); and which rows are judged: not the enrolled, nor those of nobody enrolled."""
        embeddings, kept = self.embeddings.copy(), np.zeros(len(self.labels), bool)
        for speaker, rows in self.enrolled(neutral).items():
            own = np.array(self.rows["speaker"]) == speaker
            embeddings[own] -= share * (self.embeddings[rows].mean(axis=0) - usual)
            kept |= own
            kept[rows] = False
        with torch.inference_mode():
            logits = model.classifier(torch.from_numpy(embeddings)).double() / model.config.calibration_temperature
        return logits.softmax(dim=-1).numpy(), np.flatnonzero(kept)


def enrolled(fold: Path, data_dir: str | Path) -> Predictions:
    """The test clips of a finished run, but for those that are enrolled.

    Raises:
        ResultsError: the labels have no neutral, or no validation speaker has enough of it.
        CorpusError, DataError, LabelError, SplitError: see `load_data`.
    """
    settings = load_settings(fold / SETTINGS)
    recognizer = EmotionRecognizer.from_pretrained(fold)
    model, extractor = recognizer.model, recognizer.extractor
    data = load_data(settings, data_dir, extractor.sampling_rate, frame_ms=extractor.frame_ms)
    names = list(data.scheme.names)
    if "neutral" not in names:
        raise ResultsError(f"{fold} tells {', '.join(names)} apart; a personal baseline needs the label neutral")
    neutral = names.index("neutral")
    train, validation, test = (Voices.of(model, extractor, data, part) for part in ("train", "validation", "test"))
    if not validation.enrolled(neutral):
        raise ResultsError(f"no validation speaker of {fold} has {CLIPS} neutral clips to enrol and more to judge")
    usual = train.embeddings[train.labels == neutral].mean(axis=0)

    def uar(share: float) -> float:
        shares, kept = validation.judged(model, neutral, usual, share)
        return emotion_metrics(shares[kept], validation.labels[kept], names)["uar"]

    shares, kept = test.judged(model, neutral, usual, max(SHARES, key=uar))
    run = run_columns(settings, data.manifest()["hash"], model.config.calibration_temperature)
    return Predictions.of(test.rows.select(kept), names, test.labels[kept], shares[kept], data.folders, run)
