"""The page for programs: the calls it shows, MCP, a path prefix, what is left on the disk."""

import base64
import http.client
import json
import os
import re
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from pathlib import Path
from shutil import disk_usage
from urllib.parse import urlsplit

import httpx
import numpy as np
import pytest
import soundfile
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from playwright.sync_api import expect
from serving import ROOT, free_port, running_app, submit, upload, visit

from ser_model.page.developers import ADDRESS, FILE, SNIPPETS
from ser_model.page.server import MAX_UPLOAD_MB
from ser_model.page.texts import LANGUAGES, Texts
from torture.faults import fill, small_disk
from torture.page import answer_of, call
from torture.recordings import tone, with_soundfile

CLIP = ROOT / "examples" / "synthetic_calm_voice.flac"


@pytest.fixture(scope="module")
def expected(server) -> dict:
    return Client(server, verbose=False, analytics_enabled=False).predict(handle_file(CLIP), api_name="/predict")


@pytest.mark.parametrize("language", ["python", "shell"])
def test_what_developers_paste_runs(server, language, tmp_path):
    runner = {"python": [sys.executable, "-c"], "shell": ["bash", "-c"]}[language]
    soundfile.write(tmp_path / FILE, *soundfile.read(CLIP))
    code = SNIPPETS[language].replace(ADDRESS, server)
    done = subprocess.run([*runner, code], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    predicted, segments, counts = re.split(r"(?=\[{'start_s|event: complete|{'judged)", done.stdout)[-3:]
    assert "voice" in predicted and "start_s" in segments and "judged" in counts


@pytest.mark.browser
def test_what_developers_paste_into_a_browser_runs_and_names_this_server(page, server, expected):
    page.get_by_role("tab", name="For developers").click()
    page.locator("#code-javascript", has_text=server).wait_for()
    assert ADDRESS not in page.locator("#code-python").inner_text()
    code = SNIPPETS["javascript"].replace(ADDRESS, server)
    clip = base64.b64encode(CLIP.read_bytes()).decode()
    asked = "Promise.all([predict(clip), timeline(clip), batch([clip, clip])])"
    predicted, over_time, several = page.evaluate(
        f"{code}; fetch('data:audio/flac;base64,{clip}').then((sound) => sound.blob()).then((clip) => {asked})"
    )
    assert predicted["label"] == over_time["segments"][0]["emotion"] == expected["label"]
    assert predicted["sure"] is over_time["sure"] is several["rows"][0]["sure"] is expected["sure"]
    assert several["summary"] == {"judged": 2, "failed": 0, "emotions": {expected["label"]: 2}}


@pytest.mark.parametrize("language", LANGUAGES)
def test_developers_are_told_every_field_of_an_answer(server, expected, language):
    client = Client(server, verbose=False, analytics_enabled=False)
    several = client.predict([handle_file(CLIP)], api_name="/batch")
    over_time = client.predict(handle_file(CLIP), api_name="/timeline")
    answers = [expected, over_time, over_time["segments"][0], several, several["rows"][0], several["summary"]]
    named = re.findall("`/?([a-z_]+)`", Texts().speaker(language)("developers.fields", models=""))
    assert {field for answer in answers for field in answer} <= {*named, "emotions"}


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_code_can_be_read_in_light_and_in_dark(browser, server, scheme):
    with visit(browser, server, color_scheme=scheme) as page:
        expect(page.get_by_text("Use via API")).to_have_count(0)  # Gradio's page shows calls that are refused here
        page.get_by_role("tab", name="For developers").click()
        page.locator("#code-python .cm-line span").first.wait_for()
        expect(page.locator("#code-python .cm-gutters")).to_be_hidden()
        ground, *colours = page.evaluate(COLOURS)
        for colour in colours:
            pale, dark = sorted(map(luminance, (colour, ground)), reverse=True)
            assert (pale + 0.05) / (dark + 0.05) >= 4.5, (colour, ground)


# Of what lies behind the code, and of each of its words.
COLOURS = """() => {
  let ground = document.querySelector("#code-python .cm-editor");
  while (getComputedStyle(ground).backgroundColor === "rgba(0, 0, 0, 0)") ground = ground.parentElement;
  const words = [...document.querySelectorAll("#code-python .cm-content *")];
  return [getComputedStyle(ground).backgroundColor, ...new Set(words.map((word) => getComputedStyle(word).color))];
}"""


def luminance(colour: str) -> float:
    """Of "rgb(30, 41, 59)", 0 to 1, as https://www.w3.org/TR/WCAG22/#dfn-relative-luminance defines it."""
    shares = [int(number) / 255 for number in re.findall("[0-9]+", colour)[:3]]
    linear = [share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4 for share in shares]
    return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))


