"""Splits: what they promise, over many seeds, and what the leak check refuses."""

import json
from collections import Counter
from dataclasses import replace
from itertools import permutations
from pathlib import Path

import pytest

from ser_model.corpora import Utterance, find_utterances
from ser_model.labels import EMOTIONS
from ser_model.splits import (
    FOLDS,
    PARTS,
    LeakError,
    Split,
    SplitError,
    check_split,
    column_split,
    corpus_split,
    is_speaker_disjoint,
    manifest,
    published_split,
    random_split,
    speaker_folds,
    speaker_split,
    speakers_heard,
)

ROOT = Path("data")
SEEDS = range(8)


def clips(corpus: str, speakers: dict[str, str | None], emotions=EMOTIONS, takes: int = 3) -> list[Utterance]:
    return [
        Utterance(
            path=ROOT / corpus / f"{speaker}-{emotion}-{take}.wav",
            corpus=corpus,
            speaker=f"{corpus}-{speaker}",
            sex=sex,
            emotion=emotion,
            recording=f"{corpus}-{speaker}-{emotion}-{take}",
        )
        for speaker, sex in speakers.items()
        for emotion in emotions
        for take in range(takes)
    ]


RAVDESS = clips("ravdess", {f"{actor:02}": "male" if actor % 2 else "female" for actor in range(1, 25)})
TESS = clips("tess", {"OAF": "female", "YAF": "female"}, [emotion for emotion in EMOTIONS if emotion != "calm"])
SAVEE = clips("savee", {name: "male" for name in ("DC", "JE", "JK", "KL")}, ["angry", "sad"])


def labels(utterances: list[Utterance]) -> list[str]:
    return [utterance.emotion for utterance in utterances]


def speakers(utterances: list[Utterance], indices: tuple[int, ...]) -> set[str]:
    return {utterances[index].speaker for index in indices}


def sizes(split: Split) -> tuple[int, int, int]:
    return len(split.train), len(split.validation), len(split.test)


# random


@pytest.mark.parametrize("seed", SEEDS)
def test_random_split_is_exact_stratified_and_parts_no_recording(seed):
    takes = clips("mine", {f"s{speaker}": None for speaker in range(10)}, ["a", "b", "c"], takes=7)
    # of every take with number 0 there are two more copies, as from augmentation
    copies = [
        replace(take, path=take.path.with_suffix(f".{copy}.wav"))
        for take in takes
        if take.recording.endswith("-0")
        for copy in range(2)
    ]
    utterances = takes + copies
    split = random_split(utterances, labels(utterances), test=0.2, validation=0.1, seed=seed)
    check_split(split, utterances)
    assert sizes(split) == (189, 27, 54)
    for part, share in zip(PARTS, (63, 9, 18), strict=True):
        counts = Counter(utterances[index].emotion for index in getattr(split, part))
        assert counts == {"a": share, "b": share, "c": share}
    assert not split.speaker_disjoint and split.kind == "random"


@pytest.mark.parametrize("seed", SEEDS)
def test_random_split_shares_out_what_does_not_divide(seed):
    utterances = clips("x", {"s": None}, ["rare"], 5) + clips("x", {"s": None}, ["often", "other"], 46)
    split = random_split(utterances, labels(utterances), test=0.25, validation=0.25, seed=seed)
    assert sizes(split) == (49, 24, 24)
    assert Counter(utterances[index].emotion for index in split.test)["rare"] in (1, 2)


def test_the_seed_alone_decides_and_not_the_order_of_the_files():
    backwards = RAVDESS[::-1]
    one = random_split(RAVDESS, labels(RAVDESS), seed=1)
    same = random_split(backwards, labels(backwards), seed=1)
    other = random_split(RAVDESS, labels(RAVDESS), seed=2)
    assert {RAVDESS[index] for index in one.test} == {backwards[index] for index in same.test}
    assert one.test != other.test


