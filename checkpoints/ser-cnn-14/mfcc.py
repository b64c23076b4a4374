"""From waveforms to cepstra and other features: batched torch functions, the same on CPU, GPU and in an exported graph.

Every function takes a batch and is indifferent to padding: a waveform padded with zeros gives, frame by frame, what
it gives alone. Frequencies are in hertz, levels in decibels, times in samples or frames as the names say.
"""

import math

import torch
from torch import Tensor

POWER_FLOOR = 1e-10  # of spectra that the window does not normalise: some 65 dB below 16-bit quantisation noise
HIGHEST_HARMONIC_HERTZ = 4_000.0  # above, voices have few, and telephones none
FILTERS_A_BLOCK = 10  # fewer multiply fewer zeros, but more often
LOWEST_A_HERTZ = 27.5  # the A four octaves below 440 Hz; octaves of chroma are counted from it
WINDOWS = {"hann": torch.hann_window, "hamming": torch.hamming_window}


def frame_count(samples: Tensor | int, hop_samples: int) -> Tensor | int:
    """Frames of `power_spectrogram` for a number of samples: one centred on every hop, the first on sample 0."""
    return samples // hop_samples + 1


def frame_mask(lengths: Tensor, num_frames: int) -> Tensor:
    """Lengths (B,) in frames -> boolean mask (B, L), true where a frame is real."""
    return torch.arange(num_frames, device=lengths.device) < lengths[:, None]


def power_spectrogram(
    waveforms: Tensor, frame_samples: int, hop_samples: int, n_fft: int, window_name: str = "hann"
) -> Tensor:
    """Windowed power spectra: (B, T) -> (B, n_fft // 2 + 1, T // hop + 1). Windows: see `WINDOWS`.

    Frames are centred, with zeros beyond both ends, so that padding a clip equals ending it.
    """
    window = WINDOWS[window_name](frame_samples, device=waveforms.device, dtype=waveforms.dtype)
    if torch.compiler.is_exporting():
        return _convolved_power(waveforms, window, hop_samples, n_fft)
    spectrum = torch.stft(
        waveforms,
        n_fft,
        hop_length=hop_samples,
        win_length=frame_samples,
        window=window,
        center=True,
        pad_mode="constant",
        return_complex=True,
    )
    return spectrum.real.square() + spectrum.imag.square()


