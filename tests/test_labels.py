"""Label schemes: which class an utterance gets, and what is refused."""

from pathlib import Path

import pytest

from ser_model.corpora import Utterance
from ser_model.labels import EMOTIONS, LabelError, label_scheme


def utterance(emotion: str, sex: str | None = "female") -> Utterance:
    return Utterance(Path("clip.wav"), "ravdess", "ravdess-02", sex, emotion, "take")


def test_scheme_8_keeps_every_emotion_under_its_own_name():
    scheme = label_scheme(8)
    assert scheme.names == EMOTIONS
    assert [scheme.label(utterance(emotion)) for emotion in EMOTIONS] == list(EMOTIONS)
    assert scheme.description() == ""


def test_scheme_7_counts_calm_as_neutral_and_says_so():
    scheme = label_scheme("7")
    assert scheme.names == ("neutral", "happy", "sad", "angry", "fearful", "disgust", "surprised")
    assert scheme.label(utterance("calm")) == "neutral"
    assert scheme.description() == "calm counted as neutral"


def test_scheme_14_is_sex_by_seven():
    scheme = label_scheme(14)
    assert len(scheme.names) == len(set(scheme.names)) == 14
    assert scheme.label(utterance("calm", "male")) == "male_neutral"
    assert {scheme.label(utterance(emotion, sex)) for emotion in EMOTIONS for sex in ("female", "male")} == set(
        scheme.names
    )


def test_scheme_14_names_the_utterance_whose_sex_is_unknown():
    with pytest.raises(LabelError, match=r"clip\.wav.*None"):
        label_scheme(14).label(utterance("angry", None))


def test_drop_leaves_utterances_out_and_names_in_order():
    scheme = label_scheme({"base": 8, "drop": ["sad"]})
    assert scheme.label(utterance("sad")) is None
    assert scheme.names == tuple(emotion for emotion in EMOTIONS if emotion != "sad")
    assert scheme.description() == "sad dropped"


def test_drop_works_across_sexes_and_needs_no_sex():
    scheme = label_scheme({"base": 14, "drop": ["sad"]})
    assert scheme.label(utterance("sad", None)) is None
    assert len(scheme.names) == 12


def test_drop_and_keep_take_the_classes_of_one_sex():
    dropped = label_scheme({"base": 14, "drop": ["female_sad", "angry"]})
    assert len(dropped.names) == 11 and "male_sad" in dropped.names
    assert [dropped.label(utterance("sad", sex)) for sex in ("female", "male")] == [None, "male_sad"]
    assert dropped.description() == "calm counted as neutral; angry dropped; female_sad dropped"
    assert dropped.classes_of("sad") == ["male_sad"] and dropped.classes_of("angry") == []
    kept = label_scheme({"base": 14, "keep": ["male_angry", "female_angry"]})
    assert kept.names == ("female_angry", "male_angry")
    assert kept.label(utterance("calm", None)) is None
    with pytest.raises(LabelError, match="did you mean 'female_sad'"):
        label_scheme({"base": 14, "drop": ["femal_sad"]})


def test_keep_is_the_opposite_of_drop():
    scheme = label_scheme({"keep": ["sad", "happy"]})
    assert scheme.names == ("happy", "sad")
    assert [scheme.label(utterance(emotion)) for emotion in ("happy", "calm")] == ["happy", None]


def test_merge_comes_before_drop_and_keep():
    scheme = label_scheme({"base": 8, "merge": {"calm": "neutral"}, "drop": ["sad"]})
    assert scheme.names == ("neutral", "happy", "angry", "fearful", "disgust", "surprised")
    assert scheme.label(utterance("calm")) == "neutral"
    assert scheme.description() == "calm counted as neutral; sad dropped"
    dropped = label_scheme({"merge": {"calm": "neutral"}, "drop": ["neutral"]})
    assert dropped.label(utterance("calm")) is None


def test_merging_into_seven_merges_calm_along():
    assert label_scheme({"base": 7, "merge": {"neutral": "sad"}}).label(utterance("calm")) == "sad"


def test_free_names_merge_and_drop_free_labels():
    scheme = label_scheme({"names": ["yes", "no"], "merge": {"yep": "yes"}, "drop": ["noise"]})
    assert scheme.names == ("yes", "no")
    assert [scheme.label(utterance(label)) for label in ("yep", "no", "noise")] == ["yes", "no", None]
    assert scheme.description() == "yep counted as yes; noise dropped"


def test_a_label_that_the_scheme_does_not_know_is_an_error_not_a_silent_drop():
    with pytest.raises(LabelError, match=r"clip\.wav.*'angri'.*did you mean 'angry'"):
        label_scheme(8).label(utterance("angri"))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (9, "unknown label scheme 9; known: 8, 7, 14"),
        ({"bases": 8}, "did you mean 'base'"),
        ({"drop": ["sadness"]}, "did you mean 'sad'"),
        ({"keep": ["fear", "happy"]}, "did you mean 'fearful'"),
        ({"merge": {"calm": "neutrl"}}, "did you mean 'neutral'"),
        ({"merge": {"calmm": "neutral"}}, "did you mean 'calm'"),
        ({"base": 7, "drop": ["calm"]}, "'calm'"),
        ({"merge": {"calm": "neutral"}, "drop": ["calm"]}, "'calm'"),
        ({"merge": {"calm": "neutral", "neutral": "sad"}}, "merged away and merged into"),
        ({"drop": ["sad"], "keep": ["happy", "calm"]}, "not both"),
        ({"drop": "sad"}, "must be a list"),
        ({"keep": ["sad"]}, "at least two classes"),
        ({"names": ["a", "a"]}, "each class once"),
        ({"names": ["a", "b"], "base": 8}, "remove base"),
        ({"names": ["a", "b"], "merge": {"x": "c"}}, "unknown class 'c'"),
        ({"names": ["a", "b"], "drop": ["a"]}, "more than one of"),
        ({"merge": {"neutral": ["calm", "sad"]}}, "counts a label as one class"),
        ({"merge": {1: "calm"}}, "unknown emotion '1'"),
    ],
)
def test_a_senseless_scheme_is_refused_with_a_remedy(spec, message):
    with pytest.raises(LabelError, match=message):
        label_scheme(spec)
