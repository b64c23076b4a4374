"""What a run leaves to be read: the model card, written from the run's own figures, and its tables and pictures."""

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from huggingface_hub import EvalResult, ModelCardData
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from .corpora import CORPORA, Corpus
from .disk import write_whole
from .labels import LabelScheme
from .metrics import MEASURES, PRECISION, TEMPERATURES
from .predictions import GROUPS, Predictions
from .pretrained import is_halved
from .run_files import (
    CARD,
    CONFUSION,
    CURVES,
    HISTORY,
    LAST,
    METRICS,
    NAMELESS,
    PREDICTIONS,
    REFUSED,
    RELIABILITY,
    REPORT,
    SETTINGS,
    SHARED_SPEAKERS,
    SPLIT,
    UNSEEN_SPEAKERS,
    WEIGHTS,
)
from .settings import Settings, save_settings

CODE_LICENCE = "Apache-2.0"
FEW_CLIPS = 10  # of a bin: their share of right answers may be anything
FEW_SPEAKERS = 20  # below, an interval over speakers comes out too narrow; see metrics.speaker_intervals
DOTS_PER_INCH = 120  # sharp on a laptop at about 50 kB a picture
BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "#666666"  # Okabe & Ito's: told apart with any kind of colour vision
CONDITIONS_IN_WORDS = {  # those of conditions.py
    "noise_20db": "pink noise, 20 dB below the clip (above 20 Hz 23)",
    "noise_10db": "pink noise, 10 dB below the clip (above 20 Hz 13)",
    "noise_0db": "pink noise, as strong as the clip (above 20 Hz 3 dB below)",
    "telephone": "300 to 3400 Hz alone, without a telephone's codec",
    "small_room": "reverberation of 0.4 s, 3 dB below the direct sound",
    "mp3_32kbit": "MP3 of 32 kbit/s",
    "quiet_20db": "20 dB softer",
}

USE = f"""\
## How to use it

```python
import soundfile
from transformers import pipeline

classifier = pipeline("audio-classification", model="{NAMELESS}", trust_remote_code=True)
waveform, sampling_rate = soundfile.read("voice.wav", dtype="float32")  # mono, half a second or more
print(classifier({{"raw": waveform, "sampling_rate": sampling_rate}}))
```

The code of the network and of its feature extractor lies beside the weights; it needs Transformers 5.17 or newer. The
pipeline answers to anything, silence and music too. `EmotionRecognizer` in the package that trained the model
(`ser_model.inference`) listens for a voice first, reads every audio format, and refuses what is unlike the voices of
the training.

## What it is for, and what it must not be used for

It names the emotion that a voice expresses, as actors express it, for research, teaching and art. It must not be used
to judge people: not in hiring, medicine, insurance, education, policing or border control. How somebody sounds is not
how somebody feels.
"""
MEASURED = """\
Every clip was heard as a whole, and none refused. `EmotionRecognizer` and the page average windows of 4 s where a
recording is longer than 6 s, and give no answer to what they take for no voice or an unlike one.
"""
TESTED = {  # on whom, by `speaker_disjoint`
    True: "speakers that it had not heard",
    False: "clips of speakers that it knew",
    None: "clips of speakers of whom nobody can tell whether it knew them",
}
ACTED = "acted emotion: a few sentences, by a few dozen speakers, in quiet rooms"
LIMITS = """\
## Limits

It learnt from {learnt}. {voices} not everyone's: expect it to be wrong more often, and less aware of it, on other
languages, accents, ages, spontaneous or quiet emotion, noise and music. Figures on a random split share voices between
training and test and say little about a new voice.
"""


