"""The tab "Try it": one recording in, one honest answer out."""

from dataclasses import asdict
from html import escape

import gradio as gr

from .answers import NO_CLIP, UNREADABLE, answer_html, bars_html, sentence_html
from .context import Page


def hear(recognizer, path: str | None):
    """(prediction, waveform); the waveform is None if nothing could be read."""
    from ..inference import AudioError, Prediction

    if path is None:
        return Prediction(
            NO_CLIP, "There is no recording yet. Record your voice or choose a file first.", 0.0, 0.0
        ), None
    try:
        waveform = recognizer.load(path)
    except AudioError as error:
        return Prediction(UNREADABLE, str(error), 0.0, 0.0), None
    return recognizer.recognize([waveform])[0], waveform


def build(context: Page) -> None:
    """The tab's components and events, and the endpoint `/predict`."""
    texts = context.texts

    def predict(recording: str | None, model: str | None = None) -> dict:
        """The emotion in one recording of a voice, with calibrated scores and how they change over time."""
        prediction, _ = hear(context.models.get(model), recording)
        return asdict(prediction) | {"scores": prediction.scores or {}}

    def show(recording: str | None, model: str, threshold_percent: float, request: gr.Request):
        """-> answer HTML, bars HTML, pictures HTML."""
        say = lambda key, **values: texts.say(request, key, **values)  # noqa: E731
        recognizer = context.models.get(model)
        prediction, waveform = hear(recognizer, recording)
        return (
            answer_html(texts, say, prediction, threshold_percent / 100),
            bars_html(texts, say, prediction.scores or {}),
            pictures_html(recognizer, prediction, waveform),
        )

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
        with gr.Column(min_width=300):
            hint = texts.rendered("try.waiting", lambda say: sentence_html("👋", say("try.hint")))
            status = gr.HTML(hint, elem_id="status")
            scores = gr.HTML(elem_id="scores")
    pictures = gr.HTML(elem_id="pictures")

    answer = [status, scores, pictures]
    submit.click(
        show,
        [recording, context.choice, context.threshold],
        answer,
        api_visibility="private",
        show_progress_on=[status],
    )

    def wait(request: gr.Request):
        """An old answer never stands beside a new recording."""
        return sentence_html("👋", texts.say(request, "try.hint")), "", ""

    recording.change(wait, None, answer, api_visibility="private", show_progress="hidden", queue=False)
    # A component, not gr.api: only a component's preprocessing refuses paths that the caller did not upload.
    result = gr.JSON(visible=False)
    gr.Button(visible=False).click(predict, [recording], result, api_name="predict")


def pictures_html(recognizer, prediction, waveform) -> str:
    from ..pictures import MFCC_MAX_S, mfcc_svg, timeline_svg, waveform_svg

    rate = recognizer.sampling_rate
    if waveform is None or prediction.status == "too_short":
        return ""
    of_the_start = f" of the first {MFCC_MAX_S:.0f} s" if prediction.duration_s > MFCC_MAX_S else ""
    figures = [
        figure_html(
            waveform_svg(waveform, rate),
            f"Waveform of {prediction.duration_s:.1f} seconds, peaking at {abs(waveform).max():.2f} of full scale.",
            "Waveform: how loud it is over time.",
        ),
        figure_html(
            mfcc_svg(waveform, rate, recognizer.extractor),
            "MFCCs: time runs to the right, coefficients upwards, each row from dark (low) to bright (high).",
            f"MFCCs{of_the_start}: what the network reads.",
        ),
    ]
    if len(prediction.windows) > 1:
        timeline = timeline_svg(prediction.windows, recognizer.labels, prediction.duration_s)
        figures.append(figure_html(timeline, "Emotion over time", "Emotion over time; gaps hold no voice."))
    return f'<div class="pictures">{"".join(figures)}</div>'


def figure_html(svg: str, alt: str, caption: str) -> str:
    svg = svg.replace("<svg", f'<svg role="img" aria-label="{escape(alt)}"', 1)
    return f"<figure>{svg}<figcaption>{escape(caption)}</figcaption></figure>"
