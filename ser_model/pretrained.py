"""Models and feature extractors from a folder or the Hub; what cannot be what it says is refused in a sentence.

Only safetensors are read: a pickled checkpoint runs whatever its maker put into it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from transformers import (
    AutoConfig,
    AutoFeatureExtractor,
    AutoModelForAudioClassification,
    PreTrainedConfig,
    PreTrainedModel,
)

from .disk import first_line, write_whole
from .registration import SERConfig, SERFeatureExtractor  # which lets the Auto classes know ours
from .run_files import WEIGHTS

# Without this, Transformers asks at the terminal whether it may run a folder's code, and waits for an answer.
DEFAULTS = {"trust_remote_code": False}
TRUSTING = "read it, then say --trust-remote-code, or trust_remote_code=True in Python"


class PretrainedError(OSError):
    """A model or extractor that is damaged, or whose parts do not belong together."""


def load_config(name_or_path: str | Path, **kwargs) -> PreTrainedConfig:
    """The config of a model, of whatever kind that is known without code of its own.

    Raises:
        OSError: there is none.
        PretrainedError: it is damaged, or of a kind that is not known here.
    """
    with _in_a_sentence(name_or_path, "config.json", "this works with models of train.py alone"):
        return AutoConfig.from_pretrained(name_or_path, **DEFAULTS | kwargs)


def load_model(name_or_path: str | Path, kind: type = AutoModelForAudioClassification, **kwargs) -> PreTrainedModel:
    """`kind.from_pretrained`, with every weight from the file: none is left as it was drawn at random.

    Raises:
        OSError: there is no such model.
        PretrainedError: it is damaged, pickled, or its weights are of another network than its config.
    """
    if Path(name_or_path).is_file():  # of which Transformers would read pickled ones too
        raise PretrainedError(f"{name_or_path} is a file; give the folder of a model")
    options = DEFAULTS | kwargs | {"use_safetensors": True, "output_loading_info": True}
    with _in_a_sentence(name_or_path, "config.json and model.safetensors"):
        model, report = kind.from_pretrained(name_or_path, **options)
    if strangers := sorted({*report["missing_keys"], *(key for key, *_ in report["mismatched_keys"])}):
        raise PretrainedError(
            f"{name_or_path}: {len(strangers)} weights of the network in config.json are not in model.safetensors, or "
            f"of another size, {strangers[0]} for one; take both from one model"
        )
    return model


def load_extractor(name_or_path: str | Path, model: PreTrainedModel | None = None, **kwargs):
    """The feature extractor beside a model, which must be able to hear what it makes.

    Raises:
        OSError: there is none.
        PretrainedError: it is damaged, or makes features of another size than `model` takes.
    """
    with _in_a_sentence(name_or_path, "preprocessor_config.json"):
        extractor = AutoFeatureExtractor.from_pretrained(name_or_path, **DEFAULTS | kwargs)
    if isinstance(extractor, SERFeatureExtractor) and model is not None and isinstance(model.config, SERConfig):
        makes = extractor.num_channels, extractor.num_features
        takes = model.config.num_channels, model.config.num_features
        if makes != takes:
            raise PretrainedError(
                f"{name_or_path}: preprocessor_config.json makes {makes[0]} x {makes[1]} features a frame, the network "
                f"in config.json hears {takes[0]} x {takes[1]}; take both from one model"
            )
    return extractor


def halve_weights(folder: Path) -> tuple[int, int]:
    """Store the matrices and kernels of a saved model in half precision; they load as float32, as its config says.

    What has one axis (biases, norms and their statistics, the likeness) stays as it is: it is small, and may be large
    in number. Logits move by less than 1e-3. Saving the model anew stores it whole again.

    Returns:
        Bytes before and after.

    Raises:
        OSError: no model is there, or it cannot be read or written.
        PretrainedError: it is damaged.
    """
    path = folder / WEIGHTS
    if list(folder.glob("*.safetensors.index.json")):
        raise PretrainedError(f"{folder}: the weights are in several files; save the model in one, then halve it")
    with _in_a_sentence(folder, path.name):
        tensors = load_file(path)
    before = path.stat().st_size
    for name, tensor in tensors.items():
        if tensor.dim() > 1 and tensor.dtype == torch.float32:
            tensors[name] = tensor.half()
    write_whole(path, save(tensors, metadata={"format": "pt"}))
    return before, path.stat().st_size


def is_halved(folder: Path) -> bool:
    """Whether `halve_weights` stored the weights of a saved model so."""
    with safe_open(folder / WEIGHTS, "pt") as file:
        return any(file.get_slice(name).get_dtype() == "F16" for name in file.keys())  # noqa: SIM118  no mapping


@contextmanager
def _in_a_sentence(name_or_path: str | Path, files: str, if_code: str = TRUSTING) -> Iterator[None]:
    try:
        yield
    except SafetensorError as error:
        raise PretrainedError(
            f"{name_or_path}: model.safetensors is damaged or cut short ({error}); fetch it again"
        ) from error
    except (MemoryError, OverflowError, RuntimeError) as error:
        if "mismatch" in str(error):  # weights of another shape; Transformers has logged which
            raise PretrainedError(
                f"{name_or_path}: model.safetensors is of another network than config.json; take both from one model"
            ) from error
        raise PretrainedError(
            f"{name_or_path}: nothing of the size in {files} can be made here ({first_line(error)}); see that memory "
            "suffices"
        ) from error
    except ImportError as error:  # of timm, or of what the code of a repository needs
        raise PretrainedError(f"{name_or_path}: {first_line(error)}") from error
    except ValueError as error:  # which says by itself what would be right
        if "trust_remote_code" in str(error):
            raise PretrainedError(
                f"{name_or_path} comes with code of its own, which is not run unasked; {if_code}"
            ) from error
        raise PretrainedError(f"{name_or_path}: {files} cannot be used ({first_line(error).rstrip('.')})") from error
    except (KeyError, TypeError) as error:
        said = first_line(error).rstrip(".")
        if "unexpected keyword argument" in said:
            raise PretrainedError(
                f"{name_or_path}: no model has such a setting ({said}); leave it out of the call, or of {files} "
                "if it stands there; settings of a feature extractor are given where that is loaded"
            ) from error
        raise PretrainedError(
            f"{name_or_path}: {files} cannot be used ({said}); fetch it again, or leave out what it does not know"
        ) from error
