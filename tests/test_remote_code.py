"""A saved folder is enough: another process, without this package, loads it and gives the same answer."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import soundfile
import torch
from conftest import program

from ser_model import SERConfig, SERFeatureExtractor, SERForAudioClassification

RATE = 16_000
LABELS = {0: "neutral", 1: "calm", 2: "happy", 3: "sad", 4: "angry", 5: "fearful", 6: "disgust", 7: "surprised"}

# Run with the folder, the clips (npz) and where to write what came of them.
ELSEWHERE = """
import importlib.util, json, shutil, sys
import numpy as np
import torch
from transformers import (
    AutoConfig, AutoFeatureExtractor, AutoModel, AutoModelForAudioClassification, AutoProcessor, pipeline,
)

folder, clips_path, output_path = sys.argv[1:]
torch.set_num_threads(1)
clips = list(np.load(clips_path).values())
config = AutoConfig.from_pretrained(folder, trust_remote_code=True)
extractor = AutoFeatureExtractor.from_pretrained(folder, trust_remote_code=True)
processor = AutoProcessor.from_pretrained(folder, trust_remote_code=True)
embedder = AutoModel.from_pretrained(folder, trust_remote_code=True)
classifier = AutoModelForAudioClassification.from_pretrained(folder, trust_remote_code=True)
batch = extractor(clips, sampling_rate=16_000, return_tensors="pt")
with torch.no_grad():
    embeddings, logits = embedder(**batch).pooler_output, classifier(**batch).logits

classify = pipeline("audio-classification", model=folder, trust_remote_code=True)

def hear(clips, **options):
    return classify([{"raw": clip, "sampling_rate": 16_000} for clip in clips], **options)

names = {0: "lively", 1: "sad", 2: "calm"}
others = AutoModelForAudioClassification.from_pretrained(
    folder, trust_remote_code=True, id2label=names, ignore_mismatched_sizes=True
)

result = {
    "rows": [others.classifier.weight[row].tolist() for row in range(3)],
    "installed": importlib.util.find_spec("ser_model") is not None,
    "classes": [type(thing).__name__ for thing in (config, extractor, processor, embedder, classifier)],
    "modules": [type(thing).__module__ for thing in (config, extractor, embedder, classifier)],
    "id2label": config.id2label,
    "embeddings": embeddings.tolist(),
    "logits": logits.tolist(),
    "one_by_one": [answer for clip in clips for answer in hear([clip], top_k=None)],
    "batched": hear(clips, batch_size=4, top_k=None),
    "top_2": hear(clips[:1], top_k=2)[0],
    "array": classify(clips[0], top_k=None),
    "arrays": classify(clips[:2], top_k=None),
}
if shutil.which("ffmpeg"):  # which the pipeline of Transformers runs on files and bytes
    result["file"] = classify("clip.wav", top_k=None)
    result["bytes"] = classify(open("clip.wav", "rb").read(), top_k=None)

with open(output_path, "w") as file:
    json.dump(result, file)
