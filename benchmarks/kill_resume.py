"""One run that nothing stops, one that is killed again and again, and whether both end with the same bits.

    python -m benchmarks.kill_resume --config configs/ravdess14_resnet18.yaml --data-dir data --kills 10 \\
        --training.epochs 3 --training.checkpoint_minutes 0.05

Every death is a SIGKILL to all processes at a random moment: while data are read, in a step, in a validation, in the
writing of a checkpoint or of the best model. Prints one row a death, then both outcomes.
"""

import argparse
import hashlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from safetensors import safe_open

ROOT = Path(__file__).resolve().parent.parent
TIMES = ("epoch_s", "clips_per_s")  # in the history of metrics.json: other in every run


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--config", required=True)
    parser.add_argument("--data-dir", required=True)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0, help="of the moments of death")
    args, overrides = parser.parse_known_args()
    command = [sys.executable, "train.py"]
    if args.processes > 1:
        launcher = str(Path(sys.executable).with_name("torchrun"))
        command = [launcher, "--standalone", "--nproc_per_node", str(args.processes), "train.py"]
    command += ["--config", args.config, "--data-dir", args.data_dir, *overrides]
    rng = random.Random(args.seed)
    with tempfile.TemporaryDirectory() as folder:
        whole, killed, log = (Path(folder) / name for name in ("whole", "killed", "log"))
        started_s = time.monotonic()
        run = start([*command, "--output-dir", str(whole)], log)
        while run.poll() is None and not (whole / "checkpoint.safetensors").exists():
            time.sleep(0.05)
        first_s = time.monotonic() - started_s
        finish(run, log)
        rest_s = time.monotonic() - started_s - first_s
        print("| death | s after the start | epochs and batches in the checkpoint |\n| --- | --- | --- |")
        command += ["--output-dir", str(killed), "--resume"]
        for death in range(1, args.kills + 1):
            run = start(command, log)
            moment_s = rng.uniform(0, first_s + rest_s / args.kills)
            try:
                run.wait(moment_s)
            except subprocess.TimeoutExpired:
                os.killpg(run.pid, signal.SIGKILL)
                run.wait()
            else:
                sys.exit(f"ended by itself before death {death}, status {run.returncode}:\n{log.read_text()[-2000:]}")
            print(f"| {death} | {moment_s:.1f} | {kept(killed / 'checkpoint.safetensors')} |", flush=True)
        finish(start(command, log), log)
        resumed = re.search(r"resumed from .*: (.*)", log.read_text())
        print(f"\nthe last start {'resumed in ' + resumed[1] if resumed else 'began anew'}")
        outcomes = [outcome(whole), outcome(killed)]
    for name, (weights, figures) in zip(("unbroken", f"{args.kills} deaths"), outcomes, strict=True):
        print(f"{name:>10}: weights {weights[:16]}, figures {figures[:16]}")
    if outcomes[0] != outcomes[1]:
        sys.exit("THEY DIFFER")
    print("the same bits")


def start(command: list[str], log: Path) -> subprocess.Popen:
    with open(log, "w") as file:
        return subprocess.Popen(command, cwd=ROOT, stdout=file, stderr=file, start_new_session=True)


def finish(run: subprocess.Popen, log: Path) -> None:
    if run.wait():
        sys.exit(log.read_text()[-2000:])


def kept(path: Path) -> str:
    if not path.exists():
        return "none yet"
    with safe_open(path, framework="pt") as file:
        progress = json.loads(file.metadata()["run"])["progress"]
    return f"{progress['epoch']}, {progress['batch']}"


def outcome(output_dir: Path) -> tuple[str, str]:
    """Hashes of the weights, and of every figure but the times."""
    metrics = json.loads((output_dir / "metrics.json").read_text())
    figures = [metrics["validation"], metrics["test"], metrics["temperature"], metrics["best_epoch"]]
    figures += [{key: value for key, value in epoch.items() if key not in TIMES} for epoch in metrics["history"]]
    weights = (output_dir / "model.safetensors").read_bytes()
    return hashlib.sha256(weights).hexdigest(), hashlib.sha256(json.dumps(figures).encode()).hexdigest()


if __name__ == "__main__":
    main()
