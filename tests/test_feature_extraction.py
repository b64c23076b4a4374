"""The extractor pads and masks what it can hear, and refuses the rest with a remedy."""

import json
import logging
import re

import numpy as np
import pytest
import torch
from transformers import AutoFeatureExtractor, DataCollatorWithPadding, Trainer, TrainingArguments

from ser_model import SERConfig, SERFeatureExtractor, SERForAudioClassification
from ser_model.feature_extraction_ser import FEATURES

RATE = 16_000
FRAME, HOP = 512, 256  # samples
SETTINGS = {"n_mfcc": 40, "n_mels": 64, "frame_ms": 32, "hop_ms": 16, "n_fft": 1024}
WIDTH = SETTINGS["n_mfcc"]


def make_extractor(**settings) -> SERFeatureExtractor:
    return SERFeatureExtractor(**{**SETTINGS, **settings})


def noise(samples: int, seed: int = 0) -> np.ndarray:
    return (0.1 * np.random.default_rng(seed).standard_normal(samples)).astype(np.float32)


@pytest.mark.parametrize("delta_order", [0, 1, 2])
def test_shapes_and_mask_follow_the_lengths(delta_order):
    extractor = make_extractor(trim_db=None, delta_order=delta_order)
    clips = [noise(FRAME), noise(RATE), noise(RATE + HOP)]
    batch = extractor(clips, sampling_rate=RATE, return_tensors="pt")
    frames = [len(clip) // HOP + 1 for clip in clips]
    assert batch["input_features"].shape == (3, max(frames), (1 + delta_order) * WIDTH)
    assert batch["input_features"].dtype == torch.float32
    assert batch["attention_mask"].dtype == torch.int64
    assert batch["attention_mask"].sum(dim=1).tolist() == frames
    assert not batch["input_features"][batch["attention_mask"] == 0].any()
    assert list(batch) == extractor.model_input_names


def test_mask_follows_the_trimmed_length():
    extractor = make_extractor(trim_margin_ms=0)
    quiet = np.zeros(RATE, np.float32)
    clips = [np.concatenate([quiet, noise(RATE // 2)]), noise(RATE)]
    batch = extractor(clips, sampling_rate=RATE, return_tensors="pt")
    short, whole = batch["attention_mask"].sum(dim=1).tolist()
    assert whole == RATE // HOP + 1 == batch["input_features"].shape[1]
    assert abs(short - RATE // 2 // HOP) <= 2


@pytest.mark.parametrize("features", [*FEATURES, ("chroma", "mfcc"), ("mfcc", "chroma", "contrast"), tuple(FEATURES)])
def test_features_are_stacked_in_the_order_they_are_named(features):
    names = (features,) if isinstance(features, str) else features
    settings = {"trim_db": None, "n_chroma": 24, "delta_order": 1}
    stacked = make_extractor(features=features, **settings)
    frames = stacked(noise(RATE), sampling_rate=RATE, return_tensors="np")["input_features"][0]
    channels = frames.reshape(len(frames), stacked.num_channels, stacked.num_features)
    start = 0
    for name, size in zip(names, stacked.feature_sizes, strict=True):
        single = make_extractor(features=name, **settings)
        alone = single(noise(RATE), sampling_rate=RATE, return_tensors="np")["input_features"][0]
        assert single.num_features == size
        np.testing.assert_array_equal(channels[..., start : start + size].reshape(len(frames), -1), alone)
        start += size
    assert start == stacked.num_features


def test_every_feature_has_as_many_rows_as_its_settings_say():
    sizes = make_extractor(features=list(FEATURES), n_chroma=24, contrast_n_bands=5).feature_sizes
    expected = {"mfcc": 40, "log_mel": 64, "mel": 64, "log_spectrogram": 513, "spectrogram": 513}
    assert dict(zip(FEATURES, sizes, strict=True)) == expected | {"chroma": 24, "pitch": 80, "contrast": 6}


@pytest.mark.parametrize("delta_order", [0, 1])
def test_features_of_equal_size_can_lie_in_channels_of_their_own(delta_order):
    settings = {"features": ["mfcc", "pitch"], "n_pitch": WIDTH, "delta_order": delta_order}
    waveforms, lengths = torch.from_numpy(noise(RATE))[None], torch.tensor([RATE])
    channels = make_extractor(stacking="channels", **settings).fit([(waveforms, lengths)])
    rows = make_extractor(**settings).fit([(waveforms, lengths)])
    assert (channels.num_channels, channels.num_features) == (2 * (1 + delta_order), WIDTH)
    assert (rows.num_channels, rows.num_features) == (1 + delta_order, 2 * WIDTH)
    ours = channels.extract(waveforms, lengths)[0].unflatten(-1, (2, 1 + delta_order, WIDTH))
    theirs = rows.extract(waveforms, lengths)[0].unflatten(-1, (1 + delta_order, 2, WIDTH))
    torch.testing.assert_close(ours, theirs.transpose(2, 3))  # the same numbers, spread alike, in another order


@pytest.mark.parametrize("delta_order", [0, 1])
def test_each_further_window_hears_all_features_once_more(delta_order):
    settings = {"features": ["mfcc", "pitch"], "n_pitch": WIDTH, "delta_order": delta_order, "trim_db": None}
    windows = {32: 1024, 16: 1024, 80: 2048}  # length: FFT, the next power of two where one frame is more than n_fft
    first, *more = windows
    rows, channels = (
        make_extractor(more_frames_ms=more, stacking=stacking, **settings) for stacking in ("rows", "channels")
    )
    assert (rows.num_channels, rows.num_features) == (3 * (1 + delta_order), 2 * WIDTH)
    assert (channels.num_channels, channels.num_features) == (2 * 3 * (1 + delta_order), WIDTH)
    waveforms, lengths = torch.from_numpy(np.stack([noise(RATE), noise(RATE, 1)])), torch.tensor([RATE, RATE // 2])
    ours = rows.extract(waveforms, lengths)[0].unflatten(-1, (3, 1 + delta_order, 2, WIDTH))
    theirs = channels.extract(waveforms, lengths)[0].unflatten(-1, (2, 3, 1 + delta_order, WIDTH))
    torch.testing.assert_close(ours, theirs.permute(0, 1, 3, 4, 2, 5))
    for number, (frame_ms, n_fft) in enumerate(windows.items()):
        single = make_extractor(**settings | {"frame_ms": frame_ms, "n_fft": n_fft})
        alone = single.extract(waveforms, lengths)[0].unflatten(-1, (1 + delta_order, 2, WIDTH))
        torch.testing.assert_close(ours[:, :, number], alone)


def test_all_windows_hear_the_same_frames():
    """Quiet ends are found with the first window, and a click lies in the same frame of all."""
    clip = np.concatenate([np.zeros(RATE), noise(RATE), np.zeros(RATE)]).astype(np.float32)
    clip[100 * HOP] = 10.0
    single, several = make_extractor(features="log_mel"), make_extractor(features="log_mel", more_frames_ms=[16, 80])
    alone, together = (own(clip, sampling_rate=RATE, return_tensors="pt") for own in (single, several))
    assert torch.equal(alone.attention_mask, together.attention_mask)
    channels = together.input_features[0].unflatten(-1, (3, -1))
    torch.testing.assert_close(channels[:, 0], alone.input_features[0])
    assert len(set(channels[:, :, -1].argmax(dim=0).tolist())) == 1  # of the top band


def test_settings_of_features_that_are_not_wanted_are_not_refused():
    assert make_extractor(features="log_mel", n_mels=32).num_features == 32  # fewer than n_mfcc
    assert make_extractor(features="chroma", n_mels=400).num_features == 12
    assert make_extractor(contrast_f_min=5000).num_features == WIDTH


def test_fixed_length_makes_40_by_194_of_any_clip():
    extractor = SERFeatureExtractor(n_mfcc=40, max_length_s=3.86, padding="max_length", trim_db=None)
    clips = [noise(RATE), noise(6 * RATE)]
    batch = extractor(clips, sampling_rate=RATE, return_tensors="pt")
    assert batch["input_features"].shape == (2, 194, 40)
    assert batch["attention_mask"].sum(dim=1).tolist() == [51, 194]
    assert not batch["input_features"][0, 51:].any()


def test_too_long_an_utterance_keeps_its_middle():
    whole = make_extractor(level="absolute", top_db=None, trim_db=None)
    cut = make_extractor(level="absolute", top_db=None, trim_db=None, max_length_s=0.5)
    frames, cut_frames = (
        extractor(noise(RATE), sampling_rate=RATE, return_tensors="np")["input_features"][0]
        for extractor in (whole, cut)
    )
    assert (len(frames), len(cut_frames)) == (63, 32)
    np.testing.assert_allclose(cut_frames, frames[15:47], rtol=0, atol=1e-3)


def test_longest_padding_follows_the_batch_up_to_the_limit():
    extractor = make_extractor(max_length_s=0.5, trim_db=None)
    for samples, frames in ((4000, 16), (RATE, 32)):
        assert extractor(noise(samples), sampling_rate=RATE, return_tensors="np")["input_features"].shape[1] == frames


@pytest.mark.parametrize("name", FEATURES)
def test_utterance_normalization_gives_zero_mean_and_unit_variance_without_fitting(name):
    def no_batches():
        raise AssertionError("there is nothing to learn from the training part")
        yield

    extractor = make_extractor(features=name, delta_order=1, normalization="utterance").fit(no_batches())
    assert extractor.feature_mean is None
    batch = extractor([noise(9000), noise(RATE, seed=1)], sampling_rate=RATE, return_tensors="np")
    for frames, mask in zip(batch["input_features"], batch["attention_mask"].astype(bool), strict=True):
        np.testing.assert_allclose(frames[mask].mean(axis=0), 0, atol=1e-3)
        np.testing.assert_allclose(frames[mask].std(axis=0), 1, atol=1e-3)


def test_one_waveform_is_a_batch_of_one_however_it_comes():
    extractor, waveform = make_extractor(), noise(4000)
    ways = [waveform, waveform.tolist(), torch.from_numpy(waveform), [waveform], waveform.astype(np.float64)]
    ways += [waveform[::-1][::-1], np.frombuffer(waveform.tobytes(), np.float32)]  # reversed twice; read-only
    expected = extractor(waveform, sampling_rate=RATE, return_tensors="np")["input_features"]
    assert len(expected) == 1
    for way in ways:
        np.testing.assert_array_equal(
            extractor(way, sampling_rate=RATE, return_tensors="np")["input_features"], expected
        )


def test_a_reversed_view_is_heard_backwards():
    extractor, waveform = make_extractor(), noise(4000)
    backwards = extractor(waveform[::-1], sampling_rate=RATE, return_tensors="np")["input_features"]
    copied = extractor(waveform[::-1].copy(), sampling_rate=RATE, return_tensors="np")["input_features"]
    np.testing.assert_array_equal(backwards, copied)


def test_lists_arrays_and_tensors_hold_the_same():
    extractor, clips = make_extractor(), [noise(4000), noise(6000)]
    tensors = extractor(clips, sampling_rate=RATE, return_tensors="pt")
    arrays = extractor(clips, sampling_rate=RATE, return_tensors="np")
    lists = extractor(clips, sampling_rate=RATE)
    for key in extractor.model_input_names:
        assert isinstance(tensors[key], torch.Tensor)
        assert isinstance(arrays[key], np.ndarray)
        assert isinstance(lists[key], list) and len(lists[key]) == 2
        np.testing.assert_array_equal(tensors[key].numpy(), arrays[key])
        np.testing.assert_array_equal(np.stack(lists[key]), arrays[key])


@pytest.mark.parametrize("integer", [np.int16, np.int32])
def test_integers_equal_scaled_floats(integer):
    extractor = make_extractor(level="absolute")
    full_scale = -float(np.iinfo(integer).min)
    samples = (noise(4000) * full_scale).astype(integer)
    by_integers = extractor(samples, sampling_rate=RATE, return_tensors="np")["input_features"]
    by_floats = extractor(samples / full_scale, sampling_rate=RATE, return_tensors="np")["input_features"]
    np.testing.assert_allclose(by_integers, by_floats, rtol=0, atol=1e-3)


ALL_CHANGED = {
    "features": ["mfcc", "chroma", "contrast"],
    "lifter": 22,
    "mel_scale": "slaney",
    "mel_unit_area": True,
    "f_min": 50,
    "f_max": 7000,
    "n_chroma": 24,
    "contrast_n_bands": 5,
    "contrast_f_min": 150,
    "contrast_quantile": 0.1,
    "window_name": "hamming",
    "top_db": None,
    "level": "absolute",
    "trim_db": 50,
    "trim_margin_ms": 50,
    "max_length_s": 0.3,
    "padding": "max_length",
    "delta_order": 1,
}


@pytest.mark.parametrize("normalization", ["dataset", "utterance", "none"])
def test_save_and_load_give_an_equal_extractor(tmp_path, normalization):
    extractor = make_extractor(**ALL_CHANGED, normalization=normalization).fit(
        [(torch.from_numpy(noise(8000))[None], torch.tensor([8000]))]
    )
    extractor.save_pretrained(tmp_path)
    loaded = SERFeatureExtractor.from_pretrained(tmp_path)
    assert loaded.to_dict() == extractor.to_dict()
    waveform = noise(6000, seed=1)
    np.testing.assert_array_equal(
        loaded(waveform, sampling_rate=RATE, return_tensors="np")["input_features"],
        extractor(waveform, sampling_rate=RATE, return_tensors="np")["input_features"],
    )


def test_settings_saved_when_there_were_only_mfccs_still_load(tmp_path):
    old = {"delta_order": 0, "f_max": 8000.0, "f_min": 20.0, "frame_ms": 40.0, "hop_ms": 20.0, "level": "relative"}
    old |= {"n_fft": 1024, "n_mels": 80, "n_mfcc": 80, "sampling_rate": 16000, "top_db": 80.0, "trim_db": 40.0}
    old |= {"trim_margin_ms": 100.0, "feature_extractor_type": "SERFeatureExtractor"}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(old))
    assert SERFeatureExtractor.from_pretrained(tmp_path).to_dict() == SERFeatureExtractor().to_dict()
    assert SERFeatureExtractor().features == ("mfcc",)
    assert SERFeatureExtractor.from_pretrained(tmp_path, features="chroma").features == ("chroma",)


NAN, INFINITE = noise(4000), noise(4000)
NAN[7], INFINITE[7] = np.nan, -np.inf
REFUSED = {
    "another rate": (noise(4000), 44_100, "the waveform is at 44100 Hz; this model hears 16000 Hz; resample it first"),
    "stereo": (np.stack([noise(4000)] * 2), RATE, "shape (2, 4000) came; one channel (T,) was wanted; average"),
    "stereo in a list": ([noise(4000), np.stack([noise(4000)] * 2)], RATE, "shape (2, 4000) came; one channel"),
    "no clips": ([], RATE, "0 samples are less than one frame of 512 (32 ms); give a longer recording"),
    "no samples": (np.zeros(0, np.float32), RATE, "0 samples are less than one frame of 512 (32 ms); give a longer"),
    "less than a frame": (
        noise(FRAME - 1),
        RATE,
        "511 samples are less than one frame of 512 (32 ms); give a longer",
    ),
    "NaN": (NAN, RATE, "holds NaN or infinity; repair or decode it again"),
    "infinity": (INFINITE, RATE, "holds NaN or infinity; repair or decode it again"),
    "unscaled floats": (noise(4000) * 0 + 1234, RATE, "peaks at 1234; floats in [-1, 1] were wanted; divide by"),
    "int64": (np.zeros(4000, np.int64), RATE, "samples are torch.int64; floats in [-1, 1], int16 or int32 were wanted"),
    "uint8": (np.zeros(4000, np.uint8), RATE, "samples are torch.uint8; floats in [-1, 1], int16 or int32 were wanted"),
    "a dict": ({"array": noise(4000)}, RATE, "a dict came; samples (T,) or a list of such were wanted"),
    "dicts": (
        [{"array": noise(4000), "sampling_rate": RATE}],
        RATE,
        "a dict came; samples (T,) or a list of such were",
    ),
    "a path": ("voice.wav", RATE, "a str came; samples (T,) or a list of such were wanted: decode a file first"),
    "paths": (["voice.wav"], RATE, "samples are <U9; floats in [-1, 1], int16 or int32 were wanted"),
    "nothing": (None, RATE, "a NoneType came; samples (T,) or a list of such were wanted"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_heard_is_refused_with_a_remedy(case):
    raw_speech, rate, message = REFUSED[case]
    with pytest.raises(ValueError, match=re.escape(message)):
        make_extractor()(raw_speech, sampling_rate=rate)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"return_tensors": "tf"}, "return_tensors is 'tf'; 'pt', 'np' or None was wanted"),
        ({"padding": "max_length"}, "padding is 'max_length'; this extractor pads to 'longest'"),
        ({"padding": "max"}, "padding is 'max'; this extractor pads to 'longest'"),
        ({"max_length": 4000}, "max_length and truncation=True cut waveforms together"),
        ({"max_length": 100, "truncation": True}, "max_length is 100 samples; at least a frame of 512 was wanted"),
    ],
)
def test_arguments_that_it_cannot_follow_are_refused(arguments, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        make_extractor()(noise(4000), sampling_rate=RATE, **arguments)


def test_the_usual_arguments_of_audio_extractors_are_taken():
    extractor, clips = make_extractor(), [noise(9000), noise(6000)]
    usual = {"sampling_rate": RATE, "padding": True, "max_length": 4000, "truncation": True, "return_tensors": "np"}
    heard = extractor(clips, **usual)
    expected = extractor([clip[:4000] for clip in clips], sampling_rate=RATE, return_tensors="np")
    np.testing.assert_array_equal(heard["input_features"], expected["input_features"])
    assert "attention_mask" not in extractor(clips, **usual, return_attention_mask=False)
    assert "attention_mask" in extractor(clips, **usual, return_attention_mask=None)


@pytest.mark.parametrize("padding", [False, "do_not_pad"])
@pytest.mark.parametrize("own", [{}, {"padding": "max_length", "max_length_s": 2.0}])
def test_clips_stay_as_long_as_they_are_where_padding_is_not_wanted(padding, own):
    extractor, clips = make_extractor(trim_db=None, **own), [noise(RATE), noise(RATE // 2)]
    padded = extractor(clips, sampling_rate=RATE, return_tensors="np")
    lists = extractor(clips, sampling_rate=RATE, padding=padding)
    for row, mask, cut in zip(padded["input_features"], padded["attention_mask"], lists["input_features"], strict=True):
        np.testing.assert_array_equal(row[mask == 1], cut)
    assert [len(mask) for mask in lists["attention_mask"]] == [63, 32]
    alone = extractor(clips[1], sampling_rate=RATE, padding=padding, return_tensors="pt")
    assert alone["input_features"].shape == (1, 32, WIDTH) and alone["attention_mask"].all()
    with pytest.raises(ValueError, match="but 2 clips make one tensor only if they are padded"):
        extractor(clips, sampling_rate=RATE, padding=padding, return_tensors="pt")


def test_an_extractor_without_statistics_is_warned_about_once(caplog):
    logging.Logger.warning_once.cache_clear()
    unfitted = make_extractor()
    for _ in range(2):
        unfitted(noise(4000), sampling_rate=RATE)
    assert [record.levelname for record in caplog.records] == ["WARNING"] and "call fit on training" in caplog.text
    caplog.clear()
    logging.Logger.warning_once.cache_clear()
    for quiet in (make_extractor(normalization="none"), unfitted.fit([(torch.randn(1, 4000), torch.tensor([4000]))])):
        quiet(noise(4000), sampling_rate=RATE)
    assert not caplog.records


def test_one_frame_is_enough():
    assert make_extractor()(noise(FRAME), sampling_rate=RATE, return_tensors="np")["attention_mask"].sum() == 3


def test_a_missing_rate_is_warned_about_and_a_given_one_is_not(caplog):
    extractor = make_extractor(normalization="none")
    with caplog.at_level(logging.WARNING):
        extractor(noise(4000), sampling_rate=RATE)
        assert not caplog.records
        extractor(noise(4000))
    assert "no sampling_rate was given; the waveform is taken to be at 16000 Hz" in caplog.text


IMPOSSIBLE = {
    "sampling_rate": {"sampling_rate": 0},
    "hop_ms": {"hop_ms": 33},  # longer than the frame
    "hop_ms, zero": {"hop_ms": 0},
    "hop_ms, less than a sample": {"hop_ms": 0.01},
    "n_fft": {"n_fft": 510},  # shorter than the frame of 512
    "n_fft, odd": {"n_fft": 1023},
    "n_fft, no integer": {"n_fft": 1024.0},
    "more_frames_ms": {"more_frames_ms": [8]},  # shorter than the hop
    "more_frames_ms, no list": {"more_frames_ms": 80},
    "more_frames_ms, quoted": {"more_frames_ms": ["80"]},
    "more_frames_ms, twice": {"more_frames_ms": [64, 64.0]},
    "more_frames_ms, the first": {"more_frames_ms": [32]},
    "more_frames_ms, of gigabytes": {"more_frames_ms": [1e9]},
    "more_frames_ms, endless": {"more_frames_ms": [float("inf")]},
    "more_frames_ms, of bins": {"more_frames_ms": [80], "features": "spectrogram"},  # 1025 where the first has 513
    "f_max": {"f_max": 8001},  # above Nyquist
    "f_max, below f_min": {"f_min": 500, "f_max": 400},
    "f_max, negative f_min": {"f_min": -1},
    "n_fft, of gigabytes": {"n_fft": 10**8},
    "hop_ms, quoted": {"hop_ms": "10"},
    "frame_ms": {"frame_ms": float("inf")},
    "trim_db, no number": {"trim_db": float("nan")},
    "max_length_s, endless": {"max_length_s": float("inf")},
    "features, a number": {"features": 5},
    "feature_mean, no number": {"feature_mean": [float("nan")] * WIDTH},
    "n_mfcc": {"n_mfcc": 65},  # more than there are mel bands
    "n_mfcc, none": {"n_mfcc": 0},
    "n_mfcc, no integer": {"n_mfcc": 40.5},
    "n_mels": {"n_mels": 400},  # some would lie between two FFT bins
    "features": {"features": "mfccs"},
    "features, none": {"features": []},
    "features, null": {"features": None},
    "features, twice": {"features": ["mfcc", "chroma", "mfcc"]},
    "lifter": {"lifter": -1},
    "mel_scale": {"mel_scale": "bark"},
    "mel_unit_area": {"mel_unit_area": "slaney"},
    "n_chroma": {"n_chroma": 0},
    "n_chroma, no integer": {"n_chroma": 12.0},
    "contrast_n_bands": {"features": "contrast", "contrast_n_bands": 7},  # the seventh would begin at 12.8 kHz
    "contrast_n_bands, none": {"contrast_n_bands": 0},
    "contrast_f_min": {"features": "contrast", "contrast_f_min": 10},  # less than one bin
    "contrast_f_min, zero": {"contrast_f_min": 0},
    "contrast_quantile": {"contrast_quantile": 1},
    "window_name": {"window_name": "boxcar"},
    "max_length_s": {"max_length_s": 0.03},  # shorter than the frame of 32 ms
    "padding": {"padding": "do_not_pad"},
    "padding, of no length": {"padding": "max_length"},
    "normalization": {"normalization": "batch"},
    "level": {"level": "loud"},
    "delta_order": {"delta_order": 3},
    "stacking": {"stacking": "channels", "features": ["mfcc", "chroma"]},
    "pitch_f_max": {"pitch_f_max": 50.0},
    "top_db": {"top_db": 0},
    "trim_db": {"trim_db": -40},
    "trim_margin_ms": {"trim_margin_ms": -50},
    "feature_mean": {"feature_mean": [0.0] * (WIDTH - 1)},
    "feature_std": {"feature_std": [1.0] * (WIDTH + 1)},
    "feature_std, zero": {"feature_std": [0.0] * WIDTH},
}


@pytest.mark.parametrize("case", IMPOSSIBLE)
def test_impossible_settings_are_refused_naming_the_key(case):
    key = case.split(",")[0]
    with pytest.raises(ValueError, match=rf"\b{key}\b"):
        make_extractor(**IMPOSSIBLE[case])


def test_a_misspelt_setting_is_told_where_an_extractor_is_loaded(tmp_path, caplog):
    make_extractor().save_pretrained(tmp_path)
    loaded = AutoFeatureExtractor.from_pretrained(tmp_path, n_mfccs=40, dtype="float32", trim_db=None)
    assert loaded.trim_db is None
    [said] = caplog.messages
    assert said == "SERFeatureExtractor knows no setting 'n_mfccs' and leaves it out; did you mean 'n_mfcc'?"


def test_what_a_later_version_saves_beside_its_settings_is_left_out(tmp_path, caplog):
    extractor = make_extractor()
    extractor.audio_processor_type = "SERAudioProcessor"
    extractor.save_pretrained(tmp_path)
    assert "audio_processor_type" not in SERFeatureExtractor.from_pretrained(tmp_path).to_dict()
    [said] = caplog.messages
    assert said == "SERFeatureExtractor knows nothing of audio_processor_type in its file and leaves it out"


def test_the_default_type_of_torch_is_no_matter():
    torch.set_default_dtype(torch.float64)
    try:
        extractor = make_extractor()
        features = extractor(noise(RATE), sampling_rate=RATE, return_tensors="pt")["input_features"]
    finally:
        torch.set_default_dtype(torch.float32)
    assert extractor.num_features == make_extractor().num_features and features.dtype == torch.float32


def test_unknown_settings_are_refused_naming_the_known():
    with pytest.raises(ValueError, match=r"no setting \['n_mfccs'\]; did you mean 'n_mfcc'\?; known: .*'n_mels'"):
        make_extractor(n_mfccs=40)


def test_an_unknown_feature_is_refused_with_the_nearest_known_one():
    with pytest.raises(ValueError, match=r"features is \('mfcc', 'croma'\); .*'contrast'\]; did you mean 'chroma'\?"):
        make_extractor(features=["mfcc", "croma"])


@pytest.mark.parametrize("delta_order", [0, 2])
def test_fit_gives_zero_mean_and_unit_spread_on_its_own_data(delta_order):
    clips = [noise(9000), 0.1 * np.cumsum(noise(6000, seed=1)), noise(12_000, seed=2)]
    batches = [
        (torch.nn.utils.rnn.pad_sequence([torch.from_numpy(clip) for clip in part], batch_first=True), lengths)
        for part, lengths in ((clips[:2], torch.tensor([9000, 6000])), (clips[2:], torch.tensor([12_000])))
    ]
    extractor = make_extractor(delta_order=delta_order).fit(batches)
    batch = extractor(clips, sampling_rate=RATE, return_tensors="pt")
    real = batch["input_features"][batch["attention_mask"].bool()].unflatten(1, (1 + delta_order, WIDTH))
    assert real.mean(dim=0).abs().max() < 1e-3
    # One standard deviation a channel, so that the features stay a rotation of the log-mel spectrum.
    torch.testing.assert_close(real.square().mean(dim=(0, 2)), torch.ones(1 + delta_order), rtol=0, atol=1e-3)
    assert len(set(extractor.feature_std)) == 1 + delta_order


def test_fit_gives_each_stacked_feature_its_own_spread():
    clips = [noise(9000), noise(12_000, seed=1)]
    batches = [(torch.from_numpy(clip)[None], torch.tensor([len(clip)])) for clip in clips]
    extractor = make_extractor(features=list(FEATURES), delta_order=1).fit(batches)
    batch = extractor(clips, sampling_rate=RATE, return_tensors="pt")
    real = batch["input_features"][batch["attention_mask"].bool()].unflatten(1, (2, extractor.num_features))
    assert real.mean(dim=0).abs().max() < 1e-3
    spreads = torch.tensor(extractor.feature_std).view(2, -1).split(extractor.feature_sizes, dim=1)
    for rows, std in zip(real.split(extractor.feature_sizes, dim=2), spreads, strict=True):
        torch.testing.assert_close(rows.square().mean(dim=(0, 2)), torch.ones(2), rtol=0, atol=1e-3)
        assert (std == std[:, :1]).all()
    assert len(set(extractor.feature_std)) == 2 * len(FEATURES)


def test_fit_again_forgets_the_first_fit():
    batch = [(torch.from_numpy(noise(9000))[None], torch.tensor([9000]))]
    once = make_extractor().fit(batch)
    twice = make_extractor().fit([(torch.ones(1, 4000), torch.tensor([4000]))]).fit(batch)
    assert twice.to_dict() == once.to_dict()


def test_fit_on_nothing_is_refused():
    with pytest.raises(ValueError, match="no utterance came .* is the training part empty"):
        make_extractor().fit([])


def heard_alone(extractor: SERFeatureExtractor, clips: list[np.ndarray]) -> list[dict]:
    """As `datasets.map` keeps them: features (L, F), mask (L) and a label of each clip."""
    one_by_one = [extractor(clip, sampling_rate=RATE) for clip in clips]
    return [{key: value[0] for key, value in one.items()} | {"label": 1} for one in one_by_one]


@pytest.mark.parametrize("samples", [[RATE, RATE], [RATE, RATE // 2]])
def test_batches_of_one_clip_are_not_collated_as_clips(samples):
    extractor = make_extractor()
    batches = [dict(extractor(noise(length), sampling_rate=RATE)) for length in samples]
    with pytest.raises(ValueError, match=r"of shape \(1, \d+, \d+\) came; .* take \[0\]"):
        DataCollatorWithPadding(extractor)(batches)


def test_clips_heard_alone_are_collated_as_if_they_were_heard_together():
    extractor = make_extractor()
    clips = [noise(RATE, seed=1), noise(RATE // 2, seed=2), noise(RATE + 5 * HOP, seed=3)]
    items = heard_alone(extractor, clips)
    batch = DataCollatorWithPadding(extractor)(items)
    together = extractor(clips, sampling_rate=RATE, return_tensors="pt")
    assert torch.equal(batch["attention_mask"], together["attention_mask"])
    torch.testing.assert_close(batch["input_features"], together["input_features"])
    assert batch["labels"].tolist() == [1, 1, 1] and batch["attention_mask"].dtype == torch.int64
    as_lists = [{"input_features": item["input_features"].tolist()} for item in items]  # and no mask
    assert torch.equal(extractor.pad(as_lists, return_tensors="pt")["attention_mask"], together["attention_mask"])


def test_what_the_extractor_gives_for_several_clips_is_collated_too():
    extractor, clips = make_extractor(), [noise(RATE, seed=1), noise(RATE // 2, seed=2)]
    batch = extractor.pad(extractor(clips, sampling_rate=RATE, padding=False), return_tensors="pt")
    together = extractor(clips, sampling_rate=RATE, return_tensors="pt")
    assert torch.equal(batch["attention_mask"], together["attention_mask"])
    torch.testing.assert_close(batch["input_features"], together["input_features"])


def test_clips_are_collated_on_the_device_where_they_lie():
    clips = [{"input_features": torch.zeros(length, WIDTH), "label": torch.tensor(1)} for length in (5, 9)]
    with_masks = [clip | {"attention_mask": torch.ones(len(clip["input_features"]))} for clip in clips]
    for items in (clips, with_masks):
        there = [{key: value.to("meta") for key, value in item.items()} for item in items]  # as far from NumPy as a GPU
        batch = make_extractor().pad(there, return_tensors="pt")
        assert {value.device.type for value in batch.values()} == {"meta"}
        assert batch["attention_mask"].shape == (2, 9) and batch["attention_mask"].dtype == torch.int64


@pytest.mark.parametrize("values", [["a.wav", "b.wav"], [[1, 2], [3]], [None, None], [torch.ones(2), torch.ones(3)]])
def test_a_column_that_makes_no_tensor_is_named(values):
    items = heard_alone(extractor := make_extractor(), [noise(RATE), noise(RATE // 2)])
    items = [item | {"speaker": value} for item, value in zip(items, values, strict=True)]
    with pytest.raises(ValueError, match="the column 'speaker' makes no tensor .*; remove it before clips are padded"):
        DataCollatorWithPadding(extractor)(items)


@pytest.mark.parametrize("asked", [{"padding": "max_length"}, {"max_length": 9}, {"pad_to_multiple_of": 8}])
def test_a_collation_that_pads_otherwise_is_refused(asked):
    extractor = make_extractor()
    with pytest.raises(ValueError, match="padded to the longest of them, so leave these out"):
        DataCollatorWithPadding(extractor, **asked)(heard_alone(extractor, [noise(RATE)]))


def test_the_trainer_of_transformers_learns_from_clips_of_different_lengths(tmp_path):
    extractor = make_extractor()
    options = {"widths": [4, 4, 4, 4], "hidden_size": 8}
    config = SERConfig(num_features=WIDTH, backbone_options=options, id2label={0: "calm", 1: "tense"})
    model = SERForAudioClassification(config)
    before = model.classifier.weight.detach().clone()
    clips = heard_alone(extractor, [noise(RATE, seed=1), noise(RATE // 2, seed=2)])
    arguments = TrainingArguments(
        str(tmp_path), max_steps=1, per_device_train_batch_size=2, report_to=[], use_cpu=True, disable_tqdm=True
    )
    collate = DataCollatorWithPadding(extractor)
    Trainer(model, arguments, train_dataset=clips, data_collator=collate, processing_class=extractor).train()
    assert not torch.equal(model.classifier.weight, before)
