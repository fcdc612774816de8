"""`dreamsr upscale`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, cast

import typer

from dreamsr.cli import completion, console
from dreamsr.cli.options import MACHINE, Threads, checked_precision, use_threads
from dreamsr.cli.signals import ending_cleanly
from dreamsr.errors import UsageError

if TYPE_CHECKING:
    from dreamsr.cli.upscale_view import UpscaleReport
    from dreamsr.outputs import IfExists
    from dreamsr.upscaling.plan import UpscaleRequest
    from dreamsr.upscaling.sizes import Size
    from dreamsr.upscaling.upscaler import Upscaler

SIZE, LOOK, FILES, REPORT = "Size", "Look", "Files", "Report"
DEFAULT_SCALE = 4.0
STDIN_LIMIT_BYTES = 4 << 30

Inputs = Annotated[
    list[str],
    typer.Argument(metavar="INPUT...", help="Pictures, folders, globs, or - for standard input.", show_default=False),
]
Output = Annotated[
    str | None,
    typer.Option(
        "--output",
        "-o",
        metavar="PATH",
        help="A file, a folder, - for standard output, or a template such as '{folder}/{stem}_x{scale}.{ext}' "
        "(also {width} {height} {tree}). Default: beside the input, as NAME_x4.EXT.",
        show_default=False,
        rich_help_panel=FILES,
    ),
]
Scale = Annotated[
    float | None,
    typer.Option(
        "--scale",
        "-s",
        metavar="FACTOR",
        help="How many times larger, any number above 1 up to 16. Default: 4.",
        show_default=False,
        rich_help_panel=SIZE,
    ),
]
Width = Annotated[
    int | None,
    typer.Option(
        metavar="PX",
        help="Width of the result; the height follows unless it is given, too.",
        show_default=False,
        rich_help_panel=SIZE,
    ),
]
Height = Annotated[
    int | None,
    typer.Option(
        metavar="PX",
        help="Height of the result; the width follows unless it is given, too.",
        show_default=False,
        rich_help_panel=SIZE,
    ),
]
MaxSide = Annotated[
    int | None,
    typer.Option(
        "--max-side", metavar="PX", help="Longer side of the result.", show_default=False, rich_help_panel=SIZE
    ),
]
Weights = Annotated[
    str,
    typer.Option(
        "--weights",
        "-w",
        metavar="NAME",
        autocompletion=completion.weights,
        help="A name from `dreamsr weights list`, a file, a run's folder, or user/repo on the Hub.",
        rich_help_panel=LOOK,
    ),
]
Steps = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="Denoising steps: 1 is quickest, more add texture. Default: what the weights recommend.",
        show_default=False,
        rich_help_panel=LOOK,
    ),
]
Fidelity = Annotated[
    float, typer.Option(metavar="0..1", help="0 for most texture, 1 for most faithful.", rich_help_panel=LOOK)
]
Denoise = Annotated[
    float,
    typer.Option(
        metavar="0..1",
        help="1 repairs noise and compression as the weights learnt to, 0 leaves them as they are.",
        rich_help_panel=LOOK,
    ),
]
Seed = Annotated[int, typer.Option(metavar="N", help="Same seed, same picture.", rich_help_panel=LOOK)]
Match = Annotated[
    bool,
    typer.Option(
        "--match/--no-match",
        help="Hold colours and brightness of the result to those of the input.",
        rich_help_panel=LOOK,
    ),
]
Format = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        autocompletion=completion.formats,
        help="png, jpeg, webp, tiff, bmp or avif. Default: what -o says, else the input's.",
        show_default=False,
        rich_help_panel=FILES,
    ),
]
Quality = Annotated[
    int | None,
    typer.Option(
        metavar="1..100",
        help="Of JPEG (95), WebP (90; 100 is lossless), AVIF and HEIC (90).",
        show_default=False,
        rich_help_panel=FILES,
    ),
]
Strip = Annotated[
    bool, typer.Option("--strip", help="Leave out EXIF, XMP and the colour profile (as sRGB).", rich_help_panel=FILES)
]
Recursive = Annotated[
    bool, typer.Option("--recursive", "-r", help="Folders with all folders in them.", rich_help_panel=FILES)
]
IfExistsOption = Annotated[
    str,
    typer.Option(
        "--if-exists",
        metavar="POLICY",
        autocompletion=completion.policies,
        help="error, skip (what is whole), overwrite, or rename (NAME_2.EXT).",
        rich_help_panel=FILES,
    ),
]
MaxPixels = Annotated[
    int | None,
    typer.Option(
        "--max-pixels",
        metavar="N",
        help="Refuse inputs with more pixels. Default: 178956970.",
        show_default=False,
        rich_help_panel=FILES,
    ),
]
AcceptDamaged = Annotated[
    bool,
    typer.Option(
        "--accept-damaged", help="Enlarge pictures of which part is missing or wrong, too.", rich_help_panel=FILES
    ),
]
Device = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="auto, cuda, cuda:1, mps or cpu.",
        autocompletion=completion.devices,
        rich_help_panel=MACHINE,
    ),
]
Precision = Annotated[str, typer.Option(metavar="NAME", help="auto, bf16, fp16 or fp32.", rich_help_panel=MACHINE)]
Tile = Annotated[
    str,
    typer.Option(
        metavar="PX",
        help="Side of a tile in pixels of the input, or auto for what fits the machine's memory.",
        rich_help_panel=MACHINE,
    ),
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Show what would be done, and do nothing.", rich_help_panel=REPORT)
]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object per file on stdout.", rich_help_panel=REPORT)]
ProgressKind = Annotated[
    str,
    typer.Option(
        "--progress",
        metavar="KIND",
        autocompletion=completion.progress_kinds,
        help="bar (without a terminal: lines), lines (every 30 s), json (events on stdout) or none.",
        rich_help_panel=REPORT,
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Nothing but errors on stderr.", rich_help_panel=REPORT)]
Consistency = Annotated[
    bool,
    typer.Option(
        "--consistency",
        help="Measure how well the result, shrunk again, equals the input (PSNR in dB).",
        rich_help_panel=REPORT,
    ),
]
Compare = Annotated[
    Path | None,
    typer.Option(
        metavar="PAGE.html",
        help="Write a page with a slider between bicubic and each result.",
        show_default=False,
        rich_help_panel=REPORT,
    ),
]


def upscale(
    inputs: Inputs,
    output: Output = None,
    scale: Scale = None,
    width: Width = None,
    height: Height = None,
    max_side: MaxSide = None,
    weights: Weights = "photo-x4",
    steps: Steps = None,
    fidelity: Fidelity = 0.0,
    denoise: Denoise = 1.0,
    seed: Seed = 0,
    match: Match = True,
    format: Format = None,
    quality: Quality = None,
    strip: Strip = False,
    recursive: Recursive = False,
    if_exists: IfExistsOption = "error",
    max_pixels: MaxPixels = None,
    accept_damaged: AcceptDamaged = False,
    device: Device = "auto",
    precision: Precision = "auto",
    tile: Tile = "auto",
    threads: Threads = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
    progress: ProgressKind = "bar",
    quiet: Quiet = False,
    consistency: Consistency = False,
    compare: Compare = None,
) -> None:
    """Enlarge pictures.

    One picture or ten thousand: `dreamsr upscale photos/ -r -o large/ -s 2`. Files that cannot be enlarged are
    reported and passed over; the exit code is then 1.
    """
    from dreamsr.cli.upscale_view import UpscaleReport, checked_kind
    from dreamsr.pictures.read import DEFAULT_MAX_PIXELS
    from dreamsr.upscaling.files import upscale_files
    from dreamsr.upscaling.plan import UpscaleRequest
    from dreamsr.upscaling.settings import Settings
    from dreamsr.upscaling.stages import Options
    from dreamsr.weights.registry import denoise_partner

    size = _size(scale, width, height, max_side)
    denoise_partner(weights, denoise)  # told before any work, and by --dry-run
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
    with ending_cleanly(), console.bars(quiet=quiet or kind != "bar") as bars:
        report = UpscaleReport(bars, as_json=as_json, quiet=quiet, progress=kind)
        try:
            summary = upscale_files(
                request,
                settings,
                options,
                make_upscaler=lambda: _upscaler(weights, device, number_format, denoise, report),
                watcher=report,
                write_stream=_write_standard_output,
                on_planning=report.planning,
            )
        except (KeyboardInterrupt, SystemExit):
            report.interrupted()
            raise
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
    weights: str, device: str, precision: Literal["auto", "bf16", "fp16", "fp32"], denoise: float, report: UpscaleReport
) -> Upscaler:
    from dreamsr.processes import local_device
    from dreamsr.upscaling.upscaler import Upscaler

    return Upscaler(
        weights,
        local_device(device),
        precision=precision,
        denoise=denoise,
        on_notice=report.noticed,
        on_download=report.downloaded,
    )


def _write_standard_output(data: bytes) -> None:
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()
