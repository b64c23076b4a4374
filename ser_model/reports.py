"""The model card, written from a run's own figures."""

from huggingface_hub import EvalResult, ModelCardData

from .corpora import CORPORA
from .labels import LabelScheme
from .settings import Settings

CODE_LICENCE = "Apache-2.0"
WEIGHTS_LICENCE = "cc-by-nc-sa-4.0"  # the strictest of the corpora's: weights inherit "non-commercial, share alike"

USE = """\
## How to use it

```python
from transformers import pipeline

classifier = pipeline("audio-classification", model="PATH_OR_HUB_ID", trust_remote_code=True)
classifier({"raw": waveform, "sampling_rate": 16_000})
```

The code of the network and of its feature extractor lies beside the weights. Scores are calibrated by a temperature
fitted on validation speakers.

## What it is for, and what it must not be used for

It names the emotion that a voice expresses, as actors express it, for research, teaching and art. It must not be used
to judge people: not in hiring, medicine, insurance, education, policing or border control. How somebody sounds is not
how somebody feels.

## Limits

It learnt from acted North American English, a few sentences, recorded in quiet rooms. That is not everyone's voice:
expect it to be wrong more often, and less aware of it, on other languages, accents, ages, spontaneous or quiet emotion,
noise and music. Sad, calm and neutral are the easiest to confuse, and so are happy and surprised. Figures on a random
split share voices between training and test and say little about a new voice.
"""


def model_card(settings: Settings, scheme: LabelScheme, results: list[dict]) -> str:
    """Text of README.md for a model folder, with metadata the Hub can read.

    Args:
        settings: the run's.
        scheme: its labels.
        results: its metrics.json, and after it those of other runs to report beside it.
    """
    corpora = [CORPORA[entry["name"]] for entry in settings.data.corpora]
    evaluations = [
        EvalResult(
            task_type="audio-classification",
            dataset_type=result["settings"],
            dataset_name=f"{' + '.join(corpus.title for corpus in corpora)}, {protocol(result)}",
            metric_type=metric,
            metric_name=name,
            metric_value=result["test"][metric],
        )
        for result in results
        for metric, name in (("uar", "Unweighted average recall"), ("accuracy", "Accuracy"))
    ]
    metadata = ModelCardData(
        language="en",
        license=WEIGHTS_LICENCE,
        library_name="transformers",
        pipeline_tag="audio-classification",
        tags=["audio-classification", "speech-emotion-recognition", "mfcc"],
        metrics=["accuracy", "recall"],
        model_name=settings.name,
        eval_results=evaluations,
    )
    parts = [
        f"---\n{metadata.to_yaml()}\n---\n",
        f"# {settings.name}: speech emotion recognition\n",
        f"A network of the kind `{settings.model.get('backbone', 'cnn')}` over MFCCs that tells "
        f"{', '.join(scheme.names)} apart. {scheme.description()}".rstrip()
        + "\n",
        "## How good it is\n",
        figures_table(results),
        *(recall_table(result) for result in results[:1]),
        "## Data and licences\n",
        *(f"- {corpus.title}: {corpus.citation} Licence: {corpus.licence}. {corpus.url}" for corpus in corpora),
        f"\nWeights: {WEIGHTS_LICENCE.upper()}, as the corpora demand: no commercial use. Code: {CODE_LICENCE}.\n",
        USE,
        "## How to make it again\n",
        "```bash",
        f"accelerate launch train.py --config configs/{settings.name}.yaml --data-dir DATA --output-dir OUT",
        "```\n",
        f"Seed {settings.seed}, split {results[0]['split_hash'][:12]}, {results[0]['train_seconds']} s of training. "
        "The split is in `split.json`, every setting in `settings.yaml`, every figure in `metrics.json`.\n",
    ]
    return "\n".join(parts)


def protocol(result: dict) -> str:
    """In words: is this figure about new voices, or about voices that training knew?"""
    return "unseen speakers" if result["speaker_disjoint"] else "random split, speakers shared with training"


def figures_table(results: list[dict]) -> str:
    """One row a part of the test set."""
    rows = ["| test part | clips | UAR | accuracy | weighted F1 | ECE |", "| --- | --- | --- | --- | --- | --- |"]
    for result in results:
        test, says = result["test"], protocol(result)
        rows.append(
            f"| all, {says} | {test['count']} | {test['uar']:.3f} | {test['accuracy']:.3f} | "
            f"{test['f1_weighted']:.3f} | {test['ece']:.3f} |"
        )
        for part in ("corpus", "sex"):
            for name, figures in test[f"by_{part}"].items():
                rows.append(
                    f"| {name}, {says} | {figures['count']} | {figures['uar']:.3f} | {figures['accuracy']:.3f} | | |"
                )
    return "\n".join(rows) + "\n"


def recall_table(result: dict) -> str:
    """Recall of each emotion."""
    rows = [f"Recall of each emotion, {protocol(result)}:\n", "| emotion | recall |", "| --- | --- |"]
    rows += [f"| {name} | {value:.3f} |" for name, value in result["test"]["recall"].items()]
    return "\n".join(rows) + "\n"
