"""Corpus readers, on real naming: empty files made here, and the real corpora."""

import json
import unicodedata
from collections import Counter
from pathlib import Path

import pytest

from ser_model.corpora import CORPORA, CorpusError, Scan, find_utterances, make_corpus
from ser_model.corpora.base import CORPUS_SUFFIXES, Corpus
from ser_model.disk import files_below
from ser_model.labels import EMOTIONS, label_scheme
from ser_model.splits import random_split


def write(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def scan(root: Path, name: str, **options) -> Scan:
    return find_utterances(root, [{"name": name, **options}])


def only(root: Path, name: str, **options):
    found = scan(root, name, **options)
    assert len(found.utterances) == 1 and not found.problems
    return found.utterances[0]


# every corpus


@pytest.mark.parametrize("name", CORPORA)
def test_every_corpus_tells_its_title_licence_and_naming(name):
    corpus = CORPORA[name]
    assert issubclass(corpus, Corpus) and corpus.name == name
    assert corpus.title and corpus.licence and corpus.naming
    assert isinstance(corpus.customary_folders, tuple)


NAMED = {  # two clips of each corpus whose names tell all
    "ravdess": ("Actor_01/03-01-05-01-01-01-01", "Actor_02/03-01-05-01-01-01-02"),
    "tess": ("OAF_angry/OAF_bar_angry", "YAF_angry/YAF_bar_angry"),
    "cremad": ("AudioWAV/1001_DFA_ANG_XX", "AudioWAV/1002_DFA_ANG_XX"),
    "savee": ("DC/a01", "JE/a01"),
}


def test_the_table_above_has_every_corpus_with_a_naming():
    assert NAMED.keys() == CORPORA.keys() - {"folder"}


@pytest.mark.parametrize("name", NAMED)
@pytest.mark.parametrize("ending", [".wav", ".WAV", ".flac"])
def test_wav_and_flac_in_any_case_read_alike(tmp_path, name, ending):
    found = scan(write(tmp_path, *(stem + ending for stem in NAMED[name])), name)
    assert [utterance.emotion for utterance in found.utterances] == ["angry", "angry"]
    assert len({utterance.speaker for utterance in found.utterances}) == 2
    assert all(utterance.speaker.startswith(f"{name}-") and utterance.corpus == name for utterance in found.utterances)


@pytest.mark.parametrize("name", NAMED)
def test_a_second_copy_one_level_down_is_reported_and_left_out(tmp_path, name):
    folder = CORPORA[name].customary_folders[0].lower()
    write(tmp_path, *(f"{folder}/{stem}.wav" for stem in NAMED[name]))
    write(tmp_path, *(f"{folder}/zz copy/{stem}.flac" for stem in NAMED[name]))
    found = scan(tmp_path, name)
    assert [utterance.path for utterance in found.utterances] == [tmp_path / f"{folder}/{s}.wav" for s in NAMED[name]]
    assert [problem.reason for problem in found.problems] == [
        f"duplicate: second copy of {stem}.wav" for stem in NAMED[name]
    ]


@pytest.mark.parametrize("name", NAMED)
def test_a_badly_named_file_is_reported_with_the_naming(tmp_path, name):
    folder = CORPORA[name].customary_folders[0]
    write(tmp_path, *(f"{folder}/{stem}.wav" for stem in NAMED[name]), f"{folder}/take 3.wav")
    found = scan(tmp_path, name)
    assert len(found.utterances) == 2
    assert [problem.path for problem in found.problems] == [tmp_path / folder / "take 3.wav"]
    assert CORPORA[name].naming in found.problems[0].reason


@pytest.mark.parametrize("name", NAMED)
def test_nothing_found_says_where_what_was_wanted_and_what_to_do(tmp_path, name):
    with pytest.raises(CorpusError) as error:
        scan(tmp_path, name)
    for part in (str(tmp_path), CORPORA[name].naming, CORPORA[name].url, CORPORA[name].customary_folders[0]):
        assert part in str(error.value)


def test_a_missing_data_folder_is_named(tmp_path):
    with pytest.raises(CorpusError, match="nowhere is not a folder"):
        scan(tmp_path / "nowhere", "tess")


def test_a_corpus_in_its_customary_folder_is_not_looked_for_elsewhere(tmp_path):
    write(tmp_path, "tess/OAF_sad/OAF_bar_sad.wav", "copies/OAF_base_sad.wav")
    assert only(tmp_path, "tess").path == tmp_path / "tess/OAF_sad/OAF_bar_sad.wav"


def test_corpora_that_share_a_folder_do_not_report_each_other(tmp_path):
    write(tmp_path, *(f"{stem}.wav" for stems in NAMED.values() for stem in stems), "odd.wav")
    found = find_utterances(tmp_path, [{"name": "ravdess"}, {"name": "savee"}])
    assert Counter(utterance.corpus for utterance in found.utterances) == {"ravdess": 2, "savee": 2}
    assert [problem.path.name for problem in found.problems] == ["odd.wav"]


def test_a_file_that_one_corpus_uses_is_no_problem_of_another(tmp_path):
    write(tmp_path, "mine/joy/1.wav", "03-01-05-01-01-01-01.wav")
    found = find_utterances(tmp_path, [{"name": "ravdess"}, {"name": "folder", "path": "mine"}])
    assert [utterance.corpus for utterance in found.utterances] == ["ravdess", "folder"] and not found.problems


def test_a_corpus_asked_for_twice_gives_each_clip_once(tmp_path):
    write(tmp_path, "03-01-05-01-01-01-01.wav", "03-02-05-01-01-01-01.wav")
    corpora = [{"name": "ravdess"}, {"name": "ravdess", "channels": ["speech", "song"]}]
    found = find_utterances(tmp_path, corpora)
    assert [utterance.channel for utterance in found.utterances] == ["speech", "song"]
    assert "1 clips were listed already" in found.notes[0]


def test_listing_passes_what_is_hidden_and_survives_a_link_in_a_circle(tmp_path):
    write(tmp_path, "b/x.wav", "a/y.FLAC", "a/._y.FLAC", ".cache/z.wav", "a/notes.txt")
    (tmp_path / "b" / "loop").symlink_to(tmp_path, target_is_directory=True)
    assert files_below(tmp_path, CORPUS_SUFFIXES) == [tmp_path / "a/y.FLAC", tmp_path / "b/x.wav"]


def test_a_folder_that_several_links_lead_to_is_read_by_the_first(tmp_path):
    write(tmp_path, "elsewhere/x.wav")
    (tmp_path / "data").mkdir()
    for name in "hgfedcba":
        (tmp_path / "data" / name).symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    assert files_below(tmp_path / "data", CORPUS_SUFFIXES) == [tmp_path / "data/a/x.wav"]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"name": "ravdes"}, "did you mean 'ravdess'"),
        ({}, "unknown corpus None"),
        ({"name": ["ravdess"]}, r"unknown corpus \['ravdess'\]"),
        ({"name": "ravdess", "chanels": ["speech"]}, "did you mean 'channels'"),
        ({"name": "ravdess", "channels": ["songs"]}, "did you mean 'song'"),
        ({"name": "ravdess", "channels": "speech"}, "must be a list"),
        ({"name": "tess", "channels": ["speech"]}, "unknown tess option 'channels'; known: words"),
        ({"name": "folder"}, "missing a required argument: 'path'"),
        ({"name": "folder", "path": "mine", "corpus": 2024}, "folder: corpus is 2024; give a text, in quotes"),
        ({"name": "folder", "path": 2024}, "folder: path is 2024; give a text, in quotes"),
        ({"name": "folder", "path": "mine", "corpus": None}, "folder: corpus is None; give a text"),
    ],
)
def test_unknown_names_and_options_are_refused(spec, message):
    with pytest.raises(CorpusError, match=message):
        make_corpus(spec)


