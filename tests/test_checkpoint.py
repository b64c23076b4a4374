"""The checkpoint that lies in the repository, on voices it never heard."""

import json
from pathlib import Path

import pytest

from ser_model.inference import EmotionRecognizer
from ser_model.labels import EMOTIONS

FOLDER = Path(__file__).resolve().parent.parent / "checkpoints" / "ser-cnn-8"
METRICS = json.loads((FOLDER / "metrics.json").read_text())


def test_it_is_small_and_holds_no_pickle():
    assert sum(file.stat().st_size for file in FOLDER.iterdir()) < 5e6
    assert {file.suffix for file in FOLDER.iterdir()} <= {".json", ".md", ".png", ".py", ".safetensors", ".yaml"}


def test_its_code_is_that_of_the_package():
    for file in FOLDER.glob("*.py"):
        assert file.read_text() == (FOLDER.parent.parent / "ser_model" / file.name).read_text(), (
            f"{file.name} has changed since the checkpoint was saved; run: make checkpoint-code"
        )


def test_its_config_names_the_split_that_its_figures_rest_on():
    split = json.loads((FOLDER / "split.json").read_text())
    assert json.loads((FOLDER / "config.json").read_text())["training_split"] == split["hash"] == METRICS["split_hash"]


def test_its_card_gives_the_figures_that_were_measured():
    card = (FOLDER / "README.md").read_text()
    for figure in ("uar", "accuracy", "ece"):
        assert f"{METRICS['test'][figure]:.3f}" in card
    assert "unseen speakers" in card and "random split" in card
    assert "CC-BY-NC-SA-4.0" in card and "Apache-2.0" in card


def test_it_does_on_an_unseen_actor_what_its_figures_say(data_dir):
    """All 60 clips of actor 01, whom training never heard: within three standard errors of the accuracy reported."""
    assert METRICS["speaker_disjoint"] is True
    files = sorted((data_dir / "RAVDESS" / "Audio_Speech_Actors_01-24" / "Actor_01").iterdir())
    recognizer = EmotionRecognizer.from_pretrained(FOLDER)
    scores = recognizer.scores([recognizer.load(file) for file in files])
    truth = [EMOTIONS[int(file.name.split("-")[2]) - 1] for file in files]
    right = [recognizer.labels[row.argmax()] == label for row, label in zip(scores, truth, strict=True)]
    reported = METRICS["test"]["by_corpus"]["ravdess"]["accuracy"]
    assert sum(right) / len(right) == pytest.approx(reported, abs=0.2)
