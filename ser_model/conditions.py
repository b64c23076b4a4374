"""Conditions to test a trained model under: what rooms, lines and codecs do to a clip that was recorded well.

Each is fixed, so that figures compare, and drawn anew for each clip, from a seed that is the sound's own: the same clip
sounds the same to every model, in any split and order.
"""

import zlib
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor

from .augment import add_noise, band_limited, coloured, reverberate, through_mp3
from .predictions import CLEAN

TELEPHONE_HZ = (300.0, 3400.0)  # the band of analogue telephony, ITU-T G.712
ROOM_DECAY_S = 0.4  # until 60 dB below: a furnished room
ROOM_DIRECT_DB = 3.0  # direct over reverberant level: about a metre from the microphone
MP3_KBIT_S = 32
QUIET_DB = -20.0


def _noise(waveform: Tensor, sampling_rate: int, generator: torch.Generator, snr_db: float) -> Tensor:
    """Pink; the signal-to-noise ratio is that of the whole clip, its pauses included, and of the whole noise, almost
    half of which lies below 20 Hz (see `coloured`): to the ear the ratio is some 3 dB higher.
    """
    return add_noise(waveform, coloured(torch.randn(len(waveform), generator=generator), slope=1.0), snr_db)


def _telephone(waveform: Tensor, sampling_rate: int, generator: torch.Generator) -> Tensor:
    return band_limited(waveform, sampling_rate, *TELEPHONE_HZ)


def _small_room(waveform: Tensor, sampling_rate: int, generator: torch.Generator) -> Tensor:
    tail = torch.randn(round(ROOM_DECAY_S * sampling_rate), generator=generator)
    return reverberate(waveform, tail, ROOM_DIRECT_DB)


def _mp3(waveform: Tensor, sampling_rate: int, generator: torch.Generator) -> Tensor:
    return torch.from_numpy(through_mp3(waveform.numpy(), sampling_rate, MP3_KBIT_S))


def _quiet(waveform: Tensor, sampling_rate: int, generator: torch.Generator) -> Tensor:
    return waveform * 10 ** (QUIET_DB / 20)


CONDITIONS: dict[str, Callable[[Tensor, int, torch.Generator], Tensor]] = {
    "noise_20db": partial(_noise, snr_db=20.0),
    "noise_10db": partial(_noise, snr_db=10.0),
    "noise_0db": partial(_noise, snr_db=0.0),
    "telephone": _telephone,
    "small_room": _small_room,
    "mp3_32kbit": _mp3,
    "quiet_20db": _quiet,
}


def heard_under(condition: str, waveform: np.ndarray, sampling_rate: int, sound_id: str) -> np.ndarray:
    """A clip under one of CONDITIONS, or as it is under CLEAN.

    Args:
        condition: its name.
        waveform: float32 (T,).
        sampling_rate: in Hz.
        sound_id: what the clip's seed is made from, such as the hash of its sound.

    Returns:
        float32 (T,).
    """
    if condition == CLEAN:
        return waveform
    generator = torch.Generator().manual_seed(zlib.crc32(f"{condition} {sound_id}".encode()))
    return CONDITIONS[condition](torch.from_numpy(waveform), sampling_rate, generator).numpy()
