"""The scoreboard: figures by hand, files that it refuses, and one protocol from recordings to tables."""

import contextlib
import csv
import gzip
import json
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import soundfile
import yaml
from conftest import write_ravdess
from test_readme import command

from results import collect, probe, reproduce, scoreboard
from results.protocols import ResultsError, find_protocol, load_ablations, load_protocols, load_runs, predictions_file
from ser_model.build import build_extractor
from ser_model.conditions import CONDITIONS
from ser_model.crossvalidation import COUNTED, cross_calibrated
from ser_model.data import load_data
from ser_model.predictions import Predictions, PredictionsError
from ser_model.settings import Settings, SplitSettings, load_settings, save_settings
from ser_model.splits import FOLDS

ROOT = Path(__file__).resolve().parent.parent
NAMES = ("happy", "sad")
PROTOCOL = {
    "title": "two voices",
    "cv": None,
    "seeds": [0, 1],
    "measures": ["uar", "accuracy"],
    "models": {"net": "configs/ravdess_to_tess.yaml"},
    "ensembles": {"both seeds": ["net"]},
    "joined": {"net": [2, 3]},
    "conditions": True,
    "others": [{"model": "theirs", "figures": {"uar": 0.4}, "source": "a paper"}],
}
TINY = {
    "data": {"corpora": [{"name": "tess"}], "num_proc": 1},
    "labels": {"base": 8, "drop": ["calm"]},
    "split": {"kind": "published", "name": "tess-speakers", "fold": 1, "validation": 0.3},
    "model": {"backbone_options": {"widths": [8, 8, 8, 8], "hidden_size": 16}},
    "training": {"epochs": 1, "batch_size": 8, "trackers": []},
}


def answers(happy: list[float], seed: int, condition: str = "clean") -> Predictions:
    """Of four clips, the first two happy, the others sad; a happy and a sad one of each of two voices."""
    clips = [
        {
            "path": f"{index}.wav",
            "corpus": "ravdess",
            "speaker": f"ravdess-0{1 + index % 2}",
            "sex": None,
            "intensity": None,
        }
        | {"condition": condition, "seed": seed, "fold": 1, "split_hash": "f00", "temperature": 1.0}
        for index in range(4)
    ]
    shares = np.array(happy)
    return Predictions(NAMES, clips, np.array([0, 0, 1, 1]), np.stack([shares, 1 - shares], axis=1))


CLEAN = [answers([0.9, 0.8, 0.3, 0.6], 0), answers([0.9, 0.4, 0.1, 0.2], 1)]  # each has 3 of 4 right


@pytest.fixture
def results_dir(tmp_path) -> Path:
    """A protocol `p` of a network `net`, with the predictions CLEAN."""
    folder = tmp_path / "results"
    (folder / "predictions").mkdir(parents=True)
    (folder / "protocols.yaml").write_text(yaml.safe_dump({"p": PROTOCOL}))
    (folder / "ablations.yaml").write_text("[]")
    (folder / "runs.yaml").write_text("[]")
    Predictions.joined(CLEAN).write(predictions_file(folder, "p", "net"), decimals=4)
    return folder


def made(results_dir: Path) -> str:
    docs = results_dir.parent / "docs"
    scoreboard.main(["--results", str(results_dir), "--docs", str(docs)])
    return (docs / "results.md").read_text()


# ── The repository's own ──


def recipe_of(words: list[str]) -> str:
    """What make would run, also where make runs the tests."""
    quietly = [*words, "--dry-run", "--no-print-directory", "-o", ".venv/.installed"]
    recipe = subprocess.run(quietly, cwd=ROOT, capture_output=True, text=True)
    return recipe.stdout.splitlines()[-1]


def test_the_results_in_the_repository_are_what_make_results_makes(tmp_path):
    words = shlex.split(command("make results"))
    line = recipe_of(words)
    assert shlex.split(line)[1:] == ["-m", "results.scoreboard"]
    scoreboard.main(["--docs", str(tmp_path)])
    again = "run: make results"
    assert (tmp_path / "results.md").read_text() == (ROOT / "docs" / "results.md").read_text(), again
    pictures = {path.name for path in (tmp_path / "results").iterdir()}
    kept = ROOT / "docs" / "results"
    assert pictures == ({path.name for path in kept.iterdir()} if kept.is_dir() else set()), again


