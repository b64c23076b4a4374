"""What strangers may send to the server, and what becomes of it."""

import asyncio
import errno
import socket
import time
from contextlib import suppress
from types import SimpleNamespace

import gradio as gr
import httpx
import numpy as np
import pytest
import soundfile
from gradio.context import LocalContext
from serving import ROOT, running_app

from ser_model.page.context import Page
from ser_model.page.live import MAX_SAMPLES, MAX_WAITING, piece
from ser_model.page.server import (
    ANSWER_ROUTE,
    FETCH_ROUTES,
    MAX_CALL_MB,
    MAX_FIELD_BYTES,
    OPEN_ROUTES,
    Doors,
    FaultsInWords,
)
from ser_model.page.texts import Texts
from torture.page import answer_of


@pytest.fixture(scope="module")
def uploads(tmp_path_factory):
    """Where the server keeps uploads; another one, that was killed, has left a recording there. The folder around it
    holds what is not the page's.
    """
    folder = tmp_path_factory.mktemp("server") / "uploads" / "ser_model_page"
    (folder / "0123").mkdir(parents=True)
    (folder / "0123" / "left.wav").write_bytes(b"a voice")
    (folder.parent / "library.db").write_bytes(b"many voices")
    return folder


@pytest.fixture(scope="module")
def client(uploads):
    with running_app(uploads.parents[1], {"SER_KEPT_S": "1"}) as url, httpx.Client(base_url=url, timeout=60) as client:
        yield client


def wait_until_gone(path):
    give_up = time.monotonic() + 60
    while path.exists():
        assert time.monotonic() < give_up, f"{path} is still there"
        time.sleep(0.1)


def test_what_a_killed_server_has_left_is_deleted(client, uploads):
    wait_until_gone(uploads / "0123" / "left.wav")


def test_a_file_in_another_field_of_the_form_is_deleted_too(client, uploads):
    assert client.post("/gradio_api/upload", files={"other": ("a.wav", b"a voice")}).json() == []
    for path in [path for path in uploads.rglob("*") if path.is_file()]:
        wait_until_gone(path)
    assert (uploads.parent / "library.db").exists()


@pytest.mark.parametrize("route", ["process_recording", "component_server", "vibe-edit", "api/predict", "nothing"])
def test_routes_that_the_page_does_not_need_are_closed(client, route):
    answer = client.post(f"/gradio_api/{route}", json={"data": []})
    assert answer.status_code == 404 and "nothing here to ask for" in answer.json()["detail"]


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
@pytest.mark.parametrize(
    "route", ["gradio_api/file=", "gradio_api/file/", "gradio_api/proxy=", "a/prefix/file=", "FILE="]
)
def test_no_route_fetches_an_address(client, method, route):
    for address in ("https://voices.invalid/voice.wav", "HTTP://voices.invalid/voice.wav"):
        answer = client.request(method, f"/{route}{address}")
        assert answer.status_code == 404
        assert method == "HEAD" or "nothing here to ask for" in answer.json()["detail"]


def test_the_page_comes_compressed_and_a_recording_as_it_is(client):
    page = client.get("/")
    assert page.headers["content-encoding"] == "gzip"
    assert int(page.headers["content-length"]) < len(page.content) / 4
    [path] = client.post("/gradio_api/upload", files={"files": ("a.wav", bytes(4000))}).json()
    whole = client.get(f"/gradio_api/file={path}")
    assert "content-encoding" not in whole.headers and whole.content == bytes(4000)
    part = client.get(f"/gradio_api/file={path}", headers={"Range": "bytes=1000-1999"})  # a player that seeks
    assert part.status_code == 206 and part.headers["content-range"] == "bytes 1000-1999/4000"


def test_an_upload_is_heard_whatever_its_name():
    assert not FETCH_ROUTES.search("/gradio_api/file=/tmp/0123/proxy=file=https.wav")


def test_calls_may_not_pass_the_queue_by(client):
    answer = client.post("/gradio_api/run/predict", json={"data": [None, "ser-cnn-8"]})
    assert answer.status_code == 404 and "queue" in answer.json()["detail"]


def test_few_live_streams_may_wait_for_a_place_and_calls_are_answered(tmp_path):
    one_place = "import ser_model.page.live\nser_model.page.live.VISITORS = 1"
    with running_app(tmp_path, before=one_place) as url, httpx.Client(base_url=url, timeout=60) as client:
        events = client.get("/config").json()["dependencies"]
        [live] = [event["id"] for event in events if event["connection"] == "stream"]

        def join(session: str) -> httpx.Response:
            asked = {"fn_index": live, "session_hash": session, "data": [None, None, 50]}
            return client.post("/gradio_api/queue/join", json=asked, headers={"accept-language": "de"})

        assert join("first").status_code == 200
        answers = [join(f"{number}") for number in range(40)]
        assert sum(answer.status_code == 200 for answer in answers) <= MAX_WAITING + 1  # the first may not sit yet
        assert {answer.status_code for answer in answers[MAX_WAITING + 1 :]} == {503}
        assert "Alle Plätze zum Live-Zuhören sind belegt." in answers[-1].json()["detail"]
        clip = ROOT / "examples" / "synthetic_calm_voice.flac"
        assert answer_of(url, clip.name, clip.read_bytes())["status"] == "voice"


