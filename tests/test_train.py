import csv
import json
import os
import re
import shutil
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch
import yaml
from accelerate.utils import LoggerType
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from training_runs import tiny_run
from transformers import AutoFeatureExtractor, AutoModelForAudioClassification

from ser_model import SERFeatureExtractor
from ser_model.evaluation import evaluate, split_file
from ser_model.inference import EmotionRecognizer
from ser_model.settings import TrainingSettings, load_settings
from train import is_replaced, main, make_model, make_state, precision, take_cores

ROOT = Path(__file__).resolve().parent.parent
LAUNCH = [str(Path(sys.executable).with_name("accelerate")), "launch", "train.py"]


def small(data_dir: Path, output_dir: Path, *more: str) -> list[str]:
    """Arguments of a run that tests three voices."""
    own = ("--split.test=[ravdess-01, ravdess-02, tess-YAF]", "--training.cpu_threads=2")
    return tiny_run(data_dir, output_dir, *own, *more)


@pytest.fixture(scope="module")
def run(synthetic_corpora, tmp_path_factory):
    """One short training run, as a contributor starts it."""
    output_dir = tmp_path_factory.mktemp("run")
    command = [*LAUNCH, *small(synthetic_corpora, output_dir)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment, timeout=300)
    assert result.returncode == 0, result.stderr
    return output_dir, result


def test_only_mfccs_are_taken_back_to_the_mel_spectrum():
    settings = load_settings(ROOT / "configs" / "ravdess_tess_cnn.yaml")
    for features, inverted in (("mfcc", True), ("log_mel", False), (("mfcc", "chroma"), False)):
        model = make_model(settings, SERFeatureExtractor(features=features), ("angry", "sad"))
        assert model.config.invert_dct is inverted


def test_run_leaves_a_model_that_loads_and_answers(run, synthetic_corpora):
    output_dir, _ = run
    model = AutoModelForAudioClassification.from_pretrained(output_dir)
    extractor = AutoFeatureExtractor.from_pretrained(output_dir)
    assert model.config.id2label[0] == "neutral" and len(model.config.id2label) == 8
    assert len(extractor.feature_mean) == 80  # fitted on the training part
    clip = next(synthetic_corpora.rglob("*.wav"))
    scores = EmotionRecognizer(model, extractor).scores([EmotionRecognizer(model, extractor).load(clip)])
    assert scores.shape == (1, 8)


def test_run_writes_its_figures_split_settings_and_card(run):
    output_dir, _ = run
    metrics = json.loads((output_dir / "metrics.json").read_text())
    assert metrics["speaker_disjoint"] is True
    assert metrics["test"]["count"] == 2 * 16 + 21
    assert set(metrics["test"]["by_corpus"]) == {"ravdess", "tess"}
    assert len(metrics["history"]) == 3
    assert metrics["history"][-1]["train_loss"] < metrics["history"][0]["train_loss"]
    split = json.loads((output_dir / "split.json").read_text())
    assert split["hash"] == metrics["split_hash"]
    assert json.loads((output_dir / "config.json").read_text())["training_split"] == split["hash"]
    assert metrics["data"]["clips"] == 170 and metrics["data"]["left_out"] == {}
    assert (output_dir / "left_out.csv").read_text().strip() == "path,corpus,reason"
    assert load_settings(output_dir / "settings.yaml").training.epochs == 3
    card = (output_dir / "README.md").read_text()
    assert f"{metrics['test']['uar']:.3f}" in card and "unseen speakers" in card
    assert set(metrics["test"]["by_sex"]["ravdess male"]["recall"]) == set(metrics["test"]["recall"])
    assert sum(b["count"] for b in metrics["test"]["reliability"]) == metrics["test"]["count"]
    assert metrics["hardware"] == "CPU, 2 threads" and metrics["hardware"] in card  # whatever OMP_NUM_THREADS says
    assert "95 % intervals over 3 speakers" in card
    for picture in ("confusion", "reliability", "learning_curves"):
        assert f"({picture}.png)" in card
        assert (output_dir / f"{picture}.png").stat().st_size and (output_dir / f"{picture}.svg").stat().st_size


