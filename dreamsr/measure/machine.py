"""On what figures were made: this code, its libraries, the machine and its device."""

from __future__ import annotations

import hashlib
import os
import platform
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

import dreamsr
from dreamsr.core.device import Compute

PACKAGES = ("torch", "torchvision", "torchmetrics", "numpy", "pillow")
ABOVE_PICTURES = ("cli", "study", "bench", "training", "publishing")
"""Rooms that ask for pictures and look at them; the ones below, which make them, know nothing of these."""


def environment(compute: Compute) -> dict[str, Any]:
    """Versions, machine, device and dtype as JSON values."""
    return {
        "dreamsr": dreamsr.__version__,
        "code_sha256": code_fingerprint(),
        "python": platform.python_version(),
        **{name: installed_version(name) for name in PACKAGES},
        "system": platform.platform(),
        "cpu": _cpu_name(),
        "cpu_count": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": str(compute.device),
        "device_name": torch.cuda.get_device_name(compute.device) if compute.device.type == "cuda" else _cpu_name(),
        "dtype": str(compute.dtype).removeprefix("torch."),
        "why": compute.reason,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def installed_version(name: str) -> str | None:
    """The version of an installed package, None where it is missing."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def code_fingerprint(modules: Mapping[str, ModuleType] | None = None) -> str:
    """sha256 over the source of all imported modules that pictures are made by; `modules` as in sys.modules.

    Results kept from other code are not taken for new ones.
    """
    digest = hashlib.sha256()
    for name, module in sorted((sys.modules if modules is None else modules).items()):
        package, _, rest = name.partition(".")
        if package != "dreamsr" or rest.partition(".")[0] in ABOVE_PICTURES:
            continue
        if module.__file__ is None:
            continue
        digest.update(name.encode() + b"\0" + Path(module.__file__).read_bytes())
    return digest.hexdigest()
