"""What a model answered, clip by clip: as a CSV, and as the figures that follow from it."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from datasets import Dataset
from sklearn.metrics import classification_report

from .corpora.base import relative_path
from .metrics import emotion_metrics, metrics_by_group, speaker_intervals

CLIP = ("path", "corpus", "speaker", "sex")  # columns before label, prediction and a probability for each label
RUN = ("seed", "fold", "split_hash")  # columns after them
DECIMALS = 5  # of a probability in the CSV
ROUNDED_AWAY = 4e-6  # what 0.00000 is read as, for it was not impossible; written, it is 0.00000 again


@dataclass(frozen=True)
class Predictions:
    """Of N clips.

    names: emotion of each class index.
    clips: what is known of each clip by the names in CLIP, and of its run by those in RUN.
    labels: class indices (N,).
    probabilities: (N, num_labels); rows add up to 1, but for the rounding of a file.
    """

    names: tuple[str, ...]
    clips: list[dict]
    labels: np.ndarray
    probabilities: np.ndarray

    @classmethod
    def of(
        cls,
        rows: Dataset,
        names: Sequence[str],
        labels: np.ndarray,
        probabilities: np.ndarray,
        data_dir: str | Path,
        run: Mapping,
    ) -> "Predictions":
        """`rows` are those of a part of the data, `run` gives RUN; paths become relative to the data folder."""
        columns = [rows[key] for key in CLIP]
        clips = [dict(zip(CLIP, values, strict=True)) | dict(run) for values in zip(*columns, strict=True)]
        for clip in clips:
            clip["path"] = relative_path(clip["path"], data_dir)
        return cls(tuple(names), clips, labels, probabilities)

    @classmethod
    def read(cls, path: str | Path) -> "Predictions":
        """From the CSV that `write` made."""
        with open(path, newline="", encoding="utf-8") as file:
            header, *rows = csv.reader(file)
        names = tuple(header[len(CLIP) + 2 : -len(RUN)])
        keys = (*CLIP, "label", "prediction")
        clips = [dict(zip(keys, row, strict=False)) | dict(zip(RUN, row[-len(RUN) :], strict=True)) for row in rows]
        labels = np.array([names.index(clip.pop("label")) for clip in clips])
        predictions = [names.index(clip.pop("prediction")) for clip in clips]
        probabilities = np.array([row[len(keys) : -len(RUN)] for row in rows], dtype=np.float64)
        probabilities = probabilities.clip(min=ROUNDED_AWAY)
        probabilities[np.arange(len(rows)), predictions] += 1e-9  # highest still, where rounding made two alike
        return cls(names, clips, labels, probabilities)

    @classmethod
    def pooled(cls, folds: Sequence["Predictions"]) -> "Predictions":
        """All folds' clips together, each with the number of its fold, from 1."""
        clips = [clip | {"fold": number} for number, own in enumerate(folds, start=1) for clip in own.clips]
        labels = np.concatenate([own.labels for own in folds])
        return cls(folds[0].names, clips, labels, np.concatenate([own.probabilities for own in folds]))

    def write(self, path: str | Path) -> None:
        """One CSV row a clip; what is not known is left empty."""
        with open(path, "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow((*CLIP, "label", "prediction", *self.names, *RUN))
            for clip, label, own in zip(self.clips, self.labels, self.probabilities, strict=True):
                answer = (self.names[label], self.names[own.argmax()])
                shares = (f"{probability:.{DECIMALS}f}" for probability in own)
                writer.writerow((*(clip[key] for key in CLIP), *answer, *shares, *(clip[key] for key in RUN)))

    def figures(self) -> dict:
        """Those of `emotion_metrics`, `interval` as in `speaker_intervals`, and each corpus's and sex's own."""
        probabilities = self.probabilities / self.probabilities.sum(axis=1, keepdims=True)
        groups = {key: [clip[key] or None for clip in self.clips] for key in CLIP}
        figures = emotion_metrics(probabilities, self.labels, self.names)
        figures["interval"] = speaker_intervals(probabilities, self.labels, groups["speaker"])
        for key in ("corpus", "sex"):
            figures[f"by_{key}"] = metrics_by_group(groups[key], probabilities, self.labels, self.names)
        return figures

    def report(self) -> str:
        """scikit-learn's table: precision, recall, F1 and clips of each label that occurs, macro and weighted."""
        occurring = np.unique(self.labels)
        return classification_report(
            self.labels,
            self.probabilities.argmax(axis=1),
            labels=occurring,
            target_names=[self.names[index] for index in occurring],
            digits=3,
            zero_division=0,
        )
