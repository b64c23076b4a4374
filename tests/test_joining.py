"""Several runs as one model: its answers are the mean of theirs, and so are the figures that its card gives."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from test_modeling import make_features, make_model
from test_readme import command, typed
from training_runs import TINY
from transformers import AutoModel, AutoModelForAudioClassification

from ser_model.__main__ import main
from ser_model.hub import export_onnx
from ser_model.inference import EmotionRecognizer
from ser_model.joining import JoinError, join_models
from ser_model.metrics import fit_temperature
from ser_model.predictions import Predictions, PredictionsError
from train import main as train

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def models():
    """Three networks of one kind, with a likeness each."""
    models = [make_model(seed=seed, calibration_temperature=1.0 + seed) for seed in range(3)]
    for seed, model in enumerate(models):
        weight = torch.randn(model.classifier.in_features, generator=torch.Generator().manual_seed(seed))
        model.set_likeness(weight, float(seed))
    return models


@torch.no_grad()
def test_logits_and_likeness_are_the_mean_of_the_members(models):
    features, mask = make_features(models[0], 2, 90), torch.ones(2, 90)
    mask[1, 50:] = 0
    answers = [model(features, mask) for model in models]
    raw = [(1.0 + seed) * answer.logits for seed, answer in enumerate(answers)]  # before each one's temperature
    joined = join_models(models)
    answer = joined(features, mask)
    torch.testing.assert_close(answer.logits, torch.stack(raw).mean(dim=0))
    torch.testing.assert_close(answer.likeness, torch.stack([own.likeness for own in answers]).mean(dim=0))
    assert joined.config.likeness_threshold == pytest.approx(1.0) and joined.config.calibration_temperature == 1.0
    assert joined.num_parameters() == sum(model.num_parameters() for model in models) - 2 * len(joined.classifier.bias)
    assert models[0].config.num_members == 1 and models[0].config.calibration_temperature == 1.0


@torch.no_grad()
def test_a_joined_model_weighs_as_many_as_it_holds(models):
    features = make_features(models[0], 2, 60)
    together, in_turn = join_models(models), join_models([join_models(models[:2]), models[2]])
    torch.testing.assert_close(together(features).logits, in_turn(features).logits)
    torch.testing.assert_close(together(features).likeness, in_turn(features).likeness)


@torch.no_grad()
def test_a_joined_model_is_saved_and_loaded_as_one(models, tmp_path):
    joined, features = join_models(models), make_features(models[0], 1, 60)
    joined.save_pretrained(tmp_path)
    loaded = AutoModelForAudioClassification.from_pretrained(tmp_path)
    state = loaded.state_dict()
    assert all(torch.equal(state.pop(name), weight) for name, weight in joined.state_dict().items()) and not state
    # Not to the bit: on some processors a sum's order hangs on where in memory its weights lie.
    torch.testing.assert_close(loaded(features).logits, joined(features).logits)
    hidden = AutoModel.from_pretrained(tmp_path)(features, output_hidden_states=True)
    own = [model.ser(features, output_hidden_states=True) for model in models]
    torch.testing.assert_close(hidden.pooler_output, torch.cat([each.pooler_output for each in own], dim=1))
    torch.testing.assert_close(hidden.last_hidden_state, torch.cat([each.last_hidden_state for each in own], dim=2))
    for number, maps in enumerate(hidden.hidden_states):
        torch.testing.assert_close(maps, torch.cat([each.hidden_states[number] for each in own], dim=1))


def test_freezing_freezes_every_member(models, tmp_path):
    joined = join_models(models)
    joined.freeze_backbone()
    joined.train()
    assert {name for name, weight in joined.named_parameters() if weight.requires_grad and "pooling" not in name} == {
        "classifier.weight",
        "classifier.bias",
    }
    assert not any(module.training for member in joined.members for module in member.backbone.modules())
    joined.save_pretrained(tmp_path)
    loaded = AutoModelForAudioClassification.from_pretrained(tmp_path)
    assert not any(weight.requires_grad for member in loaded.members for weight in member.backbone.parameters())
    loaded.freeze_backbone(False)
    assert all(weight.requires_grad for weight in loaded.parameters())


def test_other_networks_or_labels_are_not_joined():
    with pytest.raises(JoinError, match="pooling is 'attention' in one model and 'mean' in another"):
        join_models([make_model(), make_model(pooling="mean")])
    with pytest.raises(JoinError, match="id2label is"):
        join_models([make_model(), make_model(id2label={0: "sad", 1: "happy", 2: "neutral", 3: "angry"})])


@pytest.fixture(scope="module")
def runs(synthetic_corpora, tmp_path_factory) -> Path:
    """README's runs of two seeds, on made sounds: final and final-1, each after a cross-validation of its own."""
    folder = tmp_path_factory.mktemp("runs")
    config = [f"--config={ROOT / 'configs' / 'ravdess_speakers.yaml'}", *TINY, "--training.epochs=1"]
    config += ["--training.mixed_precision=no", "--data.num_proc=1", "--split.kind=speakers", "--split.validation=1"]
    for seed, final in enumerate(("final", "final-1")):
        own = [*config, f"--data-dir={synthetic_corpora}", f"--seed={seed}"]
        train([*own, f"--output-dir={folder / f'cv-{seed}'}", "--cv=speakers-2"])
        train([*own, f"--output-dir={folder / final}", f"--after={folder / f'cv-{seed}'}"])
    return folder


