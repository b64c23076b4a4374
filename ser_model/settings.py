"""One YAML file an experiment -> typed settings. Unknown keys and impossible values are refused at this border."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from .labels import nearest


class SettingsError(ValueError):
    """A config file or an override that cannot be used, and what would be right."""


def _lower_first(bounds: tuple) -> tuple:
    if bounds[0] > bounds[1]:
        raise ValueError(f"the lower bound comes first; write {[*reversed(bounds)]}, not {[*bounds]}")
    return bounds


_Number = TypeVar("_Number")
Range = Annotated[tuple[_Number, _Number], AfterValidator(_lower_first)]
Decibels = Annotated[float, Field(ge=-120, le=120)]  # beyond it float32 has nothing left to hear
Seed = Annotated[int, Field(ge=0, lt=2**32)]  # numpy takes no larger one
Swing = Annotated[float, Field(gt=0, le=120)]  # up and down by so many dB
Semitones = Annotated[float, Field(gt=0, le=24)]  # two octaves up and down


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class SplitSettings(_Section):
    """Who is trained on and who is tested on.

    kind: "speakers" (no speaker in two parts), "random" (flatters; for comparison with others), "published" (a fold of
        `splits.FOLDS`, by `name` and `fold`), "corpora" (`test` names whole corpora), "column" (`folder` data say),
        "all" (everything trains; what `train.py --after` makes of any other kind).
    test, validation: speakers by id, or how many of each corpus, or which fraction; for "random" a fraction of clips;
        for "all" those of the folds that `train.py --cv` makes.
    seed: of what is drawn; the run's if left out. Given, several networks can be trained and tested on one split.
    """

    kind: Literal["speakers", "random", "published", "corpora", "column", "all"] = "speakers"
    test: list[str] | int | float = 0.2
    validation: list[str] | int | float = 0.1
    name: str = "ravdess-speakers"
    fold: int = Field(default=1, ge=1)
    seed: Seed | None = None

    @model_validator(mode="after")
    def _names_only_what_its_kind_uses(self) -> "SplitSettings":
        uses = {"published": {"name", "fold", "validation", "seed"}, "column": set()}
        used = uses.get(self.kind, {"test", "validation", "seed"})
        for key, field in type(self).model_fields.items():
            if key != "kind" and key not in used and getattr(self, key) != field.default:
                raise ValueError(f"a split of the kind {self.kind!r} does not use {key!r}; leave it out")
        if self.kind == "random" and not (isinstance(self.test, float) and isinstance(self.validation, float)):
            raise ValueError("a random split draws clips; give test and validation as shares, such as 0.2 and 0.1")
        if self.kind == "corpora" and not isinstance(self.test, list):
            raise ValueError(
                f"a split of the kind 'corpora' tests whole ones; name them as in [tess], not {self.test!r}"
            )
        return self

    @property
    def published_fold(self) -> int | None:
        """None for the kinds of split that have no folds."""
        return self.fold if self.kind == "published" else None


class _Distortion(_Section):
    """One kind of augmentation, and the share of clips that get it."""

    probability: float = Field(default=0.0, ge=0, le=1)


class NoiseSettings(_Distortion):
    """Coloured noise, or recordings from a folder, at a signal-to-noise ratio drawn evenly in dB.

    Of pink noise almost half the power, which the ratio counts, lies below 20 Hz.
    """

    probability: float = Field(default=0.3, ge=0, le=1)
    snr_db: Range[Decibels] = (5.0, 30.0)
    # Power falls with frequency to this power: 0 is white, 1 is pink.
    slope: Range[Annotated[float, Field(ge=-10, le=10)]] = (0.0, 1.0)
    folder: str | None = None  # recordings to draw from in place of made noise; seen from where train.py is started


class ShiftSettings(_Distortion):
    """Move the sound along, and its end to the front."""

    max_s: float = Field(default=0.2, gt=0, le=60)


class GainSettings(_Distortion):
    """Louder or softer, noise and all: heard by features of absolute levels alone (`features.level`)."""

    probability: float = Field(default=1.0, ge=0, le=1)
    db: Swing = 6.0


class PitchSettings(_Distortion):
    """A higher or lower voice at the same tempo; formants move along."""

    semitones: Semitones = 2.0


class IntonationSettings(_Distortion):
    """Another speaker's pitch: harmonics move, formants and tempo stay."""

    semitones: Semitones = 3.5


