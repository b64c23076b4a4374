"""The page for programs: the calls it shows, MCP, a path prefix, what is left on the disk."""

import base64
import http.client
import json
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from gradio_client import Client, handle_file
from serving import ROOT, free_port, running_app, submit, upload, visit

from ser_model.page.developers import ADDRESS, SNIPPETS
from torture.page import call

CLIP = ROOT / "examples" / "synthetic_calm_voice.flac"


@pytest.fixture(scope="module")
def expected(server) -> dict:
    return Client(server, verbose=False, analytics_enabled=False).predict(handle_file(CLIP), api_name="/predict")


@pytest.mark.parametrize("language", ["python", "shell"])
def test_what_developers_paste_runs(server, language):
    runner = {"python": [sys.executable, "-c"], "shell": ["bash", "-c"]}[language]
    code = SNIPPETS[language].replace(ADDRESS, server)
    done = subprocess.run([*runner, code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "voice" in done.stdout


@pytest.mark.browser
def test_what_developers_paste_into_a_browser_runs_and_names_this_server(page, server, expected):
    page.get_by_role("tab", name="For developers").click()
    page.locator("#code-javascript", has_text=server).wait_for()
    assert ADDRESS not in page.locator("#code-python").inner_text()
    code = SNIPPETS["javascript"].replace(ADDRESS, server)
    clip = base64.b64encode(CLIP.read_bytes()).decode()
    answer = page.evaluate(
        code + f"; fetch('data:audio/flac;base64,{clip}').then((sound) => sound.blob()).then(predict)"
    )
    assert (answer["status"], answer["label"]) == (expected["status"], expected["label"])


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
    with running_app(tmp_path, {"GRADIO_ROOT_PATH": "/voice"}) as url:
        Proxy.backend = url
        port = free_port()
        proxy = ThreadingHTTPServer(("127.0.0.1", port), Proxy)
        threading.Thread(target=proxy.serve_forever, daemon=True).start()
        try:
            with visit(browser, f"http://127.0.0.1:{port}/voice/") as page:
                upload(page, clips / "clip.wav")
                submit(page, "This voice sounds")
                page.get_by_role("tab", name="For developers").click()
                page.locator("#code-python", has_text=f"http://127.0.0.1:{port}/voice").wait_for()
        finally:
            proxy.shutdown()
