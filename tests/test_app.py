"""The page and its API, as a visitor and a program meet them: a real server, a real browser."""

import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
from conftest import program
from gradio_client import Client, handle_file
from playwright.sync_api import Page, expect, sync_playwright

import app
from ser_model.inference import EmotionRecognizer, adjective
from ser_model.labels import EMOTIONS

ROOT = Path(__file__).resolve().parent.parent
ANSWER = re.compile(rf"This voice sounds ({'|'.join(map(adjective, EMOTIONS))}), with \d+% confidence\.")
START_S = 120  # of a server on a busy machine; 5 to 10 are usual
CHROMIUM_FLAGS = (
    "--no-sandbox --disable-gpu --disable-background-networking --disable-component-update --disable-sync "
    "--no-first-run --use-fake-ui-for-media-stream --use-fake-device-for-media-stream"
)


# ── A model, recordings, a server ──


@pytest.fixture(scope="module")
def recognizer() -> EmotionRecognizer:
    return EmotionRecognizer.from_pretrained(app.DEFAULT_MODEL)


@pytest.fixture(scope="module")
def clips(data_dir, tmp_path_factory) -> Path:
    """A folder of recordings: one real clip in many formats, a long one, and some that cannot be judged."""
    folder = tmp_path_factory.mktemp("clips")
    samples, rate = soundfile.read(data_dir / "native_samples" / "03-01-06-01-01-02-20.wav", always_2d=True)
    voice = samples.mean(axis=1)
    soundfile.write(folder / "clip.wav", voice, rate)
    for name, codec, rate_hz in [
        ("clip.m4a", "aac", 44_100),
        ("clip.mp4", "aac", 44_100),
        ("clip.webm", "libopus", 48_000),
        ("clip.amr", "libopencore_amrnb", 8_000),
    ]:
        _encode(folder / name, codec, rate_hz, voice, rate)
    soundfile.write(folder / "long.wav", np.concatenate([voice, voice, np.zeros(8 * rate), voice]), rate)
    soundfile.write(folder / "silence.wav", np.zeros(2 * rate), rate)
    soundfile.write(folder / "tone.wav", 0.5 * np.sin(2 * np.pi * 440 * np.arange(2 * rate) / rate), rate)
    soundfile.write(folder / "short.wav", voice[: round(0.2 * rate)], rate)
    soundfile.write(folder / "unscaled.wav", voice / np.abs(voice).max() * 32_767, rate, subtype="FLOAT")
    (folder / "text.wav").write_text("This is no recording.")
    return folder


