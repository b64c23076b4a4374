"""What every network keeps, whatever its name, and what the model and its configuration refuse."""

import copy
import json
import os
import pickle
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import timm
import torch
from accelerate.utils import infer_auto_device_map
from torch import nn
from transformers import AutoConfig, AutoModelForAudioClassification, Trainer, TrainingArguments

from ser_model import SERConfig, SERFeatureExtractor, SERForAudioClassification, SERModel
from ser_model.backbones import BACKBONES, in_company
from ser_model.layers import masked_mean
from ser_model.mfcc import dct_matrix, deltas, mel_filterbank, power_spectrogram, power_to_db

ROOT = Path(__file__).resolve().parent.parent
EMOTIONS = {0: "neutral", 1: "happy", 2: "sad", 3: "angry"}
POOLINGS = ("attention", "mean")
every_backbone = pytest.mark.parametrize("name", BACKBONES)
every_network = pytest.mark.parametrize("name", [*BACKBONES, "timm/mobilenetv3_small_050"])

# Ten minutes of frames at 20 ms through each network, each in a process of its own, whose peak the parent reads.
TEN_MINUTES = """
import json, os, sys
import torch
from ser_model import SERConfig, SERForAudioClassification
from ser_model.backbones import BACKBONES

torch.set_num_threads(1)

def peak_bytes(name=None):
    if not (pid := os.fork()):
        if name is not None:
            config = SERConfig(backbone=name)
            features = torch.randn(1, 30_001, config.num_channels * config.num_features)
            with torch.no_grad():
                assert SERForAudioClassification(config).eval()(features).logits.isfinite().all()
        os._exit(0)
    _, status, usage = os.wait4(pid, 0)
    assert status == 0, name
    return usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)

idle = peak_bytes()
print(json.dumps({name: peak_bytes(name) - idle for name in BACKBONES}))
"""


def make_model(name: str = "cnn", seed: int = 0, **options) -> SERForAudioClassification:
    """A network in eval mode with every number drawn, the statistics of its norms too, lest zeros hide a mistake."""
    torch.manual_seed(seed)
    model = SERForAudioClassification(SERConfig(backbone=name, **{"id2label": EMOTIONS, **options})).eval()
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            nn.init.uniform_(module.running_mean, -0.3, 0.3)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.3, 0.3)
    return model


def make_features(model: SERForAudioClassification, *size: int, seed: int = 1) -> torch.Tensor:
    """Random features (*size, C * F)."""
    width = model.config.num_channels * model.config.num_features
    return torch.randn(*size, width, generator=torch.Generator().manual_seed(seed))


# The contract of every backbone.


@every_network
@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("padding", ["zeros", "noise"])
@torch.no_grad()
def test_padding_and_batch_make_up_do_not_change_logits(name, pooling, padding):
    model = make_model(name, pooling=pooling)
    lengths = [1, 2, 7, 64, 149, 200]
    clips = [make_features(model, length, seed=length) for length in lengths]
    batch = make_features(model, len(clips), 217) * (padding == "noise")
    mask = torch.zeros(batch.shape[:2], dtype=torch.long)
    for row, clip in enumerate(clips):
        batch[row, : len(clip)] = clip
        mask[row, : len(clip)] = 1
    together = model(batch, mask).logits
    alone = torch.cat([model(clip[None]).logits for clip in clips])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-5)
    torch.testing.assert_close(model(batch.flip(0), mask.flip(0)).logits.flip(0), together, rtol=0, atol=1e-5)
    assert alone.std(dim=0).min() > 1e-3  # utterances differ, so that equal logits say something


@every_network
@pytest.mark.parametrize("pooling", POOLINGS)
@torch.no_grad()
def test_attention_mask_says_what_is_heard(name, pooling):
    model = make_model(name, pooling=pooling)
    features = make_features(model, 1, 160)
    mask = torch.ones(1, 160, dtype=torch.long)
    whole = model(features, mask).logits
    torch.testing.assert_close(model(features).logits, whole, rtol=0, atol=0)  # no mask: all frames are real
    mask[:, 100:] = 0
    shorter = model(features, mask).logits
    mask[:, 50:] = 0
    shortest = model(features, mask).logits
    assert min((whole - shorter).abs().max(), (shorter - shortest).abs().max()) > 1e-3


@every_backbone
@torch.no_grad()
def test_one_frame_gives_finite_logits(name):
    model = make_model(name)
    logits = model(make_features(model, 1, 1)).logits
    assert logits.shape == (1, 4)
    assert logits.isfinite().all()