# RAVDESS


def test_ravdess_name_is_read_in_full(tmp_path):
    clip = only(write(tmp_path, "Actor_12/03-01-06-02-02-01-12.wav"), "ravdess")
    assert (clip.speaker, clip.sex, clip.emotion) == ("ravdess-12", "female", "fearful")
    assert (clip.intensity, clip.text, clip.channel) == ("strong", "Dogs are sitting by the door", "speech")
    assert clip.recording == "ravdess-03-01-06-02-02-01-12"


def test_ravdess_emotion_codes(tmp_path):
    write(tmp_path, *(f"03-01-0{code}-01-01-01-01.wav" for code in range(1, 9)))
    assert tuple(utterance.emotion for utterance in scan(tmp_path, "ravdess").utterances) == EMOTIONS


def test_ravdess_channels_pick_speech_and_song(tmp_path):
    write(tmp_path, "03-01-03-01-01-01-01.wav", "03-02-03-01-01-01-01.wav")
    assert only(tmp_path, "ravdess").channel == "speech"
    assert only(tmp_path, "ravdess", channels=["song"]).channel == "song"
    assert len(scan(tmp_path, "ravdess", channels=["speech", "song"]).utterances) == 2


def test_ravdess_without_the_channel_asked_for_says_so(tmp_path):
    with pytest.raises(CorpusError, match=r"channels asked for: song"):
        scan(write(tmp_path, "03-01-03-01-01-01-01.wav"), "ravdess", channels=["song"])