def test_every_protocol_can_be_trained_from_its_table():
    for name, protocol in load_protocols().items():
        assert protocol.cv is None or protocol.cv in FOLDS or COUNTED.fullmatch(protocol.cv), name
        if protocol.unseen:
            assert len(protocol.seeds) >= 3
        elif protocol.cv:
            assert protocol.folds >= 5
        for models in protocol.ensembles.values():
            assert set(models) <= set(protocol.answering)
        for config in [*protocol.models.values(), *protocol.probes.values()]:
            settings = load_settings(ROOT / config)
            if protocol.cv is None:
                assert settings.split.kind == ("random" if protocol.voices_known else "corpora")
            if not protocol.unseen:
                assert isinstance(settings.split.test, float) and isinstance(settings.split.validation, float)
    load_ablations(), load_runs()


# ── Figures by hand ──


def test_figures_are_means_over_seeds(results_dir):
    read = scoreboard.load_predictions(results_dir, "p", load_protocols(results_dir)["p"], "net")
    assert scoreboard.over_seeds(read)["uar"] == [0.75, 0.75]
    # Seed 0: sure 0.9 right, 0.8 right, 0.7 right, 0.6 wrong; seed 1: 0.9, 0.9, 0.8 right, 0.6 wrong.
    assert scoreboard.calibration(read)["coverage"] == [0.75, 0.75]
    assert scoreboard.calibration(read)["ece"] == pytest.approx(
        [(0.1 + 0.2 + 0.3 + 0.6) / 4, (0.1 + 0.1 + 0.2 + 0.6) / 4]
    )


def test_the_mean_over_folds_is_that_of_a_seed_and_the_spread_is_over_seeds():
    halves = [answers([0.9, 0.8, 0.3, 0.6], 0), answers([0.4, 0.4, 0.6, 0.2], 0)]  # 3 and 1 of 4 right
    seeds = [Predictions.pooled(halves), answers([0.9, 0.9, 0.1, 0.1], 1)]
    figures = scoreboard.over_seeds(Predictions.joined(seeds))["accuracy"]
    assert figures == [0.5, 1.0]
    assert scoreboard.spread(figures) == "0.750 ± 0.354"
    assert scoreboard.spread([0.5]) == "0.500"


def test_an_ensemble_averages_the_seeds_clip_by_clip():
    shuffled = replace(CLEAN[1], clips=CLEAN[1].clips[::-1], labels=CLEAN[1].labels[::-1])
    shuffled = replace(shuffled, probabilities=shuffled.probabilities[::-1])
    averaged = scoreboard.ensemble([Predictions.joined([CLEAN[0], shuffled])])
    assert averaged.probabilities[:, 0] == pytest.approx([0.9, 0.6, 0.2, 0.4])
    assert scoreboard.over_seeds(averaged)["uar"] == [1.0]
    with pytest.raises(PredictionsError, match="the same clips"):
        scoreboard.ensemble([Predictions.joined([CLEAN[0], CLEAN[1].parted("path")["0.wav"]])])


def test_members_of_an_ensemble_weigh_alike_however_many_seeds_they_have():
    other = answers([0.1, 0.1, 0.1, 0.1], 0)
    averaged = scoreboard.ensemble([Predictions.joined(CLEAN), other])
    np.testing.assert_allclose(averaged.shares()[:, 0], [(0.9 + 0.1) / 2, (0.6 + 0.1) / 2, 0.15, (0.4 + 0.1) / 2])


def two_splits(shares: tuple[float, float], seeds: tuple[int, int] = (0, 1)) -> Predictions:
    """A network of each of two random splits, one of four clips and one of two, sure of each answer as `shares` say."""
    runs = [answers([share] * 4, seed) for share, seed in zip(shares, seeds, strict=True)]
    return Predictions.joined([with_fold(runs[0], 1), with_fold(runs[1].at([0, 1]), 2)])


