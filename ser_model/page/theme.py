"""How the page looks, and the little that runs in the browser."""

import gradio as gr

THEME = gr.themes.Default(primary_hue="teal", font=("system-ui", "sans-serif")).set(
    body_text_color_subdued="*neutral_600",  # Gradio's own greys and its button are too pale to read (WCAG AA)
    body_text_color_subdued_dark="*neutral_400",
    button_primary_background_fill="*primary_700",
    button_primary_background_fill_hover="*primary_800",
)

CSS = """
.gradio-container { width: 100%; max-width: 1100px !important; margin-inline: auto; }
#status .html-container, #pictures .html-container { padding: 0; }
.answer { display: flex; align-items: center; gap: 1rem; min-height: 6rem; padding: 1rem 1.25rem;
  border: 1px solid var(--border-color-primary); border-left: 6px solid var(--border-color-primary);
  border-radius: var(--block-radius); background: var(--block-background-fill); }
.answer.voice { border-left-color: var(--primary-500); }
.answer .emoji { font: 2.75rem/1 "Apple Color Emoji", "Segoe UI Emoji", "Noto Color Emoji", sans-serif; }
.answer p { margin: 0; overflow-wrap: anywhere; }
.answer .said { font-size: var(--text-lg); font-weight: 500; line-height: 1.35; }
.answer.voice .said { font-size: clamp(1.1rem, 4.5vw, 1.4rem); font-weight: 600; }
.answer .heard, .pictures figcaption { color: var(--body-text-color-subdued); font-size: var(--text-md); }
#recording .icon:not(.selected), #recording time { color: var(--body-text-color-subdued) !important; }
#scores * { font-family: var(--font); }
#scores { --stat-background-fill: var(--primary-600); }
#scores meter { height: 0.5rem; }
.pictures { columns: 2 20rem; column-gap: 2rem; }
.pictures figure { margin: 0 0 1.25rem; break-inside: avoid; }
.pictures svg { display: block; width: 100%; height: auto; }
footer .divider { display: none; }
"""

# Gradio's audio field takes only what the browser calls audio, but webm and mp4 are "video" to it, and amr is nothing.
# So whatever a visitor offers is called audio here, and the server finds out whether it is.
TAKE_ANY_RECORDING = """() => {
  const input = (event) => event.target.closest?.("#recording")?.querySelector("input[type=file]");
  const fill = (input, files) => {
    const list = new DataTransfer();
    for (const file of files) list.items.add(new File([file], file.name, { type: "audio/x-recording" }));
    input.files = list.files;
  };
  document.addEventListener("click", (event) => {
    if (input(event)) input(event).accept = "audio/*,SUFFIXES";
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
}"""