def test_ravdess_actor_07s_doubled_take_is_one_recording(tmp_path):
    pair = scan(write(tmp_path, "03-01-03-01-02-01-07.wav", "03-01-03-01-02-02-07.wav"), "ravdess")
    assert len(pair.utterances) == 2 and not pair.problems
    assert len({utterance.recording for utterance in pair.utterances}) == 1
    write(tmp_path / "other", "03-01-03-01-02-01-08.wav", "03-01-03-01-02-02-08.wav")
    assert len({utterance.recording for utterance in scan(tmp_path / "other", "ravdess").utterances}) == 2


@pytest.mark.parametrize(
    "name",
    [
        "03-01-09-01-01-01-01",  # no ninth emotion
        "03-01-01-02-01-01-01",  # neutral has no strong form
        "03-01-03-01-01-01-25",  # 24 actors
        "02-01-03-01-01-01-01",  # a video's name
        "03-01-03-01-01-01",
    ],
)
def test_ravdess_impossible_names_are_problems(tmp_path, name):
    write(tmp_path, "RAVDESS/03-01-03-01-01-01-01.wav", f"RAVDESS/{name}.wav")
    assert [problem.path.stem for problem in scan(tmp_path, "ravdess").problems] == [name]


def test_ravdess_folder_that_contradicts_the_name_is_a_problem(tmp_path):
    write(tmp_path, "Actor_03/03-01-03-01-01-01-03.wav", "Actor_03/03-01-03-01-01-01-04.wav")
    found = scan(tmp_path, "ravdess")
    assert [utterance.speaker for utterance in found.utterances] == ["ravdess-03"]
    assert [problem.reason for problem in found.problems] == [
        "badly named: the folder says actor 03, the name says actor 04"
    ]


# TESS


@pytest.mark.parametrize(
    ("path", "speaker", "emotion"),
    [
        ("OAF_Fear/OAF_bar_fear.wav", "tess-OAF", "fearful"),
        ("OAF_fear/OAF_bar_fear.wav", "tess-OAF", "fearful"),
        ("OAF_Pleasant_surprise/OAF_bar_ps.wav", "tess-OAF", "surprised"),
        ("YAF_pleasant_surprised/YAF_bar_ps.wav", "tess-YAF", "surprised"),
        ("YAF_pleasant_surprise/YAF_bar_ps.wav", "tess-YAF", "surprised"),
        ("OAF_neutral/OA_bite_neutral.wav", "tess-OAF", "neutral"),
        ("OAF_Sad/OAF_bar_sad.wav", "tess-OAF", "sad"),
        ("YAF_bar_disgust.wav", "tess-YAF", "disgust"),
        ("YAF_happy/yaf_bar_happy.wav", "tess-YAF", "happy"),
    ],
)
def test_tess_spellings_met_in_the_wild(tmp_path, path, speaker, emotion):
    clip = only(write(tmp_path, path), "tess")
    assert (clip.speaker, clip.emotion, clip.sex) == (speaker, emotion, "female")
    assert clip.text in ("Say the word bar", "Say the word bite")


