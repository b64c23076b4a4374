"""The page in six languages: nothing forgotten, nothing in another language than the visitor's."""

import re
from types import SimpleNamespace

import numpy as np
import pytest
import yaml
from playwright.sync_api import expect
from serving import upload, visit

from ser_model.labels import EMOTIONS
from ser_model.page import foot
from ser_model.page.answers import decimal
from ser_model.page.figures import figure_svg
from ser_model.page.texts import FILE, LANGUAGES, Texts, language
from ser_model.pictures import waveform_svg
from ser_model.run_files import SHARED_SPEAKERS, UNSEEN_SPEAKERS

PLACEHOLDER = re.compile(r"\{(\w+)\}")


def sentences(tree: dict, path: str = ""):
    for name, branch in tree.items():
        if all(isinstance(leaf, str) for leaf in branch.values()):
            yield f"{path}{name}", branch
        else:
            yield from sentences(branch, f"{path}{name}.")


SENTENCES = dict(sentences(yaml.safe_load(FILE.read_text(encoding="utf-8"))))


@pytest.mark.parametrize("key", SENTENCES)
def test_every_sentence_is_there_in_every_language(key):
    translations = SENTENCES[key]
    assert list(translations) == list(LANGUAGES)
    assert all(text.strip() for text in translations.values())
    placeholders = {language: sorted(PLACEHOLDER.findall(text)) for language, text in translations.items()}
    assert set(map(tuple, placeholders.values())) == {tuple(placeholders["en"])}


def test_the_file_is_read_as_it_stands():
    assert Texts().keys == list(SENTENCES)


def request(accept_language: str):
    return SimpleNamespace(headers={"accept-language": accept_language})


@pytest.mark.parametrize(
    ("accepted", "expected"),
    [("de-AT,de;q=0.9,en;q=0.8", "de"), ("zh-TW", "zh"), ("HI", "hi"), ("pt-BR,es;q=0.5", "en"), ("", "en")],
)
def test_the_first_language_of_the_browser_counts(accepted, expected):
    assert language(request(accepted)) == expected


def test_without_a_request_english_is_spoken():
    assert Texts().say(None, "states.no_voice.said") == "No voice was heard in this recording."


def test_labels_of_every_scheme_have_a_name():
    texts = Texts()
    german = texts.speaker("de")
    assert texts.emotion(german, "disgust") == "angewidert"
    assert texts.emotion(german, "female_happy") == "fröhlich (Frau)"
    assert texts.emotion(german, "my_own") == "my own"
    assert {texts.emotion(german, emotion) for emotion in EMOTIONS} & set(EMOTIONS) == {"neutral"}


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_sentence_names_tabs_and_figures_as_they_are_written_there(language):
    say = Texts().speaker(language)
    assert all(say(f"{tab}.tab") in say("clips.empty") for tab in ("try", "many"))
    for note, words in (("figures_note", UNSEEN_SPEAKERS), ("figures_shared", SHARED_SPEAKERS)):
        assert re.findall(r"[“«„]\s?([a-z ]+)\s?[”»“]", say(f"page.{note}")) == [words]


@pytest.mark.parametrize("language", LANGUAGES)
def test_with_a_library_the_page_says_what_stays(language):
    say = Texts().speaker(language)
    with_one, without = (foot(say, 70, has_library=has_library) for has_library in (True, False))
    assert with_one == f"{without} {say('page.privacy_library')}" and "70" in without


@pytest.mark.browser
@pytest.mark.parametrize(("locale", "unreadable"), [("de-DE", "lässt sich nicht"), ("en-GB", "cannot be read")])
def test_a_reason_in_english_is_for_the_english_page(browser, server, tmp_path, locale, unreadable):
    (tmp_path / "text.wav").write_text("no sound")
    with visit(browser, server, locale=locale) as page:
        upload(page, tmp_path / "text.wav")
        page.locator("#submit").click()
        expect(page.locator("#status .said")).to_contain_text(unreadable, timeout=30_000)
        expect(page.locator("#status .reason")).to_be_visible(visible=locale == "en-GB")


@pytest.mark.parametrize("key", SENTENCES)
def test_no_line_breaks_before_a_mark_or_a_unit(key):
    assert not re.search(r" [:;?!»]|« ", SENTENCES[key]["fr"])
    assert not any(re.search(r"[\d}] (%|s\b|M[Bo]\b)", SENTENCES[key][language]) for language in ("es", "fr", "de"))


def test_numbers_have_the_decimal_mark_of_the_language():
    texts = Texts()
    marks = {language: decimal(texts.speaker(language), 7.34, 1) for language in LANGUAGES}
    assert marks == {"en": "7.3", "es": "7,3", "fr": "7,3", "de": "7,3", "zh": "7.3", "hi": "7.3"}


@pytest.mark.parametrize(("language", "words"), [("en", {"seconds", "0.2"}), ("de", {"Sekunden", "0,2"})])
def test_pictures_have_words_and_numbers_of_the_language(language, words):
    drawn = waveform_svg(np.sin(np.arange(16000, dtype="float32")), 16000)
    written = set(re.findall(r">([^<>]+)</text>", figure_svg(Texts().speaker(language), drawn, "")))
    assert {"seconds", "Sekunden", "0.2", "0,2"} & written == words
