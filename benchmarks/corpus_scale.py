"""Listing, checking and caching a large corpus: one row a start, and `Dataset.from_generator` beside it.

    python -m benchmarks.corpus_scale --count 100000 --num-proc 2

Makes that many clips of 0.1 to 0.3 s (16 kHz, 16 bits) of 500 speakers and a table of them, a few damaged, in a
temporary folder of --dir, and removes them. Every row is a process of its own. Memory is that of the process and its
children, sampled five times a second: pages that they share count once (PSS), or once for each of them (RSS).

`from_generator` checks nothing. (`load_dataset("audiofolder")` cannot even list files without torchcodec.)
"""

import argparse
import csv
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil
import soundfile

RATE_HZ = 16_000
SPEAKERS = 500
EMOTIONS = ("neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised")
DAMAGED_EVERY = 5_000  # in turn: no sound file, no bytes, silence, the clip before once more


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--num-proc", type=int, default=2, help="processes that decode")
    parser.add_argument("--dir", help="where the clips are made; 0.7 GB for 100 000, and 1.3 GB of cache")
    parser.add_argument("--row", choices=ROWS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.row:
        print(json.dumps(ROWS[args.row](Path(args.dir), args.num_proc)))
        return
    with tempfile.TemporaryDirectory(dir=args.dir) as folder:
        started_s = time.monotonic()
        make_corpus(Path(folder), args.count)
        print(f"{args.count} clips made in {time.monotonic() - started_s:.0f} s", file=sys.stderr)
        print("| start | clips | left out | s | files/s | peak PSS, MiB | peak RSS, MiB |")
        print("| --- | --- | --- | --- | --- | --- | --- |")
        for row in ROWS:
            result, pss_mib, rss_mib = measured(row, folder, args.num_proc)
            print(
                f"| {row} | {result['clips']} | {result['left_out']} | {result['seconds']:.1f} | "
                f"{args.count / result['seconds']:.0f} | {pss_mib:.0f} | {rss_mib:.0f} |",
                flush=True,
            )


def make_corpus(folder: Path, count: int) -> None:
    """clips/<speaker>/<number>.wav and clips.csv."""
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 3_000, 60 * RATE_HZ).astype(np.int16)
    for speaker in range(SPEAKERS):
        (folder / "clips" / f"{speaker:03}").mkdir(parents=True)
    with open(folder / "clips.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("path", "label", "speaker", "sex"))
        last = b""
        for index in range(count):
            speaker = index % SPEAKERS
            path = folder / "clips" / f"{speaker:03}" / f"{index:07}.wav"
            writer.writerow((path.relative_to(folder), EMOTIONS[index // SPEAKERS % 8], speaker, "fm"[speaker % 2]))
            start, length = rng.integers(0, 59 * RATE_HZ), rng.integers(RATE_HZ // 10, 3 * RATE_HZ // 10)
            damage = index // DAMAGED_EVERY % 4 if index % DAMAGED_EVERY == DAMAGED_EVERY - 1 else None
            if damage in (0, 1, 3):
                path.write_bytes((b"no sound", b"", b"", last)[damage])
                continue
            soundfile.write(path, noise[start : start + length] * (damage is None), RATE_HZ)
            last = path.read_bytes() if (index + 2) % DAMAGED_EVERY == 0 else b""


def measured(row: str, folder: str, num_proc: int) -> tuple[dict, float, float]:
    """The result of a row's process, and the most memory that it and its children held, in MiB: PSS, RSS."""
    command = [sys.executable, "-m", "benchmarks.corpus_scale", "--row", row, "--dir", folder]
    process = subprocess.Popen([*command, "--num-proc", str(num_proc)], stdout=subprocess.PIPE, text=True)
    peaks = (0, 0)
    while process.poll() is None:
        peaks = tuple(map(max, peaks, memory_bytes(process.pid)))
        time.sleep(0.2)
    if process.returncode:
        sys.exit(f"{row} ended with {process.returncode}")
    return json.loads(process.stdout.read().splitlines()[-1]), peaks[0] / 2**20, peaks[1] / 2**20


def memory_bytes(pid: int) -> tuple[int, int]:
    pss = rss = 0
    try:
        tree = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0, 0
    for process in tree:
        try:
            memory = process.memory_full_info()
        except psutil.NoSuchProcess:
            continue
        pss, rss = pss + memory.pss, rss + memory.rss
    return pss, rss


def load(folder: Path, num_proc: int, streaming: bool = False) -> dict:
    from ser_model.data import load_data
    from ser_model.settings import Settings

    settings = Settings(
        name="scale",
        data={"corpora": [{"name": "folder", "path": "clips.csv"}], "num_proc": num_proc, "streaming": streaming},
    )
    started_s = time.monotonic()
    data = load_data(settings, folder, RATE_HZ, cache_dir=folder / "cache", progress=True)
    seconds = time.monotonic() - started_s
    return {"seconds": seconds, "clips": len(data.dataset), "left_out": len(data.problems)}


def load_changed(folder: Path, num_proc: int) -> dict:
    """After a hundred clips were swapped among themselves."""
    clips = sorted((folder / "clips" / "007").iterdir())[:100]
    for one, other in zip(clips[::2], clips[1::2], strict=True):
        content = one.read_bytes()
        one.write_bytes(other.read_bytes())
        other.write_bytes(content)
    return load(folder, num_proc)


def from_generator(folder: Path, num_proc: int) -> dict:
    """What `datasets` offers: decode everything into one cache, which is void as soon as one file changes."""
    from datasets import Dataset, Features, List, Value

    started_s = time.monotonic()
    paths = sorted((folder / "clips").rglob("*.wav"))
    stamps = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in paths]
    rows = Dataset.from_generator(
        _decode,
        features=Features({"path": Value("string"), "waveform": List(Value("float32"))}),
        gen_kwargs={"stamps": stamps},
        cache_dir=str(folder / "datasets"),
        num_proc=num_proc,
    )
    return {"seconds": time.monotonic() - started_s, "clips": len(rows), "left_out": len(paths) - len(rows)}


def _decode(stamps):
    from ser_model.audio import AudioError, load_audio

    for path, _, _ in stamps:
        try:
            yield {"path": path, "waveform": load_audio(path, RATE_HZ)}
        except AudioError:
            continue


ROWS = {
    "ours, first": load,
    "ours, second": load,
    "ours, 100 clips changed": load_changed,
    "from_generator, first": from_generator,
    "from_generator, second": from_generator,
}

if __name__ == "__main__":
    main()
