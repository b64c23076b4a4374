"""Pictures of a sound in the page, each with one line that says what it shows."""

import re
from html import escape

from .texts import Say, Texts

# Words that the pictures are labelled with.
AXES = ("seconds", "hertz", "amplitude", "coefficient", "percent", "speech")
TICK = re.compile(r">(\W?\d+)\.(\d+)<")


def pictures_html(say: Say, recognizer, path: str, duration_s: float) -> str:
    """Waveform, log-mel spectrogram and MFCCs of the start of a recording."""
    from ..pictures import MFCC_MAX_S, log_mel_svg, mfcc_svg, waveform_svg

    rate = recognizer.sampling_rate
    start = recognizer.load(path, max_s=MFCC_MAX_S)
    drawn = {
        "waveform": waveform_svg(start, rate),
        "log_mel": log_mel_svg(start, rate),
        "mfcc": mfcc_svg(start, rate, recognizer.extractor),
    }
    only = _start_only(say, duration_s, MFCC_MAX_S)
    return "".join(figure_html(say, svg, say(f"try.pictures.{name}") + only) for name, svg in drawn.items())


def can_explain(recognizer) -> bool:
    """Whether there is a picture of what this model listened to: its features must be ours."""
    from ..feature_extraction_ser import SERFeatureExtractor

    return isinstance(recognizer.extractor, SERFeatureExtractor)


def saliency_html(texts: Texts, say: Say, recognizer, path: str, prediction) -> str:
    """What spoke for the answer at the start of a recording."""
    from ..pictures import saliency_svg
    from ..saliency import MAX_S, saliency

    start = recognizer.load(path, max_s=MAX_S)
    found = saliency(recognizer.model, recognizer.extractor, start, prediction.label)
    svg = saliency_svg(start, recognizer.sampling_rate, found)
    caption = say("try.pictures.saliency", emotion=texts.emotion(say, prediction.label))
    return figure_html(say, svg, caption + _start_only(say, prediction.duration_s, MAX_S))


def figure_html(say: Say, svg: str, caption: str) -> str:
    return f"<figure>{figure_svg(say, svg, caption)}<figcaption>{escape(caption)}</figcaption></figure>"


def figure_svg(say: Say, svg: str, description: str) -> str:
    """A picture with words and numbers of the visitor's language, and what it shows for those who cannot see it."""
    for word in AXES:
        svg = svg.replace(f">{word}<", f">{say(f'try.pictures.axes.{word}')}<")
    svg = TICK.sub(rf">\1{say('page.decimal_mark')}\2<", svg)
    return svg.replace("<svg", f'<svg role="img" aria-label="{escape(description)}"', 1)


def _start_only(say: Say, duration_s: float, shown_s: float) -> str:
    return " " + say("try.pictures.start_only", seconds=f"{shown_s:.0f}") if duration_s > shown_s else ""
