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
import soundfile
from playwright.sync_api import Page, expect
from serving import ROOT, open_settings, submit, upload

from ser_model.library import store
from ser_model.library.errors import LibraryError
from ser_model.library.store import Library
from ser_model.page.library import PAGE_SIZE, REASONS, failure, training_command
from ser_model.page.texts import LANGUAGES, Texts
from ser_model.settings import load_settings

CHECKED = 4  # of the clips in the library
CALM = ROOT / "examples" / "synthetic_calm_voice.flac"


@pytest.fixture(scope="module")
def database(tmp_path_factory) -> str:
    """A library that others have filled."""
    url = f"sqlite:///{tmp_path_factory.mktemp('library')}/library.db"
    with contextlib.closing(Library(url)) as library:
        for number in range(PAGE_SIZE + 2):
            label = ("sad", "angry")[number % 2]
            sound = np.sin(np.arange(16_000) / (10 + number))
            scores = {"sad": 0.4, "angry": 0.6}
            clip, _ = library.add(sound, 16_000, name=f"{number}.wav", model="m", label=label, scores=scores)
            if number < CHECKED:
                library.correct(clip.id, label)
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
        asked = {"fn_index": search, "session_hash": word, "data": [None, word, None, None, None, 50]}
        assert client.post("/queue/join", json=asked).status_code == 200
        with client.stream("GET", "/queue/data", params={"session_hash": word}) as answer:
            last = next(line for line in answer.iter_lines() if "process_completed" in line)
        assert f"“{word}” is no day; write one like 2026-01-31." in last


@pytest.mark.browser
def test_without_a_url_there_is_no_library(browser, tmp_path):
    with serving.running_app(tmp_path, {"SER_LIBRARY_URL": ""}) as url, serving.visit(browser, url) as page:
        expect(page.get_by_role("tab", name="My clips")).to_be_visible()
        expect(page.get_by_role("tab", name="Library")).to_have_count(0)
        expect(page.locator("#clips-keep")).to_have_count(0)


@pytest.mark.browser
def test_what_no_person_has_checked_is_not_exported(browser, tmp_path):
    with contextlib.closing(Library(f"sqlite:///{tmp_path}/library.db")) as library:
        library.add(np.zeros(16_000), 16_000, name="a.wav", model="m", label="sad", scores={"sad": 1.0})
    settings = {"SER_LIBRARY_URL": f"sqlite:///{tmp_path}/library.db"}
    with serving.running_app(tmp_path, settings) as url, serving.visit(browser, url) as page:
        open_library(page)
        page.locator("#library-export").click()
        expect(page.locator("#library-how")).to_contain_text("no person has checked a clip yet", timeout=30_000)
        expect(page.locator("#library-download")).to_have_count(0)


@pytest.mark.browser
def test_a_clip_is_kept_on_request_corrected_and_deleted(page, database):
    upload(page, CALM)
    submit(page, "confidence")
    with contextlib.closing(Library(database)) as library:
        before = library.find().total
        page.get_by_role("tab", name="My clips").click()
        expect(page.locator("#clips-keep-hint")).to_contain_text("publishes it: everyone who opens this page")
        for said in ("where everyone who opens this page can hear it", "in the library already"):
            page.locator("#clips-keep").click()
            expect(page.locator("#clips-happened")).to_contain_text(said)
        button, happened = (page.locator(name).bounding_box() for name in ("#clips-keep", "#clips-happened"))
        assert 0 < happened["y"] - button["y"] < 200  # both are seen at once
        assert library.find().total == before + 1
        open_library(page)
        expect(page.locator("#library-notice")).to_contain_text("The library is on.")
        expect(page.locator("#library-notice")).to_contain_text("everyone who opens this page can see, hear, correct")
        expect(page.locator("#library-list tbody tr").first).to_contain_text(CALM.name)
        page.wait_for_function("document.querySelector('#library-player audio')?.duration > 4.5")

        # What the model heard is nobody's word, until a person says the same.
        cells, field = page.locator("#library-list tbody tr").first.locator("td"), page.locator("#library-label input")
        clip, texts = library.find().clips[0], Texts()
        expect(cells.nth(2)).to_contain_text(f"{100 * clip.confidence:.0f}")
        expect(field).to_have_value("not checked yet")
        for label, said in (("bored", "is saved"), ("", "counts as not checked yet"), (clip.predicted, "is saved")):
            name = texts.emotion(texts.speaker("en"), label) if label else "not checked yet"
            if label:
                field.fill(name)
                page.keyboard.press("Enter")
            else:
                field.click()
                page.get_by_role("option", name=name).click()
            page.locator("#library-correct").click()
            expect(page.locator("#library-happened")).to_contain_text(said)
            expect(cells.nth(3)).to_have_text(name)
            expect(field).to_have_value(name)
            assert library.get(clip.id).confirmed == (label or None)
        open_settings(page)
        for threshold, is_unsure in (("100", True), ("0", False)):
            page.locator("#threshold input[type=number]").fill(threshold)
            page.keyboard.press("Tab")
            cell, words = expect(cells.nth(2)), "(not sure)"
            cell.to_contain_text(words) if is_unsure else cell.not_to_contain_text(words)

        delete, no = page.locator("#library-delete"), page.locator("#library-delete-not")
        delete.focus()
        for element in (no, delete, no):  # a button that goes hands the keyboard on
            page.keyboard.press("Enter")
            expect(element).to_be_focused()
        page.locator("#library-delete-surely").press("Enter")
        expect(page.locator("#library-happened")).to_contain_text("deleted from the library")
        expect(page.locator("#library-list")).not_to_contain_text(CALM.name)
        expect(page.locator("#library-clip input")).to_be_focused()
        # A screen reader is told of the deed, although the list, drawn anew, is told of right after.
        expect(page.locator("#announcer p").last).to_contain_text(f"1 to {PAGE_SIZE} of")
        expect(page.locator("#announcer")).to_contain_text("deleted from the library")
        assert library.find().total == before


