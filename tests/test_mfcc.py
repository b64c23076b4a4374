"""The features agree with torchaudio and librosa, and padding, batch make-up and gain leave them alone."""

import re

import librosa
import numpy as np
import pytest
import scipy.fft
import soundfile
import torch
import torchaudio

from ser_model import SERFeatureExtractor, feature_extraction_ser
from ser_model.feature_extraction_ser import FEATURES, Spectra
from ser_model.mfcc import (
    MEL_SCALES,
    POWER_FLOOR,
    apply_filters,
    chroma_filterbank,
    contrast_bands,
    dct_matrix,
    deltas,
    filter_blocks,
    fit_length,
    frame_count,
    frame_mask,
    from_frame,
    loud_span,
    mel_filterbank,
    power_spectrogram,
    power_to_db,
    spectral_contrast,
    standardized,
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


def librosa_frames(extractor: SERFeatureExtractor) -> dict:
    """How librosa has to cut a sound into frames."""
    return {
        "n_fft": extractor.n_fft,
        "hop_length": extractor.hop_samples,
        "win_length": extractor.frame_samples,
        "window": extractor.window_name,
        "center": True,
        "pad_mode": "constant",
    }


def librosa_mel(signal: np.ndarray, extractor: SERFeatureExtractor) -> np.ndarray:
    return librosa.feature.melspectrogram(
        y=signal,
        sr=RATE,
        n_mels=extractor.n_mels,
        fmin=extractor.f_min,
        fmax=extractor.f_max,
        htk=extractor.mel_scale == "htk",
        norm="slaney" if extractor.mel_unit_area else None,
        power=2.0,
        **librosa_frames(extractor),
    )


def librosa_decibels(power: np.ndarray, extractor: SERFeatureExtractor) -> np.ndarray:
    return librosa.power_to_db(power, ref=1.0, amin=POWER_FLOOR, top_db=extractor.top_db)


def librosa_mfcc(signal: np.ndarray, extractor: SERFeatureExtractor) -> np.ndarray:
    decibels = librosa_decibels(librosa_mel(signal, extractor), extractor)
    return librosa.feature.mfcc(S=decibels, n_mfcc=extractor.n_mfcc, lifter=extractor.lifter)


def librosa_spectrogram(signal: np.ndarray, extractor: SERFeatureExtractor) -> np.ndarray:
    return np.abs(librosa.stft(signal, **librosa_frames(extractor))) ** 2


def interpolated_salience(signal: np.ndarray, extractor: SERFeatureExtractor) -> np.ndarray:
    """librosa's spectra read between the bins, at each harmonic and halfway to it; librosa itself has no such grid."""
    loudness = np.maximum(librosa_spectrogram(signal, extractor), POWER_FLOOR) ** 0.25
    hertz = np.arange(len(loudness)) * RATE / extractor.n_fft
    loudness, hertz = loudness[hertz < 4000], hertz[hertz < 4000]
    pitches = np.geomspace(extractor.pitch_f_min, extractor.pitch_f_max, extractor.n_pitch)

    columns = []
    for frame in loudness.T:
        at = [
            0.84 ** (n - 1) * np.interp([n * pitches, (n - 0.5) * pitches], hertz, frame, right=0.0)
            for n in range(1, 9)
        ]
        columns.append(sum(harmonic - between for harmonic, between in at) / frame.mean())
    return np.stack(columns, axis=1)


# For each feature what librosa makes of a sound (F, L), and how far from it ours may be: a share of its largest value.
LIBROSA = {
    "mfcc": (librosa_mfcc, 1e-5),
    "log_mel": (lambda y, e: librosa_decibels(librosa_mel(y, e), e), 1e-4),
    "mel": (librosa_mel, 1e-6),
    "log_spectrogram": (lambda y, e: librosa_decibels(librosa_spectrogram(y, e), e), 3e-4),
    "spectrogram": (librosa_spectrogram, 1e-6),
    "chroma": (
        lambda y, e: librosa.feature.chroma_stft(
            y=y, sr=RATE, tuning=0.0, n_chroma=e.n_chroma, norm=np.inf, **librosa_frames(e)
        ),
        5e-6,
    ),
    "pitch": (interpolated_salience, 5e-5),  # the fourth root makes much of rounding in what is nearly silent
    # A valley may lie 100 dB below the peak of its frame, where float32 spectra are all rounding.
    "contrast": (
        lambda y, e: librosa.feature.spectral_contrast(
            y=y,
            sr=RATE,
            n_bands=e.contrast_n_bands,
            fmin=e.contrast_f_min,
            quantile=e.contrast_quantile,
            **librosa_frames(e),
        ),
        2e-3,
    ),
}


@pytest.mark.parametrize("name", FEATURES)
def test_every_feature_equals_librosa(name, signal, chain):
    reference, tolerance = LIBROSA[name]
    extractor = plain_extractor(features=name, **chain)
    expected = reference(signal, extractor).T
    atol = tolerance * np.abs(expected).max()
    np.testing.assert_allclose(features_of(extractor, signal), expected, rtol=0, atol=atol)


OPTIONS = {
    "mfcc, liftered": {"n_mfcc": 40, "lifter": 22},
    "log_mel, hamming": {"window_name": "hamming"},
    "mel, slaney": {"mel_scale": "slaney"},
    "mel, unit area": {"mel_scale": "slaney", "mel_unit_area": True},
    "chroma of quarter tones": {"n_chroma": 24},
    "chroma of seven": {"n_chroma": 7},
    "contrast of four": {"contrast_n_bands": 4, "contrast_f_min": 100.0, "contrast_quantile": 0.2},
    "contrast of halves": {"contrast_n_bands": 5, "contrast_f_min": 250.0, "contrast_quantile": 0.5},
}


@pytest.mark.parametrize("case", OPTIONS)
def test_options_equal_librosa(case, signal):
    name = re.split("[ ,]", case)[0]
    test_every_feature_equals_librosa(name, signal, OPTIONS[case])


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


@pytest.mark.parametrize("unit_area", [False, True])
@pytest.mark.parametrize("scale", MEL_SCALES)
@pytest.mark.parametrize("chain_name", CHAINS)
def test_mel_filters_equal_torchaudio_and_librosa(chain_name, scale, unit_area):
    extractor = plain_extractor(**CHAINS[chain_name])
    n_mels, n_fft, f_min, f_max = extractor.n_mels, extractor.n_fft, extractor.f_min, extractor.f_max
    norm = "slaney" if unit_area else None
    ours = mel_filterbank(n_mels, n_fft, RATE, f_min, f_max, None, scale, unit_area).numpy()
    by_torchaudio = torchaudio.functional.melscale_fbanks(
        n_fft // 2 + 1, f_min, f_max, n_mels, RATE, norm, scale
    ).T.numpy()
    by_librosa = librosa.filters.mel(
        sr=RATE, n_fft=n_fft, n_mels=n_mels, fmin=f_min, fmax=f_max, htk=scale == "htk", norm=norm
    )
    np.testing.assert_allclose(ours, by_torchaudio, rtol=0, atol=1e-4 * ours.max())
    np.testing.assert_allclose(ours, by_librosa, rtol=0, atol=1e-6 * ours.max())


@pytest.mark.parametrize("scale", MEL_SCALES)
def test_mel_power_equals_torchaudio(signal, chain, scale):
    extractor = plain_extractor(features="mel", mel_scale=scale, mel_unit_area=True, **chain)
    reference = torchaudio.transforms.MelSpectrogram(
        RATE,
        extractor.n_fft,
        extractor.frame_samples,
        extractor.hop_samples,
        extractor.f_min,
        extractor.f_max,
        n_mels=extractor.n_mels,
        pad_mode="constant",
        norm="slaney",
        mel_scale=scale,
    )
    expected = reference(torch.from_numpy(signal)).T.numpy()
    np.testing.assert_allclose(features_of(extractor, signal), expected, rtol=0, atol=1e-4 * expected.max())


@pytest.mark.parametrize("n_chroma", [7, 12, 24])
@pytest.mark.parametrize("n_fft", [512, 1024, 2048])
def test_chroma_filters_equal_librosa(n_chroma, n_fft):
    expected = librosa.filters.chroma(sr=RATE, n_fft=n_fft, n_chroma=n_chroma, tuning=0.0)
    np.testing.assert_allclose(chroma_filterbank(n_chroma, n_fft, RATE).numpy(), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("setting", [(6, 200.0, 0.02), (4, 100.0, 0.2), (5, 250.0, 0.5), (3, 500.0, 0.9)])
@pytest.mark.parametrize("n_fft", [512, 1024])
def test_contrast_of_one_spectrogram_equals_librosa(setting, n_fft):
    n_bands, f_min, quantile = setting
    power = torch.randn(1, n_fft // 2 + 1, 50, generator=torch.Generator().manual_seed(0)).square()
    power[..., 7] = 0.0  # a silent frame among the others
    bands = contrast_bands(n_bands, f_min, quantile, n_fft, RATE)
    ours = spectral_contrast(power, torch.ones(1, 50, dtype=torch.bool), bands)[0]
    expected = librosa.feature.spectral_contrast(
        S=power[0].sqrt().numpy(), sr=RATE, n_fft=n_fft, n_bands=n_bands, fmin=f_min, quantile=quantile
    )
    np.testing.assert_allclose(ours.numpy(), expected, rtol=0, atol=1e-4)


def test_a_tone_has_its_pitch_class_and_more_contrast_than_noise():
    tone, hiss = made_signal("tone"), made_signal("noise")  # 440 Hz, an A
    assert (features_of(plain_extractor(features="chroma"), tone).argmax(axis=1) == 9).all()
    contrast = plain_extractor(features="contrast")
    octave = 2  # 400 to 800 Hz
    assert features_of(contrast, tone)[3:-3, octave].min() > features_of(contrast, hiss)[3:-3, octave].max() + 10


@pytest.mark.parametrize("hertz", [90, 200, 440])
def test_a_voice_is_a_ridge_at_its_pitch_and_noise_is_flat(hertz):
    seconds = np.arange(SPAN) / RATE
    partials = [np.sin(2 * np.pi * n * hertz * seconds) / n for n in range(1, int(7000 / hertz))]
    voice = (0.1 * sum(partials) + 0.3 * made_signal("noise")).astype(np.float32)
    extractor = plain_extractor(features="pitch", normalization="none")
    pitches = np.geomspace(60, 550, 80)
    salience = features_of(extractor, voice)[3:-3]
    found = pitches[salience.mean(axis=0).argmax()]
    assert found == pytest.approx(hertz, rel=0.03)
    assert np.median(np.abs(pitches[salience.argmax(axis=1)] / hertz - 1)) < 0.05
    noise = features_of(extractor, made_signal("noise"))[3:-3]
    assert salience.mean(axis=0).max() > 3 * np.abs(noise.mean(axis=0)).max()


def test_vocal_tract_factors_move_the_pitch_as_they_move_the_bands():
    extractor = plain_extractor(features="pitch", normalization="none")
    sawtooth = torch.from_numpy((np.arange(SPAN) * 200 / RATE % 1 - 0.5).astype(np.float32))[None]
    lengths = torch.tensor([SPAN])
    plain, _ = extractor.extract(sawtooth, lengths)
    same, _ = extractor.extract(sawtooth, lengths, vocal_tract_factors=torch.tensor([1.0]))
    higher, _ = extractor.extract(sawtooth, lengths, vocal_tract_factors=torch.tensor([1.25]))
    torch.testing.assert_close(same, plain)
    pitches = np.geomspace(60, 550, 80)
    before, after = (pitches[rows[0, 10:50].mean(dim=0).argmax()] for rows in (plain, higher))
    assert after / before == pytest.approx(1.25, rel=0.03)


def test_empty_mel_filters_are_refused():
    with pytest.raises(ValueError, match=r"of 128 mel filters .* raise n_fft \(now 512\) or lower n_mels"):
        mel_filterbank(128, 512, RATE, 20.0, 8000.0)


def test_vocal_tract_factors_move_the_spectrum():
    setting = (80, 1024, RATE, 20.0, 8000.0)
    plain, same, higher = mel_filterbank(*setting), *mel_filterbank(*setting, torch.tensor([1.0, 1.25]))
    torch.testing.assert_close(same, plain, rtol=0, atol=1e-4)
    # What lies in bin 100 is heard as if it lay in bin 125.
    torch.testing.assert_close(higher[:, 100], plain[:, 125], rtol=0, atol=1e-4)


@pytest.mark.parametrize("n_mels", [80, 41, 5])
def test_filters_in_blocks_are_the_filters(n_mels):
    filters = mel_filterbank(n_mels, 1024, RATE, 20.0, 8000.0)
    blocks = filter_blocks(filters)
    whole = torch.zeros_like(filters)
    for number, (first, block) in enumerate(blocks):
        rows = whole[number * len(blocks[0][1]) :]
        rows[: len(block), first : first + block.shape[1]] = block
    assert torch.equal(whole, filters)
    power = torch.rand(2, 513, 7, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(apply_filters(blocks, power), filters @ power, rtol=1e-5, atol=0)


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


@pytest.mark.parametrize(("frame_samples", "n_fft"), [(640, 1024), (441, 512), (400, 501), (401, 501), (512, 512)])
def test_an_exported_graph_convolves_to_the_same_spectrogram(frame_samples, n_fft):
    class Exported(torch.nn.Module):
        def forward(self, waveforms):
            return power_spectrogram(waveforms, frame_samples, 160, n_fft, "hamming")

    waveforms = torch.from_numpy(np.stack([made_signal("chirp"), made_signal("noise")]))
    graph = torch.export.export(Exported(), (waveforms,))
    assert any("conv1d" in str(node.target) for node in graph.graph.nodes)
    expected = Exported()(waveforms)
    torch.testing.assert_close(graph.module()(waveforms), expected, rtol=1e-4, atol=1e-6 * float(expected.max()))


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
    first, kept = loud_span(power, lengths, threshold_db=40, margin_frames=3)
    trimmed = from_frame(power, first)
    assert kept.tolist() == [16, 12, 7]
    for row, (first, last) in enumerate([(7, 23), (0, 12), (2, 9)]):
        torch.testing.assert_close(trimmed[row, :, : kept[row]], power[row, :, first:last], rtol=0, atol=0)


def test_trimming_goes_by_the_threshold():
    power = torch.full((1, 1, 9), 1e-12)
    power[0, 0, 4] = 1.0
    power[0, 0, 2] = 10**-3.9  # 39 dB below the peak: loud enough
    power[0, 0, 7] = 10**-4.1  # 41 dB below: quiet
    first, kept = loud_span(power, torch.tensor([9]), threshold_db=40, margin_frames=0)
    trimmed = from_frame(power, first)
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


@pytest.mark.parametrize("name", FEATURES)
@pytest.mark.parametrize("settings", [{"level": "absolute"}, {"level": "relative"}, {"normalization": "utterance"}])
def test_digital_silence_stays_whole_and_finite(name, settings):
    extractor = SERFeatureExtractor(features=name, delta_order=1, **settings)
    features = features_of(extractor, np.zeros(RATE, np.float32))
    assert features.shape == (frame_count(RATE, extractor.hop_samples), 2 * extractor.num_features)
    assert np.isfinite(features).all()
    assert np.ptp(features[:, : extractor.num_features], axis=0).max() < 0.5  # rounding is not blown up


def padded(clips: list[np.ndarray], extra_samples: int) -> tuple[torch.Tensor, torch.Tensor]:
    batch = torch.zeros(len(clips), max(map(len, clips)) + extra_samples)
    for row, clip in zip(batch, clips, strict=True):
        row[: len(clip)] = torch.from_numpy(clip)
    return batch, torch.tensor([len(clip) for clip in clips])


@pytest.mark.parametrize("name", FEATURES)
@pytest.mark.parametrize("settings", [{"level": "absolute"}, {"level": "relative"}, {"normalization": "utterance"}])
def test_batch_make_up_and_zero_padding_change_no_frame(name, signal, settings):
    extractor = SERFeatureExtractor(features=name, delta_order=2, **settings)
    clips = [signal, signal[:700], 0.01 * signal[3000:12_345], signal[5000:6000]]
    features, mask = extractor.extract(*padded(clips, 5000))
    assert not features[~mask].any()
    for row, clip in enumerate(clips):
        alone = features_of(extractor, clip)
        assert mask[row].tolist() == frame_mask(torch.tensor([len(alone)]), mask.shape[1])[0].tolist()
        atol = 1e-4 if "normalization" in settings else 1e-5 * np.abs(alone).max()
        np.testing.assert_allclose(features[row, : len(alone)].numpy(), alone, rtol=0, atol=atol)


@pytest.mark.parametrize("settings", [{}, {"padding": "max_length", "max_length_s": 1.0}, {"trim_db": None}])
def test_a_batch_done_row_by_row_is_the_batch(monkeypatch, settings):
    extractor = SERFeatureExtractor(features=["mfcc", "pitch"], delta_order=1, **settings)
    clips = [made_signal("chirp"), made_signal("noise")[:9000], made_signal("tone")[:15_000]]
    factors = torch.tensor([0.9, 1.0, 1.1])
    together = extractor.extract(*padded(clips, 300), vocal_tract_factors=factors)
    monkeypatch.setattr(feature_extraction_ser, "SAMPLES_AT_ONCE", 1)
    apart = extractor.extract(*padded(clips, 300), vocal_tract_factors=factors)
    torch.testing.assert_close(apart[0], together[0], rtol=0, atol=1e-4)
    assert torch.equal(apart[1], together[1])


@pytest.mark.parametrize("name", FEATURES)
def test_gain_leaves_relative_features_alone(name, signal):
    quieter = (0.1 * signal).astype(np.float32)  # -20 dB
    extractor = SERFeatureExtractor(features=name)
    expected = features_of(extractor, signal)
    atol = LIBROSA[name][1] * np.abs(expected).max()
    np.testing.assert_allclose(features_of(extractor, quieter), expected, rtol=0, atol=atol)


def test_gain_shifts_absolute_features(signal):
    quieter = (0.1 * signal).astype(np.float32)  # -20 dB
    absolute = SERFeatureExtractor(level="absolute", n_mfcc=1)  # the DCT's first row sums the bands / sqrt(n_mels)
    shift = features_of(absolute, quieter) - features_of(absolute, signal)
    np.testing.assert_allclose(shift, -20 * np.sqrt(absolute.n_mels), rtol=0, atol=TOLERANCE_DB)


def test_standardizing_goes_by_the_real_frames_of_each_utterance():
    generator = torch.Generator().manual_seed(0)
    features = 1e-3 * torch.randn(3, 2, 4, 50, generator=generator) + 100 * torch.randn(3, 2, 4, 1, generator=generator)
    lengths = torch.tensor([50, 20, 1])
    ours = standardized(features, frame_mask(lengths, 50))
    for row, length in enumerate(lengths):
        real = features[row, ..., :length].numpy().astype(np.float64)
        expected = (real - real.mean(axis=-1, keepdims=True)) / np.maximum(real.std(axis=-1, keepdims=True), 1e-12)
        np.testing.assert_allclose(ours[row, ..., :length].numpy(), expected, rtol=0, atol=0.1)
        assert not ours[row, ..., length:].any()


def test_fitting_the_length_keeps_the_middle_and_makes_room():
    power = torch.arange(10.0).expand(2, 3, 10)
    fitted, lengths = fit_length(power, torch.tensor([10, 3]), 5)
    assert lengths.tolist() == [5, 3]
    assert fitted.shape == (2, 3, 5)
    assert fitted[0, 0].tolist() == [2, 3, 4, 5, 6]
    assert fitted[1, 0, :3].tolist() == [0, 1, 2]
    fitted, lengths = fit_length(power, torch.tensor([10, 3]), 12)
    assert fitted.shape == (2, 3, 12) and lengths.tolist() == [10, 3]
    torch.testing.assert_close(fitted[..., :10], power, rtol=0, atol=0)


@pytest.mark.parametrize("name", FEATURES)
def test_features_are_float32_inside_bf16_autocast(name):
    signal = made_signal("chirp")
    extractor = SERFeatureExtractor(features=name, delta_order=1)
    waveforms, lengths = torch.from_numpy(signal)[None], torch.tensor([len(signal)])
    expected, _ = extractor.extract(waveforms, lengths)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        features, _ = extractor.extract(waveforms, lengths)
        assert (features @ features.mT).dtype == torch.bfloat16  # autocast is on around it
    assert features.dtype == torch.float32
    torch.testing.assert_close(features, expected, rtol=0, atol=0)


@pytest.mark.parametrize("name", FEATURES)
def test_every_feature_is_made_on_the_device_of_the_spectra(name):
    extractor = SERFeatureExtractor(features=name)
    power = torch.empty(2, extractor.n_fft // 2 + 1, 7, device="meta")  # mixed with a tensor of the CPU it raises
    features = FEATURES[name](Spectra(extractor, power, torch.empty(2, 7, dtype=torch.bool, device="meta")))
    assert features.device.type == "meta" and features.shape == (2, extractor.num_features, 7)


def test_an_exported_graph_gives_every_feature_for_any_batch_and_length():
    extractor = SERFeatureExtractor(features=list(FEATURES), delta_order=1, normalization="utterance")

    class Exported(torch.nn.Module):
        def forward(self, waveforms, lengths):
            return extractor.extract(waveforms, lengths)

    clips = [made_signal(name) for name in ("tone", "chirp", "noise")]
    clips[0][:6000] = 0.0  # so that there is something to trim
    auto = torch.export.Dim.AUTO
    shapes = {"waveforms": {0: auto, 1: auto}, "lengths": {0: auto}}
    example = padded([clip[:7000] for clip in clips[1:]], 0)
    exported = torch.export.export(Exported(), example, dynamic_shapes=shapes).module()
    batch = padded([clips[0], clips[1][:9000], clips[2][:1000]], 0)
    features, mask = exported(*batch)
    expected, expected_mask = extractor.extract(*batch)
    kept = expected.shape[1]
    assert kept < features.shape[1] == frame_count(SPAN, extractor.hop_samples)  # it does not shorten what it trims
    assert not mask[:, kept:].any() and not features[:, kept:].any()
    assert torch.equal(mask[:, :kept], expected_mask)
    # Bins near silence show in decibels how a convolution rounds, and how an FFT.
    near_silence = torch.tensor([name in ("log_spectrogram", "contrast") for name in FEATURES])
    near_silence = near_silence.repeat_interleave(torch.tensor(extractor.feature_sizes)).repeat(2)  # deltas as well
    difference = (features[:, :kept] - expected).abs().amax(dim=(0, 1))
    assert difference[~near_silence].max() < 1e-3 and difference[near_silence].max() < 1e-2
