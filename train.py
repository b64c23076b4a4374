"""Train a speech emotion recogniser: settings -> data -> model -> loop -> a folder that `from_pretrained` loads.

accelerate launch train.py --config configs/ravdess_tess_cnn.yaml --data-dir DIR --output-dir OUT
"""

import argparse
import copy
import faulthandler
import json
import math
import os
import shlex
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator, PartialState, skip_first_batches
from accelerate.utils import set_seed
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader
from tqdm import tqdm

from ser_model import SERFeatureExtractor, SERForAudioClassification
from ser_model.augment import Augmenter, BatchAugmentation
from ser_model.checkpoints import (
    CHECKPOINT_FILE,
    Checkpoint,
    CheckpointError,
    Progress,
    identity_of,
    is_finished,
    whole_files,
)
from ser_model.corpora.base import CorpusError
from ser_model.data import DataError, EmotionData, EvenBatches, load_data, write_left_out
from ser_model.distributed import leave, share_buffers, synchronize_batch_norms
from ser_model.faults import Stopped, StopSignals, faults_in_words
from ser_model.hub import HubError, check_push, push_model
from ser_model.labels import LabelError
from ser_model.metrics import emotion_metrics, fit_temperature, metrics_by_group, softmax
from ser_model.reports import write_card
from ser_model.settings import Settings, SettingsError, TrainingSettings, load_settings, network_config, save_settings
from ser_model.splits import SplitError, manifest


class DivergedError(ValueError):
    """Training that came to nothing, and what to change."""


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", required=True, help="a YAML file of configs/")
    parser.add_argument("--data-dir", required=True, help="the folder that holds the corpora")
    parser.add_argument("--output-dir", required=True, help="where the model, its card and its figures go")
    parser.add_argument("--strict", action="store_true", help="stop if any file is damaged, and list them")
    again = parser.add_mutually_exclusive_group()
    again.add_argument("--resume", action="store_true", help="go on with the run that the output folder holds")
    again.add_argument("--overwrite", action="store_true", help="start anew where the output folder holds a run")
    arguments = sys.argv[1:] if arguments is None else arguments
    args, overrides = parser.parse_known_args(arguments)
    overrides += ["--data.strict", "true"] if args.strict else []
    try:
        settings = load_settings(args.config, overrides)
        with faults_in_words():
            train(settings, Path(args.data_dir), Path(args.output_dir), args.resume, args.overwrite)
    except (SettingsError, CorpusError, DataError, LabelError, SplitError, HubError) as error:
        sys.exit(f"train.py: {error}")
    except (CheckpointError, DivergedError) as error:
        sys.exit(f"train.py: {error}")
    except KeyboardInterrupt:  # before the first step, or after the last
        sys.exit(say_how_to_go_on(Stopped("stopped by SIGINT", 130), Path(args.output_dir), arguments))
    except Stopped as stopped:
        sys.exit(say_how_to_go_on(stopped, Path(args.output_dir), arguments))


