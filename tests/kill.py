"""kill -9 at random moments of a batch: nothing truncated, nothing lost, nothing left behind.

    python -m tests.kill --times 100 --seed 0
    python -m tests.kill --times 100 --processes 2

Each time a batch is started in fresh processes that share it, some of them are killed at a random moment, what is there
is checked, the others are awaited, who must complete it, and it is run again to its end.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from dreamsr import cli
from dreamsr.core.model import build_net
from dreamsr.pictures.read import is_complete_picture
from dreamsr.weights.file import save_weights

COUNT = 12
FORMATS = ("png", "jpg", "tif", "webp")


def furnish(folder: Path) -> tuple[Path, Path]:
    """Pictures and tiny weights; their folder and file."""
    from conftest import TINY

    rng = np.random.default_rng(0)
    (folder / "in").mkdir()
    for number in range(COUNT):
        pixels = rng.integers(0, 256, (60, 90, 3), np.uint8)
        Image.fromarray(pixels).save(folder / "in" / f"{number}.{FORMATS[number % len(FORMATS)]}")
    torch.manual_seed(0)
    weights = folder / "tiny.safetensors"
    save_weights(weights, build_net(TINY).state_dict(), TINY, facts={"default_steps": 1}, dtype=torch.float32)
    return folder / "in", weights


def start(arguments: list[str], said: Path) -> int:
    """The process id of a copy of this process that runs one command line. Forking saves loading torch anew."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.dup2(os.open(said, os.O_WRONLY | os.O_CREAT), 1)
            code = cli.main(arguments)
        finally:
            os._exit(code)
    return child


def end_of(child: int) -> int:
    """Its exit code, once it has ended."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def done_in(*said: Path) -> Counter[str]:
    """How often each result was made, as far as the processes came to tell."""
    told = [json.loads(line) for path in said for line in path.read_text().splitlines() if line.endswith("}")]
    return Counter(entry["output"] for entry in told if entry["status"] == "done")


def contents(folder: Path) -> dict[str, bytes]:
    """Every file in a folder, hidden ones too; others may be at work there."""
    found = {}
    for path in folder.iterdir() if folder.is_dir() else ():
        with contextlib.suppress(FileNotFoundError):
            found[path.name] = path.read_bytes()
    return found


def wait_for(out: Path, results: int) -> None:
    """Until that many results are there: a moment by the clock would depend on what else the machine does."""
    deadline = time.monotonic() + 60
    while len(list(out.glob("[!.]*"))) < results and time.monotonic() < deadline:
        time.sleep(0.0005)


def check(out: Path, inputs: dict[str, bytes], source: Path, whole: dict[str, bytes]) -> tuple[int, int]:
    """Assert what must hold after a kill; how many results are finished, and how many temporary files are left."""
    found = contents(out)
    finished = {name: data for name, data in found.items() if not name.startswith(".")}
    assert contents(source) == inputs, "an input was altered"
    for name, data in finished.items():
        assert is_complete_picture(out / name), f"{name} is truncated"
        assert data == whole[name], f"{name} differs"
    return len(finished), len(found) - len(finished)


def kill_some(arguments: list[str], out: Path, processes: int, rng: np.random.Generator, seconds: float) -> list[int]:
    """Start a batch and kill at least one of its processes within so many seconds of a random result; the others."""
    children = [start(arguments, out.with_suffix(f".{number}")) for number in range(processes)]
    wait_for(out, int(rng.integers(0, COUNT)))
    time.sleep(float(rng.uniform(0, seconds)))
    killed = rng.permutation(children)[: rng.integers(1, processes + 1)].tolist()
    for child in killed:
        os.kill(child, signal.SIGKILL)
    for child in killed:
        os.waitpid(child, 0)
    return [child for child in children if child not in killed]


def main() -> int:
    """Kill as often as asked; raises AssertionError where a promise is broken."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=100, help="how often to kill")
    parser.add_argument("--processes", type=int, default=1, help="how many share each batch")
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    rng = np.random.default_rng(chosen.seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source, weights = furnish(folder)
        inputs = contents(source)
        common = ["upscale", str(source), "-q", "--json", "-w", str(weights), "--device", "cpu", "--if-exists", "skip"]
        began = time.monotonic()
        assert end_of(start([*common, "-o", str(folder / "whole")], folder / "said")) == 0
        took, whole = time.monotonic() - began, contents(folder / "whole")
        assert len(whole) == COUNT
        counts, twice, survived = [], 0, 0
        for number in range(chosen.times):
            out = folder / f"out{number}"
            arguments = [*common, "-o", str(out)]
            alive = kill_some(arguments, out, chosen.processes, rng, took / COUNT)
            counts.append(check(out, inputs, source, whole))
            assert [end_of(child) for child in alive] == [0] * len(alive)
            if alive:
                survived += 1
                assert check(out, inputs, source, whole)[0] == COUNT, "who was left did not complete the batch"
            assert end_of(start(arguments, out.with_suffix(".again"))) == 0
            assert check(out, inputs, source, whole) == (COUNT, 0), "the rerun did not complete, or left files"
            twice += sum(times - 1 for times in done_in(*folder.glob(f"out{number}.*")).values())
    finished = [count for count, _ in counts]
    shared = f"; {survived} times others completed them, and {twice} results were made twice" if survived else ""
    sys.stdout.write(
        f"killed {chosen.times} times in batches of {COUNT}, after {min(finished)} to {max(finished)} results "
        f"(mean {sum(finished) / len(finished):.1f}), {sum(left for _, left in counts)} hidden files "
        f"to clear{shared}; nothing truncated, inputs unaltered, every rerun completed with equal bytes\n"
    )
    return 0


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    sys.exit(main())
