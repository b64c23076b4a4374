"""Make the pictures of the page again: `make screenshots`. Needs Chromium; the voices are those of examples/."""

import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT / "tests"))

from serving import chromium, running_app, running_browser, submit, upload, visit  # noqa: E402

RECORDING = ROOT / "examples" / "synthetic_changing_voice.flac"
# name -> options of the browser's page
PICTURES = {
    "page.png": {"viewport": {"width": 1280, "height": 800}, "color_scheme": "light"},
    "page-phone.png": {"viewport": {"width": 390, "height": 800}, "color_scheme": "dark", "locale": "es-ES"},
}


def main() -> None:
    with (
        tempfile.TemporaryDirectory() as folder,
        running_app(Path(folder)) as url,
        running_browser(chromium()) as browser,
    ):
        for name, options in PICTURES.items():
            with visit(browser, url, **options) as page:
                upload(page, RECORDING)
                submit(page, "%")
                page.locator(".over-time").wait_for()
                # else the player says 0:00 / 0:00
                page.wait_for_function("document.querySelector('.over-time audio').readyState >= 1")
                page.screenshot(path=ROOT / "docs" / name, full_page=True)


if __name__ == "__main__":
    main()
