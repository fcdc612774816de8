"""How much arithmetic a net does, and how fast this machine does such arithmetic where there is nothing else to do."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from dreamsr.core.denoiser import Denoiser, evaluating
from dreamsr.core.device import Compute
from dreamsr.core.samplers import restore
from dreamsr.measure.cost import measured

PROBE_PX = 64
LAYERS = 4
KERNEL_PX = 3
STACK_PX = 256
"""Side of the image that a bare stack works on, as a tile is."""


@dataclass(frozen=True)
class Arithmetic:
    """Of one image: FLOPs for each pixel of the small one, and the width in channels at which most are done."""

    flops_per_pixel: float
    width: int


def arithmetic_of(denoiser: Denoiser, steps: int) -> Arithmetic:
    """Counted on a small image of PROBE_PX a side; a multiplication and an addition are two."""
    by_width: Counter[int] = Counter()

    def count(conv: nn.Conv2d, _: Any, out: Tensor) -> None:
        by_width[conv.out_channels] += out.numel() * conv.weight[0].numel()

    convolutions = [module for module in denoiser.net.modules() if isinstance(module, nn.Conv2d)]
    handles = [module.register_forward_hook(count) for module in convolutions]
    low = torch.zeros(1, 3, PROBE_PX, PROBE_PX, device=denoiser.compute.device)
    noise = low.new_zeros(1, 3, PROBE_PX * denoiser.scale, PROBE_PX * denoiser.scale)
    try:
        with evaluating(denoiser.net), FlopCounterMode(display=False) as counter:
            restore(denoiser, low, steps=steps, noise=lambda _: noise)
    finally:
        for handle in handles:
            handle.remove()
    width = max(by_width, key=lambda channels: by_width[channels], default=1)
    return Arithmetic(counter.get_total_flops() / PROBE_PX**2, width)


@dataclass(frozen=True)
class BareStack:
    """LAYERS convolutions of 3 x 3 from `width` channels to as many, and nothing in between."""

    width: int
    compute: Compute

    def flops_per_second(self) -> float:
        """What this machine does in it now, in one run."""
        device, dtype = self.compute.device, self.compute.dtype
        draw = partial(torch.randn, device=device, dtype=dtype)  # zeros would spare a GPU power
        image = draw(1, self.width, STACK_PX, STACK_PX).contiguous(memory_format=torch.channels_last)
        weight = draw(self.width, self.width, KERNEL_PX, KERNEL_PX).contiguous(memory_format=torch.channels_last)
        with torch.inference_mode(), measured(device) as cost:
            for _ in range(LAYERS):
                nn.functional.conv2d(image, weight, padding=KERNEL_PX // 2)
        return 2 * LAYERS * image.numel() * weight[0].numel() / cost.seconds
