"""Attacks: a hostile mirror, hostile JSON and reports, hostile visitors; nothing but the cache may change.

    python -m tests.attack                # every attack

Each case runs in a fresh folder beside a victim's files. A snapshot of everything outside the cache is taken before
and after; every case must end in one typed line. 1 is the exit code if a promise was broken.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from unittest import mock
from urllib.parse import quote, urlsplit

from dreamsr.bench.check import check
from dreamsr.errors import DreamsrError
from dreamsr.serving.app import Site
from dreamsr.serving.server import running
from dreamsr.training.results.checkpoints import check_data

ROOT = Path(__file__).parents[1]
SIZE = 4096
COMMIT = "ab" * 20
HTML = b"<html>please log in</html>".ljust(SIZE)
CLIMB = "../../../../victim/.bashrc"
SECRET = "hf_secret"
ENDLESS_BYTES = 50_000_000

Headers = dict[str, str]
HONEST: Headers = {"X-Linked-Size": str(SIZE), "X-Linked-Etag": f'"{"cd" * 32}"', "X-Repo-Commit": COMMIT}

MIRRORS: dict[str, tuple[int, Headers, bytes | None]] = {
    "climbing ETag": (200, {**HONEST, "X-Linked-Etag": f'"{CLIMB}"', "ETag": CLIMB}, HTML),
    "absolute ETag": (200, {**HONEST, "X-Linked-Etag": "/etc/passwd"}, HTML),
    "climbing commit": (200, {**HONEST, "X-Repo-Commit": CLIMB}, HTML),
    "no commit": (200, {"Content-Type": "text/html"}, HTML),
    "HTML": (200, {**HONEST, "X-Linked-Etag": '"1"'}, HTML),
    "HTML of the right sha256": (200, {**HONEST, "X-Linked-Etag": hashlib.sha256(HTML).hexdigest()}, HTML),
    "wrong sha256": (200, HONEST, HTML),
    "short": (200, HONEST, HTML[:100]),
    "endless": (200, HONEST, None),
    "negative size": (200, {**HONEST, "X-Linked-Size": "-1"}, HTML),
    "odd size": (200, {**HONEST, "X-Linked-Size": "1e3"}, HTML),
    "huge size": (200, {**HONEST, "X-Linked-Size": "9" * 15}, HTML),
    "file:": (302, {**HONEST, "Location": "file:///etc/passwd"}, HTML),
    "http elsewhere": (302, {**HONEST, "Location": "http://192.0.2.1/x"}, HTML),
    "redirect without host": (302, {**HONEST, "Location": "http:///x"}, HTML),
    "redirect in circles": (302, {"Location": "/user/tiny/resolve/main/model.safetensors"}, HTML),
    "climbing file name": (200, {**HONEST, "Content-Disposition": f"attachment; filename={CLIMB}"}, HTML),
}

DEEP = "[" * 100_000
ROW = {"dataset": "d", "method": "m", "steps": 1, "stochasticity": 0.0, "seed": 0, "psnr_y": 30.0}
WHOLE: dict[str, Any] = {
    "format": "dreamsr-bench-1", "request": {"data": ["none"]}, "datasets": [], "weights": [], "rows": [ROW],
}  # fmt: skip
REPORTS: dict[str, str] = {
    "deep": DEEP,
    "deep inside": json.dumps(WHOLE).replace('"none"', DEEP),
    "rows no list": json.dumps({**WHOLE, "rows": 3}),
    "row of lists": json.dumps({**WHOLE, "rows": [{**ROW, "dataset": ["x"]}]}),
    "figure a list": json.dumps({**WHOLE, "rows": [{**ROW, "psnr_y": [1]}]}),
    "no weights": json.dumps({key: value for key, value in WHOLE.items() if key != "weights"}),
    "scale a text": json.dumps({**WHOLE, "request": {"data": ["none"], "scale": "4"}}),
    "data a number": json.dumps({**WHOLE, "request": {"data": 7}}),
    "threads a table": json.dumps({**WHOLE, "request": {"data": ["none"], "threads": {}}}),
    "commands": json.dumps(
        {**WHOLE, "request": {"data": ["none"], "commands": [["x", "touch {output} victim/owned"]]}}
    ),
}

CHOICES = quote(json.dumps({"weights": "photo-x4"}))
ADD = f"/TOKEN/pictures?choices={CHOICES}&name="
VISITS: dict[str, tuple[str, str, Headers, bytes | list[bytes]]] = {
    "foreign Host": ("GET", "/TOKEN/pictures", {"Host": "evil.example"}, b""),
    "Host with our name in it": ("POST", f"{ADD}a.png", {"Host": "127.0.0.1.evil.example"}, HTML),
    "page of another server": ("POST", f"{ADD}a.png", {"Origin": "https://evil.example"}, HTML),
    "no token": ("GET", "/pictures", {}, b""),
    "half a token": ("GET", "/TOKE/pictures", {}, b""),
    "upload without a token": ("POST", f"/pictures?choices={CHOICES}&name=a.png", {}, HTML),
    "climbing path": ("GET", f"/TOKEN/{CLIMB}", {}, b""),
    "encoded climbing path": ("GET", f"/TOKEN/{quote(CLIMB, safe='')}", {}, b""),
    "climbing id": ("GET", f"/TOKEN/pictures/{quote(CLIMB, safe='')}/result", {}, b""),
    "climbing id to remove": ("DELETE", f"/TOKEN/pictures/{quote('../../victim', safe='')}", {}, b""),
    "climbing name": ("POST", f"{ADD}{quote(CLIMB)}", {}, HTML),
    "absolute name": ("POST", f"{ADD}{quote('/etc/cron.d/x')}", {}, HTML),
    "announced too large": ("POST", f"{ADD}a.png", {"Content-Length": "9" * 15}, b""),
    "too large unannounced": ("POST", f"{ADD}a.png", {}, [bytes(SIZE)] * 3),
    "weights elsewhere": ("POST", f"/TOKEN/pictures?choices={CHOICES.replace('photo-x4', '/etc/x')}&name=a", {}, HTML),
    "deep choices": ("GET", f"/TOKEN/check?choices={DEEP[:9000]}", {}, b""),
}

CLIENT = """
import sys
from dreamsr.errors import DreamsrError
from dreamsr.weights.resolve import resolve_weights
try:
    print("fetched", resolve_weights("user/tiny"))
