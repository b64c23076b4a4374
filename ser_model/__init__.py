"""Speech emotion recognition: MFCCs, compact CNNs, calibrated answers.

The Auto classes of Transformers know our models, without their own code, once one of the names below is used.
"""

import os
from importlib import import_module

__version__ = "0.1.0"
PUBLIC = dict.fromkeys(["SERConfig", "SERFeatureExtractor", "SERForAudioClassification", "SERModel"], "registration")
PUBLIC |= {"EmotionRecognizer": "inference", "LiveRecognizer": "streaming"}  # name -> module
__all__ = list(PUBLIC)

# Or ONNX Runtime, which finds voices for us, tells Microsoft that it does; read when it is imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")


def __getattr__(name: str):
    # On demand: torch and Transformers take seconds, and the page is served before it needs them.
    if name not in PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{PUBLIC[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *PUBLIC})
