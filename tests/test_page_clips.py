"""The tab "My clips": this visitor's list, on the page and on the disk, and nobody else's."""

import asyncio
import csv
import gc
import io
import re
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import serving
from playwright.sync_api import Page, expect
from serving import ROOT, open_settings, submit, upload
from starlette.responses import FileResponse

from ser_model.audio import AudioError
from ser_model.inference import Prediction
from ser_model.page import clips as clips_module
from ser_model.page.clips import forget, remember
from ser_model.page.server import FaultsInWords
from ser_model.page.texts import Texts

ANSWER = "confidence"
CALM, LIVELY = (ROOT / "examples" / f"synthetic_{name}_voice.flac" for name in ("calm", "lively"))


# ── Without a browser ──


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """Where Gradio keeps uploads; the clips of this test go below it."""
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    clips_module.own_folder.cache_clear()
    yield tmp_path
    clips_module.own_folder.cache_clear()


def tone(seconds: float = 0.5) -> np.ndarray:
    return np.sin(np.arange(round(16_000 * seconds)) / 10).astype(np.float32)


def put(clips: list, sound=None, **options) -> None:
    answer = Prediction("voice", "", 0.5, 0.5, "calm", 0.9, {"calm": 0.9, "sad": 0.1})
    remember(clips, answer, tone() if sound is None else sound, name="a.wav", model="m", **options)


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def test_a_clip_lives_as_long_as_its_entry(folder):
    clips = []
    for _ in range(3):
        put(clips)
    assert len(files(folder)) == 3
    forget(clips, clips[:1])
    forget(clips, [clips[0], clips[0]])
    assert len(clips) == 1 and files(folder) == [clips[0].path.name]
    clips.clear()  # as when Gradio drops a session without a word
    gc.collect()
    assert files(folder) == []


def test_an_upload_goes_with_the_last_clip_of_anybody(folder):
    (upload := folder / "hash" / "a.flac").parent.mkdir()
    upload.write_bytes(CALM.read_bytes())
    mine, hers = [], []
    put(mine, upload)
    put(hers, upload)
    forget(mine)
    assert upload.exists() and hers[0].path.exists()
    forget(hers)
    assert files(folder) == []


def test_the_garbage_collector_may_delete_a_clip_while_another_is_counted(folder, monkeypatch):
    class Collecting(Counter):
        def __setitem__(self, key, value):
            gc.collect()
            super().__setitem__(key, value)

    lost, mine = folder / "lost.flac", folder / "mine.flac"
    for path in (lost, mine):
        path.write_bytes(CALM.read_bytes())
    put(session := [], lost)
    session.append(session)  # garbage that only the collector finds
    counts = Collecting({lost: 1})
    monkeypatch.setattr(clips_module, "_uploads", counts)
    monkeypatch.setattr(clips_module, "_counting", type(clips_module._counting)())  # one that hangs hangs here alone
    del session
    clips = []
    thread = threading.Thread(target=put, args=(clips, mine), daemon=True)
    thread.start()
    thread.join(10)
    assert not thread.is_alive() and counts == {mine: 1} and not lost.exists()


def test_a_sound_that_can_be_read_no_more_leaves_no_file(folder):
    clips = []
    with pytest.raises(AudioError):
        put(clips, folder / "deleted.wav")
    assert clips == [] and files(folder) == []


def test_a_clip_is_kept_after_another_server_swept_the_empty_folder_away(folder):
    clips = []
    clips_module.own_folder().rmdir()
    put(clips)
    assert files(folder) == [clips[0].path.name]


def test_an_example_of_the_repository_stays(folder):
    clips = []
    put(clips, CALM)
    forget(clips)
    assert CALM.exists() and files(folder) == []


def test_the_oldest_makes_room(folder, monkeypatch):
    monkeypatch.setattr(clips_module, "MAX_CLIPS", 2)
    clips = []
    for _ in range(3):
        put(clips)
    assert len(clips) == len(files(folder)) == 2
    monkeypatch.setattr(clips_module, "MAX_BYTES", clips[-1].size_bytes + 1)
    put(clips)
    assert len(clips) == len(files(folder)) == 1


# ── In a browser ──


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A server's address, and the folder of its uploads."""
    folder = tmp_path_factory.mktemp("site")
    with serving.running_app(folder) as url:
        yield url, folder / "uploads"


@pytest.fixture
def page(browser, site):
    with serving.visit(browser, site[0]) as page:
        yield page


