import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.special import softmax

from ser_model.metrics import (
    TEMPERATURES,
    EmotionMetrics,
    coverage_at_precision,
    emotion_metrics,
    expected_calibration_error,
    fit_temperature,
    metrics_by_group,
    overconfidence,
    reliability,
    speaker_intervals,
)

ROOT = Path(__file__).resolve().parent.parent
NAMES = ["calm", "happy", "sad"]
# Three calm clips, two of them right; one happy clip, wrong; no sad one.
PROBABILITIES = np.array([[0.8, 0.1, 0.1], [0.6, 0.3, 0.1], [0.2, 0.7, 0.1], [0.1, 0.3, 0.6]])
REFERENCES = np.array([0, 0, 0, 1])


def test_figures_equal_those_counted_by_hand():
    figures = emotion_metrics(PROBABILITIES, REFERENCES, NAMES)
    assert figures["count"] == 4
    assert figures["accuracy"] == 0.5
    assert figures["uar"] == pytest.approx((2 / 3 + 0) / 2, abs=1e-5)  # sad does not occur and is not averaged
    assert figures["recall"] == {"calm": pytest.approx(2 / 3, abs=1e-5), "happy": 0.0}
    assert figures["confusion_matrix"] == [[2, 1, 0], [0, 0, 1], [0, 0, 0]]
    assert figures["precision"] == {"calm": 1.0, "happy": 0.0}
    assert figures["f1"] == {"calm": pytest.approx(2 * 2 / (2 + 3), abs=1e-5), "happy": 0.0}
    assert figures["f1_macro"] == pytest.approx((2 * 2 / (2 + 3) + 0) / 2, abs=1e-5)
    assert figures["f1_weighted"] == pytest.approx(3 / 4 * 2 * 2 / (2 + 3), abs=1e-5)
    assert figures["precision_weighted"] == pytest.approx(3 / 4)
    assert figures["log_loss"] == pytest.approx(-np.log([0.8, 0.6, 0.2, 0.3]).mean(), abs=1e-5)


def test_calibration_error_is_the_gap_between_confidence_and_accuracy():
    # Ten answers at 0.7, of which five are right: the gap is 0.2.
    probabilities = np.tile([0.7, 0.2, 0.1], (10, 1))
    assert expected_calibration_error(probabilities, np.array([0] * 5 + [1] * 5)) == pytest.approx(0.2)
    assert expected_calibration_error(probabilities, np.array([0] * 7 + [1] * 3)) == pytest.approx(0.0, abs=1e-9)


def test_reliability_counts_the_answers_of_each_bin():
    # Two bins: 0.2 to 0.5 holds nothing; of the four answers (0.8, 0.6, 0.7, 0.6) the first two are right.
    assert reliability(PROBABILITIES, REFERENCES, bins=2) == [
        {"count": 4, "confidence": pytest.approx(0.675), "accuracy": 0.5}
    ]
    # Five bins of 0.2: 0.6 and 0.7 fall into the fourth, 0.8 into the fifth.
    fourth, fifth = reliability(PROBABILITIES + 1e-9, REFERENCES, bins=5)
    assert fourth == {"count": 3, "confidence": pytest.approx(1.9 / 3), "accuracy": pytest.approx(1 / 3)}
    assert fifth == {"count": 1, "confidence": pytest.approx(0.8), "accuracy": 1.0}
    figures = emotion_metrics(PROBABILITIES, REFERENCES, NAMES)
    assert sum(b["count"] for b in figures["reliability"]) == 4
    by_hand = sum(b["count"] * abs(b["confidence"] - b["accuracy"]) for b in figures["reliability"]) / 4
    assert figures["ece"] == pytest.approx(by_hand, abs=1e-4)


def test_a_few_clips_without_a_mistake_do_not_make_it_certain_of_everything():
    logits = np.array([[2.0, 0.0], [0.0, 2.0]] * 9)
    temperature = fit_temperature(logits, np.array([0, 1] * 9))
    assert softmax(logits / temperature, axis=1).max() == pytest.approx(19 / 20, abs=1e-3)  # the rule of succession


def test_temperature_stays_within_its_bounds():
    labels = np.arange(30) % 3
    sure = np.eye(3)[labels]
    assert fit_temperature(10 * sure, (labels + 1) % 3) == pytest.approx(TEMPERATURES[1], rel=1e-3)
    assert fit_temperature(sure / 1000, labels) == pytest.approx(TEMPERATURES[0], rel=1e-3)