def test_a_model_that_is_not_on_offer_is_refused_in_words(server):
    client = Client(server, verbose=False, analytics_enabled=False)
    with pytest.raises(AppError, match="nobody is not in the list of choices: .*ser-cnn-8"):  # and the log stays clean
        client.predict(handle_file(CLIP), "nobody", api_name="/predict")


def test_an_upload_is_gone_from_the_disk_after_the_stated_time(tmp_path):
    with running_app(tmp_path, {"SER_KEPT_S": "3"}) as url:
        upload = f"curl -sF files=@{CLIP} {url}/gradio_api/upload"
        [path] = json.loads(subprocess.run(upload, shell=True, capture_output=True, check=True).stdout)
        assert Path(path).read_bytes() == CLIP.read_bytes()
        give_up = time.monotonic() + 60
        while Path(path).exists():
            assert time.monotonic() < give_up
            time.sleep(0.5)
        # The page may still show it: whoever asks about it is told, in words of their own.
        with httpx.Client(base_url=url, headers={"accept-language": "de"}, timeout=60) as client:
            called = client.post("/gradio_api/call/predict", json=call(path)).json()["event_id"]
            told = client.get(f"/gradio_api/call/predict/{called}").text
        assert told.startswith("event: error") and "liegt nicht mehr auf dem Server" in told


MEMORY = """
import sys
import time
from pathlib import Path
from ser_model.page import build_demo, launch
from ser_model.page.models import Models
from torture.page import answer_of

def visit():
    for _ in range(3):
        assert isinstance(answer_of(demo.local_url.rstrip("/"), "clip.flac", Path(sys.argv[1]).read_bytes()), dict)
    queue, states = demo._queue, demo.state_holder
    kept = queue.pending_messages_per_session, queue.pending_event_ids_session, states.session_data
    give_up = time.monotonic() + 20
    while any(kept) and time.monotonic() < give_up:  # a call is forgotten once its answer has gone out
        time.sleep(0.1)
    print(*map(len, kept))

models = Models(["checkpoints/ser-cnn-8"])
demo = build_demo(models)
demo.block_thread = visit
launch(demo, models)
"""


def test_calls_leave_nothing_in_the_servers_memory(tmp_path):
    settings = os.environ | {"GRADIO_SERVER_PORT": str(free_port()), "GRADIO_TEMP_DIR": str(tmp_path)}
    command = [sys.executable, "-c", MEMORY, str(CLIP)]
    done = subprocess.run(command, cwd=ROOT, env=settings, capture_output=True, text=True, timeout=120)
    assert done.stdout.splitlines()[-1:] == ["0 0 0"], done.stderr


def test_one_address_may_not_ask_without_end_but_others_may(tmp_path):
    """On a Space; what a visitor says of himself stands before what its proxy says of him."""
    settings = {"SER_RATE": "3/minute", "SPACE_ID": "her/ser"}
    with running_app(tmp_path, settings) as url, httpx.Client(base_url=url, timeout=60) as client:
        forged = count(1)

        def ask(visitor: str, language: str = "en") -> httpx.Response:
            files = {"files": ("clip.flac", CLIP.read_bytes())}
            headers = {"x-forwarded-for": f"198.51.100.{next(forged)}, {visitor}", "accept-language": language}
            return client.post("/gradio_api/upload", files=files, headers=headers)

        answers = [ask("192.0.2.1") for _ in range(4)]
        assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
        seconds = answers[-1].headers["retry-after"]
        assert 1 <= int(seconds) <= 60 and f"Try again in {seconds} s" in answers[-1].text
        assert "Von Ihrer Adresse kamen zu viele Anfragen" in ask("192.0.2.1", "de-AT,de").text
        assert ask("192.0.2.2").status_code == 200
        assert client.get("/", headers={"x-forwarded-for": "192.0.2.1"}).status_code == 200


