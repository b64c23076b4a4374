"""How the emotion changes over a longer recording: a picture to click, a table of segments, files to take away."""

import base64
import re
from dataclasses import replace
from html import escape
from pathlib import Path

from ..spreadsheet import csv_bytes
from .answers import clock, percent, segment_words
from .figures import figure_svg
from .texts import Say, Texts

DESCRIBED = 12  # segments that the picture's description tells; the table has them all


def over_time_html(texts: Texts, say: Say, heard, labels: list[str], threshold: float) -> str:
    """The section of a prediction that has more than one window; of a shorter one, why there is none.

    Args:
        heard: `path` of the recording, as the server keeps it for its visitor, its `name` for him, and `prediction`.
        labels: the model's, in its order.
        threshold: a segment of less confidence is "not sure".
    """
    from ..inference import WINDOW_HOP_S, WINDOW_S

    prediction = heard.prediction
    if len(prediction.windows) < 2:
        why = say("try.over_time.too_short", seconds=f"{WINDOW_S + WINDOW_HOP_S:.0f}")
        return f'<p class="no-course">{why}</p>' if prediction.label is not None else ""
    from ..pictures import timeline_svg
    from ..timeline import csv_rows, segments, smoothed, to_json, to_srt

    parts = segments(prediction)
    names = {label: texts.emotion(say, label) for label in labels}
    told = [
        say("try.over_time.part", start=clock(part.start_s), end=clock(part.end_s), emotion=names[part.emotion])
        for part in parts[:DESCRIBED]
    ]
    if len(parts) > DESCRIBED:
        told.append(say("try.over_time.and_more"))
    description = say("try.over_time.picture", duration=f"{prediction.duration_s:.0f}", course=", ".join(told))
    svg = timeline_svg(smoothed(prediction), labels, prediction.duration_s, prediction.speech, list(names.values()))
    columns, *rows = csv_rows(parts)
    words = [segment_words(texts, say, part.emotion, part.confidence, threshold) for part in parts]
    worded = [replace(part, emotion=word) for part, word in zip(parts, words, strict=True)]
    subtitles = to_srt(worded, lambda part: f"{part.emotion} ({percent(say, part.confidence)})")
    files = {
        "csv": ("text/csv", csv_bytes(columns, rows)),
        "json": ("application/json", to_json(prediction).encode()),
        "srt": ("text/plain", subtitles.encode()),
    }
    links = "".join(_link(f"{Path(heard.name).stem}.{ending}", *file) for ending, file in files.items())
    return f"""<section class="over-time">
<h2>{say("try.over_time.title")}</h2>
<p class="hint">{say("try.over_time.hint")}</p>
<div class="columns"><div>
<div class="plot" data-duration="{prediction.duration_s:.3f}">{figure_svg(say, svg, description)}
<div class="area" style="{_area(svg)}"><div class="chosen"></div><div class="now"></div></div></div>
<audio controls preload="metadata" data-file="{escape(heard.path)}"
 aria-label="{escape(say("try.over_time.player"))}"></audio>
<p class="unplayable" role="alert" hidden>{say("try.over_time.unplayable")}</p>
</div><div>
{_table(say, worded, threshold)}
<p class="downloads">{say("try.over_time.download")} {links}</p>
</div></div>
</section>"""


def _area(svg: str) -> str:
    """Where in the picture the axes lie: what is left of it without margins and legend."""
    from ..pictures import BOTTOM_IN, LEFT_IN, RIGHT_IN, TIMELINE_IN, TOP_IN

    width, height = (float(points) / 72 for points in re.search(r'viewBox="0 0 (\S+) (\S+)"', svg).groups())
    top = height - TIMELINE_IN + TOP_IN
    sides = {"left": LEFT_IN / width, "right": RIGHT_IN / width, "top": top / height, "bottom": BOTTOM_IN / height}
    return "; ".join(f"{side}: {share:.2%}" for side, share in sides.items())


def _table(say: Say, parts: list, threshold: float) -> str:
    """Of segments whose emotions are worded already; those that are not sure look so too."""
    title = escape(say("try.over_time.segments"))
    columns = ("listen", "start", "end", "emotion", "confidence")
    head = "".join(f'<th scope="col">{say(f"try.over_time.{column}")}</th>' for column in columns)
    rows = []
    for part in parts:
        start, end = clock(part.start_s), clock(part.end_s)
        play = escape(say("try.over_time.play", start=start, end=end))
        kind = "" if part.confidence >= threshold else ' class="unsure"'
        rows.append(
            f'<tr{kind}><td><button type="button" aria-label="{play}" data-start="{part.start_s:.3f}"'
            f' data-end="{part.end_s:.3f}">▶</button></td><td>{start}</td><td>{end}</td>'
            f"<td>{escape(part.emotion)}</td><td>{percent(say, part.confidence)}</td></tr>"
        )
    return (
        f'<div class="table" role="region" aria-label="{title}" tabindex="0"><table><caption class="sr-only">{title}'
        f"</caption><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def _link(name: str, mime: str, content: bytes) -> str:
    """A file that lies in the page itself: nothing of it stays on the server."""
    data = base64.b64encode(content).decode()
    ending = name.rpartition(".")[2].upper()
    return f'<a download="{escape(name)}" href="data:{mime};charset=utf-8;base64,{data}">{ending}</a>'
