"""A Hub on the local machine: enough of its HTTP interface to make, fill and read repositories."""

from __future__ import annotations

import base64
import hashlib
import json
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from types import SimpleNamespace

import pytest
from huggingface_hub import close_session, constants
from huggingface_hub.utils import _http

Files = dict[str, bytes]


class Hub:
    """Repositories, each a list of commits; every commit holds all files."""

    def __init__(self) -> None:
        self.commits: dict[str, list[Files]] = {}
        self.fetched: list[str] = []
        self.address = ""

    def commit_id(self, repo: str, number: int) -> str:
        return hashlib.sha1(f"{repo} {number}".encode()).hexdigest()

    def find(self, repo: str, revision: str) -> tuple[str, Files] | None:
        """A commit's id and files by id, or the newest for `main`."""
        for number, files in enumerate(self.commits[repo]):
            name = self.commit_id(repo, number)
            if revision == name or (revision == "main" and number == len(self.commits[repo]) - 1):
                return name, files
        return None

    def add(self, repo: str, files: Files, gone: Iterable[str] = ()) -> str:
        """A new commit on top of the newest."""
        commits = self.commits.setdefault(repo, [{}])
        commits.append({name: data for name, data in (commits[-1] | files).items() if name not in gone})
        return self.commit_id(repo, len(commits) - 1)

    def add_folder(self, repo: str, folder: Path) -> str:
        return self.add(
            repo,
            {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()},
        )


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Silent."""

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def json(self, data: object) -> None:
        self.answer(200, json.dumps(data).encode(), Content_Type="application/json")

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        parts = self.path.partition("?")[0].strip("/").split("/")
        if parts[0] == "api":
            repo, revision = "/".join(parts[2:4]), parts[5] if len(parts) > 5 else "main"
            found = self.hub.find(repo, revision) if repo in self.hub.commits else None
            if found is None:
                return self.answer(404, X_Error_Code="RepoNotFound")
            if parts[4:5] == ["tree"]:  # transformers looks for templates of chats
                return self.answer(404, X_Error_Code="EntryNotFound")
            return self.json({"id": repo, "sha": found[0], "siblings": [], "tags": []})
        repo, revision, name = "/".join(parts[:2]), parts[3], "/".join(parts[4:])
        if repo not in self.hub.commits:
            return self.answer(404, X_Error_Code="RepoNotFound")
        found = self.hub.find(repo, revision)
        if found is None:
            return self.answer(404, X_Error_Code="RevisionNotFound")
        if name not in found[1]:
            return self.answer(404, X_Error_Code="EntryNotFound", X_Repo_Commit=found[0])
        if self.command == "GET":
            self.hub.fetched.append(name)
        data = found[1][name]
        large = name.endswith(".safetensors")  # the Hub names large files by their SHA-256
        tag = f'"{(hashlib.sha256 if large else hashlib.sha1)(data).hexdigest()}"'
        return self.answer(200, data, ETag=tag, X_Repo_Commit=found[0])

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        parts = self.path.partition("?")[0].strip("/").split("/")
        if parts[:3] == ["api", "repos", "create"]:
            repo = f"{json.loads(body).get('organization') or 'me'}/{json.loads(body)['name']}"
            if repo in self.hub.commits:
                return self.answer(409, json.dumps({"url": f"{self.hub.address}/{repo}"}).encode())
            self.hub.commits[repo] = [{}]
            return self.json({"url": f"{self.hub.address}/{repo}"})
        if parts == ["api", "validate-yaml"]:
            return self.json({"errors": [], "warnings": []})
        repo = "/".join(parts[2:4])
        if parts[4] == "preupload":
            files = json.loads(body)["files"]
            modes = [{"path": file["path"], "uploadMode": "regular", "shouldIgnore": False} for file in files]
            return self.json({"files": modes})
        lines = [json.loads(line) for line in body.splitlines()]
        values = [line["value"] for line in lines if line["key"] == "file"]
        parent = next(line["value"].get("parentCommit") for line in lines if line["key"] == "header")
        newest = self.hub.find(repo, "main")
        if parent is not None and newest is not None and parent != newest[0]:
            return self.answer(412, b'{"error": "the branch has moved on"}')
        gone = [line["value"]["path"] for line in lines if line["key"] == "deletedFile"]
        commit = self.hub.add(repo, {value["path"]: base64.b64decode(value["content"]) for value in values}, gone)
        return self.json(
            {"success": True, "commitOid": commit, "commitUrl": f"{self.hub.address}/{repo}/commit/{commit}"}
        )


@contextmanager
def serve(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """Run a Hub and make huggingface_hub talk to it."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    Thread(target=server.serve_forever, daemon=True).start()
    point_at(hub, f"http://127.0.0.1:{server.server_address[1]}", monkeypatch)
    try:
        yield hub
    finally:
        close_session()
        server.shutdown()
        server.server_close()


def point_at(hub: Hub, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Use `address` as the Hub, and try a dead one again without waiting."""
    monkeypatch.setattr(_http, "time", SimpleNamespace(sleep=lambda _: None, time=time.time))
    hub.address = address
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