@pytest.mark.parametrize("chunked", [False, True])
def test_a_call_without_end_is_refused(client, chunked):
    body = b'{"data": ["' + b"x" * (MAX_CALL_MB * 2**20) + b'"]}'
    content = iter([body[: len(body) // 2], body[len(body) // 2 :]]) if chunked else body
    headers = {"Content-Type": "application/json", "Accept-Language": "de"}
    answer = client.post("/gradio_api/call/predict", content=content, headers=headers)
    assert answer.status_code == 413 and f"mehr als die {MAX_CALL_MB}\u00a0MB" in answer.json()["detail"]


def test_the_same_file_of_two_visitors_is_two_files(client):
    sent = [client.post("/gradio_api/upload", files={"files": ("a.wav", b"a voice")}).json() for _ in range(2)]
    assert sent[0] != sent[1] and all(path.endswith("/a.wav") for [path] in sent)


def test_an_upload_that_breaks_off_leaves_nothing(client, uploads):
    head = "POST /gradio_api/upload HTTP/1.1\r\nHost: x\r\nContent-Length: 9000000\r\n"
    head += "Content-Type: multipart/form-data; boundary=b\r\n\r\n"
    part = '--b\r\nContent-Disposition: form-data; name="files"; filename="a.wav"\r\n\r\n'
    with socket.create_connection((client.base_url.host, client.base_url.port)) as connection:
        connection.sendall(f"{head}{part}".encode() + bytes(1_000_000))
        give_up = time.monotonic() + 60
        while not (begun := list(uploads.glob("tmp*"))):
            assert time.monotonic() < give_up, "nothing arrives"
            time.sleep(0.01)
    for path in begun:
        wait_until_gone(path)


@pytest.mark.parametrize("query", ["", "?upload_id=0"])
def test_a_field_without_end_is_not_held_in_memory(client, query):
    answer = client.post(f"/gradio_api/upload{query}", files={"files": (None, "x" * (MAX_FIELD_BYTES + 1))})
    assert answer.status_code == 400 and "A field that is no file" in answer.text


@pytest.mark.parametrize(
    ("route", "body"),
    [
        ("call/no_such_function", {"json": {"data": []}}),
        ("queue/join", {"json": {"data": [], "fn_index": 9999, "session_hash": "s"}}),
        ("upload", {"files": {"files": (None, "text")}}),
    ],
)
def test_malformed_calls_get_a_sentence(client, route, body):
    answer = client.post(f"/gradio_api/{route}", **body)
    assert answer.status_code == 422 and "names no function of the page" in answer.text


@pytest.mark.parametrize("prefix", ["", "/a/prefix"])
@pytest.mark.parametrize(
    "route", ["upload", "queue/join", "call/predict", "run/predict/", "stream/e/close", "mcp/http"]
)
def test_what_the_page_needs_is_open(prefix, route):
    assert OPEN_ROUTES.search(f"{prefix}/gradio_api/{route}")


@pytest.mark.parametrize(
    ("door", "fault", "status"),
    [(Doors, KeyError("no such"), 422), (FaultsInWords, OSError(errno.ENOSPC, "full"), 507)],
)
@pytest.mark.parametrize("begun", [False, True])
def test_a_fault_is_answered_only_where_no_answer_has_begun(door, fault, status, begun):
    sent = []

    async def failing(scope, receive, send):
        if begun:
            await send({"type": "http.response.start", "status": 200, "headers": []})
        raise fault

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/gradio_api/call/predict", "headers": []}
    with suppress(KeyError):  # a fault of ours, once the answer has begun
        asyncio.run(door(failing, Texts())(scope, None, send))
    statuses = [message["status"] for message in sent if message["type"] == "http.response.start"]
    assert statuses == [200 if begun else status]


@pytest.mark.parametrize("route", ["call/predict/e1", "call/v2/predict/e1"])
def test_an_answer_is_known_by_its_event(route):
    assert ANSWER_ROUTE.search(f"/a/prefix/gradio_api/{route}")[1] == "e1"


def test_a_piece_of_a_live_voice_is_plain_sound(tmp_path):
    rng = np.random.default_rng(0)
    samples = rng.integers(-3000, 3000, (4000, 1)).astype(np.int16)
    soundfile.write(tmp_path / "piece.wav", samples, 48_000)
    rate, heard = piece(str(tmp_path / "piece.wav"))
    assert rate == 48_000
    np.testing.assert_array_equal(heard, samples)
    soundfile.write(tmp_path / "long.flac", np.zeros((MAX_SAMPLES, 2), np.int16), 48_000)
    assert piece(str(tmp_path / "long.flac"))[1].size == MAX_SAMPLES


def test_a_playlist_opens_no_file_of_the_server(tmp_path):
    soundfile.write(tmp_path / "secret.wav", np.zeros(4000, np.int16), 16_000)
    playlist = tmp_path / "x.m3u8"
    playlist.write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile://{tmp_path}/secret.wav\n#EXT-X-ENDLIST\n")
    with pytest.raises(soundfile.LibsndfileError):
        piece(str(playlist))


@pytest.mark.parametrize("cancelled", [True, False])
def test_work_ends_once_its_visitor_has_cancelled_it_or_left(cancelled):
    event = SimpleNamespace(_id="1", alive=True)
    events = {"1": event}
    context = Page(SimpleNamespace(_queue=SimpleNamespace(event_ids_to_events=events)), *[None] * 7)
    context.gives_up()(10.0, 600.0)  # of nobody's: Gradio does not say whose
    told = LocalContext.event_id.set("1")
    try:
        give_up = context.gives_up()
        give_up(10.0, 600.0)
        if cancelled:
            events.clear()
        else:
            event.alive = False
        with pytest.raises(gr.Error, match="nobody waits"):
            give_up(20.0, 600.0)
    finally:
        LocalContext.event_id.reset(told)
