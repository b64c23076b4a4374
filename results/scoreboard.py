"""docs/results.md and its pictures, from the files under results/ alone: python -m results.scoreboard"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

import numpy as np

from ser_model.conditions import CONDITIONS
from ser_model.crossvalidation import cross_calibrated
from ser_model.metrics import MEASURES, PRECISION, coverage_at_precision, emotion_metrics, expected_calibration_error
from ser_model.predictions import GROUPS, Predictions, PredictionsError
from ser_model.reports import FEW_SPEAKERS, class_table, confusion_picture, never_right, reliability_picture, table
from ser_model.splits import FOLDS

from .protocols import (
    RESULTS,
    Heard,
    Protocol,
    ResultsError,
    load_ablations,
    load_protocols,
    load_runs,
    predictions_file,
)

DOCS = Path(__file__).resolve().parent.parent / "docs"
PICTURES = "results"  # below the folder of results.md
NOT_RUN = "not run yet"
NOISE = (
    "Trials on folds 5 and 6 are of one seed on eight actors: differences below 0.02 are noise, in what was kept as in "
    "what was dropped.\n"
)

HEAD = f"""\
# Results

Made by `make results` from the files under `results/` alone; do not edit. Each line of
`results/predictions/<protocol>.<model>.csv.gz` is a clip of a test part and what was answered; `make reproduce
PROTOCOL=<protocol> DATA=<folder>` trains those models again and writes that file anew.

**Random splits flatter.** They share voices, sentences and takes between training and test: such a figure compares with
others made so, and says little of a new voice. Voices never heard are what a visitor brings, and sentences never heard,
which nothing here tests: all actors of RAVDESS say the same two, both actresses of TESS the same words.

