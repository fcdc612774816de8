"""What of a run's settings may change when it goes on, and what stays as it was."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from dreamsr.config import to_mapping
from dreamsr.errors import OutputError
from dreamsr.training.config import TrainConfig

MAY_CHANGE = ("save_every", "keep_last", "valid_every", "default_steps", "precision")
"""Settings that decide how a run is kept, measured and computed, not what it learns: free whenever it goes on."""
SHRUNK_SHARE = 10
"""A warm-up that is too long becomes this part of the steps that it warms up for."""


def with_short_warmup(config: TrainConfig, on_notice: Callable[[str], None]) -> TrainConfig:
    """The settings with no warm-up longer than its stage, which would never reach the learning rate; tells of it."""
    steps = max(config.base_steps, config.finish_start - config.base_steps)
    if config.warmup_steps > steps > 0:
        shrunk = max(1, steps // SHRUNK_SHARE)
        on_notice(
            f"warmup_steps is {shrunk}, not {config.warmup_steps}: no stage of this run has more than {steps} steps"
        )
        config = replace(config, warmup_steps=shrunk)
    finish = config.finish
    if finish.warmup_steps > finish.steps > 0:
        shrunk = max(1, finish.steps // SHRUNK_SHARE)
        on_notice(f"finish.warmup_steps is {shrunk}, not {finish.warmup_steps}: finishing has {finish.steps} steps")
        config = replace(config, finish=replace(finish, warmup_steps=shrunk))
    return config


def continued(
    before: TrainConfig, now: TrainConfig, *, step: int, processes: tuple[int, int], on_notice: Callable[[str], None]
) -> TrainConfig:
    """The settings with which a run of `before` goes on after `step`, where `now` is asked for; tells what changes.

    MAY_CHANGE is free. The crops of a step may be divided otherwise into batches and `processes` (before, now). Until
    finishing begins, a run may become longer or shorter and be finished otherwise; its base and warm-up stay as they
    were. Raises OutputError for any other change, and for fewer steps than are done.
    """
    if now.max_steps < step:
        raise OutputError(
            f"max_steps is {now.max_steps}, but the run has done {step} already; ask for more, or leave it out"
        )
    if now.max_steps != before.max_steps:
        now = _of_new_length(before, now, step, on_notice)
    changed = _changes(before, now, step, processes)
    if changed:
        possible = ", ".join(("max_steps", *MAY_CHANGE))
        raise OutputError(
            f"the run to resume was started with other settings ({', '.join(changed)}); only {possible}, and finish "
            "before it begins, may change"
        )
    return now


def _of_new_length(before: TrainConfig, now: TrainConfig, step: int, on_notice: Callable[[str], None]) -> TrainConfig:
    falls = "" if now.rate_schedule == "constant" else f"; from here on the learning rate falls as in {now.max_steps}"
    on_notice(f"the run has {now.max_steps} steps, not {before.max_steps}, of which {step} are done{falls}")
    stays = {"warmup_steps": before.warmup_steps}
    if step >= before.base_steps:
        stays["base_steps"] = before.base_steps
    for name, value in stays.items():
        if getattr(now, name) != value:
            on_notice(f"{name} stays {value}, as the run was begun")
    return replace(now, **stays)  # type: ignore[arg-type]


def _changes(before: TrainConfig, now: TrainConfig, step: int, processes: tuple[int, int]) -> list[str]:
    """The settings that differ and must not: "name: old -> new"."""
    old, new = to_mapping(before), to_mapping(now)
    crops = [one.batch_size * one.accumulate * world for one, world in zip((before, now), processes, strict=True)]
    divided = crops[0] == crops[1]
    free = {*MAY_CHANGE, *(("batch_size", "accumulate") if divided else ())}
    if not any(one.finish.steps > 0 and step > one.finish_start for one in (before, now)):
        free |= {"max_steps", "finish"}
        if now.max_steps != before.max_steps and step < before.base_steps:
            free.add("base_steps")
    changed = [f"{key}: {old[key]} -> {new[key]}" for key in old if key not in free and old[key] != new[key]]
    if not divided and not changed:
        changed.append(f"processes: {processes[0]} -> {processes[1]}")
    return changed
