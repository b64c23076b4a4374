"""Cross-validation: the runs that a protocol asks for, and what they come to together."""

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scipy.special import softmax

from .checkpoints import is_finished
from .corpora import Utterance, find_utterances
from .data import label_utterances
from .labels import label_scheme, nearest
from .metrics import MEASURES, fit_temperature
from .predictions import Predictions
from .reports import (
    class_table,
    confusion_picture,
    drawn_words,
    interval_words,
    protocol_words,
    reliability_picture,
    table,
    write_json,
)
from .run_files import CARD, CONFUSION, CV, METRICS, PREDICTIONS, REFUSED, RELIABILITY, REPORT, SETTINGS
from .settings import Settings, SettingsError, SplitSettings, load_settings
from .splits import FOLDS, SplitError, speaker_folds

COUNTED = re.compile(r"(random|speakers)-([1-9]\d*)")
ORIGIN = ("speaker_disjoint", "speaker_disjoint_because")  # in metrics.json; the second of a run with a base model
SUMMARISED = MEASURES | {"ece": "ECE", "log_loss": "log loss"}


def fold_settings(settings: Settings, protocol: str, data_dir: str | Path) -> list[Settings]:
    """The settings of each run.

    Args:
        settings: what all runs share; its split gives the validation part, and for random splits the test share.
        protocol: one of `splits.FOLDS`, a run a fold; "speakers-5", five folds that share out the data's own speakers,
            whatever the seed, see `splits.speaker_folds`; or "random-5", five random splits, where the seeds of network
            and split count up from those of `settings`.
        data_dir: the folder that holds the corpora.

    Raises:
        SettingsError: an unknown protocol, or settings that cannot serve for every run.
        SplitError: the corpora lack a speaker that the protocol tests, or hold one's songs; or they have too few
            speakers for so many folds, or do not name them.
        CorpusError, LabelError: see `find_utterances` and `label_scheme`.
    """
    if settings.training.push_to_hub:
        raise SettingsError(
            "training.push_to_hub pushes one model, --cv trains one a fold; take it out, and push the one you choose "
            "with python -m ser_model push"
        )
    if protocol in FOLDS:
        _check_speakers(settings, protocol, data_dir)
        own = {"kind": "published", "name": protocol}
        own |= {"validation": settings.split.validation, "seed": settings.split.seed}
        splits = [SplitSettings(**own, fold=number) for number in range(1, len(FOLDS[protocol]) + 1)]
        return [settings.model_copy(update={"split": split}) for split in splits]
    match = COUNTED.fullmatch(protocol)
    if not match:
        hint = nearest(protocol, FOLDS)
        raise SettingsError(
            f"--cv {protocol} is unknown{hint}; known: {', '.join(FOLDS)}, and speakers-5, random-5 or the like"
        )
    kind, count = match[1], int(match[2])
    if count < 2:
        raise SettingsError(f"--cv {protocol} is a single run; ask for at least {kind}-2, or leave --cv out")
    if kind == "speakers":
        if isinstance(settings.split.validation, list):
            raise SettingsError(
                f"--cv {protocol} tests every speaker in one fold or another, so split.validation cannot name any; "
                "give a share: --split.validation 0.15"
            )
        scan = find_utterances(data_dir, settings.data.corpora)
        own = label_utterances(scan.utterances, label_scheme(settings.labels))
        folds = speaker_folds(own.utterances, own.labels, count, seed=0)  # for every seed alike: runs can be joined
        validation = _validation_amount(settings.split.validation, own.utterances)
        drawn = {"validation": validation, "seed": settings.split.seed}
        splits = [SplitSettings(test=list(tested), **drawn) for tested in folds]
        return [settings.model_copy(update={"split": split}) for split in splits]
    if not (isinstance(settings.split.test, float) and isinstance(settings.split.validation, float)):
        raise SettingsError(
            f"--cv {protocol} draws clips, but split.test or split.validation names or counts speakers; give shares: "
            "--split.test 0.2 --split.validation 0.1"
        )
    shares = {"kind": "random", "test": settings.split.test, "validation": settings.split.validation}
    first = settings.split.seed
    runs = []
    for run in range(count):
        split = SplitSettings(**shares, seed=None if first is None else first + run)
        runs.append(settings.model_copy(update={"split": split, "seed": settings.seed + run}))
    return runs


def _validation_amount(wanted: float | int, utterances: Sequence[Utterance]) -> float | int:
    """What is wanted; a speaker of each corpus where such a share of them would be nobody at all."""
    speakers = Counter(corpus for corpus, _ in {(own.corpus, own.speaker) for own in utterances})
    shared = isinstance(wanted, float) and any(round(wanted * count) for count in speakers.values())
    return wanted if shared or isinstance(wanted, int) else 1