A figure of ours is the mean over seeds ± their standard deviation, each seed's the mean over its folds; of a random
protocol each split, and each network where a split has several, is a seed of its own. The interval (95 %) says how far
that mean would move with other speakers: all clips of a speaker are drawn together, with the answers of all seeds, and
of each corpus as many speakers as it has; the trained models stay as they are, and a fold may get none of its speakers
or one twice, which widens it a little.
Below {FEW_SPEAKERS} speakers it comes out too narrow, and of two its ends are their two figures.
UAR is the unweighted average recall, alias UA or balanced accuracy. Temperatures, and epochs where one was chosen, are
those of validation clips. Most trials of the recipe used two folds, so a model's figure on the others has a row of its
own; its first draft and the size of the network come from a trial on all six, and some later ones used all six, as the
table of trials says. Where a recipe was changed after it had been tested, its row gives the first figure too.
A row in which two neutral clips of each speaker are known takes a personal baseline off (`results/enrolment.py`). These
two clips are scored neither in that row nor in the one below; the other neutral clips say the same two sentences, which
flatters their recall. All other emotions together lose 0.7 to 2.2 points of recall by it, with every seed.
Our copies of the corpora are 16 kHz mono: each song ends after 2.39 s, and three are missing; TESS lacks
`OAF_back_angry` and `YAF_beg_sad`. With whole songs, ravdess-8, ravdess-8-without-sad and ravdess-tess-8 come out
otherwise.
Coverage at {PRECISION:.0%} precision is the share of clips that could be answered, the surest first, with so many
right; the confidence that parts them is found on these very clips.
Of our networks `cnn` has 0.7 million parameters, `deep_cnn` 10.9 and `resnet18` 11.2.
"""


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m results.scoreboard", description=__doc__)
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="DIR", help="tables and predictions")
    parser.add_argument("--docs", type=Path, default=DOCS, metavar="DIR", help="where results.md and its pictures go")
    args = parser.parse_args(arguments)
    try:
        write_results(args.results, args.docs)
    except (ResultsError, PredictionsError) as error:
        sys.exit(f"results: {error}")


def write_results(results_dir: Path, docs_dir: Path) -> None:
    """Write results.md, and pictures of every model with predictions; in the end all others there are deleted.

    Raises:
        ResultsError: a table that cannot be read, or predictions that are not what their protocol says.
        PredictionsError: a file that holds no predictions.
    """
    protocols = load_protocols(results_dir)
    check_files(results_dir, protocols)
    found, enrolled = (
        {
            (name, model): load_predictions(results_dir, name, protocol, model, heard)
            for name, protocol in protocols.items()
            for model in protocol.answering
            if predictions_file(results_dir, name, model, heard).is_file()
        }
        for heard in ("", "enrolled")
    )
    pictures = docs_dir / PICTURES
    pictures.mkdir(parents=True, exist_ok=True)
    ours = {name: scores(name, protocol, found, enrolled) for name, protocol in protocols.items()}
    parts = [HEAD, "## Scoreboard\n", overview(protocols, ours)]
    parts += ["## The same recipe on known and on unknown voices\n", twins_table(protocols, found)]
    parts += ["## Under test conditions\n", conditions_tables(results_dir, protocols, found)]
    for name, protocol in protocols.items():
        state = "Trained by" if ours[name] else "Not run yet; trained by"
        parts.append(f"## {name}\n\n{protocol.title}; {voices(protocol)}. {state} `make reproduce PROTOCOL={name}`.\n")
        parts.append(protocol_table(protocol, ours[name]))
        for model in protocol.answering:
            if (name, model) in found:
                parts.append(details(name, protocol, model, found[name, model], pictures))
    parts += ["## What was tried\n", ablation_table(results_dir)]
    parts += ["## What it took\n", runs_table(results_dir, protocols)]
    (docs_dir / "results.md").write_text("\n".join(parts), encoding="utf-8")
    drawn = {f"{name}.{model}.{kind}" for name, model in found for kind in ("confusion", "reliability")}
    for picture in (*pictures.glob("*.png"), *pictures.glob("*.svg")):
        if picture.stem not in drawn:
            picture.unlink()


# ── What the files hold ──


def check_files(results_dir: Path, protocols: dict[str, Protocol]) -> None:
    """ResultsError where a file of predictions belongs to nothing in the table."""
    known = {
        predictions_file(results_dir, name, model, heard)
        for name, protocol in protocols.items()
        for model in protocol.answering
        for heard in get_args(Heard)
    }
    if strays := sorted(set((results_dir / "predictions").glob("*")) - known):
        raise ResultsError(
            f"{strays[0]} belongs to no model of protocols.yaml; name it <protocol>.<model>.csv.gz, or delete it"
        )


def load_predictions(results_dir: Path, name: str, protocol: Protocol, model: str, heard: Heard = "") -> Predictions:
    """Checked: every seed has its folds and answers what others do, every network of a random split what the others of
    that split do, every fold tests whom the protocol says, no clip counts twice.

    Raises:
        ResultsError: one of these is not so.
        PredictionsError: see `Predictions.read`.
    """
    path = predictions_file(results_dir, name, model, heard)
    predictions = Predictions.read(path)
    for alike in alike_in_clips(protocol, predictions):
        first, *others = ({_key(clip) for clip in own.clips} for own in alike.values())
        if any(other != first for other in others):
            raise ResultsError(f"{path}: its seeds do not answer the same clips; collect it anew")
    for condition, own in predictions.parted("condition").items():
        if (condition in CONDITIONS) != (heard == "conditions"):
            raise ResultsError(f"{path} holds clips under {condition}; collect it anew")
        for group in (group for alike in alike_in_clips(protocol, own) for group in alike.values()):
            paths = [(clip["corpus"], clip["path"]) for clip in group.clips]
            if len(set(paths)) < len(paths):
                raise ResultsError(f"{path} counts clips twice under {condition}; collect it anew")
            if protocol.cv in FOLDS:
                _check_folds(path, protocol.cv, group)
        if not protocol.unseen and len(own.parted("fold")) != protocol.folds:
            raise ResultsError(f"{path} holds {len(own.parted('fold'))} splits; --cv {protocol.cv} makes others")
    return predictions


def alike_in_clips(protocol: Protocol, predictions: Predictions) -> list[dict[str, Predictions]]:
    """By seed, those that are tested on the same clips: all of them, or the networks of each random split."""
    parts = [predictions] if protocol.unseen else predictions.parted("fold").values()
    return [dict(sorted(part.parted("seed").items(), key=lambda own: int(own[0]))) for part in parts]


def _key(clip: Mapping) -> tuple[str, ...]:
    """What tells a clip from the others of its seed."""
    return clip["condition"], clip["fold"], clip["corpus"], clip["path"]


def _check_folds(path: Path, cv: str, seed: Predictions) -> None:
    tested = {fold: {clip["speaker"] for clip in own.clips} for fold, own in seed.parted("fold").items()}
    wanted = {str(number): set(speakers) for number, speakers in enumerate(FOLDS[cv], start=1)}
    if tested != wanted:
        raise ResultsError(f"{path}: the folds of a seed do not test the speakers of {cv}; collect it anew")


def over_seeds(predictions: Predictions) -> dict[str, list[float]]:
    """Each of MEASURES: a figure a seed, the mean over its folds."""
    figures = {key: [] for key in MEASURES}
    for seed in predictions.parted("seed").values():
        folds = [emotion_metrics(fold.shares(), fold.labels, fold.names) for fold in seed.parted("fold").values()]
        for key, values in figures.items():
            values.append(float(np.mean([fold[key] for fold in folds])))
    return figures


def calibration(predictions: Predictions) -> dict[str, list[float]]:
    """A figure a seed, over all its clips: ECE, with each fold's own temperature and with that of the others where
    there are any, and coverage at PRECISION. The splits of a random protocol are each other's folds.
    """
    seeds = predictions.parted("seed").values()
    folds = min(len(seed.parted("fold")) for seed in seeds)
    together = list(seeds) if folds > 1 else [predictions] if len(predictions.parted("fold")) > 1 else []
    return {
        "ece": [expected_calibration_error(seed.shares(), seed.labels) for seed in seeds],
        "ece_across": [expected_calibration_error(cross_calibrated(own).shares(), own.labels) for own in together],
        "coverage": [coverage_at_precision(seed.shares(), seed.labels, PRECISION) for seed in seeds],
    }


def ensemble(members: Sequence[Predictions]) -> Predictions:
    """The mean of the members' probabilities, clip by clip; a member's are the mean over its seeds.

    Raises:
        PredictionsError: not every seed answers every clip, or the members' labels differ.
    """
    first = next(iter(members[0].parted("seed").values()))
    seeds = [member.parted("seed").values() for member in members]
    means = [np.mean([seed.like(first).shares() for seed in own], axis=0) for own in seeds]
    return replace(first, probabilities=np.mean(means, axis=0))


def ensemble_by_split(members: Sequence[Predictions]) -> Predictions:
    """The same on a random protocol: the answers of each split's networks are averaged on their own.

    Raises:
        ResultsError: the members have other splits, or other clips in them.
        PredictionsError: their labels differ.
    """
    splits = [member.parted("fold") for member in members]
    if any(own.keys() != splits[0].keys() for own in splits):
        raise ResultsError("an ensemble needs answers of every member to every split; finish their runs")
    return Predictions.joined([ensemble([own[split] for own in splits]) for split in splits[0]])


# ── Tables ──


def spread(values: Sequence[float], scale: float = 1, decimals: int = 3) -> str:
    """ "0.700 ± 0.012"; of one seed the figure alone."""
    mean = f"{scale * np.mean(values):.{decimals}f}"
    return mean if len(values) < 2 else f"{mean} ± {scale * np.std(values, ddof=1):.{decimals}f}"


def voices(protocol: Protocol) -> str:
    return "**voices never heard**" if protocol.unseen else "random split, voices known"


@dataclass(frozen=True)
class Score:
    """Ours on a protocol: a figure a seed of each of MEASURES, and the interval of their mean.

    `runs` says what they are the mean of; `whole` is False where others' figures are of more clips than these.
    """

    label: str
    runs: str
    figures: dict[str, list[float]]
    interval: dict
    whole: bool = True

    @classmethod
    def of(cls, label: str, runs: str, predictions: Predictions, whole: bool = True) -> "Score":
        return cls(label, runs, over_seeds(predictions), predictions.interval(of_runs=True), whole)

    def ends(self, measure: str) -> str:
        """ "0.610 to 0.680", where there are speakers to draw."""
        low, high = self.interval[measure]
        return f"{low:.3f} to {high:.3f}" if self.interval["resampled"] == "speakers" else ""


def scores(
    name: str,
    protocol: Protocol,
    found: dict[tuple[str, str], Predictions],
    enrolled: dict[tuple[str, str], Predictions],
) -> list[Score]:
    """Of every model with predictions; where there are several corpora, of each one's clips too; where speakers are
    enrolled, with and without; of ensembles, and of seeds that are joined to one model.
    """
    ours = []
    for model in protocol.answering:
        if (name, model) not in found:
            continue
        runs = run_words(protocol, found[name, model])
        before = protocol.first_tested.get(model)
        changed = "" if before is None else f", its recipe changed after a first test of {before:.3f}"
        ours.append(Score.of(f"{model}{changed}", runs, found[name, model]))
        corpora = found[name, model].parted("corpus")
        if len(corpora) > 1:
            ours += [Score.of(f"{model}, {corpus} clips alone", runs, own, False) for corpus, own in corpora.items()]
        if protocol.developed_on and model in protocol.models:
            folds = found[name, model].parted("fold").items()
            untouched = {fold: own for fold, own in folds if int(fold) not in protocol.developed_on}
            label = f"{model}, folds {', '.join(untouched)} alone, which most of the trials below did not use"
            ours.append(Score.of(label, runs, Predictions.joined(list(untouched.values())), False))
        if (name, model) in enrolled:
            known, unknown = enrolled[name, model], only_clips_of(found[name, model], enrolled[name, model])
            ours.append(Score.of(f"{model}, two neutral clips of each speaker known", runs, known, False))
            ours.append(Score.of(f"{model}, the same clips without these", runs, unknown, False))
    for label, models in protocol.ensembles.items():
        members = [found[name, model] for model in models if (name, model) in found]
        if len(members) == len(models) and sum(len(own.parted("seed")) for own in members) > 1:
            averaged = ensemble(members) if protocol.unseen else ensemble_by_split(members)
            ours.append(Score.of(f"ensemble: {label}", "probabilities averaged", averaged))
    for model, numbers in protocol.joined.items():
        alike = alike_in_clips(protocol, found[name, model]) if (name, model) in found else [{}]
        for number in (number for number in numbers if number <= min(map(len, alike))):
            members = [list(own.values())[:number] for own in alike]
            runs = run_words(protocol, Predictions.joined([one for own in members for one in own]))
            label = f"{model}, {number} {'seeds' if protocol.unseen else 'networks a split'} as one model"
            averaged = Predictions.joined([Predictions.averaged(own) for own in members])
            ours.append(Score.of(label, f"logits averaged, {runs}", averaged))
    return ours


def only_clips_of(predictions: Predictions, others: Predictions) -> Predictions:
    """Those of the clips that the others are of as well; ResultsError if the others have more."""

    def keys(own: Predictions) -> list[tuple]:
        return [(clip["seed"], *_key(clip)) for clip in own.clips]

    wanted = set(keys(others))
    rows = [row for row, key in enumerate(keys(predictions)) if key in wanted]
    if len(rows) != len(wanted):
        raise ResultsError(f"{len(wanted) - len(rows)} clips are answered with a personal baseline alone; collect anew")
    return predictions.at(rows)


def run_words(protocol: Protocol, predictions: Predictions) -> str:
    """ "5 splits", "2 networks of each of 5 splits", "seeds 0, 1, 2 of 6 folds each" """
    seeds = predictions.parted("seed")
    if not protocol.unseen:
        splits = len(predictions.parted("fold"))
        if len(seeds) > splits:
            return f"{len(seeds) // splits} networks of each of {splits} splits"
        return f"{splits} splits" if splits > 1 else "one split"
    words = f"seed{'s' * (len(seeds) > 1)} {', '.join(seeds)}"
    return f"{words} of {protocol.folds} folds each" if protocol.cv else words


def overview(protocols: dict[str, Protocol], ours: dict[str, list[Score]]) -> str:
    """A row a protocol and model, by the measure that the protocol is known for."""
    rows = []
    for name, protocol in protocols.items():
        measure = protocol.measures[0]
        others = [other.figures[measure] for other in protocol.others if measure in other.figures]
        best = f"{max(others):.3f}" if others else ""
        start = [f"[{name}](#{name})", voices(protocol), MEASURES[measure]]
        for score in ours[name]:
            own = [score.label, spread(score.figures[measure]), score.ends(measure), str(score.interval["speakers"])]
            rows.append([*start, best if score.whole else "", *own])
        if not ours[name]:
            rows.append([*start, best, "", NOT_RUN, "", ""])
    header = ["protocol", "tested on", "measure", "best of others", "model", "ours", "95 % interval", "speakers"]
    return table(header, rows)


def protocol_table(protocol: Protocol, ours: list[Score]) -> str:
    """Others' figures with their sources, and ours with interval and number of runs."""
    rows = []
    for other in protocol.others:
        figures = [f"{other.figures[key]:.3f}" if key in other.figures else "" for key in protocol.measures]
        rows.append([other.model, *figures, "", "", other.source])
    for score in ours:
        figures = [spread(score.figures[key]) for key in protocol.measures]
        end = [score.ends(protocol.measures[0]), str(score.interval["speakers"]), f"ours, {score.runs}"]
        rows.append([f"**{score.label}**", *figures, *end])
    first, *_ = named = [MEASURES[key] for key in protocol.measures]
    return table(["model", *named, f"95 % interval of {first}", "speakers", "source"], rows)