def test_run_writes_a_row_for_each_test_clip_and_the_tables_that_follow_from_them(run, synthetic_corpora):
    output_dir, _ = run
    metrics = json.loads((output_dir / "metrics.json").read_text())
    with open(output_dir / "predictions.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    names = list(json.loads((output_dir / "config.json").read_text())["id2label"].values())
    clip = ["path", "corpus", "speaker", "sex", "intensity", "label", "prediction"]
    assert list(rows[0]) == [*clip, *names, "condition", "seed", "fold", "split_hash", "temperature"]
    assert {row["intensity"] for row in rows if row["corpus"] == "ravdess"} == {"normal"}
    assert {row["condition"] for row in rows} == {"clean"}
    assert {row["speaker"] for row in rows} == {"ravdess-01", "ravdess-02", "tess-YAF"}
    assert all((synthetic_corpora / row["path"]).is_file() for row in rows)
    runs = {tuple(row[key] for key in ("seed", "fold", "split_hash", "temperature")) for row in rows}
    assert runs == {("0", "", metrics["split_hash"], str(metrics["temperature"]))}
    right = sum(row["label"] == row["prediction"] for row in rows)
    assert right / len(rows) == pytest.approx(metrics["test"]["accuracy"], abs=1e-5)
    report = (output_dir / "classification_report.txt").read_text()
    assert f"{metrics['test']['uar']:.3f}" in next(line for line in report.splitlines() if "macro avg" in line)
    with open(output_dir / "history.csv", newline="") as file:
        history = list(csv.DictReader(file))
    assert [float(row["uar"]) for row in history] == [epoch["uar"] for epoch in metrics["history"]]
    assert all(float(row["clips_per_s"]) > 0 for row in history)


def test_last_holds_the_model_after_the_last_step_as_one_that_can_be_evaluated(run, synthetic_corpora):
    output_dir, _ = run
    best, last = (load_file(folder / "model.safetensors") for folder in (output_dir, output_dir / "last"))
    metrics = json.loads((output_dir / "metrics.json").read_text())
    is_best = metrics["best_epoch"] == len(metrics["history"]) - 1
    assert all(torch.equal(best[key], last[key]) for key in best) is is_best
    settings = load_settings(output_dir / "settings.yaml")
    recognizer = EmotionRecognizer.from_pretrained(output_dir / "last")
    options = {"part": "validation", "split_manifest": split_file(output_dir / "last")}
    figures, _ = evaluate(recognizer, settings, synthetic_corpora, **options)
    assert figures["uar"] == pytest.approx(metrics["history"][-1]["uar"], abs=1e-4)


def test_run_is_logged_for_tensorboard(run):
    output_dir, result = run
    metrics = json.loads((output_dir / "metrics.json").read_text())
    events = EventAccumulator(str(output_dir / "logs" / "ravdess_tess_cnn")).Reload()
    for key in ("train_loss", "learning_rate", "clips_per_s", "uar", "accuracy", "log_loss"):
        logged = [(event.step, event.value) for event in events.Scalars(key)]
        assert logged == [(epoch["epoch"], pytest.approx(epoch[key])) for epoch in metrics["history"]]
    [hyperparameters] = (output_dir / "logs").rglob("hparams.yml")
    assert yaml.safe_load(hyperparameters.read_text())["training.epochs"] == 3
    assert "tensorboard" not in result.stderr.lower() and "tensorflow" not in result.stderr.lower()


@pytest.mark.parametrize(
    ("name", "sentence"),
    [("tensorbord", "no tracker; did you mean 'tensorboard'.*wandb"), ("wandb", "wandb is not installed; pip install")],
)
def test_a_tracker_that_cannot_be_had_is_refused_before_anything_is_read(name, sentence, tmp_path, monkeypatch):
    monkeypatch.setattr("train.get_available_trackers", lambda: [LoggerType.TENSORBOARD])
    with pytest.raises(SystemExit, match=f"training.trackers: .*{sentence}"):
        main(small(tmp_path / "absent", tmp_path / "run", f"--training.trackers=[{name}]"))


def test_saved_model_gives_the_figures_that_were_reported(run, synthetic_corpora):
    """The test accuracy, counted again from the files through the door that users take."""
    output_dir, _ = run
    recognizer = EmotionRecognizer.from_pretrained(output_dir)
    files = [file for actor in ("01", "02") for file in (synthetic_corpora / "RAVDESS").glob(f"Actor_{actor}/*.wav")]
    scores = recognizer.scores([recognizer.load(file) for file in files])
    right = [recognizer.labels[row.argmax()] for row in scores]
    truth = [recognizer.labels[int(file.name.split("-")[2]) - 1] for file in files]
    accuracy = sum(a == b for a, b in zip(right, truth, strict=True)) / len(files)
    metrics = json.loads((output_dir / "metrics.json").read_text())
    assert accuracy == pytest.approx(metrics["test"]["by_corpus"]["ravdess"]["accuracy"], abs=1e-4)


def test_same_seed_gives_the_same_weights(run, synthetic_corpora, tmp_path):
    output_dir, _ = run
    main(small(synthetic_corpora, tmp_path))
    first, second = (load_file(folder / "model.safetensors") for folder in (output_dir, tmp_path))
    assert all(torch.equal(first[key], second[key]) for key in first)


@pytest.fixture
def damaged_corpora(synthetic_corpora, tmp_path):
    corpora = shutil.copytree(synthetic_corpora, tmp_path / "data")
    (corpora / "RAVDESS" / "Actor_05" / "03-01-01-01-01-01-05.wav").write_text("no sound")
    (corpora / "RAVDESS" / "Actor_05" / "03-01-02-01-01-01-05.wav").write_bytes(b"")
    return corpora


def test_a_streamed_run_leaves_out_what_is_damaged_and_says_so(damaged_corpora, tmp_path, capsys):
    output_dir = tmp_path / "run"
    main(small(damaged_corpora, output_dir, "--training.epochs=2", "--data.streaming=true"))
    with open(output_dir / "left_out.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["path"], row["reason"].split(":")[0]) for row in rows] == [
        ("RAVDESS/Actor_05/03-01-01-01-01-01-05.wav", "unreadable"),
        ("RAVDESS/Actor_05/03-01-02-01-01-01-05.wav", "empty"),
    ]
    metrics = json.loads((output_dir / "metrics.json").read_text())
    assert metrics["data"]["left_out"] == {"empty": 1, "unreadable": 1} and metrics["data"]["clips"] == 168
    assert metrics["test"]["count"] == 2 * 16 + 21 and len(metrics["history"]) == 2
    said = capsys.readouterr().out
    assert "2 files left out: 1 empty, 1 unreadable; see left_out.csv" in said and "2 files were left out" in said


@pytest.mark.parametrize("strict", ["--strict", "--data={corpora: [{name: ravdess}, {name: tess}], strict: true}"])
def test_strict_stops_before_training_with_the_list(damaged_corpora, tmp_path, strict):
    """Also where a whole section is set, whose name --data-dir begins with."""
    with pytest.raises(SystemExit, match=r"(?s)2 files cannot be used.*-05\.wav: unreadable.*-05\.wav: empty"):
        main([strict, *small(damaged_corpora, tmp_path / "run")])
    assert not (tmp_path / "run").exists()


def test_a_run_over_the_cross_validation_that_judges_it_is_refused(tmp_path):
    with pytest.raises(SystemExit, match="--after and --output-dir are both .*give another --output-dir"):
        main(small(tmp_path, f"{tmp_path}/", f"--after={tmp_path}"))


@pytest.mark.parametrize("option", ["--config=", "--data-dir=", "--output-dir=", "--after=", "--model="])
def test_an_empty_name_is_refused(option, tmp_path, capsys):
    with pytest.raises(SystemExit):
        main([*small(tmp_path, tmp_path / "out"), option])
    assert re.search(f"argument {option[:-1]}: an empty (path|name) came; name a", capsys.readouterr().err)


def test_a_base_that_a_fold_would_replace_is_refused(tmp_path):
    for base in (tmp_path / "fold-1", tmp_path / "fold-2" / "last", tmp_path / "last"):
        with pytest.raises(SystemExit, match="holds the base model .*, and a run would replace it; give another"):
            main(small(tmp_path, tmp_path, f"--model={base}", "--cv=speakers-2", "--overwrite"))
    assert not is_replaced(tmp_path / "base", tmp_path) and not is_replaced(tmp_path, tmp_path / "fold-1")


def test_clips_of_a_single_label_are_refused_before_training(synthetic_corpora, tmp_path):
    for clip in sorted(synthetic_corpora.glob("RAVDESS/*/03-01-0[12]-*.wav")):
        (folder := tmp_path / "data" / "mine" / "calm").mkdir(parents=True, exist_ok=True)
        shutil.copy(clip, folder)
    own = ["--data.corpora=[{name: folder, path: mine}]", "--labels={names: [calm, tense]}", "--split={kind: random}"]
    with pytest.raises(SystemExit, match="every clip to train on is calm.* wanted two or more of calm, tense"):
        main(tiny_run(tmp_path / "data", tmp_path / "run", *own))
    assert not (tmp_path / "run").exists()


def test_help_says_that_every_setting_can_be_changed_and_where_they_stand(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    said = capsys.readouterr().out
    assert "--training.epochs 5" in said and "ser_model/settings.py" in said


def test_a_wrong_setting_ends_in_one_sentence(synthetic_corpora, tmp_path):
    with pytest.raises(SystemExit, match="^train.py: .*did you mean 'epochs'"):
        main(small(synthetic_corpora, tmp_path, "--training.epoch=3"))


def test_an_empty_data_folder_ends_in_one_sentence(tmp_path):
    (tmp_path / "data").mkdir()
    with pytest.raises(SystemExit, match="^train.py: no RAVDESS clips found"):
        main(small(tmp_path / "data", tmp_path / "out"))


def test_a_run_without_progress_stops_early(synthetic_corpora, tmp_path, capsys):
    own = (
        "--training.epochs=30",
        "--training.patience_epochs=1",
        "--training.learning_rate=1e-9",
        "--training.ema_decay=0.0",
        "--training.schedule=constant",
        "--training.optimizer=sgd",
        "--training.class_weights=true",
        "--training.accumulation_steps=3",
    )
    main(small(synthetic_corpora, tmp_path, *own))
    history = json.loads((tmp_path / "metrics.json").read_text())["history"]
    assert len(history) < 30
    assert "no better validation UAR in 1 epochs" in capsys.readouterr().out


def test_the_last_epoch_is_kept_though_none_is_better_than_the_first(synthetic_corpora, tmp_path):
    nothing_learnt = ["--training.learning_rate=1e-9", "--training.ema_decay=0.0", "--training.epochs=3"]
    for keep, epoch in (("best", 0), ("last", 2)):
        out = tmp_path / keep
        main(small(synthetic_corpora, out, *nothing_learnt, f"--training.keep={keep}", "--training.optimizer=sgd"))
        assert json.loads((out / "metrics.json").read_text())["best_epoch"] == epoch
    assert "The last of 3 epochs was kept" in (out / "README.md").read_text()


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("--model.backbone=resnt18", "model: unknown backbone 'resnt18'.*did you mean 'resnet18'"),
        ("--model.dropout=2", "model: SERConfig.dropout is 2; it must be"),
        ("--model.num_features=3", "model.num_features is 3, but the features have 80; leave model.num_features out"),
        ("--model.num_channels=2", "model.num_channels is 2, but the features have 1"),
        ("--model.backbone_options={hidden_size: 100000000000000000}", "model: nothing of that size can be made here"),
        ("--model.backbone_options={hidden_size: 1000000000000000000000000000000}", "model: "),
        ("--features.feature_mean=5", "features: "),
        ("--features.n_mfc=13", "features: .*knows no setting .'n_mfc'..*did you mean 'n_mfcc'"),
        ("--features.n_mels=many", "features: SERFeatureExtractor.n_mels is 'many'; it must be a whole number"),
        (
            "--augmentation.band={probability: 1, low_hz: [9000, 9500], high_hz: [9600, 9700]}",
            "augmentation.band.low_hz reaches 9500 Hz, but at a rate of 16000 Hz sound ends at 8000 Hz",
        ),
        ("--augmentation.noise.folder=no_such_folder", "augmentation.noise.folder is 'no_such_folder', which holds no"),
        ("--split.fold=2", "split: a split of the kind 'speakers' does not use 'fold'; leave it out"),
    ],
)
def test_impossible_networks_features_and_splits_end_in_one_sentence(synthetic_corpora, tmp_path, override, said):
    with pytest.raises(SystemExit, match=f"(?s)^train.py: .*{said}"):
        main(small(synthetic_corpora, tmp_path / "run", override))


