"""The one file that a stopped run goes on from, to the same bits.

    <output folder>/checkpoint.safetensors    tensors: weights, their averages, optimizer, random states
                                              metadata: every number beside them, as JSON

One file, because one rename then makes the whole state valid at once; safetensors and JSON, because a checkpoint from
somebody else must not be able to run code, as a pickle is. Augmentation and the order of clips are keyed by seed and
epoch and have no state.
"""

import hashlib
import json
import shutil
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from filelock import FileLock, Timeout
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor
from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict
from torch.distributed.tensor import DTensor, distribute_tensor

from .disk import write_whole
from .distributed import whole
from .faults import Stopped, StopSignals
from .run_files import CHECKPOINT, CV, METRICS, SAY_THAT_IT_RAN, SETTINGS, WRITTEN
from .settings import Settings, load_settings

LOCK_FILE = ".lock"
RUN = "run"  # the metadata's only key
TENSOR = "tensor"  # stands in the JSON where a tensor was
SOUND = "sound_hash"  # in metrics.json, of all clips that a run was given
MAY_CHANGE = (  # without effect on the weights
    "data.num_proc",
    "data.strict",
    "training.checkpoint_minutes",
    "training.cpu_threads",  # but for the last bits: other threads sum in another order, which is noted
    "training.push_private",
    "training.push_to_hub",
    "training.trackers",
)
NAMED_DIFFERENCES = 3
CLOCKS = ("started_s", "epoch_started_s")  # a monotonic clock means nothing after a restart: kept as time gone by


class CheckpointError(ValueError):
    """A run that cannot go on, or must not be started over another one."""


@dataclass
class Progress:
    """How far a run has come, beside the states of its parts.

    loss: sum over this epoch's clips and their number (2,), of this process.
    epoch, batch: what comes next, both counted from 0; `batch` is each process's own.
    started_s, epoch_started_s: on the monotonic clock, as if the run had never been stopped.
    best: epoch, validation UAR and temperature of the best epoch, once there is one.
    history: figures of each epoch that is done.
    """

    loss: Tensor
    epoch: int = 0
    batch: int = 0
    started_s: float = field(default_factory=time.monotonic)
    epoch_started_s: float = field(default_factory=time.monotonic)
    best: dict = field(default_factory=dict)
    history: list[dict] = field(default_factory=list)

    def add(self, loss: Tensor, num_clips: int) -> None:
        """Count a batch, by its mean loss."""
        self.batch += 1
        self.loss += torch.stack([loss.detach() * num_clips, torch.full_like(loss, num_clips)])

    def end_epoch(self) -> None:
        self.epoch, self.batch, self.epoch_started_s = self.epoch + 1, 0, time.monotonic()
        self.loss.zero_()