def twins_table(protocols: dict[str, Protocol], found: dict[tuple[str, str], Predictions]) -> str:
    """Configs that are run on a random split and on unseen speakers alike."""
    rows = []
    for known, unknown in twins(protocols):
        uar = [spread(over_seeds(found[one])["uar"]) if one in found else NOT_RUN for one in (known, unknown)]
        rows.append([f"{unknown[1]}, `{protocols[unknown[0]].models[unknown[1]]}`", *uar])
    return table(["model", "UAR, random split", "UAR, voices never heard"], rows)


def twins(protocols: dict[str, Protocol]) -> list[tuple[tuple[str, str], tuple[str, str]]]:
    """(random protocol, model) and (speaker-disjoint protocol, model) of one config."""
    runs = [(name, model, config) for name, own in protocols.items() for model, config in own.models.items()]
    return [
        ((known, model), (unknown, other))
        for known, model, config in runs
        for unknown, other, same in runs
        if config == same and not protocols[known].unseen and protocols[unknown].unseen
    ]


def conditions_tables(
    results_dir: Path, protocols: dict[str, Protocol], found: dict[tuple[str, str], Predictions]
) -> str:
    """UAR lost against the same clips, heard by the same models as they were recorded."""
    text = [
        "The same models, not trained again, hear the same clips as `ser_model/conditions.py` distorts them. Almost "
        "half of the noise's power lies below 20 Hz: what is heard of it is some 3 dB weaker than its name says.\n"
    ]
    for name, protocol in protocols.items():
        for model in protocol.models if protocol.conditions else ():
            file = predictions_file(results_dir, name, model, "conditions")
            if not file.is_file() or (name, model) not in found:
                text.append(f"`{name}`, {model}: {NOT_RUN}.\n")
                continue
            heard = load_predictions(results_dir, name, protocol, model, "conditions")
            rows = _losses(file, heard.parted("condition"), found[name, model])
            text += [f"`{name}`, {model}:\n", table(["condition", "UAR", "points lost"], rows)]
    return "\n".join(text)


