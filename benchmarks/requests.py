"""The page's API beside a bare `gr.Interface` around a pipeline of wav2vec2-base: start-up, and answers to visitors.

    python -m benchmarks.requests

Both servers stand on this machine at once and are asked in turn, by one visitor and by sixteen, each upload a recording
of 4 s. The peer's weights are random, for its time does not depend on them. It is what `gr.Interface.from_pipeline`
makes, written out, for that one asks transformers 5 for a pipeline which is gone (Gradio 6).
"""

import asyncio
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil

from ser_model.inference import EmotionRecognizer
from torture.load import visit
from torture.page import answer_of, served
from torture.recordings import with_soundfile

from .alternating import machine
from .recording import ROOT, recording

sys.path.append(str(ROOT / "tests"))

from serving import free_port, wait_until_it_answers  # noqa: E402

CLIP_S, ROUNDS, SECONDS, VISITORS = 4.0, 3, 20.0, (1, 16)
PEER = """
import sys
import gradio as gr
from transformers import Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2ForSequenceClassification, pipeline
model = Wav2Vec2ForSequenceClassification(Wav2Vec2Config(num_labels=8)).eval()
classify = pipeline("audio-classification", model=model, feature_extractor=Wav2Vec2FeatureExtractor())
answer = lambda path: {one["label"]: one["score"] for one in classify(path)}
page = gr.Interface(answer, gr.Audio(type="filepath"), gr.Label(), api_name="predict")
page.queue(max_size=32).launch(server_port=int(sys.argv[1]))
"""


def main() -> None:
    sound = recording(CLIP_S)
    servers = {"ours": served, "bare Interface, wav2vec2-base": bare}
    print(f"{machine()}; a recording of {CLIP_S:.0f} s, {ROUNDS} rounds of {SECONDS:.0f} s\n")
    first_s = {name: [first_answer_s(serve, sound) for _ in range(ROUNDS)] for name, serve in servers.items()}
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as two:
        with served(Path(one)) as our_server, bare(Path(two)) as their_server:
            running = dict(zip(servers, (our_server, their_server), strict=True))
            tallies = {(name, visitors): [] for name in running for visitors in VISITORS}
            for _ in range(ROUNDS):
                for (name, visitors), own in tallies.items():
                    url, process = running[name]
                    own.append(asyncio.run(visit(url, sound, visitors, SECONDS, process, marked=name == "ours")))
    print("| server | visitors | answers/s, median (range) | middle latency, s | 95 % within, s | errors |")
    print("| --- | --- | --- | --- | --- | --- |")
    for (name, visitors), own in tallies.items():
        rates = [len(tally.latencies_s) / SECONDS for tally in own]
        latencies = sum((tally.latencies_s for tally in own), [])
        wrong = sum(tally.turned_away + sum(tally.errors.values()) for tally in own)
        middle, high = np.percentile(latencies, [50, 95]) if latencies else (np.nan, np.nan)
        spread = f"{statistics.median(rates):.1f} ({min(rates):.1f} to {max(rates):.1f})"
        print(f"| {name} | {visitors} | {spread} | {middle:.3f} | {high:.3f} | {wrong} |")
    print("\n| server | start to first answer, s, median (range) |\n| --- | --- |")
    for name, values in first_s.items():
        print(f"| {name} | {statistics.median(values):.1f} ({min(values):.1f} to {max(values):.1f}) |")
    recognizer, times_ms = EmotionRecognizer.from_pretrained(ROOT / "checkpoints" / "ser-cnn-8"), []
    for _ in range(20):
        before = time.perf_counter()
        recognizer(sound, 16_000)
        times_ms.append(1000 * (time.perf_counter() - before))
    print(f"\nThe recognizer alone, in this process: {statistics.median(times_ms):.0f} ms")


@contextmanager
def bare(folder: Path) -> Iterator[tuple[str, psutil.Process]]:
    port = free_port()
    process = subprocess.Popen([sys.executable, "-c", PEER, str(port)], cwd=folder, stdout=subprocess.DEVNULL)
    try:
        url = f"http://127.0.0.1:{port}"
        wait_until_it_answers(url, process)
        yield url, psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait(timeout=30)


def first_answer_s(serve, sound: np.ndarray) -> float:
    before = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder, serve(Path(folder)) as (url, _):
        answer = answer_of(url, "first.wav", with_soundfile(sound, 16_000, subtype="PCM_16"))
        assert isinstance(answer, dict), answer
        return time.perf_counter() - before


if __name__ == "__main__":
    main()
