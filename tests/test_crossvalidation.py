"""`train.py --cv`: every fold a run of its own, finished ones left alone, and what they come to together."""

import contextlib
import csv
import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from test_readme import COMMANDS
from training_runs import TINY
from transformers import AutoModelForAudioClassification

from ser_model.checkpoints import refuse_other_clips
from ser_model.crossvalidation import after_all, fold_settings
from ser_model.data import load_data
from ser_model.faults import Stopped
from ser_model.metrics import fit_temperature
from ser_model.predictions import Predictions
from ser_model.settings import SettingsError, load_settings, save_settings
from ser_model.splits import FOLDS
from train import main

ROOT = Path(__file__).resolve().parent.parent
CONFIG = ROOT / "configs" / "ravdess_speakers.yaml"
SMALL = [
    f"--config={CONFIG}",
    *TINY,
    "--training.epochs=1",
    "--training.mixed_precision=no",  # as in every run of this process: Accelerate allows one
    "--data.num_proc=1",
]


def cross_validate(data_dir, output_dir, *arguments) -> None:
    main([*SMALL, f"--data-dir={data_dir}", f"--output-dir={output_dir}", *arguments])


def test_starting_over_leaves_no_old_fold_to_go_on_with(all_synthetic_actors, tmp_path, monkeypatch):
    for number in range(1, 7):
        (folder := tmp_path / f"fold-{number}").mkdir()
        (folder / "metrics.json").write_text("{}")
    (tmp_path / "cv.json").write_text("{}")

    def stopped(*_, begun, beside):
        assert (tmp_path / "cv.json").exists()  # as long as the run may be refused
        begun()
        raise Stopped("stopped by SIGINT", 130)

    monkeypatch.setattr("train.train", stopped)
    with pytest.raises(SystemExit):
        cross_validate(all_synthetic_actors, tmp_path, "--cv", "ravdess-speakers", "--overwrite")
    assert list(tmp_path.rglob("*.json")) == [tmp_path / "fold-1" / "metrics.json"]  # which is the run's own to forget


def rows_of(path: Path) -> list[dict]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize(
    ("holds", "arguments", "said"),
    [
        ("cv.json", [], "holds a finished cross-validation; give another --output-dir, or --overwrite"),
        ("cv.json", ["--resume"], "holds a finished cross-validation"),
        ("metrics.json", ["--cv=ravdess-speakers"], "holds a run, whose card and predictions --cv would replace"),
        ("checkpoint.safetensors", ["--cv=ravdess-speakers"], "holds a run, whose card"),
    ],
)
def test_figures_of_the_other_kind_are_not_replaced_unasked(tmp_path, holds, arguments, said):
    for name in (holds, "README.md", "predictions.csv"):
        (tmp_path / name).write_text("{}")
    before = sorted(tmp_path.iterdir())
    with pytest.raises(SystemExit, match=said):
        cross_validate(tmp_path / "no_data", tmp_path, *arguments)
    assert sorted(tmp_path.iterdir()) == before


@pytest.fixture(scope="module")
def six_folds(all_synthetic_actors, tmp_path_factory) -> Path:
    """README's command, on made sounds."""
    output_dir = tmp_path_factory.mktemp("cv")
    as_typed("--cv ravdess-speakers", {"data": all_synthetic_actors, "runs/cv": output_dir})
    return output_dir


def as_typed(end: str, places: dict[str, Path], *arguments: str) -> None:
    """README's command that ends so, with other places in it and a small network."""
    start = "accelerate launch train.py --config configs/ravdess_speakers.yaml"
    line = next(line for line in COMMANDS if line.startswith(start) and line.endswith(end))
    words = shlex.split(line)
    assert places.keys() <= set(words)
    with contextlib.chdir(ROOT):
        main([*(str(places.get(word, word)) for word in words[3:]), *SMALL, *arguments])


