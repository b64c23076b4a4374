"""The experiments of configs/README.md: each is there, and those that no corpus at hand allows run on made clips."""

import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import soundfile

from ser_model import SERFeatureExtractor
from ser_model.labels import label_scheme
from ser_model.settings import load_settings
from train import main, make_model

ROOT = Path(__file__).resolve().parent.parent
CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))
TABLE = (ROOT / "configs" / "README.md").read_text()
NETWORKS = ("basic_cnn", "improved_cnn", "lstm", "gru")
FEATURES = ("[mfcc]", "[chroma]", "[contrast]", "[mfcc,chroma,contrast]")


@pytest.fixture(scope="module")
def four_corpora(synthetic_corpora, tmp_path_factory) -> Path:
    """CREMA-D and SAVEE as they are published, made of noise, beside RAVDESS and TESS."""
    root = tmp_path_factory.mktemp("four")
    for corpus in synthetic_corpora.iterdir():
        (root / corpus.name).symlink_to(corpus)
    rng = np.random.default_rng(0)

    def write(path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, rng.normal(0, 0.05, int(16_000 * rng.uniform(0.7, 1.0))), 16_000, subtype="PCM_16")

    for actor in (1001, 1002, 1003):
        for emotion in ("ANG", "DIS", "FEA", "HAP", "NEU", "SAD"):
            write(root / "CREMA-D" / "AudioWAV" / f"{actor}_DFA_{emotion}_XX.wav")
    for speaker in ("DC", "JE"):
        for emotion in ("a", "d", "f", "h", "n", "sa", "su"):
            write(root / "SAVEE" / "AudioData" / speaker / f"{emotion}01.wav")
    return root


def test_the_table_names_every_config_and_no_other():
    assert set(re.findall(r"`configs/(\w+)\.yaml`", TABLE)) == {path.stem for path in CONFIGS}
    files = {path.name for path in (ROOT / "configs" / "accelerate").iterdir()}
    assert set(re.findall(r"^- `(\w+\.yaml)`", TABLE, re.MULTILINE)) == files


@pytest.mark.parametrize("features", FEATURES)
@pytest.mark.parametrize("network", NETWORKS)
def test_every_network_is_built_on_every_feature(network, features):
    path = ROOT / "configs" / f"ravdess_tess_{network}.yaml"
    settings = load_settings(path, ["--features.features", features])
    extractor = SERFeatureExtractor(**settings.features)
    assert extractor.features == tuple(features.strip("[]").split(","))
    names = label_scheme(settings.labels).names
    model = make_model(settings, extractor, names).eval()
    sound = np.random.default_rng(0).normal(0, 0.1, 16_000)
    assert model(**extractor(sound, sampling_rate=16_000, return_tensors="pt")).logits.shape == (1, 8)


@pytest.mark.parametrize("additions", re.findall(r"\| add `([^`]+)`", TABLE))
def test_what_the_table_adds_is_understood(additions):
    changed = load_settings(ROOT / "configs" / "ravdess_tess_gru.yaml", shlex.split(additions))
    SERFeatureExtractor(**changed.features)
    assert changed != load_settings(ROOT / "configs" / "ravdess_tess_gru.yaml")


@pytest.mark.parametrize("name", ["ravdess14_deep_cnn", "ravdess14_resnet18"])
def test_the_fourteen_classes_are_learnt_with_noise_and_shift_alone(name):
    settings = load_settings(ROOT / "configs" / f"{name}.yaml")
    kinds = settings.augmentation.model_dump()
    assert {kind for kind in kinds if kinds[kind]["probability"]} == {"noise", "shift"}
    assert SERFeatureExtractor(**settings.features).max_frames == settings.training.max_frames == 194


def test_resnet18_learns_slower_as_it_stalls_and_ends_early():
    training = load_settings(ROOT / "configs" / "ravdess14_resnet18.yaml").training
    assert training.schedule == "plateau" and training.patience_epochs < training.epochs


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("four_corpora_shallow_cnn", []),
        ("four_corpora_shallow_cnn", ["--features.features=log_spectrogram"]),
        ("four_corpora_inception_v3", ["--model.pretrained_backbone=false"]),
    ],
)
def test_four_corpora_are_learnt_together(four_corpora, tmp_path, name, arguments):
    config = [f"--config=configs/{name}.yaml", f"--data-dir={four_corpora}", f"--output-dir={tmp_path}"]
    main([*config, "--training.epochs=1", "--training.mixed_precision=no", "--training.outlier_sounds=0", *arguments])
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["data"]["clips"] == 8 * 16 + 42 + 18 + 14
    assert set(metrics["test"]["by_corpus"]) <= {"ravdess", "tess", "cremad", "savee"}
    assert len(metrics["test"]["confusion_matrix"]) == 7


def test_imagenet_weights_that_cannot_be_fetched_end_in_one_sentence(four_corpora, tmp_path):
    config = ["--config=configs/four_corpora_inception_v3.yaml", f"--data-dir={four_corpora}"]
    with pytest.raises(SystemExit, match=r"(?s)inception_v3.*could not be fetched.*pretrained_backbone: false"):
        main([*config, f"--output-dir={tmp_path}"])
