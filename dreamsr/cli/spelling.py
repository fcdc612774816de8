"""How the command line spells the fields that messages name, for those who type options.

Below the command line a message puts a field in backticks, as Python knows it: `if_exists`.
"""

import re

FIELD = re.compile(r"`([a-z_]+)`(?!\.?\w)")
"""A field in a message; what goes on as a name does, such as `scale`.png, is none."""
REGULAR = (
    *("accept_damaged", "command", "compare", "data", "degradation", "denoise", "device", "fidelity", "format"),
    *("height", "hr", "if_exists", "lpips", "lr", "max_pixels", "max_side", "name", "plots", "private", "recursive"),
    *("save_every", "save_outputs", "scale", "seed", "stage", "steps", "stochasticity", "weights", "width"),
)
"""Fields whose options are called alike: `if_exists` is --if-exists."""
OPTIONS = {name: f"--{name.replace('_', '-')}" for name in REGULAR} | {
    "mixed_precision": "--mixed_precision",  # of `accelerate launch`
    "output": "-o",
    "tile_px": "--tile",
    "timeout_s": "--command-timeout",
}


def as_typed(message: str) -> str:
    """`message` with options where it names fields."""
    return FIELD.sub(lambda found: OPTIONS.get(found[1], found[0]), message)
