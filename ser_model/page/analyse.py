"""The tab "Try it": one recording in, one honest answer out."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from uuid import uuid4

import gradio as gr

from .answers import NO_CLIP, RUNNING, UNREADABLE, answer_html, bars_html, clock, no_microphone_html, sentence_html
from .clips import begin_clips, remember
from .context import Page
from .figures import can_explain, pictures_html, saliency_html
from .models import on_gpu
from .over_time import over_time_html
from .server import MAX_UPLOAD_MB
from .texts import Say, language
from .theme import focus_js

EXAMPLES = Path(__file__).parents[2] / "examples"
MADE_HERE = "audio.wav"  # what Gradio's recorder calls whatever it recorded or cut
LONG_S = 30  # of a recording, from which on a bar tells how far it is heard
EXAMPLE_NAMES = ("angry_voice", "sad_voice", "frightened_voice", "changing_voice")  # synthetic_<name>.flac


@contextmanager
def while_kept(say: Say) -> Iterator[None]:
    """A recording that is deleted by now is said to be."""
    from ..audio import AudioError

    try:
        yield
    except AudioError as error:
        raise gr.Error(say("page.gone"), print_exception=False) from error


def hint_html(say: Say) -> str:
    """What to do first."""
    return sentence_html("👋", say("try.hint"), say("page.upload_limit", megabytes=MAX_UPLOAD_MB))


def again_html(say: Say, model: str) -> str:
    """What to do when another model is chosen."""
    return sentence_html("👋", say("try.again", model=model))


@dataclass(frozen=True)
class Heard:
    """What this visitor sees now, kept so that other words or pictures for it need no second hearing."""

    path: str
    name: str
    model: str
    prediction: object


def build(context: Page) -> None:
    """The tab's components and events, and the endpoints `/predict` and `/timeline`."""
    texts = context.texts

    @on_gpu
    def judge(model: str, path: str, language: str, progress: gr.Progress | None):
        """A `Prediction`; that nothing could be read is one too."""
        from ..inference import AudioError, Prediction

        say, give_up = texts.speaker(language), context.gives_up()

        def tell(heard_s: float, total_s: float | None) -> None:
            give_up()
            if progress is not None and total_s and total_s > LONG_S:
                words = say("try.listening", heard=clock(heard_s), total=clock(total_s))
                progress(min(1.0, heard_s / total_s), desc=words)

        try:
            return context.models.get(model)(path, progress=tell)
        except AudioError as error:
            return Prediction(UNREADABLE, str(error), 0.0, 0.0)

    @on_gpu
    def map_out(heard: Heard, language: str) -> str:
        say, recognizer = texts.speaker(language), context.models.get(heard.model)
        with while_kept(say):
            return saliency_html(texts, say, recognizer, heard.path, heard.prediction)

    def hear(model: str | None, path: str | None, request: gr.Request | None = None, progress=None):
        from ..inference import Prediction

        if path is None:
            return Prediction(NO_CLIP, texts.say(None, f"states.{NO_CLIP}.said"), 0.0, 0.0)
        model = model or context.models.default
        spoken = language(request)
        context.models.get_for_visitor(model, texts.speaker(spoken))  # here, not where a GPU is lent by the second
        return judge(model, path, spoken, progress)

    def predict(recording: str | None, model: str) -> dict:
        """The emotion in one recording of a voice, with calibrated scores and how they change over time.

        Args:
            recording: an uploaded file in any audio format, or the sound of a video.
            model: one of those on offer.
        """
        prediction = hear(model, recording)
        return asdict(prediction) | {"scores": prediction.scores or {}}

    def timeline(recording: str | None, model: str) -> dict:
        """When a recording of voices sounds how: segments with start and end in seconds, emotion and confidence.

        Args:
            recording: an uploaded file in any audio format, or the sound of a video.
            model: one of those on offer.
        """
        from ..timeline import segments

        prediction = hear(model, recording)
        known = {name: getattr(prediction, name) for name in ("status", "message", "sure", "duration_s", "speech")}
        return known | {"segments": [asdict(segment) for segment in segments(prediction)]}

    def show(
        recording: str | None,
        chosen: str | None,
        running: bool,
        model: str,
        threshold_percent: float,
        clips: list,
        request: gr.Request,
        progress=gr.Progress(),  # noqa: B008  it is there that Gradio looks for it
    ):
        """-> path of the recording, answer, bars, nothing yet of what takes longer, what was heard, visitor's clips.

        Args:
            chosen: the name of the file that the visitor chose; None if he recorded.
            running: whether he still records.
        """
        say = partial(texts.say, request)
        prediction = hear(model, recording, request, progress)
        heard = None
        if recording is None and running:
            prediction = replace(prediction, status=RUNNING)
        elif recording:
            name = Path(recording).name
            if name == MADE_HERE:
                name = chosen or say("try.recorded", length=clock(prediction.duration_s))
            heard = Heard(recording, name, model, prediction)
        if recording and prediction.status != UNREADABLE:
            with while_kept(say):
                kept = remember(clips, prediction, recording, name=heard.name, model=model)
            if not kept:
                gr.Warning(say("clips.no_room"))
        answer = answer_html(texts, say, prediction, threshold_percent / 100, course_below=True)
        answer += f"<!-- {uuid4().hex} -->"  # an answer that says the same is announced again
        bars = bars_html(texts, say, prediction.scores or {})
        return recording or "", answer, bars, *no_details(), heard, clips

    def shown_example(name: str):
        recording = str(EXAMPLES / f"synthetic_{name}.flac")

        def show_example(model: str, threshold_percent: float, clips: list, request: gr.Request):
            chosen = Path(recording).name
            return recording, chosen, *show(recording, chosen, False, model, threshold_percent, clips, request, None)

        return show_example

    def reword(heard: Heard | None, threshold_percent: float, request: gr.Request):
        """Answer and segments again, in the words of another threshold."""
        if heard is None:
            return gr.skip(), gr.skip()
        say, threshold = partial(texts.say, request), threshold_percent / 100
        labels = context.models.get(heard.model).labels
        answer = answer_html(texts, say, heard.prediction, threshold, course_below=True)
        return answer, over_time_html(texts, say, heard, labels, threshold)

    def detail(heard: Heard | None, threshold_percent: float, request: gr.Request):
        """-> over time, pictures, and whether there is more to ask for."""
        if heard is None or heard.prediction.status in (UNREADABLE, "too_short"):
            return no_details()
        say = partial(texts.say, request)
        prediction, recognizer = heard.prediction, context.models.get(heard.model)
        with while_kept(say):
            pictures = pictures_html(say, recognizer, heard.path, prediction.duration_s)
        return (
            over_time_html(texts, say, heard, recognizer.labels, threshold_percent / 100),
            gr.update(visible=True),
            pictures,
            "",
            gr.update(visible=prediction.label is not None and can_explain(recognizer)),
        )

    def no_details():
        return "", gr.update(visible=False), "", "", gr.update(visible=False)

    def explain(heard: Heard | None, request: gr.Request):
        """-> what the model listened to; the button that asked for it goes."""
        if heard is None or heard.prediction.label is None:
            return gr.skip(), gr.skip()
        return map_out(heard, language(request)), gr.update(visible=False)

    def forget_deleted(heard: Heard | None, request: gr.Request):
        """Nothing of a clip that the visitor has deleted stays on the page."""
        if heard is None or Path(heard.path).exists():
            return gr.skip()
        return None, "", hint_html(partial(texts.say, request)), "", *no_details(), None

    gr.set_static_paths([EXAMPLES])  # no copy of one among the uploads, which one visitor could delete for all
    heard = gr.State(time_to_live=context.clips.time_to_live)
    chosen, running = gr.State(), gr.State(False)
    # Nobody sees this button. Its text is the path of the recording that the answer is of, and the browser presses it
    # when there is another.
    answered_one = gr.Button("", visible="hidden", elem_id="answered-one")
    no_microphone = gr.Button("", visible="hidden", elem_id="no-microphone")  # nor this one
    with gr.Row(equal_height=False, elem_id="try-it"):
        with gr.Column(min_width=300):
            recording = gr.Audio(
                label=texts.label("try.recording"),
                type="filepath",  # decoded by us alone; Gradio would need the ffmpeg program
                sources=["upload", "microphone"],
                buttons=[],
                elem_id="recording",
            )
            submit = gr.Button(texts.label("try.submit"), variant="primary", size="lg", elem_id="submit")
            gr.Markdown(texts.label("try.examples"), elem_id="examples-hint")
            with gr.Row(elem_id="examples"):
                examples = {
                    name: gr.Button(texts.label(f"try.{name}"), size="md", min_width=120) for name in EXAMPLE_NAMES
                }
        with gr.Column(min_width=300):
            hint = texts.rendered("try.waiting", hint_html)
            status = gr.HTML(hint, elem_id="status")
            scores = gr.HTML(elem_id="scores")
    over_time = gr.HTML(elem_id="over-time")
    with gr.Accordion(texts.label("try.pictures.title"), open=False, visible=False) as inside:
        pictures = gr.HTML(elem_id="pictures")
        saliency = gr.HTML(elem_id="saliency")
        more = gr.Button(texts.label("try.pictures.show_saliency"), visible=False, elem_id="explain")

    private = {"api_visibility": "private"}
    quick = private | {"queue": False, "show_progress": "hidden"}
    details = [over_time, inside, pictures, saliency, more]
    answer = [answered_one, status, scores, *details]
    settings = [context.choice, context.threshold, context.clips]
    shown = [*answer, heard, context.clips]
    given = [recording, chosen, running, *settings]
    answered = [submit.click(show, given, shown, show_progress_on=[status], **private)]
    for name, button in examples.items():
        arguments = (shown_example(name), settings, [recording, chosen, *shown])
        answered.append(button.click(*arguments, show_progress_on=[status], **private))
    begin_clips(context.clips, [submit.click, *(button.click for button in examples.values())])
    detailing = {"fn": detail, "inputs": [heard, context.threshold], "outputs": details, "show_progress": "hidden"}
    after = [event.success(**detailing, **private) for event in answered]
    pressed = [submit, *examples.values()]
    for own, button in enumerate(pressed):  # an answer on its way to another recording would stand beside this one
        others = [event for events in (answered, after) for number, event in enumerate(events) if number != own]
        button.click(None, None, None, cancels=others, **private)
    more.click(explain, heard, [saliency, more], show_progress_on=[more], **private)
    # An old answer never stands beside a new recording. In the browser alone, so that it is never late either.
    gone = {"visible": False, "__type__": "update"}
    rest = json.dumps(["", "", gone, "", "", gone])
    again = {
        model: str(texts.rendered(f"try.again_{number}", partial(again_html, model=model)))
        for number, model in enumerate(context.models.names)
    }
    words = f"(recording && {json.dumps(again)}[model]) ?? {json.dumps(str(hint))}"
    blank = f"(recording, model) => ['', {words}, ...{rest}]"
    other = "(recording, path) => { if (recording?.path !== path) document.querySelector('#answered-one').click(); }"
    recording.change(None, [recording, answered_one], None, js=other, **private)
    for new in (answered_one.click, context.choice.change):
        new(None, [recording, context.choice], answer, js=blank, cancels=[*answered, *after])
        new(lambda: None, None, heard, **quick)
    context.deleted.change(forget_deleted, heard, [recording, *answer, heard], **quick)
    context.when_threshold_moves(reword, [heard, context.threshold], [status, over_time])
    # What the visitor does with the recorder, for Gradio calls all that it makes by one name.
    recording.start_recording(lambda: True, None, running, **quick)
    recording.start_recording(None, js=focus_js("#recording .stop-button"), **private)
    recording.stop_recording(None, js=focus_js("#submit"), **private)
    refused = json.dumps(str(texts.rendered("try.no_microphone", no_microphone_html)))
    no_microphone.click(None, None, status, js=f"() => {refused}", **private)
    recording.stop_recording(lambda: (False, None), None, [running, chosen], **quick)
    recording.upload(lambda path: (False, Path(path).name), recording, [running, chosen], **quick)
    recording.clear(lambda: False, None, running, **quick)

    # Components, not gr.api: only a component's preprocessing refuses paths that the caller did not upload.
    asked = [recording, gr.Dropdown(context.models.names, value=context.models.default, label="model", visible=False)]
    for function in (predict, timeline):
        gr.Button(visible=False).click(function, asked, gr.JSON(visible=False), api_name=function.__name__)
