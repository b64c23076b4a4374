"""A longer recording on the page: the picture that plays, the table, the files, the pictures of the sound."""

import base64
import csv
import io
import json
import re
import shutil

import numpy as np
import pytest
import soundfile
from gradio_client import Client, handle_file
from playwright.sync_api import expect
from serving import encode, open_settings, submit, upload

ANSWERED = re.compile(r"This voice|Not sure")


@pytest.fixture
def shown(page, clips):
    """A visitor who has submitted the long recording: voice from 0 to 9 s, silence, voice from 17 to 21 s."""
    upload(page, clips / "long.wav")
    submit(page, ANSWERED)
    page.locator(".over-time").wait_for()
    return page


def hears(page, low_s: float, high_s: float) -> None:
    """The player plays, and is where it was told to start, or a little later."""
    player = page.locator(".over-time audio").element_handle()
    page.wait_for_function("(audio) => !audio.paused && audio.currentTime > 0", arg=player)
    assert low_s - 0.1 <= player.evaluate("(audio) => audio.currentTime") <= high_s


def area(page) -> dict[str, float]:
    page.locator(".over-time .plot").scroll_into_view_if_needed()
    return page.locator(".over-time .area").bounding_box()


@pytest.mark.browser
def test_a_click_plays_from_there(shown):
    box = area(shown)
    shown.mouse.click(box["x"] + 0.9 * box["width"], box["y"] + box["height"] / 2)
    duration_s = float(shown.locator(".over-time .plot").get_attribute("data-duration"))
    hears(shown, 0.88 * duration_s, duration_s)
    expect(shown.locator(".over-time .now")).to_be_visible()


@pytest.mark.browser
def test_a_name_may_hold_any_sign(page, clips, tmp_path):
    name = "Take #3, 50% + 1?.wav"
    shutil.copy(clips / "long.wav", tmp_path / name)
    upload(page, tmp_path / name)
    submit(page, ANSWERED)
    page.locator(".over-time td button").first.click()
    hears(page, 0.0, 10.0)


@pytest.mark.browser
def test_a_drag_plays_that_part_and_then_stops(shown):
    box = area(shown)
    shown.mouse.move(box["x"] + 0.10 * box["width"], box["y"] + box["height"] / 2)
    shown.mouse.down()
    shown.mouse.move(box["x"] + 0.15 * box["width"], box["y"] + box["height"] / 2, steps=4)
    expect(shown.locator(".over-time .chosen")).to_be_visible()
    shown.mouse.up()
    duration_s = float(shown.locator(".over-time .plot").get_attribute("data-duration"))
    player = shown.locator(".over-time audio").element_handle()
    shown.wait_for_function("(audio) => audio.paused && audio.currentTime > 0", arg=player, timeout=20_000)
    assert player.evaluate("(audio) => audio.currentTime") == pytest.approx(0.15 * duration_s, abs=0.6)


@pytest.mark.browser
def test_the_keyboard_plays_a_segment(shown):
    button = shown.locator(".over-time tbody button").last
    start_s, end_s = (float(button.get_attribute(f"data-{name}")) for name in ("start", "end"))
    assert button.get_attribute("aria-label").startswith("Play 0:")
    button.focus()
    shown.keyboard.press("Enter")
    hears(shown, start_s, end_s)


@pytest.mark.browser
def test_table_files_and_api_tell_the_same_segments(shown, server, clips):
    client = Client(server, verbose=False, analytics_enabled=False)
    answer = client.predict(handle_file(clips / "long.wav"), api_name="/timeline")
    segments = answer["segments"]
    assert answer["status"] == "voice" and len(segments) >= 2
    assert segments[0]["start_s"] < 2 and segments[-1]["start_s"] > 16  # the silence between them is no segment
    files = {}
    for link in shown.locator(".over-time .downloads a").all():
        name, address = link.get_attribute("download"), link.get_attribute("href")
        assert name.startswith("long.")
        files[name.removeprefix("long.")] = base64.b64decode(address.partition(",")[2]).decode()
    assert [row["emotion"] for row in csv.DictReader(io.StringIO(files["csv"]))] == [
        segment["emotion"] for segment in segments
    ]
    assert json.loads(files["json"])["segments"] == segments
    assert files["srt"].count(" --> ") == len(segments)
    rows = shown.locator(".over-time tbody tr")
    expect(rows).to_have_count(len(segments))
    expect(rows.first).to_contain_text(f"{segments[0]['confidence']:.0%}")
    picture = shown.locator(".over-time svg").get_attribute("aria-label")
    assert picture.startswith("Share of each emotion over 21 s. Likeliest: 0:0")


