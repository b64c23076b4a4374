"""A Hub in this process: the routes of `push`, `hf upload` and `from_pretrained`, over repositories kept in memory.

It answers what the real one answers, refuses writers without the token, and notes every request.
"""

import base64
import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

import yaml

TOKEN = "hf_token_of_ours"
OURS, THEIRS = "ours", "theirs"  # the token may write below the first name, not below the second


@dataclass
class Repository:
    private: bool
    files: dict[str, bytes] = field(default_factory=dict)
    commits: list[list[str]] = field(default_factory=list)  # paths of each

    @property
    def sha(self) -> str:
        return hashlib.sha1(str(self.commits).encode()).hexdigest()


class FakeHub(ThreadingHTTPServer):
    """repositories: by id. requests: (method, path) in order. `url` is for HF_ENDPOINT."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repositories: dict[str, Repository] = {}
        self.requests: list[tuple[str, str]] = []
        self.url = f"http://127.0.0.1:{self.server_port}"


@contextmanager
def running_hub() -> Iterator[FakeHub]:
    with FakeHub() as hub:
        thread = threading.Thread(target=hub.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield hub
        finally:
            hub.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FakeHub

    def do_POST(self) -> None:
        path = self._begin()
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self._refuse(401, "Invalid username or password.")
        match path.strip("/").split("/"):
            case ["api", "repos", "create"]:
                self._create(json.loads(body))
            case ["api", "validate-yaml"]:
                self._validate(json.loads(body)["content"])
            case ["api", "models" | "spaces", owner, name, "preupload", "main"]:
                files = [
                    {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False}
                    for file in json.loads(body)["files"]
                ]
                self._answer({"files": files} if f"{owner}/{name}" in self.server.repositories else {}, 200)
            case ["api", "models" | "spaces", owner, name, "commit", "main"]:
                self._commit(f"{owner}/{name}", [json.loads(line) for line in body.splitlines()])
            case _:
                self._refuse(404, f"no such route: {path}")

    def do_GET(self) -> None:
        path = self._begin()
        match path.strip("/").split("/"):
            case ["api", "models" | "spaces", owner, name]:
                if repository := self._readable(f"{owner}/{name}"):
                    siblings = [{"rfilename": file} for file in repository.files]
                    self._answer({"id": f"{owner}/{name}", "sha": repository.sha, "siblings": siblings, "tags": []})
            case ["api", "models" | "spaces", owner, name, "tree", _, *folder]:
                if repository := self._readable(f"{owner}/{name}"):
                    inside = [file for file in repository.files if file.startswith("/".join(folder))]
                    if not inside:
                        return self._refuse(404, "no such folder", "EntryNotFound")
                    self._answer(
                        [{"type": "file", "path": file, **self._identity(repository, file)} for file in inside]
                    )
            case [owner, name, "resolve", _, *parts]:
                if repository := self._readable(f"{owner}/{name}"):
                    self._resolve(repository, "/".join(parts))
            case _:
                self._refuse(404, f"no such route: {path}")

    do_HEAD = do_GET

    def _create(self, wish: dict) -> None:
        owner = wish["organization"] or OURS
        if owner != OURS:
            return self._refuse(403, f"You don't have the rights to create a model under the namespace {owner!r}")
        repo_id = f"{owner}/{wish['name']}"
        exists = repo_id in self.server.repositories
        self.server.repositories.setdefault(repo_id, Repository(private=wish.get("visibility") == "private"))
        self._answer({"url": f"{self.server.url}/{repo_id}", "name": repo_id, "id": repo_id}, 409 if exists else 200)

    def _validate(self, card: str) -> None:
        _, front_matter, _ = card.split("---", 2)
        metadata = yaml.safe_load(front_matter)
        errors = [{"message": f'"{key}" is required'} for key in ("license",) if key not in metadata]
        self._answer({"errors": errors, "warnings": []}, 400 if errors else 200)

    def _commit(self, repo_id: str, lines: list[dict]) -> None:
        repository = self.server.repositories[repo_id]
        files = {
            line["value"]["path"]: base64.b64decode(line["value"]["content"]) for line in lines if line["key"] == "file"
        }
        repository.files |= files
        repository.commits.append(sorted(files))
        url = f"{self.server.url}/{repo_id}/commit/{repository.sha}"
        self._answer({"commitUrl": url, "commitOid": repository.sha, "success": True})

    def _resolve(self, repository: Repository, file: str) -> None:
        if file not in repository.files:
            return self._refuse(404, "Entry not found", "EntryNotFound", {"X-Repo-Commit": repository.sha})
        content = repository.files[file]
        headers = {"ETag": f'"{self._identity(repository, file)["oid"]}"', "X-Repo-Commit": repository.sha}
        self._send(200, content, "application/octet-stream", headers)

    def _readable(self, repo_id: str) -> Repository | None:
        repository = self.server.repositories.get(repo_id)
        if repository and (not repository.private or self.headers.get("Authorization") == f"Bearer {TOKEN}"):
            return repository
        return self._refuse(401, "Repository not found", "RepoNotFound")  # as the real one, which tells nobody

    @staticmethod
    def _identity(repository: Repository, file: str) -> dict:
        content = repository.files[file]
        return {"oid": hashlib.sha1(content).hexdigest(), "size": len(content)}

    def _begin(self) -> str:
        path = unquote(urlsplit(self.path).path)
        self.server.requests.append((self.command, path))
        return path

    def _answer(self, content: dict | list, status: int = 200) -> None:
        self._send(status, json.dumps(content).encode(), "application/json", {})

    def _refuse(self, status: int, message: str, code: str = "", headers: Mapping[str, str] = {}) -> None:
        headers = {"X-Error-Code": code, **headers}
        self._send(status, json.dumps({"error": message}).encode(), "application/json", headers)

    def _send(self, status: int, content: bytes, kind: str, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in ({"Content-Type": kind, "Content-Length": str(len(content))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *_) -> None:
        pass  # pytest's output is for failures
