"""Values that the shell completes. Each asks the module that knows them, when it is asked."""

from __future__ import annotations

from typing import get_args


def policies() -> list[str]:
    """Of `--if-exists`."""
    from dreamsr.outputs import POLICIES

    return list(POLICIES)


def progress_kinds() -> list[str]:
    """Of `--progress`."""
    from dreamsr.cli.upscale_view import Kind

    return list(get_args(Kind))


def formats() -> list[str]:
    """Of `--format`."""
    from dreamsr.upscaling.naming import FORMAT_NAMES

    return sorted(FORMAT_NAMES)


def weights() -> list[tuple[str, str]]:
    """Names of the registry, each with what it is; the shell itself knows the files."""
    from dreamsr.weights.registry import AUTOMATIC, registry

    names = [(name, entry.description) for name, entry in registry().items()]
    return [(AUTOMATIC, "Those that suit each picture"), *names]


def presets() -> list[str]:
    """Of `--preset`."""
    from dreamsr.training.presets import preset_names

    return list(preset_names())


def devices() -> list[str]:
    """Of `--device`. Not asked of torch, which takes a second to load."""
    return ["auto", "cpu", "cuda", "cuda:0", "cuda:1", "mps"]