def _losses(file: Path, heard: dict[str, Predictions], clean: Predictions) -> list[list[str]]:
    clean_seeds, tested = clean.parted("seed"), set()
    recalls = {seed: over_seeds(own)["uar"][0] for seed, own in clean_seeds.items()}
    rows = []
    for condition in CONDITIONS:
        if condition not in heard:  # one that was thought of after these models were trained
            rows.append([condition, NOT_RUN, ""])
            continue
        seeds = heard[condition].parted("seed")
        for seed, own in seeds.items():
            if seed not in clean_seeds or not _same_clips(own, clean_seeds[seed]):
                raise ResultsError(f"{file}: seed {seed} has other clips than without conditions; collect both anew")
        tested |= seeds.keys()
        after = over_seeds(heard[condition])["uar"]
        lost = [recalls[seed] - uar for seed, uar in zip(seeds, after, strict=True)]
        rows.append([condition, spread(after), spread(lost, 100, 1)])
    return [["clean", spread([uar for seed, uar in recalls.items() if seed in tested]), ""], *rows]


def _same_clips(one: Predictions, other: Predictions) -> bool:
    first, second = ({(clip["corpus"], clip["path"], clip["fold"]) for clip in own.clips} for own in (one, other))
    return first == second


def details(name: str, protocol: Protocol, model: str, predictions: Predictions, pictures: Path) -> str:
    """Emotions, groups, speakers, confusions and calibration of one model; draws its pictures."""
    figures = predictions.figures()
    sure = calibration(predictions)
    stem = f"{name}.{model}"
    confusion_picture(figures["confusion_matrix"], predictions.names, pictures / f"{stem}.confusion.png")
    reliability_picture(figures["reliability"], pictures / f"{stem}.reliability.png")
    counted = f"{figures['count']} answers, {run_words(protocol, predictions)}, all counted together"
    across = sure["ece_across"]
    groups = [
        [f"{key}: {group}", str(own["count"]), f"{own['uar']:.3f}", f"{own['accuracy']:.3f}"]
        for key in GROUPS
        for group, own in figures[f"by_{key}"].items()
    ]
    parts = [
        f"### {name}, {model}\n",
        f"{counted}.\n",
        f"ECE {spread(sure['ece'])}"
        + (f", {spread(across)} {others_temperature(protocol)}" if across else "")
        + f"; coverage at {PRECISION:.0%} precision {spread(sure['coverage'])}.\n",
        class_table({"test": figures}, predictions.names),
        *never_right(figures),
        table(["group", "clips", "UAR", "accuracy"], groups),
        f"![Confusion matrix of {stem}: rows are true, columns are answered]({PICTURES}/{stem}.confusion.svg)",
        f"![Accuracy over confidence of {stem}; on the dashed line they agree]({PICTURES}/{stem}.reliability.svg)\n",
    ]
    if protocol.unseen:
        rows = [
            [speaker, str(own["count"]), f"{own['uar']:.3f}", f"{own['accuracy']:.3f}"]
            for speaker, own in predictions.by("speaker").items()
        ]
        parts.append(table(["speaker", "clips", "UAR", "accuracy"], rows))
    return "\n".join(parts)


