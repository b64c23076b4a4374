"""Several runs of one recipe as one model: a deep ensemble (Lakshminarayanan et al. 2017, arXiv 1612.01474).

Networks that start from other seeds err in other places, so the mean of their logits is right more often than any of
them. Joined, they load, export and answer as one model does.
"""

import copy
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from .checkpoints import is_finished
from .configuration_ser import SERConfig
from .crossvalidation import ORIGIN, cross_calibrated, mean_and_sd
from .disk import whole_files
from .feature_extraction_ser import SERFeatureExtractor
from .labels import label_scheme
from .metrics import fit_temperature
from .modeling_ser import SERForAudioClassification
from .predictions import Predictions
from .pretrained import load_extractor, load_model
from .reports import is_random, write_run
from .run_files import METRICS, PREDICTIONS, REFUSED, SAY_THAT_IT_RAN, SETTINGS, SPLIT
from .settings import load_settings
from .splits import read_manifest

# Settings of a network in which members may differ; what of metrics.json is told of each; what all have alike.
FREE = frozenset({"calibration_temperature", "likeness_threshold", "num_members", "freeze_backbone"})
STATISTICS = ("feature_mean", "feature_std")  # of one set of clips, but perhaps summed by other numbers of threads
OF_MEMBER = ("seed", "temperature", "train_seconds", "hardware")
SHARED = ("settings", "data", "split", "split_hash", "base_model", "base_licence")


class JoinError(ValueError):
    """Runs that do not make one model, and what would."""


def join_models(models: Sequence[SERForAudioClassification]) -> SERForAudioClassification:
    """One model whose logits are the mean of theirs; a likeness that all have is the mean of theirs too.

    It is not calibrated: the mean of several logits is less sure than each, so they want a temperature of their own.

    Raises:
        JoinError: the models are of different networks, labels or training clips.
    """
    first = models[0]
    for model in models[1:]:
        for key in sorted((SERConfig.own_settings() | {"id2label"}) - FREE):
            ours, theirs = getattr(first.config, key), getattr(model.config, key)
            if ours != theirs:
                raise JoinError(f"{key} is {ours!r} in one model and {theirs!r} in another; join runs of one recipe")
    config = copy.deepcopy(first.config)
    config.num_members = sum(len(model.members) for model in models)
    config.calibration_temperature, config.likeness_threshold = 1.0, None
    joined = SERForAudioClassification(config)
    weighed = [(model, len(model.members) / config.num_members) for model in models]
    members = [member for model in models for member in model.members]
    for own, member in zip(joined.members, members, strict=True):
        for part in ("invert_dct", "backbone", "pooling"):
            getattr(own, part).load_state_dict(getattr(member, part).state_dict())
    with torch.no_grad():
        joined.classifier.weight.copy_(torch.cat([share * model.classifier.weight for model, share in weighed], dim=1))
        joined.classifier.bias.copy_(sum(share * model.classifier.bias for model, share in weighed))
    if all(model.likeness_weight is not None for model in models):
        threshold = sum(share * model.config.likeness_threshold for model, share in weighed)
        joined.set_likeness(torch.cat([share * model.likeness_weight for model, share in weighed]), threshold)
    return joined.eval()


