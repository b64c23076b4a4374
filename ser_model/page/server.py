"""How the page takes files: those that its caller uploads, no others, and not without end."""

import logging
import math
import os
import re
import time
from contextvars import ContextVar
from pathlib import Path

import gradio as gr
from gradio.exceptions import InvalidPathError
from gradio_client import utils as client_utils
from limits import RateLimitItem
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter
from pydantic import ValidationError
from starlette.responses import JSONResponse

from ..disk import FULL_DISK
from .texts import Texts

REFUSED = "Only an uploaded file is taken, no URL and no path of the server: upload it first, to {prefix}/upload."
NO_FILE = 'A recording is {"path": PATH, "meta": {"_type": "gradio.FileData"}}, PATH being what the upload answered.'
TOO_MANY = "Too many requests came from this address. Try again in {seconds} s."
GONE = "This recording was deleted."
NO_ROOM = "The server has no room for this recording. Try again later."
FILE_ROUTE = "/gradio_api/file="
ANSWER_ROUTE = re.compile(r"/gradio_api/call/[^/]+/([^/]+)$")  # of a call's event

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
                raise refusal
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

        def expect(file: dict) -> dict:
            if not Path(file["path"]).exists():  # deleted while the page still showed it
                raise gr.Error(self.texts.say(asking.get(), "page.gone"), print_exception=False)
            return file

        client_utils.traverse(inputs, expect, client_utils.is_file_obj_with_meta)  # by now they are uploads
        return values


class FaultsInWords:
    """ASGI middleware for what a server cannot help: a full disk is said so, and a clip that is deleted while it is
    asked for ends that answer alone, as not found where there is no answer yet.
    """

    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        begun = False

        async def sending(message):
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self.app(scope, receive, sending)
        except (FileNotFoundError, RuntimeError) as error:
            missing = error if isinstance(error, FileNotFoundError) else error.__context__  # Starlette wraps it
            if FILE_ROUTE not in scope.get("path", "") or not isinstance(missing, FileNotFoundError):
                raise
            logger.info("deleted while a browser asked for it: %s", missing.filename)
            if not begun:
                await said(404, GONE)(scope, receive, send)
        except OSError as error:
            if error.errno not in FULL_DISK:
                raise
            logger.error("no room for what a visitor uploads: %s", error)
            await said(507, NO_ROOM)(scope, receive, send)


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

    def __init__(self, app, rate: RateLimitItem):
        self.app, self.rate, self.limiter = app, rate, MovingWindowRateLimiter(MemoryStorage())

    async def __call__(self, scope, receive, send):
        address = (scope.get("client") or ("unknown",))[0]
        if scope["type"] != "http" or scope["method"] != "POST" or self.limiter.hit(self.rate, address):
            return await self.app(scope, receive, send)
        left_s = self.limiter.get_window_stats(self.rate, address).reset_time - time.time()
        seconds = max(1, math.ceil(left_s))
        answer = said(429, TOO_MANY.format(seconds=seconds), {"Retry-After": str(seconds)})
        await answer(scope, receive, send)


def said(status: int, words: str, headers: dict[str, str] | None = None) -> JSONResponse:
    """Gradio's page and clients read "detail" or "error"."""
    return JSONResponse({"detail": words, "error": words}, status, headers)
