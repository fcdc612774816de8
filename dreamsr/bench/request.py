"""What a benchmark is asked to do, and how two training runs that it compares were set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from dreamsr.bench.weights import weights_name
from dreamsr.disk import read_json
from dreamsr.errors import ConfigError, UsageError

FEWEST_SEEDS, MOST_SEEDS = 1, 100


@dataclass(frozen=True)
class BenchRequest:
    """One benchmark in full; JSON values only, so that a report can be run again from itself.

    weights: NAME=REF or REF. steps: empty for what each of the weights recommends. seeds: how many, from
    `first_seed` on. ablation: two training runs to compare in pairs. outputs, commands: (name, folder) and
    (name, command line) of other tools. tile_px: fixed, since tiling chosen by free memory would change figures.
    """

    data: tuple[str, ...]
    low: tuple[str, ...] = ()
    weights: tuple[str, ...] = ()
    ablation: tuple[str, ...] = ()
    steps: tuple[int, ...] = ()
    seeds: int = 1
    first_seed: int = 0
    stochasticity: tuple[float, ...] = (0.0,)
    fidelity: float = 0.0
    match: bool = True
    outputs: tuple[tuple[str, str], ...] = ()
    commands: tuple[tuple[str, str], ...] = ()
    command_timeout_s: float = 3600.0
    protocol: str = "standard"
    degradation: str = "bicubic"
    degradation_seed: int = 0
    scale: int = 4
    square_px: int = 512
    limit: int | None = None
    lpips: tuple[str, ...] = ("alex",)
    device: str = "auto"
    precision: Literal["auto", "bf16", "fp16", "fp32"] = "auto"
    threads: int | None = None
    tile_px: int = 512
    speed: bool = False
    speed_px: tuple[int, ...] = (128, 256, 512)

    def __post_init__(self) -> None:
        _require(bool(self.data) or self.speed, "DATA", "nothing", "one or more folders with large pictures")
        _require(all(16 <= n <= 8192 for n in self.speed_px), "`speed_px`", self.speed_px, "16..8192 each")
        _require(bool(self.speed_px), "`speed_px`", "empty", "one or more numbers of pixels")
        _require(2 <= self.scale <= 16, "`scale`", self.scale, "2..16")
        _require(FEWEST_SEEDS <= self.seeds <= MOST_SEEDS, "`seeds`", self.seeds, f"{FEWEST_SEEDS}..{MOST_SEEDS}")
        _require(self.first_seed >= 0, "`first_seed`", self.first_seed, "0 or more")
        _require(all(s >= 1 for s in self.steps), "`steps`", self.steps, "1 or more each")
        _require(len(set(self.steps)) == len(self.steps), "`steps`", self.steps, "different from each other")
        _require(bool(self.stochasticity), "`stochasticity`", "empty", "one or more numbers in 0..1")
        _require(all(0 <= s <= 1 for s in self.stochasticity), "`stochasticity`", self.stochasticity, "in 0..1 each")
        _require(len(self.ablation) in (0, 2), "`ablation`", self.ablation, "two training runs")
        _require(self.limit is None or self.limit >= 1, "`limit`", self.limit, "1 or more")
        _require(self.threads is None or self.threads >= 1, "`threads`", self.threads, "1 or more")
        _require(self.command_timeout_s > 0, "`command_timeout_s`", self.command_timeout_s, "above 0")
        plain_y = self.protocol != "y-channel" or (not self.low and self.degradation == "bicubic")
        _require(plain_y, "`protocol`", "y-channel", "without `low` and `degradation`: it shrinks luma by itself")


def _require(holds: bool, name: str, given: object, possible: str) -> None:
    if not holds:
        shown = ",".join(str(part) for part in given) if isinstance(given, tuple) else given
        raise UsageError(f"{name} is {shown}, but it must be {possible}")


def ablation(runs: Sequence[str]) -> dict[str, Any] | None:
    """Two training runs and every setting in which their `config.json` differ; None where none were given."""
    if not runs:
        return None
    settings = [_run_settings(Path(weights_name(run)[1])) for run in runs]
    keys = sorted(set(settings[0]) | set(settings[1]))
    differing = {key: [s.get(key) for s in settings] for key in keys if settings[0].get(key) != settings[1].get(key)}
    return {
        "runs": list(runs),
        "differences": differing if all(settings) else "unknown: no config.json beside the weights",
    }


def _run_settings(run: Path) -> dict[str, Any]:
    """Dotted names -> values of a run's training configuration; empty where there is none."""
    path = (run if run.is_dir() else run.parent) / "config.json"
    if not path.exists():
        return {}
    try:
        return _flat(read_json(path)["train"], "")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ConfigError(f"{path}: not a training run's configuration ({error})") from None


def _flat(value: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, inner in value.items():
        flat.update(_flat(inner, f"{prefix}{key}.") if isinstance(inner, dict) else {f"{prefix}{key}": inner})
    return flat
