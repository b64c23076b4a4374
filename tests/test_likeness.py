"""What the default checkpoint says to sounds that are no voice to judge; and how a model comes by that knowledge."""

import csv
import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import load_file
from training_runs import tiny_run

from benchmarks import in_the_wild
from benchmarks.out_of_domain import middle
from benchmarks.strange_sounds import NO_VOICES
from ser_model import SERConfig, SERForAudioClassification
from ser_model.__main__ import main
from ser_model.inference import NO_VOICE, UNLIKE_TRAINING, VOICE, WINDOW_S, EmotionRecognizer, write_predictions
from ser_model.likeness import fit_weight
from ser_model.sounds import DURATION_S, LEVELS_DB, OUTLIERS, RATE, make_sounds
from ser_model.splits import continued
from train import main as train

ROOT = Path(__file__).resolve().parent.parent
CHECKPOINT = ROOT / "checkpoints" / "ser-cnn-8"
SPEECH = Path("RAVDESS") / "Audio_Speech_Actors_01-24"
MADE = {name: make for name, make in (OUTLIERS | NO_VOICES).items() if name != "synthetic_whisper"}  # needs espeak-ng

LEAST_REFUSED = dict.fromkeys(MADE, 5) | {"babble": 2, "far_crowd": 4, "whisper": 4}  # of 5
del LEAST_REFUSED["shuffled"]  # which passes for a voice


@pytest.fixture(scope="module")
def recognizer() -> EmotionRecognizer:
    return EmotionRecognizer.from_pretrained(CHECKPOINT)


@pytest.fixture(scope="module")
def voices(recognizer, data_dir) -> list[np.ndarray]:
    """Of four speakers of RAVDESS."""
    actors = [data_dir / SPEECH / f"Actor_{number:02}" for number in (1, 11, 20, 21)]
    return [recognizer.load(file) for actor in actors for file in sorted(actor.iterdir())[::8]]


@pytest.mark.parametrize("name", MADE)
def test_made_sounds_follow_from_the_seed_alone(name, voices):
    sounds = make_sounds(MADE[name], 2, voices, seed=3)
    for sound, again in zip(sounds, make_sounds(MADE[name], 2, voices, seed=3), strict=True):
        assert sound.dtype == np.float32 and len(sound) == DURATION_S * RATE
        np.testing.assert_array_equal(sound, again)
        level_db = 10 * np.log10(np.mean(sound.astype(np.float64) ** 2))
        assert np.abs(sound).max() <= 1 and level_db <= LEVELS_DB[1] + 0.1
    assert not np.array_equal(*sounds)
    assert not np.array_equal(sounds[0], make_sounds(MADE[name], 1, voices, seed=4)[0])


@pytest.mark.parametrize("name", LEAST_REFUSED)
def test_what_is_no_voice_to_judge_gets_no_answer(name, recognizer, voices):
    """None where nobody speaks; most of what is made of speech, which the voice detector lets pass."""
    answers = recognizer.recognize(make_sounds(MADE[name], 5, voices, seed=11))
    refused = [answer for answer in answers if answer.status in (NO_VOICE, UNLIKE_TRAINING)]
    assert all(answer.label is None and answer.scores is None and answer.message for answer in refused)
    assert len(refused) >= LEAST_REFUSED[name]


@pytest.mark.parametrize("heard_s", [None, 0.8], ids=["whole", "cut"])
def test_voices_are_answered_but_for_a_few(recognizer, data_dir, heard_s):
    """Of TESS most clips are of words that it did not learn from."""
    tess = [file for folder in sorted((data_dir / "TESS").glob("YAF_*")) for file in sorted(folder.iterdir())[:5]]
    ravdess = sorted((data_dir / SPEECH).glob("Actor_*/*"))[::24]
    for files in (ravdess, tess):
        clips = [middle(recognizer.load(file), heard_s or 10.0) for file in files]
        answers = recognizer.recognize(clips)
        assert np.mean([answer.status == UNLIKE_TRAINING for answer in answers]) <= 0.1
        assert np.mean([answer.status == VOICE for answer in answers]) >= 0.85


