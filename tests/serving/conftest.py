"""A running server with tiny weights, and someone who asks it things."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import pytest

from dreamsr.pictures.picture import Picture
from dreamsr.pictures.read import DEFAULT_MAX_PIXELS
from dreamsr.serving.server import running
from dreamsr.upscaling.settings import OnChoice, OnProgress, Progress, Settings
from dreamsr.upscaling.upscaler import Upscaler

Answer = tuple[int, Any]


class Visitor:
    """Someone who knows the address."""

    def __init__(self, address: str, weights: str, folder: Path, door: str = "") -> None:
        self.address, self.weights, self.folder, self.door = address, weights, folder, door
        self.port = urlsplit(address).port or 0
        self.token = urlsplit(address).path.strip("/")

    def raw(self, method: str, path: str, *, body: Any = None, **headers: str) -> tuple[HTTPResponse, bytes]:
        """One request to an absolute path; the answer and its body."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, body=body, headers=named)
            answer = connection.getresponse()
            return answer, answer.read()
        finally:
            connection.close()

    def ask(self, method: str, path: str, *, body: Any = None, **headers: str) -> Answer:
        """One request behind the token: (status, JSON)."""
        answer, content = self.raw(method, f"/{self.token}/{path}", body=body, **headers)
        return answer.status, json.loads(content)

    def query(self, name: str, **choices: Any) -> str:
        """What the page adds to an address: the name and what was chosen."""
        values = json.dumps({"weights": self.weights, **choices})
        return f"choices={quote(values)}&name={quote(name)}"

    def add(self, name: str, content: bytes, **choices: Any) -> Answer:
        """Add a picture."""
        return self.ask("POST", f"pictures?{self.query(name, **choices)}", body=content)

    def list(self) -> list[dict[str, Any]]:
        """All pictures."""
        found: list[dict[str, Any]] = self.ask("GET", "pictures")[1]
        return found

    def wait(self, id: str, *states: str) -> dict[str, Any]:
        """The picture, when it has come to one of `states`."""
        deadline = time.monotonic() + 60
        while True:
            (entry,) = [one for one in self.list() if one["id"] == id]
            if entry["state"] in states:
                return entry
            assert time.monotonic() < deadline, entry
            time.sleep(0.02)

    def download(self, id: str) -> tuple[HTTPResponse, bytes]:
        """The result of a picture."""
        return self.raw("GET", f"/{self.token}/pictures/{id}/result")


class Patient:
    """An enlarger that works until it is let go, telling of its progress all the time."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.names: list[tuple[int, int]] = []

    def enlarge_strips(
        self,
        picture: Picture,
        height: int,
        width: int,
        _: Settings,
        *,
        on_progress: OnProgress | None = None,
        on_choice: OnChoice | None = None,
    ) -> Iterator[Picture]:
        """The same pixels, repeated."""
        if on_choice is not None:
            on_choice("patient")
        self.names.append((picture.width, picture.height))
        while not self.go.wait(0.01):
            if on_progress is not None:
                on_progress(Progress(1, 4))
        tall, wide = height // picture.height, width // picture.width
        yield Picture(picture.pixels.repeat(tall, 0).repeat(wide, 1), None, picture.metadata, picture.format)


Serve = Callable[..., AbstractContextManager[Visitor]]


@contextmanager
def served(weights: str, enlarger: Any, max_pixels: int = DEFAULT_MAX_PIXELS, **more: Any) -> Iterator[Visitor]:
    """A server whose work is done by another thread of the tests. `enlarger`: what weights become, or raises."""
    make = enlarger if callable(enlarger) and not hasattr(enlarger, "enlarge_strips") else lambda *_: enlarger
    with running(0, weights, max_pixels=max_pixels, make_enlarger=make, **more) as server:
        ended = threading.Event()
        worker = threading.Thread(target=server.queue.work, args=(lambda: server.answers() and not ended.is_set(),))
        worker.start()
        try:
            yield Visitor(server.address, weights, server.queue.folder, server.door)
        finally:
            ended.set()
            for entry in server.queue.entries():
                server.queue.cancel(entry.id)
            worker.join(60)


@pytest.fixture(scope="session")
def serve(tiny_weights: Path, tiny_upscaler: Upscaler) -> Serve:
    """`served` with the tiny weights, unless another enlarger is given."""
    return lambda enlarger=tiny_upscaler, **more: served(str(tiny_weights), enlarger, **more)


@pytest.fixture(scope="module")
def open_server(serve: Serve) -> Iterator[Visitor]:
    """A server with the tiny weights."""
    with serve() as here:
        yield here


@pytest.fixture
def visitor(open_server: Visitor) -> Iterator[Visitor]:
    """Someone who knows the address of that server, whose list is empty."""
    yield open_server
    for entry in open_server.list():
        open_server.ask("POST", f"pictures/{entry['id']}/cancel")
        open_server.wait(entry["id"], "done", "failed", "cancelled")
        open_server.ask("DELETE", f"pictures/{entry['id']}")


@pytest.fixture
def patient() -> Patient:
    """An enlarger that waits."""
    return Patient()
