"""The page that visitors meet, tab by tab. Only app.py imports it."""

import math
import signal
from html import escape

import gradio as gr
import gradio.route_utils
from limits import RateLimitItem
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware

from ..labels import SURE_CONFIDENCE
from ..run_files import SHARED_SPEAKERS
from . import analyse, clips, developers, library, live, many
from .answers import decimal
from .context import Page, may_be_empty
from .models import Models
from .server import (
    MAX_UPLOAD_MB,
    Doors,
    FaultsInWords,
    ForgetCalls,
    RateLimit,
    UploadParser,
    UploadsOnly,
    keep_swept,
)
from .texts import Say, Texts
from .theme import BROWSER_SCRIPT, CSS, THEME

# In this order; texts.yaml has a group for each.
TABS = {"try": analyse, "live": live, "many": many, "clips": clips, "library": library, "developers": developers}
KEPT_S = 3600  # how long a recording may lie on the server's disk
MAX_SESSIONS = 2000  # whose clips are remembered; a tenth of a MiB each at the least
RATE = "6000/minute"  # of uploads and calls of one address; eight live microphones behind it make 3840
CLOSED_S = 3600  # what a page had that is closed by now, Gradio forgets after this
SWEEP_S = 600  # how often old ones are looked for


def build_demo(models: Models, library_url: str | None = None, kept_s: int = KEPT_S) -> gr.Blocks:
    """The page around the models on offer; with a database, the tab of the team's library too.

    Args:
        kept_s: seconds after which an upload is deleted, at the next of the sweeps, which are at most as far apart.

    Raises:
        LibraryError: the database cannot be used.
    """
    team_library = None
    if library_url:
        from ..library.store import Library

        team_library = Library(library_url)
    texts = Texts()
    sweep_s = min(SWEEP_S, kept_s)
    with UploadsOnly(title=texts.speaker("en")("page.title"), delete_cache=(sweep_s, kept_s)) as demo:
        demo.space_id = None  # by it Gradio's page, opened beside the Hub's, would ask Google for fonts
        gr.Markdown(
            texts.rendered("page.head", lambda say: f"# 🎙️ {say('page.title')}\n{say('page.intro')}"), elem_id="head"
        )
        choice = gr.Dropdown(
            models.names, value=models.default, label=texts.label("page.model"), elem_id="model", render=False
        )
        threshold = gr.Slider(
            0,
            100,
            round(100 * SURE_CONFIDENCE),
            step=1,
            label=texts.label("page.threshold"),
            info=texts.label("page.threshold_info"),
            elem_id="threshold",
            render=False,
        )
        own, minutes = clips.new_state(kept_s), math.ceil((max(kept_s, CLOSED_S) + sweep_s) / 60)
        context = Page(demo, models, choice, may_be_empty(threshold), texts, own, minutes, gr.State(0), team_library)
        with gr.Tabs(overflow_behavior="wrap"):  # a phone shows them all
            for name, tab in TABS.items():
                if name == "library" and not team_library:
                    continue
                # "live" loads its recorder in the background; Gradio's fails if Record is pressed before that is there.
                with gr.Tab(texts.label(f"{name}.tab"), id=name, elem_id=f"tab-{name}", render_children=name == "live"):
                    tab.build(context)
        with gr.Accordion(texts.label("page.settings"), open=False, elem_id="settings"):
            with gr.Row():
                choice.render()
                threshold.render()
            gr.HTML(texts.rendered("page.cards", lambda say: cards_html(say, models)), elem_id="cards")
        gr.Markdown(
            texts.rendered("page.foot", lambda say: foot(say, minutes, has_library=bool(team_library))),
            elem_id="limits",
        )
    demo.texts = texts
    demo.queue(max_size=32, default_concurrency_limit=2, api_open=False)  # open, calls could pass the queue by
    live.limit_waiting(demo)
    return demo


def foot(say: Say, minutes: int, has_library: bool) -> str:
    """What the model cannot do, and what becomes of recordings."""
    privacy = say("page.privacy", minutes=minutes) + (f" {say('page.privacy_library')}" if has_library else "")
    return f"{say('page.limits')}\n\n{privacy}"


def cards_html(say: Say, models: Models) -> str:
    """Every model on offer with the figures of its card."""
    rows = []
    for name in models.names:
        card = models.card(name)
        first = f'<th scope="row" rowspan="{max(1, len(card.results))}">{escape(name)}</th>'
        first += f'<td rowspan="{max(1, len(card.results))}">{card.labels or "–"}</td>'
        if not card.results:
            rows.append(f'<tr>{first}<td colspan="3">{say("page.no_figures")}</td></tr>')
        for result in card.results:
            figures = "".join(
                f"<td>{'–' if value is None else decimal(say, value, 3)}</td>"
                for value in (result.uar, result.accuracy)
            )
            rows.append(f"<tr>{first}<td>{escape(result.tested_on)}</td>{figures}</tr>")
            first = ""
    head = f"<th>{say('page.model')}</th><th>{say('page.labels')}</th><th>{say('page.tested_on')}</th>"
    title, note = escape(say("page.models")), say("page.figures_note")
    if any(SHARED_SPEAKERS in result.tested_on for name in models.names for result in models.card(name).results):
        note += f" {say('page.figures_shared')}"
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{title}"><table class="models">'
        f"<thead><tr>{head}<th>UAR</th><th>{say('page.accuracy')}</th></tr></thead><tbody>{''.join(rows)}</tbody></table>"
        f"</div><p>{note}</p>"
    )


def launch(demo: gr.Blocks, models: Models, rate: RateLimitItem | None = None) -> None:
    """Serve the page until it is stopped; the default model is loaded while the first visitors read.

    Args:
        rate: how often one address may upload and call; None for no limit.
    """
    gradio.route_utils.GradioMultiPartParser = UploadParser  # there is no setting for it
    middleware = [Middleware(GZipMiddleware)]  # Gradio's scripts come compressed, but not the page, 300 kB
    middleware += [Middleware(kind, texts=demo.texts) for kind in (FaultsInWords, Doors)]
    middleware += [Middleware(ForgetCalls, demo=demo)]
    middleware += [Middleware(RateLimit, rate=rate, texts=demo.texts)] if rate else []
    demo.launch(
        theme=THEME,
        css=CSS,
        js=BROWSER_SCRIPT,
        i18n=demo.texts.i18n,
        max_file_size=f"{MAX_UPLOAD_MB}mb",
        ssr_mode=False,  # Spaces turn it on; styles of our own get lost by it
        footer_links=[],  # Gradio's own page on the API shows calls by URL, which are refused; see developers.py
        run_history=False,  # would keep answers in the visitor's browser
        enable_monitoring=False,
        state_session_capacity=MAX_SESSIONS,
        mcp_server=developers.mcp_is_on(),
        app_kwargs={"middleware": middleware},
        prevent_thread_lock=True,
    )
    keep_swept(demo, spared=clips.own_folder())
    models.get()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # like Ctrl-C, on which the visitors' files are deleted
    demo.block_thread()
