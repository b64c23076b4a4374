"""How the page looks, and the little that runs in the browser."""

import gradio as gr

from .texts import LANGUAGES

THEME = gr.themes.Default(primary_hue="teal", neutral_hue="slate", font=("system-ui", "sans-serif")).set(
    body_text_color_subdued="*neutral_600",  # Gradio's own greys and its button are too pale to read (WCAG AA)
    body_text_color_subdued_dark="*neutral_400",
    block_info_text_color="*neutral_600",
    block_info_text_color_dark="*neutral_400",
    block_label_text_color="*neutral_600",
    block_label_text_color_dark="*neutral_300",
    block_title_text_color="*neutral_700",
    block_title_text_color_dark="*neutral_200",
    input_placeholder_color="*neutral_600",
    input_placeholder_color_dark="*neutral_400",
    link_text_color_dark="*neutral_200",
    button_primary_background_fill="*primary_700",
    button_primary_background_fill_hover="*primary_800",
    button_primary_background_fill_dark="*primary_700",
    button_primary_background_fill_hover_dark="*primary_800",
    button_cancel_background_fill="#b91c1c",
    button_cancel_background_fill_hover="#991b1b",
    button_cancel_background_fill_dark="#b91c1c",
    button_cancel_background_fill_hover_dark="#991b1b",
    block_shadow="none",
    block_radius="10px",
)