def train(settings: Settings, data_dir: Path, output_dir: Path, resume: bool = False, overwrite: bool = False) -> None:
    training = settings.training
    accelerator = make_accelerator(training)
    if is_finished(output_dir, settings, resume, overwrite):
        accelerator.print(f"{output_dir} holds a finished run: nothing is left to do")
        return
    set_seed(settings.seed)
    if training.push_to_hub and accelerator.is_main_process:
        check_push(training.push_to_hub)

    extractor = SERFeatureExtractor(**settings.features)
    with accelerator.main_process_first():  # one process decodes, the others find the cache
        data = load_data(settings, data_dir, extractor.sampling_rate, progress=accelerator.is_main_process)
    split_manifest = manifest(data.split, data.utterances, data_dir)
    share = (accelerator.num_processes, training.accumulation_steps)
    batches = EvenBatches(len(data.split.train), training.batch_size, settings.seed, *share)
    loaders = make_loaders(data, batches, training.batch_size)
    extractor.fit((batch["waveforms"], batch["lengths"]) for batch in loaders["statistics"])
    model = make_model(settings, extractor, data.scheme.names, split_manifest["hash"])
    optimizer = make_optimizer(model, training)
    loader, validation, test = accelerator.prepare(*(loaders[part] for part in ("train", "validation", "test")))
    steps = training.epochs * len(loader) // training.accumulation_steps
    scheduler = make_schedule(optimizer, training, steps)
    if accelerator.num_processes > 1:
        synchronize_batch_norms(model, accelerator.device)
    if training.compile:
        model.compile(dynamic=False)  # in place, so that the weights keep their names
    model, optimizer = accelerator.prepare(model, optimizer)
    network = accelerator.unwrap_model(model)
    set_seed(settings.seed, device_specific=True)  # each process draws a dropout of its own
    ema = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(training.ema_decay), use_buffers=True)
    best_model = copy.deepcopy(ema.module)
    augmenter = Augmenter(settings.augmentation, extractor.sampling_rate, training.max_frames, settings.seed)
    criterion = make_criterion(data, training).to(accelerator.device)
    pad = partial(pad_alike, accelerator, training.max_frames if training.compile else None)
    report(accelerator, settings, data, ema.module)
    if accelerator.is_main_process:
        output_dir.mkdir(parents=True, exist_ok=True)
        write_left_out(data.problems, output_dir / "left_out.csv", data_dir)

    parts = {"model": network, "ema": ema, "best_model": best_model, "optimizer": optimizer, "scheduler": scheduler}
    parts |= {"scaler": accelerator.scaler} if accelerator.scaler else {}
    identity = identity_of(settings, split_manifest["hash"], data.dataset["content"], accelerator.num_processes)
    checkpoint = Checkpoint(output_dir, accelerator, identity, training.checkpoint_minutes, parts)
    progress = checkpoint.start(resume)
    if progress.best and accelerator.is_main_process:  # what the folder holds may be of a step that was not kept
        save_model(best_model, extractor, output_dir, progress.best["temperature"])
    bar = make_bar(accelerator, progress, batches, training.epochs)
    with StopSignals() as signals:
        for epoch in range(progress.epoch, training.epochs):
            if progress.best and epoch - progress.best["epoch"] > (training.patience_epochs or math.inf):
                accelerator.print(
                    f"no better validation UAR in {training.patience_epochs} epochs: stopped after {epoch}"
                )
                break
            model.train()
            batches.epoch = epoch
            for batch in skip_first_batches(loader, progress.batch):
                with accelerator.accumulate(model):
                    distort = augmenter(epoch, batch["indices"])
                    loss = train_step(model, batch, extractor, distort, criterion, len(data.scheme.names), pad)
                    num_clips = len(batch["labels"])
                    accelerator.backward(loss * num_clips / batches.mean_share)  # so every clip counts alike
                    if accelerator.sync_gradients:
                        norm = accelerator.clip_grad_norm_(model.parameters(), training.clip_norm)
                        check_finite(loss, norm, accelerator, progress)
                    optimizer.step()
                    optimizer.zero_grad()
                progress.add(loss, num_clips)
                if accelerator.sync_gradients:
                    if training.schedule != "plateau" and not accelerator.optimizer_step_was_skipped:
                        scheduler.step()
                    ema.update_parameters(network)
                    show_step(bar, progress, batches)
                    checkpoint.between_steps(progress, signals)

            epoch_s = time.monotonic() - progress.epoch_started_s
            loss_sum, num_clips = accelerator.reduce(progress.loss).tolist()
            share_buffers(ema.module, accelerator)
            logits, labels = predict(ema.module, validation, extractor, accelerator)
            figures = emotion_metrics(softmax(logits), labels, data.scheme.names)
            record = {"epoch": epoch, "train_loss": round(loss_sum / num_clips, 4), "epoch_s": round(epoch_s, 2)}
            record |= {"learning_rate": optimizer.param_groups[0]["lr"]}
            progress.history.append(record | {key: figures[key] for key in ("uar", "accuracy", "log_loss")})
            show_epoch(accelerator, progress.history, training.epochs, num_clips / epoch_s)
            if figures["uar"] > progress.best.get("uar", -1.0):  # chosen on validation speakers, never on the test part
                temperature = fit_temperature(logits, labels)
                progress.best = {"epoch": epoch, "uar": figures["uar"], "temperature": temperature}
                best_model.load_state_dict(ema.module.state_dict())
                if accelerator.is_main_process:
                    save_model(best_model, extractor, output_dir, temperature)
            if training.schedule == "plateau":
                scheduler.step(figures["uar"])
            progress.end_epoch()
            checkpoint.between_steps(progress, signals, end_of_epoch=True)
    bar.close()

    best = progress.best
    model = SERForAudioClassification.from_pretrained(output_dir).to(accelerator.device)
    results = {"settings": settings.name, "seed": settings.seed, "best_epoch": best["epoch"]}
    results |= {"temperature": round(best["temperature"], 4), "parameters": model.num_parameters()}
    results |= {"hardware": hardware(accelerator), "data": data.summary()}
    results |= {"split": data.split.kind, "speaker_disjoint": data.split.speaker_disjoint}
    for part, batches in (("validation", validation), ("test", test)):
        rows = data.rows(part)
        logits, labels = predict(model, batches, extractor, accelerator)
        probabilities = softmax(logits)
        results[part] = emotion_metrics(probabilities, labels, data.scheme.names)
        for key in ("corpus", "sex"):
            results[part][f"by_{key}"] = metrics_by_group(rows[key], probabilities, labels, data.scheme.names)
    results |= {"train_seconds": round(time.monotonic() - progress.started_s), "history": progress.history}
    if accelerator.is_main_process:
        results["split_hash"] = split_manifest["hash"]
        (output_dir / "split.json").write_text(json.dumps(split_manifest, indent=1))
        (output_dir / "metrics.json").write_text(json.dumps(results, indent=1))
        save_settings(settings, output_dir / "settings.yaml")
        write_card(output_dir, settings, data.scheme, [results])
        checkpoint.forget()  # nothing is left to go on with
        print(
            f"test UAR {results['test']['uar']:.3f}, accuracy {results['test']['accuracy']:.3f}; "
            f"{len(data.problems)} files were left out; saved to {output_dir}"
        )
        if training.push_to_hub:
            push(output_dir, training.push_to_hub, training.push_private)
    leave(accelerator)


