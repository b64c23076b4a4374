from pathlib import Path

import numpy as np
import pytest

from ser_model import SERFeatureExtractor
from ser_model.backbones import BACKBONES
from ser_model.finetune import load_base
from ser_model.labels import label_scheme
from ser_model.settings import SettingsError, load_settings, save_settings
from train import make_model

CONFIGS = sorted((Path(__file__).parent.parent / "configs").glob("*.yaml"))
MINIMAL = "data: {corpora: [{name: ravdess}]}\n"


def settings_from(tmp_path, text, *overrides):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    return load_settings(path, list(overrides))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_that_comes_along_is_valid_and_carries_its_file_name(path):
    assert load_settings(path).name == path.stem


def test_a_file_is_named_after_itself_unless_it_says_otherwise(tmp_path):
    assert settings_from(tmp_path, MINIMAL).name == "mine"


def test_unknown_key_is_refused_with_the_nearest_known_one(tmp_path):
    with pytest.raises(SettingsError, match=r"unknown key 'training.epoch'.*did you mean 'epochs'"):
        settings_from(tmp_path, MINIMAL + "training: {epoch: 3}\n")


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("training: {epochs: 0}\n", "training.epochs"),
        ("training: {batch_size: many}\n", "training.batch_size"),
        ("augmentation: {noise: {probability: 1.5}}\n", "augmentation.noise.probability"),
        ("split: {kind: alphabetical}\n", "split.kind"),
        ("training: {keep: last, patience_epochs: 3}\n", "leave one of them out"),
        ("training: {epochs: 3}\ntraining: {learning_rate: 0.1}\n", "'training' stands there twice"),
        ("seed: -1\n", "seed is -1"),
        ("split: {kind: random, test: [ravdess-01]}\n", "give test and validation as shares"),
        ("split: {kind: corpora}\n", "name them as in"),
        ("split: {kind: column, seed: 1}\n", "does not use 'seed'"),
        ("seed: 4294967296\n", "seed is 4294967296; it must be less than"),
        ("name: ../../evil\n", "'../../evil' cannot name a folder"),
        ("name: ..\n", "'..' cannot name a folder"),
        ("training: {learning_rate: .inf}\n", "training.learning_rate is inf; it must be a finite number"),
        ("augmentation: {gain: {db: .inf}}\n", "augmentation.gain.db is inf"),
        ("augmentation: {pitch: {semitones: 200}}\n", "augmentation.pitch.semitones is 200; it must be less than"),
        ("augmentation: {noise: {snr_db: [.nan, 5]}}\n", "augmentation.noise.snr_db.0 is nan"),
        ("augmentation: {noise: {snr_db: [30, 5]}}\n", r"the lower bound comes first; write \[5.0, 30.0\]"),
        ("augmentation: {reverberation: {decay_s: [-1, -0.5]}}\n", "augmentation.reverberation.decay_s.0 is -1"),
        ("augmentation: {codec: {kbit_s: [-5, -5]}}\n", "augmentation.codec.kbit_s.0 is -5; it must be greater"),
        ("augmentation: {clipping: {threshold: [-1, -1]}}\n", "augmentation.clipping.threshold.0 is -1"),
        ("augmentation: {band: {low_hz: [9000, 9500]}}\n", "low_hz reaches 9500, high_hz begins at 3000"),
        (
            "features: {normalization: utterance}\naugmentation: {style: {probability: 0.5}}\n",
            "augmentation: style blends .* features.normalization 'utterance' makes alike; leave one of them out",
        ),
    ],
)
def test_impossible_value_is_refused_naming_its_key(tmp_path, text, key):
    with pytest.raises(SettingsError, match=key):
        settings_from(tmp_path, MINIMAL + text)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("--training.schedule=cosin", "did you mean 'cosine'.*known: one_cycle, cosine, cosine_restarts"),
        ("--training.optimizer=adam", "did you mean 'adamw'"),
        ("--training.mixed_precision=BF16", "did you mean 'bf16'"),
        ("--split.kind=speaker", "did you mean 'speakers'"),
    ],
)
def test_an_unknown_word_is_refused_with_the_nearest_known_one(tmp_path, override, said):
    with pytest.raises(SettingsError, match=said):
        settings_from(tmp_path, MINIMAL, override)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("--labels=", "labels is None; it must be a whole number or a mapping of keys to values"),
        ("--training=5", "training is 5; it must be a mapping of keys to values"),
        ("--training.epochs=many", "training.epochs is 'many'; it must be a whole number"),
        ("--split.test={a: 1}", "split.test is {'a': 1}; it must be a list of names or a whole number or a number"),
        ("--data.corpora=[]", "data.corpora is []; it must be a list with something in it"),
    ],
)
def test_what_was_wanted_is_said_in_plain_words(tmp_path, override, said):
    with pytest.raises(SettingsError) as refused:
        settings_from(tmp_path, MINIMAL, override)
    assert str(refused.value) == f"{tmp_path / 'mine.yaml'}: {said}"