def test_temperature_undoes_overconfidence():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(4000, 3)) * 2
    references = np.array([rng.choice(3, p=row) for row in softmax(logits, axis=1)])  # calibrated at temperature 1
    assert fit_temperature(logits * 3, references) == pytest.approx(3, rel=0.05)


def test_metric_of_evaluate_takes_batches_and_agrees():
    metric = EmotionMetrics(NAMES)
    metric.add_batch(predictions=PROBABILITIES[:3], references=REFERENCES[:3])
    metric.add_batch(predictions=PROBABILITIES[3:], references=REFERENCES[3:])
    assert metric.compute() == emotion_metrics(PROBABILITIES, REFERENCES, NAMES)


TWO_RANKS = """
import json, os, sys
import numpy as np
import torch.distributed as dist
from ser_model.metrics import EmotionMetrics

dist.init_process_group("gloo")  # only to leave together: the metric meets in files
rank, ranks = dist.get_rank(), dist.get_world_size()
names, probabilities, references = json.load(open(sys.argv[1]))
options = {"num_process": ranks, "process_id": rank, "experiment_id": "two", "cache_dir": sys.argv[2]}
metric = EmotionMetrics(names, **options)
metric.add_batch(predictions=probabilities[rank::ranks], references=references[rank::ranks])
figures = metric.compute()
if rank == 0:
    json.dump(figures, open(sys.argv[3], "w"))
else:
    assert figures is None
dist.barrier()
dist.destroy_process_group()
"""


def test_metric_of_evaluate_works_over_two_processes_without_the_hub(tmp_path):
    rng = np.random.default_rng(0)
    probabilities, references = rng.dirichlet([1, 1, 1], 31), rng.integers(0, 3, 31)  # uneven: 16 and 15
    given, got, script = (tmp_path / name for name in ("given.json", "got.json", "two.py"))
    given.write_text(json.dumps([NAMES, probabilities.tolist(), references.tolist()]))
    script.write_text(TWO_RANKS)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", str(script)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [*command, str(given), str(tmp_path / "cache"), str(got)],
        capture_output=True,
        text=True,
        env=environment,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    order = [*range(0, 31, 2), *range(1, 31, 2)]
    assert json.loads(got.read_text()) == emotion_metrics(probabilities[order], references[order], NAMES)


