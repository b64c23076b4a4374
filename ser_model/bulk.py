"""Predictions for any number of files: shared out to processes, taken up again after a break, one CSV at the end.

Files are judged in batches, counted from 0. What is done lies in `<output>.parts` until the CSV is whole: one JSON line
`[number, rows]` a batch, in one file a process and start. A line that a break left half-written does not count.
"""

import csv
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from accelerate import PartialState
from tqdm import tqdm

from .disk import write_whole
from .inference import EmotionRecognizer, header, predicted_rows

BATCH_SIZE = 16  # files; fixed, so that any number of processes and breaks gives the same padding and the same bytes
JOB = "job.json"


class BulkError(ValueError):
    """Why predictions cannot be written there, and what to do about it."""


def predict_files(
    recognizer: EmotionRecognizer, files: Sequence[str], output: Path, processes: PartialState
) -> tuple[int, int]:
    """One CSV row a file, see `inference.header`, in the order of `files`.

    Each process does its share, on a file system that all of them see; the main one puts the CSV together. Stopped
    anywhere, the same call goes on after the last finished batch.

    Returns:
        How many files were answered, and how many have an error in place of an answer; in the main process.

    Raises:
        BulkError: the CSV is there already, or what lies in its place is of another model or other files.
    """
    parts = output.parent / f"{output.name}.parts"
    job = {"model": _model_hash(recognizer), "files": _hash(files), "count": len(files), "batch_size": BATCH_SIZE}
    _check(output, parts, job)
    done = _finished(parts)
    processes.wait_for_everyone()  # everyone has read before anyone writes: all see the same batches to do
    with processes.main_process_first():
        _begin(parts, job)
    numbers = [number for number in range(-(-len(files) // BATCH_SIZE)) if number not in done]
    if done and processes.is_main_process:
        tqdm.write(f"{parts}: {len(done)} batches of {BATCH_SIZE} files are done, {len(numbers)} to go")
    _work(recognizer, files, numbers[processes.process_index :: processes.num_processes], parts, processes)
    processes.wait_for_everyone()
    if not processes.is_main_process:
        return 0, 0
    return _merge(parts, len(numbers) + len(done), header(recognizer), output)


def _check(output: Path, parts: Path, job: dict) -> None:
    if output.exists() and not output.is_file():
        raise BulkError(f"{output} is {'a folder' if output.is_dir() else 'no file'}; name a CSV file to write")
    if not output.parent.is_dir():
        raise BulkError(f"no folder {output.parent} to write {output.name} to; make it first")
    if (parts / JOB).is_file():
        begun = json.loads((parts / JOB).read_text(encoding="utf-8"))
        if different := [key for key in job if begun.get(key) != job[key]]:
            raise BulkError(
                f"{parts} holds the unfinished rows of another run, with other {' and '.join(different)}; run its "
                "command again to finish it, delete the folder, or choose another --output"
            )
    elif output.exists():
        raise BulkError(f"{output} is there already; delete it or choose another --output")


def _begin(parts: Path, job: dict) -> None:
    if not (parts / JOB).exists():
        parts.mkdir(exist_ok=True)
        write_whole(parts / JOB, json.dumps(job).encode())


def _work(
    recognizer: EmotionRecognizer, files: Sequence[str], numbers: list[int], parts: Path, processes: PartialState
) -> None:
    handle, _ = tempfile.mkstemp(prefix=f"{processes.process_index}-", suffix=".jsonl", dir=parts)
    with os.fdopen(handle, "w", encoding="utf-8") as part:
        for number in tqdm(numbers, disable=not processes.is_main_process, unit="batch"):
            rows = predicted_rows(recognizer, files[number * BATCH_SIZE : (number + 1) * BATCH_SIZE])
            part.write(json.dumps([number, rows]) + "\n")
            part.flush()


def _finished(parts: Path) -> dict[int, tuple[Path, int]]:
    """Where each finished batch lies: its file, and the byte at which its line starts."""
    places = {}
    for part in sorted(parts.glob("*.jsonl")):
        with open(part, "rb") as lines:
            start = 0
            for line in lines:
                if line.endswith(b"\n"):
                    places[json.loads(line)[0]] = part, start
                start += len(line)
    return places


def _merge(parts: Path, batches: int, columns: list[str], output: Path) -> tuple[int, int]:
    """The CSV in the order of the files, in its place at one stroke; the parts are gone after it."""
    places = _finished(parts)
    if missing := batches - len(places):
        raise BulkError(f"{parts} lacks {missing} batches; if no other process writes to it, run the command again")
    answered = failed = 0
    whole = parts / "whole.csv"
    with open(whole, "w", newline="", encoding="utf-8", errors="surrogateescape") as file:  # names of any bytes
        writer = csv.writer(file)
        writer.writerow(columns)
        for row in _rows(places, batches):
            writer.writerow(row)
            failed += bool(row[-1])
            answered += not row[-1]
        file.flush()
        os.fsync(file.fileno())
    os.replace(whole, output)
    for part in parts.glob("*.jsonl"):  # before the job that they belong to, or a break would leave rows of nobody
        part.unlink()
    shutil.rmtree(parts)
    return answered, failed


def _rows(places: dict[int, tuple[Path, int]], batches: int) -> Iterator[list[str]]:
    for number in range(batches):
        part, start = places[number]
        with open(part, "rb") as lines:
            lines.seek(start)
            yield from json.loads(lines.readline())[1]


def _hash(texts: Sequence[str]) -> str:
    digest = hashlib.sha256()
    for text in texts:
        digest.update(os.fsencode(text) + b"\0")
    return digest.hexdigest()


def _model_hash(recognizer: EmotionRecognizer) -> str:
    """Of all that an answer depends on: settings of network and features, and weights."""
    model = recognizer.model
    settings = (model.config.to_json_string(), recognizer.extractor.to_json_string())
    digest = hashlib.sha256("".join(settings).encode())
    for name, weight in model.state_dict().items():
        digest.update(name.encode())
        digest.update(weight.cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()
