"""Two processes, two that share out the weights, and one with twice the batch: the same clips, the same figures."""

import json
from collections import Counter
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from training_runs import Run, outcome, tiny_run

from ser_model import SERConfig, SERForAudioClassification
from ser_model.distributed import SharedBatchNorm, synchronize_batch_norms

NO_DRAWS = ["--augmentation.mixup.probability=0", "--model.dropout=0"]  # which each process makes for itself
# Features are float32 and differ in their last bits with the batch they stand in; AdamW would make steps of those.
STEADY = ["--training.optimizer=sgd", "--training.learning_rate=0.01", "--training.clip_norm=1000"]


def in_double_and_counted(folder: Path, rank: int) -> None:
    """Weights in double precision, where an order of summation is not mistaken for a fault; clips noted by epoch."""
    import train

    def in_double(*arguments, honest=train.make_model):
        return honest(*arguments).double()

    def counted(model, batch, extractor, distort, *others, honest=train.batch_loss):
        with open(folder / f"clips-{rank}", "a") as file:
            json.dump(batch["indices"].tolist(), file)
            file.write("\n")
        return honest(model, batch, extractor, distort, *others)

    train.make_model, train.batch_loss = in_double, counted


@pytest.fixture(scope="module")
def places(synthetic_corpora, tmp_path_factory):
    """Where a run on so many processes goes and its arguments: no batch fits 101 clips, and labels are weighted."""

    def make(processes: int) -> tuple[Path, list[str]]:
        folder = tmp_path_factory.mktemp(f"on{processes}")
        arguments = tiny_run(synthetic_corpora, folder / "out", *NO_DRAWS, *STEADY)
        return folder, [*arguments, "--training.class_weights=true", f"--training.batch_size={16 // processes}"]

    return make


@pytest.fixture(scope="module")
def runs(places) -> dict[int, Path]:
    """Of the default network with its batch norms."""
    folders = {}
    for processes in (1, 2):
        folder, arguments = places(processes)
        run = Run(arguments, folder / "log", processes, partial(in_double_and_counted, folder))
        assert set(run.wait()) == {0}, run.said()
        folders[processes] = folder
    return folders


def test_two_processes_give_the_figures_and_weights_of_one(runs):
    assert_alike(*runs.values())


def test_a_sharded_model_ends_as_one_that_is_not(runs, places):
    folder, arguments = places(2)
    run = Run(arguments, folder / "log", 2, partial(in_double_and_counted, folder), sharded=True)
    assert set(run.wait()) == {0}, run.said()
    assert "sharded over 2 processes" in run.said()
    assert_alike(runs[2], folder)


def assert_alike(*folders: Path) -> None:
    (_, figures), (_, same_figures) = (outcome(folder / "out") for folder in folders)
    before, after = flat(figures), flat(same_figures)
    assert before.keys() == after.keys()
    assert all(after[name] == pytest.approx(value, abs=2e-4) for name, value in before.items())
    one, two = (load_file(folder / "out" / "model.safetensors") for folder in folders)
    slack = {"likeness_weight": 1e-4}  # of values up to 4: a solver stops where it is near enough
    assert all(two[name].allclose(one[name], rtol=1e-4, atol=slack.get(name, 1e-6)) for name in one)


def flat(value, name: str = "") -> dict[str, float]:
    """The numbers of nested figures by their place."""
    if isinstance(value, dict | list):
        pairs = value.items() if isinstance(value, dict) else enumerate(value)
        return {place: number for key, inner in pairs for place, number in flat(inner, f"{name}/{key}").items()}
    return {name: value}


def test_every_process_counts_each_clip_once_an_epoch(runs):
    for processes, folder in runs.items():
        batches = [[json.loads(line) for line in (folder / f"clips-{rank}").open()] for rank in range(processes)]
        assert len({len(own) for own in batches}) == 1
        steps = len(batches[0]) // 3
        for epoch in range(3):
            drawn = Counter(
                clip for own in batches for batch in own[epoch * steps : (epoch + 1) * steps] for clip in batch
            )
            assert len(drawn) == 101 and set(drawn.values()) == {1}


@pytest.mark.parametrize(("device", "kind"), [("cpu", SharedBatchNorm), ("cuda", torch.nn.SyncBatchNorm)])
def test_shared_norms_keep_names_weights_and_answers(device, kind):
    model = SERForAudioClassification(SERConfig(backbone="cnn")).eval()
    clip = torch.randn(2, 30, model.config.num_features)
    names, logits = list(model.state_dict()), model(clip).logits
    synchronize_batch_norms(model, torch.device(device))
    assert list(model.state_dict()) == names and torch.equal(model(clip).logits, logits)
    norms = [module for module in model.modules() if isinstance(module, torch.nn.modules.batchnorm._BatchNorm)]
    assert norms and all(type(norm) is kind for norm in norms)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_norms_of_timm_stay_alone_for_each_process_calls_them_as_often_as_its_clips_need(device):
    backbone = SERForAudioClassification(SERConfig(backbone="timm/resnet10t")).ser.backbone
    before = [type(module) for module in backbone.modules()]
    synchronize_batch_norms(torch.nn.Sequential(backbone, torch.nn.BatchNorm1d(2)), torch.device(device))
    assert torch.nn.BatchNorm2d in before and [type(module) for module in backbone.modules()] == before
