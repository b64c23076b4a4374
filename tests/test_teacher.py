"""A teacher: which clips it learns from, what it says of the others, and what a run makes of that."""

import sys

import numpy as np
import pytest
import soundfile
import torch
from accelerate import Accelerator
from conftest import write_ravdess
from training_runs import tiny_run

from ser_model import teacher
from ser_model.data import load_data
from ser_model.settings import Settings, TrainingSettings
from ser_model.teacher import TeacherError, probabilities, soft_labels
from train import main, make_targets

TAUGHT = "--training.teacher_weight=0.5"


@pytest.fixture
def installed(encoder, monkeypatch):
    """As if the stand-in were what the package carries."""
    for module in ("ser_model.teacher", "train"):
        monkeypatch.setattr(f"{module}.packaged_encoder", lambda: encoder)


def data_of(folder, **split):
    settings = {"name": "ears", "data": {"corpora": [{"name": "ravdess"}], "num_proc": 1}, "split": split}
    return load_data(Settings.model_validate(settings), folder, 16_000)


@pytest.fixture(scope="module")
def four_actors(tmp_path_factory):
    folder = tmp_path_factory.mktemp("actors")
    write_ravdess(folder, actors=4, takes=1, rng=np.random.default_rng(0))
    return folder


def test_every_state_of_the_encoder_is_heard(encoder, tmp_path):
    sound = tmp_path / "noise.wav"
    soundfile.write(sound, np.random.default_rng(0).normal(0, 0.1, 16_000), 16_000)
    embed = teacher.encoder(encoder)
    heard = embed(str(sound))
    normed, frames = heard[:16].reshape(2, 8), heard[16:].reshape(2, 8)  # what comes out, and what the norm heard
    assert (frames > 0).all()  # levels, and how they vary
    assert abs(normed[0].mean()) < 1e-5 and normed[0].min() < 0  # of which no mean is left
    sound.unlink()
    assert embed(str(sound)) is heard  # a file is heard once


def test_the_encoder_hears_the_shortest_and_the_longest_clips(encoder, tmp_path, monkeypatch):
    monkeypatch.setattr(teacher, "LONGEST", 8_000)
    rng = np.random.default_rng(0)
    for samples in (100, 20_000):  # less than a frame of it; three pieces
        soundfile.write(tmp_path / f"{samples}.wav", rng.normal(0, 0.1, samples), 16_000)
        assert np.isfinite(teacher.encoder(encoder)(str(tmp_path / f"{samples}.wav"))).all()


def test_nobody_is_taught_by_a_probe_that_heard_the_same_voice():
    units = np.repeat(["ann", "ben", "eve", "joe"], 10)
    labels = np.repeat([0, 0, 1, 1], 10)
    voices = np.eye(4)[np.repeat(range(4), 10)]  # states that tell who speaks, and nothing else
    told = probabilities(voices, labels, units, 2)[np.arange(40), labels]
    assert told.max() < 0.5  # having heard them it would be sure; the others' labels mislead it
    assert probabilities(voices, labels, [str(clip) for clip in range(40)], 2)[np.arange(40), labels].min() > 0.5


def test_labels_that_others_lack_get_nothing():
    units = ["ann"] * 4 + ["ben"] * 4
    labels = np.array([0, 1, 0, 1, 0, 1, 2, 2])
    shares = probabilities(np.random.default_rng(0).normal(size=(8, 3)), labels, units, 4)
    np.testing.assert_allclose(shares.sum(axis=1), 1)
    assert (shares[4:, 2:] == 0).all() and (shares[:4, 2] > 0).all() and (shares[:, 3] == 0).all()


def test_one_voice_cannot_teach_itself():
    with pytest.raises(TeacherError, match="without ann, .* 0 label.s. to learn from; add other speakers, or set"):
        probabilities(np.zeros((4, 2)), np.array([0, 1, 0, 1]), ["ann"] * 4, 2)


def test_voices_that_leave_one_label_when_they_are_held_out_together_are_named():
    units, labels = [f"voice {number}" for number in range(1, 8)], np.array([1, 0, 0, 0, 0, 0, 1])
    with pytest.raises(TeacherError, match="without voice 1, voice 7, .* 1 label.s. to learn from"):  # two share a fold
        probabilities(np.eye(7), labels, units, 2)


@pytest.mark.parametrize(
    "split",
    [
        {"kind": "speakers", "test": ["ravdess-01"], "validation": ["ravdess-02"]},
        {"kind": "random", "test": 0.25, "validation": 0.25},
    ],
)
def test_what_is_taught_is_of_training_clips_alone(four_actors, installed, split):
    data = data_of(four_actors, **split)
    taught = soft_labels(data)
    assert taught.shape == (32, 8)
    train = list(data.split.train)
    np.testing.assert_allclose(taught[train].sum(axis=1), 1, rtol=1e-5)
    assert taught.sum() == pytest.approx(len(train), rel=1e-5)
    targets = make_targets(data, TrainingSettings(teacher_weight=0.25), Accelerator(cpu=True))
    labels = torch.eye(8)[torch.tensor(data.dataset["label"])]
    torch.testing.assert_close(targets[train], 0.75 * labels[train] + 0.25 * torch.from_numpy(taught)[train])
    assert torch.equal(make_targets(data, TrainingSettings(), Accelerator(cpu=True)), labels)


def test_a_run_with_a_teacher_says_so(synthetic_corpora, tmp_path, installed, capsys):
    main(tiny_run(synthetic_corpora, tmp_path / "run", TAUGHT, "--training.mixed_precision=no"))
    assert "a teacher hears 101 clips" in capsys.readouterr().out
    card = (tmp_path / "run" / "README.md").read_text()
    assert "50% of each label what a probe on a pretrained encoder said of the clip" in card


def test_without_the_encoder_a_run_says_what_to_install(synthetic_corpora, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "moonshine_voice", None)  # as where it is not installed
    with pytest.raises(SystemExit, match="^train.py: .*: pip install --no-deps moonshine-voice==0.0.48"):
        main(tiny_run(synthetic_corpora, tmp_path / "run", TAUGHT))
