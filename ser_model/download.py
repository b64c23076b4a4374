"""Corpora from their official places: resumed, checked against the published checksums, laid where the readers look.

What is here already is recognised by its checksum, so a second run fetches nothing. Only archives, which are deleted
once unpacked, need a note of what came out of them: `.unpacked.json` in the corpus's folder.
"""

import asyncio
import hashlib
import re
import shutil
import sys
import time
import zipfile
import zlib
from asyncio import sleep
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path, PurePosixPath
from typing import TypeVar

import httpx
from pydantic import AliasPath, BaseModel, Field, TypeAdapter, ValidationError
from tqdm import tqdm

from .archives import is_plain
from .corpora import CORPORA, CorpusError, make_corpus
from .disk import FULL_DISK, write_whole

HOSTS = {
    "zenodo": "https://zenodo.org/api",
    "dataverse": "https://borealisdata.ca/api",
    "github": "https://api.github.com",
    "github-lfs": "https://media.githubusercontent.com/media",
    "github-raw": "https://raw.githubusercontent.com",
    "cremad-mirror": "https://gitlab.com/cs-cooper-lab/crema-d-mirror/-/raw/main",  # its makers', see `list_cremad`
}
HEADERS = {
    "User-Agent": "ser-model (python -m ser_model download)",  # Zenodo and GitHub throttle clients without a name
    "Accept-Encoding": "identity",  # ranges and sizes are then those of the file itself
}
TIMEOUT = httpx.Timeout(30, connect=15)  # seconds of silence
LISTING_TIMEOUT = httpx.Timeout(180, connect=15)  # Dataverse thinks long about thousands of files
AT_ONCE = 4  # files on their way together: enough to hide the latency of small ones, and no burden to a server
BACKOFF_S = (1, 2, 4, 8)  # waits after failures in a row; one more ends it
MAX_WAIT_S = 60  # a server that wants to be left alone for longer is, and we say when to come back
MAX_FAILED_FILES = 10  # with more, the trouble does not lie with single files
MAX_EXPANSION = 20  # times an archive's size: 16-bit speech packs to a third of its size, a bomb to a thousandth
USUAL_EXPANSION = 3  # RAVDESS's
USUAL_CLIP_BYTES = 82_000  # CREMA-D's, whose listing has no sizes
NOTE = ".unpacked.json"


class DownloadError(Exception):
    """What stands in the way and what helps, in one sentence for the user."""


class FileError(DownloadError):
    """One file cannot be had; others may."""


class _Passing(Exception):
    """A failure that may pass; `asked_s` is how long the server wants to be left alone, None if it does not say."""

    def __init__(self, reason: str, asked_s: float | None = None):
        super().__init__(reason)
        self.asked_s = asked_s


@dataclass(frozen=True)
class RemoteFile:
    """A file as its publisher lists it."""

    path: PurePosixPath  # below the corpus's folder
    checksum: str  # "<algorithm>:<hex>", see `checksum_of`
    urls: tuple[str, ...]  # of the same bytes; the first that works is taken
    size_bytes: int | None = None  # None where the listing does not say

    @property
    def is_archive(self) -> bool:
        return self.path.suffix.lower() == ".zip"


# What each publisher lists. The models below name what we use of an answer; the rest of it is passed over.


class ZenodoFile(BaseModel):
    key: str
    size: int
    checksum: str  # "md5:<hex>"
    url: str = Field(validation_alias=AliasPath("links", "self"))


class ZenodoRecord(BaseModel):
    files: list[ZenodoFile]


async def list_ravdess(http: "Http", hosts: Mapping[str, str], only: str | None) -> list[RemoteFile]:
    """The archives of speech and song, by Zenodo's record API (https://developers.zenodo.org)."""
    url = f"{hosts['zenodo']}/records/1188976"
    listed = {file.key: file for file in (await http.get(url, ZenodoRecord)).files}
    names = [f"Audio_{channel.title()}_Actors_01-24.zip" for channel in ([only] if only else ["speech", "song"])]
    if missing := set(names) - listed.keys():
        raise DownloadError(f"{url} lists no {' and no '.join(sorted(missing))}")
    return [
        RemoteFile(_safe(file.key), file.checksum.lower(), (file.url,), file.size)
        for file in (listed[name] for name in names)
    ]


