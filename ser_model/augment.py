"""Distortions for training: batched, on whatever device the batch lies, drawn anew for each clip and epoch.

What a clip gets depends on the seed, the epoch and the clip alone, not on the batch it stands in nor on the number of
processes; there is no state to save, so a resumed run goes on to the bit.
"""

import io
import math
import zlib
from functools import lru_cache

import av
import numpy as np
import torch
from torch import Tensor

from .audio import AUDIO_SUFFIXES, AudioError, load_audio, resample
from .disk import files_below
from .mfcc import frame_mask, hertz_to_mel
from .settings import AugmentationSettings, SettingsError

MIN_POWER = 1e-12  # -120 dB of full scale: keeps ratios of silence finite
MIN_VARIANCE = 1e-4  # of a feature over time, once features have about unit variance
LIFTER_S = 1 / 570  # periods of voices up to 570 Hz are longer, formants' ripples over frequency shorter


class Augmenter:
    """The distortions of one training run; `augmenter(epoch, indices)` gives those of one batch.

    Args:
        settings: which, how much, how often.
        sampling_rate: of the waveforms, in Hz.
        max_frames: longer spectra are cropped to this many frames, at a random place.
        seed: of the run.

    Raises:
        SettingsError: no recordings in the folder of noises, or a band that leaves nothing at this rate.
    """

    def __init__(self, settings: AugmentationSettings, sampling_rate: int, max_frames: int, seed: int):
        self.settings = settings
        self.sampling_rate = sampling_rate
        self.max_frames = max_frames
        self.seed = seed
        if settings.band.probability and settings.band.low_hz[1] >= sampling_rate / 2:
            raise SettingsError(
                f"augmentation.band.low_hz reaches {settings.band.low_hz[1]:g} Hz, but at a rate of {sampling_rate} Hz "
                f"sound ends at {sampling_rate / 2:g} Hz; take less"
            )
        self.recordings = [torch.from_numpy(clip) for clip in noise_recordings(settings.noise.folder, sampling_rate)]

    def __call__(self, epoch: int, indices: Tensor) -> "BatchAugmentation":
        """
        Args:
            epoch: counted from 0.
            indices: of the batch's clips in the data set (B,), each a key of its own draws.
        """
        keys = indices.cpu().numpy().astype(np.uint64)
        for number in (self.seed, epoch):
            keys = scramble(keys ^ scramble(np.full_like(keys, number + 1)))
        return BatchAugmentation(self, keys)