@pytest.mark.parametrize(("test", "validation"), [(0.0, 0.1), (0.2, 0.0), (0.6, 0.4), (-0.1, 0.1)])
def test_random_split_refuses_senseless_shares(test, validation):
    with pytest.raises(SplitError):
        random_split(RAVDESS, labels(RAVDESS), test=test, validation=validation, seed=0)


def test_labels_that_were_dropped_or_do_not_fit_are_refused():
    with pytest.raises(SplitError, match="None"):
        random_split(RAVDESS, [None, *labels(RAVDESS)[1:]], seed=0)
    with pytest.raises(SplitError, match="labels"):
        random_split(RAVDESS, labels(RAVDESS)[1:], seed=0)


# by speaker


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("test", "validation", "count"), [(0.2, 0.1, (17, 2, 5)), (4, 2, (18, 2, 4))])
def test_speaker_split_parts_speakers_and_balances_sexes(seed, test, validation, count):
    split = speaker_split(RAVDESS, labels(RAVDESS), test=test, validation=validation, seed=seed)
    check_split(split, RAVDESS)
    parts = [speakers(RAVDESS, getattr(split, part)) for part in PARTS]
    assert tuple(map(len, parts)) == count
    assert split.speaker_disjoint and len(set.union(*parts)) == 24
    for part in parts:
        women = sum(int(speaker[-2:]) % 2 == 0 for speaker in part)
        assert abs(2 * women - len(part)) <= 1


@pytest.mark.parametrize("seed", SEEDS)
def test_a_corpus_with_too_few_speakers_stays_in_train_and_changes_no_other(seed):
    utterances = RAVDESS + TESS + SAVEE
    split = speaker_split(utterances, labels(utterances), test=0.2, validation=0.1, seed=seed)
    corpora = Counter(speaker.split("-")[0] for speaker in speakers(utterances, split.test))
    assert corpora == {"ravdess": 5, "savee": 1}
    assert {"tess-OAF", "tess-YAF"} <= speakers(utterances, split.train)
    alone = speaker_split(RAVDESS, labels(RAVDESS), test=0.2, validation=0.1, seed=seed)
    ravdess_test = {speaker for speaker in speakers(utterances, split.test) if speaker.startswith("ravdess")}
    assert ravdess_test == speakers(RAVDESS, alone.test)
    counted = speaker_split(utterances, labels(utterances), test=1, validation=1, seed=seed)
    assert {"tess-OAF", "tess-YAF"} <= speakers(utterances, counted.train)


@pytest.mark.parametrize("seed", range(20))
def test_every_part_has_every_label_where_speakers_allow_it(seed):
    utterances = clips("mine", {f"c{number}": None for number in range(5)}, ["calm"])
    utterances += clips("mine", {f"t{number}": None for number in range(5)}, ["tense"])
    both = speaker_split(utterances, labels(utterances), test=0.2, validation=0.2, seed=seed)
    for part in PARTS:
        assert {utterances[index].emotion for index in getattr(both, part)} == {"calm", "tense"}
    # A label of one speaker alone is trained on, and those around it are drawn as well as before.
    utterances += clips("mine", {"b": None}, ["bored"])
    split = speaker_split(utterances, labels(utterances), test=2, validation=2, seed=seed)
    for part in PARTS:
        heard = {utterances[index].emotion for index in getattr(split, part)}
        assert heard == {"calm", "tense"} | ({"bored"} if part == "train" else set())


def test_the_first_draw_is_kept_where_it_lacks_no_label():
    split = speaker_split(RAVDESS, labels(RAVDESS), test=0.2, validation=0.1, seed=0)  # as in figures once published
    assert {int(speaker[-2:]) for speaker in speakers(RAVDESS, split.test)} == {1, 9, 13, 16, 18}
    assert {int(speaker[-2:]) for speaker in speakers(RAVDESS, split.validation)} == {10, 21}


