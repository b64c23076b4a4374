"""Every bad input through every door: the page's API, the command line, the feature extractor, the trainer.

Wanted of each: an answer or one sentence, in bounded time and memory, no traceback, nothing left in a temporary folder,
and the next good recording answered.
"""

import csv
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np

from ser_model import SERFeatureExtractor
from ser_model.audio import AudioError, load_audio

from . import fuzz
from .bad_inputs import BAD_INPUTS, flips, write_all
from .page import answer_of, is_answered, memory_mib, served
from .recordings import tone, with_soundfile
from .report import Part

ROOT = Path(__file__).resolve().parent.parent
GOOD = ROOT / "examples" / "synthetic_angry_voice.flac"
MAX_SECONDS, MAX_EXTRA_MIB = 30.0, 1024  # the first two hours of any recording are heard, which may take 20 s
SHORT = (  # of every kind one or two: what `make test` has time for
    "empty.wav",
    "text.mp3",
    "pickle.wav",
    "wav whose rate is 4294967295.wav",
    "wav whose channels is 255.wav",
    "50 percent of a tone.m4a",
    "NaN as FLOAT.wav",
    "denormals.wav",
    "video without sound.mp4",
    "protected by a shop.m4p",
    "=cmd|' C calc'!A0.wav",
    "line\nbreak.wav",
    "<svg onload=alert(1)>.wav",
    "聲音.wav",
    "bomb.zip",
)


def run(short: bool = False) -> Iterator[Part]:
    names = list(SHORT) if short else None
    yield through_the_decoder(300 if short else 10_000)
    yield fuzz.run(runs=300) if short else fuzz.run(seconds=600)
    with files(names) as paths:
        yield through_the_api(paths)
        yield through_the_command_line(paths)
        yield through_the_trainer(paths)
    yield through_the_extractor()


@contextmanager
def files(names: list[str] | None) -> Iterator[list[Path]]:
    with tempfile.TemporaryDirectory(prefix="bad-inputs-") as folder:
        yield write_all(Path(folder), names)


def through_the_decoder(count: int) -> Part:
    """Recordings of every codec with bits turned over, straight into `load_audio`."""
    outcomes, slowest_s, problems = Counter(), 0.0, []
    for name, data in flips(count):
        started_s = time.monotonic()
        try:
            waveform = load_audio(data)
            outcomes["read" if np.isfinite(waveform).all() else "not finite"] += 1
        except AudioError:
            outcomes["refused in a sentence"] += 1
        took_s = time.monotonic() - started_s
        slowest_s = max(slowest_s, took_s)
        if took_s > MAX_SECONDS:
            problems.append(f"{name} took {took_s:.1f} s")
    problems += ["samples that are no numbers were let through"] * outcomes["not finite"]
    rows = [(outcome, str(number)) for outcome, number in sorted(outcomes.items())]
    return Part(f"{count} recordings with bits turned over", [*rows, ("slowest", f"{slowest_s:.2f} s")], problems)


