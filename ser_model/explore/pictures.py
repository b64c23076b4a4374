"""Figures of a whole data set, and of a few clips before and after what is done to them."""

import copy
import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from ..augment import BatchAugmentation
from ..feature_extraction_ser import SERFeatureExtractor
from ..mfcc import dct_matrix, hertz_to_mel, power_spectrogram, power_to_db
from ..pictures import (
    BOTTOM_IN,
    COLOURS,
    HATCHES,
    INK,
    LEFT_IN,
    LEGEND_COLUMNS,
    TOP_IN,
    WIDTH_IN,
    add_axes,
    draw_waveform,
)
from .findings import accepted_n_fft

RANGE_DB = 80.0  # from the loudest down to where a quiet room's noise begins
MAX_BINS = 256  # rows of a spectrogram: more than its picture has pixels
ROW_IN = 0.24  # a bar or a row of a map, with room for 9-point letters
CHAR_IN = 0.068  # a 9-point letter
NAME_CHARS = 20  # longer names are cut, or no room would be left
BARS = 40  # of a histogram
MAX_BARS = 40  # of names: two screens of a phone
COUNT_COLOURS = COLOURS[3:] + COLOURS[:3]  # the strong ones first, for most data have one or two corpora
PERCENTILES = (5, 25, 50, 75, 95)


# ── The data as a whole ──


def stacked_bars(names: Sequence, groups: Sequence[str], counts: Mapping[tuple, int]) -> Figure:
    """One bar a name, made of `counts` of (name, group); the total stands behind it. The first `MAX_BARS` are drawn."""
    names = names[:MAX_BARS]
    figure, axes = _charts(ROW_IN * len(names), groups, _left_in(names))
    places = np.arange(len(names))
    filled = np.zeros(len(names))
    for index, group in enumerate(groups):
        values = np.array([counts.get((name, group), 0) for name in names])
        axes.barh(places, values, left=filled, height=0.7, **_fill(index))
        filled += values
    for place, total in zip(places, filled, strict=True):
        axes.annotate(f"{total:.0f}", (total, place), (3, 0), textcoords="offset points", va="center", **_letters(8))
    axes.set(ylim=(len(names) - 0.5, -0.5), xlim=(0, 1.15 * max(1.0, filled.max())), xlabel="clips")
    axes.set_yticks(places, [_short(name) for name in names])
    axes.tick_params(axis="y", length=0)
    _count_axis(axes.xaxis)
    _legend(figure, axes, groups)
    return figure


def histogram(
    values: Mapping[str, Sequence[float]], xlabel: str, marks: Sequence[tuple[float, str]] = (), limit: float = math.inf
) -> Figure:
    """How often each value occurs, a colour a group. `marks` are (value, text); beyond `limit` all is one last bar."""
    figure, axes = _charts(1.7, list(values), marks_in=0.2 if marks else 0.0)
    groups = [np.minimum(np.asarray(group, dtype=float), limit) for group in values.values()]
    everything = np.concatenate(groups)
    low, high = float(everything.min()), float(everything.max())
    edges = np.linspace(low, high if high > low else low + 1, BARS + 1)
    filled = np.zeros(BARS)
    for index, group in enumerate(groups):
        counts = np.histogram(group, edges)[0]
        axes.bar(edges[:-1], counts, np.diff(edges), filled, align="edge", **_fill(index))
        filled += counts
    for value, text in marks:
        axes.axvline(min(value, limit), color=INK, linewidth=1.2, linestyle=(0, (4, 2)))
        right = value > (edges[0] + edges[-1]) / 2
        place = {"xy": (min(value, limit), 1.0), "xycoords": ("data", "axes fraction")}
        place |= {"xytext": (0, 3), "textcoords": "offset points", "ha": "right" if right else "left"}
        axes.annotate(text, **place, **_letters(8))
    axes.set(xlim=(edges[0], edges[-1]), xlabel=xlabel, ylabel="clips")
    _count_axis(axes.yaxis)
    _legend(figure, axes, list(values))
    return figure


