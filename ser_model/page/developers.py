"""The tab "For developers": the API in three languages, ready to paste."""

import os

import gradio as gr

from .context import Page
from .texts import Say

ADDRESS = "http://127.0.0.1:7860"  # until the browser, which knows better, puts its own there
FILE = "examples/synthetic_lively_voice.flac"
SNIPPETS = {
    "python": f"""from gradio_client import Client, handle_file

client = Client("{ADDRESS}")
answer = client.predict(handle_file("{FILE}"), api_name="/predict")
print(answer["status"], answer["label"], answer["confidence"])
""",
    "shell": f"""FILE=$(curl -sF files=@{FILE} {ADDRESS}/gradio_api/upload | cut -d '"' -f 2)
BODY='{{"data": [{{"path": "'$FILE'", "meta": {{"_type": "gradio.FileData"}}}}]}}'
EVENT=$(curl -s {ADDRESS}/gradio_api/call/predict -H "Content-Type: application/json" -d "$BODY" | cut -d '"' -f 4)
curl -sN {ADDRESS}/gradio_api/call/predict/$EVENT
""",
    "javascript": f"""const server = "{ADDRESS}/gradio_api";

async function predict(file) {{  // a File or a Blob
  const form = new FormData();
  form.append("files", file, file.name || "recording.wav");
  const [path] = await (await fetch(`${{server}}/upload`, {{ method: "POST", body: form }})).json();
  const recording = {{ path, meta: {{ _type: "gradio.FileData" }} }};
  const call = await fetch(`${{server}}/call/predict`, {{
    method: "POST",
    headers: {{ "Content-Type": "application/json" }},
    body: JSON.stringify({{ data: [recording] }}),
  }});
  const {{ event_id }} = await call.json();
  const events = await (await fetch(`${{server}}/call/predict/${{event_id}}`)).text();
  return JSON.parse(events.split("data: ").pop())[0];
}}
""",
}
TITLES = {"python": "Python", "shell": "curl", "javascript": "JavaScript"}


def mcp_is_on() -> bool:
    return os.environ.get("SER_MCP") == "1"


def build(context: Page) -> None:
    texts = context.texts
    keys = ("intro", "endpoints", "mcp_on" if mcp_is_on() else "mcp_off")

    def text(say: Say) -> str:
        return "\n\n".join(say(f"developers.{key}", address="/gradio_api/mcp/") for key in keys)

    gr.Markdown(texts.rendered("developers.text", text))
    codes = [
        gr.Code(snippet, language=language, label=TITLES[language], interactive=False, elem_id=f"code-{language}")
        for language, snippet in SNIPPETS.items()
    ]
    # In the browser alone: only it knows under which address the page is reached.
    put = "(...codes) => codes.map((code) => code.replaceAll(ADDRESS, gradio_config.root))"
    context.demo.load(None, codes, codes, js=put.replace("ADDRESS", repr(ADDRESS)))