def write_run(
    folder: Path, settings: Settings, scheme: LabelScheme, results: dict, predictions: Predictions, split_manifest: dict
) -> None:
    """All that a finished run leaves beside its model; `metrics.json` comes last, and whole, for it says so.

    `results` are what `metrics.json` holds, `predictions` those of the test part.
    """
    for model_dir in (folder, folder / LAST):
        if not model_dir.is_dir():  # where the last epoch is the one that was kept
            continue
        (model_dir / SPLIT).write_text(json.dumps(split_manifest, indent=1), encoding="utf-8")
    save_settings(settings, folder / SETTINGS)
    predictions.write(folder / PREDICTIONS)
    (folder / REPORT).write_text(predictions.report(), encoding="utf-8")
    if "history" in results:  # a joined model has none of its own
        with open(folder / HISTORY, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, fieldnames=list(results["history"][0]))
            writer.writeheader()
            writer.writerows(results["history"])
    write_card(folder, settings, scheme, [results])
    write_json(results, folder / METRICS)


def write_json(content: dict, path: Path) -> None:
    """Under its name only when it is whole."""
    write_whole(path, json.dumps(content, indent=1).encode())


def write_card(
    folder: Path, settings: Settings, scheme: LabelScheme, results: list[dict], name: str | None = None
) -> None:
    """README.md of a model folder, and its pictures; the arguments are those of `model_card`."""
    test = results[0]["test"]
    confusion_picture(test["confusion_matrix"], scheme.names, folder / CONFUSION)
    if "reliability" in test:
        reliability_picture(test["reliability"], folder / RELIABILITY)
    if "history" in results[0]:
        curves_picture(results[0]["history"], results[0]["best_epoch"], folder / CURVES)
    if (folder / WEIGHTS).is_file() and is_halved(folder):
        results = [results[0] | {"halved": True}, *results[1:]]
    (folder / CARD).write_text(model_card(settings, scheme, results, name), encoding="utf-8")


def model_card(settings: Settings, scheme: LabelScheme, results: list[dict], name: str | None = None) -> str:
    """Text of README.md for a model folder, with metadata the Hub can read.

    Args:
        settings: the run's.
        scheme: its labels.
        results: its metrics.json, and after it those of other runs to report beside it.
        name: of the model; that of its settings if left out.
    """
    name = name or settings.name
    corpora = [CORPORA[entry["name"]] for entry in settings.data.corpora]
    result = results[0]
    described = f" ({scheme.description()})" if scheme.description() else ""
    parts = [
        f"---\n{metadata(settings, corpora, results, name).to_yaml()}\n---\n",
        f"# {name}: speech emotion recognition\n",
        f"{networks_words(settings, result)} over {' + '.join(feature_names(settings, result))} that tells "
        f"{', '.join(scheme.names)} apart{described}.\n",
        "## How good it is\n",
        figures_table(results),
        *([interval_words(result["test"]["interval"]) + "\n"] if "interval" in result["test"] else []),
        MEASURED,
        f"Each emotion, {protocol_words(result)}:\n",
        class_table(result, scheme.names),
        *never_right(result["test"]),
        f"![Confusion matrix: rows are true, columns are answered, with the share of the row]({CONFUSION})\n",
        f"Most often mistaken: {', '.join(mistakes(result, scheme.names)) or 'nothing'}.\n",
        calibration(result),
        *([conditions_table(result)] if "conditions" in result else []),
        "## Protocol\n",
        procedure(settings, result),
        recipe_words(settings),
        *([f"![Loss, UAR and learning rate over epochs]({CURVES})\n"] if "history" in result else []),
        "## Data and licences\n",
        *map(corpus_words, settings.data.corpora),
        "\n" + licences(corpora, result),
        USE,
        limits(corpora),
        "## How to make it again\n",
        "```bash",
        *commands(result),
        "```\n",
        making(settings, result),
    ]
    return "\n".join(parts)


def networks_words(settings: Settings, result: dict) -> str:
    """What answers: "A network of the kind `cnn`"; of several that were joined, how many."""
    network = result.get("network", {})  # of the model itself, which may come from a base model
    kind = f"of the kind `{network.get('backbone', settings.model.get('backbone', 'cnn'))}`"
    members = network.get("members", len(result.get("members", [1])))
    return f"A network {kind}" if members == 1 else f"A model of {members} networks {kind}, whose logits are averaged,"


