import copy
import csv
import io
import os
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch

from ser_model import SERConfig, SERFeatureExtractor, SERForAudioClassification
from ser_model.audio import AudioError, resample
from ser_model.inference import (
    CLIPPED,
    CUT,
    NO_VOICE,
    QUIET,
    QUIET_PEAK,
    TOO_QUIET,
    TOO_SHORT,
    VOICE,
    Caution,
    EmotionRecognizer,
    Prediction,
    Recording,
    adjective,
    audio_files,
    shared_out,
    voice_message,
    write_predictions,
)
from ser_model.labels import EMOTIONS, SURE_CONFIDENCE
from ser_model.voice_activity import CHUNK_SAMPLES, VoiceActivity

RATE = 16_000


@pytest.fixture(scope="session")
def model_dir(tmp_path_factory):
    """A small untrained model in Hub format: what it answers is arbitrary, how it answers is not."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("model")
    config = SERConfig(id2label=dict(enumerate(EMOTIONS)), backbone_options={"widths": [8, 8, 8, 8]})
    SERForAudioClassification(config).save_pretrained(folder)
    SERFeatureExtractor().save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def recognizer(model_dir):
    return EmotionRecognizer.from_pretrained(model_dir)


@pytest.fixture(scope="session")
def voice_path(data_dir):
    return data_dir / "native_samples" / "03-01-06-01-01-02-20.wav"


@pytest.fixture(scope="session")
def voice(recognizer, voice_path):
    return recognizer.load(voice_path)


def test_a_voice_gets_a_label_and_scores_that_sum_to_one(recognizer, voice_path):
    prediction = recognizer(voice_path)
    assert prediction.status == VOICE
    assert set(prediction.scores) == set(EMOTIONS)
    assert sum(prediction.scores.values()) == pytest.approx(1, abs=1e-5)
    assert prediction.confidence == max(prediction.scores.values()) == prediction.scores[prediction.label]
    assert 0.5 < prediction.speech_s < prediction.duration_s
    assert adjective(prediction.label) in prediction.message


def test_what_is_less_likely_than_not_is_said_to_be_unsure():
    """With the sentence and at the threshold of the page."""
    unsure, sure = (Prediction(VOICE, "", 4.0, 2.0, "disgust", share) for share in (0.494, SURE_CONFIDENCE))
    assert (unsure.sure, sure.sure, Prediction(NO_VOICE, "", 4.0, 0.0).sure) == (False, True, False)
    assert voice_message("disgust", 0.494) == "Not sure. It sounds most like disgusted, but only with 49% confidence."
    assert voice_message("disgust", SURE_CONFIDENCE) == "This voice sounds disgusted, with 50% confidence."


def test_path_bytes_file_and_samples_answer_alike(recognizer, voice_path):
    samples, rate = soundfile.read(voice_path)
    expected = recognizer(voice_path).scores
    with open(voice_path, "rb") as file:
        tensor = torch.from_numpy(samples if samples.ndim == 1 else samples.mean(axis=1))
        content = voice_path.read_bytes()
        for source, sampling_rate in [
            *((held, None) for held in (content, bytearray(content), memoryview(content), file)),
            *((held, rate) for held in (samples, tensor)),
        ]:
            assert recognizer(source, sampling_rate).scores == pytest.approx(expected, abs=1e-5)
    decoded, path = (
        {"array": samples, "sampling_rate": rate, "path": "x.wav"},
        str(voice_path),
    )  # as `datasets` has them
    as_list = {"array": samples.tolist(), "sampling_rate": rate}
    of_pipeline = {"raw": samples, "sampling_rate": rate}
    for clip in (decoded, as_list, of_pipeline, {"bytes": content, "path": "x.wav"}, {"bytes": None, "path": path}):
        assert recognizer(clip).scores == pytest.approx(expected, abs=1e-5)
        assert len(recognizer.load(clip)) == len(recognizer.load(voice_path))


@pytest.mark.parametrize("source", [[0.1] * 16_000, None, 3, {"bytes": None}])
def test_what_is_no_recording_is_refused_with_the_way_to_give_samples(recognizer, source):
    with pytest.raises(AudioError, match=r"came; give a path, .*: recognizer\(samples, sampling_rate=...\)"):
        recognizer(source, RATE)


@pytest.mark.parametrize("samples", [[[0.1, 0.2], [0.1]], ["loud"], [None]])
def test_a_list_that_holds_no_samples_is_refused_in_a_sentence(recognizer, samples):
    with pytest.raises(AudioError, match="the clip's samples are no numbers .*; give one channel|no finite numbers"):
        recognizer({"array": samples, "sampling_rate": RATE})


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16, torch.int16])
def test_samples_of_any_type_are_heard(recognizer, voice, dtype):
    scale = 2**15 if dtype == torch.int16 else 1
    tensor = (torch.from_numpy(voice) * scale).to(dtype)
    expected = recognizer(voice, RATE).scores
    [together] = recognizer.recognize([tensor])
    assert together.scores == recognizer(tensor, RATE).scores == pytest.approx(expected, abs=0.05)


def test_windows_that_cannot_be_heard_are_refused(recognizer, voice):
    with pytest.raises(AudioError, match="no finite numbers"):
        recognizer.recognize([voice * np.nan])
    with pytest.raises(AudioError, match="peak at"):
        recognizer.recognize([voice / np.abs(voice).max() * 100])


def test_a_tensor_of_several_channels_is_refused(recognizer):
    with pytest.raises(AudioError, match=r"a tensor of shape \(2, 16000\) came; give one channel"):
        recognizer(torch.zeros(2, RATE), RATE)


def test_a_clip_that_datasets_decodes_when_it_is_asked_for_is_heard(recognizer, voice):
    """As torchcodec's AudioDecoder holds it: no array, two channels, and a rate of its own."""
    samples = SimpleNamespace(data=torch.from_numpy(np.stack([voice, voice])), sample_rate=RATE)
    decoder = SimpleNamespace(get_all_samples=lambda: samples)
    assert recognizer(decoder).scores == pytest.approx(recognizer(voice, RATE).scores, abs=1e-5)


