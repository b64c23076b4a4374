"""Feature extractor: waveforms in, padded MFCCs and their mask out."""

import inspect
import logging
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from transformers import BatchFeature, FeatureExtractionMixin

from .mfcc import (
    dct_matrix,
    deltas,
    frame_count,
    frame_mask,
    mel_filterbank,
    power_spectrogram,
    power_to_db,
    trim_silence,
)

logger = logging.getLogger(__name__)

# Float audio lies in [-1, 1]; mixing may overshoot, but a peak beyond this is integers that nobody scaled.
PEAK_LIMIT = 32.0
SPEC_KEYS = {"feature_extractor_type", "auto_map", "processor_class", "_processor_class"}  # written by save_pretrained

SpectrumTransform = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


# Constant matrices, made once a process, setting and device; never changed in place.
@lru_cache(maxsize=32)
def _mel_filterbank(n_mels, n_fft, sampling_rate, f_min, f_max, device) -> Tensor:
    return mel_filterbank(n_mels, n_fft, sampling_rate, f_min, f_max).to(device)


@lru_cache(maxsize=32)
def _dct_matrix(n_mfcc, n_mels, device) -> Tensor:
    return dct_matrix(n_mfcc, n_mels).to(device)


class SERFeatureExtractor(FeatureExtractionMixin):
    """Waveforms at `sampling_rate` -> `input_features` (B, L, C * F) and `attention_mask` (B, L).

    Time is the second axis, as in Speech2Text and AST, so that `pipeline(..., batch_size=4)` can pad clips of different
    lengths by itself. C is 1 plus the orders of deltas, F is `n_mfcc`.

    Args:
        sampling_rate: in Hz; other rates are refused, never resampled in silence.
        n_mfcc: coefficients kept. With as many as `n_mels` the DCT loses nothing, and the model can undo it.
        n_mels: mel bands.
        f_min, f_max: edges of the mel filters in Hz.
        frame_ms, hop_ms: length and step of the analysis window.
        n_fft: FFT length in samples, at least a frame.
        top_db: what lies further below the utterance's loudest band counts as that far below; None keeps all.
        level: "absolute" keeps the level of the recording, "relative" measures from the utterance's loudest band, so
            that neither the microphone's gain nor the distance to it matters.
        trim_db: frames this far below the loudest are dropped before the first and after the last louder one; None
            keeps all.
        trim_margin_ms: how much of the quiet is kept at either end.
        delta_order: 0, or 1 (deltas), or 2 (delta-deltas as well), as further channels.
        feature_mean, feature_std: per coefficient (C * F), subtracted and divided by; None before `fit`.
    """

    model_input_names = ["input_features", "attention_mask"]
    padding_value = 0.0  # the mean of every feature once they are normalised
    padding_side = "right"
    _auto_class = "AutoFeatureExtractor"

    def __init__(
        self,
        sampling_rate: int = 16_000,
        n_mfcc: int = 80,
        n_mels: int = 80,
        f_min: float = 20.0,
        f_max: float = 8_000.0,
        frame_ms: float = 40.0,
        hop_ms: float = 20.0,
        n_fft: int = 1024,
        top_db: float | None = 80.0,
        level: str = "relative",
        trim_db: float | None = 40.0,
        trim_margin_ms: float = 100.0,
        delta_order: int = 0,
        feature_mean: Sequence[float] | None = None,
        feature_std: Sequence[float] | None = None,
        **kwargs,
    ):
        if extra := kwargs.keys() - SPEC_KEYS:
            known = sorted(set(inspect.signature(type(self).__init__).parameters) - {"self", "kwargs"})
            raise ValueError(f"SERFeatureExtractor knows no setting {sorted(extra)}; known: {known}")
        super().__init__(**kwargs)
        self.sampling_rate = sampling_rate
        self.n_mfcc = n_mfcc
        self.n_mels = n_mels
        self.f_min = f_min
        self.f_max = f_max
        self.frame_ms = frame_ms
        self.hop_ms = hop_ms
        self.n_fft = n_fft
        self.top_db = top_db
        self.level = level
        self.trim_db = trim_db
        self.trim_margin_ms = trim_margin_ms
        self.delta_order = delta_order
        self.feature_mean = None if feature_mean is None else [float(value) for value in feature_mean]
        self.feature_std = None if feature_std is None else [float(value) for value in feature_std]
        self._check()

    def _check(self) -> None:
        def refuse(key: str, wanted: str) -> None:
            raise ValueError(f"SERFeatureExtractor.{key} is {getattr(self, key)!r}; it must be {wanted}")

        for key in ("sampling_rate", "n_mfcc", "n_mels", "n_fft"):
            if not isinstance(getattr(self, key), int) or getattr(self, key) < 1:
                refuse(key, "a whole number of at least 1")
        if not 0 < self.hop_ms <= self.frame_ms or self.hop_samples < 1:
            refuse("hop_ms", f"at least one sample and at most frame_ms ({self.frame_ms}), or sound would be skipped")
        if self.n_fft < self.frame_samples or self.n_fft % 2:
            refuse("n_fft", f"even, so that frames have a centre, and at least a frame of {self.frame_samples} samples")
        if not 0 <= self.f_min < self.f_max <= self.sampling_rate / 2:
            refuse("f_max", f"above f_min ({self.f_min}) and at most half the sampling rate ({self.sampling_rate / 2})")
        if self.n_mfcc > self.n_mels:
            refuse("n_mfcc", f"at most n_mels ({self.n_mels})")
        # Refuses mel bands that no FFT bin would feed.
        _mel_filterbank(self.n_mels, self.n_fft, self.sampling_rate, self.f_min, self.f_max, torch.device("cpu"))
        if self.level not in ("absolute", "relative"):
            refuse("level", "'absolute' or 'relative'")
        if self.delta_order not in (0, 1, 2):
            refuse("delta_order", "0, 1 or 2")
        for key in ("top_db", "trim_db"):
            if getattr(self, key) is not None and getattr(self, key) <= 0:
                refuse(key, "above 0 dB, or null")
        if not self.trim_margin_ms >= 0:
            refuse("trim_margin_ms", "at least 0")
        for key in ("feature_mean", "feature_std"):
            if getattr(self, key) is not None and len(getattr(self, key)) != self.num_channels * self.num_features:
                refuse(key, f"{self.num_channels * self.num_features} numbers, one a feature")
        if self.feature_std is not None and not min(self.feature_std) > 0:
            refuse("feature_std", "above 0 throughout, for features are divided by it")

    @property
    def frame_samples(self) -> int:
        return round(self.frame_ms * self.sampling_rate / 1000)

    @property
    def hop_samples(self) -> int:
        return round(self.hop_ms * self.sampling_rate / 1000)

    @property
    def num_features(self) -> int:
        """Features a frame and channel (F)."""
        return self.n_mfcc

    @property
    def num_channels(self) -> int:
        """Channels (C): the features themselves and each order of deltas."""
        return 1 + self.delta_order

    def __call__(
        self,
        raw_speech: np.ndarray | Tensor | Sequence[np.ndarray | Tensor | Sequence[float]],
        sampling_rate: int | None = None,
        return_tensors: str | None = None,
        device: str | torch.device = "cpu",
    ) -> BatchFeature:
        """
        Args:
            raw_speech: one mono waveform (T,), or a list of them; floats in [-1, 1], or 16- or 32-bit integers.
            sampling_rate: the rate of `raw_speech` in Hz; give it, so that a wrong one is noticed.
            return_tensors: "pt", "np" or None for lists.
            device: where the features are computed (and, with "pt", returned).

        Raises:
            ValueError: another sampling rate, more than one channel, no samples, less than one frame, samples that are
                not finite, or numbers that are not scaled to [-1, 1].
        """
        if sampling_rate is None:
            logger.warning(
                "no sampling_rate was given; the waveform is taken to be at %d Hz. Pass sampling_rate=... so that a "
                "wrong rate is noticed.",
                self.sampling_rate,
            )
        elif sampling_rate != self.sampling_rate:
            raise ValueError(
                f"the waveform is at {sampling_rate} Hz; this model hears {self.sampling_rate} Hz; resample it first, "
                f"e.g. torchaudio.functional.resample(waveform, {sampling_rate}, {self.sampling_rate})"
            )
        waveforms = [self._waveform(waveform) for waveform in self._as_list(raw_speech)]
        lengths = torch.tensor([len(waveform) for waveform in waveforms])
        batch = torch.nn.utils.rnn.pad_sequence(waveforms, batch_first=True)
        features, mask = self.extract(batch.to(device), lengths.to(device))
        data = {"input_features": features, "attention_mask": mask.long()}
        if return_tensors == "pt":
            return BatchFeature(data)
        arrays = {key: value.cpu().numpy() for key, value in data.items()}
        return BatchFeature(arrays if return_tensors else {key: list(value) for key, value in arrays.items()})

    @torch.no_grad()
    def extract(
        self,
        waveforms: Tensor,
        lengths: Tensor,
        spectrum_transform: SpectrumTransform | None = None,
        vocal_tract_factors: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """The same for a batch that is already padded, on whatever device it lies.

        Args:
            waveforms: (B, T) float32, zero-padded at the end.
            lengths: samples of each (B,).
            spectrum_transform: applied to the trimmed power spectra (B, n_fft // 2 + 1, L) and their lengths (B,);
                the door for augmentation.
            vocal_tract_factors: (B,), see `mfcc.mel_filterbank`; another door for it.

        Returns:
            Normalised features (B, L, C * F), zero where the mask (B, L) is false.
        """
        with torch.autocast(waveforms.device.type, enabled=False):
            power = power_spectrogram(waveforms.float(), self.frame_samples, self.hop_samples, self.n_fft)
            lengths = frame_count(lengths, self.hop_samples)
            if self.trim_db is not None:
                margin_frames = round(self.trim_margin_ms / self.hop_ms)
                power, lengths = trim_silence(power, lengths, self.trim_db, margin_frames)
                power = power[..., : int(lengths.max())]
            if spectrum_transform is not None:
                power, lengths = spectrum_transform(power, lengths)
            mask = frame_mask(lengths, power.shape[-1])
            features = self._cepstra(power, mask, vocal_tract_factors)  # (B, F, L)
            channels = [features]
            for _ in range(self.delta_order):
                channels.append(deltas(channels[-1], lengths))
            features = torch.cat(channels, dim=1).transpose(1, 2)  # (B, L, C * F)
            return self._normalized(features) * mask[..., None], mask

    def fit(self, batches: Iterable[tuple[Tensor, Tensor]]) -> "SERFeatureExtractor":
        """Set `feature_mean` and `feature_std` from waveforms and lengths, as `extract` takes them. Training part only.

        The mean is per feature, the standard deviation one number a channel: that keeps the features a rotation of the
        centred log-mel spectrum, which the model can then undo.
        """
        self.feature_mean = self.feature_std = None
        frames, total, total_square = 0, 0.0, 0.0
        for waveforms, lengths in batches:
            features, mask = self.extract(waveforms, lengths)
            real = features[mask].double()
            frames += len(real)
            total = total + real.sum(dim=0)
            total_square = total_square + real.square().sum(dim=0)
        if not frames:
            raise ValueError("no utterance came to fit the feature statistics on; is the training part empty?")
        mean = total / frames
        variance = (total_square / frames - mean.square()).unflatten(0, (self.num_channels, self.num_features))
        std = variance.mean(dim=1, keepdim=True).clamp(min=1e-10).sqrt().expand_as(variance)
        self.feature_mean = [round(value, 5) for value in mean.tolist()]
        self.feature_std = [round(value, 5) for value in std.flatten().tolist()]
        return self

    def _cepstra(self, power: Tensor, mask: Tensor, vocal_tract_factors: Tensor | None) -> Tensor:
        setting = (self.n_mels, self.n_fft, self.sampling_rate, self.f_min, self.f_max)
        if vocal_tract_factors is None:
            filters = _mel_filterbank(*setting, power.device)
        else:
            filters = mel_filterbank(*setting, vocal_tract_factors)
        log_mel = power_to_db(filters @ power, mask, self.top_db, self.level == "relative")  # (B, n_mels, L)
        return _dct_matrix(self.n_mfcc, self.n_mels, power.device) @ log_mel

    def _normalized(self, features: Tensor) -> Tensor:
        if self.feature_mean is not None:
            features = features - features.new_tensor(self.feature_mean)
        if self.feature_std is not None:
            features = features / features.new_tensor(self.feature_std)
        return features

    def _as_list(self, raw_speech) -> list:
        if isinstance(raw_speech, np.ndarray | Tensor):
            return [raw_speech]
        if not len(raw_speech) or np.isscalar(raw_speech[0]):
            return [raw_speech]
        return list(raw_speech)

    def _waveform(self, waveform: np.ndarray | Tensor | Sequence[float]) -> Tensor:
        """Checked, as float32 (T,)."""
        if not isinstance(waveform, Tensor):
            waveform = torch.from_numpy(np.array(waveform))  # a copy, for torch takes no reversed or read-only view
        if waveform.dim() != 1:
            raise ValueError(
                f"a waveform of shape {tuple(waveform.shape)} came; one channel (T,) was wanted; average the channels, "
                "and give several clips as a list"
            )
        if waveform.dtype in (torch.int16, torch.int32):
            waveform = waveform.float() / -float(torch.iinfo(waveform.dtype).min)
        elif not waveform.is_floating_point():
            raise ValueError(
                f"samples are {waveform.dtype}; floats in [-1, 1], int16 or int32 were wanted, for their scale is known"
            )
        if len(waveform) < self.frame_samples:
            raise ValueError(
                f"{len(waveform)} samples are less than one frame of {self.frame_samples} ({self.frame_ms} ms); "
                "give a longer recording"
            )
        waveform = waveform.float()
        if not torch.isfinite(waveform).all():
            raise ValueError("the waveform holds NaN or infinity; repair or decode it again")
        if (peak := float(waveform.abs().max())) > PEAK_LIMIT:
            raise ValueError(
                f"the waveform peaks at {peak:g}; floats in [-1, 1] were wanted; divide by the full scale, "
                "e.g. 32768 for 16-bit audio"
            )
        return waveform
