"""What several commands ask of their options."""

from __future__ import annotations

from typing import Literal

from dreamsr.errors import UsageError

PRECISIONS: tuple[Literal["auto", "bf16", "fp32"], ...] = ("auto", "bf16", "fp32")


def checked_precision(name: str) -> Literal["auto", "bf16", "fp32"]:
    """`name`, where it is a precision. Raises UsageError."""
    for choice in PRECISIONS:
        if name == choice:
            return choice
    raise UsageError(f"--precision is {name!r}, but it must be auto, bf16 or fp32")