def others_temperature(protocol: Protocol) -> str:
    if protocol.unseen:
        return "where each fold has its temperature from the answers of the others"
    return "over all splits together, where each has its temperature from the answers of the others"


def ablation_table(results_dir: Path) -> str:
    rows = [
        [one.tried, one.against, one.measured_on, f"{one.before:.3f}", f"{one.after:.3f}", one.verdict]
        for one in load_ablations(results_dir)
    ]
    header = ["tried", "against", "measured on", "without", "with", "verdict"]
    return f"{NOISE}\n{table(header, rows)}" if rows else "Nothing is recorded yet.\n"


def runs_table(results_dir: Path, protocols: dict[str, Protocol]) -> str:
    rows = []
    for run in load_runs(results_dir):
        if run.protocol not in protocols or run.model not in protocols[run.protocol].answering:
            raise ResultsError(f"runs.yaml: {run.protocol}, {run.model} is none of protocols.yaml; mend the names")
        command = f"`make reproduce PROTOCOL={run.protocol} MODEL={run.model}`"
        rows.append([run.protocol, run.model, command, run.hardware, f"{run.hours:.2f}", run.commit])
    header = ["protocol", "model", "command", "hardware", "hours", "commit"]
    return table(header, rows) if rows else "Nothing is recorded yet.\n"


if __name__ == "__main__":
    main()
