"""The pictures show what the page says they show, whatever the model hears."""

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from ser_model import SERFeatureExtractor
from ser_model.inference import Window
from ser_model.labels import label_scheme
from ser_model.pictures import log_mel_svg, looks_of, mfcc_svg, saliency_svg, timeline_svg
from ser_model.saliency import Saliency

RATE = 16_000
WAVEFORM = (0.1 * np.random.default_rng(0).standard_normal(2 * RATE)).astype(np.float32)


def image(extractor: object) -> str:
    """The coloured picture inside the axes."""
    return re.search(r'href="data:image/png;base64,([^"]+)"', mfcc_svg(WAVEFORM, RATE, extractor))[1]


@pytest.mark.parametrize(
    "settings",
    [
        {"features": ["chroma", "mfcc"], "delta_order": 1},
        {"max_length_s": 1.0, "padding": "max_length"},
        {"features": "log_mel"},  # the default MFCCs stand in for a model that hears none
    ],
)
def test_the_picture_of_mfccs_shows_them_and_nothing_else(settings):
    assert image(SERFeatureExtractor(**settings)) == image(SERFeatureExtractor())


def test_the_picture_shows_the_extractors_own_mfccs():
    assert image(SERFeatureExtractor(n_mfcc=13)) != image(SERFeatureExtractor())


def test_the_log_mel_picture_has_seconds_and_hertz_and_shows_where_a_tone_lies():
    tone = np.sin(2 * np.pi * 1000 * np.arange(2 * RATE) / RATE).astype(np.float32)
    svg = log_mel_svg(tone, RATE)
    assert {"seconds", "hertz", "1000", "4000"} <= texts(svg)
    rows = pixels(svg).astype(int).sum(axis=2).mean(axis=1)  # brightness of each row
    height = np.argmax(rows) / len(rows)
    low, high, wanted = (2595 * np.log10(1 + hertz / 700) for hertz in (50, 8000, 1000))  # HTK's mel scale
    assert height == pytest.approx((wanted - low) / (high - low), abs=0.04)


def test_the_saliency_picture_marks_the_salient_place():
    weights = np.zeros((40, 101), np.float32)
    weights[20:30, 60:80] = 1.0
    svg = saliency_svg(WAVEFORM, RATE, Saliency(weights, 0.02, 20.0, 8000.0, "angry"))
    assert {"seconds", "hertz"} <= texts(svg)
    overlay = pixels(svg, -1)[..., 3]
    where = np.argwhere(overlay > overlay.max() / 2)
    low, left = where.min(axis=0) / overlay.shape
    high, right = where.max(axis=0) / overlay.shape
    assert (left, right) == pytest.approx((0.6, 0.8), abs=0.04)
    assert (low, high) == pytest.approx((0.5, 0.75), abs=0.06)
    flat = Saliency(np.zeros((40, 101), np.float32), 0.02, 20.0, 8000.0, "angry")
    assert pixels(saliency_svg(WAVEFORM, RATE, flat), -1)[..., 3].max() == 0


def test_the_timeline_marks_speech_and_stays_small_for_an_hour():
    labels = ["calm", "angry"]
    windows = [Window(start, start + 4.0, {"calm": 0.4, "angry": 0.6}) for start in range(0, 3600, 2)]
    speech = [(start + 0.1, start + 1.9) for start in range(0, 3600, 2)]
    plain = timeline_svg(windows[:2], labels, 6.0)
    marked = timeline_svg(windows[:2], labels, 6.0, speech=[(0.5, 2.0), (3.0, 5.0)], names=["calme", "en colère"])
    assert marked.count("<path") - plain.count("<path") == 3  # two stretches, and what they are
    assert {"calme", "en colère", "speech", "percent", "0", "25", "100"} <= texts(marked)
    assert "speech" not in texts(plain)
    assert len(timeline_svg(windows, labels, 3602.0, speech)) < 60_000


def test_an_emotion_has_its_colour_with_every_model_and_a_man_a_pattern():
    def looks(base: str) -> dict[str, tuple[str, str]]:
        labels = label_scheme(base).names
        return dict(zip(labels, looks_of(labels), strict=True))

    eight, fourteen = looks("8"), looks("14")
    assert len(set(eight.values())) == 8 and len(set(fourteen.values())) == 14
    for label, (colour, pattern) in fourteen.items():
        sex, _, emotion = label.partition("_")
        assert (colour, bool(pattern)) == (eight[emotion][0], sex == "male")
    assert len(set(looks_of(["happy", "my_happy", *"abcdefgh"]))) == 10


@pytest.mark.parametrize("draw", [log_mel_svg, lambda *sound: mfcc_svg(*sound, SERFeatureExtractor())])
def test_pictures_of_a_long_recording_show_its_start(draw):
    assert len(draw(np.tile(WAVEFORM, 60), RATE)) < 600_000
    assert "30" in texts(draw(np.tile(WAVEFORM, 60), RATE))


def texts(svg: str) -> set[str]:
    return set(re.findall(r"<text[^>]*>([^<]*)</text>", svg))


def pixels(svg: str, index: int = 0) -> np.ndarray:
    """(height, width, 4) of one coloured picture, its lowest row first, as matplotlib lays it down."""
    images = re.findall(r'<image [^>]*?href="data:image/png;base64,\s*([^"]+)"[^>]*>', svg)
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(images[index]))).convert("RGBA"))
