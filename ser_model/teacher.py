"""A teacher: what a linear probe on a speech encoder that others pretrained says of voices that it never heard.

Of clips that were meant to sound alike some do plainly and others hardly; a label says the same of both, a probability
does not. Learning from such soft labels is distillation (Hinton et al. 2015, arXiv 1503.02531).

The encoder is that of Moonshine tiny (Jeffries et al. 2024, arXiv 2410.15608; MIT licence), a recogniser of English
speech, from the package moonshine-voice. It is needed to train with a teacher, never to use what was trained.
"""

from collections.abc import Callable, Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnxruntime
import torch
from scipy.special import softmax
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from .audio import SAMPLING_RATE_HZ, load_audio
from .data import EmotionData
from .metrics import fit_temperature

PACKAGE = "moonshine-voice==0.0.48"  # later ones carry no weights
REGULARISATION = 0.01  # scikit-learn's C; 0.003 to 0.03 are as good on training speakers held out
MAX_ITERATIONS = 1000
MAX_FOLDS = 6
SHORTEST, LONGEST = SAMPLING_RATE_HZ // 10, 20 * SAMPLING_RATE_HZ  # samples that the encoder hears at once
LEAST_PROBABILITY = 1e-6  # of what a fold's probe never learnt

Embed = Callable[[str], np.ndarray]


class TeacherError(ValueError):
    """No encoder to teach with, or clips that cannot be told apart into taught and heard."""


def packaged_encoder() -> Path:
    """The file that the package carries; TeacherError where it, or onnx, is not installed."""
    needed = [] if find_spec("onnx") else ["onnx"]
    package = find_spec("moonshine_voice")
    for folder in package.submodule_search_locations if package and not needed else ():
        if (file := Path(folder) / "assets" / "tiny-en" / "encoder_model.ort").is_file():
            return file
    install = " ".join([*needed, PACKAGE])
    raise TeacherError(f"the pretrained speech encoder is not installed: pip install --no-deps {install}")


def encoder(file: Path) -> Embed:
    """From a sound file to mean and deviation (2 S D,) over time of the encoder's S states of width D.

    A file is heard once; AudioError, see `load_audio`, if it is none.
    """
    session = with_states(file)

    @cache
    def embed(path: str) -> np.ndarray:
        waveform = load_audio(path, SAMPLING_RATE_HZ)
        waveform = np.pad(waveform, (0, max(0, SHORTEST - len(waveform))))
        pieces = np.array_split(waveform, -(-len(waveform) // LONGEST))
        heard = [
            session.run(None, {"input_values": piece[None], "attention_mask": np.ones((1, len(piece)), np.int64)})
            for piece in pieces
        ]
        states = [np.concatenate(state, axis=1)[0] for state in zip(*heard, strict=True)]  # S times (L, D)
        return np.concatenate([of_time(state, axis=0) for state in states for of_time in (np.mean, np.std)])

    return embed


def with_states(file: Path) -> onnxruntime.InferenceSession:
    """An encoder that gives, beside what it ends with, what each normalisation hears: of a layer the first of them has
    its input, the second what attention makes of it.
    """
    import onnx  # not everybody who trains has it

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL  # it would fuse them away
    with TemporaryDirectory() as folder:  # the package's file is of a format whose outputs are settled
        options.optimized_model_filepath = str(Path(folder) / "encoder.onnx")
        onnxruntime.InferenceSession(file, options)
        model = onnx.load(options.optimized_model_filepath)
    heard = [node.input[0] for node in model.graph.node if node.op_type == "LayerNormalization"]
    model.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in heard)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    return onnxruntime.InferenceSession(model.SerializeToString(), options)


def linear_probe() -> Pipeline:
    """What learns labels from an encoder's states."""
    # Turned into the space that the training clips span, it is the same regression, and found sooner.
    regression = LogisticRegression(C=REGULARISATION, max_iter=MAX_ITERATIONS)
    return make_pipeline(StandardScaler(), PCA(), regression)


def soft_labels(data: EmotionData) -> np.ndarray:
    """What a teacher says of each training clip, (N, K) for the N clips in use and K labels; zeros for the others.

    Each clip is answered by a probe that learnt from the other training clips alone: those of other speakers, or where
    the split shares voices, or nobody knows the speaker, of other takes. Its probabilities are calibrated, those of
    each corpus apart. Clips that validate or test are not heard.

    Raises:
        TeacherError: the encoder is not installed, or clips are of too few speakers, or takes, to learn from others.
    """
    embed = encoder(packaged_encoder())
    train = np.array(data.split.train)
    clips = [data.utterances[index] for index in train]
    known = data.split.kind != "random"
    units = [(known and clip.speaker) or clip.recording for clip in clips]
    rows = data.rows("train").select_columns(["path", "label"])
    states = np.stack([embed(path) for path in rows["path"]])
    labels = np.array(rows["label"])
    shares = probabilities(states, labels, units, len(data.scheme.names))
    logits = np.log(np.maximum(shares, LEAST_PROBABILITY))
    taught = np.zeros((len(data.utterances), len(data.scheme.names)), np.float32)
    corpora = np.array([clip.corpus for clip in clips])
    for corpus in np.unique(corpora):
        own = corpora == corpus
        temperature = fit_temperature(logits[own], labels[own])
        taught[train[own]] = softmax(logits[own] / temperature, axis=1)
    return taught


def probabilities(states: np.ndarray, labels: np.ndarray, units: Sequence[str], num_labels: int) -> np.ndarray:
    """Of each clip, (N, K), by a probe that heard none of its unit; TeacherError where nothing can be learnt so."""
    units = np.array(units)
    count = len(np.unique(units))
    nobody = [(np.array([], int), np.arange(len(labels)))]
    folds = GroupKFold(min(MAX_FOLDS, count)).split(states, labels, units) if count > 1 else nobody
    shares = np.zeros((len(labels), num_labels))
    for heard, asked in folds:
        if len(learnt := np.unique(labels[heard])) < 2:
            names = ", ".join(np.unique(units[asked])[:3])
            raise TeacherError(
                f"without {names}, whose clips a teacher must not have heard, it has clips of {len(learnt)} label(s) "
                "to learn from; add other speakers, or set training.teacher_weight to 0"
            )
        probe = linear_probe().fit(states[heard], labels[heard])
        shares[np.ix_(asked, probe.classes_)] = probe.predict_proba(states[asked])
    return shares