def test_tess_by_the_word_keeps_both_voices_and_all_emotions_of_a_word(tmp_path):
    words = [f"{first}{second}" for first in "abcdefgh" for second in "aeiou"]
    voices = [f"{voice}_{word}" for voice in ("OAF", "YAF") for word in words]
    write(tmp_path, *(f"{voice}_{emotion}.wav" for voice in voices for emotion in ("sad", "ps")))
    found = scan(tmp_path, "tess", words=0.5).utterances
    kept = {utterance.text for utterance in found}
    assert 0.25 * len(words) < len(kept) < 0.75 * len(words) and len(found) == 4 * len(kept)
    fewer = scan(tmp_path, "tess", words=0.2).utterances
    assert {utterance.text for utterance in fewer} < kept
    for share in (0, 1.5, "half"):
        with pytest.raises(CorpusError, match="give the share of its words"):
            scan(tmp_path, "tess", words=share)


def test_tess_folder_that_contradicts_the_name_is_a_problem(tmp_path):
    write(tmp_path, "OAF_sad/OAF_bar_sad.wav", "OAF_sad/OAF_base_happy.wav", "OAF_sad/YAF_base_sad.wav")
    found = scan(tmp_path, "tess")
    assert [utterance.path.name for utterance in found.utterances] == ["OAF_bar_sad.wav"]
    assert [problem.path.name for problem in found.problems] == ["OAF_base_happy.wav", "YAF_base_sad.wav"]


# CREMA-D


def test_cremad_name_is_read_in_full(tmp_path):
    clip = only(write(tmp_path, "AudioWAV/1001_IEO_FEA_HI.wav"), "cremad")
    assert (clip.speaker, clip.emotion, clip.intensity) == ("cremad-1001", "fearful", "high")
    assert clip.text == "It's eleven o'clock"


def test_cremad_codes(tmp_path):
    names = [f"1001_WSI_{emotion}_XX.wav" for emotion in ("ANG", "DIS", "FEA", "HAP", "NEU", "SAD")]
    emotions = [utterance.emotion for utterance in scan(write(tmp_path, *names), "cremad").utterances]
    assert emotions == ["angry", "disgust", "fearful", "happy", "neutral", "sad"]


def test_cremad_level_spelt_with_one_x_is_read(tmp_path):
    clip = only(write(tmp_path, "1040_ITH_SAD_X.wav"), "cremad")
    assert (clip.emotion, clip.intensity, clip.recording) == ("sad", None, "cremad-1040_ITH_SAD_XX")


def test_cremad_sexes_come_from_the_table_beside_the_clips(tmp_path):
    write(tmp_path, "CREMA-D/AudioWAV/1001_DFA_ANG_XX.wav", "CREMA-D/AudioWAV/1002_DFA_ANG_XX.wav")
    without = scan(tmp_path, "cremad")
    assert [utterance.sex for utterance in without.utterances] == [None, None]
    assert "2 speakers is unknown" in without.notes[0] and "VideoDemographics.csv" in without.notes[0]
    table = '"ActorID","Age","Sex","Race","Ethnicity"\n1001,51,"Male","x","y"\n1002,21,"Female","x","y"\n'
    (tmp_path / "CREMA-D" / "VideoDemographics.csv").write_text(table)
    found = scan(tmp_path, "cremad")
    assert [utterance.sex for utterance in found.utterances] == ["male", "female"] and not found.notes


# SAVEE