def make_accelerator(training: TrainingSettings) -> Accelerator:
    if training.mixed_precision == "fp16" and PartialState().device.type == "cpu":  # Accelerate may ignore it
        raise SettingsError("training.mixed_precision is fp16, which needs a GPU; take bf16 or no")
    return Accelerator(
        mixed_precision=training.mixed_precision, gradient_accumulation_steps=training.accumulation_steps
    )


def make_loaders(data: EmotionData, batches: EvenBatches, batch_size: int) -> dict[str, DataLoader]:
    loaders = {name: data.loader(name, 2 * batch_size) for name in ("validation", "test")}
    return loaders | {"train": data.loader("train", batches), "statistics": data.loader("train", 2 * batch_size)}


def make_model(
    settings: Settings, extractor: SERFeatureExtractor, names: tuple[str, ...], training_split: str | None = None
) -> SERForAudioClassification:
    config = network_config(settings, extractor, names)
    config.training_split = training_split
    model = SERForAudioClassification(config)
    if config.pretrained_backbone:
        model.load_pretrained_backbone()
    return model.to(memory_format=torch.channels_last)  # 1.9 times as fast on a CPU


def make_optimizer(model: torch.nn.Module, training: TrainingSettings) -> torch.optim.Optimizer:
    """Weight decay for matrices and kernels, none for norms and biases; what is frozen is left out."""
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    groups = [
        {"params": [weight for weight in weights if weight.dim() > 1], "weight_decay": training.weight_decay},
        {"params": [weight for weight in weights if weight.dim() <= 1], "weight_decay": 0.0},
    ]
    if training.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=training.learning_rate, momentum=training.momentum)
    return torch.optim.AdamW(groups, lr=training.learning_rate)


