"""Feature extractor: waveforms in, padded features (MFCCs, unless others are asked for) and their mask out."""

import inspect
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import torch
from torch import Tensor
from transformers import BatchFeature, FeatureExtractionMixin
from transformers.utils import logging

from .configuration_ser import did_you_mean
from .mfcc import (
    MEL_SCALES,
    WINDOWS,
    apply_filters,
    chroma,
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
    pad_frames,
    pitch_filterbank,
    pitch_salience,
    power_spectrogram,
    power_to_db,
    relative_power,
    shift_rows,
    spectral_contrast,
    standardized,
    stretch_rows,
)

logger = logging.get_logger(__name__)

# Float audio lies in [-1, 1]; mixing may overshoot, but a peak beyond this is integers that nobody scaled.
PEAK_LIMIT = 32.0
SAMPLES_AT_ONCE = 2**18  # of a thread: their spectra stay in its cache, which made batches three times as quick
SPEC_KEYS = {"feature_extractor_type", "auto_map", "processor_class", "_processor_class"}  # written by save_pretrained

MAX_N_FFT = 2**16  # beyond, the filters alone take gigabytes
NUMBERS = (
    *("lifter", "f_min", "f_max", "pitch_f_min", "pitch_f_max", "contrast_f_min", "contrast_quantile"),
    *("frame_ms", "hop_ms", "top_db", "trim_db", "trim_margin_ms", "max_length_s"),
)
NULLABLE = ("top_db", "trim_db", "max_length_s")
CHOICES = {
    "stacking": ("rows", "channels"),
    "mel_scale": tuple(MEL_SCALES),
    "mel_unit_area": (False, True),
    "window_name": tuple(WINDOWS),
    "level": ("absolute", "relative"),
    "padding": ("longest", "max_length"),
    "delta_order": (0, 1, 2),
    "normalization": ("dataset", "utterance", "none"),
}

WANTED = "samples (T,) or a list of such were wanted: decode a file first, and of a dict give the array"

SpectrumTransform = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


# Constant matrices, made once a process, setting and device; never changed in place. Constructing an extractor makes
# those of the CPU (see `feature_sizes`), so that an export finds real ones and leaves no traced ones behind. Those of
# another device are made in a first inference; gradients, of which a map of saliency is made, refuse tensors made so.
@lru_cache(maxsize=128)
@torch.inference_mode(False)
def _mel_blocks(n_mels, n_fft, sampling_rate, f_min, f_max, scale, unit_area, device) -> tuple:
    filters = mel_filterbank(n_mels, n_fft, sampling_rate, f_min, f_max, None, scale, unit_area)
    return tuple((first, block.to(device)) for first, block in filter_blocks(filters))


@lru_cache(maxsize=128)
@torch.inference_mode(False)
def _dct_matrix(n_mfcc, n_mels, lifter, device) -> Tensor:
    return dct_matrix(n_mfcc, n_mels, lifter).to(device)


@lru_cache(maxsize=128)
@torch.inference_mode(False)
def _chroma_filterbank(n_chroma, n_fft, sampling_rate, device) -> Tensor:
    return chroma_filterbank(n_chroma, n_fft, sampling_rate).to(device)


@lru_cache(maxsize=128)
@torch.inference_mode(False)
def _pitch_filterbank(n_pitch, n_fft, sampling_rate, f_min, f_max, device) -> Tensor:
    return pitch_filterbank(n_pitch, n_fft, sampling_rate, f_min, f_max).to(device)


