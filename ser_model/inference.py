"""From any recording to an answer that says how sure it is. Page, command line and API all come through here."""

import csv
import inspect
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import compress, islice
from pathlib import Path
from typing import IO, BinaryIO

import numpy as np
import torch

from .audio import AUDIO_SUFFIXES, FULL_SCALE, AudioError, audio_blocks, prepared_blocks, stated_duration_s
from .disk import files_below
from .feature_extraction_ser import PEAK_LIMIT
from .labels import SURE_CONFIDENCE
from .pretrained import load_extractor, load_model
from .voice_activity import SileroVADSequence, Span, VoiceActivity, load_detector

MIN_DURATION_S = 0.5  # a syllable or two: below, the training corpora hold nothing to compare with
MIN_SPEECH_S = 0.25  # the shortest stretch the voice detector itself reports
MAX_DURATION_S = 7200.0  # of a recording the first two hours are heard
WINDOW_S = 4.0  # about one utterance of the training corpora, with the quiet around it
WINDOW_HOP_S = 2.0
BATCH_SIZE = 16  # windows that go through the model together; the maps of more do not fit into a core's cache

# Of RAVDESS's 1440 speech clips the softest peaks at 0.0046 of full scale, one in a hundred below 0.0103.
TOO_QUIET_PEAK = 0.002
QUIET_PEAK = 0.01
CLIPPED_WARNING_SHARE = 0.001  # no clip of RAVDESS or TESS has more than 0.00003 of its samples at full scale

VOICE, NO_VOICE, TOO_SHORT = "voice", "no_voice", "too_short"
TOO_QUIET, UNLIKE_TRAINING = "too_quiet", "unlike_training"
CLIPPED, QUIET, CUT = "clipped", "quiet", "cut"
MESSAGES = {
    NO_VOICE: "No voice was heard in this recording. Speak closer to the microphone, or choose another file.",
    TOO_SHORT: f"This is too short to judge: {{duration_s:.2f}} s. Record at least {MIN_DURATION_S} s.",
    TOO_QUIET: "This is too quiet to judge: its loudest moment reaches {peak:.2%} of full scale. Check that the right "
    "microphone is on, come closer, or turn it up.",
    UNLIKE_TRAINING: "This sounds unlike the voices that the model learned from, so it gives no answer. Record one "
    "person who speaks, without music or other voices, or choose another file.",
}


@dataclass(frozen=True)
class Window:
    """Scores of one stretch of a recording, in seconds from its start."""

    start_s: float
    end_s: float
    scores: dict[str, float]


@dataclass(frozen=True)
class Caution:
    """What may make an answer worse, and the numbers that a sentence on it needs.

    code: "clipped" (values: `share` of the samples at full scale), "quiet" (`peak`, 1 is full scale) or "cut"
        (`heard_s`, the seconds that were heard; what follows them was left out).
    """

    code: str
    values: dict[str, float]


@dataclass(frozen=True)
class Prediction:
    """What was heard.

    status: "voice" when there was something to judge; else "no_voice", "too_short", "too_quiet" or "unlike_training" (a
        crowd, a whisper, ..., see `likeness.py`), and `message` says what to do.
    label, confidence: the likeliest emotion and its calibrated probability; None without an answer.
    scores: calibrated probability of every emotion, likeliest first; None without an answer.
    windows: the same over time, without those that sound unlike the training voices; one for the whole recording when
        that is short.
    warnings: what may have made the answer worse.
    speech: where somebody speaks, as (start, end) in seconds.
    sure: whether there is an answer, of at least SURE_CONFIDENCE; below that, `message` says "Not sure".
    """

    status: str
    message: str
    duration_s: float
    speech_s: float
    label: str | None = None
    confidence: float | None = None
    scores: dict[str, float] | None = None
    windows: tuple[Window, ...] = ()
    warnings: tuple[Caution, ...] = ()
    speech: tuple[tuple[float, float], ...] = ()
    sure: bool = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "sure", self.label is not None and self.confidence >= SURE_CONFIDENCE)


