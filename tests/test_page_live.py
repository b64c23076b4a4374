"""The tab "Live" in Chromium, whose microphone plays a clip over and over."""

import re

import pytest
from playwright.sync_api import expect
from serving import open_settings, running_app, visit

from ser_model.inference import Window, adjective
from ser_model.labels import EMOTIONS
from ser_model.page.live import track_html
from ser_model.page.texts import Texts

pytestmark = pytest.mark.browser

KEEP_STREAMS = """() => {
  window.streams = [];
  const ask = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
  navigator.mediaDevices.getUserMedia = async (wanted) => {
    const stream = await ask(wanted);
    window.streams.push(stream);
    return stream;
  };
}"""
MICROPHONES_ON = (
    "() => streams.flatMap((stream) => stream.getTracks()).filter((track) => track.readyState == 'live').length"
)
TEXTS = Texts()
SAY = TEXTS.speaker("en")
ANSWER = re.compile("sounds|Not sure|Listening")


@pytest.fixture(autouse=True, scope="module")
def patience():
    """The first answer waits for torch and the model, on a busy machine for many seconds."""
    expect.set_options(timeout=60_000)
    yield
    expect.set_options(timeout=5_000)


@pytest.fixture
def live(page):
    """The tab, with an eye on every microphone that it opens."""
    page.evaluate(KEEP_STREAMS)
    return opened(page)


def opened(page):
    """As a visitor who takes three seconds to find the button; until then Gradio has loaded its recorder."""
    page.get_by_role("tab", name="Live").click()
    page.wait_for_timeout(3000)
    return page


def said(page):
    return page.locator("#live-status .said")


def record(page):
    page.locator("#live-microphone .record-button").click()


def stop(page):
    page.locator("#live-microphone .stop-button").click()


def test_a_voice_is_named_while_it_speaks(live):
    expect(said(live)).to_contain_text("Press Record")
    record(live)
    expect(said(live)).to_contain_text(re.compile("It sounds|most like"))
    bars = live.locator("#live-scores dt")
    expect(bars).to_have_count(len(EMOTIONS))
    expect(live.locator("#live-track li").first).to_contain_text(re.compile(r"^0:\d\d .*[a-z]{3}"))
    before = live.locator("#live-scores").inner_text()
    expect(live.locator("#live-scores")).not_to_have_text(before, use_inner_text=True)  # it goes on
    stop(live)


def test_what_is_not_sure_looks_so_in_the_track_too():
    angry, sad = {"angry": 0.8, "sad": 0.2}, {"sad": 0.6, "angry": 0.4}
    track = [Window(start, start + 1.0, scores) for start, scores in enumerate([angry, angry, sad, angry])]
    item = re.compile(r'<li( class="unsure")?>(0:0\d).*?</span> ([^<]*)</li>')
    items = {threshold: item.findall(track_html(TEXTS, SAY, track, threshold)) for threshold in (0.5, 0.7, 0.9)}
    assert items == {
        0.5: [("", "0:00", "angry"), ("", "0:02", "sad"), ("", "0:03", "angry")],
        0.7: [("", "0:00", "angry"), (' class="unsure"', "0:02", "not sure"), ("", "0:03", "angry")],
        0.9: [(' class="unsure"', "0:00", "not sure")],
    }


def test_the_threshold_rewords_a_track_that_has_ended(live):
    record(live)
    expect(live.locator("#live-track li").first).to_be_visible()
    stop(live)
    expect(said(live)).to_contain_text("Stopped")
    open_settings(live)
    number = live.locator("#threshold input[type=number]")
    for threshold, words in (("100", "not sure"), ("0", re.compile("|".join(map(adjective, EMOTIONS))))):
        number.fill(threshold)
        number.press("Enter")
        expect(live.locator("#live-track li").first).to_contain_text(words)
    assert (
        live.locator("#live-track li").evaluate_all("(all) => all.map((one) => getComputedStyle(one).margin)")
        == ["0px"] * live.locator("#live-track li").count()
    )  # else only the first row stands straight


