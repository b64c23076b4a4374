"""From finished runs of train.py to a small file of predictions that every figure can be recomputed from.

python -m results.collect PROTOCOL MODEL OUT...                              one OUT a seed
python -m results.collect PROTOCOL MODEL OUT... --conditions --data-dir DIR  the same models under test conditions
python -m results.collect PROTOCOL MODEL OUT... --enrolled --data-dir DIR    the same, with a personal baseline
With --add the seeds that the file has already stay in it; else it holds those of the given folders alone.
"""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ser_model.checkpoints import CheckpointError, is_finished
from ser_model.conditions import CONDITIONS
from ser_model.corpora import CORPORA
from ser_model.data import DATA_ERRORS
from ser_model.evaluation import EvaluationError, evaluate, split_file
from ser_model.inference import EmotionRecognizer
from ser_model.labels import nearest
from ser_model.predictions import Predictions, PredictionsError
from ser_model.run_files import CV, METRICS, PREDICTIONS, SETTINGS
from ser_model.settings import Settings, SettingsError, load_settings
from ser_model.splits import FOLDS

from .enrolment import enrolled
from .protocols import RESULTS, Heard, Protocol, ResultsError, find_protocol, predictions_file

ROOT = Path(__file__).resolve().parent.parent
DECIMALS = 4  # of a probability: figures of three hold, and a seed of RAVDESS takes some 40 kB


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m results.collect", description=__doc__.splitlines()[0])
    parser.add_argument("protocol", help="a name of results/protocols.yaml")
    parser.add_argument("model", help="one of its models")
    parser.add_argument("run_dirs", type=Path, nargs="+", metavar="OUT", help="output folders of train.py, one a seed")
    again = parser.add_mutually_exclusive_group()
    for name, what in (
        ("conditions", "under test conditions"),
        ("enrolled", "with a personal baseline, see enrolment.py"),
    ):
        again.add_argument(f"--{name}", action="store_const", dest="heard", const=name, help=f"test the models {what}")
    parser.set_defaults(heard="")
    parser.add_argument("--add", action="store_true", help="keep other seeds' predictions, of runs that are gone")
    parser.add_argument("--data-dir", help="the folder that holds the corpora, to hear the clips again")
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="DIR", help="the folder of protocols.yaml")
    args = parser.parse_args(arguments)
    if args.heard and not args.data_dir:
        parser.error(f"--{args.heard} hears the clips again; give --data-dir")
    try:
        path = collect(args.protocol, args.model, args.run_dirs, args.results, args.heard, args.data_dir, args.add)
    except (ResultsError, PredictionsError, SettingsError, EvaluationError, *DATA_ERRORS) as error:
        sys.exit(f"collect: {error}")
    hardware, hours = cost(args.run_dirs)
    print(f"{path}: {path.stat().st_size / 1000:.0f} kB; trained on {hardware} in {hours:.2f} h")


def collect(
    name: str,
    model: str,
    run_dirs: Sequence[Path],
    results_dir: Path = RESULTS,
    heard: Heard = "",
    data_dir: str | Path | None = None,
    add: bool = False,
) -> Path:
    """Join the test predictions of finished runs, one folder a seed, into one file; the order of folders is no matter.

    Args:
        name, model: of protocols.yaml.
        run_dirs: output folders of train.py, with --cv where the protocol has it.
        results_dir: holds protocols.yaml and `predictions`.
        heard: "" for the predictions that the runs left; else how their models hear the clips again: under all
            CONDITIONS, or once each speaker is enrolled.
        data_dir: the folder that holds the corpora, to hear the clips again.
        add: keep what the file holds of other seeds, whose runs cannot be looked at again.

    Returns:
        The file written.

    Raises:
        ResultsError: a run is unfinished, or is none of this protocol and config.
        PredictionsError: its predictions cannot be read or joined.
    """
    protocol = find_protocol(name, results_dir)
    if model not in protocol.models:
        hint = nearest(model, protocol.models)
        raise ResultsError(f"{name} has no model {model!r}{hint}; known: {', '.join(protocol.models)}")
    config = load_settings(ROOT / protocol.models[model])
    parts = []
    for run_dir in run_dirs:
        folds = finished_folds(run_dir, protocol, config)
        parts.append(Predictions.pooled([HEARINGS[heard](fold, data_dir) for fold in folds]))
    path = predictions_file(results_dir, name, model, heard)
    if add:
        seeds = {str(clip["seed"]) for own in parts for clip in own.clips}
        parts += [own for seed, own in Predictions.read(path).parted("seed").items() if seed not in seeds]
    return written(Predictions.joined(parts), path)


def written(predictions: Predictions, path: Path) -> Path:
    """`path`, where they lie in order; ResultsError where a run answers one clip twice."""
    path.parent.mkdir(exist_ok=True)
    _in_order(predictions).write(path, DECIMALS)
    return path


