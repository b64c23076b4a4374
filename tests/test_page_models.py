"""Which models are on offer, and what their cards say."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from playwright.sync_api import Page, expect
from serving import ROOT, running_app, upload, visit

from ser_model.page import cards_html
from ser_model.page.models import Card, ModelError, Models, Result, checkpoints
from ser_model.page.texts import Texts
from ser_model.run_files import SHARED_SPEAKERS, UNSEEN_SPEAKERS

CHECKPOINT = ROOT / "checkpoints" / "ser-cnn-8"
CLIP = ROOT / "examples" / "synthetic_calm_voice.flac"


@pytest.fixture
def other(tmp_path):
    """A second model: the first one's weights, under other names, with no card."""
    folder = tmp_path / "models" / "another"
    shutil.copytree(CHECKPOINT, folder, ignore=shutil.ignore_patterns("README.md"))
    config = json.loads((folder / "config.json").read_text())
    config["id2label"] = {index: f"other {label}" for index, label in config["id2label"].items()}
    config["label2id"] = {label: int(index) for index, label in config["id2label"].items()}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_every_checkpoint_is_on_offer_the_default_first(tmp_path):
    assert checkpoints(ROOT / "checkpoints")[0] == str(CHECKPOINT)
    for name in ("ser-cnn-8", "ser-cnn-14", "a"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").touch()
    assert [Path(path).name for path in checkpoints(tmp_path)] == ["ser-cnn-8", "a", "ser-cnn-14"]


def test_a_card_gives_its_figures_and_a_missing_one_none(other):
    models = Models([str(CHECKPOINT), str(other)])
    test = json.loads((CHECKPOINT / "metrics.json").read_text())["test"]
    first = models.card("ser-cnn-8").results[0]
    assert (first.uar, first.accuracy) == (test["uar"], test["accuracy"])
    assert models.card("another") == Card(8, ())
    assert "its card gives no figures" in cards_html(Texts().speaker("en"), models)


INDEX = """---
model-index:
- name: m
  results:
  - task: {{type: audio-classification}}
    dataset: {{type: d, name: voices}}
    metrics: [{{type: recall, value: {value}}}, {{type: accuracy, value: 0.5}}]
---
"""


def test_voices_that_training_knew_are_spoken_of_where_a_card_has_their_figures(other):
    say, index = Texts().speaker("en"), INDEX.format(value=0.5)
    for whose, is_said in ((UNSEEN_SPEAKERS, False), (f"random split, {SHARED_SPEAKERS}", True)):
        (other / "README.md").write_text(index.replace("voices", f"'voices, {whose}'"))
        assert (say("page.figures_shared") in cards_html(say, Models([str(other)]))) == is_said


@pytest.mark.parametrize("value", ["85.2%", "85.2", "[0.8]", ".nan", "null"])
def test_a_figure_that_is_no_share_is_left_out(other, value):
    (other / "README.md").write_text(INDEX.format(value=value))
    assert Models([str(other)]).card("another") == Card(8, (Result("voices", None, 0.5),))


@pytest.mark.parametrize(
    "card",
    [
        b"---\nmodel-index: [{name: m}]\n---\n",
        b"---\nmodel-index: 5\n---\n",
        b"---\nmodel-index: [{name: m, results: [{task: none}]}]\n---\n",
        b"---\na: [\n---\n",
        b"---\nonly words\n---\n",
        b"\xff\xfe",
    ],
)
def test_a_card_that_cannot_be_read_gives_no_figures(other, card):
    (other / "README.md").write_bytes(card)
    models = Models([str(other)])
    assert models.card("another") == Card(8, ())
    assert "its card gives no figures" in cards_html(Texts().speaker("en"), models)


@pytest.mark.parametrize("config", ["{}", "[]", "no json", '{"id2label": 8}'])
def test_a_config_without_labels_leaves_their_number_out(tmp_path, config):
    (tmp_path / "config.json").write_text(config)
    assert Models([str(tmp_path)]).card(tmp_path.name).labels is None


def test_a_card_is_read_once(other):
    models = Models([str(other)])
    before = models.card("another")
    shutil.rmtree(other)
    assert models.card("another") is before


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        (
            "model.safetensors",
            b"cut short",
            r"another: model\.safetensors is damaged or cut short .*; fetch it again\.",
        ),
        (
            "config.json",
            b'{"model_type": "x", "auto_map": {"AutoConfig": "a.B"}}',
            "another comes with code of its own",
        ),
    ],
)
def test_a_model_that_is_damaged_is_called_so_and_no_folder_is_told(other, name, content, said):
    models = Models([str(other)])
    (other / name).write_bytes(content)
    with pytest.raises(ModelError, match=f"^{said}") as refused:
        models.get()
    assert str(other.parent) not in str(refused.value)


