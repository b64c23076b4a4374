"""The sections on a few clips: one of each emotion, and one of them before and after what training does to it."""

import re

import numpy as np
import torch
from pydantic import ValidationError
from torch import Tensor

from ..audio import load_audio
from ..augment import Augmenter
from ..feature_extraction_ser import SERFeatureExtractor
from ..pictures import MIN_PEAK
from ..settings import AugmentationSettings
from .findings import Clip, Findings, example_clips, relative
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
    plain, n_mfcc = plain_extractor(findings.extractor), min(findings.extractor.n_mfcc, MFCC_SHOWN)
    duration_s = max(map(len, waveforms.values())) / plain.sampling_rate
    pictures = []
    for number, (emotion, clip) in enumerate(examples.items(), 1):
        said = clip.utterance
        what = ", ".join(filter(None, [emotion, said.speaker_known and said.speaker, said.text and f"“{said.text}”"]))
        figure = clip_panels(plain, waveforms[emotion], n_mfcc, duration_s)
        alt = f"Waveform, spectrogram, log-mel spectrogram and MFCCs of a clip, {what}"
        name = f"clip_{number:02}_{re.sub(r'[^A-Za-z0-9]+', '_', emotion)}"
        pictures.append(draw(name, figure, alt, f"{what}. {relative(said.path, findings.data_dir)}"))
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
    for switch in switches(settings):
        augmenters = [Augmenter(alone_in(settings, switch), max_frames=10**6, seed=seed) for seed in range(DRAWS)]
        drawn = [augmented(plain, *waveforms, augmenter) for augmenter in augmenters]
        marked = sorted(drawn, key=lambda result: _change(levels, result[1]))[DRAWS * 2 // 3]
        if _change(levels, marked[1]) > INAUDIBLE_DB:
            results[switch] = marked
    duration_s = max(len(after) for _, after in results.values()) * plain.hop_ms / 1000
    limit = 1.05 * max(MIN_PEAK, *(float(np.abs(waveform).max()) for waveform, _ in results.values()))
    pictures = []
    for switch, (waveform, after) in results.items():
        value = getattr(settings, switch, None)
        caption = "As it is" if value is None else f"{switch}: {value:g}" if value else f"{switch}, off in this config"
        figure = heard_panels(plain, waveform, after, duration_s, limit, top_db=float(levels.max()))
        alt = f"Waveform and log-mel spectrogram of the {emotion} clip. {caption}"
        pictures.append(draw(f"augmentation_{switch}", figure, alt, caption))
    text = [
        f"The {emotion} clip under one augmentation at a time, at the config's strength, or at the default where the "
        f"config has it off. Training draws anew for every clip; shown is one that changes more than most of {DRAWS} "
        "draws. What has a probability is made to happen. Augmentations of the spectrum leave the waveform as it is. "
        "Nothing is trimmed here."
    ]
    if idle := [switch for switch in switches(settings) if switch not in results]:
        text.append(f"Off, or without effect on this clip: {', '.join(idle)}.")
    return Section("Augmentation", text, pictures=pictures)


def switches(settings: AugmentationSettings) -> list[str]:
    """The settings that zero turns off: one an augmentation, however many there are."""
    return [name for name in type(settings).model_fields if _accepts(settings, name, 0)]


def alone_in(settings: AugmentationSettings, switch: str) -> AugmentationSettings:
    """All others turned off; the one that is left as it is, or, where it is off, at its default."""
    strength = getattr(settings, switch) or type(settings).model_fields[switch].default
    if switch.endswith("_probability"):
        strength = 1.0
    off = dict.fromkeys(switches(settings), 0)
    return type(settings)(**settings.model_dump() | off | {switch: strength})


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


def _accepts(settings: AugmentationSettings, name: str, value: float) -> bool:
    try:
        type(settings)(**{name: value})
    except ValidationError:
        return False
    return True


def _change(before: Tensor, after: Tensor) -> float:
    """Mean difference in dB between (L, n_mels) and (L', n_mels), the shorter one ending in silence."""
    frames, silence = max(len(before), len(after)), float(before.min())
    padded = [torch.nn.functional.pad(each, (0, 0, 0, frames - len(each)), value=silence) for each in (before, after)]
    return float((padded[0] - padded[1]).abs().mean())
