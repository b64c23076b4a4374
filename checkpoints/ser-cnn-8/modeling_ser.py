"""Speech emotion recognition models: backbone over MFCCs, masked pooling over time, classifier."""

import difflib
import inspect
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.modeling_outputs import ModelOutput, SequenceClassifierOutput

from .backbones import BACKBONES
from .configuration_ser import SERConfig
from .layers import POOLINGS
from .mfcc import dct_matrix


@dataclass
class SERModelOutput(ModelOutput):
    """What `SERModel` gives.

    Args:
        last_hidden_state: frames (B, L', D).
        pooler_output: one embedding an utterance (B, P).
        hidden_states: the maps after the stem and each stage, if asked for.
    """

    last_hidden_state: Tensor | None = None
    pooler_output: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None


class InverseDCT(nn.Linear):
    """A learnable map of each frame that starts as the inverse DCT: cepstrum (..., F) -> log-mel spectrum (..., F)."""

    def __init__(self, size: int):
        super().__init__(size, size, bias=False)


def build_backbone(config: SERConfig) -> nn.Module:
    """The network that the config names; ValueError if there is none of that name or it knows no such option."""
    if config.backbone not in BACKBONES:
        near = difflib.get_close_matches(config.backbone, BACKBONES, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"unknown backbone {config.backbone!r}; known: {sorted(BACKBONES)}{hint}")
    backbone = BACKBONES[config.backbone]
    known = set(inspect.signature(backbone).parameters) - {"num_channels", "num_features"}
    if extra := config.backbone_options.keys() - known:
        raise ValueError(f"backbone {config.backbone!r} has no option {sorted(extra)}; known: {sorted(known)}")
    return backbone(config.num_channels, config.num_features, **config.backbone_options)


class SERPreTrainedModel(PreTrainedModel):
    config_class = SERConfig
    base_model_prefix = "ser"
    main_input_name = "input_features"
    input_modalities = ("audio",)

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
        else:
            super()._init_weights(module)


class SERModel(SERPreTrainedModel):
    """Features in, one embedding an utterance out."""

    _auto_class = "AutoModel"

    def __init__(self, config: SERConfig):
        super().__init__(config)
        self.invert_dct = InverseDCT(config.num_features) if config.invert_dct else nn.Identity()
        self.backbone = build_backbone(config)
        self.pooling = POOLINGS[config.pooling](self.backbone.output_size)
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
        h = input_features.to(self.dtype).unflatten(-1, (channels, num_features))  # (B, L, C, F)
        h = self.invert_dct(h).permute(0, 2, 3, 1)  # (B, C, F, L)
        stages, mask = self.backbone(h, mask)
        pooled = self.pooling(stages[-1], mask)  # (B, D, L') -> (B, P)

        wants_stages = self.config.output_hidden_states if output_hidden_states is None else output_hidden_states
        output = SERModelOutput(
            last_hidden_state=stages[-1].transpose(1, 2),
            pooler_output=pooled,
            hidden_states=tuple(stages) if wants_stages else None,
        )
        wants_dict = self.config.return_dict if return_dict is None else return_dict
        return output if wants_dict else output.to_tuple()


class SERForAudioClassification(SERPreTrainedModel):
    """Features in, one logit an emotion out."""

    _auto_class = "AutoModelForAudioClassification"

    def __init__(self, config: SERConfig):
        super().__init__(config)
        self.ser = SERModel(config)
        self.dropout = nn.Dropout(config.dropout)
        self.classifier = nn.Linear(self.ser.pooling.output_size, config.num_labels)
        self.post_init()

    def forward(
        self,
        input_features: Tensor,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> SequenceClassifierOutput | tuple:
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
        output = SequenceClassifierOutput(loss=loss, logits=logits, hidden_states=hidden.hidden_states)
        wants_dict = self.config.return_dict if return_dict is None else return_dict
        return output if wants_dict else output.to_tuple()
