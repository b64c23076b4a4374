"""Pictures of a sound and of its answer, as SVG text to put inline into a page.

Lines and letters take the text colour around them (`currentColor`), so that one picture serves light and dark pages.
"""

import copy
import io
import math
from collections.abc import Sequence
from itertools import cycle, product

import matplotlib
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from scipy.ndimage import gaussian_filter

from .feature_extraction_ser import SERFeatureExtractor
from .labels import EMOTIONS, SEXES
from .mfcc import hertz_to_mel

matplotlib.rcParams["svg.fonttype"] = "none"  # letters stay letters: half the size, in the fonts of the page
matplotlib.rcParams["text.parse_math"] = False  # a label with two dollar signs is no formula

INK = "#010203"  # stands for the page's text colour until the picture is written
WIDTH_IN = 4.2  # a phone shows it 310 pixels wide, and 9-point letters 9 pixels tall
LEFT_IN, RIGHT_IN, BOTTOM_IN, TOP_IN = 0.7, 0.15, 0.45, 0.1
TIMELINE_IN = 2.0  # high, without its legend
MAX_COLUMNS = 800  # more than a phone or half a laptop screen can show
MAX_WINDOWS = 300  # of a timeline, each of about one pixel of a phone
MFCC_MAX_S = 30.0  # beyond, single syllables are no longer seen
LEGEND_COLUMNS = 3  # "female surprised" three times fills the width
PERCENTAGES = (0, 25, 50, 75, 100)
LOWEST_HZ = 50.0  # below any voice's pitch
TICKS_HZ = (100, 300, 1000, 2000, 4000, 8000)
DYNAMIC_RANGE_DB = 80.0  # below the loudest: what is softer is black
SALIENT_QUANTILE = 0.9
SALIENT_COLOUR = "#E69F00"  # stands out on every grey, and with any kind of colour vision
VOICE_BAR = 0.07  # of the height of the shares
MIN_PEAK = 0.1  # quieter recordings look quiet, instead of their noise filling the picture

# Okabe & Ito's palette, told apart with any kind of colour vision (https://jfly.uni-koeln.de/color/).
COLOURS = ("#999999", "#56B4E9", "#F0E442", "#0072B2", "#D55E00", "#CC79A7", "#009E73", "#E69F00")
WAVE_COLOUR = "#2B7FC3"  # contrast above 4 on white and on the dark page
HATCHES = ("", "///", "...")  # a man's share is hatched; from the ninth label of one's own on, colours come again so


def waveform_svg(waveform: np.ndarray, sampling_rate: int) -> str:
    """Samples (T,) in [-1, 1] -> lowest and highest value over time."""
    figure, axes = _figure(height_in=2.0)
    draw_waveform(axes, waveform, sampling_rate)
    axes.locator_params(axis="y", nbins=3)
    axes.set(xlim=(0, len(waveform) / sampling_rate), xlabel="seconds")
    return to_svg(figure)


def draw_waveform(axes: Axes, waveform: np.ndarray, sampling_rate: int, limit: float | None = None) -> None:
    """Samples (T,) over seconds; `limit` is where the amplitude ends, the waveform's own peak if left out."""
    starts = np.linspace(0, len(waveform), min(len(waveform), MAX_COLUMNS), endpoint=False).astype(int)
    low, high = np.minimum.reduceat(waveform, starts), np.maximum.reduceat(waveform, starts)
    axes.fill_between(starts / sampling_rate, low, high, color=WAVE_COLOUR, linewidth=0.8)
    limit = limit or 1.05 * max(MIN_PEAK, float(np.abs(waveform).max()))
    axes.set(ylim=(-limit, limit), ylabel="amplitude")