def with_fold(predictions: Predictions, fold: int) -> Predictions:
    return replace(predictions, clips=[clip | {"fold": fold} for clip in predictions.clips])


def test_on_random_splits_an_ensemble_averages_each_split_on_its_own():
    ours, theirs = two_splits((0.9, 0.1)), two_splits((0.7, 0.3))
    averaged = scoreboard.ensemble_by_split([ours, theirs])
    assert averaged.shares()[:, 0] == pytest.approx([0.8] * 4 + [0.2] * 2)
    assert [clip["seed"] for clip in averaged.clips] == [clip["seed"] for clip in ours.clips]
    again = two_splits((0.5, 0.5), (2, 3))
    averaged = scoreboard.ensemble_by_split([Predictions.joined([ours, again]), theirs])
    assert averaged.shares()[:, 0] == pytest.approx([0.7] * 4 + [0.3] * 2)
    with pytest.raises(ResultsError, match="every split"):
        scoreboard.ensemble_by_split([ours, theirs.parted("fold")["1"]])


def test_the_networks_of_a_random_split_are_tabled_apart_and_as_one(results_dir):
    protocol = PROTOCOL | {"cv": "random-2", "seeds": [0], "networks": {"net": 3}, "joined": {"net": [2, 3, 4]}}
    (results_dir / "protocols.yaml").write_text(yaml.safe_dump({"p": protocol | {"conditions": False}}))
    # The third network's first seed, 10, comes after 2, as a number: so two as one are sure of sad in split 2.
    networks = [two_splits((0.9, 0.2), (0, 1)), two_splits((0.8, 0.3), (2, 3)), two_splits((0.1, 0.99), (10, 11))]
    path = predictions_file(results_dir, "p", "net")
    Predictions.joined(networks).write(path)
    page = made(results_dir)
    assert "| **net** | 0.417 ± 0.376 | 0.417 ± 0.376 |" in page and "ours, 3 networks of each of 2 splits |" in page
    assert "logits averaged, 2 networks of each of 2 splits" in page
    assert re.search(r"\*\*net, 2 networks a split as one model\*\* \| 0.250 ± 0.354 \| 0.250 ± 0.354", page)
    assert re.search(r"\*\*net, 3 networks a split as one model\*\* \| 0.750 ± 0.354 \| 0.750 ± 0.354", page)
    assert "4 networks" not in page
    Predictions.joined([networks[0], networks[1].parted("fold")["1"].at([0, 1])]).write(path)
    with pytest.raises(SystemExit, match="its seeds do not answer the same clips"):
        made(results_dir)


def test_the_calibration_across_folds_does_not_depend_on_the_order_of_the_clips():
    both = Predictions.joined([two_splits((0.9, 0.6), (0, 0)), with_fold(answers([0.7, 0.2, 0.4, 0.6], 0), 3)])
    mixed = both.at([8, 3, 5, 0, 6, 1, 9, 4, 2, 7])
    wanted, got = cross_calibrated(both), cross_calibrated(mixed)
    assert [clip["fold"] for clip in got.clips] == [clip["fold"] for clip in mixed.clips]
    np.testing.assert_allclose(got.shares(), wanted.shares()[[8, 3, 5, 0, 6, 1, 9, 4, 2, 7]], atol=1e-5)
    assert scoreboard.calibration(mixed)["ece_across"] == pytest.approx(scoreboard.calibration(both)["ece_across"])


def test_other_networks_of_random_splits_are_trained_on_the_first_ones_splits(tmp_path, monkeypatch):
    commands = []
    monkeypatch.setattr("subprocess.run", lambda command, **_: commands.append(command) or Mock(returncode=0))
    monkeypatch.setattr(reproduce, "collect", commands.append)
    reproduce.main(["ravdess-14", "--only=cnn-long", f"--data-dir={tmp_path}", f"--output-dir={tmp_path}"])
    first, second, collected = (" ".join(command) for command in commands)
    assert "--cv random-5" in first and "--seed 0 " in first and "--split.seed" not in first
    assert "--cv random-5" in second and "--seed 5 " in second and "--split.seed 0" in second
    assert collected == f"ravdess-14 cnn-long {tmp_path}/ravdess-14/cnn-long/seed-0 " + (
        f"{tmp_path}/ravdess-14/cnn-long/seed-5 --results {ROOT / 'results'}"
    )


