"""The Space: a page and an API that name the emotion in a voice.

`python app.py` serves it. Settings are environment variables: Gradio's own (GRADIO_SERVER_NAME, GRADIO_SERVER_PORT,
GRADIO_ROOT_PATH, ...), SER_MODELS (folders or Hub ids, separated by commas; SER_MODEL for one), SER_LIBRARY_URL,
SER_MCP=1 (the API as MCP tools), SER_KEPT_S (seconds until an upload is deleted) and SER_RATE (how often one address
may ask: "6000/minute"; empty for no limit).
"""

import os
import tempfile
from importlib.util import find_spec
from pathlib import Path

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read at import: nothing of a visitor leaves this machine

# Gradio makes a table of its last events, 10 000 of them, after each one, for a monitoring that is off here.
os.environ.setdefault("GRADIO_ANALYTICS_MAX_EVENTS", "1")

if "SPACE_ID" in os.environ:  # reached through its proxies alone; who is before them is the visitor
    os.environ.setdefault("FORWARDED_ALLOW_IPS", "127.0.0.1,10.0.0.0/8")

# A folder of our own in the one that is set, for old files in it are deleted, whoever left them.
os.environ["GRADIO_TEMP_DIR"] = str(Path(os.environ.get("GRADIO_TEMP_DIR") or tempfile.gettempdir()) / "ser_model_page")

CHECKPOINTS = Path(__file__).parent / "checkpoints"


def main() -> None:
    from limits import parse

    from ser_model.library.errors import LibraryError
    from ser_model.page import KEPT_S, RATE, build_demo, launch
    from ser_model.page.developers import mcp_is_on
    from ser_model.page.models import ModelError, Models, checkpoints

    if mcp_is_on() and find_spec("mcp") is None:
        raise SystemExit("MCP is on and needs the package mcp: install it with pip install 'gradio[mcp]'.")
    kept_s, rate = os.environ.get("SER_KEPT_S", str(KEPT_S)), os.environ.get("SER_RATE", RATE)
    if not (kept_s.isdecimal() and int(kept_s)):
        raise SystemExit(f"SER_KEPT_S is {kept_s!r}; give seconds above 0, such as 3600.")
    try:
        limit = parse(rate) if rate else None
    except ValueError as error:
        raise SystemExit(f"SER_RATE is {rate!r}; give a rate such as {RATE}, or nothing for no limit.") from error
    named = os.environ.get("SER_MODELS") or os.environ.get("SER_MODEL")
    sources = [source.strip() for source in named.split(",") if source.strip()] if named else checkpoints(CHECKPOINTS)
    try:
        models = Models(sources)
        launch(build_demo(models, os.environ.get("SER_LIBRARY_URL"), int(kept_s)), models, limit)
    except (ModelError, LibraryError) as error:
        raise SystemExit(str(error)) from error


if __name__ == "__main__":
    main()
