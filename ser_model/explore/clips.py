"""The sections on a few clips: one of each emotion, and one of them before and after what training does to it."""

import re

import numpy as np
import torch
from torch import Tensor

from ..audio import load_audio
from ..augment import Augmenter
from ..corpora.base import relative_path
from ..feature_extraction_ser import SERFeatureExtractor
from ..pictures import MIN_PEAK
from ..settings import AugmentationSettings
from .findings import Clip, Findings, example_clips
from .page import Draw, Section
from .pictures import augmented, clip_panels, heard_panels, mel_levels, plain_extractor, rate_panels, trim_panels

EMOTIONS_SHOWN = 12
RATES_HZ = (8_000, 16_000, 22_050)  # telephone, speech recognition, half of a CD
CLIP_MAX_S = 6.0  # beyond, single syllables are no longer seen
MFCC_SHOWN = 40  # higher ones look like noise
DRAWS = 9  # of each augmentation; a marked one is shown, for a single one may do next to nothing
TRIM_DB = 40.0  # shown where the config trims nothing
INAUDIBLE_DB = 0.01  # what arithmetic alone does


def clip_sections(findings: Findings, draw: Draw) -> list[Section]:
    """Clips of all emotions side by side, then the loudest of them under augmentation, resampling and trimming."""
    extractor = findings.extractor
    examples = dict(list(example_clips(findings.clips).items())[:EMOTIONS_SHOWN])
    waveforms = {emotion: load_start(clip, extractor.sampling_rate) for emotion, clip in examples.items()}
    loudest = max(examples, key=lambda emotion: examples[emotion].sound.loudness_db)
    other = next((emotion for emotion in examples if emotion != loudest), loudest)
    pair = waveforms[loudest], waveforms[other]
    return [
        emotions_section(findings, draw, examples, waveforms),
        augmentation_section(findings.settings.augmentation, draw, loudest, pair, extractor),
        conversion_section(draw, examples[loudest], waveforms[loudest], extractor),
    ]


def load_start(clip: Clip, sampling_rate: int) -> np.ndarray:
    """The first `CLIP_MAX_S` of a clip (T,)."""
    return load_audio(clip.utterance.path, sampling_rate)[: round(CLIP_MAX_S * sampling_rate)]


def emotions_section(
    findings: Findings, draw: Draw, examples: dict[str, Clip], waveforms: dict[str, np.ndarray]
) -> Section:
    plain = plain_extractor(findings.extractor)
    n_mfcc = min(findings.extractor.n_mfcc, plain.n_mels, MFCC_SHOWN)
    duration_s = max(map(len, waveforms.values())) / plain.sampling_rate
    pictures = []
    for number, (emotion, clip) in enumerate(examples.items(), 1):
        said = clip.utterance
        what = ", ".join(filter(None, [emotion, said.speaker_known and said.speaker, said.text and f"“{said.text}”"]))
        figure = clip_panels(plain, waveforms[emotion], n_mfcc, duration_s)
        alt = f"Waveform, spectrogram, log-mel spectrogram and MFCCs of a clip, {what}"
        name = f"clip_{number:02}_{re.sub(r'[^A-Za-z0-9]+', '_', emotion)}"
        pictures.append(draw(name, figure, alt, f"{what}. {relative_path(said.path, findings.folders)}"))
    text = (
        f"Waveform, linear spectrogram, {plain.n_mels} mel bands, and MFCCs 0 to {n_mfcc - 1}, each on its own scale. "
        "Yellow is the loudest, dark blue 80 dB or more below it. The clips are at "
        f"{plain.sampling_rate} Hz and not trimmed."
    )
    return Section("One clip of each emotion", [text], pictures=pictures)


