"""The page and its API, as a visitor and a program meet them: a real server, a real browser."""

import json
import os
import re
import subprocess
import sys
import urllib.request

import pytest
from gradio_client import Client, handle_file
from playwright.sync_api import Page, expect
from serving import ROOT, running_app, submit, upload, visit

from ser_model.inference import EmotionRecognizer, adjective
from ser_model.labels import EMOTIONS, SURE_CONFIDENCE
from ser_model.page.analyse import EXAMPLE_NAMES
from ser_model.page.answers import sentence_html
from ser_model.timeline import segments

CHECKPOINT = ROOT / "checkpoints" / "ser-cnn-8"
NAMED = "|".join(map(adjective, EMOTIONS))
ANSWER = re.compile(rf"(?:This voice sounds|Not sure. It sounds most like) ({NAMED}), .*with \d+% confidence\.")


@pytest.fixture(scope="module")
def recognizer() -> EmotionRecognizer:
    return EmotionRecognizer.from_pretrained(CHECKPOINT)


# ── Without a browser ──


EXAMPLES = {"angry": ["angry"], "sad": ["sad"], "frightened": ["fearful"], "changing": ["angry", "sad"]}


def test_the_page_offers_examples_that_get_a_sure_answer(recognizer):
    assert [f"{name}_voice" for name in EXAMPLES] == list(EXAMPLE_NAMES)
    for name, emotions in EXAMPLES.items():
        prediction = recognizer(ROOT / "examples" / f"synthetic_{name}_voice.flac")
        assert [segment.emotion for segment in segments(prediction)] == emotions
        assert prediction.label in emotions and prediction.confidence > 0.5


