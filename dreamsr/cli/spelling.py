"""How the command line spells the fields that messages name, for those who type options.

Below the command line a message puts a field in backticks, as Python knows it: `if_exists`.
"""

import re

FIELD = re.compile(r"`([a-z_.]+)`(?!\.?\w)")
"""A field in a message; what goes on as a name does, such as `scale`.png, is none."""
REGULAR = (
    *("accept_damaged", "accumulate", "batch_size", "command", "compare", "crops", "csv", "data"),
    *("degradation", "denoise", "device", "dream.power", "dream.start", "fidelity", "format", "height", "hr"),
    *(
        "html",
        "if_exists",
        "json",
        "curve_steps",
        "learning_rate",
        "limit",
        "low",
        "lpips",
        "lr",
        "max_pixels",
        "max_side",
        "max_steps",
    ),
    *("name", "no_dream", "out", "partial", "plots", "port", "powers", "precision", "preset", "private", "protocol"),
    *("recursive", "resume", "run_commands", "save_every", "save_outputs", "scale", "seed", "seeds", "stage"),
    *("speed_px", "steps", "stochasticity", "threads", "weights", "width", "work"),
)
"""Fields whose options are called alike: `if_exists` is --if-exists."""
OPTIONS = {name: f"--{name.replace('_', '-').replace('.', '-')}" for name in REGULAR} | {
    "ablation": "--dream-ablation",
    "command_timeout_s": "--command-timeout",
    "crop_low_px": "--crop",
    "first_seed": "--seed",
    "mixed_precision": "--mixed_precision",  # of `accelerate launch`
    "output": "-o",
    "sample_steps": "--steps",
    "settings": "--set",
    "stochasticities": "--stochasticity",
    "tile_px": "--tile",
    "timeout_s": "--command-timeout",
    "valid": "--val",
}


def as_typed(message: str) -> str:
    """`message` with options where it names fields."""
    return FIELD.sub(lambda found: OPTIONS.get(found[1], found[0]), message)