@pytest.mark.parametrize("labels", ["{names: [yes, no]}", "{names: [a, b], merge: {off: a}}", "{drop: [null]}"])
def test_labels_that_yaml_takes_for_something_else_are_to_be_quoted(tmp_path, labels):
    with pytest.raises(SettingsError, match="quote them"):
        settings_from(tmp_path, MINIMAL + f"labels: {labels}\n")


def test_quoted_labels_stay_words(tmp_path):
    assert settings_from(tmp_path, MINIMAL + 'labels: {names: ["yes", "no"]}\n').labels == {"names": ["yes", "no"]}


def test_overrides_reach_nested_keys_and_keep_their_types(tmp_path):
    settings = settings_from(
        tmp_path, MINIMAL, "--training.epochs", "5", "--seed=3", "--split.test", "[ravdess-01, ravdess-02]"
    )
    assert settings.training.epochs == 5
    assert settings.seed == 3
    assert settings.split.test == ["ravdess-01", "ravdess-02"]


def test_a_bare_no_of_yaml_is_the_word(tmp_path):
    assert settings_from(tmp_path, MINIMAL + "training: {mixed_precision: no}\n").training.mixed_precision == "no"


@pytest.mark.parametrize(
    "override",
    [
        ["--training.epochs"],
        ["training.epochs", "5"],
        ["--seed.deeper", "1"],
        ["--split.test", "[ravdess-01"],
    ],
)
def test_an_override_that_cannot_be_read_is_refused(tmp_path, override):
    with pytest.raises(SettingsError):
        settings_from(tmp_path, MINIMAL + "seed: 1\n", *override)


def test_a_section_may_take_over_another(tmp_path):
    text = "training: &own {epochs: 3, batch_size: 8}\n"
    merged = "x: {<<: {a: 1}, a: 2}\n"
    assert settings_from(tmp_path, MINIMAL + text).training.epochs == 3
    with pytest.raises(SettingsError, match="unknown key 'x'"):  # read, and then not known
        settings_from(tmp_path, MINIMAL + merged)


def test_a_folder_is_no_config(tmp_path):
    with pytest.raises(SettingsError, match="cannot be read"):
        load_settings(tmp_path)


def test_saved_settings_read_back_equal(tmp_path):
    settings = settings_from(tmp_path, MINIMAL, "--training.epochs", "7")
    save_settings(settings, tmp_path / "saved.yaml")
    assert load_settings(tmp_path / "saved.yaml") == settings


@pytest.mark.parametrize("text", ["- a list\n", "key: [unclosed\n"])
def test_a_file_that_is_no_mapping_is_refused(tmp_path, text):
    with pytest.raises(SettingsError):
        settings_from(tmp_path, text)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(SettingsError, match="no config file"):
        load_settings(tmp_path / "absent.yaml")


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_builds_its_extractor_and_network(path):
    settings = load_settings(path)
    base = load_base(settings)
    extractor = base.extractor if base else SERFeatureExtractor(**settings.features)
    names = label_scheme(settings.labels).names
    settings.model.pop("pretrained_backbone", None)  # there is no Hub in tests
    model = make_model(settings, extractor, names, base=base).eval()
    features = extractor(np.random.default_rng(0).normal(0, 0.1, 16_000), sampling_rate=16_000, return_tensors="pt")
    assert model(**features).logits.shape == (1, len(names))


def test_every_backbone_has_a_config():
    assert {load_settings(path).model.get("backbone") for path in CONFIGS} >= BACKBONES.keys()
