"""The Python API: pictures come back as they came, and importing stays cheap."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import dreamsr
from dreamsr.errors import ImageError, UsageError
from dreamsr.upscaling.sizes import Size
from dreamsr.upscaling.upscaler import Progress, Upscaler

RNG = np.random.default_rng(0)


def test_importing_does_not_import_torch() -> None:
    code = "import sys, dreamsr; print({'torch', 'numpy', 'PIL', 'rich', 'typer'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_names_are_there_and_others_are_not() -> None:
    assert {"upscale", "Upscaler", "Size", "__version__"} <= set(dir(dreamsr))
    assert dreamsr.Upscaler is Upscaler
    with pytest.raises(AttributeError, match="no attribute 'downscale'"):
        _ = dreamsr.downscale  # type: ignore[attr-defined]


@pytest.mark.parametrize("channels", [None, 1, 2, 3, 4])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32, np.float64, np.float16])
def test_arrays_give_arrays(tiny_upscaler: Upscaler, channels: int | None, dtype: type) -> None:
    shape = (6, 9) if channels is None else (6, 9, channels)
    array = RNG.random(shape)
    if np.issubdtype(dtype, np.integer):
        array = array * np.iinfo(dtype).max
    result = tiny_upscaler(array.astype(dtype), 2, steps=1)
    assert isinstance(result, np.ndarray)
    assert result.shape == (12, 18, *shape[2:])
    assert result.dtype == dtype
    if np.issubdtype(dtype, np.floating):
        assert 0 <= result.min() <= result.max() <= 1


@pytest.mark.parametrize("shape", [(3, 6, 9), (1, 6, 9), (2, 3, 6, 9), (1, 4, 6, 9)])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.bfloat16])
def test_tensors_give_tensors(tiny_upscaler: Upscaler, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    tensor = (torch.rand(shape) * (255 if dtype == torch.uint8 else 1)).to(dtype)
    result = tiny_upscaler(tensor, 2, steps=1)
    assert isinstance(result, torch.Tensor)
    assert result.shape == (*shape[:-2], 12, 18)
    assert result.dtype == dtype


def test_a_batch_is_what_its_pictures_are_alone(tiny_upscaler: Upscaler) -> None:
    batch = torch.rand(2, 3, 8, 8)
    together = tiny_upscaler(batch, 2, steps=1)
    alone = torch.stack([tiny_upscaler(one, 2, steps=1) for one in batch])
    assert torch.equal(together, alone)


def test_arrays_and_tensors_agree(tiny_upscaler: Upscaler) -> None:
    array = RNG.random((7, 8, 3), dtype=np.float32)
    from_array = tiny_upscaler(array, 3, steps=1)
    from_tensor = tiny_upscaler(torch.from_numpy(array).movedim(-1, 0), 3, steps=1)
    assert (from_tensor.movedim(0, -1).numpy() == from_array).all()


@pytest.mark.parametrize(
    ("mode", "expected"),
    [("1", "L"), ("L", "L"), ("LA", "LA"), ("P", "RGB"), ("RGB", "RGB"), ("RGBA", "RGBA"), ("CMYK", "RGB"),
     ("I;16", "I;16")],
)  # fmt: skip
def test_pil_gives_pil(tiny_upscaler: Upscaler, mode: str, expected: str) -> None:
    kind = "L" if mode == "I;16" else mode
    image = Image.fromarray(RNG.integers(0, 256, (5, 7, 3), np.uint8)).convert(kind)
    image = Image.fromarray(np.asarray(image).astype(np.uint16) * 257) if mode == "I;16" else image
    result = tiny_upscaler(image, 2.5, steps=1)
    assert (result.mode, result.size) == (expected, (18, 13))


def test_paths_give_pil(tiny_weights: Path, tmp_path: Path) -> None:
    Image.new("RGB", (5, 4), "teal").save(tmp_path / "a.png")
    heard: list[Progress] = []
    for path in (tmp_path / "a.png", str(tmp_path / "a.png")):
        result = dreamsr.upscale(path, weights=tiny_weights, device="cpu", on_progress=heard.append)
        assert result.size == (20, 16)
        assert result.getpixel((0, 0)) == (0, 128, 128)


def test_a_size_may_be_asked_for(tiny_upscaler: Upscaler) -> None:
    assert tiny_upscaler(np.zeros((10, 20, 3), np.uint8), Size(width=50)).shape == (25, 50, 3)
    assert tiny_upscaler(np.zeros((10, 20, 3), np.uint8), dreamsr.Size(max_side=30)).shape == (15, 30, 3)


def test_the_input_is_left_alone(tiny_upscaler: Upscaler) -> None:
    array = RNG.integers(0, 256, (9, 9, 4), np.uint8)
    before = array.copy()
    tiny_upscaler(array, 2, steps=1)
    assert (array == before).all()
    frozen = array.copy()
    frozen.setflags(write=False)
    tiny_upscaler(frozen, 2, steps=1)


@pytest.mark.parametrize(
    "image",
    [
        None,
        7,
        [[1, 2], [3, 4]],
        np.zeros((4,), np.uint8),
        np.zeros((4, 4, 5), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
        np.zeros((4, 4), np.int64),
        np.zeros((4, 4), bool),
        np.full((4, 4), np.nan),
        np.full((4, 4, 3), 200.0),
        torch.zeros(4, 4),
        torch.zeros(3, 0, 4),
        torch.zeros(9, 4, 4),
    ],
)
def test_what_is_no_picture_is_refused(tiny_upscaler: Upscaler, image: Any) -> None:
    with pytest.raises(ImageError):
        tiny_upscaler(image)


@pytest.mark.parametrize("scale", [0, 1, -2, 17, float("nan"), float("inf")])
def test_impossible_scales_are_refused(tiny_upscaler: Upscaler, scale: float) -> None:
    with pytest.raises(UsageError):
        tiny_upscaler(np.zeros((4, 4, 3), np.uint8), scale)
