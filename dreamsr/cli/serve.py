"""`dreamsr serve`."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from importlib.util import find_spec
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from dreamsr.cli import console
from dreamsr.cli import picture_options as ask
from dreamsr.cli.options import Threads, checked_precision, use_threads
from dreamsr.errors import UsageError

if TYPE_CHECKING:
    from dreamsr.serving.choices import Choices
    from dreamsr.upscaling.upscaler import Upscaler

NEEDED = ("starlette", "uvicorn")
INSTALL = 'pip install "dreamsr[serve]"'

Port = Annotated[int, typer.Option(metavar="N", min=0, max=65535, help="Of this machine; 0 for any that is free.")]
NoBrowser = Annotated[bool, typer.Option("--no-browser", help="Only show the address, and open nothing.")]


def serve(
    port: Port = 0,
    no_browser: NoBrowser = False,
    weights: ask.Weights = "auto",
    max_pixels: ask.MaxPixels = None,
    device: ask.Device = "auto",
    precision: ask.Precision = "auto",
    threads: Threads = None,
) -> None:
    """Enlarge pictures on a page in your browser.

    Drop pictures on it, compare before and after, save what you like. They stay on this machine, and no other reaches
    the page. Ctrl-C ends it.
    """
    if any(find_spec(name) is None for name in NEEDED):
        raise UsageError(f"the page needs a server that is not installed: {INSTALL}")
    from dreamsr.pictures.read import DEFAULT_MAX_PIXELS
    from dreamsr.serving.server import running
    from dreamsr.upscaling.files import ending_cleanly
    from dreamsr.weights.registry import candidates
    from dreamsr.weights.resolve import resolve_weights

    number_format = checked_precision(precision)
    limit = DEFAULT_MAX_PIXELS if max_pixels is None else max_pixels
    use_threads(threads)
    for name in candidates(weights, None):
        resolve_weights(name, on_notice=console.note)  # fetched now, or told now that they cannot be had

    def make(choices: Choices, on_notice: Callable[[str], None], on_download: Callable[[int, int], None]) -> Upscaler:
        return _upscaler(choices, device, number_format, on_notice, on_download)

    try:
        with ending_cleanly(), running(port, weights, max_pixels=limit, make_enlarger=make) as server:
            console.say(f"dreamsr serves at {server.address} (ctrl-C ends it)")
            if not no_browser and _has_screen():
                threading.Thread(target=_open_browser, args=(server.door,), daemon=True).start()
            server.queue.work(server.answers)
    except KeyboardInterrupt:
        console.note("ended; pictures that were not saved are gone")


def _upscaler(
    choices: Choices,
    device: str,
    precision: Literal["auto", "bf16", "fp16", "fp32"],
    on_notice: Callable[[str], None],
    on_download: Callable[[int, int], None],
) -> Upscaler:
    from dreamsr.upscaling.upscaler import Upscaler

    return Upscaler(
        choices.weights,
        device,
        precision=precision,
        denoise=choices.denoise,
        on_notice=on_notice,
        on_download=on_download,
    )


def _open_browser(address: str) -> None:
    import webbrowser

    webbrowser.open(address)


def _has_screen() -> bool:
    """Whether a browser would open a window; on Linux without a screen it would take the terminal."""
    return sys.platform != "linux" or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