class DataverseFile(BaseModel):
    label: str
    id: int = Field(validation_alias=AliasPath("dataFile", "id"))
    size: int = Field(validation_alias=AliasPath("dataFile", "filesize"))
    algorithm: str = Field(validation_alias=AliasPath("dataFile", "checksum", "type"))  # "MD5", "SHA-256", ...
    digest: str = Field(validation_alias=AliasPath("dataFile", "checksum", "value"))


class DataverseDataset(BaseModel):
    files: list[DataverseFile] = Field(validation_alias=AliasPath("data", "latestVersion", "files"))


async def list_tess(http: "Http", hosts: Mapping[str, str], only: str | None) -> list[RemoteFile]:
    """The clips, by Dataverse's native and data access APIs (https://guides.dataverse.org/en/latest/api).

    One by one: what Dataverse bundles has no checksum, cannot be resumed, and is cut at a limit of the server's.
    """
    url = f"{hosts['dataverse']}/datasets/:persistentId/?persistentId=doi:10.5683/SP2/E8H2MF"
    listed = (await http.get(url, DataverseDataset)).files
    clips = {file.label: _tess_folder(file.label) for file in listed if file.label.lower().endswith(".wav")}
    clips = {label: f"{folder}/{label}" for label, folder in clips.items() if folder}
    paths = clips or {file.label: file.label for file in listed if file.label.lower().endswith(".zip")}
    if not paths:
        raise DownloadError(f"{url} lists {len(listed)} files, but neither clips of TESS nor zip archives")
    return [
        RemoteFile(
            _safe(paths[file.label]),
            f"{file.algorithm.replace('-', '')}:{file.digest}".lower(),
            (f"{hosts['dataverse']}/access/datafile/{file.id}",),
            file.size,
        )
        for file in listed
        if file.label in paths
    ]


def _tess_folder(label: str) -> str | None:
    """OAF_angry for OAF_back_angry.wav, None for what is no clip of TESS."""
    named = CORPORA["tess"].matches(Path(label))
    return f"{named[2]}F_{named[4]}".replace("_ps", "_pleasant_surprise") if named else None


class GitEntry(BaseModel):
    path: str
    sha: str


class GitTree(BaseModel):
    tree: list[GitEntry]
    truncated: bool = False


async def list_cremad(http: "Http", hosts: Mapping[str, str], only: str | None) -> list[RemoteFile]:
    """The clips and the table of actors, by GitHub's tree API (https://docs.github.com/rest/git/trees).

    The clips are in Git LFS, and the repository has run out of its budget for that before; then its makers' mirror
    serves them (https://github.com/CheyneyComputerScience/CREMA-D/issues/15). Git's own hashes tell if a copy is true.
    """
    repository = "CheyneyComputerScience/CREMA-D"

    async def tree(sha: str) -> dict[str, str]:
        url = f"{hosts['github']}/repos/{repository}/git/trees/{sha}"
        answer = await http.get(url, GitTree)
        if answer.truncated:
            raise DownloadError(f"{url} names only a part of its files")
        return {entry.path: entry.sha for entry in answer.tree}

    def remote_file(path: str, checksum: str, host: str) -> RemoteFile:
        return RemoteFile(
            _safe(path), checksum, (f"{hosts[host]}/{repository}/master/{path}", f"{hosts['cremad-mirror']}/{path}")
        )

    root = await tree("master")
    clips, table = "AudioWAV", "VideoDemographics.csv"
    if missing := {clips, table} - root.keys():
        raise DownloadError(f"github.com/{repository} has no {' and no '.join(sorted(missing))} any more")
    return [remote_file(table, f"git-blob:{root[table]}", "github-raw")] + [
        remote_file(f"{clips}/{name}", f"git-lfs:{sha}", "github-lfs")
        for name, sha in (await tree(root[clips])).items()
        if name.lower().endswith(".wav")
    ]


Lister = Callable[["Http", Mapping[str, str], str | None], Awaitable[list[RemoteFile]]]
LISTERS: dict[str, Lister] = {"ravdess": list_ravdess, "tess": list_tess, "cremad": list_cremad}