def ranges(values: Mapping[str, Sequence[float]], xlabel: str) -> Figure:
    """Where the values of each name lie: a line over 5 to 95 %, a bar over 25 to 75 %, a stroke at the middle."""
    figure, axes = _charts(ROW_IN * len(values), [], _left_in(list(values)))
    for place, group in enumerate(values.values()):
        low, lower, middle, upper, high = np.percentile(group, PERCENTILES)
        axes.plot([low, high], [place, place], color=INK, linewidth=1)
        axes.barh(place, upper - lower, left=lower, height=0.5, **_fill(0))
        axes.plot([middle, middle], [place - 0.38, place + 0.38], color=INK, linewidth=2.5)
    axes.set(ylim=(len(values) - 0.5, -0.5), xlabel=xlabel)
    axes.set_yticks(range(len(values)), [_short(name) for name in values])
    axes.tick_params(axis="y", length=0)
    return figure


def heat_map(rows: Sequence[str], columns: Sequence[str], counts: np.ndarray) -> Figure:
    """Counts (rows, columns) as colours, with the number in each field."""
    left_in = _left_in(rows)
    names_in = 0.2 + CHAR_IN * max(len(_short(name)) for name in columns)
    figure = Figure(figsize=(WIDTH_IN, names_in + ROW_IN * len(rows) + TOP_IN))
    axes = add_axes(figure, bottom_in=TOP_IN, height_in=ROW_IN * len(rows), left_in=left_in)
    shades = np.log1p(counts) / np.log1p(max(1, counts.max()))  # else one large corpus makes all others look empty
    axes.imshow(shades, aspect="auto", cmap="cividis", vmin=0, vmax=1, interpolation="none")
    for (row, column), count in np.ndenumerate(counts):
        colour = "#ffffff" if shades[row, column] < 0.55 else "#000000"  # cividis runs from dark blue to light yellow
        axes.text(column, row, f"{count:d}", ha="center", va="center", fontsize=8, color=colour)
    axes.xaxis.tick_top()
    axes.set_xticks(range(len(columns)), [_short(name) for name in columns], rotation=90)
    axes.set_yticks(range(len(rows)), [_short(name) for name in rows])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return figure


# ── Single clips ──


def plain_extractor(extractor: SERFeatureExtractor) -> SERFeatureExtractor:
    """One that hears with the mel bands of `extractor`, but neither trims nor scales, so that levels can be compared.

    All coefficients of the DCT are kept, so that `mel_levels` can turn them back.
    """
    same = ("sampling_rate", "n_mels", "f_min", "f_max", "frame_ms", "hop_ms")
    settings = {key: getattr(extractor, key) for key in same}
    settings |= {"n_mfcc": extractor.n_mels, "top_db": RANGE_DB, "level": "absolute", "trim_db": None}
    return SERFeatureExtractor(**settings, n_fft=accepted_n_fft(settings, extractor.n_fft))


def mel_levels(plain: SERFeatureExtractor, waveform: np.ndarray, trim_db: float | None = None) -> Tensor:
    """Samples (T,) -> decibels of full scale in each mel band (L, n_mels), with the silent ends off if wanted."""
    plain = copy.copy(plain)
    plain.trim_db = trim_db
    waveforms, lengths = _batch([waveform])
    features, _ = plain.extract(waveforms, lengths)
    return features[0] @ dct_matrix(plain.n_mels, plain.n_mels)


def augmented(
    plain: SERFeatureExtractor, waveform: np.ndarray, other: np.ndarray, distort: BatchAugmentation
) -> tuple[np.ndarray, Tensor]:
    """What `distort` makes of a clip (T,), on the way that training takes: samples, and levels as `mel_levels`.

    `other` is the rest of the batch, for what blends clips; it counts as one of the same label.
    """
    waveforms, lengths = _batch([waveform, other])
    waveforms = distort.waveforms(waveforms, lengths)
    factors = distort.vocal_tract_factors()
    mean = mel_levels(plain, waveform).mean(dim=0)
    dct = dct_matrix(plain.n_mels, plain.n_mels)
    plain = copy.copy(plain)
    plain.feature_mean = (dct @ mean).tolist()  # as in training, where padding becomes the mean, and not a loud noise
    features, mask = plain.extract(waveforms, lengths, distort.spectra, factors)
    features = distort.style(features, mask, torch.zeros(2))
    features, mask, _ = distort.mixup(features, mask, torch.eye(2))
    return waveforms[0, : len(waveform)].numpy(), features[0, mask[0]] @ dct + mean