def make_schedule(optimizer: torch.optim.Optimizer, training: TrainingSettings, steps: int):
    """Moved on after each step of the optimizer, "plateau" after each epoch by its validation UAR."""
    schedules = torch.optim.lr_scheduler
    if training.schedule == "one_cycle":
        return schedules.OneCycleLR(optimizer, training.learning_rate, total_steps=steps)
    if training.schedule == "cosine":
        return schedules.CosineAnnealingLR(optimizer, steps)
    if training.schedule == "cosine_restarts":
        period = math.ceil(steps / training.epochs * training.restart_epochs)
        return schedules.CosineAnnealingWarmRestarts(optimizer, period)
    if training.schedule == "plateau":
        return schedules.ReduceLROnPlateau(optimizer, mode="max", factor=0.5, patience=training.plateau_epochs)
    return schedules.ConstantLR(optimizer, factor=1.0)


def make_criterion(data: EmotionData, training: TrainingSettings) -> torch.nn.CrossEntropyLoss:
    weights = None
    if training.class_weights:
        counts = torch.tensor(data.rows("train")["label"]).bincount(minlength=len(data.scheme.names))
        weights = counts.sum() / (len(counts) * counts.clamp(min=1))
    return torch.nn.CrossEntropyLoss(weights, label_smoothing=training.label_smoothing)


def train_step(
    model,
    batch: dict,
    extractor: SERFeatureExtractor,
    distort: BatchAugmentation,
    criterion,
    num_labels: int,
    pad: Callable,
) -> torch.Tensor:
    """Loss of one batch, distorted on its way from sound to features."""
    waveforms = distort.waveforms(batch["waveforms"], batch["lengths"])
    factors = distort.vocal_tract_factors(waveforms.device)
    features, mask = extractor.extract(waveforms, batch["lengths"], distort.spectra, factors)
    features, mask = pad(features, mask)
    targets = torch.nn.functional.one_hot(batch["labels"], num_labels).float()
    features, mask, targets = distort.mixup(features, mask, targets)
    logits = model(features, mask).logits
    return criterion(logits.float(), targets)


