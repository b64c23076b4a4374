"""What each file holds: decoded once, measured, checked for damage, and kept on disk.

    <cache folder>/v2/  sounds-<id>.arrow        name and stamp of each file, and the fields of `Sound`
                        sounds-16000-<id>.arrow  the same, and the waveform (T,) float32 at 16 kHz

A shard is written under another name, renamed when it is whole, and never changed. So a process that is killed leaves
nothing half done, of two processes at once the worst is work done twice, and the folder can be moved, copied or deleted
at any time. A row counts as long as its stamp (size and times) is the file's: only what is new or changed is decoded.
"""

import hashlib
import logging
import math
import multiprocessing
import os
import signal
import sys
import threading
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from tqdm import tqdm

from .audio import FULL_SCALE, SAMPLING_RATE_HZ, AudioError, NoSoundError, Watch, load_audio
from .corpora.base import Problem, Utterance

logger = logging.getLogger(__name__)

QUIETEST_DB = -100.0  # stands for digital silence, whose level would be minus infinity
SILENT_SWING = 0.001  # 33 steps of 16 bits; the quietest clip of RAVDESS swings by 0.004
SHORTEST_S = 0.025  # one analysis frame
CLIPPED_LEFT_OUT_SHARE = 0.01  # one sample in a hundred at full scale is heard as crackle throughout
LONGEST_S = 600  # a batch is as long as its longest clip: with a minute in it 16 take half a GB more
CLIPPED_SAMPLES = 3  # that many may lie at full scale in a recording that was made as loud as it can be

SHARD_FILES = 1000  # what a killed process loses at most; 130 MB of waveforms of 2 s
MAX_SHARDS = 256  # each is kept open while in use, and 1024 open files are a common limit
BATCH_FILES, BATCH_SAMPLES = 100, 4_000_000  # written together, so that 16 MB of waveforms wait in memory
ABANDONED_S = 86_400  # an unfinished shard that nobody has written to for a day belongs to a process that was killed


@dataclass(frozen=True, slots=True)
class Sound:
    """What one file's audio turned out to be.

    duration_s: as decoded, before any resampling.
    sampling_rate: of the file, in Hz.
    channels: of the file.
    peak: the largest |sample| of any channel; 1 is full scale.
    loudness_db: RMS of the mean of the channels in dB of full scale, at least QUIETEST_DB.
    content: hash of the rate and of the mean of the channels, so that a wav and its flac agree; "" if unreadable.
    problem: None, or why it must not be used: "unreadable: ...", "badly named: ...", "empty: ...", "silent: ...",
        "clipped: ...".
    warning: None, or a fault that leaves it usable: "clipped: ..." for a few samples, "damaged: ...".
    """

    duration_s: float
    sampling_rate: int
    channels: int
    peak: float
    loudness_db: float
    content: str
    problem: str | None
    warning: str | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """Where a waveform is kept."""

    shard: Path
    index: int


FACTS = {
    "duration_s": pa.float64(),
    "sampling_rate": pa.int32(),
    "channels": pa.int32(),
    "peak": pa.float32(),
    "loudness_db": pa.float32(),
    "content": pa.string(),
    "problem": pa.string(),
    "warning": pa.string(),
}
assert tuple(FACTS) == tuple(field.name for field in fields(Sound))
SCHEMA = pa.schema({"name": pa.string(), "stamp": pa.string(), **FACTS})
WAVEFORM = pa.field("waveform", pa.list_(pa.float32()))


def inspect_files(
    paths: Sequence[Path], *, cache_dir: Path | None = None, progress: bool = False, num_proc: int = 1
) -> list[Sound]:
    """What each file holds, in the order given; never raises for what is wrong with a file.

    Args:
        paths: sound files.
        cache_dir: where the findings are kept; `default_cache_dir` if left out.
        progress: show a bar for what has to be decoded.
        num_proc: processes that decode.
    """
    sounds, _ = _sounds(paths, None, cache_dir, progress, num_proc)
    return sounds


def decode_files(
    paths: Sequence[Path],
    sampling_rate: int,
    *,
    cache_dir: Path | None = None,
    progress: bool = False,
    num_proc: int = 1,
) -> tuple[list[Sound], list[Row | None]]:
    """`inspect_files`, and where the waveform of each file at `sampling_rate` is kept: None for what has none."""
    return _sounds(paths, sampling_rate, cache_dir, progress, num_proc)