@dataclass
class Spectra:
    """The power spectra of a batch and what can be made of them; what several features need is computed once."""

    extractor: "SERFeatureExtractor"
    power: Tensor  # (B, n_fft // 2 + 1, L)
    mask: Tensor  # (B, L)
    vocal_tract_factors: Tensor | None = None  # (B,)

    @property
    def n_fft(self) -> int:
        return 2 * (self.power.shape[1] - 1)

    @cached_property
    def stretched_power(self) -> Tensor:
        """What mel bands do by filters that move, for features without them."""
        return self.power if self.vocal_tract_factors is None else stretch_rows(self.power, self.vocal_tract_factors)

    @cached_property
    def mel_power(self) -> Tensor:
        my = self.extractor
        setting = (my.n_mels, self.n_fft, my.sampling_rate, my.f_min, my.f_max)
        if self.vocal_tract_factors is None:
            blocks = _mel_blocks(*setting, my.mel_scale, my.mel_unit_area, self.power.device)
            return apply_filters(blocks, self.power)  # (B, n_mels, L)
        return mel_filterbank(*setting, self.vocal_tract_factors, my.mel_scale, my.mel_unit_area) @ self.power

    @cached_property
    def mel_decibels(self) -> Tensor:
        return self._decibels(self.mel_power)

    def mfcc(self) -> Tensor:
        my = self.extractor
        return _dct_matrix(my.n_mfcc, my.n_mels, my.lifter, self.power.device) @ self.mel_decibels

    def log_mel(self) -> Tensor:
        return self.mel_decibels

    def mel(self) -> Tensor:
        return self._linear(self.mel_power)

    def spectrogram(self) -> Tensor:
        return self._linear(self.stretched_power)

    def log_spectrogram(self) -> Tensor:
        return self._decibels(self.stretched_power)

    def chroma(self) -> Tensor:
        my = self.extractor
        filters = _chroma_filterbank(my.n_chroma, self.n_fft, my.sampling_rate, self.power.device)
        return chroma(self.stretched_power, filters)

    def pitch(self) -> Tensor:
        my = self.extractor
        filters = _pitch_filterbank(
            my.n_pitch, self.n_fft, my.sampling_rate, my.pitch_f_min, my.pitch_f_max, self.power.device
        )
        salience = pitch_salience(self._linear(self.power), filters)
        if self.vocal_tract_factors is None:
            return salience
        # What warps the mel bands moves harmonics with the formants.
        rows_an_octave = (my.n_pitch - 1) / math.log2(my.pitch_f_max / my.pitch_f_min)
        return shift_rows(salience, self.vocal_tract_factors.log2() * rows_an_octave)

    def contrast(self) -> Tensor:
        my = self.extractor
        bands = contrast_bands(
            my.contrast_n_bands, my.contrast_f_min, my.contrast_quantile, self.n_fft, my.sampling_rate
        )
        return spectral_contrast(self.stretched_power, self.mask, bands)

    def _decibels(self, power: Tensor) -> Tensor:
        return power_to_db(power, self.mask, self.extractor.top_db, self.extractor.level == "relative")

    def _linear(self, power: Tensor) -> Tensor:
        return relative_power(power, self.mask) if self.extractor.level == "relative" else power


# What `SERFeatureExtractor(features=...)` may name: each makes (B, F, L) of the spectra. The tests go through all.
FEATURES: dict[str, Callable[[Spectra], Tensor]] = {
    "mfcc": Spectra.mfcc,
    "log_mel": Spectra.log_mel,
    "mel": Spectra.mel,
    "log_spectrogram": Spectra.log_spectrogram,
    "spectrogram": Spectra.spectrogram,
    "chroma": Spectra.chroma,
    "pitch": Spectra.pitch,
    "contrast": Spectra.contrast,
}


