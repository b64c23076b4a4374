"""The API as MCP tools. Without a browser: its driver and asyncio do not share a thread."""

import asyncio
import base64
import os
import subprocess
import sys

import httpx
import pytest
from mcp import ClientSession
from mcp.client.streamable_http import streamablehttp_client
from serving import ROOT, running_app

from ser_model.page.developers import mcp_is_on

CLIP = ROOT / "examples" / "synthetic_calm_voice.flac"


def test_the_same_functions_are_mcp_tools(tmp_path):
    with running_app(tmp_path, {"SER_MCP": "1"}) as url:

        async def ask():
            async with streamablehttp_client(f"{url}/gradio_api/mcp/") as (reading, writing, _):
                async with ClientSession(reading, writing) as session:
                    await session.initialize()
                    tools = {tool.name: tool for tool in (await session.list_tools()).tools}
                    sound = "data:audio/flac;base64," + base64.b64encode(CLIP.read_bytes()).decode()
                    heard = await session.call_tool("predict", {"recording": sound})
                    refused = await session.call_tool("predict", {"recording": f"{url}/gradio_api/info"})
                    upload = httpx.post(f"{url}/gradio_api/upload", files={"files": ("a.flac", CLIP.read_bytes())})
                    own = f"{url}/gradio_api/file={upload.json()[0]}"  # as Gradio's own upload tool gives it
                    again = await session.call_tool("predict", {"recording": own})
                    return tools, heard, refused, again

        tools, heard, refused, again = asyncio.run(ask())
    assert "The emotion in one recording" in tools["predict"].description
    assert "'status': 'voice'" in heard.content[0].text
    assert again.content[0].text == heard.content[0].text
    assert refused.isError and "Only an uploaded file is taken" in refused.content[0].text


@pytest.mark.parametrize(
    ("setting", "on"),
    [
        ({"SER_MCP": "1"}, True),
        ({"GRADIO_MCP_SERVER": "True"}, True),
        ({"GRADIO_MCP_SERVER": "False"}, False),
        ({}, False),
    ],
)
def test_gradios_own_setting_counts_too(monkeypatch, setting, on):
    for name in ("SER_MCP", "GRADIO_MCP_SERVER"):
        monkeypatch.delenv(name, raising=False)
    for name, value in setting.items():
        monkeypatch.setenv(name, value)
    assert mcp_is_on() == on


@pytest.mark.parametrize("setting", [{"SER_MCP": "1"}, {"GRADIO_MCP_SERVER": "true"}])
def test_mcp_without_its_package_is_one_sentence(tmp_path, setting):
    (tmp_path / "sitecustomize.py").write_text(
        "import importlib.util as util\n"
        "find = util.find_spec\n"
        "util.find_spec = lambda name, package=None: None if name == 'mcp' else find(name, package)\n"
    )
    environment = os.environ | setting | {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run([sys.executable, "app.py"], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.startswith("MCP is on and needs the package mcp")