def test_memory_for_ten_minutes_is_bounded():
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", TEN_MINUTES], capture_output=True, text=True, env=environment, timeout=120
    )
    assert done.returncode == 0, done.stderr
    peaks = json.loads(done.stdout)
    assert peaks.keys() == BACKBONES.keys()
    for name, peak_bytes in peaks.items():
        limit_gib = 4.5 if name == "deep_cnn" else 1.0  # 512 maps of 20 x 15 000 are 0.6 GiB, and several live at once
        assert 0 < peak_bytes < limit_gib * 2**30, f"{name} takes {peak_bytes / 2**20:.0f} MiB for ten minutes"


@every_backbone
@torch.no_grad()
def test_weights_are_saved_and_loaded_to_the_bit(name, tmp_path):
    model = make_model(name)
    model.save_pretrained(tmp_path)
    assert not list(tmp_path.glob("*.bin"))
    loaded = SERForAudioClassification.from_pretrained(tmp_path)
    assert not loaded.training
    saved_state, loaded_state = model.state_dict(), loaded.state_dict()
    assert saved_state.keys() == loaded_state.keys()
    assert all(torch.equal(saved_state[key], loaded_state[key]) for key in saved_state)
    features = make_features(model, 2, 50)
    torch.testing.assert_close(model(features).logits, loaded(features).logits)
    assert loaded.config.id2label == EMOTIONS


@every_backbone
@torch.no_grad()
def test_embeddings_load_from_a_classifier(name, tmp_path):
    model = make_model(name)
    model.save_pretrained(tmp_path)
    features = make_features(model, 2, 50)
    embedder, report = SERModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values())  # nor is a table of them printed
    embeddings = embedder(features).pooler_output
    torch.testing.assert_close(model.classifier(embeddings), model(features).logits, rtol=0, atol=1e-6)


@every_backbone
def test_model_is_built_on_the_meta_device(name):
    config = make_model(name).config
    with torch.device("meta"):
        model = SERForAudioClassification(config)
    tensors = [*model.parameters(), *model.buffers()]
    assert tensors and all(tensor.is_meta for tensor in tensors)
    # What lies outside the state dict would come back as garbage.
    assert {key for key, _ in model.named_buffers()} <= model.state_dict().keys()


@every_network
@pytest.mark.parametrize("pooling", POOLINGS)
def test_gradients_reach_every_parameter(name, pooling):
    model = make_model(name, pooling=pooling).train()
    loss = model(make_features(model, 4, 200), labels=torch.tensor([0, 1, 2, 3])).loss
    loss.backward()
    assert loss.isfinite()
    unreached = [key for key, weight in model.named_parameters() if weight.grad is None or not weight.grad.any()]
    assert not unreached


@every_backbone
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@torch.no_grad()
def test_half_precision_gives_the_same_answer(name, dtype):
    model = make_model(name)
    features, mask = make_features(model, 2, 60), torch.ones(2, 60)
    mask[1, 20:] = 0
    expected = model(features, mask).logits
    logits = model.to(dtype)(features, mask).logits
    assert logits.dtype == dtype
    # bfloat16 keeps 8 bits, and some ten layers add up their rounding.
    torch.testing.assert_close(logits.float(), expected, rtol=0, atol=0.1 * float(expected.abs().max()))


@every_backbone
@torch.no_grad()
def test_hidden_states_come_when_asked_for(name):
    model = make_model(name)
    features = make_features(model, 2, 50)
    assert model(features).hidden_states is None
    states = model(features, output_hidden_states=True).hidden_states
    frames = model.ser(features).last_hidden_state
    assert len(states) > 1 and all(len(state) == 2 for state in states)
    torch.testing.assert_close(states[-1].transpose(1, 2), frames, rtol=0, atol=0)
    logits, tuple_states = model(features, output_hidden_states=True, return_dict=False)
    assert len(tuple_states) == len(states)
    torch.testing.assert_close(logits, model(features).logits, rtol=0, atol=0)


@every_network
@torch.no_grad()
def test_frames_come_with_the_mask_of_those_that_are_real(name):
    model = make_model(name).ser
    batch, mask = make_features(model, 2, 200), torch.ones(2, 200, dtype=torch.long)
    mask[1, 70:] = 0
    together, alone = model(batch, mask), model(batch[1:, :70])
    assert together.attention_mask.shape == together.last_hidden_state.shape[:2]
    assert together.attention_mask[0].sum() > together.attention_mask[1].sum() == alone.attention_mask.sum() > 0
    real, expected = (output.last_hidden_state[-1][output.attention_mask[-1].bool()] for output in (together, alone))
    torch.testing.assert_close(real, expected)