def test_a_fold_can_have_its_temperature_from_the_answers_of_the_others():
    share = 0.6**0.25 / (0.6**0.25 + 0.4**0.25)  # what 0.6 becomes when a fold's own temperature is 4, not 1
    folds = [answers([1 - share, 1 - share, share, share], 0), *(answers([0.6, 0.6, 0.4, 0.6], 0) for _ in range(2))]
    folds[0] = replace(folds[0], clips=[clip | {"temperature": 4.0} for clip in folds[0].clips])
    sure = scoreboard.calibration(Predictions.pooled(folds))
    assert sure["ece"] == pytest.approx([(4 * share + 8 * 0.15) / 12])
    assert sure["ece_across"] != sure["ece"] and scoreboard.calibration(folds[0])["ece_across"] == []


def test_folds_that_the_recipe_was_chosen_on_are_left_out_of_a_row_of_its_own():
    answered = answers([0.9, 0.8, 0.3, 0.6], 0)  # in fold 1 three of four are right
    wrong = replace(
        answered, clips=[clip | {"fold": 2} for clip in answered.clips], probabilities=1 - answered.probabilities
    )
    protocol = load_protocols()["tess-speakers"].model_copy(update={"developed_on": [2], "models": {"net": ""}})
    found = {("p", "net"): Predictions.joined([answered, wrong])}
    whole, untouched = scoreboard.scores("p", protocol, found, {})
    assert whole.figures["uar"] == [0.5] and untouched.figures["uar"] == [0.75]
    assert whole.whole and not untouched.whole
    assert untouched.label == "net, folds 1 alone, which most of the trials below did not use"


def test_the_page_has_ours_beside_others_with_interval_and_speakers(results_dir):
    page = made(results_dir)
    assert "| [p](#p) | **voices never heard** | UAR | 0.400 | net | 0.750 ± 0.000 | 0.500 to 1.000 | 2 |" in page
    assert "| theirs | 0.400 |  |  |  | a paper |" in page
    assert "| **ensemble: both seeds** | 1.000 | 1.000 | 1.000 to 1.000 | 2 | ours, probabilities averaged |" in page
    assert "| **net, 2 seeds as one model** | 1.000 | 1.000 | 1.000 to 1.000 | 2 | ours, logits averaged, seeds" in page
    assert "3 seeds as one model" not in page
    assert "| **net** | 0.750 ± 0.000 | 0.750 ± 0.000 | 0.500 to 1.000 | 2 | ours, seeds 0, 1 |" in page
    assert "| ravdess-01 | 4 | 1.000 | 1.000 |" in page and "| ravdess-02 | 4 | 0.500 | 0.500 |" in page
    pictures = set(re.findall(r"\]\((results/\S+)\)", page))
    assert pictures == {"results/p.net.confusion.svg", "results/p.net.reliability.svg"}
    assert all((results_dir.parent / "docs" / picture).is_file() for picture in pictures)


def test_points_lost_are_against_the_same_seed(results_dir):
    heard = [answers([0.4, 0.4, 0.3, 0.2], 1, condition) for condition in CONDITIONS]  # both happy ones lost: 0.5
    file = predictions_file(results_dir, "p", "net", "conditions")
    Predictions.joined(heard).write(file)
    assert "| telephone | 0.500 | 25.0 |" in made(results_dir)
    Predictions.joined(heard[1:]).write(file)
    assert f"| {next(iter(CONDITIONS))} | not run yet |  |" in made(results_dir)  # one thought of later
    Predictions.joined([answers([0.4, 0.4, 0.3, 0.2], 7, condition) for condition in CONDITIONS]).write(file)
    with pytest.raises(SystemExit, match="seed 7 has other clips"):
        made(results_dir)


