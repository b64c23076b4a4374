"""Which score tells voices from what is no voice to judge, and what a recogniser then answers to each kind of sound.

    python -m benchmarks.out_of_domain --data-dir data --model runs/reproduce/ravdess-tess-speakers/cnn/seed-0/fold-1

Prints two tables for a model that left voices out, such as that of a fold; for one that learnt from every clip, such as
a checkpoint, the second alone, with what is made of voices that it knows. The first compares scores, as AUROC of
validation voices (whole and cut, as they are and as other microphones and rooms leave them) against the sounds that the
voice detector lets pass. A score is chosen by its first three columns; the last three report. The second counts what
the whole recogniser answers. The foreign languages and one whisper need espeak-ng.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from scipy.special import log_softmax, logsumexp
from sklearn.covariance import LedoitWolf
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import NearestNeighbors

from benchmarks.strange_sounds import NO_VOICES, STRANGE_VOICES
from ser_model import SERFeatureExtractor, SERForAudioClassification
from ser_model.augment import Augmenter
from ser_model.data import EmotionData, load_data
from ser_model.inference import NO_VOICE, UNLIKE_TRAINING, VOICE, EmotionRecognizer, Prediction
from ser_model.likeness import KEPT, RECORDING, embed, fit_weight, sound_embeddings, voice_batches, voice_embeddings
from ser_model.run_files import SETTINGS
from ser_model.settings import TrainingSettings, load_settings
from ser_model.sounds import OUTLIERS, RATE, Maker, make_sounds

SOUNDS, LEARNT_SOUNDS, VOICES = 20, 200, 200
SURE = 0.7
Score = Callable[[np.ndarray], np.ndarray]  # embeddings (N, P) -> scores (N,), high for voices


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True, help="holds RAVDESS and TESS")
    parser.add_argument("--model", type=Path, required=True, help="the output folder of train.py")
    args = parser.parse_args()
    torch.set_num_threads(1)
    started_s = time.monotonic()
    model, extractor = (kind.from_pretrained(args.model) for kind in (SERForAudioClassification, SERFeatureExtractor))
    data = load_data(load_settings(args.model / SETTINGS), args.data_dir, RATE)
    recognizer = EmotionRecognizer(model, extractor)
    if data.split.validation:
        compare_scores(recognizer, data)
        print()
    count_answers(recognizer, data)
    print(f"\n{time.monotonic() - started_s:.0f} s")


# ── Scores ──


def compare_scores(recognizer: EmotionRecognizer, data: EmotionData) -> None:
    model, extractor = recognizer.model, recognizer.extractor
    training = voice_embeddings(model, extractor, data, "train", seed=0)
    validation = voice_embeddings(model, extractor, data, "validation", seed=0)
    only_ravdess, only_tess = only(data, "ravdess"), only(data, "tess")
    ravdess, tess = (voice_embeddings(model, extractor, part, "train", seed=0) for part in (only_ravdess, only_tess))
    unseen = [voice_embeddings(model, extractor, part, "test", seed=0) for part in (only_ravdess, only_tess)]
    count = TrainingSettings().outlier_sounds
    learnt, learnt_ravdess = (
        np.concatenate(list(sound_embeddings(model, extractor, part, count, seed=0).values()))
        for part in (data, only_ravdess)
    )
    voices = clips_of(data, "validation", VOICES)
    chosen, held_out = (passing(recognizer, makers, voices) for makers in (OUTLIERS, NO_VOICES))

    head = model.classifier
    weight, bias = (
        tensor.detach().numpy() / model.config.calibration_temperature for tensor in (head.weight, head.bias)
    )
    scores = {
        "highest probability": lambda voices, sounds: lambda x: log_softmax(x @ weight.T + bias, axis=1).max(axis=1),
        "energy": lambda voices, sounds: lambda x: logsumexp(x @ weight.T + bias, axis=1),
        "Mahalanobis distance": lambda voices, sounds: mahalanobis(voices),
        "distance to the 5th neighbour": lambda voices, sounds: neighbours(voices),
        "outlier exposure": lambda voices, sounds: linear(fit_weight(voices, sounds)),
    }
    print(
        f"| score | AUROC, kinds learnt | their refusals | kept of a second corpus | AUROC, kinds held out | "
        f"their refusals | kept of unseen RAVDESS / TESS speakers |\n{'| --- ' * 7}|"
    )
    for name, fit in scores.items():
        score = fit(ravdess, learnt_ravdess)  # has not met the microphone of TESS, though the network has
        second = kept(score, validation, tess)
        score = fit(training, learnt)
        row = [*separation(score, validation, chosen), second, *separation(score, validation, held_out)]
        both = " / ".join(f"{kept(score, validation, embeddings):.3f}" for embeddings in unseen)
        print(f"| {' | '.join([name, *(f'{figure:.3f}' for figure in row), both])} |", flush=True)


def passing(recognizer: EmotionRecognizer, makers: dict[str, Maker], voices: list[np.ndarray]) -> np.ndarray:
    """Embeddings (N, P) of those made sounds that the voice detector takes for speech."""
    sounds = [sound for make in makers.values() for sound in make_sounds(make, SOUNDS, voices, seed=1)]
    answers = recognizer.recognize(sounds)
    heard = [sound for sound, answer in zip(sounds, answers, strict=True) if answer.status in (VOICE, UNLIKE_TRAINING)]
    waveforms, lengths = torch.from_numpy(np.stack(heard)), torch.tensor([len(sound) for sound in heard])
    return embed(recognizer.model, recognizer.extractor, waveforms, lengths)


def linear(weight: np.ndarray) -> Score:
    return lambda embeddings: embeddings @ weight


def mahalanobis(voices: np.ndarray) -> Score:
    """Lee et al. 2018, arXiv 1807.03888, with one mean for all classes and a shrunk covariance."""
    fitted = LedoitWolf().fit(voices)
    return lambda embeddings: -fitted.mahalanobis(embeddings)


def neighbours(voices: np.ndarray) -> Score:
    """Sun et al. 2022, arXiv 2204.06507: embeddings of length 1, distance to the fifth nearest of the training."""
    fitted = NearestNeighbors(n_neighbors=5).fit(of_length_1(voices))
    return lambda embeddings: -fitted.kneighbors(of_length_1(embeddings))[0][:, -1]


def of_length_1(embeddings: np.ndarray) -> np.ndarray:
    return embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)


def separation(score: Score, voices: np.ndarray, sounds: np.ndarray) -> tuple[float, float]:
    """AUROC, and the share of sounds refused where 98 % of the voices are kept."""
    area = roc_auc_score(np.arange(len(voices) + len(sounds)) < len(voices), score(np.concatenate([voices, sounds])))
    return area, 1 - kept(score, voices, sounds)


def kept(score: Score, voices: np.ndarray, others: np.ndarray) -> float:
    return float((score(others) >= np.quantile(score(voices), 1 - KEPT)).mean())


# ── Answers ──


def count_answers(recognizer: EmotionRecognizer, data: EmotionData) -> None:
    print(f"| sound | clips | no voice heard | unlike training | answered | with {SURE} or more |")
    print("| --- | --- | --- | --- | --- | --- |")

    def row(name: str, clips: list[np.ndarray]) -> None:
        shares = answer_shares(recognizer.recognize(clips))
        print(f"| {name} | {len(clips)} | {' | '.join(f'{share:.2f}' for share in shares)} |", flush=True)

    voices = clips_of(data, "validation" if data.split.validation else "train", VOICES)
    for title, makers in (("learnt", OUTLIERS), ("held out", NO_VOICES), ("strange voice", STRANGE_VOICES)):
        for name, make in makers.items():
            row(f"{title}: {name}", make_sounds(make, LEARNT_SOUNDS if makers is OUTLIERS else SOUNDS, voices, seed=2))
    for corpus in ("ravdess", "tess") if data.split.test else ():
        own = only(data, corpus)
        row(f"unseen speakers of {corpus}", clips_of(own, "test", VOICES))
        row("the same, another microphone or room", clips_of(own, "test", VOICES, distorted=True))
        row("the same, 0.8 s of the middle", [middle(clip, 0.8) for clip in clips_of(own, "test", VOICES)])


def answer_shares(answers: Sequence[Prediction]) -> list[float]:
    """Of no voice heard, unlike training, answered, and answered with SURE or more."""
    kinds = [[answer.status == status for answer in answers] for status in (NO_VOICE, UNLIKE_TRAINING, VOICE)]
    return [float(np.mean(kind)) for kind in [*kinds, [(answer.confidence or 0) >= SURE for answer in answers]]]


def clips_of(data: EmotionData, part: str, count: int, distorted: bool = False) -> list[np.ndarray]:
    augmenter, clips = Augmenter(RECORDING, RATE, max_frames=1, seed=1), []
    for batch in voice_batches(data, part, seed=1):
        waveforms, lengths = batch["waveforms"], batch["lengths"]
        if distorted:
            waveforms = augmenter(0, batch["indices"]).waveforms(waveforms, lengths)
        clips += [clip[:length].numpy() for clip, length in zip(waveforms, lengths.tolist(), strict=True)]
        if len(clips) >= count:
            break
    return clips[:count]


def middle(clip: np.ndarray, duration_s: float) -> np.ndarray:
    start = max(0, (len(clip) - round(duration_s * RATE)) // 2)
    return clip[start : start + round(duration_s * RATE)]


def only(data: EmotionData, corpus: str) -> EmotionData:
    """The same split with the clips of one corpus alone."""
    parts = {
        part: [index for index in getattr(data.split, part) if data.utterances[index].corpus == corpus]
        for part in ("train", "validation", "test")
    }
    return replace(data, split=replace(data.split, **parts))


if __name__ == "__main__":
    main()
