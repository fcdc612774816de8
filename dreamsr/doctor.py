"""What this machine offers and what dreamsr makes of it: the first thing to look at when something is odd."""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path
from typing import Any

import torch

import dreamsr
from dreamsr.core.device import available_devices, choose_compute, cpu_features
from dreamsr.disk import file_sha256
from dreamsr.errors import DreamsrError
from dreamsr.measure.machine import installed_version
from dreamsr.measure.memory import automatic_tile_px, free_bytes, total_bytes
from dreamsr.pictures.picture import FORMATS
from dreamsr.weights.registry import registry
from dreamsr.weights.resolve import local_copy

LIBRARIES = ("torch", "numpy", "pillow", "safetensors", "huggingface-hub", "typer", "rich", "pydantic", "accelerate")
ENVIRONMENT = ("HF_HOME", "HF_HUB_CACHE", "HF_HUB_OFFLINE", "HF_ENDPOINT", "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS")


def examine() -> dict[str, Any]:
    """Everything as plain values, ready for JSON: versions, devices, memory, weights, environment, `problems`."""
    problems: list[str] = []
    compute = choose_compute()
    weights = _weights(problems)
    return {
        "dreamsr": dreamsr.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "executable": sys.executable,
        "libraries": {name: installed_version(name) for name in LIBRARIES},
        "formats": list(FORMATS),
        "device": str(compute.device),
        "dtype": str(compute.dtype).removeprefix("torch."),
        "why": compute.reason,
        "devices": [_device(name) for name in available_devices()],
        "cpu_threads": torch.get_num_threads(),
        "cpu_features": sorted(name for name, there in cpu_features().items() if there is True),
        "memory_bytes": {"total": total_bytes(), "free": free_bytes(torch.device("cpu"))},
        "tile_px": automatic_tile_px(compute.device, scale=4),
        "cache": str(_cache_folder()),
        "weights": weights,
        "environment": {name: os.environ[name] for name in ENVIRONMENT if name in os.environ},
        "problems": problems,
    }


def _device(name: str) -> dict[str, Any]:
    """A device, its own name, and its free memory in bytes."""
    device = torch.device(name)
    compute = choose_compute(name)
    described = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or device.type
    return {
        "name": name,
        "model": described,
        "dtype": str(compute.dtype).removeprefix("torch."),
        "free_bytes": free_bytes(device),
    }


def _cache_folder() -> Path:
    from huggingface_hub.constants import HF_HUB_CACHE

    return Path(HF_HUB_CACHE)


def _weights(problems: list[str]) -> list[dict[str, Any]]:
    """Each table of weights.toml: whether its file is here, and whether it is the right one."""
    try:
        entries = registry()
    except DreamsrError as error:
        problems.append(str(error))
        return []
    found = []
    for entry in entries.values():
        path = local_copy(entry)
        state = "not here; fetched when first used" if entry.published else "missing"
        if path is not None:
            state = "ok" if file_sha256(path) == entry.sha256 else "damaged"
        if state in ("missing", "damaged"):
            problems.append(f"the weights {entry.name} are {state}; install dreamsr again")
        found.append({"name": entry.name, "bundled": entry.bundled, "state": state, "sha256": entry.sha256,
                      "path": None if path is None else str(path)})  # fmt: skip
    return found