def _encode(path: Path, codec: str, rate_hz: int, samples: np.ndarray, samples_hz: int) -> None:
    frame = av.AudioFrame.from_ndarray((samples * 32_767).astype(np.int16)[None], format="s16", layout="mono")
    frame.sample_rate = samples_hz
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate_hz, layout="mono")
        resampler = av.AudioResampler(stream.format, "mono", rate_hz, frame_size=stream.frame_size)
        for piece in [*resampler.resample(frame), *resampler.resample(None), None]:
            container.mux(stream.encode(piece))


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """The address of `python app.py`, started as a visitor's host would."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    uploads = tmp_path_factory.mktemp("uploads")
    settings = {"GRADIO_SERVER_PORT": str(port), "GRADIO_TEMP_DIR": str(uploads)}
    log = tmp_path_factory.mktemp("server") / "log.txt"
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "app.py"], cwd=ROOT, env=os.environ | settings, stdout=output, stderr=subprocess.STDOUT
        )
    try:
        _wait_until_it_answers(url, process, log)
        yield url
        # Gradio logs what it refuses, and so it should.
        refused = log.read_text().count("InvalidPathError: Cannot move")
        assert log.read_text().count("Traceback") == refused, log.read_text()
    finally:
        process.terminate()
        process.wait(timeout=30)


def _wait_until_it_answers(url: str, process: subprocess.Popen, log: Path) -> None:
    give_up = time.monotonic() + START_S
    while time.monotonic() < give_up and process.poll() is None:
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return
        except OSError:
            time.sleep(0.2)
    pytest.fail(f"app.py did not answer at {url}:\n{log.read_text()}")


# ── Without a browser ──


def test_import_does_nothing_heavy():
    code = "import app, sys; print(sorted({'torch', 'transformers', 'matplotlib', 'ser_model'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_missing_checkpoint_is_one_sentence(tmp_path):
    with pytest.raises(SystemExit, match=r"^No model in \S+: set SER_MODEL to [^.\n]+, or train one \(README.md\)\.$"):
        app.load_recognizer(str(tmp_path / "nothing"))


def test_names_are_shown_as_text():
    html = app.sentence_html("🤔", '<img src=x onerror="alert(1)">.wav cannot be read')
    assert "<img" not in html and "&lt;img" in html


@pytest.fixture(scope="module")
def client(server):
    return Client(server, verbose=False, analytics_enabled=False)


def test_api_has_one_public_endpoint(client):
    endpoints = client.view_api(return_format="dict", print_info=False)
    assert list(endpoints["named_endpoints"]) == ["/predict"]
    assert endpoints["unnamed_endpoints"] == {}


@pytest.mark.parametrize("name", ["clip.wav", "clip.m4a", "long.wav"])
def test_predict_answers_as_the_recognizer_does(client, clips, recognizer, name):
    expected = recognizer(clips / name)
    answer = client.predict(handle_file(clips / name), api_name="/predict")
    assert (answer["status"], answer["label"], answer["message"]) == ("voice", expected.label, expected.message)
    assert list(answer["scores"]) == list(expected.scores)
    assert answer["scores"] == pytest.approx(expected.scores, abs=1e-5)
    assert answer["confidence"] == pytest.approx(expected.confidence, abs=1e-5)
    assert answer["duration_s"] == expected.duration_s and answer["speech_s"] == expected.speech_s
    assert [(window["start_s"], window["end_s"]) for window in answer["windows"]] == [
        (window.start_s, window.end_s) for window in expected.windows
    ]


UNJUDGED = {
    "silence.wav": ("no_voice", "No voice was heard"),
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
    assert answer["label"] is None and answer["scores"] == {} and answer["windows"] == []


def test_predict_without_a_clip(client):
    assert client.predict(None, api_name="/predict")["status"] == "no_clip"


def test_predict_refuses_files_of_the_server(server, clips):
    body = json.dumps({"data": [{"path": str(clips / "clip.wav"), "meta": {"_type": "gradio.FileData"}}]}).encode()
    call = f"{server}/gradio_api/call/predict"  # gradio_client would upload the file first
    request = urllib.request.Request(call, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as response:
        event = json.load(response)["event_id"]
    with urllib.request.urlopen(f"{call}/{event}") as response:
        answer = response.read().decode()
    assert answer.startswith("event: error") and "voice" not in answer


# ── In a browser ──


@pytest.fixture(scope="module")
def browser(clips):
    executable = program("chromium", "chromium-browser", "google-chrome")
    microphone = f"--use-file-for-fake-audio-capture={clips / 'clip.wav'}"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=[*CHROMIUM_FLAGS.split(), microphone])
        yield browser
        browser.close()


@pytest.fixture
def page(browser, server):
    """A fresh visitor; at the end nothing may have broken, and nothing may have been asked of another machine."""
    page = browser.new_page()
    broken, elsewhere = [], []
    page.on("pageerror", lambda error: broken.append(str(error)))
    page.on("request", lambda request: elsewhere.append(request.url))
    page.goto(server)
    page.get_by_role("button", name="Submit").wait_for()
    yield page
    assert page.get_by_test_id("toast-body").count() == 0  # Gradio's red box
    assert "Traceback" not in page.content()
    assert broken == []
    assert [url for url in elsewhere if not url.startswith((server, "data:", "blob:"))] == []
    page.close()


def _upload(page: Page, path: Path) -> None:
    page.locator("#recording input[type=file]").set_input_files(path)
    page.locator("#recording audio[data-testid]").wait_for(state="attached")


def _submit(page: Page, expected: str | re.Pattern) -> str:
    """Press the button; the sentence that appears."""
    page.get_by_role("button", name="Submit").click()
    said = page.locator("#status").get_by_role("status").locator(".said")
    expect(said).to_contain_text(expected, timeout=30_000)
    return said.inner_text()


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
    label = ANSWER.fullmatch(_submit(page, ANSWER))[1]
    scores = _scores(page, 8)
    assert next(iter(scores)) == label and set(scores) == set(EMOTIONS)


@pytest.mark.browser
@pytest.mark.parametrize("name", ["clip.wav", "clip.m4a", "clip.mp4", "clip.webm", "clip.amr"])
def test_upload(page, clips, recognizer, name):
    _upload(page, clips / name)
    sentence = _submit(page, ANSWER)
    assert sentence == recognizer(clips / name).message
    assert sentence.split()[-2] in _scores(page, 8).values()  # "60%"
    waveform, mfcc = _pictures(page, 2)
    assert waveform.startswith("Waveform of 4.4 seconds") and mfcc.startswith("MFCCs")


@pytest.mark.browser
def test_drop_takes_what_the_browser_does_not_call_audio(page):
    drop = """(target) => {
        const dropped = new DataTransfer();
        dropped.items.add(new File(["This is no recording."], "notes.txt", { type: "text/plain" }));
        target.dispatchEvent(new DragEvent("drop", { dataTransfer: dropped, bubbles: true }));
    }"""
    page.locator("#recording button.upload-container").evaluate(drop)
    page.locator("#recording audio[data-testid]").wait_for(state="attached")
    _submit(page, "notes.txt")


@pytest.mark.browser
@pytest.mark.parametrize("name", ["silence.wav", "short.wav", "text.wav"])
def test_what_cannot_be_judged_gets_a_sentence(page, clips, name):
    _upload(page, clips / name)
    _submit(page, UNJUDGED[name][1])
    assert _scores(page, 0) == {}


@pytest.mark.browser
def test_no_clip_and_a_new_clip(page, clips):
    _submit(page, "There is no recording yet")
    _upload(page, clips / "clip.wav")
    _submit(page, ANSWER)
    page.get_by_label("Clear").click()
    page.locator("#status", has_text="Record a sentence or choose a file").wait_for()
    assert _scores(page, 0) == {} and _pictures(page, 0) == []  # no old answer beside a new recording


@pytest.mark.browser
def test_a_long_clip_shows_a_timeline_and_fits_a_phone(page, clips):
    page.set_viewport_size({"width": 390, "height": 844})
    _upload(page, clips / "long.wav")
    _submit(page, ANSWER)
    assert re.match(r"Likeliest emotion over time: 0 to \d+ s \w+", _pictures(page, 3)[2])
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