def test_every_fold_tests_its_own_actors_and_together_they_test_all(six_folds):
    for number, speakers in enumerate(FOLDS["ravdess-speakers"], start=1):
        rows = rows_of(six_folds / f"fold-{number}" / "predictions.csv")
        assert {row["speaker"] for row in rows} == set(speakers)
        assert {row["fold"] for row in rows} == {str(number)}
        assert (six_folds / f"fold-{number}" / "model.safetensors").is_file()
    pooled = rows_of(six_folds / "predictions.csv")
    assert len(pooled) == len({row["path"] for row in pooled}) == 24 * 8


def test_summary_is_what_the_folds_figures_come_to(six_folds):
    summary = json.loads((six_folds / "cv.json").read_text())
    runs = [json.loads((six_folds / f"fold-{number}" / "metrics.json").read_text()) for number in range(1, 7)]
    recalls = [run["test"]["uar"] for run in runs]
    assert summary["mean"]["uar"] == pytest.approx(sum(recalls) / 6, abs=1e-5)
    assert summary["sd"]["uar"] == pytest.approx(np.std(recalls, ddof=1), abs=1e-5)
    assert [fold["test"]["uar"] for fold in summary["folds"]] == recalls
    assert [fold["split_hash"] for fold in summary["folds"]] == [run["split_hash"] for run in runs]
    confusion = sum(np.array(run["test"]["confusion_matrix"]) for run in runs)
    assert summary["pooled"]["confusion_matrix"] == confusion.tolist()
    assert summary["pooled"]["interval"]["speakers"] == 24 and summary["speaker_disjoint"] is True
    log_loss = sum(run["test"]["log_loss"] for run in runs) / 6  # folds are of one size
    assert summary["pooled"]["log_loss"] == pytest.approx(log_loss, abs=1e-4)


def test_summary_is_there_to_be_read(six_folds):
    summary = json.loads((six_folds / "cv.json").read_text())
    text = (six_folds / "README.md").read_text()
    assert f"{summary['mean']['uar']:.3f} ± {summary['sd']['uar']:.3f}" in text
    assert "unseen speakers" in text and "95 % intervals over 24 speakers" in text
    for name in ("confusion.png", "confusion.svg", "reliability.png", "reliability.svg", "classification_report.txt"):
        assert (six_folds / name).stat().st_size


def test_only_what_is_unfinished_is_run_again(six_folds, all_synthetic_actors, tmp_path, capsys):
    output_dir = Path(shutil.copytree(six_folds, tmp_path / "cv"))
    before = json.loads((output_dir / "cv.json").read_text())
    (output_dir / "fold-2" / "metrics.json").unlink()
    (output_dir / "cv.json").unlink()
    written = {path: path.stat().st_mtime_ns for path in output_dir.glob("fold-*/model.safetensors")}
    cross_validate(all_synthetic_actors, output_dir, "--cv=ravdess-speakers")
    again = [path.parent.name for path, time_ns in written.items() if path.stat().st_mtime_ns != time_ns]
    assert again == ["fold-2"]
    after = json.loads((output_dir / "cv.json").read_text())
    assert after["pooled"] == before["pooled"] and after["mean"] == before["mean"]
    said = capsys.readouterr().out
    assert "6 folds, 5 of them finished before" in said
    assert f"UAR {after['mean']['uar']:.3f} ± {after['sd']['uar']:.3f}" in said


def test_folds_of_other_settings_are_not_mixed(six_folds, all_synthetic_actors):
    sentence = "fold-1 is of another run: training.epochs was 1 and is 2 now; resume it as it was"
    with pytest.raises(SystemExit, match=sentence):
        cross_validate(all_synthetic_actors, six_folds, "--cv=ravdess-speakers", "--training.epochs=2")


@pytest.fixture(scope="module")
def one_clip_another(all_synthetic_actors, tmp_path_factory) -> Path:
    """The same names, but another sound behind one of them."""
    data_dir = Path(shutil.copytree(all_synthetic_actors, tmp_path_factory.mktemp("other") / "data"))
    clip = min(data_dir.rglob("*.wav"))
    samples, rate = soundfile.read(clip)
    soundfile.write(clip, samples[::-1], rate)
    return data_dir


