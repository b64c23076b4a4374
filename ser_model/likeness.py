"""How much a recording sounds like one voice that speaks, as those of the training do: a score and its threshold.

The score is linear in the embedding and learnt by outlier exposure (Hendrycks et al. 2019, arXiv 1812.04606): voices of
the training part against crowds and whispers made of them (`sounds.OUTLIERS`). Both go through the same rooms, lines,
cuts and changes of pitch, so that nothing but the voice tells them apart. It stands behind the voice detector and
learns only what passes that: taught noise and music as well, it took every unknown microphone for noise.
`python -m benchmarks.out_of_domain` compares it with confidence, energy and distances to the training embeddings.
"""

from collections.abc import Iterable, Iterator
from itertools import islice

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from .audio import prepare_waveform, resample
from .augment import Augmenter
from .data import EmotionData, collate
from .feature_extraction_ser import SERFeatureExtractor
from .modeling_ser import SERForAudioClassification
from .settings import AugmentationSettings
from .sounds import OUTLIERS, RATE, make_sounds

MAX_VOICES = 400  # clips of a part, each heard in four ways: enough for one straight line
MIN_S, MAX_CUT_S = 0.5, 2.0  # `inference.py` judges from half a second on; beyond two, a cut is like a whole clip
KEPT = 0.98  # share of the validation voices above the threshold, half of them cut short
REGULARISATION = 0.1  # scikit-learn's C: 512 weights and a few thousand sounds
BATCH_SIZE = 32
PITCHES = (0.8, 0.9, 1.1, 1.25)  # times faster or slower, as if of other ages and sexes than the few actors
# What stands between a voice and its recording.
RECORDING = AugmentationSettings(
    reverberation={"probability": 0.3},
    noise={"probability": 0.5, "snr_db": (8.0, 30.0), "slope": (0.0, 2.0)},
    gain={"probability": 1.0, "db": 20.0},
    band={"probability": 0.3},
    codec={"probability": 0.2},
)

Batch = tuple[Tensor, Tensor, Tensor]  # waveforms (B, T), their lengths (B,), their keys for the augmentation (B,)


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
    """(4 N, P) of N clips of a part, drawn by the seed, each heard in four ways."""
    batches = ((batch["waveforms"], batch["lengths"], batch["indices"]) for batch in voice_batches(data, part, seed))
    return embeddings_of(model, extractor, batches, seed)


def sound_embeddings(model, extractor, data: EmotionData, count: int, seed: int) -> dict[str, np.ndarray]:
    """Each kind of `OUTLIERS` -> (4 count, P) of sounds made of training voices, each heard in the same four ways."""
    rate = extractor.sampling_rate
    voices = [
        prepare_waveform(clip[:length], rate, RATE)
        for batch in voice_batches(data, "train", seed)
        for clip, length in zip(batch["waveforms"].numpy(), batch["lengths"].tolist(), strict=True)
    ]
    embeddings = {}
    for name, make in OUTLIERS.items():
        sounds = [prepare_waveform(sound, RATE, rate) for sound in make_sounds(make, count, voices, seed)]
        waveforms, keys = torch.from_numpy(np.stack(sounds)), torch.arange(count)
        lengths = torch.full((count,), waveforms.shape[1])
        batches = zip(*(tensor.split(BATCH_SIZE) for tensor in (waveforms, lengths, keys)), strict=True)
        embeddings[name] = embeddings_of(model, extractor, batches, seed)
    return embeddings


def embeddings_of(model, extractor, batches: Iterable[Batch], seed: int) -> np.ndarray:
    """Clips as they are and cut, through another room, line or microphone, and the same cut at another pitch."""
    rate = extractor.sampling_rate
    augmenter = Augmenter(RECORDING, rate, max_frames=1, seed=seed)  # spectra are left alone
    rng, rows = np.random.default_rng(seed), []
    for waveforms, lengths, keys in batches:
        recorded = augmenter(0, keys).waveforms(waveforms, lengths)
        for clips in (
            (waveforms, lengths),
            cut(waveforms, lengths, rate, rng),
            (recorded, lengths),
            cut(*at_other_pitch(recorded, lengths, rate, rng), rate, rng),
        ):
            rows.append(embed(model, extractor, *clips))
    return np.concatenate(rows)


def at_other_pitch(waveforms: Tensor, lengths: Tensor, rate: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Clips (B, T) as if played faster or slower, by one factor a batch."""
    factor = rng.choice(PITCHES)
    played = [resample(clip, round(rate * factor), rate) for clip in waveforms.numpy()]
    return torch.from_numpy(np.stack(played)), (lengths / factor).long()


def cut(waveforms: Tensor, lengths: Tensor, rate: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """A stretch around the middle of each clip, where the voice is, of a length drawn down to MIN_S."""
    kept = [round(rng.uniform(MIN_S, MAX_CUT_S) * rate) for _ in lengths]
    kept = torch.minimum(torch.tensor(kept), lengths)
    pieces = torch.zeros_like(waveforms[:, : int(kept.max())])
    for piece, clip, length, samples in zip(pieces, waveforms, lengths.tolist(), kept.tolist(), strict=True):
        start = (length - samples) // 2
        piece[:samples] = clip[start : start + samples]
    return pieces, kept


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
