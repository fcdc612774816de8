"""How fast training goes, how long it will take, and how much memory it took."""

from __future__ import annotations

import math
from collections import deque

import torch

from dreamsr.measure.cost import peak_mb
from dreamsr.training.config import TrainConfig

STEPS_TO_MEASURE = 10
REMEMBERED_STEPS = 50


class Stopwatch:
    """Seconds per step, from the latest steps of one phase; the first step of a phase warms up and does not count.

    A phase begins where steps become dearer: after the base alone, with DREAM, and with finishing.
    """

    def __init__(self, config: TrainConfig) -> None:
        dream = config.dream.start if config.dream.enabled else 0
        starts = (config.base_steps, dream, config.finish_start)
        self._starts = {start for start in starts if 0 < start < config.max_steps}
        self._max_steps = config.max_steps
        self._seconds: deque[float] = deque(maxlen=REMEMBERED_STEPS)
        self._in_phase = 0

    def add(self, step: int, seconds: float) -> None:
        """Step `step`, counted from 1, took `seconds`."""
        if step - 1 in self._starts:
            self._in_phase = 0
        self._in_phase += 1
        if self._in_phase <= 2:  # the first stands in until there is a second
            self._seconds.clear()
        self._seconds.append(seconds)

    @property
    def seconds_per_step(self) -> float:
        """The mean of the latest steps; 0 before the first."""
        return sum(self._seconds) / len(self._seconds) if self._seconds else 0.0

    def seconds_left(self, step: int) -> float:
        """Until the last step, at the speed of the latest ones."""
        return (self._max_steps - step) * self.seconds_per_step

    @property
    def is_due(self) -> bool:
        """Whether just enough steps of a phase were measured to tell how long the rest takes."""
        return self._in_phase == STEPS_TO_MEASURE + 1

    def forecast(self, step: int, images_per_second: float, peak_memory_mb: float) -> str:
        """The forecast in one line."""
        memory = f"; peak memory {peak_memory_mb / 1000:.1f} GB" if peak_memory_mb else ""
        later = sorted(start for start in self._starts if start > step)
        dearer = f"; steps from {later[0] + 1:,} on take longer" if later else ""
        left = f"{self._max_steps - step:,} steps"
        return (
            f"about {duration(self.seconds_left(step))} for {left} at {images_per_second:.1f} images/s{memory}{dearer}"
        )


def duration(seconds: float) -> str:
    """Seconds in the two units that people would say: 45 s, 12 min, 2 h 10 min, 3 d 4 h."""
    if seconds < 90:
        return f"{math.ceil(seconds)} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"


def peak_memory_mb(device: torch.device) -> float:
    """The most memory that the GPU, or on a CPU this process, has held; 0 where the system cannot tell."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    return peak_mb() or 0.0