def test_folders_of_other_recordings_are_tabled(tmp_path, monkeypatch, capsys):
    (tmp_path / "voices" / "loud").mkdir(parents=True)
    shutil.copy(ROOT / "examples" / "synthetic_angry_voice.flac", tmp_path / "voices" / "loud")
    shutil.copy(ROOT / "examples" / "synthetic_calm_voice.flac", tmp_path / "voices")
    soundfile.write(tmp_path / "voices" / "silence.wav", np.zeros(RATE * 2), RATE)
    monkeypatch.setattr("sys.argv", ["in_the_wild", str(tmp_path / "voices"), str(tmp_path / "voices" / "loud")])
    in_the_wild.main()
    said = capsys.readouterr().out
    assert "/voices | 2 | 0.50 | 0.00 | 0.00 | 0.50 | 0.00 | disgust 1.00 |" in said
    assert "| voices/loud | 1 | 0.00 | 0.00 | 0.00 | 1.00 | 0.00 | angry 1.00 |" in said


@pytest.mark.parametrize("name", ["calm", "lively", "angry"])
def test_the_synthetic_examples_are_answered(recognizer, name):
    assert recognizer(ROOT / "examples" / f"synthetic_{name}_voice.flac").status == VOICE


def test_a_crowd_gets_advice_in_place_of_an_answer(recognizer, voices, tmp_path):
    crowd = np.concatenate(make_sounds(OUTLIERS["babble"], 4, voices, seed=11))
    answer = recognizer(crowd, RATE)
    assert answer.status == UNLIKE_TRAINING and answer.speech_s > 1 and answer.windows == ()
    assert "one person" in answer.message
    soundfile.write(tmp_path / "crowd.wav", crowd, RATE)
    output = io.StringIO()
    assert write_predictions(recognizer, [tmp_path / "crowd.wav"], output) == (0, 1)
    [row] = csv.DictReader(io.StringIO(output.getvalue()))
    assert row["label"] == "" and row["error"] == answer.message


def test_long_recordings_are_told_apart_too(recognizer, voices):
    crowd = np.concatenate(make_sounds(OUTLIERS["babble"], 4, voices, seed=11))
    speech = np.concatenate(voices[:4])
    assert recognizer(crowd, RATE).status == UNLIKE_TRAINING
    assert recognizer(speech, RATE).status == VOICE


def test_what_is_unlike_within_a_recording_is_a_gap(recognizer, voices):
    speech = np.concatenate([*voices[:8], *voices[:8]])[: 24 * RATE]
    crowd = np.concatenate(make_sounds(OUTLIERS["babble"], 4, voices, seed=11))
    answer = recognizer(np.concatenate([speech, crowd]), RATE)
    assert answer.status == VOICE and answer.speech[-1][1] > 33  # the crowd is heard, and not judged
    assert all(window.end_s < 24 + WINDOW_S for window in answer.windows)
    assert sum(answer.scores.values()) == pytest.approx(1)


def test_without_a_threshold_every_voice_is_answered_as_before(recognizer, voices):
    """A model from before this score, or loaded without it."""
    old = SERForAudioClassification.from_pretrained(CHECKPOINT, likeness_threshold=None)
    assert old.likeness_weight is None and "likeness_weight" not in old.state_dict()
    forgetful = EmotionRecognizer(old, recognizer.extractor)
    assert forgetful(make_sounds(OUTLIERS["babble"], 1, voices, seed=11)[0], RATE).status == VOICE
    np.testing.assert_allclose(forgetful.scores(voices[:2]), recognizer.scores(voices[:2]), atol=1e-6)


@torch.no_grad()
def test_a_score_is_saved_with_the_model(tmp_path):
    torch.manual_seed(0)
    labels = {0: "calm", 1: "angry"}
    model = SERForAudioClassification(SERConfig(id2label=labels, backbone_options={"widths": [8, 8, 8, 8]})).eval()
    features = torch.randn(3, 60, 80)
    assert model(features).likeness is None and len(model(features, return_dict=False)) == 1
    weight = torch.randn(model.ser.pooling.output_size)
    model.set_likeness(weight, 1.5)
    model.save_pretrained(tmp_path)
    reloaded = SERForAudioClassification.from_pretrained(tmp_path)
    assert reloaded.config.likeness_threshold == 1.5
    torch.testing.assert_close(reloaded(features).likeness, model.ser(features).pooler_output @ weight)
    torch.testing.assert_close(reloaded(features).logits, model(features).logits)


