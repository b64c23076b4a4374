"""The parts of train.py that a whole run would show only slowly."""

from functools import partial
from types import SimpleNamespace
from unittest.mock import MagicMock

import numpy as np
import pytest
import torch
from torch.optim.swa_utils import AveragedModel

from ser_model import SERConfig, SERForAudioClassification
from ser_model.disk import whole_files
from ser_model.optimization import (
    EvenCrossEntropy,
    make_criterion,
    make_optimizer,
    make_schedule,
    moving_average,
)
from ser_model.settings import Settings, TrainingSettings
from train import report


def rates(steps=40, key="lr", **settings) -> list:
    """The learning rate of each step, or what else `key` names; a plateau is told that nothing gets better."""
    training = TrainingSettings(epochs=10, learning_rate=1.0, **settings)
    optimizer = make_optimizer(torch.nn.Linear(2, 2), training)
    scheduler = make_schedule(optimizer, training, steps)
    seen = []
    for step in range(steps):
        seen.append(optimizer.param_groups[0][key])
        optimizer.step()
        if training.schedule != "plateau":
            scheduler.step()
        elif step % 4 == 3:
            scheduler.step(0.5)
    return seen


def test_one_cycle_rises_to_the_rate_asked_for_and_falls_to_nothing():
    seen = rates(schedule="one_cycle")
    assert max(seen) == pytest.approx(1.0) and seen[0] < 0.1 and seen[-1] < 0.01
    assert 8 < seen.index(max(seen)) < 16


@pytest.mark.parametrize(("steps", "warmup"), [(2, 0.5), (3, 1 / 3), (10, 0.1)])
def test_one_cycle_takes_a_warm_up_of_a_single_step(steps, warmup):
    seen = rates(steps, schedule="one_cycle", warmup=warmup)
    assert seen[0] < 0.1 and seen[-1] < 0.01


def test_one_cycle_leaves_the_momentum_of_sgd_as_it_is_set_and_swings_that_of_adamw():
    assert set(rates(key="momentum", optimizer="sgd", momentum=0.5)) == {0.5}
    beta1, beta2 = zip(*rates(key="betas", optimizer="adamw"), strict=True)
    assert max(beta1) == pytest.approx(0.95) and min(beta1) == pytest.approx(0.85, abs=1e-3) and set(beta2) == {0.999}


def test_cosine_falls_from_the_rate_asked_for_to_nothing():
    seen = rates(schedule="cosine")
    assert seen[0] == 1.0 and seen == sorted(seen, reverse=True) and seen[-1] < 0.01
    assert seen[20] == pytest.approx(0.5)


def test_cosine_restarts_after_as_many_epochs_as_asked_for():
    seen = rates(schedule="cosine_restarts", restart_epochs=5)
    assert [step for step, rate in enumerate(seen) if rate == 1.0] == [0, 20]


def test_plateau_halves_the_rate_when_nothing_gets_better():
    seen = rates(schedule="plateau", plateau_epochs=2)
    assert sorted(set(seen), reverse=True) == [1.0, 0.5, 0.25]  # after epochs 4 and 7 of 10


def test_constant_stays():
    assert set(rates(schedule="constant")) == {1.0}


def test_with_class_weights_the_likeliest_answer_stays_a_clips_own_label():
    """90 clips of one label, 10 of another, none of the third; each is answered as its loss would have it best."""
    criterion = EvenCrossEntropy(torch.tensor([90, 10, 0]), label_smoothing=0.1)
    for target in torch.eye(3)[:2]:
        smoothed = 0.9 * target + 0.1 / 3
        logits = smoothed.log().repeat(4, 1).requires_grad_()
        criterion(logits, target.repeat(4, 1)).backward()
        torch.testing.assert_close(logits.grad, torch.zeros(4, 3), atol=1e-6, rtol=0)


