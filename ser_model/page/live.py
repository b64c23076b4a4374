"""The tab "Live": the emotion in a voice while it speaks, from the browser's microphone."""

from dataclasses import dataclass
from functools import partial
from html import escape
from itertools import groupby

import gradio as gr
import numpy as np
import soundfile
from gradio.context import Context
from gradio.queueing import Queue

from .answers import bars_html, clock, emoji, no_microphone_html, sentence_html
from .context import Page
from .models import ModelError, on_gpu
from .texts import Say, Texts
from .theme import focus_js

MINUTES = 10  # a forgotten microphone ends then
EVERY_S = 0.25  # the browser sends what it recorded; an answer needs 0.4 s of new sound
# Gradio's component goes back to a tenth of a second when it is drawn; the visitor cannot press Record before this.
SEND_SO_OFTEN = f"() => ({{__type__: 'update', stream_every: {EVERY_S}}})"
# Once its time is over the server hears no more, but the browser would record and send on.
PRESS_STOP = "() => document.querySelector('#live-microphone .stop-button')?.click()"
MAX_SAMPLES = 2_000_000  # of a piece, 20 s of stereo at 48 kHz: a browser that was busy sends some at once
VISITORS = 8  # at once: each takes about a tenth of a core
MAX_WAITING = 4  # for a place, in the queue that all calls share
PLACES = "live"  # what Gradio counts them by

TRACK_CSS = """
.track { display: flex; flex-wrap: wrap; gap: .25rem .5rem; align-items: center; margin: .25rem 0 0; padding: 0;
  list-style: none; }
.track li { margin: 0; padding: .1rem .5rem; border: 1px solid var(--border-color-primary); border-radius: 6px;
  font-variant-numeric: tabular-nums; }
.track .unsure { border-style: dashed; color: var(--body-text-color-subdued); }
"""


@dataclass
class Session:
    """Of one visitor who is listened to, from Record to Stop."""

    labels: list[str]  # in the order of the model, so that no bar changes its place
    live: object  # a `LiveRecognizer`
    said: str = ""
    track: tuple = ()


def build(context: Page) -> None:
    """The tab's components and events; it has no public endpoint."""
    texts = context.texts

    @on_gpu
    def recognize(model: str, clips: list[np.ndarray]):
        return context.models.get(model).recognize(clips)

    def start(model: str, granted: bool, request: gr.Request):
        """-> no ended track, session, sentence, bars, track; no session without microphone, place or model"""
        from ..streaming import LiveRecognizer

        if not granted:
            return None, None, no_microphone_html(partial(texts.say, request)), "", ""
        if is_full(context.demo._queue, request.session_hash):
            return None, None, *blank(request, "⏳", "live.full")
        try:
            recognizer = context.models.get(model)
        except ModelError:  # said in place of the answer, for here no red box of Gradio appears
            return None, None, *blank(request, "⚠️", "page.model_unusable", model=model)
        session = Session(recognizer.labels, LiveRecognizer(partial(recognize, model), recognizer.sampling_rate))
        return None, session, *blank(request, "🎙️", "live.listening")

    def listen(file: str | None, session: Session | None, threshold_percent: float, request: gr.Request):
        """-> sentence, bars, track; nothing before Record or after Stop, whatever still arrives"""
        from ..audio import AudioError

        if file is None or session is None:
            return gr.skip()
        try:
            answer = session.live.push(*piece(file))
        except (AudioError, soundfile.LibsndfileError) as error:
            raise gr.Error(str(error), print_exception=False) from error
        if answer is None:
            return gr.skip()
        say, threshold = partial(texts.say, request), threshold_percent / 100
        symbol, said, advice = sentence(texts, say, answer.prediction, threshold)
        shown = (
            sentence_html(symbol, said, advice) if said != session.said else gr.skip()
        )  # a screen reader says it once
        session.said, session.track = said, answer.track
        scores = answer.prediction.scores and {label: answer.prediction.scores[label] for label in session.labels}
        return shown, bars_html(texts, say, scores), track_html(texts, say, answer.track, threshold)

    def stop(session: Session | None, request: gr.Request):
        """-> no session, sentence, what its track tells; bars and track stay to be looked at"""
        return None, sentence_html("⏹️", texts.say(request, "live.stopped")), session and session.track

    def reword(ended, threshold_percent: float, request: gr.Request):
        """The track again, in the words of another threshold; while it listens, the next answer brings them anyway."""
        return track_html(texts, partial(texts.say, request), ended, threshold_percent / 100) if ended else gr.skip()

    def blank(request: gr.Request, symbol: str, key: str, **values):
        return sentence_html(symbol, texts.say(request, key, **values)), "", ""

    session, ended = gr.State(time_to_live=60 * (MINUTES + 1)), gr.State()
    with gr.Row(equal_height=False):
        with gr.Column(min_width=300):
            microphone = gr.Audio(
                label=texts.label("live.microphone"),
                sources=["microphone"],
                type="filepath",  # Gradio's own reading would hand a caller's file to the program ffmpeg
                streaming=True,
                buttons=[],
                elem_id="live-microphone",
            )
            advice = texts.rendered("live.limits", lambda say: say("live.advice", minutes=MINUTES))
            gr.Markdown(advice, elem_id="live-limits")
        with gr.Column(min_width=300):
            waiting = texts.rendered(
                "live.waiting", lambda say: sentence_html("🎙️", say("live.hint", minutes=context.minutes))
            )
            said = gr.HTML(waiting, elem_id="live-status")
            bars = gr.HTML(elem_id="live-scores")
            track = gr.HTML(elem_id="live-track", css_template=TRACK_CSS)

    quiet = {"show_progress": "hidden", "api_visibility": "private"}
    granted = gr.Checkbox(visible=False)
    microphone.start_recording(
        start,
        [context.choice, granted],
        [ended, session, said, bars, track],
        js="async (model) => [model, await window.microphoneGranted()]",
        queue=False,
        **quiet,
    )
    microphone.start_recording(None, js=focus_js("#live-microphone .stop-button"), **quiet)
    listening = microphone.stream(
        listen,
        [microphone, session, context.threshold],
        [said, bars, track],
        stream_every=EVERY_S,
        time_limit=60 * MINUTES,
        concurrency_limit=VISITORS,
        concurrency_id=PLACES,
        **quiet,
    )
    listening.then(None, js=PRESS_STOP)
    microphone.stop_recording(stop, session, [session, said, ended], cancels=[listening], queue=False, **quiet)
    context.when_threshold_moves(reword, [ended, context.threshold], track)
    Context.block.select(None, None, microphone, js=SEND_SO_OFTEN, api_visibility="private")  # the tab


