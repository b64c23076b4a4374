"""Train a speech emotion recogniser: settings -> data -> model -> loop -> a folder that `from_pretrained` loads.

accelerate launch train.py --config configs/ravdess_tess_cnn.yaml --data-dir DIR --output-dir OUT
"""

import argparse
import copy
import faulthandler
import math
import os
import shlex
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator, PartialState, skip_first_batches
from accelerate.tracking import get_available_trackers
from accelerate.utils import (
    DistributedDataParallelKwargs,
    DistributedType,
    LoggerType,
    broadcast,
    get_int_from_env,
    parse_flag_from_env,
    set_seed,
)
from joblib import cpu_count
from scipy.special import softmax
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader
from tqdm import tqdm
from transformers.utils.logging import disable_progress_bar

from ser_model import SERFeatureExtractor, SERForAudioClassification
from ser_model.augment import Augmenter, BatchAugmentation
from ser_model.backbones import Timm
from ser_model.build import build_extractor, build_network
from ser_model.checkpoints import (
    SOUND,
    Checkpoint,
    CheckpointError,
    Progress,
    alone,
    identity_of,
    is_finished,
    refuse_other_clips,
    refuse_single_run,
    remove_run,
)
from ser_model.crossvalidation import Judgement, after_all, fold_settings, headline, judgement, summarise
from ser_model.data import (
    DATA_ERRORS,
    DataError,
    EmotionData,
    EvenBatches,
    left_out_words,
    load_data,
    make_split,
    write_left_out,
)
from ser_model.disk import path, whole_files
from ser_model.distributed import (
    LONGEST_WAIT,
    WholeWeights,
    leave,
    make_shardable,
    share_buffers,
    synchronize_batch_norms,
    whole,
)
from ser_model.evaluation import UNSEEN, split_file, unseen
from ser_model.faults import Stopped, StopSignals, faults_in_words
from ser_model.finetune import Base, load_base
from ser_model.hub import HubError, check_push, push_model
from ser_model.labels import nearest
from ser_model.likeness import fit_likeness
from ser_model.memory import keep_freed_memory
from ser_model.metrics import emotion_metrics, fit_temperature
from ser_model.mfcc import pad_frames
from ser_model.optimization import make_criterion, make_optimizer, make_schedule, moving_average
from ser_model.predictions import Predictions, PredictionsError, run_columns
from ser_model.reports import write_run
from ser_model.run_files import CHECKPOINT, LAST, LEFT_OUT, LOGS, REFUSED, SETTINGS
from ser_model.settings import (
    Settings,
    SettingsError,
    TrainingSettings,
    flat_settings,
    load_settings,
    save_settings,
)
from ser_model.splits import FOLDS, SplitError, continued, is_speaker_disjoint
from ser_model.teacher import TeacherError, packaged_encoder, soft_labels


class DivergedError(ValueError):
    """Training that came to nothing, and what to change."""


OWN_ERRORS = (SettingsError, HubError, CheckpointError, DivergedError, PredictionsError, TeacherError)


