"""The map shows what the answer hangs on: in real clips, and only for the model that gave it."""

from pathlib import Path

import numpy as np
import pytest
import torch

from ser_model import SERConfig, SERFeatureExtractor, SERForAudioClassification, feature_extraction_ser
from ser_model.audio import load_audio
from ser_model.inference import EmotionRecognizer
from ser_model.mfcc import power_spectrogram
from ser_model.saliency import BANDS, MAX_S, band_shares, saliency

CHECKPOINT = Path(__file__).resolve().parent.parent / "checkpoints" / "ser-cnn-8"
RATE = 16_000


@pytest.fixture(scope="module")
def model():
    return SERForAudioClassification.from_pretrained(CHECKPOINT).eval()


@pytest.fixture(scope="module")
def extractor():
    return SERFeatureExtractor.from_pretrained(CHECKPOINT)


@pytest.fixture(scope="module")
def voices(data_dir):
    folder = data_dir / "RAVDESS" / "Audio_Speech_Actors_01-24" / "Actor_06"
    return [load_audio(path) for path in sorted(folder.iterdir())[::10]]


@torch.no_grad()
def log_probability(model, extractor, waveform, masked, label):
    """Of a label, with the masked cells (BANDS, L) each at the mean level of its frequency."""
    clip = torch.from_numpy(waveform)[None]
    frame, hop = extractor.frame_samples, extractor.hop_samples
    whole = power_spectrogram(clip, frame, hop, extractor.n_fft, extractor.window_name)[0]
    bins = (band_shares(extractor, extractor.n_fft).T @ torch.from_numpy(masked).float()) > 0.5

    def mask(power, lengths):
        first = int(whole.sum(dim=0).argmax() - power[0, :, : lengths[0]].sum(dim=0).argmax())
        log_power = power[0, :, : lengths[0]].clamp(min=1e-6 * power.max()).log()
        here = bins[:, first : first + log_power.shape[1]]
        return torch.where(here, log_power.mean(dim=1, keepdim=True), log_power).exp()[None], lengths

    features, frames = extractor.extract(clip, torch.tensor([len(waveform)]), mask)
    return float(model(features, frames).logits.log_softmax(dim=-1)[0, model.config.label2id[label]])


