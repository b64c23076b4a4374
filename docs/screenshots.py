"""Make the pictures of the page again: `make screenshots`. Needs Chromium; the voice is one of examples/."""

import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from playwright.sync_api import sync_playwright

ROOT = Path(__file__).resolve().parent.parent
CLIP = ROOT / "examples" / "synthetic_lively_voice.flac"
WIDTHS_PX = {"page.png": 1280, "page-phone.png": 390}


def main() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    server = subprocess.Popen([sys.executable, "app.py"], cwd=ROOT, env=os.environ | {"GRADIO_SERVER_PORT": str(port)})
    try:
        wait_for(url)
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
            )
            for name, width_px in WIDTHS_PX.items():
                page = browser.new_page(viewport={"width": width_px, "height": 800}, color_scheme="light")
                page.goto(url)
                page.locator("#recording input[type=file]").set_input_files(CLIP)
                page.get_by_role("button", name="Submit").click()
                page.get_by_text("This voice sounds").wait_for()
                page.locator("#pictures svg").first.wait_for()
                page.screenshot(path=ROOT / "docs" / name, full_page=True)
            browser.close()
    finally:
        server.terminate()
        server.wait()


def wait_for(url: str, timeout_s: float = 60) -> None:
    deadline_s = time.monotonic() + timeout_s
    while time.monotonic() < deadline_s:
        try:
            urlopen(url).close()
            return
        except URLError:
            time.sleep(0.3)
    sys.exit(f"the page did not answer at {url} within {timeout_s:.0f} s")


if __name__ == "__main__":
    main()
