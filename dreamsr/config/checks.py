"""What configurations must hold, told with the option's name, what was given and what is possible."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dreamsr.errors import ConfigError

if TYPE_CHECKING:
    from dreamsr.config.model import IDMConfig, SR3Config


def require(holds: bool, name: str, given: object, possible: str) -> None:
    """Raise ConfigError unless `holds`."""
    if not holds:
        raise ConfigError(f"{name} is {given!r}, but it must be {possible}")


def require_widths(table: str, channels: int, multipliers: tuple[int, ...], blocks: int, groups: int) -> None:
    """Widths, depth and group normalisation of a U-Net fit together."""
    require(1 <= channels <= 4096, f"{table}.channels", channels, "1..4096")
    require(1 <= len(multipliers) <= 8, f"{table}.multipliers", multipliers, "1 to 8 levels")
    require(all(1 <= m <= 64 for m in multipliers), f"{table}.multipliers", multipliers, "each 1..64")
    require(1 <= blocks <= 16, f"{table}.blocks_per_level", blocks, "1..16")
    require(groups >= 1 and channels % groups == 0, f"{table}.groups", groups, f"a divisor of {table}.channels")


def require_unet(table: str, config: SR3Config | IDMConfig) -> None:
    """The same, with attention and dropout."""
    require_widths(table, config.channels, config.multipliers, config.blocks_per_level, config.groups)
    levels = config.attention_levels
    require(
        all(0 <= level < len(config.multipliers) for level in levels),
        f"{table}.attention_levels",
        levels,
        "levels counted from 0, below the number of multipliers",
    )
    require(0 <= config.dropout < 1, f"{table}.dropout", config.dropout, "in [0, 1)")
