"""The tab "Library": what the team keeps. There only when SER_LIBRARY_URL is set."""

import json
import tempfile
from base64 import b64encode
from collections.abc import Callable, Iterable
from datetime import date
from html import escape
from pathlib import Path

import gradio as gr
from gradio.context import Context
from gradio.processing_utils import save_file_to_cache
from gradio.utils import get_upload_folder

from ..library.errors import LibraryError
from .answers import bars_html, decimal, whole_percent
from .context import Page
from .tables import status_html, table_html
from .texts import Say, Texts, language
from .theme import focus_js

PAGE_SIZE = 20  # clips; a phone shows about as many lines
# Reasons of a `LibraryError` that a visitor can meet: keys below "library.reasons".
REASONS = ("busy", "away", "full", "too_long", "gone", "label")
UNCHECKED = "?"  # among the emotions to look for; no clip can have it as its label


def build(context: Page) -> None:
    """The tab's components and events."""
    texts, library = context.texts, context.library

    def find(
        label: str | None,
        since: str | None,
        until: str | None,
        page: int,
        chosen: int | None,
        threshold_percent: float,
        request: gr.Request,
    ):
        """-> page number, what is shown, list HTML, choices of clip and emotion, row and buttons that turn the page."""
        say = texts.speaker(language(request))
        searched = {}
        for bound, text in (("since", since), ("until", until)):
            try:
                searched[bound] = _day(text)
            except ValueError:
                return page, *nothing(say("library.no_date", day=text.strip()))
        try:
            labels, unchecked = library.labels(), library.unchecked()
            label = label if label in (UNCHECKED, *labels) else ""  # the last clip of a label may have gone
            searched |= {"unchecked": True} if label == UNCHECKED else {"label": label or None}
            found = library.find(**searched, page=page, page_size=PAGE_SIZE)
            if page and not found.clips:  # the last clip of the last page has gone
                page = 0
                found = library.find(**searched, page_size=PAGE_SIZE)
        except LibraryError as error:
            return page, *nothing(failure(say, error))
        kinds = [(say("library.all"), ""), (f"{say('library.unchecked')} ({unchecked})", UNCHECKED)]
        kinds += [(f"{texts.emotion(say, own)} ({count})", own) for own, count in labels.items()]
        choices = [(f"{clip.id} · {clip.name} · {_confirmed(texts, say, clip)}", clip.id) for clip in found.clips]
        ids = [clip.id for clip in found.clips]
        return (
            page,
            (found, page),
            _list_html(texts, say, found, page, threshold_percent / 100),
            gr.Dropdown(choices, value=chosen if chosen in ids else next(iter(ids), None)),
            gr.Dropdown(kinds, value=label),
            gr.Row(visible=found.total > PAGE_SIZE),
            gr.Button(interactive=page > 0),
            gr.Button(interactive=(page + 1) * PAGE_SIZE < found.total),
        )

    def nothing(why: str):
        """-> what `find` gives beside the page number; no clip of an earlier search stays."""
        hidden = gr.Row(visible=False)
        return None, status_html(why), gr.Dropdown([], value=None), gr.skip(), hidden, gr.skip(), gr.skip()

    def reword(shown: tuple | None, threshold_percent: float, request: gr.Request):
        """The list again, in the words of another threshold."""
        say = texts.speaker(language(request))
        return _list_html(texts, say, *shown, threshold_percent / 100) if shown else gr.skip()

    def show(clip_id: int | None, request: gr.Request):
        """-> player and scores HTML, the label in its field, what can be done with a clip."""
        say = texts.speaker(language(request))
        if clip_id is None:
            return "", gr.skip(), gr.Column(visible=False)
        try:
            clip, sound = library.get(clip_id), library.audio(clip_id)
        except LibraryError as error:
            return status_html(failure(say, error)), gr.skip(), gr.Column(visible=False)
        labels = dict.fromkeys([*sorted(clip.scores), clip.label])
        choices = [(say("library.unchecked"), ""), *((texts.emotion(say, label), label) for label in labels)]
        field = gr.Dropdown(choices, value=clip.confirmed or "")  # what the model said is nobody's word
        return _clip_html(texts, say, clip, sound), field, gr.Column(visible=True)

    def correct(clip_id: int, label: str | None, request: gr.Request) -> str:
        """-> what happened."""
        key = "library.corrected" if label else "library.taken_back"
        return done(request, lambda: library.correct(clip_id, label or None), key)

    def delete(clip_id: int, request: gr.Request):
        """-> what happened, the button that asks first, the row that asks."""
        return done(request, lambda: library.delete(clip_id), "library.deleted"), *asks_first(False)

    def done(request: gr.Request, act: Callable[[], object], key: str) -> str:
        say = texts.speaker(language(request))
        try:
            act()
        except LibraryError as error:
            return status_html(failure(say, error))
        return status_html(say(key))

    def export(request: gr.Request):
        """-> the zip to download, what to do with it."""
        say = texts.speaker(language(request))
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "library.zip"
            try:
                with path.open("wb") as file:
                    exported = library.export(file)
                if not exported.labels:
                    return gr.DownloadButton(visible=False), status_html(say("library.nothing_checked"))
                held = save_file_to_cache(path, get_upload_folder())  # from where Gradio deletes it like an upload
            except LibraryError as error:
                return gr.DownloadButton(visible=False), status_html(failure(say, error))
            except OSError as error:
                return gr.DownloadButton(visible=False), status_html(say("library.failed", reason=error.strerror))
        total = exported.unchecked + sum(exported.labels.values())
        left_out = say("library.left_out", unchecked=exported.unchecked, total=total) if exported.unchecked else ""
        command = f"<br><code>{escape(training_command(exported.labels))}</code>"
        how = f'<div class="note announced">{left_out} {escape(say("library.exported"))}{command}</div>'
        return gr.DownloadButton(value=held, visible=True), how

    gr.Markdown(texts.label("library.intro"), elem_id="library-notice")
    with gr.Row():
        emotion = gr.Dropdown([], label=texts.label("library.emotion"), elem_id="library-emotion")
        since, until = _day_field(texts, "since"), _day_field(texts, "until")
        search = gr.Button(texts.label("library.search"), variant="primary", elem_id="library-search")
    listed = gr.HTML(elem_id="library-list", elem_classes="plain")
    page, shown = gr.State(0), gr.State()  # shown: what was found last, and on which page
    asked = gr.State()  # the clip that "Yes, delete" is about, whatever is chosen by then
    with gr.Row(visible=False) as turning:
        before = gr.Button(texts.label("library.newer"), interactive=False, elem_id="library-newer")
        after = gr.Button(texts.label("library.older"), interactive=False, elem_id="library-older")
    happened = gr.HTML(elem_id="library-happened", elem_classes="plain")
    chosen = gr.Dropdown([], label=texts.label("library.clip"), elem_id="library-clip")
    clip = gr.HTML(elem_id="library-player", elem_classes="plain")
    with gr.Column(visible=False) as actions:
        with gr.Row():
            label = gr.Dropdown(
                [],
                allow_custom_value=True,
                label=texts.label("library.label"),
                info=texts.label("library.label_info"),
                elem_id="library-label",
            )
            save = gr.Button(texts.label("library.correct"), elem_id="library-correct")
        ask = gr.Button(texts.label("library.delete"), elem_id="library-delete")
        with gr.Row(visible=False) as asking:
            sure = gr.Button(texts.label("library.delete_surely"), variant="stop", elem_id="library-delete-surely")
            no = gr.Button(texts.label("library.delete_not"), elem_id="library-delete-not")
    make = gr.Button(texts.label("library.export"), elem_id="library-export")
    ready = gr.DownloadButton(texts.label("library.download"), visible=False, elem_id="library-download")
    how = gr.HTML(elem_id="library-how", elem_classes="plain")

    quietly = {"api_visibility": "private", "show_progress": "hidden"}
    outputs = [page, shown, listed, chosen, emotion, turning, before, after]
    finding = {"fn": find, "inputs": [emotion, since, until, page, chosen, context.threshold]}
    finding |= {"outputs": outputs} | quietly
    showing = {"fn": show, "inputs": [chosen], "outputs": [clip, label, actions]} | quietly
    tab = Context.block  # the one that this is built in
    searches = [tab.select, search.click, emotion.input, since.submit, until.submit]
    gr.on(searches, lambda: 0, None, page, **quietly).then(**finding)
    context.when_threshold_moves(reword, [shown, context.threshold], listed)
    chosen.input(lambda: "", None, happened, queue=False, **quietly)  # what was said was said of another clip
    before.click(lambda number: number - 1, page, page, **quietly).then(**finding)
    after.click(lambda number: number + 1, page, page, **quietly).then(**finding)
    chosen.change(**showing)
    not_asking = {"fn": lambda: asks_first(False), "outputs": [ask, asking]} | quietly
    chosen.change(**not_asking)
    no.click(**not_asking).then(js=focus_js("#library-delete"))
    save.click(correct, [chosen, label], happened, **quietly).then(**finding)  # the field is left to whoever types on
    about = [asked, ask, asking]
    begun = ask.click(lambda clip_id: (clip_id, *asks_first(True)), chosen, about, **quietly)
    begun.then(js=focus_js("#library-delete-not"))
    deleted = sure.click(delete, [asked], [happened, ask, asking], **quietly).then(**finding)
    deleted.then(js=focus_js("#library-clip input"))
    make.click(export, None, [ready, how], api_visibility="private", show_progress_on=[how])


