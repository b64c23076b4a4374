"""Train a speech emotion recogniser: settings -> data -> model -> loop -> a folder that `from_pretrained` loads.

accelerate launch train.py --config configs/ravdess_tess_cnn.yaml --data-dir DIR --output-dir OUT
"""

import argparse
import json
import math
import sys
import time
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, DistributedType, set_seed
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader
from tqdm import tqdm

from ser_model import SERFeatureExtractor, SERForAudioClassification
from ser_model.augment import Augmenter, BatchAugmentation
from ser_model.corpora.base import CorpusError
from ser_model.data import DataError, EmotionData, load_data, write_left_out
from ser_model.evaluation import UNSEEN, split_file, unseen
from ser_model.finetune import Base, layer_rates, load_base
from ser_model.hub import HubError, check_push, push_model
from ser_model.labels import LabelError
from ser_model.metrics import emotion_metrics, fit_temperature, metrics_by_group, softmax
from ser_model.reports import write_card
from ser_model.settings import Settings, SettingsError, TrainingSettings, load_settings, network_config, save_settings
from ser_model.splits import SplitError, continued, manifest


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", required=True, help="a YAML file of configs/")
    parser.add_argument("--data-dir", required=True, help="the folder that holds the corpora")
    parser.add_argument("--output-dir", required=True, help="where the model, its card and its figures go")
    parser.add_argument("--model", metavar="BASE", help="a model folder or Hub id to fine-tune: training.base_model")
    parser.add_argument("--strict", action="store_true", help="stop if any file is damaged, and list them")
    args, overrides = parser.parse_known_args(arguments)
    overrides += ["--data.strict", "true"] if args.strict else []
    overrides += ["--training.base_model", args.model] if args.model else []
    try:
        settings = load_settings(args.config, overrides)
        train(settings, Path(args.data_dir), Path(args.output_dir))
    except (SettingsError, CorpusError, DataError, LabelError, SplitError, HubError) as error:
        sys.exit(f"train.py: {error}")