@pytest.mark.parametrize("layout", ["{}_{}", "{}/{}", "AudioData/{}/{}"])
def test_savee_letters_in_both_layouts(tmp_path, layout):
    write(
        tmp_path, *(layout.format("DC", f"{letters}01") + ".wav" for letters in ("a", "d", "f", "h", "n", "sa", "su"))
    )
    found = scan(tmp_path, "savee")
    assert {utterance.path.stem.removeprefix("DC_")[:-2]: utterance.emotion for utterance in found.utterances} == {
        "a": "angry",
        "d": "disgust",
        "f": "fearful",
        "h": "happy",
        "n": "neutral",
        "sa": "sad",
        "su": "surprised",
    }
    assert {(utterance.speaker, utterance.sex, utterance.text) for utterance in found.utterances} == {
        ("savee-DC", "male", None)
    }


def test_savee_refuses_letters_and_speakers_that_it_does_not_have(tmp_path):
    write(tmp_path, "SAVEE/DC/sa01.wav", "SAVEE/DC/s01.wav", "SAVEE/XY/a01.wav", "SAVEE/a01.wav")
    found = scan(tmp_path, "savee")
    assert [utterance.emotion for utterance in found.utterances] == ["sad"]
    assert len(found.problems) == 3


def test_savee_flat_and_foldered_copies_are_one_clip(tmp_path):
    found = scan(write(tmp_path, "SAVEE/DC/a01.wav", "SAVEE/flat/DC_a01.wav"), "savee")
    assert len(found.utterances) == 1 and found.problems[0].reason == "duplicate: second copy of DC/a01.wav"


# folder


def test_folder_takes_the_first_folder_for_the_label_and_says_that_speakers_are_unknown(tmp_path):
    write(tmp_path, "mine/joy/ann/1.wav", "mine/joy/2.mp3", "mine/boredom/1.wav", "mine/loose.wav")
    found = scan(tmp_path, "folder", path="mine")
    assert [(utterance.emotion, utterance.path.name) for utterance in found.utterances] == [
        ("boredom", "1.wav"),
        ("joy", "2.mp3"),
        ("joy", "1.wav"),
    ]
    assert len({utterance.speaker for utterance in found.utterances}) == 3
    assert not any(utterance.speaker_known for utterance in found.utterances)
    assert "3 of 3 clips name no speaker" in found.notes[0]
    assert [problem.reason for problem in found.problems] == ["badly named: lies in no label folder"]


def test_formats_of_one_file_are_one_take_of_a_folder(tmp_path):
    names = [f"mine/{label}/{number}.{ending}" for label in "ab" for number in range(10) for ending in ("wav", "mp3")]
    write(tmp_path, *names, "mine/a/0.1.wav")
    found = scan(tmp_path, "folder", path="mine").utterances
    assert len(found) == 41 and len({utterance.recording for utterance in found}) == 21
    labels = [utterance.emotion for utterance in found]
    for seed in range(5):
        split = random_split(found, labels, test=0.2, validation=0.2, seed=seed)
        parts = [{found[index].path.with_suffix("") for index in part} for part in (split.train, split.test)]
        assert not parts[0] & parts[1]


ROWS = [
    {"path": "a.wav", "label": "joy", "speaker": "ann", "sex": "F", "split": "train"},
    {"path": "sub/b.flac", "label": "joy", "speaker": "bob", "sex": "male", "split": "dev"},
    {"path": "c.m4a", "label": "boredom", "speaker": "", "sex": "", "split": "test"},
]


def write_table(path: Path, rows: list[dict]) -> Path:
    write(path.parent, *(row["path"] for row in ROWS))
    if path.suffix == ".jsonl":
        path.write_text("\n".join(map(json.dumps, rows)) + "\n")
    else:
        columns = list(rows[0])
        lines = [columns, *([str(row.get(column, "")) for column in columns] for row in rows)]
        path.write_text("\ufeff" + "\n".join(map(",".join, lines)), encoding="utf-8")
    return path