def test_folds_of_other_clips_are_not_mixed(six_folds, one_clip_another, tmp_path):
    output_dir = Path(shutil.copytree(six_folds, tmp_path / "cv"))
    (output_dir / "fold-2" / "metrics.json").unlink()
    (output_dir / "cv.json").unlink()
    with pytest.raises(SystemExit, match="fold-1 heard other clips: the hash of their sound was .*--data-dir"):
        cross_validate(one_clip_another, output_dir, "--cv=ravdess-speakers")
    assert not (output_dir / "cv.json").exists()


@pytest.mark.parametrize(("finished", "expected"), [([], [None, 1, 1, 1, 1, 1]), ([3, 5], [3, 3, 3, 3, 3, 3])])
def test_all_folds_must_hear_the_clips_of_the_first_that_was_finished(
    all_synthetic_actors, tmp_path, monkeypatch, finished, expected
):
    besides = []
    monkeypatch.setattr("train.is_finished", lambda folder, *_: folder in {tmp_path / f"fold-{n}" for n in finished})
    monkeypatch.setattr("train.train", lambda *_, begun, beside: besides.append(beside))
    monkeypatch.setattr("train.summarise", lambda *_: None)
    monkeypatch.setattr("train.headline", lambda _: "no figures")
    cross_validate(all_synthetic_actors, tmp_path, "--cv=ravdess-speakers")
    assert besides == [number and tmp_path / f"fold-{number}" for number in expected]


def test_a_model_of_other_clips_is_not_called_one_of_the_same_recipe(six_folds, one_clip_another, tmp_path):
    with pytest.raises(SystemExit, match="fold-1 heard other clips.*or run --cv on these data"):
        cross_validate(one_clip_another, tmp_path / "out", "--after", str(six_folds))
    assert not (tmp_path / "out").exists()


def test_runs_of_earlier_versions_do_not_tell_what_they_heard_and_are_taken(tmp_path):
    (tmp_path / "metrics.json").write_text("{}")
    refuse_other_clips(tmp_path, "1a2b")


def test_after_it_everything_trains_and_the_card_gives_the_figures_of_the_folds(
    six_folds, all_synthetic_actors, tmp_path, capsys
):
    places = {"data": all_synthetic_actors, "runs/cv": six_folds, "runs/final": tmp_path}
    as_typed("--after runs/cv", places, "--seed=5")
    summary, metrics = (json.loads(path.read_text()) for path in (six_folds / "cv.json", tmp_path / "metrics.json"))
    assert metrics["cross_validation"] == summary
    assert metrics["speaker_disjoint"] is True and metrics["split"] == "all"
    manifest = json.loads((tmp_path / "split.json").read_text())
    assert len(manifest["train"]) == 24 * 8 and manifest["validation"] == manifest["test"] == []

    # Temperatures are fitted anew, on more voices: the model's on all folds' answers, a fold's on those of the others.
    own, kept = (Predictions.read(folder / "predictions.csv") for folder in (six_folds, tmp_path))
    model = AutoModelForAudioClassification.from_pretrained(tmp_path)
    expected = fit_temperature(own.logits(), own.labels)
    assert model.config.calibration_temperature == pytest.approx(expected, abs=1e-3)
    without_fold_2 = [row for row, clip in enumerate(own.clips) if clip["fold"] != "2"]
    expected = fit_temperature(own.logits()[without_fold_2], own.labels[without_fold_2])
    assert float(kept.parted("fold")["2"].clips[0]["temperature"]) == pytest.approx(expected, abs=1e-3)
    np.testing.assert_allclose(kept.logits().argmax(axis=1), own.logits().argmax(axis=1))
    assert metrics["test"]["accuracy"] == summary["pooled"]["accuracy"]
    assert metrics["test"]["ece"] == pytest.approx(kept.figures()["ece"], abs=1e-3)
    assert model.config.training_split == manifest["hash"]

    # Nor are there voices to set the other threshold by: as many of the training's are refused as in the folds.
    refused = np.mean([fold["training_voices_refused"] for fold in summary["folds"]])
    assert metrics["training_voices_refused"] == pytest.approx(refused, abs=0.002)
    assert model.config.likeness_threshold is not None

    card = (tmp_path / "README.md").read_text()
    assert "--output-dir CV --cv ravdess-speakers\n" in card and "--output-dir OUT --after CV\n" in card
    assert (
        "These weights learnt from every clip of the data below" in card
        and "fitted on the answers of the cross-validation" in card
    )
    assert f"| ravdess, unseen speakers, cross-validated | {24 * 8} | {summary['pooled']['uar']:.3f} |" in card
    capsys.readouterr()
    cross_validate(all_synthetic_actors, tmp_path, "--after", str(six_folds), "--seed=5", "--resume")
    assert "nothing is left to do" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--after", "CV", "--training.epochs=2"], "is of another run: training.epochs was 1 and is 2 now"),
        (["--after", "no_such_folder"], "no_such_folder holds no finished cross-validation .*run train.py --cv first"),
        (["--after", "CV", "--cv", "ravdess-speakers"], "--cv judges a recipe and --after trains one"),
        (["--split={kind: all}"], "leaves nothing to judge by; give a finished --cv run: --after CV"),
    ],
)
def test_training_on_everything_wants_a_judgement_of_the_same_recipe(
    six_folds, all_synthetic_actors, tmp_path, arguments, said
):
    arguments = [str(six_folds) if word == "CV" else word for word in arguments]
    with pytest.raises(SystemExit, match=f"^train.py: .*{said}"):
        cross_validate(all_synthetic_actors, tmp_path, *arguments)