def finished_folds(run_dir: Path, protocol: Protocol, config: Settings) -> list[Path]:
    """The folders of a run's folds, in order; ResultsError unless all are finished and are what the config says."""
    folds = [run_dir / f"fold-{number}" for number in range(1, protocol.folds + 1)] if protocol.cv else [run_dir]
    cv_file = run_dir / CV
    if protocol.cv:
        if not cv_file.is_file():
            raise ResultsError(f"{run_dir} holds no cv.json; finish it with train.py --cv {protocol.cv}")
        if (ran := json.loads(cv_file.read_text(encoding="utf-8"))["protocol"]) != protocol.cv:
            raise ResultsError(f"{run_dir} is of --cv {ran}; {protocol.title} wants --cv {protocol.cv}")
    for fold in folds:
        if not (fold / METRICS).is_file():
            raise ResultsError(f"{fold} holds no metrics.json; finish it with train.py")
        own = load_settings(fold / SETTINGS)
        split = {"kind": own.split.kind, "name": own.split.name, "fold": own.split.fold} if protocol.cv else {}
        if protocol.cv in FOLDS:
            split["test"] = own.split.test  # which those folds do not use, whatever a config of a random split says
        elif protocol.cv:
            split["seed"] = own.split.seed
        wanted = config.model_copy(update={"seed": own.seed, "split": config.split.model_copy(update=split)})
        try:
            is_finished(fold, wanted, resume=True, overwrite=False)
        except CheckpointError as error:
            raise ResultsError(f"these predictions cannot stand for the config {config.name}: {error}") from error
        if json.loads((fold / METRICS).read_text(encoding="utf-8"))["speaker_disjoint"] != protocol.unseen:
            known = "share voices with training" if protocol.unseen else "are of unseen voices"
            raise ResultsError(f"the test clips of {fold} {known}, which is not what the protocol says; check its cv")
    return folds


def cost(run_dirs: Sequence[Path]) -> tuple[str, float]:
    """Hardware and hours of training of all folds, for runs.yaml."""
    files = [file for run in run_dirs for file in sorted(run.glob(f"fold-*/{METRICS}")) or [run / METRICS]]
    runs = [json.loads(file.read_text(encoding="utf-8")) for file in files]
    hardware = ", then ".join(dict.fromkeys(run["hardware"] for run in runs))
    return hardware, sum(run["train_seconds"] for run in runs) / 3600


def _under_conditions(fold: Path, data_dir: str | Path) -> Predictions:
    """What a fold's model answers under each condition; kept beside it, so that a stopped command goes on."""
    settings = load_settings(fold / SETTINGS)
    recognizer, parts = None, []
    for condition in CONDITIONS:
        path = fold / "conditions" / f"{condition}.csv"
        if not path.is_file() or path.stat().st_mtime < (fold / METRICS).stat().st_mtime:
            recognizer = recognizer or EmotionRecognizer.from_pretrained(fold)
            print(f"{fold}: {condition}", file=sys.stderr)
            options = {"condition": condition, "split_manifest": split_file(fold)}
            _, predictions = evaluate(recognizer, settings, data_dir, **options)
            path.parent.mkdir(exist_ok=True)
            predictions.write(path)
        parts.append(Predictions.read(path))
    return Predictions.joined(parts)


HEARINGS = {
    "": lambda fold, _: Predictions.read(fold / PREDICTIONS),
    "conditions": _under_conditions,
    "enrolled": enrolled,
}


def _in_order(predictions: Predictions) -> Predictions:
    """Sorted by run and path below the corpus's folder; ResultsError where a run answers one clip twice."""
    clips = [clip | {"path": _below_corpus(clip["path"], clip["corpus"])} for clip in predictions.clips]
    keys = [(clip["condition"], int(clip["seed"]), clip["fold"], clip["corpus"], clip["path"]) for clip in clips]
    if doubled := [key for key, count in Counter(keys).items() if count > 1]:
        condition, seed, fold, *_, path = doubled[0]
        raise ResultsError(
            f"{len(doubled)} clips are answered twice by one seed, {path} by seed {seed} in fold {fold} for one; give "
            "each seed's folder once"
        )
    return replace(predictions, clips=clips).at(sorted(range(len(keys)), key=keys.__getitem__))


def _below_corpus(path: str, corpus: str) -> str:
    """A path below the data folder without the corpus's own folder, wherever the data folder has one."""
    folder, _, rest = path.partition("/")
    customary = CORPORA[corpus].customary_folders if corpus in CORPORA else ()
    return rest if folder.lower() in {name.lower() for name in customary} else path


if __name__ == "__main__":
    main()
