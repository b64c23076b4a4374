"""How long an hour takes, and how much memory; and how long a live answer takes.

    python -m benchmarks.long_recording --data-dir data [--minutes 60]

Each length is heard in a process of its own, on one thread. The recording is made of RAVDESS clips with pauses of one
to three seconds, as 48 kHz Ogg Vorbis, and deleted afterwards.
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
import soundfile
import torch

from ser_model.audio import load_audio, resample
from ser_model.inference import EmotionRecognizer
from ser_model.streaming import LiveRecognizer

MODEL = Path(__file__).resolve().parent.parent / "checkpoints" / "ser-cnn-8"
RATE = 48_000  # of phones, browsers and video
MIB = 2**10  # of ru_maxrss, which Linux counts in KiB


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, help="holds RAVDESS")
    parser.add_argument("--minutes", type=float, nargs="+", default=[0.1, 1, 10, 60])
    parser.add_argument("--hear", type=Path, help=argparse.SUPPRESS)  # what each process of its own does
    args = parser.parse_args()
    if args.hear:
        print(json.dumps(hear(args.hear)))
        return
    voices = voices_in(args.data_dir)
    print("| recording | s | s per s of sound | windows | stretches of speech | peak memory |")
    print("| --- | --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as folder:
        for minutes in args.minutes:
            path = Path(folder) / "long.ogg"
            write_long(path, voices, 60 * minutes)
            command = [sys.executable, "-m", "benchmarks.long_recording", "--hear", str(path)]
            told = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
            print(
                "| {name} | {seconds:.1f} | {rtf:.4f} | {windows} | {stretches} | {mib:.0f} MiB |".format(
                    name=f"{minutes:g} min", **told
                ),
                flush=True,
            )
    median_ms, slowest_ms = live_answers(voices)
    print(f"\nA live answer: {median_ms:.0f} ms, 95 % within {slowest_ms:.0f} ms, on one thread")


def voices_in(data_dir: Path) -> list[np.ndarray]:
    """Twenty clips of RAVDESS, of four actors."""
    clips = sorted((data_dir / "RAVDESS").rglob("Actor_0[1-4]/03-01-*"))[::12]
    return [resample(load_audio(clip, 16_000), 16_000, RATE) for clip in clips]


def write_long(path: Path, voices: list[np.ndarray], duration_s: float) -> None:
    rng, written = np.random.default_rng(0), 0
    with soundfile.SoundFile(path, "w", RATE, 1, format="OGG", subtype="VORBIS") as file:
        while written < duration_s * RATE:
            pause = 1e-4 * rng.standard_normal(round(rng.uniform(1, 3) * RATE))
            piece = np.concatenate([voices[rng.integers(len(voices))], pause])[: round(duration_s * RATE) - written]
            file.write(piece)
            written += len(piece)


def hear(path: Path) -> dict:
    torch.set_num_threads(1)
    recognizer = EmotionRecognizer.from_pretrained(MODEL)
    started_s = time.perf_counter()
    prediction = recognizer(path)
    seconds = time.perf_counter() - started_s
    return {
        "seconds": seconds,
        "rtf": seconds / prediction.duration_s,
        "windows": len(prediction.windows),
        "stretches": len(prediction.speech),
        "mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / MIB,
    }


def live_answers(voices: list[np.ndarray], duration_s: float = 30.0) -> tuple[float, float]:
    """Milliseconds, median and 95th percentile, from a chunk to the answer it completes."""
    torch.set_num_threads(1)
    recognizer = EmotionRecognizer.from_pretrained(MODEL)
    live = LiveRecognizer(recognizer.recognize, recognizer.sampling_rate)
    sound, taken = np.concatenate(voices)[: round(duration_s * RATE)], []
    for start in range(0, len(sound), RATE // 10):
        started_s = time.perf_counter()
        if live.push(RATE, sound[start : start + RATE // 10]):
            taken.append(1000 * (time.perf_counter() - started_s))
    return float(np.median(taken)), float(np.quantile(taken, 0.95))


if __name__ == "__main__":
    main()
