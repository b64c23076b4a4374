"""One ONNX file gives the logits that PyTorch gives, from the waveform on."""

import json
import re
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from ser_model import SERConfig, SERFeatureExtractor, SERForAudioClassification
from ser_model.__main__ import main
from ser_model.audio import load_audio
from ser_model.backbones import BACKBONES
from ser_model.feature_extraction_ser import FEATURES
from ser_model.hub import HubError, export_onnx
from ser_model.labels import EMOTIONS

CHECKPOINT = Path(__file__).resolve().parent.parent / "checkpoints" / "ser-cnn-8"
CLIPS = [  # a man and a woman of RAVDESS, the older and the younger of TESS
    "RAVDESS/Audio_Speech_Actors_01-24/Actor_01/03-01-05-02-01-01-01.*",
    "RAVDESS/Audio_Speech_Actors_01-24/Actor_20/03-01-04-01-02-01-20.*",
    "TESS/OAF_fear/OAF_back_fear.*",
    "TESS/YAF_happy/YAF_chair_happy.*",
]


def run(path: Path, clips: list[np.ndarray], output: str = "logits") -> np.ndarray:
    """Logits, or another output, by ONNX Runtime, of clips that are padded here, without any code of ours."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    lengths = np.array([len(clip) for clip in clips])
    waveform = np.stack([np.pad(clip, (0, lengths.max() - len(clip))) for clip in clips])
    return session.run([output], {"waveform": waveform, "lengths": lengths})[0]


@torch.no_grad()
def expected(model, extractor, clips: list[np.ndarray]) -> np.ndarray:
    return model(**extractor(clips, sampling_rate=16_000, return_tensors="pt")).logits.numpy()


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    assert main(["export", str(CHECKPOINT), str(path)]) == 0
    return path


@pytest.fixture(scope="module")
def model() -> SERForAudioClassification:
    return SERForAudioClassification.from_pretrained(CHECKPOINT).eval()


@pytest.fixture(scope="module")
def extractor() -> SERFeatureExtractor:
    return SERFeatureExtractor.from_pretrained(CHECKPOINT)


@pytest.fixture(scope="module")
def clips(data_dir) -> list[np.ndarray]:
    return [load_audio(next(data_dir.glob(pattern)), 16_000) for pattern in CLIPS]


def test_logits_are_pytorchs_on_real_clips_together_and_alone(exported, model, extractor, clips):
    assert len({len(clip) for clip in clips}) == len(clips)
    reference = expected(model, extractor, clips)
    np.testing.assert_allclose(run(exported, clips), reference, rtol=0, atol=1e-4)
    alone = np.concatenate([run(exported, [clip]) for clip in clips])
    np.testing.assert_allclose(alone, reference, rtol=0, atol=1e-4)
    assert len(set(reference.argmax(axis=1))) > 1  # different clips, different answers
    with torch.no_grad():
        likeness = model(**extractor(clips, sampling_rate=16_000, return_tensors="pt")).likeness
    np.testing.assert_allclose(run(exported, clips, "likeness"), likeness, rtol=0, atol=1e-4)


@pytest.mark.parametrize("samples", [640, 700, 16_001, 160_000])
def test_any_length_from_one_frame_on(exported, model, extractor, samples):
    clip = np.random.default_rng(samples).uniform(-0.3, 0.3, samples).astype(np.float32)
    np.testing.assert_allclose(run(exported, [clip]), expected(model, extractor, [clip]), rtol=0, atol=1e-4)


def test_file_is_one_and_says_what_it_needs_and_gives(exported):
    assert [file.name for file in exported.parent.iterdir()] == ["model.onnx"]
    session = onnxruntime.InferenceSession(exported, providers=["CPUExecutionProvider"])
    assert [(i.name, i.shape, i.type) for i in session.get_inputs()] == [
        ("waveform", ["batch", "samples"], "tensor(float)"),
        ("lengths", ["batch"], "tensor(int64)"),
    ]
    outputs = [(output.name, output.shape) for output in session.get_outputs()]
    assert outputs == [("logits", ["batch", 8]), ("likeness", ["batch"])]
    metadata = session.get_modelmeta().custom_metadata_map
    assert json.loads(metadata["labels"]) == list(EMOTIONS)
    assert metadata["sampling_rate"] == "16000"
    assert float(metadata["likeness_threshold"]) == SERConfig.from_pretrained(CHECKPOINT).likeness_threshold
    onnx.checker.check_model(onnx.load(exported), full_check=True)


def test_file_does_not_tell_where_it_was_made(exported):
    content = exported.read_bytes()
    assert not re.search(rb"[\w/]{3,}\.py\b", content)  # three bytes alone may well be weights
    assert str(CHECKPOINT.parent.parent).encode() not in content


def test_every_feature_exports(tmp_path):
    """All stacked, with deltas, absolute levels, statistics of each utterance and a longest length; nothing trimmed."""
    torch.manual_seed(0)
    extractor = SERFeatureExtractor(
        features=list(FEATURES),
        n_mels=40,
        n_mfcc=20,
        delta_order=2,
        level="absolute",
        top_db=None,
        trim_db=None,
        normalization="utterance",
        max_length_s=0.8,
    )
    options = {"widths": [8, 8], "hidden_size": 16}
    config = SERConfig(
        num_features=extractor.num_features, num_channels=3, invert_dct=False, backbone_options=options, num_labels=4
    )
    model = SERForAudioClassification(config).eval()
    assert export_onnx(model, extractor, tmp_path / "all.onnx") < 1e-4
    assert [output.name for output in onnx.load(tmp_path / "all.onnx").graph.output] == ["logits"]  # it has no likeness
    clips = [np.random.default_rng(seed).uniform(-0.3, 0.3, 9000 + 3000 * seed).astype(np.float32) for seed in range(3)]
    np.testing.assert_allclose(run(tmp_path / "all.onnx", clips), expected(model, extractor, clips), rtol=0, atol=1e-4)


def test_several_windows_export(tmp_path, clips):
    torch.manual_seed(0)
    extractor = SERFeatureExtractor(more_frames_ms=[20, 80], n_mels=40, n_mfcc=40, normalization="utterance")
    options = {"widths": [8, 8], "hidden_size": 16}
    config = SERConfig(num_features=40, num_channels=3, backbone_options=options, num_labels=4)
    model = SERForAudioClassification(config).eval()
    export_onnx(model, extractor, tmp_path / "several.onnx")
    np.testing.assert_allclose(
        run(tmp_path / "several.onnx", clips), expected(model, extractor, clips), rtol=0, atol=1e-4
    )


class Averaging(nn.Module):
    """The least that is a backbone."""

    output_size = 20

    def __init__(self, num_channels: int, num_features: int):
        super().__init__()

    def forward(self, features, mask, stages=None):
        return features.mean(dim=1), mask


class HangsOnTheData(Averaging):
    def forward(self, features, mask, stages=None):
        return super().forward(features * 2 if features.sum() > 0 else features, mask)


class ChangesInAGraph(Averaging):
    def forward(self, features, mask, stages=None):
        return super().forward(features * 2 if torch.compiler.is_exporting() else features, mask)


@pytest.mark.parametrize(
    ("backbone", "says"), [(HangsOnTheData, "cannot be exported: "), (ChangesInAGraph, "gives other outputs")]
)
def test_a_network_that_does_not_survive_export_leaves_no_file(monkeypatch, tmp_path, backbone, says):
    monkeypatch.setitem(BACKBONES, "odd", backbone)
    model = SERForAudioClassification(SERConfig(backbone="odd", num_features=20))
    with pytest.raises(HubError, match=f"backbone 'odd' {says}"):
        export_onnx(model, SERFeatureExtractor(n_mfcc=20), tmp_path / "odd.onnx")
    assert not list(tmp_path.iterdir())


def test_a_model_as_training_lays_it_in_memory_exports(tmp_path):
    model = SERForAudioClassification(SERConfig(backbone_options={"widths": [8, 8], "hidden_size": 16}))
    model = model.eval().to(memory_format=torch.channels_last)
    extractor = SERFeatureExtractor().fit([(0.1 * torch.randn(2, 16_000), torch.tensor([16_000, 16_000]))])
    assert export_onnx(model, extractor, tmp_path / "model.onnx") < 1e-4


def test_a_network_of_timm_is_refused_at_once(tmp_path):
    model = SERForAudioClassification(SERConfig(backbone="timm/mobilenetv3_small_050"))
    with pytest.raises(HubError, match="'timm/mobilenetv3_small_050' sizes its canvas by what it hears"):
        export_onnx(model, SERFeatureExtractor(), tmp_path / "timm.onnx")


def test_a_recurrent_network_is_refused_at_once(tmp_path):
    model = SERForAudioClassification(SERConfig(backbone="lstm", backbone_options={"hidden_size": 8}))
    with pytest.raises(HubError, match="'lstm' is recurrent"):
        export_onnx(model, SERFeatureExtractor(), tmp_path / "lstm.onnx")


def test_what_is_not_installed_is_named_with_the_remedy(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "onnxscript", None)  # as Python marks a module that is not there
    with pytest.raises(SystemExit, match="exporting needs onnxscript; pip install onnxscript"):
        main(["export", str(CHECKPOINT), str(tmp_path / "model.onnx")])


def test_a_model_that_is_not_there_is_named(tmp_path):
    with pytest.raises(SystemExit, match="no model at .*absent"):
        main(["export", str(tmp_path / "absent"), str(tmp_path / "model.onnx")])
