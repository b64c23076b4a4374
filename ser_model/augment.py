"""Distortions for training: batched, drawn anew for each utterance, on whatever device the batch lies.

All randomness comes from the generator that is passed in, so that a run can be made again to the bit.
"""

import numpy as np
import torch
from torch import Tensor

from .mfcc import frame_mask, hertz_to_mel
from .settings import AugmentationSettings


class Augmenter:
    """Draws and applies the distortions of one training run.

    `waveforms` works on the sound, `spectra` on its power spectrogram and `vocal_tract_factors` on the mel filters (see
    `SERFeatureExtractor.extract`), `mixup` on finished features.
    """

    def __init__(self, settings: AugmentationSettings, max_frames: int, seed: int):
        self.settings = settings
        self.max_frames = max_frames
        self.generator = torch.Generator().manual_seed(seed)
        self.beta_generator = np.random.default_rng(seed)  # torch draws no Beta from a generator of one's own

    def waveforms(self, waveforms: Tensor, lengths: Tensor) -> Tensor:
        """Gain, and coloured noise on some: (B, T) -> (B, T)."""
        batch, samples = waveforms.shape
        gain_db = self._uniform(-self.settings.gain_db, self.settings.gain_db, batch, 1)
        waveforms = waveforms * (10 ** (gain_db / 20)).to(waveforms.device)
        noisy = torch.rand(batch, generator=self.generator) < self.settings.noise_probability
        count = int(noisy.sum())
        if not count:
            return waveforms
        slope = self._uniform(0.0, 1.0, count, 1)  # 0 is white, 1 is pink
        snr_db = self._uniform(*self.settings.noise_snr_db, count, 1).to(waveforms.device)
        noise = coloured_noise(slope, samples, self.generator).to(waveforms.device)
        noisy = noisy.to(waveforms.device)
        mask = frame_mask(lengths, samples)[noisy]
        wanted = _power(waveforms[noisy], mask) * 10 ** (-snr_db / 10)
        scale = (wanted / _power(noise, mask).clamp(min=1e-12)).sqrt()
        return waveforms.index_put((noisy,), waveforms[noisy] + noise * scale * mask)

    def spectra(self, power: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Tempo, crop, tilt and masks: (B, F, L) -> (B, F, L'), with the new lengths (B,)."""
        power, lengths = self._retime(power, lengths)
        batch, bins, _ = power.shape
        tilt_db = self._uniform(-self.settings.tilt_db, self.settings.tilt_db, batch, 1, 1).to(power.device)
        tilt = 10 ** (tilt_db * torch.linspace(-0.5, 0.5, bins, device=power.device)[:, None] / 10)
        return self._mask(power * tilt, lengths), lengths

    def vocal_tract_factors(self, lengths: Tensor) -> Tensor:
        """How much higher each utterance shall sound (B,), for `SERFeatureExtractor.extract`."""
        warp = self.settings.frequency_warp
        return self._uniform(1 - warp, 1 + warp, len(lengths)).to(lengths.device)

    def mixup(self, features: Tensor, mask: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Blend the batch with itself in another order (Zhang et al. 2018, arXiv 1710.09412); targets (B, labels)."""
        if torch.rand(1, generator=self.generator) >= self.settings.mixup_probability:
            return features, mask, targets
        share = self.beta_generator.beta(self.settings.mixup_alpha, self.settings.mixup_alpha)
        order = torch.randperm(len(features), generator=self.generator).to(features.device)
        blended = share * features + (1 - share) * features[order]
        return blended, mask | mask[order], share * targets + (1 - share) * targets[order]

    def _uniform(self, low: float, high: float, *size: int) -> Tensor:
        """Drawn on the CPU, so that every device gets the same numbers."""
        return low + (high - low) * torch.rand(*size, generator=self.generator)

    def _retime(self, power: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Speak faster or slower; crop to `max_frames` at a random place."""
        batch, bins, num_frames = power.shape
        rate = self._uniform(1 - self.settings.time_rate, 1 + self.settings.time_rate, batch).to(power.device)
        place = self._uniform(0.0, 1.0, batch).to(power.device)
        retimed_lengths = (lengths / rate).long().clamp(min=1)
        new_lengths = retimed_lengths.clamp(max=self.max_frames)
        offset = (place * (retimed_lengths - new_lengths + 1)).floor()
        frame = torch.arange(int(new_lengths.max()), device=power.device)
        source = (offset[:, None] + frame) * rate[:, None]  # (B, L'), between the frames of `power`
        source = torch.minimum(source, (lengths - 1)[:, None])
        before = source.floor().long()
        after = (before + 1).clamp(max=num_frames - 1)
        before_power, after_power = (
            power.gather(2, index[:, None].expand(batch, bins, -1)) for index in (before, after)
        )
        return torch.lerp(before_power, after_power, (source - before)[:, None]), new_lengths

    def _mask(self, power: Tensor, lengths: Tensor) -> Tensor:
        """SpecAugment (Park et al. 2019, arXiv 1904.08779), filled with each bin's mean over time."""
        settings = self.settings
        batch, bins, num_frames = power.shape
        real = frame_mask(lengths, num_frames)
        fill = torch.bmm(power, real[..., None].to(power.dtype)) / lengths[:, None, None]  # (B, F, 1)
        frame = torch.arange(num_frames, device=power.device)
        hidden_frames = torch.zeros(batch, num_frames, dtype=torch.bool, device=power.device)
        for _ in range(settings.time_masks):
            width = self._uniform(0, settings.time_mask_frames, batch, 1).to(power.device)
            start = self._uniform(0, 1, batch, 1).to(power.device) * (lengths[:, None] - width)
            hidden_frames |= (frame >= start) & (frame < start + width)
        # Widths are even on the mel axis: narrow at the pitch, wide at the hiss.
        bin_mel = hertz_to_mel(torch.linspace(0, 8000, bins, device=power.device))
        bin_mel = bin_mel / bin_mel[-1]
        hidden_bins = torch.zeros(batch, bins, dtype=torch.bool, device=power.device)
        for _ in range(settings.frequency_masks):
            width = self._uniform(0, settings.frequency_mask_bands, batch, 1).to(power.device)
            start = self._uniform(0, 1, batch, 1).to(power.device) * (1 - width)
            hidden_bins |= (bin_mel >= start) & (bin_mel < start + width)
        return torch.where(hidden_frames[:, None] | hidden_bins[:, :, None], fill, power)


def coloured_noise(slope: Tensor, samples: int, generator: torch.Generator) -> Tensor:
    """Noise whose power falls with frequency to the power of `slope` (B, 1): 0 white, 1 pink. Returns (B, samples)."""
    n_fft = 1 << (samples - 1).bit_length()  # a length whose FFT is quick
    spectrum = torch.fft.rfft(torch.randn(len(slope), n_fft, generator=generator))
    log_frequency = torch.arange(spectrum.shape[1]).clamp(min=1).log()
    return torch.fft.irfft(spectrum * torch.exp(-slope / 2 * log_frequency), n=n_fft)[:, :samples]


def _power(waveforms: Tensor, mask: Tensor) -> Tensor:
    """Mean square over real samples: (B, T) -> (B, 1)."""
    return (waveforms.square() * mask).sum(dim=1, keepdim=True) / mask.sum(dim=1, keepdim=True)