def mfcc_svg(waveform: np.ndarray, sampling_rate: int, extractor: object) -> str:
    """Samples (T,) -> MFCCs of the first `MFCC_MAX_S` seconds, each coefficient scaled to its own range.

    They are those of `extractor` if that is ours and makes any, but of the whole recording: nothing is cut or added.
    """
    own = isinstance(extractor, SERFeatureExtractor) and "mfcc" in extractor.features
    extractor = extractor if own else _plain_extractor(sampling_rate, f_max=sampling_rate / 2)
    mfcc = _feature("mfcc", extractor, waveform)
    spread = np.maximum(mfcc.std(axis=0), 1e-6)  # silence has none
    figure, axes = _figure(height_in=2.0)
    shown_s, span = _shown_s(waveform, sampling_rate), (-0.5, extractor.n_mfcc - 0.5)
    _draw_matrix(axes, (mfcc - mfcc.mean(axis=0)) / spread, shown_s, span, "cividis", (-3, 3))
    axes.set(xlabel="seconds", ylabel="coefficient")
    return to_svg(figure)


def log_mel_svg(waveform: np.ndarray, sampling_rate: int) -> str:
    """Samples (T,) -> log-mel spectrogram of the first `MFCC_MAX_S` seconds, over hertz as the ear spaces them."""
    figure, axes = _figure(height_in=2.0)
    _draw_log_mel(axes, waveform, sampling_rate, "cividis")
    return to_svg(figure)


def saliency_svg(waveform: np.ndarray, sampling_rate: int, saliency) -> str:
    """A grey log-mel spectrogram of samples (T,), and over it what spoke for the answer, of `saliency.saliency`.

    Colour shows how much, and a line goes around the most salient tenth, so that nothing hangs on colour alone.
    """
    waveform = waveform[: round(len(saliency.weights[0]) * saliency.hop_s * sampling_rate)]
    figure, axes = _figure(height_in=2.0)
    _draw_log_mel(axes, waveform, sampling_rate, "gray")
    weights = gaussian_filter(saliency.weights, sigma=1).clip(min=0)  # single cells mean little
    strong = max(float(np.quantile(weights[weights > 0], SALIENT_QUANTILE)) if weights.any() else 0.0, 1e-9)
    low_mel, high_mel = _mel(saliency.f_min), _mel(saliency.f_max)
    times_s = np.arange(weights.shape[1]) * saliency.hop_s
    extent = (0, times_s[-1] + saliency.hop_s, low_mel, high_mel)
    opacity = np.clip(weights / strong, 0, 1) * 0.7
    colour = np.concatenate([np.broadcast_to(to_rgb(SALIENT_COLOUR), (*weights.shape, 3)), opacity[..., None]], axis=2)
    axes.imshow(colour, origin="lower", aspect="auto", extent=extent, interpolation="bilinear")
    bands_mel = np.linspace(low_mel, high_mel, 2 * len(weights) + 1)[1::2]
    if weights.max() > strong:
        axes.contour(times_s, bands_mel, weights, levels=[strong], colors=[SALIENT_COLOUR], linewidths=1.0)
    axes.set(xlim=(0, len(waveform) / sampling_rate))
    return to_svg(figure)


def _plain_extractor(sampling_rate: int, **options) -> SERFeatureExtractor:
    """Ours with frames of the usual length, and an FFT that they fit in at any sampling rate."""
    usual = SERFeatureExtractor()
    frame_samples = math.ceil(usual.frame_ms * sampling_rate / 1000)
    n_fft = max(usual.n_fft, 2 ** math.ceil(math.log2(frame_samples)))
    return SERFeatureExtractor(sampling_rate, n_fft=n_fft, **options)


def _feature(name: str, extractor: SERFeatureExtractor, waveform: np.ndarray) -> np.ndarray:
    """One feature of the first `MFCC_MAX_S` seconds, whole and as it is: (L, F), L at most MAX_COLUMNS."""
    extractor = copy.copy(extractor)
    extractor.features, extractor.delta_order, extractor.normalization = (name,), 0, "none"
    extractor.trim_db = extractor.max_length_s = None
    rate = extractor.sampling_rate
    waveform = waveform[: round(MFCC_MAX_S * rate)]
    frames = extractor(waveform, sampling_rate=rate, return_tensors="np")["input_features"][0]
    starts = np.linspace(0, len(frames), min(len(frames), MAX_COLUMNS), endpoint=False).astype(int)
    return np.add.reduceat(frames, starts) / np.diff(starts, append=len(frames))[:, None]