class BatchAugmentation:
    """What one batch gets: `waveforms` on its sound, `vocal_tract_factors` and `spectra` on its way through
    `SERFeatureExtractor.extract`, `mixup` on finished features.
    """

    def __init__(self, augmenter: Augmenter, keys: np.ndarray):
        self.settings = augmenter.settings
        self.augmenter = augmenter
        self.keys = keys

    def uniform(self, name: str, low: float = 0.0, high: float = 1.0) -> Tensor:
        """One number a clip (B,), even within the bounds, always the same for the same clip, epoch and name."""
        drawn = scramble(self.keys ^ np.uint64(zlib.crc32(name.encode()))) >> np.uint64(11)  # 53 bits: a float64
        return torch.from_numpy(low + (high - low) * drawn.astype(np.float64) / 2**53).float()

    def chosen(self, name: str) -> Tensor:
        """Which clips get a distortion (B,)."""
        return self.uniform(f"{name}.chosen") < getattr(self.settings, name).probability

    def waveforms(self, waveforms: Tensor, lengths: Tensor) -> Tensor:
        """(B, T) zero-padded to lengths (B,) -> the same shape, padding still zero."""
        waveforms, lengths = waveforms.clone(), lengths.tolist()
        for name in ("shift", "pitch", "reverberation", "noise", "gain", "clipping", "band", "codec"):
            distort = getattr(self, f"_{name}")
            for row in self.chosen(name).nonzero().flatten().tolist():
                waveforms[row, : lengths[row]] = distort(waveforms[row, : lengths[row]], row)
        return waveforms

    def vocal_tract_factors(self, device: torch.device | str = "cpu") -> Tensor:
        """How much higher each clip shall sound (B,)."""
        factors = self._factors("vocal_tract", "factor", self.settings.vocal_tract.warp)
        return (factors * self._speed()).to(device)

    def spectra(self, power: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Tempo, crop, intonation, colour and masks: (B, F, L) -> (B, F, L'), with the new lengths (B,)."""
        tempo = self._factors("tempo", "rate", self.settings.tempo.rate)
        rates = (tempo * self._speed()).to(power.device)
        places = self.uniform("crop.place").to(power.device)
        power, lengths = retime(power, lengths, rates, self.augmenter.max_frames, places)
        power = self._intonation(power)
        slope_db = self.uniform("tilt.db", -self.settings.tilt.db, self.settings.tilt.db) * self.chosen("tilt")
        power = power * tilt(slope_db.to(power.device), power.shape[1]) * self._equalizer(power.shape[1]).to(power)
        return self._masks(power, lengths), lengths

    def style(self, features: Tensor, mask: Tensor, labels: Tensor) -> Tensor:
        """Blend mean and spread over time of each clip (B, L, F) with those of another one that has its label (B,).

        MixStyle (Zhou et al. 2021, arXiv 2104.02008) on the features themselves, within a label: it changes the voice
        and the room and keeps the emotion. It depends on the batch, as mixup does.
        """
        rng = np.random.default_rng(int(self.keys[0] ^ np.uint64(zlib.crc32(b"style"))))
        if rng.random() >= self.settings.style.probability:
            return features
        order = partners(labels.cpu().numpy(), rng)
        share = rng.beta(self.settings.style.alpha, self.settings.style.alpha, len(order))
        share = torch.from_numpy(share).to(features)[:, None, None]
        real = mask[..., None].to(features)
        frames = real.sum(dim=1, keepdim=True)
        mean = (features * real).sum(dim=1, keepdim=True) / frames
        spread = (((features - mean).square() * real).sum(dim=1, keepdim=True) / frames + MIN_VARIANCE).sqrt()
        mean_of_both, spread_of_both = (torch.lerp(own[order], own, share) for own in (mean, spread))
        return ((features - mean) / spread * spread_of_both + mean_of_both) * real

    def mixup(self, features: Tensor, mask: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Blend the batch with itself in another order (Zhang et al. 2018, arXiv 1710.09412); targets (B, labels).

        Unlike the other distortions it depends on the batch: of several processes each blends its own share.
        """
        rng = np.random.default_rng(int(self.keys[0]))
        if rng.random() >= self.settings.mixup.probability:
            return features, mask, targets
        share = rng.beta(self.settings.mixup.alpha, self.settings.mixup.alpha)
        order = torch.from_numpy(rng.permutation(len(features))).to(features.device)
        blended = share * features + (1 - share) * features[order]
        return blended, mask | mask[order], share * targets + (1 - share) * targets[order]

    def _speed(self) -> Tensor:
        """Playing faster is speaking faster and sounding higher by the same factor."""
        return self._factors("speed", "rate", self.settings.speed.rate)

    def _factors(self, name: str, what: str, most: float) -> Tensor:
        """1 for a clip that is not chosen, for others up to `most` more or less (B,)."""
        drawn = self.uniform(f"{name}.{what}", 1 - most, 1 + most)
        return torch.where(self.chosen(name), drawn, torch.tensor(1.0))

    # Each of these takes one clip (T,), already chosen, and gives its distorted self (T,).

    def _draw(self, row: int, name: str, low: float, high: float) -> float:
        return float(self.uniform(name, low, high)[row])

    def _shift(self, waveform: Tensor, row: int) -> Tensor:
        max_samples = self.settings.shift.max_s * self.augmenter.sampling_rate
        return waveform.roll(round(self._draw(row, "shift.samples", -max_samples, max_samples)))

    def _pitch(self, waveform: Tensor, row: int) -> Tensor:
        semitones = self.settings.pitch.semitones
        return shift_pitch(waveform, 2 ** (self._draw(row, "pitch.semitones", -semitones, semitones) / 12))

    def _reverberation(self, waveform: Tensor, row: int) -> Tensor:
        settings = self.settings.reverberation
        decay_samples = self._draw(row, "reverberation.decay", *settings.decay_s) * self.augmenter.sampling_rate
        tail = self._noise_like(waveform, row, "reverberation", samples=int(decay_samples) + 1)
        return reverberate(waveform, tail, self._draw(row, "reverberation.direct", *settings.direct_db))

    def _noise(self, waveform: Tensor, row: int) -> Tensor:
        snr_db = self._draw(row, "noise.snr", *self.settings.noise.snr_db)
        if recordings := self.augmenter.recordings:
            number = int(self._draw(row, "noise.recording", 0, len(recordings)))  # float32 may round up to the bound
            recording = recordings[min(number, len(recordings) - 1)]
            start = int(self._draw(row, "noise.start", 0, max(1, len(recording) - len(waveform))))
            noise = recording[start : start + len(waveform)].to(waveform)
            noise = noise.repeat(-(-len(waveform) // len(noise)))[: len(waveform)]
        else:
            noise = self._noise_like(waveform, row, "noise")
            noise = coloured(noise, self._draw(row, "noise.slope", *self.settings.noise.slope))
        return add_noise(waveform, noise, snr_db)

    def _gain(self, waveform: Tensor, row: int) -> Tensor:
        db = self.settings.gain.db
        return waveform * 10 ** (self._draw(row, "gain.db", -db, db) / 20)

    def _clipping(self, waveform: Tensor, row: int) -> Tensor:
        limit = waveform.abs().max() * self._draw(row, "clipping.threshold", *self.settings.clipping.threshold)
        return torch.minimum(torch.maximum(waveform, -limit), limit)

    def _band(self, waveform: Tensor, row: int) -> Tensor:
        low_hz = self._draw(row, "band.low", *self.settings.band.low_hz)
        high_hz = self._draw(row, "band.high", *self.settings.band.high_hz)
        return band_limited(waveform, self.augmenter.sampling_rate, low_hz, high_hz)

    def _codec(self, waveform: Tensor, row: int) -> Tensor:
        kbit_s = round(self._draw(row, "codec.kbit_s", *self.settings.codec.kbit_s))
        heard = through_mp3(waveform.cpu().numpy(), self.augmenter.sampling_rate, kbit_s)
        return torch.from_numpy(heard).to(waveform)

    def _noise_like(self, waveform: Tensor, row: int, name: str, samples: int | None = None) -> Tensor:
        """White noise of a clip's own, drawn where the clip lies."""
        seed = int(
            scramble(self.keys[row : row + 1] ^ np.uint64(zlib.crc32(f"{name}.noise".encode())))[0] >> np.uint64(1)
        )
        generator = torch.Generator(waveform.device).manual_seed(seed)
        return torch.randn(samples or len(waveform), generator=generator, device=waveform.device)

    def _intonation(self, power: Tensor) -> Tensor:
        semitones = self.settings.intonation.semitones
        factors = 2 ** (self.uniform("intonation.semitones", -semitones, semitones) / 12)
        rows = self.chosen("intonation").nonzero().flatten().to(power.device)
        if not len(rows):
            return power
        moved = move_harmonics(power[rows], factors.to(power.device)[rows], self.augmenter.sampling_rate)
        return power.index_copy(0, rows, moved)

    def _equalizer(self, bins: int) -> Tensor:
        """Factors of power (B, bins, 1)."""
        settings = self.settings.equalizer
        uniform = torch.stack([self.uniform(f"equalizer.knot{knot}") for knot in range(settings.knots)], dim=1)
        knots_db = settings.db * torch.special.ndtri(uniform.clamp(1e-6, 1 - 1e-6)) * self.chosen("equalizer")[:, None]
        bin_mel = hertz_to_mel(torch.linspace(0, self.augmenter.sampling_rate / 2, bins))
        place = bin_mel / bin_mel[-1] * (settings.knots - 1)
        before = place.long().clamp(max=settings.knots - 2)
        curve_db = torch.lerp(knots_db[:, before], knots_db[:, before + 1], (place - before).expand(len(knots_db), -1))
        return 10 ** (curve_db[..., None] / 10)

    def _masks(self, power: Tensor, lengths: Tensor) -> Tensor:
        """SpecAugment (Park et al. 2019, arXiv 1904.08779), filled with each bin's mean over time."""
        settings = self.settings.masks
        batch, bins, num_frames = power.shape
        device = power.device
        real = frame_mask(lengths, num_frames)
        fill = torch.bmm(power, real[..., None].to(power.dtype)) / lengths[:, None, None]  # (B, F, 1)
        frame = torch.arange(num_frames, device=device)
        hidden_frames = torch.zeros(batch, num_frames, dtype=torch.bool, device=device)
        for number in range(settings.time_masks):
            width = self.uniform(f"masks.time.width{number}", 0, settings.max_frames).to(device)
            start = self.uniform(f"masks.time.start{number}").to(device) * (lengths - width)
            hidden_frames |= (frame >= start[:, None]) & (frame < (start + width)[:, None])
        # Widths are even on the mel axis: narrow at the pitch, wide at the hiss.
        bin_mel = hertz_to_mel(torch.linspace(0, self.augmenter.sampling_rate / 2, bins, device=device))
        place = bin_mel / bin_mel[-1]
        hidden_bins = torch.zeros(batch, bins, dtype=torch.bool, device=device)
        for number in range(settings.frequency_masks):
            width = self.uniform(f"masks.frequency.width{number}", 0, settings.max_bands).to(device)
            start = self.uniform(f"masks.frequency.start{number}").to(device) * (1 - width)
            hidden_bins |= (place >= start[:, None]) & (place < (start + width)[:, None])
        hidden = hidden_frames[:, None] | hidden_bins[:, :, None]
        return torch.where(hidden & self.chosen("masks").to(device)[:, None, None], fill, power)


def scramble(keys: np.ndarray) -> np.ndarray:
    """uint64 -> uint64 that look random, one to one: the finaliser of SplitMix64 (Steele et al. 2014, OOPSLA)."""
    keys = keys + np.uint64(0x9E3779B97F4A7C15)
    keys = (keys ^ (keys >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    keys = (keys ^ (keys >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return keys ^ (keys >> np.uint64(31))


def noise_recordings(folder: str | None, sampling_rate: int) -> list[np.ndarray]:
    """Every recording below a folder; SettingsError if it holds none."""
    if folder is None:
        return []
    files = files_below(folder, AUDIO_SUFFIXES)
    if not files:
        raise SettingsError(f"augmentation.noise.folder is {folder!r}, which holds no recordings")
    try:
        return [load_audio(path, sampling_rate) for path in files]
    except AudioError as error:
        raise SettingsError(f"augmentation.noise.folder is {folder!r}: {error}") from error


def coloured(noise: Tensor, slope: float) -> Tensor:
    """White noise (T,) -> noise whose power falls with frequency to the power of `slope`.

    It reaches down to the lowest frequency that fits: of pink noise (slope 1) of 2 to 4 s almost half the power lies
    below 20 Hz, where nobody hears it, and what is heard is some 3 dB weaker than all of it.
    """
    n_fft = 1 << (len(noise) - 1).bit_length()  # a length whose FFT is quick
    spectrum = torch.fft.rfft(noise, n=n_fft)
    frequency = torch.arange(len(spectrum), device=noise.device).clamp(min=1)
    return torch.fft.irfft(spectrum * frequency ** (-slope / 2), n=n_fft)[: len(noise)]


def add_noise(waveform: Tensor, noise: Tensor, snr_db: float) -> Tensor:
    """Waveform (T,) and noise (T,), as strong as the ratio of the whole clip's power to its own demands -> (T,)."""
    wanted = waveform.square().mean() * 10 ** (-snr_db / 10)
    return waveform + noise * (wanted / noise.square().mean().clamp(min=MIN_POWER)).sqrt()


def band_limited(waveform: Tensor, sampling_rate: int, low_hz: float, high_hz: float) -> Tensor:
    """Only what lies between two frequencies: (T,) -> (T,)."""
    spectrum = torch.fft.rfft(waveform)
    hertz = torch.fft.rfftfreq(len(waveform), 1 / sampling_rate, device=waveform.device)
    return torch.fft.irfft(spectrum * ((hertz >= low_hz) & (hertz <= high_hz)), n=len(waveform))


def reverberate(waveform: Tensor, tail: Tensor, direct_db: float) -> Tensor:
    """Add a room's answer: `tail` is white noise (R,), which decays by 60 dB over its length.

    `direct_db` is how much stronger the direct sound is than all that comes after it.
    """
    decay = 10 ** (-3 * torch.arange(len(tail), device=tail.device) / len(tail))
    tail = tail * decay
    tail = tail / tail.square().sum().sqrt() * 10 ** (-direct_db / 20)
    n_fft = 1 << (len(waveform) + len(tail) - 1).bit_length()
    wet = torch.fft.irfft(torch.fft.rfft(waveform, n=n_fft) * torch.fft.rfft(tail, n=n_fft), n=n_fft)
    return waveform + wet[: len(waveform)]


def shift_pitch(waveform: Tensor, factor: float, n_fft: int = 512) -> Tensor:
    """Every frequency times `factor` at the same tempo: stretched by a phase vocoder, then resampled. (T,) -> (T,).

    What is shorter than half a window stays as it is.
    """
    if len(waveform) <= n_fft // 2:
        return waveform
    window = torch.hann_window(n_fft, device=waveform.device)
    hop = n_fft // 4
    spectrum = torch.stft(waveform, n_fft, hop, window=window, return_complex=True)  # (F, L)
    position = torch.arange(0, spectrum.shape[1] - 1, 1 / factor, device=waveform.device)
    before = position.long().clamp(max=spectrum.shape[1] - 2)  # float32 may round the last place up to the end
    magnitude = torch.lerp(spectrum[:, before].abs(), spectrum[:, before + 1].abs(), position - before)
    # The phase goes on by what it went on by between the two frames at that place.
    advance = spectrum[:, before + 1].angle() - spectrum[:, before].angle()
    phase = spectrum[:, :1].angle() + torch.cat([torch.zeros_like(advance[:, :1]), advance[:, :-1]], dim=1).cumsum(
        dim=1
    )
    stretched = torch.istft(torch.polar(magnitude, phase), n_fft, hop, window=window)
    spectrum = torch.fft.rfft(stretched)
    bins = len(waveform) // 2 + 1
    spectrum = torch.nn.functional.pad(spectrum, (0, max(0, bins - len(spectrum))))[:bins]
    shifted = torch.fft.irfft(spectrum, n=len(waveform))
    # Neighbouring bins drift apart in phase and cancel a part of each other: give the level back.
    return shifted * (waveform.square().sum() / shifted.square().sum().clamp(min=MIN_POWER)).sqrt()


def through_mp3(waveform: np.ndarray, sampling_rate: int, kbit_s: int) -> np.ndarray:
    """Encode as MP3 and decode again: (T,) -> (T,). A rate that MP3 has not is heard through the nearest one it has."""
    file = io.BytesIO()
    mp3_rate = min(av.Codec("libmp3lame", "w").audio_rates, key=lambda rate: abs(rate - sampling_rate))
    samples = resample(waveform, sampling_rate, mp3_rate)
    with av.open(file, "w", format="mp3") as container:
        stream = container.add_stream("libmp3lame", rate=mp3_rate, layout="mono", options={"b": f"{kbit_s}k"})
        frame = av.AudioFrame.from_ndarray(samples[None], format="fltp", layout="mono")
        frame.sample_rate = mp3_rate
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)
    file.seek(0)
    with av.open(file) as container:  # libsndfile's decoder tells the terminal of frames that it finds odd
        frames = [frame.to_ndarray()[0] for frame in container.decode(audio=0)]
    heard = resample(np.concatenate(frames), mp3_rate, sampling_rate)
    return np.pad(heard, (0, max(0, len(waveform) - len(heard))))[: len(waveform)]


def retime(power: Tensor, lengths: Tensor, rates: Tensor, max_frames: int, places: Tensor) -> tuple[Tensor, Tensor]:
    """Speak at another rate (B,), then keep at most `max_frames`, from a place (B,) between 0 and 1 on.

    (B, F, L), (B,) -> (B, F, L'), (B,), by linear interpolation between frames.
    """
    batch, bins, num_frames = power.shape
    retimed_lengths = (lengths / rates).long().clamp(min=1)
    new_lengths = retimed_lengths.clamp(max=max_frames)
    offset = (places * (retimed_lengths - new_lengths + 1)).floor()
    frame = torch.arange(int(new_lengths.max()), device=power.device)
    source = (offset[:, None] + frame) * rates[:, None]  # (B, L'), between the frames of `power`
    source = torch.minimum(source, (lengths - 1)[:, None])
    before = source.floor().long()
    after = (before + 1).clamp(max=num_frames - 1)
    before_power, after_power = (power.gather(2, index[:, None].expand(batch, bins, -1)) for index in (before, after))
    return torch.lerp(before_power, after_power, (source - before)[:, None]), new_lengths


def move_harmonics(power: Tensor, factors: Tensor, sampling_rate: int) -> Tensor:
    """Raise or lower a voice by factors (B,) and keep its formants: power spectra (B, F, L) -> the same shape.

    The logarithm of a spectrum is an envelope, smooth over frequency, plus a fine structure of harmonics; their
    cepstra lie below and above `LIFTER_S`. The fine structure alone is stretched along frequency.
    """
    last = power.shape[1] - 1
    log_power = power.clamp(min=MIN_POWER).log()
    analysis, synthesis = envelope_filters(last, round(LIFTER_S * sampling_rate), power.device)
    envelope = synthesis @ (analysis @ log_power)
    fine = log_power - envelope
    source = torch.arange(last + 1, device=power.device) / factors[:, None]  # (B, F)
    before = source.long().clamp(max=last - 1)
    share = (source - before)[..., None]
    moved = [torch.lerp(own[row], own[row + 1], part) for own, row, part in zip(fine, before, share, strict=True)]
    known = (source <= last)[..., None]  # nothing is known beyond: noise there stays as it is
    return (envelope + torch.where(known, torch.stack(moved), fine)).exp()


@lru_cache(maxsize=8)
def envelope_filters(last: int, num_cepstra: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Log spectrum (last + 1 bins) -> its lowest cepstra, and these -> its envelope: matrices, quicker than FFTs."""
    bins, order = torch.arange(last + 1, dtype=torch.float64), torch.arange(num_cepstra, dtype=torch.float64)
    cosines = torch.cos(math.pi / last * order[:, None] * bins)  # (num_cepstra, last + 1)
    twice = torch.where((bins == 0) | (bins == last), 1.0, 2.0)  # each bin but the ends stands for two of the FFT
    synthesis = torch.where(order == 0, 1.0, 2.0) * cosines.T
    return (cosines * twice / (2 * last)).float().to(device), synthesis.float().to(device)


def partners(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """For each clip another one of its label (B,); itself where it is the only one."""
    others = np.arange(len(labels))
    for label in np.unique(labels):
        own = rng.permutation(np.flatnonzero(labels == label))
        others[own] = np.roll(own, 1)
    return others


def tilt(slope_db: Tensor, bins: int) -> Tensor:
    """Factors of power (B, bins, 1) that rise by `slope_db` (B,) from the lowest to the highest frequency."""
    place = torch.linspace(-0.5, 0.5, bins, device=slope_db.device)
    return 10 ** (slope_db[:, None, None] * place[:, None] / 10)
