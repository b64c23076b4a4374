"""The models on offer: named when the page starts, loaded when first used."""

import json
import logging
import re
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from huggingface_hub import ModelCard, hf_hub_download

logger = logging.getLogger(__name__)
DEFAULT = "ser-cnn-8"
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


class ModelError(RuntimeError):
    """Why there is no such model, and what to do about it."""

    def __init__(self, source: str):
        super().__init__(
            f"No model in {source}: set SER_MODELS to checkpoint folders or Hub ids, or train one (README.md)."
        )


@dataclass(frozen=True)
class Result:
    """One line of a model card's figures; those that the card does not give are None."""

    tested_on: str
    uar: float | None
    accuracy: float | None


@dataclass(frozen=True)
class Card:
    """What a model says of itself: how many labels it has, and how good it is."""

    labels: int | None
    results: tuple[Result, ...]


class Models:
    """Recognizers by name: a folder's own name, or the Hub id. Safe to share between threads.

    Args:
        sources: folders and Hub ids; the first is the default.

    Raises:
        ModelError: a source is neither.
    """

    def __init__(self, sources: Sequence[str]):
        self._sources = {_name(source): source for source in sources}
        if not self._sources:
            raise ModelError("checkpoints/")
        self.names = list(self._sources)
        self._loaded = {}
        self._locks = {name: threading.Lock() for name in self.names}

    @property
    def default(self) -> str:
        return self.names[0]

    def get(self, name: str | None = None):
        """The `EmotionRecognizer` of that name, or the default; ModelError if it cannot be had."""
        name = name or self.default
        if name not in self._sources:
            raise ModelError(name)
        with self._locks[name]:  # the second visitor waits for the load that the first began
            if name not in self._loaded:
                import torch

                from ..inference import EmotionRecognizer

                torch.set_num_threads(1)  # visitors come side by side: threads would wait for each other
                device = "cuda" if torch.cuda.is_available() else "cpu"
                try:
                    self._loaded[name] = EmotionRecognizer.from_pretrained(self._sources[name], device=device)
                except OSError as error:
                    logger.error("%s: %s", self._sources[name], error)
                    raise ModelError(name) from error
            return self._loaded[name]

    def card(self, name: str) -> Card:
        """From the model's folder or the Hub; what is not there, or out of reach, is left out."""
        source = self._sources[name]
        try:
            labels = len(json.loads(Path(_file(source, "config.json")).read_text())["id2label"])
        except OSError:
            labels = None
        try:
            found = ModelCard(Path(_file(source, "README.md")).read_text(encoding="utf-8")).data.eval_results or []
        except OSError:
            found = []
        figures = {}
        for result in found:
            figures.setdefault(result.dataset_name, {})[result.metric_type] = result.metric_value
        results = (Result(data, figure.get("recall"), figure.get("accuracy")) for data, figure in figures.items())
        return Card(labels, tuple(results))


def on_gpu(function: Callable) -> Callable:
    """Where ZeroGPU lends a GPU call by call, its decorator; anywhere else the function as it is."""
    if find_spec("spaces") is None:
        return function
    import spaces

    return spaces.GPU(function)


def checkpoints(folder: Path) -> list[str]:
    """The model folders below `folder`, the default first."""
    folders = (config.parent for config in folder.glob("*/config.json"))
    return [str(own) for own in sorted(folders, key=lambda own: (own.name != DEFAULT, own.name))]


def _name(source: str) -> str:
    if (Path(source) / "config.json").is_file():
        return Path(source).resolve().name
    if not HUB_ID.fullmatch(source):
        raise ModelError(source)
    return source


def _file(source: str, name: str) -> str:
    return str(Path(source) / name) if Path(source).is_dir() else hf_hub_download(source, name)
