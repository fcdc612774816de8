"""Which device computes, in which number format, and why: CUDA before MPS before CPU."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from dreamsr.errors import DeviceError

Precision = Literal["auto", "bf16", "fp16", "fp32"]


@dataclass(frozen=True)
class Compute:
    """A device, the dtype that nets run in there, and the reason for both in words."""

    device: torch.device
    dtype: torch.dtype
    reason: str

    def autocast(self) -> torch.autocast:
        """The context in which nets run: convolutions in `dtype`, parameters as they are."""
        return torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32)

    @property
    def is_beside_the_cpu(self) -> bool:
        """Whether the CPU can prepare and finish while the device computes."""
        return self.device.type != "cpu"

    def send(self, images: Tensor) -> Tensor:
        """[B,C,h,w] on the device, channels last; to CUDA from pinned memory, without waiting for its arrival."""
        pinned = images.pin_memory() if self.device.type == "cuda" else images
        return pinned.to(self.device, non_blocking=True, memory_format=torch.channels_last)


def choose_compute(device: str = "auto", precision: Precision = "auto") -> Compute:
    """The device named, or the best there is; bf16 where the hardware has it, fp16 only as asked: it overflows sooner.

    Raises DeviceError for an unknown or missing device.
    """
    chosen, why = _choose_device(device)
    if precision == "fp32":
        return Compute(chosen, torch.float32, f"{why}; float32 as asked")
    if precision == "bf16":
        return Compute(chosen, torch.bfloat16, f"{why}; bfloat16 as asked")
    if precision == "fp16":
        return Compute(chosen, torch.float16, f"{why}; float16 as asked")
    fast, dtype_why = _has_fast_bf16(chosen)
    return Compute(chosen, torch.bfloat16 if fast else torch.float32, f"{why}; {dtype_why}")


def available_devices() -> list[str]:
    """Devices that can be named here, best first."""
    found = [f"cuda:{i}" for i in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    return [*found, *(["mps"] if torch.backends.mps.is_available() else []), "cpu"]


def _choose_device(name: str) -> tuple[torch.device, str]:
    found = available_devices()
    if name == "auto":
        best = torch.device(found[0])
        return best, f"{best} because no better device was found" if best.type == "cpu" else f"{best} found"
    wanted = "cuda:0" if name == "cuda" else name
    if wanted not in found:
        raise DeviceError(f"device {name!r} is not available; possible here: auto, {', '.join(found)}")
    return torch.device(wanted), f"{wanted} as asked"


def _has_fast_bf16(device: torch.device) -> tuple[bool, str]:
    if device.type == "cuda":
        fast = torch.cuda.get_device_capability(device) >= (8, 0)
        return fast, "bfloat16: the GPU computes it natively" if fast else "float32: the GPU is too old for bfloat16"
    if device.type == "mps":
        return False, "float32: bfloat16 is not faster on MPS"
    fast = has_cpu_bf16()
    return fast, "bfloat16: the CPU computes it natively" if fast else "float32: the CPU has no bfloat16 arithmetic"


def has_cpu_bf16() -> bool:
    """Whether torch says that this CPU multiplies bfloat16 natively (AVX512-BF16, AMX or Arm's)."""
    features = cpu_features()
    return any(features.get(name) is True for name in ("avx512_bf16", "amx_bf16", "arm_bf16", "bf16"))


def cpu_features() -> dict[str, object]:
    """What torch reports of this CPU, name -> value; empty where torch is too old to tell."""
    report = getattr(torch.cpu, "get_capabilities", None)
    return dict(report()) if report is not None else {}