@contextmanager
def stoppable() -> Iterator[None]:
    """Within the block SIGTERM interrupts as Ctrl-C does; said again, neither changes anything.

    While steps are made `StopSignals` takes their place, which lets the step end first.
    """
    numbers = (signal.SIGTERM, signal.SIGINT)

    def interrupt(number: int, _frame) -> None:
        for each in numbers:
            signal.signal(each, signal.SIG_IGN)
        raise KeyboardInterrupt(number)

    before = {number: signal.signal(number, interrupt) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@stoppable()
def main(arguments: list[str] | None = None) -> None:
    signals = StopSignals()  # before all else, for it notes who launched this process
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog="Any setting of the config can be changed here too: --training.epochs 5 --split.kind random\n"
        "ser_model/settings.py says what each one does; OUT/settings.yaml lists them all with what the run has.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,  # or --data={...}, a setting, were --data-dir
    )
    parser.add_argument("--config", type=path, required=True, help="a YAML file of configs/")
    parser.add_argument("--data-dir", type=path, required=True, help="the folder that holds the corpora")
    parser.add_argument("--output-dir", type=path, required=True, help="where the model, its card and its figures go")
    parser.add_argument("--cv", metavar="PROTOCOL", help=f"every fold of {', '.join(FOLDS)}, speakers-5 or random-5")
    parser.add_argument(
        "--after", metavar="CV", type=path, help="train on everything; figures are those of this --cv run"
    )
    parser.add_argument("--model", metavar="BASE", help="a model folder or Hub id to fine-tune: training.base_model")
    parser.add_argument("--strict", action="store_true", help="stop if any file is damaged, and list them")
    again = parser.add_mutually_exclusive_group()
    again.add_argument("--resume", action="store_true", help="go on with the run that the output folder holds")
    again.add_argument("--overwrite", action="store_true", help="start anew where the output folder holds a run")
    disable_progress_bar()  # Transformers draws one for every model that is saved, into the middle of ours
    arguments = sys.argv[1:] if arguments is None else arguments
    args, overrides = parser.parse_known_args(arguments)
    if args.model == "":
        parser.error("argument --model: an empty name came; name a model folder or a Hub id")
    overrides += ["--data.strict", "true"] if args.strict else []
    overrides += ["--training.base_model", args.model] if args.model else []
    try:
        settings = load_settings(args.config, overrides)
        with faults_in_words():
            places = (args.data_dir, args.output_dir)
            keep_freed_memory()
            if args.cv and args.after:
                raise SettingsError(
                    "--cv judges a recipe and --after trains one that was judged; run one, then the other"
                )
            if args.after and args.after.resolve() == places[1].resolve():
                raise SettingsError(
                    f"--after and --output-dir are both {args.after}, whose card and predictions would be lost; give "
                    "another --output-dir"
                )
            base = settings.training.base_model
            if base and is_replaced(Path(base), places[1]):
                raise SettingsError(
                    f"--output-dir is {places[1]}, which holds the base model {base}, and a run would replace it; give "
                    "another --output-dir"
                )
            if settings.split.kind == "all" and not (args.after or args.cv):
                raise SettingsError(
                    "split.kind is 'all', which leaves nothing to judge by; give a finished --cv run: --after CV"
                )
            if args.cv:
                cross_validate(settings, args.cv, *places, signals, args.overwrite)
            else:
                judged = judgement(args.after, settings) if args.after else None
                settings = after_all(settings) if judged else settings
                with only_run(places[1]):
                    beside = args.after / "fold-1" if judged else None
                    train(settings, *places, signals, args.resume, args.overwrite, judged, beside=beside)
    except (*OWN_ERRORS, *DATA_ERRORS) as error:
        sys.exit(f"train.py: {error}")
    except KeyboardInterrupt as told:  # before the first step, or after the last
        number = signal.Signals(*told.args or (signal.SIGINT,))
        stopped = Stopped(f"stopped by {number.name}", 128 + number)
        sys.exit(say_how_to_go_on(stopped, args.output_dir, arguments, args.cv))
    except Stopped as stopped:
        sys.exit(say_how_to_go_on(stopped, args.output_dir, arguments, args.cv))
    PartialState().destroy_process_group()


def cross_validate(
    settings: Settings, protocol: str, data_dir: Path, output_dir: Path, signals: StopSignals, overwrite: bool
) -> None:
    """Every fold is a run of its own in OUT/fold-1, ...; a finished one is kept, a stopped one goes on."""
    state = make_state()
    if not overwrite:
        refuse_single_run(output_dir)
    folds = fold_settings(settings, protocol, data_dir)
    run_dirs = [output_dir / f"fold-{number}" for number in range(1, len(folds) + 1)]
    runs = list(zip(folds, run_dirs, strict=True))

    def forget_others() -> None:
        """Or a run that is stopped would go on with old folds among the new."""
        remove_run(output_dir)
        for run_dir in run_dirs[1:]:
            with alone(run_dir):
                remove_run(run_dir)

    finished = [run_dir for fold, run_dir in runs if is_finished(run_dir, fold, not overwrite, overwrite)]
    if len(finished) < len(runs):
        check_folds(folds, data_dir)
    state.print(f"{protocol}: {len(folds)} folds, {len(finished)} of them finished before")
    if folds[0].split.kind == "random" and settings.split.kind not in ("random", "all"):
        state.print(
            f"{protocol} draws clips in place of the config's split, {settings.split.kind}: training knows the voices "
            f"that are tested; for unseen ones take --cv speakers-{len(folds)}"
        )
    for fold, run_dir in runs:
        begun = forget_others if overwrite and run_dir == run_dirs[0] else None
        beside = finished[0] if finished else None
        with only_run(run_dir):
            train(fold, data_dir, run_dir, signals, not overwrite, overwrite, begun=begun, beside=beside)
        finished.append(run_dir)
    if state.is_main_process:
        print(f"{headline(summarise(protocol, run_dirs, output_dir))}; saved to {output_dir}")
    state.wait_for_everyone()


