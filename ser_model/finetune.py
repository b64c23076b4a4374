"""Start from a trained model: its features and network, and its head as far as labels stay."""

from collections.abc import Sequence
from dataclasses import dataclass

import yaml
from huggingface_hub import metadata_load

from .build import build_extractor, network_config
from .configuration_ser import SERConfig
from .disk import first_line
from .feature_extraction_ser import SERFeatureExtractor
from .hub import find_file, load_pretrained
from .modeling_ser import SERForAudioClassification
from .pretrained import load_config, load_extractor, load_model
from .run_files import CARD
from .settings import Settings, SettingsError

FREE = frozenset({"dropout", "freeze_backbone"})  # settings of a network that have no weights


@dataclass(frozen=True)
class Base:
    """A trained model to start from; made by `load_base`.

    extractor: its own, with the statistics that its weights learnt with: they are kept, never fitted anew.
    licence: of its weights, as its card has it; what is made from them inherits it.
    """

    source: str
    config: SERConfig
    extractor: SERFeatureExtractor
    licence: str | None

    def network(self, settings: Settings, names: Sequence[str]) -> SERForAudioClassification:
        """The base with a head for the labels `names`: the rows of those that it knows stay, all others are new."""
        free = {key: value for key, value in settings.model.items() if key in FREE}
        # Temperature and likeness belonged to its last epoch; training starts from raw logits.
        raw = {"calibration_temperature": 1.0, "likeness_threshold": None}
        model = load_pretrained(load_model, self.source, kind=SERForAudioClassification, **raw, **free)
        model = model.float()
        model.set_labels(names)
        model.freeze_backbone(settings.model.get("freeze_backbone", False))  # whatever the base was trained with
        return model


def load_base(settings: Settings) -> Base | None:
    """The model that `training.base_model` names, a folder or a Hub id, read by our own classes; None without one.

    Raises:
        HubError: there is no such model, or none that can be used.
        SettingsError: it is of another kind, its card is damaged, or `features` or `model` contradict it: both come
            from the base.
    """
    source = settings.training.base_model
    _check_freezing(settings)
    if source is None:
        return None
    config = load_pretrained(load_config, source)
    if not isinstance(config, SERConfig):
        raise SettingsError(
            f"{source} is a model of the kind {config.model_type!r}; fine-tuning starts from one that train.py made"
        )
    extractor = load_pretrained(load_extractor, source)
    wanted_extractor = build_extractor(settings)
    wanted = network_config(settings, wanted_extractor, list(config.id2label.values())), wanted_extractor
    for section, keys, asked, has in (
        ("model", settings.model.keys() - FREE, wanted[0], config),
        ("features", settings.features.keys(), wanted[1], extractor),
    ):
        for key in sorted(keys):
            if getattr(asked, key) != getattr(has, key):
                raise SettingsError(
                    f"{section}.{key} is {getattr(asked, key)!r}, but {source} has {getattr(has, key)!r}: features and "
                    f"network come from the base model; leave {section}.{key} out, or train without a base model"
                )
    return Base(source, config, extractor, _licence(source))


def _check_freezing(settings: Settings) -> None:
    if settings.training.unfreeze_epoch is None:
        return
    if settings.model.get("freeze_backbone"):
        raise SettingsError("model.freeze_backbone freezes for good; take out that or training.unfreeze_epoch")
    if settings.training.base_model is None and not settings.model.get("pretrained_backbone"):
        raise SettingsError(
            "training.unfreeze_epoch would freeze a network that has learnt nothing yet; give training.base_model or "
            "model.pretrained_backbone, or leave it out"
        )


def _licence(source: str) -> str | None:
    if (card := find_file(source, CARD)) is None:
        return None
    try:
        return (metadata_load(card) or {}).get("license")
    except (ValueError, yaml.YAMLError) as error:
        raise SettingsError(
            f"{card}, which names the licence of {source}, cannot be read ({first_line(error)}); fetch it again, or "
            "mend the YAML at its head"
        ) from error