@pytest.mark.parametrize("threshold", ["high", float("nan")])
def test_a_threshold_that_is_no_number_is_refused(threshold):
    with pytest.raises(ValueError, match="likeness_threshold is .*; it must be a finite number or None"):
        SERConfig(likeness_threshold=threshold)


def test_weights_tell_two_clouds_apart_whatever_their_scale():
    rng = np.random.default_rng(0)
    scale = np.array([1e3, 1, 1e-3, 0])  # the last unit never fires
    voices, outliers = (rng.normal(mean, 1, size=(200, 4)) * scale for mean in (1, -1))
    weight = fit_weight(voices, outliers)
    assert weight.dtype == np.float32 and np.isfinite(weight).all()
    assert (voices @ weight).mean() > (outliers @ weight).mean()
    assert np.mean((voices @ weight) > np.median(np.concatenate([voices, outliers]) @ weight)) > 0.9


def test_training_leaves_a_score_that_the_command_finds_again(run, synthetic_corpora, capsys):
    def learnt():
        threshold = json.loads((run / "config.json").read_text())["likeness_threshold"]
        return threshold, load_file(run / "model.safetensors")

    threshold, weights = learnt()
    model = SERForAudioClassification.from_pretrained(run)
    assert model.likeness_weight.abs().sum() > 0 and model.config.calibration_temperature != 1
    metrics = json.loads((run / "metrics.json").read_text())
    (run / "metrics.json").write_text(json.dumps(metrics | {"training_voices_refused": None}))
    assert main(["likeness", str(run), "--data-dir", str(synthetic_corpora)]) == 0
    refused = metrics.pop("training_voices_refused")
    assert json.loads((run / "metrics.json").read_text()) == metrics | {
        "training_voices_refused": pytest.approx(refused, abs=0.01)
    }
    assert not (run / "unfinished").exists()
    again, same_weights = learnt()
    assert again == pytest.approx(threshold, abs=1e-3) and f"{again:.3f}" in capsys.readouterr().out
    for name in weights.keys() - {"likeness_weight"}:
        assert torch.equal(weights[name], same_weights[name])
    split = json.loads((run / "split.json").read_text())
    other = continued(split | {"validation": split["validation"][1:]}, None, None)
    (run / "split.json").write_text(json.dumps(other))
    with pytest.raises(SystemExit, match="does not give the split"):
        main(["likeness", str(run), "--data-dir", str(synthetic_corpora)])
    (run / "split.json").write_text("{")
    with pytest.raises(SystemExit, match="^likeness: .*split.json cannot be read as a split manifest"):
        main(["likeness", str(run), "--data-dir", str(run / "absent")])  # said before the clips are read


def test_a_run_that_breaks_while_it_learns_the_score_makes_it_up_when_resumed(synthetic_corpora, tmp_path, monkeypatch):
    def broken(*_):
        raise RuntimeError("the power is gone")

    with monkeypatch.context() as patch:
        patch.setattr("train.fit_likeness", broken)
        with pytest.raises(RuntimeError, match="power"):
            small_run(synthetic_corpora, tmp_path)
    assert SERForAudioClassification.from_pretrained(tmp_path).likeness_weight is None  # and yet the model is there
    small_run(synthetic_corpora, tmp_path, "--resume")
    assert SERForAudioClassification.from_pretrained(tmp_path).likeness_weight.any()


@pytest.fixture(scope="module")
def run(synthetic_corpora, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "out"
    small_run(synthetic_corpora, folder)
    return folder


def small_run(data_dir: Path, folder: Path, *more: str) -> None:
    options = ("--training.epochs=1", "--training.outlier_sounds=4", "--data.num_proc=1")
    train(tiny_run(data_dir, folder, *options, *more))