def screen(
    utterances: Sequence[Utterance], labels: Sequence[str], sounds: Sequence[Sound], frame_ms: float = 0.0
) -> tuple[list[int], list[Problem]]:
    """Indices of the utterances that may be used, and for each other one the reason why not.

    Left out are damaged files, those shorter than a frame of the features, `frame_ms`, and files that hold the same
    sound: under one label the first in the order of paths is kept; where labels differ nobody knows which is right, and
    all go. So are those of more than LONGEST_S.
    """
    reasons = {index: sound.problem for index, sound in enumerate(sounds) if sound.problem}
    for index, sound in enumerate(sounds):
        if index in reasons:
            continue
        if 1000 * sound.duration_s < frame_ms:
            reasons[index] = f"empty: {1000 * sound.duration_s:.0f} ms, less than a frame of {frame_ms:g} ms"
        elif sound.duration_s > LONGEST_S:
            reasons[index] = (
                f"too long: {sound.duration_s:.0f} s; an utterance has one label and {LONGEST_S} s at most, so cut it"
            )
    same = defaultdict(list)
    for index in sorted(range(len(utterances)), key=lambda index: utterances[index].path.as_posix()):
        if index not in reasons:
            same[sounds[index].content].append(index)
    for first, *others in same.values():
        if any(labels[index] != labels[first] for index in others):
            told = ", ".join(f"{labels[index]} in {_short(utterances[index].path)}" for index in (first, *others))
            reasons |= dict.fromkeys((first, *others), f"conflicting labels: the same sound is {told}")
        else:
            reasons |= dict.fromkeys(others, f"duplicate: the same sound as {_short(utterances[first].path)}")
    problems = [Problem(utterances[index].path, reasons[index], utterances[index].corpus) for index in sorted(reasons)]
    return [index for index in range(len(utterances)) if index not in reasons], problems


def default_cache_dir() -> Path:
    """`SER_CACHE_DIR`, else ser_model in the user's cache folder."""
    if named := os.environ.get("SER_CACHE_DIR"):
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ser_model"


def _short(path: Path) -> str:
    return f"{path.parent.name}/{path.name}"


# ── Measuring one file ──


class _Meter(Watch):
    """Sums over the blocks of one file."""

    def __init__(self):
        self.begin()

    def begin(self) -> None:
        self.rate_hz = self.channels = self.frames = self.full_scale_samples = 0
        self.peak = self.energy = 0.0
        self.low, self.high = math.inf, -math.inf
        self.hash = hashlib.blake2b(digest_size=16)
        self.damages: list[str] = []

    def block(self, rate_hz: int, samples: np.ndarray, mono: np.ndarray) -> None:
        if not self.frames:
            self.hash.update(b"%d " % rate_hz)
        self.rate_hz, self.channels = rate_hz, samples.shape[1]
        self.frames += len(mono)
        magnitude = np.abs(samples)
        self.peak = max(self.peak, float(magnitude.max(initial=0)))
        self.low = min(self.low, float(mono.min(initial=math.inf)))
        self.high = max(self.high, float(mono.max(initial=-math.inf)))
        if self.peak >= FULL_SCALE:
            self.full_scale_samples += int((magnitude.max(axis=1) >= FULL_SCALE).sum())
        self.energy += float(np.dot(mono, mono))
        self.hash.update(np.ascontiguousarray(mono))

    def damage(self, name: str, what: str) -> None:
        self.damages.append(what)

    def sound(self) -> Sound:
        duration_s = self.frames / self.rate_hz
        mean_square = self.energy / self.frames
        loudness_db = max(10 * math.log10(mean_square), QUIETEST_DB) if mean_square > 0 else QUIETEST_DB
        warnings = [f"damaged: {what}" for what in self.damages]
        problem = None
        clipped = f"clipped: {self.full_scale_samples} of {self.frames} samples at full scale"
        if duration_s < SHORTEST_S:
            problem = f"empty: only {self.frames} samples"
        elif (self.high - self.low) / 2 < SILENT_SWING:
            problem = f"silent: no sample above {max(abs(self.low), abs(self.high)):.4f} of full scale"
        elif self.full_scale_samples > CLIPPED_LEFT_OUT_SHARE * self.frames:
            problem = clipped
        elif self.full_scale_samples > CLIPPED_SAMPLES:
            warnings.append(clipped)
        return Sound(
            duration_s,
            self.rate_hz,
            self.channels,
            self.peak,
            loudness_db,
            self.hash.hexdigest(),
            problem,
            "; ".join(warnings) or None,
        )