@pytest.mark.browser
def test_a_clip_without_an_answer_cannot_be_kept(page, tmp_path):
    noise = tmp_path / "noise.wav"
    soundfile.write(noise, 0.1 * np.random.default_rng(0).normal(size=32_000), 16_000)
    upload(page, noise)
    submit(page, "No voice was heard")
    page.get_by_role("tab", name="My clips").click()
    expect(page.locator("#clips-keep-hint")).to_have_text("Only a clip with an emotion can be kept.")
    expect(page.locator("#clips-keep")).to_be_disabled()


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
    page.locator("#library-emotion input").click()
    page.get_by_role("option", name=f"not checked yet ({PAGE_SIZE + 2 - CHECKED})").click()
    expect(rows).to_have_count(PAGE_SIZE + 2 - CHECKED)
    page.locator("#library-emotion input").click()
    page.get_by_role("option", name="sad (").click()
    expect(rows).to_have_count((PAGE_SIZE + 2) // 2)
    page.locator("#library-until input").fill("2020-02-29")
    page.locator("#library-search").click()
    expect(page.locator("#library-list")).to_contain_text("No clips found.")
    today = datetime.now(UTC).date().isoformat()  # not when the tests began, which may be before midnight
    page.locator("#library-until input").fill(today)
    page.locator("#library-since input").fill(today)
    page.locator("#library-search").click()
    expect(rows).to_have_count((PAGE_SIZE + 2) // 2)
    expect(page.locator("#library-player audio")).to_have_count(1)
    page.locator("#library-since input").fill("yesterday")
    page.keyboard.press("Enter")
    expect(page.locator("#library-list")).to_have_text("“yesterday” is no day; write one like 2026-01-31.")
    expect(page.locator("#library-player audio")).to_have_count(0)  # nor anything else of the search before
    expect(page.locator("#library-clip input")).to_have_value("")


@pytest.mark.browser
def test_the_export_is_downloaded_with_the_command_that_trains_on_it(page):
    open_library(page)
    page.set_viewport_size({"width": 390, "height": 844})
    page.locator("#library-export").click()
    expect(page.locator("#library-how code")).to_contain_text("""--labels.names '["angry", "sad"]'""")
    left_out = f"no person ever checked them: {PAGE_SIZE + 2 - CHECKED} of {PAGE_SIZE + 2} clips"
    expect(page.locator("#library-how")).to_contain_text(left_out)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    with page.expect_download() as downloading:
        page.locator("#library-download").click()
    assert downloading.value.suggested_filename == "library.zip"
    with zipfile.ZipFile(Path(downloading.value.path())) as archive:
        names = archive.namelist()
    assert len(names) == CHECKED
    assert {name.split("/")[1] for name in names} == {"angry", "sad"} and names[0].startswith("library/")