def download(
    name: str, dest: str | Path, only: str | None = None, keep: bool = False, server: str | None = None
) -> Path:
    """Fetch the corpus `name` into `dest`/<its customary folder>, and return that folder.

    only: "speech" or "song", of RAVDESS. keep: leave the archives beside what they held. server: an address below
    which copies of the official hosts answer, each under its name in HOSTS.

    Raises DownloadError, with what has arrived so far left for the next run to go on from.
    """
    corpus, dest = CORPORA[name], Path(dest)
    print(f"{corpus.title}, {corpus.url}\nlicence: {corpus.licence}\ncite: {corpus.citation}", flush=True)
    if name not in LISTERS:
        raise DownloadError(
            f"{corpus.title} wants a registration: get it by hand from {corpus.url} and unpack it to "
            f"{dest / corpus.customary_folders[0]}"
        )
    if only and name != "ravdess":
        raise DownloadError(f"{corpus.title} has no songs to choose from; --only is for ravdess")
    if server and not re.match(r"https?://.", server):
        raise DownloadError(f"{server} is no address of a server; wanted http://... or https://...")
    hosts = {host: f"{server.rstrip('/')}/{host}" for host in HOSTS} if server else HOSTS
    reader = make_corpus({"name": name} | ({"channels": ["speech", "song"]} if name == "ravdess" else {}))
    try:
        dest.mkdir(parents=True, exist_ok=True)
        folder = reader.locate(dest)  # the corpus's folder if there is one, in whatever spelling
        folder = dest / corpus.customary_folders[0] if folder == dest else folder
        asyncio.run(_download(LISTERS[name], folder, corpus.title, hosts, only, keep))
        scan = reader.scan(folder)
    except CorpusError as error:
        raise DownloadError(str(error)) from error
    except OSError as error:
        full = error.errno in FULL_DISK
        remedy = "free some space and run the same command again: what has arrived is kept" if full else "check --dest"
        raise DownloadError(f"cannot write below {dest}: {error.strerror or error}; {remedy}") from error
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise DownloadError(f"an address or an answer cannot be used: {error or type(error).__name__}") from error
    print(*scan.notes, f"{corpus.title}: {len(scan.utterances)} clips in {folder}", sep="\n")
    return folder


async def _download(
    lister: Lister, folder: Path, title: str, hosts: Mapping[str, str], only: str | None, keep: bool
) -> None:
    async with aclosing(Http()) as http:
        files = {file.path: file for file in await lister(http, hosts, only)}.values()
        done = _read_note(folder)
        missing = [file for file in files if not _is_done(file, folder, done)]
        absent = [file for file in missing if not _is_whole(file, folder)]
        arrived_bytes = sum(_Part(folder / file.path).size for file in absent)
        unpacked_bytes = USUAL_EXPANSION * sum(_usual_bytes(file) for file in missing if file.is_archive)
        _want_space(sum(map(_usual_bytes, absent)) - arrived_bytes + unpacked_bytes, folder.parent, title)
        if absent:
            with tqdm(total=sum(map(_usual_bytes, absent)), desc=title, unit="B", unit_scale=True) as bar:
                await _fetch_all(http, absent, folder, bar)
    for file in missing:
        if file.is_archive:
            done[file.path.name] = Unpacked(checksum=file.checksum, files=unpack(folder / file.path))
            _write_note(folder, done)
            if not keep:
                (folder / file.path).unlink()


def _usual_bytes(file: RemoteFile) -> int:
    return USUAL_CLIP_BYTES if file.size_bytes is None else file.size_bytes


def _want_space(wanted_bytes: int, folder: Path, what: str) -> None:
    free_bytes = shutil.disk_usage(folder).free
    if wanted_bytes > free_bytes:
        raise DownloadError(
            f"{what} takes about {wanted_bytes / 1e9:.1f} GB more, and {folder} has {free_bytes / 1e9:.1f} GB free; "
            "make room or change --dest"
        )


# Over the network


