"""Time and memory against what comes in: length of a recording, clips of a batch, of a corpus; with a picture.

    python -m benchmarks.growth --data-dir data --picture docs/performance/growth.svg

Each point is a process of its own, on one thread, that keeps freed memory as the command line does, hears its input
twice and tells the time of the second hearing and its peak memory; a corpus is listed, decoded, checked and cached
once, by two processes. Linear growth is a line of slope one in the picture.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from ser_model.inference import EmotionRecognizer
from ser_model.memory import keep_freed_memory

from . import corpus_scale
from .alternating import machine
from .long_recording import MIB, MODEL, voices_in, write_long
from .recording import recording

LENGTHS_S = (1, 4, 16, 60, 240, 900, 3600)
BATCHES = (1, 4, 16, 64, 256, 1024)
BATCH_CLIP_S = 4.0
CORPORA = (1_000, 10_000, 100_000)  # 0.7 GB of clips, and 1.3 GB of cache


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, help="holds RAVDESS")
    parser.add_argument("--picture", type=Path, help="where the picture goes, .svg or .png")
    parser.add_argument("--hear", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--batch", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.hear or args.batch:
        print(json.dumps(point(args.hear, args.batch)))
        return
    print(f"{machine()}; one thread\n")
    lengths = dict(of_lengths(args.data_dir))
    show("s of sound", "recording", lengths)
    batches = {count: measured("--batch", str(count)) for count in BATCHES}
    show(f"clips of {BATCH_CLIP_S:.0f} s", "batch", batches)
    corpora = dict(of_corpora())
    show("clips of 0.1 to 0.3 s", "corpus", corpora)
    if args.picture:
        draw({"recording, s": lengths, "batch, clips of 4 s": batches, "corpus, clips": corpora}, args.picture)


def of_lengths(data_dir: Path):
    voices = voices_in(data_dir)
    with tempfile.TemporaryDirectory() as folder:
        for seconds in LENGTHS_S:
            path = Path(folder) / "recording.ogg"
            write_long(path, voices, seconds)
            yield seconds, measured("--hear", str(path))


def of_corpora():
    for count in CORPORA:
        with tempfile.TemporaryDirectory() as folder:
            corpus_scale.make_corpus(Path(folder), count)
            loaded, mib, _ = corpus_scale.measured("ours, first", folder, num_proc=2)
            yield count, {"seconds": loaded["seconds"], "mib": mib}


def measured(*what: str) -> dict:
    done = subprocess.run([sys.executable, "-m", __spec__.name, *what], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def point(path: Path | None, count: int | None) -> dict:
    torch.set_num_threads(1)
    keep_freed_memory()
    recognizer = EmotionRecognizer.from_pretrained(MODEL)
    clips = [recording(BATCH_CLIP_S)] * (count or 0)
    for _ in range(2):
        started_s = time.perf_counter()
        recognizer(path) if path else recognizer.scores(clips)
        seconds = time.perf_counter() - started_s
    return {"seconds": seconds, "mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / MIB}


def show(unit: str, title: str, points: dict[int, dict]) -> None:
    print(f"| {title}, {unit} | s | ms for each | peak memory, MiB |\n| --- | --- | --- | --- |")
    for size, own in points.items():
        print(f"| {size} | {own['seconds']:.3f} | {1000 * own['seconds'] / size:.2f} | {own['mib']:.0f} |")
    print()


def draw(columns: dict[str, dict[int, dict]], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4 * len(columns), 5.5), layout="constrained")
    for column, (title, points) in enumerate(columns.items()):
        sizes = np.array(list(points))
        for row, (key, what) in enumerate((("seconds", "time, s"), ("mib", "peak memory, MiB"))):
            axes = figure.add_subplot(2, len(columns), len(columns) * row + column + 1)
            values = np.array([own[key] for own in points.values()])
            axes.loglog(sizes, values, "o-")
            if key == "seconds":
                axes.loglog(sizes, values[-1] * sizes / sizes[-1], "--", color="grey", label="linear")
                axes.legend()
            else:
                axes.set_yscale("linear")
                axes.set_ylim(bottom=0)
            axes.set(xlabel=title, ylabel=what)
            axes.grid(alpha=0.3)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
