"""How large a tile may be, from the memory that is built in, and what running out of it looks like."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psutil
import torch

from dreamsr.errors import DeviceError

CPU = torch.device("cpu")
BYTES_PER_LARGE_PX = 420
"""Working memory of one denoising step per px of the large image; twice what the default net was measured to take."""
GPU_TILES_PX = (512, 256, 128, 96)
CPU_TILES_PX = (288, 192, 128, 96)
"""Few sizes, far apart: machines of about the same memory choose the same one, and so give the same bytes.

On a CPU larger tiles fall out of its caches: 512 px took 1.4 times as long as 288 px for the same picture.
"""
CGROUP_LIMITS = (
    (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")),
    (Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"), Path("/sys/fs/cgroup/memory/memory.usage_in_bytes")),
)


def free_bytes(device: torch.device) -> int:
    """Memory that a computation on `device` can still take, in bytes; in a container, of the container."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    left = [max(0, limit - used) for limit, used in _container_limits()]
    return min([int(psutil.virtual_memory().available), *left])


def total_bytes(device: torch.device = CPU) -> int:
    """Memory built into `device`, in bytes; in a container, what the container may take."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    return min([int(psutil.virtual_memory().total), *(limit for limit, _ in _container_limits())])


def _container_limits() -> Iterator[tuple[int, int]]:
    """Each memory limit of a container, and how much of it is in use."""
    for limit, used in CGROUP_LIMITS:
        try:
            yield int(limit.read_text()), int(used.read_text())
        except (OSError, ValueError):  # no such limit, or "max"
            continue


def automatic_batch_px(device: torch.device, *, scale: int) -> int:
    """How many px of the small image tiles that are computed together may have, in a quarter of the device's memory.

    0 on the CPU, which is quickest with one tile at a time.
    """
    return 0 if device.type == "cpu" else total_bytes(device) // 4 // (scale**2 * BYTES_PER_LARGE_PX)


def automatic_tile_px(device: torch.device, *, scale: int) -> int:
    """The largest of the device's sides, in px of the small image, that fits a quarter of its memory.

    Of what is built in, not of what is free: the same picture has the same tiles, whatever else runs.
    """
    sides = CPU_TILES_PX if device.type == "cpu" else GPU_TILES_PX
    room = total_bytes(device) // 4
    fitting = [side for side in sides if side**2 * scale**2 * BYTES_PER_LARGE_PX <= room]
    return fitting[0] if fitting else sides[-1]


def require_room(height: int, width: int, bytes_per_pixel: int, *, copies: int = 3) -> None:
    """Raise DeviceError where a result of this size, as often as it is there on its way to a file, cannot fit."""
    needed, free = copies * height * width * bytes_per_pixel, free_bytes(CPU)
    if needed > free:
        raise DeviceError(
            f"a result of {width}x{height} needs about {needed / 1e9:.1f} GB and {free / 1e9:.1f} GB are free; "
            "choose a smaller size or close other programs"
        )


def is_out_of_memory(error: BaseException) -> bool:
    """Whether torch or Python says that memory ran out, on any device."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    text = str(error).lower()
    return any(sign in text for sign in ("out of memory", "can't allocate memory", "not enough memory"))
