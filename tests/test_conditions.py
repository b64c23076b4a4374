import numpy as np
import pytest

from ser_model.conditions import CONDITIONS, heard_under
from ser_model.reports import CONDITIONS_IN_WORDS

RATE = 16_000
NOISES = {"noise_20db": 20, "noise_10db": 10, "noise_0db": 0}


def voice(seconds: float = 1.0) -> np.ndarray:
    """Harmonics of 120 Hz up to 6 kHz, falling as a voice's do."""
    time_s = np.arange(int(seconds * RATE)) / RATE
    partials = [np.sin(2 * np.pi * 120 * k * time_s) / k for k in range(1, 51)]
    return (0.2 * np.sum(partials, axis=0)).astype(np.float32)


def level_db(sound: np.ndarray) -> float:
    return 10 * np.log10(np.mean(np.square(sound, dtype=np.float64)))


def band_db(sound: np.ndarray, low_hz: float, high_hz: float) -> float:
    power = np.abs(np.fft.rfft(sound)) ** 2
    hertz = np.fft.rfftfreq(len(sound), 1 / RATE)
    return 10 * np.log10(power[(hertz >= low_hz) & (hertz < high_hz)].sum() + 1e-12)


@pytest.mark.parametrize("condition", CONDITIONS)
def test_a_clip_keeps_its_length_and_sounds_the_same_whenever_it_is_heard(condition):
    clip = voice()
    before = clip.copy()
    heard = heard_under(condition, clip, RATE, "a")
    assert heard.dtype == np.float32 and heard.shape == clip.shape and np.isfinite(heard).all()
    assert np.abs(heard - clip).max() > 1e-3 and (clip == before).all()
    assert (heard_under(condition, clip, RATE, "a") == heard).all()


@pytest.mark.parametrize("condition", [*NOISES, "small_room"])
def test_another_clip_hears_another_draw(condition):
    assert np.abs(heard_under(condition, voice(), RATE, "a") - heard_under(condition, voice(), RATE, "b")).max() > 1e-3


def test_what_is_heard_of_the_noise_is_as_much_weaker_as_cards_say():
    clip = voice(3.0)
    for condition, snr_db in NOISES.items():
        noise = np.concatenate([heard_under(condition, clip, RATE, f"{seed}") - clip for seed in range(20)])
        whole, audible = (band_db(noise, low_hz, RATE) for low_hz in (0, 20))
        assert whole - audible == pytest.approx(3, abs=0.5)
        assert str(snr_db + 3) in CONDITIONS_IN_WORDS[condition].partition("above 20 Hz")[2]


def test_clean_is_the_clip_itself():
    clip = voice()
    assert heard_under("clean", clip, RATE, "a") is clip


@pytest.mark.parametrize("condition", NOISES)
def test_noise_lies_so_far_below_and_is_pink(condition):
    noise = heard_under(condition, voice(4.0), RATE, "a") - voice(4.0)
    assert level_db(voice(4.0)) - level_db(noise) == pytest.approx(NOISES[condition], abs=0.01)
    octaves = [band_db(noise, low_hz, 2 * low_hz) for low_hz in (250, 500, 1000, 2000)]
    assert np.ptp(octaves) < 1.0  # pink is as strong in every octave; white would rise by 9 dB


def test_a_telephone_leaves_its_band_alone():
    heard = heard_under("telephone", voice(), RATE, "a")
    assert band_db(heard, 320, 3380) == pytest.approx(band_db(voice(), 320, 3380), abs=0.1)
    assert band_db(heard, 0, 280) < band_db(voice(), 0, 280) - 60
    assert band_db(heard, 3420, 8000) < band_db(voice(), 3420, 8000) - 60


def test_a_room_answers_three_decibels_below_the_direct_sound_and_falls_silent():
    click = np.zeros(RATE, np.float32)
    click[0] = 1.0
    heard = heard_under("small_room", click, RATE, "a").astype(np.float64)
    tail = heard - click
    assert -10 * np.log10(np.square(tail).sum()) == pytest.approx(3.0, abs=0.01)
    early, late = (level_db(tail[start : start + 800]) for start in (0, 3200))
    assert early - late == pytest.approx(30, abs=2)  # 60 dB in 0.4 s, so 30 in 0.2 s
    assert np.abs(tail[int(0.41 * RATE) :]).max() < 1e-6


def test_mp3_is_heard_as_the_clip_in_its_place():
    heard = heard_under("mp3_32kbit", voice(), RATE, "a")
    assert np.corrcoef(heard, voice())[0, 1] > 0.95  # a shift of one sample of the codec's delay would be seen
    assert level_db(heard) == pytest.approx(level_db(voice()), abs=1)


def test_quiet_is_a_tenth():
    assert heard_under("quiet_20db", voice(), RATE, "a") == pytest.approx(voice() / 10, abs=1e-6)
