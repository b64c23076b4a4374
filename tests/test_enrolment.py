"""A personal baseline: two neutral clips of a speaker, and what they change."""

import json

import numpy as np
import pytest
import soundfile
import torch
import yaml
from conftest import write_ravdess
from datasets import Dataset

import train
from results import collect, scoreboard
from results.enrolment import Voices
from results.protocols import predictions_file
from ser_model import SERConfig, SERForAudioClassification
from ser_model.predictions import Predictions

NAMES = ["neutral", "happy", "sad"]
CONFIG = {
    "data": {"corpora": [{"name": "ravdess"}], "num_proc": 1},
    "labels": 8,
    "split": {"kind": "speakers", "test": ["ravdess-01", "ravdess-02"], "validation": ["ravdess-03"]},
    "model": {"backbone_options": {"widths": [8, 8, 8, 8], "hidden_size": 16}},
    "training": {"epochs": 1, "batch_size": 8, "trackers": [], "outlier_sounds": 0},
}
PROTOCOL = {
    "title": "two voices",
    "cv": None,
    "seeds": [0],
    "measures": ["uar"],
    "conditions": False,
    "enrolled": True,
}


@pytest.fixture(scope="module")
def model() -> SERForAudioClassification:
    torch.manual_seed(0)
    options = {"widths": [8, 8, 8, 8], "hidden_size": 8}
    return SERForAudioClassification(SERConfig(id2label=dict(enumerate(NAMES)), backbone_options=options)).eval()


@pytest.fixture
def voices(model) -> Voices:
    """Speaker a with four neutral clips and two happy ones, b with one neutral clip and one sad one."""
    labels = np.array([0, 1, 0, 0, 1, 0, 0, 2])
    rows = Dataset.from_dict({"path": list("hgfedcba"), "speaker": list("aaaaaabb")})
    size = model.classifier.in_features
    return Voices(rows, np.random.default_rng(0).normal(size=(8, size)).astype(np.float32), labels)


def test_every_other_neutral_clip_is_enrolled_of_whom_enough_are_left(voices):
    assert voices.enrolled(neutral=0) == {"a": [5, 2]}  # c and f of c, e, f, h


def test_who_is_enrolled_is_judged_but_for_those_clips(model, voices):
    shares, kept = voices.judged(model, 0, np.zeros(voices.embeddings.shape[1]), share=0)
    assert kept.tolist() == [0, 1, 3, 4]
    with torch.inference_mode():
        plain = model.classifier(torch.from_numpy(voices.embeddings)).softmax(dim=-1).numpy()
    np.testing.assert_allclose(shares, plain, atol=1e-6)


def test_a_voice_that_is_another_throughout_is_answered_as_the_usual_one(model, voices):
    usual = voices.embeddings[voices.enrolled(0)["a"]].mean(axis=0)
    plain, _ = voices.judged(model, 0, usual, share=1)
    voices.embeddings[:6] += 3.0
    shares, kept = voices.judged(model, 0, usual, share=1)
    np.testing.assert_allclose(shares[kept], plain[kept], atol=1e-5)
    assert np.abs(voices.judged(model, 0, usual, share=0)[0][kept] - plain[kept]).max() > 1e-3


def test_a_finished_run_is_heard_again_and_tabled_with_and_without(tmp_path, capsys):
    write_ravdess(tmp_path / "data", actors=5, takes=4, rng=np.random.default_rng(0))
    short = tmp_path / "data" / "RAVDESS" / "Actor_04" / "03-01-01-01-01-01-04.wav"
    soundfile.write(short, np.random.default_rng(0).normal(0, 0.1, 320), 16_000)  # less than a frame: nobody hears it
    results, run_dir, config = tmp_path / "results", tmp_path / "run", tmp_path / "tiny.yaml"
    results.mkdir()
    config.write_text(yaml.safe_dump(CONFIG))
    protocol = PROTOCOL | {"models": {"net": str(config)}}
    (results / "protocols.yaml").write_text(yaml.safe_dump({"p": protocol}))
    (results / "ablations.yaml").write_text("[]")
    (results / "runs.yaml").write_text("[]")
    places = [f"--data-dir={tmp_path / 'data'}", f"--output-dir={run_dir}"]
    train.main([f"--config={config}", *places])
    command = ["p", "net", str(run_dir), "--results", str(results)]
    collect.main(command)
    collect.main([*command, "--enrolled", "--data-dir", str(tmp_path / "data")])
    judged = Predictions.read(predictions_file(results, "p", "net", "enrolled"))
    assert len(judged.clips) == 2 * (32 - 2)
    split = json.loads((run_dir / "split.json").read_text())
    assert {clip["split_hash"] for clip in judged.clips} == {split["hash"]}
    enrolled = {f"03-01-01-01-{sentence:02}-01-{actor:02}.wav" for sentence in (1, 2) for actor in (1, 2)}
    assert not enrolled & {clip["path"].split("/")[-1] for clip in judged.clips}
    scoreboard.write_results(results, tmp_path / "docs")
    page = (tmp_path / "docs" / "results.md").read_text()
    assert "| **net, two neutral clips of each speaker known** |" in page
    assert "| **net, the same clips without these** |" in page
    with pytest.raises(SystemExit):
        collect.main([*command, "--enrolled"])
    assert "--enrolled hears the clips again; give --data-dir" in capsys.readouterr().err