class EmotionRecognizer:
    """A model, its feature extractor and a voice detector. Safe to share between threads, and to send to processes.

    Args:
        model: any audio-classification model of Transformers.
        extractor: the feature extractor saved with it.
    """

    def __init__(self, model, extractor):
        self.model = model.eval().to(memory_format=torch.channels_last)  # a tenth to a third faster on a CPU
        self.extractor = extractor
        self.sampling_rate = extractor.sampling_rate
        self.labels = [model.config.id2label[index] for index in range(model.config.num_labels)]
        # Ours pads by itself, and Whisper's to a length of its own; those whose default is not to want to be told.
        padding = inspect.signature(extractor.__call__).parameters.get("padding")
        self._padding = {"padding": True} if padding and padding.default is False else {}
        self.voice_detector = load_detector()

    def __getstate__(self) -> dict:
        return {key: value for key, value in self.__dict__.items() if key != "voice_detector"}  # a session of ONNX

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)
        self.voice_detector = load_detector()

    @classmethod
    def from_pretrained(cls, name_or_path: str | Path, device: str = "cpu", **kwargs) -> "EmotionRecognizer":
        """A local folder or a Hub id; `kwargs` go to both `from_pretrained` (revision, trust_remote_code, ...).

        Raises:
            OSError: there is no such model; PretrainedError, if there is but it cannot be used.
        """
        model = load_model(name_or_path, **kwargs).to(device)
        return cls(model, load_extractor(name_or_path, model, **kwargs))

    def __call__(
        self,
        source: str | Path | bytes | BinaryIO | np.ndarray,
        sampling_rate: int | None = None,
        progress: Callable[[float, float | None], None] | None = None,
    ) -> Prediction:
        """Judge one recording, decoded piece by piece: an hour takes little more memory than a minute.

        Args:
            source: a file in any common format (path, bytes or open file), or samples (T,) or (T, channels), of PyTorch
                (T,); or a clip of `datasets`, {"array", "sampling_rate"} or {"bytes", "path"}.
            sampling_rate: of samples, in Hz; a file knows its own.
            progress: is told now and then how many seconds are heard, and of how many if that is known.

        Raises:
            AudioError: the recording cannot be read; its message says why and what to do.
        """
        source, sampling_rate = _file_or_array(source, sampling_rate)
        pieces, total_s = self._pieces(source, sampling_rate), None
        if progress is not None:
            try:
                is_samples = isinstance(source, np.ndarray) and source.ndim and sampling_rate
                total_s = len(source) / sampling_rate if is_samples else stated_duration_s(source)
                total_s = total_s and min(total_s, MAX_DURATION_S)
            except AudioError:
                pass  # is raised again by the first piece, with the recording's name
        waiting = []
        recording = self._heard(pieces, waiting, progress and (lambda heard_s: progress(heard_s, total_s)))
        self._judge(waiting)
        return self._answer(recording)

    def recognize_files(self, paths: Iterable[str | Path]) -> list[Prediction | AudioError]:
        """One prediction a file, or why it cannot be read; windows of several go through the model together, and of
        none is more than a few seconds kept.
        """
        outcomes, waiting = [], []
        for path in paths:
            try:
                outcomes.append(self._heard(self._pieces(path, None), waiting))
            except AudioError as error:
                outcomes.append(error)
        self._judge(waiting)
        return [outcome if isinstance(outcome, AudioError) else self._answer(outcome) for outcome in outcomes]

    def load(
        self,
        source: str | Path | bytes | BinaryIO | np.ndarray,
        sampling_rate: int | None = None,
        max_s: float = MAX_DURATION_S,
    ) -> np.ndarray:
        """The first `max_s` seconds of any recording -> mono float32 (T,) at the model's rate, whole in memory.

        Raises:
            AudioError: it cannot be read.
        """
        max_samples, pieces, samples = round(max_s * self.sampling_rate), [], 0
        for piece in self._pieces(*_file_or_array(source, sampling_rate)):
            pieces.append(piece)
            samples += len(piece)
            if samples >= max_samples:
                break
        return np.concatenate(pieces)[:max_samples]

    def recognize(self, waveforms: Sequence[np.ndarray]) -> list[Prediction]:
        """Waveforms (T,) at the model's rate, of any type that files have -> one prediction each.

        Their windows go through the model together, in batches.

        Raises:
            AudioError: one of them cannot be used.
        """
        waiting = []
        recordings = [self._heard(self._pieces(*_file_or_array(own, self.sampling_rate)), waiting) for own in waveforms]
        self._judge(waiting)
        return [self._answer(recording) for recording in recordings]

    def scores(self, waveforms: Sequence[np.ndarray]) -> np.ndarray:
        """Calibrated probabilities (N, num_labels) of N waveforms, with no voice check and no windows."""
        return self.scores_and_likeness(waveforms)[0]

    @torch.inference_mode()
    def scores_and_likeness(self, waveforms: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Calibrated probabilities (N, num_labels), and how far each likeness (N,) lies above the model's threshold:
        infinitely for a model that has none.
        """
        threshold = getattr(self.model.config, "likeness_threshold", None)
        scores, likeness = [np.empty((0, len(self.labels)), np.float32)], [np.empty(0, np.float32)]
        for first in range(0, len(waveforms), BATCH_SIZE):
            batch = self.extractor(
                list(waveforms[first : first + BATCH_SIZE]),
                sampling_rate=self.sampling_rate,
                return_tensors="pt",
                **self._padding,
            ).to(self.model.device, dtype=self.model.dtype)
            output = self.model(**batch, return_dict=True)
            scores.append(output.logits.float().softmax(dim=-1).cpu().numpy())
            if threshold is None:
                likeness.append(np.full(len(scores[-1]), np.inf))
            else:
                likeness.append(output.likeness.float().cpu().numpy() - threshold)
        return np.concatenate(scores), np.concatenate(likeness)

    def _pieces(
        self, source: str | Path | bytes | BinaryIO | np.ndarray, sampling_rate: int | None
    ) -> Iterator[np.ndarray]:
        """Any recording -> pieces (T,) float32 at the model's rate; AudioError if it cannot be read."""
        if isinstance(source, np.ndarray):
            if sampling_rate is None:
                raise AudioError("samples came without a sampling rate; pass sampling_rate=... in Hz")
            pieces = prepared_blocks(source, sampling_rate, self.sampling_rate)
        else:
            pieces = audio_blocks(source, self.sampling_rate)
        for piece in pieces:
            check_peak(piece, "convert the recording to 16-bit wav")
            yield piece

    def _heard(
        self,
        pieces: Iterable[np.ndarray],
        waiting: list["_Heard"],
        progress: Callable[[float], None] | None = None,
    ) -> "Recording":
        """A recording from its first piece to its last. Its windows are judged as soon as a batch of them is there;
        the rest stays in `waiting`.
        """
        recording = Recording(self.sampling_rate, self.voice_detector)
        for piece in pieces:
            waiting += recording.hear(piece)
            if len(waiting) >= BATCH_SIZE:
                self._judge(waiting)
                waiting.clear()
            if progress is not None:
                progress(recording.duration_s)
            if recording.is_cut:
                break
        last = recording.end()
        if recording.refusal is None:  # or it may be too short for a single frame
            waiting += last
        return recording

    def _judge(self, windows: Sequence["_Heard"]) -> None:
        rows, likeness = self.scores_and_likeness([window.samples for window in windows])
        for window, row, alike in zip(windows, rows, likeness, strict=True):
            window.recording.judged[window.span] = row, alike

    def _answer(self, recording: "Recording") -> Prediction:
        facts = {
            "duration_s": recording.duration_s,
            "speech_s": recording.speech_s,
            "warnings": recording.warnings(),
            "speech": tuple((start / self.sampling_rate, end / self.sampling_rate) for start, end in recording.speech),
        }
        if status := recording.refusal:
            return Prediction(status, MESSAGES[status].format(peak=recording.peak, **facts), **facts)
        spans = recording.heard_spans()
        rows = np.stack([recording.judged[span][0] for span in spans])  # (windows, num_labels)
        likeness = np.array([recording.judged[span][1] for span in spans])
        weights = shared_out(spans, recording.speech)
        if np.average(likeness, weights=weights) < 0:
            return Prediction(UNLIKE_TRAINING, MESSAGES[UNLIKE_TRAINING], **facts)
        alike = likeness >= 0  # a crowd behind a voice is no part of the answer
        scores = self.named(np.average(rows[alike], axis=0, weights=weights[alike]))
        label, confidence = next(iter(scores.items()))
        return Prediction(
            status=VOICE,
            message=voice_message(label, confidence),
            label=label,
            confidence=confidence,
            scores=scores,
            windows=tuple(
                Window(start / self.sampling_rate, end / self.sampling_rate, self.named(row))
                for (start, end), row in compress(zip(spans, rows, strict=True), alike)
            ),
            **facts,
        )

    def named(self, row: np.ndarray) -> dict[str, float]:
        """Probabilities (num_labels,) by label, likeliest first."""
        return {self.labels[index]: float(row[index]) for index in np.argsort(-row, kind="stable")}


def _file_or_array(source, sampling_rate: int | None) -> tuple[str | Path | bytes | BinaryIO | np.ndarray, int | None]:
    """What `datasets` and PyTorch hand over as a file or samples, with the rate of these; all else as it comes."""
    if isinstance(source, Mapping):
        given = {key: value for key, value in source.items() if value is not None}
        found = next((key for key in ("array", "raw", "bytes", "path") if key in given), None)
        if found is None:
            raise _no_recording("a clip without a sound")
        source = given[found]
        if found in ("array", "raw"):
            sampling_rate = given.get("sampling_rate", sampling_rate)
            if isinstance(source, list):  # as `datasets` keeps what was not cast to Audio
                source = _numbers(source)
    if hasattr(source, "get_all_samples"):  # an AudioDecoder of torchcodec, which `datasets` decodes with
        samples = source.get_all_samples()
        source, sampling_rate = samples.data.mean(dim=0), samples.sample_rate
    if isinstance(source, torch.Tensor):
        if source.dim() != 1:
            raise AudioError(f"a tensor of shape {tuple(source.shape)} came; give one channel (samples,), their mean")
        source = (source.float() if source.is_floating_point() else source).numpy(force=True)
    files = str | os.PathLike | bytes | bytearray | memoryview
    if not (isinstance(source, files | np.ndarray) or hasattr(source, "read")):
        raise _no_recording(f"a {type(source).__name__}")
    return source, sampling_rate


def _numbers(samples: list) -> np.ndarray:
    try:
        return np.asarray(samples, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise AudioError(f"the clip's samples are no numbers ({error}); give one channel of them (samples,)") from error


def _no_recording(given: str) -> AudioError:
    remedy = "give a path, bytes or a binary file, or an array with its rate: recognizer(samples, sampling_rate=...)"
    return AudioError(f"{given} came; {remedy}")


@dataclass(frozen=True, eq=False)
class _Heard:
    """A window of a recording that may hold speech, and its samples (T,)."""

    recording: "Recording"
    span: Span
    samples: np.ndarray


@dataclass(eq=False)
class Recording:
    """One recording while it is heard, piece by piece; of its samples only the last few seconds are kept.

    windows:  |----4 s----|
                    |----4 s----|                 every 2 s; one for the whole if that takes up to 6 s,
                                 ...  |----4 s----|  and the last one ends where the recording does
    """

    sampling_rate: int
    voice_detector: SileroVADSequence
    samples: int = 0
    peak: float = 0.0
    full_scale_samples: int = 0
    is_cut: bool = False
    speech: list[Span] = field(default_factory=list)  # known at the end
    spans: list[Span] = field(default_factory=list)
    judged: dict[Span, tuple[np.ndarray, float]] = field(default_factory=dict)  # scores and likeness

    def __post_init__(self):
        self._window, self._hop = (round(seconds * self.sampling_rate) for seconds in (WINDOW_S, WINDOW_HOP_S))
        self._voice = VoiceActivity(self.sampling_rate, self.voice_detector)
        self._kept = np.zeros(0, np.float32)  # the last samples
        self._next_start = 0

    @property
    def duration_s(self) -> float:
        return self.samples / self.sampling_rate

    @property
    def speech_s(self) -> float:
        return sum(end - start for start, end in self.speech) / self.sampling_rate

    def hear(self, piece: np.ndarray) -> list[_Heard]:
        """The next samples (T,) -> the windows that they complete and that may hold speech."""
        left = round(MAX_DURATION_S * self.sampling_rate) - self.samples
        self.is_cut |= len(piece) > left
        piece = piece[:left]
        magnitude = np.abs(piece)
        self.peak = max(self.peak, float(magnitude.max(initial=0)))
        self.full_scale_samples += int((magnitude >= FULL_SCALE).sum())
        self._voice.hear(piece)
        self.samples += len(piece)
        self._kept = np.concatenate([self._kept, piece])
        complete = []
        if not self._is_short:
            while self._next_start + self._window < self.samples:
                complete.append((self._next_start, self._next_start + self._window))
                self._next_start += self._hop
        windows = self._windows(complete)
        self._kept = self._kept[-(self._window + self._hop) :].copy()
        return windows

    def end(self) -> list[_Heard]:
        """Nothing follows -> the last window."""
        self._voice.end()
        self.speech = self._voice.stretches(self.samples)
        return self._windows([(0 if self._is_short else self.samples - self._window, self.samples)])

    @property
    def refusal(self) -> str | None:
        """Why it cannot be judged, before any model has heard it."""
        if self.duration_s < MIN_DURATION_S:
            return TOO_SHORT
        if self.peak < TOO_QUIET_PEAK:
            return TOO_QUIET
        return NO_VOICE if self.speech_s < MIN_SPEECH_S else None

    def warnings(self) -> tuple[Caution, ...]:
        found = []
        if (share := self.full_scale_samples / max(1, self.samples)) > CLIPPED_WARNING_SHARE:
            found.append(Caution(CLIPPED, {"share": share}))
        if TOO_QUIET_PEAK <= self.peak < QUIET_PEAK:
            found.append(Caution(QUIET, {"peak": self.peak}))
        if self.is_cut:
            found.append(Caution(CUT, {"heard_s": self.duration_s}))
        return tuple(found)

    def heard_spans(self) -> list[Span]:
        """The windows that count: those that hold enough speech, else the one that holds most."""
        spoken = overlaps(self.spans, self.speech)
        least = min(MIN_SPEECH_S * self.sampling_rate, spoken.max())
        return [span for span, samples in zip(self.spans, spoken, strict=True) if samples >= least]

    @property
    def _is_short(self) -> bool:
        return self.samples <= self._window + self._hop

    def _windows(self, spans: Sequence[Span]) -> list[_Heard]:
        kept_from = self.samples - len(self._kept)
        heard = [span for span in spans if self._is_short or self._voice.may_speak_in(span)]
        self.spans += heard
        return [_Heard(self, (start, end), self._kept[start - kept_from : end - kept_from]) for start, end in heard]


def check_peak(samples: np.ndarray, remedy: str) -> None:
    """Raises AudioError for samples that are integers made floats, far beyond full scale."""
    if (peak := float(np.abs(samples).max(initial=0))) > PEAK_LIMIT:
        raise AudioError(f"the samples peak at {peak:g} where full scale is 1; {remedy}")


def voice_message(label: str, confidence: float) -> str:
    if confidence < SURE_CONFIDENCE:
        return f"Not sure. It sounds most like {adjective(label)}, but only with {confidence:.0%} confidence."
    return f"This voice sounds {adjective(label)}, with {confidence:.0%} confidence."


def adjective(label: str) -> str:
    """How a sentence names a label: "female_disgust" -> "female disgusted"."""
    return label.replace("_", " ").replace("disgust", "disgusted")


def overlaps(spans: Sequence[Span], speech: Sequence[Span]) -> np.ndarray:
    """Samples of speech within each span (N,), from stretches of speech in their order."""
    edges = np.array(speech or [(0, 0)], dtype=np.float64)
    spoken = np.zeros_like(edges)  # up to each edge
    spoken[:, 1] = np.cumsum(edges[:, 1] - edges[:, 0])
    spoken[1:, 0] = spoken[:-1, 1]
    before = np.interp(np.array(spans), edges.ravel(), spoken.ravel())  # (N, 2)
    return before[:, 1] - before[:, 0]


def shared_out(spans: Sequence[Span], speech: Sequence[Span]) -> np.ndarray:
    """Samples of speech that fall to each span (N,): what several spans hold is shared out among them.

    So no moment counts twice, however far the last window reaches back into the one before it.
    """
    starts, ends = np.array(spans).T  # both in order
    edges = np.unique([starts, ends])
    covering = np.searchsorted(starts, edges[:-1], side="right") - np.searchsorted(ends, edges[:-1], side="right")
    shares = overlaps(np.stack([edges[:-1], edges[1:]], axis=1), speech) / np.maximum(covering, 1)
    up_to = np.concatenate([[0.0], np.cumsum(shares)])  # each edge
    return up_to[np.searchsorted(edges, ends)] - up_to[np.searchsorted(edges, starts)]


def audio_files(paths: Iterable[str | Path]) -> Iterator[Path]:
    """Files as given, and the audio files below each folder, see `files_below`."""
    for path in map(Path, paths):
        if path.is_dir():
            yield from files_below(path, AUDIO_SUFFIXES)
        else:
            yield path


def header(recognizer: EmotionRecognizer) -> list[str]:
    """Columns of `predicted_rows`; a label that is called like one of the others is "score_<label>"."""
    before, after = ["path", "duration_s", "label", "confidence"], ["error"]
    taken = {*before, *after}
    return [*before, *(f"score_{label}" if label in taken else label for label in recognizer.labels), *after]


def predicted_rows(recognizer: EmotionRecognizer, paths: Sequence[str | Path]) -> list[list[str]]:
    """One row a file, in their order. One that cannot be judged says so as its error."""
    outcomes = recognizer.recognize_files(paths)
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


def predicted_row(path: str | Path, outcome: Prediction | AudioError, labels: list[str]) -> list[str]:
    """What `header` names, of one file."""
    if isinstance(outcome, AudioError):
        return [str(path), "", "", "", *[""] * len(labels), str(outcome)]
    if outcome.label is None:
        return [str(path), f"{outcome.duration_s:.3f}", "", "", *[""] * len(labels), outcome.message]
    scores = [f"{outcome.scores[label]:.5f}" for label in labels]
    return [str(path), f"{outcome.duration_s:.3f}", outcome.label, f"{outcome.confidence:.5f}", *scores, ""]
