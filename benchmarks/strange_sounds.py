"""Sounds to report on: of the families of `ser_model.sounds`, but no score, weight or threshold has ever met them.

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
from ser_model.sounds import (
    OUTLIERS,
    RATE,
    SAMPLES,
    TIME_S,
    VOWELS,
    Maker,
    band,
    coloured_noise,
    formants,
    harmonics,
    make_sounds,
    phrase,
    scatter,
    slow,
    unit,
)


def hits(rng: np.random.Generator, every: int, hit: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """The same hit again and again; some are left out."""
    sound = np.zeros(SAMPLES)
    for start in range(0, SAMPLES, every):
        if rng.uniform() < 0.8:
            sound[start : start + every] += hit(TIME_S[: min(every, SAMPLES - start)])
    return sound


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
