"""Learning on from a trained model: what stays, what is refused, and that nobody calls heard speakers unseen."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file
from transformers import Wav2Vec2Config

from ser_model import SERConfig, SERFeatureExtractor, SERForAudioClassification, SERModel
from ser_model.backbones import BACKBONES
from ser_model.corpora import find_utterances
from ser_model.data import make_split
from ser_model.finetune import load_base
from ser_model.hub import HubError
from ser_model.optimization import layer_rates, make_optimizer, make_schedule
from ser_model.settings import Settings, SettingsError, SplitSettings
from ser_model.splits import SplitError, continued, manifest, speakers_heard
from train import main

ROOT = Path(__file__).resolve().parent.parent
CHECKPOINT = ROOT / "checkpoints" / "ser-cnn-8"
SMALL = {"widths": [8, 8, 8, 8], "hidden_size": 16}


def settings(base=CHECKPOINT, training=None, **sections) -> Settings:
    content = {"name": "t", "data": {"corpora": [{"name": "folder", "path": "mine"}]}, **sections}
    return Settings.model_validate(content | {"training": {"base_model": base and str(base), **(training or {})}})


@pytest.fixture(scope="module")
def features() -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    return torch.randn(2, 60, 80), torch.ones(2, 60)


def test_labels_that_stay_keep_their_answers_in_whatever_order(features):
    base = SERForAudioClassification.from_pretrained(CHECKPOINT).eval()
    names = ("sad", "tense", "angry")
    model = load_base(settings()).network(settings(), names).eval()
    assert [model.config.id2label[index] for index in range(3)] == list(names) and model.config.num_labels == 3
    with torch.no_grad():
        before = base(*features).logits * base.config.calibration_temperature  # training works on raw logits
        after = model(*features).logits
    for index, name in ((0, "sad"), (2, "angry")):
        torch.testing.assert_close(after[:, index], before[:, base.config.label2id[name]])


def test_features_keep_the_statistics_of_the_base():
    assert load_base(settings()).extractor.feature_mean == SERFeatureExtractor.from_pretrained(CHECKPOINT).feature_mean


@pytest.mark.parametrize(
    ("sections", "key"),
    [
        ({"features": {"n_mfcc": 40}}, r"features\.n_mfcc is 40, but .* has 80"),
        ({"model": {"backbone": "gru"}}, r"model\.backbone is 'gru', but .* has 'cnn'"),
        ({"model": {"pretrained_backbone": True}}, r"model\.pretrained_backbone"),
    ],
)
def test_settings_that_contradict_the_base_are_refused(sections, key):
    with pytest.raises(SettingsError, match=key):
        load_base(settings(**sections))


def test_settings_that_agree_with_the_base_or_have_no_weights_are_taken():
    agreeing = settings(features={"features": ["mfcc"], "n_mfcc": 80}, model={"backbone": "cnn", "dropout": 0.5})
    assert load_base(agreeing).network(agreeing, ("a", "b")).dropout.p == 0.5


def test_a_base_that_is_no_folder_here_is_not_blamed_on_the_network_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)  # where `checkpoints/ser-cnn-8` of a config is none
    with pytest.raises(
        HubError, match=f"^no model at your/model: there is no folder {tmp_path / 'your' / 'model'}, and"
    ):
        load_base(settings("your/model"))


def test_what_cannot_be_a_base_is_refused_in_one_sentence(tmp_path):
    with pytest.raises(HubError, match="no model at"):
        load_base(settings(tmp_path / "absent"))
    Wav2Vec2Config().save_pretrained(tmp_path)
    with pytest.raises(SettingsError, match="kind 'wav2vec2'; fine-tuning starts from one that train.py made"):
        load_base(settings(tmp_path))


@pytest.mark.parametrize("card", [b"---\nlicense: [\n---\n", b"---\n- mit\n---\n", b"\xff\xfe"])
def test_a_base_whose_card_is_damaged_is_refused_in_one_sentence(tmp_path, card):
    """Nobody could tell under which licence its weights may be passed on."""
    base = shutil.copytree(CHECKPOINT, tmp_path / "base")
    (base / "README.md").write_bytes(card)
    with pytest.raises(SettingsError, match=r"README\.md, which names the licence of .*, cannot be read") as refused:
        load_base(settings(base))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("base", "model", "complaint"),
    [(CHECKPOINT, {"freeze_backbone": True}, "freezes for good"), (None, {}, "has learnt nothing yet")],
)
def test_a_frozen_start_that_makes_no_sense_is_refused(base, model, complaint):
    with pytest.raises(SettingsError, match=complaint):
        load_base(settings(base, {"unfreeze_epoch": 2}, model=model))


@pytest.mark.parametrize("name", BACKBONES)
def test_every_stage_learns_slower_than_the_one_above_it(name):
    config = SERConfig(backbone=name, invert_dct=False, id2label={0: "a", 1: "b"})
    model = SERForAudioClassification(config)
    rates = layer_rates(model, 0.5)
    assert rates.keys() == set(model.parameters())
    head = [*model.classifier.parameters(), *model.ser.pooling.parameters()]
    assert {rates[weight] for weight in head} == {1.0}
    inside = [rates[weight] for weight in model.ser.backbone.parameters()]
    assert max(inside) == 0.5 and inside[0] == min(inside) < 0.5
    if name not in ("lstm", "gru", "cnn1d"):  # which list their directions, or their norms, apart
        assert inside == sorted(inside)


def test_the_default_network_learns_stage_by_stage():
    model = SERForAudioClassification(SERConfig(backbone_options=SMALL, id2label={0: "a", 1: "b"}))
    rates = layer_rates(model, 0.5)
    backbone = model.ser.backbone
    stages = [[model.ser.invert_dct, backbone.stem, backbone.stem_norm], *([stage] for stage in backbone.stages)]
    stages.append([backbone.project, backbone.project_norm])
    for height, modules in enumerate(reversed(stages), start=1):
        assert {rates[weight] for module in modules for weight in module.parameters()} == {0.5**height}


def test_schedules_keep_the_rates_apart():
    model = SERForAudioClassification(SERConfig(backbone_options=SMALL, id2label={0: "a", 1: "b"}))
    for schedule in ("one_cycle", "cosine", "cosine_restarts", "plateau", "constant"):
        training = settings(training={"layer_decay": 0.5, "schedule": schedule, "learning_rate": 1.0}).training
        optimizer = make_optimizer(model, training)
        highest = [0.0] * len(optimizer.param_groups)
        scheduler = make_schedule(optimizer, training, steps=40)
        for _ in range(20):
            highest = [
                max(pair) for pair in zip(highest, (group["lr"] for group in optimizer.param_groups), strict=True)
            ]
            optimizer.step()
            scheduler.step(*[0.5] * (schedule == "plateau"))
        assert highest == pytest.approx([group for height in range(7) for group in 2 * [0.5**height]], rel=1e-2)


def test_frozen_backbone_spares_the_map_before_it_and_thaws():
    model = SERForAudioClassification(SERConfig(backbone_options=SMALL, freeze_backbone=True))
    body = [*model.ser.invert_dct.parameters(), *model.ser.backbone.parameters()]
    assert not any(weight.requires_grad for weight in body) and model.classifier.weight.requires_grad
    model.freeze_backbone(False)
    assert all(weight.requires_grad for weight in body) and model.train().ser.backbone.stem_norm.training
    model.freeze_backbone()
    assert not any(weight.requires_grad for weight in body) and not model.train().ser.backbone.stem_norm.training


def trainable(model: torch.nn.Module) -> set[str]:
    return {name for name, weight in model.named_parameters() if weight.requires_grad}


@pytest.mark.parametrize("kind", [SERModel, SERForAudioClassification])
def test_a_loaded_model_is_as_frozen_as_its_configuration_says(tmp_path, kind):
    made = SERForAudioClassification(SERConfig(backbone_options=SMALL, freeze_backbone=True))
    made.save_pretrained(tmp_path)
    loaded = kind.from_pretrained(tmp_path)
    head = {name for name in trainable(loaded) if "pooling" in name or "classifier" in name}
    assert head and trainable(loaded) == head
    thawed, report = kind.from_pretrained(tmp_path, freeze_backbone=False, output_loading_info=True)
    assert trainable(thawed) == {name for name, _ in thawed.named_parameters()} and not report["missing_keys"]


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("wanted", [True, False])
def test_a_base_is_frozen_as_the_settings_say_however_it_was_trained(tmp_path, before, wanted):
    model = SERForAudioClassification(SERConfig(backbone_options=SMALL, freeze_backbone=before))
    model.save_pretrained(tmp_path)
    SERFeatureExtractor().save_pretrained(tmp_path)
    asked = settings(tmp_path, model={"freeze_backbone": True} if wanted else {})
    network = load_base(asked).network(asked, ("a", "b"))
    body = [*network.ser.invert_dct.parameters(), *network.ser.backbone.parameters()]
    assert {weight.requires_grad for weight in body} == {not wanted} == {network.train().ser.backbone.training}
    assert network.classifier.weight.requires_grad and network.config.freeze_backbone is wanted


# ── Whole runs ──

RUN = [
    "--training.batch_size=16",
    "--training.outlier_sounds=2",
    "--split.kind=random",
    "--split.test=0.2",
    "--split.validation=0.2",
]


@pytest.fixture(scope="module")
def own_folder(synthetic_corpora, tmp_path_factory) -> Path:
    """Made clips regrouped under labels of one's own: data/mine/calm and data/mine/tense."""
    root = tmp_path_factory.mktemp("own")
    for emotion, label in ((1, "calm"), (2, "calm"), (5, "tense"), (6, "tense")):
        (root / "mine" / label).mkdir(parents=True, exist_ok=True)
        for clip in synthetic_corpora.glob(f"RAVDESS/*/03-01-{emotion:02}-*.wav"):
            shutil.copy(clip, root / "mine" / label)
    return root


