"""SIGTERM, SIGHUP and ctrl-C as a request: finish the step, save, then end."""

from __future__ import annotations

import contextlib
import signal
import threading
from types import FrameType, TracebackType
from typing import Any

HANGUP: signal.Signals | None = getattr(signal, "SIGHUP", None)
"""What a terminal sends that closes; Windows has none."""
SIGNALS = (signal.SIGINT, signal.SIGTERM) if HANGUP is None else (signal.SIGINT, signal.SIGTERM, HANGUP)


class StopRequest:
    """Hears SIGINT, SIGTERM and SIGHUP while entered. A second one acts at once, as if nobody had listened, but SIGHUP.

    That may come twice for one closed terminal, from the system and from the shell; under nohup it stays ignored.
    Only a main thread can listen; in others nothing is heard.
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self._before: dict[signal.Signals, Any] = {}

    @property
    def asked(self) -> bool:
        """Whether a stop was asked for."""
        return self.signal is not None

    @property
    def hung_up(self) -> bool:
        """Whether it was because the terminal closed, so that nobody can be told any more."""
        return self.asked and self.signal is HANGUP

    def ask(self, number: int) -> None:
        """Ask for a stop, as a signal does."""
        self.signal = signal.Signals(number)

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            heard = [one for one in SIGNALS if one is not HANGUP or signal.getsignal(one) is not signal.SIG_IGN]
            self._before = {number: signal.signal(number, self._heard) for number in heard}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listen_no_more()

    def _heard(self, number: int, _frame: FrameType | None) -> None:
        if not self.asked:
            self.ask(number)
        self._listen_no_more(but=HANGUP)

    def _listen_no_more(self, *, but: signal.Signals | None = None) -> None:
        for number in [number for number in self._before if number is not but]:
            handler = self._before.pop(number)
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


def ignore_signals(_worker: int = 0) -> None:
    """For processes that make batches: the trainer alone decides when they end."""
    for number in SIGNALS:
        with contextlib.suppress(ValueError):  # not in a main thread
            signal.signal(number, signal.SIG_IGN)


def exit_for(number: signal.Signals) -> BaseException:
    """What to raise after a stop, so that the process ends with 128 + the signal's number."""
    return KeyboardInterrupt() if number is signal.SIGINT else SystemExit(128 + number)