CSS = """
/* Gradio's x clears the page's recording and goes on recording: while it records there is Stop alone. */
#recording:has([class*="stop-button"][style*="flex"]) .icon-button,
#live-microphone:has(.stop-button) .icon-button { display: none; }
.gradio-container { width: 100%; max-width: 1080px !important; margin-inline: auto; }
.gradio-container main { padding-top: 1.5rem !important; }
#head h1 { font-size: clamp(1.5rem, 5vw, 2rem); margin: 0 0 .25rem; }
#head p { color: var(--body-text-color-subdued); max-width: 46rem; }
:focus-visible { outline: 3px solid var(--primary-700) !important; outline-offset: 2px; }
.dark :focus-visible { outline-color: var(--primary-500) !important; }
.sr-only { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); white-space: nowrap; }

button[role="tab"].selected { color: var(--primary-700) !important; }
.dark button[role="tab"].selected { color: var(--primary-400) !important; }
#status, #scores, #pictures, #over-time, #saliency, #cards { padding: 0; border: 0; }
#status .html-container, #scores .html-container, #pictures .html-container, #over-time .html-container,
#saliency .html-container, #cards .html-container { padding: 0; }

.answer { display: flex; align-items: center; gap: 1rem; min-height: 6.5rem; padding: 1rem 1.25rem;
  border-style: solid; border-width: 1px 1px 1px 6px; border-color: var(--border-color-primary); border-radius: 10px;
  background: var(--block-background-fill); }
.answer.voice { border-left-color: var(--primary-500); }
.answer.unsure { border-left-color: var(--primary-500); border-left-style: dashed; }
.emoji { font-family: "Apple Color Emoji", "Segoe UI Emoji", "Noto Color Emoji", sans-serif; line-height: 1; }
.answer .emoji { font-size: 2.75rem; }
.answer p { margin: 0; overflow-wrap: anywhere; }
.answer .said { font-size: var(--text-lg); font-weight: 500; line-height: 1.35; }
.answer.voice .said { font-size: clamp(1.1rem, 4.5vw, 1.4rem); font-weight: 600; }
.answer .heard, .answer .reason { color: var(--body-text-color-subdued); font-size: var(--text-md); }
.answer .reason:empty, html:not([lang="en"]) .answer .reason { display: none; }  /* it is in English */
.answer .warning { margin-top: .5rem; padding-left: .6rem; border-left: 3px solid #b45309; font-size: var(--text-md); }

.bars { display: grid; grid-template-columns: max-content 1fr max-content; gap: .45rem .75rem; align-items: center;
  margin: .25rem 0 0; }
.bars dt { grid-column: 1; font-weight: 400; }
.bars dd { display: contents; }
.bars .bar { height: .6rem; border-radius: .3rem; background: var(--border-color-primary); overflow: hidden; }
.bars .bar i { display: block; height: 100%; width: calc(100% * var(--share)); background: var(--primary-600); }
.bars .number { text-align: right; font-variant-numeric: tabular-nums; min-width: 3.2em; }

#examples-hint p { color: var(--body-text-color-subdued); font-size: var(--text-md); margin: 0; }
:is(#recording, [id^="clips-"]) :is(.icon:not(.selected), time) { color: var(--body-text-color-subdued) !important; }

.over-time h2 { font-size: var(--text-xl); margin: .5rem 0 .25rem; }
.over-time .hint { color: var(--body-text-color-subdued); margin: 0 0 .5rem; }
.over-time .plot { position: relative; cursor: pointer; touch-action: pan-y; user-select: none; }
:is(.over-time, #pictures, #saliency, [id^="clips-"] .pictures) svg { display: block; width: 100%; height: auto; }
.over-time .area { position: absolute; pointer-events: none; }
.over-time .chosen, .over-time .now { position: absolute; top: 0; bottom: 0; display: none; }
.over-time .chosen { background: var(--primary-500); opacity: .3; }
.over-time .now { width: 2px; background: var(--body-text-color); }
.over-time .columns { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 21rem), 1fr));
  gap: 1rem 2rem; }
.over-time audio { width: 100%; margin: .25rem 0 .5rem; }
.over-time .unplayable { color: var(--body-text-color-subdued); }
.over-time .table { max-height: 22rem; overflow: auto; border: 1px solid var(--border-color-primary);
  border-radius: 10px; }
.over-time table, .models { width: 100%; border-collapse: collapse; font-variant-numeric: tabular-nums; }
.over-time th, .over-time td, .models th, .models td { padding: .35rem .6rem; text-align: left;
  border-bottom: 1px solid var(--border-color-primary); }
.over-time thead th { position: sticky; top: 0; background: var(--block-background-fill); }
.over-time tbody tr:last-child td { border-bottom: 0; }
.over-time td button { display: grid; place-items: center; width: 2.25rem; height: 1.75rem; padding: 0;
  font-size: .8rem; line-height: 1; border-radius: 6px; background: var(--button-secondary-background-fill); }
.over-time .downloads { margin-top: .5rem; }
.over-time .downloads a { margin-right: 1rem; text-decoration: underline; }

#saliency figure { max-width: 32rem; }
#pictures .prose { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 20rem), 1fr)); gap: 0 2rem; }
#pictures figure, #saliency figure { margin: 0 0 1.25rem; }
#pictures figcaption, #saliency figcaption { color: var(--body-text-color-subdued); font-size: var(--text-md); }
.models { font-size: var(--text-md); margin: 0; }
.prose :is(.models, .over-time table), .prose :is(.models, .over-time) :is(tr, th, td) {
  border-style: solid !important; border-width: 0 !important; border-color: var(--border-color-primary) !important; }
.prose :is(.models, .over-time) :is(th, td) { border-bottom-width: 1px !important; vertical-align: top; }
.dark audio { color-scheme: dark; }
@media (max-width: 480px) { .over-time :is(th, td) { padding: .3rem .35rem; font-size: var(--text-sm); } }
#status .wrap.full:not(.hide) { bottom: 0; height: auto; border-radius: 10px;
  background: var(--background-fill-primary); }
#examples button { height: auto; align-self: stretch; }
.scroll { overflow-x: auto; }
.scroll .rows { width: 100%; margin: 0; border: 0 !important; font-variant-numeric: tabular-nums; }
.scroll .rows :is(tr, th, td) { border-width: 0 0 1px !important;
  border-color: var(--border-color-primary) !important; }
.rows :is(th, td) { padding: .4rem .75rem .4rem 0; text-align: start; vertical-align: top; }
.rows td { max-width: 16rem; overflow: hidden; text-overflow: ellipsis; }
.rows th { white-space: nowrap; }
.plain { padding: 0; border: 0; }
.plain .html-container { padding: 0; }
#many-table * { font-family: var(--font); }
#many-table th .cell-menu-button { display: flex; position: static; transform: none; }
.counts { display: flex; flex-wrap: wrap; gap: .25rem 1.25rem; margin: .5rem 0 0; padding: 0; list-style: none; }
.note { margin: 0; font-size: var(--text-lg); }
.note code { display: block; margin-top: .5rem; overflow-wrap: anywhere; white-space: normal; }
[id^="clips-"] .bars { margin: 0 0 .75rem; }
.download { text-decoration: underline; }
#library-player audio { width: 100%; }
#limits { border-top: 1px solid var(--border-color-primary); padding-top: 1rem; }
#limits p { max-width: 60rem; }
:is(#live-status, #live-scores, #live-track) .html-container { padding: 0; }
.cm-editor .cm-content * { color: inherit !important; }  /* CodeMirror's colours are too pale to read, */
.cm-editor .cm-gutters { display: none !important; }  /* its numbers, measured in a hidden tab, misplaced */
#announcer { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }

.no-course { color: var(--body-text-color-subdued); font-size: var(--text-md); margin: 0; }
.over-time .unsure td { color: var(--body-text-color-subdued); font-style: italic; }
#live-microphone .record-button { min-width: max-content; padding-inline-end: .75rem; }
.gradio-container:has(#status .wrap.full:not(.hide)) #submit { opacity: .7; cursor: progress; }
/* Gradio takes some of what was cancelled for an error; what is one is said by a toast. */
.gradio-container:has(#status .wrap.full .error) #submit { opacity: 1; cursor: pointer; }
#status .wrap.full:has(.error) { display: none; }
/* On a phone the answer stands right below the button, and what else may be tried below the answer. */
@media (max-width: 42rem) {
  #try-it { flex-direction: column; }
  #try-it > .column { display: contents; }
  :is(#examples-hint, #examples) { order: 1; }
}
@media (max-width: 480px) {  /* Gradio shortens the names of chosen files to their endings */
  #many-files .file { flex-wrap: wrap; }
  #many-files .filename { display: block; flex-basis: 100%; max-width: none; overflow-wrap: anywhere; }
  #many-files .stem { display: inline; white-space: normal; }
}
@media (forced-colors: active) {  /* where the colours are the visitor's own, shapes tell what colours told */
  button[role="tab"].selected { border-bottom: 3px solid Highlight !important; }
  button { border: 1px solid ButtonText !important; }
  .bars .bar { border: 1px solid CanvasText; }
  :is(.bars .bar i, #threshold input[type="range"]) { forced-color-adjust: none; }
  .bars .bar i { background: Highlight; }
}
"""