@pytest.mark.parametrize("name", ["clips.csv", "clips.jsonl"])
def test_tables_give_speaker_sex_and_split(tmp_path, name):
    write_table(tmp_path / "mine" / name, ROWS)
    found = scan(tmp_path, "folder", path=f"mine/{name}", corpus="home")
    assert not found.problems
    assert [
        (utterance.path.relative_to(tmp_path).as_posix(), utterance.emotion, utterance.sex, utterance.split)
        for utterance in found.utterances
    ] == [
        ("mine/a.wav", "joy", "female", "train"),
        ("mine/c.m4a", "boredom", None, "test"),
        ("mine/sub/b.flac", "joy", "male", "validation"),
    ]
    assert [utterance.speaker_known for utterance in found.utterances] == [True, False, True]
    assert {utterance.corpus for utterance in found.utterances} == {"home"}
    assert found.utterances[0].speaker == "home-ann"


@pytest.mark.parametrize("name", ["clips.csv", "clips.jsonl"])
def test_a_table_made_on_windows_finds_its_clips(tmp_path, name):
    """And on its own system a name that holds a backslash."""
    rows = [row | {"path": row["path"].replace("/", "\\")} for row in ROWS] + [{**ROWS[0], "path": "own\\name.wav"}]
    write(tmp_path, "own\\name.wav")
    found = scan(tmp_path, "folder", path=write_table(tmp_path / name, rows).name)
    assert not found.problems
    names = [utterance.path.relative_to(tmp_path).as_posix() for utterance in found.utterances]
    assert names == ["a.wav", "c.m4a", "own\\name.wav", "sub/b.flac"]
    assert found.utterances[-1].recording == "folder-sub/b"


@pytest.mark.parametrize("name", ["metadata.csv", "metadata.jsonl"])
def test_a_table_within_a_folder_of_labels_is_pointed_at_and_read_as_others_make_it(tmp_path, name):
    rows = [{"file_name": row.pop("path"), **row} for row in map(dict, ROWS)]
    write_table(tmp_path / "both" / name, rows)
    write(tmp_path, "both/joy/1.wav")
    [note] = [note for note in scan(tmp_path, "folder", path="both").notes if "WARNING" in note]
    assert f"{name} lies there, but is not used" in note and f"give path: both/{name} to use it" in note
    found = scan(tmp_path, "folder", path=f"both/{name}")
    assert [utterance.path.name for utterance in found.utterances] == ["a.wav", "c.m4a", "b.flac"]
    assert found.utterances[0].speaker == "folder-ann" and not found.problems
    assert not any("columns not used" in note for note in found.notes)


@pytest.mark.parametrize("name", ["clips.csv", "clips.jsonl"])
def test_a_speaker_spelt_in_two_ways_is_one_person_and_one_in_two_cases_is_asked_about(tmp_path, name):
    names = [unicodedata.normalize(form, "Zoë") for form in ("NFC", "NFD")] + ["zoë"]
    assert len(set(names)) == 3
    rows = [row | {"speaker": said, "recording": f"take {said}"} for row, said in zip(ROWS, names, strict=True)]
    found = scan(write_table(tmp_path / name, rows).parent, "folder", path=name)
    assert {utterance.speaker for utterance in found.utterances} == {"folder-Zoë", "folder-zoë"}
    assert {utterance.recording for utterance in found.utterances} == {"folder-take Zoë", "folder-take zoë"}
    assert any("the speakers Zoë and zoë differ by case alone" in note for note in found.notes)
    one = scan(write_table(tmp_path / name, rows[:2]).parent, "folder", path=name)
    assert not any("by case" in note for note in one.notes)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"label": ""}, "no label"),
        ({"path": ""}, "no path"),
        ({"path": "gone.wav"}, "no such file"),
        ({"sex": "x"}, "unknown sex 'x'"),
        ({"split": "training"}, "unknown split 'training'"),
        ({"path": "sub/../a.wav"}, "listed before"),
    ],
)
@pytest.mark.parametrize("name", ["clips.csv", "clips.jsonl"])
def test_a_bad_row_is_left_out_and_reported(tmp_path, name, change, reason):
    write_table(tmp_path / name, [*ROWS, {**ROWS[0], **change}])
    found = scan(tmp_path, "folder", path=name)
    assert len(found.utterances) == 3
    assert len(found.problems) == 1 and reason in found.problems[0].reason and name in found.problems[0].reason


