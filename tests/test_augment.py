import numpy as np
import pytest
import soundfile
import torch

from ser_model import SERFeatureExtractor
from ser_model.augment import Augmenter, coloured, move_harmonics, scramble, shift_pitch, through_mp3
from ser_model.mfcc import dct_matrix, frame_mask, hertz_to_mel, mel_to_hertz
from ser_model.settings import AugmentationSettings

RATE = 16_000
EVERY = list(AugmentationSettings.model_fields)
ON_WAVEFORMS = ["shift", "pitch", "reverberation", "noise", "gain", "clipping", "band", "codec"]
PITCHES_HZ = (500.0, 1000.0, 2000.0)


def augmenter(max_frames=1000, seed=0, **chosen) -> Augmenter:
    """Only what is named, and that on every clip."""
    settings = {name: {"probability": 0.0} for name in EVERY}
    settings |= {name: {"probability": 1.0} | options for name, options in chosen.items()}
    return Augmenter(AugmentationSettings.model_validate(settings), RATE, max_frames, seed)


@pytest.fixture
def batch():
    time_s = torch.arange(2 * RATE) / RATE
    tones = torch.stack([torch.sin(2 * torch.pi * hertz * time_s) for hertz in PITCHES_HZ]) * 0.5
    lengths = torch.tensor([2 * RATE, 24_000, RATE])
    return tones * (torch.arange(2 * RATE) < lengths[:, None]), lengths


INDICES = torch.tensor([5, 17, 4])


def spectra(batch):
    extractor = SERFeatureExtractor(trim_db=None)
    seen = []
    extractor.extract(
        *batch, spectrum_transform=lambda power, lengths: seen.extend([power, lengths]) or (power, lengths)
    )
    return seen


def peak_hertz(waveform):
    spectrum = torch.fft.rfft(waveform * torch.hann_window(len(waveform))).abs()
    return float(spectrum.argmax() * RATE / len(waveform))


# What holds for all.


def test_all_turned_off_changes_nothing(batch):
    distort = augmenter()(0, INDICES)
    assert torch.equal(distort.waveforms(*batch), batch[0])
    assert torch.equal(distort.vocal_tract_factors(), torch.ones(3))
    power, lengths = spectra(batch)
    changed, new_lengths = distort.spectra(power, lengths)
    assert torch.equal(new_lengths, lengths)
    real = frame_mask(lengths, power.shape[-1])[:, None]
    torch.testing.assert_close(changed * real, power * real)
    features, mask = torch.rand(3, 5, 4), torch.ones(3, 5, dtype=torch.bool)
    assert torch.equal(distort.style(features, mask, torch.zeros(3)), features)
    assert torch.equal(distort.mixup(features, mask, torch.eye(3))[0], features)


@pytest.mark.parametrize("name", ON_WAVEFORMS)
def test_distortion_changes_the_sound_and_leaves_padding_and_input_alone(batch, name):
    waveforms, lengths = batch
    before = waveforms.clone()
    distorted = augmenter(**{name: {}})(0, INDICES).waveforms(waveforms, lengths)
    assert torch.equal(waveforms, before)
    assert distorted.isfinite().all()
    for clean, heard, length in zip(waveforms, distorted, lengths, strict=True):
        assert not torch.equal(clean[:length], heard[:length])
        assert not heard[length:].any()


def test_a_clip_gets_the_same_in_any_batch_and_something_else_in_the_next_epoch(batch):
    waveforms, lengths = batch
    everything = augmenter(**{name: {} for name in EVERY})
    together = everything(3, INDICES).waveforms(waveforms, lengths)
    alone = everything(3, INDICES[1:2]).waveforms(waveforms[1:2], lengths[1:2])
    torch.testing.assert_close(together[1:2], alone, rtol=0, atol=1e-6)
    assert not torch.equal(everything(4, INDICES).waveforms(waveforms, lengths), together)
    assert not torch.equal(
        augmenter(seed=1, **{name: {} for name in EVERY})(3, INDICES).waveforms(waveforms, lengths), together
    )