def train(settings: Settings, data_dir: Path, output_dir: Path) -> None:
    training = settings.training
    accelerator = Accelerator(
        cpu=not torch.accelerator.is_available(),  # or processes without a GPU would each train alone
        mixed_precision=training.mixed_precision,
        gradient_accumulation_steps=training.accumulation_steps,
        # Frozen weights have no gradient to wait for.
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=training.unfreeze_epoch is not None)],
    )
    if accelerator.distributed_type == DistributedType.FSDP:
        raise SettingsError(
            "a model sharded by FSDP cannot be copied, as averaging its weights demands; launch with "
            "configs/accelerate/eight_gpus.yaml, for every network here fits on one GPU"
        )
    set_seed(settings.seed)
    started_s = time.monotonic()
    if training.push_to_hub and accelerator.is_main_process:
        check_push(training.push_to_hub)

    base = load_base(settings)
    extractor = base.extractor if base else SERFeatureExtractor(**settings.features)
    with accelerator.main_process_first():  # one process decodes, the others find the cache
        data = load_data(settings, data_dir, extractor.sampling_rate, progress=accelerator.is_main_process)
    split_manifest, origin = describe_split(data, base, data_dir)
    loaders = make_loaders(data, training.batch_size, settings.seed)
    if not base:  # its weights expect the statistics that they learnt with
        extractor.fit((batch["waveforms"], batch["lengths"]) for batch in loaders["statistics"])
    model = make_model(settings, extractor, data.scheme.names, split_manifest["hash"], base)
    optimizer = make_optimizer(model, training)
    loader, validation, test = accelerator.prepare(*(loaders[part] for part in ("train", "validation", "test")))
    steps = training.epochs * math.ceil(len(loader) / training.accumulation_steps)
    scheduler = make_schedule(optimizer, training, steps)
    model, optimizer = accelerator.prepare(model, optimizer)
    ema = AveragedModel(
        accelerator.unwrap_model(model), multi_avg_fn=get_ema_multi_avg_fn(training.ema_decay), use_buffers=True
    )
    augmenter = Augmenter(settings.augmentation, extractor.sampling_rate, training.max_frames, settings.seed)
    criterion = make_criterion(data, training).to(accelerator.device)
    report(accelerator, settings, data, ema.module, origin)
    if accelerator.is_main_process:
        output_dir.mkdir(parents=True, exist_ok=True)
        write_left_out(data.problems, output_dir / "left_out.csv", data_dir)

    best = {"uar": -1.0}
    history = []
    progress = tqdm(total=steps, disable=not accelerator.is_main_process, unit="step", dynamic_ncols=True)
    for epoch in range(training.epochs):
        if training.unfreeze_epoch:
            accelerator.unwrap_model(model).freeze_backbone(epoch < training.unfreeze_epoch)
        model.train()
        epoch_started_s, losses = time.monotonic(), []
        for batch in loader:
            with accelerator.accumulate(model):
                distort = augmenter(epoch, batch["indices"])
                loss = train_step(model, batch, extractor, distort, criterion, len(data.scheme.names))
                accelerator.backward(loss)
                if accelerator.sync_gradients:
                    accelerator.clip_grad_norm_(model.parameters(), training.clip_norm)
                optimizer.step()
                optimizer.zero_grad()
            if accelerator.sync_gradients:
                if training.schedule != "plateau":
                    scheduler.step()
                ema.update_parameters(accelerator.unwrap_model(model))
                progress.update()
            losses.append(loss.detach())
        epoch_s = time.monotonic() - epoch_started_s

        logits, labels = predict(ema.module, validation, extractor, accelerator)
        figures = emotion_metrics(softmax(logits), labels, data.scheme.names)
        train_loss = float(torch.stack(losses).mean())
        history.append({"epoch": epoch, "train_loss": round(train_loss, 4), "epoch_s": round(epoch_s, 2)})
        history[-1]["learning_rate"] = optimizer.param_groups[0]["lr"]
        history[-1] |= {key: figures[key] for key in ("uar", "accuracy", "log_loss")}
        progress.set_postfix(loss=f"{train_loss:.3f}", uar=f"{figures['uar']:.3f}", s=f"{epoch_s:.1f}")
        if figures["uar"] > best["uar"]:  # chosen on validation speakers, never on the test part
            best = {"epoch": epoch, "uar": figures["uar"], "temperature": fit_temperature(logits, labels)}
            if accelerator.is_main_process:
                save_model(ema.module, extractor, output_dir, best["temperature"])
        accelerator.wait_for_everyone()
        if training.schedule == "plateau":
            scheduler.step(figures["uar"])
        if training.patience_epochs and epoch - best["epoch"] >= training.patience_epochs:
            accelerator.print(
                f"no better validation UAR in {training.patience_epochs} epochs: stopped after {epoch + 1}"
            )
            break
    progress.close()

    model = SERForAudioClassification.from_pretrained(output_dir).to(accelerator.device)
    results = {"settings": settings.name, "seed": settings.seed, "best_epoch": best["epoch"]}
    results |= {"temperature": round(best["temperature"], 4), "parameters": model.num_parameters()}
    results |= {"hardware": hardware(accelerator), "data": data.summary()}
    results |= {"split": data.split.kind, **origin}
    for part, batches in (("validation", validation), ("test", test)):
        rows = data.rows(part)
        logits, labels = predict(model, batches, extractor, accelerator)
        probabilities = softmax(logits)
        results[part] = emotion_metrics(probabilities, labels, data.scheme.names)
        for key in ("corpus", "sex"):
            results[part][f"by_{key}"] = metrics_by_group(rows[key], probabilities, labels, data.scheme.names)
    results |= {"train_seconds": round(time.monotonic() - started_s), "history": history}
    if accelerator.is_main_process:
        results["split_hash"] = split_manifest["hash"]
        (output_dir / "split.json").write_text(json.dumps(split_manifest, indent=1))
        (output_dir / "metrics.json").write_text(json.dumps(results, indent=1))
        save_settings(settings, output_dir / "settings.yaml")
        write_card(output_dir, settings, data.scheme, [results])
        print(
            f"test UAR {results['test']['uar']:.3f}, accuracy {results['test']['accuracy']:.3f}; "
            f"{len(data.problems)} files were left out; saved to {output_dir}"
        )
        if training.push_to_hub:
            push(output_dir, training.push_to_hub, training.push_private)
    accelerator.end_training()