def test_only_the_head_learns_until_the_backbone_thaws(own_folder, tmp_path, monkeypatch):
    frozen = []

    def spy(model, freeze):
        frozen.append(freeze)
        freeze_backbone(model, freeze)

    freeze_backbone = SERForAudioClassification.freeze_backbone
    monkeypatch.setattr(SERForAudioClassification, "freeze_backbone", spy)
    arguments = ["--config=configs/finetune_folder.yaml", f"--data-dir={own_folder}", *RUN, "--training.epochs=2"]
    main([*arguments, f"--output-dir={tmp_path / 'half'}", "--training.unfreeze_epoch=1"])
    assert frozen == [False, True, False]  # as it was made, then epoch by epoch
    main([*arguments, f"--output-dir={tmp_path / 'frozen'}", "--training.unfreeze_epoch=9"])
    base, tuned = (load_file(folder / "model.safetensors") for folder in (CHECKPOINT, tmp_path / "frozen"))
    body = [name for name in base if name.startswith(("ser.backbone", "ser.invert_dct"))]
    body = [name for name in body if base[name].is_floating_point()]  # counters get rounded as they are averaged
    assert any(name.endswith("running_mean") for name in body)
    assert all(torch.equal(tuned[name], base[name]) for name in body)
    assert tuned["classifier.weight"].shape[0] == 2
    metrics = json.loads((tmp_path / "frozen" / "metrics.json").read_text())
    assert metrics["base_model"] == "ser-cnn-8" and metrics["speaker_disjoint"] is False
    assert metrics["validation_speaker_disjoint"] is False  # clips of a folder name nobody
    assert SERConfig.from_pretrained(tmp_path / "frozen").freeze_backbone is False  # of the run, not of the model


