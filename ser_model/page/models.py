"""The models on offer: named when the page starts, loaded when first used."""

import re
import threading
from collections.abc import Sequence
from pathlib import Path

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


class ModelError(RuntimeError):
    """Why there is no such model, and what to do about it."""

    def __init__(self, source: str):
        super().__init__(
            f"No model in {source}: set SER_MODELS to checkpoint folders or Hub ids, or train one (README.md)."
        )


class Models:
    """Recognizers by name: a folder's own name, or the Hub id. Safe to share between threads.

    Args:
        sources: folders and Hub ids; the first is the default.

    Raises:
        ModelError: a source is neither.
    """

    def __init__(self, sources: Sequence[str]):
        self._sources = {_name(source): source for source in sources}
        self.names = list(self._sources)
        self._loaded = {}
        self._lock = threading.Lock()

    @property
    def default(self) -> str:
        return self.names[0]

    def get(self, name: str | None = None):
        """The `EmotionRecognizer` of that name, or the default; ModelError if it cannot be had."""
        name = name or self.default
        if name not in self._sources:
            raise ModelError(name)
        with self._lock:  # the second visitor waits for the load that the first began
            if name not in self._loaded:
                from ..inference import EmotionRecognizer

                try:
                    self._loaded[name] = EmotionRecognizer.from_pretrained(self._sources[name])
                except OSError as error:
                    raise ModelError(self._sources[name]) from error
            return self._loaded[name]


def checkpoints(folder: Path) -> list[str]:
    """The model folders below `folder`."""
    return [str(config.parent) for config in sorted(folder.glob("*/config.json"))]


def _name(source: str) -> str:
    if (Path(source) / "config.json").is_file():
        return Path(source).resolve().name
    if not HUB_ID.fullmatch(source):
        raise ModelError(source)
    return source
