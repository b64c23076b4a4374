"""Speech emotion recognition: MFCCs, compact CNNs, calibrated answers."""

import os

__version__ = "0.1.0"
__all__ = ["SERConfig", "SERFeatureExtractor", "SERForAudioClassification", "SERModel"]

# Or ONNX Runtime, which finds voices for us, tells Microsoft that it does; read when it is imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")


def __getattr__(name: str):
    # On demand: torch and Transformers take seconds, and the page is served before it needs them.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import registration

    return getattr(registration, name)