def test_two_processes_thaw_together(own_folder, tmp_path):
    command = [str(Path(sys.executable).with_name("accelerate")), "launch"]
    command += ["--config_file=configs/accelerate/cpu_2.yaml", "train.py", "--config=configs/finetune_folder.yaml"]
    command += [f"--data-dir={own_folder}", f"--output-dir={tmp_path}", *RUN, "--training.batch_size=8"]
    command += ["--training.epochs=2", "--training.unfreeze_epoch=1"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    assert len(json.loads((tmp_path / "metrics.json").read_text())["history"]) == 2


def test_a_run_says_that_its_base_heard_the_test_speakers(synthetic_corpora, tmp_path, capsys):
    """First on a random split, so that it hears everybody; then on, with speakers that are new to nobody."""
    small = "--model.backbone_options={widths: [8, 8, 8, 8], hidden_size: 16}"
    arguments = ["--config=configs/ravdess_tess_cnn.yaml", f"--data-dir={synthetic_corpora}", "--training.epochs=1"]
    main([*arguments, *RUN, small, f"--output-dir={tmp_path / 'base'}"])
    speakers = ["--split.test=[ravdess-01, tess-YAF]", "--split.validation=[ravdess-02]"]
    capsys.readouterr()
    main([*arguments, *speakers, f"--model={tmp_path / 'base'}", f"--output-dir={tmp_path / 'tuned'}"])
    said = capsys.readouterr().out.splitlines()
    assert said[1].startswith("starts from base")
    assert (
        said[2] == "NOT unseen speakers: 2 of these speakers were heard in training or validation: ravdess-01, tess-YAF"
    )
    metrics = json.loads((tmp_path / "tuned" / "metrics.json").read_text())
    assert metrics["speaker_disjoint"] is False and metrics["speaker_disjoint_because"] in said[2]
    card = (tmp_path / "tuned" / "README.md").read_text()
    assert "unseen speakers |" not in card and "ravdess-01, tess-YAF" in card and "started from base" in card
    assert str(tmp_path) not in card
    # Whoever evaluates it later is told the same.
    utterances = find_utterances(synthetic_corpora, [{"name": "ravdess"}, {"name": "tess"}]).utterances
    split_hash, heard = speakers_heard(tmp_path / "tuned" / "split.json", utterances, synthetic_corpora)
    assert {"ravdess-01", "tess-YAF"} <= heard
    assert split_hash == SERConfig.from_pretrained(tmp_path / "tuned").training_split


def test_a_card_names_network_features_and_licence_of_the_base(synthetic_corpora, own_folder, tmp_path):
    """Also where that is the model of a run's last epoch, which has no card of its own."""
    base = ["--config=configs/ravdess_tess_cnn1d.yaml", "--features.features=log_mel", "--training.epochs=1"]
    main([*base, *RUN, f"--data-dir={synthetic_corpora}", f"--output-dir={tmp_path / 'base'}"])
    tuned = ["--config=configs/finetune_folder.yaml", f"--model={tmp_path / 'base' / 'last'}", *RUN]
    tuned += [f"--data-dir={own_folder}", "--training.epochs=1", "--training.unfreeze_epoch=null"]
    main([*tuned, f"--output-dir={tmp_path / 'tuned'}"])
    card = (tmp_path / "tuned" / "README.md").read_text()
    assert "A network of the kind `cnn1d` over log_mel that tells calm, tense apart" in card and "- mfcc" not in card
    assert "Weights, which started from base/last: CC-BY-NC-SA-4.0" in card
    metrics = json.loads((tmp_path / "tuned" / "metrics.json").read_text())
    assert metrics["network"] == {"backbone": "cnn1d", "members": 1, "features": ["log_mel"]}
    for folder in ("base", "base/last"):
        with pytest.raises(SystemExit, match="holds the base model .*, and a run would replace it; give another"):
            main([*tuned, f"--model={tmp_path / folder}", f"--output-dir={tmp_path / 'base'}", "--overwrite"])
    assert (tmp_path / "base" / "model.safetensors").is_file()


def test_a_fine_tuned_model_of_every_clip_says_of_the_folds_whether_their_speakers_were_new(
    synthetic_corpora, tmp_path, capsys
):
    small = ["--model.backbone_options={widths: [8, 8, 8, 8], hidden_size: 16}", "--training.outlier_sounds=0"]
    common = [f"--data-dir={synthetic_corpora}", "--training.epochs=1", "--training.keep=last"]
    common += ["--training.mixed_precision=no"]  # as in every run of this process: Accelerate allows one
    ravdess = ["--config=configs/ravdess_tess_cnn.yaml", "--data.corpora=[{name: ravdess}]", *common]
    split = ["--split.test=[ravdess-01, ravdess-02]", "--split.validation=[ravdess-03]"]
    main([*ravdess, *split, *small, f"--output-dir={tmp_path / 'base'}"])
    tess = ["--config=configs/tess_speakers.yaml", *common, "--training.outlier_sounds=0"]
    tess += [f"--model={tmp_path / 'base'}"]
    main([*tess, "--cv=tess-speakers", f"--output-dir={tmp_path / 'cv'}"])
    capsys.readouterr()
    main([*tess, f"--after={tmp_path / 'cv'}", f"--output-dir={tmp_path / 'all'}"])
    because = "none of these speakers was heard in training or validation"
    assert f"\nunseen speakers: {because}\n" in capsys.readouterr().out
    metrics = json.loads((tmp_path / "all" / "metrics.json").read_text())
    assert metrics["speaker_disjoint"] is True and metrics["speaker_disjoint_because"] == because


def test_what_the_base_heard_goes_into_the_split_or_is_called_unknown(synthetic_corpora, tmp_path):
    utterances = find_utterances(synthetic_corpora, [{"name": "ravdess"}]).utterances
    labels = [utterance.emotion for utterance in utterances]

    def split(test: list[str]) -> dict:
        wanted = SplitSettings(test=test, validation=["ravdess-03"])
        return manifest(make_split(utterances, labels, wanted, 0), utterances, synthetic_corpora)

    first, second = split(["ravdess-01"]), split(["ravdess-02"])
    (tmp_path / "base.json").write_text(json.dumps(first))
    known = continued(second, tmp_path / "base.json", first["hash"])
    assert set(known["heard_before"]) == {*first["train"], *first["validation"]} and known["hash"] != second["hash"]
    for base, base_hash in ((None, None), (tmp_path / "base.json", "another"), (tmp_path / "absent.json", "x")):
        content = continued(second, base, base_hash)
        assert content["heard_before"] is None
        (tmp_path / "tuned.json").write_text(json.dumps(content))
        with pytest.raises(SplitError, match="nobody can tell whom it heard"):
            speakers_heard(tmp_path / "tuned.json", utterances, synthetic_corpora)