def test_speakers_can_be_named():
    validation = ["ravdess-04", "ravdess-05"]
    split = speaker_split(RAVDESS, labels(RAVDESS), test=["ravdess-03"], validation=validation, seed=0)
    assert speakers(RAVDESS, split.test) == {"ravdess-03"}
    assert speakers(RAVDESS, split.validation) == set(validation)
    assert len(speakers(RAVDESS, split.train)) == 21


@pytest.mark.parametrize(
    ("test", "validation", "message"),
    [
        (["ravdess-3"], 0.1, "'ravdess-3' is not in the data; did you mean 'ravdess-"),
        (["ravdess-03"], ["ravdess-03"], "asked for in test and in validation"),
        ("ravdess-03", 0.1, "list of speaker ids"),
        (1.5, 0.1, "between 0 and 1"),
        (0, 0.1, "at least 1"),
        (0.2, 0.01, "validation is empty"),
        (20, 4, "is empty"),
    ],
)
def test_speaker_split_refuses_what_it_cannot_give(test, validation, message):
    with pytest.raises(SplitError, match=message):
        speaker_split(RAVDESS, labels(RAVDESS), test=test, validation=validation, seed=0)


def test_speaker_split_refuses_unknown_speakers_and_random_never_calls_them_disjoint():
    unknown = [replace(clip, speaker=str(clip.path), speaker_known=False) for clip in RAVDESS]
    with pytest.raises(SplitError, match="576 utterances name no speaker"):
        speaker_split(unknown, labels(unknown), test=0.2, validation=0.1, seed=0)
    assert not random_split(unknown, labels(unknown), seed=0).speaker_disjoint


def test_parts_whose_speakers_nobody_names_are_not_called_disjoint():
    own = [replace(clip, speaker=str(clip.path)) for clip in RAVDESS]
    assert is_speaker_disjoint(own, range(10), range(10, 20))
    unknown = [replace(clip, speaker_known=False) for clip in own]
    assert not is_speaker_disjoint(unknown, range(10), range(10, 20))


def test_a_label_that_only_test_speakers_have_is_refused():
    utterances = RAVDESS + clips("ravdess", {"99": "male"}, ["bored"])
    with pytest.raises(SplitError, match="bored"):
        speaker_split(utterances, labels(utterances), test=["ravdess-99"], validation=0.1, seed=0)


# published folds


@pytest.mark.parametrize("seed", SEEDS)
def test_folds_of_the_datas_own_speakers_test_each_once_and_are_balanced(seed):
    both = RAVDESS + TESS + SAVEE
    folds = speaker_folds(both, labels(both), 5, seed=seed)
    assert folds == speaker_folds(both[::-1], labels(both[::-1]), 5, seed=seed)
    assert sorted(speaker for tested in folds for speaker in tested) == sorted({clip.speaker for clip in both})
    assert {len(tested) for tested in folds} == {6}  # 24 + 2 + 4 voices
    sex_of = {clip.speaker: clip.sex for clip in RAVDESS}
    for tested in folds:
        women = sum(sex_of.get(speaker) == "female" for speaker in tested)
        assert sum(speaker in sex_of for speaker in tested) in (4, 5) and women in (2, 3)
        split = speaker_split(both, labels(both), test=tested, validation=0.15, seed=seed)
        assert split.speaker_disjoint and speakers(both, split.test) == set(tested)
    assert folds != speaker_folds(both, labels(both), 5, seed=seed + 1)


@pytest.mark.parametrize("seed", SEEDS)
def test_every_fold_has_every_label_where_speakers_allow_it(seed):
    """Of twelve speakers every third one says one of the labels alone."""
    own = [
        clip
        for number in range(12)
        for clip in clips("mine", {f"{number:02}": None}, [("joy", "rage", "calm")[number % 3]])
    ]
    label_of = {clip.speaker: clip.emotion for clip in own}
    for tested in speaker_folds(own, labels(own), 2, seed=seed):
        assert {label_of[speaker] for speaker in tested} == {"joy", "rage", "calm"}


