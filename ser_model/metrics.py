"""How good, how sure, and whether rightly so: metrics over class probabilities."""

from collections.abc import Sequence

import datasets
import evaluate
import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, log_loss, precision_score, recall_score

CALIBRATION_BINS = 15  # as in Guo et al. 2017, arXiv 1706.04599


def expected_calibration_error(
    probabilities: np.ndarray, references: np.ndarray, bins: int = CALIBRATION_BINS
) -> float:
    """Mean gap between confidence and accuracy over equally wide bins of confidence.

    Args:
        probabilities: (N, num_labels).
        references: class indices (N,).
    """
    filled = reliability(probabilities, references, bins)
    return sum(b["count"] * abs(b["confidence"] - b["accuracy"]) for b in filled) / len(references)


def reliability(probabilities: np.ndarray, references: np.ndarray, bins: int = CALIBRATION_BINS) -> list[dict]:
    """Count, mean confidence and accuracy of the answers in each bin of confidence that holds any, lowest first."""
    confidence = probabilities.max(axis=1)
    correct = probabilities.argmax(axis=1) == references
    which = np.minimum((confidence * bins).astype(int), bins - 1)
    members = [which == b for b in np.unique(which)]
    return [
        {"count": int(m.sum()), "confidence": float(confidence[m].mean()), "accuracy": float(correct[m].mean())}
        for m in members
    ]


def softmax(logits: np.ndarray) -> np.ndarray:
    """Logits (N, num_labels) -> probabilities (N, num_labels)."""
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)


def fit_temperature(logits: np.ndarray, references: np.ndarray) -> float:
    """The temperature that makes softmax(logits / temperature) most likely on held-out speakers.

    Each of N references counts as 1 - 1 / (N + 2) certain, or N right answers would call for absolute confidence.

    Sources: Guo et al. 2017, arXiv 1706.04599, section 4.2; the targets are Platt's (1999, section 2.2).
    """
    count, num_labels = logits.shape
    doubt = 1 / (count + 2)
    targets = np.full((count, num_labels), doubt / (num_labels - 1))
    targets[np.arange(count), references] = 1 - doubt

    def loss(log_temperature: float) -> float:
        return -float((targets * log_softmax(logits / np.exp(log_temperature), axis=1)).sum(axis=1).mean())

    return float(np.exp(minimize_scalar(loss, bounds=(np.log(0.05), np.log(20)), method="bounded").x))


def emotion_metrics(probabilities: np.ndarray, references: np.ndarray, names: list[str]) -> dict:
    """All figures of one set of predictions.

    Args:
        probabilities: (N, num_labels).
        references: class indices (N,).
        names: emotion of each class index.

    Returns:
        accuracy; uar, the unweighted average recall (balanced accuracy) over the classes that occur; F1, precision and
        recall, macro and weighted; ece; log_loss; count; recall of each class; confusion_matrix (row: truth);
        reliability, the bins behind ece.
    """
    predictions = probabilities.argmax(axis=1)
    indices = np.arange(len(names))
    occurring = np.unique(references)
    recalls = recall_score(references, predictions, labels=indices, average=None, zero_division=0)
    figures = {
        "accuracy": accuracy_score(references, predictions),
        "uar": recalls[occurring].mean(),
        "ece": expected_calibration_error(probabilities, references),
        "log_loss": log_loss(references, probabilities, labels=indices),
    }
    for average in ("macro", "weighted"):
        for name, score in (("f1", f1_score), ("precision", precision_score), ("recall", recall_score)):
            figures[f"{name}_{average}"] = score(
                references, predictions, labels=occurring, average=average, zero_division=0
            )
    return {
        "count": len(references),
        **{key: round(float(value), 5) for key, value in figures.items()},
        "recall": {names[index]: round(float(recalls[index]), 5) for index in occurring},
        "confusion_matrix": confusion_matrix(references, predictions, labels=indices).tolist(),
        "reliability": [
            {key: round(value, 5) for key, value in b.items()} for b in reliability(probabilities, references)
        ],
    }


def metrics_by_group(
    groups: Sequence[str | None], probabilities: np.ndarray, references: np.ndarray, names: Sequence[str]
) -> dict[str, dict]:
    """Count, UAR, accuracy and recalls of each corpus, or each sex; clips whose group is None belong to none."""
    figures = {}
    for group in sorted({group for group in groups if group is not None}):
        own = np.array([each == group for each in groups])
        result = emotion_metrics(probabilities[own], references[own], names)
        figures[group] = {key: result[key] for key in ("count", "uar", "accuracy", "recall")}
    return figures


class EmotionMetrics(evaluate.Metric):
    """`emotion_metrics` as an `evaluate.Metric`: `add_batch(predictions=probabilities, references=labels)`.

    Made from the package, it works without the Hub and over several processes.
    """

    def __init__(self, names: list[str], **kwargs):
        super().__init__(**kwargs)
        self.names = names

    def _info(self) -> evaluate.MetricInfo:
        features = datasets.Features(
            {"predictions": datasets.Sequence(datasets.Value("float64")), "references": datasets.Value("int64")}
        )
        return evaluate.MetricInfo(
            description="Accuracy, UAR, F1, calibration and confusion of emotion probabilities.",
            citation="",
            inputs_description="predictions: probabilities (N, num_labels); references: class indices (N,)",
            features=features,
        )

    def _compute(self, predictions, references) -> dict:
        return emotion_metrics(np.asarray(predictions), np.asarray(references), self.names)
