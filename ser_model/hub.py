"""Out into the world: a model folder to the Hub, and a network with its features into one ONNX file."""

import json
from pathlib import Path

from huggingface_hub import HfApi, constants, get_token
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, HTTPError, OfflineModeIsEnabled
from huggingface_hub.utils import validate_repo_id
from transformers.dynamic_module_utils import get_relative_imports

# What makes up a model on the Hub; whatever else lies in the folder (optimizer states, logs, pickles) stays at home.
NEEDED = ("config.json", "preprocessor_config.json", "README.md")
UPLOADED = (
    *NEEDED,
    "model*.safetensors",
    "model.safetensors.index.json",
    "*.py",
    "*.png",
    "metrics.json",
    "settings.yaml",
    "split.json",
)
LEFT = ("*/*",)  # folders: the patterns above reach into them


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
        return api.upload_folder(
            folder_path=folder,
            repo_id=repo_id,
            allow_patterns=list(UPLOADED),
            ignore_patterns=list(LEFT),
            commit_message="Upload model, feature extractor, code and card",
        ).commit_url
    except (HTTPError, OSError, ValueError) as error:
        # `from None`: what lies below may quote the request, and with it the token.
        raise HubError(_complaint(error, repo_id).replace(token, "(token)")) from None


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
    sections = [json.loads((folder / name).read_text()).get("auto_map", {}) for name in NEEDED[:2]]
    waiting = {reference.split(".")[0] for section in sections for reference in section.values()}
    files = set()
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