async def _fetch_all(http: "Http", files: Sequence[RemoteFile], folder: Path, bar: tqdm) -> None:
    waiting, failed = iter(files), []

    async def work() -> None:
        for file in waiting:  # shared: each takes the next
            if len(failed) > MAX_FAILED_FILES:
                return
            try:
                await http.fetch(file, folder / file.path, bar)
            except FileError as error:
                failed.append(error)

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(AT_ONCE):
                group.create_task(work())
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None  # the first one stopped the others
    if len(failed) == 1:
        raise failed[0]
    if failed:
        tried = f"{len(failed)} files failed, the first: {failed[0]}"
        raise DownloadError(f"{tried}; run the same command again for what is missing")


class _Part:
    """A file on its way: what has arrived of it, and the ETag under which."""

    def __init__(self, target: Path):
        self.path = target.with_name(f"{target.name}.part")
        self.etag_path = target.with_name(f"{target.name}.part.etag")

    @property
    def size(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

    @property
    def etag(self) -> str:
        return self.etag_path.read_text(encoding="utf-8") if self.etag_path.exists() else ""

    def drop(self) -> None:
        self.path.unlink(missing_ok=True)
        self.etag_path.unlink(missing_ok=True)

    def finish(self, target: Path) -> None:
        self.path.replace(target)
        self.etag_path.unlink(missing_ok=True)


Model = TypeVar("Model", bound=BaseModel)
Result = TypeVar("Result")


class Http:
    """A client that waits and asks again where that may help."""

    def __init__(self):
        self.client = httpx.AsyncClient(headers=HEADERS, timeout=TIMEOUT, follow_redirects=True)
        self.given_up: set[str] = set()  # hosts whose files are sought elsewhere now, where there is an elsewhere

    async def aclose(self) -> None:
        await self.client.aclose()

    async def get(self, url: str, model: type[Model]) -> Model:
        """What an API answers, as far as `model` names it."""

        async def ask() -> bytes:
            response = await self.client.get(url, timeout=LISTING_TIMEOUT)
            _check(response)
            return response.content

        content = await _patiently(ask, url)
        try:
            return model.model_validate_json(content)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "the whole"
            raise DownloadError(
                f"{url} answers in a form that we do not know ({where}: {first['msg']}); its interface may have changed"
            ) from error

    async def fetch(self, file: RemoteFile, target: Path, bar: tqdm) -> None:
        """Bring `file` to `target`, going on from its .part; under its final name it is whole and true, or absent."""
        target.parent.mkdir(parents=True, exist_ok=True)
        part = _Part(target)
        bar.update(part.size)
        urls = [url for url in file.urls if _host(url) not in self.given_up] or file.urls[-1:]
        for url in urls:
            try:
                found = await self._fetch_from(url, file, part, bar)
            except DownloadError as error:
                if not isinstance(error, FileError):
                    self.given_up.add(_host(url))
                if url == urls[-1]:
                    raise
                continue
            if found == file.checksum:
                bar.total += part.size - _usual_bytes(file)
                part.finish(target)
                return
        raise FileError(
            f"{target.name} arrived damaged twice: its checksum is {found}, the publisher's {file.checksum}; "
            "try again later, or tell the publisher"
        )

    async def _fetch_from(self, url: str, file: RemoteFile, part: _Part, bar: tqdm) -> str:
        """The checksum of what `url` gave; a wrong one is not believed before a second fetch, and its file not kept."""
        for _ in range(2):
            await _patiently(lambda: self._stream(url, file, part, bar), url, lambda: part.size)
            found = checksum_of(part.path, file.checksum)
            if found == file.checksum:
                break
            bar.update(-part.size)
            part.drop()
        return found

    async def _stream(self, url: str, file: RemoteFile, part: _Part, bar: tqdm) -> None:
        """One request for what `part` lacks."""
        start, whole = part.size, file.size_bytes
        if start and start == whole:
            return
        async with self.client.stream("GET", url, headers={"Range": f"bytes={start}-"} if start else {}) as response:
            status = response.status_code
            goes_on = status == 206 and _continues(response, start, part.etag, whole)
            if start and status in (200, 206, 416) and not goes_on:
                bar.update(-start)
                part.drop()
                start = 0
                if status != 200:
                    raise _Passing("the file is not the one that was begun", asked_s=0)
            _check(response)
            part.etag_path.write_text(response.headers.get("ETag", ""), encoding="utf-8")
            with open(part.path, "ab" if start else "wb") as output:
                async for chunk in response.aiter_bytes():
                    bar.update(output.write(chunk))
                    output.flush()  # what has arrived is kept, whatever happens next
                    if whole is not None and output.tell() > whole:
                        return  # not what was listed: the checksum will say so
        if whole is not None and part.size < whole:
            raise _Passing("the connection ended early")


def _continues(response: httpx.Response, start: int, etag: str, whole: int | None) -> bool:
    """True where a partial answer begins at `start` of the file whose first bytes came under `etag`."""
    said = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
    same_size = said and (whole is None or said[2] in ("*", str(whole)))
    return bool(same_size) and int(said[1]) == start and response.headers.get("ETag", "") == etag


def _check(response: httpx.Response) -> None:
    """Raises _Passing for what may pass, FileError for what will not."""
    if response.is_success:
        return
    answer = f"{response.status_code} {response.reason_phrase}".strip()
    spent = response.headers.get("X-RateLimit-Remaining") == "0"
    if response.status_code == 429 or response.status_code >= 500 or (response.status_code == 403 and spent):
        raise _Passing(f"it answers {answer}", _asked_s(response.headers, spent))
    raise FileError(f"{response.url} answers {answer}; the file may have moved, or may not be open to all")


def _asked_s(headers: Mapping[str, str], spent: bool) -> float | None:
    """Seconds until the server wants to be asked again: Retry-After, or the X-RateLimit-Reset of a limit spent."""
    after = headers.get("Retry-After", "").strip()
    if after.isdigit():
        return float(after)
    try:
        if after:
            return max(0.0, (parsedate_to_datetime(after) - datetime.now(UTC)).total_seconds())
        if spent:
            return max(0.0, float(headers["X-RateLimit-Reset"]) - time.time())
    except (ValueError, TypeError, KeyError):
        pass  # not a date, not one with a zone, no number
    return None


async def _patiently(
    attempt: Callable[[], Awaitable[Result]], url: str, arrived: Callable[[], int] = lambda: 0
) -> Result:
    """What `attempt` gives, tried again while it fails in a passing way; bytes that arrived start the count anew."""
    failures, before = 0, arrived()
    while True:
        try:
            return await attempt()
        except (_Passing, httpx.TransportError) as error:
            failures = 1 if arrived() > before else failures + 1
            before = arrived()
            reason = str(error) or type(error).__name__
            asked_s = getattr(error, "asked_s", None)
            if asked_s is not None and asked_s > MAX_WAIT_S:
                reason = f"{reason} and asks to come back in {asked_s / 60:.0f} minutes"
            elif failures <= len(BACKOFF_S):
                wait_s = BACKOFF_S[failures - 1] if asked_s is None else asked_s
                if wait_s > BACKOFF_S[1]:  # long enough to wonder
                    tqdm.write(f"{_host(url)}: {reason}; again in {wait_s:.0f} s", file=sys.stderr)
                await sleep(wait_s)
                continue
            kept = "what has arrived is kept, run the same command again later"
            raise DownloadError(f"{_host(url)} cannot be used now ({reason}); {kept}") from error


def _host(url: str) -> str:
    return httpx.URL(url).netloc.decode()


# On the disk


def checksum_of(path: Path, like: str) -> str:
    """The checksum of a file, as "<algorithm>:<hex>" with the algorithm of `like`: hashlib's names, and two of git's.

    git-blob is git's name for a file, git-lfs its name for the pointer that stands for a file which Git LFS keeps. The
    pointer follows from SHA-256 and size (https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md).
    """
    algorithm = like.partition(":")[0]
    if algorithm not in ("git-blob", "git-lfs") and algorithm not in hashlib.algorithms_guaranteed:
        raise DownloadError(f"the publisher's checksum for {path.stem} is {like!r}, which we cannot compute")
    if algorithm == "git-blob":
        return f"{algorithm}:{_git_hash(path.read_bytes())}"
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256" if algorithm == "git-lfs" else algorithm).hexdigest()
    if algorithm == "git-lfs":
        pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{digest}\nsize {path.stat().st_size}\n"
        digest = _git_hash(pointer.encode())
    return f"{algorithm}:{digest}"


def _git_hash(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _safe(name: str) -> PurePosixPath:
    """A path that stays below the folder it is put into. Raises DownloadError for any other."""
    path = PurePosixPath(name)
    if not path.parts or path.is_absolute() or ".." in path.parts or re.search(r"[\\:\x00-\x1f]", name):
        raise DownloadError(f"refused a file named {name!r}: it could land outside the corpus's folder")
    return path


class Unpacked(BaseModel):
    """What came out of an archive."""

    checksum: str  # the archive's
    files: dict[str, tuple[int, int]]  # path below the corpus's folder -> size in bytes, CRC-32


_NOTE = TypeAdapter(dict[str, Unpacked])


def _read_note(folder: Path) -> dict[str, Unpacked]:
    try:
        return _NOTE.validate_json((folder / NOTE).read_bytes())
    except (FileNotFoundError, ValidationError):
        return {}  # then everything is fetched


def _write_note(folder: Path, done: dict[str, Unpacked]) -> None:
    write_whole(folder / NOTE, _NOTE.dump_json(done))


def _is_whole(file: RemoteFile, folder: Path) -> bool:
    path = folder / file.path
    same_size = path.is_file() and file.size_bytes in (None, path.stat().st_size)
    return same_size and checksum_of(path, file.checksum) == file.checksum


def _is_done(file: RemoteFile, folder: Path, done: Mapping[str, Unpacked]) -> bool:
    """True where nothing is left to do: the file is here, or all that came out of it."""
    if not file.is_archive:
        return _is_whole(file, folder)
    held = done.get(file.path.name)
    if held is None or held.checksum != file.checksum:
        return False
    sizes = {folder / name: size_bytes for name, (size_bytes, _) in held.files.items()}
    if not all(path.is_file() and path.stat().st_size == size_bytes for path, size_bytes in sizes.items()):
        return False
    return all(zlib.crc32((folder / name).read_bytes()) == crc for name, (_, crc) in held.files.items())


def unpack(archive: Path) -> dict[str, tuple[int, int]]:
    """Unpack x.zip to the folder x beside it, which is there whole or not at all; its files, as `Unpacked` has them.

    Raises DownloadError for an archive that is broken, far larger than speech could make it, or holds links or names
    that lead elsewhere; then nothing of it is left.
    """
    target = archive.with_suffix("")
    temporary = target.with_name(f".{target.name}.part")  # the readers pass over folders with a dot
    try:
        with zipfile.ZipFile(archive) as source:
            members = [_check_member(member, archive) for member in source.infolist() if not member.is_dir()]
            total_bytes = sum(member.file_size for member in members)
            if total_bytes > MAX_EXPANSION * archive.stat().st_size:
                raise DownloadError(f"{archive} would unpack to {total_bytes / 1e9:.1f} GB, which no recordings would")
            _want_space(total_bytes, archive.parent, archive.name)
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir()
            for member in tqdm(members, desc=f"unpacking {archive.name}", unit="file"):
                path = temporary / member.filename
                path.parent.mkdir(parents=True, exist_ok=True)
                with source.open(member) as packed, open(path, "wb") as output:
                    shutil.copyfileobj(packed, output)
        _move(temporary, target, [member.filename for member in members])
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise DownloadError(f"{archive} cannot be unpacked: {error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return {f"{target.name}/{member.filename}": (member.file_size, member.CRC) for member in members}


def _check_member(member: zipfile.ZipInfo, archive: Path) -> zipfile.ZipInfo:
    _safe(member.filename)
    if not is_plain(member):
        raise DownloadError(f"refused {archive}: {member.filename} in it is a link, encrypted or packed in a rare way")
    return member


def _move(source: Path, target: Path, names: Iterable[str]) -> None:
    """In one step where nothing is in the way, else file by file into what is there."""
    if not target.exists():
        source.rename(target)
        return
    for name in names:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).replace(target / name)