def _check_speakers(settings: Settings, protocol: str, data_dir: str | Path) -> None:
    tested = {speaker for fold in FOLDS[protocol] for speaker in fold}
    if isinstance(settings.split.validation, list) and (named := tested & set(settings.split.validation)):
        raise SettingsError(
            f"--cv {protocol} tests {', '.join(sorted(named))} in one fold or another, so split.validation cannot name "
            "them; give a share: --split.validation 0.15"
        )
    own = [clip for clip in find_utterances(data_dir, settings.data.corpora).utterances if clip.speaker in tested]
    if absent := sorted(tested - {clip.speaker for clip in own}):
        corpus = absent[0].split("-")[0]
        raise SplitError(
            f"--cv {protocol} tests {len(tested)} speakers, of whom {len(absent)} are not in the data, {absent[0]} for "
            f"one; add {corpus} to data.corpora, and the whole of it to the data folder"
        )
    if sung := [clip for clip in own if clip.channel != "speech"]:
        raise SplitError(
            f"--cv {protocol} tests speech, but the corpora bring {len(sung)} clips of its speakers' {sung[0].channel} "
            "too; leave that out of the corpus's channels, or the figure compares with nobody's"
        )


def summarise(protocol: str, run_dirs: Sequence[Path], output_dir: Path) -> dict:
    """What finished runs come to: mean and standard deviation over them, and all their test clips pooled.

    Writes cv.json, which is also returned, README.md, predictions.csv, a classification report and pictures.
    """
    runs = [json.loads((folder / METRICS).read_text(encoding="utf-8")) for folder in run_dirs]
    predictions = Predictions.pooled([Predictions.read(folder / PREDICTIONS) for folder in run_dirs])
    predictions.write(output_dir / PREDICTIONS)
    (output_dir / REPORT).write_text(predictions.report(), encoding="utf-8")
    told = ("seed", "split_hash", "speaker_disjoint", "best_epoch", "temperature", "train_seconds")
    told += (REFUSED,) if REFUSED in runs[0] else ()
    summary = {
        "settings": runs[0]["settings"],
        "protocol": protocol,
        **least_told(runs),
        **mean_and_sd([run["test"] for run in runs]),
        "folds": [
            {"fold": number, **{key: run[key] for key in told}}
            | {"test": {key: run["test"][key] for key in ("count", *SUMMARISED)}}
            for number, run in enumerate(runs, start=1)
        ],
        "pooled": predictions.figures(),
    }
    confusion_picture(summary["pooled"]["confusion_matrix"], predictions.names, output_dir / CONFUSION)
    reliability_picture(summary["pooled"]["reliability"], output_dir / RELIABILITY)
    (output_dir / CARD).write_text(report(summary, predictions.names), encoding="utf-8")
    write_json(summary, output_dir / CV)
    return summary


def least_told(runs: Sequence[Mapping]) -> dict:
    """ORIGIN of the run of which least can be said: whose speakers were heard, else where nobody can tell."""
    least = min(runs, key=lambda run: (False, None, True).index(run["speaker_disjoint"]))
    return {key: least[key] for key in ORIGIN if key in least}


def mean_and_sd(tests: Sequence[Mapping]) -> dict[str, dict[str, float]]:
    """Over folds, whose figures are given, of each one that is SUMMARISED."""
    figures = {key: [test[key] for test in tests] for key in SUMMARISED}
    return {
        "mean": {key: round(float(np.mean(values)), 5) for key, values in figures.items()},
        "sd": {key: round(float(np.std(values, ddof=1)), 5) for key, values in figures.items()},
    }


@dataclass(frozen=True)
class Judgement:
    """What a finished cross-validation says of a model of the same recipe that is trained on everything.

    summary: its cv.json.
    origin: whether its test speakers were new to the models, and why; of the fold of which least can be said.
    predictions: of all its test clips, each by a model that had not heard it, `cross_calibrated`.
    temperature: calibrates the model's logits; fitted on those answers, of all folds.
    refused: the mean share of a fold's training voices that its model calls unlike them; None without that score.
    """

    summary: dict
    origin: dict
    predictions: Predictions
    temperature: float
    refused: float | None


def after_all(settings: Settings) -> Settings:
    """The settings of a run that trains on everything: those of the folds, but for the kind of split. Its shares stay,
    so that `fold_settings` makes the same folds again of the settings beside the model.

    Raises:
        SettingsError: the folds' epochs were chosen on validation clips, of which such a run has none.
    """
    if settings.training.keep != "last":
        raise SettingsError(
            "a run that trains on everything has no clips to choose an epoch by; set training.keep: last, for the "
            "cross-validation too"
        )
    if settings.training.schedule == "plateau":
        raise SettingsError("training.schedule is plateau, which waits for validation clips; take another one")
    own = settings.split
    split = SplitSettings(kind="all", test=own.test, validation=own.validation, seed=own.seed)
    return settings.model_copy(update={"split": split})


