"""The pictures show what the page says they show, whatever the model hears."""

import re

import numpy as np
import pytest

from ser_model import SERFeatureExtractor
from ser_model.pictures import mfcc_svg

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
