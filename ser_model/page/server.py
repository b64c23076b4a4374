"""How the page takes files: those that its caller uploads, no others, and not without end."""

import errno
import logging
import math
import os
import re
import time
from contextlib import suppress
from contextvars import ContextVar
from pathlib import Path
from shutil import disk_usage
from threading import Thread
from urllib.parse import unquote
from uuid import uuid4

import gradio as gr
from gradio.exceptions import InvalidPathError
from gradio.route_utils import FnIndexInferError, GradioMultiPartParser
from gradio.utils import get_upload_folder
from gradio_client import utils as client_utils
from limits import RateLimitItem
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter
from pydantic import ValidationError
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from ..disk import FULL_DISK
from .texts import Say, Texts, language

REFUSED = "Only an uploaded file is taken, no URL and no path of the server: upload it first, to {prefix}/upload."
NO_FILE = 'A recording is {"path": PATH, "meta": {"_type": "gradio.FileData"}}, PATH being what the upload answered.'
MAX_UPLOAD_MB = 200  # 1.8 hours at 16 kHz in 16-bit wav, 3.6 as mp3 of 128 kbit/s
MAX_REQUEST_MB = 1000  # of all files that are uploaded together
MAX_CALL_MB = 4  # of what is no upload: names, choices, tables
MAX_FIELD_BYTES = 10_000  # of a form's field that is no file: the page sends none
NOT_HERE = "There is nothing here to ask for; the tab “For developers” of the page says what there is."
MALFORMED = "This call names no function of the page, or lacks what that needs; see its tab “For developers”."
OPEN_ROUTES = re.compile(r"/gradio_api/(upload|queue/join|cancel|reset|(?:run|call|call/v2|stream|mcp)/.+|mcp)/?$")
FETCH_ROUTES = re.compile(r"^[^=]*/(?:proxy=|file[=/]https?:)", re.IGNORECASE)  # a name of a file may hold more
FILE_ROUTE = "/gradio_api/file="
UPLOAD_ROUTE = "/gradio_api/upload"
RESERVE = 0.05  # of the disk, which uploads leave free: clips, a library and the system itself want some
MAX_RESERVE_MB = 1000  # of a large disk, which others may fill
ANSWER_ROUTE = re.compile(r"/gradio_api/call/(?:v2/)?[^/]+/([^/]+)$")  # of a call's event

logger = logging.getLogger(__name__)
asking: ContextVar[gr.Request | None] = ContextVar("asking", default=None)  # whose call is worked on


class UploadsOnly(gr.Blocks):
    """Blocks that fetch nothing for a caller. Gradio's own would download a URL, and name a path of the server in its
    refusal of one. `texts` is the page's.
    """

    texts: Texts

    async def process_api(self, *args, request: gr.Request | None = None, **kwargs):
        asking.set(request)
        try:
            return await super().process_api(*args, request=request, **kwargs)
        finally:
            with self.state_holder.lock:
                for kept in (self.state_holder.session_data, self.state_holder.time_last_used):
                    kept.pop(kwargs.get("event_id"), None)  # see `ForgetCalls`

    async def preprocess_data(self, block_fn, inputs, state, explicit_call=False):
        refusal = gr.Error(REFUSED.format(prefix="/gradio_api"), print_exception=False)

        def refuse_others(file: dict) -> dict:
            if client_utils.is_http_url_like(file.get("path")):
                _, route, upload = file["path"].partition(FILE_ROUTE)
                if not route:
                    raise refusal
                file |= {"path": unquote(upload), "url": None}  # MCP's uploads are called so; nothing is fetched
            try:
                os.stat(file["path"])
            except FileNotFoundError:
                pass  # an upload that was deleted, perhaps: told below
            except (OSError, ValueError) as error:  # too long for any file, or a NUL in it
                raise refusal from error
            except TypeError as error:
                raise gr.Error(NO_FILE, print_exception=False) from error
            return file

        client_utils.traverse(inputs, refuse_others, client_utils.is_file_obj_with_meta)
        # A caller may leave out what has a default.
        inputs = [*inputs, *(block.value for block in block_fn.inputs[len(inputs) :])]
        try:
            values = await super().preprocess_data(block_fn, inputs, state, explicit_call)
        except InvalidPathError as error:
            raise refusal from error
        except ValidationError as error:
            raise gr.Error(NO_FILE, print_exception=False) from error
        except gr.Error as error:  # a model that is not on offer, say: Gradio's sentence says which are
            raise gr.Error(error.message, print_exception=False) from error

        def expect(file: dict) -> dict:
            if not Path(file["path"]).exists():  # deleted while the page still showed it
                raise gr.Error(self.texts.say(asking.get(), "page.gone"), print_exception=False)
            return file

        client_utils.traverse(inputs, expect, client_utils.is_file_obj_with_meta)  # by now they are uploads
        return values


