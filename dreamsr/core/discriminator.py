"""A small discriminator that tells enlarged pictures from true ones, and the loss of the game between it and the net.

Relativistic and paired: truth and guess have the same content, so only which of the two looks truer is asked
(Jolicoeur-Martineau 2018, arXiv 1807.00734, with pairs of one content). Spectral norm keeps it smooth (Miyato et al.
2018, arXiv 1802.05957), and a gradient penalty keeps it from winning (Mescheder et al. 2018, arXiv 1801.04406; with
pairs on both sides, Huang et al. 2024, arXiv 2501.05441).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

from dreamsr.core.backbones.blocks import pad_to_multiple

RESIDUAL_GAIN = 4.0
"""The difference between a guess and y is small; so multiplied it is of the order of the guess."""
PatchScores = Sequence[Tensor]
"""One map [B,1,h,w] per scale; higher looks truer."""


class Discriminator(nn.Module):
    """(x, y), both [B,3,H,W] in [-1,1] -> scores at two scales.

    It stays in eval mode: the estimate behind spectral norm moves by `settle` alone, once per optimizer step, so a step
    does not depend on how its crops are divided into batches.
    """

    def __init__(self, inputs: int, channels: int) -> None:
        super().__init__()
        wide = 2 * channels
        self.enter = _conv(inputs, channels, 3)
        self.fine = nn.Sequential(_conv(channels, wide, 4), _leaky(), _conv(wide, wide, 3), _leaky())
        self.coarse = nn.Sequential(_conv(wide, 2 * wide, 4), _leaky(), _conv(2 * wide, 2 * wide, 3), _leaky())
        self.judge_fine = _conv(wide, 1, 3)
        self.judge_coarse = _conv(2 * wide, 1, 3)
        self.eval()

    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        seen = self.look(x, y).contiguous(memory_format=torch.channels_last)  # [B,I,h,w]
        fine = self.fine(F.leaky_relu(self.enter(seen), 0.2))  # [B,2C,h/2,w/2]
        return self.judge_fine(fine), self.judge_coarse(self.coarse(fine))

    def look(self, x: Tensor, y: Tensor) -> Tensor:
        """What is judged, [B,I,h,w]."""
        raise NotImplementedError

    def settle(self) -> None:
        """One power iteration of every spectral norm."""
        self.train()
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                _ = module.weight
        self.eval()


class PixelDiscriminator(Discriminator):
    """Sees the picture beside its difference from y, pixel-unshuffled by 2."""

    def __init__(self, channels: int) -> None:
        super().__init__(6 * 4, channels)

    def look(self, x: Tensor, y: Tensor) -> Tensor:
        both = torch.cat([x, (x - y) * RESIDUAL_GAIN], dim=1)  # [B,6,H,W]
        return F.pixel_unshuffle(pad_to_multiple(both, 2), 2)  # [B,24,H/2,W/2], rounded up


class FeatureDiscriminator(Discriminator):
    """Sees the picture through `encode`, [B,3,H,W] -> [B,inputs,H,W]; y plays no part.

    `encode` is a plain function: the parameters behind it are not the discriminator's, which does not train them.
    """

    def __init__(self, encode: Callable[[Tensor], Tensor], inputs: int, channels: int) -> None:
        super().__init__(inputs, channels)
        self.encode = encode

    def look(self, x: Tensor, y: Tensor) -> Tensor:  # noqa: ARG002 - the guess alone is judged
        return self.encode(x)


def scores_for_the_net(discriminator: Discriminator, x: Tensor, y: Tensor) -> PatchScores:
    """The scores, with gradient to x but none to the discriminator."""
    frozen = {name: parameter.detach() for name, parameter in discriminator.named_parameters()}
    scores: PatchScores = functional_call(discriminator, frozen, (x, y))
    return scores


def pairing_loss(ahead: PatchScores, behind: PatchScores) -> Tensor:
    """softplus(behind - ahead), averaged over places and scales, [B]: small where `ahead` looks truer, log 2 if equal.

    The discriminator wants the truth ahead of the guess, the net wants the reverse.
    """
    losses = [F.softplus(b.float() - a.float()).mean(dim=(1, 2, 3)) for a, b in zip(ahead, behind, strict=True)]
    return torch.stack(losses).mean(dim=0)  # [B]


def gradient_penalty(discriminator: Discriminator, x: Tensor, y: Tensor) -> Tensor:
    """The squared slope of the mean score at x [B,3,H,W], [B]: how much it rises for a change of x by 1 (root mean
    square over places) in the direction that it likes best, squared. The gradient goes to the discriminator alone.

    Of the mean over places and of places in the measure of a change, so it does not depend on the size of a crop.
    """
    x = x.detach().requires_grad_(True)
    with torch.enable_grad():
        mean = torch.stack([scores.float().mean(dim=(1, 2, 3)) for scores in discriminator(x, y)]).mean(dim=0)  # [B]
        (slope,) = torch.autograd.grad(mean.sum(), x, create_graph=True)  # [B,3,H,W]
    return slope.square().sum(dim=(1, 2, 3)) * x[0, 0].numel()


def _conv(inputs: int, outputs: int, kernel: int) -> nn.Module:
    """Kernel 3 keeps the size, kernel 4 halves it."""
    stride = 2 if kernel == 4 else 1
    return spectral_norm(nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=1))


def _leaky() -> nn.Module:
    return nn.LeakyReLU(0.2)
