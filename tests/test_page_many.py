"""The tab "Many files" and the endpoint `/batch`, as visitors and programs meet them."""

import base64
import csv
import io
import time
import zipfile
from collections import Counter
from pathlib import Path

import pytest
from gradio_client import Client, handle_file
from playwright.sync_api import Page, expect
from serving import ROOT, open_settings

from ser_model.archives import REASONS
from ser_model.inference import EmotionRecognizer, Prediction
from ser_model.page import many
from ser_model.page.many import analyse, how_many, summary
from ser_model.page.texts import Texts

CALM, LIVELY = (ROOT / "examples" / f"synthetic_{name}_voice.flac" for name in ("calm", "lively"))
FORMULA = '=HYPERLINK("x").flac'


@pytest.fixture(scope="session")
def voices(tmp_path_factory) -> Path:
    """A zip as people make them: folders, other scripts, notes, what macOS adds, a file that is no sound."""
    path = tmp_path_factory.mktemp("zips") / "voices.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(CALM, "Ordner/ruhig ü.flac")
        archive.write(LIVELY, "録音.flac")
        archive.writestr("notes.txt", "not a recording")
        archive.writestr("broken.wav", "no sound either")
        archive.writestr("__MACOSX/._録音.flac", "")
        archive.write(LIVELY, FORMULA)
    return path


@pytest.fixture(scope="module")
def recognizer() -> EmotionRecognizer:
    return EmotionRecognizer.from_pretrained(ROOT / "checkpoints" / "ser-cnn-8")


def test_every_file_and_every_entry_gets_a_row_in_order(recognizer, voices, tmp_path):
    (tmp_path / "no.zip").write_text("no zip")
    deleted = [tmp_path / "deleted.zip", tmp_path / "deleted.wav"]
    paths = [CALM, voices, tmp_path / "no.zip", ROOT / "README.md", *deleted, LIVELY]
    judged = list(analyse(recognizer, paths))
    assert len(judged) == how_many(paths)
    assert [(one.name, one.prediction.status) for one in judged] == [
        (CALM.name, "voice"),
        ("Ordner/ruhig ü.flac", "voice"),
        ("録音.flac", "voice"),
        ("notes.txt", "not_audio"),
        ("broken.wav", "unreadable"),
        ("__MACOSX/._録音.flac", "system_file"),
        (FORMULA, "voice"),
        ("no.zip", "no_zip"),
        ("README.md", "unreadable"),
        ("deleted.zip", "unreadable"),
        ("deleted.wav", "unreadable"),
        (LIVELY.name, "voice"),
    ]
    assert judged[1].prediction == judged[0].prediction == recognizer(CALM)
    counts = summary([one.prediction for one in judged])
    assert (counts.judged, counts.failed) == (5, 7)
    assert counts.emotions == Counter(recognizer(voice).label for voice in [LIVELY] * 3 + [CALM] * 2)


def test_one_go_has_an_end(recognizer, voices, monkeypatch):
    monkeypatch.setattr(many, "MAX_RECORDINGS", 2)
    statuses = [one.prediction.status for one in analyse(recognizer, [CALM, voices, LIVELY])]
    assert statuses == ["voice", "voice", "too_many", "not_audio", "too_many", "system_file", "too_many", "too_many"]


@pytest.mark.parametrize(
    ("paths", "last"),
    [
        (["voices", "calm"], (FORMULA, "too_many")),
        (["calm", "voices"], ("__MACOSX/._録音.flac", "too_many")),
        (["calm"] * 7, (CALM.name, "too_many")),
        (["calm"] * 5, (CALM.name, "voice")),
    ],
)
def test_a_table_has_an_end(voices, monkeypatch, paths, last):
    monkeypatch.setattr(many, "MAX_ROWS", 5)
    paths = [{"voices": voices, "calm": CALM}[path] for path in paths]
    heard = Prediction("voice", "", 1.0, 1.0, "calm", 0.9, {"calm": 0.9})
    rows = [(one.name, one.prediction.status) for one in analyse(lambda source: heard, paths)]
    assert len(rows) == how_many(paths)
    assert rows[-1] == last
    assert "too_many" not in [status for _, status in rows[:-1]]


