"""The cards of checkpoints/, with the figures of the scoreboard: python -m results.cards

A checkpoint learnt from every clip, so others of its recipe were tested in its place: their predictions lie here.
"""

import json
from pathlib import Path

from ser_model.crossvalidation import cross_calibrated
from ser_model.labels import label_scheme
from ser_model.predictions import Predictions
from ser_model.reports import write_card, write_json
from ser_model.run_files import METRICS, SETTINGS
from ser_model.settings import load_settings

from .collect import ROOT
from .protocols import RESULTS, find_protocol, predictions_file

MODEL = "cnn"
# checkpoint -> protocol and model that judged its recipe, on voices never heard; a protocol on voices that were known
PROTOCOLS = {
    "ser-cnn-8": ("ravdess-tess-speakers", MODEL, "ravdess-random"),
    "ser-cnn-14": ("ravdess-14-speakers", "cnn-robust", "ravdess-14"),
}


def main() -> None:
    for name, judged in PROTOCOLS.items():
        refresh(ROOT / "checkpoints" / name, *judged)


def refresh(folder: Path, unseen: str, model: str, known: str, results_dir: Path = RESULTS) -> None:
    """Write metrics.json and card of a model folder anew."""
    settings, metrics = load_settings(folder / SETTINGS), json.loads((folder / METRICS).read_text(encoding="utf-8"))
    metrics["test"] = cross_calibrated(answers_of(metrics, predictions_file(results_dir, unseen, model))).figures()
    distorted = predictions_file(results_dir, unseen, model, "conditions")
    if distorted.is_file():
        heard = answers_of(metrics, distorted).parted("condition")
        metrics["conditions"] = {condition: own.figures()["uar"] for condition, own in heard.items()}
    write_json(metrics, folder / METRICS)
    write_card(
        folder,
        settings,
        label_scheme(settings.labels),
        [metrics, on_known_voices(known, results_dir)],
        name=folder.name,
    )
    for picture in folder.glob("*.svg"):  # the card shows those in PNG, and the repository keeps no more
        picture.unlink()


def answers_of(metrics: dict, path: Path) -> Predictions:
    """Those of a file that judged a checkpoint: of the seeds of its folds, averaged where it joins several networks."""
    answers = Predictions.read(path).parted("seed")
    folds = metrics["cross_validation"]["folds"]
    if "members" in metrics:
        return Predictions.averaged([answers[str(seed)] for seed in folds[0]["seeds"]])
    seeds = {str(fold["seed"]) for fold in folds}
    return Predictions.joined([own for seed, own in answers.items() if seed in seeds])


def on_known_voices(name: str, results_dir: Path) -> dict:
    """What a card says of the same network on a random protocol."""
    protocol = find_protocol(name, results_dir)
    answers = Predictions.read(predictions_file(results_dir, name, MODEL))
    return {
        "settings": Path(protocol.models[MODEL]).stem,
        "split": "random",
        "speaker_disjoint": False,
        "split_hash": answers.clips[0]["split_hash"],
        "test": cross_calibrated(answers).figures(),
    }


if __name__ == "__main__":
    main()