def recordings(site) -> list[Path]:
    """What the server's disk holds of anybody's voice."""
    return [path for path in site[1].rglob("*") if path.suffix in (".flac", ".wav", ".m4a", ".zip")]


def analyse(page: Page, path: Path) -> None:
    page.get_by_role("tab", name="Try it").click()
    if page.get_by_label("Clear").count():
        page.get_by_label("Clear").first.click()
    upload(page, path)
    submit(page, ANSWER)


def open_clips(page: Page, count: int) -> None:
    page.get_by_role("tab", name="My clips").click()
    expect(page.locator("#clips-list tbody tr")).to_have_count(count)


def empty(page: Page) -> None:
    """Delete all, and wait until it is said."""
    page.locator("#clips-delete-all").click()
    page.locator("#clips-delete-surely").click()
    expect(page.locator("#clips-happened")).to_contain_text("All your clips are deleted.")
    expect(page.locator("#clips-list")).to_contain_text("Nothing here yet.")


@pytest.mark.browser
def test_list_listen_compare_download_and_delete(page, site):
    analyse(page, CALM)
    analyse(page, LIVELY)
    open_clips(page, 2)
    first_row = page.locator("#clips-list tbody tr").first
    expect(first_row).to_contain_text(LIVELY.name)
    expect(page.locator("#clips-intro")).to_contain_text("within 70 minutes")  # as the foot of the page says
    expect(page.locator("#clips-intro")).to_contain_text("Reloading the page empties this list")
    expect(page.locator("#clips-chosen-heard .bars dt")).to_have_count(8)
    expect(page.locator("#clips-beside-heard .bars dt")).to_have_count(0)
    page.locator("#clips-beside input").click()
    page.get_by_role("option", name=CALM.name).click()
    expect(page.locator("#clips-beside-heard .bars dt")).to_have_count(8)
    expect(page.locator("#clips-beside-heard").get_by_role("img", name=CALM.name)).to_be_visible()
    expect(page.locator("#clips-chosen-heard").get_by_role("img", name=LIVELY.name)).to_be_visible()
    for side in ("chosen", "beside"):  # two models are on offer
        expect(page.locator(f"#clips-{side}-answer .model")).to_have_text("ser-cnn-8")
    assert page.locator("#clips-beside input").input_value().endswith(" · ser-cnn-8")
    with page.expect_download() as downloading:
        page.locator("#clips-csv a").click()
    rows = list(csv.DictReader(io.StringIO(Path(downloading.value.path()).read_text("utf-8-sig"))))
    assert [row["name"] for row in rows] == [CALM.name, LIVELY.name]
    assert all(row["model"] == "ser-cnn-8" and float(row["confidence"]) > 0.1 for row in rows)
    assert [row["note"] for row in rows] == ["" if float(row["confidence"]) >= 0.5 else "not sure" for row in rows]

    assert len(recordings(site)) == 4  # each as it was uploaded, and as the list plays it
    page.locator("#clips-delete").click()
    expect(page.locator("#clips-happened")).to_have_text(f"“{LIVELY.name}” is deleted.")
    expect(page.locator("#clips-list tbody tr")).to_have_count(1)
    assert len(recordings(site)) == 2 and not any(path.name == LIVELY.name for path in recordings(site))
    empty(page)
    assert recordings(site) == []
    page.get_by_role("tab", name="Try it").click()  # and nothing of it is left to see there
    expect(page.locator("#status")).to_contain_text("Record a sentence or choose a file")
    expect(page.locator("#recording audio[data-testid]")).to_have_count(0)


@pytest.mark.browser
def test_the_threshold_rewords_the_list_and_what_was_heard(page):
    analyse(page, LIVELY)
    open_clips(page, 1)
    row, answer = page.locator("#clips-list tbody tr"), page.locator("#clips-chosen-answer")
    open_settings(page)
    number = page.locator("#threshold input[type=number]")
    for threshold, unsure in (("0", False), ("100", True)):
        number.fill(threshold)
        number.press("Tab")  # by keyboard alone
        for place, words in ((row, "not sure"), (answer, "Not sure.")):
            expect(place).to_contain_text(words) if unsure else expect(place).not_to_contain_text(words)
    empty(page)


