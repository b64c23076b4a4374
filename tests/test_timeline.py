"""Segments say what the windows say, in an order and in formats that other programs read."""

import csv
import io
import json
import re

import numpy as np
import pytest
import soundfile

from ser_model.__main__ import main
from ser_model.inference import NO_VOICE, VOICE, Prediction, Window
from ser_model.timeline import Segment, segments, smoothed, to_csv, to_json, to_srt

SCORES = {"calm": {"calm": 0.8, "angry": 0.2}, "angry": {"calm": 0.1, "angry": 0.9}}


def prediction(*windows, speech=None):
    """Of windows given as (start, end, emotion)."""
    windows = tuple(Window(start, end, SCORES[emotion]) for start, end, emotion in windows)
    end_s = windows[-1].end_s
    speech = ((0.0, end_s),) if speech is None else speech
    return Prediction(VOICE, "", end_s, 1.0, "calm", 0.5, SCORES["calm"], windows, (), speech)


def test_the_command_says_what_got_no_answer_and_which_names_are_not_clear(tmp_path, capsys):
    (tmp_path / "a").mkdir()
    soundfile.write(tmp_path / "silence.wav", np.zeros(16_000), 16_000)
    assert main(["timeline", str(tmp_path / "silence.wav"), f"--output-dir={tmp_path / 'out'}"]) == 1
    assert "silence.wav: " in capsys.readouterr().err and not list((tmp_path / "out").iterdir())
    soundfile.write(tmp_path / "a" / "silence.wav", np.zeros(16_000), 16_000)
    with pytest.raises(SystemExit, match="1 names stand for several recordings, silence for one"):
        main(["timeline", str(tmp_path), f"--output-dir={tmp_path / 'out'}"])


def test_the_command_writes_over_nothing(tmp_path):
    soundfile.write(tmp_path / "talk.wav", np.zeros(16_000), 16_000)
    (tmp_path / "talk.srt").write_text("subtitles by hand")
    with pytest.raises(SystemExit, match="talk.srt is there already; move it away"):
        main(["timeline", str(tmp_path), f"--output-dir={tmp_path}"])
    assert (tmp_path / "talk.srt").read_text() == "subtitles by hand"


@pytest.mark.parametrize("device", ["gpu", "cuda:7"])
def test_a_device_that_is_not_there_is_told(device, capsys):
    with pytest.raises(SystemExit):
        main(["predict", "examples", f"--device={device}"])
    assert f"'{device}' is not there" in capsys.readouterr().err


def test_where_windows_overlap_their_scores_are_averaged():
    pieces = smoothed(prediction((0, 4, "calm"), (2, 6, "angry")))
    assert [(piece.start_s, piece.end_s) for piece in pieces] == [(0, 2), (2, 4), (4, 6)]
    assert [piece.scores["calm"] for piece in pieces] == pytest.approx([0.8, 0.45, 0.1])
    assert all(sum(piece.scores.values()) == pytest.approx(1) for piece in pieces)


def test_alike_neighbours_are_one_segment_with_their_mean_confidence():
    found = segments(prediction((0, 4, "calm"), (2, 6, "calm"), (4, 8, "angry"), (6, 10, "angry")))
    assert [(segment.start_s, segment.end_s, segment.emotion) for segment in found] == [
        (0, 4, "calm"),
        (4, 10, "angry"),
    ]
    assert found[0].confidence == pytest.approx(0.8)
    assert found[1].confidence == pytest.approx((0.55 + 0.9 + 0.9) / 3)


def test_segments_leave_out_the_quiet_around_speech_and_never_span_a_gap():
    found = segments(prediction((0, 4, "calm"), (10, 14, "calm"), speech=((1.0, 2.5), (3.0, 3.5), (11.0, 14.0))))
    assert [(segment.start_s, segment.end_s) for segment in found] == [(1.0, 3.5), (11.0, 14.0)]


def test_what_lasts_no_second_is_left_out_unless_there_is_nothing_else():
    found = segments(prediction((0, 4, "calm"), (3.5, 4.3, "angry"), speech=((0.0, 4.3),)))
    assert [segment.emotion for segment in found] == ["calm"]
    assert len(segments(prediction((0, 0.7, "calm")))) == 1


def test_without_an_answer_there_are_no_segments():
    silent = Prediction(NO_VOICE, "No voice was heard.", 3.0, 0.0)
    assert smoothed(silent) == [] and segments(silent) == []
    assert to_srt([]) == "" and list(csv.DictReader(io.StringIO(to_csv([])))) == []
    assert json.loads(to_json(silent))["segments"] == []


def test_the_files_hold_the_segments():
    found = [Segment(0.0, 3.5, "calm", 0.8), Segment(3600.25, 3661.0, "female_disgust", 0.555)]
    rows = list(csv.DictReader(io.StringIO(to_csv(found))))
    assert rows[1] == {"start_s": "3600.25", "end_s": "3661.00", "emotion": "female_disgust", "confidence": "0.5550"}
    blocks = to_srt(found).split("\n\n")
    assert blocks[0] == "1\n00:00:00,000 --> 00:00:03,500\ncalm (80%)"
    assert re.fullmatch(r"2\n01:00:00,250 --> 01:01:01,000\nfemale disgusted \(5[56]%\)\n", blocks[1])
    assert "sad!" in to_srt([Segment(0, 1, "sad", 1.0)], lambda segment: f"{segment.emotion}!")
    told = json.loads(to_json(prediction((0, 4, "calm"))))
    assert told["status"] == VOICE and told["segments"][0]["emotion"] == "calm" and told["speech"] == [[0.0, 4.0]]


def test_an_hour_of_windows_is_a_matter_of_a_moment():
    rng = np.random.default_rng(0)
    windows = [(float(start), float(start + 4), str(rng.choice(["calm", "angry"]))) for start in range(0, 3600, 2)]
    hour = prediction(*windows, speech=tuple((start, start + 1.5) for start in range(0, 3600, 2)))
    assert len(smoothed(hour)) > 1700
    assert sum(segment.end_s - segment.start_s for segment in segments(hour)) > 3000