class UploadParser(GradioMultiPartParser):
    """Gradio's, which leaves on the disk what came of an upload that breaks off or finds no room, holds in memory what
    is no file, and gives two visitors who send the same file one copy, which goes when either deletes it.
    """

    async def parse(self):
        try:
            return await super().parse()
        except (OSError, HTTPException, ClientDisconnect):  # faults of the form itself it tidies up after
            for file in self._files_to_close_on_error:
                with suppress(OSError):  # a full disk, once more
                    file.close()
                Path(file.name).unlink(missing_ok=True)
            raise

    def on_headers_finished(self) -> None:
        super().on_headers_finished()
        if self._current_part.file is not None:
            self._current_part.file.sha.update(uuid4().bytes)  # names the folder

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        part = self._current_part
        if part.file is not None:
            return super().on_part_data(data, start, end)
        if len(part.data) + end - start > MAX_FIELD_BYTES:
            raise MultiPartException(f"A field that is no file may have {MAX_FIELD_BYTES} bytes.")
        part.data += data[start:end]


class Sending:
    """An answer's `send`, which knows whether the answer has begun: then no other may be sent."""

    def __init__(self, send):
        self.send, self.begun = send, False

    async def __call__(self, message):
        self.begun = True
        await self.send(message)


class FaultsInWords:
    """ASGI middleware for what a server cannot help: a full disk is said so, also where only the reserve is left; a
    clip that is deleted while it is asked for ends that answer alone, as not found where there is no answer yet; and
    whoever goes away in the middle of an upload gets none.
    """

    def __init__(self, app, texts: Texts):
        self.app, self.texts = app, texts

    async def __call__(self, scope, receive, send):
        sending = Sending(send)
        try:
            if scope.get("method") == "POST" and scope["path"].rstrip("/").endswith(UPLOAD_ROUTE):
                expect_room()
            await self.app(scope, receive, sending)
        except (FileNotFoundError, RuntimeError) as error:
            missing = error if isinstance(error, FileNotFoundError) else error.__context__  # Starlette wraps it
            if FILE_ROUTE not in scope.get("path", "") or not isinstance(missing, FileNotFoundError):
                raise
            logger.info("deleted while a browser asked for it: %s", missing.filename)
            if not sending.begun:
                await said(scope, 404, speaker(self.texts, scope)("page.gone"))(scope, receive, send)
        except ClientDisconnect:
            logger.info("an upload broke off")
        except OSError as error:
            if error.errno not in FULL_DISK:
                raise
            logger.error("no room for what a visitor uploads: %s", error)
            if not sending.begun:
                await said(scope, 507, speaker(self.texts, scope)("page.no_room"))(scope, receive, send)


def expect_room() -> None:
    """OSError if the uploads' disk has no more than its reserve free."""
    folder = Path(get_upload_folder())
    disk = disk_usage(next(path for path in (folder, *folder.parents) if path.exists()))
    if disk.free < min(RESERVE * disk.total, MAX_RESERVE_MB * 2**20):
        raise OSError(errno.ENOSPC, f"{disk.free / 2**20:.0f} MB of the disk are free", str(folder))