def test_the_clean_figure_is_of_every_seed_that_heard_a_condition():
    clean = Predictions.joined([CLEAN[0], answers([0.9, 0.8, 0.1, 0.2], 1), answers([0.1, 0.2, 0.8, 0.9], 2)])
    first, *_, last = CONDITIONS
    heard = {first: [answers([0.9] * 4, seed, first) for seed in (0, 1)], last: [answers([0.9] * 4, 0, last)]}
    heard = {condition: Predictions.joined(own) for condition, own in heard.items()}
    row, *_ = scoreboard._losses(Path("x"), heard, clean)
    assert row == ["clean", scoreboard.spread([0.75, 1.0]), ""]


def test_a_page_that_cannot_be_made_leaves_the_old_one_with_its_pictures(results_dir):
    page, pictures = made(results_dir), results_dir.parent / "docs" / "results"
    (pictures / "old.net.confusion.svg").write_text("of a model that is gone")
    before = set(pictures.iterdir())
    runs = (results_dir / "runs.yaml").read_text()
    (results_dir / "runs.yaml").write_text("[{protocol: p, model: x, hardware: CPU, hours: 1, commit: a}]")
    with pytest.raises(SystemExit, match="p, x is none of"):
        made(results_dir)
    assert (results_dir.parent / "docs" / "results.md").read_text() == page and set(pictures.iterdir()) == before
    (results_dir / "runs.yaml").write_text(runs)
    made(results_dir)
    assert before - set(pictures.iterdir()) == {pictures / "old.net.confusion.svg"}


def test_hand_written_tables_reach_the_page(results_dir):
    (results_dir / "ablations.yaml").write_text(
        "[{tried: a, against: b, measured_on: c, before: 0.5, after: 0.25, verdict: dropped}]"
    )
    (results_dir / "runs.yaml").write_text("[{protocol: p, model: net, hardware: CPU, hours: 1.5, commit: abc}]")
    page = made(results_dir)
    assert "| a | b | c | 0.500 | 0.250 | dropped |" in page
    assert "| p | net | `make reproduce PROTOCOL=p MODEL=net` | CPU | 1.50 | abc |" in page


# ── What cannot be trusted ──


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda folder: (folder / "predictions" / "q.csv.gz").write_bytes(b""), "q.csv.gz belongs to no model"),
        (lambda folder: (folder / "predictions" / "p.net.csv.gz").write_bytes(b"no"), "cannot be read"),
        (lambda folder: (folder / "runs.yaml").write_text("[{protocol: p}]"), "runs.yaml: 0.model: field required"),
        (lambda folder: (folder / "ablations.yaml").unlink(), "ablations.yaml cannot be read"),
        (
            lambda folder: (folder / "runs.yaml").write_text(
                "[{protocol: p, model: x, hardware: CPU, hours: 1, commit: a}]"
            ),
            "p, x is none of protocols.yaml",
        ),
        (
            lambda folder: Predictions.joined([*CLEAN, CLEAN[1]]).write(predictions_file(folder, "p", "net")),
            "counts clips twice",
        ),
        (
            lambda folder: Predictions.joined([CLEAN[0], CLEAN[1].at([0, 1, 2])]).write(
                predictions_file(folder, "p", "net")
            ),
            "its seeds do not answer the same clips",
        ),
        (
            lambda folder: answers([0.9] * 4, 0, "telephone").write(predictions_file(folder, "p", "net")),
            "holds clips under telephone",
        ),
        (
            lambda folder: (folder / "protocols.yaml").write_text(
                yaml.safe_dump({"p": PROTOCOL | {"cv": "ravdess-speakers"}})
            ),
            "do not test the speakers of ravdess-speakers",
        ),
        (
            lambda folder: (folder / "protocols.yaml").write_text(
                yaml.safe_dump({"p": PROTOCOL | {"cv": "speakers-5"}})
            ),
            "p.cv: .*'speakers-5' is neither random-5 or the like nor one of ravdess-speakers",
        ),
        (
            lambda folder: (folder / "protocols.yaml").write_text(yaml.safe_dump({"p": PROTOCOL | {"cv": "random-5"}})),
            "counts clips twice|holds 1 splits",
        ),
    ],
)
def test_what_no_figure_can_rest_on_is_refused_in_a_sentence(results_dir, spoil, sentence):
    spoil(results_dir)
    with pytest.raises(SystemExit, match=sentence):
        made(results_dir)


