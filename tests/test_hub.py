"""Pushed by the command line to a Hub of our own, and loaded back by name where this package is not."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import yaml
from fake_hub import OURS, THEIRS, TOKEN, FakeHub, running_hub
from huggingface_hub import constants
from test_remote_code import ELSEWHERE
from training_runs import tiny_run

import train
from ser_model import SERFeatureExtractor, SERForAudioClassification
from ser_model.__main__ import main
from ser_model.hub import HubError, check_folder, find_file

ROOT = Path(__file__).resolve().parent.parent
CHECKPOINT = ROOT / "checkpoints" / "ser-cnn-8"
REPO_ID = f"{OURS}/ser-cnn"
# The Python that loads the model back; `make test-newest` gives one with other versions and no torchaudio.
CLEAN_PYTHON = os.environ.get("SER_CLEAN_PYTHON", sys.executable)
# What a run may leave beside its model, and nobody should be served.
STAYS_AT_HOME = [
    "optimizer.bin",
    "optimizer.safetensors",
    "training_args.pt",
    "random_states_0.pkl",
    "pytorch_model.bin",
    "train.log",
    "state/model.safetensors",
    "state/config.json",
    "state/notes.py",
    ".env",
]


def environment(hub_url: str, home: Path, token: str | None = TOKEN) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "PYTHON"))}
    kept |= {"HF_ENDPOINT": hub_url, "HF_HOME": str(home), "OMP_NUM_THREADS": "1"}
    return kept | ({"HF_TOKEN": token} if token else {})


def push(hub: FakeHub, home: Path, *arguments: str, token: str | None = TOKEN) -> subprocess.CompletedProcess:
    """As a user types it."""
    command = [sys.executable, "-m", "ser_model", "push", *arguments]
    return subprocess.run(
        command, cwd=ROOT, env=environment(hub.url, home, token), capture_output=True, text=True, timeout=120
    )


@pytest.fixture(scope="module")
def hub():
    with running_hub() as hub:
        yield hub


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """The checkpoint, with what a long run leaves around it."""
    folder = tmp_path_factory.mktemp("run") / "out"
    shutil.copytree(CHECKPOINT, folder, ignore=shutil.ignore_patterns("__pycache__"))
    for name in STAYS_AT_HOME:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"not for others")
    return folder


@pytest.fixture(scope="module")
def pushed(hub, folder, tmp_path_factory) -> subprocess.CompletedProcess:
    done = push(hub, tmp_path_factory.mktemp("home"), str(folder), REPO_ID, "--private")
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def clips() -> list[np.ndarray]:
    """Glides in noise, of different lengths."""
    rng = np.random.default_rng(0)
    made = []
    for samples in (9000, 24_000, 4001, 16_000):
        glide = np.sin(2 * np.pi * np.cumsum(np.linspace(100, rng.uniform(300, 3000), samples)) / 16_000)
        made.append((0.3 * glide + 0.01 * rng.standard_normal(samples)).astype(np.float32))
    return made


@pytest.fixture(scope="module")
def elsewhere(hub, pushed, clips, tmp_path_factory) -> dict:
    """What a process with another working directory and no `ser_model` makes of the repository's name."""
    directory = tmp_path_factory.mktemp("elsewhere")
    np.savez(directory / "clips.npz", *clips)
    soundfile.write(directory / "clip.wav", clips[0], 16_000, subtype="FLOAT")
    command = [CLEAN_PYTHON, "-I", "-c", ELSEWHERE, REPO_ID, "clips.npz", "result.json"]
    done = subprocess.run(
        command, cwd=directory, env=environment(hub.url, directory), capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return json.loads((directory / "result.json").read_text())


def test_push_is_one_commit_of_the_whole_model_and_nothing_else(hub, pushed, folder):
    repository = hub.repositories[REPO_ID]
    assert repository.private
    whole = {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()}
    whole["README.md"] = whole["README.md"].replace(b"PATH_OR_HUB_ID", REPO_ID.encode())
    assert f'model="{REPO_ID}"'.encode() in whole["README.md"]
    assert repository.files == {name: content for name, content in whole.items() if name not in STAYS_AT_HOME}
    assert {
        "config.json",
        "preprocessor_config.json",
        "model.safetensors",
        "README.md",
        "LICENSE",
        "modeling_ser.py",
    } <= set(repository.files)
    assert len(repository.commits) == 1
    assert pushed.stdout.strip() == f"{hub.url}/{REPO_ID}/commit/{repository.sha}"
    assert TOKEN not in pushed.stdout + pushed.stderr


def test_loads_by_name_where_this_package_is_not(elsewhere, hub):
    assert not elsewhere["installed"]
    assert elsewhere["classes"] == [
        "SERConfig",
        "SERFeatureExtractor",
        "SERFeatureExtractor",
        "SERModel",
        "SERForAudioClassification",
    ]
    assert all(module.startswith("transformers_modules.ours.") for module in elsewhere["modules"])
    downloads = [path for method, path in hub.requests if method == "GET" and "/resolve/" in path]
    assert f"/{REPO_ID}/resolve/{hub.repositories[REPO_ID].sha}/model.safetensors" in downloads


@torch.no_grad()
def test_loads_with_the_same_logits_to_the_bit(elsewhere, clips):
    model = SERForAudioClassification.from_pretrained(CHECKPOINT).eval()
    extractor = SERFeatureExtractor.from_pretrained(CHECKPOINT)
    expected = model(**extractor(clips, sampling_rate=16_000, return_tensors="pt")).logits
    loaded = torch.tensor(elsewhere["logits"])
    if CLEAN_PYTHON == sys.executable:
        assert torch.equal(loaded, expected)
    else:  # another torch may sum in another order
        torch.testing.assert_close(loaded, expected, rtol=0, atol=1e-4)
    assert expected.std(dim=0).min() > 0.1  # the clips differ, so that equal logits say something


def test_loads_as_pipeline_that_batches_as_one_by_one(elsewhere):
    for together, alone in zip(elsewhere["batched"], elsewhere["one_by_one"], strict=True):
        assert {entry["label"]: entry["score"] for entry in together} == pytest.approx(
            {entry["label"]: entry["score"] for entry in alone}, abs=1e-5
        )


@pytest.fixture
def our_hub(hub, monkeypatch):
    """This process, talking to the hub as somebody who has logged in."""
    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    return hub


def test_push_goes_into_a_repository_that_exists_and_is_public_unless_asked(our_hub, folder, capsys):
    for _ in range(2):
        assert main(["push", str(folder), f"{OURS}/twice"]) == 0
    assert not our_hub.repositories[f"{OURS}/twice"].private
    assert len(our_hub.repositories[f"{OURS}/twice"].commits) == 2


def complaint(capsys, *arguments: str) -> str:
    """The one sentence with which the command ends."""
    with pytest.raises(SystemExit) as ended:
        main(["push", *arguments])
    said = str(ended.value)
    output = capsys.readouterr()
    assert said.startswith("python -m ser_model: ") and "\n" not in said
    assert TOKEN not in said + output.out + output.err
    return said


@pytest.mark.parametrize(
    ("repo_id", "says"),
    [
        (f"{THEIRS}/model", f"may not write to {THEIRS}/model.*use your own name"),
        ("a/b/c", "looks like your-name/ser-cnn"),
        ("bad name", "looks like your-name/ser-cnn"),
    ],
)
def test_a_repository_that_cannot_be_written_is_named(our_hub, folder, capsys, repo_id, says):
    assert re.search(says, complaint(capsys, str(folder), repo_id))


@pytest.mark.parametrize(
    ("token", "says"),
    [
        (None, "no token.*hf auth login"),
        ("hf_of_nobody", "does not know this token.*Invalid username"),
        (f"{TOKEN}\x01{TOKEN}", "characters that no token has"),
    ],
)
def test_without_a_good_token_nothing_is_pushed(our_hub, folder, capsys, monkeypatch, tmp_path, token, says):
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setenv("HF_TOKEN", token) if token else monkeypatch.delenv("HF_TOKEN")
    said = complaint(capsys, str(folder), f"{OURS}/unseen")
    assert re.search(says, said)
    assert not token or token not in said
    assert f"{OURS}/unseen" not in our_hub.repositories


@pytest.mark.parametrize(
    "missing", ["config.json", "preprocessor_config.json", "model.safetensors", "README.md", "mfcc.py"]
)
def test_a_folder_that_lacks_something_is_not_pushed(our_hub, folder, capsys, tmp_path, missing):
    shutil.copytree(folder, tmp_path / "out")
    (tmp_path / "out" / missing).unlink()
    assert re.search(f"no model folder.*lacks.*{missing}", complaint(capsys, str(tmp_path / "out"), f"{OURS}/unseen"))
    assert f"{OURS}/unseen" not in our_hub.repositories


@pytest.mark.parametrize("content", [b"{", b"[]", b'{"auto_map": 5}', b"\xff"])
@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json"])
def test_a_folder_whose_settings_are_damaged_is_not_pushed(tmp_path, name, content):
    folder = shutil.copytree(CHECKPOINT, tmp_path / "out")
    (folder / name).write_bytes(content)
    with pytest.raises(HubError, match=f"{name} is damaged .*; take it from train.py anew"):
        check_folder(folder)


def test_pushed_settings_tell_nothing_of_this_machine(our_hub, folder, tmp_path):
    shutil.copytree(folder, tmp_path / "out")
    text = (tmp_path / "out" / "settings.yaml").read_text()
    settings = yaml.safe_load(text)
    settings["training"]["base_model"] = str(tmp_path / "base")
    settings["augmentation"]["noise"]["folder"] = "D:\\\\noises\\\\rain"
    settings["data"]["corpora"] = [{"name": "folder", "path": "/home/ann/mine"}, {"name": "folder", "path": "a/b"}]
    (tmp_path / "out" / "settings.yaml").write_text(yaml.safe_dump(settings))
    assert main(["push", str(tmp_path / "out"), f"{OURS}/nowhere"]) == 0
    pushed = yaml.safe_load(our_hub.repositories[f"{OURS}/nowhere"].files["settings.yaml"])
    assert pushed["training"]["base_model"] == "base" and pushed["augmentation"]["noise"]["folder"] == "rain"
    assert [corpus["path"] for corpus in pushed["data"]["corpora"]] == ["mine", "a/b"]
    assert pushed["split"] == settings["split"]
    assert yaml.safe_load((tmp_path / "out" / "settings.yaml").read_text()) == settings  # which --resume compares


def test_a_file_that_a_model_lacks_is_told_from_one_that_nobody_can_ask_for(our_hub, pushed, tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    address = f"{our_hub.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address)
    assert find_file(CHECKPOINT, "split.json") == CHECKPOINT / "split.json"
    assert find_file(CHECKPOINT, "absent.json") is None
    assert json.loads(find_file(REPO_ID, "split.json").read_text())["kind"] == "all"
    find_file(REPO_ID, "split.json", "v1.0")
    assert ("HEAD", f"/{REPO_ID}/resolve/v1.0/split.json") in our_hub.requests
    assert find_file(REPO_ID, "absent.json") is None
    with pytest.raises(HubError, match=f"whether {OURS}/unseen has a split.json"):
        find_file(f"{OURS}/unseen", "split.json")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert find_file(REPO_ID, "split.json").is_file()  # the cache has it
    assert find_file(REPO_ID, "absent.json") is None  # and remembers that there is none of this name
    with pytest.raises(HubError, match=f"whether {REPO_ID} has a README.md .*; try again with the Hub in reach"):
        find_file(REPO_ID, "README.md")


def test_a_folder_that_is_not_there_is_named(our_hub, capsys, tmp_path):
    assert "no folder" in complaint(capsys, str(tmp_path / "absent"), f"{OURS}/unseen")


def test_a_card_that_the_hub_refuses_is_not_pushed(our_hub, folder, capsys, tmp_path):
    shutil.copytree(folder, tmp_path / "out")
    (tmp_path / "out" / "README.md").write_text("---\nlanguage: en\n---\n# A card without its licence\n")
    assert '"license" is required' in complaint(capsys, str(tmp_path / "out"), f"{OURS}/unlicensed")
    assert not our_hub.repositories[f"{OURS}/unlicensed"].files


def test_no_network_ends_in_one_sentence(our_hub, folder, capsys, monkeypatch):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # a port on which nobody listens
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{closed.getsockname()[1]}")
        assert "check the network" in complaint(capsys, str(folder), REPO_ID)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE is set" in complaint(capsys, str(folder), REPO_ID)


def test_training_pushes_at_its_end_when_the_settings_say_so(hub, synthetic_corpora, tmp_path):
    output_dir = tmp_path / "out"
    command = [sys.executable, "train.py", *tiny_run(synthetic_corpora, output_dir, "--training.epochs=1")]
    command += [f"--training.push_to_hub={OURS}/trained", "--training.push_private=true"]
    done = subprocess.run(
        command, cwd=ROOT, env=environment(hub.url, tmp_path), capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    repository = hub.repositories[f"{OURS}/trained"]
    assert repository.private and len(repository.commits) == 1
    assert f"pushed to {hub.url}/{OURS}/trained/commit/{repository.sha}" in done.stdout
    for name in ("model.safetensors", "metrics.json"):
        assert repository.files[name] == (output_dir / name).read_bytes()
    assert f'model="{OURS}/trained"' in repository.files["README.md"].decode()
    pushed = yaml.safe_load(repository.files["settings.yaml"])["training"]
    assert pushed["push_to_hub"] is None and pushed["push_private"] is False  # strangers train with them
    assert yaml.safe_load((output_dir / "settings.yaml").read_text())["training"]["push_to_hub"] == f"{OURS}/trained"
    again = [*command, "--resume", f"--training.push_to_hub={OURS}/elsewhere"]  # thought of once it was finished
    done = subprocess.run(
        again, cwd=ROOT, env=environment(hub.url, tmp_path), capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert hub.repositories[f"{OURS}/elsewhere"].files["metrics.json"] == repository.files["metrics.json"]


def test_training_that_could_not_push_ends_before_it_begins(our_hub, tmp_path):
    arguments = ["--config", str(ROOT / "configs" / "ravdess_tess_cnn.yaml"), "--data-dir", str(tmp_path / "absent")]
    with pytest.raises(SystemExit, match="^train.py: 'a/b/c' cannot name a repository"):
        train.main([*arguments, "--output-dir", str(tmp_path / "out"), "--training.push_to_hub=a/b/c"])


def test_training_whose_push_fails_says_how_to_push_it_later(our_hub, folder):
    with pytest.raises(HubError, match=f"may not write.*python -m ser_model push {folder} {THEIRS}/trained --private"):
        train.push(folder, f"{THEIRS}/trained", private=True)