@pytest.mark.parametrize("name", [name for name in BACKBONES if name not in ("lstm", "gru", "inception_v3")])
@torch.no_grad()
def test_a_program_exported_with_a_free_length_gives_the_same_answer(name):
    """From an odd length to an even one; recurrent networks and those of timm hang on what they were exported with."""
    model = make_model(name)
    mask = torch.ones(2, 101, dtype=torch.long)
    free = {0: torch.export.Dim("batch"), 1: torch.export.Dim("frames", min=33)}  # two frames are left of so many
    program = torch.export.export(model, (make_features(model, 2, 101), mask), dynamic_shapes=(free, free))
    batch, mask = make_features(model, 3, 64), torch.ones(3, 64, dtype=torch.long)
    mask[1, 40:] = 0
    torch.testing.assert_close(program.module()(batch, mask).logits, model(batch, mask).logits)


# The model around the backbone.


def test_half_precision_averages_ten_minutes_without_overflow():
    loud = torch.full((1, 3, 37_500), 4.0, dtype=torch.float16)
    mean = masked_mean(loud, torch.ones(1, 37_500, dtype=torch.bool))
    assert mean.dtype == torch.float16
    assert mean.tolist() == [[4.0, 4.0, 4.0]]


def test_loss_is_cross_entropy_of_indices_or_probabilities():
    model = make_model()
    features = make_features(model, 3, 40)
    output = model(features, labels=torch.tensor([2, 0, 3]))
    log_probabilities = output.logits.log_softmax(dim=1)
    expected = -(log_probabilities[0, 2] + log_probabilities[1, 0] + log_probabilities[2, 3]) / 3
    torch.testing.assert_close(output.loss, expected)
    mixed = torch.tensor([[0.5, 0.5, 0, 0], [0, 0, 1, 0], [0.25, 0.25, 0.25, 0.25]])
    expected = -(mixed * log_probabilities).sum(dim=1).mean()
    torch.testing.assert_close(model(features, labels=mixed).loss, expected)
    assert model(features).loss is None


@torch.no_grad()
def test_inverse_dct_gives_the_log_mel_spectrum_back():
    extractor = SERFeatureExtractor(n_mfcc=64, n_mels=64, trim_db=None, level="absolute", delta_order=1)
    waveforms = 0.1 * torch.randn(1, 8000, generator=torch.Generator().manual_seed(0))
    lengths = torch.tensor([8000])
    power = power_spectrogram(waveforms, extractor.frame_samples, extractor.hop_samples, extractor.n_fft)
    filters = mel_filterbank(64, extractor.n_fft, extractor.sampling_rate, extractor.f_min, extractor.f_max)
    log_mel = power_to_db(filters @ power, torch.ones(1, power.shape[-1], dtype=torch.bool), extractor.top_db)
    slopes = deltas(log_mel, torch.tensor([power.shape[-1]]))
    expected = torch.stack([log_mel, slopes], dim=1).permute(0, 3, 1, 2)  # (1, L, C, F)

    model = SERModel(SERConfig(num_features=64, num_channels=2))
    features, _ = extractor.extract(waveforms, lengths)
    torch.testing.assert_close(model.invert_dct(features.unflatten(2, (2, 64))), expected, rtol=0, atol=1e-4)

    # Fitted, it is the spectrum around its mean, over one number a channel.
    features, _ = extractor.fit([(waveforms, lengths)]).extract(waveforms, lengths)
    spreads = torch.tensor([extractor.feature_std[0], extractor.feature_std[64]])[:, None]
    centred = expected - expected.mean(dim=1, keepdim=True)
    torch.testing.assert_close(model.invert_dct(features.unflatten(2, (2, 64))) * spreads, centred, rtol=0, atol=1e-3)


@torch.no_grad()
def test_only_cepstral_channels_are_taken_back_to_bands():
    extractor = SERFeatureExtractor(features=["mfcc", "pitch"], stacking="channels", level="absolute", top_db=None)
    features, _ = extractor.extract(torch.randn(2, 8000), torch.tensor([8000, 8000]))
    channels = features.unflatten(2, (2, 80))
    model = SERModel(SERConfig(num_channels=2, num_cepstral_channels=1))
    heard = model.invert_dct(channels)
    torch.testing.assert_close(heard[:, :, 1], channels[:, :, 1], rtol=0, atol=0)
    torch.testing.assert_close(heard[:, :, 0] @ dct_matrix(80, 80).T, channels[:, :, 0], rtol=0, atol=1e-3)
    with pytest.raises(ValueError, match="num_cepstral_channels is 3; it must be from 1 to num_channels"):
        SERConfig(num_channels=2, num_cepstral_channels=3)


