"""The tab "My clips": what one visitor analysed in one session.

The list lies in a `gr.State`, which no other session can read. Each clip is a FLAC file below Gradio's folder for
uploads, under a name that cannot be guessed, and lives as long as its entry: it is deleted with it, or when the session
is forgotten, or when the server stops.
"""

import atexit
import logging
import shutil
import tempfile
import threading
import weakref
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO
from uuid import uuid4

import gradio as gr
import numpy as np
import soundfile
from gradio.utils import get_upload_folder

from ..library.errors import LibraryError
from .answers import answer_html, bars_html, decimal, whole_percent
from .context import Page
from .figures import figure_svg
from .library import asks_first, failure
from .tables import note, results_link_html, status_html, table_html
from .texts import Say, Texts, language
from .theme import focus_js

if TYPE_CHECKING:
    from ..inference import Prediction

RATE_HZ = 16_000  # as recordings are heard
PICTURED_S = 600  # from the start, so that a long clip need not lie in memory
MAX_CLIPS = 100  # of one visitor; then the oldest goes
MAX_BYTES = 500 * 2**20  # ten hours of speech or so

logger = logging.getLogger(__name__)
_uploads: Counter[Path] = Counter()  # of how many clips; visitors who upload the same file share Gradio's copy of it
_counting = threading.RLock()  # the garbage collector may call `_remove` while this very thread counts in `Clip`


@dataclass(frozen=True, eq=False)  # without eq, Gradio sees by its identity that the list holds another one
class Clip:
    """One analysed clip. `upload` is the file that it came in, if that is ours to delete; `discard()` deletes both."""

    name: str
    model: str
    prediction: "Prediction"
    path: Path
    size_bytes: int
    upload: Path | None
    key: str = field(default_factory=lambda: uuid4().hex)

    def __post_init__(self) -> None:
        if self.upload:
            with _counting:
                _uploads[self.upload] += 1
        object.__setattr__(self, "discard", weakref.finalize(self, _remove, self.path, self.upload))


def remember(
    clips: list[Clip],
    prediction: "Prediction",
    sound: str | Path | BinaryIO | np.ndarray,
    *,
    name: str,
    model: str,
    sampling_rate: int = RATE_HZ,
    upload: str | Path | None = None,
) -> bool:
    """Put a clip into this visitor's list, which every tab does that analyses something; False if the disk is full.

    Args:
        clips: the value of `Page.clips`, which the event then returns to it; changed in place, so that two tabs at work
            at once lose nothing.
        sound: a recording that could be decoded, or samples (T,) in [-1, 1] at `sampling_rate`.
        name: what the visitor calls it.
        model: the name of the model that was asked.
        upload: the file that Gradio keeps, where `sound` is no path to it; it goes when the clip goes.

    Raises:
        AudioError: `sound` can be read no more.
    """
    from ..audio import AudioError, audio_blocks
    from ..inference import MAX_DURATION_S

    if isinstance(sound, str | Path):
        upload = sound
    path = own_folder() / f"{uuid4().hex}.flac"
    samples_left = round(MAX_DURATION_S * sampling_rate)  # what lies beyond was not judged either
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)  # while empty, another server may sweep it away
        with soundfile.SoundFile(path, "w", sampling_rate, 1, subtype="PCM_16") as file:
            for piece in [sound] if isinstance(sound, np.ndarray) else audio_blocks(sound, sampling_rate):
                file.write(np.clip(piece[:samples_left], -1, 1))
                samples_left -= len(piece)
                if samples_left <= 0:
                    break
    except (OSError, soundfile.LibsndfileError) as error:
        path.unlink(missing_ok=True)
        logger.error("no room for a visitor's clip: %s", error)
        return False
    except AudioError:
        path.unlink(missing_ok=True)
        raise
    clips.append(Clip(name, model, prediction, path, path.stat().st_size, _ours(upload)))
    while len(clips) > MAX_CLIPS or (len(clips) > 1 and sum(clip.size_bytes for clip in clips) > MAX_BYTES):
        forget(clips, clips[:1])
    return True