def join_runs(run_dirs: Sequence[Path], output_dir: Path) -> dict:
    """Finished runs of `train.py --after`, of one recipe and other seeds, as one model folder with a card.

    Its figures and its temperature come from the answers of the cross-validations that judged the runs: of each clip
    the mean of what the models said that had not heard it.

    Returns:
        What its metrics.json holds.

    Raises:
        CheckpointError: the runs have other settings than the first, but for the seed.
        JoinError: a run is unfinished or was not judged so, or two were by one cross-validation; or their networks or
            features differ.
        PredictionsError: their answers cannot be read, or are of other clips.
        OSError, PretrainedError: a model cannot be read.
        SettingsError, SplitError: nor its settings, or its split.
    """
    if len(run_dirs) < 2:
        raise JoinError("a single run is one model already; give several, of other seeds")
    if any((output_dir / name).exists() for name in SAY_THAT_IT_RAN):
        raise JoinError(f"{output_dir} holds a run; give another --output-dir")
    results = [_results(folder) for folder in run_dirs]
    settings = load_settings(run_dirs[0] / SETTINGS)
    for folder, own in zip(run_dirs, results, strict=True):
        is_finished(folder, settings.model_copy(update={"seed": own["seed"]}), resume=True, overwrite=False)
    judges = [[(fold["seed"], fold["split_hash"]) for fold in own["cross_validation"]["folds"]] for own in results]
    if any(one in judges[:index] for index, one in enumerate(judges)):
        raise JoinError(
            "two runs were judged by one cross-validation, so nothing tells how good their mean is; run both --cv and "
            "--after with --seed 0, with --seed 1, ..."
        )
    if is_random(results[0]):
        raise JoinError(
            "the runs were judged by random splits, which test some clips twice and others never; run --cv with folds "
            "of speakers, such as speakers-5"
        )
    manifest = read_manifest(run_dirs[0] / SPLIT)
    members = [Predictions.read(folder / PREDICTIONS) for folder in run_dirs]
    folds = [[clip["fold"] for clip in own.like(members[0]).clips] for own in members]
    if any(other != folds[0] for other in folds):
        raise JoinError(
            "the runs were judged by different folds, so the answers to a clip are not those of one joined model; run "
            "each --cv with the same folds"
        )
    model = join_models([load_model(folder, kind=SERForAudioClassification) for folder in run_dirs])
    extractor = _shared_extractor(run_dirs)
    answers = Predictions.averaged(members)
    temperature = round(fit_temperature(answers.logits(), answers.labels), 4)
    answers = cross_calibrated(answers)
    joined = {key: results[0][key] for key in (*SHARED, *ORIGIN) if key in results[0]}
    joined |= {"temperature": temperature, "parameters": model.num_parameters()}
    if "network" in results[0]:
        joined["network"] = results[0]["network"] | {"members": model.config.num_members}
    joined |= {"members": [{key: own[key] for key in OF_MEMBER if key in own} for own in results]}
    joined |= {"cross_validation": (summary := _summary([own["cross_validation"] for own in results], answers))}
    joined |= {"test": summary["pooled"], "train_seconds": sum(own["train_seconds"] for own in results)}
    if len(hardware := {own.get("hardware") for own in results}) == 1:
        joined["hardware"] = hardware.pop()
    model.config.calibration_temperature = temperature
    with whole_files(output_dir) as folder:
        model.save_pretrained(folder)
        extractor.save_pretrained(folder)
    write_run(output_dir, settings, label_scheme(settings.labels), joined, answers, manifest)
    return joined


def _results(folder: Path) -> dict:
    try:
        results = json.loads((folder / METRICS).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise JoinError(f"{folder} holds no finished run ({error}); give folders of train.py --after") from error
    if "members" in results:
        raise JoinError(f"{folder} was joined already; give the runs that it was made of, and the others")
    if "cross_validation" not in results:
        raise JoinError(
            f"{folder} was trained with a test part of its own; join runs of train.py --after CV, whose answers to "
            "voices that they had not heard can be averaged"
        )
    return results


def _shared_extractor(run_dirs: Sequence[Path]) -> SERFeatureExtractor:
    """The first run's; JoinError unless the others' are alike, but for the last digits of their statistics."""
    first, *others = (load_extractor(folder) for folder in run_dirs)
    for folder, other in zip(run_dirs[1:], others, strict=True):
        for key, value in first.to_dict().items():
            theirs = getattr(other, key, None)
            fitted = isinstance(value, list) and isinstance(theirs, list) and len(value) == len(theirs)
            if not (np.allclose(value, theirs, rtol=1e-4) if fitted and key in STATISTICS else value == theirs):
                raise JoinError(f"features.{key} of {folder} is not that of {run_dirs[0]}; join runs of one recipe")
    return first


def _summary(summaries: Sequence[dict], answers: Predictions) -> dict:
    """What cv.json would hold if every fold had been answered by a joined model."""
    tests = {int(fold): own.figures() for fold, own in answers.parted("fold").items()}
    folds = []
    for fold, *each in zip(sorted(tests), *(summary["folds"] for summary in summaries), strict=True):
        folds.append({"fold": fold, "seeds": [own["seed"] for own in each], "test": tests[fold]})
        if all(REFUSED in own for own in each):
            folds[-1][REFUSED] = float(np.mean([own[REFUSED] for own in each]))
    first = {key: summaries[0][key] for key in ("settings", "protocol", *ORIGIN) if key in summaries[0]}
    return first | mean_and_sd([fold["test"] for fold in folds]) | {"folds": folds, "pooled": answers.figures()}