def test_an_upload_beyond_the_limit_is_turned_away_with_413(server, tmp_path):
    large = tmp_path / "large.wav"
    with large.open("wb") as file:
        file.truncate((MAX_UPLOAD_MB + 1) * 2**20)
    with large.open("rb") as file:
        answer = httpx.post(f"{server}/gradio_api/upload", files={"files": ("large.wav", file)}, timeout=60)
    assert answer.status_code == 413 and "size" in answer.text


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a small disk")
def test_uploads_leave_a_reserve_on_the_disk(tmp_path):
    content = with_soundfile(tone(16_000, 1.0), 16_000)
    with small_disk(tmp_path / "disk") as disk, running_app(disk) as url:
        fill(disk, left_kb=1000)  # room for thirty of them, but less than a twentieth of the disk
        assert answer_of(url, "clip.wav", content).startswith("507 ")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a small disk")
def test_a_full_disk_is_told_and_the_next_upload_served_once_there_is_room(tmp_path):
    content = with_soundfile(tone(48_000, 30.0), 48_000)  # more than is held in memory
    with small_disk(tmp_path / "disk") as disk, running_app(disk, {"TMPDIR": str(disk)}) as url:
        fill(disk, left_kb=100)
        assert answer_of(url, "clip.wav", content).startswith("507 ") and "no room" in answer_of(url, "a.wav", content)
        (disk / "filler").unlink()
        used = disk_usage(disk).used
        assert answer_of(url, "clip.wav", content)["status"] == "no_voice"
        assert used < 2**20  # nothing of what did not fit is left
        fill(disk, left_kb=2000)  # more than the reserve, so that the system itself says it
        free = disk_usage(disk).free
        assert answer_of(url, "b.wav", content).startswith("507 ")
        assert disk_usage(disk).free > free - 2**16  # nor is anything of this one


@pytest.mark.parametrize(
    ("setting", "told"),
    [({"SER_RATE": "many"}, "SER_RATE is 'many'; give a rate"), ({"SER_KEPT_S": "1h"}, "SER_KEPT_S is '1h'; give")],
)
def test_a_setting_that_is_none_is_told_at_the_start(setting, told):
    command, settings = [sys.executable, "app.py"], os.environ | setting
    done = subprocess.run(command, cwd=ROOT, env=settings, capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.startswith(told)


class Proxy(BaseHTTPRequestHandler):
    """A host that serves the page below /voice, as a reverse proxy does."""

    backend: str

    def forward(self) -> None:
        if not self.path.startswith("/voice/"):
            return self.send_error(404)
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        connection = http.client.HTTPConnection(urlsplit(self.backend).netloc)
        connection.request(self.command, self.path.removeprefix("/voice") or "/", body, dict(self.headers))
        answer = connection.getresponse()
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("transfer-encoding", "connection"):
                self.send_header(name, value)
        self.end_headers()
        while piece := answer.read1(65_536):
            self.wfile.write(piece)
            self.wfile.flush()

    do_GET = do_POST = do_HEAD = forward

    def log_message(self, *_) -> None:
        pass


@pytest.mark.browser
def test_behind_a_path_prefix(browser, clips, tmp_path):
    with running_app(tmp_path, {"GRADIO_ROOT_PATH": "/voice", "SER_MCP": "1"}) as url:
        Proxy.backend = url
        port = free_port()
        proxy = ThreadingHTTPServer(("127.0.0.1", port), Proxy)
        threading.Thread(target=proxy.serve_forever, daemon=True).start()
        try:
            with visit(browser, f"http://127.0.0.1:{port}/voice/") as page:
                upload(page, clips / "clip.wav")
                submit(page, "This voice sounds")
                page.get_by_role("tab", name="For developers").click()
                for language, path in (("python", ""), ("json", "/gradio_api/mcp/")):
                    page.locator(f"#code-{language}", has_text=f"http://127.0.0.1:{port}/voice{path}").wait_for()
        finally:
            proxy.shutdown()
