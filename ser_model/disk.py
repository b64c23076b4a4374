"""Files: found, written whole or not at all, and what an error says to a person who can do something about it."""

import argparse
import errno
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

FULL_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)
TAKEN = (errno.EEXIST, errno.ENOTDIR, errno.EISDIR)  # a file where a folder is wanted, or the reverse


def path(name: str) -> Path:
    """A path of the command line; not an empty one, as of an unset variable, which pathlib takes for this folder."""
    if not name:
        raise argparse.ArgumentTypeError("an empty path came; name a file or a folder")
    return Path(name)


def in_words(error: OSError) -> str:
    """What the operating system refused, and what helps where that is known."""
    if error.errno in FULL_DISK:
        remedy = "free some space on the disk"
    elif error.errno in FORBIDDEN:
        remedy = "change who may read and write it, or take another place"
    elif error.errno in TAKEN:
        remedy = "move away what lies there, or take another place"
    elif error.errno == errno.ENOENT:
        remedy = "see that its folder is there"
    else:
        remedy = ""
    return f"{error.filename or 'a file'}: {error.strerror}{remedy and f'; {remedy}'}"


def first_line(error: BaseException) -> str:
    """Of what it says; its kind where it says nothing."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def write_whole(path: Path, content: bytes) -> None:
    """Write beside it, then rename: whoever reads, or is killed in between, finds the old file or the new one."""
    if path.exists() and not path.is_file():  # a device or a pipe, which is not to be replaced
        path.write_bytes(content)
        return
    path = Path(os.path.realpath(path))  # a link stays one
    unfinished = path.with_name(f"{path.name}.unfinished")
    try:
        with open(unfinished, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)  # on a full disk it would be in the way of what could still be saved


@contextmanager
def whole_files(folder: Path) -> Iterator[Path]:
    """A folder to write into, whose files then take their places in `folder`, each at once."""
    unfinished = folder / "unfinished"
    shutil.rmtree(unfinished, ignore_errors=True)  # of a run that was killed here
    unfinished.mkdir(parents=True)
    try:
        yield unfinished
        for file in unfinished.iterdir():
            if file.is_file():  # safetensors gives its own to their owner alone: as open to others as the folder is
                file.chmod(unfinished.stat().st_mode & 0o666)
            os.replace(file, folder / file.name)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def files_below(root: str | Path, suffixes: Sequence[str]) -> list[Path]:
    """Those with such an ending, in any case, in sorted order.

    Links are followed, what starts with a dot is passed over, and each folder is read once.
    """
    endings = tuple(suffixes)
    found = [
        os.path.join(folder, name)
        for folder, names in _walk(root)
        for name in names
        if name.lower().endswith(endings) and not name.startswith(".")  # macOS lays a ._x.wav beside an x.wav
    ]
    return [Path(name) for name in sorted(found)]


def _walk(root: str | Path) -> Iterator[tuple[str, list[str]]]:
    seen = set()
    for folder, subfolders, names in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:  # a link back up, or a second way to the same folder
            subfolders.clear()
            continue
        seen.add(real)
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        yield folder, names