def test_no_zip_beyond_the_end_is_opened(voices, monkeypatch):
    monkeypatch.setattr(many, "MAX_ROWS", 2)
    opened = []
    monkeypatch.setattr(many, "count", opened.append)
    monkeypatch.setattr(many, "recordings", opened.append)
    paths = [CALM, CALM, voices, voices]
    assert how_many(paths) == len(list(analyse(lambda source: Prediction("no_voice", "", 1.0, 0.0), paths))) == 3
    assert opened == []


def test_one_go_hears_so_much_and_no_more(voices, monkeypatch):
    monkeypatch.setattr(many, "MAX_HEARD_S", 2)
    heard = Prediction("no_voice", "", 1.0, 0.0)
    statuses = [one.prediction.status for one in analyse(lambda source: heard, [CALM, voices, voices, CALM])]
    of_voices = ["too_many", "not_audio", "too_many", "system_file", "too_many"]
    assert statuses == ["no_voice", "no_voice", *of_voices, "too_many", *of_voices, "too_many"]


def test_uploads_that_wait_do_not_grow_old(monkeypatch, tmp_path):
    monkeypatch.setattr(many, "RENEW_S", 0)
    waiting, deleted = tmp_path / "waiting.wav", tmp_path / "deleted.wav"
    for path in (waiting, deleted):
        path.touch()

    def changed() -> float:
        time.sleep(0.02)  # a file system counts time in steps
        return waiting.stat().st_ctime_ns

    times, answers = [changed()], many.renewing([str(waiting), str(deleted)], iter("abc"))
    for expected in "abc":
        assert next(answers) == expected
        times.append(changed())
        deleted.unlink(missing_ok=True)
    assert times == sorted(set(times))


def test_every_reason_has_its_sentence_in_six_languages():
    keys = Texts().keys
    assert all(f"many.reasons.{reason}" in keys for reason in REASONS)


def test_batch_endpoint(server, voices, recognizer):
    client = Client(server, verbose=False, analytics_enabled=False)
    answer = client.predict([handle_file(voices), handle_file(CALM)], api_name="/batch")
    assert answer["summary"]["judged"] == 4 and answer["summary"]["failed"] == 3
    assert answer["rows"][-1]["name"] == CALM.name
    assert answer["rows"][0]["scores"] == pytest.approx(recognizer(CALM).scores, abs=1e-5)
    assert answer["rows"][2] == {
        "name": "notes.txt",
        "status": "not_audio",
        "message": REASONS["not_audio"],
        "duration_s": 0.0,
        "speech_s": 0.0,
        "label": None,
        "confidence": None,
        "sure": False,
        "scores": {},
        "warnings": [],
    }
    assert client.predict(None, api_name="/batch") == {
        "rows": [],
        "summary": {"judged": 0, "failed": 0, "emotions": {}},
    }


# ── In a browser ──


def choose(page: Page, *paths: Path) -> None:
    page.get_by_role("tab", name="Many files").click()
    page.locator("#many-files input[type=file]").set_input_files(paths)
    expect(page.locator("#many-files .file-preview tr")).to_have_count(len(paths))


def run(page: Page) -> str:
    """What the summary says."""
    page.locator("#many-start").click()
    said = page.locator("#many-summary .note")
    expect(said).to_be_visible(timeout=60_000)
    return said.inner_text()


def column(page: Page, number: int) -> list[str]:
    cells = page.locator(f'#many-table [role=gridcell][aria-colindex="{number}"]').all_inner_texts()
    return [cell.strip() for cell in cells]


