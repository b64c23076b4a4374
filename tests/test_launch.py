"""The launch files: accelerate reads each, and the one for a CPU really starts two processes."""

import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
from accelerate.commands.config.config_args import load_config_from_file
from training_runs import Run, tiny_run

ROOT = Path(__file__).resolve().parent.parent
FILES = sorted((ROOT / "configs" / "accelerate").glob("*.yaml"))
PROCESSES = {"cpu_2": 2, "one_gpu": 1, "eight_gpus": 8, "fsdp": 8, "multi_node": 16}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_accelerate_reads_it(path):
    assert load_config_from_file(str(path)).num_processes == PROCESSES[path.stem]


@pytest.mark.parametrize(("name", "value"), [("FSDP_VERSION", "1"), ("FSDP_CPU_RAM_EFFICIENT_LOADING", "true")])
def test_other_kinds_of_fsdp_are_refused_in_one_sentence(name, value, tmp_path):
    arguments = tiny_run(tmp_path, tmp_path / "run")
    run = Run(arguments, tmp_path / "log", 2, partial(set_variable, name, value), sharded=True)
    assert run.wait() == [1, 1]
    assert "set 2 and false, as configs/accelerate/fsdp.yaml does" in run.said() and "Traceback" not in run.said()


def set_variable(name: str, value: str, rank: int) -> None:
    os.environ[name] = value


@pytest.mark.parametrize("launch_file", ["cpu_2", "fsdp"])
def test_two_processes_on_a_cpu_train_together(launch_file, synthetic_corpora, tmp_path):
    command = [str(Path(sys.executable).with_name("accelerate")), "launch", "--num_processes=2"]
    command += [f"--config_file=configs/accelerate/{launch_file}.yaml", "train.py"]
    command += tiny_run(synthetic_corpora, tmp_path, "--training.epochs=1")
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["hardware"].startswith("2 x CPU")
    assert metrics["test"]["count"] == 16 + 21  # each clip once
    assert done.stdout.count("test UAR") == 1
    assert ("sharded over 2 processes" in done.stdout) == (launch_file == "fsdp")
