"""From files to batches of waveforms: corpora, labels and split, decoded once and kept on disk."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from datasets import ClassLabel, Dataset, Features, List, Value, concatenate_datasets
from torch import Tensor

from .audio import load_audio
from .corpora import find_utterances
from .corpora.base import Problem, Utterance
from .labels import LabelScheme, label_scheme
from .settings import Settings, SplitSettings
from .splits import (
    Split,
    check_split,
    column_split,
    corpus_split,
    published_split,
    random_split,
    speaker_split,
)


@dataclass(frozen=True)
class EmotionData:
    """What a run works on.

    utterances: those that have a label, in the order of `dataset`.
    problems: files that were left out, with the reason.
    notes: remarks on the data as a whole.
    dataset: columns path, corpus, speaker, sex, label, waveform.
    """

    scheme: LabelScheme
    utterances: list[Utterance]
    problems: list[Problem]
    notes: list[str]
    dataset: Dataset
    split: Split

    def part(self, name: str) -> Dataset:
        """The rows of "train", "validation" or "test"."""
        return self.dataset.select(getattr(self.split, name))


def load_data(settings: Settings, data_dir: str | Path, sampling_rate: int) -> EmotionData:
    """Find, label, split, check and decode. Decoded audio is cached by `datasets`; a changed file is decoded again."""
    scan = find_utterances(data_dir, settings.data.corpora)
    scheme = label_scheme(settings.labels)
    labelled = [(utterance, scheme.label(utterance)) for utterance in scan.utterances]
    labelled = [(utterance, label) for utterance, label in labelled if label is not None]
    utterances = [utterance for utterance, _ in labelled]
    labels = [label for _, label in labelled]
    split = make_split(utterances, labels, settings.split, settings.seed)
    check_split(split, utterances)
    table = {
        "corpus": [utterance.corpus for utterance in utterances],
        "speaker": [utterance.speaker for utterance in utterances],
        "sex": [utterance.sex for utterance in utterances],
        "label": [scheme.names.index(label) for label in labels],
    }
    features = Features({key: Value("string") for key in table} | {"label": ClassLabel(names=list(scheme.names))})
    dataset = concatenate_datasets(
        [decoded([utterance.path for utterance in utterances], sampling_rate), Dataset.from_dict(table, features)],
        axis=1,
    )
    return EmotionData(scheme, utterances, scan.problems, scan.notes, dataset, split)


def make_split(utterances: list[Utterance], labels: list[str], settings: SplitSettings, seed: int) -> Split:
    """The split that the settings ask for."""
    test, validation = settings.test, settings.validation
    if settings.kind == "random":
        return random_split(utterances, labels, test=test, validation=validation, seed=seed)
    if settings.kind == "speakers":
        return speaker_split(utterances, labels, test=test, validation=validation, seed=seed)
    if settings.kind == "published":
        return published_split(utterances, settings.name, settings.fold, validation=validation, seed=seed)
    if settings.kind == "corpora":
        return corpus_split(utterances, labels, test_corpora=test, validation=validation, seed=seed)
    return column_split(utterances)


def decoded(paths: Sequence[Path], sampling_rate: int) -> Dataset:
    """Columns path and waveform (T,) float32, memory-mapped from the cache of `datasets`.

    Name, size and time of every file are part of the cache's key, so that a changed file is read again.
    """
    stamps = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in paths]
    return Dataset.from_generator(
        _decode,
        features=Features({"path": Value("string"), "waveform": List(Value("float32"))}),
        gen_kwargs={"stamps": stamps, "sampling_rate": sampling_rate},
    )


def _decode(stamps: list[tuple[str, int, int]], sampling_rate: int) -> Iterator[dict]:
    for path, _, _ in stamps:
        yield {"path": path, "waveform": load_audio(path, sampling_rate)}


def collate(rows: list[dict]) -> dict[str, Tensor]:
    """Rows -> waveforms (B, T) padded with zeros, lengths (B,) in samples, labels (B,)."""
    waveforms = [torch.from_numpy(np.asarray(row["waveform"], dtype=np.float32)) for row in rows]
    return {
        "waveforms": torch.nn.utils.rnn.pad_sequence(waveforms, batch_first=True),
        "lengths": torch.tensor([len(waveform) for waveform in waveforms]),
        "labels": torch.tensor([int(row["label"]) for row in rows]),
    }
