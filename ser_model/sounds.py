"""Sounds that are no voice to judge, made from a seed: what the score in `likeness.py` learns to tell from voices.

Those of `OUTLIERS` are learnt from; benchmarks/out_of_domain.py makes others, to see how far that reaches.
"""

from collections.abc import Callable, Sequence

import numpy as np
from scipy import signal

RATE = 16_000  # Hz
DURATION_S = 3.0  # about one utterance
SAMPLES = round(RATE * DURATION_S)
TIME_S = np.arange(SAMPLES) / RATE
LEVELS_DB = (-30.0, -12.0)  # of the root mean square, below full scale: from soft to loud recordings
# First three formants, in Hz: a, e, i, o, u.
VOWELS = ((800, 1200, 2500), (500, 1900, 2500), (300, 2300, 3000), (500, 900, 2400), (320, 800, 2300))

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


def slow(rng: np.random.Generator, per_second: float) -> np.ndarray:
    """A random curve between 0 and 1 that turns about so many times a second."""
    points = rng.uniform(0, 1, size=max(4, round(per_second * DURATION_S) + 2))
    return np.interp(TIME_S, np.linspace(0, DURATION_S, len(points)), points)


def band(sound: np.ndarray, low_hz: float, high_hz: float) -> np.ndarray:
    return signal.sosfilt(signal.butter(2, (low_hz, high_hz), "bandpass", fs=RATE, output="sos"), sound)


def harmonics(pitch_hz: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """A pitch curve (T,) in Hz -> its first harmonics, each weaker than the one below, none above Nyquist."""
    phase = 2 * np.pi * np.cumsum(pitch_hz) / RATE
    return sum(
        np.sin(order * phase + rng.uniform(0, 2 * np.pi)) * (order * pitch_hz < RATE / 2) / order
        for order in range(1, count + 1)
    )


def formants(sound: np.ndarray, *centres_hz: float) -> np.ndarray:
    return sum(unit(band(sound, 0.9 * hz, 1.1 * hz)) / order for order, hz in enumerate(centres_hz, start=1))


def scatter(rng: np.random.Generator, calls: Sequence[np.ndarray]) -> np.ndarray:
    """Calls one after another, with pauses, over a faint hiss."""
    sound, spare = 1e-3 * rng.normal(size=SAMPLES), SAMPLES - sum(map(len, calls))
    starts = np.sort(rng.integers(0, max(1, spare), size=len(calls)))
    for start, call, before in zip(starts, calls, np.cumsum([0, *map(len, calls)]), strict=False):
        end = min(SAMPLES, start + before + len(call))
        sound[start + before : end] += call[: max(0, end - start - before)]
    return sound


def phrase(rng: np.random.Generator, voices: Voices) -> np.ndarray:
    """3 s of one voice, repeated if its clip is shorter."""
    clip = voices[rng.integers(len(voices))]
    return np.resize(clip, SAMPLES)


def coloured_noise(rng: np.random.Generator, slope: float, samples: int = SAMPLES) -> np.ndarray:
    """Power falls with frequency to the power of `slope`: 0 white, 1 pink, 2 brown."""
    spectrum = np.fft.rfft(rng.normal(size=samples))
    frequency = np.maximum(np.fft.rfftfreq(samples, 1 / RATE), 20)
    return np.fft.irfft(spectrum / frequency ** (slope / 2), samples)


# ── Kinds ──


def white_noise(rng, voices):
    return coloured_noise(rng, 0)


def brown_noise(rng, voices):
    return coloured_noise(rng, 2)


def tone(rng, voices):
    return np.sin(2 * np.pi * rng.uniform(80, 2000) * TIME_S)


def melody(rng, voices):
    """Plucked notes of a scale, three to six a second."""
    sound = np.zeros(SAMPLES)
    root_hz, note = rng.uniform(150, 400), round(RATE / rng.uniform(3, 6))
    for start in range(0, SAMPLES, note):
        pitch_hz = root_hz * 2 ** (rng.choice([0, 2, 4, 5, 7, 9, 11, 12]) / 12)
        length = min(2 * note, SAMPLES - start)
        pluck = harmonics(np.full(length, pitch_hz), 8, rng) * np.exp(-TIME_S[:length] * 6)
        sound[start : start + length] += pluck
    return sound


def synthetic_choir(rng, voices):
    """Sustained vowels of a synthesiser in thirds: formants and vibrato, but nobody who speaks."""
    root_hz = rng.uniform(130, 300)
    vibrato = [1 + 0.012 * np.sin(2 * np.pi * rng.uniform(4.5, 6) * TIME_S + rng.uniform(0, 6)) for _ in range(3)]
    voice = sum(harmonics(root_hz * 2 ** (step / 12) * v, 30, rng) for step, v in zip((0, 4, 7), vibrato, strict=True))
    return formants(voice, *VOWELS[rng.integers(len(VOWELS))])


def siren(rng, voices):
    swing = signal.sawtooth(2 * np.pi * rng.uniform(0.3, 3) * TIME_S, 0.5)
    return harmonics(900 + 350 * swing, 5, rng)


def engine(rng, voices):
    """A harmonic stack with jitter, in noise; the pitch follows the throttle."""
    pitch_hz = rng.uniform(40, 110) * (1 + 0.6 * slow(rng, 1)) * (1 + 0.02 * rng.normal(size=SAMPLES).cumsum() / 60)
    return unit(harmonics(np.abs(pitch_hz), 40, rng)) + 0.3 * unit(coloured_noise(rng, 1))


def barks(rng, voices):
    """Bursts of a rough, falling pitch through the formants of a short wide throat."""
    size = rng.uniform(0.7, 1.3)
    calls = []
    for _ in range(rng.integers(4, 8)):
        length = round(RATE * rng.uniform(0.12, 0.25))
        pitch_hz = np.geomspace(500, 250, length) * size * (1 + 0.05 * rng.normal(size=length))
        burst = harmonics(pitch_hz, 20, rng) + 0.5 * rng.normal(size=length)
        calls.append(formants(burst, 700 * size, 1500 * size, 2800) * np.hanning(length) ** 0.5)
    return scatter(rng, calls)


def howls(rng, voices):
    """A wolf, a cow: one long call that rises and falls."""
    pitch_hz = rng.uniform(120, 500) * (1 + 0.4 * np.sin(np.linspace(0, np.pi, SAMPLES)))
    call = harmonics(pitch_hz, 15, rng) * np.hanning(SAMPLES) ** 0.5
    return formants(call, 400, 900, 2400) + 0.01 * rng.normal(size=SAMPLES)


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


OUTLIERS: dict[str, Maker] = {
    make.__name__: make
    for make in (
        white_noise,
        brown_noise,
        tone,
        melody,
        synthetic_choir,
        siren,
        engine,
        barks,
        howls,
        babble,
        whisper,
    )
}
