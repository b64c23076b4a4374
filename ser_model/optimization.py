"""What moves the weights: optimizer, learning rates, their schedule, the loss, and the average that is kept."""

import math

import torch
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from .data import EmotionData
from .modeling_ser import SERForAudioClassification
from .settings import TrainingSettings


def make_optimizer(model: torch.nn.Module, training: TrainingSettings) -> torch.optim.Optimizer:
    """Weight decay for matrices and kernels, none for norms and biases; what is frozen is left out.

    With `layer_decay` there are two such groups for each stage, from the head to the input.
    """
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    rates = layer_rates(model, training.layer_decay) if training.layer_decay < 1 else dict.fromkeys(weights, 1.0)
    groups = [
        {"params": chosen, "lr": training.learning_rate * rate, "weight_decay": decay}
        for rate in sorted(set(rates.values()), reverse=True)
        for decay, wide in ((training.weight_decay, True), (0.0, False))
        if (chosen := [weight for weight in weights if rates[weight] == rate and (weight.dim() > 1) == wide])
    ]
    if training.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=training.learning_rate, momentum=training.momentum)
    return torch.optim.AdamW(groups, lr=training.learning_rate)


def layer_rates(model: SERForAudioClassification, decay: float) -> dict[nn.Parameter, float]:
    """What each weight's learning rate is multiplied by: 1 in pooling and head, `decay` to the power of the stages from
    there to the weight everywhere else.

    A weight belongs to the first of `hidden_states` that depends on it, so every backbone's own stages count.
    """
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    training = model.training
    model.eval()  # leaves the norms' statistics alone
    with torch.backends.cudnn.flags(enabled=False):  # whose recurrent layers give gradients in training alone
        hidden_states = model(**model.dummy_inputs, output_hidden_states=True).hidden_states
    model.train(training)
    stages, placed = [], set()
    for output in hidden_states:
        if not output.requires_grad:  # frozen, up to here
            continue
        gradients = torch.autograd.grad(output.sum(), weights, retain_graph=True, allow_unused=True)
        below = {weight for weight, gradient in zip(weights, gradients, strict=True) if gradient is not None}
        if stage := below - placed:
            stages.append(stage)
            placed |= stage
    rates = dict.fromkeys(weights, 1.0)
    for height, stage in enumerate(reversed(stages), start=1):
        rates |= dict.fromkeys(stage, decay**height)
    return rates


def moving_average(decay: float, averaged: list, weights: list, steps: int | torch.Tensor) -> None:
    """Moves the averages towards the weights after `steps` steps.

    The first steps count for less, or what a short run saves would be half of what it started from: the decay grows to
    `decay` as TensorFlow's ExponentialMovingAverage has it.
    """
    grown = (1 + int(steps)) / (10 + int(steps))
    get_ema_multi_avg_fn(min(decay, grown))(averaged, weights, steps)


def make_schedule(optimizer: torch.optim.Optimizer, training: TrainingSettings, steps: int):
    """Moved on after each step of the optimizer, "plateau" after each epoch by its validation UAR."""
    schedules = torch.optim.lr_scheduler
    if training.schedule == "one_cycle":
        rates = [group["lr"] for group in optimizer.param_groups]
        cycled = training.optimizer == "adamw"  # its beta1, on which published figures rest; SGD keeps what is set
        # A warm-up of exactly one step torch divides by its length, which it counts as none.
        warmup = training.warmup if training.warmup * steps != 1 else 1.001 * training.warmup
        return schedules.OneCycleLR(optimizer, rates, total_steps=steps, pct_start=warmup, cycle_momentum=cycled)
    if training.schedule == "cosine":
        return schedules.CosineAnnealingLR(optimizer, steps)
    if training.schedule == "cosine_restarts":
        period = math.ceil(steps / training.epochs * training.restart_epochs)
        return schedules.CosineAnnealingWarmRestarts(optimizer, period)
    if training.schedule == "plateau":
        return schedules.ReduceLROnPlateau(optimizer, mode="max", factor=0.5, patience=training.plateau_epochs)
    return schedules.ConstantLR(optimizer, factor=1.0)


class EvenCrossEntropy(torch.nn.CrossEntropyLoss):
    """Every label counts alike, however many clips it has: a clip as much as its label, a blend as much as its two.

    Clips are weighted as a whole. torch's own weights multiply the smoothed share of each label, so that the likeliest
    answer to any clip would be the rarest label.

    Args:
        counts: clips of each label in an epoch (num_labels,); one that does not occur counts for nothing.
        label_smoothing: as torch has it.
    """

    def __init__(self, counts: torch.Tensor, label_smoothing: float):
        super().__init__(reduction="none", label_smoothing=label_smoothing)
        occurring = counts > 0
        even = counts.sum() / occurring.sum()  # clips of each label, had they as many; the mean weight of a clip is 1
        self.register_buffer("weight_of", torch.where(occurring, even / counts.where(occurring, 1), 0.0))

    def forward(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Logits and targets (B, num_labels) -> ()."""
        return (targets @ self.weight_of * super().forward(logits, targets)).mean()


def make_criterion(data: EmotionData, training: TrainingSettings) -> torch.nn.CrossEntropyLoss:
    if not training.class_weights:
        return torch.nn.CrossEntropyLoss(label_smoothing=training.label_smoothing)
    heard = torch.ones(len(data.split.train))  # how often an epoch has each clip
    for clips, count in data.in_turn(training.corpus_shares):
        heard[torch.from_numpy(clips)] = count / len(clips)
    counts = torch.tensor(data.rows("train")["label"]).bincount(heard, minlength=len(data.scheme.names))
    return EvenCrossEntropy(counts.float(), training.label_smoothing)