class ReverberationSettings(_Distortion):
    """A room: exponentially decaying noise behind the direct sound."""

    decay_s: Range[Annotated[float, Field(gt=0, le=20)]] = (0.1, 0.5)  # until 60 dB below; a cathedral's is 10
    direct_db: Range[Decibels] = (0.0, 12.0)  # direct over reverberant level: far from and near the microphone


class BandSettings(_Distortion):
    """What a line leaves: a telephone's 300 to 3400 Hz (ITU-T G.712), and around it."""

    low_hz: Range[Annotated[float, Field(ge=0)]] = (100.0, 400.0)
    high_hz: Range[Annotated[float, Field(gt=0)]] = (3000.0, 5000.0)

    @model_validator(mode="after")
    def _leaves_something(self) -> "BandSettings":
        if self.low_hz[1] >= self.high_hz[0]:
            raise ValueError(f"low_hz reaches {self.low_hz[1]:g}, high_hz begins at {self.high_hz[0]:g}: part them")
        return self


class CodecSettings(_Distortion):
    """Through a lossy codec and back; on the CPU, about 10 ms a clip."""

    kbit_s: Range[Annotated[int, Field(ge=8, le=320)]] = (16, 64)  # MP3, which knows no others


class ClippingSettings(_Distortion):
    """An overdriven microphone: samples beyond a share of the peak are cut off."""

    threshold: Range[Annotated[float, Field(gt=0, le=1)]] = (0.1, 0.6)


class TempoSettings(_Distortion):
    """Speak faster or slower at the same pitch."""

    probability: float = Field(default=1.0, ge=0, le=1)
    rate: float = Field(default=0.15, gt=0, lt=1)


class SpeedSettings(_Distortion):
    """Play faster or slower: tempo, pitch and formants together."""

    rate: float = Field(default=0.1, gt=0, lt=1)


class VocalTractSettings(_Distortion):
    """A smaller or larger speaker: the frequency axis stretched."""

    probability: float = Field(default=1.0, ge=0, le=1)
    warp: float = Field(default=0.12, gt=0, lt=1)


class TiltSettings(_Distortion):
    """Brighter or duller, as rooms and microphones are: a slope over the whole frequency axis."""

    probability: float = Field(default=1.0, ge=0, le=1)
    db: Swing = 6.0


class EqualizerSettings(_Distortion):
    """Another microphone and room: a smooth random curve over the frequency axis."""

    db: Swing = 3.0  # standard deviation of the curve
    knots: int = Field(default=8, ge=2, le=1000)  # evenly spaced in mel, a straight line between two


class MaskSettings(_Distortion):
    """SpecAugment: stretches of time and bands of frequency hidden behind their mean."""

    probability: float = Field(default=1.0, ge=0, le=1)
    time_masks: int = Field(default=2, ge=0, le=100)
    max_frames: int = Field(default=10, ge=1)
    frequency_masks: int = Field(default=2, ge=0, le=100)
    max_bands: float = Field(default=0.12, gt=0, lt=1)  # share of the mel axis


class StyleSettings(_Distortion):
    """Another voice, the same emotion: mean and spread of each feature over time, borrowed in part from a clip of the
    same label; `probability` is that of a batch.
    """

    alpha: float = Field(default=0.3, gt=0)


class MixupSettings(_Distortion):
    """Blend of two clips and of their labels; `probability` is that of a batch."""

    probability: float = Field(default=0.5, ge=0, le=1)
    alpha: float = Field(default=0.3, gt=0)


class AugmentationSettings(_Section):
    """Distortions of the training part, drawn anew for each clip and epoch, applied in this order."""

    shift: ShiftSettings = ShiftSettings()
    pitch: PitchSettings = PitchSettings()
    reverberation: ReverberationSettings = ReverberationSettings()
    noise: NoiseSettings = NoiseSettings()
    gain: GainSettings = GainSettings()
    clipping: ClippingSettings = ClippingSettings()
    band: BandSettings = BandSettings()
    codec: CodecSettings = CodecSettings()
    tempo: TempoSettings = TempoSettings()
    speed: SpeedSettings = SpeedSettings()
    vocal_tract: VocalTractSettings = VocalTractSettings()
    intonation: IntonationSettings = IntonationSettings()
    tilt: TiltSettings = TiltSettings()
    equalizer: EqualizerSettings = EqualizerSettings()
    masks: MaskSettings = MaskSettings()
    style: StyleSettings = StyleSettings()
    mixup: MixupSettings = MixupSettings()