@torch.no_grad()
def test_calibration_temperature_divides_the_logits():
    plain, cooler = make_model(), make_model(calibration_temperature=2.5)
    cooler.load_state_dict(plain.state_dict())
    features = make_features(plain, 2, 40)
    torch.testing.assert_close(cooler(features).logits * 2.5, plain(features).logits)


@torch.no_grad()
def test_ignore_mismatched_sizes_swaps_the_head_alone(tmp_path):
    model = make_model()
    model.save_pretrained(tmp_path)
    labels = {0: "calm", 1: "agitated"}
    with pytest.raises(RuntimeError, match="ignore_mismatched_sizes"):
        SERForAudioClassification.from_pretrained(tmp_path, num_labels=2, id2label=labels)
    swapped = SERForAudioClassification.from_pretrained(
        tmp_path, num_labels=2, id2label=labels, label2id={"calm": 0, "agitated": 1}, ignore_mismatched_sizes=True
    )
    assert swapped.config.id2label == labels
    body = model.ser.state_dict()
    assert all(torch.equal(weight, body[key]) for key, weight in swapped.ser.state_dict().items())
    assert swapped.classifier.weight.shape == (2, model.ser.pooling.output_size)
    assert swapped.classifier.weight.std() > 0 and not swapped.classifier.bias.any()
    features = make_features(model, 3, 40)
    assert swapped(features).logits.shape == (3, 2)
    assert not torch.equal(swapped.classifier.weight, model.classifier.weight[:2])


@pytest.mark.parametrize("auto", [False, True])
def test_labels_that_are_known_keep_their_weights_among_more_or_fewer(tmp_path, auto):
    model = make_model(calibration_temperature=2.5)
    model.save_pretrained(tmp_path)
    kind = AutoModelForAudioClassification if auto else SERForAudioClassification
    for names in (["sad", "tense"], ["neutral", "happy", "sad", "angry", "tense"]):
        loaded = kind.from_pretrained(tmp_path, id2label=dict(enumerate(names)), ignore_mismatched_sizes=True)
        assert list(loaded.config.id2label.values()) == names and loaded.config.calibration_temperature == 1.0
        for row, name in enumerate(names[:-1]):
            assert torch.equal(loaded.classifier.weight[row], model.classifier.weight[model.config.label2id[name]])
        assert not loaded.classifier.bias[-1] and loaded.classifier.weight[-1].any()


def test_the_rows_of_an_offloaded_head_are_not_moved(tmp_path):
    make_model().save_pretrained(tmp_path / "saved")
    disk = {"device_map": {"": "disk"}, "offload_folder": tmp_path / "offloaded", "ignore_mismatched_sizes": True}
    with pytest.raises(ValueError, match="the head is offloaded, so its rows cannot be moved; load the model with"):
        SERForAudioClassification.from_pretrained(tmp_path / "saved", id2label={0: "sad", 1: "happy"}, **disk)


def test_a_new_head_takes_over_no_calibration_of_the_old_one(tmp_path, caplog):
    model = make_model(calibration_temperature=2.5, training_split="abc")
    model.set_likeness(torch.ones(model.ser.pooling.output_size), 0.5)
    model.save_pretrained(tmp_path)
    kept = SERForAudioClassification.from_pretrained(tmp_path)
    assert (kept.config.calibration_temperature, kept.config.likeness_threshold) == (2.5, 0.5)
    assert kept.likeness_weight is not None and not caplog.messages
    swapped = SERForAudioClassification.from_pretrained(tmp_path, num_labels=3, ignore_mismatched_sizes=True)
    assert (swapped.config.calibration_temperature, swapped.config.likeness_threshold) == (1.0, None)
    assert (kept.config.training_split, swapped.config.training_split) == ("abc", None)
    assert swapped(make_features(swapped, 1, 40)).likeness is None
    assert sum("calibration_temperature 2.5 and likeness_threshold 0.5" in line for line in caplog.messages) == 1
    swapped.save_pretrained(tmp_path / "swapped")
    again = SERForAudioClassification.from_pretrained(tmp_path / "swapped")
    assert again.likeness_weight is None and again.config.num_labels == 3


def test_labels_in_another_order_bring_their_weights_and_their_calibration(tmp_path, caplog):
    model = make_model(calibration_temperature=2.5)
    model.set_likeness(torch.ones(model.ser.pooling.output_size), 0.5)
    model.save_pretrained(tmp_path)
    features = make_features(model, 3, 40)
    alphabetical = dict(enumerate(sorted(EMOTIONS.values())))
    for kind in (SERForAudioClassification, AutoModelForAudioClassification):
        loaded = kind.from_pretrained(tmp_path, id2label=alphabetical)
        assert loaded.config.id2label == alphabetical and loaded.config.calibration_temperature == 2.5
        with torch.no_grad():
            before, after = model(features), loaded(features)
        for index, label in alphabetical.items():
            torch.testing.assert_close(after.logits[:, index], before.logits[:, model.config.label2id[label]])
        torch.testing.assert_close(after.likeness, before.likeness)
    assert not caplog.messages