@pytest.mark.browser
def test_a_visitor_hears_in_his_language_that_a_model_cannot_be_used_and_the_host_reads_why(browser, other, tmp_path):
    (other / "model.safetensors").write_bytes(b"cut short")
    english, german = (Texts().speaker(language) for language in ("en", "de"))
    refusal = german("page.model_unusable", model="another")
    with running_app(tmp_path, {"SER_MODELS": f"{CHECKPOINT},{other}"}) as url:
        client = Client(url, verbose=False, analytics_enabled=False)
        for endpoint, sound in (("/predict", handle_file(CLIP)), ("/batch", [handle_file(CLIP)])):
            with pytest.raises(AppError) as refused:
                client.predict(sound, "another", api_name=endpoint)
            assert str(refused.value) == english("page.model_unusable", model="another")
        with visit(browser, url, locale="de-DE") as page:
            page.get_by_role("button", name=german("page.settings")).click()
            page.locator("#model input").click()
            page.get_by_role("option", name="another").click()
            upload(page, CLIP)
            page.locator("#submit").click()
            close_error(page, refusal)
            page.get_by_role("tab", name=german("many.tab")).click()
            page.locator("#many-files input[type=file]").set_input_files(CLIP)
            expect(page.locator("#many-files .file-preview tr")).to_have_count(1)
            page.locator("#many-start").click()
            close_error(page, refusal)
            page.get_by_role("tab", name=german("live.tab")).click()
            page.wait_for_timeout(3000)  # until Gradio has loaded its recorder
            page.locator("#live-microphone .record-button").click()
            expect(page.locator("#live-status .said")).to_have_text(refusal, timeout=30_000)
    assert "another: model.safetensors is damaged or cut short" in (tmp_path / "log.txt").read_text()


def close_error(page: Page, expected: str) -> None:
    said = page.get_by_test_id("toast-text")
    expect(said).to_have_text(expected, timeout=30_000)
    page.get_by_test_id("toast-close").click()
    expect(said).to_have_count(0)


def test_two_models_of_one_name_are_refused(other, tmp_path):
    shutil.copytree(other, tmp_path / "another")
    with pytest.raises(ModelError, match=r"^Two models have one name: "):
        Models([str(other), str(tmp_path / "another")])


@pytest.mark.parametrize("sources", [["/nowhere"], []])
def test_no_model_is_one_sentence(sources):
    with pytest.raises(ModelError, match=r"^No model in \S+: set SER_MODELS to [^.]+ or train one \(README.md\)\.$"):
        Models(sources)


def test_a_caller_chooses_the_model(other, tmp_path):
    with running_app(tmp_path, {"SER_MODELS": f"{CHECKPOINT}, {other},"}) as url:
        client = Client(url, verbose=False, analytics_enabled=False)
        default = client.predict(handle_file(CLIP), api_name="/predict")
        chosen = client.predict(handle_file(CLIP), "another", api_name="/predict")
    assert chosen["label"] == f"other {default['label']}"
    assert chosen["confidence"] == default["confidence"]


def test_zero_gpu_lends_its_gpu_to_the_work(tmp_path):
    (tmp_path / "spaces.py").write_text("GPU = lambda function: lambda *given: ('on a GPU', function(*given))")
    code = "from ser_model.page.models import on_gpu; print(on_gpu(lambda clip: clip)('clip'))"
    answers = [
        subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=env, capture_output=True, text=True).stdout.strip()
        for env in (os.environ | {"PYTHONPATH": str(tmp_path)}, os.environ)
    ]
    assert answers == ["('on a GPU', 'clip')", "clip"]
