"""Every state that a prediction can have has its own words, in every language."""

import re
from dataclasses import replace

import numpy as np
import pytest
import soundfile
from serving import submit, upload

from ser_model import inference
from ser_model.inference import Caution, Prediction, Window
from ser_model.page.answers import NO_CLIP, RUNNING, UNREADABLE, answer_html, sentences, state
from ser_model.page.tables import note
from ser_model.page.texts import LANGUAGES, Texts

TEXTS = Texts()
CONSTANTS = {name: value for name, value in vars(inference).items() if name.isupper() and isinstance(value, str)}
WARNINGS = {name: CONSTANTS[name] for name in ("CLIPPED", "QUIET", "CUT")}
REFUSALS = {NO_CLIP, RUNNING, UNREADABLE, *CONSTANTS.values()} - {"voice", *WARNINGS.values()}
HAPPY = Prediction("voice", "", 4.0, 2.0, "happy", 0.6, {"happy": 0.6, "sad": 0.4})


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_status_has_its_own_words(language):
    say = TEXTS.speaker(language)
    predictions = [HAPPY, *(Prediction(status, "", 4.0, 2.0) for status in REFUSALS)]
    said = [sentences(TEXTS, say, prediction, threshold) for prediction in predictions for threshold in (0, 1)]
    assert len({advice for _, advice in said}) == len({words for words, _ in said}) == len(predictions) + 1


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_warning_stands_beside_the_answer(language):
    say = TEXTS.speaker(language)
    values = {"clipped": {"share": 0.02}, "quiet": {"peak": 0.005}, "cut": {"heard_s": 7200.0}}
    assert set(values) == set(WARNINGS.values())
    for code, numbers in values.items():
        html = answer_html(TEXTS, say, replace(HAPPY, warnings=(Caution(code, numbers),)), 0.5)
        assert html.count("warning") == 1 and "60" in html
        assert ("2:00:00" in html) == (code == "cut")


def test_seconds_are_written_as_the_language_writes_them():
    assert sentences(TEXTS, TEXTS.speaker("de"), HAPPY, 0.5)[1] == "2,0\u00a0s Sprache in einer Aufnahme von 4,0\u00a0s"


def lasting(*windows: tuple[float, float, str, float]) -> Prediction:
    """Windows of (start, end, emotion, confidence), and speech throughout."""
    windows = tuple(Window(start, end, {emotion: share, "calm": 1 - share}) for start, end, emotion, share in windows)
    emotions = {emotion: 0.0 for window in windows for emotion in window.scores}
    windows = tuple(replace(window, scores=emotions | window.scores) for window in windows)
    return replace(HAPPY, scores=emotions, windows=windows, speech=((0.0, windows[-1].end_s),))


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_voice_that_changes_is_not_put_down_to_one_emotion(language):
    say = TEXTS.speaker(language)
    happy, sad = (TEXTS.emotion(say, emotion) for emotion in ("happy", "sad"))
    course = lasting((0, 6, "happy", 0.6), (6, 8, "sad", 0.8))
    html = answer_html(TEXTS, say, course, 0.5, course_below=True)
    assert "answer announced voice" in html and happy in html and sad in html and "75" in html
    assert say("states.changing.advice") in html
    remark = note(TEXTS, say, course, 0.5)
    assert happy in remark and sad in remark and "75" in remark
    html = answer_html(TEXTS, say, course, 0.7)
    assert sad in html and happy not in html and "25" in html and say("states.changing.advice") not in html
    for one in (answer_html(TEXTS, say, course, 0.9), answer_html(TEXTS, say, HAPPY, 0.9)):
        assert say("states.unsure.advice") in one
    assert note(TEXTS, say, course, 0.9) == note(TEXTS, say, HAPPY, 0.9) == say("many.unsure")
    alike = lasting((0, 6, "happy", 0.6), (6, 8, "happy", 0.8))
    assert answer_html(TEXTS, say, alike, 0.5) == answer_html(TEXTS, say, HAPPY, 0.5)


def test_unsure_is_below_the_threshold():
    assert [state(HAPPY, threshold) for threshold in (0.6, 0.61)] == ["voice", "unsure"]


@pytest.mark.browser
def test_a_recording_that_is_too_loud_or_too_soft_says_so(page, clips, tmp_path):
    voice, rate = soundfile.read(clips / "clip.wav")
    voice /= np.abs(voice).max()
    soundfile.write(tmp_path / "clipped.wav", np.clip(8 * voice, -1, 1), rate)
    upload(page, tmp_path / "clipped.wav")
    submit(page, re.compile("This voice|Not sure"))
    assert "The recording is clipped" in page.locator("#status .warning").inner_text()
    page.get_by_label("Clear").click()
    soundfile.write(tmp_path / "soft.wav", 0.0015 * voice, rate, subtype="FLOAT")
    upload(page, tmp_path / "soft.wav")
    submit(page, "too quiet to judge")