# Gradio's audio field takes only what the browser calls audio, but webm and mp4 are "video" to it, and amr is nothing.
# So whatever a visitor offers is called audio here, and the server finds out whether it is.
TAKE_ANY_RECORDING = """
  const input = (event) => event.target.closest?.("#recording")?.querySelector("input[type=file]");
  const fill = (input, files) => {
    const list = new DataTransfer();
    for (const file of files) list.items.add(new File([file], file.name, { type: "audio/x-recording" }));
    input.files = list.files;
  };
  document.addEventListener("click", (event) => {
    if (input(event)) input(event).accept = "audio/*,video/*,.amr,.caf,.mka,.opus,.wma";
  }, true);
  document.addEventListener("change", (event) => {
    if (event.target === input(event)) fill(event.target, event.target.files);
  }, true);
  document.addEventListener("drop", (event) => {
    if (!input(event) || !event.dataTransfer?.files.length) return;
    event.preventDefault();
    event.stopPropagation();
    fill(input(event), event.dataTransfer.files);
    input(event).dispatchEvent(new Event("change", { bubbles: true }));
  }, true);
"""

# Gradio announces the browser's language even where the page has no words for it, and titles in one language only.
SPEAK_ONE_LANGUAGE = f"""
  const first = navigator.language.split("-")[0];
  document.documentElement.lang = {list(LANGUAGES)}.includes(first) ? first : "en";
  const entitle = () => {{
    const heading = document.querySelector("#head h1");
    if (heading) document.title = heading.textContent.trim();
    else requestAnimationFrame(entitle);
  }};
  entitle();
"""