def metadata(
    settings: Settings, corpora: Sequence[type[Corpus]], results: list[dict], name: str | None = None
) -> ModelCardData:
    """What the Hub shows and searches: licence, task, and a `model-index` with the figures of every protocol that
    this recipe was tested by.
    """
    licence = weights_licence(corpora, results[0].get("base_licence"))
    named = {"license_name": "as-the-data-demand"} if licence == "other" else {}  # the Hub wants a name for "other"
    evaluations = [
        EvalResult(
            task_type="audio-classification",
            task_name="Speech emotion recognition",
            dataset_type="-".join(result["test"]["by_corpus"]),
            dataset_name=f"{tested_titles(result)}, {protocol_words(result)}",
            dataset_config=f"{result['settings']}-{result['split_hash'][:12]}",  # what tells two results apart
            dataset_split="test",
            metric_type=metric,
            metric_name=figure_name,
            metric_value=result["test"][figure],
            metric_args=arguments,
        )
        for result in results
        if result["settings"] == results[0]["settings"]
        for figure, metric, figure_name, arguments in (
            ("uar", "recall", "Unweighted average recall", {"average": "macro"}),
            ("accuracy", "accuracy", "Accuracy", None),
        )
    ]
    return ModelCardData(
        language="en" if all(corpus.accent for corpus in corpora) else None,
        base_model=results[0].get("base_model"),
        license=licence,
        **named,
        library_name="transformers",
        pipeline_tag="audio-classification",
        tags=["audio-classification", "speech-emotion-recognition", *feature_names(settings, results[0])],
        metrics=["accuracy", "recall"],
        model_name=name or settings.name,
        eval_results=evaluations,
    )


def tested_titles(result: dict) -> str:
    """ "RAVDESS + TESS" """
    names = result["test"]["by_corpus"]
    return " + ".join(CORPORA[name].title if name in CORPORA else name for name in names)


def feature_names(settings: Settings, result: Mapping) -> list[str]:
    """As the extractor calls them."""
    features = result.get("network", {}).get("features", settings.features.get("features", "mfcc"))
    return [features] if isinstance(features, str) else list(features)


def demanded_licences(corpora: Sequence[type[Corpus]], base_licence: str | None = None) -> dict[str, str]:
    """Those that go over to the weights, from corpora and base model: in words -> the Hub's name."""
    of_base = {"its own" if base_licence == "other" else base_licence.upper(): base_licence} if base_licence else {}
    return of_base | {corpus.licence: corpus.imposes for corpus in corpora if corpus.imposes}


def weights_licence(corpora: Sequence[type[Corpus]], base_licence: str | None = None) -> str:
    """The Hub's name for it: the one that is demanded; "other" for none or several, all of which must be kept."""
    names = set(demanded_licences(corpora, base_licence).values())
    return names.pop() if len(names) == 1 else "other"


def licences(corpora: Sequence[type[Corpus]], result: dict) -> str:
    """Of weights and code, in words."""
    licence = weights_licence(corpora, result.get("base_licence"))
    demanded = demanded_licences(corpora, result.get("base_licence"))
    each = f": {'; '.join(demanded)}" if len(demanded) > 1 else ""
    if base := result.get("base_model"):
        inherited = licence.upper() if licence != "other" else f"as that model and the data above demand{each}"
        return f"Weights, which started from {base}: {inherited}. Code: {CODE_LICENCE}.\n"
    if licence == "other":
        return f"Weights: as the data above demand{each}. Code: {CODE_LICENCE}.\n"
    text = f"Weights: {licence.upper()}, as the corpora demand: no commercial use. Code: {CODE_LICENCE}.\n"
    if unchanged := [corpus.title for corpus in corpora if "ND" in corpus.licence]:
        text += f"{' and '.join(unchanged)} must not be passed on in a changed form; no recording is in this folder.\n"
    return text


