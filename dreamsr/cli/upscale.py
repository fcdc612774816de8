"""`dreamsr upscale`."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Literal, cast

import typer

from dreamsr.cli import console
from dreamsr.cli import picture_options as ask
from dreamsr.cli.options import Threads, checked_precision, use_threads
from dreamsr.errors import UsageError

if TYPE_CHECKING:
    from dreamsr.cli.upscale_view import UpscaleReport
    from dreamsr.outputs import IfExists
    from dreamsr.upscaling.forecast import Forecast
    from dreamsr.upscaling.plan import UpscaleRequest
    from dreamsr.upscaling.sizes import Size
    from dreamsr.upscaling.upscaler import Upscaler

DEFAULT_SCALE = 4.0
STDIN_LIMIT_BYTES = 4 << 30


def upscale(
    inputs: ask.Inputs,
    output: ask.Output = None,
    scale: ask.Scale = None,
    width: ask.Width = None,
    height: ask.Height = None,
    max_side: ask.MaxSide = None,
    weights: ask.Weights = "auto",
    steps: ask.Steps = None,
    fidelity: ask.Fidelity = 0.0,
    denoise: ask.Denoise = None,
    seed: ask.Seed = 0,
    match: ask.Match = True,
    format: ask.Format = None,
    quality: ask.Quality = None,
    strip: ask.Strip = False,
    recursive: ask.Recursive = False,
    if_exists: ask.IfExistsOption = "error",
    max_pixels: ask.MaxPixels = None,
    accept_damaged: ask.AcceptDamaged = False,
    device: ask.Device = "auto",
    precision: ask.Precision = "auto",
    tile: ask.Tile = "auto",
    threads: Threads = None,
    dry_run: ask.DryRun = False,
    as_json: ask.AsJson = False,
    progress: ask.ProgressKind = "bar",
    quiet: ask.Quiet = False,
    consistency: ask.Consistency = False,
    compare: ask.Compare = None,
) -> None:
    """Enlarge pictures.

    One picture or ten thousand: `dreamsr upscale photos/ -r -o large/ -s 2`. Files that cannot be enlarged are
    reported and passed over; the exit code is then 1.
    """
    from dreamsr.cli.upscale_view import UpscaleReport, checked_kind
    from dreamsr.pictures.read import DEFAULT_MAX_PIXELS
    from dreamsr.upscaling.files import upscale_files
    from dreamsr.upscaling.forecast import Forecast, key_of
    from dreamsr.upscaling.plan import UpscaleRequest
    from dreamsr.upscaling.settings import Settings
    from dreamsr.upscaling.stages import Options
    from dreamsr.weights.registry import candidates

    size = _size(scale, width, height, max_side)
    candidates(weights, denoise)  # told before any work, and by --dry-run
    settings = Settings(steps=steps, seed=seed, fidelity=fidelity, tile_px=_tile(tile), match=match)
    policy, limit = cast("IfExists", if_exists), DEFAULT_MAX_PIXELS if max_pixels is None else max_pixels
    data = _standard_input(inputs)
    request = UpscaleRequest(inputs, size, output, format, recursive, policy, limit, data)
    number_format = checked_precision(precision)
    if quality is not None and not 1 <= quality <= 100:
        raise UsageError(f"--quality is {quality}, but it must be 1 to 100")
    kind = checked_kind(progress)
    _check_streams(request, as_json=as_json or kind == "json")
    use_threads(threads)
    options = Options(quality, strip, dry_run, consistency, compare, accept_damaged)
    forecast = Forecast(key_of(weights, size, device, number_format, tile, threads), steps)
    with console.bars(quiet=quiet or kind != "bar") as bars:
        report = UpscaleReport(
            bars,
            as_json=as_json,
            quiet=quiet,
            progress=kind,
            forecast=forecast,
            dry_run=dry_run,
            skips=policy == "skip",
        )
        try:
            summary = upscale_files(
                request,
                settings,
                options,
                make_upscaler=lambda: _upscaler(weights, device, number_format, denoise, report, forecast),
                watcher=report,
                write_stream=_write_standard_output,
                on_planning=report.planning,
                forecast=forecast,
            )
        except (KeyboardInterrupt, SystemExit):
            report.interrupted()
            raise
        finally:
            forecast.keep()
    report.summarize(summary)
    if summary["failed"]:
        raise typer.Exit(1)


def _size(scale: float | None, width: int | None, height: int | None, max_side: int | None) -> Size:
    from dreamsr.upscaling.sizes import Size

    if (scale, width, height, max_side) == (None, None, None, None):
        scale = DEFAULT_SCALE
    return Size(scale=scale, width=width, height=height, max_side=max_side)


def _tile(text: str) -> int | None:
    if text == "auto":
        return None
    try:
        return int(text)
    except ValueError:
        raise UsageError(f"--tile is {text!r}, but it must be auto or a number of pixels") from None


def _standard_input(inputs: list[str]) -> bytes:
    """What standard input holds, where it is an input. Raises UsageError with several processes."""
    from dreamsr.processes import is_alone

    if "-" not in inputs:
        return b""
    if not is_alone():
        raise UsageError("standard input cannot be shared by several processes; give files")
    if sys.stdin is None:
        raise UsageError("standard input is an input, but it is closed; give files")
    return sys.stdin.buffer.read(STDIN_LIMIT_BYTES)


def _check_streams(request: UpscaleRequest, *, as_json: bool) -> None:
    to_stdout = request.output == "-" or (request.output is None and "-" in request.inputs)
    if to_stdout and as_json:
        raise UsageError("--json and the picture cannot both go to standard output; give -o FILE")
    if to_stdout and sys.stdout is None:
        raise UsageError("a picture would go to standard output, which is closed; give -o FILE")
    if to_stdout and sys.stdout.isatty():
        raise UsageError("a picture would go to the terminal; give -o FILE, or send standard output elsewhere")


def _upscaler(
    weights: str,
    device: str,
    precision: Literal["auto", "bf16", "fp16", "fp32"],
    denoise: float | None,
    report: UpscaleReport,
    forecast: Forecast,
) -> Upscaler:
    began = time.monotonic()
    from dreamsr.processes import local_device
    from dreamsr.upscaling.upscaler import Upscaler

    upscaler = Upscaler(
        weights,
        local_device(device),
        precision=precision,
        denoise=denoise,
        on_notice=report.noticed,
        on_download=report.downloaded,
    )
    forecast.loaded(upscaler.scales, upscaler.continuous, upscaler.default_steps, time.monotonic() - began)
    return upscaler


def _write_standard_output(data: bytes) -> None:
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()
