"""How the page takes files: those that its caller uploads, and no others."""

import gradio as gr
from gradio.exceptions import InvalidPathError
from gradio_client import utils as client_utils

REFUSED = "Only an uploaded file is taken, no URL and no path of the server: upload it first, to {prefix}/upload."


class UploadsOnly(gr.Blocks):
    """Blocks that fetch nothing for a caller. Gradio's own would download a URL, and name a path of the server in its
    refusal of one.
    """

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
            return await super().preprocess_data(block_fn, inputs, state, explicit_call)
        except InvalidPathError as error:
            raise refusal from error