@pytest.fixture(scope="module")
def joined(runs) -> Path:
    """What README's command makes of them."""
    line = command("python -m ser_model join")
    typed(line.replace("runs/", f"{runs}/"), ROOT)
    return runs / "joined"


def test_runs_become_one_model_judged_by_the_mean_of_their_answers(runs, joined):
    finals = [runs / "final", runs / "final-1"]
    members, own = [Predictions.read(folder / "predictions.csv") for folder in finals], joined / "predictions.csv"
    mean = np.mean([member.like(members[0]).logits() for member in members], axis=0)
    answers, metrics = Predictions.read(own), json.loads((joined / "metrics.json").read_text())
    model = AutoModelForAudioClassification.from_pretrained(joined)
    temperature = fit_temperature(mean, members[0].labels)
    assert model.config.calibration_temperature == pytest.approx(temperature, abs=1e-3) == metrics["temperature"]
    np.testing.assert_array_equal(answers.like(members[0]).logits().argmax(axis=1), mean.argmax(axis=1))
    assert metrics["test"]["accuracy"] == pytest.approx((mean.argmax(axis=1) == members[0].labels).mean(), abs=1e-5)
    assert metrics["parameters"] == model.num_parameters() and model.config.num_members == 2
    folds = metrics["cross_validation"]["folds"]
    assert [fold["seeds"] for fold in folds] == [[0, 1]] * 2 and metrics["cross_validation"]["protocol"] == "speakers-2"
    assert [member["seed"] for member in metrics["members"]] == [0, 1]
    split = json.loads((joined / "split.json").read_text())
    assert model.config.training_split == split["hash"] == metrics["split_hash"]


def test_its_card_tells_how_it_was_made(joined):
    card = (joined / "README.md").read_text()
    assert "A model of 2 networks of the kind `cnn`, whose logits are averaged, over mfcc" in card
    assert "2 models of the same recipe (`train.py --cv speakers-2`), each of 2 networks as here, each tested" in card
    for line in (
        "--config settings.yaml --seed 1 --output-dir CV-1 --cv speakers-2\n",
        "--config settings.yaml --seed 1 --output-dir OUT-1 --after CV-1\n",
        "python -m ser_model join OUT-0 OUT-1 --output-dir OUT\n",
    ):
        assert line in card
    assert "Seeds 0 and 1, split " in card


def test_it_hears_and_exports_as_any_other(joined, synthetic_corpora, tmp_path):
    recognizer = EmotionRecognizer.from_pretrained(joined)
    clip = min(synthetic_corpora.rglob("*.wav"))
    assert recognizer.scores([recognizer.load(clip)]).sum() == pytest.approx(1, abs=1e-5)
    assert export_onnx(recognizer.model, recognizer.extractor, tmp_path / "joined.onnx") < 1e-4


def test_its_likeness_can_be_learnt_anew(joined, synthetic_corpora, tmp_path):
    """By the mean of the members' shares, for the score of all together spreads less."""
    folder = Path(shutil.copytree(joined, tmp_path / "joined"))
    before = json.loads((folder / "config.json").read_text())["likeness_threshold"]
    assert main(["likeness", str(folder), "--data-dir", str(synthetic_corpora)]) == 0
    after = json.loads((folder / "config.json").read_text())["likeness_threshold"]
    assert after is not None and after != before


