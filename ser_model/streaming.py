"""The emotion in a voice that is still speaking: a window that rolls over a live microphone."""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from .audio import StreamResampler, prepare_waveform
from .inference import (
    MIN_DURATION_S,
    VOICE,
    WINDOW_S,
    EmotionRecognizer,
    Prediction,
    Window,
    check_peak,
    voice_message,
)

UPDATE_S = 0.4  # of new sound between two answers: at least two a second, with time to spare
NEWEST_SHARE = 0.4  # of the newest answer in the smoothed one: half of a change is seen after 0.6 s
TRACK_S = 60.0  # of answers that are remembered
RESAMPLER_CHUNK = 1024  # samples: at 48 kHz, 21 ms later


@dataclass(frozen=True)
class LiveAnswer:
    """What is heard now.

    prediction: of the last WINDOW_S seconds, its scores smoothed over the answers before it.
    heard_s: seconds since the start.
    track: the smoothed scores of the last TRACK_S seconds, a window an answer; where nobody spoke is a gap.
    """

    prediction: Prediction
    heard_s: float
    track: tuple[Window, ...]


class LiveRecognizer:
    """Listens to one microphone. It holds a few seconds of sound, however long it listens; not to be shared.

    Args:
        recognize: an `EmotionRecognizer`, which may be shared, or what judges windows (T,) as its `recognize` does.
        window_hz: sampling rate of those windows; a recognizer knows its own.

    Raises:
        ValueError: no window_hz came with a function.
    """

    def __init__(
        self,
        recognize: EmotionRecognizer | Callable[[Sequence[np.ndarray]], list[Prediction]],
        window_hz: int | None = None,
    ):
        if isinstance(recognize, EmotionRecognizer):
            recognize, window_hz = recognize.recognize, recognize.sampling_rate
        if window_hz is None:
            raise ValueError(f"{recognize} does not tell its sampling rate; give window_hz, or an EmotionRecognizer")
        self._recognize = recognize
        self._window_hz = window_hz
        self.reset()

    def reset(self) -> None:
        """Forget all that was heard."""
        self._rate_hz, self._resampler = None, None
        self._window = np.zeros(0, np.float32)
        self._samples = self._judged_samples = 0
        self._scores: dict[str, float] | None = None
        self._track: deque[Window] = deque()

    def push(self, sampling_rate: int, samples: np.ndarray) -> LiveAnswer | None:
        """The next samples, as many as there are -> an answer, or None until there are enough new ones.

        Args:
            sampling_rate: of the samples, in Hz; when it changes, another microphone is heard, from its start.
            samples: (T,) or (T, channels) of any integer or float type.

        Raises:
            AudioError: the samples cannot be used; its message says why.
        """
        if not len(samples):
            return None
        samples = prepare_waveform(samples, sampling_rate, sampling_rate)  # refused, it leaves no trace
        check_peak(samples, "give floats within it, or integers")
        if sampling_rate != self._rate_hz:
            self.reset()
            self._rate_hz = sampling_rate
            self._resampler = StreamResampler(sampling_rate, self._window_hz, RESAMPLER_CHUNK)
        fresh = self._resampler.push(samples)
        rate = self._window_hz
        self._window = np.concatenate([self._window, fresh])[-round(WINDOW_S * rate) :]
        self._samples += len(fresh)
        if self._samples < MIN_DURATION_S * rate or self._samples - self._judged_samples < UPDATE_S * rate:
            return None
        return self._answer()

    def _answer(self) -> LiveAnswer:
        rate = self._window_hz
        start_s, end_s = self._judged_samples / rate, self._samples / rate
        self._judged_samples = self._samples
        while self._track and self._track[0].end_s < end_s - TRACK_S:
            self._track.popleft()
        [prediction] = self._recognize([self._window])
        if prediction.status != VOICE:
            self._scores = None  # whoever speaks next starts anew
            return LiveAnswer(prediction, end_s, tuple(self._track))
        newest, before = prediction.scores, self._scores or prediction.scores
        mixed = {label: NEWEST_SHARE * newest[label] + (1 - NEWEST_SHARE) * before[label] for label in newest}
        self._scores = dict(sorted(mixed.items(), key=lambda item: -item[1]))
        label, confidence = next(iter(self._scores.items()))
        self._track.append(Window(start_s, end_s, self._scores))
        prediction = replace(
            prediction,
            message=voice_message(label, confidence),
            label=label,
            confidence=confidence,
            scores=self._scores,
            windows=(),
        )
        return LiveAnswer(prediction, end_s, tuple(self._track))
