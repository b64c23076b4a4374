"""The tab "For developers": the API in three languages, ready to paste."""

import os

import gradio as gr

from .context import Page
from .texts import Say

ADDRESS = "http://127.0.0.1:7860"  # until the browser, which knows better, puts its own there
FILE = "recording.wav"  # whatever lies in the reader's own folder
SNIPPETS = {
    "python": f"""from gradio_client import Client, handle_file

client = Client("{ADDRESS}")
recording = handle_file("{FILE}")
answer = client.predict(recording, api_name="/predict")
print(answer["status"], answer["label"], answer["confidence"])
print(client.predict(recording, api_name="/timeline")["segments"])
print(client.predict([recording], api_name="/batch")["summary"])
""",
    "shell": f"""SERVER={ADDRESS}/gradio_api

ask() {{  # an endpoint and what it takes
  EVENT=$(curl -s $SERVER/call/$1 -H "Content-Type: application/json" -d '{{"data": ['"$2"']}}' | cut -d '"' -f 4)
  curl -sN $SERVER/call/$1/$EVENT
}}

UPLOAD=$(curl -sF files=@{FILE} $SERVER/upload | cut -d '"' -f 2)
RECORDING='{{"path": "'$UPLOAD'", "meta": {{"_type": "gradio.FileData"}}}}'
ask predict "$RECORDING"
ask timeline "$RECORDING"
ask batch "[$RECORDING]"
""",
    "javascript": f"""const server = "{ADDRESS}/gradio_api";

async function upload(file) {{  // a File or a Blob
  const form = new FormData();
  form.append("files", file, file.name || "{FILE}");
  const [path] = await (await fetch(`${{server}}/upload`, {{ method: "POST", body: form }})).json();
  return {{ path, meta: {{ _type: "gradio.FileData" }} }};
}}

async function ask(endpoint, data) {{
  const call = await fetch(`${{server}}/call/${{endpoint}}`, {{
    method: "POST",
    headers: {{ "Content-Type": "application/json" }},
    body: JSON.stringify({{ data: [data] }}),
  }});
  const {{ event_id }} = await call.json();
  const events = await (await fetch(`${{server}}/call/${{endpoint}}/${{event_id}}`)).text();
  return JSON.parse(events.split("data: ").pop())[0];
}}

const predict = async (file) => ask("predict", await upload(file));
const timeline = async (file) => ask("timeline", await upload(file));
const batch = async (files) => ask("batch", await Promise.all([...files].map(upload)));
""",
}
MCP = f"""{{"mcpServers": {{"emotions": {{"url": "{ADDRESS}/gradio_api/mcp/"}}}}}}
"""
TITLES = {"python": "Python", "shell": "curl", "javascript": "JavaScript", "json": "MCP"}


def mcp_is_on() -> bool:
    """By our own variable or by Gradio's."""
    return os.environ.get("SER_MCP") == "1" or os.environ.get("GRADIO_MCP_SERVER", "").lower() == "true"


def build(context: Page) -> None:
    """The tab's components; they only show."""
    texts = context.texts
    keys = ("intro", "endpoints", "fields", "mcp_on" if mcp_is_on() else "mcp_off")
    models = ", ".join(f"`{name}`" for name in context.models.names)
    snippets = SNIPPETS | ({"json": MCP} if mcp_is_on() else {})

    def text(say: Say) -> str:
        return "\n\n".join(say(f"developers.{key}", models=models) for key in keys)

    gr.Markdown(texts.rendered("developers.text", text), elem_id="developers-text")
    codes = [
        gr.Code(snippet, language=language, label=TITLES[language], interactive=False, elem_id=f"code-{language}")
        for language, snippet in snippets.items()
    ]
    # In the browser alone: only it knows under which address the page is reached.
    put = "(...codes) => codes.map((code) => code.replaceAll(ADDRESS, gradio_config.root))"
    context.demo.load(None, codes, codes, js=put.replace("ADDRESS", repr(ADDRESS)))