def test_a_recognizer_may_be_copied_and_sent_to_another_process(recognizer, voice):
    expected = recognizer(voice, RATE)
    for twin in (copy.deepcopy(recognizer), pickle.loads(pickle.dumps(recognizer))):
        prediction = twin(voice, RATE)
        assert (prediction.label, prediction.speech) == (expected.label, expected.speech)
        assert prediction.scores == pytest.approx(expected.scores, abs=1e-6)  # to the bit not everywhere


def test_short_recording_is_answered_as_extractor_and_model_answer(recognizer, voice):
    features = recognizer.extractor(voice, sampling_rate=RATE, return_tensors="pt")
    with torch.no_grad():
        expected = recognizer.model(**features).logits.softmax(dim=-1)[0]
    prediction = recognizer(voice, RATE)
    for index, label in recognizer.model.config.id2label.items():
        assert prediction.scores[label] == pytest.approx(float(expected[index]), abs=1e-5)


@pytest.mark.parametrize(
    "sound",
    {
        "hum": 0.1 * np.sin(2 * np.pi * 50 * np.arange(3 * RATE) / RATE).astype(np.float32),
        "noise": np.random.default_rng(0).normal(0, 0.1, 3 * RATE).astype(np.float32),
        "tone": 0.3 * np.sin(2 * np.pi * 440 * np.arange(3 * RATE) / RATE).astype(np.float32),
    }.items(),
    ids=lambda item: item[0],
)
def test_no_voice_no_answer(recognizer, sound):
    prediction = recognizer(sound[1], RATE)
    assert prediction.status == NO_VOICE
    assert prediction.label is None and prediction.confidence is None and prediction.scores is None
    assert "No voice" in prediction.message


