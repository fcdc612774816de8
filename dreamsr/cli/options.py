"""What several commands ask of their options."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from dreamsr.errors import UsageError

MACHINE = "Machine"
PRECISIONS: tuple[Literal["auto", "bf16", "fp16", "fp32"], ...] = ("auto", "bf16", "fp16", "fp32")

Threads = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        min=1,
        max=1024,
        help="CPU threads. Default: what OMP_NUM_THREADS says, else one for each core.",
        show_default=False,
        rich_help_panel=MACHINE,
    ),
]


def use_threads(count: int | None) -> None:
    """Compute with `count` threads from now on; None leaves the choice to torch."""
    if count is not None:
        import torch

        torch.set_num_threads(count)


def checked_precision(name: str) -> Literal["auto", "bf16", "fp16", "fp32"]:
    """`name`, where it is a precision. Raises UsageError."""
    for choice in PRECISIONS:
        if name == choice:
            return choice
    raise UsageError(f"--precision is {name!r}, but it must be auto, bf16, fp16 or fp32")
