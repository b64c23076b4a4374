"""From any recording to an answer that says how sure it is. Page, command line and API all come through here."""

import csv
import inspect
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, BinaryIO

import numpy as np
import torch
from silero_vad import get_speech_timestamps, load_silero_vad
from transformers import AutoFeatureExtractor, AutoModelForAudioClassification

from . import registration  # noqa: F401  so that Auto classes know our models
from .audio import AudioError, load_audio, prepare_waveform
from .feature_extraction_ser import PEAK_LIMIT

MIN_DURATION_S = 0.5  # a syllable or two: below, the training corpora hold nothing to compare with
MIN_SPEECH_S = 0.25  # the shortest stretch the voice detector itself reports
WINDOW_S = 4.0  # about one utterance of the training corpora, with the quiet around it
WINDOW_HOP_S = 2.0
AUDIO_SUFFIXES = frozenset(
    ".aac .aif .aiff .amr .avi .caf .flac .m4a .mka .mkv .mov .mp3 .mp4 .oga .ogg .opus .wav .webm .wma".split()
)

VOICE, NO_VOICE, TOO_SHORT = "voice", "no_voice", "too_short"


@dataclass(frozen=True)
class Window:
    """Scores of one stretch of a recording, in seconds from its start."""

    start_s: float
    end_s: float
    scores: dict[str, float]


@dataclass(frozen=True)
class Prediction:
    """What was heard.

    status: "voice" when there was something to judge; else "no_voice" or "too_short", and `message` says what to do.
    label, confidence: the likeliest emotion and its calibrated probability; None without a voice.
    scores: calibrated probability of every emotion, likeliest first; empty without a voice.
    windows: the same over time; one for the whole recording when that is short.
    """

    status: str
    message: str
    duration_s: float
    speech_s: float
    label: str | None = None
    confidence: float | None = None
    scores: dict[str, float] | None = None
    windows: tuple[Window, ...] = ()


class EmotionRecognizer:
    """A model, its feature extractor and a voice detector. Safe to share between threads.

    Args:
        model: any audio-classification model of Transformers.
        extractor: the feature extractor saved with it.
    """

    def __init__(self, model, extractor):
        self.model = model.eval()
        self.extractor = extractor
        self.sampling_rate = extractor.sampling_rate
        self.labels = [model.config.id2label[index] for index in range(model.config.num_labels)]
        # Ours pads by itself; those of other models want to be told.
        self._padding = {"padding": True} if "padding" in inspect.signature(extractor.__call__).parameters else {}
        self._voice_detector = load_silero_vad()
        self._voice_lock = threading.Lock()  # the detector keeps a state while it listens

    @classmethod
    def from_pretrained(cls, name_or_path: str | Path, device: str = "cpu", **kwargs) -> "EmotionRecognizer":
        """A local folder or a Hub id; `kwargs` go to both `from_pretrained` (revision, trust_remote_code, ...)."""
        model = AutoModelForAudioClassification.from_pretrained(name_or_path, **kwargs).to(device)
        return cls(model, AutoFeatureExtractor.from_pretrained(name_or_path, **kwargs))

    def __call__(
        self, source: str | Path | bytes | BinaryIO | np.ndarray, sampling_rate: int | None = None
    ) -> Prediction:
        """
        Args:
            source: a file in any common format (path, bytes or open file), or samples (T,) or (T, channels).
            sampling_rate: of samples, in Hz; a file knows its own.

        Raises:
            AudioError: the recording cannot be read; its message says why and what to do.
        """
        return self.recognize([self.load(source, sampling_rate)])[0]

    def load(self, source: str | Path | bytes | BinaryIO | np.ndarray, sampling_rate: int | None = None) -> np.ndarray:
        """Any recording -> mono float32 (T,) at the model's rate; AudioError if it cannot be read."""
        if isinstance(source, np.ndarray):
            if sampling_rate is None:
                raise AudioError("samples came without a sampling rate; pass sampling_rate=... in Hz")
            waveform = prepare_waveform(source, sampling_rate, self.sampling_rate)
        else:
            waveform = load_audio(source, self.sampling_rate)
        if (peak := float(np.abs(waveform).max())) > PEAK_LIMIT:
            raise AudioError(f"the samples peak at {peak:g} where full scale is 1; convert the recording to 16-bit wav")
        return waveform

    def recognize(self, waveforms: Sequence[np.ndarray]) -> list[Prediction]:
        """Waveforms (T,) at the model's rate -> one prediction each; all windows go through the model together."""
        predictions, pending = [], []
        for waveform in waveforms:
            heard = self._speech_or_refusal(waveform)
            if isinstance(heard, Prediction):
                predictions.append(heard)
                continue
            spans = _windows(len(waveform), self.sampling_rate, heard)
            pending.append((len(predictions), waveform, heard, spans))
            predictions.append(None)
        clips = [waveform[start:end] for _, waveform, _, spans in pending for start, end in spans]
        scores = iter(self.scores(clips))
        for index, waveform, speech, spans in pending:
            rows = np.stack([next(scores) for _ in spans])  # (windows, num_labels)
            predictions[index] = self._answer(waveform, speech, spans, rows)
        return predictions

    @torch.inference_mode()
    def scores(self, waveforms: Sequence[np.ndarray], batch_size: int = 32) -> np.ndarray:
        """Calibrated probabilities (N, num_labels) of N waveforms, with no voice check and no windows."""
        batches = []
        for first in range(0, len(waveforms), batch_size):
            batch = self.extractor(
                list(waveforms[first : first + batch_size]),
                sampling_rate=self.sampling_rate,
                return_tensors="pt",
                **self._padding,
            ).to(self.model.device)
            batches.append(self.model(**batch).logits.float().softmax(dim=-1).cpu().numpy())
        return np.concatenate(batches) if batches else np.empty((0, len(self.labels)), np.float32)

    def _speech_or_refusal(self, waveform: np.ndarray) -> list[tuple[int, int]] | Prediction:
        """The stretches of speech in a waveform, in samples, or else why it cannot be judged."""
        duration_s = len(waveform) / self.sampling_rate
        if duration_s < MIN_DURATION_S:
            message = f"This is too short to judge: {duration_s:.2f} s. Record at least {MIN_DURATION_S} s."
            return Prediction(TOO_SHORT, message, duration_s, 0.0)
        with self._voice_lock:
            stretches = get_speech_timestamps(
                torch.from_numpy(waveform), self._voice_detector, sampling_rate=self.sampling_rate
            )
        speech = [(stretch["start"], stretch["end"]) for stretch in stretches]
        speech_s = sum(end - start for start, end in speech) / self.sampling_rate
        if speech_s < MIN_SPEECH_S:
            message = "No voice was heard in this recording. Speak closer to the microphone, or choose another file."
            return Prediction(NO_VOICE, message, duration_s, speech_s)
        return speech

    def _answer(self, waveform, speech, spans, rows: np.ndarray) -> Prediction:
        rate = self.sampling_rate
        weights = np.array([_overlap(span, speech) for span in spans], dtype=np.float64)
        mean = (rows * weights[:, None]).sum(axis=0) / weights.sum()
        scores = self._named(mean)
        label, confidence = next(iter(scores.items()))
        return Prediction(
            status=VOICE,
            message=f"This voice sounds {adjective(label)}, with {confidence:.0%} confidence.",
            duration_s=len(waveform) / rate,
            speech_s=sum(end - start for start, end in speech) / rate,
            label=label,
            confidence=confidence,
            scores=scores,
            windows=tuple(
                Window(start / rate, end / rate, self._named(row))
                for (start, end), row in zip(spans, rows, strict=True)
            ),
        )

    def _named(self, row: np.ndarray) -> dict[str, float]:
        return {self.labels[index]: float(row[index]) for index in np.argsort(-row, kind="stable")}


