"""The checkpoints that lie in the repository: whole, small, and as good as they say."""

import json
import shutil
from pathlib import Path

import pytest

from results.cards import PROTOCOLS, answers_of, refresh
from ser_model.crossvalidation import cross_calibrated
from ser_model.inference import EmotionRecognizer
from ser_model.labels import EMOTIONS
from ser_model.metrics import fit_temperature

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module", params=PROTOCOLS)
def folder(request):
    return ROOT / "checkpoints" / request.param


@pytest.fixture(scope="module")
def metrics(folder):
    return json.loads((folder / "metrics.json").read_text())


def test_there_are_no_others():
    assert {path.name for path in (ROOT / "checkpoints").iterdir() if path.is_dir()} == set(PROTOCOLS)


def test_it_is_small_and_holds_no_pickle(folder):
    assert sum(file.stat().st_size for file in folder.iterdir()) < 5e6
    assert {file.suffix for file in folder.iterdir()} <= {
        "",
        ".json",
        ".md",
        ".png",
        ".py",
        ".safetensors",
        ".yaml",
    }  # "": LICENSE


def test_its_code_is_that_of_the_package(folder):
    for file in folder.glob("*.py"):
        assert file.read_text() == (ROOT / "ser_model" / file.name).read_text(), (
            f"{file.name} has changed since the checkpoint was saved; run: make checkpoint-code"
        )


def test_its_config_names_the_clips_that_it_heard(folder, metrics):
    split = json.loads((folder / "split.json").read_text())
    assert json.loads((folder / "config.json").read_text())["training_split"] == split["hash"] == metrics["split_hash"]
    assert split["kind"] == "all" and not split["test"]


def test_its_card_gives_the_figures_of_the_scoreboard(folder, metrics):
    protocol, model, _ = PROTOCOLS[folder.name]
    own = cross_calibrated(
        answers_of(metrics, ROOT / "results" / "predictions" / f"{protocol}.{model}.csv.gz")
    ).figures()
    card = (folder / "README.md").read_text()
    for figure in ("uar", "accuracy", "ece"):
        assert metrics["test"][figure] == own[figure]
        assert f"{own[figure]:.3f}" in card
    whole = "all" if len(own["by_corpus"]) > 1 else "ravdess"
    assert metrics["speaker_disjoint"] and f"| {whole}, unseen speakers, cross-validated |" in card
    assert "| ravdess, random split, speakers shared with training" in card
    assert "Acted North American voices are not everyone's" in card
    assert "CC-BY-NC-SA-4.0" in card and "Apache-2.0" in card


def test_it_is_calibrated_by_the_answers_on_unseen_voices(folder, metrics):
    protocol, model, _ = PROTOCOLS[folder.name]
    answers = answers_of(metrics, ROOT / "results" / "predictions" / f"{protocol}.{model}.csv.gz")
    temperature = json.loads((folder / "config.json").read_text())["calibration_temperature"]
    assert temperature == pytest.approx(fit_temperature(answers.logits(), answers.labels), abs=1e-3)
    assert metrics["temperature"] == pytest.approx(temperature, abs=1e-4)


def test_its_card_is_made_again_alike(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / folder.name)
    refresh(copy, *PROTOCOLS[folder.name])
    for name in ("metrics.json", "README.md"):
        assert (copy / name).read_text() == (folder / name).read_text()


def test_it_knows_what_it_learnt(folder, data_dir):
    """The 60 clips of actor 01, which trained it: few are mistaken."""
    files = sorted((data_dir / "RAVDESS" / "Audio_Speech_Actors_01-24" / "Actor_01").iterdir())
    recognizer = EmotionRecognizer.from_pretrained(folder)
    scores = recognizer.scores([recognizer.load(file) for file in files])
    truth = [EMOTIONS[int(file.name.split("-")[2]) - 1] for file in files]
    truth = [label if label in recognizer.labels else label.replace("calm", "neutral") for label in truth]
    right = [label in recognizer.labels[row.argmax()] for row, label in zip(scores, truth, strict=True)]
    assert sum(right) / len(right) > 0.75
