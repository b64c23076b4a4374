"""Recordings out of a zip that a stranger sent, one at a time.

No name of an archive ever becomes a path: what is unpacked goes into a file without a name, in memory while it is
small, on disk where it is not, and gone when the next one is asked for. So there is no folder that a name like
`../../x` could leave, and nothing to sweep up. What a header says of sizes is not believed: bytes are counted as they
are unpacked.
"""

import io
import os
import re
import stat
import struct
import tempfile
import unicodedata
import zipfile
import zlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

MAX_DIRECTORY_BYTES = 2 * 2**20  # of names and sizes, which are read at once; 1000 entries take a tenth of it
IN_MEMORY_BYTES = 4 * 2**20  # two minutes of 16-bit sound at 16 kHz
CHUNK_BYTES = 64 * 2**10
FAULTS = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    NotImplementedError,
    ValueError,
)  # zipfile's, all seen
UTF8_NAME = 0x800  # the flag that a name is UTF-8; macOS writes UTF-8 without it

# Why an entry is passed over; the page has a sentence of its own for each.
NOT_AUDIO, SYSTEM_FILE, LINK, ENCRYPTED, RARE = "not_audio", "system_file", "link", "encrypted", "rare_packing"
DAMAGED, TOO_LARGE, BOMB, TOO_MANY, TOO_MUCH = "damaged", "too_large", "bomb", "too_many", "too_much"
# Why a whole archive cannot be read.
NO_ZIP, TOO_LONG_A_LIST = "no_zip", "too_long_a_list"
REASONS = {
    NOT_AUDIO: "not a recording; only sound and video files are read",
    SYSTEM_FILE: "a hidden file of an operating system, without sound",
    LINK: "a link, and none is followed; put the recording itself into the zip",
    ENCRYPTED: "locked with a password; make the zip without one",
    RARE: "packed in a rare way; make the zip with the usual method (deflate)",
    DAMAGED: "damaged inside the zip; make the zip again",
    TOO_LARGE: "larger than one recording may be; cut it or send it as mp3, m4a or flac",
    BOMB: "unpacks to far more than a recording would; send the recording itself",
    TOO_MANY: "too much for one round or one zip; send it in the next",
    TOO_MUCH: "beyond what one zip may unpack to; send it in another zip",
    NO_ZIP: "this is no zip, or a damaged one; make it again",
    TOO_LONG_A_LIST: "the zip lists far too many files; send the recordings in several smaller ones",
}


class ArchiveError(ValueError):
    """A zip that cannot be read at all; `reason` is one of REASONS."""

    def __init__(self, reason: str):
        super().__init__(REASONS[reason])
        self.reason = reason


@dataclass(frozen=True)
class Limits:
    """Of one archive; sizes are of what is unpacked."""

    recordings: int = 500
    recording_bytes: int = 320 * 10**6  # an hour of 16-bit sound at 44.1 kHz
    total_bytes: int = 2 * 2**30
    ratio: float = 200.0  # unpacked to packed; speech as wav packs to a half, digital silence to a hundredth or less


@dataclass(frozen=True)
class Recording:
    """`name` is fit to be shown and is no path; `file` is open at its start until the next entry is asked for."""

    name: str
    file: BinaryIO


@dataclass(frozen=True)
class Skipped:
    """An entry that is no recording or cannot be had; `reason` is one of REASONS."""

    name: str
    reason: str


def recordings(
    archive: str | Path, suffixes: Collection[str], limits: Limits | None = None
) -> Iterator[Recording | Skipped]:
    """The entries of a zip in its own order, folders left out; one at a time is unpacked.

    Args:
        suffixes: endings of recordings, in lower case and with the dot.

    Raises:
        ArchiveError: no zip, or one whose list of entries is damaged or enormous.
        OSError: no such file, or no space to unpack to.
    """
    limits = limits or Limits()
    taken = total_bytes = 0
    with _opened(archive) as (source, archive_bytes):
        for member in source.infolist():
            if member.is_dir():
                continue
            name = display_name(member)
            if reason := _refusal(member, name, suffixes):
                yield Skipped(name, reason)
            elif taken == limits.recordings:
                yield Skipped(name, TOO_MANY)
            elif total_bytes >= limits.total_bytes:
                yield Skipped(name, TOO_MUCH)
            else:
                packed_bytes = min(member.compress_size, archive_bytes)  # a header may claim any number
                allowed = {
                    TOO_LARGE: limits.recording_bytes,
                    TOO_MUCH: limits.total_bytes - total_bytes,
                    BOMB: max(int(limits.ratio * packed_bytes), CHUNK_BYTES),
                }
                with tempfile.SpooledTemporaryFile(IN_MEMORY_BYTES) as file:
                    reason = _unpack(source, member, file, allowed)
                    total_bytes += file.tell()
                    if reason:
                        yield Skipped(name, reason)
                        continue
                    taken += 1
                    file.seek(0)
                    yield Recording(name, file)