def test_broken_json_lines_are_reported(tmp_path):
    table = write_table(tmp_path / "clips.jsonl", ROWS)
    table.write_text(table.read_text() + "{oops\n[1]\n")
    reasons = [problem.reason for problem in scan(tmp_path, "folder", path="clips.jsonl").problems]
    assert ["row 4: not JSON" in reasons[0], "row 5: not a JSON object" in reasons[1]] == [True, True]


def test_rows_may_share_a_recording_and_unused_columns_are_told(tmp_path):
    rows = [{**row, "recording": "take-1", "mood": "x"} for row in ROWS]
    write_table(tmp_path / "clips.csv", rows)
    found = scan(tmp_path, "folder", path="clips.csv")
    assert {utterance.recording for utterance in found.utterances} == {"folder-take-1"}
    assert any("columns not used: mood" in note for note in found.notes)


@pytest.mark.parametrize("content", ["file,label\na.wav,joy\n", "path;label\na.wav;joy\n", ""])
def test_a_csv_without_the_columns_is_refused(tmp_path, content):
    (tmp_path / "clips.csv").write_text(content)
    with pytest.raises(CorpusError, match="no column"):
        scan(tmp_path, "folder", path="clips.csv")


def test_a_csv_may_spell_its_columns_as_people_type_them(tmp_path):
    write(tmp_path, "a.wav")
    (tmp_path / "clips.csv").write_text("Path, Label, SEX \na.wav, joy, F\n")
    [clip] = scan(tmp_path, "folder", path="clips.csv").utterances
    assert (clip.path.name, clip.emotion, clip.sex) == ("a.wav", "joy", "female")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("path,label,Label\na.wav,joy,grief\n", "several columns are called label"),
        (f'path,label\na.wav,"joy\n{"b.wav,joy" * 15_000}', "see that every quote in it is closed"),
    ],
)
def test_a_csv_that_cannot_be_read_is_refused_in_a_sentence(tmp_path, content, message):
    (tmp_path / "clips.csv").write_text(content)
    with pytest.raises(CorpusError, match=message):
        scan(tmp_path, "folder", path="clips.csv")


def test_what_pandas_writes_for_a_missing_speaker_is_nobody(tmp_path):
    write_table(tmp_path / "clips.jsonl", [row | {"speaker": float("nan")} for row in ROWS])
    assert "NaN" in (tmp_path / "clips.jsonl").read_text()
    found = scan(tmp_path, "folder", path="clips.jsonl")
    assert not any(utterance.speaker_known for utterance in found.utterances)
    assert "3 of 3 clips name no speaker" in found.notes[0]


def test_a_path_that_no_file_can_have_is_an_unusable_row(tmp_path):
    rest = "".join(f"c{number}.wav,joy\n" for number in range(50))
    write(tmp_path, "a.wav")
    (tmp_path / "clips.csv").write_text(f'path,label\na.wav,joy\n{"b" * 300}.wav,joy\n"a.wav,joy\n{rest}')
    long, quote = scan(tmp_path, "folder", path="clips.csv").problems
    assert long.reason.endswith("row 3: no such file")
    assert quote.path.name == "clips.csv" and "row 54: no label" in quote.reason and len(quote.reason) < 200


@pytest.mark.parametrize("label", [{"emotion": "joy"}, ["joy"], True])
def test_a_json_label_that_is_no_text_is_reported(tmp_path, label):
    write_table(tmp_path / "clips.jsonl", [*ROWS[1:], {**ROWS[0], "label": label}])
    found = scan(tmp_path, "folder", path="clips.jsonl")
    assert len(found.utterances) == 2
    assert f"row 3: label is {json.dumps(label)}; wanted a text" in found.problems[0].reason


