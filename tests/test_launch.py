"""The launch files: accelerate reads each, and the one for a CPU really starts two processes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from accelerate import Accelerator
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.utils import DistributedType

from train import main

ROOT = Path(__file__).resolve().parent.parent
FILES = sorted((ROOT / "configs" / "accelerate").glob("*.yaml"))
PROCESSES = {"cpu_2": 2, "one_gpu": 1, "eight_gpus": 8, "multi_node": 16}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_accelerate_reads_it(path):
    assert load_config_from_file(str(path)).num_processes == PROCESSES[path.stem]


def test_a_sharded_model_is_refused_in_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(Accelerator, "distributed_type", DistributedType.FSDP)
    config = f"--config={ROOT / 'configs' / 'ravdess_tess_cnn.yaml'}"
    with pytest.raises(SystemExit, match=r"FSDP cannot be copied.*launch with configs/accelerate/eight_gpus\.yaml"):
        main([config, f"--data-dir={tmp_path}", f"--output-dir={tmp_path / 'run'}"])


def test_two_processes_on_a_cpu_train_together(synthetic_corpora, tmp_path):
    command = [str(Path(sys.executable).with_name("accelerate")), "launch"]
    command += ["--config_file=configs/accelerate/cpu_2.yaml", "train.py", "--config=configs/ravdess_tess_cnn.yaml"]
    command += [f"--data-dir={synthetic_corpora}", f"--output-dir={tmp_path}", "--training.epochs=1"]
    command += ["--split.test=[ravdess-01, tess-YAF]", "--split.validation=[ravdess-02]"]
    command += ["--model.backbone_options={widths: [8, 8, 8, 8], hidden_size: 16}"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["hardware"].startswith("2 x CPU")
    assert metrics["test"]["count"] == 16 + 21  # each clip once
    assert done.stdout.count("test UAR") == 1