@pytest.mark.browser
def test_the_threshold_rewords_answer_segments_and_subtitles(page):
    page.get_by_role("button", name="Angry, then sad", exact=True).click()
    rows = page.locator(".over-time tbody tr")
    expect(rows).to_have_count(2, timeout=30_000)
    expect(rows).to_contain_text(["angry", "sad"])
    open_settings(page)
    number = page.locator("#threshold input[type=number]")
    for threshold, said, unsure in (
        ("65", re.compile(r"changes: it sounds sad for \d\d% of the speech; the rest is uncertain"), [True, False]),
        ("100", re.compile("Not sure"), [True, True]),
        ("50", re.compile(r"most often it sounds sad \(\d\d% of the speech\), but also angry"), [False, False]),
    ):
        number.fill(threshold)
        number.press("Enter")
        expect(page.locator("#status .said")).to_have_text(said)
        likely = zip(["angry", "sad"], unsure, strict=True)
        words = [f"not sure (most like {name})" if is_unsure else name for name, is_unsure in likely]
        expect(rows.locator("td:nth-child(4)")).to_have_text(words)
        assert rows.evaluate_all("(rows) => rows.map((row) => row.className === 'unsure')") == unsure
        srt = page.locator(".over-time .downloads a").last.get_attribute("href")
        subtitles = base64.b64decode(srt.partition(",")[2]).decode()
        assert re.findall(r"^(.*) \(\d+%\)$", subtitles, re.MULTILINE) == words


@pytest.mark.browser
def test_what_the_model_listened_to_is_drawn_on_demand(shown):
    shown.get_by_role("button", name="Look inside").click()
    expect(shown.locator("#pictures svg")).to_have_count(3)
    for words in ("Waveform: ", "Log-mel spectrogram: ", "MFCCs: "):
        expect(shown.locator("#pictures figcaption", has_text=words)).to_have_count(1)
    assert {"seconds", "hertz"} <= set(shown.locator("#pictures svg text").all_text_contents())
    expect(shown.locator("#saliency svg")).to_have_count(0)
    shown.get_by_role("button", name="Show what the model listened to").click()
    expect(shown.locator("#saliency figcaption")).to_contain_text("the more it counted for")


@pytest.mark.browser
def test_a_format_that_the_browser_cannot_play_says_so(page, clips, tmp_path):
    voice, rate = soundfile.read(clips / "long.wav")
    encode(tmp_path / "long.amr", "libopencore_amrnb", 8_000, voice, rate)
    upload(page, tmp_path / "long.amr")
    submit(page, ANSWERED)
    page.locator(".over-time tbody button").first.click()
    expect(page.locator(".over-time .unplayable")).to_have_text(re.compile("cannot be played here"))


@pytest.mark.browser
def test_a_bar_tells_how_far_a_long_recording_is_heard_and_it_is_announced(page, clips, tmp_path):
    voice, rate = soundfile.read(clips / "clip.wav")
    soundfile.write(tmp_path / "minutes.flac", np.tile(voice, 60), rate)
    upload(page, tmp_path / "minutes.flac")
    page.locator("#submit").click()
    far = re.compile(r"Heard \d:\d\d of 4:2\d")
    page.locator("#status").get_by_text(far).wait_for()
    expect(page.locator("#announcer")).to_contain_text(far)
    expect(page.locator(".over-time")).to_be_visible(timeout=60_000)


@pytest.mark.browser
def test_a_new_recording_takes_the_old_answer_away(shown, clips):
    shown.get_by_label("Clear").click()
    expect(shown.locator("#status")).to_contain_text("Record a sentence or choose a file")
    expect(shown.locator(".over-time")).to_have_count(0)
    expect(shown.get_by_role("button", name="Look inside")).to_have_count(0)
    upload(shown, clips / "clip.wav")
    submit(shown, "This voice sounds")
    expect(shown.locator("#over-time")).to_have_text(re.compile(r"is shown for recordings in which somebody"))
    expect(shown.locator(".over-time")).to_have_count(0)  # it fits into one window
