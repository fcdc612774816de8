"""A small Hub on loopback that huggingface_hub itself can talk to: repositories, commits, large files on a CDN.

It speaks as much of the protocol as downloads and uploads use: resolve with HEAD, ETag and commit, redirects to
another origin, ranges, the model API, preupload, LFS batch and commit. `fault` makes it misbehave.
"""

from __future__ import annotations

import base64
import hashlib
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

TOKEN = "hf_test"
LARGE = (".safetensors", ".png")


@dataclass
class Fault:
    """What goes wrong. `status` answers every resolve; the others concern the bytes on the CDN."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    times: int = 10**9  # how many answers have the status, or the body
    hang_on_look: bool = False
    hang_after: int | None = None  # bytes, then silence
    cut_after: int | None = None  # bytes, then the connection ends
    cuts: int = 10**9  # how many bodies are cut
    trickle_seconds: float = 0.0  # between two parts
    body: bytes | None = None  # instead of the right bytes


@dataclass
class Repo:
    """Commits, each a complete mapping of path to content."""

    private: bool = False
    gated: bool = False
    commits: list[tuple[str, dict[str, bytes]]] = field(default_factory=list)

    def at(self, revision: str) -> tuple[str, dict[str, bytes]] | None:
        if revision == "main" and self.commits:
            return self.commits[-1]
        return next((commit for commit in self.commits if commit[0] == revision), None)


class Hub:
    """The state of the server and what it was asked: `requests` holds (method, path, headers)."""

    def __init__(self) -> None:
        self.repos: dict[str, Repo] = {}
        self.stored: dict[str, bytes] = {}
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        self.fault = Fault()
        self.closing = threading.Event()
        self.url = self.cdn_url = ""

    def commit(self, repo: str, files: dict[str, bytes]) -> str:
        """Add files to a repository; returns the commit."""
        commits = self.repos.setdefault(repo, Repo()).commits
        whole = {**(commits[-1][1] if commits else {}), **files}
        oid = hashlib.sha1(repr((repo, len(commits), sorted(whole))).encode()).hexdigest()
        commits.append((oid, whole))
        self.stored.update({hashlib.sha256(content).hexdigest(): content for content in whole.values()})
        return oid

    def count(self, method: str, part: str) -> int:
        """How often something was asked for."""
        return sum(1 for asked, path, _ in self.requests if asked == method and part in path)


class Handler(BaseHTTPRequestHandler):
    """One request. Routes are tried in order; what none takes is 404."""

    protocol_version = "HTTP/1.1"
    timeout = 10  # of a silent client
    hub: Hub

    def log_message(self, format: str, *args: Any) -> None:
        """Silence."""

    def _dispatch(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append((self.command, path, {key.lower(): value for key, value in self.headers.items()}))
        length = int(self.headers.get("Content-Length") or 0)
        self.sent = self.rfile.read(length) if length else b""
        if path.startswith("/cdn/"):
            self._cdn(path.removeprefix("/cdn/"))
        elif path.startswith("/store/") and self.command == "PUT":
            self._store(path.removeprefix("/store/"))
        elif "/resolve/" in path:
            self._resolve(path)
        elif path.endswith("/info/lfs/objects/batch"):
            self._lfs_batch()
        elif path.startswith("/api/"):
            self._api(path)
        else:
            self._json(404, {"error": "no such route"})

    do_GET = do_HEAD = do_POST = do_PUT = _dispatch

    def _answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _json(self, status: int, value: Any, **headers: str) -> None:
        named = {key.replace("_", "-"): text for key, text in headers.items()}
        self._answer(status, json.dumps(value).encode(), {"Content-Type": "application/json", **named})

    def _allowed(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def _resolve(self, path: str) -> None:
        name, _, rest = path.strip("/").partition("/resolve/")
        revision, _, file = rest.partition("/")
        fault = self.hub.fault
        if fault.status and fault.times > 0:
            fault.times -= 1
            self._answer(fault.status, b"", fault.headers)
            return
        if fault.hang_on_look:
            self.hub.closing.wait(20)
            return
        repo = self.hub.repos.get(name)
        if repo is None or (repo.private and not self._allowed()):
            self._json(
                401 if not self._allowed() else 404, {"error": "Repository not found"}, X_Error_Code="RepoNotFound"
            )
        elif repo.gated and not self._allowed():
            self._json(401, {"error": "Access is restricted"}, X_Error_Code="GatedRepo")
        elif (commit := repo.at(revision)) is None:
            self._json(404, {"error": "Invalid rev id"}, X_Error_Code="RevisionNotFound")
        elif file not in commit[1]:
            self._json(404, {"error": "Entry not found"}, X_Error_Code="EntryNotFound", X_Repo_Commit=commit[0])
        else:
            self._file(file, commit[1][file], commit[0])

    def _file(self, file: str, content: bytes, commit: str) -> None:
        if file.endswith(LARGE):
            digest = hashlib.sha256(content).hexdigest()
            linked = {"X-Linked-Etag": f'"{digest}"', "X-Linked-Size": str(len(content)), "X-Repo-Commit": commit}
            self._answer(302, b"", {**linked, "Location": f"{self.hub.cdn_url}/cdn/{digest}"})
        else:
            etag = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
            self._answer(200, content, {"ETag": f'"{etag}"', "X-Repo-Commit": commit})

    def _cdn(self, digest: str) -> None:
        fault = self.hub.fault
        content = self.hub.stored.get(digest)
        if content is None:
            self._json(404, {"error": "no such object"})
            return
        if fault.body is not None and fault.times > 0:
            fault.times -= 1
            content = fault.body
        start = 0
        asked = self.headers.get("Range")
        if asked:
            start = int(asked.removeprefix("bytes=").split("-")[0])
        self.send_response(206 if asked else 200)
        if asked:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        if self.command != "HEAD":
            self._body(content[start:])

    def _body(self, content: bytes) -> None:
        fault = self.hub.fault
        if fault.cut_after is not None and fault.cuts > 0:
            fault.cuts -= 1
            self.wfile.write(content[: fault.cut_after])
            self.close_connection = True
        elif fault.hang_after is not None:
            self.wfile.write(content[: fault.hang_after])
            self.wfile.flush()
            self.hub.closing.wait(20)
            self.close_connection = True
        elif fault.trickle_seconds:
            for at in range(0, len(content), 16384):
                if self.hub.closing.wait(fault.trickle_seconds):
                    break
                self.wfile.write(content[at : at + 16384])
        else:
            self.wfile.write(content)

    def _store(self, digest: str) -> None:
        assert hashlib.sha256(self.sent).hexdigest() == digest
        self.hub.stored[digest] = self.sent
        self._json(200, {})

    def _lfs_batch(self) -> None:
        objects = []
        for item in json.loads(self.sent)["objects"]:
            upload = {"href": f"{self.hub.cdn_url}/store/{item['oid']}"}
            known = item["oid"] in self.hub.stored
            objects.append({**item, **({} if known else {"actions": {"upload": upload}})})
        self._json(200, {"transfer": "basic", "objects": objects})

    def _api(self, path: str) -> None:
        parts = path.split("/")
        if path == "/api/validate-yaml":
            self._json(200, {"errors": [], "warnings": []})
        elif path == "/api/agent-harnesses":
            self._json(200, {"standardEnvVars": [], "harnesses": {}})
        elif self.command != "GET" and not self._allowed():
            self._json(401, {"error": "Invalid username or password."})
        elif path == "/api/repos/create":
            self._create()
        elif len(parts) >= 5 and parts[2] == "models" and "/".join(parts[3:5]) in self.hub.repos:
            self._model("/".join(parts[3:5]), parts[5:])
        else:
            self._json(404, {"error": "Repository not found"}, X_Error_Code="RepoNotFound")

    def _create(self) -> None:
        asked = json.loads(self.sent)
        name = f"{asked['organization']}/{asked['name']}"
        status = 409 if name in self.hub.repos else 200
        self.hub.repos.setdefault(
            name, Repo(private=asked.get("visibility") == "private" or bool(asked.get("private")))
        )
        self._json(status, {"url": f"{self.hub.url}/{name}", "id": name, "name": name})

    def _model(self, name: str, rest: list[str]) -> None:
        repo = self.hub.repos[name]
        oid, files = repo.at(rest[1] if len(rest) > 1 else "main") or ("0" * 40, {})
        if rest[:1] == ["preupload"]:
            asked = json.loads(self.sent)["files"]
            modes = [(one["path"], "lfs" if one["path"].endswith(LARGE) else "regular") for one in asked]
            answer = [{"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": None} for path, mode in modes]
            self._json(200, {"files": answer})
        elif rest[:1] == ["commit"]:
            self._commit(name)
        elif rest[:1] == ["tree"]:
            tree = [{"type": "file", "path": key, "size": len(value), "oid": "0" * 40} for key, value in files.items()]
            self._json(200, tree)
        else:
            siblings = [{"rfilename": key} for key in files]
            self._json(200, {"id": name, "sha": oid, "private": repo.private, "siblings": siblings, "tags": []})

    def _commit(self, name: str) -> None:
        files = {}
        for line in self.sent.splitlines():
            item = json.loads(line)
            value = item["value"]
            if item["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif item["key"] == "lfsFile":
                files[value["path"]] = self.hub.stored[value["oid"]]
        oid = self.hub.commit(name, files)
        self._json(200, {"commitUrl": f"{self.hub.url}/{name}/commit/{oid}", "commitOid": oid})


class Server(ThreadingHTTPServer):
    """Threads that nobody waits for, and no stack traces about clients that went away."""

    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Silence: clients are killed on purpose."""


@contextmanager
def running_hub() -> Iterator[Hub]:
    """A Hub on two free ports of loopback, the second being its CDN's; gone when the block ends."""
    hub = Hub()
    handler = type("BoundHandler", (Handler,), {"hub": hub})
    servers = [Server(("127.0.0.1", 0), handler) for _ in range(2)]
    threads = [threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True) for server in servers]
    hub.url, hub.cdn_url = (f"http://127.0.0.1:{server.server_port}" for server in servers)
    for thread in threads:
        thread.start()
    try:
        yield hub
    finally:
        hub.closing.set()
        for server in servers:
            server.shutdown()
            server.server_close()
        for thread in threads:
            thread.join(5)


def wait_until(condition: Any, *, seconds: float = 20.0) -> None:
    """Return when the condition holds; fail the test after `seconds`."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)
