"""The tab "Many files": several recordings, or zips of them, to one table. One bad file does not spoil the rest."""

import json
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from html import escape
from pathlib import Path
from typing import BinaryIO

import gradio as gr

from ..archives import REASONS, TOO_MANY, ArchiveError, Limits, Skipped, count, recordings
from .answers import UNREADABLE, emoji, state
from .clips import begin_clips, remember
from .context import Page
from .models import on_gpu
from .server import MAX_UPLOAD_MB
from .tables import note, results_link_html, status_html
from .texts import Say, Texts, language

MAX_RECORDINGS = 500  # of one go; other visitors wait meanwhile
MAX_ROWS = 2 * MAX_RECORDINGS  # of one go; a zip may list tens of thousands of files that are no recordings
MAX_HEARD_S = 4 * 3600  # in one go: the recording that passes it is the last to be heard
RENEW_S = 10  # between two renewals of what waits; the server forgets uploads after an hour or so
COLUMNS = ("file", "emotion", "note", "confidence", "length")  # keys below "many"; a phone has room for three
PERCENT_DECIMALS = 1  # enough to sort by; more would feign what no model knows


@dataclass(frozen=True)
class Judged:
    """One file. `sound` can be decoded until the next one comes, and is None where nothing could be read.

    The prediction's status may be one of `archives.REASONS` beside those of `answers.states`.
    """

    name: str
    prediction: object
    sound: Path | BinaryIO | None
    upload: Path


@dataclass(frozen=True)
class Shown:
    """What this visitor sees now, kept so that other words for it need no second hearing: rows are name, prediction."""

    files: list[str]
    model: str
    labels: list[str]
    rows: list[tuple[str, object]]


@dataclass(frozen=True)
class Summary:
    """How many files got an answer, how many did not, and how often each emotion came, most frequent first."""

    judged: int
    failed: int
    emotions: dict[str, int]


def how_many(paths: Sequence[str | Path]) -> int:
    """How many rows `analyse` gives."""
    rows = 0
    for path in paths[: MAX_ROWS + 1]:
        if rows >= MAX_ROWS:
            return MAX_ROWS + 1
        rows += _count(Path(path))
    return min(rows, MAX_ROWS + 1)


def analyse(recognize: Callable, paths: Sequence[str | Path]) -> Iterator[Judged]:
    """Every file, and every entry of a file named .zip, in order; one at a time is in memory.

    Beyond MAX_RECORDINGS and MAX_HEARD_S nothing more is heard; after MAX_ROWS one row more says where it stopped.

    Args:
        recognize: what makes a `Prediction` of a path or an open file, such as an `EmotionRecognizer`.
    """
    taken, rows, heard_s = 0, 0, 0.0
    for path in map(Path, paths[: MAX_ROWS + 1]):
        room = MAX_RECORDINGS - taken if heard_s < MAX_HEARD_S else 0
        for name, source in _sources(path, room) if rows < MAX_ROWS else [(path.name, TOO_MANY)]:
            if rows == MAX_ROWS:
                yield _unheard(path, name, TOO_MANY)
                return
            rows += 1
            if isinstance(source, str):
                yield _unheard(path, name, source)
            elif heard_s >= MAX_HEARD_S:
                yield _unheard(path, name, TOO_MANY)
            else:
                taken += 1
                judged = _heard(path, name, source, recognize)
                heard_s += judged.prediction.duration_s
                yield judged


def renewing(paths: Sequence[str], judged: Iterator[Judged]) -> Iterator[Judged]:
    """The same; meanwhile the uploads, some of which wait for long, do not grow old and are not deleted as such."""
    uploads = set(paths[:MAX_ROWS])
    _renew(uploads)
    renewed_s = time.monotonic()
    for one in judged:
        yield one
        if time.monotonic() - renewed_s >= RENEW_S:
            _renew(uploads)
            renewed_s = time.monotonic()


def summary(predictions: Sequence) -> Summary:
    """Of what `analyse` said."""
    emotions = Counter(prediction.label for prediction in predictions if prediction.label is not None)
    judged = emotions.total()
    return Summary(judged, len(predictions) - judged, dict(emotions.most_common()))