def begin_clips(clips: gr.State, triggers: Sequence) -> None:
    """Start, or renew, the time after which a visitor's clips are deleted: Gradio counts from an event that returns the
    state, and an analysis that is cancelled returns nothing, though its clip is remembered.
    """
    gr.on(triggers, lambda own: own, clips, clips, queue=False, show_progress="hidden", api_visibility="private")


def forget(clips: list[Clip], chosen: Iterable[Clip] | None = None) -> None:
    """Take `chosen`, or all, out of the list and their files off the disk."""
    for clip in list(clips if chosen is None else chosen):
        if clip in clips:  # not gone already, at the second click of two
            clips.remove(clip)
        clip.discard()


def new_state(kept_s: float) -> gr.State:
    """Where each visitor's list lies; forgotten `kept_s` seconds after its last change."""
    return gr.State([], time_to_live=kept_s, delete_callback=forget)


@cache
def own_folder() -> Path:
    """Gradio serves it as it is; else it would put a copy of each clip where nobody deletes it with the clip."""
    uploads = Path(get_upload_folder())
    uploads.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="clips-", dir=uploads))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    gr.set_static_paths([folder])
    return folder


def _ours(upload: str | Path | None) -> Path | None:
    """A file among the uploads; not an example of the repository, which is to stay."""
    if upload and Path(upload).resolve().is_relative_to(Path(get_upload_folder()).resolve()):
        return Path(upload)
    return None


def _remove(path: Path, upload: Path | None) -> None:
    path.unlink(missing_ok=True)
    if upload:
        with _counting:
            _uploads[upload] -= 1
            if not _uploads[upload]:
                del _uploads[upload]
                upload.unlink(missing_ok=True)


# ── The tab ──


