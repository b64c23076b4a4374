"""The Space: a page and an API that name the emotion in a voice.

`python app.py` serves it; GRADIO_SERVER_NAME and GRADIO_SERVER_PORT say where, SER_MODEL with which model (a folder or
a Hub id).
"""

import json
import os
import re
from dataclasses import asdict
from html import escape
from itertools import groupby
from pathlib import Path

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read at import: nothing of a visitor leaves this machine

import gradio as gr  # noqa: E402

DEFAULT_MODEL = Path(__file__).parent / "checkpoints" / "ser-cnn-8"
EMOJI = {
    "neutral": "😐",
    "calm": "😌",
    "happy": "😄",
    "sad": "😢",
    "angry": "😠",
    "fearful": "😨",
    "disgust": "🤢",
    "surprised": "😲",
}
NO_CLIP, UNREADABLE = "no_clip", "unreadable"  # beside the states of `Prediction`

INTRO = """# 🎙️ How does this voice sound?
Record a sentence or two, or choose a file, and a small neural network names the emotion it hears in the **voice**,
not in the words."""
HINT = "Record a sentence or choose a file, then press Submit."
NO_CLIP_MESSAGE = "There is no recording yet. Record your voice or choose a file first."
LIMITS = """**What it can't do.** It learned from actors who speak North American English, so it judges how a voice
*sounds* next to theirs, not what a person feels, and it errs more often with other languages, accents, ages and
everyday speech.
Do not use it for hiring, medicine or policing, or for any decision about a person.

**Your recording** is worked on here only, is sent nowhere else, and is deleted after about an hour."""

CSS = """
.gradio-container { width: 100%; max-width: 1100px !important; margin-inline: auto; }
#status .html-container, #pictures .html-container { padding: 0; }
.answer { display: flex; align-items: center; gap: 1rem; min-height: 6rem; padding: 1rem 1.25rem;
  border: 1px solid var(--border-color-primary); border-left: 6px solid var(--border-color-primary);
  border-radius: var(--block-radius); background: var(--block-background-fill); }
.answer.voice { border-left-color: var(--primary-500); }
.answer .emoji { font: 2.75rem/1 "Apple Color Emoji", "Segoe UI Emoji", "Noto Color Emoji", sans-serif; }
.answer p { margin: 0; overflow-wrap: anywhere; }
.answer .said { font-size: var(--text-lg); font-weight: 500; line-height: 1.35; }
.answer.voice .said { font-size: clamp(1.1rem, 4.5vw, 1.4rem); font-weight: 600; }
.answer .heard, .pictures figcaption { color: var(--body-text-color-subdued); font-size: var(--text-md); }
#recording .icon:not(.selected), #recording time { color: var(--body-text-color-subdued) !important; }
#scores * { font-family: var(--font); }
#scores { --stat-background-fill: var(--primary-600); }
#scores meter { height: 0.5rem; }
.pictures { columns: 2 20rem; column-gap: 2rem; }
.pictures figure { margin: 0 0 1.25rem; break-inside: avoid; }
.pictures svg { display: block; width: 100%; height: auto; }
footer .divider { display: none; }
"""

# Gradio's audio field takes only what the browser calls audio, but webm and mp4 are "video" to it, and amr is nothing.
# So whatever a visitor offers is called audio here, and the server finds out whether it is.
TAKE_ANY_RECORDING = """() => {
  const input = (event) => event.target.closest?.("#recording")?.querySelector("input[type=file]");
  const fill = (input, files) => {
    const list = new DataTransfer();
    for (const file of files) list.items.add(new File([file], file.name, { type: "audio/x-recording" }));
    input.files = list.files;
  };
  document.addEventListener("click", (event) => {
    if (input(event)) input(event).accept = "audio/*,SUFFIXES";
  }, true);
  document.addEventListener("change", (event) => {
    if (event.target === input(event)) fill(event.target, event.target.files);
  }, true);
  document.addEventListener("drop", (event) => {
    if (!input(event) || !event.dataTransfer?.files.length) return;
    event.preventDefault();
    event.stopPropagation();
    fill(input(event), event.dataTransfer.files);
    input(event).dispatchEvent(new Event("change", { bubbles: true }));
  }, true);
}"""