# Screen readers announce what changes in a region that was there before, and Gradio draws each answer anew. So what is
# marked as said is repeated in one region that stays, below what was said before: an action's message is heard although
# the list that it changes is announced right after. How far a long analysis has come is said every ten seconds.
ANNOUNCE = """
  const region = document.body.appendChild(document.createElement("div"));
  region.id = "announcer";
  region.className = "sr-only";
  region.setAttribute("role", "status");
  region.setAttribute("aria-atomic", "false");  // only what is new
  const progress = ".progress-level-inner", announced = `.announced, [data-testid=toast-body], ${progress}`;
  let quiet_until_ms = 0;
  const words = (said) => {  // without the emoji, which a screen reader would read out
    const hidden = [...said.querySelectorAll("[aria-hidden=true]")].map((node) => node.innerText);
    return hidden.reduce((text, sign) => text.replace(sign, ""), said.innerText).trim();
  };
  new MutationObserver((changes) => {
    const told = new Set();
    for (const { target, addedNodes } of changes) {
      const within = (target.closest ? target : target.parentElement)?.closest(announced);
      const added = [...addedNodes].map((node) => node.matches?.(announced) ? node : node.querySelector?.(announced));
      const said = within ?? added.find(Boolean);
      if (!said?.checkVisibility()) continue;
      if (said.matches(progress)) {
        if (performance.now() < quiet_until_ms) continue;
        quiet_until_ms = performance.now() + 10_000;
      }
      told.add(words(said));
    }
    for (const text of told) {
      region.append(Object.assign(document.createElement("p"), { textContent: text }));
      if (region.childElementCount > 3) region.firstChild.remove();
    }
  }).observe(document.body, { childList: true, characterData: true, subtree: true });
"""

# What Gradio leaves to the mouse or to the eye: its accordions do not say whether they are open, and no key reaches the
# button that sorts a table.
FOR_KEYS_AND_READERS = """
  const tell = () => {
    for (const button of document.querySelectorAll("button.label-wrap"))
      button.setAttribute("aria-expanded", button.classList.contains("open"));
  };
  new MutationObserver(tell).observe(document.body, { childList: true, subtree: true, attributeFilter: ["class"] });
  document.addEventListener("keydown", (event) => {
    const button = event.target.closest?.("#many-table th")?.querySelector(".cell-menu-button");
    if (!button || !["Enter", " "].includes(event.key)) return;
    event.preventDefault();
    button.click();
    requestAnimationFrame(() => document.querySelector(".cell-menu button")?.focus());
  }, true);
"""

# Whether the visitor's last wish to record was granted. Gradio is silent where it was not.
ASK_FOR_MICROPHONE = """
  const devices = navigator.mediaDevices;
  let granted = Promise.resolve(Boolean(devices));
  if (devices) {
    const ask = devices.getUserMedia.bind(devices);
    devices.getUserMedia = (wanted) => {
      const stream = ask(wanted);
      granted = stream.then(() => true, () => false);
      return stream;
    };
  }
  window.microphoneGranted = async () => {
    await new Promise((done) => setTimeout(done, 100));  // until Gradio has asked for it
    return granted;
  };
  document.addEventListener("click", async (event) => {
    if (event.target.closest?.("#recording .record-button") && !(await window.microphoneGranted()))
      document.querySelector("#no-microphone").click();
  }, true);
"""

# What is cancelled before the server has given it a number is cancelled when it has. Gradio would send none, and the
# answer to a recording that is gone would come after all.
CANCEL_IN_TIME = """
  const send = window.fetch, joined = {};
  window.fetch = async (address, options) => {
    const { pathname } = new URL(address.url ?? address, location);
    if (options?.method === "POST" && pathname.endsWith("/queue/join")) {
      const answer = send(address, options);
      const number = answer.then((response) => response.clone().json()).then((given) => given.event_id);
      joined[JSON.parse(options.body).fn_index] = number.catch(() => null);  // who asked is told why
      return answer;
    }
    if (options?.method === "POST" && pathname.endsWith("/cancel")) {
      const asked = JSON.parse(options.body);
      asked.event_id ??= await joined[asked.fn_index];
      return send(address, { ...options, body: JSON.stringify(asked) });
    }
    return send(address, options);
  };
"""

