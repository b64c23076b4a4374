"""What the tabs of the page share."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import gradio as gr

from .models import Models
from .texts import Texts

if TYPE_CHECKING:
    from ..library.store import Library


@dataclass(frozen=True)
class Page:
    """Handed to every tab's `build`.

    demo: the page itself, for what happens when it loads.
    models: those on offer; `models.get(name)` is an `EmotionRecognizer`.
    choice: the name of the chosen one.
    threshold: below this confidence an answer is "unsure".
    texts: every sentence, in the visitor's language.
    clips: what this visitor analysed in this session; nobody else's. `clips.remember` puts something in.
    minutes: after which a recording is off the server's disk.
    deleted: changes when this visitor has deleted clips, for tabs that still show one.
    library: the team's, if there is one.
    """

    demo: gr.Blocks
    models: Models
    choice: gr.Dropdown
    threshold: gr.Slider
    texts: Texts
    clips: gr.State
    minutes: int
    deleted: gr.State
    library: "Library | None" = None
