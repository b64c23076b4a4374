"""The tab "Library": only where the host wants one, said plainly, and what a visitor can do in it."""

import contextlib
import os
import shlex
import subprocess
import sys
import zipfile
from datetime import UTC, datetime
from pathlib import Path

import httpx
import numpy as np
import pytest
import serving
from playwright.sync_api import Page, expect
from serving import ROOT, submit, upload

from ser_model.library import store
from ser_model.library.errors import LibraryError
from ser_model.library.store import Library
from ser_model.page.library import PAGE_SIZE, REASONS, failure, training_command
from ser_model.page.texts import LANGUAGES, Texts
from ser_model.settings import load_settings

CALM = ROOT / "examples" / "synthetic_calm_voice.flac"


@pytest.fixture(scope="module")
def database(tmp_path_factory) -> str:
    """A library that others have filled."""
    url = f"sqlite:///{tmp_path_factory.mktemp('library')}/library.db"
    with contextlib.closing(Library(url)) as library:
        for number in range(PAGE_SIZE + 2):
            label = ("sad", "angry")[number % 2]
            sound = np.sin(np.arange(16_000) / (10 + number))
            library.add(sound, 16_000, name=f"{number}.wav", model="m", label=label, scores={"sad": 0.4, "angry": 0.6})
    return url


@pytest.fixture(scope="module")
def server(tmp_path_factory, database):
    with serving.running_app(tmp_path_factory.mktemp("server"), {"SER_LIBRARY_URL": database}) as url:
        yield url


def open_library(page: Page) -> None:
    page.get_by_role("tab", name="Library").click()
    expect(page.locator("#library-list tbody tr").first).to_be_visible()


def test_the_training_command_says_every_label(tmp_path):
    words = shlex.split(training_command(["no", "very angry", "sad"]))
    config = ROOT / words[words.index("--config") + 1]
    names = words[words.index("--labels.names") :][:2]
    assert load_settings(config, names).labels["names"] == ["no", "very angry", "sad"]


def test_what_a_visitor_can_meet_is_said_in_every_language(database):
    with contextlib.closing(Library(database)) as library:
        met = [LibraryError(store.FAULTS[fault], fault) for fault in ("busy", "away", "full")]
        for act in (
            lambda: library.check_duration(store.MAX_CLIP_S + 1),
            lambda: library.get(10**6),
            lambda: library.correct(1, "!"),
        ):
            with pytest.raises(LibraryError) as caught:
                act()
            met.append(caught.value)
    texts = Texts()
    said = {language: {failure(texts.speaker(language), error) for error in met} for language in LANGUAGES}
    assert all(len(sentences) == len(met) == len(REASONS) for sentences in said.values())
    assert not said["de"] & said["en"] and not any("library" in sentence for sentence in said["de"])
    assert any("10 Minuten" in sentence for sentence in said["de"])
    assert "may only be read" in failure(
        texts.speaker("de"), LibraryError(store.FAULTS["read_only"], "read_only")
    )  # for the host


