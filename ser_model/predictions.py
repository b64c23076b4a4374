"""What a model answered, clip by clip: as a CSV, and as the figures that follow from it."""

import csv
import gzip
import io
import zlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from datasets import Dataset
from scipy.special import softmax
from sklearn.metrics import classification_report

from .corpora.base import Folders, relative_path
from .disk import write_whole
from .metrics import (
    coverage_at_precision,
    emotion_metrics,
    metrics_by_group,
    overconfidence,
    speaker_intervals,
)
from .settings import Settings

CLIP = ("path", "corpus", "speaker", "sex", "intensity")  # before label, prediction and a probability for each label
RUN = ("condition", "seed", "fold", "split_hash", "temperature")  # columns after them
GROUPS = ("corpus", "sex", "intensity")  # whose figures are worth a look of their own
CLEAN = "clean"  # the condition of a clip that is heard as it was recorded
DECIMALS = 5  # of a probability in the CSV
ROUNDED_AWAY = 4e-6  # what 0.00000 is read as, for it was not impossible; written, it is 0.00000 again


def run_columns(settings: Settings, split_hash: str, temperature: float, condition: str = CLEAN) -> dict:
    """Those of RUN, which all clips of a run share."""
    values = (condition, settings.seed, settings.split.published_fold, split_hash, temperature)
    return dict(zip(RUN, values, strict=True))


class PredictionsError(ValueError):
    """A file that holds no predictions, or predictions that cannot be put together."""