class Doors:
    """ASGI middleware: what the page and the API need is open to POST, for bodies that end; all else is closed, and so
    is what would fetch an address, to any method.

    Gradio has more routes, of which one hands a stranger's file to the program ffmpeg, and takes what it is sent.
    """

    def __init__(self, app, texts: Texts):
        self.app, self.texts = app, texts

    async def __call__(self, scope, receive, send):
        if scope["type"] == "http" and FETCH_ROUTES.search(scope["path"]):
            return await said(scope, 404, NOT_HERE)(scope, receive, send)
        if scope["type"] != "http" or scope["method"] != "POST":
            return await self.app(scope, receive, send)
        route = OPEN_ROUTES.search(scope["path"])
        if not route:
            return await said(scope, 404, NOT_HERE)(scope, receive, send)
        limit = 2**20 * (MAX_REQUEST_MB if route[1] == "upload" else MAX_CALL_MB)
        length = Headers(scope=scope).get("content-length", "0")
        too_large = speaker(self.texts, scope)("page.too_large", megabytes=limit // 2**20)
        if length.isdecimal() and int(length) > limit:
            return await said(scope, 413, too_large)(scope, receive, send)
        received = 0

        async def receiving():
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > limit:
                raise HTTPException(413, too_large)
            return message

        sending = Sending(send)
        try:
            await self.app(scope, receiving, sending)
        except (FnIndexInferError, KeyError, TypeError) as error:  # no such function, or no files in an upload
            if sending.begun:
                raise
            logger.info("a malformed call of %s: %r", scope["path"], error)
            await said(scope, 422, MALFORMED)(scope, receive, send)


def keep_swept(demo: gr.Blocks, spared: Path) -> None:
    """Delete old files from Gradio's folder for uploads, now and as often as Gradio does, which looks only for those
    that it took down: not for what a killed server has left, nor for what came by another field of a form.

    Args:
        spared: a folder in there whose files have lives of their own.
    """
    every_s, age_s = demo.delete_cache

    def sweep() -> None:
        while True:
            kept = {path for block in demo.blocks.values() for path in getattr(block, "keep_in_cache", ())}
            for folder, _, names in os.walk(demo.GRADIO_CACHE, topdown=False):
                if Path(folder).is_relative_to(spared):
                    continue
                for path in (*(os.path.join(folder, name) for name in names), folder):
                    with suppress(OSError):  # deleted meanwhile, or a folder that holds something
                        if path not in kept and time.time() - os.lstat(path).st_ctime > age_s:
                            os.rmdir(path) if path == folder else os.unlink(path)
            time.sleep(every_s)

    Thread(target=sweep, daemon=True).start()


class ForgetCalls:
    """ASGI middleware: of a call that is a session of its own, named as its event, nothing is kept once its answer is
    fetched. Nobody comes back to it, and what Gradio keeps of many would fill the memory. Its state, the most of it,
    has gone before, see `UploadsOnly.process_api`.
    """

    def __init__(self, app, demo: gr.Blocks):
        self.app, self.demo = app, demo

    async def __call__(self, scope, receive, send):
        try:
            await self.app(scope, receive, send)
        finally:
            if fetched := ANSWER_ROUTE.search(scope.get("path", "")):
                queue, event_id = self.demo._queue, fetched[1]
                if not queue.pending_event_ids_session.get(event_id):
                    for kept in (queue.pending_event_ids_session, queue.pending_messages_per_session):
                        kept.pop(event_id, None)


class RateLimit:
    """ASGI middleware: of one address, uploads and calls beyond `rate` are answered 429, with a Retry-After.

    The address is uvicorn's: behind a proxy that FORWARDED_ALLOW_IPS trusts, the one that the proxy names.
    """

    def __init__(self, app, rate: RateLimitItem, texts: Texts):
        self.app, self.rate, self.texts = app, rate, texts
        self.limiter = MovingWindowRateLimiter(MemoryStorage())

    async def __call__(self, scope, receive, send):
        address = (scope.get("client") or ("unknown",))[0]
        if scope["type"] != "http" or scope["method"] != "POST" or self.limiter.hit(self.rate, address):
            return await self.app(scope, receive, send)
        left_s = self.limiter.get_window_stats(self.rate, address).reset_time - time.time()
        seconds = max(1, math.ceil(left_s))
        words = speaker(self.texts, scope)("page.too_many_requests", seconds=seconds)
        await said(scope, 429, words, {"Retry-After": str(seconds)})(scope, receive, send)


def speaker(texts: Texts, scope) -> Say:
    """In the language of whoever asks."""
    return texts.speaker(language(Request(scope)))


def said(scope, status: int, words: str, headers: dict[str, str] | None = None) -> Response:
    """Gradio's page and clients read "detail" or "error"; but of an upload the page shows whatever came."""
    if scope["path"].rstrip("/").endswith(UPLOAD_ROUTE):
        return PlainTextResponse(words, status, headers)
    return JSONResponse({"detail": words, "error": words}, status, headers)
