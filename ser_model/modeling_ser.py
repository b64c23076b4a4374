"""Speech emotion recognition models: backbone over MFCCs, masked pooling over time, classifier."""

import copy
import inspect
import logging
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import ModelOutput, SequenceClassifierOutput

from .backbones import BACKBONES, TIMM_PREFIX, Timm
from .configuration_ser import SERConfig, did_you_mean
from .layers import POOLINGS
from .mfcc import dct_matrix

logger = logging.getLogger(__name__)

HUB_KEYS = ("cache_dir", "local_files_only", "proxies", "revision", "subfolder", "token")  # where a model is read from


@dataclass
class SERModelOutput(ModelOutput):
    """What `SERModel` gives.

    Args:
        last_hidden_state: frames (B, L', D); behind the end of a shorter utterance they hold anything.
        pooler_output: one embedding an utterance (B, P).
        hidden_states: the maps after the stem and each stage, if asked for; of several members one behind the other, as
            are their frames and embeddings.
        attention_mask: (B, L'), 1 where a frame of `last_hidden_state` is real.
    """

    last_hidden_state: Tensor | None = None
    pooler_output: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attention_mask: Tensor | None = None


@dataclass
class SERClassifierOutput(SequenceClassifierOutput):
    """What `SERForAudioClassification` gives: loss, logits and hidden_states as ever, and one more.

    Args:
        likeness: how much each recording sounds like a voice of the training (B,), to be compared with
            `config.likeness_threshold`; None for a model without that score.
    """

    likeness: Tensor | None = None


class InverseDCT(nn.Linear):
    """A learnable map of each frame that starts as the inverse DCT: cepstra (..., C, F) -> log-mel spectra (..., C, F).

    Of C channels only the first `num_channels` are cepstra, if it is given; the others are left as they are.
    """

    def __init__(self, size: int, num_channels: int | None = None):
        super().__init__(size, size, bias=False)
        self.num_channels = num_channels

    def forward(self, x: Tensor) -> Tensor:
        if self.num_channels is None:
            return super().forward(x)
        cepstra, others = x[..., : self.num_channels, :], x[..., self.num_channels :, :]
        return torch.cat([super().forward(cepstra), others.to(cepstra.dtype)], dim=-2)


def _is_count(value, least: int = 1) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _are_counts(values, least: int) -> bool:
    return isinstance(values, list | tuple) and all(_is_count(value, least) for value in values)


# What an option of a backbone must be, by its annotation; one of another kind the backbone checks by itself.
OPTIONS = {
    int: ("a whole number of at least 1", _is_count),
    float: ("at least 0 and below 1", lambda value: isinstance(value, int | float) and 0 <= value < 1),
    bool: ("true or false", lambda value: isinstance(value, bool)),
    Sequence[int]: ("numbers of convolutions, counted from 0", lambda value: _are_counts(value, 0)),
    "widths": ("whole numbers of at least 1, one a stage", lambda value: bool(value) and _are_counts(value, 1)),
}


def build_backbone(config: SERConfig) -> nn.Module:
    """The network that the config names; ValueError if there is none of that name or it knows no such option."""
    options = dict(config.backbone_options)
    if config.backbone.startswith(TIMM_PREFIX):
        backbone, name = Timm, {"name": config.backbone.removeprefix(TIMM_PREFIX)}
    elif config.backbone in BACKBONES:
        backbone, name = BACKBONES[config.backbone], {}
    else:
        known = f"{sorted(BACKBONES)} and {TIMM_PREFIX}<any network of timm>"
        hint = did_you_mean(config.backbone, BACKBONES)
        raise ValueError(f"unknown backbone {config.backbone!r}; known: {known}{hint}")
    parameters = inspect.signature(backbone).parameters
    known = parameters.keys() - {"num_channels", "num_features", *name}
    if extra := options.keys() - known:
        raise ValueError(f"backbone {config.backbone!r} has no option {sorted(extra)}; known: {sorted(known)}")
    for key, value in options.items():
        wanted, is_so = OPTIONS.get("widths" if key == "widths" else parameters[key].annotation, ("", None))
        if is_so and not is_so(value):
            raise ValueError(f"option {key} of backbone {config.backbone!r} is {value!r}; it must be {wanted}")
    return backbone(config.num_channels, config.num_features, **name, **options)


