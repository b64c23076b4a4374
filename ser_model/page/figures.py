"""Pictures of a sound in the page, each with one line that says what it shows."""

from html import escape

from .texts import Say


def pictures_html(say: Say, recognizer, path: str) -> str:
    """Waveform, log-mel spectrogram and MFCCs of the start of a recording."""
    from ..pictures import MFCC_MAX_S, mfcc_svg, waveform_svg

    waveform, rate = recognizer.load(path), recognizer.sampling_rate
    start = waveform[: round(MFCC_MAX_S * rate)]
    drawn = {
        "waveform": waveform_svg(start, rate),
        "mfcc": mfcc_svg(start, rate, recognizer.extractor),
    }
    only = " " + say("try.pictures.start_only", seconds=f"{MFCC_MAX_S:.0f}") if len(start) < len(waveform) else ""
    figures = (figure_html(svg, say(f"try.pictures.{name}") + only) for name, svg in drawn.items())
    return f'<div class="pictures">{"".join(figures)}</div>'


def figure_html(svg: str, caption: str) -> str:
    return f"<figure>{figure_svg(svg, caption)}<figcaption>{escape(caption)}</figcaption></figure>"


def figure_svg(svg: str, description: str) -> str:
    """A picture that says what it shows to those who do not see it."""
    return svg.replace("<svg", f'<svg role="img" aria-label="{escape(description)}"', 1)
