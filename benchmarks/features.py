"""MFCCs of a batch of clips, ours against librosa, torchaudio and the extractor of a Transformers spectrogram model.

    python -m benchmarks.features

64 clips of 4 s at 16 kHz, 80 bands, frames of 40 ms every 20 ms. librosa and torchaudio compute the same numbers, which
is checked first; the AST extractor makes its own log-mel filterbank, as users of such a model wait for it.
"""

import librosa
import numpy as np
import torch
import torchaudio
from transformers import ASTFeatureExtractor

from ser_model import SERFeatureExtractor

from .alternating import machine, milliseconds, table

RATE, CLIPS, CLIP_S, ROUNDS = 16_000, 64, 4.0, 12
TOLERANCE = 2e-3  # of coefficients that reach 800 dB


def main() -> None:
    rng = np.random.default_rng(0)
    clips = [(0.1 * rng.standard_normal(round(CLIP_S * RATE))).astype(np.float32) for _ in range(CLIPS)]
    batch, lengths = torch.from_numpy(np.stack(clips)), torch.full((CLIPS,), len(clips[0]))
    plain = SERFeatureExtractor(trim_db=None, level="absolute", normalization="none")
    default = SERFeatureExtractor()
    theirs = torchaudio.transforms.MFCC(
        RATE,
        n_mfcc=80,
        log_mels=False,
        melkwargs={
            "n_fft": plain.n_fft,
            "win_length": plain.frame_samples,
            "hop_length": plain.hop_samples,
            "f_min": plain.f_min,
            "f_max": plain.f_max,
            "n_mels": 80,
            "pad_mode": "constant",
            "mel_scale": "htk",
        },
    )
    theirs.amplitude_to_DB = torchaudio.transforms.AmplitudeToDB("power", plain.top_db)
    ast = ASTFeatureExtractor()

    def by_librosa() -> np.ndarray:
        return np.stack(
            [
                librosa.feature.mfcc(
                    y=clip,
                    sr=RATE,
                    n_mfcc=80,
                    n_mels=80,
                    n_fft=plain.n_fft,
                    win_length=plain.frame_samples,
                    hop_length=plain.hop_samples,
                    fmin=plain.f_min,
                    fmax=plain.f_max,
                    htk=True,
                    norm="ortho",
                    pad_mode="constant",
                )
                for clip in clips
            ]
        )

    def ours() -> torch.Tensor:
        return plain.extract(batch, lengths)[0]

    candidates = {
        "ours": ours,
        "ours, trimmed, relative and normalised, as the model hears": lambda: default.extract(batch, lengths),
        "torchaudio.transforms.MFCC": lambda: theirs(batch),
        "librosa.feature.mfcc": by_librosa,
        "transformers.ASTFeatureExtractor": lambda: ast(clips, sampling_rate=RATE, return_tensors="pt"),
    }
    difference = (ours().transpose(1, 2) - theirs(batch)).abs().max()
    print(f"{machine()}; {CLIPS} clips of {CLIP_S:.0f} s; torchaudio's numbers differ by {difference:.1e} at most")
    assert difference < TOLERANCE, "these are not the same features"
    for threads in (1, 2):
        torch.set_num_threads(threads)
        print(f"\n{threads} thread{'s' * (threads > 1)}:\n")
        print(table(milliseconds(candidates, ROUNDS), "ours"))


if __name__ == "__main__":
    main()
