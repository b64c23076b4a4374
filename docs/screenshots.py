"""Make the pictures of the page again: `make screenshots`. Needs Chromium; the voice is one of examples/."""

import shutil
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT / "tests"))

from serving import running_app, running_browser, submit, upload, visit  # noqa: E402

CLIP = ROOT / "examples" / "synthetic_lively_voice.flac"
WIDTHS_PX = {"page.png": 1280, "page-phone.png": 390}


def main() -> None:
    chromium = shutil.which("chromium") or sys.exit(
        "this needs the program chromium; on Debian: apt-get install chromium"
    )
    with (
        tempfile.TemporaryDirectory() as folder,
        running_app(Path(folder)) as url,
        running_browser(chromium) as browser,
    ):
        for name, width_px in WIDTHS_PX.items():
            with visit(browser, url, viewport={"width": width_px, "height": 800}, color_scheme="light") as page:
                upload(page, CLIP)
                submit(page, "sounds")
                page.locator("#pictures svg").first.wait_for()
                page.screenshot(path=ROOT / "docs" / name, full_page=True)


if __name__ == "__main__":
    main()
