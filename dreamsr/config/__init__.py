"""Every setting of a model and of a training run, as frozen dataclasses.

A configuration travels as plain JSON or TOML (in the header of a weights file, in a preset, beside a
checkpoint); `from_mapping` turns it into these classes and refuses what it does not know.
"""

from dreamsr.config.mapping import from_mapping, to_mapping
from dreamsr.config.model import (
    IDMConfig,
    ModelConfig,
    Prediction,
    ProcessConfig,
    RefinerConfig,
    ResShiftConfig,
    SR3Config,
)
from dreamsr.config.training import DreamConfig, FinishConfig, PhotoConfig, Stage, TrainConfig

__all__ = [
    "DreamConfig",
    "FinishConfig",
    "IDMConfig",
    "ModelConfig",
    "PhotoConfig",
    "Prediction",
    "ProcessConfig",
    "RefinerConfig",
    "ResShiftConfig",
    "SR3Config",
    "Stage",
    "TrainConfig",
    "from_mapping",
    "to_mapping",
]