def most_salient_tenth(weights, order):
    """Of the cells that the model heard those that stand highest in `order`, of the same shape."""
    heard = np.flatnonzero(np.broadcast_to(np.abs(weights).sum(axis=0) > 0, weights.shape))
    chosen = np.zeros(weights.shape, bool)
    chosen.ravel()[heard[np.argsort(-order.ravel()[heard])][: len(heard) // 10]] = True
    return chosen


def test_masking_the_most_salient_tenth_costs_more_than_masking_any_other(model, extractor, voices):
    """Any other: drawn at random, or the most salient one of a network with other weights."""
    torch.manual_seed(0)
    untrained = SERForAudioClassification(model.config).eval()
    rng = np.random.default_rng(0)
    costs = []
    for waveform in voices:
        found = saliency(model, extractor, waveform)
        others = saliency(untrained, extractor, waveform, found.label).weights

        def score(masked, waveform=waveform, label=found.label):
            return log_probability(model, extractor, waveform, masked, label)

        whole = score(np.zeros(found.weights.shape, bool))
        orders = found.weights, rng.random(found.weights.shape), others
        costs.append([whole - score(most_salient_tenth(found.weights, order)) for order in orders])
    costs = np.array(costs)
    assert (costs[:, 0] > costs[:, 1] + 0.3).all()
    assert costs[:, 0].mean() > 2 * costs[:, 2].mean() and (costs[:, 0] > costs[:, 2]).all()


def test_the_weights_add_up_to_what_detail_is_worth(model, extractor, voices):
    """Integrated gradients are complete, up to the number of steps."""
    found = saliency(model, extractor, voices[0])
    clip = (model, extractor, voices[0])
    worth = log_probability(*clip, np.zeros(found.weights.shape, bool), found.label) - log_probability(
        *clip, np.ones(found.weights.shape, bool), found.label
    )
    assert found.weights.sum() == pytest.approx(worth, abs=0.5)


@torch.no_grad()
def test_the_weights_of_several_windows_add_up_too(voices):
    torch.manual_seed(0)
    clip, lengths = torch.from_numpy(voices[0])[None], torch.tensor([len(voices[0])])
    extractor = SERFeatureExtractor(more_frames_ms=[20, 80]).fit([(clip, lengths)])
    model = SERForAudioClassification(SERConfig(num_channels=3, num_labels=4)).eval()

    def without_detail(power, lengths):
        level = power[..., : lengths[0]].clamp(min=1e-6 * power.max()).log().mean(dim=2, keepdim=True).exp()
        return level.expand(-1, -1, int(lengths[0])), lengths

    scores = [
        model(*extractor.extract(clip, lengths, transform)).logits.log_softmax(dim=-1)[0]
        for transform in (None, without_detail)
    ]
    worth = (scores[0] - scores[1]).tolist()
    weights = [saliency(model, extractor, voices[0], label).weights.sum() for label in model.config.label2id]
    assert weights == pytest.approx(worth, abs=0.15) and max(map(abs, worth)) > 0.3  # of one window a third of it


def test_the_map_lies_where_the_sound_is(model, extractor, voices):
    """The quiet that the extractor cuts off weighs nothing, and what is moved in time moves on the map."""
    late = np.concatenate([np.zeros(2 * RATE, np.float32), voices[0]])
    maps = [saliency(model, extractor, clip, "angry") for clip in (voices[0], late)]
    assert maps[0].weights.shape == (BANDS, 1 + len(voices[0]) // extractor.hop_samples)
    times_s = [np.abs(found.weights).sum(axis=0).argmax() * found.hop_s for found in maps]
    assert times_s[1] - times_s[0] == pytest.approx(2, abs=0.1)
    assert not maps[1].weights[:, :50].any()


def test_digital_silence_before_a_voice_moves_nothing(model, extractor, voices):
    """Frames without any sound are all alike, those that the extractor keeps and those that it leaves out."""
    waveform = voices[0].copy()
    waveform[:RATE] = 0
    late = np.concatenate([np.zeros(2 * RATE, np.float32), waveform])
    weights = [np.abs(saliency(model, extractor, clip, "angry").weights).sum(axis=0) for clip in (waveform, late)]
    first_s = [np.flatnonzero(weight)[0] * extractor.hop_samples / RATE for weight in weights]
    assert first_s[0] > 0.8 and first_s[1] - first_s[0] == pytest.approx(2, abs=0.03)


def test_a_map_is_drawn_after_the_first_inference_of_a_device(model, extractor, voices):
    """Which makes the filters that no extractor has made for it, as on a GPU."""
    for table in ("_mel_blocks", "_dct_matrix", "_chroma_filterbank", "_pitch_filterbank"):
        getattr(feature_extraction_ser, table).cache_clear()
    scores = EmotionRecognizer(model, extractor).scores(voices[:1])[0]
    assert saliency(model, extractor, voices[0]).label == model.config.id2label[scores.argmax()]


def test_a_long_clip_is_explained_from_its_start(model, extractor, voices):
    found = saliency(model, extractor, np.tile(voices[0], 4))
    assert found.weights.shape[1] == 1 + round(MAX_S / found.hop_s)


def test_a_map_needs_no_gradients_around_it(model, extractor, voices):
    with torch.inference_mode():
        assert saliency(model, extractor, voices[0]).weights.any()


@pytest.mark.parametrize(
    ("waveform", "label", "said"),
    [
        (np.zeros((RATE, 2), np.float32), None, r"shape \(16000, 2\) came; give one channel"),
        (np.zeros(0, np.float32), None, r"shape \(0,\) came"),
        (np.zeros(RATE, np.float32), "hapy", "'hapy' is no label of the model; it has neutral"),
    ],
)
def test_what_has_no_map_is_refused_in_a_sentence(model, extractor, waveform, label, said):
    with pytest.raises(ValueError, match=said):
        saliency(model, extractor, waveform, label)


def test_features_of_others_are_refused(model):
    with pytest.raises(ValueError, match="needs the features of a SERFeatureExtractor"):
        saliency(model, object(), np.zeros(RATE, np.float32))