class Checkpoint:
    """Saves and restores one run; every process calls it, the first one writes, all must see the folder.

    Args:
        folder: the run's.
        accelerator: the run's.
        identity: what must not differ between the starts of a run, see `identity_of`.
        every_minutes: how often to save between two ends of an epoch; None for never.
        parts: by name, what has `state_dict` and `load_state_dict`; among them "model" and "optimizer", which may be
            sharded.
    """

    def __init__(
        self,
        folder: Path,
        accelerator: Accelerator,
        identity: Mapping[str, Any],
        every_minutes: float | None,
        parts: Mapping[str, Any],
    ):
        self.path = folder / CHECKPOINT
        self.accelerator = accelerator
        self.identity = identity
        self.every_s = 60 * every_minutes if every_minutes else float("inf")
        self.parts = parts
        self.saved_s = time.monotonic()

    def start(self, resume: bool) -> Progress:
        """Where training begins: where the file left it if `resume`, else, and without a file, at the beginning.

        What a run left in the folder is removed in the second case; whether that may be, `is_finished` has asked.
        """
        if resume and self.path.exists():
            progress = self.restore()
            self.accelerator.print(
                f"resumed from {self.path}: epoch {progress.epoch + 1}, {progress.batch} batches into it"
            )
            return progress
        if resume:
            self.accelerator.print(f"no checkpoint in {self.path.parent}: starting from the beginning")
        if self.accelerator.is_main_process:
            remove_run(self.path.parent)
        return Progress(torch.zeros(2, device=self.accelerator.device))

    def forget(self) -> None:
        self.path.unlink(missing_ok=True)

    def between_steps(self, progress: Progress, signals: StopSignals, end_of_epoch: bool = False) -> None:
        """Save where it is time to, and end the run here if any process was told to stop.

        Raises:
            Stopped: after saving.
        """
        due = end_of_epoch or time.monotonic() - self.saved_s >= self.every_s
        number, due = self._agreed(signals.received, due)
        if number or due:
            self.save(progress)
        if number:
            where = f"in epoch {progress.epoch + 1}, {progress.batch} batches into it"
            raise Stopped(f"stopped by {signal.Signals(number).name} {where}", 128 + number)

    def save(self, progress: Progress) -> None:
        """Replace the file by one that holds the state as it is now; the old one stays until the new one is whole."""
        own = {"loss": progress.loss, **self._random_states()}
        of_all = {name: self.accelerator.gather(value.to(self.accelerator.device)[None]) for name, value in own.items()}
        parts = whole({name: part.state_dict() for name, part in self.parts.items()})
        now_s = time.monotonic()
        if self.accelerator.is_main_process:
            tensors: dict[str, Tensor] = {}
            state = {
                "identity": self.identity,
                "threads": torch.get_num_threads(),
                "progress": asdict(progress)
                | {"loss": None}
                | {name: getattr(progress, name) - now_s for name in CLOCKS},
                "parts": parts,
                "processes": of_all,
            }
            write_whole(self.path, save(tensors, {RUN: json.dumps(_without_tensors(state, "", tensors))}))
        self.accelerator.wait_for_everyone()
        self.saved_s = time.monotonic()

    def restore(self) -> Progress:
        """Bring every part, and this process's random numbers, to where the file left them.

        Raises:
            CheckpointError: the file cannot be read, or belongs to a run with other settings or data.
        """
        try:
            with safe_open(self.path, framework="pt") as file:
                state = json.loads(file.metadata()[RUN])
                _refuse_differences(self.path, self.identity | state["identity"], self.identity)  # it may be older
                self._note_threads(state.get("threads"))
                return self._lay_out(_with_tensors(state, file))
        except CheckpointError:
            raise
        except (AttributeError, LookupError, OSError, SafetensorError, TypeError, ValueError) as error:  # not as saved
            raise CheckpointError(f"{self.path} cannot be read ({error}); start anew with --overwrite") from error

    def _lay_out(self, state: dict) -> Progress:
        states = state["parts"]
        set_model_state_dict(self.parts["model"], states.pop("model"), options=StateDictOptions(full_state_dict=True))
        for name, values in states.items():
            self.parts[name].load_state_dict(values)
        _lay_as_weights(self.parts["optimizer"])
        own = {name: values[self.accelerator.process_index] for name, values in state["processes"].items()}
        loss = own.pop("loss").to(self.accelerator.device)
        for name, value in own.items():
            self._generators()[name].set_rng_state(value.clone())  # torch reads a view from where its storage starts
        now_s = time.monotonic()
        clocks = {name: now_s + state["progress"][name] for name in CLOCKS}
        return Progress(**state["progress"] | clocks | {"loss": loss})

    def _note_threads(self, before: int | None) -> None:
        """`before` is None in checkpoints of earlier versions."""
        now = torch.get_num_threads()
        if before not in (None, now) and self.accelerator.device.type == "cpu":
            self.accelerator.print(
                f"the run had {before} CPU thread{'s' * (before > 1)} a process and goes on with {now}, which sum in "
                f"another order: its weights will differ in their last digits; --training.cpu_threads {before} gives "
                "the same ones"
            )

    def _agreed(self, *numbers: int) -> list[int]:
        """The largest of each over all processes: whatever is decided on them, all decide alike."""
        own = torch.tensor([numbers], dtype=torch.float32, device=self.accelerator.device)
        return (
            self.accelerator.gather(own).amax(dim=0).int().tolist() if self.accelerator.num_processes > 1 else numbers
        )

    def _generators(self) -> dict[str, Any]:
        """What dropout draws from; nothing in training draws from Python's or numpy's global generators."""
        device = self.accelerator.device
        generators = {"random_cpu": torch}
        return generators if device.type == "cpu" else generators | {"random_device": torch.get_device_module(device)}

    def _random_states(self) -> dict[str, Tensor]:
        return {name: generator.get_rng_state() for name, generator in self._generators().items()}


def is_finished(folder: Path, settings: Settings, resume: bool, overwrite: bool) -> bool:
    """Whether the run that is to go on has nothing left to do.

    Raises:
        CheckpointError: the folder holds a run, and it is not said what shall become of it; or one of other settings,
            or a cross-validation.
    """
    if (folder / CV).exists() and not overwrite:
        raise CheckpointError(
            f"{folder} holds a finished cross-validation; give another --output-dir, or --overwrite, which removes its "
            "figures"
        )
    unfinished = (folder / CHECKPOINT).exists()
    finished = (folder / METRICS).exists() and not unfinished
    if (finished or unfinished) and not (resume or overwrite):
        state = "a finished run" if finished else "a run that was stopped"
        raise CheckpointError(f"{folder} holds {state}; --resume goes on with it, --overwrite starts anew in its place")
    if not (resume and finished):
        return False
    before = load_settings(folder / SETTINGS).model_dump(mode="json")
    _refuse_differences(folder, {"settings": before}, {"settings": settings.model_dump(mode="json")})
    return True


def refuse_single_run(folder: Path) -> None:
    """Raises CheckpointError where a run of its own, finished or not, lies where a cross-validation's figures go."""
    if any((folder / name).exists() for name in (METRICS, CHECKPOINT)):
        raise CheckpointError(
            f"{folder} holds a run, whose card and predictions --cv would replace; give another --output-dir, or "
            "--overwrite, which removes it"
        )


