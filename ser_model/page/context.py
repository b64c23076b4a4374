"""What the tabs of the page share."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import gradio as gr
from gradio.components import Component
from gradio.context import LocalContext

from .models import Models
from .texts import Texts

if TYPE_CHECKING:
    from ..library.store import Library


def may_be_empty(slider: gr.Slider) -> gr.Slider:
    """The same, of which the field may be emptied: until there is a number again, the first one counts.

    Not a subclass, for Gradio writes a stub file beside the code of each.
    """
    read = slider.preprocess
    slider.preprocess = lambda number: read(slider.value if number is None else number)
    return slider


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

    def gives_up(self) -> Callable[..., None]:
        """To be called now and then by what takes long: ends it once its visitor has cancelled it or left, and others
        have its place.
        """
        events = self.demo._queue.event_ids_to_events
        event = events.get(LocalContext.event_id.get(None))

        def check(*_) -> None:
            if event is not None and not (event.alive and event._id in events):
                raise gr.Error("nobody waits for this answer any more", print_exception=False)

        return check

    def when_threshold_moves(self, reword: Callable, inputs: list, outputs: Component | list[Component]) -> None:
        """Say it again in the words of another threshold. Not by `change`: several of those on one slider go on calling
        when it has come to rest.
        """
        quick = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
        self.threshold.input(reword, inputs, outputs, trigger_mode="multiple", **quick)
