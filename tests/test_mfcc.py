"""The cepstra agree with torchaudio and librosa, and padding, batch make-up and gain leave them alone."""

import librosa
import numpy as np
import pytest
import scipy.fft
import soundfile
import torch
import torchaudio

from ser_model import SERFeatureExtractor
from ser_model.mfcc import (
    POWER_FLOOR,
    dct_matrix,
    deltas,
    frame_count,
    frame_mask,
    mel_filterbank,
    power_spectrogram,
    power_to_db,
    trim_silence,
)

RATE = 16_000
SPAN = 20_011  # samples, 1.25 s: no multiple of any hop
# Coefficients reach 800 dB, where float32 steps are 6e-5; the filters of torchaudio are float32, ours float64.
TOLERANCE_DB = 2e-3
CHAINS = {
    "default": {},
    "13 of 40 at 25/10 ms": {"n_mfcc": 13, "n_mels": 40, "frame_ms": 25, "hop_ms": 10, "n_fft": 512, "f_min": 0},
}


def made_signal(name: str) -> np.ndarray:
    """A tone, chirp or noise over noise of -60 dB, as in a quiet room."""
    seconds = np.arange(SPAN) / RATE
    noise = np.random.default_rng(0).standard_normal(SPAN)
    sweep_hertz = np.linspace(50, 7900, SPAN)
    sounds = {
        "tone": 0.5 * np.sin(2 * np.pi * 440 * seconds),
        "chirp": 0.5 * np.sin(2 * np.pi * np.cumsum(sweep_hertz) / RATE),
        "noise": 0.1 * noise,
    }
    return (sounds[name] + 1e-3 * noise).astype(np.float32)


@pytest.fixture(params=["tone", "chirp", "noise", "real clip"])
def signal(request):
    if request.param != "real clip":
        return made_signal(request.param)
    actor = request.getfixturevalue("data_dir") / "RAVDESS" / "Audio_Speech_Actors_01-24" / "Actor_01"
    waveform, rate = soundfile.read(actor / "03-01-05-01-01-01-01.flac", dtype="float32")
    assert rate == RATE
    return waveform


@pytest.fixture(params=CHAINS)
def chain(request):
    return CHAINS[request.param]


def plain_extractor(**settings) -> SERFeatureExtractor:
    """Nothing but the MFCC chain: no trimming, no reference level, no normalisation."""
    return SERFeatureExtractor(**{"trim_db": None, "level": "absolute", **settings})


def features_of(extractor: SERFeatureExtractor, waveform) -> np.ndarray:
    return extractor(waveform, sampling_rate=RATE, return_tensors="np")["input_features"][0]


@pytest.mark.parametrize("top_db", [None, 80.0])
def test_mfccs_equal_torchaudio(signal, chain, top_db):
    extractor = plain_extractor(top_db=top_db, **chain)
    reference = torchaudio.transforms.MFCC(
        sample_rate=RATE,
        n_mfcc=extractor.n_mfcc,
        log_mels=False,
        melkwargs={
            "win_length": extractor.frame_samples,
            "hop_length": extractor.hop_samples,
            "n_fft": extractor.n_fft,
            "f_min": extractor.f_min,
            "f_max": extractor.f_max,
            "n_mels": extractor.n_mels,
            "mel_scale": "htk",
            "norm": None,
            "center": True,
            "pad_mode": "constant",
            "power": 2,
        },
    )
    reference.amplitude_to_DB.top_db = top_db  # its constructor knows 80 dB only
    expected = reference(torch.from_numpy(signal)).T.numpy()
    np.testing.assert_allclose(features_of(extractor, signal), expected, rtol=0, atol=TOLERANCE_DB)


@pytest.mark.parametrize("top_db", [None, 80.0])
def test_mfccs_equal_librosa(signal, chain, top_db):
    extractor = plain_extractor(top_db=top_db, **chain)
    mel = librosa.feature.melspectrogram(
        y=signal,
        sr=RATE,
        n_fft=extractor.n_fft,
        hop_length=extractor.hop_samples,
        win_length=extractor.frame_samples,
        window="hann",
        center=True,
        pad_mode="constant",
        power=2.0,
        n_mels=extractor.n_mels,
        fmin=extractor.f_min,
        fmax=extractor.f_max,
        htk=True,
        norm=None,
    )
    decibels = librosa.power_to_db(mel, ref=1.0, amin=POWER_FLOOR, top_db=top_db)
    expected = scipy.fft.dct(decibels, axis=0, norm="ortho")[: extractor.n_mfcc].T
    np.testing.assert_allclose(features_of(extractor, signal), expected, rtol=0, atol=TOLERANCE_DB)


