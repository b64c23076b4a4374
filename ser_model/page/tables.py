"""Rows of results, as several tabs show them and hand them out."""

from base64 import b64encode
from collections.abc import Iterable, Sequence
from html import escape

from ..archives import REASONS
from ..spreadsheet import csv_bytes
from .answers import percent, sentences, state, sure_shares
from .texts import Say, Texts


def note(texts: Texts, say: Say, prediction, threshold: float) -> str:
    """Why there is no answer, that the voice changes, or that it is not sure; empty beside a good one."""
    if prediction.status in REASONS:
        return say(f"many.reasons.{prediction.status}")
    if prediction.label is None:
        return sentences(texts, say, prediction, threshold)[0]
    if shares := sure_shares(prediction, threshold):
        parts = [f"{texts.emotion(say, label)} {percent(say, share)}" for label, share in shares.items()]
        return say("many.changes", shares=" · ".join(parts))
    return say("many.unsure") if state(prediction, threshold) == "unsure" else ""


def status_html(text: str) -> str:
    """One sentence on what happened, which screen readers announce."""
    return f'<p class="note announced">{escape(text)}</p>'


def table_html(caption: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table that a screen reader can walk through; where it is wider than the screen, it scrolls in itself."""
    head = "".join(f'<th scope="col">{escape(column)}</th>' for column in columns)
    body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{escape(caption)}"><table class="rows">'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def results_link_html(
    texts: Texts, say: Say, filename: str, results: Iterable[tuple[str, str, object]], threshold: float
) -> str:
    """`csv_link_html` of a name, a model and its prediction each; several models may have several sets of emotions."""
    from ..inference import predicted_row

    results = list(results)
    labels = list(dict.fromkeys(label for *_, prediction in results for label in sorted(prediction.scores or {})))
    rows = []
    for name, model, prediction in results:
        own = prediction.scores or {}
        _, duration_s, label, confidence, *_, error = predicted_row(name, prediction, list(own))
        shares = [f"{own[label]:.5f}" if label in own else "" for label in labels]
        remark = note(texts, say, prediction, threshold)
        rows.append([name, model, duration_s, label, confidence, remark, *shares, error])
    columns = ["name", "model", "duration_s", "label", "confidence", "note", *labels, "error"]
    return csv_link_html(say, filename, columns, rows)


def csv_link_html(say: Say, filename: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A link that holds the whole file, so that none of it lies on the server's disk."""
    content = b64encode(csv_bytes(columns, rows)).decode()
    return (
        f'<p><a class="download" download="{filename}" href="data:text/csv;charset=utf-8;base64,{content}">'
        f"{escape(say('many.csv'))}</a></p>"
    )