"""


@pytest.fixture(scope="module")
def model() -> SERForAudioClassification:
    torch.manual_seed(0)
    return SERForAudioClassification(SERConfig(id2label=LABELS, num_channels=2)).eval()


@pytest.fixture(scope="module")
def clips() -> list[np.ndarray]:
    """Glides in noise, of different lengths."""
    rng = np.random.default_rng(0)
    made = []
    for samples in (9000, 24_000, 4001, 16_000, 12_345):
        glide = np.sin(2 * np.pi * np.cumsum(np.linspace(100, rng.uniform(300, 3000), samples)) / RATE)
        made.append((0.3 * glide + 0.01 * rng.standard_normal(samples)).astype(np.float32))
    return made


@pytest.fixture(scope="module")
def extractor(clips) -> SERFeatureExtractor:
    batches = [(torch.from_numpy(clip)[None], torch.tensor([len(clip)])) for clip in clips]
    return SERFeatureExtractor(delta_order=1).fit(batches)


@pytest.fixture(scope="module")
def folder(model, extractor, tmp_path_factory):
    path = tmp_path_factory.mktemp("saved")
    model.save_pretrained(path)
    extractor.save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def elsewhere(folder, clips, tmp_path_factory) -> dict:
    """What a process with another working directory and no `ser_model` makes of the folder."""
    directory = tmp_path_factory.mktemp("elsewhere")
    np.savez(directory / "clips.npz", *clips)
    soundfile.write(directory / "clip.wav", clips[0], RATE, subtype="FLOAT")
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    environment |= {"HF_MODULES_CACHE": str(directory / "modules"), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-I", "-c", ELSEWHERE, str(folder), "clips.npz", "result.json"],
        cwd=directory,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return json.loads((directory / "result.json").read_text())


def test_auto_classes_find_the_code_that_travels(elsewhere):
    assert not elsewhere["installed"]
    assert elsewhere["classes"] == [
        "SERConfig",
        "SERFeatureExtractor",
        "SERFeatureExtractor",
        "SERModel",
        "SERForAudioClassification",
    ]
    assert all(module.startswith("transformers_modules.") for module in elsewhere["modules"])
    assert elsewhere["id2label"] == {str(index): label for index, label in LABELS.items()}


def test_labels_that_are_known_keep_their_weights(elsewhere, model):
    """Transformers gives configuration and model code of a folder modules of their own, and so two config classes."""
    assert elsewhere["rows"][1] == model.classifier.weight[3].tolist()
    assert elsewhere["rows"][2] == model.classifier.weight[1].tolist()
    assert elsewhere["rows"][0] not in model.classifier.weight.tolist()


@torch.no_grad()
def test_logits_and_embeddings_are_those_of_this_process(elsewhere, model, extractor, clips):
    batch = extractor(clips, sampling_rate=RATE, return_tensors="pt")
    torch.testing.assert_close(torch.tensor(elsewhere["logits"]), model(**batch).logits, rtol=0, atol=1e-5)
    torch.testing.assert_close(
        torch.tensor(elsewhere["embeddings"]), model.ser(**batch).pooler_output, rtol=0, atol=1e-5
    )


def test_pipeline_gives_the_softmax_of_the_logits(elsewhere):
    for answer, logits in zip(elsewhere["one_by_one"], elsewhere["logits"], strict=True):
        scores = [entry["score"] for entry in answer]
        assert scores == sorted(scores, reverse=True)
        by_label = {entry["label"]: entry["score"] for entry in answer}
        expected = torch.tensor(logits).softmax(dim=0).tolist()
        assert by_label == pytest.approx(dict(zip(LABELS.values(), expected, strict=True)), abs=1e-5)


@pytest.mark.parametrize("form", ["array", "file", "bytes"])
def test_pipeline_takes_arrays_files_and_bytes(elsewhere, form):
    if form != "array":
        program("ffmpeg")

    def scores(answer):
        return {entry["label"]: entry["score"] for entry in answer}

    assert scores(elsewhere[form]) == pytest.approx(scores(elsewhere["one_by_one"][0]), abs=1e-5)


def test_pipeline_takes_a_list(elsewhere):
    assert elsewhere["arrays"] == elsewhere["one_by_one"][:2]


def test_pipeline_batches_of_different_lengths_equal_one_by_one(elsewhere, clips):
    assert len(elsewhere["batched"]) == len(clips)
    for together, alone in zip(elsewhere["batched"], elsewhere["one_by_one"], strict=True):
        assert {entry["label"]: entry["score"] for entry in together} == pytest.approx(
            {entry["label"]: entry["score"] for entry in alone}, abs=1e-5
        )
    tops = {tuple(entry["score"] for entry in answer) for answer in elsewhere["one_by_one"]}
    assert len(tops) == len(clips)  # the clips differ, so that equal scores say something


def test_pipeline_top_k_gives_the_first_of_all(elsewhere):
    assert len(elsewhere["top_2"]) == 2
    assert [entry["label"] for entry in elsewhere["top_2"]] == [
        entry["label"] for entry in elsewhere["one_by_one"][0][:2]
    ]