def test_new_labels_of_the_same_number_get_new_weights_alone(tmp_path, caplog):
    model = make_model(calibration_temperature=2.5)
    model.save_pretrained(tmp_path)
    labels = {0: "sad", 1: "dull", 2: "lively", 3: "neutral"}
    with pytest.raises(ValueError, match=r"not \['dull', 'lively'\]; give ignore_mismatched_sizes=True for new .* set"):
        SERForAudioClassification.from_pretrained(tmp_path, id2label=labels)
    label2id = {label: index for index, label in labels.items()}
    loaded = SERForAudioClassification.from_pretrained(tmp_path, label2id=label2id, ignore_mismatched_sizes=True)
    assert loaded.config.id2label == labels and loaded.config.calibration_temperature == 1.0
    head, old = loaded.classifier, model.classifier
    assert torch.equal(head.weight[[0, 3]], old.weight[[2, 0]]) and torch.equal(head.bias[[0, 3]], old.bias[[2, 0]])
    assert not any(torch.equal(new, row) for new in head.weight[1:3] for row in old.weight)
    assert any("the labels ['dull', 'lively'] are new and must be trained; to call" in line for line in caplog.messages)
    renamed = SERForAudioClassification.from_pretrained(tmp_path)
    renamed.config.id2label = {0: "neutral", 1: "froh", 2: "traurig", 3: "zornig"}  # as the message says
    renamed.save_pretrained(tmp_path / "renamed")
    again = SERForAudioClassification.from_pretrained(tmp_path / "renamed")
    assert torch.equal(again.classifier.weight, old.weight) and again.config.label2id["zornig"] == 3


def test_more_labels_than_ten_stay_in_their_order(tmp_path):
    """JSON sorts their indices as words."""
    model = make_model(id2label=dict(enumerate("abcdefghijkl")))
    model.save_pretrained(tmp_path)
    loaded = SERForAudioClassification.from_pretrained(tmp_path, id2label=dict(enumerate("abcdefghijkl")))
    assert torch.equal(loaded.classifier.weight, model.classifier.weight)


def test_a_head_that_the_file_lacks_takes_over_no_calibration(tmp_path):
    model = make_model(calibration_temperature=2.5)
    model.ser.save_pretrained(tmp_path)
    assert SERForAudioClassification.from_pretrained(tmp_path).config.calibration_temperature == 1.0


def test_features_of_another_extractor_are_refused():
    model = make_model(num_features=40, num_channels=2)
    with pytest.raises(ValueError, match="has 40 features a frame; this model was built for 2 x 40; use the feature"):
        model(torch.zeros(1, 50, 40))


# What is refused when it is built.


def test_unknown_backbone_is_refused_naming_the_nearest():
    with pytest.raises(ValueError, match=r"unknown backbone 'cmn'; known: .*'cnn'.*; did you mean 'cnn'\?"):
        SERForAudioClassification(SERConfig(backbone="cmn"))


@every_backbone
def test_unknown_backbone_option_is_refused_naming_the_known(name):
    with pytest.raises(ValueError, match=rf"backbone '{name}' has no option \['no_such_option'\]; known: \["):
        SERForAudioClassification(SERConfig(backbone=name, backbone_options={"no_such_option": 3}))


@pytest.mark.parametrize(
    ("backbone", "options", "message"),
    [
        ("cnn", {"stem_kernel": 4}, "stem_kernel is 4; it must be odd"),
        ("shallow_cnn", {"kernel": 4}, "kernel is 4; it must be odd"),
        ("cnn1d", {"kernel": 4}, "kernel is 4; it must be odd"),
        ("cnn1d", {"stride": 0}, "option stride of backbone 'cnn1d' is 0; it must be a whole number of at least 1"),
        ("cnn", {"widths": []}, r"option widths of backbone 'cnn' is \[\]; it must be whole numbers"),
        ("cnn", {"hidden_size": "256"}, "hidden_size of backbone 'cnn' is '256'; it must be a whole number"),
        ("deep_cnn", {"halve_both": 3}, "halve_both of backbone 'deep_cnn' is 3; it must be numbers of convolutions"),
        ("lstm", {"dropout": 1.0}, "dropout of backbone 'lstm' is 1.0; it must be at least 0 and below 1"),
        ("timm/vit_tiny_patch16_224", {}, "cannot read images of 80 x 64 .*choose a convolutional network"),
        ("timm/mambaout_femto", {}, r"gives maps \(1, 3, 2, 288\), not \(B, 288, F, L\) with the channels second"),
    ],
)
def test_impossible_options_are_refused_when_it_is_built(backbone, options, message):
    with pytest.raises(ValueError, match=message):
        SERForAudioClassification(SERConfig(backbone=backbone, backbone_options=options))