# ── From recordings to tables ──


@pytest.fixture(scope="module")
def reproduced(synthetic_corpora, tmp_path_factory) -> Path:
    """README's `make reproduce` on made sounds: a folder with results, runs and docs."""
    root = tmp_path_factory.mktemp("reproduced")
    (root / "results").mkdir()
    (root / "tiny.yaml").write_text(yaml.safe_dump(TINY))
    own = PROTOCOL | {"cv": "tess-speakers", "models": {"net": str(root / "tiny.yaml")}}
    plain = PROTOCOL | {"models": {"net": str(root / "tiny.yaml")}}
    (root / "results" / "protocols.yaml").write_text(yaml.safe_dump({"ravdess-speakers": own, "plain": plain}))
    (root / "results" / "ablations.yaml").write_text("[]")
    (root / "results" / "runs.yaml").write_text("[]")
    _reproduce(root, synthetic_corpora)
    return root


def _reproduce(root: Path, data_dir: Path) -> None:
    words = shlex.split(command("make reproduce")) + [f"DATA={data_dir}"]
    line = recipe_of(words)
    _, *module, protocol, option, folder, only, model = shlex.split(line)
    assert module == ["-m", "results.reproduce"] and (protocol, option) == ("ravdess-speakers", "--data-dir")
    assert (only, model) == ("--only", "cnn")  # here "net"
    reproduce.main(
        [protocol, option, folder, only, "net", "--results", str(root / "results"), "--output-dir", str(root / "runs")]
    )


def seed_dirs(root: Path) -> list[Path]:
    return sorted((root / "runs" / "ravdess-speakers" / "net").iterdir())


def collected(root: Path, *arguments) -> None:
    collect.main([*map(str, arguments), "--results", str(root / "results")])


def rows_of(path: Path) -> list[dict]:
    with gzip.open(path, "rt", newline="") as file:
        return list(csv.DictReader(file))


def test_a_protocol_is_trained_from_config_to_tables(reproduced):
    rows = rows_of(reproduced / "results" / "predictions" / "ravdess-speakers.net.csv.gz")
    assert len(rows) == 2 * 42  # each seed answers every clip of both actresses
    assert {(row["seed"], row["fold"], row["speaker"]) for row in rows} == {
        (seed, *fold) for seed in "01" for fold in (("1", "tess-YAF"), ("2", "tess-OAF"))
    }
    assert all(re.fullmatch(r"[OY]AF_\w+/[OY]AF_\w+\.wav", row["path"]) for row in rows)
    assert re.fullmatch(r"0\.\d{4}", rows[0]["angry"])
    heard = rows_of(reproduced / "results" / "predictions" / "ravdess-speakers.net.conditions.csv.gz")
    assert {row["condition"] for row in heard} == set(CONDITIONS) and len(heard) == len(CONDITIONS) * len(rows)
    runs = [json.loads((folder / "cv.json").read_text()) for folder in seed_dirs(reproduced)]
    page = made(reproduced / "results")
    means = [run["mean"]["uar"] for run in runs]
    assert f"| **net** | {scoreboard.spread(means)} |" in page
    assert "ours, seeds 0, 1 of 2 folds each" in page and "| small_room | " in page