def protocol_words(result: dict) -> str:
    """In words: is this figure about new voices, or about voices that training knew?"""
    if result["speaker_disjoint"]:
        return f"{UNSEEN_SPEAKERS}, cross-validated" if "cross_validation" in result else UNSEEN_SPEAKERS
    if is_random(result):
        return f"random split, {SHARED_SPEAKERS if names_speakers(result) else 'speakers not named'}"
    if result["speaker_disjoint"] is False and "speaker_disjoint_because" in result:
        return "speakers whom the base model had heard"
    return "speakers not known to be unseen"


def names_speakers(result: Mapping) -> bool:
    """Whether any clip that was tested names its speaker; of figures without an interval it is taken for granted."""
    tested = result.get("test", result.get("pooled", {}))
    return "speakers" in tested.get("interval", {"speakers": 0})


def is_random(result: Mapping) -> bool:
    """Whether speakers are shared on purpose: of a run, of one that was judged by others, or of a cross-validation."""
    protocol = result.get("cross_validation", result).get("protocol", "")
    return result.get("split") == "random" or protocol.startswith("random-")


def figures_table(results: list[dict]) -> str:
    """One row a part of the test set."""
    rows = ["| test part | clips | UAR | accuracy | weighted F1 | ECE |", "| --- | --- | --- | --- | --- | --- |"]
    for result in results:
        test, says = result["test"], protocol_words(result)
        if result["settings"] != results[0]["settings"]:
            says += f", by the recipe {result['settings']}"
        corpora = list(test["by_corpus"])
        whole = "all" if len(corpora) > 1 else corpora[0]
        rows.append(
            f"| {whole}, {says} | {test['count']} | {test['uar']:.3f} | {test['accuracy']:.3f} | "
            f"{test['f1_weighted']:.3f} | {test['ece']:.3f} |"
        )
        for part in GROUPS:
            for name, figures in test.get(f"by_{part}", {}).items():
                if name == whole:
                    continue
                own = f"{figures['count']} | {figures['uar']:.3f} | {figures['accuracy']:.3f}"
                ece = f"{figures['ece']:.3f}" if "ece" in figures else ""  # which figures of before lack
                rows.append(f"| {name}, {says} | {own} | | {ece} |")
    return "\n".join(rows) + "\n"


def interval_words(interval: dict) -> str:
    """ "95 % intervals over 24 speakers: UAR 0.61 to 0.68, ..." """
    ranges = ", ".join(f"{name} {interval[key][0]:.3f} to {interval[key][1]:.3f}" for key, name in MEASURES.items())
    if "speakers" not in interval:
        return f"95 % intervals over {drawn_words(interval)}; they say nothing of another voice: {ranges}."
    count = interval["speakers"]
    if interval["resampled"] == "clips":
        return f"95 % intervals over the clips of the one speaker, about no other voice: {ranges}."
    corpora = interval.get("speakers_of", {})
    each = ", ".join(f"{own} of {corpus}" for corpus, own in corpora.items())
    drawn = f"{drawn_words(interval)} ({each}, drawn apart)" if len(corpora) > 1 else drawn_words(interval)
    scarce = [corpus for corpus, own in corpora.items() if own < FEW_SPEAKERS]
    few = ""
    if count < FEW_SPEAKERS or len(scarce) == len(corpora) > 0:
        few = f"; with fewer than {FEW_SPEAKERS} speakers such intervals are too narrow"
    elif scarce:
        few = f"; of {' and '.join(scarce)} there are too few, which makes them too narrow"
    return f"95 % intervals over {drawn}, drawn anew with all their clips: {ranges}{few}."