def test_folds_of_too_few_speakers_or_unnamed_ones_are_refused():
    with pytest.raises(SplitError, match="5 folds.*the data have 4 speakers; ask for 4 folds or fewer"):
        speaker_folds(SAVEE, labels(SAVEE), 5, seed=0)
    with pytest.raises(SplitError, match="the data have 2 speakers; ask for a random split, or add speakers"):
        speaker_folds(TESS, labels(TESS), 2, seed=0)
    unknown = [replace(clip, speaker=str(clip.path), speaker_known=False) for clip in SAVEE]
    with pytest.raises(SplitError, match="name no speaker"):
        speaker_folds(unknown, labels(unknown), 2, seed=0)


def test_ravdess_folds_test_every_actor_once():
    tested = []
    for fold in range(1, 7):
        split = published_split(RAVDESS, "ravdess-speakers", fold, seed=0)
        check_split(split, RAVDESS)
        assert split.speaker_disjoint and split.kind == f"ravdess-speakers/{fold}"
        assert speakers(RAVDESS, split.test) == set(FOLDS["ravdess-speakers"][fold - 1])
        assert [len(speakers(RAVDESS, getattr(split, part))) for part in PARTS] == [16, 4, 4]
        tested += speakers(RAVDESS, split.test)
    assert sorted(tested) == sorted(speakers(RAVDESS, tuple(range(len(RAVDESS)))))


def test_folds_of_both_corpora_test_every_voice_once():
    utterances, tested = RAVDESS + TESS, []
    for fold, own in enumerate(FOLDS["ravdess-speakers"], start=1):
        split = published_split(utterances, "ravdess-tess-speakers", fold, validation=0.1, seed=0)
        assert split.speaker_disjoint and set(own) <= speakers(utterances, split.test)
        assert any(speaker.startswith("tess") for speaker in speakers(utterances, split.train))
        tested += speakers(utterances, split.test)
    assert sorted(tested) == sorted(speakers(utterances, tuple(range(len(utterances)))))


def test_the_first_fold_is_the_published_one():
    assert FOLDS["ravdess-speakers"][0] == ("ravdess-01", "ravdess-11", "ravdess-20", "ravdess-21")


@pytest.mark.parametrize(("fold", "tested"), [(1, "tess-YAF"), (2, "tess-OAF")])
def test_tess_folds_validate_on_takes_of_the_one_training_speaker(fold, tested):
    split = published_split(TESS, "tess-speakers", fold, validation=0.2, seed=0)
    assert speakers(TESS, split.test) == {tested}
    assert speakers(TESS, split.validation) == speakers(TESS, split.train) != {tested}
    assert sizes(split) == (17, 4, 21) and split.speaker_disjoint


def test_other_corpora_join_a_published_folds_training():
    utterances = RAVDESS + TESS
    split = published_split(utterances, "ravdess-speakers", 1, seed=0)
    assert {"tess-OAF", "tess-YAF"} <= speakers(utterances, split.train)
    assert speakers(utterances, split.test) == set(FOLDS["ravdess-speakers"][0])


@pytest.mark.parametrize(
    ("name", "fold", "message"),
    [
        ("ravdess-speaker", 1, "did you mean 'ravdess-speakers'"),
        ("ravdess-speakers", 0, "folds 1 to 6"),
        ("ravdess-speakers", 7, "folds 1 to 6"),
        ("tess-speakers", 1, "'tess-YAF' is not in the data"),
    ],
)
def test_published_split_refuses_what_would_not_compare(name, fold, message):
    with pytest.raises(SplitError, match=message):
        published_split(RAVDESS, name, fold, seed=0)


# by corpus, by column


@pytest.mark.parametrize("seed", SEEDS)
def test_corpus_split_tests_whole_corpora_and_validates_on_the_others(seed):
    utterances = RAVDESS + TESS + SAVEE
    split = corpus_split(utterances, labels(utterances), test_corpora=["tess", "savee"], validation=0.1, seed=seed)
    assert len(split.test) == len(TESS) + len(SAVEE)
    assert {utterances[index].corpus for index in split.train + split.validation} == {"ravdess"}
    assert split.speaker_disjoint and len(speakers(utterances, split.validation)) == 2