def _no(value: Any) -> Any:
    """YAML takes a bare `no` for false."""
    return "no" if value is False else value


class TrainingSettings(_Section):
    epochs: int = Field(default=50, ge=1)
    base_model: str | None = None  # a model folder or Hub id to start from, in place of random weights
    unfreeze_epoch: int | None = Field(default=None, ge=1)  # before it the backbone is frozen, norms' statistics too
    layer_decay: float = Field(default=1.0, gt=0, le=1)  # each stage nearer to the input learns slower by this factor
    batch_size: int = Field(default=32, ge=2)  # a process; what is left over makes some batches a little larger
    accumulation_steps: int = Field(default=1, ge=1)  # batches a step of the optimizer
    optimizer: Literal["adamw", "sgd"] = "adamw"
    # of SGD; that of AdamW (beta1) is 0.9, but under one_cycle it falls from 0.95 to 0.85 and rises again
    momentum: float = Field(default=0.9, ge=0, lt=1)
    learning_rate: float = Field(default=3e-3, gt=0)  # the highest that the schedule reaches
    schedule: Literal["one_cycle", "cosine", "cosine_restarts", "plateau", "constant"] = "one_cycle"
    warmup: float = Field(default=0.3, gt=0, lt=1)  # of one_cycle: share of the steps until its highest rate
    restart_epochs: int = Field(default=10, ge=1)  # of cosine_restarts: each cosine takes so long
    plateau_epochs: int = Field(default=5, ge=1)  # of plateau: longer without a better UAR, and the rate is halved
    patience_epochs: int | None = Field(default=None, ge=1)  # so long without a better validation UAR, and it ends
    keep: Literal["best", "last"] = "best"  # the epoch that is saved: of the best validation UAR, or simply the last
    class_weights: bool = False  # rare labels count for more, so that every label counts alike
    # corpus: share of its clips that an epoch has, in turn, so that a large one does not outweigh the others
    corpus_shares: dict[str, Annotated[float, Field(gt=0, le=1)]] = {}
    weight_decay: float = Field(default=0.05, ge=0)
    label_smoothing: float = Field(default=0.1, ge=0, lt=1)
    # part that a pretrained speech encoder (see `teacher`) has in what a clip is to be answered; the rest is its label
    teacher_weight: float = Field(default=0.0, ge=0, le=1)
    clip_norm: float = Field(default=2.0, gt=0)
    ema_decay: float = Field(default=0.995, ge=0, lt=1)  # averages over the last 200 steps or so, fewer at first
    max_frames: int = Field(default=160, ge=8)  # longer clips are cropped at random: 3.2 s at a 20 ms hop
    # auto: bf16 where the hardware has it, else no; emulated, it takes four times as long
    mixed_precision: Annotated[Literal["no", "fp16", "bf16", "auto"], BeforeValidator(_no)] = "no"
    outlier_sounds: int = Field(
        default=100, ge=0
    )  # crowds, and whispers, that the run learns to give no answer; 0: none
    cpu_threads: int | None = Field(default=None, ge=1)  # of a process, also beside its GPU; null: all cores, shared
    # torch.compile; every batch is padded to max_frames, so that all have one shape or two. Norms that span
    # processes, and timm's networks with their images of many sizes, are too much for it: it compiles a part at most.
    compile: bool = False
    checkpoint_minutes: float | None = Field(default=10, gt=0)  # beside the end of each epoch; null: only there
    trackers: list[str] = ["tensorboard"]  # any of Accelerate's that are installed; TensorBoard writes to OUT/logs
    push_to_hub: str | None = None  # a repository of the Hub, your-name/ser-cnn, that the finished model goes to
    push_private: bool = False  # whether that repository is private when it is made

    @model_validator(mode="after")
    def _waits_for_nothing_in_vain(self) -> "TrainingSettings":
        if self.keep == "last" and self.patience_epochs:
            raise ValueError("keep is 'last' and patience_epochs waits for a better epoch; leave one of them out")
        return self