def make_loaders(data: EmotionData, batch_size: int, seed: int) -> dict[str, DataLoader]:
    loaders = {name: data.loader(name, 2 * batch_size) for name in ("train", "validation", "test")}
    loaders["statistics"] = loaders["train"]
    drop_last = len(data.split.train) > batch_size
    loaders["train"] = data.loader("train", batch_size, shuffle_seed=seed, drop_last=drop_last)
    return loaders


def describe_split(data: EmotionData, base: Base | None, data_dir: Path) -> tuple[dict, dict]:
    """The split's manifest; and, for metrics.json, whether test speakers are new to the model, its base included."""
    content = manifest(data.split, data.utterances, data_dir)
    if not base:
        return content, {"speaker_disjoint": data.split.speaker_disjoint}
    base_split = split_file(base.source)
    disjoint, because = unseen(base.config.training_split, base_split, data, data_dir, "test")
    if not data.split.speaker_disjoint and disjoint is not False:
        disjoint, because = False, "the split shares speakers, or does not name them"
    name = Path(base.source).name if Path(base.source).is_dir() else base.source  # no path of this machine
    origin = {"speaker_disjoint": disjoint, "speaker_disjoint_because": because}
    origin |= {"base_model": name, "base_licence": base.licence}
    return continued(content, base_split, base.config.training_split), origin


def make_model(
    settings: Settings,
    extractor: SERFeatureExtractor,
    names: tuple[str, ...],
    training_split: str | None = None,
    base: Base | None = None,
) -> SERForAudioClassification:
    if base:
        model = base.network(settings, names)
    else:
        model = SERForAudioClassification(network_config(settings, extractor, names))
        if model.config.pretrained_backbone:
            try:
                model.load_pretrained_backbone()
            except (ImportError, OSError, ValueError) as error:
                raise SettingsError(f"model.pretrained_backbone: {error}") from error
    model.config.training_split = training_split
    return model.to(memory_format=torch.channels_last)  # 1.9 times as fast on a CPU


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


def make_schedule(optimizer: torch.optim.Optimizer, training: TrainingSettings, steps: int):
    """Moved on after each step of the optimizer, "plateau" after each epoch by its validation UAR."""
    schedules = torch.optim.lr_scheduler
    if training.schedule == "one_cycle":
        return schedules.OneCycleLR(optimizer, [group["lr"] for group in optimizer.param_groups], total_steps=steps)
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
    model, batch: dict, extractor: SERFeatureExtractor, distort: BatchAugmentation, criterion, num_labels: int
) -> torch.Tensor:
    """Loss of one batch, distorted on its way from sound to features."""
    waveforms = distort.waveforms(batch["waveforms"], batch["lengths"])
    factors = distort.vocal_tract_factors(waveforms.device)
    features, mask = extractor.extract(waveforms, batch["lengths"], distort.spectra, factors)
    targets = torch.nn.functional.one_hot(batch["labels"], num_labels).float()
    features, mask, targets = distort.mixup(features, mask, targets)
    logits = model(features, mask).logits
    return criterion(logits.float(), targets)


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
    output_dir.mkdir(parents=True, exist_ok=True)
    model.config.calibration_temperature = round(temperature, 4)
    model.save_pretrained(output_dir)
    model.config.calibration_temperature = 1.0  # training goes on with raw logits
    extractor.save_pretrained(output_dir)


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


def report(
    accelerator: Accelerator, settings: Settings, data: EmotionData, model: SERForAudioClassification, origin: dict
) -> None:
    """What is about to be trained, on what, from where: printed once, before the first step."""
    sizes = {part: len(getattr(data.split, part)) for part in ("train", "validation", "test")}
    accelerator.print(f"{settings.name}: {sizes} clips, split {data.split.kind}")
    if "base_model" in origin:
        accelerator.print(f"starts from {origin['base_model']}, keeping its features, network and labels that stay")
        accelerator.print(f"{UNSEEN[origin['speaker_disjoint']]}: {origin['speaker_disjoint_because']}")
    left_out = ", ".join(f"{count} {kind}" for kind, count in data.summary()["left_out"].items())
    accelerator.print(f"{len(data.problems)} files left out{f': {left_out}; see left_out.csv' if left_out else ''}")
    for note in data.notes:
        accelerator.print(note)
    accelerator.print(data.scheme.description() or f"labels: {', '.join(data.scheme.names)}")
    accelerator.print(f"{sum(p.numel() for p in model.parameters()):,} parameters on {accelerator.device}")


if __name__ == "__main__":
    main()
