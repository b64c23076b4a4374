"""Out into the world: a model folder to the Hub, and a network with its features into one ONNX file."""

import copy
import json
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, TypeVar

import torch
import yaml
from huggingface_hub import CommitOperationAdd, HfApi, constants, get_token, hf_hub_download, try_to_load_from_cache
from huggingface_hub.errors import (
    EntryNotFoundError,
    HfHubHTTPError,
    HFValidationError,
    HTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
)
from huggingface_hub.utils import validate_repo_id
from torch import Tensor, nn
from torch.export import Dim
from transformers.dynamic_module_utils import get_relative_imports

from .backbones import Timm
from .disk import first_line
from .feature_extraction_ser import SERFeatureExtractor
from .modeling_ser import SERForAudioClassification
from .run_files import CARD, CONFIG, FEATURES, LAST, METRICS, NAMELESS, SETTINGS, SPLIT

# What makes up a model on the Hub; whatever else lies in the folder (optimizer states, logs, pickles) stays at home.
NEEDED = (CONFIG, FEATURES, CARD)
UPLOADED = (
    *NEEDED,
    "model*.safetensors",
    "model.safetensors.index.json",
    "*.py",
    "*.png",
    METRICS,
    SETTINGS,
    SPLIT,
    "LICENSE",  # of the weights
)

EXPORT_NEEDS = ("onnx", "onnxscript")
ONNX_TOLERANCE = 1e-4  # of a logit or a likeness: float32 sums in another order differ by 1e-6


Loaded = TypeVar("Loaded")


class HubError(RuntimeError):
    """Why a model could not be pushed, or a network not exported, and what to do about it."""


def check_push(repo_id: str) -> str:
    """The token to push with, before hours of training that would end without one.

    Raises:
        HubError: `repo_id` is no name of a repository, or nobody has logged in.
    """
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise HubError(f"{repo_id!r} cannot name a repository; it looks like your-name/ser-cnn") from error
    if not (token := get_token()):
        raise HubError("no token to push with; run `hf auth login`, or set HF_TOKEN to a token that may write")
    if not (token.isascii() and token.isprintable()):  # refused further down too, but in a text that quotes it
        raise HubError("the token holds characters that no token has; run `hf auth login` again, or mend HF_TOKEN")
    return token


def push_model(folder: str | Path, repo_id: str, private: bool = False) -> str:
    """Model, extractor, code and card, in one commit; the repository is made if there is none.

    Args:
        folder: as `train.py` leaves it.
        repo_id: "your-name/ser-cnn"; without a name before the slash, the token's owner is taken.
        private: whether a repository that is made now is private; one that exists stays as it is.

    Returns:
        Where the commit is to be seen.

    Raises:
        HubError: the folder lacks something, or the Hub cannot be reached or refuses.
    """
    folder = Path(folder)
    check_folder(folder)
    token = check_push(repo_id)
    api = HfApi(token=token)
    try:
        repo_id = api.create_repo(repo_id, private=private or None, exist_ok=True).repo_id
        files = sorted(file for pattern in UPLOADED for file in folder.glob(pattern))
        uploads = [CommitOperationAdd(file.name, _fit_for_others(file, repo_id)) for file in files]
        message = "Upload model, feature extractor, code and card"
        return api.create_commit(repo_id, uploads, commit_message=message).commit_url
    except (HTTPError, OSError, ValueError, yaml.YAMLError) as error:
        # `from None`: what lies below may quote the request, and with it the token.
        raise HubError(_complaint(error, repo_id).replace(token, "(token)")) from None


def _fit_for_others(file: Path, repo_id: str) -> Path | bytes:
    """The file itself; but of the card, a copy with the model's name, and of the settings, one that anybody can train
    with: it tells nothing of where on this machine things lie, and pushes to nobody's repository.
    """
    if file.name == CARD:
        return file.read_bytes().replace(NAMELESS.encode(), repo_id.encode())
    if file.name != SETTINGS:
        return file
    settings = yaml.safe_load(content := file.read_bytes())
    nowhere = _without_places(settings)
    if "training" in nowhere:
        nowhere["training"] |= {"push_to_hub": None, "push_private": False}
    return content if nowhere == settings else yaml.safe_dump(nowhere, sort_keys=False, allow_unicode=True).encode()


