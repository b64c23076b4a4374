"""Downloads, from a server of our own that answers as the publishers do, and fails as servers do."""

import hashlib
import io
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
import wave
import zipfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from test_readme import COMMANDS, ROOT

from ser_model import __main__, download
from ser_model.corpora import CORPORA, find_utterances
from ser_model.download import BACKOFF_S, DownloadError

SPEECH, SONG = "Audio_Speech_Actors_01-24.zip", "Audio_Song_Actors_01-24.zip"


# a server


@dataclass
class Resource:
    """What lies at an address, and how the next requests for it go wrong (`always`: all that follow)."""

    body: bytes
    etag: str | None = '"first"'
    ranges: bool = True
    faults: list[str] = field(default_factory=list)
    always: str = ""
    headers: dict[str, str] = field(default_factory=dict)  # that an error comes with


class Server(ThreadingHTTPServer):
    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.resources: dict[str, Resource] = {}
        self.requests: list[tuple[str, str | None]] = []  # path, Range
        self.sent: list[str] = []  # paths of answers that were taken
        self.go_on = threading.Event()  # ends a stall

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def ranges(self, path: str) -> list[str | None]:
        return [asked for requested, asked in self.requests if requested == path]

    def handle_error(self, request, client_address):
        pass  # a client that hangs up is part of the game


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        asked = self.headers.get("Range")
        self.server.requests.append((self.path, asked))
        resource = self.server.resources.get(self.path)
        fault = "404" if resource is None else resource.faults.pop(0) if resource.faults else resource.always
        if fault.isdigit():
            return self.answer(int(fault), b"no", resource.headers if resource else {}, 2)
        headers = {"ETag": resource.etag} if resource.etag else {}
        body, status = resource.body, 200
        if asked and resource.ranges:
            start = int(re.fullmatch(r"bytes=(\d+)-", asked)[1])
            if start >= len(body):
                return self.answer(416, b"", headers, 0)
            headers["Content-Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
            body, status = body[start:], 206
        if fault == "wrong byte":
            body = bytes([body[0] ^ 1]) + body[1:]
        sent = body[: len(body) // 2] if fault in ("break off", "break off unannounced", "stall") else body
        self.answer(status, sent, headers, None if fault == "break off unannounced" else len(body))
        self.server.sent.append(self.path)
        if fault == "stall":
            self.server.go_on.wait(timeout=30)
        self.close_connection = sent != body

    def answer(self, status: int, body: bytes, headers: dict[str, str], announced_bytes: int | None):
        self.send_response(status)
        length = {} if announced_bytes is None else {"Content-Length": str(announced_bytes)}
        for name, value in (length | headers).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.go_on.set()
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(autouse=True)
def waits(monkeypatch) -> list[float]:
    """The seconds that would have been waited; nothing here sleeps."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    waited = []

    async def sleep(seconds):
        waited.append(seconds)

    monkeypatch.setattr(download, "sleep", sleep)
    return waited


# what the publishers publish


def wav(seed: int) -> bytes:
    samples = np.random.default_rng(seed).integers(-9000, 9000, 400, dtype=np.int16)
    stream = io.BytesIO()
    with wave.open(stream, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes(samples.tobytes())
    return stream.getvalue()


def zipped(files: dict[str | zipfile.ZipInfo, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return stream.getvalue()


def clips_of_ravdess(channel: str) -> dict[str, bytes]:
    code = {"speech": "01", "song": "02"}[channel]
    names = [f"Actor_{actor}/03-{code}-05-01-01-0{take}-{actor}.wav" for actor in ("01", "02") for take in (1, 2)]
    return {name: wav(hash_of(name)) for name in names}


def hash_of(name: str) -> int:
    return int(hashlib.md5(name.encode()).hexdigest()[:8], 16)


def publish_ravdess(server: Server, **archives: bytes) -> set[str]:
    """Speech and song on Zenodo. Returns the paths of the clips below the folder of all corpora."""
    clips = {}
    for name, channel in ((SPEECH, "speech"), (SONG, "song")):
        inside = clips_of_ravdess(channel)
        clips |= {f"RAVDESS/{Path(name).stem}/{path}": content for path, content in inside.items()}
        server.resources[f"/files/{name}"] = Resource(archives.get(channel, zipped(inside)))
    bodies = {name: server.resources[f"/files/{name}"].body for name in (SPEECH, SONG)}
    bodies["Video_Speech_Actor_01.zip"] = b"not for us"
    record = {
        "id": 1188976,
        "conceptdoi": "10.5281/zenodo.1188975",
        "metadata": {"title": "RAVDESS", "license": {"id": "cc-by-nc-sa-4.0"}},
        "files": [
            {
                "id": f"id of {name}",
                "key": name,
                "size": len(body),
                "checksum": f"md5:{hashlib.md5(body).hexdigest()}",
                "links": {"self": f"{server.url}/files/{name}"},
            }
            for name, body in bodies.items()
        ],
        "links": {"self": f"{server.url}/zenodo/records/1188976"},
    }
    server.resources["/zenodo/records/1188976"] = Resource(json.dumps(record).encode())
    return set(clips)


DATAVERSE = "/dataverse/datasets/:persistentId/?persistentId=doi:10.5683/SP2/E8H2MF"


def publish_on_dataverse(server: Server, files: dict[str, bytes]) -> None:
    listed = []
    for number, (label, body) in enumerate(files.items(), start=500):
        server.resources[f"/dataverse/access/datafile/{number}"] = Resource(body)
        md5 = hashlib.md5(body).hexdigest()
        data_file = {
            "id": number,
            "persistentId": "",
            "filename": label,
            "contentType": "audio/x-wav",
            "filesize": len(body),
            "storageIdentifier": f"s3://bucket:{number}",
            "rootDataFileId": -1,
            "md5": md5,
            "checksum": {"type": "MD5", "value": md5},
        }
        listed.append({"label": label, "restricted": False, "datasetVersionId": 7, "dataFile": data_file})
    version = {"id": 7, "versionState": "RELEASED", "license": {"name": "CC BY-NC-ND 4.0"}, "files": listed}
    answer = {"status": "OK", "data": {"id": 1, "identifier": "SP2/E8H2MF", "latestVersion": version}}
    server.resources[DATAVERSE] = Resource(json.dumps(answer).encode())


TESS = {
    "OAF_back_angry.wav": "OAF_angry",
    "OAF_back_ps.wav": "OAF_pleasant_surprise",
    "OA_bite_neutral.wav": "OAF_neutral",  # so distributed
    "YAF_back_fear.wav": "YAF_fear",
    "YAF_bar_fear.wav": "YAF_fear",
    "YAF_bar_sad.wav": "YAF_sad",
}


def publish_tess(server: Server) -> set[str]:
    publish_on_dataverse(server, {name: wav(hash_of(name)) for name in TESS} | {"readme.txt": b"Say the word"})
    return {f"TESS/{folder}/{name}" for name, folder in TESS.items()}


def git_hash(content: bytes) -> str:
    return hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()


REPOSITORY = "CheyneyComputerScience/CREMA-D"


def publish_cremad(server: Server) -> set[str]:
    names = [f"{actor}_{said}_ANG_XX.wav" for actor in (1001, 1002) for said in ("DFA", "TIE", "IOM", "IWW", "TAI")]
    table = b'"ActorID","Age","Sex","Race","Ethnicity"\n1001,51,"Male","",""\n1002,21,"Female","",""\n'
    clips = []
    for name in names:
        body = wav(hash_of(name))
        pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{hashlib.sha256(body).hexdigest()}\n"
        pointer = f"{pointer}size {len(body)}\n".encode()
        clips.append({"path": name, "mode": "100644", "type": "blob", "sha": git_hash(pointer), "size": len(pointer)})
        for host in (f"/github-lfs/{REPOSITORY}/master", "/cremad-mirror"):
            server.resources[f"{host}/AudioWAV/{name}"] = Resource(body, etag=None)
    for host in (f"/github-raw/{REPOSITORY}/master", "/cremad-mirror"):
        server.resources[f"{host}/VideoDemographics.csv"] = Resource(table)
    root = [
        {"path": "AudioMP3", "mode": "040000", "type": "tree", "sha": "aaa"},
        {"path": "AudioWAV", "mode": "040000", "type": "tree", "sha": "bbb"},
        {"path": "VideoDemographics.csv", "mode": "100644", "type": "blob", "sha": git_hash(table), "size": len(table)},
    ]
    for sha, tree in (("master", root), ("bbb", clips)):
        answer = {"sha": sha, "url": "", "tree": tree, "truncated": False}
        server.resources[f"/github/repos/{REPOSITORY}/git/trees/{sha}"] = Resource(json.dumps(answer).encode())
    return {f"CREMA-D/AudioWAV/{name}" for name in names}


PUBLISH = {"ravdess": publish_ravdess, "tess": publish_tess, "cremad": publish_cremad}
every_corpus = pytest.mark.parametrize("name", PUBLISH)


def fetch(server: Server, name: str, dest: Path, **options) -> Path:
    return download.download(name, dest, server=server.url, **options)


def clips_in(dest: Path, name: str) -> set[str]:
    """What the reader finds, which must be all of the audio that lies there."""
    options = {"channels": ["speech", "song"]} if name == "ravdess" else {}
    scan = find_utterances(dest, [{"name": name, **options}])
    assert not scan.problems and not scan.notes
    return {utterance.path.relative_to(dest).as_posix() for utterance in scan.utterances}


def files_below(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def listings(server: Server) -> int:
    return sum("/records/" in path or "/datasets/" in path or "/trees/" in path for path, _ in server.requests)


# all goes well


def test_each_corpus_can_be_had_or_says_where():
    assert PUBLISH.keys() == download.LISTERS.keys() == CORPORA.keys() - {"folder", "savee"}


@every_corpus
def test_the_reader_finds_exactly_the_published_clips(server, tmp_path, capsys, name):
    published = PUBLISH[name](server)
    folder = fetch(server, name, tmp_path)
    assert clips_in(tmp_path, name) == published
    assert folder == tmp_path / CORPORA[name].customary_folders[0]
    assert not [path for path in files_below(tmp_path) if path.endswith((".zip", ".part", ".etag"))]
    shown = capsys.readouterr()
    assert CORPORA[name].licence in shown.out and CORPORA[name].citation in shown.out
    assert f"{len(published)} clips in {folder}" in shown.out
    assert "B/s" in shown.err


@every_corpus
def test_a_second_run_asks_for_no_file(server, tmp_path, name):
    published = PUBLISH[name](server)
    fetch(server, name, tmp_path)
    server.requests.clear()
    fetch(server, name, tmp_path)
    assert len(server.requests) == listings(server) > 0
    assert clips_in(tmp_path, name) == published


@every_corpus
def test_what_was_lost_or_damaged_since_is_fetched_again(server, tmp_path, name):
    published = sorted(PUBLISH[name](server))
    fetch(server, name, tmp_path)
    whole = {path: (tmp_path / path).read_bytes() for path in published}
    for damage in (lambda path: path.unlink(), lambda path: path.write_bytes(bytes(path.stat().st_size))):
        damage(tmp_path / published[0])
        server.requests.clear()
        fetch(server, name, tmp_path)
        assert len(server.requests) == listings(server) + 1
        assert {path: (tmp_path / path).read_bytes() for path in published} == whole


def test_only_one_channel(server, tmp_path):
    published = publish_ravdess(server)
    fetch(server, "ravdess", tmp_path, only="speech")
    assert clips_in(tmp_path, "ravdess") == {path for path in published if "Speech" in path}
    fetch(server, "ravdess", tmp_path, only="song")
    assert clips_in(tmp_path, "ravdess") == published
    assert Counter(path for path, _ in server.requests if "/files/" in path) == {
        f"/files/{SPEECH}": 1,
        f"/files/{SONG}": 1,
    }


def test_archives_are_kept_on_request_and_serve_again(server, tmp_path):
    published = publish_ravdess(server)
    folder = fetch(server, "ravdess", tmp_path, keep=True)
    assert (folder / SPEECH).read_bytes() == server.resources[f"/files/{SPEECH}"].body
    shutil.rmtree(folder / Path(SPEECH).stem)
    server.requests.clear()
    fetch(server, "ravdess", tmp_path, keep=True)
    assert len(server.requests) == listings(server) and clips_in(tmp_path, "ravdess") == published


def test_a_folder_that_is_there_in_another_spelling_is_used(server, tmp_path):
    publish_tess(server)
    mine = tmp_path / "tess" / "my notes.txt"
    mine.parent.mkdir()
    mine.write_text("mine")
    assert fetch(server, "tess", tmp_path) == tmp_path / "tess"
    assert mine.read_text() == "mine" and len(clips_in(tmp_path, "tess")) == len(TESS)


def test_tess_as_archives(server, tmp_path):
    clips = {name: wav(hash_of(name)) for name in ("OAF_back_angry.wav", "OAF_bar_angry.wav")}
    publish_on_dataverse(server, {"OAF_angry.zip": zipped(clips), "readme.txt": b""})
    fetch(server, "tess", tmp_path)
    assert clips_in(tmp_path, "tess") == {f"TESS/OAF_angry/{name}" for name in clips}


def test_the_actors_sexes_come_with_cremad(server, tmp_path):
    publish_cremad(server)
    fetch(server, "cremad", tmp_path)
    scan = find_utterances(tmp_path, [{"name": "cremad"}])
    assert {utterance.speaker: utterance.sex for utterance in scan.utterances} == {
        "cremad-1001": "male",
        "cremad-1002": "female",
    }


def test_git_hashes_are_gits(tmp_path):
    path = tmp_path / "hello"
    path.write_bytes(b"hello\n")  # the numbers: git hash-object, of it and of its Git LFS pointer
    assert download.checksum_of(path, "git-blob:") == "git-blob:ce013625030ba8dba906f756967f9e9ca394464a"
    assert download.checksum_of(path, "git-lfs:") == "git-lfs:fa61e1ef71c9908c0926776a4aa3504b3a27f159"


# connections that break


@every_corpus
def test_a_download_that_breaks_off_goes_on_from_there(server, tmp_path, name):
    published = PUBLISH[name](server)
    for path, resource in server.resources.items():
        if "/records/" not in path and "/datasets/" not in path and "/trees/" not in path:
            resource.faults = ["break off"]
    fetch(server, name, tmp_path)
    assert clips_in(tmp_path, name) == published
    for path in {path for path, asked in server.requests if asked}:
        half = len(server.resources[path].body) // 2
        assert server.ranges(path) == [None, f"bytes={half}-"]
    assert len([asked for _, asked in server.requests if asked]) == (len(server.requests) - listings(server)) / 2 > 0


def test_the_next_run_goes_on_too(server, tmp_path, waits):
    published = publish_ravdess(server)
    archive = server.resources[f"/files/{SPEECH}"]
    archive.faults = ["break off"] + ["503"] * len(BACKOFF_S)
    with pytest.raises(DownloadError, match="what has arrived is kept"):
        fetch(server, "ravdess", tmp_path, only="speech")
    assert waits == list(BACKOFF_S)
    assert not list(tmp_path.rglob("*.wav")) and not list(tmp_path.rglob("*.zip"))
    server.requests.clear()
    fetch(server, "ravdess", tmp_path)
    assert server.ranges(f"/files/{SPEECH}") == [f"bytes={len(archive.body) // 2}-"]
    assert clips_in(tmp_path, "ravdess") == published


def test_as_long_as_some_of_it_arrives_it_goes_on(server, tmp_path):
    published = publish_ravdess(server)
    for path, resource in server.resources.items():
        resource.faults = ["break off", "break off unannounced"] * len(BACKOFF_S) if "/files/" in path else []
    fetch(server, "ravdess", tmp_path)
    assert clips_in(tmp_path, "ravdess") == published


def test_a_part_that_lacks_nothing_is_not_fetched(server, tmp_path):
    publish_ravdess(server)
    part = tmp_path / "RAVDESS" / f"{SPEECH}.part"
    part.parent.mkdir()
    part.write_bytes(server.resources[f"/files/{SPEECH}"].body)
    fetch(server, "ravdess", tmp_path, only="speech")
    assert not server.ranges(f"/files/{SPEECH}") and len(clips_in(tmp_path, "ravdess")) == 4


def test_a_file_that_is_listed_twice_is_fetched_once(server, tmp_path):
    published = publish_tess(server)
    listing = server.resources[DATAVERSE]
    answer = json.loads(listing.body)
    answer["data"]["latestVersion"]["files"] *= 2
    listing.body = json.dumps(answer).encode()
    fetch(server, "tess", tmp_path)
    assert len(server.requests) == 1 + len(published) and clips_in(tmp_path, "tess") == published


def test_a_server_without_ranges_starts_again(server, tmp_path):
    publish_ravdess(server)
    archive = server.resources[f"/files/{SPEECH}"]
    archive.ranges, archive.faults = False, ["break off"]
    folder = fetch(server, "ravdess", tmp_path, only="speech", keep=True)
    assert len(server.ranges(f"/files/{SPEECH}")) == 2
    assert (folder / SPEECH).read_bytes() == archive.body


def test_a_part_of_another_version_is_not_gone_on_with(server, tmp_path):
    publish_ravdess(server)
    archive = server.resources[f"/files/{SPEECH}"]
    archive.faults = ["break off"] + ["503"] * len(BACKOFF_S)
    with pytest.raises(DownloadError):
        fetch(server, "ravdess", tmp_path, only="speech")
    archive.etag = '"second"'
    server.requests.clear()
    folder = fetch(server, "ravdess", tmp_path, only="speech", keep=True)
    assert server.ranges(f"/files/{SPEECH}") == [f"bytes={len(archive.body) // 2}-", None]
    assert (folder / SPEECH).read_bytes() == archive.body


def test_a_part_that_is_too_long_starts_again(server, tmp_path):
    publish_ravdess(server)
    archive = server.resources[f"/files/{SPEECH}"]
    part = tmp_path / "RAVDESS" / f"{SPEECH}.part"
    part.parent.mkdir()
    part.write_bytes(bytes(len(archive.body) + 1))
    folder = fetch(server, "ravdess", tmp_path, only="speech", keep=True)
    assert len(server.ranges(f"/files/{SPEECH}")) == 2 and (folder / SPEECH).read_bytes() == archive.body


# wrong bytes


@every_corpus
def test_a_wrong_byte_once_is_fetched_again(server, tmp_path, name):
    published = PUBLISH[name](server)
    first = {"ravdess": f"/files/{SPEECH}", "tess": "/dataverse/access/datafile/500"}.get(
        name, f"/github-lfs/{REPOSITORY}/master/AudioWAV/1001_DFA_ANG_XX.wav"
    )
    server.resources[first].faults = ["wrong byte"]
    fetch(server, name, tmp_path)
    assert server.ranges(first) == [None, None] and clips_in(tmp_path, name) == published


def test_a_wrong_byte_always_is_an_error_that_leaves_nothing_of_the_file(server, tmp_path):
    published = publish_tess(server)
    server.resources["/dataverse/access/datafile/500"].always = "wrong byte"
    with pytest.raises(DownloadError, match=r"OAF_back_angry.wav arrived damaged twice: its checksum is md5:"):
        fetch(server, "tess", tmp_path)
    assert files_below(tmp_path) == published - {"TESS/OAF_angry/OAF_back_angry.wav"}
    assert len(server.ranges("/dataverse/access/datafile/500")) == 2


def test_a_file_longer_than_listed_is_not_read_to_its_end(server, tmp_path):
    publish_tess(server)
    listed = server.resources["/dataverse/access/datafile/500"]
    listed.body += bytes(50_000_000)
    with pytest.raises(DownloadError, match="OAF_back_angry.wav arrived damaged"):
        fetch(server, "tess", tmp_path)
    assert "/dataverse/access/datafile/501" in server.sent and "/dataverse/access/datafile/500" not in server.sent


# servers that refuse


def test_503_twice_then_well(server, tmp_path, waits):
    published = publish_ravdess(server)
    for resource in server.resources.values():
        resource.faults, resource.headers = ["503", "503"], {"Retry-After": "0"}
    fetch(server, "ravdess", tmp_path)
    assert waits == [0] * 6 and clips_in(tmp_path, "ravdess") == published


@pytest.mark.parametrize(
    "fault, headers, wanted",
    [
        ("429", {"Retry-After": "7"}, 7),
        ("503", {"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0),
        ("502", {"Retry-After": "soon"}, BACKOFF_S[0]),
        ("500", {}, BACKOFF_S[0]),
        ("403", {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "1000"}, 0),
    ],
)
def test_how_long_it_waits(server, tmp_path, waits, capsys, fault, headers, wanted):
    publish_ravdess(server)
    record = server.resources["/zenodo/records/1188976"]
    record.faults, record.headers = [fault], headers
    fetch(server, "ravdess", tmp_path)
    assert waits == [wanted]
    assert ("Too Many Requests; again in 7 s" in capsys.readouterr().err) == (wanted == 7)


def test_a_server_that_asks_for_an_hour_is_left_alone(server, tmp_path, waits):
    publish_ravdess(server)
    record = server.resources["/zenodo/records/1188976"]
    record.always, record.headers = "429", {"Retry-After": "3600"}
    with pytest.raises(DownloadError, match="429 Too Many Requests and asks to come back in 60 minutes"):
        fetch(server, "ravdess", tmp_path)
    assert len(server.requests) == 1 and not waits


def test_a_file_that_is_gone_does_not_stop_the_others(server, tmp_path):
    published = publish_tess(server)
    gone = server.resources.pop("/dataverse/access/datafile/501")
    with pytest.raises(DownloadError, match=r"datafile/501 answers 404 Not Found"):
        fetch(server, "tess", tmp_path)
    assert clips_in(tmp_path, "tess") == published - {"TESS/OAF_pleasant_surprise/OAF_back_ps.wav"}
    server.resources["/dataverse/access/datafile/501"] = gone
    server.requests.clear()
    fetch(server, "tess", tmp_path)
    assert len(server.requests) == 2 and clips_in(tmp_path, "tess") == published


def test_when_many_files_fail_it_stops(server, tmp_path):
    words = [first + second for first in "abcdefgh" for second in "abcdefgh"]
    publish_on_dataverse(server, {f"OAF_{word}_sad.wav": b"x" for word in words})
    for path, resource in server.resources.items():
        resource.always = "403" if "/access/" in path else ""
    with pytest.raises(DownloadError, match=r"\d+ files failed, the first: .* answers 403 Forbidden"):
        fetch(server, "tess", tmp_path)
    assert len(server.requests) <= 1 + download.MAX_FAILED_FILES + download.AT_ONCE


@pytest.mark.parametrize("fault, requests_each", [("404", 1), ("wrong byte", 2), ("429", 0.4)])
def test_cremad_comes_from_the_mirror_where_github_fails(server, tmp_path, fault, requests_each):
    published = publish_cremad(server)
    for path, resource in server.resources.items():
        if path.startswith("/github-lfs"):
            resource.always, resource.headers = fault, {"Retry-After": "3600"}
    fetch(server, "cremad", tmp_path)
    assert clips_in(tmp_path, "cremad") == published
    asked = sum(path.startswith("/github-lfs") for path, _ in server.requests)
    assert asked <= requests_each * len(published)  # one that asks to be left alone is


def test_a_mirror_is_not_believed_either(server, tmp_path):
    publish_cremad(server)
    for path, resource in server.resources.items():
        if path.startswith("/github-lfs"):
            resource.always = "404"
        if path.startswith("/cremad-mirror/AudioWAV/1001") and "IOM" not in path:
            resource.always = "wrong byte"
    with pytest.raises(DownloadError, match=r"4 files failed, the first: 1001_\w+.wav arrived damaged twice"):
        fetch(server, "cremad", tmp_path)
    assert len(clips_in(tmp_path, "cremad")) == 6


def test_nobody_there(server, tmp_path, waits):
    publish_ravdess(server)
    with pytest.raises(DownloadError, match=r"127.0.0.1:9 cannot be used now \(.+\)"):
        download.download("ravdess", tmp_path, server="http://127.0.0.1:9")
    assert waits == list(BACKOFF_S)


@pytest.mark.parametrize(
    "answer, wanted",
    [
        (b"<html>under construction", "Invalid JSON"),
        (b'{"files": [{"key": "a.zip", "size": 3}]}', "files.0.checksum: Field required"),
        (b'{"files": []}', "lists no Audio_Song_Actors_01-24.zip and no Audio_Speech"),
    ],
)
def test_an_answer_of_another_form(server, tmp_path, answer, wanted):
    server.resources["/zenodo/records/1188976"] = Resource(answer)
    with pytest.raises(DownloadError, match=wanted):
        fetch(server, "ravdess", tmp_path)


def test_a_listing_cannot_write_elsewhere(server, tmp_path):
    publish_on_dataverse(server, {"../../OAF_back_angry.wav": wav(0)})
    with pytest.raises(DownloadError, match="refused a file named '.*OAF_back_angry.wav'"):
        fetch(server, "tess", tmp_path / "data")
    assert not list(tmp_path.rglob("*.wav"))


# archives that must not be unpacked


def member(name: str, kind: int) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.external_attr = kind << 16
    return info


CLIP = "Actor_01/03-01-05-01-01-01-01.wav"
BAD = {
    "parent": ({CLIP: wav(0), "../../03-01-05-01-01-02-01.wav": wav(1)}, "outside the corpus's folder"),
    "absolute": ({CLIP: wav(0), "/tmp/03-01-05-01-01-02-01.wav": wav(1)}, "outside the corpus's folder"),
    "backslash": ({CLIP: wav(0), "..\\03-01-05-01-01-02-01.wav": wav(1)}, "outside the corpus's folder"),
    "link": ({member("Actor_01", 0o120777): b"/", CLIP: wav(0)}, "is a link"),
    "device": ({CLIP: wav(0), member("Actor_01/null", 0o020666): b""}, "is a link"),
    "bomb": ({CLIP: bytes(1_000_000)}, "would unpack to"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_archive_is_refused_whole(server, tmp_path, case):
    files, wanted = BAD[case]
    publish_ravdess(server, speech=zipped(files))
    with pytest.raises(DownloadError, match=wanted):
        fetch(server, "ravdess", tmp_path / "data", only="speech")
    assert files_below(tmp_path) == {f"data/RAVDESS/{SPEECH}"}  # true to its checksum, so not fetched again


@pytest.mark.parametrize("damage", [b"no archive at all", zipped({CLIP: wav(0)})[:-40]])
def test_a_broken_archive_is_refused(server, tmp_path, damage):
    publish_ravdess(server, speech=damage)
    with pytest.raises(DownloadError, match=rf"{SPEECH} cannot be unpacked"):
        fetch(server, "ravdess", tmp_path, only="speech")
    assert not list(tmp_path.rglob("*.wav"))


def test_damage_inside_an_archive_leaves_no_half_folder(server, tmp_path):
    archive = bytearray(zipped(clips_of_ravdess("speech")))
    archive[len(archive) // 2] ^= 1
    publish_ravdess(server, speech=bytes(archive))
    with pytest.raises(DownloadError, match="cannot be unpacked"):
        fetch(server, "ravdess", tmp_path, only="speech")
    assert files_below(tmp_path) == {f"RAVDESS/{SPEECH}"}


def test_unpacking_into_a_folder_that_is_there_keeps_what_it_has(server, tmp_path):
    published = publish_ravdess(server)
    mine = tmp_path / "RAVDESS" / Path(SPEECH).stem / "Actor_01" / "my notes.txt"
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    fetch(server, "ravdess", tmp_path)
    assert mine.read_text() == "mine" and clips_in(tmp_path, "ravdess") == published


# the disk


def test_room_is_asked_for_before_anything_is_fetched(server, tmp_path, monkeypatch):
    publish_ravdess(server)
    archives_bytes = sum(len(server.resources[f"/files/{name}"].body) for name in (SPEECH, SONG))
    free = shutil.disk_usage(tmp_path)._replace(free=2 * archives_bytes)  # for them, but not for what is in them too
    monkeypatch.setattr(shutil, "disk_usage", lambda path: free)
    with pytest.raises(DownloadError, match=r"RAVDESS takes about .* GB more, and .* has 0.0 GB free"):
        fetch(server, "ravdess", tmp_path)
    assert len(server.requests) == 1


def test_a_disk_that_fills_up(server, tmp_path):
    publish_tess(server)
    part = tmp_path / "TESS" / "OAF_angry" / "OAF_back_angry.wav.part"
    part.parent.mkdir(parents=True)
    part.symlink_to("/dev/full")
    with pytest.raises(DownloadError, match=r"No space left on device; free some space and run the same command"):
        fetch(server, "tess", tmp_path)


def test_a_destination_that_is_a_file(server, tmp_path):
    (tmp_path / "data").touch()
    with pytest.raises(DownloadError, match="cannot write below .*data: File exists; check --dest"):
        fetch(server, "ravdess", tmp_path / "data")


# the command


README = [line for line in COMMANDS if line.startswith("python -m ser_model download")]


@pytest.mark.parametrize("line", README)
def test_the_commands_of_the_readme(server, tmp_path, line):
    name = line.split()[4]
    published = PUBLISH[name](server)
    arguments = shlex.split(line.replace("--dest data", f"--dest {tmp_path} --server {server.url}"))
    assert arguments[:3] == ["python", "-m", "ser_model"]
    assert __main__.main(arguments[3:]) == 0
    assert clips_in(tmp_path, name) == published


def test_ctrl_c_leaves_the_next_run_to_go_on(server, tmp_path):
    published = publish_ravdess(server)
    for path, resource in server.resources.items():
        resource.faults = ["stall"] if "/files/" in path else []
    arguments = shlex.split(README[0].replace("--dest data", f"--dest {tmp_path} --server {server.url}"))
    run = subprocess.Popen(
        [sys.executable, *arguments[1:]],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs ignore it
    )
    half = len(server.resources[f"/files/{SPEECH}"].body) // 2
    part = tmp_path / "RAVDESS" / f"{SPEECH}.part"
    while not (part.exists() and part.stat().st_size == half):
        assert run.poll() is None
        time.sleep(0.01)
    run.send_signal(signal.SIGINT)
    _, errors = run.communicate(timeout=60)
    assert run.returncode == 130 and "goes on from what has arrived" in errors and "Traceback" not in errors
    server.requests.clear()
    fetch(server, "ravdess", tmp_path)
    assert server.ranges(f"/files/{SPEECH}") == [f"bytes={half}-"]
    assert clips_in(tmp_path, "ravdess") == published


@pytest.mark.parametrize(
    "arguments, wanted",
    [
        (["savee"], "SAVEE wants a registration: get it by hand from http://kahlan.eps.surrey.ac.uk/savee/"),
        (["tess", "--only", "song"], "--only is for ravdess"),
        (["tess", "--server", "localhost"], "localhost is no address of a server"),
        (["tess", "--server", "http://host:port"], "Invalid port: 'port'"),
    ],
)
def test_what_cannot_be_done_is_told_in_one_sentence(tmp_path, capsys, arguments, wanted):
    with pytest.raises(SystemExit) as stopped:
        __main__.main(["download", *arguments, "--dest", os.fspath(tmp_path)])
    assert wanted in stopped.value.code and "\n" not in stopped.value.code
    assert "licence:" in capsys.readouterr().out
