"""The networks. Each takes spectral features (B, C, F, L) and a mask (B, L), and gives frames (B, D, L') with theirs.

A backbone is a class with `output_size` (D) and `forward(features, mask, stages) -> (frames, mask)`; `stages` is a list
that gets its intermediate maps, or None. A config may set the keyword arguments of a backbone.
"""

import math
from collections.abc import Sequence
from functools import partial
from itertools import pairwise

import torch
from huggingface_hub.errors import HfHubHTTPError
from torch import Tensor, nn

from .layers import BasicBlock, ConvBlock, ResidualBlock, masked, masked_max_pool, reverse_frames, stride_mask
from .mfcc import frame_mask

Stages = list[Tensor] | None


def keep(stages: Stages, *maps: Tensor) -> None:
    """Append maps for `output_hidden_states`; without a list nothing is held, and memory is free again at once."""
    if stages is not None:
        stages.extend(maps)


def strided(size: int, strides: Sequence[int]) -> int:
    """What is left of an axis after convolutions with these strides and half-kernel padding."""
    for stride in strides:
        size = math.ceil(size / stride)
    return size


def check_odd(name: str, size: int) -> None:
    if size % 2 == 0:
        raise ValueError(f"{name} is {size}; it must be odd, or frames would lose their centre")


class CNN(nn.Module):
    """Compact residual network with squeeze-excitation.

    Frequency is halved at the stem and at every stage but the first, time at the stem and at the second and third
    stage (8 frames in, 1 out). What remains of the frequency axis is folded into the channels before pooling, so that
    the place of a formant is kept.

    Args:
        widths: channels of the stages.
        hidden_size: width of the frames given to the pooling (D).
        stem_kernel: height and width of the first kernel; large, for it must see several harmonics and a glide.
    """

    def __init__(
        self,
        num_channels: int,
        num_features: int,
        widths: Sequence[int] = (16, 48, 96, 144),
        hidden_size: int = 256,
        stem_kernel: int = 5,
    ):
        super().__init__()
        check_odd("stem_kernel", stem_kernel)
        strides = [(1, 1)] + [(2, 2) if stage < 3 else (2, 1) for stage in range(1, len(widths))]
        self.stem = nn.Conv2d(num_channels, widths[0], stem_kernel, stride=2, padding=stem_kernel // 2, bias=False)
        self.stem_norm = nn.BatchNorm2d(widths[0])
        self.stages = nn.ModuleList(
            ResidualBlock(before, after, stride)
            for before, after, stride in zip([widths[0], *widths], widths, strides, strict=False)
        )
        rows = strided(num_features, [2, *(stride for stride, _ in strides)])
        self.project = nn.Conv1d(widths[-1] * rows, hidden_size, 1, bias=False)
        self.project_norm = nn.BatchNorm1d(hidden_size)
        self.output_size = hidden_size

    def forward(self, features: Tensor, mask: Tensor, stages: Stages = None) -> tuple[Tensor, Tensor]:
        h = self.stem_norm(self.stem(masked(features, mask))).relu()  # (B, C, F, L) -> (B, W, F/2, L/2)
        mask = stride_mask(mask, 2)
        keep(stages, h)
        for stage in self.stages:
            h, mask = stage(h, mask)
            keep(stages, h)
        h = self.project(h.flatten(1, 2))  # (B, W, F', L') -> (B, W * F', L') -> (B, D, L')
        return self.project_norm(h).relu(), mask


class DeepCNN(nn.Module):
    """Seventeen plain 3x3 convolutions, widest first and narrowing step by step; the classifier makes eighteen layers.

    Time is quartered by the first two convolutions and kept from there on; frequency is halved twice more, and what is
    left of it is averaged.

    Args:
        widths: channels of each convolution.
        halve_both: convolutions that halve frequency and time.
        halve_frequency: convolutions that halve frequency alone.
    """

    def __init__(
        self,
        num_channels: int,
        num_features: int,
        widths: Sequence[int] = (512,) * 2 + (384,) * 3 + (256,) * 3 + (192,) * 4 + (128,) * 3 + (64,) * 2,
        halve_both: Sequence[int] = (0, 1),
        halve_frequency: Sequence[int] = (5, 8),
    ):
        super().__init__()
        strides = [
            (2, 2) if layer in halve_both else (2, 1) if layer in halve_frequency else (1, 1)
            for layer in range(len(widths))
        ]
        self.blocks = nn.ModuleList(
            ConvBlock(before, after, stride)
            for before, after, stride in zip([num_channels, *widths], widths, strides, strict=False)
        )
        self.output_size = widths[-1]

    def forward(self, features: Tensor, mask: Tensor, stages: Stages = None) -> tuple[Tensor, Tensor]:
        h = features
        for block in self.blocks:
            h, mask = block(h, mask)
            keep(stages, h)
        return h.mean(dim=2), mask  # (B, D, F', L') -> (B, D, L')


class ResNet18(nn.Module):
    """ResNet-18 (He et al. 2016, arXiv 1512.03385), averaged over frequency alone; time is left to the pooling.

    Parameters carry timm's names, so that `load_pretrained` can take ImageNet weights over.
    """

    def __init__(self, num_channels: int, num_features: int):
        super().__init__()
        self.num_channels = num_channels
        self.conv1 = nn.Conv2d(num_channels, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        widths = (64, 128, 256, 512)
        for number, (before, after) in enumerate(zip((64, *widths), widths, strict=False), start=1):
            blocks = [BasicBlock(before, after, stride=1 if number == 1 else 2), BasicBlock(after, after)]
            setattr(self, f"layer{number}", nn.ModuleList(blocks))
        self.output_size = 512

    def forward(self, features: Tensor, mask: Tensor, stages: Stages = None) -> tuple[Tensor, Tensor]:
        h = self.bn1(self.conv1(masked(features, mask))).relu()  # (B, C, F, L) -> (B, 64, F/2, L/2)
        h, mask = masked_max_pool(h, stride_mask(mask, 2))
        keep(stages, h)
        for layer in (self.layer1, self.layer2, self.layer3, self.layer4):
            for block in layer:
                h, mask = block(h, mask)
            keep(stages, h)
        return h.mean(dim=2), mask  # (B, 512, F/32, L/32) -> (B, 512, L/32)

    def load_pretrained(self) -> None:
        """Take ImageNet weights over; the kernels of the three colours are summed up for each input channel."""
        weights = timm_model("resnet18", pretrained=True, in_chans=self.num_channels).state_dict()
        self.load_state_dict({name: weight for name, weight in weights.items() if not name.startswith("fc.")})


class ShallowCNN(nn.Module):
    """Three convolutions, each followed by max-pooling.

    Args:
        widths: channels of the convolutions.
        kernel: height and width of their kernels.
        hidden_size: width of the frames given to the pooling (D).
    """

    def __init__(
        self,
        num_channels: int,
        num_features: int,
        widths: Sequence[int] = (32, 64, 128),
        kernel: int = 3,
        hidden_size: int = 128,
    ):
        super().__init__()
        check_odd("kernel", kernel)
        self.blocks = nn.ModuleList(
            ConvBlock(before, after, (1, 1), kernel)
            for before, after in zip([num_channels, *widths], widths, strict=False)
        )
        rows = strided(num_features, [2] * len(widths))
        self.project = nn.Conv1d(widths[-1] * rows, hidden_size, 1)
        self.output_size = hidden_size

    def forward(self, features: Tensor, mask: Tensor, stages: Stages = None) -> tuple[Tensor, Tensor]:
        h = features
        for block in self.blocks:
            h, mask = masked_max_pool(*block(h, mask))  # halves frequency and time
            keep(stages, h)
        return self.project(h.flatten(1, 2)).relu(), mask


class CNN1d(nn.Module):
    """Convolutions over time, with every feature a channel.

    Args:
        widths: channels of the convolutions; the last is that of the frames given to the pooling (D).
        kernel: frames a kernel spans.
        stride: of the second convolution and each after it.
    """

    def __init__(
        self,
        num_channels: int,
        num_features: int,
        widths: Sequence[int] = (256, 256, 128, 128),
        kernel: int = 5,
        stride: int = 2,
    ):
        super().__init__()
        check_odd("kernel", kernel)
        befores = [num_channels * num_features, *widths]
        self.strides = [1] + [stride] * (len(widths) - 1)
        self.convs = nn.ModuleList(
            nn.Conv1d(before, after, kernel, step, padding=kernel // 2, bias=False)
            for before, after, step in zip(befores, widths, self.strides, strict=False)
        )
        self.norms = nn.ModuleList(nn.BatchNorm1d(width) for width in widths)
        self.output_size = widths[-1]

    def forward(self, features: Tensor, mask: Tensor, stages: Stages = None) -> tuple[Tensor, Tensor]:
        h = features.flatten(1, 2)  # (B, C, F, L) -> (B, C * F, L)
        for conv, norm, stride in zip(self.convs, self.norms, self.strides, strict=True):
            h = norm(conv(masked(h, mask))).relu()
            mask = stride_mask(mask, stride)
            keep(stages, h)
        return h, mask


class Recurrent(nn.Module):
    """Recurrent layers that read forwards and backwards, each utterance from its own end.

    Args:
        hidden_size: units a direction; frames have twice as many (D).
        num_layers: layers.
        dropout: between layers.
    """

    cell: type[nn.RNNBase]

    def __init__(
        self,
        num_channels: int,
        num_features: int,
        hidden_size: int = 128,
        num_layers: int = 2,
        dropout: float = 0.2,
    ):
        super().__init__()
        sizes = [num_channels * num_features] + [2 * hidden_size] * (num_layers - 1)
        self.forwards = nn.ModuleList(self.cell(size, hidden_size, batch_first=True) for size in sizes)
        self.backwards = nn.ModuleList(self.cell(size, hidden_size, batch_first=True) for size in sizes)
        self.dropout = nn.Dropout(dropout)
        self.output_size = 2 * hidden_size

    def forward(self, features: Tensor, mask: Tensor, stages: Stages = None) -> tuple[Tensor, Tensor]:
        h = features.flatten(1, 2).transpose(1, 2)  # (B, C, F, L) -> (B, L, C * F)
        for layer, (onwards, back) in enumerate(zip(self.forwards, self.backwards, strict=True)):
            if layer:
                h = self.dropout(h)
            # Padding stands behind each utterance: it is never met, neither forwards nor once frames are reversed.
            ahead, _ = onwards(h)
            behind, _ = back(reverse_frames(h, mask))
            h = torch.cat([ahead, reverse_frames(behind, mask)], dim=-1)  # (B, L, D)
            keep(stages, h.transpose(1, 2))
        return h.transpose(1, 2), mask


class LSTM(Recurrent):
    __doc__ = Recurrent.__doc__
    cell = nn.LSTM


class GRU(Recurrent):
    __doc__ = Recurrent.__doc__
    cell = nn.GRU


class Timm(nn.Module):
    """Any convolutional network of timm, fed with spectral maps as images.

    Such a network knows no mask. Each utterance is therefore laid on a canvas of its own, as many frames as the next
    multiple of `canvas_frames`, and utterances with equal canvases go through together: what else is in the batch, or
    how far it is padded, changes nothing. In training, where norms mix a batch anyway, none goes alone (`in_company`).

    Args:
        name: of the network in timm.
        canvas_frames: frames to which a canvas is rounded up.
        min_rows: fewer features than this are stretched to it, for networks that halve the image many times.
    """

    def __init__(self, num_channels: int, num_features: int, name: str, canvas_frames: int = 64, min_rows: int = 64):
        super().__init__()
        self.create = partial(timm_model, name, in_chans=num_channels, features_only=True)
        self.network = self.create()
        for module in self.network.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)
            module._is_hf_initialized = True  # drawn: by timm, but for kernels, which it draws too wide in Inception
        self.canvas_frames = canvas_frames
        self.rows = max(num_features, min_rows)
        self.output_size = self.network.feature_info.channels()[-1]
        self._try(num_channels, name)

    @torch.no_grad()
    def _try(self, num_channels: int, name: str) -> None:
        """Transformers of timm take images of one size alone, and say so at the first one; some networks give maps with
        their channels last, and say nothing.
        """
        self.network.eval()
        try:
            maps = self.network(torch.zeros(1, num_channels, self.rows, self.canvas_frames))
        except (AssertionError, RuntimeError) as error:
            raise ValueError(
                f"timm's {name!r} cannot read images of {self.rows} x {self.canvas_frames} ({error}); set min_rows or "
                "canvas_frames, or choose a convolutional network"
            ) from error
        if maps[-1].shape[1] != self.output_size:
            raise ValueError(
                f"timm's {name!r} gives maps {tuple(maps[-1].shape)}, not (B, {self.output_size}, F, L) with the "
                "channels second; choose another network"
            )
        self.network.train()

    def forward(self, features: Tensor, mask: Tensor, stages: Stages = None) -> tuple[Tensor, Tensor]:
        features, lengths = masked(features, mask), mask.sum(dim=1)
        canvases = (lengths + self.canvas_frames - 1) // self.canvas_frames * self.canvas_frames
        canvases = in_company(canvases) if self.training else canvases
        groups, maps, counts = [], [], []
        for canvas in canvases.unique().tolist():
            group = (canvases == canvas).nonzero().flatten()
            image = nn.functional.pad(features[group], (0, canvas - features.shape[-1]))  # a negative pad crops
            if image.shape[2] < self.rows:
                image = nn.functional.interpolate(image, (self.rows, canvas), mode="bilinear")
            groups.append(group)
            maps.append(self.network(image))  # (b, C, F, canvas) -> one (b, C', F', L') a level
            counts.append((lengths[group] * maps[-1][-1].shape[-1] + canvas - 1) // canvas)
        back = torch.cat(groups).argsort()  # to the order of the batch
        levels = [joined(level)[back] for level in zip(*maps, strict=True)]
        keep(stages, *levels)
        mask = frame_mask(torch.cat(counts)[back], levels[-1].shape[-1])
        return levels[-1].mean(dim=2), mask  # (B, D, F', L') -> (B, D, L')

    def load_pretrained(self) -> None:
        """Take ImageNet weights over."""
        self.network.load_state_dict(self.create(pretrained=True).state_dict())


def in_company(canvases: Tensor) -> Tensor:
    """Canvases (B,) of two utterances or more each: a lone one takes the next larger, the largest takes others in.

    Of a short one a single value a channel may remain, of which batch norm can take no statistics.
    """
    for canvas, larger in pairwise(canvases.unique().tolist()):
        if (canvases == canvas).sum() == 1:
            canvases = canvases.where(canvases != canvas, larger)
    *others, largest = canvases.unique().tolist()
    if others and (canvases == largest).sum() == 1:
        canvases = canvases.where(canvases < others[-1], largest)
    return canvases


def joined(maps: Sequence[Tensor]) -> Tensor:
    """Maps (b, ..., L') of different lengths -> one batch (B, ..., L'), zero behind the shorter ones."""
    longest = max(map_.shape[-1] for map_ in maps)
    return torch.cat([nn.functional.pad(map_, (0, longest - map_.shape[-1])) for map_ in maps])


class InceptionV3(Timm):
    """Inception v3 (Szegedy et al. 2016, arXiv 1512.00567), as timm has it.

    Args:
        canvas_frames: see `Timm`; the network itself needs 75 rows and frames.
    """

    def __init__(self, num_channels: int, num_features: int, canvas_frames: int = 96):
        super().__init__(num_channels, num_features, "inception_v3", canvas_frames, min_rows=80)


def timm_model(name: str, **options) -> nn.Module:
    """A network of timm, without its classifier where the options say so.

    Raises:
        ImportError: timm is not installed.
        ValueError: timm has no such network, or it gives no feature maps.
        OSError: its pretrained weights could not be fetched.
    """
    try:
        import timm
    except ImportError as error:
        raise ImportError(f"the network {name!r} comes from timm; install it with: pip install timm") from error
    try:
        return timm.create_model(name, **options)
    except (OSError, HfHubHTTPError) as error:
        raise OSError(
            f"the pretrained weights of {name!r} could not be fetched ({type(error).__name__}); check the connection, "
            "or start from random weights with pretrained_backbone: false"
        ) from error
    except RuntimeError as error:
        raise ValueError(f"timm cannot make {name!r} with {options}: {error}") from error


BACKBONES: dict[str, type[nn.Module]] = {
    "cnn": CNN,
    "deep_cnn": DeepCNN,
    "resnet18": ResNet18,
    "inception_v3": InceptionV3,
    "shallow_cnn": ShallowCNN,
    "cnn1d": CNN1d,
    "lstm": LSTM,
    "gru": GRU,
}
TIMM_PREFIX = "timm/"  # "timm/efficientnet_b0": any other network of timm, by its name there