def test_halved_it_answers_as_before(joined, tmp_path, capsys):
    folder = Path(shutil.copytree(joined, tmp_path / "runs" / "joined"))
    typed(command("python -m ser_model halve"), tmp_path)
    assert "its card does not say so yet: python -m ser_model card runs/joined" in capsys.readouterr().out
    assert "half precision" not in (folder / "README.md").read_text()
    assert main(["card", str(folder)]) == 0
    assert "half precision" in (folder / "README.md").read_text()
    whole, half = [AutoModelForAudioClassification.from_pretrained(path).eval() for path in (joined, folder)]
    kernels = sum(weight.numel() for weight in whole.parameters() if weight.dim() > 1)
    sizes = [(path / "model.safetensors").stat().st_size for path in (joined, folder)]
    assert sizes[0] - sizes[1] == pytest.approx(2 * kernels, rel=0.01)
    assert {weight.dtype for weight in half.parameters()} == {torch.float32}
    frames = torch.randn(4, 160, whole.config.num_features, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected, moved = whole(frames), half(frames)
    assert 0 < (moved.logits - expected.logits).abs().max() < 1e-3
    torch.testing.assert_close(moved.likeness, expected.likeness, atol=0.01, rtol=0)


def test_halved_it_stays_so_when_its_likeness_is_learnt_anew(joined, synthetic_corpora, tmp_path):
    folder = Path(shutil.copytree(joined, tmp_path / "joined"))
    assert main(["halve", str(folder)]) == 0
    size = (folder / "model.safetensors").stat().st_size
    assert main(["likeness", str(folder), "--data-dir", str(synthetic_corpora)]) == 0
    assert (folder / "model.safetensors").stat().st_size == size
    assert main(["card", str(folder)]) == 0
    assert "python -m ser_model halve OUT\n" in (folder / "README.md").read_text()


def test_weights_in_several_files_are_not_halved(joined, tmp_path):
    model = AutoModelForAudioClassification.from_pretrained(joined)
    model.save_pretrained(tmp_path, max_shard_size="50KB")
    with pytest.raises(SystemExit, match="in several files; save the model in one"):
        main(["halve", str(tmp_path)])


def test_what_is_no_model_cannot_be_halved(tmp_path):
    with pytest.raises(SystemExit, match="model.safetensors"):
        main(["halve", str(tmp_path)])
    (tmp_path / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(SystemExit, match="damaged or cut short"):
        main(["halve", str(tmp_path)])
    assert (tmp_path / "model.safetensors").read_bytes() == b"nothing"


def test_what_cannot_be_joined_is_refused_and_nothing_is_written(runs, joined, tmp_path):
    output = tmp_path / "out"

    def refused(*folders: Path) -> str:
        with pytest.raises(SystemExit) as error:
            main(["join", *map(str, folders), "--output-dir", str(output)])
        assert not output.exists()
        return str(error.value)

    final = runs / "final"
    assert "give several, of other seeds" in refused(final)
    assert "judged by one cross-validation" in refused(final, final)
    assert "was joined already" in refused(final, joined)
    assert "holds no finished run" in refused(final, tmp_path / "none")
    assert "join runs of train.py --after CV" in refused(runs / "cv-0" / "fold-1", final)
    other = Path(shutil.copytree(runs / "final-1", tmp_path / "other"))
    settings = (other / "settings.yaml").read_text()
    (other / "settings.yaml").write_text(settings.replace("epochs: 1\n", "epochs: 2\n"))
    assert "training.epochs was 2 and is 1 now" in refused(final, other)
    shutil.copyfile(runs / "final-1" / "settings.yaml", other / "settings.yaml")
    answers = Predictions.read(other / "predictions.csv")
    swapped = [clip | {"fold": 3 - int(clip["fold"])} for clip in answers.clips]
    replace(answers, clips=swapped).write(other / "predictions.csv")
    assert "judged by different folds" in refused(final, other)
    answers.write(other / "predictions.csv")
    extractor = json.loads((other / "preprocessor_config.json").read_text())
    extractor["feature_mean"][0] += 1
    (other / "preprocessor_config.json").write_text(json.dumps(extractor))
    assert "features.feature_mean of" in refused(final, other)
    shutil.copyfile(runs / "final-1" / "preprocessor_config.json", other / "preprocessor_config.json")
    (other / "split.json").write_text("{")
    assert "split.json cannot be read as a split manifest" in refused(other, final)
    metrics = json.loads((final / "metrics.json").read_text())
    metrics["cross_validation"]["protocol"] = "random-2"
    shuffled = Path(shutil.copytree(final, tmp_path / "shuffled"))
    (shuffled / "metrics.json").write_text(json.dumps(metrics))
    assert "judged by random splits" in refused(shuffled, other)
    with pytest.raises(SystemExit, match="holds a run; give another --output-dir"):
        main(["join", str(final), str(runs / "final-1"), "--output-dir", str(runs / "cv-0" / "fold-1")])


def test_answers_to_other_clips_are_not_averaged(runs):
    answers = Predictions.read(runs / "final" / "predictions.csv")
    with pytest.raises(PredictionsError, match="are not of the same clips, each once"):
        Predictions.averaged([answers, answers.at([0, 1])])
    with pytest.raises(PredictionsError, match="cannot be joined"):
        Predictions.averaged([answers, Predictions(("a", "b"), answers.clips, answers.labels, answers.probabilities)])
