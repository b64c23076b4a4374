"""Any audio-classification model on the data that a config names; and whether it has heard those voices before."""

from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import is_initialized
from tqdm import tqdm

from .conditions import CONDITIONS, heard_under
from .corpora import named_speaker
from .data import EmotionData, load_data
from .hub import find_file
from .inference import EmotionRecognizer
from .labels import nearest
from .predictions import CLEAN, Predictions, run_columns
from .run_files import SPLIT
from .settings import Settings, SplitSettings
from .splits import SplitError, speakers_heard

BATCH_SIZE = 32
# What `speaker_disjoint` says, in words.
UNSEEN = {True: "unseen speakers", False: "NOT unseen speakers", None: "unknown whether the speakers are unseen"}


class EvaluationError(ValueError):
    """A model and data that do not go together, and what to do about it."""


def evaluate(
    recognizer: EmotionRecognizer,
    settings: Settings,
    data_dir: str | Path,
    *,
    part: str = "test",
    condition: str = CLEAN,
    split_manifest: Path | None = None,
    progress: bool = False,
) -> tuple[dict, Predictions]:
    """Processes that `accelerate launch` or torchrun started share the clips; each gets all figures and predictions.

    Args:
        recognizer: around a model whose labels are those of `settings`.
        settings: `data`, `labels` and `split` are read; the split not for the part "all".
        data_dir: the folder that holds the corpora.
        part: of the split, "train", "validation" or "test"; "all" for every clip, as of a test set of one's own.
        condition: one of `conditions.CONDITIONS` that the clips are heard under, or CLEAN.
        split_manifest: of the split that the model was trained on, see `split_file`.

    Returns:
        Figures as in metrics.json, with `speaker_disjoint` (None where it cannot be told), `speaker_disjoint_because`
        and how many files were `left_out`, by kind; and the predictions, whose seed, fold and split are those of
        `settings`.

    Raises:
        EvaluationError: the model's labels are not those of the settings, or the condition is unknown.
        CorpusError, DataError, LabelError, SplitError: see `load_data`.
    """
    if condition not in (CLEAN, *CONDITIONS):
        known = ", ".join((CLEAN, *CONDITIONS))
        raise EvaluationError(f"unknown condition {condition!r}{nearest(condition, CONDITIONS)}; known: {known}")
    if part == "all":
        settings = settings.model_copy(update={"split": SplitSettings(kind="all")})
    # Its state is the process's: where another model has set it up on a GPU, a CPU cannot be asked for any more.
    accelerator = Accelerator(cpu=recognizer.model.device.type == "cpu" and not is_initialized())
    with accelerator.main_process_first():  # one process decodes, the others find the cache
        frame_ms = getattr(recognizer.extractor, "frame_ms", 0.0)  # of ours, as in training
        data = load_data(settings, data_dir, recognizer.sampling_rate, frame_ms=frame_ms, progress=progress)
    rows = "train" if part == "all" else part  # where such a split puts every clip
    if not getattr(data.split, rows):
        raise EvaluationError(
            f"the split of the config, {data.split.kind}, has no {part} part; take another config, or --part all"
        )
    names = list(data.scheme.names)
    if sorted(names) != sorted(recognizer.labels):
        raise EvaluationError(
            f"the model tells {', '.join(recognizer.labels)} apart, the config {', '.join(names)}; set `labels` in the "
            "config to those of the model"
        )
    order = [recognizer.labels.index(name) for name in names]
    loader = accelerator.prepare_data_loader(data.loader(rows, BATCH_SIZE), device_placement=False)
    gathered = []
    for batch in tqdm(loader, disable=None if progress else True, unit="batch"):
        columns = (batch["waveforms"].numpy(), batch["lengths"].tolist(), batch["indices"].tolist())
        clips = [
            heard_under(condition, clip[:length], recognizer.sampling_rate, data.sounds[index].content)
            for clip, length, index in zip(*columns, strict=True)
        ]
        scores = torch.from_numpy(recognizer.scores(clips)[:, order]).to(accelerator.device)
        gathered.append(accelerator.gather_for_metrics((scores, batch["labels"].to(accelerator.device))))
    scores, labels = (torch.cat(column).cpu().numpy() for column in zip(*gathered, strict=True))
    probabilities = scores.astype(np.float64)
    probabilities /= probabilities.sum(axis=1, keepdims=True)  # float32 sums are off by 1e-7
    trained_on = getattr(recognizer.model.config, "training_split", None)
    disjoint, because = unseen(trained_on, split_manifest, data, rows)
    figures = {
        "part": part,
        "condition": condition,
        "split": data.split.kind,
        "speaker_disjoint": disjoint,
        "speaker_disjoint_because": because,
        "left_out": data.summary()["left_out"],
    }
    temperature = getattr(recognizer.model.config, "calibration_temperature", 1.0)
    run = run_columns(settings, data.manifest()["hash"], temperature, condition)
    predictions = Predictions.of(data.rows(rows), names, labels, probabilities, data.folders, run)
    return figures | predictions.figures(), predictions


def unseen(
    training_split: str | None, split_manifest: Path | None, data: EmotionData, part: str
) -> tuple[bool | None, str]:
    """Whether the model never heard these speakers, from the split that it was trained on, and why.

    What the config calls its split does not count: the model may have been trained on another one. `training_split` is
    the hash that its config names, `split_manifest` the file beside it.
    """
    if split_manifest is None:
        return None, "the model has no split.json, so nobody can tell whom it was trained on"
    try:
        split_hash, heard = speakers_heard(split_manifest, data.utterances, data.folders)
    except SplitError as error:
        return None, str(error)
    if split_hash != training_split:
        return None, "the split.json beside the model is not the one that its config names"
    clips = [data.utterances[index] for index in getattr(data.split, part)]
    # A table may rename them, so the names that the files' own corpus gives count too.
    known = sorted({clip.speaker for clip in clips if heard & {clip.speaker, named_speaker(clip.path)}})
    if known:
        return False, f"{len(known)} of these speakers were heard in training or validation: {', '.join(known[:3])}"
    if unknown := sum(not clip.speaker_known for clip in clips):
        return None, f"{unknown} clips name no speaker"
    return True, "none of these speakers was heard in training or validation"


def split_file(source: str | Path, revision: str | None = None) -> Path | None:
    """The split.json of a model, from its folder or the Hub; see `find_file` for what it raises."""
    return find_file(source, SPLIT, revision)
