"""The same clip through every door gives the same answer; and the same however it is batched, threaded or run again."""

import csv
import itertools
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from gradio_client import Client, handle_file
from transformers import AutoFeatureExtractor, AutoModelForAudioClassification, pipeline

from ser_model.audio import load_audio
from ser_model.corpora import find_utterances
from ser_model.hub import export_onnx
from ser_model.inference import EmotionRecognizer

from .report import Part

ROOT = Path(__file__).resolve().parent.parent
TOLERANCE = 1e-4  # of a probability
AGAIN = 1e-5  # of the same door
RUN_AGAIN = """
import json, sys, torch
from pathlib import Path
torch.set_num_threads(int(sys.argv[2]))
from ser_model.audio import load_audio
from ser_model.inference import EmotionRecognizer
clips = [load_audio(path) for path in json.loads(Path(sys.argv[3]).read_text(encoding="utf-8"))]
recognizer, size = EmotionRecognizer.from_pretrained(sys.argv[1]), int(sys.argv[4])
batches = [recognizer.scores(clips[first : first + size]) for first in range(0, len(clips), size)]
print(json.dumps([row for batch in batches for row in batch.tolist()]))
"""


def real_clips(data_dir: Path, count: int) -> list[Path]:
    """Evenly from all corpora and speakers."""
    found = find_utterances(data_dir, [{"name": "ravdess", "channels": ["speech"]}, {"name": "tess"}])
    clips = sorted(utterance.path for utterance in found.utterances)
    return clips[:: max(1, len(clips) // count)][:count]


def run(model_dir: Path, data_dir: Path, url: str, count: int = 100) -> Iterator[Part]:
    """`url` is where the page is served, with `model_dir` as its model."""
    paths = real_clips(data_dir, count)
    recognizer = EmotionRecognizer.from_pretrained(model_dir)
    predictions = [recognizer(path) for path in paths]
    # What no door but these answers is compared by the others: a model alone has no voice check.
    heard = [index for index, prediction in enumerate(predictions) if prediction.scores]
    paths = [paths[index] for index in heard]
    ours = [predictions[index].scores for index in heard]
    yield compared(paths, ours, doors(recognizer, model_dir, paths, url), predictions)
    yield repeated(model_dir, paths)


def doors(recognizer, model_dir: Path, paths: list[Path], url: str) -> Iterator[tuple[str, list[dict[str, float]]]]:
    labels = recognizer.labels
    waveforms = [load_audio(path) for path in paths]
    yield "Python, one window of the timeline", [recognizer(path).windows[0].scores for path in paths]

    model = AutoModelForAudioClassification.from_pretrained(model_dir, trust_remote_code=True).eval()
    extractor = AutoFeatureExtractor.from_pretrained(model_dir, trust_remote_code=True)
    with torch.inference_mode():
        rows = [model(**extractor(clip, sampling_rate=16_000, return_tensors="pt")).logits[0] for clip in waveforms]
    yield "Auto classes", [named(labels, row.softmax(dim=-1).numpy()) for row in rows]

    classify = pipeline("audio-classification", model=str(model_dir), trust_remote_code=True)
    answers = [classify({"raw": clip, "sampling_rate": 16_000}, top_k=None) for clip in waveforms]
    yield "pipeline", [{one["label"]: one["score"] for one in answer} for answer in answers]

    with tempfile.TemporaryDirectory() as folder:
        export_onnx(recognizer.model, recognizer.extractor, Path(folder) / "model.onnx")
        session = onnxruntime.InferenceSession(Path(folder) / "model.onnx", providers=["CPUExecutionProvider"])
        rows = [
            session.run(["logits"], {"waveform": clip[None], "lengths": np.array([len(clip)])})[0][0]
            for clip in waveforms
        ]
        yield "ONNX", [named(labels, np.exp(row - row.max()) / np.exp(row - row.max()).sum()) for row in rows]

        output = Path(folder) / "answers.csv"
        command = [sys.executable, "-m", "ser_model", "predict", *map(str, paths), "--model", str(model_dir)]
        subprocess.run([*command, "--output", str(output)], cwd=ROOT, check=True, capture_output=True)
        with open(output, newline="", encoding="utf-8") as file:
            yield "command line", [{label: float(row[label]) for label in labels} for row in csv.DictReader(file)]

    client = Client(url, verbose=False)
    yield "page's API", [client.predict(handle_file(path), api_name="/predict")["scores"] for path in paths]


def named(labels: list[str], row: np.ndarray) -> dict[str, float]:
    return dict(zip(labels, map(float, row), strict=True))


def compared(paths, ours, answers, predictions) -> Part:
    rows = [("clips", f"{len(predictions)}, of which {len(paths)} are answered")]
    problems = []
    for door, theirs in answers:
        apart = [
            max(abs(mine[label] - other[label]) for label in mine) for mine, other in zip(ours, theirs, strict=True)
        ]
        rows.append((f"{door}: largest difference of a score", f"{max(apart):.1e}"))
        for path, mine, other, difference in zip(paths, ours, theirs, apart, strict=True):
            if difference > TOLERANCE or max(mine, key=mine.get) != max(other, key=other.get):
                problems.append(f"{door}: {path.name} differs by {difference:.1e}")
    return Part(f"The same answer from every door, to {TOLERANCE}", rows, problems)


def repeated(model_dir: Path, paths: list[Path]) -> Part:
    """In processes of their own, with one and two threads, one by one, by seven and all at once."""
    rows, problems, first = [], [], None
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", suffix=".json") as listing:
        listing.write(json.dumps([str(path) for path in paths]))
        listing.flush()
        for threads, batch_size in itertools.product((1, 2), (1, 7, len(paths))):
            command = [sys.executable, "-c", RUN_AGAIN, str(model_dir), str(threads), listing.name, str(batch_size)]
            done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
            scores = np.array(json.loads(done.stdout))
            first = scores if first is None else first
            difference = np.abs(scores - first).max()
            rows.append((f"{threads} threads, {batch_size} at once: largest difference", f"{difference:.1e}"))
            problems += [f"{threads} threads, {batch_size} at once: {difference:.1e}"] * bool(difference > AGAIN)
    return Part(f"The same answer again, to {AGAIN}", rows, problems)
