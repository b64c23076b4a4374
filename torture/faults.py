"""What machines do: a server that is killed under load, a disk that is full."""

import asyncio
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np
import psutil

from ser_model.audio import load_audio

from .load import visit
from .page import answer_of, is_answered, served
from .recordings import with_soundfile
from .report import Part

ROOT = Path(__file__).resolve().parent.parent
VISITORS, UNDER_LOAD_S, DEATHS = 8, 3.0, 5
SMALL_MB = 24  # a disk of this size; a run of two epochs wants more


def run(clip: Path, data_dir: Path) -> Iterator[Part]:
    yield killed_under_load(clip)
    if os.geteuid():
        yield Part("A full disk", [("not tried", "only root can make a small one")])
    else:
        yield full_disk(clip, data_dir)


def killed_under_load(clip: Path) -> Part:
    """kill -9 while visitors are answered; the next server must answer at once, with nothing to repair."""
    sound, back_s, problems = load_audio(clip), [], []
    content = with_soundfile(sound, 16_000, subtype="PCM_16")
    with tempfile.TemporaryDirectory() as folder:
        for death in range(DEATHS):
            try:
                with served(Path(folder)) as (url, server):
                    if death:
                        before = time.monotonic()
                        answer = answer_of(url, "again.wav", content)
                        back_s.append(time.monotonic() - before)
                        problems += [f"after a death: {answer}"] * (not is_answered(answer))
                    threading.Timer(UNDER_LOAD_S, server.kill).start()
                    tally = asyncio.run(visit(url, sound, VISITORS, 2 * UNDER_LOAD_S, server))
            except (psutil.NoSuchProcess, httpx.HTTPError):  # it died under its visitors, as was meant
                tally = None
            problems += ["an answer went to another visitor"] * bool(tally and tally.strangers)
    rows = [("kill -9 with visitors waiting", str(DEATHS)), ("visitors at once", str(VISITORS))]
    rows.append(("first answer of the next server, slowest", f"{max(back_s):.1f} s" if back_s else "none"))
    return Part("Death under load", rows, problems)


@contextmanager
def small_disk(folder: Path, size_mb: int = SMALL_MB) -> Iterator[Path]:
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size_mb}m", "tmpfs", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(disk: Path, left_kb: int) -> None:
    free = psutil.disk_usage(str(disk)).free
    with (disk / "filler").open("wb") as file:
        file.write(bytes(max(0, free - left_kb * 1024)))


def full_disk(clip: Path, data_dir: Path) -> Part:
    """While training, while writing predictions and while a visitor uploads."""
    rows, problems = [], []
    with tempfile.TemporaryDirectory() as folder, small_disk(Path(folder) / "disk") as disk:
        content = with_soundfile(np.resize(load_audio(clip, 48_000), 48_000 * 30), 48_000)
        with served(disk) as (url, _):
            problems += ["a good upload got no answer"] * (not is_answered(answer_of(url, "a.wav", content)))
            fill(disk, 100)
            said = answer_of(url, "b.wav", content)
            rows.append(("an upload to a full disk", str(said)[:80]))
            problems += [f"an upload to a full disk: {said}"] * (isinstance(said, dict) or "Traceback" in said)
            (disk / "filler").unlink()
            if not is_answered(answer_of(url, "c.wav", content)):
                problems.append("with room again, an upload got no answer")
            (disk / "filler").touch()
        for what, command in (
            (
                "predictions to a full disk",
                ["-m", "ser_model", "predict", str(clip), "--output", str(disk / "out.csv")],
            ),
            ("a run to a full disk", ["train.py", *training(data_dir, disk / "run")]),
        ):
            fill(disk, 0 if "predictions" in what else 100)
            done = subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True)
            last = (done.stderr.strip().splitlines() or ["nothing"])[-1].replace(str(disk), "DISK")
            rows.append((what, last[:160]))
            problems += [f"{what}: ended with status {done.returncode}"] * (done.returncode == 0)
            problems += [f"{what}: a traceback"] * ("Traceback" in done.stderr)
            (disk / "filler").unlink()
    return Part("A full disk", rows, problems)


def training(data_dir: Path, output_dir: Path) -> list[str]:
    short = ["--training.epochs", "1", "--training.outlier_sounds", "0"]
    places = ["--data-dir", str(data_dir), "--output-dir", str(output_dir)]
    return ["--config", "configs/tess_speakers.yaml", *places, *short]