def test_reproducing_again_trains_what_is_missing_to_the_same_answers(reproduced, synthetic_corpora, tmp_path):
    root = Path(shutil.copytree(reproduced, tmp_path / "root"))
    protocols = yaml.safe_load((root / "results" / "protocols.yaml").read_text())
    protocols["ravdess-speakers"]["seeds"] = [1]
    (root / "results" / "protocols.yaml").write_text(yaml.safe_dump(protocols))
    files = sorted((root / "results" / "predictions").iterdir())
    before = [[row for row in rows_of(file) if row["seed"] == "1"] for file in files]
    for file in files:
        file.unlink()
    folds = [seed_dirs(root)[1] / f"fold-{number}" for number in (1, 2)]
    written = [(fold / "model.safetensors").stat().st_mtime_ns for fold in folds]
    (folds[1] / "metrics.json").unlink()
    _reproduce(root, synthetic_corpora)
    assert [rows_of(file) for file in files] == before
    now = [(fold / "model.safetensors").stat().st_mtime_ns for fold in folds]
    assert now[0] == written[0] and now[1] != written[1]


def test_a_setting_of_training_is_no_abbreviation_of_an_option(tmp_path, monkeypatch):
    commands = []
    monkeypatch.setattr("subprocess.run", lambda command, **_: commands.append(command) or Mock(returncode=1))
    with pytest.raises(SystemExit):
        reproduce.main(["ravdess-14", "--data={strict: true}", f"--data-dir={tmp_path}"])
    assert "--data={strict: true}" in commands[0] and str(tmp_path) in commands[0]


def probed(root: Path, data_dir: Path, *options) -> None:
    words = ["ravdess-speakers", "--data-dir", str(data_dir), "--results", str(root / "results"), *map(str, options)]
    probe.main(words)


def test_a_probe_hears_the_clips_that_networks_hear(tmp_path):
    write_ravdess(tmp_path, actors=4, takes=1, rng=np.random.default_rng(0))
    short = tmp_path / "RAVDESS" / "Actor_01" / "03-01-01-01-01-01-01.wav"
    soundfile.write(short, np.random.default_rng(0).normal(0, 0.1, 320), 16_000)  # less than a frame of the features
    split = {"kind": "speakers", "test": ["ravdess-01"], "validation": ["ravdess-02"]}
    ravdess = {"name": "ears", "data": {"corpora": [{"name": "ravdess"}], "num_proc": 1}, "split": split}
    settings = Settings.model_validate(ravdess)
    answers = probe.probe(settings, tmp_path, lambda path: np.frombuffer(path[-24:].encode(), np.uint8).astype(float))
    data = load_data(settings, tmp_path, 16_000, frame_ms=build_extractor(settings).frame_ms)
    assert len(answers.clips) == 7 and {clip["split_hash"] for clip in answers.clips} == {data.manifest()["hash"]}


def test_a_probe_answers_every_clip_and_joins_the_ensemble(
    reproduced, encoder, synthetic_corpora, tmp_path, monkeypatch
):
    root = Path(shutil.copytree(reproduced, tmp_path / "root"))
    with pytest.raises(SystemExit, match="ravdess-speakers has no probe"):
        probed(root, synthetic_corpora, "--encoder", encoder)
    file = root / "results" / "protocols.yaml"
    protocols = yaml.safe_load(file.read_text())
    protocols["ravdess-speakers"] |= {"probes": {"ear": str(root / "tiny.yaml")}, "ensembles": {"both": ["net", "ear"]}}
    file.write_text(yaml.safe_dump(protocols))
    probed(root, synthetic_corpora, "--encoder", encoder)
    rows = rows_of(predictions_file(root / "results", "ravdess-speakers", "ear"))
    assert {(row["seed"], row["fold"], row["speaker"]) for row in rows} == {
        ("0", "1", "tess-YAF"),
        ("0", "2", "tess-OAF"),
    }
    assert len(rows) == 42
    right = sum(row["prediction"] == row["label"] for row in rows)
    assert right > 42 / 7  # more than chance
    page = made(root / "results")
    assert "| **ear** |" in page and "| **ensemble: both** |" in page
    monkeypatch.setitem(sys.modules, "moonshine_voice", None)  # as where it is not installed
    whole = ["ravdess-speakers", f"--data-dir={synthetic_corpora}", f"--results={root / 'results'}"]
    with pytest.raises(SystemExit, match="pip install --no-deps moonshine-voice==0.0.48"):
        reproduce.main(whole)