class DataSettings(_Section):
    corpora: list[dict[str, Any]] = Field(min_length=1)  # name, and the options of that reader
    strict: bool = False  # stop at damaged files; else they are left out, and listed in left_out.csv
    streaming: bool = False  # decode clips as they are asked for, for data that do not fit on the disk a second time
    num_proc: int | None = Field(default=None, ge=1)  # processes that decode; left out: a core each, for streams none


class Settings(_Section):
    name: str
    seed: Seed = 0
    data: DataSettings
    labels: int | dict[str, Any] = 8
    split: SplitSettings = SplitSettings()
    features: dict[str, Any] = {}  # arguments of SERFeatureExtractor
    model: dict[str, Any] = {}  # arguments of SERConfig
    augmentation: AugmentationSettings = AugmentationSettings()
    training: TrainingSettings = TrainingSettings()

    @field_validator("name")
    @classmethod
    def _names_a_folder(cls, name: str) -> str:
        if name.strip(" .") == "" or re.search(r"[/\\\x00-\x1f]", name):  # the logs go to OUT/logs/<name>
            raise ValueError(f"{name!r} cannot name a folder; take letters and digits, without a slash")
        return name

    @field_validator("labels")
    @classmethod
    def _are_words(cls, labels: int | dict[str, Any]) -> int | dict[str, Any]:
        """YAML takes a bare yes, no, on or off for true or false, and nothing says which word it was."""
        if misread := [word for word in _words(labels) if word is None or isinstance(word, bool)]:
            raise ValueError(
                f'YAML reads one of the words as {json.dumps(misread[0])}; quote them, as in names: ["yes", "no"]'
            )
        return labels

    @field_validator("augmentation")
    @classmethod
    def _changes_something(cls, augmentation: AugmentationSettings, others: ValidationInfo) -> AugmentationSettings:
        if augmentation.style.probability and others.data.get("features", {}).get("normalization") == "utterance":
            raise ValueError(
                "style blends the mean and spread of clips, which features.normalization 'utterance' makes alike; "
                "leave one of them out"
            )
        return augmentation


