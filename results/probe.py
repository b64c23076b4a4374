"""A linear probe: how far a speech encoder that others pretrained tells emotions apart, none of its weights touched.

python -m results.probe PROTOCOL --data-dir DIR

The encoder is that of Moonshine tiny (Jeffries et al. 2024, arXiv 2410.15608; MIT licence), a recogniser of English
speech, from the package moonshine-voice. Mean and spread over time of what it makes of a clip go through a logistic
regression, trained on the training part of each run of the protocol and calibrated on its validation part.
"""

import argparse
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from ser_model.audio import SAMPLING_RATE_HZ
from ser_model.build import build_extractor
from ser_model.crossvalidation import fold_settings
from ser_model.data import DATA_ERRORS, load_data
from ser_model.metrics import fit_temperature
from ser_model.predictions import Predictions, run_columns
from ser_model.settings import Settings, SettingsError, load_settings

from .collect import ROOT, written
from .protocols import RESULTS, ResultsError, find_protocol, predictions_file

PACKAGE = "moonshine-voice==0.0.48"  # later ones carry no weights
REGULARISATION = 0.01  # scikit-learn's C; the only one that was tried
MAX_ITERATIONS = 1000

Embed = Callable[[str, np.ndarray], np.ndarray]


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
    except (ResultsError, SettingsError, *DATA_ERRORS) as error:
        sys.exit(f"probe: {error}")


def packaged_encoder() -> Path:
    """The file that the package carries; ResultsError where it is not installed, or carries none."""
    package = importlib.util.find_spec("moonshine_voice")
    for folder in package.submodule_search_locations if package else ():
        if (file := Path(folder) / "assets" / "tiny-en" / "encoder_model.ort").is_file():
            return file
    raise ResultsError(f"the encoder of the probe is not installed: pip install --no-deps {PACKAGE}")


def encoder(file: Path) -> Embed:
    """From path and waveform (T,) to mean and deviation (2 D,) over the frames (1, L, D); a path is heard once."""
    session, known = onnxruntime.InferenceSession(file), {}

    def embed(path: str, waveform: np.ndarray) -> np.ndarray:
        if path in known:
            return known[path]
        inputs = {"input_values": waveform[None], "attention_mask": np.ones((1, len(waveform)), np.int64)}
        frames = session.run(None, inputs)[0][0]
        known[path] = np.concatenate([frames.mean(axis=0), frames.std(axis=0)])
        return known[path]

    return embed


def probe(settings: Settings, data_dir: Path, embed: Embed) -> Predictions:
    """What the test clips of one run are answered; ResultsError if training lacks a label, and see `load_data`."""
    frame_ms = build_extractor(settings).frame_ms  # so that it hears the clips that the networks hear
    data = load_data(settings, data_dir, SAMPLING_RATE_HZ, frame_ms=frame_ms)
    rows = {part: data.rows(part) for part in ("train", "validation", "test")}
    clips = {part: data.part(part).with_format("numpy") for part in rows}
    x = {part: np.stack([embed(str(c["path"]), c["waveform"]) for c in own]) for part, own in clips.items()}
    y = {part: np.array(own["label"]) for part, own in rows.items()}
    if missing := set(range(len(data.scheme.names))) - set(y["train"].tolist()):
        raise ResultsError(f"no training clip is {data.scheme.names[min(missing)]}; a probe learns labels that occur")
    regression = LogisticRegression(C=REGULARISATION, max_iter=MAX_ITERATIONS)
    classifier = make_pipeline(StandardScaler(), regression).fit(x["train"], y["train"])
    logits = {part: classifier.predict_log_proba(x[part]) for part in ("validation", "test")}
    temperature = round(fit_temperature(logits["validation"], y["validation"]), 4)
    shares = softmax(logits["test"] / temperature, axis=1)
    run = run_columns(settings, data.manifest()["hash"], temperature)
    return Predictions.of(rows["test"], data.scheme.names, y["test"], shares, data.folders, run)


if __name__ == "__main__":
    main()
