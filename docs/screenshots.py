"""Make the pictures of the page again: `make screenshots`. Needs Chromium; the voices are those of examples/."""

import sys
import tempfile
from pathlib import Path

import numpy as np
import soundfile

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT / "tests"))

from serving import chromium, running_app, running_browser, submit, upload, visit  # noqa: E402

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
        recording = write_recording(Path(folder) / "pause.flac")
        for name, options in PICTURES.items():
            with visit(browser, url, **options) as page:
                upload(page, recording)
                submit(page, "%")
                page.locator(".over-time").wait_for()
                # else the player says 0:00 / 0:00
                page.wait_for_function("document.querySelector('.over-time audio').readyState >= 1")
                page.screenshot(path=ROOT / "docs" / name, full_page=True)


def write_recording(path: Path) -> Path:
    """An angry voice twice, with a pause between."""
    angry, rate = soundfile.read(ROOT / "examples" / "synthetic_angry_voice.flac")
    soundfile.write(path, np.concatenate([angry, np.zeros(3 * rate), angry]), rate)
    return path


if __name__ == "__main__":
    main()