def augmentation_section(
    settings: AugmentationSettings,
    draw: Draw,
    emotion: str,
    waveforms: tuple[np.ndarray, np.ndarray],
    extractor: SERFeatureExtractor,
) -> Section:
    """`waveforms` are the clip, and another to blend it with."""
    plain = plain_extractor(extractor)
    levels = mel_levels(plain, waveforms[0])
    results = {"none": (waveforms[0], levels)}
    for name in type(settings).model_fields:
        augmenter = Augmenter(alone_in(settings, name), plain.sampling_rate, max_frames=10**6, seed=0)
        drawn = [augmented(plain, *waveforms, augmenter(epoch, torch.arange(2))) for epoch in range(DRAWS)]
        marked = sorted(drawn, key=lambda result: _change(levels, result[1]))[DRAWS * 2 // 3]
        if _change(levels, marked[1]) > INAUDIBLE_DB:
            results[name] = marked
    duration_s = max(len(after) for _, after in results.values()) * plain.hop_ms / 1000
    limit = 1.05 * max(MIN_PEAK, *(float(np.abs(waveform).max()) for waveform, _ in results.values()))
    pictures = []
    for name, (waveform, after) in results.items():
        caption = "As it is" if name == "none" else describe(settings, name)
        figure = heard_panels(plain, waveform, after, duration_s, limit, top_db=float(levels.max()))
        alt = f"Waveform and log-mel spectrogram of the {emotion} clip. {caption}"
        pictures.append(draw(f"augmentation_{name}", figure, alt, caption))
    text = [
        f"The {emotion} clip under one augmentation at a time, at the config's strength. Training draws anew for every "
        "clip and epoch, with the probability given; here each is made to happen, and shown is one that changes more "
        f"than most of {DRAWS} draws. Augmentations of the spectrum leave the waveform as it is. Nothing is trimmed."
    ]
    if idle := [name for name in type(settings).model_fields if name not in results]:
        text.append(f"Without effect on this clip: {', '.join(idle)}.")
    return Section("Augmentation", text, pictures=pictures)


def alone_in(settings: AugmentationSettings, name: str) -> AugmentationSettings:
    """One augmentation as it is set, but on every clip; all others off."""
    sections = {other: getattr(settings, other).model_dump() for other in type(settings).model_fields}
    return type(settings)(**{other: own | {"probability": float(other == name)} for other, own in sections.items()})


def describe(settings: AugmentationSettings, name: str) -> str:
    """An augmentation in words: "noise (probability 0.3): snr_db 5 to 30, slope 0 to 1"."""
    own = getattr(settings, name).model_dump()
    probability = own.pop("probability")
    values = [f"{key} {_range(value)}" for key, value in own.items() if value is not None]
    return f"{name.replace('_', ' ')} ({f'probability {probability:g}' if probability else 'off'}): {', '.join(values)}"


def conversion_section(draw: Draw, clip: Clip, waveform: np.ndarray, extractor: SERFeatureExtractor) -> Section:
    plain = plain_extractor(extractor)
    trim_db = extractor.trim_db or TRIM_DB
    whole, trimmed = mel_levels(plain, waveform), mel_levels(plain, waveform, trim_db)
    frame_s = plain.hop_ms / 1000
    text = [
        f"The same clip; its file is at {clip.sound.sampling_rate} Hz. A rate of 8 kHz ends at 4 kHz, where s and f "
        "begin; a rate above the file's own adds nothing but faint mirror images, left by the filter.",
        f"Trimming drops what is {trim_db:g} dB below the loudest frame before and after the voice, here "
        f"{(len(whole) - len(trimmed)) * frame_s:.2f} of {len(whole) * frame_s:.2f} s.",
    ]
    if not extractor.trim_db:
        text.append("The config does not trim.")
    return Section(
        "Resampling and trimming",
        text,
        pictures=[
            draw(
                "resampling",
                rate_panels({rate: load_start(clip, rate) for rate in RATES_HZ}, plain.frame_ms, plain.hop_ms),
                "Spectrograms of the clip at " + ", ".join(f"{rate} Hz" for rate in RATES_HZ),
                "The clip at each sampling rate, over the same frequencies.",
            ),
            draw(
                "trimming",
                trim_panels(plain, {"whole": whole, f"trimmed at {trim_db:g} dB": trimmed}),
                "Log-mel spectrograms of the clip, whole and trimmed",
                "The clip before and after trimming.",
            ),
        ],
    )


def _range(value) -> str:
    if isinstance(value, tuple | list):
        return " to ".join(f"{each:g}" for each in value)
    return value if isinstance(value, str) else f"{value:g}"


def _change(before: Tensor, after: Tensor) -> float:
    """Mean difference in dB between (L, n_mels) and (L', n_mels), the shorter one ending in silence."""
    frames, silence = max(len(before), len(after)), float(before.min())
    padded = [torch.nn.functional.pad(each, (0, 0, 0, frames - len(each)), value=silence) for each in (before, after)]
    return float((padded[0] - padded[1]).abs().mean())
