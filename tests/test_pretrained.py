"""A model folder that is damaged, mixed up or not ours is refused in a sentence; nothing in it is ever run."""

import json
import os
import pickle
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ser_model import SERFeatureExtractor
from ser_model.__main__ import main
from ser_model.build import build_network
from ser_model.finetune import load_base
from ser_model.hub import HubError
from ser_model.inference import EmotionRecognizer
from ser_model.pretrained import PretrainedError
from ser_model.settings import Settings

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
    "config of another kind": (setting("config.json", model_type="bert"), "comes with code of its own"),
    "another width": (setting("config.json", backbone_options={"hidden_size": 128}), "of another network than config"),
    "too wide a network": (
        setting("config.json", backbone_options={"hidden_size": 2**60}),
        "nothing of the size in config.json and model.safetensors can be made here",
    ),
    "other labels": (setting("config.json", id2label={"0": "a", "1": "b"}), "of another network than config.json"),
    "another network": (setting("config.json", backbone="gru"), "32 weights of the network in config.json are not in"),
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


@pytest.fixture
def foreign(folder) -> Path:
    """A model of a kind that only the code beside it knows."""
    setting("config.json", model_type="ser_of_theirs")(folder)
    code = folder / "configuration_ser.py"
    code.write_text(code.read_text().replace('model_type = "ser"', 'model_type = "ser_of_theirs"'))
    return folder


@pytest.mark.parametrize("command", ["predict", "timeline", "evaluate"])
def test_code_of_a_model_is_run_where_the_command_says_so(foreign, tmp_path, monkeypatch, capfd, command):
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    arguments = {
        "predict": [str(CLIP), f"--model={foreign}"],
        "timeline": [str(CLIP), f"--model={foreign}", f"--output-dir={tmp_path / 'timeline'}"],
        "evaluate": [str(foreign), "--config=configs/ravdess_tess_cnn.yaml", f"--data-dir={tmp_path / 'absent'}"],
    }[command]
    with pytest.raises(SystemExit) as ended:
        main([command, *arguments])
    said = f"{foreign} comes with code of its own, which is not run unasked; read it, then say --trust-remote-code"
    assert said in ended.value.code and "\n" not in ended.value.code
    assert "Do you wish to run" not in capfd.readouterr().out
    if command == "evaluate":
        with pytest.raises(SystemExit, match="absent is not a folder"):  # the data come after the model
            main([command, *arguments, "--trust-remote-code"])
    else:
        assert main([command, *arguments, "--trust-remote-code"]) == 0


def test_fine_tuning_asks_nobody_whether_to_run_code(foreign, capfd):
    data = {"name": "t", "data": {"corpora": [{"name": "folder", "path": "mine"}]}}
    settings = Settings.model_validate(data | {"training": {"base_model": str(foreign)}})
    with pytest.raises(HubError, match="own, which is not run unasked; this works with models of train.py alone$"):
        load_base(settings)
    assert "Do you wish to run" not in capfd.readouterr().out


@pytest.mark.parametrize("command", ["export", "likeness"])
@pytest.mark.parametrize(
    ("values", "said"),
    [({"model_type": "nope"}, "config.json cannot be used"), ({"pooling": "men"}, "pooling is 'men'")],
)
def test_commands_on_our_own_models_refuse_a_config_in_a_sentence(folder, command, values, said):
    (folder / "metrics.json").write_text('{"test": {}}')
    shutil.copyfile(ROOT / "configs" / "ravdess_tess_cnn.yaml", folder / "settings.yaml")
    setting("config.json", **values)(folder)
    if "model_type" in values:
        text("config.json", json.dumps(values))(folder)  # without code of its own
    more = [f"--data-dir={folder}"] if command == "likeness" else [str(folder / "model.onnx")]
    with pytest.raises(SystemExit) as ended:
        main([command, str(folder), *more])
    assert said in ended.value.code and "\n" not in ended.value.code


def test_a_network_of_timm_without_timm_is_refused_in_a_sentence(folder, monkeypatch):
    setting("config.json", backbone="timm/mobilenetv3_small_050", backbone_options={})(folder)
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(PretrainedError, match=f"^{folder}: the network 'mobilenetv3_small_050' .* pip install timm$"):
        EmotionRecognizer.from_pretrained(folder)


def test_a_setting_of_the_extractor_is_not_called_a_fault_of_the_files(folder):
    with pytest.raises(PretrainedError, match="max_length_s.*; leave it out of the call.* given where that is loaded$"):
        EmotionRecognizer.from_pretrained(folder, max_length_s=3.0)


def test_what_a_setting_should_be_is_not_followed_by_advice_that_does_not_help(folder):
    setting("config.json", pooling="men")(folder)
    with pytest.raises(PretrainedError, match=r"pooling is 'men'; it must be 'attention' or 'mean'\)$"):
        EmotionRecognizer.from_pretrained(folder)


def test_a_fault_of_our_own_is_no_mistake_of_the_settings(monkeypatch):
    def broken(*_):
        raise AttributeError("'NoneType' object has no attribute 'width'")

    data = {"name": "t", "data": {"corpora": [{"name": "folder", "path": "mine"}]}}
    monkeypatch.setattr("ser_model.modeling_ser.build_backbone", broken)
    with pytest.raises(AttributeError):
        build_network(Settings.model_validate(data), SERFeatureExtractor(), ["a", "b"])


def test_the_error_of_a_damaged_model_is_one_that_callers_of_transformers_catch():
    assert issubclass(PretrainedError, OSError)
