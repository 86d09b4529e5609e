"""A hub on this machine: what of its HTTP interface `models push`, `pull` and `import` use, with files in memory."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

Files = dict[str, bytes]


@dataclass
class Repository:
    """Commits (the newest last) as files by path, and branches by the commit they are at."""

    commits: dict[str, Files] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)
    private: bool = False

    def commit(self, files: Files, branch: str = "main", message: str = "") -> str:
        """A new commit on a branch; its name."""
        name = hashlib.sha1(f"{len(self.commits)}{branch}".encode()).hexdigest()
        self.commits[name] = files
        self.branches[branch] = name
        self.messages.append(message)
        return name

    def at(self, revision: str) -> str | None:
        """The commit that a branch or a commit's name means."""
        name = self.branches.get(revision, revision)
        return name if name in self.commits else None


class FakeHub:
    """Repositories by name; every request is logged as ``METHOD path``. ``TOKEN`` may write."""

    TOKEN = "hf_test"

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.uploads: dict[str, bytes] = {}
        self.log: list[str] = []
        self.url = ""

    @contextmanager
    def running(self) -> Iterator[FakeHub]:
        """Serve on a free port until the block ends."""
        hub = self

        class Handler(_Handler):
            fake = hub

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        self.url = f"http://127.0.0.1:{server.server_port}"
        try:
            yield self
        finally:
            server.shutdown()
            server.server_close()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    fake: FakeHub
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        self._answer_read()

    def do_HEAD(self) -> None:
        self._answer_read()

    def do_POST(self) -> None:
        body, parts = self._body(), self._parts()
        if self.headers.get("Authorization") != f"Bearer {self.fake.TOKEN}":
            return self._json({"error": "Invalid username or password."}, 401)
        if parts == ["api", "repos", "create"]:
            return self._create(json.loads(body))
        if parts == ["api", "validate-yaml"]:
            return self._json({"errors": [], "warnings": []})
        if parts[-4:] == ["info", "lfs", "objects", "batch"]:
            return self._json(self._batch(json.loads(body)))
        repository = self.fake.repositories["/".join(parts[2:4])]
        if parts[4] == "preupload":
            return self._json({"files": [_mode(file) for file in json.loads(body)["files"]]})
        if parts[4] == "branch":
            repository.branches.setdefault(parts[5], repository.branches["main"])
            return self._json({})
        assert parts[4] == "commit", self.path
        name = self._commit(repository, parts[5], [json.loads(line) for line in body.splitlines() if line])
        return self._json({"commitUrl": f"{self.fake.url}/{'/'.join(parts[2:4])}/commit/{name}", "commitOid": name,
                           "success": True})  # fmt: skip

    def do_PUT(self) -> None:
        self.fake.uploads[self._parts()[-1]] = self._body()
        self._json({})

    def _create(self, asked: dict[str, str]) -> None:
        name = f"{asked['organization']}/{asked['name']}"
        if name in self.fake.repositories:
            return self._json({"error": "You already created this model repo", "url": f"{self.fake.url}/{name}"}, 409)
        repository = self.fake.repositories[name] = Repository(private=asked.get("visibility") == "private")
        repository.commit({".gitattributes": b"*.safetensors filter=lfs\n"}, message="initial commit")
        return self._json({"url": f"{self.fake.url}/{name}", "name": name})

    def _batch(self, asked: dict) -> dict:
        objects = [{"oid": one["oid"], "size": one["size"],
                    "actions": {"upload": {"href": f"{self.fake.url}/upload/{one['oid']}"}}}
                   for one in asked["objects"]]  # fmt: skip
        return {"transfer": "basic", "objects": objects}

    def _commit(self, repository: Repository, branch: str, lines: list[dict]) -> str:
        files = dict(repository.commits[repository.branches[branch]])
        message = ""
        for line in lines:
            value = line["value"]
            if line["key"] == "header":
                message = value["summary"]
            elif line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.fake.uploads[value["oid"]]
            else:
                assert line["key"] == "deletedFile", line
                del files[value["path"]]
        return repository.commit(files, branch, message)

    def _answer_read(self) -> None:
        parts = self._parts()
        api = parts[:2] == ["api", "models"]
        name, rest = "/".join(parts[2:4] if api else parts[:2]), parts[4:] if api else parts[2:]
        repository = self.fake.repositories.get(name)
        if repository is None:
            return self._json({"error": "Repository not found"}, 404, {"X-Error-Code": "RepoNotFound"})
        commit = repository.at(rest[1] if len(rest) > 1 else "main")
        if commit is None:
            return self._json({"error": "Invalid rev id"}, 404, {"X-Error-Code": "RevisionNotFound"})
        files = repository.commits[commit]
        if not api:
            return self._file(files["/".join(rest[2:])], commit)
        if rest[:1] == ["tree"]:
            return self._json([{"type": "file", "path": path, "size": len(data), "oid": _blob(data)}
                               for path, data in files.items()])  # fmt: skip
        siblings = [{"rfilename": path} for path in files]
        return self._json({"id": name, "modelId": name, "sha": commit, "siblings": siblings, "private": False})

    def _file(self, data: bytes, commit: str) -> None:
        facts = {"ETag": f'"{_blob(data)}"', "X-Repo-Commit": commit, "Accept-Ranges": "bytes"}
        self._send(data, 200, "application/octet-stream", facts)

    def _parts(self) -> list[str]:
        self.fake.log.append(f"{self.command} {self.path}")
        return [unquote(part) for part in urlsplit(self.path).path.strip("/").split("/")]

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            found = b""
            while size := int(self.rfile.readline(), 16):
                found += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return found
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _json(self, value: object, status: int = 200, more: dict[str, str] | None = None) -> None:
        self._send(json.dumps(value).encode(), status, "application/json", more or {})

    def _send(self, data: bytes, status: int, kind: str, more: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(data)), **more}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)


def _mode(file: dict) -> dict:
    large = file["path"].endswith(".safetensors")
    return {"path": file["path"], "uploadMode": "lfs" if large else "regular", "shouldIgnore": False, "oid": None}


def _blob(data: bytes) -> str:
    return hashlib.sha1(data).hexdigest()