@dataclass(frozen=True)
class Predictions:
    """Of N clips.

    names: emotion of each class index.
    clips: what is known of each clip by the names in CLIP, and of its run by those in RUN; a speaker whom nobody names
        is None, or "" once read from a file.
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
        folders: Folders,
        run: Mapping,
    ) -> "Predictions":
        """`rows` are those of a part of the data; paths become relative to the data folder.

        `run` gives RUN; without a condition it is CLEAN.
        """
        columns = [rows[key] for key in CLIP]
        run = {"condition": CLEAN} | dict(run)
        clips = [dict(zip(CLIP, values, strict=True)) | run for values in zip(*columns, strict=True)]
        for clip in clips:
            clip["path"] = relative_path(clip["path"], folders)
        return cls(tuple(names), clips, labels, probabilities)

    @classmethod
    def read(cls, path: str | Path) -> "Predictions":
        """From the CSV that `write` made.

        Raises:
            PredictionsError: no such file, its columns are others, or a row is not as they say.
        """
        try:
            raw = Path(path).read_bytes()
            text = (gzip.decompress(raw) if str(path).endswith(".gz") else raw).decode()
            header, *rows = csv.reader(io.StringIO(text, newline="")) if text else [[]]
        except (OSError, EOFError, UnicodeDecodeError, zlib.error, csv.Error) as error:
            raise PredictionsError(f"{path} cannot be read ({error}); make it again") from error
        if (*header[: len(CLIP) + 2], *header[-len(RUN) :]) != (*CLIP, "label", "prediction", *RUN) or not rows:
            raise PredictionsError(
                f"{path} starts with {','.join(header)[:80]!r}; wanted the columns {', '.join(CLIP)}, label, "
                f"prediction, one for each label, {', '.join(RUN)}, and a row a clip; make it again"
            )
        names = tuple(header[len(CLIP) + 2 : -len(RUN)])
        parsed = []
        for number, row in enumerate(rows, start=1):
            try:
                parsed.append(_parsed(row, names))
            except ValueError as error:
                raise PredictionsError(f"{path}: row {number} cannot be read ({error}); make it again") from error
        clips, labels, predictions, shares = map(list, zip(*parsed, strict=True))
        probabilities = np.array(shares).clip(min=ROUNDED_AWAY)
        probabilities[np.arange(len(rows)), predictions] += 1e-9  # highest still, where rounding made two alike
        return cls(names, clips, np.array(labels), probabilities)

    @classmethod
    def pooled(cls, folds: Sequence["Predictions"]) -> "Predictions":
        """All folds' clips together, each with the number of its fold, from 1."""
        numbered = [
            replace(own, clips=[clip | {"fold": number} for clip in own.clips])
            for number, own in enumerate(folds, start=1)
        ]
        return cls.joined(numbered)

    @classmethod
    def joined(cls, parts: Sequence["Predictions"]) -> "Predictions":
        """One after the other; PredictionsError if their labels differ."""
        if others := [own.names for own in parts if own.names != parts[0].names]:
            raise PredictionsError(
                f"predictions of {', '.join(parts[0].names)} and of {', '.join(others[0])} cannot be joined; take runs "
                "with the same labels"
            )
        clips = [clip for own in parts for clip in own.clips]
        labels = np.concatenate([own.labels for own in parts])
        return cls(parts[0].names, clips, labels, np.concatenate([own.probabilities for own in parts]))

    @classmethod
    def averaged(cls, members: Sequence["Predictions"]) -> "Predictions":
        """Of one model whose logits are the mean of the members', see `joining.py`: the clips of the first one, at
        temperature 1. PredictionsError if the members answer other clips, or with other labels.
        """
        logits = np.mean([own.like(members[0]).logits() for own in members], axis=0)
        clips = [clip | {"temperature": 1.0} for clip in members[0].clips]
        return replace(members[0], clips=clips, probabilities=softmax(logits, axis=1))

    def like(self, other: "Predictions") -> "Predictions":
        """In the order of the other's clips; PredictionsError if those are others, or have other labels."""
        Predictions.joined([other, self])  # one set of labels
        rows = {_clip_of(clip): row for row, clip in enumerate(self.clips)}
        clips = [_clip_of(clip) for clip in other.clips]
        if not len(rows) == len(self.clips) == len(clips) or rows.keys() != set(clips):
            raise PredictionsError(
                f"predictions of {len(self.clips)} and of {len(clips)} clips are not of the same clips, each once; "
                "take models of one protocol"
            )
        return self.at([rows[clip] for clip in clips])

    def parted(self, key: str) -> dict[str, "Predictions"]:
        """The predictions of each corpus, or seed, or condition: of each value of a name in CLIP or RUN, sorted."""
        rows = defaultdict(list)
        for row, clip in enumerate(self.clips):
            rows[str(clip[key])].append(row)
        return {value: self.at(own) for value, own in sorted(rows.items())}

    def at(self, rows: Sequence[int]) -> "Predictions":
        """Of those clips, in that order."""
        clips = [self.clips[row] for row in rows]
        return replace(self, clips=clips, labels=self.labels[rows], probabilities=self.probabilities[rows])

    def write(self, path: str | Path, decimals: int = DECIMALS) -> None:
        """One CSV row a clip; what is not known is left empty. A name in .gz is compressed, alike at any time."""
        text = io.StringIO(newline="")
        writer = csv.writer(text)
        writer.writerow((*CLIP, "label", "prediction", *self.names, *RUN))
        for clip, label, own in zip(self.clips, self.labels, self.probabilities, strict=True):
            answer = (self.names[label], self.names[own.argmax()])
            shares = (f"{probability:.{decimals}f}" for probability in own)
            writer.writerow((*(clip[key] for key in CLIP), *answer, *shares, *(clip[key] for key in RUN)))
        raw = text.getvalue().encode()
        write_whole(Path(path), gzip.compress(raw, mtime=0) if str(path).endswith(".gz") else raw)

    def figures(self) -> dict:
        """Those of `emotion_metrics`, coverage at PRECISION, `interval`, and those of each of GROUPS, with the interval
        of each of several corpora; of several runs also the overconfidence of each, for in the ECE of all together
        errors to either side cancel out.
        """
        figures = emotion_metrics(self.shares(), self.labels, self.names)
        runs = [fold for seed in self.parted("seed").values() for fold in seed.parted("fold").values()]
        if len(runs) > 1:
            figures["overconfidence_of_runs"] = [round(overconfidence(own.shares(), own.labels), 5) for own in runs]
        figures["coverage"] = round(coverage_at_precision(self.shares(), self.labels), 5)
        figures["interval"] = self.interval()
        figures |= {f"by_{key}": self.within_corpora(key) for key in GROUPS}
        if len(figures["by_corpus"]) > 1:
            for corpus, own in self.parted("corpus").items():
                figures["by_corpus"][corpus]["interval"] = own.interval()
        return figures

    def interval(self, of_runs: bool = False) -> dict:
        """`speaker_intervals` of all clips together, or of the mean over the seeds and folds that answered them."""
        speakers, corpora = ([clip[key] for clip in self.clips] for key in ("speaker", "corpus"))
        runs = [f"{clip['seed']} {clip['fold']}" for clip in self.clips] if of_runs else None
        return speaker_intervals(self.shares(), self.labels, speakers, corpora, runs)

    def within_corpora(self, key: str) -> dict[str, dict]:
        """As `by`, but of several corpora apart, "ravdess female": one of women alone is no comparison with the men of
        another, so a corpus that has a single value is left out.
        """
        corpora = self.parted("corpus")
        if key == "corpus" or len(corpora) == 1:
            return self.by(key)
        each = {corpus: own.by(key) for corpus, own in corpora.items()}
        return {
            f"{corpus} {value}": figures
            for corpus, groups in each.items()
            if len(groups) > 1
            for value, figures in groups.items()
        }

    def by(self, key: str) -> dict[str, dict]:
        """`metrics_by_group` of one of CLIP."""
        return metrics_by_group([clip[key] or None for clip in self.clips], self.shares(), self.labels, self.names)

    def shares(self) -> np.ndarray:
        """The probabilities (N, num_labels) without the rounding of a file: rows add up to 1."""
        return self.probabilities / self.probabilities.sum(axis=1, keepdims=True)

    def logits(self) -> np.ndarray:
        """(N, num_labels) before each run's temperature divided them, but for a constant a clip and the rounding."""
        temperatures = np.array([float(clip["temperature"]) for clip in self.clips])
        return np.log(self.shares().clip(min=ROUNDED_AWAY)) * temperatures[:, None]

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


def _clip_of(clip: Mapping) -> tuple:
    """What tells it from the others of a seed."""
    return clip["condition"], clip["corpus"], clip["path"]


def _parsed(row: Sequence[str], names: Sequence[str]) -> tuple[dict, int, int, list[float]]:
    """A row as `write` made it: the clip, indices of its label and of the answer, probabilities; ValueError if not."""
    if len(row) != (wanted := len(CLIP) + 2 + len(names) + len(RUN)):
        raise ValueError(f"{len(row)} values, where {wanted} were wanted")
    label, prediction, *shares = row[len(CLIP) : -len(RUN)]
    if unknown := {label, prediction} - set(names):
        raise ValueError(f"{min(unknown)!r} is none of the labels {', '.join(names)}")
    clip = dict(zip(CLIP + RUN, (*row[: len(CLIP)], *row[-len(RUN) :]), strict=True))
    return clip, names.index(label), names.index(prediction), [float(share) for share in shares]