@pytest.mark.browser
def test_two_visitors_at_once_see_their_own(browser, site):
    with serving.visit(browser, site[0]) as hers, serving.visit(browser, site[0]) as his:
        analyse(hers, CALM)
        analyse(his, LIVELY)
        analyse(his, CALM)
        open_clips(hers, 1)
        open_clips(his, 2)
        expect(hers.locator("#clips-list")).to_contain_text(CALM.name)
        expect(hers.locator("#clips-list")).not_to_contain_text(LIVELY.name)
        empty(his)
        hers.get_by_role("tab", name="Try it").click()
        assert len(recordings(site)) == 2
        hers.locator("#submit").click()  # the file that both had sent is still hers
        open_clips(hers, 2)
        empty(hers)
    assert recordings(site) == []


@pytest.mark.browser
def test_the_clip_is_heard_again(page):
    analyse(page, CALM)
    open_clips(page, 1)
    expect(page.locator("#clips-chosen-player")).to_contain_text("0:05")
    empty(page)


@pytest.mark.browser
def test_it_fits_a_phone(page):
    page.set_viewport_size({"width": 390, "height": 844})
    analyse(page, CALM)
    page.get_by_role("tab", name="My clips").click()
    expect(page.locator("#clips-chosen-heard .bars dt")).to_have_count(8)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    seen = [page.locator("#clips-chosen-heard .pictures svg")]
    seen += [page.locator("#clips-list tbody td").nth(place) for place in range(3)]  # number, emotion and confidence
    boxes = [element.bounding_box() for element in seen]
    assert max(box["x"] + box["width"] for box in boxes) <= 390
    expect(seen[-1]).to_have_text(re.compile("[0-9]+"))
    empty(page)


@pytest.mark.browser
def test_all_clips_go_only_when_asked_twice_and_no_keyboard_is_left_at_the_top(page):
    analyse(page, CALM)
    open_clips(page, 1)
    every, surely, no = (page.locator(f"#clips-delete-{name}") for name in ("all", "surely", "not"))
    every.focus()
    for _ in range(2):  # asks, and the other answer takes it back
        page.keyboard.press("Enter")
        expect(no).to_be_focused()
        page.keyboard.press("Enter")
        expect(every).to_be_focused()
    expect(page.locator("#clips-list tbody tr")).to_have_count(1)
    page.keyboard.press("Enter")
    expect(no).to_be_focused()
    surely.press("Enter")
    expect(page.locator("#clips-happened")).to_contain_text("All your clips are deleted.")
    expect(page.get_by_role("tab", name="My clips")).to_be_focused()


@pytest.mark.browser
def test_a_server_that_stops_leaves_no_voice_on_the_disk(browser, tmp_path):
    with serving.running_app(tmp_path) as url, serving.visit(browser, url) as page:
        analyse(page, CALM)
        open_clips(page, 1)
        assert list((tmp_path / "uploads").rglob("*.flac"))
    assert list((tmp_path / "uploads").rglob("*.flac")) == []


def test_a_clip_that_is_deleted_before_it_is_sent_is_not_found(tmp_path):
    clip = tmp_path / "clip.flac"
    scope = {"type": "http", "method": "GET", "path": f"/gradio_api/file={clip}", "headers": []}
    sent = []

    async def send(message):
        sent.append(message)

    with ThreadPoolExecutor() as thread:  # Playwright's loop runs in this one
        thread.submit(asyncio.run, FaultsInWords(FileResponse(clip), Texts())(scope, None, send)).result()
        assert sent[0]["status"] == 404 and b"deleted" in sent[1]["body"]
        with pytest.raises(RuntimeError, match="does not exist"):  # elsewhere it is a fault
            elsewhere = scope | {"path": "/gradio_api/upload"}
            thread.submit(asyncio.run, FaultsInWords(FileResponse(clip), Texts())(elsewhere, None, send)).result()


def test_a_clip_that_is_deleted_while_it_is_sent_ends_one_answer_and_no_more(tmp_path, caplog):
    clip = tmp_path / "clip.flac"
    clip.write_bytes(CALM.read_bytes())

    async def deleting(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        clip.unlink()
        clip.read_bytes()

    sent = []

    async def send(message):
        sent.append(message["type"])

    with caplog.at_level("INFO"):
        with pytest.raises(StopIteration):  # it comes to its end; Playwright's loop runs here, so not asyncio.run
            FaultsInWords(deleting, Texts())({"path": f"/gradio_api/file={clip}"}, None, send).send(None)
        assert sent == ["http.response.start"] and "clip.flac" in caplog.text
        clip.touch()
        with pytest.raises(FileNotFoundError):  # elsewhere a missing file is a fault, and is heard of
            FaultsInWords(deleting, Texts())({"path": "/gradio_api/upload"}, None, send).send(None)
