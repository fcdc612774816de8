"""What people type who come from other tools: taken where its meaning is plain, else answered with our own way."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from pathlib import Path

from dreamsr.errors import UsageError

HINTS = {
    "upscale": {
        "-i": "inputs need no option: dreamsr upscale INPUT -o OUTPUT",
        "--input": "inputs need no option: dreamsr upscale INPUT -o OUTPUT",
        "-n": "weights are chosen by -w NAME; see dreamsr weights list",
        "--model": "weights are chosen by -w NAME; see dreamsr weights list",
        "-m": "a file or a run's folder of weights is given by -w PATH",
        "-g": "the GPU is chosen by --device, such as cuda:1",
        "--gpu": "the GPU is chosen by --device, such as cuda:1",
        "-t": "the side of a tile is --tile PX",
        "-j": "the number of CPU threads is --threads N",
        "-f": "the format is --format NAME",
        "-x": "there is no self-ensemble; more --steps add texture, --fidelity 1 is most faithful",
        "--outscale": "the factor is -s FACTOR",
    },
    "train": {
        "--epochs": "the length of a run is --max-steps N",
        "--steps": "the length of a run is --max-steps N",
        "--rate": "the learning rate is --learning-rate",
        "--batch": "the batch is --batch-size N",
        "--model": "what to train is --preset NAME; existing weights are --weights NAME",
        "--gpus": "several GPUs: accelerate launch -m dreamsr train ...",
    },
}
HINTS["finetune"] = HINTS["train"] | {"--model": "what to start from is --weights NAME"}


def with_command(words: Sequence[str], commands: Collection[str]) -> list[str]:
    """`words` with "upscale" before them where the first names no command but a file, a folder or a pattern."""
    first = words[0] if words else ""
    is_path = first == "-" or os.path.lexists(first) or any(mark in first for mark in "./\\*")
    if first in commands or not is_path or (first.startswith("-") and first != "-"):
        return list(words)
    return ["upscale", *words]


def hint(command: str | None, option: str) -> str:
    """What to add to "no such option", "" where nothing is known."""
    if command == "dreamsr":
        return "options follow the command, as in: dreamsr upscale INPUT -o OUTPUT; see dreamsr --help"
    return HINTS.get(command or "", {}).get(option, "")


def folder_not_rate(value: Path | None) -> Path | None:
    """What `--lr` was given, where that is no number. Raises UsageError: elsewhere it is the learning rate."""
    if value is None or value.exists():
        return value
    try:
        float(str(value))
    except ValueError:
        return value
    raise UsageError(f"--lr is {value}, but it names the folder of small pictures; learning rate: --learning-rate")
