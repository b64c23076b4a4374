"""The tables under results/ that people write: protocols.yaml, ablations.yaml and runs.yaml, with types."""

import re
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, field_validator

from ser_model.labels import nearest
from ser_model.splits import FOLDS

RESULTS = Path(__file__).resolve().parent
Heard = Literal["", "conditions", "enrolled"]  # as recorded; under test conditions; once the speaker is known
Measure = Literal["uar", "accuracy", "f1_weighted", "f1_macro"]  # those that metrics.speaker_intervals knows


class ResultsError(ValueError):
    """A table, a run or a file of predictions that no figure can rest on, and what to do about it."""


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Others(_Entry):
    """What somebody else reported on a protocol."""

    model: str
    figures: dict[Measure, float]
    source: str


class Protocol(_Entry):
    """See the head of protocols.yaml."""

    title: str
    cv: str | None
    seeds: list[int] = Field(min_length=1)
    measures: list[Measure] = Field(min_length=1)
    models: dict[str, str] = Field(min_length=1)
    probes: dict[str, str] = {}
    ensembles: dict[str, list[str]] = {}
    joined: dict[str, list[int]] = {}
    networks: dict[str, int] = {}
    voices_known: bool = False
    conditions: bool = False
    enrolled: bool = False
    developed_on: list[int] = []
    first_tested: dict[str, float] = {}
    others: list[Others] = []

    @field_validator("cv")
    @classmethod
    def _has_known_folds(cls, cv: str | None) -> str | None:
        if cv is not None and cv not in FOLDS and not re.fullmatch(r"random-[1-9]\d*", cv):
            raise ValueError(f"{cv!r} is neither random-5 or the like nor one of {', '.join(FOLDS)}")
        return cv

    def seeds_of(self, model: str) -> list[tuple[int, int]]:
        """Of each run of all folds: the seed of its first network, and that of its first split where it is random."""
        networks = range(self.networks.get(model, 1))
        return [(seed + number * self.folds, seed) for seed in self.seeds for number in networks]

    @property
    def answering(self) -> list[str]:
        """All whose predictions are tabled."""
        return [*self.models, *self.probes]

    @property
    def unseen(self) -> bool:
        """Whether it tests voices that training never heard."""
        return self.cv in FOLDS or (self.cv is None and not self.voices_known)

    @property
    def folds(self) -> int:
        """Runs of train.py that a seed takes."""
        if self.cv is None:
            return 1
        return len(FOLDS[self.cv]) if self.cv in FOLDS else int(self.cv.removeprefix("random-"))


class Ablation(_Entry):
    """One thing that was tried; figures are those of `measured_on`."""

    tried: str
    against: str
    measured_on: str
    before: float
    after: float
    verdict: str


class Run(_Entry):
    """What all seeds of a protocol's model took."""

    protocol: str
    model: str
    hardware: str
    hours: float
    commit: str


def load_protocols(folder: Path = RESULTS) -> dict[str, Protocol]:
    """By name, in the order of the file. Raises ResultsError."""
    return _load(folder / "protocols.yaml", dict[str, Protocol])


def load_ablations(folder: Path = RESULTS) -> list[Ablation]:
    """Raises ResultsError."""
    return _load(folder / "ablations.yaml", list[Ablation])


def load_runs(folder: Path = RESULTS) -> list[Run]:
    """Raises ResultsError."""
    return _load(folder / "runs.yaml", list[Run])


def find_protocol(name: str, folder: Path = RESULTS) -> Protocol:
    """Raises ResultsError for an unknown one."""
    protocols = load_protocols(folder)
    if name not in protocols:
        raise ResultsError(f"unknown protocol {name!r}{nearest(name, protocols)}; known: {', '.join(protocols)}")
    return protocols[name]


def predictions_file(folder: Path, protocol: str, model: str, heard: Heard = "") -> Path:
    """Where a model's answers lie, to clips heard as recorded or otherwise."""
    return folder / "predictions" / f"{protocol}.{model}{heard and f'.{heard}'}.csv.gz"


def _load(path: Path, kind: Any) -> Any:
    try:
        return TypeAdapter(kind).validate_python(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (OSError, yaml.YAMLError) as error:
        raise ResultsError(f"{path} cannot be read: {error}") from error
    except ValidationError as error:
        problems = (f"{'.'.join(map(str, problem['loc']))}: {problem['msg'].lower()}" for problem in error.errors())
        raise ResultsError(f"{path}: {'; '.join(problems)}; see the head of the file for what is wanted") from error