def test_with_class_weights_every_label_counts_alike_and_a_blend_for_both():
    criterion = EvenCrossEntropy(torch.tensor([90, 10, 0]), label_smoothing=0.1)
    plain = torch.nn.CrossEntropyLoss(label_smoothing=0.1)
    logits, targets = torch.randn(100, 3, generator=torch.Generator().manual_seed(0)), torch.eye(3)
    labels = torch.tensor([0] * 90 + [1] * 10)
    of_each = [plain(logits[labels == label], labels[labels == label]) for label in (0, 1)]
    torch.testing.assert_close(criterion(logits, targets[labels]), sum(of_each) / 2)
    blend = 0.3 * targets[0] + 0.7 * targets[1]
    weight = 0.3 * 50 / 90 + 0.7 * 50 / 10
    torch.testing.assert_close(criterion(logits[:1], blend[None]), weight * plain(logits[:1], blend[None]))
    assert criterion(logits[:1], targets[2:]) == 0


def test_with_class_weights_a_corpus_heard_in_part_counts_as_its_share():
    """Of 80 clips an epoch has a tenth, so that label is the rarer one beside 20 clips."""
    labels = [0] * 80 + [1] * 20
    data = SimpleNamespace(
        rows=lambda part: {"label": labels},
        split=SimpleNamespace(train=range(100)),
        scheme=SimpleNamespace(names=["a", "b"]),
        in_turn=lambda shares: [(np.arange(80), 8)],
    )
    criterion = make_criterion(data, TrainingSettings(class_weights=True, corpus_shares={"large": 0.1}))
    assert criterion.weight_of.tolist() == pytest.approx([14 / 8, 14 / 20])


def test_the_average_of_a_short_run_leaves_its_start_behind_and_that_of_a_long_one_keeps_its_decay():
    model = torch.nn.Linear(1, 1)
    average = AveragedModel(model, multi_avg_fn=partial(moving_average, 0.99))

    def step_to(value: float) -> float:
        torch.nn.init.constant_(model.weight, value)
        average.update_parameters(model)
        return average.module.weight.item()

    assert step_to(0.0) == 0.0
    after = [step_to(1.0) for _ in range(30)]
    assert after[-1] > 0.99  # with 0.99 from the start it would be 0.26
    for _ in range(1000):
        step_to(1.0)
    assert step_to(2.0) == pytest.approx(1.01, abs=1e-3)


@pytest.mark.parametrize(("name", "kind"), [("adamw", torch.optim.AdamW), ("sgd", torch.optim.SGD)])
def test_norms_and_biases_are_not_decayed_and_frozen_weights_are_left_out(name, kind):
    model = torch.nn.Sequential(torch.nn.Conv1d(1, 2, 3), torch.nn.BatchNorm1d(2), torch.nn.Linear(2, 2))
    model[2].requires_grad_(False)
    optimizer = make_optimizer(model, TrainingSettings(optimizer=name, weight_decay=0.1))
    assert isinstance(optimizer, kind)
    decayed, spared = optimizer.param_groups
    assert [weight.shape for weight in decayed["params"]] == [model[0].weight.shape] and decayed["weight_decay"] == 0.1
    assert len(spared["params"]) == 3 and spared["weight_decay"] == 0.0


@pytest.mark.parametrize(
    ("backbone", "processes", "told"),
    [
        ("shallow_cnn", 1, None),
        ("shallow_cnn", 2, "batch norm spans several processes"),
        ("timm/mobilenetv3_small_050", 1, "images of many sizes"),
    ],
)
def test_a_run_tells_what_torch_compile_cannot_do_for_it(backbone, processes, told):
    accelerator = MagicMock(num_processes=processes)
    settings = Settings.model_validate({"name": "t", "data": {"corpora": [{}]}, "training": {"compile": True}})
    report(accelerator, settings, MagicMock(), SERForAudioClassification(SERConfig(backbone=backbone)), {})
    said = "\n".join(str(call.args[0]) for call in accelerator.print.call_args_list)
    assert told in said if told else "training.compile" not in said


def test_weights_are_as_open_to_others_as_what_lies_beside_them(tmp_path):
    (tmp_path / "README.md").touch()
    with whole_files(tmp_path) as folder:
        (folder / "model.safetensors").touch(mode=0o600)  # as safetensors writes it
    assert (tmp_path / "model.safetensors").stat().st_mode == (tmp_path / "README.md").stat().st_mode