# A click on the timeline plays from there, a drag plays that part, and so does a segment's button; a line shows where.
PLAY_PARTS = """
  const whole = (element) => element?.closest?.(".over-time");
  const seconds = (plot, event) => {
    const box = plot.querySelector(".area").getBoundingClientRect();
    return Math.min(1, Math.max(0, (event.clientX - box.left) / box.width)) * plot.dataset.duration;
  };
  const place = (plot, time_s) => 100 * time_s / plot.dataset.duration;
  const mark = (section, start_s, end_s) => {
    const plot = section.querySelector(".plot"), chosen = section.querySelector(".chosen");
    chosen.style.display = end_s > start_s ? "block" : "none";
    chosen.style.left = place(plot, start_s) + "%";
    chosen.style.width = place(plot, end_s) - place(plot, start_s) + "%";
  };
  const load = () => {
    for (const audio of document.querySelectorAll(".over-time audio")) {
      const path = audio.dataset.file.split("/").map(encodeURIComponent).join("/");
      const url = `${gradio_config.root}/gradio_api/file=${path}`;
      if (audio.getAttribute("src") !== url) audio.src = url;
    }
  };
  const changes = { childList: true, subtree: true, attributeFilter: ["data-file", "src"] };
  new MutationObserver(load).observe(document.body, changes);
  const play = (section, start_s, end_s) => {
    const audio = section.querySelector("audio");
    mark(section, start_s, end_s);
    audio.dataset.end = end_s;
    audio.currentTime = start_s;
    audio.play().catch(() => {});  // the player itself says what it cannot play, below
  };
  let from_s = null;
  document.addEventListener("pointerdown", (event) => {
    const plot = event.target.closest?.(".over-time .plot");
    if (!plot) return;
    from_s = seconds(plot, event);
    plot.setPointerCapture(event.pointerId);
  });
  document.addEventListener("pointermove", (event) => {
    const plot = from_s !== null && event.target.closest?.(".over-time .plot");
    if (!plot) return;
    const here_s = seconds(plot, event);
    mark(whole(plot), Math.min(from_s, here_s), Math.max(from_s, here_s));
  });
  document.addEventListener("pointerup", (event) => {
    const plot = from_s !== null && event.target.closest?.(".over-time .plot");
    if (plot) {
      const here_s = seconds(plot, event), short = Math.abs(here_s - from_s) < plot.dataset.duration / 100;
      play(whole(plot), Math.min(from_s, here_s), short ? +plot.dataset.duration : Math.max(from_s, here_s));
    }
    from_s = null;
  });
  document.addEventListener("pointercancel", () => { from_s = null; });
  document.addEventListener("click", (event) => {
    const button = event.target.closest?.(".over-time button[data-start]");
    if (button) play(whole(button), +button.dataset.start, +button.dataset.end);
  });
  document.addEventListener("timeupdate", (event) => {
    const audio = event.target, section = whole(audio);
    if (!section) return;
    const now = section.querySelector(".now");
    now.style.display = "block";
    now.style.left = place(section.querySelector(".plot"), audio.currentTime) + "%";
    if (audio.currentTime >= audio.dataset.end) {
      audio.pause();
      audio.dataset.end = Infinity;  // whoever goes on from here hears the rest
    }
  }, true);
  document.addEventListener("error", (event) => {
    const section = event.target.tagName === "AUDIO" && whole(event.target);
    if (section) section.querySelector(".unplayable").hidden = false;
  }, true);
"""


def focus_js(*selectors: str) -> str:
    """For an event that takes the pressed button away: whoever goes by keyboard goes on at the first of `selectors`
    that is there, not at the top of the page.
    """
    return f"""() => {{
      const pressed = document.activeElement;
      const move = (frames) => {{
        if (![pressed, document.body].includes(document.activeElement)) return;  // gone elsewhere meanwhile
        const places = {list(selectors)}.map((selector) => document.querySelector(selector));
        const place = places.find((element) => element?.checkVisibility());
        if (place && document.activeElement === document.body) place.focus();
        else if (frames) requestAnimationFrame(() => move(frames - 1));  // the button is still there
      }};
      move(60);
    }}"""


# Runs once, when the page is there.
PARTS = (
    TAKE_ANY_RECORDING,
    SPEAK_ONE_LANGUAGE,
    ANNOUNCE,
    FOR_KEYS_AND_READERS,
    ASK_FOR_MICROPHONE,
    CANCEL_IN_TIME,
    PLAY_PARTS,
)
BROWSER_SCRIPT = f"() => {{ {' '.join(f'{{{part}}}' for part in PARTS)} }}"
