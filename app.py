"""The Space: a page and an API that name the emotion in a voice.

`python app.py` serves it. Settings are environment variables: Gradio's own (GRADIO_SERVER_NAME, GRADIO_SERVER_PORT,
GRADIO_ROOT_PATH, ...), SER_MODELS (folders or Hub ids, separated by commas; SER_MODEL for one), SER_LIBRARY_URL,
SER_MCP=1 (the API as MCP tools) and SER_KEPT_S (seconds until an upload is deleted).
"""

import os
from importlib.util import find_spec
from pathlib import Path

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read at import: nothing of a visitor leaves this machine

CHECKPOINTS = Path(__file__).parent / "checkpoints"


def main() -> None:
    from ser_model.library.errors import LibraryError
    from ser_model.page import KEPT_S, build_demo, launch
    from ser_model.page.developers import mcp_is_on
    from ser_model.page.models import ModelError, Models, checkpoints

    if mcp_is_on() and find_spec("mcp") is None:
        raise SystemExit("SER_MCP=1 needs the package mcp: install it with pip install 'gradio[mcp]'.")
    named = os.environ.get("SER_MODELS") or os.environ.get("SER_MODEL")
    sources = [source.strip() for source in named.split(",")] if named else checkpoints(CHECKPOINTS)
    try:
        models = Models(sources)
        demo = build_demo(models, os.environ.get("SER_LIBRARY_URL"), int(os.environ.get("SER_KEPT_S", KEPT_S)))
    except (ModelError, LibraryError) as error:
        raise SystemExit(str(error)) from error
    launch(demo, models)


if __name__ == "__main__":
    main()