def test_corpus_split_refuses_absent_corpora_and_labels_nobody_trains():
    utterances = RAVDESS + TESS
    with pytest.raises(SplitError, match="did you mean 'tess'"):
        corpus_split(utterances, labels(utterances), test_corpora=["tes"], seed=0)
    with pytest.raises(SplitError, match="calm"):
        corpus_split(utterances, labels(utterances), test_corpora=["ravdess"], validation=1, seed=0)


def test_a_column_split_that_shares_a_speaker_is_refused_with_a_remedy():
    own = [replace(clip, split=PARTS[number % 3]) for number, clip in enumerate(SAVEE)]
    with pytest.raises(
        LeakError, match="speakers? in more than one part: savee-.*one part, or take split.kind: random"
    ):
        column_split(own, labels(own))


def test_column_split_is_taken_as_given_and_checked():
    given = [replace(clip, split=("train", "validation", "test")[int(clip.speaker[-2:]) % 3]) for clip in RAVDESS]
    split = column_split(given, labels(given))
    assert split.kind == "column" and split.speaker_disjoint
    assert all(given[index].split == part for part in PARTS for index in getattr(split, part))
    with pytest.raises(LeakError, match="ravdess-01"):
        column_split([replace(given[0], split="test"), *given[1:]], labels(given))
    with pytest.raises(SplitError, match="1 utterances say no split"):
        column_split([replace(given[0], split=None), *given[1:]], labels(given))
    rare = ["odd" if clip.split == "test" else label for clip, label in zip(given, labels(given), strict=True)]
    with pytest.raises(SplitError, match="no utterance to train on is left for odd: mend the split column, or drop"):
        column_split(given, rare)


# the leak check


def moved(split: Split, index: int, source: str, target: str) -> Split:
    """`split` with one index taken out of `source` and put into `target`."""
    left = tuple(other for other in getattr(split, source) if other != index)
    return replace(split, **{source: left, target: tuple(sorted((*getattr(split, target), index)))})


@pytest.fixture
def good() -> Split:
    return speaker_split(RAVDESS, labels(RAVDESS), test=0.2, validation=0.1, seed=0)


@pytest.mark.parametrize(("source", "target"), permutations(PARTS, 2))
def test_a_moved_clip_leaks_its_speaker(good, source, target):
    index = getattr(good, source)[0]
    with pytest.raises(LeakError, match=rf"1 speaker in more than one part: {RAVDESS[index].speaker} "):
        check_split(moved(good, index, source, target), RAVDESS)


def test_a_shared_recording_or_file_leaks_even_in_a_random_split():
    split = random_split(RAVDESS, labels(RAVDESS), seed=0)
    first, second = split.train[0], split.test[0]
    for field, what in (("recording", "recording"), ("path", "file")):
        utterances = list(RAVDESS)
        utterances[second] = replace(utterances[second], **{field: getattr(utterances[first], field)})
        with pytest.raises(LeakError, match=f"1 {what} in more than one part"):
            check_split(split, utterances)


def test_a_shared_content_leaks_even_in_a_random_split():
    split = random_split(RAVDESS, labels(RAVDESS), seed=0)
    contents = [f"content {index}" for index in range(len(RAVDESS))]
    check_split(split, RAVDESS, contents)
    doubled = [*contents]
    doubled[split.train[1]] = doubled[split.train[0]]  # within one part nothing leaks
    check_split(split, RAVDESS, doubled)
    contents[split.validation[0]] = contents[split.test[0]]
    with pytest.raises(LeakError, match="1 content in more than one part"):
        check_split(split, RAVDESS, contents)


@pytest.mark.parametrize("contents", [[], ["x"], [""] * len(RAVDESS)])
def test_contents_that_say_nothing_are_refused(good, contents):
    with pytest.raises(SplitError, match="no content hash"):
        check_split(good, RAVDESS, contents)


