import csv
import io
import subprocess
import sys

import numpy as np
import pytest
import soundfile
import torch

from ser_model import SERConfig, SERFeatureExtractor, SERForAudioClassification
from ser_model.audio import AudioError
from ser_model.inference import (
    NO_VOICE,
    TOO_SHORT,
    VOICE,
    EmotionRecognizer,
    adjective,
    audio_files,
    write_predictions,
)
from ser_model.labels import EMOTIONS

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


def test_path_bytes_file_and_samples_answer_alike(recognizer, voice_path):
    samples, rate = soundfile.read(voice_path)
    expected = recognizer(voice_path).scores
    with open(voice_path, "rb") as file:
        for source, sampling_rate in [(voice_path.read_bytes(), None), (file, None), (samples, rate)]:
            assert recognizer(source, sampling_rate).scores == pytest.approx(expected, abs=1e-5)


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


def test_too_short_is_said(recognizer, voice):
    prediction = recognizer(voice[: RATE // 4], RATE)
    assert prediction.status == TOO_SHORT
    assert "0.25 s" in prediction.message


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


def test_batch_answers_as_one_by_one(recognizer, voice):
    clips = [voice, np.zeros(2 * RATE, np.float32), np.tile(voice, 3), voice[:RATE]]
    for together, alone in zip(recognizer.recognize(clips), map(recognizer, clips, [RATE] * 4), strict=True):
        assert together.status == alone.status
        if alone.scores:
            assert together.scores == pytest.approx(alone.scores, abs=1e-5)


def test_audio_files_looks_into_folders_and_keeps_files_as_given(tmp_path):
    (tmp_path / "deep").mkdir()
    for name in ("b.WAV", "a.flac", "notes.txt", "deep/c.m4a"):
        (tmp_path / name).touch()
    given = tmp_path / "notes.txt"
    found = list(audio_files([tmp_path, given]))
    assert found == [tmp_path / "a.flac", tmp_path / "b.WAV", tmp_path / "deep" / "c.m4a", given]


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