def test_folds_of_actors_are_taken_from_a_config_that_splits_at_random(tmp_path):
    config = load_settings(ROOT / "configs" / "ravdess14_cnn.yaml")
    assert config.split.kind == "random" and config.split.test == 0.1
    folds = [tmp_path / f"fold-{number}" for number in range(1, 7)]
    for number, fold in enumerate(folds, start=1):
        fold.mkdir()
        split = SplitSettings(kind="published", name="ravdess-speakers", fold=number, validation=0.1)
        save_settings(config.model_copy(update={"split": split}), fold / "settings.yaml")
        (fold / "metrics.json").write_text('{"speaker_disjoint": true}')
    (tmp_path / "cv.json").write_text('{"protocol": "ravdess-speakers"}')
    assert collect.finished_folds(tmp_path, find_protocol("ravdess-14-speakers", ROOT / "results"), config) == folds


def test_a_run_without_folds_is_collected_too(reproduced, tmp_path):
    root = Path(shutil.copytree(reproduced, tmp_path / "root"))
    folds = [folder / "fold-1" for folder in seed_dirs(root)]
    collected(root, "plain", "net", *folds)
    path = predictions_file(root / "results", "plain", "net")
    first = path.read_bytes()
    assert {(row["seed"], row["fold"]) for row in rows_of(path)} == {("0", "1"), ("1", "1")}
    collected(root, "plain", "net", *folds[::-1])
    assert path.read_bytes() == first


def test_a_seed_is_added_to_those_whose_runs_are_gone(reproduced, tmp_path):
    root = Path(shutil.copytree(reproduced, tmp_path / "root"))
    path = predictions_file(root / "results", "ravdess-speakers", "net")
    first, second = seed_dirs(root)
    both = path.read_bytes()
    collected(root, "ravdess-speakers", "net", first)
    assert {row["seed"] for row in rows_of(path)} == {"0"}
    shutil.rmtree(first)
    collected(root, "ravdess-speakers", "net", second, "--add")
    assert path.read_bytes() == both
    collected(root, "ravdess-speakers", "net", second, "--add")  # again: its own are replaced
    assert path.read_bytes() == both
    path.unlink()
    with pytest.raises(SystemExit, match="net.csv.gz cannot be read"):
        collected(root, "ravdess-speakers", "net", second, "--add")


def test_runs_that_are_none_of_the_protocol_are_refused_in_a_sentence(reproduced, tmp_path):
    root = Path(shutil.copytree(reproduced, tmp_path / "root"))
    first, second = seed_dirs(root)
    with pytest.raises(SystemExit, match="unknown protocol 'ravdes-speakers'; did you mean 'ravdess-speakers'"):
        collected(root, "ravdes-speakers", "net", first)
    with pytest.raises(SystemExit, match="has no model 'nett'; did you mean 'net'"):
        collected(root, "ravdess-speakers", "nett", first)
    with pytest.raises(SystemExit, match="42 clips are answered twice by one seed, .* by seed 0"):
        collected(root, "ravdess-speakers", "net", first, first)
    (second / "fold-2" / "metrics.json").unlink()
    with pytest.raises(SystemExit, match="fold-2 holds no metrics.json; finish it with train.py"):
        collected(root, "ravdess-speakers", "net", first, second)
    with pytest.raises(SystemExit, match="holds no cv.json; finish it with train.py --cv tess-speakers"):
        collected(root, "ravdess-speakers", "net", first / "fold-1")
    changed = yaml.safe_load((first / "fold-1" / "settings.yaml").read_text())
    changed["training"]["epochs"] = 2
    (first / "fold-1" / "settings.yaml").write_text(yaml.safe_dump(changed))
    with pytest.raises(SystemExit, match="cannot stand for the config tiny: .*training.epochs was 2 and is 1 now"):
        collected(root, "ravdess-speakers", "net", first)
    with contextlib.chdir(tmp_path), pytest.raises(SystemExit, match="2"):
        collected(root, "ravdess-speakers", "net", first, "--conditions")