@pytest.mark.parametrize("samples", [1, 639, 640, RATE // 4])  # a frame has 640
def test_too_short_is_said(recognizer, voice, voice_path, tmp_path, samples):
    prediction = recognizer(voice[:samples], RATE)
    assert prediction.status == TOO_SHORT
    assert f"{samples / RATE:.2f} s" in prediction.message
    soundfile.write(tmp_path / "short.wav", voice[:samples], RATE)
    short, whole = recognizer.recognize_files([tmp_path / "short.wav", voice_path])
    assert (short.status, whole.status) == (TOO_SHORT, VOICE)


def test_samples_without_a_rate_are_refused(recognizer, voice):
    with pytest.raises(AudioError, match="sampling_rate"):
        recognizer(voice)


def test_long_recording_is_judged_in_windows_that_cover_its_speech(recognizer, voice):
    pause = np.zeros(8 * RATE, np.float32)
    prediction = recognizer(np.concatenate([voice, pause, voice]), RATE)
    assert len(prediction.windows) > 1
    starts = [window.start_s for window in prediction.windows]
    assert starts == sorted(starts)
    middle_s = (len(voice) + len(pause) / 2) / RATE
    assert not any(window.start_s <= middle_s - 2 and window.end_s >= middle_s + 2 for window in prediction.windows)
    assert sum(prediction.scores.values()) == pytest.approx(1, abs=1e-5)


def test_no_moment_counts_twice_however_the_last_window_falls():
    speech = [(0, 20), (30, 90)]
    spans = [(0, 40), (20, 60), (40, 80), (50, 90)]
    assert shared_out(spans, speech).tolist() == pytest.approx([25, 5 + 5 + 10 / 3, 5 + 10 / 3 + 10, 10 / 3 + 10 + 10])
    assert shared_out(spans, speech).sum() == 80
    assert shared_out([(0, 40), (60, 90)], speech).tolist() == [30, 30]


def test_a_millisecond_more_changes_next_to_nothing(recognizer, voice):
    """The last window then is almost the one before it."""
    sound = np.concatenate([voice, voice[::-1], voice])[: 8 * RATE]
    before, after = recognizer(sound, RATE), recognizer(np.pad(sound, (0, RATE // 1000)), RATE)
    assert len(after.windows) == len(before.windows) + 1
    assert after.scores == pytest.approx(before.scores, abs=2e-3)


def test_batch_answers_as_one_by_one(recognizer, voice):
    clips = [voice, np.zeros(2 * RATE, np.float32), np.tile(voice, 3), voice[:RATE]]
    for together, alone in zip(recognizer.recognize(clips), map(recognizer, clips, [RATE] * 4), strict=True):
        assert together.status == alone.status
        if alone.scores:
            assert together.scores == pytest.approx(alone.scores, abs=1e-5)


def test_audio_files_looks_into_folders_and_keeps_files_as_given(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / ".Trash" / "deep").mkdir(parents=True)
    (tmp_path / "folder.wav").mkdir()
    for name in ("b.WAV", "a.flac", "notes.txt", "deep/c.m4a", ".Trash/deep/d.wav", "deep/._c.m4a"):
        (tmp_path / name).touch()
    (tmp_path / "deep" / "loop").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "linked").symlink_to(tmp_path / ".Trash" / "deep", target_is_directory=True)
    given = tmp_path / "notes.txt"
    found = list(audio_files([tmp_path, given]))
    names = [str(path.relative_to(tmp_path)) for path in found]
    assert names == ["a.flac", "b.WAV", "deep/c.m4a", "linked/d.wav", "notes.txt"]


def test_a_bad_file_gets_a_row_with_its_error_and_the_rest_goes_on(recognizer, voice_path, tmp_path):
    bad = tmp_path / "bad.wav"
    bad.write_text("not audio")
    output = io.StringIO()
    assert write_predictions(recognizer, [voice_path, bad, voice_path], output, batch_size=2) == (2, 1)
    rows = list(csv.DictReader(io.StringIO(output.getvalue())))
    assert list(rows[0]) == ["path", "duration_s", "label", "confidence", *recognizer.labels, "error"]
    assert [bool(row["label"]) for row in rows] == [True, False, True]
    assert "bad.wav" in rows[1]["error"]
    assert rows[0]["label"] == rows[2]["label"] == recognizer(voice_path).label


def test_a_label_called_like_a_column_keeps_its_score(model_dir, voice_path):
    own = EmotionRecognizer.from_pretrained(model_dir)
    own.model.set_labels(["ok", "error"])
    output = io.StringIO()
    write_predictions(EmotionRecognizer(own.model, own.extractor), [voice_path], output)
    [row] = csv.DictReader(io.StringIO(output.getvalue()))
    assert list(row) == ["path", "duration_s", "label", "confidence", "ok", "score_error", "error"]
    assert float(row["ok"]) + float(row["score_error"]) == pytest.approx(1, abs=1e-3) and row["error"] == ""


def test_command_line_writes_a_row_a_file_and_exits_1_if_one_failed(model_dir, voice_path, tmp_path):
    (tmp_path / "bad.wav").write_bytes(b"")
    (tmp_path / "good.wav").write_bytes(voice_path.read_bytes())
    command = [sys.executable, "-m", "ser_model", "predict", "--model", str(model_dir), "--output"]
    run = subprocess.run([*command, str(tmp_path / "out.csv"), str(tmp_path)], capture_output=True, text=True)
    assert run.returncode == 1, run.stderr
    assert "1 answered, 1 not" in run.stderr
    rows = list(csv.DictReader((tmp_path / "out.csv").open()))
    assert [row["path"] for row in rows] == [str(tmp_path / "bad.wav"), str(tmp_path / "good.wav")]
    assert rows[0]["error"] and rows[1]["label"] in EMOTIONS
    (tmp_path / "bad.wav").unlink()
    run = subprocess.run([*command, str(tmp_path / "out.csv"), str(tmp_path)], capture_output=True, text=True)
    assert run.returncode != 0 and "out.csv is there already; delete it" in run.stderr
    (tmp_path / "out.csv").unlink()
    run = subprocess.run([*command, str(tmp_path / "out.csv"), str(tmp_path)], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


# ── States and cautions ──


def test_silence_and_what_nobody_hears_are_too_quiet(recognizer, voice):
    for sound in (np.zeros(2 * RATE, np.float32), voice * (0.001 / np.abs(voice).max())):
        prediction = recognizer(sound, RATE)
        assert prediction.status == TOO_QUIET and prediction.scores is None
        assert "microphone" in prediction.message


def test_the_softest_clips_of_the_corpora_are_not_too_quiet(recognizer, data_dir):
    """Calm and sad ones of actor 20 are the softest of RAVDESS."""
    folder = data_dir / "RAVDESS" / "Audio_Speech_Actors_01-24" / "Actor_20"
    clips = [recognizer.load(path) for path in sorted(folder.glob("03-01-0[24]-*"))]
    predictions = recognizer.recognize(clips)
    assert min(np.abs(clip).max() for clip in clips) < QUIET_PEAK
    assert TOO_QUIET not in {prediction.status for prediction in predictions}
    for clip, prediction in zip(clips, predictions, strict=True):
        [caution] = prediction.warnings if np.abs(clip).max() < QUIET_PEAK else [None]
        assert caution is None or caution == Caution(QUIET, {"peak": float(np.abs(clip).max())})


@pytest.mark.parametrize("loudness", [3.0, 10.0])
def test_clipping_is_said_with_its_share(recognizer, voice, loudness):
    assert recognizer(voice, RATE).warnings == ()
    clipped = np.clip(voice / np.abs(voice).max() * loudness, -1, 1)
    [caution] = recognizer((clipped * 32_767).astype(np.int16), RATE).warnings
    assert caution.code == CLIPPED
    assert caution.values["share"] == pytest.approx(np.mean(np.abs(clipped) == 1), abs=1e-3)


def test_clipping_survives_another_sampling_rate(recognizer, voice_path):
    samples, rate = soundfile.read(voice_path)
    [caution] = recognizer(np.clip(samples / np.abs(samples).max() * 5, -1, 1), rate).warnings
    assert caution.code == CLIPPED


# ── Long recordings ──


@pytest.fixture(scope="module")
def half_a_minute(voice):
    rng = np.random.default_rng(0)
    pauses = [0.001 * rng.standard_normal(round(seconds * RATE)).astype(np.float32) for seconds in (0.3, 6, 1)]
    return np.concatenate([part for pause in pauses for part in (voice, pause, voice)])


@pytest.mark.parametrize("pieces", [1, 7, 400])
def test_piece_by_piece_answers_as_the_whole_at_once(recognizer, voice, half_a_minute, monkeypatch, pieces):
    for sound in (voice, voice[: 5 * RATE // 2], half_a_minute, half_a_minute[: 6 * RATE + 1], np.zeros(9 * RATE)):
        sound = sound.astype(np.float32)
        [whole] = recognizer.recognize([sound])
        monkeypatch.setattr(
            "ser_model.inference.prepared_blocks", lambda array, *_: iter(np.array_split(array, pieces))
        )
        same = recognizer(sound, RATE)
        monkeypatch.undo()
        assert (same.status, same.label, same.speech) == (whole.status, whole.label, whole.speech)
        assert (same.duration_s, same.warnings, len(same.windows)) == (
            whole.duration_s,
            whole.warnings,
            len(whole.windows),
        )
        for one, other in zip(same.windows, whole.windows, strict=True):
            assert (one.start_s, one.end_s) == (other.start_s, other.end_s)
            assert one.scores == pytest.approx(other.scores, abs=1e-5)


def found_by_silero(sound: np.ndarray) -> list[tuple[float, float]]:
    """Stretches of speech in seconds, as silero-vad itself finds them, 32 ms after 32 ms."""
    from silero_vad import get_speech_timestamps, load_silero_vad

    stretches = get_speech_timestamps(torch.from_numpy(sound), load_silero_vad(onnx=True))
    return [(stretch["start"] / RATE, stretch["end"] / RATE) for stretch in stretches]


def test_speech_is_found_as_the_detector_itself_finds_it(recognizer, half_a_minute):
    prediction, expected = recognizer(half_a_minute, RATE), found_by_silero(half_a_minute)
    assert list(prediction.speech) == expected and len(expected) > 4
    assert prediction.speech_s == pytest.approx(sum(end - start for start, end in expected))


@pytest.mark.parametrize("piece_samples", [100, 5000, 16_000])
def test_speech_is_found_whatever_the_pieces(recognizer, voice, piece_samples):
    sound = np.concatenate([voice, np.zeros(40 * RATE, np.float32), voice])
    activity = VoiceActivity(RATE, recognizer.voice_detector)
    for first in range(0, len(sound), piece_samples):
        activity.hear(sound[first : first + piece_samples])
    activity.end()
    stretches = [(start / RATE, end / RATE) for start, end in activity.stretches(len(sound))]
    assert stretches == found_by_silero(sound) and len(stretches) >= 2


@pytest.mark.parametrize("rate", [8000, 22_050, 48_000])
def test_speech_is_found_at_any_rate(recognizer, half_a_minute, rate):
    sound = resample(half_a_minute, RATE, rate)
    activity = VoiceActivity(rate, recognizer.voice_detector)
    for piece in np.array_split(sound, 40):
        activity.hear(piece)
    activity.end()
    stretches = activity.stretches(len(sound))
    expected = found_by_silero(half_a_minute)
    assert len(stretches) == len(expected)
    np.testing.assert_allclose(np.array(stretches) / rate, expected, rtol=0, atol=0.1)


def test_speech_may_be_wherever_it_is_found_and_where_nothing_was_heard_yet(recognizer, voice):
    activity = VoiceActivity(RATE, recognizer.voice_detector)
    assert activity.may_speak_in((0, RATE))
    sound = np.concatenate([np.zeros(5 * RATE, np.float32), voice])
    activity.hear(sound)
    assert not activity.may_speak_in((0, 4 * RATE))
    assert activity.may_speak_in((len(sound), len(sound) + RATE))
    activity.end()
    for start, end in activity.stretches(len(sound)):
        assert activity.may_speak_in((start, start + 1000)) and activity.may_speak_in((end - 1000, end))


def test_speech_may_be_in_the_next_chunk(recognizer):
    activity = VoiceActivity(RATE, recognizer.voice_detector)
    activity.hear(np.zeros(RATE, np.float32))
    heard = RATE // CHUNK_SAMPLES * CHUNK_SAMPLES
    assert not activity.may_speak_in((0, heard)) and activity.may_speak_in((0, heard + 1))


def test_nothing_is_written_about_who_asks(tmp_path, model_dir, voice_path):
    """ONNX Runtime keeps a name of the device, and tells Microsoft what it runs, unless it is told not to."""
    command = [sys.executable, "-m", "ser_model", "predict", str(voice_path), "--model", str(model_dir)]
    places = {name: str(tmp_path) for name in ("HOME", "TMPDIR", "XDG_CACHE_HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME")}
    without = {name: value for name, value in os.environ.items() if name not in ("CI", "ORT_DISABLE_TELEMETRY")}
    subprocess.run(command, env=without | places, capture_output=True, check=True)
    assert list(tmp_path.rglob("*")) == []


def test_what_is_kept_of_a_recording_does_not_grow_with_it(recognizer, voice):
    recording, kept = Recording(RATE, recognizer.voice_detector), []
    for _ in range(20):
        windows = recording.hear(voice)
        kept.append(len(recording._kept))
        assert all(len(window.samples) == 4 * RATE for window in windows)
    recording.end()
    assert max(kept) <= 6 * RATE
    assert recording.duration_s == pytest.approx(20 * len(voice) / RATE)


def test_progress_is_told_in_seconds(recognizer, half_a_minute, tmp_path):
    soundfile.write(tmp_path / "long.wav", half_a_minute, RATE)
    soundfile.write(tmp_path / "long.ogg", half_a_minute, RATE)
    for name in ("long.wav", "long.ogg"):
        told = []
        prediction = recognizer(tmp_path / name, progress=lambda *seconds, told=told: told.append(seconds))
        heard = [heard_s for heard_s, _ in told]
        assert heard == sorted(heard) and len(heard) > 2 and heard[-1] == prediction.duration_s
        assert [total_s for _, total_s in told] == pytest.approx([prediction.duration_s] * len(told), abs=0.1)


@pytest.mark.parametrize("source", ["absent.wav", "folder", "https://example.org/a.wav", np.zeros(8), np.zeros(())])
def test_what_cannot_be_heard_is_refused_alike_whether_progress_is_told_or_not(recognizer, tmp_path, source):
    (tmp_path / "folder").mkdir()
    if isinstance(source, str) and "/" not in source:
        source = tmp_path / source
    said = []
    for progress in (None, lambda *seconds: None):
        with pytest.raises(AudioError) as refused:
            recognizer(source, progress=progress)
        said.append(str(refused.value))
    assert said[0] == said[1] and ("sampling rate" in said[0] or said[0].startswith(str(source).split("/")[-1]))


def test_beyond_two_hours_the_rest_is_left_out_and_that_is_said(recognizer, half_a_minute, monkeypatch):
    monkeypatch.setattr("ser_model.inference.MAX_DURATION_S", 10.0)
    prediction = recognizer(half_a_minute, RATE)
    assert prediction.duration_s == 10 and prediction.windows[-1].end_s == 10
    assert prediction.warnings == (Caution(CUT, {"heard_s": 10.0}),)
    assert recognizer(half_a_minute[: 10 * RATE], RATE).warnings == ()


def test_the_start_of_a_recording_can_be_had_alone(recognizer, half_a_minute):
    np.testing.assert_array_equal(recognizer.load(half_a_minute, RATE, max_s=3), half_a_minute[: 3 * RATE])


def test_two_at_once_do_not_disturb_each_other(recognizer, half_a_minute, voice):
    alone = [recognizer(half_a_minute, RATE), recognizer(voice, RATE)]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda sound: recognizer(sound, RATE), [half_a_minute, voice] * 3))
    for prediction, expected in zip(together, alone * 3, strict=True):
        assert prediction.speech == expected.speech
        assert prediction.scores == pytest.approx(expected.scores, abs=1e-5)


def test_importing_leaves_the_threads_of_the_process_as_they_were():
    code = "import torch; torch.set_num_threads(3); import ser_model.inference; print(torch.get_num_threads())"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.strip() == "3"
