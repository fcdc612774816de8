"""Rows go into a file beside the work on the next ones."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor

from dreamsr.pictures.picture import Picture
from dreamsr.pictures.write import PictureEncoder

WAITING = 2
"""So many strips may wait for the encoder."""


class RowsBeside:
    """An encoder in a thread of its own: compression leaves the interpreter free, and the net a core half the time."""

    def __init__(self, encoder: PictureEncoder) -> None:
        self._encoder = encoder
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="encode")
        self._waiting: deque[Future[None]] = deque()

    def add(self, rows: Picture) -> None:
        """The next rows downward; waits where the encoder is behind. Raises OutputError, for these rows or earlier."""
        self._waiting.append(self._thread.submit(self._encoder.add, rows))
        while len(self._waiting) > WAITING:
            self._waiting.popleft().result()

    def finish(self) -> bytes:
        """The file, once all rows have come. Raises OutputError."""
        with self._thread:
            while self._waiting:
                self._waiting.popleft().result()
            return self._encoder.finish()