def test_options_of_a_new_backbone_may_be_of_any_kind(monkeypatch):
    class Mine(BACKBONES["cnn1d"]):
        def __init__(self, num_channels: int, num_features: int, wide: bool = False, norm: str | None = None):
            super().__init__(num_channels, num_features)
            self.told = wide, norm

    monkeypatch.setitem(BACKBONES, "mine", Mine)
    options = {"wide": True, "norm": "layer"}
    model = SERForAudioClassification(SERConfig(backbone="mine", backbone_options=options, invert_dct=False))
    assert model.ser.backbone.told == (True, "layer")
    with pytest.raises(ValueError, match="option wide of backbone 'mine' is 3; it must be true or false"):
        SERForAudioClassification(SERConfig(backbone="mine", backbone_options={"wide": 3}))


@pytest.mark.parametrize("key", ["pooling", "calibration_temperature", "label2id"])
def test_what_from_pretrained_is_given_is_checked_too(tmp_path, key):
    make_model().save_pretrained(tmp_path)
    value = {"pooling": "men", "calibration_temperature": 0.0, "label2id": ["a", "b", "c", "d"]}[key]
    with pytest.raises(ValueError, match=f"SERConfig.{key} is {re.escape(repr(value))}"):
        SERForAudioClassification.from_pretrained(tmp_path, **{key: value})


def test_a_threshold_without_a_score_refuses_every_recording(tmp_path):
    make_model().save_pretrained(tmp_path)
    model = SERForAudioClassification.from_pretrained(tmp_path, likeness_threshold=0.5)
    assert not model.likeness_weight.any()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("num_features", 0),
        ("num_features", 40.0),
        ("num_features", True),
        ("num_cepstral_channels", True),
        ("likeness_threshold", False),
        ("num_channels", -1),
        ("pooling", "max"),
        ("dropout", 1.0),
        ("dropout", -0.1),
        ("dropout", False),
        ("calibration_temperature", 0.0),
        ("calibration_temperature", float("nan")),
        ("id2label", {}),
        ("id2label", {0: "sad", 1: "sad"}),
        ("id2label", {1: "sad", 2: "happy"}),
        ("id2label", ["sad", "happy"]),
        ("id2label", {0: "sad", 1: None}),
        ("backbone", 5),
        ("backbone_options", "widths"),
        ("freeze_backbone", "no"),
    ],
)
def test_impossible_configuration_is_refused_naming_the_key(key, value):
    with pytest.raises(ValueError, match=re.escape(f"SERConfig.{key} is {value!r}; it must")):
        SERConfig(**{key: value})


def test_labels_read_both_ways():
    config = SERConfig(id2label=EMOTIONS)
    assert config.label2id == {"neutral": 0, "happy": 1, "sad": 2, "angry": 3}
    assert config.num_labels == 4


# What some backbones can and others refuse.


@every_network
@pytest.mark.filterwarnings("error::FutureWarning")
def test_gradient_checkpointing_gives_the_same_gradients_and_statistics_or_is_refused(name):
    model = make_model(name, dropout=0.0).train()
    if not model.supports_gradient_checkpointing:
        with pytest.raises(ValueError, match="gradient checkpointing"):
            model.activation_checkpointing_enable()
        return
    plain = copy.deepcopy(model)
    with pytest.raises(ValueError, match="use_reentrant=True came"):
        model.activation_checkpointing_enable({"use_reentrant": True})
    model.activation_checkpointing_enable()
    features, labels = make_features(model, 4, 200), torch.tensor([0, 1, 2, 3])
    for each in (plain, pickle.loads(pickle.dumps(model)), model):
        each(features, labels=labels).loss.backward()
    for key, weight in model.named_parameters():
        torch.testing.assert_close(weight.grad, plain.get_parameter(key).grad, msg=key)
    for key, value in model.named_buffers():
        torch.testing.assert_close(value, plain.get_buffer(key), msg=key)
    model.activation_checkpointing_disable()
    assert not model.is_activation_checkpointing