def build(context: Page) -> None:
    """The tab's components and events."""
    texts = context.texts
    several = len(context.models.names) > 1  # then a clip is told by its model too

    def refresh(clips: list[Clip], beside: str | None, threshold_percent: float, request: gr.Request):
        """-> list HTML, both choices, link to the CSV, everything that needs a clip."""
        say, threshold = texts.speaker(language(request)), threshold_percent / 100
        choices = [(_title(texts, say, clips, clip, several), clip.key) for clip in reversed(clips)]
        keys = [key for _, key in choices]
        beside = beside if beside in keys else ""
        return (
            _list_html(texts, say, clips, threshold),
            gr.Dropdown(choices, value=next(iter(keys), None)),
            gr.Dropdown([(say("clips.none"), ""), *choices], value=beside),
            link_html(say, clips, threshold),
            gr.Column(visible=bool(clips)),
        )

    def show(clips: list[Clip], key: str | None, threshold_percent: float, request: gr.Request):
        """-> player, what was heard in one clip, its bars and picture."""
        clip = _find(clips, key)
        if clip is None:
            return gr.Audio(None, visible=False), "", ""
        say = texts.speaker(language(request))
        answer = heard_html(say, clip, threshold_percent / 100)
        details = bars_html(texts, say, clip.prediction.scores or {}) + _picture_html(say, clip)
        return gr.Audio(str(clip.path), label=clip.name, visible=True), answer, details

    def reword(
        clips: list[Clip], chosen: str | None, beside: str | None, threshold_percent: float, request: gr.Request
    ):
        """-> list HTML, link to the CSV, what was heard in either clip, in the words of another threshold."""
        say, threshold = texts.speaker(language(request)), threshold_percent / 100
        found = [_find(clips, key) for key in (chosen, beside)]
        answers = [heard_html(say, clip, threshold) if clip else "" for clip in found]
        return _list_html(texts, say, clips, threshold), link_html(say, clips, threshold), *answers

    def heard_html(say: Say, clip: Clip, threshold: float) -> str:
        model = f'<p class="model">{escape(clip.model)}</p>' if several else ""
        return model + answer_html(texts, say, clip.prediction, threshold)

    def link_html(say: Say, clips: list[Clip], threshold: float) -> str:
        results = [(clip.name, clip.model, clip.prediction) for clip in clips]
        return results_link_html(texts, say, "my_clips.csv", results, threshold)

    def delete_one(clips: list[Clip], key: str | None, deleted: int, request: gr.Request):
        """-> this visitor's clips, how often some were deleted, what happened."""
        clip = _find(clips, key)
        if clip is None:  # gone already, at the second click of two
            return gr.skip()
        forget(clips, [clip])
        if clip.upload:  # though it may hold other clips: a zip does, and each has a copy of its own
            clip.upload.unlink(missing_ok=True)
        return clips, deleted + 1, status_html(texts.say(request, "clips.deleted", name=clip.name))

    def delete_all(clips: list[Clip], deleted: int, request: gr.Request):
        """-> as `delete_one`; the button that asks first, the row that asks."""
        forget(clips)
        return clips, deleted + 1, status_html(texts.say(request, "clips.all_deleted")), *asks_first(False)

    def may_keep(clips: list[Clip], key: str | None, request: gr.Request):
        """-> the button that keeps, what it does or why it cannot."""
        clip = _find(clips, key)
        can = clip is not None and clip.prediction.label is not None
        words = texts.say(request, "clips.keep_publicly" if can else "clips.no_answer_to_keep")
        return gr.Button(interactive=can), f'<p class="hint">{escape(words)}</p>'

    def keep(clips: list[Clip], key: str | None, request: gr.Request) -> str:
        """-> what happened."""
        say = texts.speaker(language(request))
        return status_html(_keep(context.library, say, _find(clips, key)))

    minutes = context.minutes
    gr.Markdown(texts.rendered("clips.head", lambda say: say("clips.intro", minutes=minutes)), elem_id="clips-intro")
    nothing = texts.rendered("clips.empty_list", lambda say: status_html(say("clips.empty")))
    listed = gr.HTML(nothing, elem_id="clips-list", elem_classes="plain")
    with gr.Column(visible=False) as some:
        with gr.Row(equal_height=False):
            players = []
            for name in ("chosen", "beside"):
                with gr.Column(min_width=300):
                    choice = gr.Dropdown([], label=texts.label(f"clips.{name}"), elem_id=f"clips-{name}")
                    player = gr.Audio(
                        visible=False, interactive=False, buttons=["download"], elem_id=f"clips-{name}-player"
                    )
                    answer = gr.HTML(elem_id=f"clips-{name}-answer", elem_classes="plain")
                    heard = gr.HTML(elem_id=f"clips-{name}-heard", elem_classes="plain")
                players.append((choice, player, answer, heard))
        link = gr.HTML(elem_id="clips-csv", elem_classes="plain")
        if context.library:
            hint = gr.HTML(elem_id="clips-keep-hint", elem_classes="plain")
        with gr.Row():
            if context.library:
                keeper = gr.Button(texts.label("clips.keep"), elem_id="clips-keep")
            one = gr.Button(texts.label("clips.delete"), elem_id="clips-delete")
            everything = gr.Button(texts.label("clips.delete_all"), elem_id="clips-delete-all")
        with gr.Row(visible=False) as asking:
            sure = gr.Button(texts.label("clips.delete_all_surely"), variant="stop", elem_id="clips-delete-surely")
            no = gr.Button(texts.label("clips.delete_not"), elem_id="clips-delete-not")
    happened = gr.HTML(elem_id="clips-happened", elem_classes="plain")

    quietly = {"api_visibility": "private", "show_progress": "hidden"}
    chosen, beside = (choice for choice, *_ in players)
    lists = [listed, chosen, beside, link, some]
    context.clips.change(refresh, [context.clips, beside, context.threshold], lists, **quietly)
    for choice, *shown in players:
        choice.change(show, [context.clips, choice, context.threshold], shown, **quietly)
    answers = [answer for *_, answer, _ in players]
    settings = [context.clips, chosen, beside, context.threshold]
    context.when_threshold_moves(reword, settings, [listed, link, *answers])
    chosen.input(lambda: "", None, happened, queue=False, **quietly)  # what was said was said of another clip
    after, about = [context.clips, context.deleted, happened], [everything, asking]
    own_tab = '[role="tab"][aria-selected="true"]'  # where nothing is left to press
    deleted = one.click(delete_one, [context.clips, chosen, context.deleted], after, **quietly)
    deleted.then(js=focus_js("#clips-delete", own_tab))
    asked = everything.click(lambda: asks_first(True), None, about, **quietly)
    asked.then(js=focus_js("#clips-delete-not"))
    kept = no.click(lambda: asks_first(False), None, about, **quietly)
    kept.then(js=focus_js("#clips-delete-all"))
    all_deleted = sure.click(delete_all, [context.clips, context.deleted], [*after, *about], **quietly)
    all_deleted.then(js=focus_js(own_tab))
    if context.library:
        chosen.change(may_keep, [context.clips, chosen], [keeper, hint], **quietly)
        keeper.click(keep, [context.clips, chosen], happened, **quietly)