def drawn_words(interval: dict) -> str:
    """What an interval is over: "24 speakers"."""
    if "speakers" in interval:
        return f"{interval['speakers']} speaker{'s' * (interval['speakers'] > 1)}"
    return f"{interval['clips']} clips whose speakers are not named"


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Markdown."""
    return "\n".join(f"| {' | '.join(row)} |" for row in (header, ["---"] * len(header), *rows)) + "\n"


def class_table(result: dict, names: Sequence[str]) -> str:
    """Clips, recall and precision of each emotion, and its recall for each sex where the run noted that."""
    confusion = np.array(result["test"]["confusion_matrix"])
    by_sex = {sex: figures["recall"] for sex, figures in result["test"]["by_sex"].items() if "recall" in figures}
    header = ["emotion", "clips", "recall", "precision", *(f"recall, {sex}" for sex in by_sex)]
    rows = []
    for index, name in enumerate(names):
        clips, answers, right = confusion[index].sum(), confusion[:, index].sum(), confusion[index, index]
        shares = [right / clips if clips else None, right / answers if answers else None]
        shares += [recall.get(name) for recall in by_sex.values()]
        rows.append([name, str(clips), *("" if share is None else f"{share:.3f}" for share in shares)])
    return table(header, rows)


def never_right(test: dict) -> list[str]:
    """A sentence on the emotions that no answer got right, of all clips or of a corpus or sex: a mean hides them."""
    missed = [label for label, recall in test["recall"].items() if recall == 0]
    of_groups = [
        f"{label} of {name}"
        for part in ("by_corpus", "by_sex")
        for name, figures in test.get(part, {}).items()
        for label, recall in figures.get("recall", {}).items()
        if recall == 0 and label not in missed
    ]
    return [f"Never recognized: {', '.join([*missed, *of_groups])}.\n"] if missed or of_groups else []


def mistakes(result: dict, names: Sequence[str], most: int = 3) -> list[str]:
    """The commonest wrong answers: "happy taken for angry (161 of 232)"."""
    confusion = np.array(result["test"]["confusion_matrix"])
    shares = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    np.fill_diagonal(shares, 0)
    worst = [divmod(int(flat), len(names)) for flat in shares.argsort(axis=None)[::-1][:most]]
    return [
        f"{names[true]} taken for {names[answer]} ({confusion[true, answer]} of {confusion[true].sum()})"
        for true, answer in worst
        if shares[true, answer]
    ]


def limits(corpora: Sequence[type[Corpus]]) -> str:
    """Whom it learnt from, and so whom it may fail; of data of one's own nobody here knows what they are."""
    if not all(corpus.accent for corpus in corpora):
        return LIMITS.format(learnt="the recordings named above alone", voices="Those are")
    accents = " and ".join(dict.fromkeys(corpus.accent for corpus in corpora))
    return LIMITS.format(learnt=ACTED, voices=f"Acted {accents} voices are")


def calibration(result: dict) -> str:
    """How far the scores can be taken at their word."""
    lines = ["## How sure it is\n"]
    fitted = f" ({result['temperature']})" if "temperature" in result else ""
    if "cross_validation" in result:
        on, tested = "the answers of the cross-validation", "Fitted on all of its runs but one, on that one"
    else:
        on, tested = "validation clips", "On the test part"
    lines.append(
        f"Scores are calibrated by a temperature{fitted} fitted on {on}. {tested} confidence and accuracy lie "
        f"{100 * result['test']['ece']:.1f} points apart on average (ECE over 15 bins)."
    )
    if single := result["test"].get("overconfidence_of_runs"):
        low, high = (f"{100 * end(single):+.0f}" for end in (min, max))
        lines[-1] += (
            f" Of a single run, on its own test speakers, confidence less accuracy is {low} to {high} points, "
            "which cancels out."
        )
    if "temperature" in result and np.isclose(result["temperature"], TEMPERATURES, rtol=1e-3).any():
        end = (
            "lowest, as if every answer were right" if result["temperature"] < 1 else "highest, as if all were guessed"
        )
        lines[-1] += f" It is the {end}: those clips tell no more, so take no score at its word."
    if result["test"].get("coverage") == 0:
        lines[-1] += f" Not even of its surest answers {PRECISION:.0%} are right."
    elif "coverage" in result["test"]:
        lines[-1] += (
            f" Of the surest {result['test']['coverage']:.0%} of the answers {PRECISION:.0%} are right; the confidence "
            "that parts them from the others was found on these very answers."
        )
    if is_random(result):
        lines[-1] += " All that holds for voices that it knows; of new ones it is surer than it is right."
    lines[-1] += "\n"
    if "reliability" in result["test"]:
        lines.append(f"![Accuracy over confidence; on the dashed line they agree]({RELIABILITY})\n")
    return "\n".join(lines)


