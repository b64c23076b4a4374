"""A model folder that is damaged, mixed up or not ours is refused in a sentence; nothing in it is ever run."""

import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from ser_model.__main__ import main
from ser_model.inference import EmotionRecognizer
from ser_model.pretrained import PretrainedError

ROOT = Path(__file__).resolve().parent.parent
CHECKPOINT = ROOT / "checkpoints" / "ser-cnn-8"
CLIP = ROOT / "examples" / "synthetic_lively_voice.flac"


class Payload:
    """Unpickled, it leaves a folder behind."""

    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


def weights(change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        path = folder / "model.safetensors"
        path.write_bytes(change(path.read_bytes()))

    return apply


def setting(name: str, **values) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        path = folder / name
        path.write_text(json.dumps(json.loads(path.read_text()) | values))

    return apply


def without(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def text(name: str, content: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_text(content)


# What is done to a good folder, and what is said of it then.
FAULTS = {
    "no weights": (without("model.safetensors"), "no file named model.safetensors"),
    "no config": (without("config.json"), "config.json"),
    "no extractor": (without("preprocessor_config.json"), "feature extractor"),
    "cut weights": (weights(lambda data: data[:100_000]), "model.safetensors is damaged or cut short"),
    "empty weights": (weights(lambda data: b""), "model.safetensors is damaged or cut short"),
    "noise for weights": (weights(lambda data: os.urandom(5000)), "model.safetensors is damaged or cut short"),
    "config that is no JSON": (text("config.json", "{"), "not a valid JSON file"),
    "extractor that is no JSON": (text("preprocessor_config.json", "no"), "not a valid JSON file"),
    "config of nothing": (text("config.json", "{}"), "config.json and model.safetensors cannot be used"),
    "config of another kind": (setting("config.json", model_type="bert"), "config.json and model.safetensors cannot"),
    "another width": (setting("config.json", backbone_options={"hidden_size": 128}), "of another network than config"),
    "other labels": (setting("config.json", id2label={"0": "a", "1": "b"}), "of another network than config.json"),
    "another network": (setting("config.json", backbone="gru"), "lacks 16 weights of the network in config.json"),
    "unknown network": (setting("config.json", backbone="nope"), "unknown backbone 'nope'"),
    "unknown feature setting": (setting("preprocessor_config.json", n_mfc=3), "did you mean 'n_mfcc'"),
    "features of another size": (
        setting("preprocessor_config.json", n_mfcc=40, feature_mean=None, feature_std=None),
        "makes 1 x 40 features a frame, the network in config.json hears 1 x 80",
    ),
}


@pytest.fixture
def folder(tmp_path) -> Path:
    return shutil.copytree(CHECKPOINT, tmp_path / "model")


@pytest.mark.parametrize("fault", FAULTS)
def test_what_cannot_be_what_it_says_is_refused_in_a_sentence(folder, fault, capfd):
    spoil, said = FAULTS[fault]
    spoil(folder)
    with pytest.raises(OSError, match=said):
        EmotionRecognizer.from_pretrained(folder)
    with pytest.raises(SystemExit) as ended:
        main(["predict", str(CLIP), "--model", str(folder)])
    assert said in ended.value.code and "\n" not in ended.value.code
    assert "Do you wish to run" not in capfd.readouterr().out  # nobody may be there to answer


def test_a_pickle_is_never_opened(folder, tmp_path):
    mark = tmp_path / "was_run"
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Payload(mark)))
    with pytest.raises(OSError, match="no file named model.safetensors"):
        EmotionRecognizer.from_pretrained(folder)
    assert not mark.exists()
    pickle.loads((folder / "pytorch_model.bin").read_bytes())  # or it would prove nothing
    assert mark.is_dir()


def test_the_code_in_a_folder_is_not_run_unasked(folder, tmp_path):
    (folder / "configuration_ser.py").write_text(f"import os\nos.mkdir({str(tmp_path / 'was_run')!r})\n")
    (folder / "modeling_ser.py").write_text(f"import os\nos.mkdir({str(tmp_path / 'was_run')!r})\n")
    EmotionRecognizer.from_pretrained(folder)  # our own classes read it
    assert not (tmp_path / "was_run").exists()


def test_the_error_of_a_damaged_model_is_one_that_callers_of_transformers_catch():
    assert issubclass(PretrainedError, OSError)
