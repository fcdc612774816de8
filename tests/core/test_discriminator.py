"""The discriminator and the loss of its game with the net, apart from any training run."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from dreamsr.core.discriminator import (
    Discriminator,
    FeatureDiscriminator,
    PixelDiscriminator,
    gradient_penalty,
    pairing_loss,
    scores_for_the_net,
)


def pictures(count: int = 2, side: int = 32, seed: int = 0) -> Tensor:
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def built(kind: str) -> Discriminator:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        encoder = nn.Conv2d(3, 5, 3, padding=1).requires_grad_(False)
        return PixelDiscriminator(4) if kind == "pixels" else FeatureDiscriminator(lambda x: encoder(x), 5, 4)


def test_equal_looks_cost_log_2_by_image() -> None:
    scores = [torch.randn(3, 1, 4, 4), torch.randn(3, 1, 2, 2)]
    assert torch.allclose(pairing_loss(scores, scores), torch.full((3,), math.log(2)))


def test_only_the_difference_of_the_scores_counts_and_its_sign_is_that_of_the_winner() -> None:
    real, fake = [torch.full((2, 1, 3, 3), 5.0)], [torch.full((2, 1, 3, 3), 2.0)]
    assert float(pairing_loss(real, fake)[0]) == pytest.approx(math.log1p(math.exp(-3)))
    assert float(pairing_loss(fake, real)[0]) == pytest.approx(math.log1p(math.exp(3)))
    higher = [scores + 7 for scores in real], [scores + 7 for scores in fake]
    assert torch.allclose(pairing_loss(*higher), pairing_loss(real, fake))


def test_scales_count_alike_whatever_their_size() -> None:
    real = [torch.zeros(1, 1, 8, 8), torch.zeros(1, 1, 2, 2)]
    fake = [torch.zeros(1, 1, 8, 8), torch.full((1, 1, 2, 2), 3.0)]
    wanted = (math.log(2) + math.log1p(math.exp(3))) / 2
    assert float(pairing_loss(real, fake)[0]) == pytest.approx(wanted)


@pytest.mark.parametrize("kind", ["pixels", "features"])
@pytest.mark.parametrize("side", [16, 17, 32])
def test_there_are_two_scales_and_any_size_is_judged(kind: str, side: int) -> None:
    fine, coarse = built(kind)(pictures(side=side), pictures(side=side, seed=1))
    assert fine.shape[:2] == coarse.shape[:2] == (2, 1)
    assert fine.shape[-1] > coarse.shape[-1] >= 2


def test_on_pixels_the_same_picture_is_judged_by_what_was_known() -> None:
    judge, x = built("pixels"), pictures()
    assert not torch.equal(judge(x, pictures(seed=1))[0], judge(x, pictures(seed=2))[0])


@pytest.mark.parametrize("kind", ["pixels", "features"])
def test_moving_the_picture_by_whole_strides_moves_the_scores(kind: str) -> None:
    """Fully convolutional: away from the border, 8 px are one place of the coarse map."""
    judge, x, y = built(kind), pictures(1, 96), pictures(1, 96, seed=1)
    moved = judge(x[..., 8:, 8:], y[..., 8:, 8:])
    edge = 4  # places that the border may reach
    strides = (2, 1) if kind == "pixels" else (4, 2)
    for scores, there, stride in zip(judge(x, y), moved, strides, strict=True):
        inner = scores[..., stride + edge : -edge, stride + edge : -edge]
        again = there[..., edge:-edge, edge:-edge]
        assert inner.numel() > 0
        assert torch.allclose(inner, again, atol=1e-5)


@pytest.mark.parametrize("kind", ["pixels", "features"])
def test_scores_for_the_net_are_the_same_and_have_no_gradient_for_the_discriminator(kind: str) -> None:
    judge, x, y = built(kind), pictures().requires_grad_(True), pictures(seed=1)
    scores = scores_for_the_net(judge, x, y)
    assert all(torch.equal(a, b) for a, b in zip(scores, judge(x, y), strict=True))
    sum(score.sum() for score in scores).backward()
    assert x.grad is not None
    assert float(x.grad.abs().sum()) > 0
    assert all(p.grad is None for p in judge.parameters())
    assert all(p.requires_grad for p in judge.parameters())


def test_the_encoder_is_no_part_of_a_feature_discriminator() -> None:
    judge = built("features")
    assert all(parameter.requires_grad for parameter in judge.parameters())
    assert "encode" not in dict(judge.named_children())


def test_spectral_norms_move_by_settling_alone_and_bound_every_layer() -> None:
    judge = built("pixels")
    before = {name: value.clone() for name, value in judge.state_dict().items()}
    judge(pictures(), pictures(seed=1))
    assert all(torch.equal(value, before[name]) for name, value in judge.state_dict().items())
    for _ in range(50):
        judge.settle()
    assert any(not torch.equal(value, before[name]) for name, value in judge.state_dict().items())
    assert not judge.training
    for module in judge.modules():
        if isinstance(module, nn.Conv2d):
            assert float(torch.linalg.matrix_norm(module.weight.detach().flatten(1), ord=2)) == pytest.approx(
                1, abs=1e-2
            )


def test_a_discriminator_learns_to_tell_two_kinds_of_pictures_apart() -> None:
    judge, y = built("pixels"), torch.zeros(8, 3, 16, 16)
    optimizer = torch.optim.AdamW(judge.parameters(), lr=1e-2, betas=(0.5, 0.99))
    losses = []
    for step in range(30):
        judge.settle()
        true = pictures(8, 16, seed=step)
        smooth = nn.functional.avg_pool2d(true, 3, stride=1, padding=1)
        loss = pairing_loss(judge(true, y), judge(smooth, y)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.8 * losses[0]
    assert all(math.isfinite(a) and math.isfinite(b) for a, b in pairwise(losses))


# --- the gradient penalty ---------------------------------------------------------------------------------------------


class Known(Discriminator):
    """Scores whose slope is known: 3 w of red minus 2 w of green at one scale, 5 w of blue at another, coarser one."""

    def __init__(self) -> None:
        super().__init__(3, 1)
        self.w = nn.Parameter(torch.tensor(2.0))

    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        fine = self.w * (3 * x[:, :1] - 2 * x[:, 1:2]) + y[:, :1]
        return fine, nn.functional.avg_pool2d(5 * self.w * x[:, 2:], 2)


class Squared(Discriminator):
    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        return x.square().sum(dim=1, keepdim=True) + y[:, :1], 7 + y[:, :1]


@pytest.mark.parametrize("side", [8, 32])
def test_the_penalty_is_the_squared_slope_of_the_mean_score_whatever_the_size(side: int) -> None:
    judge, x, y = Known(), pictures(3, side), pictures(3, side, seed=1).requires_grad_(True)
    penalty = gradient_penalty(judge, x, y)
    assert torch.allclose(penalty, torch.full((3,), (9 + 4 + 25) * 2.0**2 / 2**2))  # halved: two scales
    penalty.mean().backward()
    assert judge.w.grad is not None
    assert float(judge.w.grad) == pytest.approx(2 * 38 * 2.0 / 2**2)
    assert y.grad is None or not y.grad.any()
    assert not x.requires_grad


def test_the_penalty_is_by_image_and_follows_the_place_that_it_is_made_at() -> None:
    x, y = pictures(2), pictures(2, seed=1)
    wanted = x.square().sum(dim=(1, 2, 3)) / 32**2  # (2 x / 2 scales) squared
    assert torch.allclose(gradient_penalty(Squared(3, 1), x, y), wanted)


@pytest.mark.parametrize("kind", ["pixels", "features"])
def test_a_penalty_reaches_every_layer_and_moves_no_buffer(kind: str) -> None:
    judge, x, y = built(kind).to(memory_format=torch.channels_last), pictures(), pictures(seed=1)  # type: ignore[call-overload]
    before = {name: value.clone() for name, value in judge.named_buffers()}
    with torch.no_grad():
        assert gradient_penalty(judge, x, y).shape == (2,)
    gradient_penalty(judge, x, y).mean().backward()
    layers = [module for module in judge.modules() if isinstance(module, nn.Conv2d)]
    assert all(
        parameter.grad is not None and bool(parameter.grad.any())
        for layer in layers
        for name, parameter in layer.named_parameters()
        if "original" in name
    )
    assert all(torch.equal(value, before[name]) for name, value in judge.named_buffers())


def test_a_penalised_discriminator_does_not_win_what_a_free_one_wins() -> None:
    """Against guesses that are always the same: the game that it would win in the end."""
    true = pictures(8, 16)
    smooth, y = nn.functional.avg_pool2d(true, 3, stride=1, padding=1), torch.zeros(8, 3, 16, 16)

    def end(weight: float) -> tuple[float, float]:
        judge = built("pixels")
        optimizer = torch.optim.AdamW(judge.parameters(), lr=1e-2, betas=(0.5, 0.99))
        for _ in range(60):
            judge.settle()
            loss = pairing_loss(judge(true, y), judge(smooth, y)).mean()
            penalty = weight * torch.stack([gradient_penalty(judge, x, y) for x in (true, smooth)]).mean()
            optimizer.zero_grad()
            (loss + penalty).backward()
            optimizer.step()
        return float(loss.detach()), float(gradient_penalty(judge, true, y).mean().detach())

    (free, steep), (held, flat) = end(0.0), end(0.1)
    assert free < 0.25 < 0.4 < held < math.log(2)
    assert flat < steep / 20


def test_it_runs_under_bfloat16() -> None:
    judge = built("pixels").to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    with torch.autocast("cpu", torch.bfloat16):
        scores = judge(pictures(), pictures(seed=1))
        loss = pairing_loss(scores, scores)
    assert scores[0].dtype == torch.bfloat16
    assert loss.dtype == torch.float32
    loss.sum().backward()