def adjective(label: str) -> str:
    """How a sentence names a label: "female_disgust" -> "female disgusted"."""
    return label.replace("_", " ").replace("disgust", "disgusted")


def _windows(samples: int, rate: int, speech: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Stretches to judge, in samples: the whole of a short recording, else overlapping windows that hold speech."""
    window, hop = round(WINDOW_S * rate), round(WINDOW_HOP_S * rate)
    if samples <= window + hop:
        return [(0, samples)]
    starts = [*range(0, samples - window, hop), samples - window]
    spans = [(start, start + window) for start in starts]
    heard = [span for span in spans if _overlap(span, speech) >= MIN_SPEECH_S * rate]
    return heard or [max(spans, key=lambda span: _overlap(span, speech))]


def _overlap(span: tuple[int, int], speech: list[tuple[int, int]]) -> int:
    """Samples of speech within a span."""
    return sum(max(0, min(span[1], end) - max(span[0], start)) for start, end in speech)


def audio_files(paths: Iterable[str | Path]) -> Iterator[Path]:
    """Files as given, and the audio files below each folder, in sorted order."""
    for path in map(Path, paths):
        if path.is_dir():
            yield from sorted(file for file in path.rglob("*") if file.suffix.lower() in AUDIO_SUFFIXES)
        else:
            yield path


def header(recognizer: EmotionRecognizer) -> list[str]:
    """Columns of `predicted_rows`."""
    return ["path", "duration_s", "label", "confidence", *recognizer.labels, "error"]


def predicted_rows(recognizer: EmotionRecognizer, paths: Sequence[str | Path]) -> list[list[str]]:
    """One row a file, in their order; all are in memory together. One that cannot be judged says so as its error."""
    loaded = [_loaded(recognizer, path) for path in paths]
    predictions = iter(recognizer.recognize([sound for sound in loaded if not isinstance(sound, AudioError)]))
    outcomes = [sound if isinstance(sound, AudioError) else next(predictions) for sound in loaded]
    return [predicted_row(path, outcome, recognizer.labels) for path, outcome in zip(paths, outcomes, strict=True)]


def write_predictions(
    recognizer: EmotionRecognizer, paths: Iterable[str | Path], output: IO[str], batch_size: int = 16
) -> tuple[int, int]:
    """One CSV row a file: path, duration_s, label, confidence, one column an emotion, error. Written as they come.

    Returns:
        How many files were answered, and how many have an error in place of an answer.
    """
    writer = csv.writer(output)
    writer.writerow(header(recognizer))
    answered = failed = 0
    paths = iter(paths)
    while batch := list(islice(paths, batch_size)):
        rows = predicted_rows(recognizer, batch)
        writer.writerows(rows)
        output.flush()
        failed += sum(bool(row[-1]) for row in rows)
        answered += sum(not row[-1] for row in rows)
    return answered, failed


def _loaded(recognizer: EmotionRecognizer, path: str | Path) -> np.ndarray | AudioError:
    try:
        return recognizer.load(path)
    except AudioError as error:
        return error


def predicted_row(path: str | Path, outcome: Prediction | AudioError, labels: list[str]) -> list[str]:
    """What `header` names, of one file."""
    if isinstance(outcome, AudioError):
        return [str(path), "", "", "", *[""] * len(labels), str(outcome)]
    if outcome.label is None:
        return [str(path), f"{outcome.duration_s:.3f}", "", "", *[""] * len(labels), outcome.message]
    scores = [f"{outcome.scores[label]:.5f}" for label in labels]
    return [str(path), f"{outcome.duration_s:.3f}", outcome.label, f"{outcome.confidence:.5f}", *scores, ""]