def conditions_table(result: dict) -> str:
    """What is lost where recordings are worse than the corpora: `result["conditions"]`, condition -> UAR."""
    rows = ["| condition | what it is | UAR | points lost |", "| --- | --- | --- | --- |"]
    rows.append(f"| none | | {result['test']['uar']:.3f} | |")
    for name, uar in result["conditions"].items():
        rows.append(f"| {name} | {CONDITIONS_IN_WORDS[name]} | {uar:.3f} | {100 * (result['test']['uar'] - uar):.1f} |")
    return "\n".join(
        ["## Under worse conditions\n", "The same clips, distorted, heard by the same models:\n", *rows, ""]
    )


def corpus_words(entry: dict) -> str:
    """Of one of `data.corpora`: what it is, and what of it was taken."""
    corpus = CORPORA[entry["name"]]
    taken = [*entry.get("channels", ()), *([f"{entry['words']:.0%} of its words"] if "words" in entry else [])]
    title = f"{corpus.title} ({' and '.join(taken)})" if taken else corpus.title
    return f"- {title}, {corpus.licence}. {corpus.citation} {corpus.url}".rstrip()


def started_from(result: dict) -> str:
    """The sentence on the base model, and whether it had heard who was tested; "" without one."""
    if "base_model" not in result:
        return ""
    return f"Training started from `{result['base_model']}`; {result['speaker_disjoint_because']}. "


def procedure(settings: Settings, result: dict) -> str:
    """Who was tested on, and what was chosen where."""
    if "cross_validation" in result:
        summary = result["cross_validation"]
        unnamed = is_random(result) and not names_speakers(result)
        tested = TESTED[None if unnamed else result["speaker_disjoint"]]
        folds, spread = len(summary["folds"]), f"{summary['mean']['uar']:.3f} ± {summary['sd']['uar']:.3f}"
        each = f", each of {len(result['members'])} networks as here" if "members" in result else ""
        return (
            "These weights learnt from every clip of the data below, so none is left to test them with. The figures "
            f"are those of {folds} models of the same recipe (`train.py --cv {summary['protocol']}`){each}, each "
            f"tested on {tested}, all answers pooled; UAR of the folds {spread} (mean ± standard deviation). The "
            f"temperature was fitted on those answers. {started_from(result)}UAR is the mean of the recalls, so that "
            "every emotion counts alike.\n"
        )
    sentences = []
    if result["speaker_disjoint"]:
        sentences.append("No speaker of the test part is heard in training or validation.")
    elif is_random(result):
        told = "are" if names_speakers(result) else "are not named, and may be"
        sentences.append(f"The split is random: speakers of the test part {told} heard in training too.")
    if started := started_from(result):
        sentences.append(started.rstrip())
    if not result.get("validation_speaker_disjoint", True):
        sentences.append(
            "The validation part shares speakers with training, or does not name them: what was chosen on it suits "
            "known voices."
        )
    for part, wanted in (("Test", settings.split.test), ("Validation", settings.split.validation)):
        if isinstance(wanted, list) and settings.split.kind in ("speakers", "corpora"):
            sentences.append(f"{part}: {', '.join(wanted)}.")
    if settings.split.kind == "published":
        sentences.append(f"Fold {settings.split.fold} of {settings.split.name}.")
    if settings.training.keep == "last":
        chosen = f"The last of {settings.training.epochs} epochs was kept, and the temperature fitted"
    else:
        chosen = (
            f"Epoch {result['best_epoch'] + 1} of {settings.training.epochs} was chosen, and the temperature fitted,"
        )
    sentences.append(
        f"{chosen} on the validation part; the test part was used once, for the figures above. UAR is the mean of the "
        "recalls, so that every emotion counts alike."
    )
    return " ".join(sentences) + "\n"


