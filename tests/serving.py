"""The page as its host serves it and a visitor sees it: `app.py` in a process of its own, and Chromium.

Shared by the tests and by docs/screenshots.py, so without pytest.
"""

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import av
import numpy as np
from playwright.sync_api import Browser, Page, expect, sync_playwright

ROOT = Path(__file__).resolve().parent.parent
START_S = 120  # of a server on a busy machine; 5 to 10 are usual
CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM_FLAGS = (
    "--no-sandbox --disable-gpu --disable-background-networking --disable-component-update --disable-sync "
    "--no-first-run --use-fake-ui-for-media-stream --use-fake-device-for-media-stream"
)


def chromium() -> str:
    """Where the browser lies; SystemExit if there is none."""
    found = filter(None, map(shutil.which, CHROMIUM))
    return next(found, None) or sys.exit("this needs the program chromium; on Debian: apt-get install chromium")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_until_it_answers(url: str, process: subprocess.Popen) -> None:
    """RuntimeError if the server stops, or stays silent for `START_S` seconds."""
    give_up = time.monotonic() + START_S
    while time.monotonic() < give_up and process.poll() is None:
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return
        except OSError:
            time.sleep(0.2)
    raise RuntimeError(f"no answer from {url}; exit status {process.poll()}")


@contextmanager
def running_app(folder: Path, settings: dict[str, str] | None = None, before: str = "") -> Iterator[str]:
    """The address of `python app.py`; its uploads and its log.txt go below `folder`. It may never show a traceback.

    Args:
        settings: environment variables on top of this process's own.
        before: Python to run in its process first.
    """
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    own = {"GRADIO_SERVER_PORT": str(port), "GRADIO_TEMP_DIR": str(folder / "uploads")}
    log = folder / "log.txt"
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-c", f"{before}\nimport app\napp.main()"] if before else [sys.executable, "app.py"],
            cwd=ROOT,
            env=os.environ | own | (settings or {}),
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        try:
            wait_until_it_answers(url, process)
        except RuntimeError as error:
            raise RuntimeError(f"{error}:\n{log.read_text()}") from error
        yield url
        assert "Traceback" not in log.read_text(), log.read_text()
    finally:
        process.terminate()
        process.wait(timeout=30)


@contextmanager
def running_browser(executable: str, microphone: Path | None = None) -> Iterator[Browser]:
    """Chromium without a window; `microphone` is a wav file that it takes for what is said."""
    heard = [f"--use-file-for-fake-audio-capture={microphone}"] if microphone else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=[*CHROMIUM_FLAGS.split(), *heard])
        yield browser
        browser.close()


@contextmanager
def visit(browser: Browser, url: str, **options) -> Iterator[Page]:
    """A fresh visitor's page; at the end nothing may have broken, and nothing may have been asked of another machine.

    Args:
        options: of Playwright's `new_page`, such as locale="de-DE".
    """
    page = browser.new_page(**options)
    broken, elsewhere = [], []
    page.on("pageerror", lambda error: broken.append(str(error)))
    page.on("request", lambda request: elsewhere.append(request.url))
    page.goto(url)
    page.locator("#submit").wait_for()
    page.locator("#recording button.upload-container").wait_for()  # its script is larger, and comes by itself
    yield page
    assert page.get_by_test_id("toast-body").count() == 0  # Gradio's red box
    assert "Traceback" not in page.content()
    assert broken == []
    assert [url_asked for url_asked in elsewhere if not url_asked.startswith((url, "data:", "blob:"))] == []
    page.close()


def upload(page: Page, path: Path) -> None:
    page.locator("#recording input[type=file]").set_input_files(path)
    page.locator("#recording audio[data-testid]").wait_for(state="attached")


def submit(page: Page, expected) -> str:
    """Press the button; the sentence that appears."""
    page.locator("#submit").click()
    said = page.locator("#status .said")
    expect(said).to_contain_text(expected, timeout=30_000)
    return said.inner_text()


def open_settings(page: Page) -> None:
    """Unfold models and threshold. Gradio gives what was folded its first values once more, in the next frame."""
    page.get_by_role("button", name="Model and threshold").click()
    page.locator("#threshold input[type=number]").wait_for()
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")


def encode(path: Path, codec: str, rate_hz: int, samples: np.ndarray, samples_hz: int) -> None:
    """Samples (T,) in [-1, 1] into the container that the path's ending names."""
    frame = av.AudioFrame.from_ndarray((samples * 32_767).astype(np.int16)[None], format="s16", layout="mono")
    frame.sample_rate = samples_hz
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate_hz, layout="mono")
        resampler = av.AudioResampler(stream.format, "mono", rate_hz, frame_size=stream.frame_size)
        for piece in [*resampler.resample(frame), *resampler.resample(None), None]:
            container.mux(stream.encode(piece))