def _draw_log_mel(axes: Axes, waveform: np.ndarray, sampling_rate: int, colours: str) -> None:
    top_hz = min(sampling_rate / 2, 8000.0)  # there is next to no speech above
    extractor = _plain_extractor(sampling_rate, features="log_mel", n_mels=64, f_min=LOWEST_HZ, f_max=top_hz)
    decibels = _feature("log_mel", extractor, waveform)
    span = (_mel(LOWEST_HZ), _mel(top_hz))
    loudest_db = float(decibels.max())
    shown_s = _shown_s(waveform, sampling_rate)
    _draw_matrix(axes, decibels, shown_s, span, colours, (loudest_db - DYNAMIC_RANGE_DB, loudest_db))
    ticks_hz = [hertz for hertz in TICKS_HZ if hertz <= top_hz]
    axes.set_yticks([_mel(hertz) for hertz in ticks_hz], [f"{hertz:g}" for hertz in ticks_hz])
    axes.set(ylim=span, xlabel="seconds", ylabel="hertz")


def _draw_matrix(
    axes: Axes, rows: np.ndarray, shown_s: float, span: tuple[float, float], colours: str, limits: tuple[float, float]
) -> None:
    """(L, F) as colours between two limits: over `shown_s` seconds, and a span of whatever the rows are."""
    axes.imshow(
        rows.T,
        origin="lower",
        aspect="auto",
        extent=(0, shown_s, *span),
        cmap=colours,
        vmin=limits[0],
        vmax=limits[1],
        interpolation="none",
    )


def _shown_s(waveform: np.ndarray, sampling_rate: int) -> float:
    return min(MFCC_MAX_S, len(waveform) / sampling_rate)


def _mel(hertz: float) -> float:
    return float(hertz_to_mel(torch.tensor(hertz)))


def timeline_svg(
    windows: Sequence,
    labels: Sequence[str],
    duration_s: float,
    speech: Sequence[tuple[float, float]] = (),
    names: Sequence[str] | None = None,
) -> str:
    """The share of each emotion over time; stretches without a voice stay empty.

    Args:
        windows: of a prediction, best `timeline.smoothed`.
        labels: of the model, in its order.
        duration_s: of the whole recording.
        speech: where somebody speaks, in seconds: a dark bar below the shares.
        names: how the labels are written.
    """
    names = names or [label.replace("_", " ") for label in labels]
    colours, hatches = zip(*looks_of(labels), strict=True)
    keys = [
        Patch(facecolor=colour, hatch=hatch, edgecolor=INK, linewidth=0.4, label=name)
        for colour, hatch, name in zip(colours, hatches, names, strict=True)
    ]
    keys += [Patch(color=INK, label="speech")] if speech else []
    legend_in = 0.1 + 0.18 * math.ceil(len(keys) / LEGEND_COLUMNS)
    figure, axes = _figure(height_in=TIMELINE_IN + legend_in, top_in=TOP_IN + legend_in)
    for group in _adjoining(windows):
        runs = np.array_split(np.arange(len(group)), math.ceil(len(group) / math.ceil(len(windows) / MAX_WINDOWS)))
        centres = [(group[run[0]].start_s + group[run[-1]].end_s) / 2 for run in runs]
        shares = np.array([[window.scores[label] for label in labels] for window in group])
        rows = [shares[run].mean(axis=0) for run in runs]
        times_s, rows = [group[0].start_s, *centres, group[-1].end_s], [rows[0], *rows, rows[-1]]
        axes.stackplot(times_s, np.transpose(rows), colors=colours, hatch=hatches, edgecolor=INK, linewidth=0.4)
    if speech:
        axes.broken_barh(_bars(speech, duration_s), (-VOICE_BAR, 0.7 * VOICE_BAR), color=INK, linewidth=0)
    axes.set(xlim=(0, duration_s), ylim=(-VOICE_BAR if speech else 0, 1), xlabel="seconds", ylabel="percent")
    axes.set_yticks([percentage / 100 for percentage in PERCENTAGES], PERCENTAGES)
    figure.legend(
        handles=keys,
        loc="upper left",
        ncols=LEGEND_COLUMNS,
        frameon=False,
        fontsize=8,
        labelcolor=INK,
        handlelength=1.2,
    )
    return to_svg(figure)