def _measure(name: str, sampling_rate: int | None) -> tuple[Sound, np.ndarray | None]:
    """The sound of a file, and its waveform at `sampling_rate` unless it cannot be read."""
    try:
        name.encode()
    except UnicodeEncodeError:  # no table could hold it
        return _nothing("badly named: its name is not UTF-8; rename it"), None
    meter = _Meter()
    try:
        waveform = load_audio(name, sampling_rate or SAMPLING_RATE_HZ, watch=meter)
    except AudioError as error:
        kind = "empty" if isinstance(error, NoSoundError) else "unreadable"
        return _nothing(f"{kind}: {error.__cause__ or error}"), None
    return meter.sound(), waveform


def _nothing(problem: str) -> Sound:
    return Sound(0.0, 0, 0, 0.0, QUIETEST_DB, "", problem)


# ── Keeping what was measured ──


def _sounds(
    paths: Sequence[Path], sampling_rate: int | None, cache_dir: Path | None, progress: bool, num_proc: int
) -> tuple[list[Sound], list[Row | None]]:
    names = [os.path.abspath(path) for path in paths]
    stamps = {name: _stamp(name) for name in names}
    folder = Path(cache_dir or default_cache_dir()) / "v2"
    known = _look_up(folder, stamps, sampling_rate)
    unusable: dict[str, Sound] = {}
    if todo := [(name, stamp) for name, stamp in stamps.items() if name not in known]:
        folder.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(folder)
        unusable = _decode_all(todo, folder, sampling_rate, progress, num_proc)
        known |= _look_up(folder, dict(todo), sampling_rate)
    found = [known.get(name) or (unusable[name], None) for name in names]
    return [sound for sound, _ in found], [row for _, row in found]


def _stamp(name: str) -> str:
    """Changes whenever the file does: the second time is that of the inode, which no program can set back."""
    try:
        status = os.stat(name)
    except (OSError, ValueError):
        return ""
    return f"{status.st_size}-{status.st_mtime_ns}-{status.st_ctime_ns}"


def _look_up(folder: Path, stamps: Mapping[str, str], sampling_rate: int | None) -> dict[str, tuple[Sound, Row]]:
    """What the shards know of the files whose names and stamps are given; only their small columns are read."""
    found = {}
    for shard in sorted(folder.glob(f"sounds-{sampling_rate}-*.arrow" if sampling_rate else "sounds-*.arrow")):
        try:
            with pa.memory_map(str(shard)) as file:
                table = pa.ipc.open_stream(file).read_all()
                names, written = table["name"].to_pylist(), table["stamp"].to_pylist()
                rows = [i for i, name in enumerate(names) if name not in found and stamps.get(name) == written[i]]
                facts = [table[fact].take(rows).to_pylist() for fact in FACTS] if rows else []
        except (OSError, pa.ArrowException) as error:
            logger.warning("%s cannot be read and is passed over (%s); you may delete it", shard, error)
            continue
        found |= {names[i]: (Sound(*fact), Row(shard, i)) for i, *fact in zip(rows, *facts, strict=True)}
    return found


