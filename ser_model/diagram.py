"""A picture of any network: what runs after what, with shapes and parameters.

Modules are drawn in the order in which they are called, those that belong together in a frame. What a network does
between its modules (shortcuts, activations) is not seen. Drawn by matplotlib from PyTorch's own hooks: what draws the
whole graph, such as torchview, needs a graphviz that pip does not bring.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from torch import Tensor, nn

from .feature_extraction_ser import SERFeatureExtractor
from .modeling_ser import SERForAudioClassification

DURATION_S = 4.0  # of the clip whose shapes are shown: about one utterance

# Inches.
WIDTH, MARGIN, INDENT, INSET = 7.0, 0.2, 0.15, 0.06  # each frame stands in by INDENT on the left, INSET on the right
BOX, GAP, TITLE = 0.34, 0.16, 0.3
ARROWS_AT, KIND_AT, SHAPE_AT, PARAMETERS_AT = 2.15, 2.3, 5.4, 6.45  # a lane, a left edge and two right edges
FRAMES = ("#F4F7FA", "#E7EEF5", "#DAE5EF", "#CDDCE9")  # the deeper the darker
LEARNT, FIXED, INK = "#FFF4D6", "#FFFFFF", "#1A1A1A"


@dataclass
class Node:
    """A module that was called: its name in the one around it, the shape it gave (without the batch), its children."""

    name: str
    module: nn.Module
    shape: tuple[int, ...] = ()
    children: list["Node"] = field(default_factory=list)

    @property
    def parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.module.parameters())


@torch.no_grad()
def trace(model: nn.Module, *inputs: Tensor) -> Node:
    """Call the model and note what is called within it, in order; a module called twice is noted once."""
    names = {module: name for name, module in model.named_modules()}
    root = Node("", model)
    open_nodes, noted = [root], {model}

    def enter(module: nn.Module, _) -> None:
        around = f"{names[open_nodes[-1].module]}." if open_nodes[-1] is not root else ""
        open_nodes.append(Node(names[module].removeprefix(around), module))

    def leave(module: nn.Module, _, output) -> None:
        node = open_nodes.pop()
        node.shape = tuple(_first_tensor(output).shape[1:])
        if module not in noted and not isinstance(module, nn.Identity):
            noted.add(module)
            open_nodes[-1].children.append(node)

    within = [module for module in names if module is not model]
    hooks = [module.register_forward_pre_hook(enter) for module in within]
    hooks += [module.register_forward_hook(leave) for module in within]
    try:
        root.shape = tuple(_first_tensor(model(*inputs)).shape[1:])
    finally:
        for hook in hooks:
            hook.remove()
    return root


def _first_tensor(output) -> Tensor:
    while not isinstance(output, Tensor):
        output = next(iter(output.values() if isinstance(output, dict) else output))
    return output


def draw_network(
    model: SERForAudioClassification, extractor: SERFeatureExtractor, path: str | Path, depth: int
) -> Path:
    """Draw from the waveform to the logits.

    Args:
        path: .svg, .pdf or .png, which is also taken for a name without an ending.
        depth: how many modules within one another are opened, 1 or more; what lies deeper is one box.

    Returns:
        Where the picture is.

    Raises ValueError for an ending of another kind, or the path of a folder.
    """
    path = Path(path)
    if path.is_dir():
        raise ValueError(f"{path} is a folder; give the name of a picture in it, such as {path / 'network.svg'}")
    path = path if path.suffix else path.with_suffix(".png")
    samples = round(DURATION_S * extractor.sampling_rate)
    noise = 0.1 * torch.randn(1, samples, generator=torch.Generator().manual_seed(0))
    features, mask = extractor.extract(noise, torch.tensor([samples]))
    root = trace(model.eval(), features, mask)
    clip = f"{DURATION_S:g} s at {extractor.sampling_rate:,} Hz"
    heard = f"{' + '.join(extractor.features)}, {1000 / extractor.hop_ms:g} a second"
    rows = [
        Row("box", 0, "waveform", clip, (samples,)),
        Row("box", 0, "features", heard, tuple(features.shape[1:])),
        *_rows(root.children, 0, depth),
    ]
    title = f"{model.config.backbone}: {root.parameters:,} parameters, {model.config.num_labels} labels"
    with rc_context({"svg.fonttype": "none"}):  # letters stay letters: a quarter of the size, and found by a search
        _draw(rows, title).savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
    return path


@dataclass
class Row:
    """One line of the picture: a "box", or the "top" or "bottom" of a frame around others."""

    what: str
    level: int
    name: str = ""
    kind: str = ""
    shape: tuple[int, ...] = ()
    parameters: int = 0


def _rows(nodes: list[Node], level: int, depth: int) -> Iterator[Row]:
    for node in nodes:
        # A frame around nothing that learns would hide what it holds itself, as a norm around its activation does.
        opened = any(child.parameters for child in node.children) and level < depth - 1
        yield Row("top" if opened else "box", level, node.name, _kind(node), node.shape, node.parameters)
        if opened:
            yield from _rows(node.children, level + 1, depth)
            yield Row("bottom", level)


def _kind(node: Node) -> str:
    """The class of a module, and what its shape does not tell."""
    module, kind = node.module, type(node.module).__name__
    if isinstance(module, nn.modules.conv._ConvNd):
        kind += f" {'×'.join(map(str, module.kernel_size))}"
        if set(module.stride) != {1}:
            kind += f", stride {'×'.join(map(str, module.stride))}"
        if module.groups > 1:
            kind += f", {module.groups} groups"
    elif isinstance(module, nn.Dropout):
        kind += f" {module.p:g}"
    return kind


def _draw(rows: list[Row], title: str) -> Figure:
    heights = {"box": BOX + GAP, "top": TITLE + GAP, "bottom": GAP}
    height = 2 * MARGIN + TITLE + GAP + sum(heights[row.what] for row in rows)
    figure = Figure(figsize=(WIDTH, height), facecolor="white")
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, WIDTH), ylim=(height, 0))
    axes.set_axis_off()

    def write(x: float, y: float, text: str, **style) -> None:
        axes.text(x, y, text, **{"va": "center", "color": INK, "fontsize": 9, "zorder": 30} | style)

    def frame(level: int, top: float, bottom: float, fill: str, zorder: int) -> None:
        left, right = MARGIN + level * INDENT, WIDTH - MARGIN - level * INSET
        style = {"facecolor": fill, "edgecolor": INK, "linewidth": 0.6, "zorder": zorder}
        corners = "round,pad=0,rounding_size=0.06"
        axes.add_patch(FancyBboxPatch((left, top), right - left, bottom - top, boxstyle=corners, **style))

    y = MARGIN + TITLE / 2
    write(MARGIN, y, title, weight="bold", fontsize=11)
    write(SHAPE_AT, y, "gives", ha="right", style="italic")
    write(PARAMETERS_AT, y, "parameters", ha="right", style="italic")
    y = MARGIN + TITLE + GAP
    tops, above = [], None
    for row in rows:
        if row.what == "bottom":
            frame(row.level, tops.pop(), y - GAP / 4, FRAMES[min(row.level, len(FRAMES) - 1)], zorder=row.level)
        elif row.what == "top":
            tops.append(y)
        else:
            frame(row.level, y, y + BOX, LEARNT if row.parameters else FIXED, zorder=20)
            if above is not None:
                ends, style = ((ARROWS_AT, above), (ARROWS_AT, y)), {"shrinkA": 0, "shrinkB": 0, "color": INK}
                axes.add_patch(FancyArrowPatch(*ends, arrowstyle="-|>", mutation_scale=8, zorder=25, **style))
            above = y + BOX
        if row.what != "bottom":
            middle = y + (BOX if row.what == "box" else TITLE) / 2
            write(MARGIN + row.level * INDENT + 0.1, middle, row.name, weight="bold")
            write(KIND_AT, middle, row.kind)
            write(SHAPE_AT, middle, " × ".join(f"{size:,}" for size in row.shape), ha="right")
            if row.parameters:
                write(PARAMETERS_AT, middle, f"{row.parameters:,}", ha="right")
        y += heights[row.what]
    return figure