def test_import_does_nothing_heavy():
    code = "import app, sys; print(sorted({'torch', 'transformers', 'matplotlib', 'ser_model'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_page_is_built_before_the_heavy_imports():
    code = (
        "import sys; from ser_model.page import build_demo; from ser_model.page.models import Models;"
        f"build_demo(Models([{str(CHECKPOINT)!r}]));"
        "print(sorted({'torch', 'transformers', 'matplotlib'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


def test_missing_checkpoint_is_one_sentence(tmp_path):
    done = subprocess.run(
        [sys.executable, "app.py"],
        cwd=ROOT,
        env=os.environ | {"SER_MODELS": f"{CHECKPOINT}, {tmp_path / 'nothing'}"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert re.fullmatch(
        r"No model in \S+nothing: set SER_MODELS to [^.\n]+, or train one \(README.md\)\.\n", done.stderr
    )


def test_names_are_shown_as_text():
    html = sentence_html("🤔", '<img src=x onerror="alert(1)">.wav cannot be read')
    assert "<img" not in html and "&lt;img" in html


@pytest.fixture(scope="module")
def client(server):
    return Client(server, verbose=False, analytics_enabled=False)


def test_api_has_no_endpoints_but_the_public_ones(client):
    endpoints = client.view_api(return_format="dict", print_info=False)
    assert list(endpoints["named_endpoints"]) == ["/predict", "/timeline", "/batch"]
    assert endpoints["unnamed_endpoints"] == {}


@pytest.mark.parametrize("name", ["clip.wav", "clip.m4a", "long.wav"])
def test_predict_answers_as_the_recognizer_does(client, clips, recognizer, name):
    expected = recognizer(clips / name)
    answer = client.predict(handle_file(clips / name), api_name="/predict")
    assert (answer["status"], answer["label"], answer["message"]) == ("voice", expected.label, expected.message)
    assert list(answer["scores"]) == list(expected.scores)
    assert answer["scores"] == pytest.approx(expected.scores, abs=1e-5)
    assert answer["confidence"] == pytest.approx(expected.confidence, abs=1e-5)
    assert answer["sure"] == expected.sure == (expected.confidence >= SURE_CONFIDENCE)
    assert answer["duration_s"] == expected.duration_s and answer["speech_s"] == expected.speech_s
    assert [(window["start_s"], window["end_s"]) for window in answer["windows"]] == [
        (window.start_s, window.end_s) for window in expected.windows
    ]


UNJUDGED = {
    "silence.wav": ("too_quiet", "too quiet to judge"),
    "tone.wav": ("no_voice", "No voice was heard"),
    "short.wav": ("too_short", "too short to judge: 0.20 s"),
    "text.wav": ("unreadable", "text.wav"),
    "unscaled.wav": ("unreadable", "peak"),
}


@pytest.mark.parametrize("name", UNJUDGED)
def test_predict_says_why_it_cannot_judge(client, clips, name):
    status, words = UNJUDGED[name]
    answer = client.predict(handle_file(clips / name), api_name="/predict")
    assert answer["status"] == status and words in answer["message"]
    assert "/" not in answer["message"]  # no path of the server
    assert answer["label"] is None and answer["sure"] is False and answer["scores"] == {} and answer["windows"] == []


def test_predict_without_a_clip(client):
    assert client.predict(None, api_name="/predict")["status"] == "no_clip"


@pytest.mark.parametrize("path", ["FOLDER/clip.wav", "SERVER/gradio_api/info", "/etc/passwd"])
def test_predict_takes_uploads_only(server, clips, path):
    path = path.replace("FOLDER", str(clips)).replace("SERVER", server)
    body = json.dumps({"data": [{"path": path, "meta": {"_type": "gradio.FileData"}}]}).encode()
    call = f"{server}/gradio_api/call/predict"  # gradio_client would upload the file first
    request = urllib.request.Request(call, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as response:
        event = json.load(response)["event_id"]
    with urllib.request.urlopen(f"{call}/{event}") as response:
        answer = response.read().decode()
    assert answer.startswith("event: error")
    assert "Only an uploaded file is taken, no URL and no path of the server" in answer and path not in answer


# ── In a browser ──


def _scores(page: Page, count: int) -> dict[str, str]:
    expect(page.locator("#scores dt")).to_have_count(count)
    names, values = page.locator("#scores dt").all_inner_texts(), page.locator("#scores dd").all_inner_texts()
    return dict(zip(names, values, strict=True))


def _pictures(page: Page, count: int) -> list[str]:
    images = page.locator("#pictures").get_by_role("img")
    expect(images).to_have_count(count)
    return [image.get_attribute("aria-label") for image in images.all()]


@pytest.mark.browser
def test_microphone(page):
    page.get_by_label("Record audio").click()
    page.get_by_role("button", name="Record", exact=True).click()
    page.locator("#recording time.duration", has_text="0:03").wait_for()
    page.get_by_role("button", name="Stop", exact=True).click()
    page.locator("#recording audio[data-testid]").wait_for(state="attached")
    label = ANSWER.fullmatch(submit(page, ANSWER))[1]
    scores = _scores(page, 8)
    assert next(iter(scores)).endswith(label) and len(scores) == len(EMOTIONS)


@pytest.mark.browser
@pytest.mark.parametrize("name", ["clip.wav", "clip.m4a", "clip.mp4", "clip.webm", "clip.amr"])
def test_upload(page, clips, recognizer, name):
    upload(page, clips / name)
    sentence = submit(page, ANSWER)
    assert sentence == recognizer(clips / name).message
    assert sentence.split()[-2] in _scores(page, 8).values()  # "60%"
    page.get_by_role("button", name="Look inside").click()
    waveform, log_mel, mfcc = _pictures(page, 3)
    assert waveform.startswith("Waveform: ") and log_mel.startswith("Log-mel") and mfcc.startswith("MFCCs: ")


@pytest.mark.browser
def test_drop_takes_what_the_browser_does_not_call_audio(page):
    drop = """(target) => {
        const dropped = new DataTransfer();
        dropped.items.add(new File(["This is no recording."], "notes.txt", { type: "text/plain" }));
        target.dispatchEvent(new DragEvent("drop", { dataTransfer: dropped, bubbles: true }));
    }"""
    page.locator("#recording button.upload-container").evaluate(drop)
    page.locator("#recording audio[data-testid]").wait_for(state="attached")
    submit(page, "cannot be read")
    expect(page.locator("#status")).to_contain_text("notes.txt")


SAID = {
    "silence.wav": "too quiet to judge",
    "tone.wav": "No voice was heard",
    "short.wav": "too short to judge: 0.2 s",
    "text.wav": "cannot be read",
}


@pytest.mark.browser
@pytest.mark.parametrize("name", SAID)
def test_what_cannot_be_judged_gets_a_sentence(page, clips, name):
    upload(page, clips / name)
    submit(page, SAID[name])
    assert _scores(page, 0) == {}


@pytest.mark.browser
def test_no_clip_and_a_new_clip(page, clips):
    submit(page, "There is no recording yet")
    upload(page, clips / "clip.wav")
    submit(page, ANSWER)
    page.get_by_label("Clear").click()
    page.locator("#status", has_text="Record a sentence or choose a file").wait_for()
    assert _scores(page, 0) == {} and _pictures(page, 0) == []  # no old answer beside a new recording


@pytest.mark.browser
def test_on_a_space_too_nothing_is_asked_of_another_machine(browser, tmp_path):
    """`visit` looks whom the page asks. A Space has a package of its own for the reloading that is left out here."""
    settings = {"SYSTEM": "spaces", "SPACE_ID": "her/ser"}
    no_reloading = "import gradio.http_server as server; server.watchfn_spaces = lambda reloader: None"
    with running_app(tmp_path, settings, no_reloading) as url, visit(browser, url) as page:
        page.get_by_role("button", name="Sad", exact=True).click()
        expect(page.locator("#status .said")).to_contain_text("This voice sounds sad", timeout=30_000)