@pytest.mark.browser
def test_a_zip_and_a_file_become_a_table_that_sorts_and_a_csv(page, voices, recognizer):
    choose(page, voices, CALM)
    sure = [heard for heard in map(recognizer, [CALM, LIVELY, LIVELY, CALM]) if heard.confidence >= 0.5]
    assert run(page) == f"Sure: {len(sure)}. Not sure: {4 - len(sure)}. Not judged: 3."
    expect(page.locator("#many-summary li")).to_have_count(len({heard.label for heard in sure}))
    names = ["Ordner/ruhig ü.flac", "録音.flac", "notes.txt", "broken.wav", "__MACOSX/._録音.flac", FORMULA, CALM.name]
    table = page.locator("#many-table")
    expect(table.get_by_role("row")).to_have_count(1 + len(names))
    assert column(page, 1) == names
    assert column(page, 3)[2:5] == [
        "Not a recording.",
        "This file cannot be read as a recording.",
        "A hidden system file, without sound.",
    ]
    confidences = sorted(float(cell) for cell in column(page, 4) if cell)
    table.locator("th .cell-menu-button").nth(3).click()
    page.get_by_role("menuitem", name="Sort descending").click()
    expect(page.get_by_role("menuitem")).to_have_count(0)
    expect(table.get_by_role("row").nth(1)).to_contain_text(str(confidences[-1]))
    assert [float(cell) for cell in column(page, 4) if cell] == confidences[::-1] and len(confidences) == 4
    table.locator("th:visible").nth(3).press("Enter")
    expect(page.get_by_role("menuitem").first).to_be_focused()
    page.get_by_role("menuitem", name="Sort ascending").press("Enter")
    expect(table.get_by_role("row").nth(1)).to_contain_text("notes.txt")  # which has none
    link = page.locator("#many-csv a.download")
    with page.expect_download() as downloading:
        link.click()
    assert downloading.value.suggested_filename == "emotions.csv"
    content = Path(downloading.value.path()).read_bytes()
    assert content == base64.b64decode(link.get_attribute("href").partition("base64,")[2])
    rows = list(csv.DictReader(io.StringIO(content.decode("utf-8-sig"), newline="")))
    assert [row["name"] for row in rows] == [*names[:5], f"'{FORMULA}", CALM.name]
    assert float(rows[0]["confidence"]) > 0.1 and rows[2]["error"] == REASONS["not_audio"]
    assert rows[2]["note"] == "Not a recording." and {row["model"] for row in rows} == {"ser-cnn-8"}
    page.locator("#many-files").get_by_label("Remove this file").first.click()
    for gone in (page.locator("#many-summary .note"), table, link):  # results of other files than those chosen
        expect(gone).to_have_count(0)


@pytest.mark.browser
def test_the_threshold_rewords_the_table(page):
    choose(page, CALM)
    run(page)
    open_settings(page)
    number = page.locator("#threshold input[type=number]")
    cell = page.locator('#many-table [role=gridcell][aria-colindex="3"]')
    for threshold, note, counts in (("0", "", "Sure: 1. Not sure: 0."), ("100", "not sure", "Sure: 0. Not sure: 1.")):
        number.fill(threshold)
        number.press("Tab")
        expect(cell).to_have_text(note)
        expect(page.locator("#many-summary .note")).to_contain_text(counts)
        coded = page.locator("#many-csv a").get_attribute("href").partition("base64,")[2]
        [row] = csv.DictReader(io.StringIO(base64.b64decode(coded).decode("utf-8-sig"), newline=""))
        assert row["note"] == note


@pytest.mark.browser
def test_nothing_chosen_is_said(page):
    page.get_by_role("tab", name="Many files").click()
    assert run(page) == "There are no files yet. Choose some first."


@pytest.mark.browser
def test_it_fits_a_phone(page, voices):
    page.set_viewport_size({"width": 390, "height": 844})
    choose(page, voices)
    run(page)
    expect(page.locator("#many-table").get_by_role("row")).to_have_count(1 + 6)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    note = page.locator('#many-table [role=gridcell][aria-colindex="3"]').first.bounding_box()
    assert note["x"] + note["width"] <= 390  # what says why there is no answer is seen without scrolling
    page.set_viewport_size({"width": 320, "height": 844})
    assert page.locator("#many-files .stem").first.bounding_box()["width"] > 30  # "voices", not its ending alone
