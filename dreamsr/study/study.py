"""Does DREAM help? The same net trained plainly and with DREAM, at equal steps and at equal time.

Every arm is an ordinary training run in a folder of its own. Arms of one seed start from the same net and see the same
crops, times and noise, in training and in sampling. They are measured on the same held-out crops, beside bicubic and a
flat colour, and everything is kept: a stopped study goes on, and several processes may work on one folder, an arm each.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from dreamsr.bench.dataset import Dataset, open_datasets
from dreamsr.bench.methods import Interpolation, Kind, Method, Produced, Variant
from dreamsr.bench.protocol import choose_protocol
from dreamsr.bench.store import Store
from dreamsr.bench.sweep import Result, Sweep
from dreamsr.bench.weights import WeightsMethod
from dreamsr.core.pixels import from_tensor
from dreamsr.data.settings import CropConfig
from dreamsr.data.shrinking import Degradation
from dreamsr.data.sources import DataSource, open_source
from dreamsr.disk import ensure_folder, json_text, read_json, write_bytes_atomically
from dreamsr.errors import OutputError, UsageError, printable
from dreamsr.measure.lpips import Perceptual
from dreamsr.measure.metrics import CONSISTENCY, DISTS, LPIPS_ALEX, PSNR_Y, SSIM_Y
from dreamsr.pictures.picture import Picture
from dreamsr.pictures.write import write_picture
from dreamsr.study.arms import Studio
from dreamsr.study.systems import Arm
from dreamsr.training.results.places import require_place
from dreamsr.upscaling.settings import SMALLEST_TILE_PX

FIGURES = (PSNR_Y, SSIM_Y, LPIPS_ALEX, DISTS, CONSISTENCY)
"""What is measured."""
CROPS, MEASURED, PICTURES = "crops", "measured", "pictures"
BICUBIC, FLAT = "bicubic", "flat colour"


class FlatColour:
    """Every crop in its own mean colour: what a net that shows nothing at all would be worth."""

    name = FLAT
    kind: Kind = "interpolation"

    def variants(self) -> Sequence[Variant]:
        return [Variant()]

    def identity(self, dataset: Dataset, number: int, variant: Variant) -> Mapping[str, Any]:  # noqa: ARG002
        return {"interpolation": self.name}

    def run(self, dataset: Dataset, number: int, variant: Variant) -> Produced:  # noqa: ARG002
        item = dataset.item(number)
        colour = item.low.mean(axis=(0, 1)).round().astype(np.uint8)  # [3]
        return Produced(np.broadcast_to(colour, item.truth.shape).copy())

    def release(self) -> None:
        """Nothing is held."""


def prepare(studio: Studio, held_out: Path) -> None:
    """Make the folder ready and cut the crops that are measured. Raises OutputError where it holds those of others."""
    plan, out = studio.plan, studio.out
    folders = (CROPS, MEASURED, PICTURES, *(arm.name for arm in plan.arms))
    require_place(out, studio.data, held_out, written=folders)
    settings = _crop_config(studio)
    pairs = open_source(DataSource(data=str(held_out)), settings)
    own = {"data": pairs.fingerprint(), "scale": settings.scale, "crop_low_px": settings.crop_low_px}
    kept = out / CROPS / "crops.json"
    if kept.exists() and read_json(kept) != own:
        raise OutputError(f"{printable(out)}: holds a study on other crops; choose another folder for this one")
    ensure_folder(kept.parent)
    write_bytes_atomically(kept, json_text(own).encode())
    for number in range(plan.crops):
        path = kept.parent / f"{number:04d}.png"
        if not path.exists():
            write_picture(path, Picture(_pixels(pairs[number][1])))


def _crop_config(studio: Studio) -> CropConfig:
    """How held-out crops are cut: as those of training, from draws of their own. Raises UsageError if arms differ."""
    plan = studio.plan
    found = {replace(arm.config(plan.max_steps, plan.settings), seed=0).crops for arm in plan.arms}
    if len(found) > 1:
        raise UsageError("the systems of a study must have the same crops: scale, crop_low_px, shrink_factors")
    return found.pop()


def _pixels(image: Tensor) -> Any:
    return from_tensor(image, np.uint8)


def train_and_measure(studio: Studio, arms: Iterable[Arm]) -> list[Arm]:
    """Finish arms that nobody else is working on, one after the other; returns those that somebody is."""
    elsewhere = []
    for arm in arms:
        with studio.alone(arm) as free:
            if not free:
                studio.on_notice(f"{arm.name}: another process is working on it")
                elsewhere.append(arm)
                continue
            studio.train(arm)
            studio.on_notice(f"{arm.name}: measuring")
            measure(studio, [arm])
    return elsewhere


def measure(studio: Studio, arms: Sequence[Arm]) -> Sweep:
    """Bicubic, a flat colour and every kept net of these arms on the crops, as one benchmark; nothing twice."""
    plan = studio.plan
    (dataset,) = open_datasets(
        [studio.out / CROPS],
        [],
        protocol=choose_protocol("standard"),
        degradation=Degradation(),
        scale=_crop_config(studio).scale,
        square_px=1,
        limit=plan.crops,
    )
    methods: list[Method] = [Interpolation(BICUBIC), FlatColour()]
    methods += [method for arm in arms for method in methods_of(studio, arm)]
    sweep = Sweep(
        [dataset],
        methods,
        perceptual(studio),
        Store(studio.out / MEASURED),
        studio.out / PICTURES,
        metrics=FIGURES,
    )
    sweep.run()
    return sweep


def perceptual(studio: Studio) -> Perceptual:
    """The networks that judge, where they work here; building them leaves the global random state as it was."""
    with torch.random.fork_rng(devices=[]):
        return Perceptual(studio.judges)


def methods_of(studio: Studio, arm: Arm) -> list[WeightsMethod]:
    """The kept nets of an arm: at its end and at equal time in all numbers of steps, else in that of the curves."""
    plan = studio.plan
    whole = (plan.max_steps, studio.equal_time_steps(arm))
    curve = plan.curve_steps_of(arm)
    precision: Literal["auto", "bf16", "fp32"] = arm.config(plan.max_steps, plan.settings).precision
    return [
        WeightsMethod(
            f"{arm.name}@{length}",
            str(studio.kept(arm, length)),
            steps=sorted({curve, *plan.steps_of(arm)}) if length in whole else (curve,),
            stochasticity=(plan.stochasticity,),
            seeds=(arm.seed,),
            device=studio.device,
            precision=precision,
            tile_px=SMALLEST_TILE_PX,
            fidelity=0.0,
            match=False,
        )
        for length in studio.lengths(arm)
        if studio.kept(arm, length).exists()
    ]


def results(studio: Studio) -> tuple[list[Result], list[Arm], Perceptual]:
    """What is measured of all complete arms, the arms, and by which networks."""
    arms = studio.complete_arms()
    sweep = measure(studio, arms)
    return sweep.results, arms, sweep.perceptual
