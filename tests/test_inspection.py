"""What is found out about files, what is left out, and that only new and changed files are decoded."""

import multiprocessing
import os
import shutil
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import soundfile

from ser_model import inspection
from ser_model.audio import load_audio
from ser_model.corpora.base import CORPUS_SUFFIXES, Utterance
from ser_model.disk import files_below
from ser_model.inspection import decode_files, inspect_files, screen

RATE = 16_000


def tone(duration_s: float = 0.3, rate: int = RATE, level: float = 0.3, seed: int = 0) -> np.ndarray:
    time_s = np.arange(int(duration_s * rate)) / rate
    pitch_hz = np.random.default_rng(seed).uniform(80, 400)
    return level * np.sin(2 * np.pi * pitch_hz * time_s)


def write(path: Path, samples: np.ndarray, rate: int = RATE, subtype: str = "PCM_16") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, rate, subtype=subtype)
    return path


def write_many(folder: Path, count: int, duration_s: float = 0.3) -> list[Path]:
    return [write(folder / f"{index:04}.wav", tone(duration_s, seed=index)) for index in range(count)]


@pytest.fixture
def cache(tmp_path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def decoded(monkeypatch) -> list[str]:
    """Names of the files that were decoded, as it happens."""
    names = []
    monkeypatch.setattr(inspection, "load_audio", lambda name, *a, **k: names.append(name) or load_audio(name, *a, **k))
    return names


def waveform(row) -> np.ndarray:
    with pa.memory_map(str(row.shard)) as file:
        return np.array(pa.ipc.open_stream(file).read_all()["waveform"][row.index].as_py(), np.float32)


def kept_rows(cache: Path) -> int:
    return sum(len(pa.ipc.open_stream(shard.read_bytes()).read_all()) for shard in cache.rglob("*.arrow"))


# what a file holds


def test_the_facts_of_a_file_are_those_of_the_file_and_not_of_its_resampled_copy(tmp_path, cache):
    stereo = np.stack([tone(0.5, 48_000, 0.5), np.zeros(24_000)], axis=1)
    [sound] = inspect_files([write(tmp_path / "a.wav", stereo, 48_000, "PCM_24")], cache_dir=cache)
    assert (sound.duration_s, sound.sampling_rate, sound.channels) == (0.5, 48_000, 2)
    assert sound.peak == pytest.approx(0.5, abs=1e-3)  # of one channel
    assert sound.loudness_db == pytest.approx(20 * np.log10(0.25 / np.sqrt(2)), abs=0.05)  # of their mean
    assert sound.problem is None and sound.warning is None


def test_wav_flac_and_stereo_copies_hold_the_same_content_and_other_sounds_do_not(tmp_path, cache):
    sound = (tone() * 2**15).astype(np.int16)  # integers, which no encoder rounds
    files = [
        write(tmp_path / "a.wav", sound),
        write(tmp_path / "a.flac", sound),
        write(tmp_path / "stereo.wav", np.stack([sound, sound], axis=1)),
        write(tmp_path / "shorter.wav", sound[:-1]),
        write(tmp_path / "slower.wav", sound, 8_000),
        write(tmp_path / "other.wav", tone(seed=1)),
    ]
    contents = [sound.content for sound in inspect_files(files, cache_dir=cache)]
    assert len(set(contents[:3])) == 1
    assert len(set(contents)) == 4


def damaged_file(folder: Path, kind: str) -> Path:
    path = folder / f"{kind}.wav"
    rng = np.random.default_rng(0)
    if kind == "no bytes":
        path.touch()
    elif kind == "text":
        path.write_text("no sound at all\n" * 100)
    elif kind == "no samples":
        write(path, np.zeros(0))
    elif kind == "one sample":
        write(path, np.full(1, 0.5))
    elif kind == "zeros":
        write(path, np.zeros(8000))
    elif kind == "hum of the converter":
        write(path, 1e-4 * rng.normal(size=8000))
    elif kind == "stuck converter":
        write(path, np.full(8000, 0.4))
    elif kind == "overdriven":
        write(path, np.clip(10 * tone(), -1, 1))
    elif kind == "not a number":
        write(path, np.full(8000, np.nan), subtype="FLOAT")
    return path  # "absent" is not written


@pytest.mark.parametrize(
    ("kind", "problem"),
    [
        ("absent", "unreadable: no such file"),
        ("no bytes", "empty: "),
        ("text", "unreadable: cannot be decoded"),
        ("no samples", "empty: "),
        ("one sample", "empty: only 1 samples"),
        ("zeros", "silent: "),
        ("hum of the converter", "silent: "),
        ("stuck converter", "silent: "),
        ("overdriven", "clipped: "),
        ("not a number", "unreadable: some samples are no finite numbers"),
    ],
)
@pytest.mark.parametrize("rate", [None, RATE])
def test_damage_is_told_alike_at_the_first_and_the_second_start(tmp_path, cache, kind, problem, rate):
    files = [damaged_file(tmp_path, kind), write(tmp_path / "good.wav", tone())]
    first, _ = inspection._sounds(files, rate, cache, False, 1)
    second, _ = inspection._sounds(files, rate, cache, False, 1)
    assert first[0].problem.startswith(problem) and first[1].problem is None
    assert second == first


@pytest.mark.parametrize("rate", [None, RATE])
def test_a_file_whose_name_is_not_utf8_is_left_out_with_the_remedy(tmp_path, cache, rate):
    bad = write(tmp_path / "bad.wav", tone()).rename(tmp_path / os.fsdecode(b"bad\xff.wav"))
    for _ in range(2):
        (left_out, good), _ = inspection._sounds([bad, write(tmp_path / "good.wav", tone())], rate, cache, False, 1)
        assert left_out.problem == "badly named: its name is not UTF-8; rename it" and good.problem is None


def test_a_folder_of_damaged_files_alone_leaves_no_shard(tmp_path, cache):
    [sound] = inspect_files([damaged_file(tmp_path, "text")], cache_dir=cache)
    assert sound.problem and not any(cache.rglob("sounds*"))


def test_a_little_clipping_and_a_cut_end_are_warnings(tmp_path, cache):
    loud = tone(1.0)
    loud[100:110] = 1
    whole = write(tmp_path / "whole.wav", tone(1.0)).read_bytes()
    (tmp_path / "cut.wav").write_bytes(whole[: len(whole) // 2])
    clipped, cut = inspect_files([write(tmp_path / "loud.wav", loud), tmp_path / "cut.wav"], cache_dir=cache)
    assert clipped.problem is None and clipped.warning == "clipped: 10 of 16000 samples at full scale"
    assert cut.problem is None and "promises 16000 frames" in cut.warning


# what is left out


def utterance(path: str, emotion: str = "happy", corpus: str = "mine") -> Utterance:
    return Utterance(Path(path), corpus, f"{corpus}-1", None, emotion, path)


def sound(content: str, problem: str | None = None) -> inspection.Sound:
    return inspection.Sound(1.0, RATE, 1, 0.5, -20.0, content, problem)


def test_of_the_same_sound_under_one_label_the_first_path_stays_across_corpora():
    clips = [utterance("z/1.wav"), utterance("a/1.wav", corpus="other"), utterance("b/2.wav")]
    kept, problems = screen(clips, ["happy"] * 3, [sound("x"), sound("x"), sound("y")])
    assert kept == [1, 2]
    assert [(problem.path, problem.corpus) for problem in problems] == [(Path("z/1.wav"), "mine")]
    assert problems[0].reason == "duplicate: the same sound as a/1.wav"


def test_the_same_sound_under_different_labels_is_left_out_everywhere():
    clips = [utterance("a/1.wav"), utterance("b/1.wav"), utterance("c/1.wav")]
    kept, problems = screen(clips, ["happy", "sad", "happy"], [sound("x")] * 3)
    assert not kept and len(problems) == 3
    assert {problem.reason for problem in problems} == {
        "conflicting labels: the same sound is happy in a/1.wav, sad in b/1.wav, happy in c/1.wav"
    }


def test_what_is_shorter_than_a_frame_of_the_features_is_left_out():
    clips = [utterance("a/1.wav"), utterance("a/2.wav")]
    sounds = [replace(sound("x"), duration_s=0.03), replace(sound("y"), duration_s=0.04)]
    kept, problems = screen(clips, ["happy"] * 2, sounds, frame_ms=40.0)
    assert kept == [1] and [problem.reason for problem in problems] == ["empty: 30 ms, less than a frame of 40 ms"]
    assert screen(clips, ["happy"] * 2, sounds)[0] == [0, 1]


def test_what_is_no_utterance_for_its_length_is_left_out_before_it_takes_the_memory():
    clips = [utterance("a/1.wav"), utterance("a/2.wav")]
    sounds = [replace(sound("x"), duration_s=600.0), replace(sound("y"), duration_s=3600.0)]
    kept, problems = screen(clips, ["happy"] * 2, sounds)
    assert kept == [0] and [problem.kind for problem in problems] == ["too long"]
    assert "3600 s; an utterance has one label and 600 s at most, so cut it" in problems[0].reason


def test_damaged_files_are_no_duplicates_of_each_other():
    clips = [utterance("a/1.wav"), utterance("a/2.wav"), utterance("a/3.wav")]
    kept, problems = screen(clips, ["happy"] * 3, [sound("", "unreadable: x"), sound("", "unreadable: y"), sound("z")])
    assert kept == [2]
    assert [problem.reason for problem in problems] == ["unreadable: x", "unreadable: y"]


# what is kept


def test_waveforms_are_those_of_load_audio_in_the_order_given(tmp_path, cache):
    files = [*write_many(tmp_path / "many", 7), write(tmp_path / "cd.wav", tone(rate=44_100), 44_100)][::-1]
    _, rows = decode_files([*files, files[0]], RATE, cache_dir=cache)
    for path, row in zip([*files, files[0]], rows, strict=True):
        assert np.array_equal(waveform(row), load_audio(path, RATE))


def test_a_waveform_is_kept_for_each_rate(tmp_path, cache):
    files = write_many(tmp_path, 2)
    assert len(waveform(decode_files(files, 8_000, cache_dir=cache)[1][0])) == 2400
    assert len(waveform(decode_files(files, 16_000, cache_dir=cache)[1][0])) == 4800


def test_a_second_start_decodes_nothing_whichever_way_the_first_asked(tmp_path, cache, decoded):
    files = write_many(tmp_path, 5)
    first, _ = decode_files(files, RATE, cache_dir=cache)
    assert len(decoded) == 5
    assert inspect_files(files, cache_dir=cache) == first
    assert decode_files(files, RATE, cache_dir=cache)[0] == first
    assert len(decoded) == 5


def test_only_added_and_changed_files_are_decoded(tmp_path, cache, decoded):
    files = write_many(tmp_path, 6)
    before, _ = decode_files(files, RATE, cache_dir=cache)
    decoded.clear()
    write(files[2], tone(0.5, seed=99))
    added = write(tmp_path / "new.wav", tone(seed=100))
    files[0].unlink()
    after, rows = decode_files([*files[1:], added], RATE, cache_dir=cache)
    assert sorted(decoded) == sorted([str(files[2]), str(added)])
    assert after[0] == before[1] and after[1].duration_s == 0.5 and len(after) == 6
    assert np.array_equal(waveform(rows[1]), load_audio(files[2], RATE))


def test_a_change_that_keeps_size_and_time_is_noticed(tmp_path, cache):
    [path] = write_many(tmp_path, 1)
    status = path.stat()
    [before] = inspect_files([path], cache_dir=cache)
    write(path, tone(seed=5))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert path.stat().st_size == status.st_size and path.stat().st_mtime_ns == status.st_mtime_ns
    assert inspect_files([path], cache_dir=cache)[0].content != before.content


def test_a_file_that_was_mended_or_came_back_is_read(tmp_path, cache):
    path = damaged_file(tmp_path, "text")
    assert inspect_files([path, tmp_path / "late.wav"], cache_dir=cache)[0].problem
    write(path, tone())
    write(tmp_path / "late.wav", tone(seed=1))
    assert [sound.problem for sound in inspect_files([path, tmp_path / "late.wav"], cache_dir=cache)] == [None, None]


def test_data_that_moved_are_read_anew_and_a_cache_that_moved_serves_on(tmp_path, cache, decoded):
    files = write_many(tmp_path / "here", 3)
    before, _ = decode_files(files, RATE, cache_dir=cache)
    moved = cache.rename(tmp_path / "elsewhere")
    decoded.clear()
    sounds, rows = decode_files(files, RATE, cache_dir=moved)
    assert sounds == before and not decoded
    assert np.array_equal(waveform(rows[0]), load_audio(files[0], RATE))
    shutil.move(tmp_path / "here", tmp_path / "there")
    assert inspect_files([tmp_path / "there" / path.name for path in files], cache_dir=moved) == before
    assert len(decoded) == 3
    assert all(sound.problem for sound in inspect_files(files, cache_dir=moved))


def test_a_shard_that_was_damaged_is_passed_over(tmp_path, cache, caplog):
    files = write_many(tmp_path, 3)
    before = inspect_files(files, cache_dir=cache)
    [shard] = cache.rglob("*.arrow")
    shard.write_bytes(shard.read_bytes()[:300])
    assert inspect_files(files, cache_dir=cache) == before
    assert "cannot be read and is passed over" in caplog.text


def test_processes_find_what_one_finds_and_count_for_the_bar(tmp_path, cache, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)  # a log gets no bar
    files = [*write_many(tmp_path / "many", 150, 0.05), damaged_file(tmp_path, "text")]
    alone, _ = decode_files(files, RATE, cache_dir=cache / "alone")
    together, rows = decode_files(files, RATE, cache_dir=cache / "together", num_proc=2, progress=True)
    assert together == alone
    assert len({row.shard for row in rows if row}) > 1
    assert "151/151" in capsys.readouterr().err


def run_in_background(files: list[Path], cache: Path, **options) -> multiprocessing.Process:
    process = multiprocessing.get_context("fork").Process(
        target=decode_files, args=(files, RATE), kwargs={"cache_dir": cache, **options}
    )
    process.start()
    return process


def test_two_processes_at_once_do_not_disturb_each_other(tmp_path, cache):
    files = write_many(tmp_path, 200, 0.05)
    others = [run_in_background(files, cache) for _ in range(2)]
    sounds, rows = decode_files(files, RATE, cache_dir=cache)
    for other in others:
        other.join()
        assert other.exitcode == 0
    assert all(sound.problem is None for sound in sounds)
    assert all(np.array_equal(waveform(row), load_audio(path, RATE)) for path, row in zip(files, rows, strict=True))
    assert not list(cache.rglob("*.unfinished"))


@pytest.mark.parametrize("num_proc", [1, 2])
def test_after_a_kill_half_way_the_rest_alone_is_decoded(tmp_path, cache, decoded, monkeypatch, num_proc):
    monkeypatch.setattr(inspection, "SHARD_FILES", 20)
    slow = inspection.load_audio
    monkeypatch.setattr(inspection, "load_audio", lambda *a, **k: time.sleep(0.005) or slow(*a, **k))
    files = write_many(tmp_path, 200, 0.05)
    process = run_in_background(files, cache, num_proc=num_proc)
    until = time.monotonic() + 30
    while not list(cache.rglob("*.arrow")) and time.monotonic() < until:
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    time.sleep(0.3)  # its workers end with it
    kept = kept_rows(cache)
    assert 20 <= kept < 200
    sounds, _ = decode_files(files, RATE, cache_dir=cache)
    assert len(decoded) == 200 - kept
    assert all(sound.problem is None for sound in sounds)


def test_what_a_killed_process_left_is_removed_after_a_day(tmp_path, cache):
    files = write_many(tmp_path, 2)
    inspect_files(files[:1], cache_dir=cache)
    old, fresh = (cache / "v2" / f"sounds-{age}.unfinished" for age in ("old", "fresh"))
    old.touch()
    fresh.touch()
    os.utime(old, (time.time() - 2 * inspection.ABANDONED_S,) * 2)
    inspect_files(files, cache_dir=cache)
    assert not old.exists() and fresh.exists()


def test_the_cache_folder_can_be_chosen_by_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("SER_CACHE_DIR", str(tmp_path / "mine"))
    inspect_files(write_many(tmp_path, 1))
    assert list((tmp_path / "mine").rglob("*.arrow"))
    monkeypatch.delenv("SER_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    assert inspection.default_cache_dir() == tmp_path / "caches" / "ser_model"


# the real files


def test_native_stereo_and_odd_rates_read_as_their_16_khz_copies_do(data_dir, cache):
    """Files exactly as distributed (48 kHz, stereo, 24 414 Hz, 96 kHz) beside the 16 kHz FLAC of the same clip."""
    copies = {
        path.stem: path for folder in ("RAVDESS", "TESS") for path in files_below(data_dir / folder, CORPUS_SUFFIXES)
    }
    natives = files_below(data_dir / "native_samples", CORPUS_SUFFIXES)
    sounds, rows = decode_files(natives, RATE, cache_dir=cache)
    assert len(natives) == 10
    assert {(sound.sampling_rate, sound.channels) for sound in sounds} == {
        (48_000, 2),
        (48_000, 1),
        (24_414, 1),
        (96_000, 1),
    }
    for native, sound, row in zip(natives, sounds, rows, strict=True):
        copy = load_audio(copies[native.stem])
        samples = waveform(row)
        assert sound.problem is None
        assert abs(sound.duration_s - len(copy) / RATE) < 0.001
        length = min(len(samples), len(copy))
        assert np.corrcoef(samples[:length], copy[:length])[0, 1] > 0.99, native.name


def test_a_real_actor_and_a_real_folder_are_undamaged_and_unlike(data_dir, cache):
    quietest = data_dir / "RAVDESS" / "Audio_Speech_Actors_01-24" / "Actor_20"
    actor = files_below(quietest, CORPUS_SUFFIXES)
    words = files_below(data_dir / "TESS" / "OAF_angry", CORPUS_SUFFIXES)[:60]
    sounds = inspect_files([*actor, *words], cache_dir=cache)
    assert len(sounds) == 120
    assert {(sound.problem, sound.sampling_rate, sound.channels) for sound in sounds} == {(None, RATE, 1)}
    assert len({sound.content for sound in sounds}) == 120
