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


def test_it_runs_under_bfloat16() -> None:
    judge = built("pixels").to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    with torch.autocast("cpu", torch.bfloat16):
        scores = judge(pictures(), pictures(seed=1))
        loss = pairing_loss(scores, scores)
    assert scores[0].dtype == torch.bfloat16
    assert loss.dtype == torch.float32
    loss.sum().backward()