def recipe_words(settings: Settings) -> str:
    """How it was trained."""
    training = settings.training
    drawn = [
        f"{name.replace('_', ' ')} ({own['probability']:.0%})"
        for name, own in settings.augmentation.model_dump().items()
        if own["probability"]
    ]
    also = [f"of {corpus} {share:.0%} an epoch" for corpus, share in training.corpus_shares.items()]
    also += ["rare labels counting for more"] if training.class_weights else []
    also += [f"the backbone frozen for {training.unfreeze_epoch} epochs"] if training.unfreeze_epoch else []
    if training.teacher_weight:
        also += [f"{training.teacher_weight:.0%} of each label what a probe on a pretrained encoder said of the clip"]
    also += [f"each stage learning {training.layer_decay:g} times as fast as the next"] * (training.layer_decay < 1)
    return (
        f"Training: {training.epochs} epochs of {training.optimizer} in batches of {training.batch_size} clips, rate "
        f"{training.learning_rate:g} ({training.schedule.replace('_', ' ')}), weight decay {training.weight_decay:g}, "
        f"label smoothing {training.label_smoothing:g}, a moving average of the weights ({training.ema_decay:g})"
        f"{''.join(f', {each}' for each in also)}. "
        f"Augmentation, and how many clips it meets: {', '.join(drawn) or 'none'}.\n"
    )


def commands(result: dict) -> list[str]:
    """What makes it again; `settings.yaml` holds what the command line changed too."""
    train = "accelerate launch train.py --data-dir DATA --config settings.yaml"
    protocol = result.get("cross_validation", {}).get("protocol")  # whose split takes the place of the settings' own
    if protocol is None:
        lines = [f"{train} --output-dir OUT"]
    elif "members" not in result:
        lines = [f"{train} --output-dir CV --cv {protocol}", f"{train} --output-dir OUT --after CV"]
    else:
        seeds = [member["seed"] for member in result["members"]]
        lines = [f"{train} --seed {seed} --output-dir CV-{seed} --cv {protocol}" for seed in seeds]
        lines += [f"{train} --seed {seed} --output-dir OUT-{seed} --after CV-{seed}" for seed in seeds]
        lines += [f"python -m ser_model join {' '.join(f'OUT-{seed}' for seed in seeds)} --output-dir OUT"]
        if REFUSED in result:  # else a joined model refuses as the mean of its members
            lines += ["python -m ser_model likeness OUT --data-dir DATA"]
    return lines + (["python -m ser_model halve OUT"] if "halved" in result else [])


def making(settings: Settings, result: dict) -> str:
    """Seed, split, time and machine."""
    time_s = result["train_seconds"]
    took = f"{time_s / 3600:.1f} h" if time_s >= 3600 else f"{time_s / 60:.0f} min" if time_s >= 60 else f"{time_s} s"
    on = f" on {result['hardware']}" if "hardware" in result else ""
    seeds = [str(member["seed"]) for member in result.get("members", [])]
    seeds = f"Seeds {' and '.join(seeds)}" if seeds else f"Seed {settings.seed}"
    size = f" The network has {result['parameters']:,} parameters." if "parameters" in result else ""
    size += " Its weights are stored in half precision; they load as float32." if "halved" in result else ""
    return (
        f"{seeds}, split {result['split_hash'][:12]}; training took {took}{on}.{size} The split is in "
        "`split.json`, every setting in `settings.yaml`, every figure in `metrics.json`.\n"
    )