def clip_panels(plain: SERFeatureExtractor, waveform: np.ndarray, n_mfcc: int, duration_s: float) -> Figure:
    """Waveform, linear spectrogram, log-mel and MFCCs of one clip (T,) over the same seconds."""
    figure, axes = _panels((0.8, 1.3, 1.3, 1.3), duration_s)
    levels = mel_levels(plain, waveform)
    mfcc = levels @ dct_matrix(n_mfcc, plain.n_mels).T
    mfcc = (mfcc - mfcc.mean(dim=0)) / mfcc.std(dim=0, correction=0).clamp(min=1e-6)  # silence has no spread
    draw_waveform(axes[0], waveform, plain.sampling_rate)
    _spectrogram(axes[1], waveform, plain.sampling_rate, plain.frame_ms, plain.hop_ms)
    _mel_map(axes[2], levels, plain)
    _map(axes[3], mfcc, plain.hop_ms, (-0.5, n_mfcc - 0.5), (-3, 3))
    axes[3].set_ylabel("MFCC")
    return figure


def heard_panels(
    plain: SERFeatureExtractor, waveform: np.ndarray, levels: Tensor, duration_s: float, limit: float, top_db: float
) -> Figure:
    """A clip (T,) and its mel levels (L, n_mels) after whatever was done to them.

    `limit` is where the amplitude ends, `top_db` the level of the brightest colour: alike in pictures to be compared.
    """
    figure, axes = _panels((0.8, 1.3), duration_s)
    draw_waveform(axes[0], waveform, plain.sampling_rate, limit)
    _mel_map(axes[1], levels, plain, top_db)
    return figure


def rate_panels(waveforms: Mapping[int, np.ndarray], frame_ms: float, hop_ms: float) -> Figure:
    """Spectrograms of one clip at several sampling rates, over the same hertz."""
    duration_s = max(len(waveform) / rate for rate, waveform in waveforms.items())
    figure, axes = _panels([1.1] * len(waveforms), duration_s, title_in=0.25)
    for panel, (rate, waveform) in zip(axes, waveforms.items(), strict=True):
        _spectrogram(panel, waveform, rate, frame_ms, hop_ms)
        panel.set_ylim(0, max(waveforms) / 2000)
        panel.set_title(f"at {rate / 1000:g} kHz", loc="left", **_letters(9))
    return figure


def trim_panels(plain: SERFeatureExtractor, levels: Mapping[str, Tensor]) -> Figure:
    """Mel levels (L, n_mels) by title, over the same seconds."""
    duration_s = max(map(len, levels.values())) * plain.hop_ms / 1000
    figure, axes = _panels([1.2] * len(levels), duration_s, title_in=0.25)
    for panel, (title, picture) in zip(axes, levels.items(), strict=True):
        _mel_map(panel, picture, plain)
        panel.set_title(title, loc="left", **_letters(9))
    return figure


def _batch(waveforms: Sequence[np.ndarray]) -> tuple[Tensor, Tensor]:
    """Waveforms -> (B, T) padded, lengths (B,)."""
    tensors = [torch.from_numpy(waveform) for waveform in waveforms]
    return torch.nn.utils.rnn.pad_sequence(tensors, batch_first=True), torch.tensor([len(each) for each in tensors])


def _spectrogram(axes: Axes, waveform: np.ndarray, rate: int, frame_ms: float, hop_ms: float) -> None:
    frame, hop = round(frame_ms * rate / 1000), round(hop_ms * rate / 1000)
    n_fft = 1 << (frame - 1).bit_length()
    power = power_spectrogram(torch.from_numpy(waveform)[None], frame, hop, n_fft)  # (1, F, L)
    step = math.ceil(power.shape[1] / MAX_BINS)
    power = torch.nn.functional.max_pool2d(power, (step, 1), ceil_mode=True)
    levels = power_to_db(power, torch.ones(1, power.shape[2], dtype=torch.bool), relative=True)[0].T
    _map(axes, levels, hop_ms, (0, rate / 2000), (-RANGE_DB, 0))
    axes.set_ylabel("kHz")


