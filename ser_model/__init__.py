"""Speech emotion recognition: MFCCs, compact CNNs, calibrated answers."""

__version__ = "0.1.0"
__all__ = ["SERConfig", "SERFeatureExtractor", "SERForAudioClassification", "SERModel"]


def __getattr__(name: str):
    # On demand: torch and Transformers take seconds, and the page is served before it needs them.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import registration

    return getattr(registration, name)