def confusion_picture(confusion: list[list[int]], names: Sequence[str], path: Path) -> None:
    """Rows: truth; columns: answer; colour and percentage: share of the row; above it the number of clips."""
    counts = np.array(confusion)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side_in = 1.8 + 0.5 * len(names)
    figure = Figure(figsize=(side_in, side_in), layout="constrained")
    axes = figure.add_subplot()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)  # one hue, light to dark: any colour vision, and in print
    for (row, column), count in np.ndenumerate(counts):
        if count:
            ink = "white" if shares[row, column] > 0.5 else "black"
            percent = 100 * shares[row, column]
            said = f"{count}\n{f'{percent:.0f}' if percent >= 1 else '<1'} %"
            axes.text(column, row, said, ha="center", va="center", color=ink, fontsize=8, linespacing=1.1)
    labels = [name.replace("_", " ") for name in names]
    axes.set_xticks(range(len(names)), labels, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(names)), labels)
    axes.set(xlabel="answered", ylabel="true")
    save_picture(figure, path)


def reliability_picture(bins: list[dict], path: Path) -> None:
    """Accuracy over confidence, a dot a bin, as large as its share of the clips; a line through those of many."""
    confidence, accuracy, count = (np.array([b[key] for b in bins]) for key in ("confidence", "accuracy", "count"))
    many = count >= FEW_CLIPS
    figure = Figure(figsize=(4.2, 4.0), layout="constrained")
    axes = figure.add_subplot()
    axes.plot([0, 1], [0, 1], linestyle="--", color=GREY, linewidth=1)
    axes.plot(confidence[many], accuracy[many], color=BLUE, linewidth=1)
    axes.scatter(confidence, accuracy, s=10 + 600 * count / count.sum(), color=BLUE, alpha=0.8, linewidths=0)
    axes.set(xlim=(0, 1.02), ylim=(0, 1.02), xlabel="confidence", ylabel="share of right answers", aspect="equal")
    axes.spines[["top", "right"]].set_visible(False)
    save_picture(figure, path)


def curves_picture(history: list[dict], best_epoch: int, path: Path) -> None:
    """Training and validation loss, validation UAR and learning rate over epochs from 1; the epoch chosen is marked.

    What a history of an earlier version does not hold is left out.
    """
    panels = {
        "loss": {"train_loss": "training loss", "log_loss": "validation log loss"},
        "validation UAR": {"uar": "validation UAR"},
        "learning rate": {"learning_rate": "learning rate"},
    }
    panels = {name: {key: says for key, says in own.items() if key in history[0]} for name, own in panels.items()}
    panels = {name: own for name, own in panels.items() if own}
    figure = Figure(figsize=(6.0, 0.7 + 1.6 * len(panels)), layout="constrained")
    epochs = [entry["epoch"] + 1 for entry in history]
    all_axes = figure.subplots(len(panels), sharex=True, squeeze=False)[:, 0]
    for axes, (name, own) in zip(all_axes, panels.items(), strict=True):
        for (key, says), colour in zip(own.items(), (BLUE, ORANGE), strict=False):
            axes.plot(epochs, [entry[key] for entry in history], color=colour, label=says, marker=".", markersize=4)
        axes.axvline(best_epoch + 1, color=GREY, linestyle="--", linewidth=1)
        axes.set(ylabel=name)
        axes.spines[["top", "right"]].set_visible(False)
        if len(own) > 1:
            axes.legend(frameon=False, fontsize=8)
    all_axes[0].set_title(f"dashed: epoch {best_epoch + 1}, whose weights are saved", fontsize=9, color=GREY)
    all_axes[-1].set(xlabel="epoch", xlim=(0.5, epochs[-1] + 0.5))
    all_axes[-1].xaxis.set_major_locator(MaxNLocator(integer=True, steps=(1, 2, 5, 10), min_n_ticks=1))
    figure.align_ylabels()
    save_picture(figure, path)


def save_picture(figure: Figure, path: Path) -> None:
    """As PNG at `path` and as SVG beside it, the same bytes for the same figures."""
    figure.savefig(path, dpi=DOTS_PER_INCH, metadata={"Software": None})
    with rc_context({"svg.hashsalt": "ser_model", "svg.fonttype": "none"}):  # letters stay letters, found by a search
        figure.savefig(path.with_suffix(".svg"), metadata={"Date": None})
