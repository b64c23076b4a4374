"""From files to batches: columns, damage, cache and stream, on files made here and on the real corpora."""

import csv
import os
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import psutil
import pytest
import soundfile
import torch
from datasets import ClassLabel, Dataset, IterableDataset, List, Value

from ser_model import inspection
from ser_model.audio import load_audio
from ser_model.data import DataError, EvenBatches, load_data, write_left_out
from ser_model.labels import EMOTIONS
from ser_model.predictions import Predictions
from ser_model.reports import interval_words
from ser_model.settings import Settings
from ser_model.splits import PARTS, LeakError, Split, check_split

RATE = 16_000
SPLIT = {"test": ["ravdess-01", "ravdess-02", "tess-YAF"], "validation": ["ravdess-03", "ravdess-04"]}
COLUMNS = [
    *("path", "corpus", "speaker", "sex", "emotion", "intensity", "text", "channel"),
    *("duration_s", "sampling_rate", "content", "label", "index", "waveform"),
]


def settings(corpora=({"name": "ravdess"}, {"name": "tess"}), split=SPLIT, labels=8, **data) -> Settings:
    return Settings(
        name="test", data={"corpora": list(corpora), "num_proc": 1} | data, labels=labels, split=dict(split)
    )


@pytest.fixture
def cache(tmp_path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def corpora(synthetic_corpora, tmp_path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(synthetic_corpora, tmp_path / "data"))


@pytest.fixture
def decoded(monkeypatch) -> list[str]:
    """Names of the files that were decoded for the cache."""
    names = []
    monkeypatch.setattr(inspection, "load_audio", lambda name, *a, **k: names.append(name) or load_audio(name, *a, **k))
    return names


def clip(corpora: Path, actor: int = 5, emotion: int = 3, take: int = 1) -> Path:
    return corpora / "RAVDESS" / f"Actor_{actor:02}" / f"03-01-{emotion:02}-01-01-{take:02}-{actor:02}.wav"


# columns


@pytest.mark.parametrize("streaming", [False, True])
def test_every_part_has_the_schema(synthetic_corpora, cache, streaming):
    data = load_data(settings(streaming=streaming), synthetic_corpora, RATE, cache_dir=cache)
    parts = {name: data.part(name) for name in PARTS}
    for part in parts.values():
        assert type(part) is (IterableDataset if streaming else Dataset)
        assert list(part.features) == COLUMNS
        assert part.features["label"] == ClassLabel(names=list(EMOTIONS))
        assert part.features["waveform"] == List(Value("float32"))
    row = next(iter(parts["test"]))
    path = Path(row["path"])
    assert (row["corpus"], row["speaker"], row["sex"], row["emotion"], row["label"]) == (
        *("ravdess", "ravdess-01", "male", "neutral"),
        0,
    )
    assert (row["intensity"], row["text"], row["channel"]) == ("normal", "Kids are talking by the door", "speech")
    assert row["duration_s"] == soundfile.info(path).duration and row["sampling_rate"] == RATE
    assert len(row["content"]) == 32
    assert np.array_equal(np.asarray(row["waveform"], np.float32), load_audio(path))


def test_rows_follow_the_utterances_and_the_split(synthetic_corpora, cache):
    data = load_data(settings(), synthetic_corpora, RATE, cache_dir=cache)
    assert len(data.dataset) == 8 * 16 + 42 and not data.problems and not data.warnings
    assert [str(utterance.path) for utterance in data.utterances] == list(data.dataset["path"])
    assert [sound.content for sound in data.sounds] == list(data.dataset["content"])
    assert {name: set(data.part(name)["speaker"]) for name in ("test", "validation")} == {
        name: set(speakers) for name, speakers in SPLIT.items()
    }
    assert sum(len(data.part(name)) for name in PARTS) == len(data.dataset)
    for row in data.dataset.select(range(0, 170, 13)).with_format("numpy"):
        assert np.array_equal(row["waveform"], load_audio(row["path"]))


def test_waveforms_have_the_models_rate_and_columns_tell_the_files(corpora, cache):
    samples, _ = soundfile.read(clip(corpora))
    soundfile.write(clip(corpora), np.stack([np.repeat(samples, 3)] * 2, axis=1), 48_000)
    data = load_data(settings(), corpora, 8_000, cache_dir=cache)
    [row] = [row for row in data.dataset if row["path"] == str(clip(corpora))]
    assert row["sampling_rate"] == 48_000 and row["duration_s"] == pytest.approx(len(samples) / RATE)
    assert len(row["waveform"]) == pytest.approx(row["duration_s"] * 8_000, abs=1)


def test_waveforms_are_mapped_from_disk_and_not_read(tmp_path, cache):
    for index in range(60):
        path = tmp_path / "mine" / ("joy" if index % 2 else "anger") / f"{index}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, 0.1 * np.random.default_rng(index).normal(size=10 * RATE), RATE)
    own = settings([{"name": "folder", "path": "mine"}], {"kind": "random"}, {"names": ["anger", "joy"]})
    load_data(own, tmp_path, RATE, cache_dir=cache)
    before = psutil.Process().memory_info().rss
    data = load_data(own, tmp_path, RATE, cache_dir=cache)
    assert data.dataset.num_rows == 60 and data.dataset.data.nbytes > 38e6
    assert psutil.Process().memory_info().rss - before < 10e6


# the cache


def test_only_added_and_changed_files_are_decoded_and_removed_ones_are_gone(corpora, cache, decoded):
    load_data(settings(), corpora, RATE, cache_dir=cache)
    assert len(decoded) == 170
    decoded.clear()
    load_data(settings(), corpora, RATE, cache_dir=cache)
    assert not decoded
    changed, removed, added = clip(corpora, 5), clip(corpora, 6), clip(corpora).with_name("03-01-03-02-01-01-05.wav")
    new = [0.2 * np.sin(2 * np.pi * pitch_hz * np.arange(8_000) / RATE) for pitch_hz in (111, 222)]
    soundfile.write(changed, new[0], RATE)
    soundfile.write(added, new[1], RATE)
    removed.unlink()
    data = load_data(settings(), corpora, RATE, cache_dir=cache)
    assert sorted(decoded) == sorted([str(changed), str(added)])
    rows = {row["path"]: row for row in data.dataset}
    assert len(rows) == 170 and str(removed) not in rows
    assert rows[str(changed)]["duration_s"] == 0.5
    for path, samples in zip((changed, added), new, strict=True):
        assert np.abs(np.asarray(rows[str(path)]["waveform"]) - samples).max() < 1e-3


def test_data_in_another_folder_are_their_own(synthetic_corpora, corpora, cache):
    load_data(settings(), synthetic_corpora, RATE, cache_dir=cache)
    soundfile.write(clip(corpora), np.random.default_rng(0).normal(0, 0.1, 5_000), RATE)
    data = load_data(settings(), corpora, RATE, cache_dir=cache)
    assert all(Path(path).is_relative_to(corpora) for path in data.dataset["path"])
    assert [len(row["waveform"]) for row in data.dataset if row["path"] == str(clip(corpora))] == [5_000]


# the order of the clips


def shares(num_clips: int, epoch: int = 0, **options) -> list[list[int]]:
    batches = EvenBatches(num_clips, seed=0, **options)
    batches.epoch = epoch
    assert len(batches) == len(list(batches))
    return list(batches)


@pytest.mark.parametrize("processes", [1, 2, 3])
@pytest.mark.parametrize("accumulation_steps", [1, 4])
@pytest.mark.parametrize("num_clips", [24, 97, 100, 130])
def test_every_clip_is_drawn_once_an_epoch_in_shares_alike(num_clips, processes, accumulation_steps):
    drawn = shares(num_clips, batch_size=8, processes=processes, accumulation_steps=accumulation_steps)
    assert sorted(sum(drawn, [])) == list(range(num_clips))
    assert len(drawn) % (processes * accumulation_steps) == 0
    sizes = {len(share) for share in drawn}
    assert max(sizes) - min(sizes) <= 1 and min(sizes) >= 2


def test_two_processes_share_the_batches_of_one_with_twice_the_batch():
    alone, together = shares(101, batch_size=16), shares(101, batch_size=8, processes=2)
    assert alone == [one + other for one, other in zip(together[::2], together[1::2], strict=True)]


def test_seed_and_epoch_decide_the_order():
    assert shares(50, batch_size=8) == shares(50, batch_size=8) != shares(50, batch_size=8, epoch=1)


def test_clips_before_a_batch_are_counted():
    batches = EvenBatches(101, 16, seed=0)
    sizes = [len(batch) for batch in batches]
    assert [batches.clips_before(index) for index in range(7)] == [sum(sizes[:index]) for index in range(7)]


@pytest.mark.parametrize(
    ("num_clips", "sizes"),
    [(63, [32, 31]), (40, [40]), (41, [21, 20]), (100, [34, 33, 33]), (1440, [32] * 45), (1152, [32] * 36)],
)
def test_no_batch_is_more_than_a_quarter_larger_than_asked_for(num_clips, sizes):
    assert [len(batch) for batch in shares(num_clips, batch_size=32)] == sizes


def test_no_batch_is_cut_down_to_a_single_clip():
    assert [len(batch) for batch in shares(3, batch_size=2)] == [3]


def test_of_a_group_in_turn_each_epoch_has_its_share_and_the_next_goes_on():
    group = np.arange(40, 100)
    epochs = [sum(shares(100, epoch, batch_size=8, in_turn=[(group, 15)]), []) for epoch in range(4)]
    for drawn in epochs:
        assert len(drawn) == len(set(drawn)) == 55 and set(range(40)) <= set(drawn)
    assert sorted(clip for drawn in epochs for clip in drawn if clip in group) == group.tolist()


def test_a_group_that_is_heard_whole_changes_the_order_alone():
    assert sorted(sum(shares(50, batch_size=8, in_turn=[(np.arange(10), 10)]), [])) == list(range(50))


def test_the_share_of_a_corpus_is_counted_among_its_training_clips(synthetic_corpora, cache):
    data = load_data(settings(), synthetic_corpora, RATE, cache_dir=cache)
    [(clips, count)] = data.in_turn({"tess": 0.25})
    corpora = data.rows("train")["corpus"]
    assert [corpora[index] for index in clips] == ["tess"] * list(corpora).count("tess")
    assert count == -(-len(clips) // 4)


def test_the_share_of_a_corpus_that_is_not_there_is_refused(synthetic_corpora, cache):
    data = load_data(settings(), synthetic_corpora, RATE, cache_dir=cache)
    with pytest.raises(DataError, match="corpus_shares: no clip to train on is of 'savee'; there are ravdess, tess"):
        data.in_turn({"savee": 0.5})


def test_too_few_clips_for_the_processes_are_refused():
    with pytest.raises(DataError, match="7 clips .* 4 processes.*take fewer processes"):
        EvenBatches(7, 8, seed=0, processes=4)


# the stream


@pytest.mark.parametrize("num_proc", [None, 2])
def test_a_stream_gives_the_same_clips_as_the_cache(synthetic_corpora, cache, num_proc):
    kept = load_data(settings(), synthetic_corpora, RATE, cache_dir=cache / "kept")
    own = settings(streaming=True, num_proc=num_proc)
    streamed = load_data(own, synthetic_corpora, RATE, cache_dir=cache / "streamed")
    assert streamed.split == kept.split
    drawn = [data.loader("train", EvenBatches(len(data.split.train), 16, seed=0)) for data in (kept, streamed)]
    for one, other in zip(*drawn, strict=True):
        assert torch.equal(one["waveforms"], other["waveforms"])
    for name in PARTS:
        pairs = zip(kept.loader(name, 7), streamed.loader(name, 7), strict=True)
        assert all(torch.equal(one[key], other[key]) for one, other in pairs for key in one)
        for one, other in zip(kept.part(name), streamed.part(name), strict=True):
            assert one.pop("waveform") == other.pop("waveform").tolist() and one == other
    assert not list((cache / "streamed").rglob("sounds-16000-*"))


@pytest.mark.parametrize("streaming", [False, True])
def test_a_shuffled_part_gives_every_clip_once_in_an_order_that_the_seed_decides(synthetic_corpora, cache, streaming):
    data = load_data(settings(streaming=streaming), synthetic_corpora, RATE, cache_dir=cache)
    in_order = [row["path"] for row in data.part("train")]
    shuffled = [[row["path"] for row in data.part("train", shuffle_seed=seed)] for seed in (0, 0, 1)]
    assert shuffled[0] == shuffled[1] != shuffled[2]
    assert all(sorted(paths) == sorted(in_order) and paths != in_order for paths in shuffled)


def test_a_stream_is_drawn_anew_each_epoch(synthetic_corpora, cache):
    data = load_data(settings(streaming=True), synthetic_corpora, RATE, cache_dir=cache)
    stream, orders = data.part("train", shuffle_seed=0), []
    for epoch in range(2):
        stream.set_epoch(epoch)
        orders.append([row["path"] for row in stream])
    assert orders[0] != orders[1] and sorted(orders[0]) == sorted(orders[1])


def test_a_stream_shares_out_its_clips_to_workers(synthetic_corpora, cache):
    data = load_data(settings(streaming=True), synthetic_corpora, RATE, cache_dir=cache)
    stream = data.part("train")
    assert stream.num_shards >= 16
    shares = [[row["path"] for row in stream.shard(2, index)] for index in range(2)]
    assert all(shares) and sorted(sum(shares, [])) == sorted(row["path"] for row in stream)


def test_a_streams_memory_stays_flat(tmp_path, cache):
    """120 clips of 20 s are 154 MB of waveforms."""
    rng = np.random.default_rng(0)
    for index in range(120):
        path = tmp_path / "mine" / ("joy" if index % 2 else "anger") / f"{index}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, rng.normal(0, 0.1, 20 * RATE).astype(np.float32), RATE)
    labels = {"names": ["anger", "joy"]}
    own = settings([{"name": "folder", "path": "mine"}], {"kind": "random"}, labels, streaming=True)
    data = load_data(own, tmp_path, RATE, cache_dir=cache)
    process, highest = psutil.Process(), 0
    for clips in (
        iter(data.loader("train", EvenBatches(len(data.split.train), 4, seed=0))),
        iter(data.part("train", shuffle_seed=0)),
    ):
        next(clips)
        before = process.memory_info().rss
        for _ in clips:
            highest = max(highest, process.memory_info().rss - before)
    assert highest < 40e6


# damage


@pytest.fixture
def damaged(corpora) -> Path:
    """One file of each damage; actors 5 to 8 are in the training part."""
    clip(corpora, 5, 1).write_text("no sound")
    clip(corpora, 5, 2).write_bytes(b"")
    samples, _ = soundfile.read(clip(corpora, 5, 3))
    soundfile.write(clip(corpora, 5, 3), 0 * samples, RATE)
    soundfile.write(clip(corpora, 5, 4), np.clip(20 * samples, -1, 1), RATE)
    soundfile.write(clip(corpora, 5, 5), np.concatenate([samples, np.ones(10)]), RATE)  # clipped a little
    shutil.copy(clip(corpora, 6, 3), clip(corpora, 7, 3))  # the same label
    shutil.copy(clip(corpora, 6, 4), corpora / "TESS" / "OAF_sad" / "OAF_chair_sad.wav")  # of another corpus
    shutil.copy(clip(corpora, 6, 6), clip(corpora, 7, 7))  # another label
    clip(corpora, 8, 1).rename(corpora / "RAVDESS" / "take 3.wav")
    return corpora


LEFT_OUT = {
    "badly named": 1,
    "clipped": 1,
    "conflicting labels": 2,
    "duplicate": 2,
    "empty": 1,
    "silent": 1,
    "unreadable": 1,
}


@pytest.mark.parametrize("streaming", [False, True])
def test_damage_is_left_out_counted_and_listed(damaged, cache, tmp_path, streaming):
    data = load_data(settings(streaming=streaming), damaged, RATE, cache_dir=cache)
    assert data.summary()["left_out"] == LEFT_OUT
    assert data.summary()["clips"] == len(data.utterances) == 170 - 9
    write_left_out(data.problems, tmp_path / "left_out.csv", damaged)
    with open(tmp_path / "left_out.csv", newline="") as file:
        rows = {row["path"]: row for row in csv.DictReader(file)}
    assert len(rows) == 9
    assert all(set(row) == {"path", "corpus", "reason"} for row in rows.values())
    relative = {
        "unreadable: cannot be decoded": clip(damaged, 5, 1),
        "empty: ": clip(damaged, 5, 2),
        "silent: ": clip(damaged, 5, 3),
        "clipped: ": clip(damaged, 5, 4),
        "duplicate: the same sound as Actor_06/": clip(damaged, 7, 3),
        "duplicate: the same sound as Actor_06/03": damaged / "TESS" / "OAF_sad" / "OAF_chair_sad.wav",
        "conflicting labels: the same sound is fearful in Actor_06/": clip(damaged, 6, 6),
        "conflicting labels: ": clip(damaged, 7, 7),
        "badly named: not named as RAVDESS": damaged / "RAVDESS" / "take 3.wav",
    }
    for reason, path in relative.items():
        assert rows[path.relative_to(damaged).as_posix()]["reason"].startswith(reason)
    assert rows["TESS/OAF_sad/OAF_chair_sad.wav"]["corpus"] == "tess"
    assert not {str(path) for path in relative.values()} & set(data.dataset["path"])


def test_what_is_used_in_spite_of_a_fault_is_told(damaged, cache):
    data = load_data(settings(), damaged, RATE, cache_dir=cache)
    assert [(problem.path, problem.kind) for problem in data.warnings] == [(clip(damaged, 5, 5), "clipped")]
    assert data.summary()["used_with_warning"] == 1
    assert str(clip(damaged, 5, 5)) in data.dataset["path"]
    assert any(note.startswith("1 files are used in spite of a fault") for note in data.notes)


def test_contradicting_labels_are_told_loudly(damaged, cache):
    notes = load_data(settings(), damaged, RATE, cache_dir=cache).notes
    [note] = [note for note in notes if note.startswith("LABELS CONTRADICT EACH OTHER")]
    assert "2 files" in note and "fearful" in note and "disgust" in note


def test_strict_stops_with_the_list(damaged, cache):
    with pytest.raises(DataError) as error:
        load_data(settings(strict=True), damaged, RATE, cache_dir=cache)
    message = str(error.value)
    assert "9 files cannot be used" in message and len(message.splitlines()) == 10
    assert f"{clip(damaged, 5, 2)}: empty: " in message


def test_a_name_that_is_not_utf8_is_left_out_and_listed_as_it_is(tmp_path, cache):
    folder, bad = tmp_path / "mine", os.fsdecode(b"bad\xff.wav")
    rows = own_rows()
    write_table(folder, rows)
    for row in rows:
        (folder / row["label"]).mkdir(exist_ok=True)
        (folder / row["path"]).rename(folder / row["label"] / row["path"])
    (folder / "clips.csv").unlink()
    (folder / rows[0]["label"] / rows[0]["path"]).rename(folder / rows[0]["label"] / bad)
    own = settings([{"name": "folder", "path": "mine"}], {"kind": "random", "test": 0.2, "validation": 0.2}, NAMES)
    data = load_data(own, tmp_path, RATE, cache_dir=cache)
    assert data.summary()["left_out"] == {"badly named": 1} and len(data.utterances) == len(rows) - 1
    write_left_out(data.problems, tmp_path / "left_out.csv", tmp_path)
    assert os.fsencode(bad) in (tmp_path / "left_out.csv").read_bytes()


def test_strict_lets_sound_data_pass(synthetic_corpora, cache):
    assert load_data(settings(strict=True), synthetic_corpora, RATE, cache_dir=cache).summary()["left_out"] == {}


def write_table(folder: Path, rows: list[dict]) -> dict:
    """A folder corpus with a made sound for each row that has none yet."""
    folder.mkdir(parents=True, exist_ok=True)
    for index, row in enumerate(rows):
        if not (folder / row["path"]).exists():
            soundfile.write(folder / row["path"], np.random.default_rng(index).normal(0, 0.1, 4_000), RATE)
    with open(folder / "clips.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return {"name": "folder", "path": f"{folder.name}/clips.csv"}


def own_rows(count: int = 12) -> list[dict]:
    return [
        {"path": f"{index}.wav", "label": ("joy", "anger")[index % 2], "speaker": f"s{index % 6}", "recording": ""}
        for index in range(count)
    ]


NAMES = {"names": ["joy", "anger"]}


def test_an_unknown_label_is_left_out_and_says_what_is_known(tmp_path, cache):
    rows = own_rows()
    rows[3]["label"] = "angst"
    data = load_data(settings([write_table(tmp_path / "mine", rows)], {}, NAMES), tmp_path, RATE, cache_dir=cache)
    [problem] = data.problems
    assert (problem.path.name, problem.corpus, problem.kind) == ("3.wav", "folder", "label unknown")
    assert "'angst'; did you mean 'anger'" in problem.reason and str(tmp_path) not in problem.reason
    assert len(data.utterances) == 11


def test_a_corpus_of_which_nothing_is_left_stops_the_run(tmp_path, cache):
    corpus = write_table(tmp_path / "mine", own_rows())
    with pytest.raises(DataError, match="no clip of folder can be used; the first reason is label unknown"):
        load_data(settings([corpus], {}, {"names": ["glee", "gloom"]}), tmp_path, RATE, cache_dir=cache)
    with pytest.raises(DataError, match="no clip of folder can be used; the labels drop every one"):
        load_data(
            settings([corpus], {}, {"names": ["glee", "gloom"], "drop": ["joy", "anger"]}),
            tmp_path,
            RATE,
            cache_dir=cache,
        )


def test_what_the_labels_drop_and_lack_is_noted(synthetic_corpora, cache):
    only_tess = settings([{"name": "tess"}], {"kind": "random"}, {"base": 8, "drop": ["sad"]})
    notes = load_data(only_tess, synthetic_corpora, RATE, cache_dir=cache).notes
    assert "6 clips are sad, which the labels drop" in notes and "no clip is calm" in notes


def test_a_label_of_ones_own_that_no_clip_has_is_told_loudly(tmp_path, cache):
    own = settings([write_table(tmp_path / "mine", own_rows())], {"kind": "all"}, {"names": ["joy", "anger", "Joy"]})
    notes = load_data(own, tmp_path, RATE, cache_dir=cache).notes
    assert "WARNING: no clip is Joy, which the labels name" in notes


# splits


def test_no_content_is_shared_between_parts(damaged, cache):
    data = load_data(settings(split={"kind": "random"}), damaged, RATE, cache_dir=cache)
    contents = {name: set(data.part(name)["content"]) for name in PARTS}
    assert sum(map(len, contents.values())) == len(set.union(*contents.values())) == len(data.utterances)


def test_a_split_that_shares_a_content_is_refused(synthetic_corpora, cache):
    data = load_data(settings(), synthetic_corpora, RATE, cache_dir=cache)
    contents = [sound.content for sound in data.sounds]
    contents[data.split.test[0]] = contents[data.split.train[0]]
    with pytest.raises(LeakError, match="1 content in more than one part"):
        check_split(data.split, data.utterances, contents)


@pytest.mark.parametrize("seed", range(3))
def test_augmented_copies_stay_with_their_parent(tmp_path, cache, seed):
    rows = own_rows(20)
    rows += [{**row, "path": f"faster {row['path']}", "recording": row["path"]} for row in rows]
    corpus = write_table(tmp_path / "mine", rows)
    own = settings([corpus], {"kind": "random", "test": 0.2, "validation": 0.2}, NAMES)
    own = own.model_copy(update={"seed": seed})
    data = load_data(own, tmp_path, RATE, cache_dir=cache)
    names = {name: {Path(path).name for path in data.part(name)["path"]} for name in PARTS}
    assert all(
        f"faster {name}" in members for members in names.values() for name in members if not name.startswith("faster")
    )
    index = {utterance.path.name: number for number, utterance in enumerate(data.utterances)}
    parent = next(name for name in names["test"] if not name.startswith("faster"))
    torn = Split(
        tuple(sorted((*data.split.train, index[parent]))),
        data.split.validation,
        tuple(number for number in data.split.test if number != index[parent]),
        "random",
        data.split.speaker_disjoint,
    )
    with pytest.raises(LeakError, match="1 recording in more than one part"):
        check_split(torn, data.utterances)


# the real corpora


def test_real_corpora_have_the_counts_that_are_published(data_dir, cache):
    """Every clip of the data folder is listed and labelled; the facts of all of them are measured."""
    corpora = [{"name": "ravdess", "channels": ["speech", "song"]}, {"name": "tess"}]
    split = {"test": ["ravdess-01"], "validation": ["ravdess-02"]}
    own = settings(corpora, split, streaming=True, num_proc=2)
    data = load_data(own, data_dir, RATE, cache_dir=cache)
    table = Counter(zip(data.dataset["corpus"], data.dataset["channel"], strict=True))
    assert table == {("ravdess", "speech"): 1440, ("ravdess", "song"): 1009, ("tess", "speech"): 2798}
    assert data.summary()["left_out"] == {} and data.summary()["used_with_warning"] == 0
    assert set(data.dataset["sampling_rate"]) == {RATE}
    assert len(set(data.dataset["content"])) == 5247
    assert data.summary()["hours"] == pytest.approx(3.75, abs=0.01)


@pytest.mark.parametrize("as_table", [False, True])
def test_what_others_may_read_tells_nothing_of_folders_beyond_the_data(synthetic_corpora, tmp_path, cache, as_table):
    """A folder corpus that lies elsewhere; or a table whose rows lie beside it, and elsewhere again."""
    home = tmp_path / "home" / "alice"
    for number, clip_of_it in enumerate(sorted(synthetic_corpora.glob("RAVDESS/*/03-01-0[56]-*.wav"))[:24]):
        (home / ("calm", "tense")[number % 2]).mkdir(parents=True, exist_ok=True)
        shutil.copy(clip_of_it, home / ("calm", "tense")[number % 2] / f"{number}.wav")
    (data_dir := tmp_path / "data").mkdir()
    path = home
    if as_table:
        path = home / "calm" / "mine.csv"
        rows = [f"{file},{file.parent.name}" for file in sorted(home.glob("*/*.wav"))]
        path.write_text("\n".join(["path,label", *rows]))
    shares = {"kind": "random", "test": 0.2, "validation": 0.2}
    own = settings([{"name": "folder", "path": str(path)}], shares, {"names": ["calm", "tense"]})
    data = load_data(own, data_dir, RATE, cache_dir=cache)
    split = data.manifest()
    ids = [clip_id for part in ("train", "validation", "test") for clip_id in split[part]]
    assert len(set(ids)) == 24 and (as_table or "folder/calm/0.wav" in ids)
    rows, shares = data.rows("test"), np.full((len(data.rows("test")), 2), 0.5)
    answers = Predictions.of(rows, data.scheme.names, np.array(rows["label"]), shares, data.folders, {})
    told = [*ids, *(str(clip[key]) for clip in answers.clips for key in ("path", "speaker"))]
    assert not any(".." in name or "alice" in name or str(tmp_path) in name for name in told)


@pytest.mark.parametrize("named", [0, 11, 12])
def test_a_clip_whose_speaker_nobody_names_is_not_counted_as_a_speaker(tmp_path, cache, named):
    rows = [row | ({} if index < named else {"speaker": ""}) for index, row in enumerate(own_rows())]
    own = settings([write_table(tmp_path / "mine", rows)], {"kind": "all"}, NAMES)
    data = load_data(own, tmp_path, RATE, cache_dir=cache)
    rows, shares = data.rows("train"), np.full((12, 2), 0.5)
    run = dict.fromkeys(("seed", "fold", "split_hash", "temperature"), 1)
    answers = Predictions.of(rows, data.scheme.names, np.array(rows["label"]), shares, tmp_path, run)
    answers.write(tmp_path / "p.csv")
    assert sum(clip["speaker"] is not None for clip in answers.clips) == named
    for one in (answers, Predictions.read(tmp_path / "p.csv")):
        interval = one.figures()["interval"]
        assert interval["resampled"] == ("speakers" if named == 12 else "clips")
        assert (interval.get("speakers"), interval.get("clips")) == ((6, None) if named == 12 else (None, 12))
    said = "over 6 speakers, drawn anew" if named == 12 else "over 12 clips whose speakers are not named; they say"
    assert said in interval_words(interval)