@pytest.mark.parametrize(
    ("capabilities", "taken"),
    [
        ({"avx512_f": True, "avx512_bf16": False, "amx_bf16": False}, "no"),
        ({"avx512_f": True, "avx512_bf16": True, "amx_bf16": False}, "bf16"),
        ({"neon": True, "bf16": True}, "bf16"),
        ({"neon": True}, "no"),
    ],
)
def test_auto_is_bfloat16_where_the_cpu_has_it(capabilities, taken, monkeypatch):
    monkeypatch.setattr("torch.cpu.get_capabilities", lambda: capabilities)
    assert precision(TrainingSettings(mixed_precision="auto")) == taken
    assert precision(TrainingSettings(mixed_precision="bf16")) == "bf16"  # asked for by name it is taken anyway


def test_a_process_waits_for_another_that_decodes_for_as_long_as_it_takes(monkeypatch):
    state = Mock()
    monkeypatch.setattr("train.PartialState", state)
    make_state()
    assert state.call_args.kwargs["timeout"] > timedelta(days=1)


@pytest.mark.parametrize(("asked", "gpu", "taken"), [("true", True, True), ("false", True, False), ("no", False, True)])
def test_a_gpu_is_left_alone_where_the_launcher_asks_for_the_cpu(asked, gpu, taken, monkeypatch):
    state = Mock()
    monkeypatch.setattr("train.PartialState", state)
    monkeypatch.setattr("torch.accelerator.is_available", lambda: gpu)
    monkeypatch.setenv("ACCELERATE_USE_CPU", asked)
    make_state()
    assert state.call_args.kwargs["cpu"] is taken


@pytest.mark.parametrize(("asked", "processes", "taken"), [(None, "1", 8), (None, "3", 2), (None, "9", 1), (3, "2", 3)])
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_process_takes_its_share_of_the_cores(asked, processes, taken, device, monkeypatch):
    before = torch.get_num_threads()
    monkeypatch.setattr("train.make_state", lambda: Mock(device=torch.device(device)))
    monkeypatch.setattr("train.cpu_count", lambda only_physical_cores: 8)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", processes)
    try:
        take_cores(asked)
        assert torch.get_num_threads() == taken
    finally:
        torch.set_num_threads(before)
