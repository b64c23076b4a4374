"""The models on offer: named when the page starts, loaded when first used."""

import json
import logging
import re
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import gradio as gr
import yaml
from huggingface_hub import ModelCard, hf_hub_download

from ..run_files import CARD, CONFIG
from .texts import Say

logger = logging.getLogger(__name__)
DEFAULT = "ser-cnn-8"
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
NO_FIGURES = (OSError, ValueError, KeyError, TypeError, AttributeError, yaml.YAMLError)  # what cards by anybody lead to


class ModelError(RuntimeError):
    """Why there is no such model, and what to do about it."""


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
        ModelError: a source is neither, or two have one name.
    """

    def __init__(self, sources: Sequence[str]):
        self._sources = {_name(source): source for source in sources}
        if not self._sources:
            raise _no_model("checkpoints/")
        if len(self._sources) < len(sources):
            raise ModelError("Two models have one name: give every folder in SER_MODELS a name of its own.")
        self.names = list(self._sources)
        self._loaded, self._cards = {}, {}
        self._locks = {name: threading.Lock() for name in self.names}

    @property
    def default(self) -> str:
        return self.names[0]

    def get(self, name: str | None = None):
        """The `EmotionRecognizer` of that name, or the default; ModelError if it cannot be had."""
        name = name or self.default
        if name not in self._sources:
            raise _no_model(name)
        with self._locks[name]:  # the second visitor waits for the load that the first began
            if name not in self._loaded:
                import torch

                from ..inference import EmotionRecognizer
                from ..pretrained import PretrainedError

                torch.set_num_threads(1)  # visitors come side by side: threads would wait for each other
                device, source = "cuda" if torch.cuda.is_available() else "cpu", self._sources[name]
                try:
                    self._loaded[name] = EmotionRecognizer.from_pretrained(source, device=device)
                except PretrainedError as error:
                    logger.error("%s", error)
                    raise ModelError(f"{str(error).replace(source, name)}.") from error  # visitors learn no path
                except OSError as error:
                    logger.error("%s: %s", source, error)
                    raise _no_model(name) from error
            return self._loaded[name]

    def get_for_visitor(self, name: str, say: Say):
        """`get`, whose refusal the page shows; why, which the host alone can mend, is in the log."""
        try:
            return self.get(name)
        except ModelError as error:
            raise gr.Error(say("page.model_unusable", model=name), print_exception=False) from error

    def card(self, name: str) -> Card:
        """From the model's folder or the Hub, asked once; what is not there, out of reach or no figure is left out."""
        if name not in self._cards:
            self._cards[name] = _card(self._sources[name])
        return self._cards[name]


def on_gpu(function: Callable) -> Callable:
    """Where ZeroGPU lends a GPU call by call, its decorator; anywhere else the function as it is."""
    if find_spec("spaces") is None:
        return function
    import spaces

    return spaces.GPU(function)


def checkpoints(folder: Path) -> list[str]:
    """The model folders below `folder`, the default first."""
    folders = (config.parent for config in folder.glob(f"*/{CONFIG}"))
    return [str(own) for own in sorted(folders, key=lambda own: (own.name != DEFAULT, own.name))]


def _no_model(source: str) -> ModelError:
    remedy = "set SER_MODELS to checkpoint folders or Hub ids, or train one (README.md)"
    return ModelError(f"No model in {source}: {remedy}.")


def _name(source: str) -> str:
    if (Path(source) / CONFIG).is_file():
        return Path(source).resolve().name
    if not HUB_ID.fullmatch(source):
        raise _no_model(source)
    return source


def _card(source: str) -> Card:
    try:
        labels = len(json.loads(Path(_file(source, CONFIG)).read_text(encoding="utf-8"))["id2label"])
    except NO_FIGURES:
        labels = None
    try:
        found = ModelCard(Path(_file(source, CARD)).read_text(encoding="utf-8")).data.eval_results or []
    except NO_FIGURES:
        found = []
    figures = {}
    for result in found:
        figures.setdefault(str(result.dataset_name), {})[str(result.metric_type)] = _share(result.metric_value)
    results = (Result(data, figure.get("recall"), figure.get("accuracy")) for data, figure in figures.items())
    return Card(labels, tuple(results))


def _share(value: object) -> float | None:
    """A figure of a card, which may hold anything: from 0 to 1, else None."""
    return value if isinstance(value, int | float) and 0 <= value <= 1 else None


def _file(source: str, name: str) -> str:
    """As `hub.find_file`, which would load PyTorch before the page is served."""
    return str(Path(source) / name) if Path(source).is_dir() else hf_hub_download(source, name)