def asks_first(asks: bool):
    """-> the button for what cannot be undone, the row that asks for it a second time: one of them is seen."""
    return gr.Button(visible=not asks), gr.Row(visible=asks)


def training_command(labels: Iterable[str]) -> str:
    """What a contributor types once the export is unpacked in data/."""
    from ..library.store import EXPORT_FOLDER  # and the database's drivers, for which other pages need not wait

    names = json.dumps(list(labels), ensure_ascii=False)  # quoted, for a label such as no is no word in YAML
    return (
        "accelerate launch train.py --config configs/finetune_folder.yaml "
        f"--data.corpora '[{{name: folder, path: {EXPORT_FOLDER}}}]' --labels.names '{names}' "
        "--data-dir data --output-dir runs/library"
    )


def _day_field(texts: Texts, name: str) -> gr.Textbox:
    """Not Gradio's DateTime, which keeps the day before where what is written is none, and says nothing."""
    own = {"label": texts.label(f"library.{name}"), "elem_id": f"library-{name}", "placeholder": "YYYY-MM-DD"}
    return gr.Textbox(max_lines=1, max_length=20, min_width=160, **own)


def _day(text: str | None) -> date | None:
    """ "2026-11-20" -> that day; ValueError for other texts."""
    return date.fromisoformat(text.strip()) if text and text.strip() else None


