"""Pictures of a sound and of its answer, as SVG text to put inline into a page.

Lines and letters take the text colour around them (`currentColor`), so that one picture serves light and dark pages.
"""

import copy
import io
import math
from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .feature_extraction_ser import SERFeatureExtractor

matplotlib.rcParams["svg.fonttype"] = "none"  # letters stay letters: half the size, in the fonts of the page
matplotlib.rcParams["text.parse_math"] = False  # a label with two dollar signs is no formula

INK = "#010203"  # stands for the page's text colour until the picture is written
WIDTH_IN = 4.2  # a phone shows it 310 pixels wide, and 9-point letters 9 pixels tall
LEFT_IN, RIGHT_IN, BOTTOM_IN, TOP_IN = 0.7, 0.15, 0.45, 0.1
MAX_COLUMNS = 800  # more than a phone or half a laptop screen can show
MFCC_MAX_S = 30.0  # beyond, single syllables are no longer seen
LEGEND_COLUMNS = 3  # "female surprised" three times fills the width
MIN_PEAK = 0.1  # quieter recordings look quiet, instead of their noise filling the picture

# Okabe & Ito's palette, told apart with any kind of colour vision (https://jfly.uni-koeln.de/color/).
COLOURS = ("#999999", "#56B4E9", "#F0E442", "#0072B2", "#D55E00", "#CC79A7", "#009E73", "#E69F00")
WAVE_COLOUR = "#2B7FC3"  # contrast above 4 on white and on the dark page
HATCHES = ("", "///", "...")  # from the ninth class on, colours come again with a pattern


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
    waveform = waveform[: round(MFCC_MAX_S * sampling_rate)]
    if isinstance(extractor, SERFeatureExtractor) and "mfcc" in extractor.features:
        extractor = copy.copy(extractor)
    else:
        extractor = SERFeatureExtractor(sampling_rate, f_max=sampling_rate / 2)
    extractor.features, extractor.delta_order, extractor.normalization = ("mfcc",), 0, "none"
    extractor.trim_db = extractor.max_length_s = None
    mfcc = extractor(waveform, sampling_rate=sampling_rate, return_tensors="np")["input_features"][0]  # (L, F)
    starts = np.linspace(0, len(mfcc), min(len(mfcc), MAX_COLUMNS), endpoint=False).astype(int)
    columns = np.add.reduceat(mfcc, starts) / np.diff(starts, append=len(mfcc))[:, None]
    columns = (columns - columns.mean(axis=0)) / np.maximum(columns.std(axis=0), 1e-6)  # silence has no spread

    figure, axes = _figure(height_in=2.0)
    extent = (0, len(waveform) / sampling_rate, -0.5, extractor.n_mfcc - 0.5)
    axes.imshow(
        columns.T, origin="lower", aspect="auto", extent=extent, cmap="cividis", vmin=-3, vmax=3, interpolation="none"
    )
    axes.set(xlabel="seconds", ylabel="coefficient")
    return to_svg(figure)


def timeline_svg(windows: Sequence, labels: Sequence[str], duration_s: float) -> str:
    """The share of each emotion over time from a prediction's `windows`; stretches without a voice stay empty."""
    legend_in = 0.1 + 0.18 * math.ceil(len(labels) / LEGEND_COLUMNS)
    figure, axes = _figure(height_in=2.0 + legend_in, top_in=TOP_IN + legend_in)
    names = [label.replace("_", " ") for label in labels]
    colours = [COLOURS[index % len(COLOURS)] for index in range(len(labels))]
    hatches = [HATCHES[index // len(COLOURS) % len(HATCHES)] for index in range(len(labels))]
    for group in _adjoining(windows):
        centres = [(window.start_s + window.end_s) / 2 for window in group]
        times_s = [group[0].start_s, *centres, group[-1].end_s]
        rows = [[window.scores[label] for label in labels] for window in (group[0], *group, group[-1])]
        areas = axes.stackplot(times_s, np.transpose(rows), colors=colours, hatch=hatches, edgecolor=INK, linewidth=0.4)
    axes.set(xlim=(0, duration_s), ylim=(0, 1), xlabel="seconds", ylabel="share")
    figure.legend(
        areas,
        names,
        loc="upper left",
        ncols=LEGEND_COLUMNS,
        frameon=False,
        fontsize=8,
        labelcolor=INK,
        handlelength=1.2,
    )
    return to_svg(figure)


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
