"""What a data set holds: which clips can be used, into which part each goes, and what follows for the config.

All of it comes from file names and from what the inspection noted of each file; no sound is kept.
"""

import math
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from ..build import build_extractor
from ..corpora import CorpusError, Problem, Utterance, find_utterances
from ..data import label_utterances, make_split
from ..feature_extraction_ser import SERFeatureExtractor
from ..inspection import Sound, inspect_files, screen
from ..labels import EMOTIONS, LabelScheme, label_scheme
from ..mfcc import frame_count
from ..settings import Settings, TrainingSettings
from ..splits import PARTS, Split, SplitError, manifest

Value = TypeVar("Value", int, float)


@dataclass(frozen=True, slots=True)
class Clip:
    """An utterance that is used. `part` is None where no split could be made."""

    utterance: Utterance
    sound: Sound
    label: str
    part: str | None = None


@dataclass
class Findings:
    """All that the page tells. Where no split could be made, `split` is None and `split_error` says why.

    clips: what is used.
    dropped: what the label scheme leaves out on purpose.
    problems: what cannot be used, damaged files first.
    folders: what names of clips are given relative to, see `relative_path`.
    """

    settings: Settings
    data_dir: Path
    extractor: SERFeatureExtractor
    scheme: LabelScheme
    clips: list[Clip]
    dropped: list[Utterance]
    problems: list[Problem]
    notes: list[str]
    folders: tuple[Path, ...]
    split: Split | None = None
    split_hash: str = ""
    split_error: str = ""


def look(settings: Settings, data_dir: str | Path, *, progress: bool = False, num_proc: int = 1) -> Findings:
    """Find, label, inspect and split; see `explore` for what it raises."""
    data_dir, extractor = Path(data_dir), build_extractor(settings)
    scan = find_utterances(data_dir, settings.data.corpora)
    scheme = label_scheme(settings.labels)
    labelled = label_utterances(scan.utterances, scheme)
    utterances, labels = labelled.utterances, labelled.labels
    sounds = inspect_files([utterance.path for utterance in utterances], progress=progress, num_proc=num_proc)
    used, damaged = screen(utterances, labels, sounds, extractor.frame_ms)
    problems = [
        replace(problem, reason=_without_folder(problem.reason, data_dir))
        for problem in (*damaged, *scan.problems, *labelled.problems)
    ]
    if not used:
        first = f"; the first: {problems[0].path}: {problems[0].reason}" if problems else ""
        raise CorpusError(f"none of {len(scan.utterances)} clips can be used{first}")
    clips = [Clip(utterances[index], sounds[index], labels[index]) for index in used]
    notes = [_without_folder(note, data_dir) for note in scan.notes]
    found = (clips, labelled.dropped, problems, notes, scan.folders)
    return _split_up(Findings(settings, data_dir, extractor, scheme, *found))


def _split_up(findings: Findings) -> Findings:
    """The same with each clip's part, or with the reason why there is none."""
    utterances = [clip.utterance for clip in findings.clips]
    labels = [clip.label for clip in findings.clips]
    try:
        split = make_split(utterances, labels, findings.settings.split, findings.settings.seed)
    except SplitError as error:
        return replace(findings, split_error=_without_folder(str(error), findings.data_dir))
    part_of = {index: part for part in PARTS for index in getattr(split, part)}
    clips = [replace(clip, part=part_of[index]) for index, clip in enumerate(findings.clips)]
    split_hash = manifest(split, utterances, findings.folders)["hash"]
    return replace(findings, clips=clips, split=split, split_hash=split_hash)


def _without_folder(text: str, data_dir: Path) -> str:
    return text.replace(f"{data_dir}{os.sep}", "")


def covering_length_s(clips: Sequence[Clip], share: float) -> float:
    """The least length that `share` of the clips do not exceed."""
    return _at_share(sorted(clip.sound.duration_s for clip in clips), share)


def covering_rate(clips: Sequence[Clip], share: float) -> int:
    """The highest sampling rate that `share` of the clips reach."""
    return _at_share(sorted((clip.sound.sampling_rate for clip in clips), reverse=True), share)


def config_lines(findings: Findings, share: float) -> dict[str, dict]:
    """Settings by section that take `share` of the clips whole; nothing counts as trimmed."""
    features = features_at(findings.settings.features, covering_rate(findings.clips, share))
    extractor = build_extractor(findings.settings, **features)
    samples = math.ceil(covering_length_s(findings.clips, share) * extractor.sampling_rate)
    max_frames = frame_count(samples, extractor.hop_samples)
    least = TrainingSettings.model_fields["max_frames"].metadata[0].ge
    return {"features": features, "training": {"max_frames": max(max_frames, least)}}


def features_at(features: Mapping, sampling_rate: int) -> dict:
    """What to change in a features section so that it hears all that `sampling_rate` carries, and is accepted."""
    before = SERFeatureExtractor(**features)
    changes: dict = {"sampling_rate": sampling_rate}
    if before.f_max > sampling_rate / 2 or before.f_max == before.sampling_rate / 2 != sampling_rate / 2:
        changes["f_max"] = sampling_rate / 2
    if before.pitch_f_max > sampling_rate / 2:
        changes["pitch_f_max"] = sampling_rate / 2
    octaves = before.contrast_n_bands  # each begins an octave above the one before, and all below half the rate
    while octaves > 1 and before.contrast_f_min * 2 ** (octaves - 1) >= sampling_rate / 2:
        octaves -= 1
    if "contrast" in before.features and octaves < before.contrast_n_bands:
        changes["contrast_n_bands"] = octaves
    n_fft = accepted_n_fft({**features, **changes}, before.n_fft)
    return changes if n_fft == before.n_fft else {**changes, "n_fft": n_fft}


def accepted_n_fft(features: Mapping, n_fft: int) -> int:
    """`n_fft`, doubled until a frame fits in and no mel band lies between two bins."""
    while n_fft < features["sampling_rate"]:  # a bin a hertz feeds any band
        try:
            SERFeatureExtractor(**{**features, "n_fft": n_fft})
            break
        except ValueError:
            n_fft *= 2
    return n_fft


def in_order(emotions: Iterable[str]) -> list[str]:
    """Our own emotions in their usual order, then all others."""
    return sorted(emotions, key=lambda name: (EMOTIONS.index(name) if name in EMOTIONS else len(EMOTIONS), name))


def example_clips(clips: Sequence[Clip]) -> dict[str, Clip]:
    """One clip an emotion: of one speaker and sentence as far as there is one, else of that speaker, else of any."""
    sources: list[dict] = [defaultdict(dict), defaultdict(dict)]
    anyone: dict[str, Clip] = {}
    for clip in clips:
        said = clip.utterance
        sources[0][said.speaker, said.text].setdefault(said.emotion, clip)
        sources[1][said.speaker].setdefault(said.emotion, clip)
        anyone.setdefault(said.emotion, clip)
    speaker, text = max(sources[0], key=lambda key: len(sources[0][key]))
    chosen = anyone | sources[1][speaker] | sources[0][speaker, text]
    return {emotion: chosen[emotion] for emotion in in_order(chosen)}


def _at_share(ordered: Sequence[Value], share: float) -> Value:
    """The value that `share` of the values have or come before."""
    return ordered[math.ceil(share * len(ordered)) - 1]