def _confirmed(texts: Texts, say: Say, clip) -> str:
    """What a person says a clip is, or that nobody has."""
    return texts.emotion(say, clip.confirmed) if clip.confirmed else say("library.unchecked")


def _list_html(texts: Texts, say: Say, found, page: int, threshold: float) -> str:
    if not found.total:
        return status_html(say("library.nothing"))
    keys = ("library.said", "many.confidence", "library.label", "many.file", "many.length", "library.added")
    columns = [say(key) for key in keys]
    unsure = f" ({say('many.unsure')})"
    rows = [
        [
            str(clip.id),
            texts.emotion(say, clip.predicted),
            f"{whole_percent(clip.confidence, threshold)}{unsure if clip.confidence < threshold else ''}",
            _confirmed(texts, say, clip),
            clip.name,
            decimal(say, clip.duration_s, 1),
            f"{clip.added_at:%Y-%m-%d %H:%M} UTC",
        ]
        for clip in found.clips
    ]
    first = page * PAGE_SIZE + 1
    shown = say("library.shown", first=first, last=first + len(rows) - 1, total=found.total)
    return f'<p class="announced">{escape(shown)}</p>' + table_html(say("library.tab"), ["№", *columns], rows)


def _clip_html(texts: Texts, say: Say, clip, sound: bytes) -> str:
    """The sound lies in the page itself, so that no copy of it stays on the disk after it is deleted."""
    source = f"data:audio/flac;base64,{b64encode(sound).decode()}"
    said = say("library.heard", model=clip.model, emotion=texts.emotion(say, clip.predicted))
    scores = dict(sorted(clip.scores.items(), key=lambda item: -item[1]))
    player = f'<audio controls src="{source}" aria-label="{escape(clip.name)}"></audio>'
    return f"{player}<p>{escape(said)}</p>{bars_html(texts, say, scores)}"


def failure(say: Say, error: LibraryError) -> str:
    """What went wrong, in the visitor's language; what only the host can mend stays in English."""
    from ..library.store import MAX_CLIP_S
    from ..library.tables import LABEL_CHARS

    known = error.reason in REASONS
    limits = {"minutes": MAX_CLIP_S // 60, "signs": LABEL_CHARS - 1}
    reason = say(f"library.reasons.{error.reason}", **limits) if known else str(error)
    return say("library.failed", reason=reason)