def check_folds(folds: list[Settings], data_dir: Path) -> None:
    """Raises SplitError where a fold cannot be made of the clips that are usable: before hours went into the others."""
    _, _, data = load_all(folds[0], data_dir)
    labels = [data.scheme.names[index] for index in data.dataset["label"]]
    for number, fold in enumerate(folds[1:], start=2):
        try:
            make_split(data.utterances, labels, fold.split, fold.seed)
        except SplitError as error:
            raise SplitError(f"fold {number} of {len(folds)}: {error}") from error


def load_all(settings: Settings, data_dir: Path) -> tuple[Base | None, SERFeatureExtractor, EmotionData]:
    """The model to start from, if any, the extractor that hears the clips, and these."""
    base, state = load_base(settings), make_state()
    extractor = base.extractor if base else build_extractor(settings)
    with state.main_process_first():  # one process decodes, the others find the cache
        options = {"frame_ms": extractor.frame_ms, "progress": state.is_main_process}
        return base, extractor, load_data(settings, data_dir, extractor.sampling_rate, **options)


def train(
    settings: Settings,
    data_dir: Path,
    output_dir: Path,
    signals: StopSignals,
    resume: bool = False,
    overwrite: bool = False,
    judged: Judgement | None = None,
    begun: Callable[[], None] | None = None,
    beside: Path | None = None,
) -> None:
    """One run; one that trains on everything is `judged` by the cross-validation before it.

    Between two steps it ends where `signals` were received.
    `begun` is called, on the main process, once nothing is left that could refuse the run. `beside` is the folder of a
    finished run that must have heard the same clips.
    """
    training = settings.training
    check_trackers(training.trackers)
    accelerator = make_accelerator(training, output_dir / LOGS)
    if is_finished(output_dir, settings, resume, overwrite):
        accelerator.print(f"{output_dir} holds a finished run: nothing is left to do")
        if training.push_to_hub and accelerator.is_main_process:  # which may be new, or have failed before
            push(output_dir, training.push_to_hub, training.push_private)
        return
    take_cores(training.cpu_threads)
    set_seed(settings.seed)
    if training.push_to_hub and accelerator.is_main_process:
        check_push(training.push_to_hub)
    if training.teacher_weight:
        packaged_encoder()  # is there, or this ends before anything is decoded

    base, extractor, data = load_all(settings, data_dir)
    check_labels(data)
    split_manifest, origin = describe_split(data, base)
    if judged:  # the folds tested somebody, this split nobody
        origin |= judged.origin
    share = (accelerator.num_processes, training.accumulation_steps)
    in_turn = data.in_turn(training.corpus_shares)
    batches = EvenBatches(len(data.split.train), training.batch_size, settings.seed, *share, in_turn)
    if not base:  # its weights expect the statistics that they learnt with
        clips = data.loader("train", 2 * training.batch_size)
        extractor.fit((batch["waveforms"], batch["lengths"]) for batch in clips)
    loaders = {"train": accelerator.prepare(data.loader("train", batches))}
    if not judged:
        for part in ("validation", "test"):
            loaders[part] = accelerator.prepare(data.loader(part, 2 * training.batch_size))
    model = make_model(settings, extractor, data.scheme.names, split_manifest["hash"], base).to(accelerator.device)
    steps = training.epochs * len(loaders["train"]) // training.accumulation_steps
    learner = make_learner(model, training, steps, accelerator)
    set_seed(settings.seed, device_specific=True)  # each process draws a dropout of its own
    augmenter = Augmenter(settings.augmentation, extractor.sampling_rate, training.max_frames, settings.seed)
    criterion = make_criterion(data, training).to(accelerator.device)
    targets = make_targets(data, training, accelerator)
    pad = partial(pad_alike, accelerator, training.max_frames if training.compile else None)
    report(accelerator, settings, data, learner.best, origin)

    base_features = base.extractor.to_json_string() if base else None
    heard = (data.dataset["content"], augmenter.recordings, base_features)
    identity = identity_of(settings, split_manifest["hash"], *heard, accelerator)
    if beside:
        refuse_other_clips(beside, identity["sound of the clips"])
    checkpoint = Checkpoint(output_dir, accelerator, identity, training.checkpoint_minutes, learner.parts(accelerator))
    progress = checkpoint.start(resume)
    if accelerator.is_main_process:  # nothing is left that could refuse the run
        if begun:
            begun()
        save_settings(settings, output_dir / SETTINGS)
        write_left_out(data.problems, output_dir / LEFT_OUT, data.folders)
    accelerator.init_trackers(settings.name, flat_settings(settings))
    if progress.best and accelerator.is_main_process:  # what the folder holds may be of a step that was not kept
        save_model(learner.best, extractor, output_dir, progress.best["temperature"])
    bar = make_bar(accelerator, progress, batches, training.epochs)
    with signals:
        checkpoint.between_steps(progress, signals)  # a launcher that is gone has left no other word
        for epoch in range(progress.epoch, training.epochs):
            if progress.best and epoch - progress.best["epoch"] > (training.patience_epochs or math.inf):
                accelerator.print(
                    f"no better validation UAR in {training.patience_epochs} epochs: stopped after {epoch}"
                )
                break
            if training.unfreeze_epoch:
                learner.network.freeze_backbone(epoch < training.unfreeze_epoch)
            learner.model.train()
            batches.epoch = epoch
            for batch in skip_first_batches(loaders["train"], progress.batch):
                with accelerator.accumulate(learner.model):
                    distort = augmenter(epoch, batch["indices"])
                    loss = batch_loss(learner.model, batch, extractor, distort, criterion, targets, pad, accelerator)
                    num_clips = len(batch["labels"])
                    accelerator.backward(loss * num_clips / batches.mean_share)  # so every clip counts alike
                    if accelerator.sync_gradients:
                        norm = whole(accelerator.clip_grad_norm_(learner.model.parameters(), training.clip_norm))
                        check_finite(loss, norm, accelerator, progress)
                    learner.optimizer.step()
                    learner.optimizer.zero_grad()
                progress.add(loss, num_clips)
                if accelerator.sync_gradients:
                    if training.schedule != "plateau" and not accelerator.optimizer_step_was_skipped:
                        learner.scheduler.step()
                    learner.ema.update_parameters(WholeWeights(learner.network))
                    show_step(bar, progress, batches)
                    checkpoint.between_steps(progress, signals)

            record = epoch_record(progress, learner.optimizer, accelerator)
            share_buffers(learner.ema.module, accelerator)
            if not judged:
                logits, labels = predict(learner.ema.module, loaders["validation"], extractor, accelerator)
                figures = emotion_metrics(softmax(logits, axis=1), labels, data.scheme.names)
                record |= {key: figures[key] for key in ("uar", "accuracy", "log_loss")}
            progress.history.append(record)
            accelerator.log(record, step=epoch)
            show_epoch(accelerator, record, training.epochs)
            # Chosen on validation speakers, never on the test part.
            if training.keep == "last" or record["uar"] > progress.best.get("uar", -1.0):
                temperature = judged.temperature if judged else fit_temperature(logits, labels)
                progress.best = {"epoch": epoch, "uar": record.get("uar"), "temperature": temperature}
                learner.best.load_state_dict(learner.ema.module.state_dict())
                if accelerator.is_main_process:
                    save_model(learner.best, extractor, output_dir, temperature)
            if training.schedule == "plateau":
                learner.scheduler.step(record["uar"])
            progress.end_epoch()
            checkpoint.between_steps(progress, signals, end_of_epoch=True)
    bar.close()

    if training.keep == "best":
        logits, labels = predict(learner.ema.module, loaders["validation"], extractor, accelerator)
        if accelerator.is_main_process:
            save_model(learner.ema.module, extractor, output_dir / LAST, fit_temperature(logits, labels))
    best = progress.best
    if training.outlier_sounds and accelerator.is_main_process:
        # The model already lies there, so that a break costs no more than the score.
        print("learning what is unlike these voices", flush=True)
        share = judged.refused if judged else None
        origin[REFUSED] = fit_likeness(learner.best, extractor, data, training.outlier_sounds, settings.seed, share)
        save_model(learner.best, extractor, output_dir, best["temperature"])
    accelerator.wait_for_everyone()
    model = SERForAudioClassification.from_pretrained(output_dir).to(accelerator.device)
    results = describe_run(settings, data, model, extractor, best["epoch"], accelerator) | origin
    if judged:
        predictions = judged.predictions
        results |= {"cross_validation": judged.summary, "test": predictions.figures()}
    else:
        figures, predictions = judge(model, loaders, extractor, data, settings, accelerator)
        results |= figures
    results |= {"train_seconds": round(time.monotonic() - progress.started_s), "history": progress.history}
    results |= {"split_hash": split_manifest["hash"], SOUND: identity["sound of the clips"]}
    if accelerator.is_main_process:
        write_run(output_dir, settings, data.scheme, results, predictions, split_manifest)
        checkpoint.forget()  # nothing is left to go on with
        whose = f"{judged.summary['protocol']}: " if judged else ""
        print(
            f"{whose}test UAR {results['test']['uar']:.3f}, accuracy {results['test']['accuracy']:.3f}; "
            f"{len(data.problems)} files were left out; saved to {output_dir}"
        )
        if training.push_to_hub:
            push(output_dir, training.push_to_hub, training.push_private)
    for tracker in accelerator.trackers:
        tracker.finish()
    leave(accelerator)


