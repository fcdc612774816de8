"""SIGTERM and ctrl-C as a request: finish the step, save, then end."""

from __future__ import annotations

import contextlib
import signal
import threading
from types import FrameType, TracebackType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopRequest:
    """Hears SIGINT and SIGTERM while entered. A second one acts at once, as if nobody had listened.

    Only a main thread can listen; in others nothing is heard.
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self._before: dict[int, Any] = {}

    @property
    def asked(self) -> bool:
        """Whether a stop was asked for."""
        return self.signal is not None

    def ask(self, number: int) -> None:
        """Ask for a stop, as a signal does."""
        self.signal = signal.Signals(number)

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._heard) for number in SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listen_no_more()

    def _heard(self, number: int, _frame: FrameType | None) -> None:
        self.ask(number)
        self._listen_no_more()

    def _listen_no_more(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self._before = {}


def ignore_signals(_worker: int = 0) -> None:
    """For processes that make batches: the trainer alone decides when they end."""
    for number in SIGNALS:
        with contextlib.suppress(ValueError):  # not in a main thread
            signal.signal(number, signal.SIG_IGN)


def exit_for(number: signal.Signals) -> BaseException:
    """What to raise after a stop, so that the process ends with 128 + the signal's number."""
    return KeyboardInterrupt() if number is signal.SIGINT else SystemExit(128 + number)