def looks_of(labels: Sequence[str]) -> list[tuple[str, str]]:
    """Colour and pattern of each label. An emotion has its own with every model; other labels take the rest."""
    looks = {}
    for label in labels:
        sex, _, emotion = label.rpartition("_")
        if emotion in EMOTIONS and sex in ("", *SEXES):
            looks[label] = COLOURS[EMOTIONS.index(emotion)], HATCHES[sex == "male"]
    rest = cycle(
        (colour, hatch) for hatch, colour in product(HATCHES, COLOURS) if (colour, hatch) not in looks.values()
    )
    return [looks.get(label) or next(rest) for label in labels]


def _bars(speech: Sequence[tuple[float, float]], duration_s: float) -> list[tuple[float, float]]:
    """Starts and lengths; stretches that no pixel parts become one."""
    bars = [list(speech[0])]
    for start_s, end_s in speech[1:]:
        if start_s - bars[-1][1] < duration_s / MAX_WINDOWS:
            bars[-1][1] = end_s
        else:
            bars.append([start_s, end_s])
    return [(start_s, end_s - start_s) for start_s, end_s in bars]


def _adjoining(windows: Sequence) -> list[list]:
    """Windows in groups that overlap or touch; between groups nobody spoke."""
    groups = [[windows[0]]]
    for window in windows[1:]:
        if window.start_s <= groups[-1][-1].end_s:
            groups[-1].append(window)
        else:
            groups.append([window])
    return groups


def _figure(height_in: float, top_in: float = TOP_IN) -> tuple[Figure, Axes]:
    """A figure of its own, known to no global list: safe in threads, and gone when it is written."""
    figure = Figure(figsize=(WIDTH_IN, height_in))
    return figure, add_axes(figure, bottom_in=BOTTOM_IN, height_in=height_in - BOTTOM_IN - top_in)


def add_axes(figure: Figure, bottom_in: float, height_in: float, left_in: float = LEFT_IN) -> Axes:
    """Axes as wide as the figure allows, with lines and letters in the colour that `to_svg` hands over to the page."""
    full_width_in, full_height_in = figure.get_size_inches()
    width_in = full_width_in - left_in - RIGHT_IN
    box_in = np.array([left_in, bottom_in, width_in, height_in])
    axes = figure.add_axes(tuple(box_in / [full_width_in, full_height_in, full_width_in, full_height_in]))
    axes.patch.set_visible(False)
    axes.tick_params(colors=INK, labelsize=9)
    axes.xaxis.label.set(color=INK, fontsize=9)
    axes.yaxis.label.set(color=INK, fontsize=9)
    axes.yaxis.set_label_coords(-0.75 * left_in / width_in, 0.5)  # beyond the widest numbers, within the picture
    axes.spines[:].set_color(INK)
    axes.spines[["top", "right"]].set_visible(False)
    return axes


def to_svg(figure: Figure) -> str:
    """The figure as text to put into a page as it is."""
    text = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))  # else half a kilobyte on the program that drew it
    figure.savefig(text, format="svg", transparent=True, metadata=nothing)
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :].replace(INK, "currentColor")  # without the XML prologue, which HTML has no use for
    return svg.replace("xlink:href=", "href=")  # a page that updates attributes in place loses their namespace
