"""LPIPS v0.1 and DISTS through torchmetrics, where it is installed; one clear line where it is not."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from dreamsr.core.pixels import Pixels, to_tensor
from dreamsr.errors import UsageError
from dreamsr.measure.metrics import DISTS, LPIPS_ALEX, LPIPS_VGG

Net = Literal["alex", "vgg", "dists"]
NETS: dict[Net, str] = {"alex": LPIPS_ALEX.key, "vgg": LPIPS_VGG.key, "dists": DISTS.key}
"""Network -> the key of its metric."""
Judge = Callable[[Tensor, Tensor], Tensor]
"""(image, truth), each [1,3,H,W] in [-1,1] -> one figure."""
INSTALL = 'pip install "dreamsr[lpips]"'


class Perceptual:
    """LPIPS (Zhang et al. 2018), version 0.1, by AlexNet or VGG, and DISTS (Ding et al. 2020); lower is better.

    `nets` are those that work here; `missing` says in one line why others do not, or is "".
    """

    def __init__(self, wanted: Sequence[str]) -> None:
        unknown = [net for net in wanted if net not in NETS]
        if unknown:
            raise UsageError(f"`lpips` is {unknown[0]!r}, but it must be among {', '.join(NETS)}, or none")
        self._metrics: dict[Net, Judge] = {}
        problems: dict[Net, str] = {}
        for net in (net for net in NETS if net in wanted):
            try:
                self._metrics[net] = _load(net)
            except (ImportError, RuntimeError, OSError, AttributeError) as error:
                problems[net] = _reason(error)
        self.nets = tuple(self._metrics)
        self.missing = ""
        if problems:
            reasons = "; ".join(dict.fromkeys(problems.values()))
            names = " and ".join(NETS[net] for net in problems)
            self.missing = f"no {names} ({reasons})"

    def __call__(self, image: Pixels, truth: Pixels) -> dict[str, float]:
        """[H,W,3] uint8 twice -> key of the metric -> figure, only nets that work here."""
        return {NETS[net]: self._one(metric, image, truth) for net, metric in self._metrics.items()}

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys of the metrics that there are here."""
        return tuple(NETS[net] for net in self.nets)

    def _one(self, metric: Judge, image: Pixels, truth: Pixels) -> float:
        with torch.inference_mode(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return float(metric(to_tensor(image)[None], to_tensor(truth)[None]))


def _load(net: Net) -> Judge:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return _dists() if net == "dists" else _lpips(net)


def _lpips(net: str) -> Judge:
    from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

    build: Any = LearnedPerceptualImagePatchSimilarity
    metric = build(net_type=net, normalize=False).eval()

    def judge(image: Tensor, truth: Tensor) -> Tensor:
        metric.reset()
        metric.update(image, truth)
        found: Tensor = metric.compute()
        return found

    return judge


def _dists() -> Judge:
    """torchmetrics' own class loads VGG16 anew for each picture; its network, asked directly, does so once."""
    from torchmetrics.functional.image.dists import DISTSNetwork

    build: Any = DISTSNetwork
    network: Judge = build().eval()
    return lambda image, truth: network((image + 1) / 2, (truth + 1) / 2)


def _reason(error: Exception) -> str:
    if isinstance(error, ImportError):
        return f"install it: {INSTALL}"
    if isinstance(error, OSError):
        return f"its network could not be fetched: {error}"
    return f"the installed torchvision does not work: {error}".split("\n", maxsplit=1)[0]
