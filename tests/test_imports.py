"""Imports point down only, and what travels with a model needs nothing that stays at home."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from transformers.dynamic_module_utils import get_imports, get_relative_imports

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "ser_model"
LAYERS = [
    {"configuration_ser", "mfcc", "layers", "labels", "audio", "sounds", "archives", "spreadsheet"}
    | {"disk", "memory", "run_files"},
    {"feature_extraction_ser", "backbones", "corpora", "metrics", "settings", "faults", "library", "voice_activity"},
    {"modeling_ser", "splits", "inspection", "augment", "pictures", "saliency", "distributed", "predictions"},
    {"registration", "checkpoints"},
    {"pretrained"},
    {"data", "download", "inference", "reports", "hub", "diagram", "build", "conditions", "__init__"},
    {"explore", "evaluation", "crossvalidation", "bulk", "finetune", "optimization", "teacher", "likeness", "timeline"}
    | {"streaming"},
    {"page", "joining"},
    {"__main__"},
]
LAYER_OF = {unit: layer for layer, units in enumerate(LAYERS) for unit in units}
TRAVELLING = [
    "configuration_ser",
    "mfcc",
    "layers",
    "feature_extraction_ser",
    "backbones",
    "modeling_ser",
]
TRAVELLING_MAY_IMPORT = {*sys.stdlib_module_names, "torch", "numpy", "transformers", "huggingface_hub"}
ONLY_INSIDE_TRY = {"timm"}
NOT_FOR_THE_PAGE = {"data", "train", "augment", "likeness", "splits", "corpora"}
# Lines that transformers, of one version or another, takes for imports wherever they stand, in a docstring too.
LOOKS_LIKE_IMPORT = re.compile(r"^\s*(import\s+\S+\s*$|from\s+\S+\s+import\b)")

FILES = sorted((ROOT / PACKAGE).rglob("*.py"))
every_file = pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
every_travelling_file = pytest.mark.parametrize("path", [ROOT / PACKAGE / f"{name}.py" for name in TRAVELLING])


def unit_of(dotted: str) -> str:
    """The module, or sub-package, of ours that a dotted name lies in: ser_model.corpora.tess -> corpora."""
    parts = dotted.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def unit_of_file(path: Path) -> str:
    return path.relative_to(ROOT / PACKAGE).parts[0].removesuffix(".py")


def import_nodes(path: Path) -> list[ast.Import | ast.ImportFrom]:
    return [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Import | ast.ImportFrom)]


def imported(path: Path) -> Iterator[str]:
    """Every module that a file imports, anywhere in it, as an absolute dotted name."""
    for node in import_nodes(path):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
            continue
        parents = path.relative_to(ROOT).parts[: -node.level] if node.level else ()
        base = ".".join([*parents, *filter(None, [node.module])])
        for alias in node.names:
            inside = ROOT.joinpath(*base.split("."), alias.name)
            is_module = inside.is_dir() or inside.with_suffix(".py").is_file()
            yield f"{base}.{alias.name}" if is_module else base


def is_ours(dotted: str) -> bool:
    return dotted.split(".")[0] == PACKAGE


def reached(path: Path, seen: set[Path] | None = None) -> set[str]:
    """Units of ours, and train, that a file imports itself or through others."""
    seen = set() if seen is None else seen
    units = set()
    for dotted in imported(path):
        if dotted == "train":
            units.add("train")
        if not is_ours(dotted):
            continue
        units.add(unit_of(dotted))
        target = ROOT.joinpath(*dotted.split("."))
        target = target / "__init__.py" if target.is_dir() else target.with_suffix(".py")
        if target not in seen:
            seen.add(target)
            units |= reached(target, seen)
    return units


@every_file
def test_every_module_has_a_layer(path):
    unit = unit_of_file(path)
    assert unit in LAYER_OF, f"{unit} has no layer yet: give it one in DESIGN.md and in LAYERS of this test"


@every_file
def test_imports_point_down(path):
    unit = unit_of_file(path)
    for dotted in filter(is_ours, imported(path)):
        target = unit_of(dotted)
        assert target in LAYER_OF, f"{path.name} imports {dotted}, which has no layer"
        assert target == unit or LAYER_OF[target] < LAYER_OF.get(unit, len(LAYERS)), (
            f"{unit} (L{LAYER_OF.get(unit)}) imports {target} (L{LAYER_OF[target]}); imports point down only"
        )


@every_travelling_file
def test_travelling_files_need_nothing_that_stays_at_home(path):
    tree = ast.parse(path.read_text())
    tried = {id(node) for block in ast.walk(tree) if isinstance(block, ast.Try) for node in ast.walk(block)}
    for node in (node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)):
        where = f"{path.name}:{node.lineno}"
        if isinstance(node, ast.ImportFrom) and node.level:
            assert node.level == 1 and node.module in TRAVELLING, (
                f"{where}: only `from .mod import name` with mod among {TRAVELLING} travels"
            )
            continue
        for name in [node.module] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]:
            package = name.split(".")[0]
            assert package in TRAVELLING_MAY_IMPORT or (package in ONLY_INSIDE_TRY and id(node) in tried), (
                f"{where}: {package} may be absent where the model is loaded"
            )


@every_file
def test_text_is_of_a_named_encoding(path):
    """Or what one system writes another one reads as something else."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", None)
            as_text = called == "open" and isinstance(node.func, ast.Name) and "b" not in ast.unparse(node.args[1:2])
            if as_text or called in ("read_text", "write_text"):
                assert "encoding" in {keyword.arg for keyword in node.keywords}, f"{path.name}:{node.lineno}"


@every_travelling_file
def test_transformers_reads_the_imports_that_python_does(path):
    nodes = import_nodes(path)
    relative = {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.level}
    assert set(get_relative_imports(path)) == relative
    assert set(get_imports(path)) - ONLY_INSIDE_TRY <= TRAVELLING_MAY_IMPORT
    first_lines = {node.lineno for node in nodes}
    lines = enumerate(path.read_text().splitlines(), start=1)
    strays = [f"{path.name}:{number}: {line}" for number, line in lines if LOOKS_LIKE_IMPORT.match(line)]
    strays = [stray for stray in strays if int(stray.split(":")[1]) not in first_lines]
    assert not strays, "transformers would take these lines for imports; word them differently"


def test_the_travelling_files_are_all_that_modeling_needs():
    needed, waiting = set(), ["modeling_ser", "feature_extraction_ser"]
    while waiting:
        if (name := waiting.pop()) not in needed:
            needed.add(name)
            waiting += get_relative_imports(ROOT / PACKAGE / f"{name}.py")
    assert needed == set(TRAVELLING)


def test_the_page_imports_neither_corpora_nor_training():
    units = reached(ROOT / "app.py")
    assert "inference" in units
    assert not units & NOT_FOR_THE_PAGE


def test_the_package_names_what_it_offers_and_imports_it_when_it_is_used():
    code = (
        "import sys, ser_model; assert 'torch' not in sys.modules and set(ser_model.__all__) <= set(dir(ser_model)); "
        "from ser_model import EmotionRecognizer, LiveRecognizer, SERModel; print(LiveRecognizer.__module__)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == "ser_model.streaming", done.stderr
