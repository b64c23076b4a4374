"""From files to batches: corpora, labels, damage and split checked, waveforms memory-mapped or streamed.

    find_utterances -> label_scheme -> inspection (decode, measure, screen) -> split -> EmotionData

Columns: path, corpus, speaker, sex, emotion, intensity, text, channel, duration_s, sampling_rate, content, label,
index, and waveform (T,) float32, mono, at the model's rate. `sampling_rate` and `duration_s` are the file's own;
`index` is the clip's number in this data set, which keys its augmentation; a speaker whom nobody names is None.
"""

import csv
import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from datasets import (
    ClassLabel,
    Dataset,
    Features,
    IterableDataset,
    List,
    Value,
    concatenate_datasets,
)
from joblib import cpu_count
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from .audio import load_audio
from .corpora import CorpusError, find_utterances
from .corpora.base import Folders, Problem, Scan, Utterance, relative_path
from .inspection import Row, Sound, decode_files, inspect_files, screen
from .labels import LabelError, LabelScheme, label_scheme
from .settings import DataSettings, Settings, SplitSettings
from .splits import (
    Split,
    SplitError,
    all_split,
    check_split,
    column_split,
    corpus_split,
    manifest,
    published_split,
    random_split,
    speaker_split,
)

TEXT_COLUMNS = ("path", "corpus", "speaker", "sex", "emotion", "intensity", "text", "channel")
WAVEFORM = List(Value("float32"))
STREAM_BUFFER = 10_000  # clips among which a stream draws, 1 kB each
STREAM_SHARDS = 64  # a stream is shuffled by whole shards first, and shared out to workers and nodes by them
MOST_OF_A_BATCH = 1.25  # times `batch_size`, for memory and learning rate were chosen for that
LISTED = 100  # damaged files that the message of a strict run names


class DataError(ValueError):
    """Damaged files where none were to be, or no usable clip."""


DATA_ERRORS = (CorpusError, DataError, LabelError, SplitError)  # what is wrong with settings or data in `load_data`