def test_lost_doubled_foreign_and_missing_indices_are_refused(good):
    cases = {
        "1 utterances are in no part": replace(good, train=good.train[1:]),
        "1 utterances are used twice": replace(good, test=(*good.test, good.train[0])),
        "1 indices beyond": replace(good, test=(*good.test, len(RAVDESS))),
        "validation is empty": replace(good, validation=(), train=tuple(sorted(good.train + good.validation))),
    }
    for message, split in cases.items():
        with pytest.raises(LeakError, match=message):
            check_split(split, RAVDESS)


def test_a_random_split_cannot_declare_itself_speaker_disjoint():
    split = random_split(RAVDESS, labels(RAVDESS), seed=0)
    with pytest.raises(LeakError, match="speaker_disjoint=True"):
        check_split(replace(split, speaker_disjoint=True), RAVDESS)


def test_one_speaker_in_every_part_leaks_unless_random():
    utterances = clips("mine", {"ann": "female"})
    split = random_split(utterances, labels(utterances), seed=0)
    with pytest.raises(LeakError, match="1 speaker in more than one part: mine-ann"):
        check_split(replace(split, kind="column"), utterances)


def test_the_message_names_the_first_offenders_and_counts_them(good):
    random = random_split(RAVDESS, labels(RAVDESS), seed=0)
    with pytest.raises(LeakError, match=r"24 speakers in more than one part: ravdess-01 .* and 21 more"):
        check_split(replace(random, kind="speakers"), RAVDESS)


# manifests


def write_manifest(path: Path, content: dict) -> Path:
    path.write_text(json.dumps(content, indent=1))
    return path


def test_a_manifest_tells_the_clips_and_no_place_on_this_machine(good):
    content = manifest(good, RAVDESS, ROOT)
    assert content["kind"] == "speakers" and content["seed"] == 0 and content["speaker_disjoint"] is True
    assert content["test"] == sorted(content["test"]) and len(content["hash"]) == 64
    assert content["train"][0].startswith("ravdess/ravdess/")
    absolute = [replace(clip, path=clip.path.resolve()) for clip in RAVDESS]
    assert manifest(good, absolute, ROOT.resolve()) == content


def test_an_altered_manifest_is_refused(good, tmp_path):
    content = manifest(good, RAVDESS, ROOT)
    for change in ({"kind": "random"}, {"seed": 1}, {"test": content["test"][1:]}, {"train": content["train"][::-1]}):
        with pytest.raises(LeakError, match="altered"):
            speakers_heard(write_manifest(tmp_path / "split.json", {**content, **change}), RAVDESS, ROOT)


@pytest.mark.parametrize("content", ["", "[]", '{"kind": "random"}'])
def test_a_file_that_is_no_manifest_is_refused(tmp_path, content):
    (tmp_path / "split.json").write_text(content)
    with pytest.raises(SplitError, match=r"split\.json"):
        speakers_heard(tmp_path / "split.json", RAVDESS, ROOT)


# the real corpora


@pytest.mark.parametrize("seed", SEEDS)
def test_real_ravdess_random_split_is_80_10_10_and_keeps_actor_07s_pair(data_dir, seed):
    utterances = find_utterances(data_dir, [{"name": "ravdess"}]).utterances
    split = random_split(utterances, labels(utterances), test=0.1, validation=0.1, seed=seed)
    assert sizes(split) == (1152, 144, 144)
    pair = [i for i, clip in enumerate(utterances) if clip.recording == "ravdess-03-01-03-01-02-01-07"]
    assert len(pair) == 2
    assert sum(set(pair) <= set(getattr(split, part)) for part in PARTS) == 1


def test_real_folds_have_240_test_clips_each(data_dir):
    utterances = find_utterances(data_dir, [{"name": "ravdess"}, {"name": "tess"}]).utterances
    for fold in range(1, 7):
        split = published_split(utterances, "ravdess-speakers", fold, seed=0)
        assert sizes(split) == (16 * 60 + 2798, 4 * 60, 4 * 60)