def _without_places(value: Any) -> Any:
    """Nested settings in which every absolute path is reduced to its last part."""
    if isinstance(value, dict):
        return {key: _without_places(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_places(item) for item in value]
    if isinstance(value, str) and (PurePosixPath(value).is_absolute() or PureWindowsPath(value).is_absolute()):
        return PureWindowsPath(value).name  # which knows both kinds of slashes
    return value


def check_folder(folder: Path) -> None:
    """Raises HubError unless everything is there that `from_pretrained` and a visitor of the Hub need."""
    if not folder.is_dir():
        raise HubError(f"no folder {folder}; give the output folder of train.py")
    missing = [name for name in NEEDED if not (folder / name).is_file()]
    if not missing:
        missing = sorted(file.name for file in _code(folder) if not file.is_file())
    if not any(folder.glob("model*.safetensors")):
        missing.append("model.safetensors")
    if missing:
        raise HubError(f"{folder} is no model folder as train.py leaves it: it lacks {', '.join(missing)}")


def _code(folder: Path) -> set[Path]:
    """The files that the Auto classes will read: those that the two JSON files name, and what they import."""
    waiting, files = set(), set()
    for name in NEEDED[:2]:
        try:
            auto_map = json.loads((folder / name).read_text(encoding="utf-8")).get("auto_map", {})
            waiting |= {reference.split(".")[0] for reference in auto_map.values()}
        except (ValueError, AttributeError) as error:  # no JSON, or none that maps names to names
            raise HubError(f"{folder / name} is damaged ({first_line(error)}); take it from train.py anew") from error
    while waiting:
        files.add(file := folder / f"{waiting.pop()}.py")
        if file.is_file():
            waiting |= {name for name in get_relative_imports(file) if folder / f"{name}.py" not in files}
    return files


def _complaint(error: Exception, repo_id: str) -> str:
    """One sentence, with what the server said but nothing of what was sent."""
    if isinstance(error, HfHubHTTPError):
        status = error.response.status_code
        said = error.server_message or error.response.reason_phrase
        if status == 401:
            return f"the Hub does not know this token ({said}); run `hf auth login` again, or renew HF_TOKEN"
        if status == 403:
            return f"this token may not write to {repo_id} ({said}); use your own name, or a token that may write"
        return f"the Hub refused {repo_id} with status {status}: {said}"
    if isinstance(error, OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE is set, so nothing can be pushed; unset it"
    if isinstance(error, HTTPError | ConnectionError | TimeoutError):
        return f"cannot reach {constants.ENDPOINT} ({type(error).__name__}); check the network and try again"
    return " ".join(str(error).split())


def load_pretrained(load: Callable[..., Loaded], source: str | Path, **options) -> Loaded:
    """`load(source)`; HubError, one sentence, where there is no such model, or none that can be used."""
    if _is_path(str(source)) and not Path(source).exists():  # the Hub would call it no name of a repository
        raise HubError(f"no model at {source}: there is no such folder")
    try:
        return load(source, **options)
    except OSError as error:
        reason = first_line(error).removeprefix(f"{source}: ")
        if not Path(source).exists():
            reason = f"there is no folder {Path(source).absolute()}, and of the Hub one hears: {reason}"
        raise HubError(f"no model at {source}: {reason}") from error


def find_file(source: str | Path, name: str, revision: str | None = None) -> Path | None:
    """A file of a model, from its folder or a revision on the Hub; None where the model has none.

    The model of the last epoch (`last` in the folder of a run) has its run's.

    Raises:
        HubError: nobody can tell, for the Hub cannot be asked and has not been before.
    """
    if Path(source).is_dir():
        places, run = [Path(source)], Path(source).resolve().parent
        if Path(source).resolve().name == LAST and (run / SETTINGS).is_file():
            places.append(run)
        return next((place / name for place in places if (place / name).is_file()), None)
    try:
        return Path(hf_hub_download(str(source), name, revision=revision))
    except LocalEntryNotFoundError as error:
        # The cache remembers that there was none.
        if try_to_load_from_cache(str(source), name, revision=revision) is not None:
            return None
        reason = error
    except EntryNotFoundError:
        return None
    except (HTTPError, HFValidationError, OSError) as error:
        reason = error
    raise HubError(
        f"nobody can tell whether {source} has a {name} ({first_line(reason)}); try again with the Hub in reach, or "
        "download the model and give its folder"
    ) from reason


def _is_path(source: str) -> bool:
    """Whether it can be no name of a repository, such as your-name/ser-cnn."""
    return source.startswith((".", "/", "~")) or source.count("/") > 1 or Path(source).is_absolute()


class Recognizer(nn.Module):
    """Waveforms (B, T) and their lengths (B,) in samples -> `outputs`, all in one graph: logits (B, num_labels), and
    likeness (B,) of a model that has the score.
    """

    def __init__(self, model: SERForAudioClassification, extractor: SERFeatureExtractor):
        super().__init__()
        self.model = model
        self.extractor = extractor
        self.outputs = ["logits"] if model.likeness_weight is None else ["logits", "likeness"]

    def forward(self, waveform: Tensor, lengths: Tensor) -> tuple[Tensor, ...]:
        answer = self.model(*self.extractor.extract(waveform, lengths))
        return tuple(answer[name] for name in self.outputs)


def export_onnx(model: SERForAudioClassification, extractor: SERFeatureExtractor, path: str | Path) -> float:
    """One file that needs no Python: `waveform` (B, T) float32 and `lengths` (B,) int64 -> `logits` (B, num_labels),
    and `likeness` (B,) of a model that has the score.

    Batch and length are free. The metadata hold `labels`, a JSON list in the order of the logits, `sampling_rate` in Hz
    and `likeness_threshold`, below which a sound is unlike the voices of the training. No voice detector is inside:
    whoever runs it finds out first whether somebody speaks.

    Returns:
        The largest difference between ONNX Runtime's outputs and PyTorch's, on noises with quiet to trim.

    Raises:
        HubError: what exports is not installed, or the network cannot be exported faithfully.
    """
    if missing := [name for name in EXPORT_NEEDS if find_spec(name) is None]:
        raise HubError(f"exporting needs {', '.join(missing)}; pip install {' '.join(missing)}")
    name = model.config.backbone
    if any(isinstance(module, nn.RNNBase) for module in model.modules()):
        raise HubError(f"backbone {name!r} is recurrent, and the exporter would tie it to one length; take another")
    if isinstance(model.base_model.backbone, Timm):
        raise HubError(f"backbone {name!r} sizes its canvas by what it hears, which no graph can; take another")
    model = copy.deepcopy(model).float().cpu().eval()
    model = model.to(memory_format=torch.contiguous_format)  # channels_last would tie the graph to one length
    waveform, lengths = _noises(2, 2 * extractor.sampling_rate)
    with torch.no_grad():  # fills the extractor's tables, which must not be made while a graph is traced
        model(*extractor.extract(waveform, lengths))
    batch, samples = Dim("batch"), Dim("samples", min=extractor.frame_samples)
    recognizer = Recognizer(model, extractor).eval()
    try:
        program = torch.onnx.export(
            recognizer,
            (waveform, lengths),
            dynamo=True,
            input_names=["waveform", "lengths"],
            output_names=recognizer.outputs,
            dynamic_shapes={"waveform": {0: batch, 1: samples}, "lengths": {0: Dim.DYNAMIC}},
            verbose=False,
        )
    except torch.onnx.errors.OnnxExporterError as error:
        reason = first_line(error.__cause__ or error)
        raise HubError(f"backbone {name!r} cannot be exported: {reason}") from error
    for node in program.model.graph.all_nodes():
        node.metadata_props.clear()  # where in our files each came from: a third of the size, and nobody's business
    labels = [model.config.id2label[index] for index in range(model.config.num_labels)]
    program.model.metadata_props.update(labels=json.dumps(labels), sampling_rate=str(extractor.sampling_rate))
    if "likeness" in recognizer.outputs:
        program.model.metadata_props["likeness_threshold"] = str(model.config.likeness_threshold)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    program.save(path, external_data=False)
    difference = _difference_in_onnx(path, recognizer)
    if not difference <= ONNX_TOLERANCE:
        Path(path).unlink()
        raise HubError(f"backbone {name!r} gives other outputs in ONNX Runtime, by {difference:.2g}")
    return difference


@torch.no_grad()
def _difference_in_onnx(path: str | Path, recognizer: Recognizer) -> float:
    """Of the outputs, for another batch size and length than the graph was traced with."""
    import onnxruntime

    waveform, lengths = _noises(3, 3 * recognizer.extractor.sampling_rate)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    outputs = session.run(recognizer.outputs, {"waveform": waveform.numpy(), "lengths": lengths.numpy()})
    pairs = zip(outputs, recognizer(waveform, lengths), strict=True)
    return max(float((torch.from_numpy(ours) - theirs).abs().max()) for ours, theirs in pairs)


def _noises(batch: int, samples: int) -> tuple[Tensor, Tensor]:
    """Waveforms (B, T) of different lengths, their first quarter 60 dB down, and the lengths (B,)."""
    waveform = 0.1 * torch.randn(batch, samples, generator=torch.Generator().manual_seed(0))
    waveform[:, : samples // 4] *= 1e-3
    lengths = samples - torch.arange(batch) * samples // (2 * batch)
    return waveform * (torch.arange(samples) < lengths[:, None]), lengths
