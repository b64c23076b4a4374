"""How the page takes files: those that its caller uploads, and no others."""

import logging
from contextvars import ContextVar
from pathlib import Path

import gradio as gr
from gradio.exceptions import InvalidPathError
from gradio_client import utils as client_utils

from .texts import Texts

REFUSED = "Only an uploaded file is taken, no URL and no path of the server: upload it first, to {prefix}/upload."

FILE_ROUTE = "/gradio_api/file="

logger = logging.getLogger(__name__)
asking: ContextVar[gr.Request | None] = ContextVar("asking", default=None)  # whose call is worked on


class UploadsOnly(gr.Blocks):
    """Blocks that fetch nothing for a caller. Gradio's own would download a URL, and name a path of the server in its
    refusal of one. `texts` is the page's.
    """

    texts: Texts

    async def process_api(self, *args, request: gr.Request | None = None, **kwargs):
        asking.set(request)
        return await super().process_api(*args, request=request, **kwargs)

    async def preprocess_data(self, block_fn, inputs, state, explicit_call=False):
        refusal = gr.Error(REFUSED.format(prefix="/gradio_api"), print_exception=False)

        def refuse_url(file: dict) -> dict:
            if client_utils.is_http_url_like(file.get("path")):
                raise refusal
            return file

        client_utils.traverse(inputs, refuse_url, client_utils.is_file_obj_with_meta)
        # A caller may leave out what has a default.
        inputs = [*inputs, *(block.value for block in block_fn.inputs[len(inputs) :])]
        try:
            values = await super().preprocess_data(block_fn, inputs, state, explicit_call)
        except InvalidPathError as error:
            raise refusal from error

        def expect(file: dict) -> dict:
            if not Path(file["path"]).exists():  # deleted while the page still showed it
                raise gr.Error(self.texts.say(asking.get(), "page.gone"), print_exception=False)
            return file

        client_utils.traverse(inputs, expect, client_utils.is_file_obj_with_meta)  # by now they are uploads
        return values


class DeletedMeanwhile:
    """ASGI middleware: a clip that is deleted between the headers of an answer and its sound ends that answer alone."""

    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        try:
            await self.app(scope, receive, send)
        except FileNotFoundError as error:
            if FILE_ROUTE not in scope.get("path", ""):
                raise
            logger.info("deleted while a browser asked for it: %s", error.filename)
