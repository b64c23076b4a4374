"""The tab "Try it": one recording in, one honest answer out."""

import json
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import gradio as gr

from .answers import NO_CLIP, UNREADABLE, answer_html, bars_html, sentence_html
from .clips import remember
from .context import Page
from .figures import pictures_html
from .models import ModelError, on_gpu

EXAMPLES = Path(__file__).parents[2] / "examples"
EXAMPLE_NAMES = ("calm_voice", "lively_voice")  # synthetic_<name>.flac; texts.yaml names each


@dataclass(frozen=True)
class Heard:
    """What this visitor sees now, kept so that other words or pictures for it need no second hearing."""

    path: str
    model: str
    prediction: object


def build(context: Page) -> None:
    """The tab's components and events, and the endpoint `/predict`."""
    texts = context.texts

    @on_gpu
    def judge(model: str, path: str):
        """A `Prediction`; that nothing could be read is one too."""
        from ..inference import AudioError, Prediction

        try:
            return context.models.get(model)(path)
        except AudioError as error:
            return Prediction(UNREADABLE, str(error), 0.0, 0.0)

    def hear(model: str | None, path: str | None):
        from ..inference import Prediction

        if path is None:
            return Prediction(NO_CLIP, texts.say(None, f"states.{NO_CLIP}.said"), 0.0, 0.0)
        model = model or context.models.default
        try:
            context.models.get(model)  # loaded here, not where a GPU is lent by the second
        except ModelError as error:
            raise gr.Error(str(error), print_exception=False) from error
        return judge(model, path)

    def predict(recording: str | None, model: str) -> dict:
        """The emotion in one recording of a voice, with calibrated scores and how they change over time.

        Args:
            recording: an uploaded file in any audio format, or the sound of a video.
            model: one of those on offer.
        """
        prediction = hear(model, recording)
        return asdict(prediction) | {"scores": prediction.scores or {}}

    def show(recording: str | None, model: str, threshold_percent: float, clips: list, request: gr.Request):
        """-> answer, bars, no pictures yet, what was heard, and this visitor's clips."""
        say = partial(texts.say, request)
        prediction = hear(model, recording)
        heard = Heard(recording, model, prediction) if recording else None
        if recording and prediction.status != UNREADABLE:
            remember(clips, prediction, recording, name=Path(recording).name, model=model)
        answer = answer_html(texts, say, prediction, threshold_percent / 100)
        return answer, bars_html(texts, say, prediction.scores or {}), *no_pictures(), heard, clips

    def show_example(name: str, model: str, threshold_percent: float, clips: list, request: gr.Request):
        recording = str(EXAMPLES / f"synthetic_{name}.flac")
        return recording, *show(recording, model, threshold_percent, clips, request)

    def reword(heard: Heard | None, threshold_percent: float, request: gr.Request):
        """The answer again, in the words of another threshold."""
        if heard is None:
            return gr.skip()
        return answer_html(texts, partial(texts.say, request), heard.prediction, threshold_percent / 100)

    def draw(heard: Heard | None, request: gr.Request):
        if heard is None or heard.prediction.status in (UNREADABLE, "too_short"):
            return no_pictures()
        say = partial(texts.say, request)
        return gr.update(visible=True), pictures_html(say, context.models.get(heard.model), heard.path)

    def no_pictures():
        return gr.update(visible=False), ""

    def forget_deleted(heard: Heard | None, request: gr.Request):
        """Nothing of a clip that the visitor has deleted stays on the page."""
        if heard is None or Path(heard.path).exists():
            return gr.skip()
        return None, sentence_html("👋", texts.say(request, "try.hint")), "", *no_pictures(), None

    gr.set_static_paths([EXAMPLES])  # no copy of one among the uploads, which one visitor could delete for all
    heard = gr.State(time_to_live=3600)
    with gr.Row(equal_height=False):
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
            hint = texts.rendered("try.waiting", lambda say: sentence_html("👋", say("try.hint")))
            status = gr.HTML(hint, elem_id="status")
            scores = gr.HTML(elem_id="scores")
    with gr.Accordion(texts.label("try.pictures.title"), open=False, visible=False) as inside:
        pictures = gr.HTML(elem_id="pictures")

    private = {"api_visibility": "private"}
    quick = private | {"queue": False, "show_progress": "hidden"}
    answer = [status, scores, inside, pictures, heard]
    settings = [context.choice, context.threshold, context.clips]
    shown = [*answer, context.clips]
    answered = [submit.click(show, [recording, *settings], shown, show_progress_on=[status], **private)]
    for name, button in examples.items():
        arguments = (partial(show_example, name), settings, [recording, *shown])
        answered.append(button.click(*arguments, show_progress_on=[status], **private))
    for event in answered:
        event.success(draw, heard, [inside, pictures], show_progress="hidden", **private)
    # An old answer never stands beside a new recording. In the browser alone, so that it is never late either.
    blank = json.dumps([str(hint), "", {"visible": False, "__type__": "update"}, ""])
    for new in (recording.input, recording.clear, context.choice.change):
        new(None, None, answer[:-1], js=f"() => {blank}", cancels=answered)
        new(lambda: None, None, heard, **quick)
    context.clips.change(forget_deleted, heard, [recording, *answer], **quick)
    context.threshold.change(reword, [heard, context.threshold], status, **quick)

    # Components, not gr.api: only a component's preprocessing refuses paths that the caller did not upload.
    result = gr.JSON(visible=False)
    asked = gr.Dropdown(context.models.names, value=context.models.default, label="model", visible=False)
    gr.Button(visible=False).click(predict, [recording, asked], result, api_name="predict")