def test_a_clip_shorter_than_half_a_window_keeps_its_pitch():
    click = torch.randn(240, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(shift_pitch(click, 1.1), click)
    assert shift_pitch(torch.randn(300), 1.1).shape == (300,)


def test_draws_are_even_and_independent():
    distort = augmenter()(0, torch.arange(20_000))
    first, second = distort.uniform("a", -1, 3).double(), distort.uniform("b", -1, 3).double()
    assert first.min() >= -1 and first.max() <= 3
    counts = torch.histc(first, bins=8, min=-1, max=3)
    assert (counts / 2500 - 1).abs().max() < 0.08
    assert abs(float(torch.corrcoef(torch.stack([first, second]))[0, 1])) < 0.03
    neighbours = torch.stack([first[:-1], first[1:]])
    assert abs(float(torch.corrcoef(neighbours)[0, 1])) < 0.03


def test_scramble_is_one_to_one():
    assert len(np.unique(scramble(np.arange(100_000, dtype=np.uint64)))) == 100_000


def test_probability_is_the_share_of_clips():
    settings = AugmentationSettings.model_validate({"noise": {"probability": 0.3}})
    chosen = Augmenter(settings, RATE, 100, 0)(0, torch.arange(10_000)).chosen("noise")
    assert float(chosen.float().mean()) == pytest.approx(0.3, abs=0.02)


# What each of them claims.


def test_noise_has_the_ratio_asked_for(batch):
    waveforms, lengths = batch
    noise = augmenter(noise={"snr_db": (10.0, 10.0)})(0, INDICES).waveforms(*batch) - waveforms
    for row, clean, length in zip(noise, waveforms, lengths, strict=True):
        ratio_db = 10 * torch.log10(clean[:length].square().mean() / row[:length].square().mean())
        assert ratio_db == pytest.approx(10, abs=0.1)


def test_colour_of_noise():
    white = torch.randn(2**16, generator=torch.Generator().manual_seed(0))
    power = torch.fft.rfft(coloured(white, 1.0)).abs().square()
    octaves = [power[2**octave : 2 ** (octave + 1)].mean() for octave in range(8, 14)]
    ratios = [float(low / high) for low, high in zip(octaves, octaves[1:], strict=False)]
    assert ratios == pytest.approx([2] * 5, rel=0.3)  # pink: half the power an octave higher


def test_noise_comes_from_a_folder(batch, tmp_path):
    tone = np.sin(2 * np.pi * 3000 * np.arange(RATE // 2) / RATE)
    soundfile.write(tmp_path / "whistle.wav", tone, RATE)
    loud = {"folder": str(tmp_path), "snr_db": (-20.0, -20.0)}
    distorted = augmenter(noise=loud)(0, INDICES).waveforms(*batch)
    assert peak_hertz(distorted[0]) == pytest.approx(3000, abs=5)


def test_an_empty_folder_of_noise_is_refused(tmp_path):
    with pytest.raises(ValueError, match="augmentation.noise.folder"):
        augmenter(noise={"folder": str(tmp_path)})


def test_gain_and_clipping_stay_within_bounds(batch):
    louder = augmenter(gain={"db": 6.0})(0, INDICES).waveforms(*batch)
    ratio_db = 20 * torch.log10(louder.abs().amax(dim=1) / batch[0].abs().amax(dim=1))
    assert (ratio_db.abs() <= 6).all() and len(set(ratio_db.tolist())) == 3
    clipped = augmenter(clipping={"threshold": (0.3, 0.3)})(0, INDICES).waveforms(*batch)
    torch.testing.assert_close(clipped.abs().amax(dim=1), torch.full((3,), 0.15), rtol=1e-3, atol=0)


def test_shift_keeps_every_sample(batch):
    waveforms, lengths = batch
    shifted = augmenter(shift={})(0, INDICES).waveforms(*batch)
    for clean, heard, length in zip(waveforms, shifted, lengths, strict=True):
        assert torch.equal(clean[:length].sort().values, heard[:length].sort().values)


@pytest.mark.parametrize("factor", [0.8, 1.0, 1.25])
def test_pitch_moves_by_its_factor_and_time_stays(factor):
    time_s = torch.arange(RATE) / RATE
    burst = torch.sin(2 * torch.pi * 1000 * time_s) * ((time_s > 0.4) & (time_s < 0.6))
    shifted = shift_pitch(burst, factor)
    assert shifted.shape == burst.shape
    assert peak_hertz(shifted) == pytest.approx(1000 * factor, rel=0.01)
    centre_s = float((shifted.square() * time_s).sum() / shifted.square().sum())
    assert centre_s == pytest.approx(0.5, abs=0.02)
    assert float(shifted.square().sum() / burst.square().sum()) == pytest.approx(1, abs=1e-3)


def test_pitch_moves_where_the_last_place_is_rounded_up_to_the_end():
    assert shift_pitch(torch.randn(32_000), 140 / 250 * (1 + 1e-9)).isfinite().all()


def test_band_removes_what_lies_outside_it(batch):
    kept = augmenter(band={"low_hz": (800.0, 800.0), "high_hz": (1500.0, 1500.0)})(0, INDICES).waveforms(*batch)
    share = kept.square().sum(dim=1) / batch[0].square().sum(dim=1)
    assert share[1] > 0.99 and share[0] < 0.01 and share[2] < 0.01


def test_bands_differ_from_clip_to_clip(batch):
    noise = torch.randn(3, RATE, generator=torch.Generator().manual_seed(0))
    kept = augmenter(band={})(0, INDICES).waveforms(noise, torch.full((3,), RATE))
    heard = [torch.fft.rfft(clip).abs().square().cumsum(0) for clip in kept]
    tops = [float(torch.searchsorted(power, 0.999 * power[-1])) for power in heard]  # 1 Hz a bin
    assert all(2990 <= top <= 5010 for top in tops) and len(set(tops)) == 3


def test_reverberation_sounds_on_after_the_voice_has_stopped():
    waveform = torch.zeros(1, RATE)
    waveform[0, : RATE // 4] = torch.randn(RATE // 4, generator=torch.Generator().manual_seed(0))
    wet = augmenter(reverberation={"decay_s": (0.5, 0.5), "direct_db": (0.0, 0.0)})(0, INDICES[:1]).waveforms(
        waveform, torch.tensor([RATE])
    )[0]
    levels_db = [10 * torch.log10(wet[start : start + 800].square().mean()) for start in (4400, 6400, 8400)]
    falls_db_s = [float(before - after) / 0.125 for before, after in zip(levels_db, levels_db[1:], strict=False)]
    assert falls_db_s == pytest.approx([120, 120], rel=0.25)  # 60 dB in half a second


@pytest.mark.parametrize("rate", [8_000, RATE, 20_000, 24_414, 44_100, 96_000])
def test_codec_keeps_the_tone_in_its_place(rate):
    """Also at rates that MP3 has not, which a training may have."""
    time_s = np.arange(rate) / rate
    tone = (0.5 * np.sin(2 * np.pi * 700 * time_s)).astype(np.float32)
    heard = through_mp3(tone, rate, 32)
    assert heard.shape == tone.shape
    assert np.corrcoef(tone, heard)[0, 1] > 0.99
    assert 1e-4 < np.abs(tone - heard).max()


def test_vocal_tract_factor_moves_a_tone_by_that_factor(batch):
    extractor = SERFeatureExtractor(trim_db=None)

    def loudest_hertz(factors):
        features, _ = extractor.extract(*batch, vocal_tract_factors=factors)
        band = (features @ dct_matrix(80, 80)).mean(dim=1).argmax(dim=1)
        low_mel, high_mel = hertz_to_mel(torch.tensor([20.0, 8000.0]))
        return mel_to_hertz(low_mel + (band + 1) * (high_mel - low_mel) / 81)

    drawn = augmenter(vocal_tract={"warp": 0.12})(0, INDICES).vocal_tract_factors()
    assert ((drawn >= 0.88) & (drawn <= 1.12)).all() and len(set(drawn.tolist())) == 3
    moved_hertz = loudest_hertz(torch.tensor([1.1, 0.9, 1.1]))
    torch.testing.assert_close(moved_hertz, torch.tensor([550.0, 900.0, 2200.0]), rtol=0.04, atol=0)


@pytest.mark.parametrize("feature", ["log_spectrogram", "spectrogram"])
def test_vocal_tract_factor_moves_a_tone_of_a_linear_spectrum_as_far(batch, feature):
    extractor = SERFeatureExtractor(features=feature, trim_db=None)
    features, _ = extractor.extract(*batch, vocal_tract_factors=torch.tensor([1.1, 0.9, 1.1]))
    moved_hertz = features.mean(dim=1).argmax(dim=1) * RATE / extractor.n_fft
    torch.testing.assert_close(moved_hertz, torch.tensor([550.0, 900.0, 2200.0]), rtol=0.04, atol=0)
    as_it_was = [extractor.extract(*batch, vocal_tract_factors=own)[0] for own in (None, torch.ones(3))]
    assert torch.equal(*as_it_was)


def test_vocal_tract_factor_moves_the_pitch_class_of_a_tone(batch):
    extractor = SERFeatureExtractor(features="chroma", trim_db=None)
    semitone = torch.full((3,), 2 ** (1 / 12))
    still, moved = (extractor.extract(*batch, vocal_tract_factors=own)[0].mean(dim=1) for own in (None, semitone))
    assert torch.equal(moved.argmax(dim=1), (still.argmax(dim=1) + 1) % 12)


def test_tempo_changes_length_but_not_pitch(batch):
    power, lengths = spectra(batch)
    warped, new_lengths = augmenter(tempo={"rate": 0.15})(0, INDICES).spectra(power, lengths)
    assert not torch.equal(new_lengths, lengths)
    assert ((new_lengths >= lengths / 1.15 - 1) & (new_lengths <= lengths / 0.85 + 1)).all()
    assert torch.equal(warped.sum(dim=2).argmax(dim=1), power.sum(dim=2).argmax(dim=1))


def test_speed_changes_tempo_and_pitch_by_one_factor(batch):
    power, lengths = spectra(batch)
    distort = augmenter(speed={"rate": 0.1})(0, INDICES)
    factors = distort.vocal_tract_factors()
    _, new_lengths = distort.spectra(power, lengths)
    assert not torch.equal(factors, torch.ones(3))
    torch.testing.assert_close(lengths / new_lengths, factors, rtol=0.03, atol=0)


def test_long_clips_are_cropped_at_a_place_of_their_own(batch):
    power, lengths = spectra(batch)
    assert lengths.tolist() == [101, 76, 51]
    power = torch.arange(power.shape[-1]).float().expand_as(power)  # every frame tells its number
    cropped, new_lengths = augmenter(max_frames=60)(0, INDICES).spectra(power, lengths)
    assert new_lengths.tolist() == [60, 60, 51]
    first = cropped[:, 0, 0]
    assert first[0] != first[1] and (first[:2] <= torch.tensor([41, 16])).all() and first[2] == 0
    again, _ = augmenter(max_frames=60)(1, INDICES).spectra(power, lengths)
    assert again[0, 0, 0] != first[0]


def test_masks_hide_frames_and_bands(batch):
    power, lengths = spectra(batch)
    power = power * torch.rand(power.shape, generator=torch.Generator().manual_seed(0))
    in_time, _ = augmenter(masks={"frequency_masks": 0})(0, INDICES).spectra(power, lengths)
    real = frame_mask(lengths, power.shape[-1])
    hidden_frames = (((in_time != power).float().mean(dim=1) > 0.99) & real).sum(dim=1)
    assert hidden_frames.max() > 2
    assert (hidden_frames <= 20).all()
    in_frequency, _ = augmenter(masks={"time_masks": 0})(0, INDICES).spectra(power, lengths)
    changed = (in_frequency != power)[0, :, : int(lengths[0])].float().mean(dim=1)
    assert set(changed.round(decimals=1).tolist()) == {0.0, 1.0}


def test_tilt_raises_one_end_as_it_lowers_the_other(batch):
    power, lengths = spectra(batch)
    power = torch.ones_like(power)
    tilted, _ = augmenter(tilt={"db": 6.0})(0, INDICES).spectra(power, lengths)
    ends_db = 10 * torch.log10(tilted[:, [0, -1], 0])
    torch.testing.assert_close(ends_db[:, 0], -ends_db[:, 1], rtol=0, atol=1e-3)
    assert (ends_db.abs() <= 3.01).all()


@pytest.mark.parametrize("factor", [0.8, 1.25])
def test_intonation_moves_harmonics_and_keeps_formants(factor):
    """A buzz at 125 Hz through one resonance at 1500 Hz."""
    hertz = torch.linspace(0, RATE / 2, 513)
    resonance = 1 / (1 + ((hertz - 1500) / 300).square())
    comb = sum(torch.exp(-((hertz - 125 * number) / 20).square()) for number in range(1, 60)) + 1e-3
    power = (resonance * comb)[None, :, None]
    moved = move_harmonics(power, torch.tensor([factor]), RATE)[0, :, 0]
    pitch_hz = [float(torch.fft.irfft(x.log()).abs()[40:300].argmax() + 40) for x in (power[0, :, 0], moved)]
    assert pitch_hz[0] / pitch_hz[1] == pytest.approx(factor, rel=0.03)  # periods in samples
    smooth = [torch.nn.functional.avg_pool1d(x[None], 33, 1, padding=16)[0] for x in (power[0, :, 0], moved)]
    assert abs(float(hertz[smooth[0].argmax()] - hertz[smooth[1].argmax()])) < 80
    torch.testing.assert_close(move_harmonics(power, torch.ones(1), RATE), power, rtol=1e-3, atol=0)


def test_equalizer_is_a_smooth_curve_over_frequency(batch):
    power, lengths = spectra(batch)
    power = power + 1.0
    louder, _ = augmenter(equalizer={})(0, INDICES).spectra(power, lengths)
    curve_db = 10 * torch.log10(louder / power)[:, :, 0]
    assert (curve_db.std(dim=1) > 0.5).all() and (curve_db.diff(dim=1).abs() < 2).all()
    torch.testing.assert_close(10 * torch.log10(louder / power)[:, :, 5], curve_db)
    assert not torch.allclose(curve_db[0], curve_db[1])


def test_style_is_borrowed_from_clips_of_the_same_label_alone():
    torch.manual_seed(0)
    features = torch.randn(4, 50, 3) * torch.tensor([1.0, 2.0, 1.0, 5.0])[:, None, None]
    features = features + torch.tensor([0.0, 4.0, 0.0, 9.0])[:, None, None]
    mask = torch.arange(50) < torch.tensor([50, 40, 50, 30])[:, None]
    features = features * mask[..., None]
    distort = augmenter(style={"alpha": 1.0})
    borrowed = [
        distort(epoch, INDICES.repeat(2)[:4]).style(features, mask, torch.tensor([0, 1, 0, 2])) for epoch in range(4)
    ]
    for styled in borrowed:  # the second and the last have no partner; first and third have the same style
        torch.testing.assert_close(styled[1], features[1], rtol=0, atol=1e-4)
        torch.testing.assert_close(styled[3], features[3], rtol=0, atol=1e-4)
    strangers = [distort(epoch, INDICES.repeat(2)[:4]).style(features, mask, torch.zeros(4)) for epoch in range(12)]
    assert any(float(styled[0].mean()) > 0.5 for styled in strangers)
    for styled in strangers:
        assert not styled[~mask].any()
        order = [clip[real].argsort(dim=0) for clip, real in zip(styled, mask, strict=True)]  # the course stays
        before = [clip[real].argsort(dim=0) for clip, real in zip(features, mask, strict=True)]
        assert all(torch.equal(now, then) for now, then in zip(order, before, strict=True))


def test_mixup_blends_targets_as_it_blends_features():
    features = torch.eye(4)[:, None].expand(4, 5, 4)
    mask = torch.arange(5) < torch.tensor([2, 3, 4, 5])[:, None]
    distort = augmenter(mixup={})(0, torch.arange(4))
    blended, mixed_mask, targets = distort.mixup(features, mask, torch.eye(4))
    torch.testing.assert_close(blended[:, 0], targets)
    torch.testing.assert_close(targets.sum(dim=1), torch.ones(4))
    assert (mixed_mask | ~mask).all()
    assert not torch.equal(targets, torch.eye(4))
