"""The voice that benchmarks send: an example of the repository, made and not recorded."""

from pathlib import Path

import numpy as np
import soundfile

from ser_model.audio import SAMPLING_RATE_HZ, load_audio

ROOT = Path(__file__).resolve().parent.parent


def recording(seconds: float, rate: int = SAMPLING_RATE_HZ) -> np.ndarray:
    """Its first seconds: float32 (T,)."""
    return load_audio(ROOT / "examples" / "synthetic_calm_voice.flac", rate)[: round(seconds * rate)]


def write_recording(path: Path, seconds: float, rate: int) -> Path:
    soundfile.write(path, recording(seconds, rate), rate, subtype="PCM_16")
    return path