@dataclass(frozen=True)
class EmotionData:
    """What a run works on; made by `load_data`.

    utterances, sounds: the clips in use, as their names describe them and as they were heard, in `dataset`'s order.
    problems: files that were left out, with the reason.
    warnings: files that are used in spite of a fault.
    notes: remarks on the data as a whole.
    dataset: the columns above; without waveform where clips are streamed.
    folders: what names of clips are given relative to, wherever others may read them; see `relative_path`.
    """

    scheme: LabelScheme
    utterances: list[Utterance]
    sounds: list[Sound]
    problems: list[Problem]
    warnings: list[Problem]
    notes: list[str]
    dataset: Dataset
    split: Split
    settings: DataSettings
    model_rate_hz: int
    folders: tuple[Path, ...]

    def rows(self, name: str) -> Dataset:
        """The rows of "train", "validation" or "test"; without waveforms where they are streamed."""
        return self.dataset.select(getattr(self.split, name))

    def part(self, name: str, shuffle_seed: int | None = None) -> Dataset | IterableDataset:
        """The rows of "train", "validation" or "test" with their waveforms.

        `shuffle_seed` shuffles: all rows, or where they are streamed whole shards, and rows within a buffer, which
        holds names and no sound, unlike that of `.shuffle` on the result. A new epoch (`set_epoch`) is a new order.
        """
        rows = self.rows(name)
        if not self.settings.streaming:
            return rows if shuffle_seed is None else rows.shuffle(seed=shuffle_seed)
        stream = rows.to_iterable_dataset(num_shards=min(STREAM_SHARDS, len(rows)))
        if shuffle_seed is not None:
            stream = stream.shuffle(seed=shuffle_seed, buffer_size=STREAM_BUFFER)
        decode = partial(_with_waveform, sampling_rate=self.model_rate_hz)
        return stream.map(decode, features=Features({**rows.features, "waveform": WAVEFORM}))

    def loader(self, name: str, batches: "int | EvenBatches") -> DataLoader:
        """Batches of a part (see `collate`), the same ones streamed or not: so many clips each in order, or as drawn.

        Streamed clips are decoded where a batch is put together, in `data.num_proc` processes ahead of their use or in
        this one. The rows themselves, names and labels, are at hand in any order: so processes that train together
        share them out as ever, the last batch is gathered exactly, and a stopped run finds its place again.
        """
        if isinstance(batches, int):
            options = {"batch_size": batches}
        else:  # a generator of its own: every pass draws a seed for workers, and not from what dropout draws from
            options = {"batch_sampler": batches, "generator": torch.Generator().manual_seed(batches.seed)}
        if not self.settings.streaming:
            rows = self.rows(name).select_columns(["waveform", "label", "index"]).with_format("numpy")
            return DataLoader(rows, collate_fn=collate, **options)
        decode = partial(_decode_and_collate, sampling_rate=self.model_rate_hz)
        rows = self.rows(name).select_columns(["path", "label", "index"])
        return DataLoader(rows, collate_fn=decode, num_workers=self.settings.num_proc or 0, **options)

    def in_turn(self, shares: Mapping[str, float]) -> list[tuple[np.ndarray, int]]:
        """The training clips of the corpora named, and how many of each make up its share, for `EvenBatches`.

        Raises:
            DataError: no training clip is of such a corpus.
        """
        corpora = np.array([self.utterances[index].corpus for index in self.split.train])
        if missing := [name for name in shares if name not in corpora]:
            raise DataError(
                f"training.corpus_shares: no clip to train on is of {missing[0]!r}; there are "
                f"{', '.join(sorted(set(corpora)))}"
            )
        groups = [(np.flatnonzero(corpora == name), share) for name, share in shares.items()]
        return [(clips, math.ceil(share * len(clips))) for clips, share in groups]

    def manifest(self) -> dict:
        """The split's, see `splits.manifest`."""
        return manifest(self.split, self.utterances, self.folders)

    def summary(self) -> dict:
        """How much is used and what was left out, by kind, for metrics.json."""
        return {
            "clips": len(self.utterances),
            "hours": round(sum(sound.duration_s for sound in self.sounds) / 3600, 3),
            "left_out": dict(sorted(Counter(problem.kind for problem in self.problems).items())),
            "used_with_warning": len(self.warnings),
        }


def left_out_words(counts: Mapping[str, int]) -> str:
    """ "3 files left out: 1 silent, 2 unreadable", of `EmotionData.summary`'s counts."""
    each = ", ".join(f"{count} {kind}" for kind, count in counts.items())
    total = sum(counts.values())
    return f"{total} file{'s' * (total != 1)} left out{f': {each}' if each else ''}"


