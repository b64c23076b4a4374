"""The tab "Try it" as visitors meet it: by mouse, by keyboard, on a phone, in the dark, in their language."""

import json
import re

import numpy as np
import pytest
import soundfile
from playwright.sync_api import expect
from serving import ROOT, open_settings, submit, upload, visit

pytestmark = pytest.mark.browser

ANSWERED = re.compile(r"This voice|Not sure")
CONTRAST = """async () => {
  const rgba = (text) => { const n = text.match(/[\\d.]+/g).map(Number); return [n[0], n[1], n[2], n[3] ?? 1]; };
  const light = ([r, g, b]) => [r, g, b].map((c) => c / 255)
    .map((c) => c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const colour = rgba(getComputedStyle(at).backgroundColor);
      if (colour[3] > 0.5) return colour;
    }
    return matchMedia("(prefers-color-scheme: dark)").matches ? [0, 0, 0] : [255, 255, 255];
  };
  const contrast = (colour, element) => {
    const [a, b] = [light(rgba(colour)), light(behind(element))].sort((x, y) => y - x);
    return (a + 0.05) / (b + 0.05);
  };
"""
# Text that stands out too little from what lies behind it: WCAG AA asks for 4.5 to 1, for large letters 3 to 1.
PALE = (
    CONTRAST
    + """
  const pale = [];
  const texts = document.createTreeWalker(document.querySelector(".gradio-container"), NodeFilter.SHOW_TEXT);
  for (let node; (node = texts.nextNode());) {
    const element = node.parentElement, style = getComputedStyle(element);
    if (!element.checkVisibility({ opacityProperty: true, visibilityProperty: true })) continue;
    if (!node.textContent.trim() || element.closest(".sr-only, [aria-hidden=true], .emoji, svg")) continue;
    const size = parseFloat(style.fontSize), large = size >= 24 || (size >= 18.66 && style.fontWeight >= 700);
    const ratio = contrast(style.color, element);
    if (ratio < (large ? 3 : 4.5))
      pale.push(`${ratio.toFixed(2)} ${style.color} ${element.className}: ${node.textContent.trim()}`);
  }
  return pale;
}"""
)
# The ring around what has the focus, which lies outside it; WCAG AA asks for 3 to 1.
RING = (
    CONTRAST
    + """
  const focused = document.activeElement;
  await Promise.all(focused.getAnimations().map((change) => change.finished));
  const { outlineColor, outlineStyle } = getComputedStyle(focused);
  return outlineStyle === "solid" && contrast(outlineColor, focused.parentElement);
}"""
)
REFUSE_MICROPHONE = """navigator.mediaDevices.getUserMedia =
  async () => { throw new DOMException("Permission denied", "NotAllowedError"); }"""


def test_an_example_is_answered_at_once_and_says_that_it_is_synthetic(page):
    expect(page.locator("#examples-hint")).to_contain_text("speech synthesiser")
    said = {
        "Angry": "This voice sounds angry",
        "Sad": "This voice sounds sad",
        "Frightened": "This voice sounds fearful",
        "Angry, then sad": "This voice changes: most often it sounds sad",
    }
    for button, words in said.items():
        page.get_by_role("button", name=button, exact=True).click()
        expect(page.locator("#status .said")).to_contain_text(words, timeout=30_000)
        expect(page.locator("#scores dt")).to_have_count(8)
        page.get_by_label("Clear").click()
        expect(page.locator("#scores dt")).to_have_count(0)


def test_the_threshold_rewords_the_answer_without_hearing_again(page, clips):
    upload(page, clips / "clip.wav")
    sure = submit(page, "This voice sounds")
    bars = page.locator("#scores").inner_text()
    open_settings(page)
    number = page.locator("#threshold input[type=number]")
    number.fill("100")
    number.press("Enter")
    expect(page.locator("#status .said")).to_contain_text("Not sure. It sounds most like")
    assert page.locator("#scores").inner_text() == bars
    number.fill("0")
    number.press("Enter")
    expect(page.locator("#status .said")).to_have_text(sure)


