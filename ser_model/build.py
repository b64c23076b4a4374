"""From settings to the objects that they describe; what cannot be built is refused as the setting that it is."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from .configuration_ser import SERConfig
from .disk import first_line
from .feature_extraction_ser import SERFeatureExtractor
from .modeling_ser import SERForAudioClassification
from .settings import Settings, SettingsError


def build_extractor(settings: Settings, **instead) -> SERFeatureExtractor:
    """The feature extractor of `settings.features`, with arguments in place of theirs; its statistics are not fitted.

    Raises:
        SettingsError: an unknown key or an impossible value.
    """
    with _refused_as("features"):
        return SERFeatureExtractor(**settings.features | instead)


def network_config(settings: Settings, extractor: SERFeatureExtractor, names: Sequence[str]) -> SERConfig:
    """What a network is built from: `settings.model`, fitted to its features and labels.

    Raises:
        SettingsError: an unknown key or an impossible value, or one that contradicts the features.
    """
    in_channels = extractor.stacking == "channels" and len(extractor.features) > 1
    has_cepstra = extractor.features[0] == "mfcc" and (in_channels or len(extractor.features) == 1)
    fitting = {
        "num_features": extractor.num_features,
        "num_channels": extractor.num_channels,
        "invert_dct": has_cepstra,  # nothing else is a DCT
        "num_cepstral_channels": (1 + extractor.delta_order) * len(extractor.windows)
        if has_cepstra and in_channels
        else None,
    }
    for key in ("num_features", "num_channels"):
        if settings.model.get(key, fitting[key]) != fitting[key]:
            raise SettingsError(
                f"model.{key} is {settings.model[key]!r}, but the features have {fitting[key]}; leave model.{key} out"
            )
    with _refused_as("model"):
        return SERConfig(**fitting | settings.model, id2label=dict(enumerate(names)))


def build_network(
    settings: Settings, extractor: SERFeatureExtractor, names: Sequence[str], pretrained: bool = True
) -> SERForAudioClassification:
    """The network of `settings.model`, with new weights, or those of ImageNet where the settings ask for them.

    Raises:
        SettingsError: an unknown key or backbone, an impossible value, or weights that cannot be had.
    """
    config = network_config(settings, extractor, names)
    with _refused_as("model"):
        model = SERForAudioClassification(config)
    if pretrained and config.pretrained_backbone:
        with _refused_as("model.pretrained_backbone"):
            model.load_pretrained_backbone()
    return model


@contextmanager
def _refused_as(section: str) -> Iterator[None]:
    try:
        yield
    except (ImportError, OSError, ValueError) as error:
        raise SettingsError(f"{section}: {error}") from error
    except TypeError as error:  # of `feature_mean: 5`, or of a size that torch cannot count up to
        raise SettingsError(f"{section}: {first_line(error)}") from error
    except (MemoryError, OverflowError, RuntimeError) as error:  # torch tells its own calls below the first line
        raise SettingsError(
            f"{section}: nothing of that size can be made here ({first_line(error)}); take less, or free some memory"
        ) from error