class EvenBatches(Sampler[list[int]]):
    """Every clip once an epoch, in batches of about the same size, whatever is left over spread among them.

    Of clips named in `in_turn` an epoch has only so many, and the next one goes on after them.

    Seed and epoch decide the order, and there is no state to save: set `epoch` before each. With several processes each
    item is the share of one of them, in turn, so that together they take the batches that one alone would, with
    `processes * batch_size` clips.

    Args:
        num_clips: to draw from.
        batch_size: clips a share; with those left over a few more, or less where that would be more than a quarter.
        seed: of the run.
        processes: that train together.
        accumulation_steps: batches a step of the optimizer; the number of batches is a multiple of it.
        in_turn: groups of clips (integer array), and of how many of each an epoch has.

    Raises:
        DataError: so few clips that a process would get none or one.
    """

    def __init__(
        self,
        num_clips: int,
        batch_size: int,
        seed: int,
        processes: int = 1,
        accumulation_steps: int = 1,
        in_turn: Sequence[tuple[np.ndarray, int]] = (),
    ):
        self.always = np.setdiff1d(np.arange(num_clips), [clip for clips, _ in in_turn for clip in clips])
        self.in_turn = [(np.random.default_rng(seed).permutation(clips), count) for clips, count in in_turn]
        num_clips = len(self.always) + sum(count for _, count in in_turn)
        if num_clips < 2 * processes * accumulation_steps:
            raise DataError(
                f"{num_clips} clips to train on cannot be shared out to {processes} processes, {accumulation_steps} "
                "batches a step, two or more a batch; take fewer processes, or more clips"
            )
        clips_a_step = batch_size * processes * accumulation_steps
        steps = max(1, num_clips // clips_a_step)
        enough = num_clips >= 2 * processes * accumulation_steps * (steps + 1)
        if num_clips > MOST_OF_A_BATCH * clips_a_step * steps and enough:  # only of a few steps, three at most
            steps += 1
        self.num_clips, self.seed, self.processes = num_clips, seed, processes
        self.num_batches = steps * accumulation_steps
        self.mean_share = num_clips / (self.num_batches * processes)
        self.epoch = 0

    def __len__(self) -> int:
        return self.num_batches * self.processes

    def __iter__(self) -> Iterator[list[int]]:
        parts = [self.always]
        for clips, count in self.in_turn:
            parts.append(clips.take(np.arange(count) + self.epoch * count, mode="wrap"))
        order = np.random.default_rng((self.seed, self.epoch)).permutation(self.num_clips)
        for batch in np.array_split(np.concatenate(parts)[order], self.num_batches):
            yield from (share.tolist() for share in np.array_split(batch, self.processes))

    def clips_before(self, batch: int) -> int:
        """How many clips the first batches of an epoch hold, over all processes."""
        size, more = divmod(self.num_clips, self.num_batches)
        return batch * size + min(batch, more)


def load_data(
    settings: Settings,
    data_dir: str | Path,
    sampling_rate: int,
    *,
    frame_ms: float = 0.0,
    cache_dir: Path | None = None,
    progress: bool = False,
) -> EmotionData:
    """Find, label, decode, screen, split and check.

    Args:
        settings: the run's; `data`, `labels`, `split` and `seed` are read.
        data_dir: the folder that holds the corpora.
        sampling_rate: of the waveforms, in Hz.
        frame_ms: of the features; what is shorter is left out.
        cache_dir: see `inspection`.
        progress: show a bar while files are decoded.

    Raises:
        CorpusError, LabelError, SplitError: settings that do not fit the data.
        DataError: nothing of a corpus can be used; or any file is damaged and `data.strict` is set.
    """
    scan = find_utterances(data_dir, settings.data.corpora)
    scheme = label_scheme(settings.labels)
    labelled = label_utterances(scan.utterances, scheme)
    utterances, labels = labelled.utterances, labelled.labels
    options = {"cache_dir": cache_dir, "progress": progress, "num_proc": settings.data.num_proc or cpu_count()}
    paths = [utterance.path for utterance in utterances]
    rows: Sequence[Row | None] = ()
    if settings.data.streaming:
        sounds = inspect_files(paths, **options)
    else:
        sounds, rows = decode_files(paths, sampling_rate, **options)
    kept, damaged = screen(utterances, labels, sounds, frame_ms)
    problems = [*scan.problems, *labelled.problems, *damaged]
    utterances, labels, sounds = ([column[index] for index in kept] for column in (utterances, labels, sounds))
    _refuse(problems, scan, utterances, settings.data.strict)
    warnings = [
        Problem(utterance.path, sound.warning, utterance.corpus)
        for utterance, sound in zip(utterances, sounds, strict=True)
        if sound.warning
    ]
    dropped = Counter(utterance.emotion for utterance in labelled.dropped)
    notes = [f"{count} clips are {emotion}, which the labels drop" for emotion, count in sorted(dropped.items())]
    own_names = isinstance(settings.labels, dict) and "names" in settings.labels
    notes = [*scan.notes, *notes, *_remarks(problems, warnings, scheme, labels, own_names)]
    if settings.split.kind not in ("column", "all") and (parted := sum(bool(own.split) for own in utterances)):
        notes.append(
            f"WARNING: {parted} clips say which part of a split they belong to, which a split of the kind "
            f"{settings.split.kind!r} does not heed; to keep to it: --split.kind column"
        )
    split = make_split(utterances, labels, settings.split, settings.seed)
    check_split(split, utterances, [sound.content for sound in sounds])
    columns = _columns(utterances, sounds, labels, scheme.names)
    if settings.data.streaming:
        dataset = _table(columns, scheme.names)
    else:
        dataset = _with_waveforms(columns, scheme.names, [rows[index] for index in kept])
    heard = (scheme, utterances, sounds, problems, warnings, notes)
    return EmotionData(*heard, dataset, split, settings.data, sampling_rate, scan.folders)


def make_split(utterances: list[Utterance], labels: list[str], settings: SplitSettings, seed: int) -> Split:
    """The split that the settings ask for; `seed` is the run's, for what they give none of their own."""
    test, validation = settings.test, settings.validation
    seed = seed if settings.seed is None else settings.seed
    if settings.kind == "random":
        return random_split(utterances, labels, test=test, validation=validation, seed=seed)
    if settings.kind == "speakers":
        return speaker_split(utterances, labels, test=test, validation=validation, seed=seed)
    if settings.kind == "published":
        return published_split(utterances, settings.name, settings.fold, validation=validation, seed=seed)
    if settings.kind == "corpora":
        return corpus_split(utterances, labels, test_corpora=test, validation=validation, seed=seed)
    return column_split(utterances, labels) if settings.kind == "column" else all_split(utterances)


def write_left_out(problems: Sequence[Problem], path: str | Path, folders: Folders) -> None:
    """A CSV with the columns path (see `relative_path`), corpus, reason.

    A name that is not UTF-8 keeps its bytes, so that the file can be found by it.
    """
    with open(path, "w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        writer = csv.writer(file)
        writer.writerow(("path", "corpus", "reason"))
        for problem in problems:
            writer.writerow((relative_path(problem.path, folders), problem.corpus, problem.reason))


def collate(rows: list[dict]) -> dict[str, Tensor]:
    """Rows -> waveforms (B, T) padded with zeros, lengths (B,) in samples, labels (B,), indices (B,)."""
    lengths = [len(row["waveform"]) for row in rows]
    waveforms = np.zeros((len(rows), max(lengths)), np.float32)
    for padded, row, length in zip(waveforms, rows, lengths, strict=True):
        padded[:length] = row["waveform"]
    return {
        "waveforms": torch.from_numpy(waveforms),
        "lengths": torch.tensor(lengths),
        "labels": torch.tensor([int(row["label"]) for row in rows]),
        "indices": torch.tensor([int(row["index"]) for row in rows]),
    }


# ── What is used, and what is not ──


@dataclass
class Labelled:
    """Utterances that have a label, and their labels; those the scheme drops; those whose label is unknown."""

    utterances: list[Utterance] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    dropped: list[Utterance] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)


def label_utterances(utterances: Sequence[Utterance], scheme: LabelScheme) -> Labelled:
    """Give each utterance its class."""
    result = Labelled()
    for utterance in utterances:
        try:
            label = scheme.label(utterance)
        except LabelError as error:
            reason = str(error).removeprefix(f"{utterance.path}: ")
            result.problems.append(Problem(utterance.path, f"label unknown: {reason}", utterance.corpus))
            continue
        if label is None:
            result.dropped.append(utterance)
        else:
            result.utterances.append(utterance)
            result.labels.append(label)
    return result


def _refuse(problems: Sequence[Problem], scan: Scan, kept: Sequence[Utterance], strict: bool) -> None:
    if strict and problems:
        listed = [f"{problem.path}: {problem.reason}" for problem in problems[:LISTED]]
        more = [f"and {len(problems) - LISTED} more"] if len(problems) > LISTED else []
        raise DataError("\n  ".join([f"{len(problems)} files cannot be used, and data.strict is set:", *listed, *more]))
    for corpus in {utterance.corpus for utterance in scan.utterances} - {utterance.corpus for utterance in kept}:
        reasons = [problem.reason for problem in problems if problem.corpus == corpus]
        said = f"the first reason is {reasons[0]}" if reasons else "the labels drop every one"
        raise DataError(f"no clip of {corpus} can be used; {said}. Mend that, or take it out of data.corpora")


def _remarks(
    problems: Sequence[Problem],
    warnings: Sequence[Problem],
    scheme: LabelScheme,
    labels: Sequence[str],
    own_names: bool,
) -> list[str]:
    """`own_names`: the labels were made up for these data, so that each should occur."""
    present = set(labels)
    absent = "WARNING: no clip is {}, which the labels name" if own_names else "no clip is {}"
    notes = [absent.format(name) for name in scheme.names if name not in present]
    if warnings:
        first = f"{warnings[0].path}: {warnings[0].reason}"
        notes.append(f"{len(warnings)} files are used in spite of a fault; the first is {first}")
    if conflicts := [problem for problem in problems if problem.kind == "conflicting labels"]:
        notes.append(
            f"LABELS CONTRADICT EACH OTHER: {len(conflicts)} files hold a sound that another file has under another "
            f"label, and all are left out; the first is {conflicts[0].path}: {conflicts[0].reason}"
        )
    return notes


# ── Tables ──


def _columns(utterances: Sequence[Utterance], sounds: Sequence[Sound], labels: Sequence[str], names: Sequence[str]):
    """Every column but the waveform, as lists."""
    columns = {key: [getattr(utterance, key) for utterance in utterances] for key in TEXT_COLUMNS}
    columns["path"] = [str(path) for path in columns["path"]]
    columns["speaker"] = [utterance.speaker if utterance.speaker_known else None for utterance in utterances]
    columns |= {key: [getattr(sound, key) for sound in sounds] for key in ("duration_s", "sampling_rate", "content")}
    index_of = {name: index for index, name in enumerate(names)}
    return {**columns, "label": [index_of[label] for label in labels], "index": list(range(len(labels)))}


def _table(columns: dict[str, list], names: Sequence[str]) -> Dataset:
    features = {key: Value("string") for key in TEXT_COLUMNS}
    features |= {"duration_s": Value("float64"), "sampling_rate": Value("int32"), "content": Value("string")}
    features |= {"label": ClassLabel(names=list(names)), "index": Value("int64")}
    schema = Features(features).arrow_schema
    return Dataset(pa.table(columns, schema=schema))


def _with_waveforms(columns: dict[str, list], names: Sequence[str], rows: Sequence[Row]) -> Dataset:
    """The table and, memory-mapped beside it, the waveform of each row.

    Shards are laid end to end as they are, the table's rows are brought into that order (rows of shards that nobody
    asked for get None), and an index restores the table's own order: no waveform is copied.
    """
    owners = defaultdict(dict)  # shard -> its row -> the table's row
    for owner, row in enumerate(rows):
        owners[row.shard][row.index] = owner
    shards = [Dataset.from_file(str(shard)).select_columns("waveform") for shard in owners]
    owner_of = [
        own.get(index) for own, shard in zip(owners.values(), shards, strict=True) for index in range(len(shard))
    ]
    spread = {key: [None if owner is None else column[owner] for owner in owner_of] for key, column in columns.items()}
    beside = concatenate_datasets([_table(spread, names), concatenate_datasets(shards)], axis=1)
    place_of = {owner: place for place, owner in enumerate(owner_of) if owner is not None}
    return beside.select([place_of[owner] for owner in range(len(rows))])


def _with_waveform(row: dict, sampling_rate: int) -> dict:
    return {"waveform": load_audio(row["path"], sampling_rate)}


def _decode_and_collate(rows: list[dict], sampling_rate: int) -> dict[str, Tensor]:
    return collate([row | _with_waveform(row, sampling_rate) for row in rows])