@dataclass(frozen=True)
class Learner:
    """What learns, and by what, on every process.

    model: what is trained, as Accelerate wraps or shards it; `network` is the same without its wrapper.
    ema: the average of its weights, by which an epoch is judged.
    best: that average after the epoch that is kept. Both are whole, for only the model may be sharded.
    """

    model: torch.nn.Module
    network: SERForAudioClassification
    ema: AveragedModel
    best: SERForAudioClassification
    optimizer: torch.optim.Optimizer
    scheduler: torch.optim.lr_scheduler.LRScheduler

    def parts(self, accelerator: Accelerator) -> dict[str, Any]:
        """What a checkpoint holds of them, by name."""
        parts = {"model": self.network, "ema": self.ema, "best_model": self.best}
        parts |= {"optimizer": self.optimizer, "scheduler": self.scheduler}
        return parts | ({"scaler": accelerator.scaler} if accelerator.scaler else {})


def make_learner(
    model: SERForAudioClassification, training: TrainingSettings, steps: int, accelerator: Accelerator
) -> Learner:
    optimizer = make_optimizer(model, training)
    scheduler = make_schedule(optimizer, training, steps)
    if accelerator.num_processes > 1:
        synchronize_batch_norms(model, accelerator.device)
    ema = AveragedModel(model, multi_avg_fn=partial(moving_average, training.ema_decay), use_buffers=True)
    best = copy.deepcopy(ema.module)
    for module in (*ema.modules(), *best.modules()):
        if isinstance(module, torch.nn.RNNBase):
            module.flatten_parameters()  # of a copy they lie scattered, and cuDNN would gather them for each batch
    if training.compile:
        model.compile(dynamic=False)  # in place, so that the weights keep their names
    if accelerator.is_fsdp2:
        make_shardable(model)
    model, optimizer = accelerator.prepare(model, optimizer)
    return Learner(model, accelerator.unwrap_model(model), ema, best, optimizer, scheduler)


