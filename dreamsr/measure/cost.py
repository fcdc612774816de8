"""What a computation costs: seconds and peak memory, of this process and of commands it starts."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Timer

import torch

from dreamsr.errors import DataError

TAIL_CHARACTERS = 300


@dataclass
class Cost:
    """`seconds` by the wall clock; `peak_memory_mb` of the whole process, or of the GPU; None where unknown.

    `cpu_seconds` are those of all its threads together, which other work on the machine hardly changes.
    """

    seconds: float = 0.0
    peak_memory_mb: float | None = None
    cpu_seconds: float | None = None


@contextmanager
def measured(device: torch.device) -> Iterator[Cost]:
    """Seconds and peak memory of the block, known after it."""
    cost = Cost()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
    else:
        _reset_peak()
    started, cpu_started = time.perf_counter(), time.process_time()
    yield cost
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    cost.seconds, cost.cpu_seconds = time.perf_counter() - started, time.process_time() - cpu_started
    cost.peak_memory_mb = torch.cuda.max_memory_allocated(device) / 1e6 if device.type == "cuda" else peak_mb()


def _reset_peak() -> None:
    """Linux can forget a process's peak; elsewhere the peak is that of the whole run so far."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_mb() -> float | None:
    """The most memory that this process has held, in MB; None where the system cannot tell."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024 / 1e6
    try:
        import resource
    except ImportError:  # Windows
        return None
    return _to_mb(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


def _to_mb(maxrss: int) -> float:
    return maxrss / 1e6 if sys.platform == "darwin" else maxrss * 1024 / 1e6


# A child inherits its parent's peak when it is started, so a small process in between does the measuring. It also
# ends the program if the benchmark itself is killed, for the program is in a session of its own.
LAUNCHER = """
import json, os, signal, subprocess, sys, threading, time
def watch(parent):
    while os.getppid() == parent:
        time.sleep(0.5)
    os.killpg(0, signal.SIGKILL)
if hasattr(os, "killpg"):
    threading.Thread(target=watch, args=(os.getppid(),), daemon=True).start()
started = time.perf_counter()
code = subprocess.call(sys.argv[2:], stdin=subprocess.DEVNULL)
seconds = time.perf_counter() - started
try:
    import resource
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    peak, cpu = usage.ru_maxrss, usage.ru_utime + usage.ru_stime
except ImportError:
    peak = cpu = None
with open(sys.argv[1], "w") as file:
    json.dump({"code": code, "seconds": seconds, "peak": peak, "cpu": cpu}, file)
"""


def run_command(words: Sequence[str], *, timeout_s: float, environment: Mapping[str, str] | None = None) -> Cost:
    """Run a program to its end, in `environment` or in ours, and say what it cost, its start included.

    Raises DataError where it cannot be started, fails or takes longer than `timeout_s`, with the end of its output.
    """
    with tempfile.TemporaryDirectory(prefix="dreamsr-bench-") as folder:
        note, log = Path(folder, "cost.json"), Path(folder, "log.txt")
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", LAUNCHER, str(note), *words],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env=environment,
            )
            late = _wait(process, timeout_s)
        tail = " ".join(log.read_text(errors="replace").split())[-TAIL_CHARACTERS:]
        if late:
            raise DataError(f"{words[0]} took longer than {timeout_s:g} s and was ended; raise `timeout_s`")
        if not note.exists():
            raise DataError(f"{words[0]} could not be started: {tail}")
        told = json.loads(note.read_text())
    if told["code"] != 0:
        raise DataError(f"{words[0]} ended with exit code {told['code']}: {tail or 'it said nothing'}")
    return Cost(told["seconds"], None if told["peak"] is None else _to_mb(told["peak"]), told["cpu"])


def _wait(process: subprocess.Popen[bytes], timeout_s: float) -> bool:
    """Wait for the end; whether the time ran out. On any exception the program and its children are ended."""
    late: list[bool] = []

    def end() -> None:
        late.append(True)
        _end_group(process)

    timer = Timer(timeout_s, end)
    timer.start()
    try:
        process.wait()
    except BaseException:
        _end_group(process)
        process.wait()
        raise
    finally:
        timer.cancel()
    return bool(late)


def _end_group(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(OSError):
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
