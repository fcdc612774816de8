"""What the output of a net means: "plain", the prediction itself, or "centred", what is still missing.

A net that predicts eps says nothing of the image's mean but through x_t: near T an error of its answer is multiplied by
std / signal on the way to x0_hat, 150 times at the end of a short schedule. Until a million steps have taught it that,
samples drift in colour. Centred nets need not learn what is known without them, in the pattern of Karras et al. 2022
(EDM, section 5 and appendix B.6), there around zero, here around y.

With a = signal, s = std and d = x_t - mean(y, y, t), which is a (x0 - y) + s eps, take x0 - y for noise of variance v.
The best linear guess of it from d, Wiener's, and the variance that it leaves are

    w d,    w = a v / (a^2 v + s^2)    and    c^2 = v s^2 / (a^2 v + s^2).

A net whose output F has variance 1 then has to give exactly what is left:

    x0_hat  = y + w d + c F
    eps_hat = (d - a (x0_hat - y)) / s = (s d - a sqrt(v (a^2 v + s^2)) F) / (a^2 v + s^2)

Written so, neither divides by s or a: towards t = 0 x0_hat becomes x_t and eps_hat -F, towards pure noise x0_hat
becomes y + sqrt(v) F and eps_hat d / s. An error of F counts at most sqrt(v) in x0_hat and at most 1 in eps_hat. What
is asked of the net (eps, x0 or v) and so the loss, DREAM's blend and the samplers stay what they are.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from dreamsr.core.process import Process, spread

Parametrisation = Literal["plain", "centred"]

DEVIATION = 0.15
"""sqrt(v): the standard deviation of x0 - y on photos, images being in [-1,1]; the net learns where it is less."""


def centred(process: Process, out: Tensor, x_t: Tensor, y: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """(x0_hat, eps_hat), each [B,3,H,W]: what `out`, the F of a centred net, stands for at t > 0 [B]."""
    a, s = process.signal(t), process.std(t)
    total = (a * DEVIATION) ** 2 + s**2
    root = total.sqrt()
    d = x_t - process.mean(y, y, t)
    x0_hat = y + spread(a * DEVIATION**2 / total, d) * d + spread(DEVIATION * s / root, d) * out
    eps_hat = spread(s / total, d) * d - spread(a * DEVIATION / root, d) * out
    return x0_hat, eps_hat