def test_a_threshold_that_rests_asks_for_nothing_more_and_may_be_emptied(page):
    asked = []
    page.on("request", lambda request: asked.append(request.url) if request.method == "POST" else None)
    open_settings(page)
    page.locator("#threshold input[type=range]").focus()
    for _ in range(5):
        page.keyboard.press("ArrowRight")
    number = page.locator("#threshold input[type=number]")
    expect(number).to_have_value("55")
    number.fill("")
    page.wait_for_timeout(1500)
    settled = len(asked)
    assert settled > 0
    page.wait_for_timeout(1500)
    assert len(asked) == settled
    page.get_by_role("button", name="Angry", exact=True).click()
    expect(page.locator("#status .said")).to_contain_text("This voice sounds angry")


def test_an_example_takes_the_place_of_an_answer_that_is_on_its_way(page, clips, tmp_path):
    sound, rate = soundfile.read(clips / "clip.wav")
    soundfile.write(tmp_path / "long.wav", np.tile(sound, -(-400 * rate // len(sound))), rate)
    upload(page, tmp_path / "long.wav")
    page.locator("#submit").click()
    page.get_by_role("button", name="Angry", exact=True).click()
    expect(page.locator("#status .said")).to_contain_text("This voice sounds angry")
    page.wait_for_timeout(6000)  # six minutes are heard by then
    expect(page.locator("#status .said")).to_contain_text("This voice sounds angry")
    expect(page.locator(".over-time")).to_have_count(0)


def trim(page):
    page.get_by_label("Trim audio to selection").click()
    page.get_by_role("button", name="Trim", exact=True).click()


def test_an_answer_goes_when_its_recording_is_cut_or_put_back(page):
    """Both change the recording without a word that Gradio calls input. Its name, which Gradio forgets, stays."""
    page.get_by_role("button", name="Angry, then sad", exact=True).click()
    page.locator(".over-time .downloads").wait_for()
    for change in (trim, lambda page: page.get_by_label("Reset audio").click()):
        change(page)
        expect(page.locator("#status .said")).to_contain_text("Press Submit to hear this recording")
        expect(page.locator("#scores dt")).to_have_count(0)
        expect(page.locator(".over-time")).to_have_count(0)
        submit(page, "This voice")
    page.get_by_role("tab", name="My clips").click()
    expect(page.locator("#clips-list tbody tr")).to_have_count(3)
    assert page.locator("#clips-list td:nth-child(5)").all_inner_texts() == ["synthetic_changing_voice.flac"] * 3


def test_submit_while_the_microphone_records_says_what_to_press_and_the_recording_has_a_name(page):
    page.get_by_label("Record audio").click()
    page.get_by_role("button", name="Record", exact=True).click()
    page.locator("#recording time.duration", has_text=re.compile("0:0[2-9]")).wait_for()
    expect(page.get_by_role("button", name="Stop", exact=True)).to_be_focused()
    expect(page.get_by_label("Clear")).to_be_hidden()  # Gradio's would go on recording
    submit(page, "The recording is still running.")
    assert page.locator("#status .heard").inner_text() == "Press Stop first, then Submit."
    page.get_by_role("button", name="Stop", exact=True).click()
    page.locator("#recording audio[data-testid]").wait_for(state="attached")
    expect(page.locator("#submit")).to_be_focused()
    submit(page, ANSWERED)
    page.get_by_role("tab", name="My clips").click()
    expect(page.locator("#clips-list tbody td").nth(4)).to_have_text(re.compile(r"Recording 0:\d\d"))


def test_a_microphone_that_is_refused_is_said_to_be(browser, server):
    page = browser.new_page(locale="de-DE")  # not `visit`: Gradio's own recorder ends in an error of the page
    page.add_init_script(REFUSE_MICROPHONE)
    page.goto(server)
    page.get_by_label("Record audio").click()
    page.get_by_role("button", name="Aufnehmen", exact=True).click()
    expect(page.locator("#status .said")).to_have_text("Ihr Browser gibt dieser Seite kein Mikrofon.")
    page.get_by_role("tab", name="Live").click()
    page.wait_for_timeout(3000)  # until Gradio has loaded its recorder
    page.locator("#live-microphone .record-button").click()
    expect(page.locator("#live-status .said")).to_have_text("Ihr Browser gibt dieser Seite kein Mikrofon.")
    expect(page.locator("#announcer")).to_contain_text("Schließen Sie eines an")
    page.close()


def test_what_is_cancelled_is_no_error(page, clips, tmp_path):
    sound, rate = soundfile.read(clips / "clip.wav")
    soundfile.write(tmp_path / "long.wav", np.tile(sound, -(-400 * rate // len(sound))), rate)
    for _ in range(3):  # Gradio takes some of it for one
        upload(page, tmp_path / "long.wav")
        page.locator("#submit").click()
        page.wait_for_timeout(800)
        page.locator("#recording").get_by_label("Clear").click()
        expect(page.locator("#status .said")).to_contain_text("Record a sentence or choose a file")
        page.wait_for_timeout(800)
        expect(page.locator("#status .said")).to_be_visible()
        expect(page.locator("#status .error:visible")).to_have_count(0)
        expect(page.locator("#submit")).to_have_css("opacity", "1")


def test_what_is_cancelled_before_the_server_knows_of_it_gives_no_answer(page, clips):
    joining = []
    page.route("**/queue/join*", lambda route: joining.append(route))  # a slow connection
    upload(page, clips / "clip.wav")
    page.locator("#submit").click()
    expect(page.locator("#submit")).to_have_css("opacity", "0.7")
    page.locator("#recording").get_by_label("Clear").click()
    with page.expect_response("**/cancel"):
        for route in joining:
            route.continue_()
        page.unroute("**/queue/join*")
    expect(page.locator("#status .said")).to_contain_text("Record a sentence or choose a file")
    expect(page.locator("#submit")).to_have_css("opacity", "1")
    page.wait_for_timeout(3000)  # it would be heard by then
    expect(page.locator("#status .said")).to_contain_text("Record a sentence or choose a file")
    expect(page.locator("#scores dt")).to_have_count(0)


def test_another_model_is_asked_by_submit(page, clips):
    upload(page, clips / "clip.wav")
    submit(page, ANSWERED)
    open_settings(page)
    page.locator("#model input").click()
    page.get_by_role("option", name="ser-cnn-14").click()
    expect(page.locator("#status .said")).to_have_text("Press Submit to hear this recording with ser-cnn-14.")
    expect(page.locator("#scores dt")).to_have_count(0)


@pytest.mark.parametrize("width", [390, 640])
def test_on_a_phone_the_answer_stands_below_the_button_which_shows_that_it_is_busy(browser, server, clips, width):
    with visit(browser, server, viewport={"width": width, "height": 844}) as page:
        upload(page, clips / "clip.wav")
        button, status, examples = (page.locator(name).bounding_box() for name in ("#submit", "#status", "#examples"))
        assert 0 < status["y"] - (button["y"] + button["height"]) < 40
        assert status["y"] + status["height"] < min(844, examples["y"])
        assert button["width"] == status["width"] == examples["width"]
        page.route("**/queue/join*", lambda route: None)  # for as long as there is no answer
        page.locator("#submit").click()
        expect(page.locator("#submit")).to_have_css("cursor", "progress")


def test_what_is_said_is_announced_in_a_region_that_stays(page, clips):
    announcer = page.get_by_role("status").and_(page.locator("#announcer"))
    region = announcer.element_handle()
    upload(page, clips / "clip.wav")
    said = submit(page, "This voice sounds")
    expect(announcer).to_contain_text(said)
    open_settings(page)
    number = page.locator("#threshold input[type=number]")
    number.fill("100")
    number.press("Enter")
    expect(announcer).to_contain_text("Not sure. It sounds most like")
    assert region.inner_text() == announcer.inner_text()


def test_each_model_stands_beside_the_figures_of_its_card(page):
    open_settings(page)
    for name in ("ser-cnn-8", "ser-cnn-14"):
        test = json.loads((ROOT / "checkpoints" / name / "metrics.json").read_text())["test"]
        row = page.locator("table.models tbody tr", has=page.get_by_role("rowheader", name=name, exact=True))
        expect(row).to_contain_text("unseen speakers")
        expect(row).to_contain_text(f"{test['uar']:.3f}")
        expect(row).to_contain_text(f"{test['accuracy']:.3f}")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_keyboard_is_enough(browser, server, clips, scheme):
    with visit(browser, server, color_scheme=scheme) as page:
        use_keyboard(page, clips)


def use_keyboard(page, clips):
    def tab_to(selector: str) -> None:
        for _ in range(40):
            page.keyboard.press("Tab")
            if page.evaluate("(selector) => document.activeElement.closest(selector) !== null", selector):
                return
        pytest.fail(f"no way to {selector} by the Tab key")

    page.locator("body").click(position={"x": 2, "y": 2})
    with page.expect_file_chooser() as chooser:
        tab_to("#recording button.upload-container")
        page.keyboard.press("Enter")
    chooser.value.set_files(clips / "clip.wav")
    page.locator("#recording audio[data-testid]").wait_for(state="attached")
    tab_to("#submit")
    assert page.evaluate(RING) >= 3
    page.keyboard.press("Enter")
    expect(page.locator("#status .said")).to_contain_text(ANSWERED, timeout=30_000)


def test_every_control_has_a_name(page):
    open_settings(page)
    nameless = """() => [...document.querySelectorAll("button, input, select, textarea, a[href]")]
        .filter((control) => control.checkVisibility())
        .filter((control) => !(control.innerText?.trim() || control.getAttribute("aria-label") || control.title
            || control.labels?.length && [...control.labels].some((label) => label.innerText.trim())))
        .map((control) => control.outerHTML.slice(0, 200))"""
    assert page.evaluate(nameless) == []
    expect(page.get_by_role("button", name="Model and threshold", expanded=True)).to_be_visible()
    panels = "() => [...document.querySelectorAll('[role=tab]')].map((tab) => tab.getAttribute('aria-controls'))"
    assert len(set(page.evaluate(panels)) - {""}) == page.get_by_role("tab").count()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_what_is_behind_it(browser, server, clips, scheme):
    with visit(browser, server, color_scheme=scheme) as page:
        upload(page, clips / "long.wav")
        submit(page, ANSWERED)
        page.locator(".over-time").wait_for()
        open_settings(page)
        page.get_by_role("button", name="Look inside").click()
        assert page.evaluate(PALE) == []


@pytest.mark.parametrize("tab", ["Try it", "Live", "Many files", "My clips", "For developers"])
def test_a_phone_needs_no_sideways_scroll(browser, server, clips, tab):
    with visit(browser, server, viewport={"width": 390, "height": 844}) as page:
        upload(page, clips / "long.wav")
        submit(page, ANSWERED)
        page.get_by_role("button", name="Look inside").click()
        open_settings(page)
        page.get_by_role("tab", name=tab).click()
        assert page.evaluate("document.documentElement.scrollWidth") <= 390


LANGUAGES = {
    "es-MX": ("¿Cómo suena esta voz?", "No se ha oído ninguna voz"),
    "fr-FR": ("Comment sonne cette voix\u00a0?", "Aucune voix"),
    "de-AT": ("Wie klingt diese Stimme?", "keine Stimme zu hören"),
    "zh-CN": ("这段声音听起来怎么样？", "没有听到人声"),
    "hi-IN": ("यह आवाज़ कैसी लगती है?", "किसी के बोलने की आवाज़ नहीं"),
    "pt-BR": ("How does this voice sound?", "No voice was heard"),
}


@pytest.mark.parametrize("locale", LANGUAGES)
def test_the_page_speaks_the_language_of_the_browser(browser, server, clips, locale):
    title, no_voice = LANGUAGES[locale]
    with visit(browser, server, locale=locale) as page:
        expect(page.get_by_role("heading", level=1)).to_contain_text(title)
        expect(page).to_have_title(f"🎙️ {title}")
        expected = locale[:2] if locale != "pt-BR" else "en"
        assert page.locator("html").get_attribute("lang") == expected
        upload(page, clips / "tone.wav")
        submit(page, no_voice)
        assert "__i18n__" not in page.locator("body").inner_text()
