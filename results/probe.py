"""A linear probe: how far a speech encoder that others pretrained tells emotions apart, none of its weights touched.

python -m results.probe PROTOCOL --data-dir DIR

The encoder is that of `ser_model.teacher`. Mean and spread over time of what its layers make of a clip, the first to
the last, go through a logistic regression, trained on the training part of each run of the protocol and calibrated on
its validation part.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
from scipy.special import softmax

from ser_model.audio import SAMPLING_RATE_HZ
from ser_model.build import build_extractor
from ser_model.crossvalidation import fold_settings
from ser_model.data import DATA_ERRORS, load_data
from ser_model.metrics import fit_temperature
from ser_model.predictions import Predictions, run_columns
from ser_model.settings import Settings, SettingsError, load_settings
from ser_model.teacher import Embed, TeacherError, encoder, linear_probe, packaged_encoder

from .collect import ROOT, written
from .protocols import RESULTS, ResultsError, find_protocol, predictions_file


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m results.probe", description=__doc__.splitlines()[0])
    parser.add_argument("protocol", help="a name of results/protocols.yaml that has a probe")
    parser.add_argument("--data-dir", type=Path, required=True, help="the folder that holds the corpora")
    parser.add_argument("--encoder", type=Path, metavar="FILE", help="an ONNX file in place of the package's")
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="DIR", help="the folder of protocols.yaml")
    args = parser.parse_args(arguments)
    try:
        protocol = find_protocol(args.protocol, args.results)
        if not protocol.probes:
            raise ResultsError(f"{args.protocol} has no probe; give it one in protocols.yaml")
        embed = encoder(args.encoder or packaged_encoder())
        for name, config in protocol.probes.items():
            settings = load_settings(ROOT / config)
            folds = fold_settings(settings, protocol.cv, args.data_dir) if protocol.cv else [settings]
            answers = Predictions.pooled([probe(fold, args.data_dir, embed) for fold in folds])
            print(written(answers, predictions_file(args.results, args.protocol, name)))
    except (ResultsError, SettingsError, TeacherError, *DATA_ERRORS) as error:
        sys.exit(f"probe: {error}")


def probe(settings: Settings, data_dir: Path, embed: Embed) -> Predictions:
    """What the test clips of one run are answered; ResultsError if training lacks a label, and see `load_data`."""
    frame_ms = build_extractor(settings).frame_ms  # so that it hears the clips that the networks hear
    data = load_data(settings, data_dir, SAMPLING_RATE_HZ, frame_ms=frame_ms)
    rows = {part: data.rows(part) for part in ("train", "validation", "test")}
    x = {part: np.stack([embed(path) for path in own["path"]]) for part, own in rows.items()}
    y = {part: np.array(own["label"]) for part, own in rows.items()}
    if missing := set(range(len(data.scheme.names))) - set(y["train"].tolist()):
        raise ResultsError(f"no training clip is {data.scheme.names[min(missing)]}; a probe learns labels that occur")
    classifier = linear_probe().fit(x["train"], y["train"])
    logits = {part: classifier.predict_log_proba(x[part]) for part in ("validation", "test")}
    temperature = round(fit_temperature(logits["validation"], y["validation"]), 4)
    shares = softmax(logits["test"] / temperature, axis=1)
    run = run_columns(settings, data.manifest()["hash"], temperature)
    return Predictions.of(rows["test"], data.scheme.names, y["test"], shares, data.folders, run)


if __name__ == "__main__":
    main()
