"""From waveforms to cepstra: batched torch functions, the same on CPU, GPU and in an exported graph.

Every function takes a batch and is indifferent to padding: a waveform padded with zeros gives, frame by frame, what
it gives alone. Frequencies are in hertz, levels in decibels, times in samples or frames as the names say.
"""

import math

import torch
from torch import Tensor

POWER_FLOOR = 1e-10  # -100 dB of full scale: below the quantisation noise of 16-bit audio


def frame_count(samples: Tensor | int, hop_samples: int) -> Tensor | int:
    """Frames of `power_spectrogram` for a number of samples: one centred on every hop, the first on sample 0."""
    return samples // hop_samples + 1


def frame_mask(lengths: Tensor, num_frames: int) -> Tensor:
    """Lengths (B,) in frames -> boolean mask (B, L), true where a frame is real."""
    return torch.arange(num_frames, device=lengths.device) < lengths[:, None]


def power_spectrogram(waveforms: Tensor, frame_samples: int, hop_samples: int, n_fft: int) -> Tensor:
    """Hann-windowed power spectra: (B, T) -> (B, n_fft // 2 + 1, T // hop + 1).

    Frames are centred, with zeros beyond both ends, so that padding a clip equals ending it.
    """
    spectrum = torch.stft(
        waveforms,
        n_fft,
        hop_length=hop_samples,
        win_length=frame_samples,
        window=torch.hann_window(frame_samples, device=waveforms.device, dtype=waveforms.dtype),
        center=True,
        pad_mode="constant",
        return_complex=True,
    )
    return spectrum.real.square() + spectrum.imag.square()


def hertz_to_mel(hertz: Tensor) -> Tensor:
    """O'Shaughnessy's mel scale, as in HTK: 2595 log10(1 + f / 700)."""
    return 2595.0 * torch.log10(1.0 + hertz / 700.0)


def mel_to_hertz(mel: Tensor) -> Tensor:
    """Inverse of `hertz_to_mel`."""
    return 700.0 * (10.0 ** (mel / 2595.0) - 1.0)


def mel_filterbank(
    n_mels: int,
    n_fft: int,
    sampling_rate: int,
    f_min: float,
    f_max: float,
    vocal_tract_factors: Tensor | None = None,
) -> Tensor:
    """Triangular filters with unit peaks, evenly spaced in mel: (n_mels, n_fft // 2 + 1), float32.

    With `vocal_tract_factors` (B,), one bank for each, (B, n_mels, n_fft // 2 + 1): a factor of 1.1 lets a spectrum
    appear 10 % higher, as if from a shorter vocal tract (Jaitly & Hinton 2013, Vocal Tract Length Perturbation).

    Raises ValueError if a filter falls between two FFT bins and would stay empty.
    """
    bins_hertz = torch.linspace(0, sampling_rate / 2, n_fft // 2 + 1, dtype=torch.float64)
    low_mel, high_mel = hertz_to_mel(torch.tensor([f_min, f_max], dtype=torch.float64))
    edges_hertz = mel_to_hertz(torch.linspace(low_mel, high_mel, n_mels + 2, dtype=torch.float64))
    widths_hertz = edges_hertz.diff()
    if vocal_tract_factors is not None:
        device = vocal_tract_factors.device
        bins_hertz = bins_hertz.float().to(device) * vocal_tract_factors[:, None, None]  # (B, 1, bins)
        edges_hertz, widths_hertz = edges_hertz.float().to(device), widths_hertz.float().to(device)
    rising = (bins_hertz - edges_hertz[:-2, None]) / widths_hertz[:-1, None]
    falling = (edges_hertz[2:, None] - bins_hertz) / widths_hertz[1:, None]
    filters = torch.minimum(rising, falling).clamp(min=0)
    if vocal_tract_factors is None and (empty := int((filters.amax(dim=1) == 0).sum())):
        raise ValueError(
            f"{empty} of {n_mels} mel filters lie between two FFT bins; raise n_fft (now {n_fft}) or lower n_mels"
        )
    return filters.float()


def dct_matrix(n_mfcc: int, n_mels: int) -> Tensor:
    """Orthonormal DCT-II: (n_mfcc, n_mels), float32. With n_mfcc = n_mels its transpose is its inverse."""
    band = torch.arange(n_mels, dtype=torch.float64) + 0.5
    order = torch.arange(n_mfcc, dtype=torch.float64)
    matrix = torch.cos(math.pi / n_mels * order[:, None] * band) * math.sqrt(2.0 / n_mels)
    matrix[0] /= math.sqrt(2.0)
    return matrix.float()


def power_to_db(power: Tensor, mask: Tensor, top_db: float | None = None, relative: bool = False) -> Tensor:
    """Power (B, F, L) -> decibels, of full scale or, if `relative`, of the utterance's own loudest value.

    `top_db` lifts all that lies further below that loudest value. `mask` (B, L) keeps padding out of the search for it.
    """
    decibels = 10.0 * torch.log10(power.clamp(min=POWER_FLOOR))
    if top_db is None and not relative:
        return decibels
    peak_db = decibels.masked_fill(~mask[:, None], -math.inf).amax(dim=(1, 2), keepdim=True)
    if top_db is not None:
        decibels = torch.maximum(decibels, peak_db - top_db)
    return decibels - peak_db if relative else decibels


def trim_silence(power: Tensor, lengths: Tensor, threshold_db: float, margin_frames: int) -> tuple[Tensor, Tensor]:
    """Drop the quiet frames before and after an utterance.

    Args:
        power: power spectra (B, F, L).
        lengths: frames of each utterance (B,).
        threshold_db: how far below the loudest frame a frame counts as quiet.
        margin_frames: quiet frames kept at either end.

    Returns:
        Power moved to the front (B, F, L) and the new lengths (B,). What stands behind the new length is not cleared.
    """
    num_frames = power.shape[-1]
    mask = frame_mask(lengths, num_frames)
    energy = power.sum(dim=1).masked_fill(~mask, 0.0)  # (B, L)
    quiet_below = energy.amax(dim=1, keepdim=True) * 10.0 ** (-threshold_db / 10.0)
    loud = mask & (energy >= quiet_below)  # digital silence is all as loud as its peak, and stays
    position = torch.arange(num_frames, device=power.device)
    first = torch.where(loud, position, num_frames).amin(dim=1)
    last = torch.where(loud, position, -1).amax(dim=1)
    first = (first - margin_frames).clamp(min=0)
    last = torch.minimum(last + margin_frames, lengths - 1)
    source = (first[:, None] + position).clamp(max=num_frames - 1)  # (B, L)
    return power.gather(2, source[:, None].expand_as(power)), last - first + 1


def deltas(features: Tensor, lengths: Tensor, width: int = 5) -> Tensor:
    """Slope over time of each feature by least squares over `width` frames: (B, F, L) -> (B, F, L).

    The first and last frame are repeated beyond the ends of each utterance (Young et al., The HTK Book, 5.9).
    """
    reach = width // 2
    offsets = torch.arange(-reach, reach + 1, device=features.device)
    position = torch.arange(features.shape[-1], device=features.device)
    neighbour = (position[:, None] + offsets).clamp(min=0)  # (L, width)
    neighbour = torch.minimum(neighbour, (lengths - 1).clamp(min=0)[:, None, None])  # (B, L, width)
    batch, num_features = features.shape[:2]
    gathered = features.gather(2, neighbour.flatten(1)[:, None].expand(batch, num_features, -1))
    gathered = gathered.unflatten(2, (-1, width))  # (B, F, L, width)
    return (gathered * offsets).sum(dim=-1) / offsets.square().sum()
