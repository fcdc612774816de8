"""The server and the work it is given: requests are answered in a thread of their own, pictures enlarged in this one.

So ctrl-C ends the work as it does in `dreamsr upscale`, in the middle of a tile.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import uvicorn

from dreamsr.disk import private_folder
from dreamsr.errors import UsageError
from dreamsr.processes import is_alone
from dreamsr.serving.app import Site
from dreamsr.serving.choices import Choices, offers
from dreamsr.serving.guard import Guard
from dreamsr.serving.queue import MakeEnlarger, PictureQueue

HOST = "127.0.0.1"
FOLDER_KIND = "dreamsr-serve"
ENDING_SECONDS = 5


@dataclass(frozen=True)
class Running:
    """A server that answers at `address`, and once at `door`, too, until `answers` says no.

    `queue.work` is for the thread that has started it.
    """

    queue: PictureQueue
    address: str
    door: str
    answers: Callable[[], bool]


@contextmanager
def running(port: int, weights: str, *, max_pixels: int, make_enlarger: MakeEnlarger) -> Iterator[Running]:
    """A server while inside. `weights` are those that the page has chosen at first. Raises UsageError, OutputError."""
    if not is_alone():
        raise UsageError("one process serves the page; start it without torchrun or accelerate")
    Choices(weights).request(Path(), max_pixels)  # what no picture could be asked with is told now
    with private_folder(FOLDER_KIND) as folder, _listening(port) as listener:
        queue = PictureQueue(folder, max_pixels=max_pixels, make_enlarger=make_enlarger)
        guard = Guard(Site(queue, offers(weights)).app())
        server = uvicorn.Server(_config(guard))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        root = f"http://{HOST}:{listener.getsockname()[1]}"
        try:
            yield Running(queue, f"{root}/{guard.token}/", f"{root}/{guard.door}", thread.is_alive)
        finally:
            server.should_exit = True
            thread.join(ENDING_SECONDS)


def _config(app: Guard) -> uvicorn.Config:
    """HTTP and nothing else, without a word on the terminal: what goes wrong is answered in one line."""
    return uvicorn.Config(
        app,
        interface="asgi3",
        loop="asyncio",
        http="h11",
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="critical",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=1,
    )


@contextmanager
def _listening(port: int) -> Iterator[socket.socket]:
    """A socket that only this machine reaches. Raises UsageError for a port that cannot be had."""
    try:
        listener = socket.create_server((HOST, port))
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"`port` is {port}, which cannot be had ({reason}); choose another, or 0 for any") from None
    with listener:
        yield listener
