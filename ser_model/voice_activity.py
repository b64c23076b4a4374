"""Where somebody speaks, found out while a sound comes in."""

import numpy as np
import torch

from .audio import StreamResampler

THREADS = torch.get_num_threads()
from silero_vad import get_speech_timestamps_from_probs, load_silero_vad  # noqa: E402
from silero_vad.sequence_vad import SileroVADSequence  # noqa: E402

torch.set_num_threads(THREADS)  # silero-vad leaves the whole process a single one, training too

DETECTOR_HZ = 16_000
CHUNK_SAMPLES, CONTEXT_SAMPLES = 512, 64  # 32 ms are judged at a time, each after the last 4 ms before it
STATE_SHAPE = (1, 1, 128)
START_PROBABILITY, GO_ON_PROBABILITY = 0.5, 0.35  # from which speech begins, and down to which it goes on

Span = tuple[int, int]  # start and end, in samples


def load_detector() -> SileroVADSequence:
    """Its weights come with silero-vad. It remembers nothing, and many threads may share it."""
    return load_silero_vad(sequence=True)


class VoiceActivity:
    """The stretches of speech in one sound.

    Args:
        sampling_rate: of the sound, in Hz.
        detector: of `load_detector`.
    """

    def __init__(self, sampling_rate: int, detector: SileroVADSequence):
        self.sampling_rate = sampling_rate
        self._detector = detector
        self._resampler = StreamResampler(sampling_rate, DETECTOR_HZ, CHUNK_SAMPLES)
        self._state = {name: np.zeros(STATE_SHAPE, np.float32) for name in ("h", "c")}
        self._context = np.zeros((1, CONTEXT_SAMPLES), np.float32)
        self._rest = np.zeros(0, np.float32)  # samples at the detector's rate that make no whole chunk yet
        self._probabilities: list[float] = []  # of a voice, one a chunk

    def hear(self, piece: np.ndarray) -> None:
        """The next samples (T,)."""
        self._listen(self._resampler.push(piece))

    def end(self) -> None:
        """Nothing follows."""
        self._listen(self._resampler.flush())
        if len(self._rest):
            self._listen(np.zeros(CHUNK_SAMPLES - len(self._rest), np.float32))

    def _listen(self, samples: np.ndarray) -> None:
        samples = np.concatenate([self._rest, samples])
        whole = len(samples) // CHUNK_SAMPLES
        self._rest = samples[whole * CHUNK_SAMPLES :].copy()
        chunks = samples[: whole * CHUNK_SAMPLES].reshape(whole, CHUNK_SAMPLES)
        for first in range(0, whole, self._detector.max_frames):
            block = chunks[first : first + self._detector.max_frames]
            context = np.concatenate([self._context, block[:-1, -CONTEXT_SAMPLES:]])
            self._context = block[-1:, -CONTEXT_SAMPLES:].copy()
            # Its own `audio_forward` begins anew with every call.
            probabilities, self._state["h"], self._state["c"] = self._detector.session.run(
                ["speech_probs", "hn", "cn"], {"input": np.concatenate([context, block], axis=1), **self._state}
            )
            self._probabilities += probabilities.ravel().tolist()

    def may_speak_in(self, span: Span) -> bool:
        """Whether `stretches` may find speech there: always where it does, and where nothing has been heard yet."""
        chunk = self.sampling_rate * CHUNK_SAMPLES / DETECTOR_HZ
        first, last = int(span[0] // chunk), int(-(-span[1] // chunk)) - 1
        heard = self._probabilities[first : last + 1]
        return len(self._probabilities) <= last or max(heard, default=0.0) >= GO_ON_PROBABILITY

    def stretches(self, samples: int) -> list[Span]:
        """Where somebody spoke in the `samples` heard so far."""
        scale = self.sampling_rate / DETECTOR_HZ
        found = get_speech_timestamps_from_probs(
            self._probabilities,
            threshold=START_PROBABILITY,
            neg_threshold=GO_ON_PROBABILITY,
            sampling_rate=DETECTOR_HZ,
            audio_length_samples=round(samples / scale),
        )
        return [(round(stretch["start"] * scale), min(samples, round(stretch["end"] * scale))) for stretch in found]
