"""Configuration of the speech emotion recognition models."""

import dataclasses
import difflib
import inspect
import math
from collections.abc import Iterable
from typing import Any

from transformers import PreTrainedConfig

# Which class of the code that travels with the weights serves which Auto class.
AUTO_MAP = {
    "AutoConfig": "configuration_ser.SERConfig",
    "AutoModel": "modeling_ser.SERModel",
    "AutoModelForAudioClassification": "modeling_ser.SERForAudioClassification",
}

# What PreTrainedConfig takes beside its own fields.
INHERITED_KEYS = {"auto_map", "attn_implementation", "model_type", "name_or_path", "num_labels", "torch_dtype"}


# What is of one kind alone: a quoted 'no' of YAML would count as true.
KINDS = (
    ("backbone", str, "a name"),
    ("backbone_options", dict, "options by their names"),
    ("pretrained_backbone", bool, "true or false"),
    ("freeze_backbone", bool, "true or false"),
    ("invert_dct", bool, "true or false"),
    ("dropout", int | float, "a number"),
    ("calibration_temperature", int | float, "a number"),
    ("training_split", str | None, "a hash or None"),
    ("id2label", dict, "class indices and their names"),
)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """ "; did you mean 'x'?" for the nearest known name, else an empty string."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def as_index(index: Any) -> Any:
    """0 for "0", as JSON and the tutorials of Transformers write it; whatever else comes is left to the check."""
    return int(index) if isinstance(index, str) and index.isdecimal() else index


def _is(value: Any, kind: Any) -> bool:
    """As `isinstance`, for which true is a number too."""
    return isinstance(value, kind) and (kind is bool or not isinstance(value, bool))


def _labels_by_index(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings that name their labels by `label2id` alone, with `id2label` too."""
    indices = settings.get("label2id")
    if settings.get("id2label") is not None or not isinstance(indices, dict) or not indices:
        return settings
    return settings | {"id2label": {index: label for label, index in indices.items()}}


