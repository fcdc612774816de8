"""FLOPs of a net against what its layers say, and the rate of a bare stack."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor, nn

from dreamsr.core.denoiser import Condition, Denoiser
from dreamsr.core.device import choose_compute
from dreamsr.core.process import ResidualProcess
from dreamsr.measure import flops
from dreamsr.measure.cost import Cost


class Toy(nn.Module):
    """Three channels to eight and back, on the small grid in the encoder and on the large one in each step."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Conv2d(3, 16, 1)
        self.widen, self.narrow = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 3, 3, padding=1)

    def encode(self, low: Tensor, _: object) -> Condition:
        return Condition(nn.functional.interpolate(low, scale_factor=2), self.encoder(low))

    def forward(self, x: Tensor, _: Condition, __: Tensor) -> Tensor:
        out: Tensor = self.narrow(self.widen(x))
        return out


def test_flops_are_those_of_the_layers() -> None:
    compute = choose_compute("cpu", "fp32")
    denoiser = Denoiser(Toy().train(), ResidualProcess(torch.linspace(0, 1, 5), 1.0), "x0", scale=2, compute=compute)
    one, two = (flops.arithmetic_of(denoiser, steps) for steps in (1, 2))
    step = 2 * 4 * (3 * 8 * 9 + 8 * 3 * 9)  # two for a multiplication with its addition, four large pixels for a small
    assert one.flops_per_pixel == step + 2 * 3 * 16
    assert two.flops_per_pixel - one.flops_per_pixel == step
    assert one.width == 8
    assert denoiser.net.training


def test_a_bare_stack_counts_what_it_does(monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def in_two_seconds(_: torch.device) -> Iterator[Cost]:
        yield Cost(2.0)

    monkeypatch.setattr(flops, "measured", in_two_seconds)
    monkeypatch.setattr(flops, "STACK_PX", 8)
    stack = flops.BareStack(5, choose_compute("cpu", "fp32"))
    assert stack.flops_per_second() == flops.LAYERS * 2 * 8 * 8 * 5 * 5 * 9 / 2
