"""How good a net is while it trains: held-out pictures, enlarged as `dreamsr upscale` does, measured, and shown.

Of each picture the middle is taken, at most MAX_LOW_PX small pixels a side, so that a CPU can afford it: eight pictures
at 1, 4 and 16 steps take the net as long as .16 megapixels of small image at 4 steps. Everything random has a fixed
seed of its own, so two validations differ only by the weights, and training goes on as if there had been none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch

from dreamsr.core import resize
from dreamsr.core.denoiser import Denoiser, evaluating
from dreamsr.core.noise import seed_of
from dreamsr.core.pixels import Pixels
from dreamsr.data.scan import pictures_below
from dreamsr.disk import ensure_folder, write_bytes_atomically
from dreamsr.errors import ConfigError, DataError, ImageError, printable
from dreamsr.measure import metrics
from dreamsr.measure.lpips import NETS, Perceptual
from dreamsr.measure.score import Scores, means, score
from dreamsr.training.config import TrainConfig
from dreamsr.training.results.sample_grid import Column, blown_up, sample_grid
from dreamsr.upscaling.settings import Settings
from dreamsr.upscaling.tiled import TiledRun

MAX_LOW_PX = 64
"""Less than any tile: each picture is enlarged in one piece."""
LEAST_LPIPS_PX = 32
GRID_PICTURES = 4
SAMPLES = "samples"

Images = Mapping[int, Sequence[Pixels]]
"""Number of denoising steps -> one enlarged picture [s*h,s*w,3] for each example."""


@dataclass(frozen=True)
class ValidRow:
    """Means over the pictures at one number of denoising steps: of each metric in WATCHED, by its key.

    None where it cannot be measured here, as LPIPS where it is not installed. Bicubic has 0 steps. PSNR and SSIM are
    those of the `y-channel` protocol: luma, `scale` px of border left out.
    """

    steps: int
    scores: Scores

    @property
    def figures(self) -> dict[metrics.Metric, float]:
        """What was measured, by metric."""
        return {metrics.METRICS[key]: value for key, value in self.scores.items() if value is not None}

    def as_json(self) -> dict[str, Any]:
        """As logs and reports hold it."""
        return {"steps": self.steps, **self.scores}


@dataclass(frozen=True)
class Validation:
    """What was measured after optimizer step `step`: a row per number of denoising steps; `score` as in `score_of`."""

    step: int
    rows: tuple[ValidRow, ...]
    bicubic: ValidRow
    score: float


@dataclass(frozen=True, eq=False)
class Example:
    """One picture to measure on: the small image [h,w,3] and the truth [s*h,s*w,3], both uint8."""

    name: str
    low: Pixels
    truth: Pixels


class Validator:
    """Measures a denoiser on `examples` at each of the configuration's `valid_steps`.

    Numbers of steps above T become T, and each counts once. With `out` every call also writes
    OUT/samples/step-000500.png. Raises DataError without examples, ConfigError without numbers of steps.
    """

    def __init__(self, examples: Sequence[Example], config: TrainConfig, out: Path | None = None) -> None:
        if not examples:
            raise DataError("there is no picture to validate on; give one or more")
        if not config.valid_steps:
            raise ConfigError("valid_steps is (), but a validation needs one number of denoising steps or more")
        most = config.model.process.timesteps
        self.examples = tuple(examples)
        self.scale = config.model.scale
        self.steps = tuple(dict.fromkeys(min(steps, most) for steps in config.valid_steps))
        self.out = out
        with torch.random.fork_rng(devices=[]):  # the network behind LPIPS is first built at random
            self.perceptual = Perceptual([net for net, key in NETS.items() if metrics.METRICS[key].watched])
        self.bicubic_images = [_bicubic(one.low, self.scale) for one in self.examples]
        self.bicubic = self.row(0, self.bicubic_images)

    def __call__(self, denoiser: Denoiser, step: int) -> Validation:
        """Enlarge, measure and show; `step` is the optimizer step that the weights come from.

        The modes of the net's modules and the global random state stay as they are. Raises OutputError where the
        samples cannot be written, DeviceError where the net gives no numbers.
        """
        images = self.enlarged(denoiser)
        rows = self.rows(images)
        if self.out is not None:
            self._show(self.out / SAMPLES / f"step-{step:06d}.png", images)
        return Validation(step, rows, self.bicubic, score_of(rows))

    def enlarged(self, denoiser: Denoiser) -> Images:
        """Every example at every number of steps, on the same path as `dreamsr upscale`, back-projection included."""
        with evaluating(denoiser.net):
            return {
                steps: [
                    _enlarged(denoiser, one.low, scale=self.scale, steps=steps, seed=number)
                    for number, one in enumerate(self.examples)
                ]
                for steps in self.steps
            }

    def rows(self, images: Images) -> tuple[ValidRow, ...]:
        """The figures of enlarged pictures, one row per number of steps."""
        return tuple(self.row(steps, found) for steps, found in images.items())

    def row(self, steps: int, images: Sequence[Pixels]) -> ValidRow:
        """The means over one enlarged picture for each example."""
        results = [
            metrics.Comparison.of(image, one.truth, metrics.planes(one.low), self.scale)
            for image, one in zip(images, self.examples, strict=True)
        ]
        return ValidRow(steps, means(score(one, self.perceptual, metrics.WATCHED) for one in results))

    def _show(self, path: Path, images: Images) -> None:
        """The first pictures as rows: small image, bicubic, each number of steps, truth."""
        ensure_folder(path.parent, advice="choose another `out`")
        first = self.examples[:GRID_PICTURES]
        columns = [
            Column("small", [blown_up(one.low, self.scale) for one in first]),
            Column("bicubic", self.bicubic_images[:GRID_PICTURES]),
            *(Column(counted(steps), found[:GRID_PICTURES]) for steps, found in images.items()),
            Column("truth", [one.truth for one in first]),
        ]
        write_bytes_atomically(path, sample_grid(columns))


def open_validation(folder: Path, config: TrainConfig, out: Path) -> Validator:
    """A validator on `examples_below` a folder, which raises the same."""
    return Validator(examples_below(folder, config), config, out)


def examples_below(folder: Path, config: TrainConfig) -> list[Example]:
    """The first `valid_limit` usable pictures of a folder and its folders, by name.

    The small ones are made by the run's own degradation. Pictures that are damaged or too small are passed over.
    Raises DataError for a missing folder and where no picture is usable.
    """
    if not folder.is_dir():
        raise DataError(f"{printable(folder)}: no such folder; give `valid` a folder with pictures")
    examples: list[Example] = []
    refused: list[str] = []
    for file in pictures_below(folder):
        if len(examples) == config.valid_limit:
            break
        try:
            large = file.decoded(least_side_px(config.model.scale))
        except ImageError as error:
            refused.append(str(error))
            continue
        examples.append(degraded_example(file.name, large, config, number=len(examples)))
    if not examples:
        reason = f"; first problem: {refused[0]}" if refused else ""
        raise DataError(f"{printable(folder)}: no usable picture found{reason}; give `valid` a folder with pictures")
    return examples


def degraded_example(name: str, large: Pixels, config: TrainConfig, *, number: int) -> Example:
    """The middle of a large picture [H,W,3], made small by the run's degradation; `number` seeds the damage."""
    scale = config.model.scale
    height, width = (n // scale for n in large.shape[:2])
    truth = large[_middle(height, width, scale)]
    return Example(name, _degraded(truth, config, number), truth)


def paired_example(name: str, large: Pixels, low: Pixels, *, scale: int) -> Example:
    """The middle of a given pair: large [H,W,3] and low [h,w,3], which show the same."""
    height, width = (min(n, m // scale) for n, m in zip(low.shape[:2], large.shape[:2], strict=True))
    return Example(name, low[_middle(height, width, 1)], large[_middle(height, width, scale)])


def least_side_px(scale: int) -> int:
    """The shortest side of a large picture that SSIM's window and LPIPS still fit into, a multiple of the scale."""
    need = max(LEAST_LPIPS_PX, metrics.SSIM_WINDOW + 2 * scale)
    return -(-need // scale) * scale


def score_of(rows: Sequence[ValidRow]) -> float:
    """One figure to choose the best weights by; higher is better.

    Where LPIPS is installed, minus its mean over the rows: texture is what the steps are for, and PSNR would choose
    the weights that add none. Elsewhere PSNR-Y at the fewest steps, where a net is a regression and PSNR is fair.
    The two are no more comparable than their units: resume a run where it was begun, or with the same packages.
    """
    figures = [row.figures for row in rows]
    lpips = [found[metrics.LPIPS_ALEX] for found in figures if metrics.LPIPS_ALEX in found]
    if len(lpips) == len(rows):
        return -fmean(lpips)
    return min(rows, key=lambda row: row.steps).figures[metrics.PSNR_Y]


def counted(steps: int) -> str:
    """`1 step`, `4 steps`."""
    return f"{steps} step" if steps == 1 else f"{steps} steps"


def _middle(height: int, width: int, scale: int) -> tuple[slice, slice]:
    """The middle of a small image of height x width px, at most MAX_LOW_PX a side, in pixels `scale` times as fine."""
    starts = [(n - min(n, MAX_LOW_PX)) // 2 for n in (height, width)]
    ends = [start + min(n, MAX_LOW_PX) for start, n in zip(starts, (height, width), strict=True)]
    return slice(scale * starts[0], scale * ends[0]), slice(scale * starts[1], scale * ends[1])


def _degraded(truth: Pixels, config: TrainConfig, number: int) -> Pixels:
    """[s*h,s*w,3] -> [h,w,3] uint8."""
    scale = config.model.scale
    if config.degradation == "bicubic":
        return metrics.as_pixels(resize.shrink_8_bit(metrics.planes(truth), scale))
    from dreamsr.data.degradation import degrade_photo

    return degrade_photo(np.ascontiguousarray(truth), scale=scale, config=config.photo, seed=seed_of(number))


def _bicubic(low: Pixels, scale: int) -> Pixels:
    return metrics.as_pixels(resize.enlarge_8_bit(metrics.planes(low), scale))


def _enlarged(denoiser: Denoiser, low: Pixels, *, scale: int, steps: int, seed: int) -> Pixels:
    """[h,w,3] -> [s*h,s*w,3] uint8, as `dreamsr upscale --seed SEED` would."""
    return TiledRun(denoiser, scale, Settings(), seed, steps, MAX_LOW_PX)(low)
