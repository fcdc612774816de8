"""Whether a training run fits into memory, found out before its first step."""

from __future__ import annotations

import os
from typing import Any

import torch
from torch import Tensor, nn

from dreamsr.core.device import Compute
from dreamsr.core.model import ModelConfig, build_net
from dreamsr.errors import DeviceError
from dreamsr.measure.memory import free_bytes
from dreamsr.training.config import TrainConfig
from dreamsr.training.loader import Batch
from dreamsr.training.state import Run
from dreamsr.training.step import losses_of

BYTES_PER_PARAMETER = 20
"""float32 five times: the weight, its average, its gradient and Adam's two moments."""
BYTES_NOW = 8
"""Of these, the two that are held before the first step."""
PEAK_OVER_SAVED = 1.5
"""A step's peak over what its forward pass keeps; 1.2 to 1.6 was measured for the four families in float32."""


def require_room_for_state(config: ModelConfig, device: torch.device) -> None:
    """Raise DeviceError where the parameters and what Adam keeps of them cannot fit; allocates nothing."""
    with torch.device("meta"):
        count = sum(parameter.numel() for parameter in build_net(config).parameters())
    needed, free = count * BYTES_PER_PARAMETER, _free(device)
    if needed > free:
        raise DeviceError(
            f"training {count / 1e6:.1f} million parameters takes {_in_words(needed)} before the first picture, and "
            f"{_in_words(free)} are free on {device}; choose a smaller preset or another `device`"
        )


def require_room_for_steps(run: Run, config: TrainConfig, compute: Compute) -> None:
    """Raise DeviceError where a step cannot fit, with a batch that would; takes one forward pass of one crop."""
    parameters = sum(parameter.numel() for parameter in run.denoiser.net.parameters())
    one = int(kept_for_backward(run, config, compute) * PEAK_OVER_SAVED)
    fixed, free = parameters * (BYTES_PER_PARAMETER - BYTES_NOW), _free(compute.device)
    if fixed + one * config.batch_size <= free:
        return
    fitting = max(0, free - fixed) // one
    needed, room = _in_words(fixed + one * config.batch_size), _in_words(free)
    raise DeviceError(
        f"a step takes about {needed} and {room} are free on {compute.device}; {way_out(config, fitting)}"
    )


def way_out(config: TrainConfig, fitting: int) -> str:
    """What to do where a batch does not fit, but `fitting` crops would; the same crops per step where possible."""
    if fitting < 1:
        return "choose a smaller `crop_low_px`, a smaller preset or another `device`"
    parts = next(
        (n for n in range(-(-config.batch_size // fitting), config.batch_size) if config.batch_size % n == 0),
        config.batch_size,
    )
    size, accumulate = config.batch_size // parts, config.accumulate * parts
    return f"try `batch_size` {size} `accumulate` {accumulate}, which gives the same steps"


def kept_for_backward(run: Run, config: TrainConfig, compute: Compute) -> int:
    """Bytes that the forward pass of one crop keeps for the backward pass, of the dearest kind of step."""
    every = config.finish.penalty_every
    dearest = -(-max(config.max_steps, config.base_steps, config.dream.start) // every) * every
    before = max(config.base_steps, config.finish_start - 1)
    stages = {config.stage(step): step for step in (before, dearest)}
    return max(_kept(losses_of(run, config, stage), config, compute, step) for stage, step in stages.items())


def _kept(losses: nn.Module, config: TrainConfig, compute: Compute, step: int) -> int:
    known = {parameter.untyped_storage().data_ptr() for parameter in losses.parameters()}
    kept: dict[int, Any] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            kept[storage.data_ptr()] = storage  # held, or its address would be given out again
        return tensor

    side, large = config.crop_low_px, config.crop_low_px * config.model.scale
    low, x0 = torch.zeros(1, 3, side, side), torch.zeros(1, 3, large, large)
    batch = Batch(low, x0, x0, (float(config.model.process.timesteps),)).to(compute.device)
    devices = [compute.device] if compute.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        losses(batch, step)
    return sum(storage.nbytes() for storage in kept.values())


def _free(device: torch.device) -> int:
    """Free memory of the device, a share of it where several processes compute on the same CPU."""
    sharing = int(os.environ.get("LOCAL_WORLD_SIZE") or 1) if device.type == "cpu" else 1
    return free_bytes(device) // max(1, sharing)


def _in_words(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e8 else f"{size / 1e6:.1f} MB"