except DreamsrError as error:
    print(type(error).__name__, error)
"""


@dataclass
class Findings:
    """How many cases were run, what each said, and the broken promises."""

    said: dict[str, str] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)


def snapshot(folder: Path, *, but: Path) -> dict[str, str]:
    """Everything under `folder` with its content, except what lies in `but`."""
    return {
        str(path): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "folder"
        for path in sorted(folder.rglob("*"))
        if path != but and but not in path.parents
    }


@contextlib.contextmanager
def mirror(status: int, headers: Headers, body: bytes | None) -> Iterator[tuple[str, list[Headers]]]:
    """A server on loopback that answers everything alike; None is a body without end. (address, what it was sent)"""
    seen: list[Headers] = []

    class Hostile(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:
            """Silence."""

        def do_GET(self) -> None:
            seen.append({key.lower(): value for key, value in self.headers.items()})
            self.send_response(status)
            for key, value in headers.items():
                self.send_header(key, value)
            if body is not None:
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command == "GET":
                with contextlib.suppress(OSError):
                    for _ in range(1 if body is not None else ENDLESS_BYTES // SIZE):
                        self.wfile.write(body if body is not None else bytes(SIZE))

        do_HEAD = do_GET

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hostile)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", seen
    finally:
        server.shutdown()
        server.server_close()


def judged(findings: Findings, name: str, folder: Path, case: Callable[[Path], str]) -> None:
    """Run one case beside a victim's files, and note what must not happen."""
    (folder / "victim").mkdir(parents=True)
    (folder / "victim" / ".bashrc").write_text("mine")
    cache = folder / "home"
    before = snapshot(folder, but=cache)
    try:
        said = case(folder)
    except BaseException as error:
        findings.broken.append(f"{name}: {type(error).__name__}: {error}")
        return
    findings.said[name] = said
    if not said.isprintable():
        findings.broken.append(f"{name}: more than one line: {said!r}")
    if snapshot(folder, but=cache) != before:
        findings.broken.append(f"{name}: something outside the cache was written or changed")
    if kept := [path for path in cache.rglob("*") if path.is_file() and path.stat().st_size > 64]:
        findings.broken.append(f"{name}: kept {kept}")