def _mel_map(axes: Axes, levels: Tensor, plain: SERFeatureExtractor, top_db: float | None = None) -> None:
    top_db = float(levels.max()) if top_db is None else top_db
    low, high = hertz_to_mel(torch.tensor([plain.f_min, plain.f_max])).tolist()
    _map(axes, levels, plain.hop_ms, (low, high), (top_db - RANGE_DB, top_db))
    hertz = [value for value in (500, 1000, 2000, 4000, 8000, 16_000) if plain.f_min <= value <= plain.f_max]
    axes.set_yticks(hertz_to_mel(torch.tensor(hertz)).tolist(), [f"{value / 1000:g}" for value in hertz])
    axes.set_ylabel("kHz, mel")


def _map(
    axes: Axes, values: Tensor, hop_ms: float, bottom_top: tuple[float, float], low_high: tuple[float, float]
) -> None:
    """Values (L, F) as colours; the frames are centred on every hop."""
    ends_s = (-hop_ms / 2000, (len(values) - 0.5) * hop_ms / 1000)
    limits_s = axes.get_xlim()
    scale = {"cmap": "cividis", "vmin": low_high[0], "vmax": low_high[1], "interpolation": "none"}
    axes.imshow(values.T, origin="lower", aspect="auto", extent=(*ends_s, *bottom_top), **scale)
    axes.set_xlim(limits_s)


# ── Paper and pen ──


def _charts(
    height_in: float, groups: Sequence[str], left_in: float = LEFT_IN, marks_in: float = 0.0
) -> tuple[Figure, Axes]:
    """A figure with room for the legend of `groups` above its axes."""
    top_in = TOP_IN + marks_in + _legend_in(groups)
    figure = Figure(figsize=(WIDTH_IN, BOTTOM_IN + height_in + top_in))
    return figure, add_axes(figure, bottom_in=BOTTOM_IN, height_in=height_in, left_in=left_in)


def _panels(heights_in: Sequence[float], duration_s: float, title_in: float = 0.0) -> tuple[Figure, list[Axes]]:
    """Axes from top to bottom, all from 0 to `duration_s`."""
    gap_in = 0.12 + title_in
    total_in = BOTTOM_IN + sum(heights_in) + gap_in * len(heights_in)
    figure = Figure(figsize=(WIDTH_IN, total_in))
    axes, bottom_in = [], total_in
    for height_in in heights_in:
        bottom_in -= gap_in + height_in
        panel = add_axes(figure, bottom_in=bottom_in, height_in=height_in)
        panel.set_xlim(0, duration_s)
        panel.tick_params(labelbottom=False)
        panel.locator_params(axis="y", nbins=4)
        axes.append(panel)
    axes[-1].tick_params(labelbottom=True)
    axes[-1].set_xlabel("seconds")
    return figure, axes


def _left_in(names: Sequence[str]) -> float:
    return 0.2 + CHAR_IN * max(len(_short(name)) for name in names)


def _legend_in(groups: Sequence[str]) -> float:
    return 0.1 + 0.18 * math.ceil(len(groups) / LEGEND_COLUMNS) if len(groups) > 1 else 0.0


def _legend(figure: Figure, axes: Axes, groups: Sequence[str]) -> None:
    if len(groups) > 1:
        look = {"ncols": LEGEND_COLUMNS, "frameon": False, "fontsize": 8, "labelcolor": INK, "handlelength": 1.2}
        figure.legend(axes.containers, [_short(group) for group in groups], loc="upper left", **look)


def _fill(index: int) -> dict:
    colour = COUNT_COLOURS[index % len(COUNT_COLOURS)]
    hatch = HATCHES[index // len(COUNT_COLOURS) % len(HATCHES)]
    return {"facecolor": colour, "hatch": hatch, "edgecolor": INK, "linewidth": 0.4}


def _letters(size: int) -> dict:
    return {"color": INK, "fontsize": size}


def _count_axis(axis) -> None:
    axis.set_major_locator(MaxNLocator(4, integer=True))


def _short(name: object) -> str:
    name = str(name)
    return name if len(name) <= NAME_CHARS else f"{name[: NAME_CHARS - 1]}…"
