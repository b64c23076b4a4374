"""The networks. Each takes spectral features (B, C, F, L) and a mask (B, L), and gives frames (B, D, L') with theirs.

A backbone is a class with `output_size` (D) and `forward(features, mask) -> (stages, mask)`: `stages` is the list of
its intermediate maps, the last of them the frames (B, D, L').
"""

from collections.abc import Sequence

from torch import Tensor, nn

from .layers import ResidualBlock, masked, stride_mask


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
        if stem_kernel % 2 == 0:
            raise ValueError(f"stem_kernel is {stem_kernel}; it must be odd, or frames would lose their centre")
        strides = [(1, 1)] + [(2, 2) if stage < 3 else (2, 1) for stage in range(1, len(widths))]
        self.stem = nn.Conv2d(num_channels, widths[0], stem_kernel, stride=2, padding=stem_kernel // 2, bias=False)
        self.stem_norm = nn.BatchNorm2d(widths[0])
        self.stages = nn.ModuleList(
            ResidualBlock(before, after, stride)
            for before, after, stride in zip([widths[0], *widths], widths, strides, strict=False)
        )
        rows = (num_features + 1) // 2
        for stride, _ in strides:
            rows = (rows + stride - 1) // stride
        self.project = nn.Conv1d(widths[-1] * rows, hidden_size, 1, bias=False)
        self.project_norm = nn.BatchNorm1d(hidden_size)
        self.output_size = hidden_size

    def forward(self, features: Tensor, mask: Tensor) -> tuple[list[Tensor], Tensor]:
        h = self.stem_norm(self.stem(masked(features, mask))).relu()  # (B, C, F, L) -> (B, W, F/2, L/2)
        mask = stride_mask(mask, 2)
        stages = [h]
        for stage in self.stages:
            h, mask = stage(h, mask)
            stages.append(h)
        h = self.project(h.flatten(1, 2))  # (B, W, F', L') -> (B, W * F', L') -> (B, D, L')
        stages.append(self.project_norm(h).relu())
        return stages, mask


BACKBONES: dict[str, type[nn.Module]] = {"cnn": CNN}
