"""The page as a program meets it: `app.py` in a process of its own, asked over HTTP."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
from anyio.from_thread import start_blocking_portal

sys.path.append(str(Path(__file__).resolve().parent.parent / "tests"))

from serving import running_app  # noqa: E402

PATIENCE_S = 120.0


@contextmanager
def served(folder: Path, settings: dict[str, str] | None = None) -> Iterator[tuple[str, psutil.Process]]:
    """Where the page is, and its process; its uploads and its log.txt go below `folder`.

    One address may ask without limit: all visitors come from this one.
    """
    before = set(psutil.Process().children())
    with running_app(folder, {"SER_RATE": ""} | (settings or {})) as url:
        (server,) = set(psutil.Process().children()) - before
        yield url, server


def memory_mib(server: psutil.Process) -> float:
    return server.memory_info().rss / 2**20


def answer_of(url: str, name: str, content: bytes) -> dict | str:
    """Of one visitor alone."""

    async def alone() -> dict | str:
        async with httpx.AsyncClient(base_url=url, timeout=PATIENCE_S) as client:
            return await answer_among(client, name, content)

    with start_blocking_portal() as portal:  # a thread of its own: the caller may live in a loop, as with Playwright
        return portal.call(alone)


def is_answered(answer: dict | str) -> bool:
    """Whether an emotion was named, and not only a sentence said."""
    return isinstance(answer, dict) and answer["status"] == "voice"


async def answer_among(client: httpx.AsyncClient, name: str, content: bytes) -> dict | str:
    """Upload, call, wait: the answer of /predict, or the words in which the server declined."""
    uploaded = await client.post("/gradio_api/upload", files={"files": (name, content)})
    if uploaded.is_error:
        return f"{uploaded.status_code} {uploaded.text}"
    called = await client.post("/gradio_api/call/predict", json=call(uploaded.json()[0]))
    if called.is_error:
        return f"{called.status_code} {called.text}"
    async with client.stream("GET", f"/gradio_api/call/predict/{called.json()['event_id']}") as stream:
        return answer_in([line async for line in stream.aiter_lines()])


def call(path: str) -> dict:
    return {"data": [{"path": path, "meta": {"_type": "gradio.FileData"}}]}


def answer_in(lines) -> dict | str:
    """Of the server-sent events that follow a call."""
    event = ""
    for line in lines:
        key, _, value = line.partition(": ")
        if key == "event":
            event = value
        elif key == "data" and event in ("complete", "error"):
            return json.loads(value)[0] if event == "complete" else value
    return "the stream ended without an answer"
