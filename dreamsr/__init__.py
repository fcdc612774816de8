"""Diffusion super-resolution that anyone can run.

    import dreamsr

    large = dreamsr.upscale("photo.jpg", scale=4)              # a path or PIL image gives a PIL image
    upscaler = dreamsr.Upscaler(device="auto")                 # weights stay loaded for many pictures
    model = dreamsr.HubModel.from_pretrained("user/mine-x4")     # a torch module with the Hub's methods
    larger = upscaler(array, scale=2.5, steps=8, seed=1)       # an array gives an array, a tensor a tensor

Importing this module is quick: torch is imported when the first of these names is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dreamsr.publishing.hub_model import HubModel
    from dreamsr.upscaling.sizes import Size
    from dreamsr.upscaling.upscaler import Progress, Upscaler, upscale

__version__ = "0.1.0"
__all__ = ["HubModel", "Progress", "Size", "Upscaler", "__version__", "upscale"]


def __getattr__(name: str) -> Any:
    if name == "HubModel":
        from dreamsr.publishing.hub_model import HubModel

        return HubModel
    if name in __all__:
        from dreamsr.upscaling import upscaler as module

        return getattr(module, name)
    raise AttributeError(f"module 'dreamsr' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
