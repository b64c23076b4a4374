"""From a file of 4 s to scores, ours against the large models that one would take instead; and our ONNX against eager.

    python -m benchmarks.answer

A 48 kHz wav is decoded, resampled, made features of and judged on one thread, in a process a candidate, in turn. Before
each call a large array is walked through, so that nothing lies ready in the processor's caches, and the system is told
to forget the file. What is loaded is loaded a second time, from files, with all that it needs imported. The peers'
weights are random, for their time does not depend on them; nothing is downloaded.
"""

import argparse
import gc
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile
import torch

from .alternating import machine, table
from .recording import ROOT, write_recording

MODEL, WEIGHTS = ROOT / "checkpoints" / "ser-cnn-8", "model.safetensors"
CLIP_S, RATE_HZ, ROUNDS, CALLS = 4.0, 48_000, 3, 8
CACHE_BYTES = 2**26  # twice the last level of most processors


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--candidate", choices=CANDIDATES, help=argparse.SUPPRESS)  # of a process that is timed
    parser.add_argument("--clip", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.candidate:
        return timed(args.candidate, args.clip)
    with tempfile.TemporaryDirectory() as folder:
        clip = write_recording(Path(folder) / "clip.wav", CLIP_S, RATE_HZ)
        runs = {name: [] for name in CANDIDATES}
        for _ in range(ROUNDS):  # in turn, so that whatever slows the machine slows all of them
            for name in CANDIDATES:
                command = [sys.executable, "-m", "benchmarks.answer", "--candidate", name, "--clip", str(clip)]
                done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
                runs[name].append(json.loads(done.stdout.splitlines()[-1]))
    print(
        f"{machine()}; one thread, a clip of {CLIP_S:.0f} s at {RATE_HZ} Hz, {ROUNDS} processes of {CALLS} calls each\n"
    )
    print(table({name: sum((run["ms"] for run in own), []) for name, own in runs.items()}, "ours"))
    print("\n| | peak memory, MiB | weights, MB | load, s |\n| --- | --- | --- | --- |")
    for name, own in runs.items():
        middle = {key: statistics.median(run[key] for run in own) for key in ("peak_mib", "weights_mb", "load_s")}
        print(f"| {name} | {middle['peak_mib']:.0f} | {middle['weights_mb']:.1f} | {middle['load_s']:.2f} |")


def timed(name: str, clip: Path) -> None:
    """Prints what this process measured as its last line."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        load, weights = CANDIDATES[name](Path(folder))
        load()  # imports, too, what it needs
        before = time.perf_counter()
        answer = load()
        load_s = time.perf_counter() - before
        weights_mb = weights.stat().st_size / 1e6
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # the peak of what comes now
    elsewhere, times_ms = np.ones(CACHE_BYTES, np.uint8), []
    for number in range(CALLS + 1):
        elsewhere += 1
        with open(clip, "rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        before = time.perf_counter()
        answer(clip)
        if number:  # the first call makes what the others find made
            times_ms.append(1000 * (time.perf_counter() - before))
    [peak] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    peak_mib = int(peak.split()[1]) / 1024
    print(json.dumps({"ms": times_ms, "peak_mib": peak_mib, "weights_mb": weights_mb, "load_s": load_s}))


Answer = Callable[[Path], object]
Load = Callable[[], Answer]


def ours(folder: Path) -> tuple[Load, Path]:
    from ser_model.audio import load_audio
    from ser_model.inference import EmotionRecognizer

    def load() -> Answer:
        recognizer = EmotionRecognizer.from_pretrained(MODEL)
        return lambda clip: recognizer.scores([load_audio(clip)])

    return load, MODEL / WEIGHTS


def ours_with_voice_check(folder: Path) -> tuple[Load, Path]:
    from ser_model.inference import EmotionRecognizer

    return lambda: EmotionRecognizer.from_pretrained(MODEL), MODEL / WEIGHTS


def ours_in_onnx(folder: Path) -> tuple[Load, Path]:
    import onnxruntime

    from ser_model.audio import load_audio
    from ser_model.hub import export_onnx
    from ser_model.inference import EmotionRecognizer

    recognizer, path = EmotionRecognizer.from_pretrained(MODEL), folder / "model.onnx"
    export_onnx(recognizer.model, recognizer.extractor, path)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1

    def load() -> Answer:
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

        def answer(clip: Path):
            waveform = load_audio(clip)
            return session.run(["logits"], {"waveform": waveform[None], "lengths": np.array([len(waveform)])})

        return answer

    return load, path


def wav2vec2_base(folder: Path) -> tuple[Load, Path]:
    from transformers import Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2ForSequenceClassification

    return peer(Wav2Vec2ForSequenceClassification, Wav2Vec2Config(num_labels=8), Wav2Vec2FeatureExtractor, folder)


def ast(folder: Path) -> tuple[Load, Path]:
    from transformers import ASTConfig, ASTFeatureExtractor, ASTForAudioClassification

    return peer(ASTForAudioClassification, ASTConfig(num_labels=8), ASTFeatureExtractor, folder)


def peer(model_class, config, extractor_class, folder: Path) -> tuple[Load, Path]:
    """Decoded by soundfile and resampled by torchaudio, as their users do."""
    import torchaudio

    model_class(config).save_pretrained(folder)
    extractor_class().save_pretrained(folder)

    def load() -> Answer:
        model, extractor = model_class.from_pretrained(folder).eval(), extractor_class.from_pretrained(folder)

        @torch.inference_mode()
        def answer(clip: Path):
            samples, rate = soundfile.read(clip, dtype="float32")
            waveform = torchaudio.functional.resample(torch.from_numpy(samples), rate, 16_000)
            return model(**extractor(waveform.numpy(), sampling_rate=16_000, return_tensors="pt")).logits.softmax(-1)

        return answer

    return load, folder / WEIGHTS


CANDIDATES = {
    "ours": ours,
    "ours, with the voice check": ours_with_voice_check,
    "ours, as ONNX": ours_in_onnx,
    "wav2vec2-base": wav2vec2_base,
    "AST": ast,
}

if __name__ == "__main__":
    main()