def _decode_all(
    todo: Sequence[tuple[str, str]], folder: Path, sampling_rate: int | None, progress: bool, num_proc: int
) -> dict[str, Sound]:
    """Decode all files into shards; returns the ones that have no row there because there is nothing to keep."""
    files = SHARD_FILES if num_proc == 1 else min(SHARD_FILES, max(50, math.ceil(len(todo) / (4 * num_proc))))
    files = max(files, math.ceil(len(todo) / MAX_SHARDS))
    shards = [todo[start : start + files] for start in range(0, len(todo), files)]
    num_proc = min(num_proc, len(shards))
    unusable: dict[str, Sound] = {}
    disable = None if progress else True  # None: unless stderr is a terminal
    with tqdm(total=len(todo), unit="file", desc="decoding", disable=disable, dynamic_ncols=True) as bar:
        if num_proc == 1:
            for shard in shards:
                unusable |= _write_shard(shard, folder, sampling_rate, bar.update)
            return unusable
        context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
        decoded = context.Value("q", 0)

        def tick() -> None:
            _count(decoded)
            bar.update(decoded.value - bar.n)

        with ProcessPoolExecutor(num_proc - 1, context, _enter_worker, (decoded,)) as pool:
            futures = [pool.submit(_write_shard_in_worker, shard, folder, sampling_rate) for shard in shards]
            try:  # this process is one of num_proc, and takes from the other end what no worker has begun
                for future, shard in zip(reversed(futures), reversed(shards), strict=True):
                    if future.cancel():
                        unusable |= _write_shard(shard, folder, sampling_rate, tick)
                waiting = {future for future in futures if not future.cancelled()}
                while waiting:
                    done, waiting = wait(waiting, timeout=0.2, return_when=FIRST_COMPLETED)
                    bar.update(decoded.value - bar.n)
                    for future in done:
                        unusable |= future.result()
            except BaseException:  # also Ctrl-C: what waits is not begun
                pool.shutdown(wait=False, cancel_futures=True)
                raise
    return unusable


def _write_shard(
    todo: Sequence[tuple[str, str]], folder: Path, sampling_rate: int | None, tick: Callable[[], None]
) -> dict[str, Sound]:
    unusable: dict[str, Sound] = {}
    kind = f"sounds-{sampling_rate}" if sampling_rate else "sounds"
    shard = folder / f"{kind}-{uuid.uuid4().hex}.arrow"
    unfinished = shard.with_suffix(".unfinished")
    schema = SCHEMA.append(WAVEFORM) if sampling_rate else SCHEMA
    try:
        with open(unfinished, "wb") as file:
            with pa.ipc.new_stream(file, schema) as stream:
                for batch in _batches(todo, sampling_rate, unusable, tick):
                    stream.write_batch(pa.record_batch(batch, schema))
            file.flush()
            os.fsync(file.fileno())
        if len(unusable) < len(todo):
            unfinished.rename(shard)
    finally:
        unfinished.unlink(missing_ok=True)
    return unusable


def _batches(
    todo: Sequence[tuple[str, str]], sampling_rate: int | None, unusable: dict[str, Sound], tick: Callable[[], None]
) -> Iterator[dict]:
    """Columns of some files at a time. What has no waveform goes to `unusable`; the next start will try it again."""
    rows, waveforms = [], []
    for number, (name, stamp) in enumerate(todo, 1):
        sound, waveform = _measure(name, sampling_rate) if stamp else (_nothing("unreadable: no such file"), None)
        tick()
        if waveform is None:
            unusable[name] = sound
        else:
            rows.append((name, stamp, *(getattr(sound, fact) for fact in FACTS)))
            waveforms.append(waveform if sampling_rate else waveform[:0])
        if rows and (number == len(todo) or len(rows) == BATCH_FILES or sum(map(len, waveforms)) > BATCH_SAMPLES):
            columns = dict(zip(SCHEMA.names, map(list, zip(*rows, strict=True)), strict=True))
            if sampling_rate:
                ends = np.cumsum([0, *map(len, waveforms)], dtype=np.int32)
                columns["waveform"] = pa.ListArray.from_arrays(ends, pa.array(np.concatenate(waveforms)))
            yield columns
            rows, waveforms = [], []


def _remove_abandoned(folder: Path) -> None:
    for unfinished in folder.glob("*.unfinished"):
        try:
            if time.time() - unfinished.stat().st_mtime > ABANDONED_S:
                unfinished.unlink()
        except FileNotFoundError:  # finished, or removed by another process
            continue


# ── Worker processes ──

_decoded = None  # counts over all workers, for the bar


def _enter_worker(decoded) -> None:
    global _decoded
    _decoded = decoded
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, and what is begun is finished
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # a fork has the parent's handler, which is not for this process
    torch.set_num_threads(1)  # one process a core; and a forked process must not use its parent's pool of threads
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A parent that was killed tells nobody: without this its workers would wait for ever."""
    multiprocessing.parent_process().join()
    os._exit(1)


def _write_shard_in_worker(*arguments) -> dict[str, Sound]:
    return _write_shard(*arguments, lambda: _count(_decoded))


def _count(decoded) -> None:
    with decoded.get_lock():
        decoded.value += 1