def pad_alike(
    accelerator: Accelerator, num_frames: int | None, features: torch.Tensor, mask: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """To `num_frames`, or the longest of all processes, for batch norm counts padding too: (B, L, F), (B, L)."""
    if num_frames is None:
        return accelerator.pad_across_processes((features, mask), dim=1)
    missing = num_frames - features.shape[1]
    return torch.nn.functional.pad(features, (0, 0, 0, missing)), torch.nn.functional.pad(mask, (0, missing))


@torch.no_grad()
def predict(model, loader, extractor, accelerator: Accelerator) -> tuple[np.ndarray, np.ndarray]:
    """Logits (N, num_labels) and labels (N,) of a whole part, gathered over all processes without the padded ends."""
    model.eval()
    gathered = []
    for batch in loader:
        features, mask = extractor.extract(batch["waveforms"], batch["lengths"])
        logits = model(features, mask).logits.float()
        gathered.append(accelerator.gather_for_metrics((logits, batch["labels"])))
    return tuple(torch.cat(column).cpu().numpy() for column in zip(*gathered, strict=True))


def save_model(model: SERForAudioClassification, extractor, output_dir: Path, temperature: float) -> None:
    """Model, extractor and their code, with the temperature that calibrates this epoch's logits."""
    model.config.calibration_temperature = round(temperature, 4)
    with whole_files(output_dir) as folder:
        model.save_pretrained(folder)
        extractor.save_pretrained(folder)
    model.config.calibration_temperature = 1.0  # training goes on with raw logits


def check_finite(loss: torch.Tensor, norm: torch.Tensor, accelerator: Accelerator, progress: Progress) -> None:
    """Raises DivergedError for a gradient that is not finite, on every process, for they share it.

    With fp16 such a step is skipped and the loss scaled down, until there is nothing left to scale down.
    """
    if norm.isfinite() or (accelerator.scaler is not None and accelerator.scaler.get_scale() >= 1):
        return
    raise DivergedError(
        f"the loss is no longer finite in epoch {progress.epoch + 1}, batch {progress.batch + 1} (loss {loss:.3g}, "
        f"norm of its gradient {norm:.3g}); start anew with --overwrite and a lower training.learning_rate or "
        "training.clip_norm, or with training.mixed_precision: no"
    )


def make_bar(accelerator: Accelerator, progress: Progress, batches: EvenBatches, epochs: int) -> tqdm:
    """Clips a second and time left, on the main process and a terminal only."""
    disable = None if accelerator.is_main_process else True  # None: unless stderr is a terminal
    total, done = epochs * batches.num_clips, clips_done(progress, batches)
    return tqdm(total=total, initial=done, disable=disable, unit="clip", dynamic_ncols=True)


def show_step(bar: tqdm, progress: Progress, batches: EvenBatches) -> None:
    if not bar.disable:
        uar = f"{progress.history[-1]['uar']:.3f}" if progress.history else "-"
        bar.set_postfix(
            epoch=progress.epoch + 1, loss=f"{progress.loss[0] / progress.loss[1]:.3f}", uar=uar, refresh=False
        )
        bar.update(clips_done(progress, batches) - bar.n)


def clips_done(progress: Progress, batches: EvenBatches) -> int:
    return progress.epoch * batches.num_clips + batches.clips_before(progress.batch)


def show_epoch(accelerator: Accelerator, history: list[dict], epochs: int, clips_per_s: float) -> None:
    """One line, above the bar where there is one."""
    last = history[-1]
    left_s = (epochs - last["epoch"] - 1) * last["epoch_s"]
    if accelerator.is_main_process:
        tqdm.write(
            f"epoch {last['epoch'] + 1}/{epochs}: loss {last['train_loss']:.3f}, validation UAR {last['uar']:.3f}, "
            f"{clips_per_s:.0f} clips/s, {last['epoch_s']:.1f} s, about {left_s / 60:.0f} min left",
            file=sys.stderr,
        )


def say_how_to_go_on(stopped: Stopped, output_dir: Path, arguments: list[str]) -> int:
    """Print why a run stopped and what resumes it; returns the exit status."""
    again = shlex.join(word for word in arguments if word not in ("--resume", "--overwrite"))
    if (output_dir / CHECKPOINT_FILE).exists():
        hint = f"to go on from the last checkpoint, start it as before with --resume: train.py {again} --resume"
    else:
        hint = f"there is no checkpoint yet, so it starts from the beginning: train.py {again}"
    if stopped.status == 1 or os.environ.get("RANK", "0") == "0":  # a signal stops all processes: one says so
        print(f"train.py: {stopped}; {hint}", file=sys.stderr)
    return stopped.status


def hardware(accelerator: Accelerator) -> str:
    """What trained, for the card: "CPU, 4 threads", "2 x NVIDIA H200"."""
    if accelerator.device.type == "cuda":
        name = torch.cuda.get_device_name(accelerator.device)
    else:
        name = f"{accelerator.device.type.upper()}, {torch.get_num_threads()} threads"
    return f"{accelerator.num_processes} x {name}" if accelerator.num_processes > 1 else name


def push(output_dir: Path, repo_id: str, private: bool) -> None:
    try:
        print(f"pushed to {push_model(output_dir, repo_id, private)}")
    except HubError as error:
        again = f"python -m ser_model push {output_dir} {repo_id}{' --private' if private else ''}"
        raise HubError(f"{error}; the run itself is saved, so this pushes it later: {again}") from error


def report(accelerator: Accelerator, settings: Settings, data: EmotionData, model: SERForAudioClassification) -> None:
    """What is about to be trained, on what: printed once, before the first step."""
    sizes = {part: len(getattr(data.split, part)) for part in ("train", "validation", "test")}
    accelerator.print(f"{settings.name}: {sizes} clips, split {data.split.kind}")
    left_out = ", ".join(f"{count} {kind}" for kind, count in data.summary()["left_out"].items())
    accelerator.print(f"{len(data.problems)} files left out{f': {left_out}; see left_out.csv' if left_out else ''}")
    for note in data.notes:
        accelerator.print(note)
    accelerator.print(data.scheme.description() or f"labels: {', '.join(data.scheme.names)}")
    accelerator.print(f"{sum(p.numel() for p in model.parameters()):,} parameters on {accelerator.device}")


if __name__ == "__main__":
    faulthandler.enable()  # a disk that fails under the cache is a bus error, which says nothing else
    main()