class SERFeatureExtractor(FeatureExtractionMixin):
    """Waveforms at `sampling_rate` -> `input_features` (B, L, C * F) and `attention_mask` (B, L).

    Time is the second axis, as in Speech2Text and AST, so that `pipeline(..., batch_size=4)` can pad clips of different
    lengths by itself. C is 1 plus the orders of deltas, F the rows of all `features` together.

    Args:
        sampling_rate: in Hz; other rates are refused, never resampled in silence.
        features: a name of `FEATURES` or several, in this order: "mfcc"; mel bands in decibels ("log_mel") or as power
            ("mel"); FFT bins likewise ("log_spectrogram", "spectrogram"); "chroma", the strength of each pitch class;
            "pitch", how far a frame is made of the harmonics of each pitch; "contrast", peak above valley in each
            octave band.
        stacking: several features lie one above the other ("rows", along F), or, if they have as many rows each, on
            top of one another ("channels", along C), so that a 2-D kernel sees all of them at once.
        n_mfcc: coefficients kept. With as many as `n_mels` the DCT loses nothing, and the model can undo it.
        lifter: weighs MFCCs by a sine of this period, so that high ones count as much as low ones; 22 is usual, 0 off.
        n_mels: mel bands.
        mel_scale, mel_unit_area: "htk" or "slaney" spacing of the mel filters; areas of 1 instead of peaks of 1.
        f_min, f_max: edges of the mel filters in Hz.
        n_chroma: pitch classes an octave, 12 for semitones.
        n_pitch, pitch_f_min, pitch_f_max: pitches, evenly spaced in octaves between these two in Hz.
        contrast_n_bands, contrast_f_min: octaves of the spectral contrast and where in Hz the first begins; what lies
            below it is one band more.
        contrast_quantile: share of a band's bins that makes its peak, and its valley.
        frame_ms, hop_ms: length and step of the analysis window.
        more_frames_ms: further lengths of the window, each of which makes all features once more, as further channels:
            short ones tell when something happens, long ones which harmonics sound.
        window_name: "hann" or "hamming".
        n_fft: FFT length in samples, at least a frame of `frame_ms`; longer ones take the next power of two.
        top_db: what lies further below the utterance's loudest band counts as that far below; None keeps all. It is
            for features in decibels; the contrast has its own, librosa's.
        level: "absolute" keeps the level of the recording, "relative" measures from the utterance's loudest band, so
            that neither the microphone's gain nor the distance to it matters.
        trim_db: frames this far below the loudest are dropped before the first and after the last louder one; None
            keeps all.
        trim_margin_ms: how much of the quiet is kept at either end.
        max_length_s: longer utterances keep their middle, which has more voice than either end; counted after trimming.
            None keeps all.
        padding: "longest" pads to the longest of a batch, "max_length" always to `max_length_s`. Either way the mask
            tells what is real.
        delta_order: 0, or 1 (deltas), or 2 (delta-deltas as well), as further channels.
        normalization: "dataset" takes off `feature_mean` and divides by `feature_std`; "utterance" gives each feature
            zero mean and unit variance over the real frames of its utterance; "none" leaves features as they are.
        feature_mean, feature_std: of each feature (C * F), see `fit`; None before it.
    """

    model_input_names = ["input_features", "attention_mask"]
    padding_value = 0.0  # the mean of every feature once they are normalised
    padding_side = "right"
    _auto_class = "AutoFeatureExtractor"

    def __init__(
        self,
        sampling_rate: int = 16_000,
        features: str | Sequence[str] = ("mfcc",),
        stacking: str = "rows",
        n_mfcc: int = 80,
        lifter: float = 0.0,
        n_mels: int = 80,
        mel_scale: str = "htk",
        mel_unit_area: bool = False,
        f_min: float = 20.0,
        f_max: float = 8_000.0,
        n_chroma: int = 12,
        n_pitch: int = 80,
        pitch_f_min: float = 60.0,  # a man at his lowest
        pitch_f_max: float = 550.0,  # a woman shouting
        contrast_n_bands: int = 6,
        contrast_f_min: float = 200.0,
        contrast_quantile: float = 0.02,
        frame_ms: float = 40.0,
        hop_ms: float = 20.0,
        more_frames_ms: Sequence[float] = (),
        window_name: str = "hann",  # not `window`, which the library leaves out of the saved settings
        n_fft: int = 1024,
        top_db: float | None = 80.0,
        level: str = "relative",
        trim_db: float | None = 40.0,
        trim_margin_ms: float = 100.0,
        max_length_s: float | None = None,
        padding: str = "longest",
        delta_order: int = 0,
        normalization: str = "dataset",
        feature_mean: Sequence[float] | None = None,
        feature_std: Sequence[float] | None = None,
        **kwargs,
    ):
        if extra := kwargs.keys() - SPEC_KEYS:
            known = sorted(self._settings())
            hint = did_you_mean(min(extra), known)
            raise ValueError(f"SERFeatureExtractor knows no setting {sorted(extra)}{hint}; known: {known}")
        super().__init__(**kwargs)
        self.sampling_rate = sampling_rate
        self.features = tuple(features or ()) if isinstance(features, list | tuple | None) else (features,)
        self.stacking = stacking
        self.n_mfcc = n_mfcc
        self.lifter = lifter
        self.n_mels = n_mels
        self.mel_scale = mel_scale
        self.mel_unit_area = mel_unit_area
        self.f_min = f_min
        self.f_max = f_max
        self.n_chroma = n_chroma
        self.n_pitch = n_pitch
        self.pitch_f_min = pitch_f_min
        self.pitch_f_max = pitch_f_max
        self.contrast_n_bands = contrast_n_bands
        self.contrast_f_min = contrast_f_min
        self.contrast_quantile = contrast_quantile
        self.frame_ms = frame_ms
        self.hop_ms = hop_ms
        self.more_frames_ms = tuple(more_frames_ms) if isinstance(more_frames_ms, list | tuple) else more_frames_ms
        self.window_name = window_name
        self.n_fft = n_fft
        self.top_db = top_db
        self.level = level
        self.trim_db = trim_db
        self.trim_margin_ms = trim_margin_ms
        self.max_length_s = max_length_s
        self.padding = padding
        self.delta_order = delta_order
        self.normalization = normalization
        self.feature_mean = None if feature_mean is None else [float(value) for value in feature_mean]
        self.feature_std = None if feature_std is None else [float(value) for value in feature_std]
        self._check()

    @classmethod
    def from_dict(cls, feature_extractor_dict: dict, **kwargs):
        """As usual, but a setting is taken even where an older file lacks it, and a misspelt one is told.

        It is not refused: what is meant for a model comes through here as well.
        """
        wants_unused = kwargs.pop("return_unused_kwargs", False)
        unused = {key: value for key, value in kwargs.items() if key not in cls._settings()}
        for key in unused:
            if hint := did_you_mean(key, cls._settings()):
                logger.warning("SERFeatureExtractor knows no setting %r and leaves it out%s", key, hint)
        given = {key: value for key, value in kwargs.items() if key not in unused}
        unknown = feature_extractor_dict.keys() - cls._settings() - SPEC_KEYS
        later = sorted(key for key in unknown if not did_you_mean(key, cls._settings()))
        if later:  # a file of a later version may have more
            logger.warning("SERFeatureExtractor knows nothing of %s in its file and leaves it out", ", ".join(later))
        saved = {key: value for key, value in feature_extractor_dict.items() if key not in later}
        extractor = super().from_dict(saved | given)
        return (extractor, unused) if wants_unused else extractor

    @classmethod
    def _settings(cls) -> set[str]:
        return set(inspect.signature(cls.__init__).parameters) - {"self", "kwargs"}

    def _check(self) -> None:
        def refuse(key: str, wanted: str) -> None:
            raise ValueError(f"SERFeatureExtractor.{key} is {getattr(self, key)!r}; it must be {wanted}")

        for key in ("sampling_rate", "n_mfcc", "n_mels", "n_chroma", "n_pitch", "contrast_n_bands", "n_fft"):
            if not isinstance(getattr(self, key), int) or getattr(self, key) < 1:
                refuse(key, "a whole number of at least 1")
        if self.n_fft > MAX_N_FFT:
            refuse("n_fft", f"at most {MAX_N_FFT}")
        for key in NUMBERS:
            value = getattr(self, key)
            if key in NULLABLE and value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                refuse(key, "a finite number" + (", or null" if key in NULLABLE else ""))
        for key, choices in CHOICES.items():
            if getattr(self, key) not in choices:
                refuse(key, f"one of {choices}")
        if not 0 < self.hop_ms <= self.frame_ms or self.hop_samples < 1:
            refuse("hop_ms", f"at least one sample and at most frame_ms ({self.frame_ms}), or sound would be skipped")
        if self.n_fft < self.frame_samples or self.n_fft % 2:
            refuse("n_fft", f"even, so that frames have a centre, and at least a frame of {self.frame_samples} samples")
        if not isinstance(self.more_frames_ms, tuple) or not all(
            isinstance(value, int | float) and self.hop_ms <= value < math.inf for value in self.more_frames_ms
        ):
            refuse("more_frames_ms", f"lengths of at least hop_ms ({self.hop_ms}), as a list")
        if len({self.frame_ms, *self.more_frames_ms}) <= len(self.more_frames_ms):
            refuse("more_frames_ms", f"each length once, and none of them frame_ms ({self.frame_ms})")
        if max(n_fft for _, n_fft in self.windows) > MAX_N_FFT:
            refuse("more_frames_ms", f"lengths of at most {MAX_N_FFT} samples")
        if not 0 <= self.f_min < self.f_max <= self.sampling_rate / 2:
            refuse("f_max", f"above f_min ({self.f_min}) and at most half the sampling rate ({self.sampling_rate / 2})")
        if not 0 < self.pitch_f_min < self.pitch_f_max <= self.sampling_rate / 2:
            refuse("pitch_f_max", f"above pitch_f_min ({self.pitch_f_min}) and at most half the sampling rate")
        if not self.contrast_f_min > 0:
            refuse("contrast_f_min", "above 0 Hz")
        if not 0 < self.contrast_quantile < 1:
            refuse("contrast_quantile", "above 0 and below 1")
        for key in ("lifter", "trim_margin_ms"):
            if not getattr(self, key) >= 0:
                refuse(key, "at least 0")
        for key in ("top_db", "trim_db"):
            if getattr(self, key) is not None and getattr(self, key) <= 0:
                refuse(key, "above 0 dB, or null")
        if self.max_length_s is not None and not self.max_length_s * 1000 >= self.frame_ms:
            refuse("max_length_s", f"at least a frame ({self.frame_ms / 1000} s), or null")
        if self.padding == "max_length" and self.max_length_s is None:
            refuse("padding", "'longest' unless max_length_s is given")
        if not self.features or len(set(map(str, self.features))) < len(self.features):
            refuse("features", "one name or more, each once")
        if unknown := [name for name in self.features if str(name) not in FEATURES]:
            refuse("features", f"names of {list(FEATURES)}{did_you_mean(str(unknown[0]), FEATURES)}")
        if len({self._feature_sizes(n_fft) for _, n_fft in self.windows}) > 1:
            refuse("more_frames_ms", "left out for features that are FFT bins, of which longer windows have more")
        if self.stacking == "channels" and len(set(self.feature_sizes)) > 1:
            sizes = ", ".join(f"{name} {size}" for name, size in zip(self.features, self.feature_sizes, strict=True))
            refuse("stacking", f"'rows' for features that differ in their number of rows ({sizes})")
        size = self.num_channels * self.num_features  # refuses what the wanted features cannot be made with
        for key in ("feature_mean", "feature_std"):
            values = getattr(self, key)
            if values is not None and not (len(values) == size and all(map(math.isfinite, values))):
                refuse(key, f"{size} finite numbers, one a feature")
        if self.feature_std is not None and not min(self.feature_std) > 0:
            refuse("feature_std", "above 0 throughout, for features are divided by it")

    @property
    def frame_samples(self) -> int:
        return round(self.frame_ms * self.sampling_rate / 1000)

    @property
    def windows(self) -> list[tuple[int, int]]:
        """Length and FFT of each window in samples; the first is that of `frame_ms` and `n_fft`."""
        more = [round(frame_ms * self.sampling_rate / 1000) for frame_ms in self.more_frames_ms]
        return [(self.frame_samples, self.n_fft)] + [
            (samples, max(self.n_fft, 1 << (samples - 1).bit_length())) for samples in more
        ]

    @property
    def hop_samples(self) -> int:
        return round(self.hop_ms * self.sampling_rate / 1000)

    @property
    def max_frames(self) -> int | None:
        """Frames of `max_length_s`."""
        if self.max_length_s is None:
            return None
        return frame_count(round(self.max_length_s * self.sampling_rate), self.hop_samples)

    @property
    def feature_sizes(self) -> tuple[int, ...]:
        """Rows of each of `features`."""
        return self._feature_sizes(self.n_fft)

    def _feature_sizes(self, n_fft: int) -> tuple[int, ...]:
        """Counted on a silent frame."""
        silence = torch.zeros(1, n_fft // 2 + 1, 1, dtype=torch.float32)  # whatever the default type
        spectra = Spectra(self, silence, torch.ones(1, 1, dtype=torch.bool))
        return tuple(FEATURES[name](spectra).shape[1] for name in self.features)

    @property
    def num_features(self) -> int:
        """Features a frame and channel (F)."""
        return self.feature_sizes[0] if self.stacking == "channels" else sum(self.feature_sizes)

    @property
    def num_channels(self) -> int:
        """Channels (C): of the features, together or each on its own, every window and each order of deltas."""
        kinds = len(self.features) if self.stacking == "channels" else 1
        return kinds * len(self.windows) * (1 + self.delta_order)

    def __call__(
        self,
        raw_speech: np.ndarray | Tensor | Sequence[np.ndarray | Tensor | Sequence[float]],
        sampling_rate: int | None = None,
        return_tensors: str | None = None,
        device: str | torch.device = "cpu",
        padding: bool | str | None = None,
        max_length: int | None = None,
        truncation: bool = False,
        return_attention_mask: bool | None = None,
    ) -> BatchFeature:
        """
        Args:
            raw_speech: one mono waveform (T,), or a list of them; floats in [-1, 1], or 16- or 32-bit integers.
            sampling_rate: the rate of `raw_speech` in Hz; give it, so that a wrong one is noticed.
            return_tensors: "pt", "np" or None for lists.
            device: where the features are computed (and, with "pt", returned).
            padding: a batch is padded as the extractor's own `padding` says; True and that are taken, for callers that
                are used to ask. False or "do_not_pad" leaves clips as long as they are, for lists or one clip alone.
            max_length, truncation: with both, of each waveform the first `max_length` samples are heard.
            return_attention_mask: False leaves the mask out, which models need for padded batches.

        Raises:
            ValueError: another sampling rate, more than one channel, no samples, less than one frame, samples that are
                not finite, numbers that are not scaled to [-1, 1], or an argument that it cannot follow.
        """
        unpadded = padding in (False, "do_not_pad")
        if not (unpadded or padding in (None, True, self.padding)):
            raise ValueError(
                f"padding is {padding!r}; this extractor pads to {self.padding!r}, so leave it out, or load the "
                "extractor with another padding and max_length_s"
            )
        if truncation != (max_length is not None):
            raise ValueError("max_length and truncation=True cut waveforms together; give both or none")
        if truncation and max_length < self.frame_samples:
            raise ValueError(f"max_length is {max_length} samples; at least a frame of {self.frame_samples} was wanted")
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
        if self.normalization == "dataset" and self.feature_mean is None:
            logger.warning_once(
                "this feature extractor knows no statistics, so its features are not normalised; call fit on training "
                "clips, or load the extractor saved with a model"
            )
        waveforms = [self._waveform(waveform)[:max_length] for waveform in self._as_list(raw_speech)]
        if unpadded and return_tensors is not None and len(waveforms) > 1:
            raise ValueError(
                f"padding is {padding!r}, but {len(waveforms)} clips make one tensor only if they are padded"
            )
        lengths = torch.tensor([len(waveform) for waveform in waveforms])
        batch = torch.nn.utils.rnn.pad_sequence(waveforms, batch_first=True)
        features, mask = self.extract(batch.to(device), lengths.to(device))
        data = {"input_features": features}
        if return_attention_mask is not False:
            data["attention_mask"] = mask.long()
        if unpadded and return_tensors is None:
            real = {
                key: [row[own].cpu().numpy() for row, own in zip(rows, mask, strict=True)] for key, rows in data.items()
            }
            return BatchFeature(real)
        return _as_asked({key: rows[:, mask[0]] for key, rows in data.items()} if unpadded else data, return_tensors)

    def pad(
        self,
        features: Sequence[Mapping] | Mapping[str, Sequence],
        padding: bool | str = True,
        max_length: int | None = None,
        pad_to_multiple_of: int | None = None,
        return_tensors: str | None = None,
    ) -> BatchFeature:
        """One batch of clips that were heard one by one: `DataCollatorWithPadding(extractor)` calls it for `Trainer`.

        Args:
            features: of each clip its `input_features` (L, C * F) and `attention_mask` (L), all frames real where that
                is left out; what else there is, such as `labels`, is stacked. Or a mapping with lists of all these.
            padding: True or "longest": up to the longest of them.
            max_length, pad_to_multiple_of: None; frames are added for no other reason.
            return_tensors: "pt", "np" or None for lists.

        Raises:
            ValueError: an argument that it cannot follow, or a column that is no tensor.
        """
        if isinstance(features, Mapping):
            features = [dict(zip(features, clip, strict=True)) for clip in zip(*features.values(), strict=True)]
        if padding not in (True, "longest") or (max_length, pad_to_multiple_of) != (None, None):
            raise ValueError(
                f"padding is {padding!r}, max_length {max_length}, pad_to_multiple_of {pad_to_multiple_of}; clips are "
                "padded to the longest of them, so leave these out"
            )
        if not features:
            raise ValueError("no clips came to be padded; give one or more")
        clips = [_as_tensor(clip["input_features"], torch.float32)[None] for clip in features]
        if wrong := [tuple(clip.shape[1:]) for clip in clips if clip.dim() != 3]:
            raise ValueError(
                f"input_features of shape {wrong[0]} came; give those of each clip (L, C * F): of what the extractor "
                "makes of one clip, take [0]"
            )
        masks = [
            _as_tensor(clip.get("attention_mask", np.ones(real.shape[1])), torch.long).to(real.device)[None]
            for clip, real in zip(features, clips, strict=True)
        ]
        together, mask = _joined(list(zip(clips, masks, strict=True)))
        others = {
            key: _column(key, [clip[key] for clip in features])
            for key in features[0].keys() - set(self.model_input_names)
        }
        return _as_asked(others | {"input_features": together, "attention_mask": mask}, return_tensors)

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
            vocal_tract_factors: (B,), see `mfcc.mel_filterbank`; what is not made of mel bands is stretched as far.

        Returns:
            Normalised features (B, L, C * F), zero where the mask (B, L) is false.
        """
        if spectrum_transform is not None or waveforms.device.type != "cpu" or torch.compiler.is_exporting():
            return self._extract(waveforms, lengths, spectrum_transform, vocal_tract_factors)
        rows = max(1, torch.get_num_threads() * SAMPLES_AT_ONCE // waveforms.shape[1])
        parts = []
        for first in range(0, len(waveforms), rows):
            part = slice(first, first + rows)
            factors = None if vocal_tract_factors is None else vocal_tract_factors[part]
            parts.append(self._extract(waveforms[part], lengths[part], None, factors))
        return _joined(parts)

    def _extract(
        self,
        waveforms: Tensor,
        lengths: Tensor,
        spectrum_transform: SpectrumTransform | None,
        vocal_tract_factors: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """`extract` for rows that are done at once."""
        with torch.autocast(waveforms.device.type, enabled=False):
            lengths = frame_count(lengths, self.hop_samples)
            first, spectra = None, []
            for frame_samples, n_fft in self.windows:
                power = power_spectrogram(waveforms.float(), frame_samples, self.hop_samples, n_fft, self.window_name)
                if first is None and self.trim_db is not None:  # by the first window, or frames would not lie together
                    margin_frames = round(self.trim_margin_ms / self.hop_ms)
                    first, lengths = loud_span(power, lengths, self.trim_db, margin_frames)
                spectra.append(self._spectra(power, first, lengths, spectrum_transform, vocal_tract_factors))
            mask = spectra[0].mask
            kinds = [
                torch.cat([self._with_deltas(FEATURES[name](each), mask.sum(dim=1)) for each in spectra], dim=1)
                for name in self.features
            ]
            if self.normalization == "utterance":
                kinds = [standardized(kind, mask) for kind in kinds]
            features = torch.cat(kinds, dim=1 if self.stacking == "channels" else 2)  # (B, C, F, L)
            features = features.flatten(1, 2).transpose(1, 2)  # (B, L, C * F)
            if self.normalization == "dataset":
                features = self._normalized(features)
            return features * mask[..., None], mask

    def _spectra(
        self,
        power: Tensor,
        first: Tensor | None,
        lengths: Tensor,
        spectrum_transform: SpectrumTransform | None,
        vocal_tract_factors: Tensor | None,
    ) -> Spectra:
        """Power (B, n_fft // 2 + 1, L) from its first frames on, distorted and cut to the lengths."""
        # An exported graph has no length that depends on what is in the sound; the mask tells what is real.
        exporting = torch.compiler.is_exporting()
        if first is not None:
            power = from_frame(power, first)
            if not exporting:
                power = power[..., : int(lengths.max())]
        if spectrum_transform is not None:
            power, lengths = spectrum_transform(power, lengths)
        if (max_frames := self.max_frames) is not None:
            if self.padding == "longest" and not exporting:
                max_frames = min(max_frames, power.shape[-1])
            power, lengths = fit_length(power, lengths, max_frames)
        return Spectra(self, power, frame_mask(lengths, power.shape[-1]), vocal_tract_factors)

    def fit(self, batches: Iterable[tuple[Tensor, Tensor]]) -> "SERFeatureExtractor":
        """Set `feature_mean` and `feature_std` from waveforms and lengths, as `extract` takes them. Training part only.

        The mean is per feature, the standard deviation one number for all rows of one of `features` in one channel:
        that keeps MFCCs a rotation of the centred log-mel spectrum, which the model can then undo, and gives chroma,
        between 0 and 1, as much spread as MFCCs of tens of decibels. Normalisations that need no statistics set none.
        """
        if self.normalization != "dataset":
            return self
        self.feature_mean = self.feature_std = None
        frames, total, total_square = 0, 0.0, 0.0
        for waveforms, lengths in batches:
            features, mask = self.extract(waveforms, lengths)
            real = features[mask].cpu().double()  # Apple's GPUs have no float64
            frames += len(real)
            total = total + real.sum(dim=0)
            total_square = total_square + real.square().sum(dim=0)
        if not frames:
            raise ValueError("no utterance came to fit the feature statistics on; is the training part empty?")
        mean = total / frames
        variance = (total_square / frames - mean.square()).unflatten(0, (self.num_channels, self.num_features))
        kinds = variance.split(self.num_features if self.stacking == "channels" else self.feature_sizes, dim=1)
        std = torch.cat([rows.mean(dim=1, keepdim=True).expand_as(rows) for rows in kinds], dim=1)
        std = std.clamp(min=1e-10).sqrt().flatten().tolist()
        # Six digits of the spread: five decimals of decibels, more of powers.
        decimals = [max(5, 5 - math.floor(math.log10(value))) for value in std]
        self.feature_mean = [round(value, places) for value, places in zip(mean.tolist(), decimals, strict=True)]
        self.feature_std = [round(value, places) for value, places in zip(std, decimals, strict=True)]
        return self

    def _with_deltas(self, rows: Tensor, lengths: Tensor) -> Tensor:
        channels = [rows]  # (B, F, L)
        for _ in range(self.delta_order):
            channels.append(deltas(channels[-1], lengths))
        return torch.stack(channels, dim=1)  # (B, C, F, L)

    def _normalized(self, features: Tensor) -> Tensor:
        if self.feature_mean is not None:
            features = features - features.new_tensor(self.feature_mean)
        if self.feature_std is not None:
            features = features / features.new_tensor(self.feature_std)
        return features

    def _as_list(self, raw_speech) -> list:
        if isinstance(raw_speech, np.ndarray | Tensor):
            return [raw_speech]
        if not isinstance(raw_speech, Sequence) or isinstance(raw_speech, str | bytes):
            raise ValueError(f"a {type(raw_speech).__name__} came; {WANTED}")
        if not len(raw_speech) or np.isscalar(raw_speech[0]):
            return [raw_speech]
        return list(raw_speech)

    def _waveform(self, waveform: np.ndarray | Tensor | Sequence[float]) -> Tensor:
        """Checked, as float32 (T,)."""
        if isinstance(waveform, Mapping):
            raise ValueError(f"a {type(waveform).__name__} came; {WANTED}")
        if not isinstance(waveform, Tensor):
            samples = np.array(waveform)  # a copy, for torch takes no reversed or read-only view
            if samples.dtype.kind not in "biuf":
                raise ValueError(f"samples are {samples.dtype}; floats in [-1, 1], int16 or int32 were wanted")
            waveform = torch.from_numpy(samples)
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


def _joined(parts: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Features (b, L, C * F) and masks (b, L) of different lengths -> one batch of each, padded to the longest."""
    num_frames = max(mask.shape[1] for _, mask in parts)
    padded = [pad_frames(features, mask, num_frames) for features, mask in parts]
    return torch.cat([features for features, _ in padded]), torch.cat([mask for _, mask in padded])


def _as_tensor(values, dtype: torch.dtype | None = None) -> Tensor:
    """Of a tensor, on whatever device it lies, an array or lists."""
    return torch.as_tensor(values if isinstance(values, Tensor) else np.asarray(values), dtype=dtype)


def _column(name: str, values: list) -> Tensor:
    try:
        if all(isinstance(value, Tensor) for value in values):
            return torch.stack(values)  # on their device, which NumPy may not reach
        return _as_tensor(values)
    except (RuntimeError, TypeError, ValueError) as error:  # words, or lists of different lengths
        raise ValueError(f"the column {name!r} makes no tensor ({error}); remove it before clips are padded") from error


def _as_asked(data: dict[str, Tensor], return_tensors: str | None) -> BatchFeature:
    """Tensors, arrays or lists of arrays. Raises ValueError for any other kind."""
    if return_tensors not in (None, "pt", "np"):
        raise ValueError(f"return_tensors is {return_tensors!r}; 'pt', 'np' or None was wanted")
    if return_tensors == "pt":
        return BatchFeature(data)
    arrays = {key: value.cpu().numpy() for key, value in data.items()}
    return BatchFeature(arrays if return_tensors else {key: list(value) for key, value in arrays.items()})
