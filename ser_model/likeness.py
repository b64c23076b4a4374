"""How much a recording sounds like one voice that speaks, as those of the training do: a score and its threshold.

The score is linear in the embedding and learnt by outlier exposure (Hendrycks et al. 2019, arXiv 1812.04606): voices of
the training part, as recorded and as rooms, telephones and noise leave them, against the sounds of `sounds.OUTLIERS`.
`python -m benchmarks.out_of_domain` compares it with confidence, energy and distances to the training embeddings.
"""

from collections.abc import Iterator
from itertools import islice

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from .audio import prepare_waveform
from .augment import Augmenter
from .data import EmotionData, collate
from .feature_extraction_ser import SERFeatureExtractor
from .modeling_ser import SERForAudioClassification
from .settings import AugmentationSettings
from .sounds import OUTLIERS, RATE, babble, make_sounds

MAX_VOICES = 500  # clips of a part, each heard three times: enough for one straight line
CROWDS = 5  # times as many crowds as of any other kind: only they and whispers get past the voice detector
MIN_S = 0.5  # what `inference.py` still judges
KEPT = 0.95  # share of the validation voices above the threshold
REGULARISATION = 0.1  # scikit-learn's C: 512 weights and a few hundred sounds
BATCH_SIZE = 32
CROWD_BATCHES = 6  # of voices, that the sounds made of voices take theirs from
# What stands between a voice and its recording; nothing that would change the voice.
RECORDING = AugmentationSettings(
    reverberation={"probability": 0.5},
    noise={"probability": 0.5, "snr_db": (5.0, 30.0), "slope": (0.0, 2.0)},
    gain={"probability": 1.0, "db": 12.0},
    band={"probability": 0.3},
)


def fit_likeness(
    model: SERForAudioClassification, extractor: SERFeatureExtractor, data: EmotionData, sounds: int, seed: int
) -> None:
    """Give a trained model its score, learnt on the training part, and its threshold, set on the validation part.

    Args:
        sounds: how many of each kind in `OUTLIERS` are made.
    """
    model.eval()
    voices = voice_embeddings(model, extractor, data, "train", seed)
    outliers = sound_embeddings(model, extractor, data, sounds, seed)
    weight = fit_weight(voices, np.concatenate(list(outliers.values())))
    scores = voice_embeddings(model, extractor, data, "validation", seed) @ weight
    model.set_likeness(torch.from_numpy(weight), float(np.quantile(scores, 1 - KEPT)))


def fit_weight(voices: np.ndarray, outliers: np.ndarray) -> np.ndarray:
    """Embeddings (N, P) and (M, P) -> weights (P,) of the score that tells them apart best."""
    embeddings = np.concatenate([voices, outliers])
    spread = embeddings.std(axis=0) + 1e-6  # an embedding may hold units that never fire
    head = LogisticRegression(C=REGULARISATION, class_weight="balanced", max_iter=1000)
    head.fit((embeddings - embeddings.mean(axis=0)) / spread, np.arange(len(embeddings)) < len(voices))
    return (head.coef_[0] / spread).astype(np.float32)


def voice_embeddings(model, extractor, data: EmotionData, part: str, seed: int) -> np.ndarray:
    """(3 N, P) of N clips of a part, drawn by the seed: each as it is, as another microphone or room leaves it, and a
    stretch of that, down to MIN_S.
    """
    augmenter = Augmenter(RECORDING, extractor.sampling_rate, max_frames=1, seed=seed)  # spectra are left alone
    rng, rows = np.random.default_rng(seed), []
    for batch in voice_batches(data, part, seed):
        waveforms, lengths = batch["waveforms"], batch["lengths"]
        distorted = augmenter(0, batch["indices"]).waveforms(waveforms, lengths)
        for clips in ((waveforms, lengths), (distorted, lengths), stretches(distorted, lengths, extractor, rng)):
            rows.append(embed(model, extractor, *clips))
    return np.concatenate(rows)


def sound_embeddings(model, extractor, data: EmotionData, count: int, seed: int) -> dict[str, np.ndarray]:
    """Each kind of `OUTLIERS` -> (M, P) of made sounds, whole and a stretch of each; crowds are of training voices."""
    rate = extractor.sampling_rate
    voices = [
        prepare_waveform(clip[:length], rate, RATE)
        for batch in islice(voice_batches(data, "train", seed), CROWD_BATCHES)
        for clip, length in zip(batch["waveforms"].numpy(), batch["lengths"].tolist(), strict=True)
    ]
    rng, embeddings = np.random.default_rng(seed), {}
    for name, make in OUTLIERS.items():
        number = CROWDS * count if make is babble else count
        sounds = [prepare_waveform(sound, RATE, rate) for sound in make_sounds(make, number, voices, seed)]
        waveforms = torch.from_numpy(np.stack(sounds))
        lengths = torch.full((number,), waveforms.shape[1])
        both = (waveforms, lengths), stretches(waveforms, lengths, extractor, rng)
        embeddings[name] = np.concatenate([embed(model, extractor, *clips) for clips in both])
    return embeddings


def stretches(waveforms: Tensor, lengths: Tensor, extractor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """A stretch around the middle of each clip, where the voice is, of a length drawn down to MIN_S."""
    cut = [round(rng.uniform(min(MIN_S * extractor.sampling_rate, length), length)) for length in lengths.tolist()]
    pieces = torch.zeros_like(waveforms)
    for piece, clip, length, kept in zip(pieces, waveforms, lengths.tolist(), cut, strict=True):
        start = (length - kept) // 2
        piece[:kept] = clip[start : start + kept]
    return pieces, torch.tensor(cut)


def voice_batches(data: EmotionData, part: str, seed: int) -> Iterator[dict[str, Tensor]]:
    """Up to MAX_VOICES clips of a part, in an order drawn by the seed."""
    clips = islice(data.part(part, shuffle_seed=seed).with_format("numpy"), MAX_VOICES)
    while rows := list(islice(clips, BATCH_SIZE)):
        yield collate(rows)


@torch.inference_mode()
def embed(model: SERForAudioClassification, extractor, waveforms: Tensor, lengths: Tensor) -> np.ndarray:
    """Waveforms (B, T) padded behind their lengths (B,) -> embeddings (B, P)."""
    features, mask = extractor.extract(waveforms.to(model.device), lengths.to(model.device))
    return model.ser(features, mask).pooler_output.float().cpu().numpy()