def count(archive: str | Path) -> int:
    """How many entries `recordings` gives; ArchiveError as there."""
    with _opened(archive) as (source, _):
        return sum(not member.is_dir() for member in source.infolist())


def display_name(member: zipfile.ZipInfo) -> str:
    """A name to show, in any script: with forward slashes, below no root, drive or parent, without control signs."""
    name = member.filename
    if not member.flag_bits & UTF8_NAME:
        try:
            name = name.encode("cp437").decode()
        except UnicodeError:
            pass  # it is what zipfile took it for: the code page of DOS
    parts = [part for part in re.split(r"[/\\]+", name) if part not in ("", ".", "..") and part[1:] != ":"]
    return shown("/".join(parts)) or "?"


def shown(text: str) -> str:
    """Without what would change the text around it: control signs, halves of signs, marks that turn the direction."""
    return "".join(
        sign
        for sign in text
        if unicodedata.category(sign) not in ("Cc", "Cs")
        and unicodedata.bidirectional(sign) not in ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")
    )


def is_plain(member: zipfile.ZipInfo) -> bool:
    """A regular file, neither encrypted nor packed in a rare way."""
    return not (_is_link(member) or _is_encrypted(member)) and _is_common(member)


def _is_link(member: zipfile.ZipInfo) -> bool:
    """A link, device or pipe; an archive that was not made on Unix says nothing of the kind."""
    return stat.S_IFMT(member.external_attr >> 16) not in (0, stat.S_IFREG)


def _is_encrypted(member: zipfile.ZipInfo) -> bool:
    return bool(member.flag_bits & 1)


def _is_common(member: zipfile.ZipInfo) -> bool:
    """Others unpack a whole chunk at once, however much that gives."""
    return member.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


def _refusal(member: zipfile.ZipInfo, name: str, suffixes: Collection[str]) -> str | None:
    if name.startswith("__MACOSX/") or any(part.startswith(".") for part in name.split("/")):
        return SYSTEM_FILE
    if _is_link(member):
        return LINK
    if not name.lower().endswith(tuple(suffixes)):
        return NOT_AUDIO
    if _is_encrypted(member):
        return ENCRYPTED
    return None if _is_common(member) else RARE


def _unpack(source: zipfile.ZipFile, member: zipfile.ZipInfo, file: BinaryIO, allowed: dict[str, int]) -> str | None:
    """Fill `file`; the reason why not, where one of the limits is passed or the entry is damaged."""
    try:
        with source.open(member) as packed:
            while chunk := packed.read(CHUNK_BYTES):
                file.write(chunk)
                if passed := [reason for reason, most_bytes in allowed.items() if file.tell() > most_bytes]:
                    return passed[0]
    except FAULTS:
        return DAMAGED
    return None


class _Reader(io.BufferedReader):
    """Refuses what a damaged or hostile archive asks for.

    zipfile reads the list of entries in one piece, and one of a million entries would take a gigabyte.
    """

    def read(self, size: int | None = -1) -> bytes:
        if size is not None and size > MAX_DIRECTORY_BYTES:
            raise ArchiveError(TOO_LONG_A_LIST)
        return super().read(size)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if whence == io.SEEK_SET and not 0 <= offset <= os.fstat(self.fileno()).st_size:  # a damaged list may say so
            raise zipfile.BadZipFile(f"an entry at {offset}")
        return super().seek(offset, whence)


@contextmanager
def _opened(archive: str | Path) -> Iterator[tuple[zipfile.ZipFile, int]]:
    """The archive and its size in bytes."""
    with _Reader(io.FileIO(archive)) as file:
        size_bytes = file.seek(0, io.SEEK_END)
        try:
            source = zipfile.ZipFile(file)
        except ArchiveError:
            raise
        except FAULTS as error:
            raise ArchiveError(NO_ZIP) from error
        with source:
            yield source, size_bytes
