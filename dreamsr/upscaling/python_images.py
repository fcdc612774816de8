"""Pictures as Python programs hold them: paths, PIL images, arrays and tensors, in and out alike."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dreamsr.errors import ImageError
from dreamsr.pictures.picture import Picture
from dreamsr.pictures.read import from_pil, read_picture
from dreamsr.pictures.write import to_pil

GiveBack = Callable[[Sequence[Picture]], Any]
POSSIBLE = "give a path, a PIL image, an array [H,W] or [H,W,C], or a tensor [C,H,W] or [B,C,H,W]"


def as_pictures(image: object) -> tuple[list[Picture], GiveBack]:
    """The pictures in `image` (one, or a batch), and a function that returns results in the same kind.

    Raises ImageError for what is no picture.
    """
    from PIL import Image

    if isinstance(image, str | os.PathLike):
        return [read_picture(os.fspath(image))], lambda results: to_pil(results[0])
    if isinstance(image, Image.Image):
        return [from_pil(image)], lambda results: to_pil(results[0])
    if isinstance(image, np.ndarray):
        return [_from_array(image)], lambda results: _to_array(results[0], image)
    if isinstance(image, torch.Tensor):
        return _from_tensor(image)
    raise ImageError(f"{type(image).__name__} is no picture; {POSSIBLE}")


def _from_array(array: NDArray[Any]) -> Picture:
    if array.ndim not in (2, 3) or 0 in array.shape or (array.ndim == 3 and not 1 <= array.shape[2] <= 4):
        raise ImageError(f"an array of shape {array.shape} is no picture; {POSSIBLE}, C in 1..4")
    samples = _whole_numbers(array if array.ndim == 3 else array[..., None])  # [H,W,C]
    if samples.shape[2] in (2, 4):
        return Picture(np.ascontiguousarray(samples[..., :-1]), np.ascontiguousarray(samples[..., -1]))
    return Picture(np.ascontiguousarray(samples))


def _whole_numbers(array: NDArray[Any]) -> NDArray[Any]:
    """uint8 and uint16 as they are, floats in 0..1 as uint16: their precision is the net's, not the file's."""
    if array.dtype in (np.uint8, np.uint16):
        return array
    if not np.issubdtype(array.dtype, np.floating):
        raise ImageError(f"{array.dtype} values are not understood; give uint8, uint16, or floats in 0..1")
    if not np.isfinite(array).all():
        raise ImageError("the picture holds values that are not numbers; give floats in 0..1")
    if array.min() < -0.5 or array.max() > 1.5:
        raise ImageError(f"floats must be in 0..1, but these reach from {array.min():g} to {array.max():g}")
    return np.rint(np.clip(array.astype(np.float64), 0, 1) * 65535).astype(np.uint16)


def _to_array(picture: Picture, like: NDArray[Any]) -> NDArray[Any]:
    samples = picture.pixels
    if picture.alpha is not None:
        samples = np.concatenate([samples, picture.alpha[..., None]], axis=2)
    if np.issubdtype(like.dtype, np.floating):
        samples = (samples / 65535).astype(like.dtype)
    return samples[..., 0] if like.ndim == 2 else samples


def _from_tensor(tensor: torch.Tensor) -> tuple[list[Picture], GiveBack]:
    if tensor.ndim not in (3, 4) or 0 in tensor.shape:
        raise ImageError(f"a tensor of shape {tuple(tensor.shape)} is no picture; {POSSIBLE}")
    plain = tensor.detach().cpu()
    # numpy knows no bfloat16, and half precision would be rounded twice.
    arrays = (plain.float() if plain.is_floating_point() else plain).movedim(-3, -1).numpy()  # [...,H,W,C]
    batch = list(arrays) if tensor.ndim == 4 else [arrays]

    def give_back(results: Sequence[Picture]) -> torch.Tensor:
        parts = [torch.from_numpy(_to_array(result, batch[0])).movedim(-1, -3) for result in results]
        joined = torch.stack(parts) if tensor.ndim == 4 else parts[0]
        return joined.to(tensor.device, tensor.dtype).contiguous()

    return [_from_array(array) for array in batch], give_back
