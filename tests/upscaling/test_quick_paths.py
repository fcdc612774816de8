"""What is done for speed changes next to nothing: bfloat16, tiles and flat places against plain float32, whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dreamsr.pictures.read import read_picture
from dreamsr.upscaling.settings import Settings
from dreamsr.upscaling.upscaler import Upscaler

PICTURES = Path(__file__).parent.parent / "pictures"


@pytest.mark.parametrize("weights", ["photo-x4", "clean-x4"])
@pytest.mark.parametrize("name", ["coffee", "cat"])
def test_quick_paths_agree_with_plain_float32(weights: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    small = np.ascontiguousarray(read_picture(PICTURES / f"{name}.png").pixels[:75, :96])
    target = (4 * small.shape[0], 4 * small.shape[1])
    quick = Upscaler(weights, "cpu", precision="bf16").enlarge(small, *target, Settings(steps=1, tile_px=80))
    monkeypatch.setattr("dreamsr.upscaling.tiled.flattened", lambda image, _low, _even: image)
    plain = Upscaler(weights, "cpu", precision="fp32").enlarge(small, *target, Settings(steps=1, tile_px=288))
    apart = np.abs(quick.astype(int) - plain)
    assert apart.mean() < 1
    assert np.percentile(apart, 99.9) <= 4