def answers(right: list[int], wrong: list[int]) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Clips of two labels, in turn, of one speaker for each pair of numbers."""
    probabilities, references, speakers = [], [], []
    for speaker, counts in enumerate(zip(right, wrong, strict=True)):
        for is_wrong, count in enumerate(counts):
            for clip in range(count):
                reference = clip % 2
                probabilities.append(np.eye(2)[reference ^ is_wrong])
                references.append(reference)
                speakers.append(f"s{speaker}")
    return np.array(probabilities), np.array(references), speakers


def test_interval_of_two_speakers_spans_the_three_ways_to_draw_them():
    # Drawn with replacement: twice the first (accuracy 1), twice the second (0), or both (0.5), 1 to 1 to 2.
    interval = speaker_intervals(*answers(right=[20, 0], wrong=[0, 20]))
    assert interval["accuracy"] == interval["uar"] == [0.0, 1.0]
    assert (interval["speakers"], interval["resampled"]) == (2, "speakers")


def test_interval_has_no_width_where_all_speakers_are_alike_and_widens_as_they_differ():
    alike = speaker_intervals(*answers(right=[6] * 10, wrong=[4] * 10))
    differing = speaker_intervals(*answers(right=[10] * 6 + [0] * 4, wrong=[0] * 6 + [10] * 4))
    for key in ("uar", "accuracy", "f1_macro", "f1_weighted"):
        assert alike[key][0] == alike[key][1]
        low, high = differing[key]
        assert low < 0.4 and high > 0.75


def test_interval_draws_as_many_speakers_of_each_corpus_as_there_are():
    """All of one corpus are right, all of the other wrong: whoever is drawn, half of the answers are."""
    probabilities, references, speakers = answers(right=[10, 10, 0, 0], wrong=[0, 0, 10, 10])
    corpora = ["one"] * 20 + ["other"] * 20
    assert speaker_intervals(probabilities, references, speakers, corpora)["accuracy"] == [0.5, 0.5]
    low, high = speaker_intervals(probabilities, references, speakers)["accuracy"]
    assert low < 0.1 and high > 0.9


def test_interval_of_a_mean_over_folds_is_not_that_of_all_clips_together():
    """Ten speakers of 30 clips, all right, in one fold; ten of 10, all wrong, in the other: the mean is a half."""
    probabilities, references, speakers = answers(right=[30] * 10 + [0] * 10, wrong=[0] * 10 + [10] * 10)
    folds = ["1"] * 300 + ["2"] * 100
    assert speaker_intervals(probabilities, references, speakers, parts=folds)["accuracy"] == [0.5, 0.5]
    low, high = speaker_intervals(probabilities, references, speakers)["accuracy"]
    assert low < 0.65 and high > 0.8
    # A fold of which nobody is drawn says nothing.
    probabilities, references, speakers = answers(right=[10, 0], wrong=[0, 10])
    parts = ["1"] * 10 + ["2"] * 10
    assert speaker_intervals(probabilities, references, speakers, parts=parts)["accuracy"] == [0.0, 1.0]


def test_interval_of_one_speaker_is_about_its_clips_and_says_so():
    interval = speaker_intervals(*answers(right=[70], wrong=[30]))
    assert (interval["speakers"], interval["resampled"]) == (1, "clips")
    low, high = interval["accuracy"]  # the binomial standard error is 0.046
    assert low == pytest.approx(0.7 - 1.96 * 0.046, abs=0.02) and high == pytest.approx(0.7 + 1.96 * 0.046, abs=0.02)


def test_where_a_speaker_is_unknown_clips_are_drawn_and_no_speakers_counted():
    probabilities, references, speakers = answers(right=[20, 0], wrong=[0, 20])
    for unknown in (None, ""):
        interval = speaker_intervals(probabilities, references, [*speakers[:-1], unknown], ["mine"] * 40)
        assert (interval["clips"], interval["resampled"]) == (40, "clips")
        assert not interval.keys() & {"speakers", "speakers_of"}
        low, high = interval["accuracy"]
        assert 0.3 < low < 0.4 and 0.6 < high < 0.7


def test_interval_is_that_of_figures_worked_out_for_every_draw_by_scikit_learn(monkeypatch):
    rng = np.random.default_rng(1)
    probabilities, references = rng.dirichlet([1, 1, 1], 60), rng.integers(0, 3, 60)
    speakers = np.array([f"s{index % 5}" for index in range(60)])
    monkeypatch.setattr("ser_model.metrics.RESAMPLES", 40)
    interval = speaker_intervals(probabilities, references, speakers, seed=7)
    draws, figures = np.random.default_rng(7), []
    for _ in range(40):
        times = draws.multinomial(5, [0.2] * 5)
        clips = np.concatenate([np.flatnonzero(speakers == f"s{s}") for s in range(5) for _ in range(times[s])])
        figures.append(emotion_metrics(probabilities[clips], references[clips], NAMES))
    for key in ("uar", "accuracy", "f1_macro", "f1_weighted"):
        assert interval[key] == pytest.approx(np.percentile([own[key] for own in figures], [2.5, 97.5]), abs=2e-5)


def test_figures_of_each_group_and_none_of_those_without_one():
    figures = metrics_by_group(["a", None, "b", "a"], PROBABILITIES, REFERENCES, NAMES)
    assert {group: own["count"] for group, own in figures.items()} == {"a": 2, "b": 1}
    assert figures["a"]["accuracy"] == 0.5 and figures["b"]["accuracy"] == 0.0


@pytest.mark.parametrize(
    ("right", "coverage"),
    [
        ([1, 1, 1, 1], 1.0),
        ([1, 0, 1, 1], 1.0),  # 3 of 4, although the second surest is wrong
        ([1, 1, 1, 0], 1.0),
        ([1, 0, 1, 0], 0.75),  # with two thirds wanted: 2 of 4 are too few, 2 of 3 are enough
        ([0, 0, 0, 1], 0.0),
    ],
)
def test_coverage_is_the_largest_share_with_enough_right(right, coverage):
    confidence = np.array([0.9, 0.8, 0.7, 0.6])
    probabilities = np.stack([confidence, 1 - confidence], axis=1)
    references = np.where(right, 0, 1)
    wanted = 0.66 if coverage == 0.75 else 0.75
    assert coverage_at_precision(probabilities, references, wanted) == coverage


def test_clips_of_one_confidence_are_answered_together():
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4]])
    for references in ([0, 1, 0], [1, 0, 0]):  # the order of rows decides nothing
        assert coverage_at_precision(probabilities, np.array(references), 0.9) == 0.0
        assert coverage_at_precision(probabilities, np.array(references), 0.6) == 1.0


def test_overconfidence_has_a_sign():
    shares = np.array([[0.9, 0.1], [0.6, 0.4]])
    assert overconfidence(shares, np.array([0, 1])) == pytest.approx(0.25)
    assert overconfidence(shares, np.array([0, 0])) == pytest.approx(-0.25)
