"""How good, how sure, and whether rightly so: metrics over class probabilities."""

import math
from collections import Counter
from collections.abc import Sequence

import datasets
import evaluate
import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax
from sklearn.metrics import accuracy_score, confusion_matrix, log_loss, precision_recall_fscore_support

CALIBRATION_BINS = 15  # as in Guo et al. 2017, arXiv 1706.04599
CONFIDENCE_LEVEL = 0.95
BY_CLASS = ("precision", "recall", "f1")  # in scikit-learn's order
PRECISION = 0.9  # that coverage is told at
TEMPERATURES = (0.05, 20.0)  # lowest and highest that are fitted
RESAMPLES = 2000  # for 24 speakers of 60 clips the ends then differ by 0.0015 (standard deviation) from seed to seed
DRAWN_AT_ONCE = 100  # of them


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


def overconfidence(probabilities: np.ndarray, references: np.ndarray) -> float:
    """Mean confidence less accuracy; below zero it is too modest. Unlike the ECE of few clips, no noise adds to it.

    Args:
        probabilities: (N, num_labels).
        references: class indices (N,).
    """
    return float(probabilities.max(axis=1).mean() - (probabilities.argmax(axis=1) == references).mean())


def reliability(probabilities: np.ndarray, references: np.ndarray, bins: int = CALIBRATION_BINS) -> list[dict]:
    """Count, mean confidence and accuracy of the answers in each bin of confidence that holds any, lowest first.

    Args:
        probabilities: (N, num_labels).
        references: class indices (N,).
        bins: of equal width.
    """
    confidence = probabilities.max(axis=1)
    correct = probabilities.argmax(axis=1) == references
    which = np.minimum((confidence * bins).astype(int), bins - 1)
    members = [which == b for b in np.unique(which)]
    return [
        {"count": int(m.sum()), "confidence": float(confidence[m].mean()), "accuracy": float(correct[m].mean())}
        for m in members
    ]


def coverage_at_precision(probabilities: np.ndarray, references: np.ndarray, precision: float = PRECISION) -> float:
    """The largest share of clips that can be answered, the surest first, with at least `precision` of them right.

    The threshold is the best one for these very clips, so this says what the ranking allows, not what a threshold that
    was chosen elsewhere would keep. Clips of one confidence are answered together; 0 where even the surest are wrong.

    Args:
        probabilities: (N, num_labels).
        references: class indices (N,).
    """
    confidence = probabilities.max(axis=1)
    correct = probabilities.argmax(axis=1) == references
    order = np.argsort(-confidence, kind="stable")
    answered = np.arange(1, len(order) + 1)
    last_of_its_confidence = np.append(np.diff(confidence[order]) != 0, True)
    good = last_of_its_confidence & (np.cumsum(correct[order]) >= precision * answered)
    return float(answered[good].max(initial=0) / len(order))


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

    return float(np.exp(minimize_scalar(loss, bounds=np.log(TEMPERATURES), method="bounded").x))


def emotion_metrics(probabilities: np.ndarray, references: np.ndarray, names: Sequence[str]) -> dict:
    """All figures of one set of predictions.

    Args:
        probabilities: (N, num_labels).
        references: class indices (N,).
        names: emotion of each class index.

    Returns:
        accuracy; uar, the unweighted average recall (balanced accuracy) over the classes that occur; F1, precision and
        recall, macro and weighted; ece; log_loss; count; precision, recall and f1 of each class that occurs;
        confusion_matrix (row: truth); reliability, the bins behind ece.
    """
    predictions = probabilities.argmax(axis=1)
    indices = np.arange(len(names))
    occurring = np.unique(references)
    options = {"labels": occurring, "zero_division": 0}
    each = precision_recall_fscore_support(references, predictions, average=None, **options)[:3]
    figures = {
        "accuracy": accuracy_score(references, predictions),
        "uar": each[1].mean(),
        "ece": expected_calibration_error(probabilities, references),
        "log_loss": log_loss(references, probabilities, labels=indices),
    }
    for average in ("macro", "weighted"):
        averages = precision_recall_fscore_support(references, predictions, average=average, **options)
        figures |= {f"{name}_{average}": value for name, value in zip(BY_CLASS, averages[:3], strict=True)}
    return {
        "count": len(references),
        **{key: round(float(value), 5) for key, value in figures.items()},
        **{
            name: {names[index]: round(float(value), 5) for index, value in zip(occurring, values, strict=True)}
            for name, values in zip(BY_CLASS, each, strict=True)
        },
        "confusion_matrix": confusion_matrix(references, predictions, labels=indices).tolist(),
        "reliability": [
            {key: round(value, 5) for key, value in b.items()} for b in reliability(probabilities, references)
        ],
    }


def metrics_by_group(
    groups: Sequence[str | None], probabilities: np.ndarray, references: np.ndarray, names: Sequence[str]
) -> dict[str, dict]:
    """Count, UAR, accuracy, ECE and recalls of each corpus, or each sex; clips whose group is None belong to none."""
    figures = {}
    for group in sorted({group for group in groups if group is not None}):
        own = np.array([each == group for each in groups])
        result = emotion_metrics(probabilities[own], references[own], names)
        figures[group] = {key: result[key] for key in ("count", "uar", "accuracy", "ece", "recall")}
    return figures