def refuse_other_clips(folder: Path, sound_hash: str) -> None:
    """Raises CheckpointError where the finished run in `folder` heard clips of other sound than a run that stands
    beside it or on it; runs of earlier versions do not tell.
    """
    before = json.loads((folder / METRICS).read_text(encoding="utf-8")).get(SOUND, sound_hash)
    if before != sound_hash:
        raise CheckpointError(
            f"{folder} heard other clips: the hash of their sound was {before[:12]} and is {sound_hash[:12]} now; give "
            "the --data-dir that it was run with, or run --cv on these data in another --output-dir first"
        )


def remove_run(folder: Path) -> None:
    """Remove what a run wrote, lest its card or figures stand beside the weights of the next one; nothing else.

    Settings lie there from the first step to the last, so they go last: a removal that breaks off is made up for.
    """
    if not any((folder / name).exists() for name in SAY_THAT_IT_RAN):
        return
    for name in WRITTEN:
        path = folder / name
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Nobody else trains into `folder` meanwhile, for two runs would write over each other; CheckpointError if so."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK_FILE, blocking=False)  # of the system: it ends with this process, however that ends
    try:
        lock.acquire()
    except Timeout as error:
        raise CheckpointError(
            f"another train.py is writing into {folder}; wait for its end, or give another --output-dir"
        ) from error
    try:
        yield
    finally:
        with suppress(OSError):  # once released, it may be another's already; on Windows an open file stays
            (folder / LOCK_FILE).unlink()
        lock.release()
        with suppress(OSError):  # which holds more than the lock
            folder.rmdir()


def identity_of(
    settings: Settings,
    split_hash: str,
    contents: Sequence[str],
    noises: Sequence[Tensor],
    base_features: str | None,
    accelerator: Accelerator,
) -> dict[str, Any]:
    """What makes two starts the same run: settings, split, all that is heard, and what computes it how.

    Args:
        settings: the run's.
        split_hash: of its manifest.
        contents: of every clip, a hash of its sound.
        noises: the recordings that are laid under clips.
        base_features: settings of the feature extractor that comes from another model, as JSON.
        accelerator: the run's.
    """
    noise_hash = hashlib.sha256()
    for noise in noises:
        noise_hash.update(len(noise).to_bytes(8, "big") + noise.numpy().tobytes())
    return {
        "settings": settings.model_dump(mode="json"),
        "split": split_hash,
        "sound of the clips": hashlib.sha256(json.dumps(list(contents)).encode()).hexdigest(),
        "sound of the noises": noise_hash.hexdigest(),
        "features of the base model": base_features and hashlib.sha256(base_features.encode()).hexdigest(),
        "number of processes": accelerator.num_processes,
        "kind of device": accelerator.device.type,
        "precision": accelerator.mixed_precision,
    }


def _without_tensors(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    """A nested state as JSON can hold it; its tensors go to `tensors`."""
    if isinstance(value, Tensor):
        tensors[name] = value.detach().to("cpu", copy=True).contiguous()
        return {TENSOR: name}
    if isinstance(value, Mapping):
        return {str(key): _without_tensors(item, f"{name}/{key}", tensors) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_tensors(item, f"{name}/{index}", tensors) for index, item in enumerate(value)]
    return value


def _with_tensors(value: Any, file: Any) -> Any:
    """The inverse of `_without_tensors`; keys that are numbers, as an optimizer counts its weights, are so again."""
    if isinstance(value, dict):
        if value.keys() == {TENSOR}:
            return file.get_tensor(value[TENSOR])
        return {int(key) if key.isdigit() else key: _with_tensors(item, file) for key, item in value.items()}
    return [_with_tensors(item, file) for item in value] if isinstance(value, list) else value


def _lay_as_weights(optimizer: torch.optim.Optimizer) -> None:
    """Give the optimizer's averages the strides of their weights again: other strides add up in another order.

    Of a sharded weight a process keeps its own share of the averages too.
    """
    for weight, values in optimizer.state.items():
        for name, value in values.items():
            if isinstance(value, Tensor) and value.shape == weight.shape:
                if isinstance(weight, DTensor):
                    values[name] = distribute_tensor(value, weight.device_mesh, weight.placements)
                else:
                    values[name] = torch.empty_like(weight, dtype=value.dtype).copy_(value)


def _refuse_differences(path: Path, before: Mapping, now: Mapping) -> None:
    if differences := list(_differences(before, now)):
        more = len(differences) - NAMED_DIFFERENCES
        named = "; ".join(differences[:NAMED_DIFFERENCES]) + (f"; and {more} more" if more > 0 else "")
        raise CheckpointError(f"{path} is of another run: {named}; resume it as it was, or start in another folder")


def _differences(before: Any, now: Any, name: str = "") -> Iterator[str]:
    """ "training.epochs was 3 and is 5 now", for whatever may not change."""
    if isinstance(before, dict) and isinstance(now, dict):
        for key in before | now:
            inner = f"{name}.{key}" if name and name != "settings" else key
            yield from _differences(before.get(key), now.get(key), inner)
    elif before != now and name not in MAY_CHANGE:
        yield f"{name} was {before!r} and is {now!r} now"
