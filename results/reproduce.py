"""Train a protocol of results/protocols.yaml again, from its configs to its files of predictions.

python -m results.reproduce PROTOCOL --data-dir DIR [--output-dir RUNS] [settings of train.py without effect on weights]

Stopped anywhere, the same command goes on from there.
"""

import argparse
import subprocess
import sys
from pathlib import Path

from ser_model.settings import SettingsError, load_settings
from ser_model.teacher import TeacherError, packaged_encoder

from .collect import main as collect
from .probe import main as probe
from .protocols import RESULTS, ResultsError, find_protocol

ROOT = Path(__file__).resolve().parent.parent


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m results.reproduce", description=__doc__.splitlines()[0], allow_abbrev=False
    )
    parser.add_argument("protocol", help="a name of results/protocols.yaml")
    parser.add_argument("--data-dir", type=Path, required=True, help="the folder that holds the corpora")
    parser.add_argument("--output-dir", type=Path, default=ROOT / "runs" / "reproduce", help="where the runs go")
    parser.add_argument("--only", metavar="MODEL", help="one of the protocol's models; all if left out")
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="DIR", help="the folder of protocols.yaml")
    args, options = parser.parse_known_args(arguments)
    try:
        protocol = find_protocol(args.protocol, args.results)
        models = [args.only] if args.only else protocol.answering
        if not set(models) <= set(protocol.answering):
            raise ResultsError(f"{args.protocol} has no model {args.only!r}; known: {', '.join(protocol.answering)}")
        own = [load_settings(ROOT / protocol.models[name]) for name in models if name in protocol.models]
        if not set(models).isdisjoint(protocol.probes) or any(each.training.teacher_weight for each in own):
            packaged_encoder()  # rather now than after hours of training
    except (ResultsError, TeacherError, SettingsError) as error:
        sys.exit(f"reproduce: {error}")
    data_dir, results = str(args.data_dir.resolve()), ["--results", str(args.results)]
    for model in models:
        if model in protocol.probes:
            probe([args.protocol, "--data-dir", data_dir, *results])
            continue
        run_dirs = []
        for seed, split_seed in protocol.seeds_of(model):
            run_dirs.append(str(args.output_dir.resolve() / args.protocol / model / f"seed-{seed}"))
            again = ["--cv", protocol.cv] if protocol.cv else ["--resume"]
            command = [sys.executable, "-m", "accelerate.commands.launch", "train.py", *again]
            command += ["--config", protocol.models[model], "--seed", str(seed)]
            command += ["--split.seed", str(split_seed)] if seed != split_seed else []
            command += ["--data-dir", data_dir, "--output-dir", run_dirs[-1], *options]
            try:
                status = subprocess.run(command, cwd=ROOT).returncode
            except KeyboardInterrupt:  # train.py heard it too, and says how to go on
                sys.exit(130)
            if status:
                sys.exit(status if status > 0 else 128 - status)
        collect([args.protocol, model, *run_dirs, *results])
        for heard in ("conditions", "enrolled"):
            if getattr(protocol, heard):
                collect([args.protocol, model, *run_dirs, *results, f"--{heard}", "--data-dir", data_dir])


if __name__ == "__main__":
    main()
