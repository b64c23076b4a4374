import pytest
import torch

from ser_model import SERFeatureExtractor
from ser_model.augment import Augmenter
from ser_model.mfcc import dct_matrix, frame_mask, hertz_to_mel, mel_to_hertz
from ser_model.settings import AugmentationSettings

OFF = {
    "gain_db": 0,
    "noise_probability": 0,
    "tilt_db": 0,
    "time_rate": 0,
    "frequency_warp": 0,
    "time_masks": 0,
    "frequency_masks": 0,
    "mixup_probability": 0,
}


def augmenter(max_frames=1000, seed=0, **settings):
    return Augmenter(AugmentationSettings(**(OFF | settings)), max_frames, seed)


@pytest.fixture
def batch():
    time_s = torch.arange(32_000) / 16_000
    tones = torch.stack([torch.sin(2 * torch.pi * hertz * time_s) for hertz in (500.0, 1000.0, 2000.0)]) * 0.5
    lengths = torch.tensor([32_000, 24_000, 16_000])
    return tones * (torch.arange(32_000) < lengths[:, None]), lengths


def spectra(batch):
    extractor = SERFeatureExtractor(trim_db=None)
    seen = []
    extractor.extract(
        *batch, spectrum_transform=lambda power, lengths: seen.extend([power, lengths]) or (power, lengths)
    )
    return seen


def test_all_turned_off_changes_nothing(batch):
    power, lengths = spectra(batch)
    assert torch.equal(augmenter().waveforms(*batch), batch[0])
    changed, new_lengths = augmenter().spectra(power, lengths)
    assert torch.equal(new_lengths, lengths)
    real = frame_mask(lengths, power.shape[-1])[:, None]
    torch.testing.assert_close(changed * real, power * real)


def test_same_seed_draws_the_same_and_another_seed_does_not(batch):
    first = augmenter(noise_probability=1.0).waveforms(*batch)
    assert torch.equal(first, augmenter(noise_probability=1.0).waveforms(*batch))
    assert not torch.equal(first, augmenter(noise_probability=1.0, seed=1).waveforms(*batch))


def test_noise_has_the_signal_to_noise_ratio_asked_for_and_stays_out_of_the_padding(batch):
    waveforms, lengths = batch
    noise = augmenter(noise_probability=1.0, noise_snr_db=(10.0, 10.0)).waveforms(*batch) - waveforms
    for row, clean, length in zip(noise, waveforms, lengths, strict=True):
        ratio_db = 10 * torch.log10(clean[:length].square().mean() / row[:length].square().mean())
        assert ratio_db == pytest.approx(10, abs=0.1)
        assert not row[length:].any()


def test_vocal_tract_factor_moves_a_tone_by_that_factor(batch):
    extractor = SERFeatureExtractor(trim_db=None)

    def loudest_band_mel(factors):
        features, _ = extractor.extract(*batch, vocal_tract_factors=factors)
        log_mel = features @ dct_matrix(80, 80)
        return log_mel.mean(dim=1).argmax(dim=1) * (hertz_to_mel(torch.tensor(8000.0)) - 31.7) / 81 + 66.7

    drawn = augmenter(frequency_warp=0.12).vocal_tract_factors(batch[1])
    assert ((drawn >= 0.88) & (drawn <= 1.12)).all() and len(set(drawn.tolist())) == 3
    moved_hertz = mel_to_hertz(loudest_band_mel(torch.tensor([1.1, 0.9, 1.1])))
    torch.testing.assert_close(moved_hertz, torch.tensor([550.0, 900.0, 2200.0]), rtol=0.04, atol=0)
    unmoved, _ = extractor.extract(*batch, vocal_tract_factors=torch.ones(3))
    torch.testing.assert_close(unmoved, extractor.extract(*batch)[0], atol=1e-4, rtol=0)


def test_tempo_changes_length_but_not_pitch(batch):
    power, lengths = spectra(batch)
    warped, new_lengths = augmenter(time_rate=0.15).spectra(power, lengths)
    assert not torch.equal(new_lengths, lengths)
    assert ((new_lengths >= lengths / 1.15 - 1) & (new_lengths <= lengths / 0.85 + 1)).all()
    assert torch.equal(warped.sum(dim=2).argmax(dim=1), power.sum(dim=2).argmax(dim=1))


def test_long_clips_are_cropped(batch):
    power, lengths = spectra(batch)
    assert lengths.tolist() == [101, 76, 51]
    cropped, new_lengths = augmenter(max_frames=70).spectra(power, lengths)
    assert cropped.shape[-1] == 70
    assert new_lengths.tolist() == [70, 70, 51]


def test_masks_hide_frames_and_bands(batch):
    power, lengths = spectra(batch)
    power = power * torch.rand(power.shape, generator=torch.Generator().manual_seed(0))
    in_time, _ = augmenter(time_masks=2).spectra(power, lengths)
    real = frame_mask(lengths, power.shape[-1])
    hidden_frames = (((in_time != power).float().mean(dim=1) > 0.99) & real).sum(dim=1)
    assert hidden_frames.max() > 2
    assert (hidden_frames <= 20).all()
    in_frequency, _ = augmenter(frequency_masks=2).spectra(power, lengths)
    changed = (in_frequency != power)[0, :, : int(lengths[0])].float().mean(dim=1)
    assert set(changed.round(decimals=1).tolist()) == {0.0, 1.0}


def test_mixup_blends_targets_as_it_blends_features():
    features = torch.eye(4)[:, None].expand(4, 5, 4)
    mask = torch.arange(5) < torch.tensor([2, 3, 4, 5])[:, None]
    blended, mixed_mask, targets = augmenter(mixup_probability=1.0).mixup(features, mask, torch.eye(4))
    torch.testing.assert_close(blended[:, 0], targets)
    torch.testing.assert_close(targets.sum(dim=1), torch.ones(4))
    assert (mixed_mask | ~mask).all()
