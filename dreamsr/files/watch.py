"""Waiting for the network within bounds: work in a thread, watched for signs of life.

The Hub's own retries can add up to many minutes, and a server that trickles bytes passes every timeout of a
socket. What shows no sign of life for a while is left behind and reported instead.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import TypeVar

POLL_SECONDS = 0.05

Result = TypeVar("Result")


class Silence(Exception):
    """The work showed no sign of life for as long as was allowed; `seconds` tells how long that is."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"no sign of life for {seconds:.0f} s")
        self.seconds = seconds


class GivenUp(Exception):
    """Raised inside work that nobody waits for any more."""


def watched(
    work: Callable[[], Result], *, signs: Callable[[], object], silence_seconds: float, given_up: threading.Event
) -> Result:
    """What `work` returns or raises, as long as `signs()` keeps changing while it runs.

    Raises Silence otherwise. `given_up` is set when nobody waits any more, be it for that or for Ctrl-C, so
    that work which looks at it can end.
    """
    outcome: Future[Result] = Future()

    def run() -> None:
        try:
            outcome.set_result(work())
        except BaseException as error:
            outcome.set_exception(error)

    # A daemon: the process must be able to end while a socket still blocks.
    threading.Thread(target=run, name="dreamsr-hub", daemon=True).start()
    try:
        last, since = signs(), time.monotonic()
        while not wait([outcome], timeout=POLL_SECONDS).done:
            now = signs()
            if now != last:
                last, since = now, time.monotonic()
            elif time.monotonic() - since > silence_seconds:
                raise Silence(silence_seconds)
    finally:
        given_up.set()
    return outcome.result()