def test_labels_are_the_same_however_their_letters_are_composed(tmp_path):
    composed, apart = "\u00c4rger", "A\u0308rger"
    write(tmp_path, f"mine/{apart}/1.wav", f"mine/{composed}/2.wav", "mine/Freude/1.wav")
    found = scan(tmp_path, "folder", path="mine").utterances
    for spelt in (composed, apart):
        for spec in ({"names": [spelt, "Freude"]}, {"names": ["Freude", "Wut"], "merge": {spelt: "Wut"}}):
            scheme = label_scheme(spec)
            assert sorted(map(scheme.label, found)) == sorted(["Freude", *[scheme.classes[composed]] * 2])


def test_one_speaker_in_two_tables_is_refused(tmp_path):
    """Tested in one and trained on in the other, that person would count as unseen."""
    for name in ("one", "two"):
        write(tmp_path, f"{name}/clip.wav")
        (tmp_path / f"{name}.csv").write_text(f"path,label,speaker\n{name}/clip.wav,calm,ada\n")
    corpora = [{"name": "folder", "path": f"{name}.csv", "corpus": name} for name in ("one", "two")]
    with pytest.raises(CorpusError, match="one and two both name a speaker 'ada': .* one table .* name them apart"):
        find_utterances(tmp_path, corpora)


def test_two_folders_need_two_names(tmp_path):
    write(tmp_path, "one/joy/1.wav", "two/joy/1.wav")
    with pytest.raises(CorpusError, match="both called folder"):
        find_utterances(tmp_path, [{"name": "folder", "path": "one"}, {"name": "folder", "path": "two"}])
    corpora = [{"name": "folder", "path": "one"}, {"name": "folder", "path": "two", "corpus": "b"}]
    assert len({utterance.recording for utterance in find_utterances(tmp_path, corpora).utterances}) == 2


# the real corpora


def test_real_ravdess_speech_has_1440_clips(data_dir):
    found = scan(data_dir, "ravdess")
    assert len(found.utterances) == 1440 and not found.problems
    assert Counter(utterance.emotion for utterance in found.utterances) == {
        emotion: 96 if emotion == "neutral" else 192 for emotion in EMOTIONS
    }
    assert Counter(utterance.sex for utterance in found.utterances) == {"female": 720, "male": 720}
    assert set(Counter(utterance.speaker for utterance in found.utterances).values()) == {60}
    assert len({utterance.recording for utterance in found.utterances}) == 1439


def test_real_ravdess_song_has_1009_clips_of_23_actors(data_dir):
    found = scan(data_dir, "ravdess", channels=["song"])
    assert len(found.utterances) == 1009 and not found.problems
    speakers = {utterance.speaker for utterance in found.utterances}
    assert len(speakers) == 23 and "ravdess-18" not in speakers
    assert {utterance.channel for utterance in found.utterances} == {"song"}


def test_real_tess_has_2798_clips(data_dir):
    found = scan(data_dir, "tess")
    assert len(found.utterances) == 2798 and not found.problems
    counts = Counter((utterance.speaker, utterance.emotion) for utterance in found.utterances)
    short = {("tess-OAF", "angry"): 199, ("tess-YAF", "sad"): 199}
    emotions = [emotion for emotion in EMOTIONS if emotion != "calm"]
    voices = ("tess-OAF", "tess-YAF")
    assert counts == {(voice, emotion): 200 for voice in voices for emotion in emotions} | short


def test_real_copies_in_native_samples_are_left_out_and_named(data_dir):
    found = CORPORA["ravdess"]().scan(data_dir)
    assert len(found.utterances) == 1440
    copies = [problem for problem in found.problems if problem.reason.startswith("duplicate: second copy of RAVDESS/")]
    assert len(copies) == 8 and {problem.path.parent.name for problem in copies} == {"native_samples"}