def test_the_record_button_holds_its_word_on_a_phone(browser, server):
    with visit(browser, server, locale="de-DE", viewport={"width": 390, "height": 844}) as page:
        button = opened(page).locator("#live-microphone .record-button")
        expect(button).to_contain_text("Aufnehmen")
        assert button.evaluate("(button) => button.scrollWidth - button.clientWidth") <= 0


def test_stop_turns_the_microphone_off_and_nothing_runs_after_it(live):
    record(live)
    expect(live.locator("#live-scores dt")).to_have_count(len(EMOTIONS))
    assert live.evaluate(MICROPHONES_ON) >= 1
    stop(live)
    expect(said(live)).to_contain_text("Stopped. The microphone is off.")
    assert live.evaluate(MICROPHONES_ON) == 0
    live.wait_for_timeout(500)  # what was on its way when the button was pressed
    asked, bars = [], live.locator("#live-scores").inner_html()
    live.on("request", lambda request: asked.append(request.url))
    live.wait_for_timeout(2000)
    assert [url for url in asked if "stream" in url or "queue" in url] == []
    assert live.locator("#live-scores").inner_html() == bars
    expect(said(live)).to_contain_text("Stopped")


def test_the_microphone_sends_no_more_than_the_server_takes_of_one_address(live):
    record(live)
    expect(live.locator("#live-scores dt")).to_have_count(len(EMOTIONS))
    uploads = []
    live.on("request", lambda request: uploads.append(request.url) if "/upload" in request.url else None)
    live.wait_for_timeout(4000)
    count = len(uploads)
    stop(live)
    assert 1 <= count <= 20  # four a second; Gradio's own would be forty


def test_a_forgotten_microphone_ends(browser, tmp_path):
    shorter = "import ser_model.page.live\nser_model.page.live.MINUTES = 0.1"
    with running_app(tmp_path, before=shorter) as url, visit(browser, url) as page:
        page.evaluate(KEEP_STREAMS)
        record(opened(page))
        page.wait_for_function("() => streams.length")  # a busy server may end it before its first answer
        expect(said(page)).to_contain_text("Stopped. The microphone is off.")
        assert page.evaluate(MICROPHONES_ON) == 0


ONE_PLACE = "import ser_model.page.live\nser_model.page.live.VISITORS = 1"


def test_whoever_finds_all_places_taken_is_told(browser, tmp_path):
    with (
        running_app(tmp_path, before=ONE_PLACE) as url,
        visit(browser, url) as page,
        visit(browser, url, locale="de-DE") as other,
    ):
        record(opened(page))
        expect(page.locator("#live-track li").first).to_be_visible()
        record(opened(other))
        expect(said(other)).to_contain_text("Alle Plätze zum Live-Zuhören sind belegt. Laden Sie diese Seite neu")
        other.reload()  # as the sentence says
        expect(other.locator("#submit")).to_be_visible()
        expect(page.locator("#live-track li").first).to_be_visible()
        stop(page)


def test_it_can_be_started_again(live):
    for _ in range(2):
        record(live)
        expect(said(live)).to_contain_text(re.compile("It sounds|most like"))
        stop(live)
        expect(said(live)).to_contain_text("Stopped")


def test_two_visitors_at_once_hear_only_themselves(browser, server, live):
    with visit(browser, server) as other:
        opened(other)
        record(live)
        expect(live.locator("#live-track li").first).to_be_visible(timeout=60_000)
        expect(said(other)).to_contain_text("Press Record")
        assert other.locator("#live-track li").count() == 0
        stop(live)


def test_whoever_leaves_while_it_listens_leaves_nothing_broken(browser, server, live):
    """The server's log is read at the end: it may hold no traceback."""
    with visit(browser, server) as other:
        record(opened(other))
        expect(other.locator("#live-track li").first).to_be_visible()
    record(live)
    expect(live.locator("#live-track li").first).to_be_visible()
    stop(live)