def build_demo(recognizer) -> gr.Blocks:
    """The page around one `EmotionRecognizer`.

    Its public endpoint is `/predict`: one recording in, one JSON object out, made for programs. The page's own handler
    gives HTML and is private. With `gradio_client`

        Client(url).predict(handle_file("clip.m4a"), api_name="/predict")

    returns a dict: `status` ("voice", "no_voice", "too_short", "unlike_training", "unreadable" or "no_clip"), `message`
    (a sentence to show), `label` and `confidence` (None without an answer), `scores` (emotion -> probability, likeliest
    first; empty without one), `duration_s`, `speech_s`, and `windows` (dicts of `start_s`, `end_s`, `scores`). A
    recording that cannot be judged is an answer too, never an error.
    """
    from ser_model.inference import AudioError, Prediction
    from ser_model.pictures import MFCC_MAX_S, mfcc_svg, timeline_svg, waveform_svg

    def hear(path: str | None):
        """(prediction, waveform); the waveform is None if nothing could be read."""
        if path is None:
            return Prediction(NO_CLIP, NO_CLIP_MESSAGE, 0.0, 0.0), None
        try:
            waveform = recognizer.load(path)
        except AudioError as error:
            return Prediction(UNREADABLE, str(error), 0.0, 0.0), None
        return recognizer.recognize([waveform])[0], waveform

    def predict(recording: str | None) -> dict:
        """The emotion in one recording of a voice, with calibrated scores and how they change over time."""
        prediction, _ = hear(recording)
        return asdict(prediction) | {"scores": prediction.scores or {}}

    def show(recording: str | None):
        """-> status HTML, scores for the bars, pictures HTML."""
        prediction, waveform = hear(recording)
        scores = {spoken(label): score for label, score in (prediction.scores or {}).items()}
        return status_html(prediction), scores, pictures_html(prediction, waveform)

    def pictures_html(prediction, waveform) -> str:
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
            runs = [list(run) for _, run in groupby(prediction.windows, likeliest)]
            course = ", ".join(f"{run[0].start_s:.0f} to {run[-1].end_s:.0f} s {likeliest(run[0])}" for run in runs)
            caption = "Emotion over time; gaps hold no voice."
            figures.append(figure_html(timeline, f"Likeliest emotion over time: {course}.", caption))
        return f'<div class="pictures">{"".join(figures)}</div>'

    with gr.Blocks(title="How does this voice sound?", delete_cache=(600, 3600)) as demo:
        gr.Markdown(INTRO)
        with gr.Row(equal_height=False):
            with gr.Column(min_width=300):
                recording = gr.Audio(
                    label="Recording: a file or your microphone",
                    type="filepath",  # decoded by us alone; Gradio would need the ffmpeg program
                    sources=["upload", "microphone"],
                    buttons=[],
                    elem_id="recording",
                )
                submit = gr.Button("Submit", variant="primary", size="lg")
            with gr.Column(min_width=300):
                status = gr.HTML(sentence_html("👋", HINT), elem_id="status")
                scores = gr.Label(
                    label="Confidence for each emotion",
                    show_heading=False,
                    num_top_classes=len(recognizer.labels),
                    elem_id="scores",
                )
        pictures = gr.HTML(elem_id="pictures")
        gr.Markdown(LIMITS, elem_id="limits")

        answer = [status, scores, pictures]
        submit.click(show, recording, answer, api_visibility="private", show_progress_on=[status])
        # In the browser alone, so that an old answer never stands beside a new recording.
        blank = json.dumps([sentence_html("👋", HINT), {}, ""])
        recording.change(None, None, answer, js=f"() => {blank}")
        # A component, not gr.api: only a component's preprocessing refuses paths that the caller did not upload.
        result = gr.JSON(visible=False)
        gr.Button(visible=False).click(predict, recording, result, api_name="predict")
    return demo.queue(max_size=32, default_concurrency_limit=2)


def spoken(label: str) -> str:
    return label.replace("_", " ")


def likeliest(window) -> str:
    return spoken(next(iter(window.scores)))


def status_html(prediction) -> str:
    if prediction.label is None:
        return sentence_html("🤔", prediction.message)
    emotion = prediction.label.rpartition("_")[2]  # "female_angry" -> "angry"
    heard = f"{prediction.speech_s:.1f} s of speech in a recording of {prediction.duration_s:.1f} s"
    return sentence_html(EMOJI.get(emotion, "🎙️"), prediction.message, heard)


def sentence_html(emoji: str, sentence: str, detail: str = "") -> str:
    """One place for every answer, which screen readers announce; the emoji only repeats what the sentence says."""
    kind = "voice" if detail else "other"
    return (
        f'<div class="answer {kind}" role="status"><span class="emoji" aria-hidden="true">{emoji}</span>'
        f'<div><p class="said">{escape(sentence)}</p><p class="heard">{escape(detail)}</p></div></div>'
    )


def figure_html(svg: str, alt: str, caption: str) -> str:
    svg = svg.replace("<svg", f'<svg role="img" aria-label="{escape(alt)}"', 1)
    return f"<figure>{svg}<figcaption>{escape(caption)}</figcaption></figure>"


def load_recognizer(name_or_path: str):
    """An `EmotionRecognizer` from a folder or a Hub id; SystemExit with one sentence if there is none."""
    missing = f"No model in {name_or_path}: set SER_MODEL to a checkpoint folder or a Hub id, or train one (README.md)."
    if not Path(name_or_path).is_dir() and not re.fullmatch(r"[\w.-]+/[\w.-]+", name_or_path):
        raise SystemExit(missing)
    from ser_model.inference import EmotionRecognizer

    try:
        return EmotionRecognizer.from_pretrained(name_or_path)
    except OSError as error:
        raise SystemExit(missing) from error


def launch(demo: gr.Blocks) -> None:
    from ser_model.inference import AUDIO_SUFFIXES

    theme = gr.themes.Default(primary_hue="teal", font=("system-ui", "sans-serif")).set(
        body_text_color_subdued="*neutral_600",  # Gradio's own greys and its button are too pale to read (WCAG AA)
        body_text_color_subdued_dark="*neutral_400",
        button_primary_background_fill="*primary_700",
        button_primary_background_fill_hover="*primary_800",
    )
    demo.launch(
        theme=theme,
        css=CSS,
        js=TAKE_ANY_RECORDING.replace("SUFFIXES", ",".join(sorted(AUDIO_SUFFIXES))),
        max_file_size="50mb",
        footer_links=["api"],
        run_history=False,  # would keep answers in the visitor's browser
        enable_monitoring=False,
    )


if __name__ == "__main__":
    launch(build_demo(load_recognizer(os.environ.get("SER_MODEL") or str(DEFAULT_MODEL))))
