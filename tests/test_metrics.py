import numpy as np
import pytest

from ser_model.metrics import (
    EmotionMetrics,
    emotion_metrics,
    expected_calibration_error,
    fit_temperature,
    metrics_by_group,
    reliability,
    softmax,
)

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
    assert figures["f1_macro"] == pytest.approx((2 * 2 / (2 + 3) + 0) / 2, abs=1e-5)
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
    assert softmax(logits / temperature).max() == pytest.approx(19 / 20, abs=1e-3)  # the rule of succession


def test_temperature_undoes_overconfidence():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(4000, 3)) * 2
    references = np.array([rng.choice(3, p=row) for row in softmax(logits)])  # calibrated at temperature 1
    assert fit_temperature(logits * 3, references) == pytest.approx(3, rel=0.05)


def test_metric_of_evaluate_takes_batches_and_agrees():
    metric = EmotionMetrics(NAMES)
    metric.add_batch(predictions=PROBABILITIES[:3], references=REFERENCES[:3])
    metric.add_batch(predictions=PROBABILITIES[3:], references=REFERENCES[3:])
    assert metric.compute() == emotion_metrics(PROBABILITIES, REFERENCES, NAMES)


def test_figures_of_each_group_and_none_of_those_without_one():
    figures = metrics_by_group(["a", None, "b", "a"], PROBABILITIES, REFERENCES, NAMES)
    assert {group: own["count"] for group, own in figures.items()} == {"a": 2, "b": 1}
    assert figures["a"]["accuracy"] == 0.5 and figures["b"]["accuracy"] == 0.0
