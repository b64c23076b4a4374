"""Building blocks that know which frames are real. Masks are (B, L); spectral maps are (B, C, F, L)."""

import torch
from torch import Tensor, nn
from transformers.modeling_layers import GradientCheckpointingLayer


def stride_mask(mask: Tensor, stride: int) -> Tensor:
    """Mask of a convolution's output, whose frame t is centred on input frame t * s: (B, L) -> (B, ceil(L / s))."""
    # A slice with a step would do, but torch.export with a free length cannot tell that it fits the convolution.
    return mask[:, stride * torch.arange((mask.shape[1] - 1) // stride + 1, device=mask.device)]


def masked(x: Tensor, mask: Tensor) -> Tensor:
    """Zero what is not real, so that a convolution sees padding as the end of a clip; x: (B, C, F, L) or (B, D, L)."""
    return x * (mask[:, None, None] if x.dim() == 4 else mask[:, None]).to(x.dtype)


def masked_mean(x: Tensor, mask: Tensor) -> Tensor:
    """Mean over real frames: (B, D, L), (B, L) -> (B, D)."""
    weights = mask.float()  # a sum over ten minutes of frames overflows half precision
    return ((x * weights[:, None]).sum(dim=-1) / weights.sum(dim=-1, keepdim=True).clamp(min=1)).to(x.dtype)


def masked_max_pool(x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Halve frequency and time by the maximum over 3x3; x must not be negative, for padding counts as 0."""
    return nn.functional.max_pool2d(masked(x, mask), 3, stride=2, padding=1), stride_mask(mask, 2)


def reverse_frames(x: Tensor, mask: Tensor) -> Tensor:
    """Each utterance backwards, its padding still behind it: (B, L, D), (B, L) -> (B, L, D)."""
    position = torch.arange(x.shape[1], device=x.device)
    source = (mask.sum(dim=1, keepdim=True) - 1 - position).clamp(min=0)
    return x.gather(1, source[..., None].expand_as(x))


class MeanPooling(nn.Module):
    """Mean over real frames: (B, D, L) -> (B, D)."""

    def __init__(self, size: int):
        super().__init__()
        self.output_size = size

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        return masked_mean(x, mask)


class AttentivePooling(nn.Module):
    """Attentive statistics pooling (Okabe et al. 2018, arXiv 1803.10963): (B, D, L) -> (B, 2 D)."""

    def __init__(self, size: int, bottleneck: int = 64):
        super().__init__()
        self.score = nn.Sequential(
            nn.Conv1d(size, bottleneck, 1), nn.Tanh(), nn.Conv1d(bottleneck, size, 1, bias=False)
        )
        self.output_size = 2 * size

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        scores = self.score(x).float().masked_fill(~mask[:, None], torch.finfo(torch.float32).min)
        weights = scores.softmax(dim=-1)  # float32: the variance below cancels badly in half precision
        mean = (x * weights).sum(dim=-1)
        variance = ((x - mean[..., None]).square() * weights).sum(dim=-1)
        return torch.cat([mean, (variance + 1e-5).sqrt()], dim=-1).to(x.dtype)


POOLINGS = {"attention": AttentivePooling, "mean": MeanPooling}


class SqueezeExcitation(nn.Module):
    """Channel gates from the mean over frequency and real frames (Hu et al. 2018, arXiv 1709.01507)."""

    def __init__(self, channels: int, reduction: int = 8):
        super().__init__()
        hidden = max(channels // reduction, 4)
        self.gate = nn.Sequential(nn.Linear(channels, hidden), nn.ReLU(), nn.Linear(hidden, channels), nn.Sigmoid())

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        return x * self.gate(masked_mean(x.mean(dim=2), mask))[..., None, None]


class ResidualBlock(GradientCheckpointingLayer):
    """Two 3x3 convolutions with channel gates around a shortcut: (B, C, F, L) -> (B, C', F / s, L / t)."""

    def __init__(self, in_channels: int, channels: int, stride: tuple[int, int] = (1, 1)):
        super().__init__()
        self.stride = stride
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)
        self.gate = SqueezeExcitation(channels)
        self.shortcut = nn.Identity()
        if in_channels != channels or stride != (1, 1):
            self.shortcut = nn.Sequential(nn.Conv2d(in_channels, channels, 1, bias=False), nn.BatchNorm2d(channels))

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        frequency_stride, time_stride = self.stride
        shorter = stride_mask(mask, time_stride)
        h = self.norm1(self.conv1(masked(x, mask))).relu()
        h = self.norm2(self.conv2(masked(h, shorter)))
        # Strided here: oneDNN's own strided 1x1 convolution, of eight channels on several threads, corrupts memory.
        kept = x[:, :, ::frequency_stride, ::time_stride]
        return (self.gate(h, shorter) + self.shortcut(kept)).relu(), shorter


class BasicBlock(GradientCheckpointingLayer):
    """The block of ResNet-18, its parts named as in timm: (B, C, F, L) -> (B, C', F / s, L / s)."""

    def __init__(self, in_channels: int, channels: int, stride: int = 1):
        super().__init__()
        self.stride = stride
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.downsample = nn.Identity()
        if in_channels != channels or stride != 1:
            self.downsample = nn.Sequential(
                nn.Conv2d(in_channels, channels, 1, stride, bias=False), nn.BatchNorm2d(channels)
            )

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        shorter = stride_mask(mask, self.stride)
        h = self.bn1(self.conv1(masked(x, mask))).relu()
        h = self.bn2(self.conv2(masked(h, shorter)))
        return (h + self.downsample(x)).relu(), shorter


class ConvBlock(GradientCheckpointingLayer):
    """Convolution, norm, ReLU: (B, C, F, L) -> (B, C', F / s, L / t)."""

    def __init__(self, in_channels: int, channels: int, stride: tuple[int, int] = (1, 1), kernel: int = 3):
        super().__init__()
        self.time_stride = stride[1]
        self.conv = nn.Conv2d(in_channels, channels, kernel, stride, padding=kernel // 2, bias=False)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        return self.norm(self.conv(masked(x, mask))).relu_(), stride_mask(mask, self.time_stride)
