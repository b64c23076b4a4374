"""Sounds that are no voice to judge, made of voices: what the score in `likeness.py` learns to tell from voices.

Noise, tones, music, machines and animals are not among them: they never get past the voice detector, as
benchmarks/out_of_domain.py shows with those of benchmarks/strange_sounds.py.
"""

from collections.abc import Callable, Sequence

import numpy as np
from scipy import signal

RATE = 16_000  # Hz
DURATION_S = 3.0  # about one utterance
SAMPLES = round(RATE * DURATION_S)
LEVELS_DB = (-30.0, -12.0)  # of the root mean square, below full scale: from soft to loud recordings

Voices = Sequence[np.ndarray]  # clips of speech (T,) at RATE
Maker = Callable[[np.random.Generator, Voices], np.ndarray]


def make_sounds(make: Maker, count: int, voices: Voices, seed: int) -> list[np.ndarray]:
    """`count` different sounds of a kind, float32 (T,) at RATE; the same for the same seed and voices."""
    sounds = []
    for index in range(count):
        rng = np.random.default_rng([seed, index])
        sound = unit(make(rng, voices)) * 10 ** (rng.uniform(*LEVELS_DB) / 20)
        sounds.append((sound / max(1.0, np.abs(sound).max())).astype(np.float32))
    return sounds


# ── What they are made of ──


def unit(sound: np.ndarray) -> np.ndarray:
    return sound / np.sqrt(np.mean(sound**2) + 1e-12)


def phrase(rng: np.random.Generator, voices: Voices) -> np.ndarray:
    """3 s of one voice, repeated if its clip is shorter."""
    clip = voices[rng.integers(len(voices))]
    return np.resize(clip, SAMPLES)


# ── Kinds ──


def babble(rng, voices):
    """Six to twelve people at once: nobody to judge."""
    return sum(unit(phrase(rng, voices)) for _ in range(rng.integers(6, 13)))


def whisper(rng, voices):
    """The spectral envelope of speech on noise in place of the vocal cords: a voice, but unlike any in the corpora."""
    clip = phrase(rng, voices)
    _, _, spectrum = signal.stft(clip, RATE, nperseg=512, noverlap=384)
    cepstrum = np.fft.irfft(np.log(np.abs(spectrum) + 1e-6), axis=0)
    cepstrum[30:-30] = 0  # below the lag of any pitch period: 30 / 16 kHz is 533 Hz
    envelope = np.exp(np.fft.rfft(cepstrum, axis=0).real)
    _, _, noise = signal.stft(rng.normal(size=SAMPLES), RATE, nperseg=512, noverlap=384)
    _, sound = signal.istft(envelope * noise / np.abs(noise).mean(), RATE, nperseg=512, noverlap=384)
    return signal.lfilter([1, -0.9], [1], sound)[:SAMPLES]  # a whisper lacks the low end that vocal cords give


OUTLIERS: dict[str, Maker] = {make.__name__: make for make in (babble, whisper)}