def limit_waiting(demo: gr.Blocks) -> None:
    """Where all places are taken, only a few streams may wait: dozens would fill the queue that all calls share. A
    visitor who was told so waits until he reloads the page: Gradio's recorder has no Stop before its stream begins.
    """
    queue, push = demo._queue, demo._queue.push

    async def push_or_refuse(body, request, username):
        event, places = demo.fns.get(body.fn_index), queue.event_queue_per_concurrency_id.get(PLACES)
        if event and event.concurrency_id == PLACES and places and len(places.queue) >= MAX_WAITING:
            return False, demo.texts.say(request, "live.full"), "queue_full"
        return await push(body=body, request=request, username=username)

    queue.push = push_or_refuse


def is_full(queue: Queue, visitor: str | None = None) -> bool:
    """Whether all places are taken by others than `visitor`, the hash of a session: his stream may come before his
    press of the button.
    """
    places = queue.event_queue_per_concurrency_id.get(PLACES)
    if places is None:
        return False
    heard = [event for job in queue.active_jobs for event in job or () if event.concurrency_id == PLACES]
    own = sum(event.session_hash == visitor for event in (*heard, *places.queue))
    return places.current_concurrency + len(places.queue) - own >= VISITORS


def piece(file: str) -> tuple[int, np.ndarray]:
    """What the browser recorded since its last piece, in plain wav -> sampling rate in Hz, samples (T, channels).

    Raises:
        soundfile.LibsndfileError: it is no sound that libsndfile knows.
    """
    with soundfile.SoundFile(file) as sound:
        return sound.samplerate, sound.read(MAX_SAMPLES // sound.channels, dtype="int16", always_2d=True)


def sentence(texts: Texts, say: Say, prediction, threshold: float) -> tuple[str, str, str]:
    """Emoji, what is said, and advice. No number, which would change with every answer: the bars hold them."""
    if prediction.label is None:
        if prediction.status in ("no_voice", "too_short"):
            return "🎙️", say("live.listening"), ""
        return emoji(None), say(f"states.{prediction.status}.said"), say(f"states.{prediction.status}.advice")
    key = "live.unsure" if prediction.confidence < threshold else "live.said"
    return emoji(prediction.label), say(key, emotion=texts.emotion(say, prediction.label)), ""


def track_html(texts: Texts, say: Say, track, threshold: float) -> str:
    """What it sounded like in the last minute, in words, newest last: "0:03 😠 angry", or "0:03 🤔 not sure"."""

    def heard(window) -> str | None:
        label, confidence = next(iter(window.scores.items()))
        return label if confidence >= threshold else None

    items = []
    for label, run in groupby(track, key=heard):
        symbol = f'<span class="emoji" aria-hidden="true">{emoji(label)}</span>'
        words = texts.emotion(say, label) if label else say("many.unsure")
        kind = "" if label else ' class="unsure"'
        items.append(f"<li{kind}>{clock(next(run).start_s)} {symbol} {escape(words)}</li>")
    return f'<ol class="track" aria-label="{escape(say("live.track"))}">{"".join(items)}</ol>'
