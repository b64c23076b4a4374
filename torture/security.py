"""What a stranger may try through the page's HTTP API: files of the server, fetches, calls that make no sense."""

import json
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote

import httpx

from ser_model.page.server import NOT_HERE

from .page import PATIENCE_S, served
from .report import Part

ROOT = Path(__file__).resolve().parent.parent
SECRET = "the secret beside the server"
TOKEN = "hf_" + "thisIsNoTokenOfAnybody" * 2
ENDPOINTS = {"predict": False, "timeline": False, "batch": True}  # whether it takes a list of files
NO_CALLS = (
    [5],
    ["voice.wav"],
    [None],
    [],
    [[]],
    [{}],
    [True],
    [{"path": 5}],
    [{"path": ""}],
    ["x"] * 50,
    {},
    "x",
    5,
    None,
)
ROUTES = ("/gradio_api/file={}", "/file={}", "/gradio_api/file/{}", "/static/{}", "/assets/{}", "/svelte/{}", "/{}")
PROXIES = ("/gradio_api/proxy={}", "/proxy={}", "/gradio_api/file={}", "/file={}")
ABROAD = "https://voices.invalid/voice.wav"  # Gradio itself asks no machine nearby, but others


@contextmanager
def trap() -> Iterator[tuple[str, list[str]]]:
    """A web server on this machine that nobody should be made to ask: its address, and what was asked of it."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_error(404)

        do_HEAD = do_POST = do_GET

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/voice.wav", asked
    finally:
        server.shutdown()
        server.server_close()


def paths_to(secret: Path) -> list[str]:
    """Ways to name a file that the server could read."""
    link = secret.with_name("link.wav")
    link.symlink_to(secret)
    absolute = str(secret)
    upwards = "../" * 12 + absolute.lstrip("/")
    return [
        absolute,
        upwards,
        f"./{upwards}",
        f"file://{absolute}",
        f"file:{absolute}",
        quote(absolute, safe=""),
        quote(quote(upwards, safe=""), safe=""),
        upwards.replace("../", "..%2f"),
        upwards.replace("../", "....//"),
        upwards.replace("/", "\\"),
        f"{absolute}\0.wav",
        f"/{absolute}",
        str(link),
        str(secret.parent / "uploads" / ".." / secret.name),
        "/proc/self/environ",
        "/proc/self/cwd/app.py",
        str(ROOT / "app.py"),
        "/" + "a" * 300,
        "/a" * 3000,
        "",
    ]


def run() -> Iterator[Part]:
    with tempfile.TemporaryDirectory() as folder, trap() as (address, asked):
        secret = Path(folder) / "secret.txt"
        secret.write_text(SECRET, encoding="utf-8")
        paths = paths_to(secret)
        addresses = [address, address.replace("http://", "HTTP://"), address.replace("127.0.0.1", "localhost")]
        with (
            served(Path(folder), {"HF_TOKEN": TOKEN}) as (url, _),
            httpx.Client(base_url=url, timeout=PATIENCE_S) as client,
        ):
            answers = {
                "a file named in a call": [text for path in paths for text in called(client, {"path": path})],
                "a file asked for by its address": [
                    client.get(route.format(path.replace("\0", "%00"))).text for path in paths for route in ROUTES
                ],
                "calls that make no sense": [
                    text for data in NO_CALLS for endpoint in ENDPOINTS for text in answers_to(client, endpoint, data)
                ],
                "an address to fetch, named in a call": [
                    text
                    for address in addresses
                    for file in ({"path": address}, {"path": "voice.wav", "url": address}, {"url": address})
                    for text in called(client, file)
                ],
                "an address to fetch, behind one of ours": [
                    client.get(route.format(address)).text for address in [*addresses, ABROAD] for route in PROXIES
                ],
            }
        log = (Path(folder) / "log.txt").read_text(encoding="utf-8")
    rows, problems = [], []
    for what, texts in answers.items():
        given = sum(any(word in text for word in (SECRET, TOKEN, "SER_KEPT_S")) for text in texts)
        faults = sum("Traceback" in text or '"error": null' in text for text in texts)
        rows.append((what, f"{len(texts)} tries, {given} of them were given it"))
        problems += [f"{what}: {given} were given it"] * bool(given)
        problems += [f"{what}: {faults} without a word of why"] * bool(faults)
    tried = [text for text in answers["an address to fetch, behind one of ours"] if NOT_HERE not in text]
    problems += [f"not refused, perhaps fetched: {text[:80]}" for text in tried]
    rows.append(("requests that the server made for somebody", str(len(asked))))
    problems += [f"the server fetched {path}" for path in asked]
    problems += [f"{what} in the log" for what in (TOKEN, SECRET, "Traceback") if what in log]
    yield Part("What is not a visitor's own", rows, problems)


def called(client: httpx.Client, file: dict) -> Iterator[str]:
    """What each endpoint says of a file that was not uploaded."""
    file = file | {"meta": {"_type": "gradio.FileData"}}
    for endpoint, many in ENDPOINTS.items():
        yield from answers_to(client, endpoint, [[file] if many else file])


def answers_to(client: httpx.Client, endpoint: str, data: object) -> Iterator[str]:
    begun = client.post(f"/gradio_api/call/{endpoint}", json={"data": data})
    yield begun.text
    if begun.is_success:
        yield client.get(f"/gradio_api/call/{endpoint}/{json.loads(begun.text)['event_id']}").text