@every_network
def test_frozen_backbone_learns_nothing_and_the_head_does(name):
    model = make_model(name, freeze_backbone=True).train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    optimizer = torch.optim.SGD([weight for weight in model.parameters() if weight.requires_grad], lr=0.1)
    model(make_features(model, 4, 200), labels=torch.tensor([0, 1, 2, 3])).loss.backward()
    optimizer.step()
    changed = {key for key, value in model.state_dict().items() if not torch.equal(value, before[key])}
    assert {"classifier.weight", "classifier.bias"} <= changed
    assert not {key for key in changed if key.startswith("ser.backbone.")}  # nor the statistics of its norms


@torch.no_grad()
@pytest.mark.parametrize(
    ("alone", "together"),
    [
        ([32], [32]),
        ([32, 64], [64, 64]),
        ([32, 32, 64, 64], [32, 32, 64, 64]),
        ([64, 32, 96, 64, 96], [64, 64, 96, 64, 96]),
        ([32, 32, 96, 64, 64], [32, 32, 96, 96, 96]),
        ([32, 96, 64, 128], [64, 128, 64, 128]),
        ([32, 64, 64, 96], [96, 96, 96, 96]),
    ],
)
def test_no_utterance_has_a_canvas_alone(alone, together):
    assert in_company(torch.tensor(alone)).tolist() == together


def test_timm_learns_from_a_short_utterance_that_has_no_like_in_its_batch():
    options = {"canvas_frames": 32, "min_rows": 32}  # which end in maps of 1 x 1
    model = make_model("timm/mobilenetv3_small_050", num_features=32, backbone_options=options).train()
    mask = (torch.arange(64) < torch.tensor([[20], [64], [60]])).long()
    model(make_features(model, 3, 64), mask).logits.sum().backward()
    assert all(weight.grad.isfinite().all() for weight in model.parameters())


def test_resnet18_computes_what_that_of_timm_computes():
    reference = timm.create_model("resnet18", in_chans=1, num_classes=0, global_pool="").eval()
    model = make_model("resnet18", invert_dct=False)
    weights = {key: value for key, value in reference.state_dict().items() if not key.startswith("fc.")}
    model.ser.backbone.load_state_dict(weights)
    features = make_features(model, 2, 192)
    maps = reference(features.transpose(1, 2)[:, None])  # (B, 512, F', L')
    frames = model.ser(features).last_hidden_state.transpose(1, 2)
    torch.testing.assert_close(frames, maps.mean(dim=2), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["resnet18", "inception_v3", "timm/mobilenetv3_small_050"])
def test_pretrained_weights_that_cannot_be_fetched_say_so(name):
    """Offline, as tests are; nothing has ever filled the cache of this folder."""
    code = (
        "from ser_model import SERConfig, SERForAudioClassification as Model\n"
        f"Model(SERConfig(backbone={name!r})).load_pretrained_backbone()"
    )
    with tempfile.TemporaryDirectory() as empty:
        environment = os.environ | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "HF_HOME": empty}
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.returncode == 1
    assert re.search(
        r"OSError: the pretrained weights of .* could not be fetched .*pretrained_backbone: false", done.stderr
    )


def test_backbones_without_pretrained_weights_refuse_them():
    with pytest.raises(ValueError, match="no pretrained weights for the backbone 'cnn'.*pretrained_backbone: false"):
        make_model("cnn").load_pretrained_backbone()


def test_networks_that_timm_does_not_have_are_refused():
    with pytest.raises(ValueError, match="timm cannot make 'resnet0'"):
        make_model("timm/resnet0")


@pytest.mark.parametrize(("name", "millions"), [("deep_cnn", 10.9), ("resnet18", 11.2)])
def test_the_two_networks_of_the_14_class_experiment_have_their_size(name, millions):
    model = make_model(name, num_features=40, id2label=dict(enumerate(map(str, range(14)))), invert_dct=False)
    assert sum(weight.numel() for weight in model.parameters()) == pytest.approx(millions * 1e6, rel=0.01)


@pytest.mark.parametrize(("key", "near"), [("poling", "pooling"), ("num_featurs", "num_features"), ("n_mels", "")])
def test_unknown_setting_is_refused_with_the_nearest(key, near):
    with pytest.raises(ValueError, match=f"no setting '{key}'.*{near}"):
        SERConfig(**{key: 1})


@pytest.mark.parametrize("kind", [AutoConfig, AutoModelForAudioClassification])
def test_a_misspelt_setting_is_refused_where_a_model_is_loaded(kind, tmp_path):
    make_model().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="SERConfig knows no setting 'poolling'; did you mean 'pooling'?"):
        kind.from_pretrained(tmp_path, poolling="mean")


