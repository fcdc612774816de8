"""kill -9 at random moments of a batch: nothing truncated, nothing lost, nothing left behind.

    python -m tests.kill --times 100 --seed 0

Each time a batch is started in a fresh process, killed at a random moment, checked, and run again to its end.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
import time
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


def start(arguments: list[str]) -> int:
    """The process id of a copy of this process that runs one command line. Forking saves loading torch anew."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            code = cli.main(arguments)
        finally:
            os._exit(code)
    return child


def contents(folder: Path) -> dict[str, bytes]:
    """Every file in a folder, hidden ones too."""
    return {path.name: path.read_bytes() for path in folder.iterdir()} if folder.is_dir() else {}


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


def main() -> int:
    """Kill as often as asked; raises AssertionError where a promise is broken."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=100, help="how often to kill")
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    rng = np.random.default_rng(chosen.seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source, weights = furnish(folder)
        inputs = contents(source)
        common = ["upscale", str(source), "-q", "-w", str(weights), "--device", "cpu", "--if-exists", "skip"]
        began = time.monotonic()
        assert os.waitstatus_to_exitcode(os.waitpid(start([*common, "-o", str(folder / "whole")]), 0)[1]) == 0
        took, whole = time.monotonic() - began, contents(folder / "whole")
        assert len(whole) == COUNT
        counts = []
        for number in range(chosen.times):
            out = folder / f"out{number}"
            child = start([*common, "-o", str(out)])
            wait_for(out, int(rng.integers(0, COUNT)))
            time.sleep(float(rng.uniform(0, took / COUNT)))
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            counts.append(check(out, inputs, source, whole))
            assert os.waitstatus_to_exitcode(os.waitpid(start([*common, "-o", str(out)]), 0)[1]) == 0
            assert check(out, inputs, source, whole) == (COUNT, 0), "the rerun did not complete, or left files"
    finished = [count for count, _ in counts]
    sys.stdout.write(
        f"killed {chosen.times} times in batches of {COUNT}, after {min(finished)} to {max(finished)} results "
        f"(mean {sum(finished) / len(finished):.1f}), {sum(left for _, left in counts)} times with a temporary file "
        "to clear; nothing truncated, inputs unaltered, every rerun completed with equal bytes\n"
    )
    return 0


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    sys.exit(main())