def _words(value: Any) -> Iterator[Any]:
    """Every key and value of nested lists and mappings; what is left out altogether (`drop:`) is none."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield key
            yield from () if inner is None else _words(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _words(inner)
    else:
        yield value


class _UniqueKeys(yaml.SafeLoader):
    """YAML's rule that Python's reader does not keep: a key that stands twice would silently lose its first value."""

    def compose_mapping_node(self, anchor: str | None) -> yaml.MappingNode:
        node, seen = super().compose_mapping_node(anchor), set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and (key.value in seen or seen.add(key.value)):
                raise yaml.composer.ComposerError(None, None, f"{key.value!r} stands there twice", key.start_mark)
        return node


def load_settings(path: str | Path, overrides: list[str] | None = None) -> Settings:
    """Read a YAML file and lay `--section.key value` pairs over it.

    Raises:
        SettingsError: no such file, not YAML, an unknown key (with the nearest known one), or a value out of range.
    """
    path = Path(path)
    try:
        raw = yaml.load(path.read_text(encoding="utf-8"), _UniqueKeys)
    except FileNotFoundError:
        raise SettingsError(f"no config file {path}; the ones that come along are in configs/") from None
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} cannot be read ({error}); give a YAML file of configs/") from error
    except yaml.YAMLError as error:
        raise SettingsError(f"{path} is not YAML: {error}") from error
    if not isinstance(raw, dict):
        raise SettingsError(f"{path} holds {type(raw).__name__}; a mapping of settings was wanted")
    raw.setdefault("name", path.stem)
    for key, value in _pairs(overrides or []):
        _lay_over(raw, key, value)
    try:
        return Settings.model_validate(raw)
    except ValidationError as error:
        raise SettingsError(f"{path}: " + "; ".join(_complaints(error.errors()))) from error


def flat_settings(settings: Settings) -> dict[str, str | int | float | bool]:
    """{"training.epochs": 50, ...}: every setting by its dotted name, lists and what is unset as JSON."""
    flat = {}
    waiting = list(settings.model_dump(mode="json").items())
    while waiting:
        name, value = waiting.pop(0)
        if isinstance(value, dict):
            waiting = [(f"{name}.{key}", inner) for key, inner in value.items()] + waiting
        else:
            flat[name] = value if isinstance(value, str | int | float) else json.dumps(value)
    return flat


def save_settings(settings: Settings, path: str | Path) -> None:
    """Write every setting, defaults included, so that a run can be made again from this file alone."""
    Path(path).write_text(yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False), encoding="utf-8")


def _pairs(overrides: list[str]) -> list[tuple[str, Any]]:
    """["--training.epochs", "5", "--seed=1"] -> [("training.epochs", 5), ("seed", 1)]"""
    words = [part for word in overrides for part in (word.split("=", 1) if word.startswith("--") else [word])]
    if len(words) % 2 or not all(word.startswith("--") for word in words[::2]):
        raise SettingsError(f"cannot read {' '.join(overrides)!r}; overrides look like --training.epochs 5")
    try:
        return [
            (key.removeprefix("--"), yaml.safe_load(value)) for key, value in zip(words[::2], words[1::2], strict=True)
        ]
    except yaml.YAMLError as error:
        raise SettingsError(f"cannot read {' '.join(overrides)!r}: {error}") from error


def _lay_over(raw: dict, dotted_key: str, value: Any) -> None:
    *sections, key = dotted_key.split(".")
    for section in sections:
        raw = raw.setdefault(section, {})
        if not isinstance(raw, dict):
            raise SettingsError(f"--{dotted_key}: {section!r} has no keys of its own")
    raw[key] = value


_WANTED = {  # by the start of pydantic's name for the fault, or of the type of a union that did not fit
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "str": "a text",
    "list[str]": "a list of names",
    "list": "a list",
    "tuple": "a list of two",
    "dict": "a mapping of keys to values",
    "model": "a mapping of keys to values",
    "too_short": "a list with something in it",
}


def _complaints(problems: Sequence[dict]) -> list[str]:
    """One for each setting, in words that need no knowledge of pydantic."""
    complaints: dict[str, str] = {}
    for problem in problems:
        key, section, beyond = _place(problem["loc"])
        given, kind = problem["input"], problem["type"]
        if kind == "extra_forbidden":
            name = str(problem["loc"][-1])
            hint = nearest(name, section.model_fields)
            complaints[key] = f"unknown key {key!r}{hint}; known here: {sorted(section.model_fields)}"
        elif kind == "value_error":  # of a validator of ours, which says it all
            complaints[key] = f"{key}: {problem['ctx']['error']}"
        elif kind == "missing":
            complaints[key] = f"{key} is missing"
        elif kind == "literal_error":
            known = re.findall(r"'([^']*)'", problem["ctx"]["expected"])
            complaints[key] = f"{key} is {given!r}{nearest(str(given).lower(), known)}; known: {', '.join(known)}"
        elif key in complaints:  # a union: what else would have done, named once
            wanted = _wanted(beyond, problem)
            complaints[key] += "" if wanted in complaints[key] else f" or {wanted}"
        else:
            complaints[key] = f"{key} is {given!r}; it must be {_wanted(beyond, problem)}"
    return list(complaints.values())


def _place(path: Sequence[str | int]) -> tuple[str, type[BaseModel], str]:
    """The dotted key of a setting, the section that it is in, and which type of a union pydantic tried, if any."""
    section, inner, names = Settings, Settings, []
    for part in path:
        if inner is not None:
            section, field = inner, inner.model_fields.get(part)
            known = field is not None and isinstance(field.annotation, type)
            inner = field.annotation if known and issubclass(field.annotation, _Section) else None
        elif isinstance(part, str):
            return ".".join(names), section, part
        names.append(str(part))
    return ".".join(names), section, ""


def _wanted(tried: str, problem: Mapping[str, Any]) -> str:
    """ "a whole number", or what pydantic says of bounds: "greater than 0"."""
    fault = tried or problem["type"]
    words = [words for start, words in _WANTED.items() if fault.startswith(start)]
    return words[0] if words else problem["msg"].removeprefix("Input should be ").lower()