class SERConfig(PreTrainedConfig):
    """Everything needed to build a network; what it is fed is described by `SERFeatureExtractor`.

    Args:
        backbone: a name in `backbones.BACKBONES`, or "timm/<name>" for any other network of timm.
        backbone_options: keyword arguments of that backbone; unknown ones are refused when the model is built.
        pretrained_backbone: training starts from ImageNet weights (see `load_pretrained_backbone`); a saved model is
            loaded as it was saved, whatever this says.
        freeze_backbone: only pooling and classifier are trained.
        num_features: features a frame and channel, e.g. the number of MFCCs (F).
        num_channels: channels, 1 plus the orders of deltas (C).
        invert_dct: start with a learnable linear map initialised as the inverse DCT, so that MFCCs reach the first
            convolution as a log-mel spectrum, whose neighbouring bands a 2-D kernel can use.
        num_cepstral_channels: the first so many channels are MFCCs, to which that map applies; None for all.
        num_members: so many networks stand side by side, each with its own map, backbone and pooling; their embeddings
            are concatenated, so that the logits can be the mean of theirs (see `joining.py`).
        pooling: "attention" (attentive mean and standard deviation) or "mean", over the frames the mask keeps.
        dropout: probability before the classifier.
        calibration_temperature: logits are divided by it, so that softmax gives calibrated probabilities.
        likeness_threshold: a recording whose `likeness` is below sounds unlike the voices of the training; None where
            the model has no such score.
        training_split: hash of the manifest (split.json) of the split that it was trained on; whoever evaluates it can
            tell from that which clips are new to it.
        id2label: class index to emotion; the only place where labels live at run time.
    """

    model_type = "ser"
    _auto_class = "AutoConfig"
    keys_to_ignore_at_inference = ["likeness"]  # so that Trainer takes the logits alone for predictions

    def __init__(
        self,
        backbone: str = "cnn",
        backbone_options: dict[str, Any] | None = None,
        pretrained_backbone: bool = False,
        freeze_backbone: bool = False,
        num_features: int = 80,
        num_channels: int = 1,
        invert_dct: bool = True,
        num_cepstral_channels: int | None = None,
        num_members: int = 1,
        pooling: str = "attention",
        dropout: float = 0.3,
        calibration_temperature: float = 1.0,
        likeness_threshold: float | None = None,
        training_split: str | None = None,
        **kwargs,
    ):
        self.backbone = backbone
        self.backbone_options = {} if backbone_options is None else backbone_options
        self.pretrained_backbone = pretrained_backbone
        self.freeze_backbone = freeze_backbone
        self.num_features = num_features
        self.num_channels = num_channels
        self.invert_dct = invert_dct
        self.num_cepstral_channels = num_cepstral_channels
        self.num_members = num_members
        self.pooling = pooling
        self.dropout = dropout
        self.calibration_temperature = calibration_temperature
        self.likeness_threshold = likeness_threshold
        self.training_split = training_split
        self._check_inherited(kwargs)
        kwargs.setdefault("auto_map", dict(AUTO_MAP))
        super().__init__(**_labels_by_index(kwargs))
        self.check()

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs):
        """As usual, but labels may be given by `label2id` alone here too, and a misspelt setting is refused.

        Raises:
            ValueError: what is left over is nearly a setting; whatever else is left over is for others to read.
        """
        wants_unused = kwargs.pop("return_unused_kwargs", False)
        config, unused = super().from_dict(config_dict, return_unused_kwargs=True, **_labels_by_index(kwargs))
        for key in unused:
            if did_you_mean(key, cls.own_settings()):
                raise ValueError(f"SERConfig knows no setting {key!r}{did_you_mean(key, cls.known_settings())}")
        return (config, unused) if wants_unused else config

    @classmethod
    def own_settings(cls) -> set[str]:
        """Their names, without those of every configuration of Transformers."""
        return set(inspect.signature(cls.__init__).parameters) - {"self", "kwargs"}

    @classmethod
    def known_settings(cls) -> set[str]:
        """Their names, with those."""
        return cls.own_settings() | INHERITED_KEYS | {field.name for field in dataclasses.fields(PreTrainedConfig)}

    def __setattr__(self, key: str, value: Any) -> None:
        """The way back follows the labels: whoever sets `id2label` sets `label2id` as well; "0" counts as 0."""
        if key == "id2label" and isinstance(value, dict):
            value = {as_index(index): label for index, label in value.items()}
            super().__setattr__("label2id", {label: index for index, label in value.items()})
        elif key == "label2id" and isinstance(value, dict):
            value = {label: as_index(index) for label, index in value.items()}
        super().__setattr__(key, value)

    def _check_inherited(self, kwargs: dict[str, Any]) -> None:
        if "transformers_version" in kwargs:
            return  # written by save_pretrained, perhaps by a later version that has more keys
        own, known = self.own_settings(), self.known_settings()
        for key in kwargs:
            if key not in known and not key.startswith("_"):
                hint = did_you_mean(key, known)
                raise ValueError(f"SERConfig knows no setting {key!r}{hint}; its own are {sorted(own)}")
        labels, indices, num_labels = (kwargs.get(key) for key in ("id2label", "label2id", "num_labels"))
        for key, value in (("id2label", labels), ("label2id", indices)):
            if not isinstance(value, dict | None):
                raise ValueError(f"SERConfig.{key} is {value!r}; it must name each class once, counted from 0")
        pairs = {(as_index(index), label) for index, label in (labels or {}).items()}
        if labels and indices and pairs != {(as_index(index), label) for label, index in indices.items()}:
            raise ValueError(f"SERConfig.label2id is {indices!r}, but id2label says {labels!r}; give that alone")
        if labels is not None and num_labels is not None and len(labels) != num_labels:
            raise ValueError(f"SERConfig.num_labels is {num_labels}, but id2label names {len(labels)}; leave one out")

    def check(self) -> None:
        """Every setting, for `from_pretrained(..., pooling="mean")` sets what the constructor has seen otherwise.

        Raises:
            ValueError: an impossible value; it names the setting, what it is and what it must be.
        """
        for key, kind, wanted in KINDS:
            if not _is(getattr(self, key), kind):
                raise ValueError(f"SERConfig.{key} is {getattr(self, key)!r}; it must be {wanted}")
        for key in ("num_features", "num_channels", "num_members"):
            value = getattr(self, key)
            if not _is(value, int) or value < 1:
                raise ValueError(f"SERConfig.{key} is {value!r}; it must be a whole number of at least 1")
        count = self.num_cepstral_channels
        if count is not None and not (_is(count, int) and 1 <= count <= self.num_channels):
            raise ValueError(
                f"SERConfig.num_cepstral_channels is {count!r}; it must be from 1 to "
                f"num_channels ({self.num_channels}), or None"
            )
        if self.pooling not in ("attention", "mean"):
            raise ValueError(f"SERConfig.pooling is {self.pooling!r}; it must be 'attention' or 'mean'")
        threshold = self.likeness_threshold
        if threshold is not None and not (_is(threshold, int | float) and math.isfinite(threshold)):
            raise ValueError(f"SERConfig.likeness_threshold is {threshold!r}; it must be a finite number or None")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"SERConfig.dropout is {self.dropout!r}; it must be at least 0 and below 1")
        if self.problem_type not in (None, "single_label_classification"):
            raise ValueError(
                f"SERConfig.problem_type is {self.problem_type!r}; a voice gets one label: leave it out, or say "
                "'single_label_classification'"
            )
        labels = self.id2label
        counted = bool(labels) and set(labels) == set(range(len(labels)))
        named = counted and all(isinstance(label, str) and label for label in labels.values())
        if not named or len(set(labels.values())) != len(labels):
            raise ValueError(f"SERConfig.id2label is {labels!r}; it must name each class once, counted from 0")
        if self.label2id != {label: index for index, label in labels.items()}:
            raise ValueError(f"SERConfig.label2id is {self.label2id!r}, but id2label says {labels!r}; give that alone")
        if not (math.isfinite(self.calibration_temperature) and self.calibration_temperature > 0):
            raise ValueError(
                f"SERConfig.calibration_temperature is {self.calibration_temperature!r}; it must be above 0"
            )