@pytest.mark.parametrize("url", ["mysql://ser:secret@localhost/x", "sqlite:////nowhere/library.db"])
def test_a_library_that_cannot_be_had_stops_the_start_in_one_sentence(url):
    environment = os.environ | {"SER_LIBRARY_URL": url}
    done = subprocess.run([sys.executable, "app.py"], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 1 and "secret" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1 and "SER_LIBRARY_URL" in done.stderr


@pytest.mark.parametrize("word", ["nowhere", "now - x", "2026-02-31"])
def test_what_is_no_day_gets_a_sentence(server, word):
    with httpx.Client(base_url=f"{server}/gradio_api", timeout=60) as client:
        config = client.get(f"{server}/config").json()
        ids = {part["props"].get("elem_id"): part["id"] for part in config["components"]}
        search = next(event["id"] for event in config["dependencies"] if ids["library-since"] in event["inputs"])
        asked = {"fn_index": search, "session_hash": word, "data": [None, word, None, None, None]}
        assert client.post("/queue/join", json=asked).status_code == 200
        with client.stream("GET", "/queue/data", params={"session_hash": word}) as answer:
            last = next(line for line in answer.iter_lines() if "process_completed" in line)
        assert "A day is written like 2026-01-31." in last


@pytest.mark.browser
def test_without_a_url_there_is_no_library(browser, tmp_path):
    with serving.running_app(tmp_path, {"SER_LIBRARY_URL": ""}) as url, serving.visit(browser, url) as page:
        expect(page.get_by_role("tab", name="My clips")).to_be_visible()
        expect(page.get_by_role("tab", name="Library")).to_have_count(0)
        expect(page.locator("#clips-keep")).to_have_count(0)


@pytest.mark.browser
def test_a_clip_is_kept_on_request_corrected_and_deleted(page, database):
    upload(page, CALM)
    submit(page, "confidence")
    with contextlib.closing(Library(database)) as library:
        before = library.find().total
        page.get_by_role("tab", name="My clips").click()
        for said in ("where everyone who opens this page can hear it", "in the library already"):
            page.locator("#clips-keep").click()
            expect(page.locator("#clips-happened")).to_contain_text(said)
        assert library.find().total == before + 1
        open_library(page)
        expect(page.locator("#library-notice")).to_contain_text("The library is on.")
        expect(page.locator("#library-notice")).to_contain_text("everyone who opens this page can see, hear, correct")
        expect(page.locator("#library-list tbody tr").first).to_contain_text(CALM.name)
        page.wait_for_function("document.querySelector('#library-player audio')?.duration > 4.5")

        page.locator("#library-label input").fill("bored")
        page.keyboard.press("Enter")
        page.locator("#library-correct").click()
        expect(page.locator("#library-happened")).to_contain_text("The correction is saved.")
        expect(page.locator("#library-list tbody tr").first).to_contain_text("bored")
        assert library.find("bored").clips[0].name == CALM.name

        page.locator("#library-delete").click()
        page.locator("#library-delete-not").click()
        page.locator("#library-delete").click()
        page.locator("#library-delete-surely").click()
        expect(page.locator("#library-happened")).to_contain_text("deleted from the library")
        expect(page.locator("#library-list")).not_to_contain_text(CALM.name)
        assert library.find().total == before


@pytest.mark.browser
def test_search_by_emotion_and_day_and_turn_the_page(page):
    open_library(page)
    rows = page.locator("#library-list tbody tr")
    expect(rows).to_have_count(PAGE_SIZE)
    expect(page.locator("#library-newer")).to_be_disabled()
    page.locator("#library-older").click()
    expect(rows).to_have_count(2)
    page.locator("#library-newer").click()
    expect(rows).to_have_count(PAGE_SIZE)
    page.locator("#library-emotion input").click()
    page.get_by_role("option", name="sad (").click()
    expect(rows).to_have_count((PAGE_SIZE + 2) // 2)
    page.locator("#library-until input").first.fill("2020-02-29")
    page.locator("#library-search").click()
    expect(page.locator("#library-list")).to_contain_text("No clips found.")
    today = datetime.now(UTC).date().isoformat()  # not when the tests began, which may be before midnight
    page.locator("#library-until input").first.fill(today)
    page.locator("#library-since input").first.fill(today)
    page.locator("#library-search").click()
    expect(rows).to_have_count((PAGE_SIZE + 2) // 2)
    page.locator("#library-since input").first.fill("2026-02-31")
    page.locator("#library-search").click()
    expect(page.locator("#library-list")).to_contain_text("A day is written like 2026-01-31.")


@pytest.mark.browser
def test_the_export_is_downloaded_with_the_command_that_trains_on_it(page):
    open_library(page)
    page.set_viewport_size({"width": 390, "height": 844})
    page.locator("#library-export").click()
    expect(page.locator("#library-how code")).to_contain_text("""--labels.names '["angry", "sad"]'""")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    with page.expect_download() as downloading:
        page.locator("#library-download").click()
    assert downloading.value.suggested_filename == "library.zip"
    with zipfile.ZipFile(Path(downloading.value.path())) as archive:
        names = archive.namelist()
    assert len(names) == PAGE_SIZE + 2
    assert {name.split("/")[1] for name in names} == {"angry", "sad"} and names[0].startswith("library/")
