"""Short runs of `train.py`; and how to start one in processes of its own, quickly.

A server imports everything once, and each process is forked from it.
"""

import hashlib
import json
import os
import signal
import socket
import time
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path

import torch
import yaml

from benchmarks.kill_resume import TIMES

ROOT = Path(__file__).resolve().parent.parent
TINY = [
    "--training.epochs=3",
    "--training.batch_size=16",
    "--model.backbone_options={widths: [8, 16, 16, 16], hidden_size: 32}",
    "--training.outlier_sounds=2",
]
TIMEOUT_S = 120
FSDP = yaml.safe_load((ROOT / "configs" / "accelerate" / "fsdp.yaml").read_text())["fsdp_config"]


def tiny_run(data_dir: Path, output_dir: Path, *more: str) -> list[str]:
    """Arguments of `train.py` for a run of seconds on made sounds; of what `more` sets again, that holds."""
    split = ["--split.test=[ravdess-01, tess-YAF]", "--split.validation=[ravdess-03, ravdess-04]"]
    config = f"--config={ROOT / 'configs' / 'ravdess_tess_cnn.yaml'}"
    return [config, f"--data-dir={data_dir}", f"--output-dir={output_dir}", *split, *TINY, *more]


_context = get_context("forkserver")
_context.set_forkserver_preload(["train", "training_runs"])


class Run:
    """One start of `train.py` on one or more processes, which talk over gloo as under torchrun.

    Args:
        arguments: of train.py.
        log: the file that standard output and error of all processes go to.
        processes: how many.
        before: called in each process, with its rank, before `main`; a function of a module.
        sharded: as configs/accelerate/fsdp.yaml has it.
    """

    def __init__(
        self,
        arguments: list[str],
        log: Path,
        processes: int = 1,
        before: Callable[[int], None] | None = None,
        sharded: bool = False,
    ):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.log = log
        log.write_text("")
        environment = {"ACCELERATE_USE_CPU": "true", "CUDA_VISIBLE_DEVICES": ""}
        environment["SER_CACHE_DIR"] = os.environ["SER_CACHE_DIR"]
        environment["OMP_NUM_THREADS"] = "1"  # without it Accelerate takes more threads, and sums in another order
        if processes > 1:
            environment |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(processes)}
        if sharded:  # what `accelerate launch` makes of that file
            environment |= {"ACCELERATE_USE_FSDP": "true"} | {key.upper(): str(FSDP[key]).lower() for key in FSDP}
        self.ranks = []
        for rank in range(processes):
            own = environment | ({"RANK": str(rank), "LOCAL_RANK": str(rank)} if processes > 1 else {})
            self.ranks.append(_context.Process(target=_main, args=(arguments, log, own, rank, before)))
            self.ranks[-1].start()

    def said(self) -> str:
        return self.log.read_text()

    def wait(self) -> list[int]:
        """The exit statuses, minus the signal's number where one ended it; AssertionError where one hangs."""
        deadline_s = time.monotonic() + TIMEOUT_S
        for rank in self.ranks:
            rank.join(max(0.1, deadline_s - time.monotonic()))
        hanging = [rank for rank in self.ranks if rank.exitcode is None]
        self.signal(signal.SIGKILL)
        assert not hanging, self.said()
        return [rank.exitcode for rank in self.ranks]

    def wait_until(self, happened: Callable[[], bool]) -> None:
        """AssertionError if the run ends first, or it takes too long."""
        deadline_s = time.monotonic() + TIMEOUT_S
        while not happened():
            assert all(rank.is_alive() for rank in self.ranks) and time.monotonic() < deadline_s, self.said()
            time.sleep(0.005)

    def signal(self, number: int) -> None:
        for rank in self.ranks:
            if rank.is_alive():
                os.kill(rank.pid, number)


def _main(arguments: list[str], log: Path, environment: dict[str, str], rank: int, before) -> None:
    with open(log, "a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.environ.update(environment)
    torch.set_num_threads(1)
    from train import main

    if before:
        before(rank)
    main(arguments)


def outcome(output_dir: Path) -> tuple[str, list[dict]]:
    """What two runs of the same training must share: the hash of the weights, and every figure but the times."""
    weights = hashlib.sha256((output_dir / "model.safetensors").read_bytes()).hexdigest()
    metrics = json.loads((output_dir / "metrics.json").read_text())
    figures = [{key: value for key, value in epoch.items() if key not in TIMES} for epoch in metrics["history"]]
    return weights, [*figures, metrics["validation"], metrics["test"], {"temperature": metrics["temperature"]}]
