"""Every sentence of the page, in the language that the visitor's browser asks for first, else in English."""

from collections.abc import Callable
from functools import cached_property
from pathlib import Path

import gradio as gr
import yaml
from gradio.i18n import I18nData

FILE = Path(__file__).with_name("texts.yaml")
LANGUAGES = ("en", "es", "fr", "de", "zh", "hi")

Say = Callable[..., str]  # key, **values -> sentence


class Texts:
    """The sentences of texts.yaml. A key is the way to one: "try.submit"."""

    def __init__(self, file: Path = FILE):
        self._sentences = dict(_flat(yaml.safe_load(file.read_text(encoding="utf-8"))))
        self._rendered: dict[str, Callable[[Say], str]] = {}

    @property
    def keys(self) -> list[str]:
        return list(self._sentences)

    def label(self, key: str) -> I18nData:
        """For a component's label, value or placeholder: the browser puts its own language there."""
        self._sentences[key]  # a wrong key is an error here, not a strange word on the page
        return I18nData(key)

    def rendered(self, name: str, render: Callable[[Say], str]) -> I18nData:
        """Like `label`, for a value made of several sentences: `render(say)` is called once for each language."""
        self._rendered[name] = render
        return I18nData(name)

    def say(self, request: gr.Request | None, key: str, **values) -> str:
        """A sentence made on the server, in the language of the request; without one, in English."""
        return self.speaker(language(request))(key, **values)

    def speaker(self, language: str) -> Say:
        return lambda key, **values: self._sentences[key][language].format(**values)

    def emotion(self, say: Say, label: str) -> str:
        """How a visitor reads a model's label: "female_disgust" -> "disgusted (female)"; labels of one's own as is."""
        sex, _, emotion = label.rpartition("_")
        if f"emotions.{emotion}" not in self._sentences or sex not in ("", "female", "male"):
            return label.replace("_", " ")
        name = say(f"emotions.{emotion}")
        return say(f"emotions.by_{sex}", emotion=name) if sex else name

    @cached_property
    def i18n(self) -> gr.I18n:
        """All labels, for `launch`; ask when the page is built."""
        return gr.I18n(
            **{
                language: {key: sentence[language] for key, sentence in self._sentences.items()}
                | {name: render(self.speaker(language)) for name, render in self._rendered.items()}
                for language in LANGUAGES
            }
        )


def language(request: gr.Request | None) -> str:
    """The browser's first language, as Gradio's own labels take it, if it is one of ours; else English."""
    accepted = request.headers.get("accept-language", "") if request else ""
    first = accepted.split(",")[0].split(";")[0].strip().lower().split("-")[0]
    return first if first in LANGUAGES else "en"


def _flat(tree: dict, path: str = ""):
    for name, branch in tree.items():
        if "en" in branch:
            yield path + name, branch
        else:
            yield from _flat(branch, f"{path}{name}.")