@pytest.mark.parametrize(("training", "said"), [({"keep": "best"}, "keep: last"), ({"schedule": "plateau"}, "plateau")])
def test_nothing_that_waits_for_validation_clips_trains_on_everything(training, said):
    settings = load_settings(CONFIG)
    settings = settings.model_copy(update={"training": settings.training.model_copy(update=training)})
    with pytest.raises(SettingsError, match=said):
        after_all(settings)


def test_own_speakers_are_shared_out_to_folds_and_each_is_tested_once(all_synthetic_actors, tmp_path, capsys):
    rows = [
        f"{clip},{clip.stem.split('-')[2]},{'ada bo cy di'.split()[number // 2 % 4]}"
        for number, clip in enumerate(sorted(all_synthetic_actors.glob("RAVDESS/*/03-01-0[35]-*.wav")))
    ]
    (tmp_path / "mine.csv").write_text("\n".join(["path,label,speaker", *rows]))
    own = ["--data.corpora=[{name: folder, path: mine.csv}]", "--split.kind=speakers", "--split.validation=1"]
    own += ['--labels={names: ["03", "05"]}', "--training.outlier_sounds=0"]
    cross_validate(tmp_path, tmp_path / "cv", "--cv=speakers-2", *own)
    tested = [{row["speaker"] for row in rows_of(tmp_path / "cv" / f"fold-{n}" / "predictions.csv")} for n in (1, 2)]
    assert [len(speakers) for speakers in tested] == [2, 2] and not tested[0] & tested[1]
    summary = json.loads((tmp_path / "cv" / "cv.json").read_text())
    assert summary["speaker_disjoint"] is True and summary["pooled"]["count"] == len(rows)
    assert "speakers-2, 2 folds, unseen speakers" in capsys.readouterr().out


def test_folds_of_own_speakers_are_those_of_every_seed_and_few_speakers_spare_one_to_validate(
    all_synthetic_actors, tmp_path
):
    def splits(seed: int, corpora: str) -> list:
        settings = load_settings(CONFIG, [f"--seed={seed}", "--split={kind: speakers}", f"--data.corpora=[{corpora}]"])
        return [fold.split for fold in fold_settings(settings, "speakers-4", all_synthetic_actors)]

    actors = "{name: ravdess}"
    assert splits(0, actors) == splits(1, actors) and splits(0, actors)[0].validation == 0.1
    clips = sorted(all_synthetic_actors.glob("RAVDESS/*/03-01-03-*.wav"))
    rows = [f"{clip},happy,{'abcd'[number % 4]}" for number, clip in enumerate(clips)]
    (tmp_path / "mine.csv").write_text("\n".join(["path,label,speaker", *rows]))
    assert splits(0, f"{{name: folder, path: {tmp_path / 'mine.csv'}}}")[0].validation == 1