def epoch_record(progress: Progress, optimizer: torch.optim.Optimizer, accelerator: Accelerator) -> dict:
    """Loss, time and rate of the epoch that ends, of all processes."""
    epoch_s = time.monotonic() - progress.epoch_started_s
    loss_sum, num_clips = accelerator.reduce(progress.loss).tolist()
    record = {"epoch": progress.epoch, "train_loss": round(loss_sum / num_clips, 4), "epoch_s": round(epoch_s, 2)}
    return record | {"clips_per_s": round(num_clips / epoch_s, 1), "learning_rate": optimizer.param_groups[0]["lr"]}


def describe_run(
    settings: Settings,
    data: EmotionData,
    model: SERForAudioClassification,
    extractor: SERFeatureExtractor,
    best_epoch: int,
    accelerator: Accelerator,
) -> dict:
    """What was trained, on what and by what, for metrics.json."""
    config = model.config
    network = {"backbone": config.backbone, "members": config.num_members, "features": list(extractor.features)}
    return {
        "settings": settings.name,
        "seed": settings.seed,
        "best_epoch": best_epoch,
        "temperature": config.calibration_temperature,
        "parameters": model.num_parameters(),
        "network": network,
        "hardware": hardware(accelerator),
        "data": data.summary(),
        "split": data.split.kind,
    }