def build(context: Page) -> None:
    """The tab's components and events, and the endpoint `/batch`."""
    texts = context.texts

    @on_gpu
    def recognize(model: str, source: Path | bytes):
        return context.models.get(model)(source, progress=context.gives_up())

    def judged_by(say: Say, model: str, paths: Sequence[str]) -> Iterator[Judged]:
        def sent(source: Path | BinaryIO):  # to where a GPU is lent, which may be another process
            return recognize(model, source if isinstance(source, Path) else source.read())

        context.models.get_for_visitor(model, say)  # here, not where a GPU is lent by the second
        return renewing(paths, analyse(sent, paths))

    def batch(files: list[str] | None, model: str) -> dict:
        """The emotion in each of several recordings, or zips of recordings: `rows` in their order, and a `summary`.

        A row is what /predict gives, without what is said over time, beside the `name` of the file.

        Args:
            files: uploaded recordings in any format, and zips of them.
            model: one of those on offer.
        """
        rows = []
        predictions = []
        for judged in judged_by(texts.speaker("en"), model, files or []):
            predictions.append(judged.prediction)
            answer = asdict(judged.prediction) | {"scores": judged.prediction.scores or {}}
            for long in ("windows", "speech"):
                del answer[long]
            rows.append({"name": judged.name} | answer)
        return {"rows": rows, "summary": asdict(summary(predictions))}

    def show(
        files: list[str] | None,
        model: str,
        threshold_percent: float,
        clips: list,
        request: gr.Request,
        progress: gr.Progress = gr.Progress(),  # noqa: B008  Gradio's way
    ):
        """-> summary HTML, table, link to the CSV, this visitor's clips, what is shown."""
        from ..audio import AudioError

        say = texts.speaker(language(request))
        if not files:
            return status_html(say("many.nothing")), gr.Dataframe(visible=False), "", clips, None
        recognizer = context.models.get_for_visitor(model, say)
        total, rows, all_kept = how_many(files), [], True
        for judged in judged_by(say, model, files):
            rows.append((judged.name, judged.prediction))
            progress((len(rows), total), desc=judged.name, unit=say("many.files"))
            if judged.sound is None:
                continue
            with suppress(AudioError):  # the visitor has deleted it since it was heard
                all_kept &= remember(
                    clips,
                    judged.prediction,
                    judged.sound,
                    name=judged.name,
                    model=model,
                    upload=judged.upload,
                )
        if not all_kept:
            gr.Warning(say("clips.no_room"))
        shown = Shown(files, model, recognizer.labels, rows)
        return *results_of(say, shown, threshold_percent / 100), clips, shown

    def results_of(say: Say, shown: Shown, threshold: float):
        """-> summary HTML, table, link to the CSV."""
        results = [(name, shown.model, prediction) for name, prediction in shown.rows]
        return (
            summary_html(texts, say, [prediction for _, prediction in shown.rows], threshold),
            table_of(texts, say, shown, threshold),
            results_link_html(texts, say, "emotions.csv", results, threshold),
        )

    def reword(shown: Shown | None, threshold_percent: float, request: gr.Request):
        """The results again, in the words of another threshold."""
        return results_of(texts.speaker(language(request)), shown, threshold_percent / 100) if shown else gr.skip()

    def forget_deleted(shown: Shown | None):
        """Files that the visitor has deleted cannot be analysed again, and their results go with them."""
        if shown is None or all(Path(path).exists() for path in shown.files):
            return gr.skip()
        return None, "", gr.Dataframe(visible=False), "", None

    limit = {"megabytes": MAX_UPLOAD_MB}
    gr.Markdown(
        texts.rendered("many.head", lambda say: f"{say('many.intro')} {say('page.upload_limit', **limit)}"),
        elem_id="many-intro",
    )
    files = gr.File(label=texts.label("many.choose"), file_count="multiple", height=200, elem_id="many-files")
    start = gr.Button(texts.label("many.start"), variant="primary", size="lg", elem_id="many-start")
    status = gr.HTML(elem_id="many-summary", elem_classes="plain")
    link = gr.HTML(elem_id="many-csv", elem_classes="plain")
    table = gr.Dataframe(
        visible=False,
        interactive=False,
        label=texts.label("many.table"),
        show_search="none",
        wrap=False,
        column_widths=["26%", 110, "36%"],  # of the table's; a long name would push all else off the screen
        elem_id="many-table",
    )
    shown = gr.State(time_to_live=context.clips.time_to_live)
    results = [status, table, link]
    begin_clips(context.clips, [start.click])
    started = start.click(
        show,
        [files, context.choice, context.threshold, context.clips],
        [*results, context.clips, shown],
        api_visibility="private",
        show_progress_on=[status],
    )
    quick = {"api_visibility": "private", "show_progress": "hidden", "queue": False}
    context.deleted.change(forget_deleted, shown, [files, *results, shown], **quick)
    context.when_threshold_moves(reword, [shown, context.threshold], results)
    # Old results never stand beside other files or another model. In the browser alone, so that they are never late.
    blank = json.dumps(["", {"visible": False, "__type__": "update"}, ""])
    for new in (files.upload, files.delete, files.clear, context.choice.change):
        new(None, None, results, js=f"() => {blank}", cancels=[started])
        new(lambda: None, None, shown, **quick)
    # Components, not gr.api: only a component's preprocessing refuses paths that the caller did not upload.
    result = gr.JSON(visible=False)
    asked = gr.Dropdown(context.models.names, value=context.models.default, label="model", visible=False)
    gr.Button(visible=False).click(batch, [files, asked], result, api_name="batch")