# Figures that have an interval, as they are written.
MEASURES = {"uar": "UAR", "accuracy": "accuracy", "f1_macro": "macro F1", "f1_weighted": "weighted F1"}


def speaker_intervals(
    probabilities: np.ndarray,
    references: np.ndarray,
    speakers: Sequence[str | None],
    corpora: Sequence[str] | None = None,
    parts: Sequence[str] | None = None,
    seed: int = 0,
) -> dict:
    """95 % intervals of UAR, accuracy and F1: how far they would move with other speakers of the same kind.

    Speakers are drawn with replacement, each with all its clips, for clips of one voice are right or wrong together
    (percentiles of the cluster bootstrap: Davison & Hinkley 1997, section 3.8). Drawn clips would count every clip as
    a voice of its own, and the interval would be too narrow. With fewer than about 20 speakers this one is too narrow
    as well (Cameron, Gelbach & Miller 2008), so their number stands beside it. From a single speaker nothing can be
    said of others: its clips are drawn then, `resampled` says so, and the interval is about that voice alone; so too
    where any speaker is unknown, for nobody can tell then which clips are of one voice. Of several corpora each keeps
    its number of speakers: two actresses with half of the clips would else come up by chance never or four times, and
    the interval would be about that.

    Args:
        probabilities: (N, num_labels).
        references: class indices (N,).
        speakers: of each clip (N,); None or "" where unknown.
        corpora: of each clip (N,); one corpus if left out.
        parts: of each clip (N,), such as its fold: intervals of the mean over parts; of all clips together if left out.
        seed: of the draws.

    Returns:
        speakers, how many; speakers_of, of each corpus, if corpora are given; in place of both, where any speaker is
        unknown, clips; resampled, "speakers" or "clips"; and [low, high] of uar, accuracy, f1_macro, f1_weighted.
    """
    counted = {"clips": len(references)}
    if all(speakers):
        distinct, first, owners = np.unique(speakers, return_index=True, return_inverse=True)
        counted = {"speakers": len(distinct)}
        if corpora is not None:
            counted["speakers_of"] = dict(sorted(Counter(np.asarray(corpora)[first].tolist()).items()))
    resampled = "speakers" if counted.get("speakers", 1) > 1 else "clips"
    if resampled == "clips":
        first = owners = np.arange(len(references))
    num_labels = probabilities.shape[1]
    numbers = np.zeros(len(references), int) if parts is None else np.unique(parts, return_inverse=True)[1]
    confusions = np.zeros((owners.max() + 1, numbers.max() + 1, num_labels, num_labels))  # of each that can be drawn
    np.add.at(confusions, (owners, numbers, references, probabilities.argmax(axis=1)), 1)
    rng = np.random.default_rng(seed)
    corpus_of = np.zeros(len(first)) if corpora is None else np.asarray(corpora)[first]
    by_corpus = [confusions[corpus_of == corpus] for corpus in np.unique(corpus_of)]
    drawn = np.zeros((RESAMPLES, *confusions.shape[1:]))
    for own in by_corpus:
        even = np.full(len(own), 1 / len(own))
        for some in np.array_split(drawn, math.ceil(RESAMPLES / DRAWN_AT_ONCE)):  # at once, a clip would take 32 kB
            some += np.tensordot(rng.multinomial(len(own), even, len(some)), own, axes=1)
    heard = drawn.any(axis=(2, 3)).sum(axis=1)  # parts of which any speaker is drawn: the others are not averaged
    figures = _figures_of(drawn.reshape(-1, num_labels, num_labels))
    means = {key: values.reshape(RESAMPLES, -1).sum(axis=1) / heard for key, values in figures.items()}
    tail = 50 * (1 - CONFIDENCE_LEVEL)
    ends = {key: np.percentile(values, [tail, 100 - tail]).round(5).tolist() for key, values in means.items()}
    return {**counted, "resampled": resampled, **ends}


def _figures_of(confusions: np.ndarray) -> dict[str, np.ndarray]:
    """Confusion matrices (R, num_labels, num_labels) -> figures (R,), as `emotion_metrics` has them; of no clips, 0."""
    right = np.diagonal(confusions, axis1=1, axis2=2)  # (R, num_labels)
    support, answers = confusions.sum(axis=2), confusions.sum(axis=1)
    occurring = support > 0  # a class that was not drawn is not averaged
    recall = np.divide(right, support, out=np.zeros_like(right), where=occurring)
    f1 = np.divide(2 * right, support + answers, out=np.zeros_like(right), where=occurring)
    classes, clips = occurring.sum(axis=1).clip(min=1), support.sum(axis=1).clip(min=1)
    return {
        "uar": recall.sum(axis=1) / classes,
        "accuracy": right.sum(axis=1) / clips,
        "f1_macro": f1.sum(axis=1) / classes,
        "f1_weighted": (f1 * support).sum(axis=1) / clips,
    }


class EmotionMetrics(evaluate.Metric):
    """`emotion_metrics` as an `evaluate.Metric`: `add_batch(predictions=probabilities, references=labels)`.

    Made from the package, it works without the Hub. For several processes give `num_process`, `process_id` and one
    `experiment_id`; `compute` then answers on process 0. They meet in files, so all must see one `cache_dir`; training
    and `evaluate` gather arrays instead, which needs no common disk, and whose logits the temperature is fitted on.
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