def _find(clips: list[Clip], key: str | None) -> Clip | None:
    return next((clip for clip in clips if clip.key == key), None)


def _title(texts: Texts, say: Say, clips: list[Clip], clip: Clip, with_model: bool) -> str:
    """What tells a clip from the others, some of which may have its name."""
    label = clip.prediction.label
    parts = [clip.name, texts.emotion(say, label) if label else "", clip.model if with_model else ""]
    return f"{clips.index(clip) + 1}. " + " · ".join(filter(None, parts))


def _list_html(texts: Texts, say: Say, clips: list[Clip], threshold: float) -> str:
    if not clips:
        return status_html(say("clips.empty"))
    keys = ("emotion", "confidence", "note", "file", "length")  # first what a phone has room for
    columns = ["№", *(say(f"many.{key}") for key in keys), say("page.model")]
    rows = [
        [
            str(number),
            texts.emotion(say, clip.prediction.label) if clip.prediction.label else "",
            whole_percent(clip.prediction.confidence, threshold) if clip.prediction.label else "",
            note(texts, say, clip.prediction, threshold),
            clip.name,
            decimal(say, clip.prediction.duration_s, 1),
            clip.model,
        ]
        for number, clip in reversed(list(enumerate(clips, 1)))
    ]
    return table_html(say("clips.tab"), columns, rows)


def _picture_html(say: Say, clip: Clip) -> str:
    from ..pictures import waveform_svg

    with soundfile.SoundFile(clip.path) as file:
        rate, duration_s = file.samplerate, file.frames / file.samplerate
        waveform = file.read(PICTURED_S * rate, dtype="float32")
    description = say("clips.waveform", name=clip.name)
    if duration_s > PICTURED_S:
        description += " " + say("try.pictures.start_only", seconds=str(PICTURED_S))
    return f'<div class="pictures">{figure_svg(say, waveform_svg(waveform, rate), description)}</div>'


def _keep(library, say: Say, clip: Clip | None) -> str:
    """Put a clip into the team's library; what to say about it."""
    if clip is None or clip.prediction.label is None:
        return say("clips.no_answer_to_keep")
    label, scores = clip.prediction.label, clip.prediction.scores
    try:
        library.check_duration(clip.prediction.duration_s)  # before two hours of it lie in memory
        waveform, rate = soundfile.read(clip.path, dtype="float32")
        _, is_new = library.add(waveform, rate, name=clip.name, model=clip.model, label=label, scores=scores)
    except LibraryError as error:
        return failure(say, error)
    return say("clips.kept" if is_new else "clips.kept_before")