def test_labels_may_be_given_by_their_indices_alone(tmp_path):
    make_model().save_pretrained(tmp_path)
    labels = {"label2id": {"no": 1, "yes": 0}, "ignore_mismatched_sizes": True}
    for options in (labels, labels | {"num_labels": 2}):
        loaded = SERForAudioClassification.from_pretrained(tmp_path, **options)
        assert loaded.config.id2label == {0: "yes", 1: "no"} and loaded.classifier.out_features == 2


def test_a_later_version_may_have_written_more_keys():
    assert SERConfig.from_dict(SERConfig().to_dict() | {"key_of_tomorrow": 1}).backbone == "cnn"


@pytest.mark.parametrize("kind", ["multi_label_classification", "regression"])
def test_kinds_of_problem_that_it_does_not_solve_are_refused(kind):
    with pytest.raises(ValueError, match="a voice gets one label"):
        SERConfig(problem_type=kind)
    assert SERConfig(problem_type="single_label_classification").problem_type == "single_label_classification"


def test_the_trainer_of_transformers_is_given_logits_alone(tmp_path):
    model = make_model()
    model.set_likeness(torch.ones(model.ser.pooling.output_size), 0.0)
    clips = [{"input_features": features, "labels": 1} for features in make_features(model, 3, 20)]
    arguments = TrainingArguments(str(tmp_path), report_to=[], use_cpu=True, disable_tqdm=True)
    shapes = []
    judge = Trainer(
        model, arguments, eval_dataset=clips, compute_metrics=lambda found: shapes.append(found.predictions.shape) or {}
    )
    judge.evaluate()
    assert shapes == [(3, 4)]


def test_what_scripts_of_transformers_ask_a_model_for_is_there():
    model = make_model()
    assert model(**model.dummy_inputs).logits.shape == (1, 4)
    model.freeze_feature_encoder()
    assert model.config.freeze_backbone and not any(weight.requires_grad for weight in model.ser.backbone.parameters())
    assert model.classifier.weight.requires_grad


@pytest.mark.parametrize("kind", [SERForAudioClassification, SERModel])
def test_a_device_map_puts_it_on_one_card_of_several(kind):
    model = kind(SERConfig(num_members=2))
    size_bytes = model.get_memory_footprint()
    cards = {0: size_bytes // 2, 1: 4 * size_bytes}  # the first would take a part of it
    assert set(infer_auto_device_map(model, cards, list(model._no_split_modules)).values()) == {1}


def test_a_replica_without_parameters_of_its_own_answers_alike():
    """As `nn.DataParallel` makes them."""
    model = make_model()
    features = make_features(model, 2, 30)
    replica = copy.deepcopy(model)
    for module in replica.modules():
        weights, module._parameters = module._parameters, {}
        for name, weight in weights.items():
            setattr(module, name, None if weight is None else weight.detach())
    assert not list(replica.parameters())
    with torch.no_grad():
        torch.testing.assert_close(replica(features).logits, model(features).logits)


def test_labels_that_do_not_match_are_refused():
    with pytest.raises(ValueError, match="num_labels is 5, but id2label names 4"):
        SERConfig(num_labels=5, id2label=EMOTIONS)
    with pytest.raises(ValueError, match="label2id is {'stale': 7}, but id2label says"):
        SERConfig(id2label=EMOTIONS, label2id={"stale": 7})
    assert SERConfig(label2id={"yes": 0, "no": 1}).id2label == {0: "yes", 1: "no"}


def test_class_indices_may_be_digits_as_the_tutorials_of_transformers_have_them(tmp_path):
    labels = {"id2label": {"0": "yes", "1": "no"}, "label2id": {"yes": "0", "no": "1"}}
    make_model().save_pretrained(tmp_path)
    made = SERConfig(**labels)
    loaded = SERForAudioClassification.from_pretrained(tmp_path, num_labels=2, ignore_mismatched_sizes=True, **labels)
    for config in (made, loaded.config, SERConfig(label2id=labels["label2id"])):
        assert config.id2label == {0: "yes", 1: "no"} and config.label2id == {"yes": 0, "no": 1}
    with pytest.raises(ValueError, match="label2id is .* but id2label says"):
        SERConfig(id2label=labels["id2label"], label2id={"yes": "1", "no": "0"})
    with pytest.raises(ValueError, match="it must name each class once, counted from 0"):
        SERConfig(id2label={"1": "yes", "2": "no"})


def test_new_labels_read_both_ways_at_once():
    config = SERConfig(id2label=EMOTIONS)
    config.id2label = {0: "yes", 1: "no"}
    assert config.label2id == {"yes": 0, "no": 1}