def test_a_fold_that_cannot_be_made_is_told_before_the_first_is_trained(all_synthetic_actors, tmp_path):
    """All clips of one label are of one speaker, so nobody is left to learn it from where that one is tested."""
    clips = sorted(all_synthetic_actors.glob("RAVDESS/*/03-01-0[35]-*.wav"))
    rows = [f"{clip},{clip.stem.split('-')[2]},{'abcdef'[number // 2 % 6]}" for number, clip in enumerate(clips)]
    rows = [row.replace(",05,", ",03,") if row[-1] != "f" else row for row in rows]
    (tmp_path / "mine.csv").write_text("\n".join(["path,label,speaker", *rows]))
    own = ["--data.corpora=[{name: folder, path: mine.csv}]", "--split.kind=speakers", "--split.validation=1"]
    own += ['--labels={names: ["03", "05"]}', "--training.outlier_sounds=0", "--cv=speakers-6"]
    with pytest.raises(SystemExit, match=r"no utterance to train on is left for 05"):
        cross_validate(tmp_path, tmp_path / "cv", *own)
    assert not list((tmp_path / "cv").rglob("model.safetensors"))


def test_random_splits_are_repeated_with_other_seeds_and_say_that_voices_are_shared(
    all_synthetic_actors, tmp_path, capsys
):
    options = ("--cv=random-2", "--seed=5", "--split.test=0.2", "--split.validation=0.2")
    cross_validate(all_synthetic_actors, tmp_path, *options)
    summary = json.loads((tmp_path / "cv.json").read_text())
    assert [fold["seed"] for fold in summary["folds"]] == [5, 6]
    assert len({fold["split_hash"] for fold in summary["folds"]}) == 2
    assert summary["speaker_disjoint"] is False
    assert {(row["seed"], row["fold"]) for row in rows_of(tmp_path / "predictions.csv")} == {("5", "1"), ("6", "2")}
    assert "random split, speakers shared with training" in (tmp_path / "README.md").read_text()
    said = capsys.readouterr().out
    assert "random-2 draws clips in place of the config's split, published: training knows the voices" in said
    assert "random split, speakers shared with training" in said


@pytest.mark.parametrize(
    ("protocol", "split"),
    [
        ("random-3", "{kind: random, test: 0.4, validation: 0.3"),
        ("speakers-3", "{kind: speakers, validation: 2"),
        ("ravdess-speakers", "{kind: published, validation: 0.3"),
    ],
)
def test_other_networks_are_tested_on_the_same_splits_where_these_have_a_seed_of_their_own(
    all_synthetic_actors, protocol, split
):
    def splits(seed: int, end: str) -> list[str]:
        settings = load_settings(CONFIG, [f"--split={split}{end}", f"--seed={seed}"])
        folds = fold_settings(settings, protocol, all_synthetic_actors)
        assert [fold.seed for fold in folds] == [
            seed + run * protocol.startswith("random") for run in range(len(folds))
        ]
        drawn = [load_data(fold, all_synthetic_actors, 16_000).split for fold in folds]
        return [(own.train, own.validation, own.test) for own in drawn]

    assert splits(10, ", seed: 0}") == splits(0, ", seed: 0}") == splits(0, "}") != splits(10, "}")