def judgement(folder: Path, settings: Settings) -> Judgement:
    """Of the cross-validation in `folder`, which must have been run with `settings` but for split and seed.

    Raises:
        SettingsError: it is unfinished.
        CheckpointError: it was run with other settings.
        PredictionsError: its answers cannot be read.
    """
    try:
        summary = json.loads((folder / CV).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SettingsError(
            f"{folder} holds no finished cross-validation ({error}); run train.py --cv first"
        ) from error
    runs = []
    for number in range(1, len(summary["folds"]) + 1):
        fold = folder / f"fold-{number}"
        own = load_settings(fold / SETTINGS)
        alike = settings.model_copy(update={"seed": own.seed, "split": own.split})
        if not is_finished(fold, alike, resume=True, overwrite=False):
            raise SettingsError(f"{fold} is not finished; run train.py --cv {summary['protocol']} to its end first")
        runs.append(json.loads((fold / METRICS).read_text(encoding="utf-8")))
    predictions = Predictions.read(folder / PREDICTIONS)
    temperature = fit_temperature(predictions.logits(), predictions.labels)
    return Judgement(summary, least_told(runs), cross_calibrated(predictions), temperature, refused_share(summary))


def refused_share(summary: Mapping) -> float | None:
    """The mean share of a fold's training voices that its model calls unlike them; None without that score."""
    folds = summary.get("folds", [])
    shares = [fold[REFUSED] for fold in folds if REFUSED in fold]
    return float(np.mean(shares)) if shares else None


def cross_calibrated(predictions: Predictions) -> Predictions:
    """Each fold's answers with the temperature that fits those of the other folds, in place of its own; in their order.

    A model that trains on everything has its temperature from all folds: so this is how well calibrated it will be. A
    fold's own was fitted on its validation part, which may be two speakers.
    """
    folds, temperatures = predictions.parted("fold"), {}
    for fold in folds:
        others = Predictions.joined([other for name, other in folds.items() if name != fold])
        temperatures[fold] = fit_temperature(others.logits(), others.labels)
    clips = [clip | {"temperature": temperatures[str(clip["fold"])]} for clip in predictions.clips]
    divisors = np.array([clip["temperature"] for clip in clips])[:, None]
    return replace(predictions, clips=clips, probabilities=softmax(predictions.logits() / divisors, axis=1))


def headline(summary: dict) -> str:
    """The line for the terminal: mean and spread, and how sure the mean is."""
    spread = ", ".join(f"{SUMMARISED[key]} {_spread(summary, key)}" for key in ("uar", "accuracy", "f1_weighted"))
    interval = summary["pooled"]["interval"]
    low, high = interval["uar"]
    return (
        f"{summary['protocol']}, {len(summary['folds'])} folds, {protocol_words(summary)}: {spread} (mean ± standard "
        f"deviation over folds); pooled UAR {summary['pooled']['uar']:.3f}, 95 % interval over "
        f"{drawn_words(interval)} {low:.3f} to {high:.3f}"
    )


def report(summary: dict, names: Sequence[str]) -> str:
    """README.md of a cross-validation."""
    pooled = summary["pooled"]
    rows = []
    for fold in summary["folds"]:
        figures = [f"{fold['test'][key]:.3f}" for key in SUMMARISED]
        rows.append([f"[{fold['fold']}](fold-{fold['fold']}/README.md)", str(fold["test"]["count"]), *figures])
        rows[-1] += [str(fold["seed"]), fold["split_hash"][:12]]
    rows.append(["mean ± standard deviation", "", *(_spread(summary, key) for key in SUMMARISED), "", ""])
    rows.append(["all clips pooled", str(pooled["count"]), *(f"{pooled[key]:.3f}" for key in SUMMARISED), "", ""])
    return "\n".join(
        [
            f"# {summary['settings']}: {summary['protocol']}, {len(summary['folds'])} folds\n",
            f"Tested on {protocol_words(summary)}.\n",
            table(["fold", "clips", *SUMMARISED.values(), "seed", "split"], rows),
            interval_words(pooled["interval"]) + "\n",
            "Each emotion, pooled:\n",
            class_table({"test": pooled}, names),
            f"![Confusion matrix, all folds: rows are true, columns are answered]({CONFUSION})\n",
            f"![Accuracy over confidence, all folds; on the dashed line they agree]({RELIABILITY})\n",
            "Every figure is in `cv.json`, every answer in `predictions.csv`, each run in its own folder.\n",
        ]
    )


def _spread(summary: dict, key: str) -> str:
    return f"{summary['mean'][key]:.3f} ± {summary['sd'][key]:.3f}"