class SERPreTrainedModel(PreTrainedModel):
    """What both models share: how weights start, what may be frozen, recomputed or taken over."""

    config_class = SERConfig
    base_model_prefix = "ser"
    main_input_name = "input_features"
    _keys_to_ignore_on_load_unexpected = ["likeness_weight"]  # a model may be loaded without its score
    input_modalities = ("audio",)
    _no_split_modules = ["SERModel"]  # device_map="auto" would cut it in the middle of a block, small as it is

    def __init__(self, config: SERConfig):
        config.check()  # settings given to from_pretrained are set after the configuration's own check
        super().__init__(config)

    @classmethod
    def from_pretrained(cls, *args, output_loading_info: bool = False, **kwargs):
        """As usual, and a backbone that the configuration freezes is frozen: the library makes every weight anew."""
        model, report = super().from_pretrained(*args, output_loading_info=True, **kwargs)
        if model.config.freeze_backbone:
            model.freeze_backbone()
        return (model, report) if output_loading_info else model

    def _init_weights(self, module: nn.Module) -> None:
        # The library's default draws every weight at N(0, 0.02), far too small for a ReLU network this deep.
        if isinstance(module, InverseDCT):
            init.copy_(module.weight, dct_matrix(module.in_features, module.in_features).T)
        elif isinstance(module, nn.Conv1d | nn.Conv2d | nn.Linear):
            init.kaiming_normal_(
                module.weight, mode="fan_out" if module.bias is None else "fan_in", nonlinearity="relu"
            )
            if module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, nn.LSTM | nn.GRU):
            for name, parameter in module.named_parameters():
                init.zeros_(parameter) if "bias" in name else init.xavier_uniform_(parameter)
        elif isinstance(module, SERForAudioClassification):
            if module.likeness_weight is not None:
                init.zeros_(module.likeness_weight)
        else:
            super()._init_weights(module)

    @property
    def dummy_inputs(self) -> dict[str, Tensor]:
        """A hundred frames of silence, long enough for every backbone."""
        size = self.config.num_channels * self.config.num_features
        return {"input_features": torch.zeros(1, 100, size, device=self.device)}

    @property
    def members(self) -> list["SERModel"]:
        """The networks side by side, of which the first holds the others; see `SERConfig.num_members`."""
        return [self.base_model, *self.base_model.others]

    @property
    def supports_gradient_checkpointing(self) -> bool:
        """Convolutional networks of our own can recompute their blocks; recurrent ones and timm's cannot."""
        return any(isinstance(module, GradientCheckpointingLayer) for module in self.modules())

    def activation_checkpointing_enable(self, *args, **kwargs) -> None:
        if not self.supports_gradient_checkpointing:
            raise ValueError(
                f"the backbone {self.config.backbone!r} has no blocks that gradient checkpointing could recompute; "
                "cnn, deep_cnn, resnet18 and shallow_cnn have"
            )
        super().activation_checkpointing_enable(*args, **kwargs)

    def _set_gradient_checkpointing(self, enable=True, gradient_checkpointing_func=checkpoint, **kwargs) -> None:
        if enable and getattr(gradient_checkpointing_func, "keywords", {}).get("use_reentrant"):
            raise ValueError("use_reentrant=True came, with which batch norms count every batch twice; give False")
        again = partial(gradient_checkpointing_func, context_fn=self._computed_twice)
        super()._set_gradient_checkpointing(enable, again if enable else checkpoint, **kwargs)

    def _computed_twice(self) -> tuple[AbstractContextManager, AbstractContextManager]:
        return nullcontext(), self._norms_stay()

    @contextmanager
    def _norms_stay(self) -> Iterator[None]:
        """While blocks are computed again in the backward pass: their norms have counted the batch already."""
        norms = [module for module in self.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
        before = [(norm.momentum, norm.num_batches_tracked.clone()) for norm in norms]
        for norm in norms:
            norm.momentum = 0.0
        try:
            yield
        finally:
            for norm, (momentum, count) in zip(norms, before, strict=True):
                norm.momentum = momentum
                norm.num_batches_tracked.copy_(count)

    def load_pretrained_backbone(self) -> None:
        """Start from ImageNet weights, fetched through timm; call it on a new model, before training.

        Raises:
            ValueError: there are no such weights for this backbone.
            ImportError, OSError: timm is not installed, or the weights could not be fetched.
        """
        if not hasattr(self.base_model.backbone, "load_pretrained"):
            raise ValueError(
                f"there are no pretrained weights for the backbone {self.config.backbone!r}; set pretrained_backbone: "
                f"false, or choose resnet18, inception_v3 or {TIMM_PREFIX}<name>"
            )
        for member in self.members:
            member.backbone.load_pretrained()

    def freeze_backbone(self, frozen: bool = True) -> None:
        """Leave only pooling and classifier to be trained, or everything again; norms follow at the next `train()`."""
        for member in self.members:
            member.config.freeze_backbone = frozen
            for module in (member.invert_dct, member.backbone):
                module.requires_grad_(not frozen)

    def freeze_feature_encoder(self) -> None:
        """`freeze_backbone` by the name that scripts of Transformers call."""
        self.freeze_backbone()

    def train(self, mode: bool = True) -> "SERPreTrainedModel":
        """As usual, but a frozen backbone stays as in evaluation, so that its norms keep their statistics."""
        super().train(mode)
        if self.config.freeze_backbone:
            self.base_model.backbone.eval()  # the other members see to theirs
        return self


class SERModel(SERPreTrainedModel):
    """Features in, one embedding an utterance out."""

    _auto_class = "AutoModel"
    _keys_to_ignore_on_load_unexpected = [r"^classifier\.", "likeness_weight"]  # of the classifier that it was saved in

    def __init__(self, config: SERConfig):
        super().__init__(config)
        self.invert_dct = (
            InverseDCT(config.num_features, config.num_cepstral_channels) if config.invert_dct else nn.Identity()
        )
        self.backbone = build_backbone(config)
        self.pooling = POOLINGS[config.pooling](self.backbone.output_size)
        alone = copy.deepcopy(config)
        alone.num_members = 1
        self.others = nn.ModuleList(SERModel(alone) for _ in range(config.num_members - 1))
        self.output_size = config.num_members * self.pooling.output_size
        self.freeze_backbone(config.freeze_backbone)
        self.post_init()

    def forward(
        self,
        input_features: Tensor,
        attention_mask: Tensor | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> SERModelOutput | tuple:
        """
        Args:
            input_features: (B, L, C * F) as `SERFeatureExtractor` gives them.
            attention_mask: (B, L), 1 where a frame is real; all are when it is left out.
        """
        batch, num_frames, size = input_features.shape
        channels, num_features = self.config.num_channels, self.config.num_features
        if size != channels * num_features:
            raise ValueError(
                f"input_features has {size} features a frame; this model was built for {channels} x {num_features}; "
                "use the feature extractor saved with it"
            )
        if attention_mask is None:
            attention_mask = torch.ones(batch, num_frames, device=input_features.device)
        mask = attention_mask.bool()
        dtype = next(self.parameters(), input_features).dtype  # the replicas of DataParallel list no parameters
        h = input_features.to(dtype).unflatten(-1, (channels, num_features))  # (B, L, C, F)
        h = self.invert_dct(h).permute(0, 2, 3, 1)  # (B, C, F, L)
        wants_stages = self.config.output_hidden_states if output_hidden_states is None else output_hidden_states
        stages = [] if wants_stages else None
        frames, mask = self.backbone(h, mask, stages)  # (B, D, L'), (B, L')
        output = SERModelOutput(
            last_hidden_state=frames.transpose(1, 2),
            pooler_output=self.pooling(frames, mask),  # (B, P)
            hidden_states=(*stages, frames) if wants_stages else None,
            attention_mask=mask.long(),
        )
        others = [other(input_features, attention_mask, wants_stages, return_dict=True) for other in self.others]
        output = _side_by_side([output, *others]) if others else output
        wants_dict = self.config.return_dict if return_dict is None else return_dict
        return output if wants_dict else output.to_tuple()


def _side_by_side(outputs: Sequence[SERModelOutput]) -> SERModelOutput:
    """Of several members: their frames, embeddings and maps one behind the other."""
    stages = [output.hidden_states for output in outputs]
    return SERModelOutput(
        last_hidden_state=torch.cat([output.last_hidden_state for output in outputs], dim=-1),
        pooler_output=torch.cat([output.pooler_output for output in outputs], dim=-1),
        hidden_states=None if None in stages else tuple(torch.cat(maps, dim=1) for maps in zip(*stages, strict=True)),
        attention_mask=outputs[0].attention_mask,
    )


class SERForAudioClassification(SERPreTrainedModel):
    """Features in, one logit an emotion out."""

    _auto_class = "AutoModelForAudioClassification"

    def __init__(self, config: SERConfig):
        super().__init__(config)
        self.ser = SERModel(config)
        self.dropout = nn.Dropout(config.dropout)
        self.classifier = nn.Linear(self.ser.output_size, config.num_labels)
        weight = None if config.likeness_threshold is None else torch.zeros(self.ser.output_size)
        self.register_buffer("likeness_weight", weight)
        self.post_init()

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path,
        *args,
        ignore_mismatched_sizes: bool = False,
        output_loading_info: bool = False,
        **kwargs,
    ):
        """As usual, and the head belongs to the labels that the model is given, not only to their number.

        Labels that the saved model knows keep their weights, in whatever order they come. Others get new weights if
        `ignore_mismatched_sizes` lets them in, as it lets in more or fewer; then the old calibration is dropped.

        Raises:
            ValueError: as many labels as before, some of them unknown, without `ignore_mismatched_sizes`.
        """
        wanted = None
        if ignore_mismatched_sizes and pretrained_model_name_or_path is not None:
            wanted = cls._labels_of_another_number(pretrained_model_name_or_path, kwargs)
        model, report = super().from_pretrained(
            pretrained_model_name_or_path,
            *args,
            ignore_mismatched_sizes=ignore_mismatched_sizes,
            output_loading_info=True,
            **kwargs,
        )
        if "classifier.weight" in {*report["missing_keys"], *(key for key, *_ in report["mismatched_keys"])}:
            model.forget_calibration()
        elif wanted is not None:
            saved, model.config.id2label = model.config.id2label, wanted
            model._take_over_head(saved, may_be_new=True)
            model.forget_calibration()
        elif pretrained_model_name_or_path is not None:  # a state dict alone tells no labels
            saved = cls._saved_labels(pretrained_model_name_or_path, kwargs)
            if saved is not None:
                model._take_over_head(saved, ignore_mismatched_sizes)
        return (model, report) if output_loading_info else model

    @classmethod
    def _saved_labels(cls, name_or_path, kwargs: dict) -> dict[str, str] | None:
        from_hub = {key: kwargs[key] for key in HUB_KEYS if key in kwargs}
        return cls.config_class.get_config_dict(name_or_path, **from_hub)[0].get("id2label")

    @classmethod
    def _labels_of_another_number(cls, name_or_path, kwargs: dict) -> dict[int, str] | None:
        """Those asked for, if they are more or fewer than the saved ones; None otherwise.

        The saved ones take their place in `kwargs`, so that the head is loaded as it was saved.
        """
        saved, config = cls._saved_labels(name_or_path, kwargs), kwargs.get("config")
        # As the Auto classes call it; from a folder with this code Transformers loads the config's class twice.
        if getattr(config, "model_type", None) == cls.config_class.model_type:
            asked = config
        elif config is None and kwargs.get("id2label") is not None:
            asked = cls.config_class(id2label=kwargs["id2label"], label2id=kwargs.get("label2id"))
        else:
            return None
        if saved is None or len(saved) == asked.num_labels:
            return None
        if config is None:
            kwargs["id2label"] = saved
            for key in ("label2id", "num_labels"):
                kwargs.pop(key, None)
        else:
            kwargs["config"] = copy.deepcopy(config)
            kwargs["config"].id2label = saved
        return asked.id2label

    def _take_over_head(self, saved: dict[str, str], may_be_new: bool) -> None:
        """From the labels that its rows were saved for to those of the config."""
        wanted, self.config.id2label = self.config.id2label, saved
        row_of = self.config.label2id
        unknown = [label for label in wanted.values() if label not in row_of]
        rename = "to call the same emotions otherwise, load the model without labels and set model.config.id2label"
        if unknown and not may_be_new:
            raise ValueError(
                f"the head tells {sorted(row_of, key=row_of.get)} apart, not {unknown}; give "
                f"ignore_mismatched_sizes=True for new weights, which must be trained; {rename}"
            )
        if wanted != self.config.id2label:
            self.set_labels([wanted[index] for index in range(len(wanted))])
        if unknown:
            logger.warning("the weights of the labels %s are new and must be trained; %s", unknown, rename)
            self.forget_calibration()

    def set_labels(self, labels: Sequence[str]) -> None:
        """A head for these labels: the weights of those that it knows stay, in whatever order, all others are new.

        Raises:
            ValueError: the head was offloaded to a disk.
        """
        old, row_of = self.classifier, self.config.label2id
        if old.weight.is_meta:
            raise ValueError(
                "the head is offloaded, so its rows cannot be moved; load the model with other labels, save it, and "
                "offload what was saved"
            )
        self.classifier = nn.Linear(old.in_features, len(labels))
        self._init_weights(self.classifier)
        self.classifier.to(old.weight)
        with torch.no_grad():
            for row, label in enumerate(labels):
                if label in row_of:
                    self.classifier.weight[row] = old.weight[row_of[label]]
                    self.classifier.bias[row] = old.bias[row_of[label]]
        self.config.id2label = dict(enumerate(labels))

    def set_likeness(self, weight: Tensor, threshold: float) -> None:
        """Let the model tell how much a recording sounds like the voices of its training.

        Args:
            weight: (P,), what each unit of the embedding adds to the score.
            threshold: the lowest score of a recording to be judged.
        """
        self.likeness_weight = weight.to(self.classifier.weight)
        self.config.likeness_threshold = threshold

    def forget_calibration(self) -> None:
        """Drop the temperature and the likeness, both of which were fitted to a head and the voices that it learnt.

        With them goes `training_split`, for what comes learns from other clips. Call it before training on with
        `Trainer` under the same labels, too; `train.py --model` does all that by itself.
        """
        before = self.config.calibration_temperature, self.config.likeness_threshold
        self.config.calibration_temperature, self.config.likeness_threshold = 1.0, None
        self.config.training_split = None
        self.likeness_weight = None
        if before != (1.0, None):
            logger.warning(
                "calibration_temperature %s and likeness_threshold %s belong to the old head and are dropped",
                *before,
            )

    def forward(
        self,
        input_features: Tensor,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> SERClassifierOutput | tuple:
        """
        Args:
            input_features: (B, L, C * F) as `SERFeatureExtractor` gives them.
            attention_mask: (B, L), 1 where a frame is real; all are when it is left out.
            labels: class indices (B,) or probabilities (B, num_labels); the loss is cross-entropy.

        Returns:
            Logits (B, num_labels), already divided by `config.calibration_temperature`: their softmax is calibrated.
        """
        hidden = self.ser(input_features, attention_mask, output_hidden_states, return_dict=True)
        logits = self.classifier(self.dropout(hidden.pooler_output)) / self.config.calibration_temperature
        loss = None if labels is None else nn.functional.cross_entropy(logits.float(), labels)
        likeness = None if self.likeness_weight is None else hidden.pooler_output @ self.likeness_weight  # (B,)
        output = SERClassifierOutput(loss=loss, logits=logits, hidden_states=hidden.hidden_states, likeness=likeness)
        wants_dict = self.config.return_dict if return_dict is None else return_dict
        return output if wants_dict else output.to_tuple()