def test_two_processes_share_the_folds_of_tess_and_the_card_says_where_the_epoch_was_chosen(
    synthetic_corpora, tmp_path
):
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "train.py", *SMALL]
    options = ["--cv=tess-speakers", "--data.corpora=[{name: tess}]", "--training.batch_size=8"]
    result = subprocess.run(
        [*launch, *options, f"--data-dir={synthetic_corpora}", f"--output-dir={tmp_path}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"},
        timeout=300,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("tess-speakers, 2 folds") == 1  # one process speaks for both
    summary = json.loads((tmp_path / "cv.json").read_text())
    assert summary["pooled"]["count"] == 42
    assert sum(map(sum, summary["pooled"]["confusion_matrix"])) == 42  # no clip counted twice
    assert {row["speaker"] for row in rows_of(tmp_path / "fold-1" / "predictions.csv")} == {"tess-YAF"}
    metrics = json.loads((tmp_path / "fold-1" / "metrics.json").read_text())
    assert metrics["hardware"].startswith("2 x CPU")
    assert "validation part shares speakers with training" in (tmp_path / "fold-1" / "README.md").read_text()


@pytest.mark.parametrize(
    ("protocol", "split"),
    [
        ("ravdess-speakers", "{kind: published}"),
        ("ravdess-speakers", "{kind: published, validation: 0.3}"),
        ("ravdess-speakers", "{kind: speakers, test: [ravdess-01], validation: 2}"),
        ("speakers-4", "{kind: speakers, validation: 0.3}"),
        ("random-3", "{kind: random, test: 0.4, validation: 0.3}"),
        ("random-3", "{kind: random, test: 0.4, validation: 0.3, seed: 7}"),
    ],
)
def test_the_settings_beside_a_model_of_every_clip_make_the_folds_that_judged_it(
    all_synthetic_actors, tmp_path, protocol, split
):
    settings = load_settings(CONFIG, [f"--split={split}"])
    save_settings(after_all(settings), tmp_path / "settings.yaml")
    beside = load_settings(tmp_path / "settings.yaml")
    assert beside.split.kind == "all"
    folds = [fold_settings(own, protocol, all_synthetic_actors) for own in (settings, beside)]
    assert folds[0] == folds[1]


def test_more_corpora_train_but_only_the_protocols_speakers_are_tested(synthetic_corpora):
    settings = load_settings(CONFIG, ["--data.corpora", "[{name: tess}, {name: ravdess}]"])
    folds = fold_settings(settings, "tess-speakers", synthetic_corpora)
    first, second = (load_data(fold, synthetic_corpora, 16_000) for fold in folds)
    assert [set(fold.rows("test")["speaker"]) for fold in (first, second)] == [{"tess-YAF"}, {"tess-OAF"}]
    assert {"tess-OAF", "ravdess-01"} < {*first.rows("train")["speaker"], *first.rows("validation")["speaker"]}


@pytest.mark.parametrize(
    ("protocol", "overrides", "sentence"),
    [
        ("ravdes-speakers", [], "did you mean 'ravdess-speakers'.*random-5"),
        ("random-1", [], "at least random-2"),
        ("speakers-1", [], "at least speakers-2"),
        ("speakers-9", [], "9 folds of unseen speakers were asked for, but the data have 8 speakers"),
        ("speakers-2", ["--split.kind=speakers", "--split.validation=[ravdess-03]"], "give a share"),
        ("random-5", ["--split.kind=speakers", "--split.test=[ravdess-01]"], "give shares"),
        ("ravdess-speakers", [], "of whom 16 are not in the data, ravdess-09 for one; add ravdess to data.corpora"),
        ("tess-speakers", [], "of whom 2 are not in the data, tess-OAF for one; add tess to data.corpora"),
        ("ravdess-speakers", ["--split.validation=[ravdess-03]"], "split.validation cannot name them; give a share"),
        ("ravdess-speakers", ["--training.push_to_hub=me/mine"], "push the one you choose"),
    ],
)
def test_what_cannot_be_cross_validated_is_refused_in_a_sentence(
    protocol, overrides, sentence, synthetic_corpora, tmp_path
):
    with pytest.raises(SystemExit, match=sentence):
        cross_validate(synthetic_corpora, tmp_path / "out", f"--cv={protocol}", *overrides)
    assert not (tmp_path / "out").exists()


def test_songs_of_the_tested_actors_are_refused(all_synthetic_actors, tmp_path):
    data_dir = Path(shutil.copytree(all_synthetic_actors, tmp_path / "data"))
    spoken = data_dir / "RAVDESS" / "Actor_01" / "03-01-02-01-01-01-01.wav"
    shutil.copy(spoken, spoken.with_name("03-02-02-01-01-01-01.wav"))
    corpora = "--data.corpora=[{name: ravdess, channels: [speech, song]}]"
    with pytest.raises(SystemExit, match="bring 1 clips of its speakers' song too"):
        cross_validate(data_dir, tmp_path / "out", "--cv=ravdess-speakers", corpora)