@pytest.mark.parametrize("chain_name", CHAINS)
def test_mel_filters_equal_torchaudio_and_librosa(chain_name):
    extractor = plain_extractor(**CHAINS[chain_name])
    n_mels, n_fft, f_min, f_max = extractor.n_mels, extractor.n_fft, extractor.f_min, extractor.f_max
    ours = mel_filterbank(n_mels, n_fft, RATE, f_min, f_max).numpy()
    by_torchaudio = torchaudio.functional.melscale_fbanks(n_fft // 2 + 1, f_min, f_max, n_mels, RATE).T.numpy()
    by_librosa = librosa.filters.mel(sr=RATE, n_fft=n_fft, n_mels=n_mels, fmin=f_min, fmax=f_max, htk=True, norm=None)
    np.testing.assert_allclose(ours, by_torchaudio, rtol=0, atol=1e-4)
    np.testing.assert_allclose(ours, by_librosa, rtol=0, atol=1e-6)


def test_empty_mel_filters_are_refused():
    with pytest.raises(ValueError, match=r"of 128 mel filters .* raise n_fft \(now 512\) or lower n_mels"):
        mel_filterbank(128, 512, RATE, 20.0, 8000.0)


def test_vocal_tract_factors_move_the_spectrum():
    setting = (80, 1024, RATE, 20.0, 8000.0)
    plain, same, higher = mel_filterbank(*setting), *mel_filterbank(*setting, torch.tensor([1.0, 1.25]))
    torch.testing.assert_close(same, plain, rtol=0, atol=1e-4)
    # What lies in bin 100 is heard as if it lay in bin 125.
    torch.testing.assert_close(higher[:, 100], plain[:, 125], rtol=0, atol=1e-4)


def test_dct_is_orthonormal_and_equals_scipy():
    matrix = dct_matrix(80, 80)
    torch.testing.assert_close(matrix @ matrix.T, torch.eye(80), rtol=0, atol=1e-6)
    expected = scipy.fft.dct(np.eye(80), axis=0, norm="ortho")
    np.testing.assert_allclose(matrix.numpy(), expected, rtol=0, atol=1e-6)
    np.testing.assert_array_equal(dct_matrix(13, 80).numpy(), matrix[:13].numpy())


def test_deltas_equal_torchaudio_whatever_the_padding():
    lengths = torch.tensor([1, 2, 7, 40])
    features = torch.randn(4, 5, 40, generator=torch.Generator().manual_seed(0))
    for width in (3, 5, 9):
        ours = deltas(features, lengths, width)
        for row, length in enumerate(lengths):
            expected = torchaudio.functional.compute_deltas(features[row, :, :length], width, mode="replicate")
            torch.testing.assert_close(ours[row, :, :length], expected, rtol=0, atol=1e-5)


def test_frame_count_is_what_the_spectrogram_gives():
    for samples in (400, 511, 512, 513, 1023, 1024, 20_011):
        spectrum = power_spectrogram(torch.zeros(1, samples), 400, 160, 512)
        assert spectrum.shape == (1, 257, frame_count(samples, 160))


def test_decibels_ignore_the_level_of_padding():
    power = torch.tensor([[[1.0, 1e-3, 1e9]]])  # the last frame is padding
    mask = torch.tensor([[True, True, False]])
    assert power_to_db(power, mask, top_db=20.0)[0, 0, :2].tolist() == pytest.approx([0, -20])
    assert power_to_db(10 * power, mask, relative=True)[0, 0, :2].tolist() == pytest.approx([0, -30])


def test_trimming_keeps_the_loud_frames_and_the_margin():
    power = torch.full((3, 2, 30), 1e-9)
    power[0, :, 10:20] = 1.0
    power[1, :, 1:12] = 1.0  # less than the margin before it, and its last real frame is loud
    power[2, :, 5] = 1.0
    power[:, 0] *= torch.arange(1, 31) / 30  # so that a shift would show
    lengths = torch.tensor([30, 12, 25])
    trimmed, kept = trim_silence(power, lengths, threshold_db=40, margin_frames=3)
    assert kept.tolist() == [16, 12, 7]
    for row, (first, last) in enumerate([(7, 23), (0, 12), (2, 9)]):
        torch.testing.assert_close(trimmed[row, :, : kept[row]], power[row, :, first:last], rtol=0, atol=0)


def test_trimming_goes_by_the_threshold():
    power = torch.full((1, 1, 9), 1e-12)
    power[0, 0, 4] = 1.0
    power[0, 0, 2] = 10**-3.9  # 39 dB below the peak: loud enough
    power[0, 0, 7] = 10**-4.1  # 41 dB below: quiet
    trimmed, kept = trim_silence(power, torch.tensor([9]), threshold_db=40, margin_frames=0)
    assert kept.tolist() == [3]
    assert trimmed[0, 0, 0] == power[0, 0, 2]


def test_trimming_a_tone_between_silences_leaves_tone_and_margin():
    tone_ms, margin_ms = 800, 160
    silence = np.zeros(RATE // 2, np.float32)
    tone = 0.3 * np.sin(2 * np.pi * 300 * np.arange(RATE * tone_ms // 1000) / RATE).astype(np.float32)
    extractor = SERFeatureExtractor(trim_margin_ms=margin_ms)
    kept_ms = len(features_of(extractor, np.concatenate([silence, tone, silence]))) * extractor.hop_ms
    # A frame counts as loud as soon as the tone reaches into it, hence up to one frame more.
    assert tone_ms + 2 * margin_ms - extractor.hop_ms <= kept_ms <= tone_ms + 2 * margin_ms + extractor.frame_ms


@pytest.mark.parametrize("level", ["absolute", "relative"])
def test_digital_silence_stays_whole_and_finite(level):
    extractor = SERFeatureExtractor(level=level)
    features = features_of(extractor, np.zeros(RATE, np.float32))
    assert features.shape == (frame_count(RATE, extractor.hop_samples), extractor.n_mfcc)
    assert np.isfinite(features).all()


@pytest.mark.parametrize("level", ["absolute", "relative"])
def test_batch_make_up_and_zero_padding_change_no_frame(signal, level):
    extractor = SERFeatureExtractor(level=level, delta_order=2)
    clips = [signal, signal[:700], 0.01 * signal[3000:12_345], signal[5000:6000]]
    lengths = torch.tensor([len(clip) for clip in clips])
    batch = torch.zeros(len(clips), len(signal) + 5000)
    for row, clip in zip(batch, clips, strict=True):
        row[: len(clip)] = torch.from_numpy(clip)
    features, mask = extractor.extract(batch, lengths)
    assert not features[~mask].any()
    for row, clip in enumerate(clips):
        alone = features_of(extractor, clip)
        assert mask[row].tolist() == frame_mask(torch.tensor([len(alone)]), mask.shape[1])[0].tolist()
        np.testing.assert_allclose(features[row, : len(alone)].numpy(), alone, rtol=0, atol=TOLERANCE_DB)


def test_gain_leaves_relative_features_alone_and_shifts_absolute_ones(signal):
    quieter = (0.1 * signal).astype(np.float32)  # -20 dB
    relative = SERFeatureExtractor(level="relative")
    np.testing.assert_allclose(features_of(relative, quieter), features_of(relative, signal), rtol=0, atol=TOLERANCE_DB)
    absolute = SERFeatureExtractor(level="absolute", n_mfcc=1)  # the DCT's first row sums the bands / sqrt(n_mels)
    shift = features_of(absolute, quieter) - features_of(absolute, signal)
    np.testing.assert_allclose(shift, -20 * np.sqrt(absolute.n_mels), rtol=0, atol=TOLERANCE_DB)


def test_features_are_float32_inside_bf16_autocast(signal):
    extractor = SERFeatureExtractor(delta_order=1)
    waveforms, lengths = torch.from_numpy(signal)[None], torch.tensor([len(signal)])
    expected, _ = extractor.extract(waveforms, lengths)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        features, _ = extractor.extract(waveforms, lengths)
        assert (features @ features.mT).dtype == torch.bfloat16  # autocast is on around it
    assert features.dtype == torch.float32
    torch.testing.assert_close(features, expected, rtol=0, atol=0)
