"""The options of `dreamsr upscale`, in the order of its help."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dreamsr.cli import completion
from dreamsr.cli.options import MACHINE

SIZE, LOOK, FILES, REPORT = "Size", "Look", "Files", "Report"

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
        help="auto: those that suit each picture; or a name from `dreamsr weights list`, a file, a run's folder, or "
        "user/repo on the Hub.",
        rich_help_panel=LOOK,
    ),
]
Steps = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="Denoising steps: 1 is quickest; bundled weights gain little from 2 to 8, nothing beyond. "
        "Default: what the weights recommend.",
        show_default=False,
        rich_help_panel=LOOK,
    ),
]
Fidelity = Annotated[
    float, typer.Option(metavar="0..1", help="0 for most texture, 1 for most faithful.", rich_help_panel=LOOK)
]
Denoise = Annotated[
    float | None,
    typer.Option(
        metavar="0..1",
        help="1 repairs noise and compression as the weights learnt to, 0 leaves them as they are. Default: repairs; "
        "`-w auto` spares pictures that show no damage.",
        show_default=False,
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
Precision = Annotated[str, typer.Option(metavar="NAME", help="auto, bf16 or fp32.", rich_help_panel=MACHINE)]
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
