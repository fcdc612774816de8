"""What fine-tuning gained on pictures that it did not learn from, and what it cost on a drawn one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from dreamsr.disk import file_sha256, json_text, write_bytes_atomically
from dreamsr.measure.machine import environment
from dreamsr.measure.metrics import LPIPS_ALEX, PSNR_Y
from dreamsr.training.config import TrainConfig
from dreamsr.training.finetuning.holdout import HeldOut
from dreamsr.training.finetuning.sanity import sanity_picture
from dreamsr.training.results.sample_grid import Column, blown_up, sample_grid
from dreamsr.training.results.validation import (
    MAX_LOW_PX,
    Example,
    Images,
    Validator,
    ValidRow,
    counted,
    degraded_example,
)
from dreamsr.upscaling.upscaler import Upscaler

REPORT = "report.json"
GRID = "before-after.png"
SHOWN_PICTURES = 3
WORSE_DB = 0.1
WORSE_LPIPS = 0.01
PROTOCOL = (
    f"middle of each picture, at most {MAX_LOW_PX} small px a side; PSNR and SSIM on MATLAB's luma, `scale` px of "
    "border left out; LPIPS alex v0.1 on RGB; seeds 0, 1, ... by picture; stochasticity 0; back-projected as by upscale"
)
Pictures = Literal["held-out", "sanity"]
Facts = Mapping[str, Any]


@dataclass(frozen=True)
class FinetuneRow:
    """What fine-tuning changed at one number of denoising steps: on held-out pictures, or on the sanity picture."""

    pictures: Pictures
    bicubic: ValidRow
    before: ValidRow
    after: ValidRow

    @property
    def steps(self) -> int:
        return self.after.steps

    @property
    def worse(self) -> bool:
        """Whether the loss is one that people would see: PSNR-Y fell by .1 dB, or LPIPS rose by .01."""
        before, after = self.before.figures, self.after.figures
        duller = LPIPS_ALEX in before and LPIPS_ALEX in after and after[LPIPS_ALEX] - before[LPIPS_ALEX] > WORSE_LPIPS
        return duller or before[PSNR_Y] - after[PSNR_Y] > WORSE_DB

    def as_json(self) -> dict[str, Any]:
        """As the report holds it."""
        rows = {"bicubic": self.bicubic, "before": self.before, "after": self.after}
        told = {name: row.as_json() for name, row in rows.items()}
        return {"pictures": self.pictures, **told, "steps": self.steps, "worse": self.worse}


@dataclass(frozen=True)
class FinetuneReport:
    """The weights that were made, what they were measured on, and how: `told` says in words what was held out."""

    weights: Path
    rows: tuple[FinetuneRow, ...]
    held_out: tuple[str, ...]
    told: str


class BeforeAfter:
    """The held-out pictures and the sanity picture, enlarged by `start` as it is, to be compared with what comes of it.

    At one step, and at as many as the weights recommend.
    """

    def __init__(self, held: HeldOut, config: TrainConfig, start: Upscaler) -> None:
        config = replace(config, valid_steps=(1, config.default_steps))
        drawn = degraded_example("sanity picture", sanity_picture(MAX_LOW_PX * config.model.scale), config, number=0)
        examples: dict[Pictures, Sequence[Example]] = {"held-out": held.examples, "sanity": (drawn,)}
        self.held = held
        self.validators = {name: Validator(found, config) for name, found in examples.items() if found}
        self.before = self._enlarged(start)

    def _enlarged(self, upscaler: Upscaler) -> dict[Pictures, Images]:
        return {name: validator.enlarged(upscaler.denoiser) for name, validator in self.validators.items()}

    def reported(self, tuned: Upscaler, out: Path, facts: Facts) -> FinetuneReport:
        """Measure the tuned weights, and write OUT/report.json and OUT/before-after.png. Raises OutputError."""
        after = self._enlarged(tuned)
        rows = tuple(row for name in self.validators for row in self._rows(name, after[name]))
        report = FinetuneReport(tuned.path, rows, self.held.names, self.held.told)
        write_bytes_atomically(out / REPORT, _as_json(report, facts, tuned).encode())
        write_bytes_atomically(out / GRID, self._grid(after))
        return report

    def _rows(self, name: Pictures, after: Images) -> list[FinetuneRow]:
        validator = self.validators[name]
        pairs = zip(validator.rows(self.before[name]), validator.rows(after), strict=True)
        return [FinetuneRow(name, validator.bicubic, old, new) for old, new in pairs]

    def _grid(self, after: Mapping[Pictures, Images]) -> bytes:
        """The first held-out pictures and the sanity picture: small, before, after, truth; at the recommended steps."""
        sanity = self.validators["sanity"]
        steps = max(sanity.steps)
        first = [one for validator in self.validators.values() for one in validator.examples[:SHOWN_PICTURES]]
        olds, news = (
            [image for name in self.validators for image in found[name][steps][:SHOWN_PICTURES]]
            for found in (self.before, after)
        )
        return sample_grid(
            [
                Column("small", [blown_up(one.low, sanity.scale) for one in first]),
                Column(f"before, {counted(steps)}", olds),
                Column(f"after, {counted(steps)}", news),
                Column("truth", [one.truth for one in first]),
            ]
        )


def _as_json(report: FinetuneReport, facts: Facts, tuned: Upscaler) -> str:
    content = {
        "weights": {"file": report.weights.name, "sha256": file_sha256(report.weights)},
        **facts,
        "told": report.told,
        "held_out": report.held_out,
        "rows": [row.as_json() for row in report.rows],
        "protocol": PROTOCOL,
        "degradation": tuned.weights.facts["train"]["degradation"],
        "environment": environment(tuned.compute),
    }
    return json_text(content, indent=2) + "\n"
