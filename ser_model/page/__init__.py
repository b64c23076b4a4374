"""The page that visitors meet, tab by tab. Only app.py imports it."""

from importlib import import_module
from importlib.util import find_spec

import gradio as gr

from .context import Page
from .models import Models
from .texts import Texts
from .theme import CSS, TAKE_ANY_RECORDING, THEME

TABS = ("try", "live", "many", "clips", "library")  # in this order; texts.yaml has a group for each
MODULES = {"try": "analyse"}  # "try" cannot name a module

LIMITS = """**What it can't do.** It learned from actors who speak North American English, so it judges how a voice
*sounds* next to theirs, not what a person feels, and it errs more often with other languages, accents, ages and
everyday speech.
Do not use it for hiring, medicine or policing, or for any decision about a person.

**Your recording** is worked on here only, is sent nowhere else, and is deleted after about an hour."""


def build_demo(models: Models, library_url: str | None = None) -> gr.Blocks:
    """The page around the models on offer; with a database, the tab of the team's library too."""
    texts = Texts()
    with gr.Blocks(title=texts.label("page.title"), delete_cache=(600, 3600)) as demo:
        gr.Markdown(texts.rendered("page.head", lambda say: f"# 🎙️ {say('page.title')}\n{say('page.intro')}"))
        choice = gr.Dropdown(models.names, value=models.default, label=texts.label("page.model"), render=False)
        threshold = gr.Slider(0, 100, 50, step=1, label=texts.label("page.threshold"), render=False)
        context = Page(models, choice, threshold, texts, gr.State([]), library_url)
        with gr.Tabs():
            for name in TABS:
                module = f"{__name__}.{MODULES.get(name, name)}"
                if not find_spec(module) or (name == "library" and not library_url):
                    continue
                with gr.Tab(texts.label(f"{name}.tab"), id=name):
                    import_module(module).build(context)
        with gr.Row():
            choice.render()
            threshold.render()
        gr.Markdown(LIMITS, elem_id="limits")
    demo.texts = texts
    return demo.queue(max_size=32, default_concurrency_limit=2)


def launch(demo: gr.Blocks) -> None:
    """Serve the page until it is stopped."""
    from ..inference import AUDIO_SUFFIXES

    demo.launch(
        theme=THEME,
        css=CSS,
        js=TAKE_ANY_RECORDING.replace("SUFFIXES", ",".join(sorted(AUDIO_SUFFIXES))),
        i18n=demo.texts.i18n,
        max_file_size="50mb",
        footer_links=["api"],
        run_history=False,  # would keep answers in the visitor's browser
        enable_monitoring=False,
    )