def summary_html(texts: Texts, say: Say, predictions: Sequence, threshold: float) -> str:
    """One sentence, and how often each emotion was heard for sure."""
    states = [state(prediction, threshold) for prediction in predictions]
    unsure = states.count("unsure")
    counts = summary([one for one, kind in zip(predictions, states, strict=True) if kind != "unsure"])
    emotions = "".join(
        f'<li><span class="emoji" aria-hidden="true">{emoji(label)}</span> '
        f"{escape(texts.emotion(say, label))}: {number}</li>"
        for label, number in counts.emotions.items()
    )
    said = status_html(say("many.summary", sure=counts.judged, unsure=unsure, failed=counts.failed))
    return f'{said}<ul class="counts">{emotions}</ul>'


def table_of(texts: Texts, say: Say, shown: Shown, threshold: float) -> gr.Dataframe:
    """A row a file; numbers stay numbers, so that a click sorts by them."""
    names = [say(f"many.{column}") for column in COLUMNS]
    names += [f"{texts.emotion(say, label)} (%)" for label in shown.labels]
    kinds = ["str", "str", "str", "number", "number", *["number"] * len(shown.labels)]
    rows = [_row(texts, say, name, prediction, shown.labels, threshold) for name, prediction in shown.rows]
    return gr.Dataframe({"headers": names, "data": rows}, headers=names, datatype=kinds, visible=True)


def _row(texts: Texts, say: Say, name: str, prediction, labels: Sequence[str], threshold: float) -> list:
    length_s = round(prediction.duration_s, 1) if prediction.duration_s else None
    emotion, confidence, percentages = "", None, [None] * len(labels)
    if prediction.label is not None:
        emotion = texts.emotion(say, prediction.label)
        confidence = round(100 * prediction.confidence, PERCENT_DECIMALS)
        percentages = [round(100 * prediction.scores[label], PERCENT_DECIMALS) for label in labels]
    remark = note(texts, say, prediction, threshold)
    return [name, emotion, remark, confidence, length_s, *percentages]


def _heard(path: Path, name: str, source: Path | BinaryIO, recognize: Callable) -> Judged:
    from ..inference import AudioError, Prediction

    try:
        return Judged(name, recognize(source), source, path)
    except AudioError as error:
        return Judged(name, Prediction(UNREADABLE, str(error), 0.0, 0.0), None, path)


def _unheard(path: Path, name: str, reason: str) -> Judged:
    """`reason` is one of `archives.REASONS`."""
    from ..inference import Prediction

    return Judged(name, Prediction(reason, REASONS[reason], 0.0, 0.0), None, path)


def _renew(paths: Iterable[str]) -> None:
    for path in paths:
        with suppress(FileNotFoundError):  # its visitor has deleted it
            os.utime(path)


def _is_zip(path: Path) -> bool:
    return path.suffix.lower() == ".zip" and path.exists()  # one that was deleted is a recording that cannot be opened


def _count(path: Path) -> int:
    try:
        return count(path) if _is_zip(path) else 1
    except ArchiveError:
        return 1


def _sources(path: Path, room: int) -> Iterator[tuple[str, object]]:
    """Name, and what to hear or a reason of `archives.REASONS` why there is nothing."""
    from ..audio import AUDIO_SUFFIXES

    if not _is_zip(path):
        yield path.name, path if room else TOO_MANY
        return
    try:
        for entry in recordings(path, AUDIO_SUFFIXES, Limits(recordings=room)):
            yield entry.name, entry.reason if isinstance(entry, Skipped) else entry.file
    except ArchiveError as error:
        yield path.name, error.reason