def mirror_case(folder: Path, name: str) -> str:
    """One fetch from a hostile mirror in a process of its own."""
    status, headers, body = MIRRORS[name]
    with mirror(status, headers, body) as (url, seen):
        kept = {
            key: value for key, value in os.environ.items() if not key.startswith("HF_") and "proxy" not in key.lower()
        }
        own = {"HF_ENDPOINT": url, "HF_HOME": str(folder / "home"), "HF_TOKEN": SECRET, "PYTHONPATH": str(ROOT)}
        hasty = {"HF_HUB_ETAG_TIMEOUT": "5", "HF_HUB_DOWNLOAD_TIMEOUT": "5", "HF_HUB_DISABLE_TELEMETRY": "1"}
        done = subprocess.run(
            [sys.executable, "-c", CLIENT], env={**kept, **own, **hasty}, cwd=folder, capture_output=True, text=True,
            timeout=120, check=False,
        )  # fmt: skip
    if done.returncode or done.stderr:
        raise AssertionError(done.stderr.strip().splitlines()[-1:] or done.returncode)
    if not done.stdout.startswith("DownloadError "):
        raise AssertionError(done.stdout)
    if any("authorization" in sent for sent in seen):
        raise AssertionError("the token was sent")
    return done.stdout.rstrip("\n")


def report_case(folder: Path, name: str) -> str:
    """`bench --check` on a hostile report."""
    path = folder / "home" / "r.json"
    path.parent.mkdir()
    path.write_text(REPORTS[name])
    try:
        check(path)
    except DreamsrError as error:
        path.unlink()
        return f"{type(error).__name__} {error}"
    raise AssertionError("it was taken")


def run_case(folder: Path, content: str) -> str:
    """A hostile config.json in a run that is to be resumed."""
    path = folder / "home" / "config.json"
    path.parent.mkdir()
    path.write_text(content)
    try:
        check_data(path.parent, "x")
    except DreamsrError as error:
        path.unlink()
        return f"{type(error).__name__} {error}"
    raise AssertionError("it was taken")


def visit_case(folder: Path, name: str) -> str:
    """One request to `dreamsr serve` by someone who should not make it."""
    method, path, headers, body = VISITS[name]
    (folder / "home").mkdir()
    small = mock.patch.object(Site, "limit_bytes", 2 * SIZE)
    with mock.patch.object(tempfile, "tempdir", str(folder / "home")), small, visited() as (port, token):
        connection = HTTPConnection("127.0.0.1", port, timeout=60)
        content = iter(body) if isinstance(body, list) else body or None
        connection.request(method, path.replace("TOKEN", token), body=content, headers=headers)
        answer = connection.getresponse()
        said = answer.read().decode().strip()
        connection.close()
    if answer.status < 400 and '"state":"failed"' not in said:
        raise AssertionError(f"it was taken: {answer.status} {said}")
    if token in said:
        raise AssertionError("the token was told")
    return f"{answer.status} {said}"


@contextlib.contextmanager
def visited() -> Iterator[tuple[int, str]]:
    """`dreamsr serve` without anyone who enlarges: (port, token)."""
    with running(0, "photo-x4", max_pixels=1000, make_enlarger=mock.Mock()) as server:
        address = urlsplit(server.address)
        yield address.port or 0, address.path.strip("/")


def attack(folder: Path) -> Findings:
    """Every attack, each in a folder of its own below `folder`."""
    findings = Findings()
    for number, name in enumerate(MIRRORS):
        judged(findings, f"mirror: {name}", folder / f"mirror-{number}", lambda at, name=name: mirror_case(at, name))  # type: ignore[misc]
    for number, name in enumerate(REPORTS):
        judged(findings, f"report: {name}", folder / f"report-{number}", lambda at, name=name: report_case(at, name))  # type: ignore[misc]
    for number, text in enumerate((DEEP, '{"train": ' * 50_000, "3", "")):
        judged(findings, f"config {number}", folder / f"config-{number}", lambda at, text=text: run_case(at, text))  # type: ignore[misc]
    for number, name in enumerate(VISITS):
        judged(findings, f"visit: {name}", folder / f"visit-{number}", lambda at, name=name: visit_case(at, name))  # type: ignore[misc]
    return findings


def main() -> int:
    """Run all attacks; 1 if a promise was broken."""
    with tempfile.TemporaryDirectory() as folder:
        findings = attack(Path(folder))
    lines = [f"{name}: {said}" for name, said in findings.said.items()]
    lines += [*findings.broken, f"{len(findings.said)} attacks answered, {len(findings.broken)} broken promises"]
    sys.stdout.write("\n".join(lines) + "\n")
    return 1 if findings.broken else 0


if __name__ == "__main__":
    sys.exit(main())
