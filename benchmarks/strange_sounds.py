"""Sounds to report on: no score, weight or threshold has ever met them.

    python -m benchmarks.strange_sounds FOLDER --data-dir data    # three of each, to listen to

Some are made of corpus clips, so FOLDER must not be passed on.
"""

import argparse
import io
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import soundfile
from scipy import signal

from ser_model.audio import load_audio
from ser_model.sounds import DURATION_S, OUTLIERS, RATE, SAMPLES, Maker, make_sounds, phrase, unit

TIME_S = np.arange(SAMPLES) / RATE
# First three formants, in Hz: a, e, i, o, u.
VOWELS = ((800, 1200, 2500), (500, 1900, 2500), (300, 2300, 3000), (500, 900, 2400), (320, 800, 2300))


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


def coloured_noise(rng: np.random.Generator, slope: float, samples: int = SAMPLES) -> np.ndarray:
    """Power falls with frequency to the power of `slope`: 0 white, 1 pink, 2 brown."""
    spectrum = np.fft.rfft(rng.normal(size=samples))
    frequency = np.maximum(np.fft.rfftfreq(samples, 1 / RATE), 20)
    return np.fft.irfft(spectrum / frequency ** (slope / 2), samples)


def hits(rng: np.random.Generator, every: int, hit: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """The same hit again and again; some are left out."""
    sound = np.zeros(SAMPLES)
    for start in range(0, SAMPLES, every):
        if rng.uniform() < 0.8:
            sound[start : start + every] += hit(TIME_S[: min(every, SAMPLES - start)])
    return sound


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


def pink_noise(rng, voices):
    return coloured_noise(rng, 1)


def wind(rng, voices):
    """Brown noise in gusts, through a whistle that comes and goes."""
    whistle = band(rng.normal(size=SAMPLES), *(rng.uniform(400, 800) * np.array([0.9, 1.1])))
    gusts = slow(rng, 1.5) ** 2
    return gusts * (unit(coloured_noise(rng, 2)) + 0.7 * unit(whistle) * slow(rng, 3) ** 2)


def chord(rng, voices):
    root_hz = rng.uniform(110, 440)
    return sum(harmonics(np.full(SAMPLES, root_hz * 2 ** (step / 12)), 6, rng) for step in (0, rng.integers(3, 5), 7))


def band_music(rng, voices):
    """Drums, a bass and a lead with vibrato."""
    beat = round(RATE * rng.uniform(0.35, 0.6))
    drums = hits(rng, beat, lambda t: np.sin(2 * np.pi * 60 * t * np.exp(-4 * t)) * np.exp(-12 * t))
    drums = drums + 0.5 * hits(rng, beat // 2, lambda t: rng.normal(size=len(t)) * np.exp(-40 * t))
    steps = rng.choice([0, 3, 5, 7, 10], size=SAMPLES // beat + 1).repeat(beat)[:SAMPLES]
    bass = harmonics(55 * 2 ** (steps / 12), 8, rng)
    vibrato = 1 + 0.01 * np.sin(2 * np.pi * 5.5 * TIME_S)
    lead = harmonics(330 * 2 ** (np.roll(steps, beat // 2) / 12) * vibrato, 12, rng)
    return unit(drums) + 0.6 * unit(bass) + 0.6 * unit(lead)


def glissando_lead(rng, voices):
    """One note that glides through a filter that moves, as a theremin or a wah guitar does."""
    glide = 220 * 2 ** (2 * slow(rng, 2))
    lead = harmonics(glide, 20, rng)
    halves = [formants(lead, *VOWELS[rng.integers(len(VOWELS))]) for _ in range(2)]
    return halves[0] * (mix := slow(rng, 3)) + halves[1] * (1 - mix)


def modulated_tone(rng, voices):
    """A tone that sweeps, louder and softer some times a second: modems, alarms, spaceships."""
    sweep = np.geomspace(*rng.uniform(150, 3000, size=2), SAMPLES)
    swell = 1 + 0.9 * np.sin(2 * np.pi * rng.uniform(2, 12) * TIME_S)
    return harmonics(sweep, 3, rng) * swell


def saw(rng, voices):
    """A whining motor under changing load: many harmonics high up, rough."""
    pitch_hz = rng.uniform(180, 400) * (1 + 0.3 * slow(rng, 2))
    rough = 1 + 0.5 * signal.square(2 * np.pi * rng.uniform(25, 60) * TIME_S)
    return unit(harmonics(pitch_hz, 18, rng) * rough) + 0.5 * unit(coloured_noise(rng, 0.5))


def clicks(rng, voices):
    """A keyboard, or a clock: short clicks at uneven times."""
    sound = np.zeros(SAMPLES)
    sound[rng.integers(0, SAMPLES, size=rng.integers(10, 40))] = rng.normal(size=1)
    return signal.lfilter([1], [1, -1.6, 0.9], sound) + 1e-4 * rng.normal(size=SAMPLES)


def birds(rng, voices):
    calls = [np.geomspace(*rng.uniform(2000, 5500, size=2), round(RATE * rng.uniform(0.05, 0.2))) for _ in range(12)]
    return scatter(rng, [harmonics(call, 2, rng) * np.hanning(len(call)) for call in calls])


def meows(rng, voices):
    """Glides up and down, from one vowel to another."""
    calls = []
    for _ in range(rng.integers(2, 4)):
        length = round(RATE * rng.uniform(0.5, 0.9))
        arch = np.sin(np.linspace(0, np.pi, length))
        call = harmonics(rng.uniform(350, 600) * (1 + 0.5 * arch), 15, rng)
        fade = np.linspace(0, 1, length)
        glide = formants(call, 500, 2300, 3200) * (1 - fade) + formants(call, 900, 1300, 2900) * fade
        calls.append(glide * np.hanning(length) ** 0.5)
    return scatter(rng, calls)


def far_crowd(rng, voices):
    """Twenty people in a hall."""
    crowd = sum(unit(phrase(rng, voices)) * rng.uniform(0.5, 1) for _ in range(20))
    echo = rng.normal(size=RATE) * np.exp(-np.arange(RATE) / RATE / 0.2)
    return unit(signal.fftconvolve(crowd, echo)[:SAMPLES]) + 0.1 * unit(coloured_noise(rng, 1))


def shuffled(rng, voices):
    """Speech cut into 60 ms that are laid in another order: nobody speaks so."""
    piece = round(0.06 * RATE)
    pieces = phrase(rng, voices)[: SAMPLES // piece * piece].reshape(-1, piece)
    return (rng.permutation(pieces) * np.hanning(piece) ** 0.25).ravel()


def backwards(rng, voices):
    """A voice in timbre and pitch, in no language."""
    return phrase(rng, voices)[::-1]


PHRASES = {
    "de": "Ich gehe heute Nachmittag mit den Kindern in den Garten.",
    "fr-fr": "Je vais me promener avec les enfants cet après-midi.",
    "es": "Esta tarde voy a pasear con los niños por el jardín.",
    "it": "Oggi pomeriggio vado a passeggio con i bambini.",
    "pl": "Dziś po południu idę z dziećmi do ogrodu.",
    "tr": "Bugün öğleden sonra çocuklarla bahçeye gidiyorum.",
    "hi": "आज दोपहर मैं बच्चों के साथ बगीचे में जा रहा हूँ।",
    "cmn": "今天下午我和孩子们去花园散步。",
    "ar": "سأذهب بعد الظهر مع الأطفال إلى الحديقة.",
    "sw": "Leo mchana nitakwenda bustanini na watoto.",
}


def synthesised(language: str, variant: str, pitch: int, words_a_minute: int) -> np.ndarray:
    """Speech of espeak-ng, as samples at RATE; raises FileNotFoundError where that program is absent."""
    command = ["espeak-ng", "--stdout", "-v", f"{language}+{variant}", "-p", str(pitch), "-s", str(words_a_minute)]
    wav = subprocess.run([*command, PHRASES[language]], capture_output=True, check=True).stdout
    samples, rate = soundfile.read(io.BytesIO(wav))
    return signal.resample_poly(samples, RATE, rate)


def european_languages(rng, voices):
    """Of a synthesiser: doubly unlike acted American English."""
    return speaking(rng, ("de", "fr-fr", "es", "it", "pl"), ("m1", "m3", "f1", "f3"))


def other_languages(rng, voices):
    return speaking(rng, ("tr", "hi", "cmn", "ar", "sw"), ("m2", "m4", "f2", "f4"))


def synthetic_whisper(rng, voices):
    return speaking(rng, tuple(PHRASES), ("whisper", "whisperf"))


def speaking(rng, languages: Sequence[str], variants: Sequence[str]) -> np.ndarray:
    sound = synthesised(rng.choice(languages), rng.choice(variants), rng.integers(20, 80), rng.integers(120, 200))
    return np.resize(sound, SAMPLES)


# No voice that anybody should judge: no answer.
NO_VOICES: dict[str, Maker] = {
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
        pink_noise,
        wind,
        chord,
        band_music,
        glissando_lead,
        modulated_tone,
        saw,
        clicks,
        birds,
        meows,
        far_crowd,
        shuffled,
        synthetic_whisper,
    )
}
# Voices, if strange ones: a refusal is no fault, nor is an answer.
STRANGE_VOICES: dict[str, Maker] = {make.__name__: make for make in (backwards, european_languages, other_languages)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument("--data-dir", type=Path, required=True, help="holds RAVDESS")
    args = parser.parse_args()
    voices = [load_audio(file, RATE) for file in sorted((args.data_dir / "RAVDESS").rglob("Actor_06/03-01-0*"))]
    args.folder.mkdir(parents=True)
    for name, make in (OUTLIERS | NO_VOICES | STRANGE_VOICES).items():
        for index, sound in enumerate(make_sounds(make, 3, voices, seed=0)):
            soundfile.write(args.folder / f"{name}_{index}.flac", sound, RATE)


if __name__ == "__main__":
    main()
