"""The picture of a network shows all that runs, in order, with the true shapes and numbers of parameters."""

import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn

from ser_model import SERConfig, SERFeatureExtractor, SERForAudioClassification
from ser_model.__main__ import main
from ser_model.backbones import BACKBONES
from ser_model.diagram import _rows, trace

ROOT = Path(__file__).resolve().parent.parent


class Twice(nn.Module):
    """Two modules within one, called the other way round than they were made, the first of them twice."""

    def __init__(self):
        super().__init__()
        self.last = nn.Linear(4, 3)
        self.inner = nn.ModuleDict({"conv": nn.Conv1d(2, 5, 3, stride=2)})
        self.nothing = nn.Identity()
        self.again = nn.Dropout(0.1)
        self.unused = nn.Linear(7, 7)

    def forward(self, x):
        x = self.again(self.again(self.nothing(self.inner["conv"](x))))  # (1, 2, 9) -> (1, 5, 4)
        return {"logits": self.last(x)}


def test_trace_follows_the_calls_with_their_shapes_and_parameters():
    root = trace(Twice(), torch.zeros(1, 2, 9))
    noted = [(node.name, node.shape, node.parameters) for node in root.children]
    assert noted == [("inner.conv", (5, 4), 2 * 5 * 3 + 5), ("again", (5, 4), 0), ("last", (5, 3), 4 * 3 + 3)]
    assert root.shape == (5, 3)


def test_trace_leaves_no_hooks_behind():
    model = Twice()
    trace(model, torch.zeros(1, 2, 9))
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


@pytest.mark.parametrize("name", BACKBONES)
def test_boxes_hold_every_parameter_of_every_network(name):
    model = SERForAudioClassification(SERConfig(backbone=name)).eval()
    extractor = SERFeatureExtractor()
    root = trace(model, *extractor.extract(torch.randn(1, 16_000), torch.tensor([16_000])))
    assert root.shape == (model.config.num_labels,)
    for depth in (1, 3, 9):
        rows = list(_rows(root.children, 0, depth))
        assert sum(row.parameters for row in rows if row.what == "box") == model.num_parameters()
        assert max(row.level for row in rows) < depth


def drawn(path: Path) -> list[str]:
    """All that is written in an SVG."""
    return [element.text for element in ElementTree.parse(path).iter("{http://www.w3.org/2000/svg}text")]


def test_draw_command_shows_a_config_from_waveform_to_logits(tmp_path):
    (tmp_path / "mine.yaml").write_text(
        "data: {corpora: [{name: ravdess}]}\nlabels: 14\nfeatures: {n_mfcc: 40, n_mels: 64}\n"
        "model: {backbone: resnet18, pooling: mean}\n"
    )
    assert main(["draw", str(tmp_path / "mine.yaml"), "--output", str(tmp_path / "net.svg")]) == 0
    text = drawn(tmp_path / "net.svg")
    assert re.fullmatch(r"resnet18: 11,\d{3},\d{3} parameters, 14 labels", text[0])
    shown = ["waveform", "64,000", "201 × 40", "conv1", "Conv2d 7×7, stride 2×2", "64 × 20 × 101", "classifier"]
    places = [text.index(word) for word in [*shown, "7,182"]]
    assert places == sorted(places)


def test_draw_command_shows_a_saved_model_as_a_picture_too(tmp_path):
    pictures = []
    for depth in ("2", "4"):
        path = tmp_path / f"net{depth}.png"
        assert main(["draw", str(ROOT / "checkpoints" / "ser-cnn-8"), "--output", str(path), "--depth", depth]) == 0
        pictures.append(Image.open(path).size)
    assert pictures[0][0] == pictures[1][0] and pictures[0][1] < pictures[1][1]  # deeper is longer


def test_draw_command_shows_the_network_of_the_base_model(tmp_path):
    config = str(ROOT / "configs" / "finetune_folder.yaml")
    assert main(["draw", config, "--output", str(tmp_path / "net.svg"), "--depth=1"]) == 0
    assert re.fullmatch(r"cnn.*: 1,4\d\d,\d{3} parameters, 2 labels", drawn(tmp_path / "net.svg")[0])


def test_draw_command_says_where_the_picture_is_and_takes_no_folder(tmp_path, capsys):
    command = ["draw", str(ROOT / "checkpoints" / "ser-cnn-8"), "--depth=1", "--output"]
    assert main([*command, str(tmp_path / "net")]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'net.png'}\n" and (tmp_path / "net.png").is_file()
    with pytest.raises(SystemExit, match="is a folder; give the name of a picture in it"):
        main([*command, str(tmp_path)])


@pytest.mark.parametrize(
    ("model", "says"),
    [("{backbone: resnet81}", "did you mean 'resnet18'"), ("{num_features: 7}", "num_features|features a frame")],
)
def test_a_config_that_makes_no_network_ends_in_one_sentence(tmp_path, model, says):
    (tmp_path / "odd.yaml").write_text(f"data: {{corpora: [{{name: tess}}]}}\nmodel: {model}\n")
    with pytest.raises(SystemExit, match=says):
        main(["draw", str(tmp_path / "odd.yaml"), "--output", str(tmp_path / "net.svg")])
    assert not (tmp_path / "net.svg").exists()
