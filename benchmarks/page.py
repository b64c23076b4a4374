"""How long a visitor waits: from start to first paint, and for an answer through the API.

    python -m benchmarks.page

The real server and Chromium on this machine. "Served" is the first answered request after `python app.py`; then a page
is loaded, while the server still loads its model. An answer is a call of /predict by `gradio_client`, upload included.
"""

import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from gradio_client import Client, handle_file

from .recording import ROOT, write_recording

sys.path.append(str(ROOT / "tests"))

from serving import chromium, running_app, running_browser  # noqa: E402

RUNS, WARM_UP, CLIP_S, RATE_HZ = 100, 5, 4.0, 48_000
PAINT_MS = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime"


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, running_browser(chromium()) as browser:
        clip = write_recording(Path(folder) / "clip.wav", CLIP_S, RATE_HZ)
        started = time.perf_counter()
        with running_app(Path(folder)) as url:
            served_s = time.perf_counter() - started
            page = browser.new_page()
            page.goto(url)
            page.locator("#submit").wait_for()
            painted_ms = page.wait_for_function(PAINT_MS).json_value()
            usable_ms = page.evaluate("performance.now()")
            page.close()
            client = Client(url, verbose=False, analytics_enabled=False)
            answers_ms = [answer_ms(client, clip) for _ in range(WARM_UP + RUNS)][WARM_UP:]
    rows = {
        "start to served": f"{served_s:.1f} s",
        "page load to first contentful paint": f"{painted_ms:.0f} ms",
        "page load to usable": f"{usable_ms:.0f} ms",
        f"answer for {CLIP_S:.0f} s, median of {RUNS}": f"{statistics.median(answers_ms):.0f} ms",
        f"answer for {CLIP_S:.0f} s, 95th percentile": f"{np.percentile(answers_ms, 95):.0f} ms",
    }
    print("| what | time |\n| --- | --- |")
    for what, measured in rows.items():
        print(f"| {what} | {measured} |")


def answer_ms(client: Client, clip: Path) -> float:
    before = time.perf_counter()
    answer = client.predict(handle_file(clip), api_name="/predict")
    assert answer["duration_s"] == CLIP_S and answer["status"] == "voice", answer["message"]
    return 1000 * (time.perf_counter() - before)


if __name__ == "__main__":
    main()