def _convolved_power(waveforms: Tensor, window: Tensor, hop_samples: int, n_fft: int) -> Tensor:
    """`power_spectrogram` by convolution with windowed waves: ONNX Runtime does that quicker than its STFT."""
    frame_samples = len(window)
    left = n_fft // 2 - (n_fft - frame_samples) // 2  # of a frame's centre, as in torch.stft
    bins, samples = torch.arange(n_fft // 2 + 1), torch.arange(frame_samples) - left
    phase = 2 * math.pi / n_fft * (bins[:, None] * samples).remainder(n_fft)  # exact: whole turns are gone
    waves = torch.cat([phase.cos(), phase.sin()]).to(window) * window
    padded = torch.nn.functional.pad(waveforms, (left, frame_samples - left))
    real, imaginary = torch.nn.functional.conv1d(padded[:, None], waves[:, None], stride=hop_samples).chunk(2, dim=1)
    return real.square() + imaginary.square()


def hertz_to_mel(hertz: Tensor) -> Tensor:
    """O'Shaughnessy's mel scale, as in HTK: 2595 log10(1 + f / 700)."""
    return 2595.0 * torch.log10(1.0 + hertz / 700.0)


def mel_to_hertz(mel: Tensor) -> Tensor:
    """Inverse of `hertz_to_mel`."""
    return 700.0 * (10.0 ** (mel / 2595.0) - 1.0)


def slaney_hertz_to_mel(hertz: Tensor) -> Tensor:
    """Slaney's mel scale (Auditory Toolbox, 1998): 3 mel per 200 Hz up to 1 kHz, above it 27 mel per factor of 6.4."""
    return torch.where(hertz < 1000.0, 3.0 / 200.0 * hertz, 15.0 + 27.0 / math.log(6.4) * torch.log(hertz / 1000.0))


def slaney_mel_to_hertz(mel: Tensor) -> Tensor:
    """Inverse of `slaney_hertz_to_mel`."""
    return torch.where(mel < 15.0, 200.0 / 3.0 * mel, 1000.0 * torch.exp(math.log(6.4) / 27.0 * (mel - 15.0)))


MEL_SCALES = {"htk": (hertz_to_mel, mel_to_hertz), "slaney": (slaney_hertz_to_mel, slaney_mel_to_hertz)}


def mel_filterbank(
    n_mels: int,
    n_fft: int,
    sampling_rate: int,
    f_min: float,
    f_max: float,
    vocal_tract_factors: Tensor | None = None,
    scale: str = "htk",
    unit_area: bool = False,
) -> Tensor:
    """Triangular filters, evenly spaced on a mel scale of `MEL_SCALES`: (n_mels, n_fft // 2 + 1), float32.

    Their peaks are 1 or, with `unit_area`, their areas over hertz are (torchaudio and librosa call that norm="slaney").

    With `vocal_tract_factors` (B,), one bank for each, (B, n_mels, n_fft // 2 + 1): a factor of 1.1 lets a spectrum
    appear 10 % higher, as if from a shorter vocal tract (Jaitly & Hinton 2013, Vocal Tract Length Perturbation).

    Raises ValueError if a filter falls between two FFT bins and would stay empty.
    """
    bins_hertz = torch.linspace(0, sampling_rate / 2, n_fft // 2 + 1, dtype=torch.float64)
    to_mel, to_hertz = MEL_SCALES[scale]
    low_mel, high_mel = to_mel(torch.tensor([f_min, f_max], dtype=torch.float64))
    edges_hertz = to_hertz(torch.linspace(low_mel, high_mel, n_mels + 2, dtype=torch.float64))
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
    if unit_area:
        filters = filters * (2.0 / (edges_hertz[2:] - edges_hertz[:-2]))[:, None]
    return filters.float()


def filter_blocks(filters: Tensor) -> tuple[tuple[int, Tensor], ...]:
    """Filters (n, bins) in blocks of neighbours: the first bin that any of a block lets through, and (block, its bins).

    Most of a mel filterbank is zeros; `apply_filters` multiplies a quarter of it.
    """
    blocks = []
    for block in filters.split(FILTERS_A_BLOCK):
        used = block.amax(dim=0).nonzero().flatten()
        first, last = int(used[0]), int(used[-1])
        blocks.append((first, block[:, first : last + 1].contiguous()))
    return tuple(blocks)


def apply_filters(blocks: tuple[tuple[int, Tensor], ...], power: Tensor) -> Tensor:
    """`filters @ power`, given as `filter_blocks`: (B, bins, L) -> (B, n, L)."""
    return torch.cat([block @ power[:, first : first + block.shape[1]] for first, block in blocks], dim=1)


def dct_matrix(n_mfcc: int, n_mels: int, lifter: float = 0.0) -> Tensor:
    """Orthonormal DCT-II: (n_mfcc, n_mels), float32. With n_mfcc = n_mels its transpose is its inverse.

    A `lifter` L above 0 weighs row n = 0, 1, ... by 1 + L / 2 sin(pi (n + 1) / L), as librosa does; HTK and Kaldi have
    n for n + 1.

    Raises ValueError if more coefficients are wanted than there are bands.
    """
    if n_mfcc > n_mels:
        raise ValueError(f"n_mfcc is {n_mfcc}; it must be at most n_mels ({n_mels})")
    band = torch.arange(n_mels, dtype=torch.float64) + 0.5
    order = torch.arange(n_mfcc, dtype=torch.float64)
    matrix = torch.cos(math.pi / n_mels * order[:, None] * band) * math.sqrt(2.0 / n_mels)
    matrix[0] /= math.sqrt(2.0)
    if lifter > 0:
        matrix *= 1.0 + lifter / 2.0 * torch.sin(math.pi / lifter * (order[:, None] + 1.0))
    return matrix.float()


def power_to_db(power: Tensor, mask: Tensor, top_db: float | None = None, relative: bool = False) -> Tensor:
    """Power (B, F, L) -> decibels of its own unit or, if `relative`, of the utterance's own loudest value.

    `top_db` lifts all that lies further below that loudest value. `mask` (B, L) keeps padding out of the search for it.
    """
    decibels = 10.0 * torch.log10(power.clamp(min=POWER_FLOOR))
    if top_db is None and not relative:
        return decibels
    peak_db = decibels.masked_fill(~mask[:, None], -math.inf).amax(dim=(1, 2), keepdim=True)
    if top_db is not None:
        decibels = torch.maximum(decibels, peak_db - top_db)
    return decibels - peak_db if relative else decibels


def relative_power(power: Tensor, mask: Tensor) -> Tensor:
    """Power (B, F, L) as a share of the utterance's own loudest value; `power_to_db(relative=True)`, but linear."""
    peak = power.masked_fill(~mask[:, None], 0.0).amax(dim=(1, 2), keepdim=True)
    return power / peak.clamp(min=POWER_FLOOR)


def chroma_filterbank(n_chroma: int, n_fft: int, sampling_rate: int) -> Tensor:
    """How much each FFT bin adds to each pitch class, the first of them C: (n_chroma, n_fft // 2 + 1), float32.

    Gaussian bumps around the classes of an instrument tuned to A = 440 Hz, each bin's weights of unit length, the fifth
    octave weighing most (Ellis 2007, Chroma feature analysis and synthesis; defaults of librosa.filters.chroma).
    """
    bin_hertz = torch.arange(1, n_fft // 2 + 2, dtype=torch.float64) * sampling_rate / n_fft  # one beyond the last bin
    pitch = n_chroma * torch.log2(bin_hertz / LOWEST_A_HERTZ)  # in steps of n_chroma an octave
    pitch = torch.cat([pitch[:1] - 1.5 * n_chroma, pitch])  # 0 Hz has no pitch: one and a half octaves below bin 1
    width = pitch.diff().clamp(min=1.0)  # low bins are wider than a step
    pitch = pitch[:-1]
    half = round(n_chroma / 2)
    distance = (pitch - torch.arange(n_chroma)[:, None] + half).remainder(n_chroma) - half
    bumps = torch.exp(-0.5 * (2.0 * distance / width).square())
    octave_weight = torch.exp(-0.5 * ((pitch / n_chroma - 5.0) / 2.0).square())
    filters = bumps / torch.linalg.vector_norm(bumps, dim=0) * octave_weight
    return filters.roll(-3 * (n_chroma // 12), dims=0).float()  # from A to C


def chroma(power: Tensor, filters: Tensor) -> Tensor:
    """Strength of each pitch class, the strongest of a frame 1: power spectra (B, F, L) -> (B, n_chroma, L).

    Digital silence has none. Numbers are those of librosa.feature.chroma_stft with tuning=0.
    """
    strength = filters @ power
    return strength / strength.amax(dim=1, keepdim=True).clamp(min=torch.finfo(power.dtype).tiny)


def pitch_filterbank(
    n_pitch: int, n_fft: int, sampling_rate: int, f_min: float, f_max: float, n_harmonics: int = 8
) -> Tensor:
    """Combs, evenly spaced in octaves from `f_min` to `f_max`: (n_pitch, bins up to 4 kHz), float32.

    Each adds up the harmonics of one pitch, the n-th weighing 0.84 ** (n - 1) (Hermes 1988, Measurement of pitch by
    subharmonic summation), and takes off what lies halfway between them, so that noise comes to nothing (as in SWIPE,
    Camacho & Harris 2008).
    """
    bins = min(round(HIGHEST_HARMONIC_HERTZ * n_fft / sampling_rate), n_fft // 2)
    pitch_hertz = f_min * (f_max / f_min) ** torch.linspace(0, 1, n_pitch, dtype=torch.float64)
    filters = torch.zeros(n_pitch, bins, dtype=torch.float64)
    row = torch.arange(n_pitch)
    for harmonic in range(1, n_harmonics + 1):
        for multiple, sign in ((harmonic, 1.0), (harmonic - 0.5, -1.0)):
            place = pitch_hertz * multiple * n_fft / sampling_rate  # in bins
            weight = sign * 0.84 ** (harmonic - 1) * (place <= bins - 1)
            below = place.floor().long().clamp(max=bins - 2)
            above_share = (place - below).clamp(0, 1)
            filters[row, below] += weight * (1 - above_share)
            filters[row, below + 1] += weight * above_share
    return filters.float()


def pitch_salience(power: Tensor, filters: Tensor) -> Tensor:
    """How much of a frame lies in the harmonics of each pitch: power spectra (B, F, L) -> (B, n_pitch, L).

    Spectra are compressed to their fourth root, near to loudness, and measured against the frame's own mean, so that
    the level is no matter. A voice is a ridge along its pitch; noise and silence are flat.
    """
    loudness = power[:, : filters.shape[1]].clamp(min=POWER_FLOOR) ** 0.25
    return filters @ loudness / loudness.mean(dim=1, keepdim=True)


def shift_rows(rows: Tensor, shifts: Tensor) -> Tensor:
    """Move each utterance's rows up by `shifts` (B,), a fraction of a row too: (B, F, L) -> the same, ends repeated."""
    return _rows_at(rows, torch.arange(rows.shape[1], device=rows.device) - shifts[:, None])


def stretch_rows(rows: Tensor, factors: Tensor) -> Tensor:
    """Let row f of each utterance appear at f times its factor (B,): (B, F, L) -> the same, the last row repeated."""
    return _rows_at(rows, torch.arange(rows.shape[1], device=rows.device) / factors[:, None])


def _rows_at(rows: Tensor, source: Tensor) -> Tensor:
    """(B, F, L) between its rows `source` (B, F), which need not be whole."""
    source = source.clamp(0, rows.shape[1] - 1)
    below = source.floor().long()
    above = (below + 1).clamp(max=rows.shape[1] - 1)
    low, high = (rows.gather(1, index[..., None].expand_as(rows)) for index in (below, above))
    return torch.lerp(low, high, (source - below)[..., None])


def contrast_bands(
    n_bands: int, f_min: float, quantile: float, n_fft: int, sampling_rate: int
) -> tuple[tuple[int, int, int], ...]:
    """Octave bands for `spectral_contrast`: 0 Hz to `f_min`, then `n_bands` octaves, the last as far as the bins go.

    Returns:
        For each band its first bin, the bin after its last, and how many of them make its valley and its peak.

    Raises ValueError if a band lies above half the sampling rate or holds no bin.
    """
    edges = [0.0] + [f_min * 2.0**octave * n_fft / sampling_rate for octave in range(n_bands + 1)]  # in bins
    if edges[-2] >= n_fft / 2:
        raise ValueError(
            f"contrast_n_bands is {n_bands}: octave {n_bands} above contrast_f_min ({f_min} Hz) begins beyond half the "
            f"sampling rate ({sampling_rate / 2} Hz); lower either"
        )
    bands = []
    for band, (low, high) in enumerate(zip(edges[:-1], edges[1:], strict=True)):
        # librosa's choice: a band begins one bin early and, but for the last, ends one early; the share counts both.
        is_last = band == n_bands
        first = math.ceil(low) - (band > 0)
        end = n_fft // 2 + 1 if is_last else math.floor(high) + 1
        count = max(1, round(quantile * (end - first)))
        end -= not is_last
        if end <= first:
            raise ValueError(
                f"contrast_f_min is {f_min} Hz: band {band} of the spectral contrast holds no FFT bin; raise it or "
                f"n_fft (now {n_fft})"
            )
        bands.append((first, end, min(count, end - first)))
    return tuple(bands)


def spectral_contrast(
    power: Tensor, mask: Tensor, bands: tuple[tuple[int, int, int], ...], top_db: float = 80.0
) -> Tensor:
    """Peak above valley in each octave band: power spectra (B, F, L) -> (B, bands, L).

    High where harmonics stand out, low where noise fills the gaps (Jiang et al. 2002, Music type classification by
    spectral contrast feature). As in librosa.feature.spectral_contrast, levels are 10 log10 of magnitudes, hence half
    of what a sound level meter would call decibels, and those more than `top_db` below the utterance's highest count as
    that far below.
    """
    magnitude = power.sqrt()
    peaks, valleys = [], []
    for first, end, count in bands:
        band = magnitude[:, first:end]
        peaks.append(band.topk(count, dim=1).values.mean(dim=1))
        valleys.append(band.topk(count, dim=1, largest=False).values.mean(dim=1))
    peak, valley = torch.stack(peaks, dim=1), torch.stack(valleys, dim=1)
    return power_to_db(peak, mask, top_db) - power_to_db(valley, mask, top_db)


def loud_span(power: Tensor, lengths: Tensor, threshold_db: float, margin_frames: int) -> tuple[Tensor, Tensor]:
    """Where an utterance lies between the quiet frames before and after it.

    Args:
        power: power spectra (B, F, L).
        lengths: frames of each utterance (B,).
        threshold_db: how far below the loudest frame a frame counts as quiet.
        margin_frames: quiet frames kept at either end.

    Returns:
        The first frame (B,) and the new lengths (B,).
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
    return first, last - first + 1


def from_frame(power: Tensor, first: Tensor) -> Tensor:
    """Power (B, F, L) with the frames from `first` (B,) on moved to the front; what stands behind is not cleared."""
    position = torch.arange(power.shape[-1], device=power.device)
    source = (first[:, None] + position).clamp(max=power.shape[-1] - 1)  # (B, L)
    return power.gather(2, source[:, None].expand_as(power))


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


def fit_length(power: Tensor, lengths: Tensor, num_frames: int) -> tuple[Tensor, Tensor]:
    """The middle `num_frames` of longer utterances, and room for as many behind shorter ones.

    (B, F, L), (B,) -> (B, F, num_frames) and the new lengths (B,). What stands behind a length is not cleared.
    """
    kept = lengths.clamp(max=num_frames)
    first = (lengths - kept) // 2
    source = first[:, None] + torch.arange(num_frames, device=power.device)
    source = source.clamp(max=power.shape[-1] - 1)  # (B, num_frames)
    return power.gather(2, source[:, None].expand(-1, power.shape[1], -1)), kept


def pad_frames(features: Tensor, mask: Tensor, num_frames: int) -> tuple[Tensor, Tensor]:
    """Features (B, L, F) and their mask (B, L) with zeros and falses behind, up to `num_frames`."""
    missing = num_frames - mask.shape[1]
    return torch.nn.functional.pad(features, (0, 0, 0, missing)), torch.nn.functional.pad(mask, (0, missing))


def standardized(features: Tensor, mask: Tensor) -> Tensor:
    """Each feature with zero mean and unit variance over the real frames of its utterance: (B, C, F, L), (B, L).

    A spread below a millionth of the utterance's largest value is rounding, and is not blown up to 1.
    """
    mask = mask[:, None, None]
    count = mask.sum(dim=-1, keepdim=True).clamp(min=1)
    mean = (features * mask).sum(dim=-1, keepdim=True) / count
    centred = (features - mean) * mask
    std = (centred.square().sum(dim=-1, keepdim=True) / count).sqrt()
    largest = (features * mask).abs().amax(dim=(1, 2, 3), keepdim=True)
    return centred / std.maximum(1e-6 * largest).clamp(min=torch.finfo(std.dtype).tiny)