def judge(
    model: SERForAudioClassification,
    loaders: dict[str, DataLoader],
    extractor: SERFeatureExtractor,
    data: EmotionData,
    settings: Settings,
    accelerator: Accelerator,
) -> tuple[dict, Predictions]:
    """Figures of the validation and the test part, and the predictions of the latter."""
    disjoint = is_speaker_disjoint(data.utterances, data.split.train, data.split.validation)
    results = {"validation_speaker_disjoint": disjoint}
    run = run_columns(settings, model.config.training_split, model.config.calibration_temperature)
    for part in ("validation", "test"):
        logits, labels = predict(model, loaders[part], extractor, accelerator)
        shares = softmax(logits, axis=1)
        predictions = Predictions.of(data.rows(part), data.scheme.names, labels, shares, data.folders, run)
        results[part] = predictions.figures()
    return results, predictions


def make_state() -> PartialState:
    """What Accelerate knows of the processes."""
    # Asked for a CPU, as else processes without a GPU would each train alone; and what `accelerate launch --cpu` sets,
    # only an Accelerator reads.
    on_cpu = parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.accelerator.is_available()
    state = PartialState(cpu=on_cpu, timeout=LONGEST_WAIT)
    if state.distributed_type == DistributedType.MULTI_CPU and parse_flag_from_env("ACCELERATE_USE_FSDP"):
        state.distributed_type = DistributedType.MULTI_GPU  # CPUs can shard too, but Accelerate does not ask them to
    return state


def is_replaced(base: Path, output_dir: Path) -> bool:
    """Whether a run into that folder, or a fold of one, writes where the base model lies."""
    base, output_dir = base.resolve(), output_dir.resolve()
    if not base.is_relative_to(output_dir):
        return False
    return all(part == LAST or part.startswith("fold-") for part in base.relative_to(output_dir).parts)


def only_run(output_dir: Path) -> AbstractContextManager[None]:
    """See `alone`; the main process speaks for all."""
    return alone(output_dir) if make_state().is_main_process else nullcontext()


def make_accelerator(training: TrainingSettings, log_dir: Path) -> Accelerator:
    if training.mixed_precision == "fp16" and make_state().device.type == "cpu":  # Accelerate may ignore it
        raise SettingsError("training.mixed_precision is fp16, which needs a GPU; take bf16 or no")
    accelerator = Accelerator(
        cpu=make_state().device.type == "cpu",
        mixed_precision=precision(training),
        gradient_accumulation_steps=training.accumulation_steps,
        log_with=training.trackers or None,  # of an empty list it would warn
        project_dir=log_dir,
        # Frozen weights have no gradient to wait for.
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=training.unfreeze_epoch is not None)],
    )
    if accelerator.distributed_type == DistributedType.FSDP:
        plugin = accelerator.state.fsdp_plugin
        if plugin.fsdp_version != 2 or plugin.cpu_ram_efficient_loading:  # the average needs whole weights everywhere
            raise SettingsError(
                f"fsdp_config of the launch file has fsdp_version: {plugin.fsdp_version} and "
                f"fsdp_cpu_ram_efficient_loading: {plugin.cpu_ram_efficient_loading}; set 2 and false, as "
                "configs/accelerate/fsdp.yaml does"
            )
        plugin.mixed_precision_policy = None  # autocast instead: norms stay float32, as in DDP
    return accelerator