def through_the_command_line(paths: list[Path]) -> Part:
    """All of them in one `predict`, a good recording behind them."""
    with tempfile.TemporaryDirectory() as temporary:
        good = shutil.copy(GOOD, Path(temporary) / "zz good.flac")
        output = Path(temporary) / "answers.csv"
        scratch = Path(temporary) / "scratch"
        scratch.mkdir()
        command = [sys.executable, "-m", "ser_model", "predict", "--output", str(output), "--"]
        process, seconds, peak_mib = measured([*command, *map(str, [*paths, good])], {"TMPDIR": str(scratch)})
        with open(output, newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        left = sorted(path.name for path in scratch.rglob("*"))
    answered, refused = (sum(bool(row[key]) for row in rows) for key in ("label", "error"))
    problems = [f"{row['path']!r} has neither answer nor error" for row in rows if not (row["label"] or row["error"])]
    problems += [f"{len(paths) + 1} files went in, {len(rows)} rows came out"] * (len(rows) != len(paths) + 1)
    problems += ["the good recording got no answer"] * (not rows or not rows[-1]["label"])
    problems += ["a traceback was shown"] * ("Traceback" in process.stderr)
    problems += [f"left behind: {', '.join(left)}"] * bool(left)
    problems += [
        f"{row['path']!r} could be run as a formula" for row in rows if row["path"].startswith(tuple("=+@\t\r"))
    ]
    return Part(
        "Bad inputs through the command line",
        [
            ("files", str(len(rows))),
            ("answered", str(answered)),
            ("refused in a sentence", str(refused)),
            ("seconds in all, start included", f"{seconds:.0f}"),
            ("peak memory", f"{peak_mib:.0f} MiB"),
        ],
        problems,
    )


def through_the_trainer(paths: list[Path]) -> Part:
    """As clips of a corpus of one's own, among good ones; one epoch of a small network must come out."""
    with tempfile.TemporaryDirectory() as temporary:
        data_dir, output_dir = Path(temporary) / "data", Path(temporary) / "out"
        rng = np.random.default_rng(0)
        for label in ("calm", "tense"):
            (data_dir / "mine" / label).mkdir(parents=True)
            for number in range(12):
                sound = tone(16_000, 1.0, rng.uniform(100, 400)) + 0.01 * rng.standard_normal(16_000)
                (data_dir / "mine" / label / f"good {number}.wav").write_bytes(with_soundfile(sound, 16_000))
        for path in paths:
            (data_dir / "mine" / "calm" / path.name).symlink_to(path)
        command = [sys.executable, "train.py", "--config", "configs/finetune_folder.yaml", "--data-dir", str(data_dir)]
        command += ["--output-dir", str(output_dir), "--training.epochs", "1", "--training.trackers", "[]"]
        process, seconds, peak_mib = measured(command)
        problems = [f"train.py ended with {process.returncode}: {process.stderr[-300:]}"] * bool(process.returncode)
        problems += ["a traceback was shown"] * ("Traceback" in process.stderr)
        listed = []
        if not process.returncode:
            with open(output_dir / "left_out.csv", newline="", encoding="utf-8") as file:
                listed = list(csv.DictReader(file))
        problems += [f"{row['path']!r} is left out without a reason" for row in listed if not row["reason"]]
    return Part(
        "Bad inputs through the trainer",
        [
            ("files among the good clips", str(len(paths))),
            ("left out, each with its reason", str(len(listed))),
            ("seconds in all, start and one epoch included", f"{seconds:.0f}"),
            ("peak memory", f"{peak_mib:.0f} MiB"),
        ],
        problems,
    )


def through_the_api(paths: list[Path]) -> Part:
    """Each uploaded to the page as a visitor would, and behind every tenth a good recording that must be answered."""
    good = GOOD.read_bytes()
    outcomes, problems, slowest = Counter(), [], (0.0, "")
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder) / "scratch"
        scratch.mkdir()
        with served(Path(folder), {"TMPDIR": str(scratch)}) as (url, server):
            say = partial(answer_of, url)
            idle_mib = highest_mib = memory_mib(server) if is_answered(say(GOOD.name, good)) else 0.0
            for number, path in enumerate(paths):
                content = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
                started_s = time.monotonic()
                answer = say(path.name, content)
                slowest = max(slowest, (time.monotonic() - started_s, path.name))
                highest_mib = max(highest_mib, memory_mib(server))
                if isinstance(answer, str):
                    outcomes["refused at the door"] += 1
                    problems += [f"{path.name!r}: {answer[:100]}"] * ("Traceback" in answer or answer.startswith("5"))
                else:
                    outcomes["answered" if answer["label"] else f"told: {answer['status']}"] += 1
                    problems += [f"{path.name!r}: no word of why"] * (not answer["message"])
                if number % 10 == 9 and not is_answered(say(GOOD.name, good)):
                    problems.append(f"after {path.name!r} a good recording got no answer")
        left = [file.name for file in scratch.rglob("*") if file.is_file()]
        problems += ["a traceback in the log"] * ("Traceback" in (Path(folder) / "log.txt").read_text(encoding="utf-8"))
    problems += [f"left behind: {', '.join(sorted(left)[:3])}"] * bool(left)
    problems += [f"{slowest[1]!r} took {slowest[0]:.1f} s"] * (slowest[0] > MAX_SECONDS)
    problems += [f"memory grew by {highest_mib - idle_mib:.0f} MiB"] * (highest_mib - idle_mib > MAX_EXTRA_MIB)
    rows = [(outcome, str(count)) for outcome, count in sorted(outcomes.items())]
    rows += [("slowest", f"{slowest[0]:.2f} s"), ("memory above idle", f"{highest_mib - idle_mib:.0f} MiB")]
    return Part("Bad inputs through the page's API", [("files", str(len(paths))), *rows], problems)


def through_the_extractor() -> Part:
    """Arrays of every odd kind straight into the extractor, each answered by finite features or a ValueError."""
    extractor = SERFeatureExtractor()
    rng = np.random.default_rng(0)
    sound = rng.uniform(-0.5, 0.5, 16_000)
    arrays = {f"{size} samples": sound[:size] for size in (0, 1, 100, 639, 640, 641)}
    arrays |= {f"as {kind}": (sound * scale).astype(kind) for kind, scale in KINDS.items()}
    for value in (np.nan, np.inf, -np.inf, 1e38, 5e-324, 33.0):
        arrays[f"one sample of {value}"] = np.where(np.arange(16_000) == 7000, value, sound)
    arrays |= {f"all {value}": np.full(16_000, value) for value in (0.0, 1.0, -1.0, 1e-45)}
    arrays |= {"two channels": np.stack([sound, sound]), "no array": "sound", "nothing": None, "a number": 0.5}
    outcomes, problems = Counter(), []
    for name, array in arrays.items():
        try:
            features = extractor(array, sampling_rate=16_000, return_tensors="np")["input_features"]
            outcomes["features"] += 1
            if not np.isfinite(features).all():
                problems.append(f"{name}: features that are no numbers")
        except (ValueError, TypeError) as error:
            outcomes["refused in a sentence"] += 1
            if not str(error):
                problems.append(f"{name}: refused without a word")
    return Part("Odd arrays through the feature extractor", [(key, str(n)) for key, n in outcomes.items()], problems)


KINDS = {"float16": 1, "float32": 1, "float64": 1, "int8": 127, "int16": 32767, "int32": 2**31 - 1, "uint8": 127}
KINDS |= {"int64": 2**62, "complex64": 1, "bool": 2}


def measured(command: list[str], settings: dict[str, str] | None = None):
    """Run to its end: the process, wall seconds and its peak memory in MiB."""
    started_s = time.monotonic()
    with (
        tempfile.TemporaryFile("w+", encoding="utf-8") as stdout,
        tempfile.TemporaryFile("w+", encoding="utf-8") as stderr,
    ):
        process = subprocess.Popen(
            command, cwd=ROOT, stdout=stdout, stderr=stderr, text=True, env=os.environ | (settings or {})
        )
        _, status, usage = os.wait4(process.pid, 0)
        texts = []
        for file in (stdout, stderr):
            file.seek(0)
            texts.append(file.read())
    result = subprocess.CompletedProcess(command, os.waitstatus_to_exitcode(status), *texts)
    process.returncode = result.returncode
    return result, time.monotonic() - started_s, usage.ru_maxrss / 1024


assert set(SHORT) <= BAD_INPUTS.keys()
