"""How the emotion changes over a recording: segments from a prediction's windows, as CSV, JSON and SRT text."""

import csv
import io
import json
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby, pairwise

import numpy as np

from .inference import Prediction, Window, adjective

MIN_SEGMENT_S = 1.0  # shorter ones are read by nobody, and are what the last window leaves over


@dataclass(frozen=True)
class Segment:
    """A stretch of speech that sounds alike throughout; `confidence` is the mean of `emotion` over it."""

    start_s: float
    end_s: float
    emotion: str
    confidence: float


def smoothed(prediction: Prediction) -> list[Window]:
    """Stretches one after another, each with the mean scores of all windows that cover it; where none does is a gap.

    windows:  |-------- a --------|
                        |-------- b --------|
    smoothed: |--- a ---|- (a+b)/2|--- b ---|
    """
    windows = prediction.windows  # in order of their starts, and of their ends
    starts, ends = [window.start_s for window in windows], [window.end_s for window in windows]
    stretches = []
    for start_s, end_s in pairwise(sorted({*starts, *ends})):
        covering = windows[bisect_right(ends, start_s) : bisect_left(starts, end_s)]
        if covering:
            scores = {
                label: float(np.mean([window.scores[label] for window in covering])) for label in prediction.scores
            }
            stretches.append(Window(start_s, end_s, scores))
    return stretches


def segments(prediction: Prediction) -> list[Segment]:
    """What sounds alike for a while, without the quiet before and after it; none without an answer."""
    found = []
    for _, run in groupby(_numbered(smoothed(prediction)), key=lambda piece: (piece[0], _likeliest(piece[1]))):
        windows = [window for _, window in run]
        spoken = _spoken_part(windows[0].start_s, windows[-1].end_s, prediction.speech)
        if spoken is None:
            continue
        emotion = _likeliest(windows[0])
        lengths = [window.end_s - window.start_s for window in windows]
        confidence = float(np.average([window.scores[emotion] for window in windows], weights=lengths))
        found.append(Segment(*spoken, emotion, confidence))
    lasting = [segment for segment in found if segment.end_s - segment.start_s >= MIN_SEGMENT_S]
    return lasting or found


def csv_rows(segments: Sequence[Segment]) -> list[list[str]]:
    """The cells of a table of segments, its head first."""
    rows = [
        [f"{segment.start_s:.2f}", f"{segment.end_s:.2f}", segment.emotion, f"{segment.confidence:.4f}"]
        for segment in segments
    ]
    return [["start_s", "end_s", "emotion", "confidence"], *rows]


def to_csv(segments: Sequence[Segment]) -> str:
    """A row a segment: start_s, end_s, emotion, confidence."""
    output = io.StringIO()
    csv.writer(output).writerows(csv_rows(segments))
    return output.getvalue()


def to_json(prediction: Prediction) -> str:
    """The whole prediction with its segments, as one object."""
    return json.dumps(
        asdict(prediction) | {"segments": [asdict(segment) for segment in segments(prediction)]}, indent=1
    )


def in_words(segment: Segment) -> str:
    return f"{adjective(segment.emotion)} ({segment.confidence:.0%})"


def to_srt(segments: Sequence[Segment], words: Callable[[Segment], str] = in_words) -> str:
    """SubRip subtitles: "angry (72%)" while it sounds so, or what `words` says of a segment."""
    blocks = [
        f"{number}\n{_srt_time(segment.start_s)} --> {_srt_time(segment.end_s)}\n{words(segment)}\n"
        for number, segment in enumerate(segments, start=1)
    ]
    return "\n".join(blocks)


def _numbered(windows: Sequence[Window]) -> list[tuple[int, Window]]:
    """Each window with the number of gaps before it."""
    gaps = np.cumsum([0, *(after.start_s > before.end_s for before, after in pairwise(windows))])
    return list(zip(gaps.tolist(), windows, strict=False))


def _likeliest(window: Window) -> str:
    return max(window.scores, key=window.scores.get)


def _spoken_part(start_s: float, end_s: float, speech: Sequence[tuple[float, float]]) -> tuple[float, float] | None:
    """From the first to the last word within; None if nobody speaks there."""
    within = [(max(start_s, start), min(end_s, end)) for start, end in speech if start < end_s and end > start_s]
    return (within[0][0], within[-1][1]) if within else None


def _srt_time(time_s: float) -> str:
    milliseconds = round(1000 * time_s)
    minutes, milliseconds = divmod(milliseconds, 60_000)
    return f"{minutes // 60:02}:{minutes % 60:02}:{milliseconds // 1000:02},{milliseconds % 1000:03}"