def take_cores(cpu_threads: int | None) -> None:
    """Threads of this process on the CPU: those asked for, else its share of the cores that a container leaves.

    `accelerate launch` sets one thread where nobody asked for more. Beside a GPU too, for statistics and likeness are
    computed on the CPU.
    """
    processes = get_int_from_env(["LOCAL_WORLD_SIZE"], 1)
    torch.set_num_threads(cpu_threads or max(1, cpu_count(only_physical_cores=True) // processes))


def precision(training: TrainingSettings) -> str:
    """Accelerate's word for it; `auto` is bfloat16 where the hardware has it, for emulated it is the slower one."""
    if training.mixed_precision != "auto":
        return training.mixed_precision
    match make_state().device.type:
        case "cuda":
            fast = torch.cuda.is_bf16_supported(including_emulation=False)
        case "cpu":
            capabilities = torch.cpu.get_capabilities()
            fast = any(capabilities.get(name) for name in ("amx_bf16", "avx512_bf16", "bf16", "sve_bf16"))
        case _:
            fast = False
    return "bf16" if fast else "no"


def check_trackers(names: list[str]) -> None:
    """Accelerate passes over what is not installed, and a run would end with nothing logged."""
    known = [str(tracker) for tracker in LoggerType if tracker != LoggerType.ALL]
    installed = [str(tracker) for tracker in get_available_trackers()]
    for name in names:
        if name not in known:
            hint = nearest(name, known)
            raise SettingsError(f"training.trackers: {name!r} is no tracker{hint}; known: {', '.join(known)}")
        if name not in installed:
            raise SettingsError(
                f"training.trackers: {name} is not installed; pip install {name}, or take it out of training.trackers"
            )


def check_labels(data: EmotionData) -> None:
    """Raises DataError where a run would have nothing to tell apart."""
    if len(labels := set(data.rows("train")["label"])) == 1:
        raise DataError(
            f"every clip to train on is {data.scheme.names[labels.pop()]}: there is nothing to tell apart; wanted two "
            f"or more of {', '.join(data.scheme.names)}: add clips, or see that `labels` has the names of the data"
        )


def describe_split(data: EmotionData, base: Base | None) -> tuple[dict, dict]:
    """The split's manifest; and, for metrics.json, whether test speakers are new to the model, its base included."""
    content = data.manifest()
    # Of other kinds none shares speakers, but a column's may not name them.
    told = data.split.speaker_disjoint or (False if data.split.kind == "random" else None)
    if not base:
        return content, {"speaker_disjoint": told}
    base_split = split_file(base.source)
    disjoint, because = unseen(base.config.training_split, base_split, data, "test")
    if not data.split.speaker_disjoint and disjoint is not False:
        disjoint, because = told, "the split shares speakers, or does not name them"
    folder = Path(base.source).resolve()  # of whose path on this machine nothing is told
    called = f"{folder.parent.name}/{LAST}" if folder.name == LAST else folder.name
    name = called if folder.is_dir() else base.source
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
        model = build_network(settings, extractor, names)
    model.config.training_split = training_split
    return model.to(memory_format=torch.channels_last)  # 1.9 times as fast on a CPU


def make_targets(data: EmotionData, training: TrainingSettings, accelerator: Accelerator) -> torch.Tensor:
    """What each of the N clips in use is to be answered, (N, K): its label, or in part what a teacher says of it."""
    labels = torch.nn.functional.one_hot(torch.tensor(data.dataset["label"]), len(data.scheme.names)).float()
    targets = labels.to(accelerator.device)
    if training.teacher_weight:
        taught = torch.zeros_like(targets)
        if accelerator.is_main_process:
            print(f"a teacher hears {len(data.split.train)} clips", flush=True)
            taught.copy_(torch.from_numpy(soft_labels(data)))
        targets = torch.lerp(targets, broadcast(taught), training.teacher_weight)
    return targets


def batch_loss(
    model,
    batch: dict,
    extractor: SERFeatureExtractor,
    distort: BatchAugmentation,
    criterion,
    targets: torch.Tensor,
    pad: Callable,
    accelerator: Accelerator,
) -> torch.Tensor:
    """Loss of one batch, distorted on its way from sound to features; `targets` are those of `make_targets`."""
    waveforms = distort.waveforms(batch["waveforms"], batch["lengths"])
    factors = distort.vocal_tract_factors(waveforms.device)
    features, mask = extractor.extract(waveforms, batch["lengths"], distort.spectra, factors)
    features, mask = pad(features, mask)
    features = distort.style(features, mask, batch["labels"])
    features, mask, wanted = distort.mixup(features, mask, targets[batch["indices"]])
    with accelerator.autocast():  # of a sharded model Accelerate leaves it to us
        logits = model(features, mask).logits
    return criterion(logits.float(), wanted)


def pad_alike(
    accelerator: Accelerator, num_frames: int | None, features: torch.Tensor, mask: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """To `num_frames`, or the longest of all processes, for batch norm counts padding too: (B, L, F), (B, L)."""
    if num_frames is None:
        return accelerator.pad_across_processes((features, mask), dim=1)
    return pad_frames(features, mask, num_frames)


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
        uar = f"{progress.history[-1]['uar']:.3f}" if progress.history and "uar" in progress.history[-1] else "-"
        bar.set_postfix(
            epoch=progress.epoch + 1, loss=f"{progress.loss[0] / progress.loss[1]:.3f}", uar=uar, refresh=False
        )
        bar.update(clips_done(progress, batches) - bar.n)


def clips_done(progress: Progress, batches: EvenBatches) -> int:
    return progress.epoch * batches.num_clips + batches.clips_before(progress.batch)


def show_epoch(accelerator: Accelerator, record: dict, epochs: int) -> None:
    """One line, above the bar where there is one."""
    left_s = (epochs - record["epoch"] - 1) * record["epoch_s"]
    judged = f"validation UAR {record['uar']:.3f}, " if "uar" in record else ""
    if accelerator.is_main_process:
        tqdm.write(
            f"epoch {record['epoch'] + 1}/{epochs}: loss {record['train_loss']:.3f}, {judged}"
            f"{record['clips_per_s']:.0f} clips/s, {record['epoch_s']:.1f} s, "
            f"about {left_s / 60:.0f} min left",
            file=sys.stderr,
        )


def say_how_to_go_on(stopped: Stopped, output_dir: Path, arguments: list[str], cv: str | None) -> int:
    """Print why a run stopped and what resumes it; returns the exit status."""
    again = shlex.join(word for word in arguments if word not in ("--resume", "--overwrite"))
    if cv:
        hint = f"to go on with the fold that it was in: train.py {again}"
    elif (output_dir / CHECKPOINT).exists():
        hint = f"to go on from the last checkpoint, start it as before with --resume: train.py {again} --resume"
    else:
        hint = f"there is no checkpoint yet, so it starts from the beginning: train.py {again}"
    if stopped.status == 1 or os.environ.get("RANK", "0") == "0":  # a signal stops all processes: one says so
        print(f"train.py: {stopped}; {hint}", file=sys.stderr)
    return stopped.status


def hardware(accelerator: Accelerator) -> str:
    """What trained, for the card: "CPU, 4 threads", "2 x NVIDIA H200, bf16"."""
    if accelerator.device.type == "cuda":
        name = torch.cuda.get_device_name(accelerator.device)
    else:
        threads = torch.get_num_threads()
        name = f"{accelerator.device.type.upper()}, {threads} thread{'s' * (threads > 1)}"
    if accelerator.mixed_precision != "no":
        name += f", {accelerator.mixed_precision}"
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
    accelerator.print(left_out_words(data.summary()["left_out"]) + ("; see left_out.csv" if data.problems else ""))
    for note in data.notes:
        accelerator.print(note)
    of_timm = any(isinstance(module, Timm) for module in model.modules())
    if settings.training.compile and (of_timm or accelerator.num_processes > 1):
        why = "timm's networks see images of many sizes" if of_timm else "batch norm spans several processes"
        accelerator.print(f"training.compile: {why}, so PyTorch compiles a part at most; the rest runs as without it")
    if (settings.training.unfreeze_epoch or 0) >= settings.training.epochs:
        accelerator.print("the backbone stays frozen to the end, which comes before training.unfreeze_epoch")
    accelerator.print(data.scheme.description() or f"labels: {', '.join(data.scheme.names)}")
    sharded = f", sharded over {accelerator.num_processes} processes" if accelerator.is_fsdp2 else ""
    numbers = "float32" if accelerator.mixed_precision == "no" else accelerator.mixed_precision
    size = sum(parameter.numel() for parameter in model.parameters())
    accelerator.print(f"{size:,} parameters on {accelerator.device}, {numbers}{sharded}")


if __name__ == "__main__":
    faulthandler.enable()  # a disk that fails under the cache is a bus error, which says nothing else
    main()
