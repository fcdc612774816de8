"""From inputs to jobs: every picture probed and every output named, before any work begins."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from dreamsr.errors import DreamsrError, ImageError, OutputError, UsageError, printable
from dreamsr.folders import Problem, Source, find_sources, identity, is_file
from dreamsr.outputs import POLICIES, IfExists, Output, Protected, free_name, is_device, plan_outputs
from dreamsr.pictures.picture import PictureInfo
from dreamsr.pictures.read import DEFAULT_MAX_PIXELS, probe_picture
from dreamsr.pictures.write import MAX_SIDE_PX
from dreamsr.upscaling.compare import is_page
from dreamsr.upscaling.naming import (
    Destination,
    Naming,
    chosen_format,
    parse_destination,
    parse_format,
    targets,
    tells_size,
)
from dreamsr.upscaling.sizes import Size, check_target

OnPlanning = Callable[[int | None], None]
"""Hears how many files there are, once for each that was looked at; None for each that was found before that."""
PAGE_ENDINGS = (".html", ".htm")


@dataclass(frozen=True)
class UpscaleRequest:
    """What a command line asks for, as typed. `data` is what standard input held, where it is an input."""

    inputs: Sequence[str]
    size: Size
    output: str | None = None
    format: str | None = None
    recursive: bool = False
    if_exists: IfExists = "error"
    max_pixels: int = DEFAULT_MAX_PIXELS
    data: bytes = b""

    def __post_init__(self) -> None:
        if self.if_exists not in POLICIES:
            raise UsageError(f"`if_exists` is {printable(self.if_exists)}, but it must be one of {', '.join(POLICIES)}")
        if self.max_pixels < 1:
            raise UsageError(f"`max_pixels` is {self.max_pixels}, but it must be 1 or more")


@dataclass(frozen=True)
class Job:
    """One picture to enlarge. `target` None means standard output, and may tell the size. Sizes in pixels."""

    source: Source
    target: Path | None
    format: str
    input_height: int
    input_width: int
    height: int
    width: int
    names_size: bool = False

    @property
    def result_px(self) -> int:
        """Pixels of the result."""
        return self.height * self.width

    @property
    def target_label(self) -> str:
        """The output's name for messages."""
        return "standard output" if self.target is None else printable(self.target)


@dataclass(frozen=True)
class UpscalePlan:
    """What will be done, what cannot be, and what a user may wonder about. `page` is where a compare page goes."""

    jobs: list[Job]
    problems: list[Problem]
    notes: list[str]
    page: Path | None = None


def plan(request: UpscaleRequest, *, page: Path | None = None, on_planning: OnPlanning | None = None) -> UpscalePlan:
    """Probe every input and settle every output name, that of a compare `page` too.

    Raises UsageError for an impossible request; OutputError where an output would replace an input, or exists
    and the policy is "error". What is wrong with single inputs is returned, not raised.
    """
    asked = parse_format(request.format)
    left: Counter[str] = Counter()
    hear = on_planning or (lambda _: None)
    sources, problems = find_sources(
        request.inputs,
        recursive=request.recursive,
        on_left_out=lambda kind: left.update([kind]),
        on_found=lambda: hear(None),
    )
    destination = parse_destination(request.output, sources)
    sources, notes = _without_output_folder(sources, destination)
    notes += _left_out(left)
    namings: list[tuple[Naming, PictureInfo]] = []
    for source in sources:
        hear(len(sources))
        try:
            info = _probe(source, request)
            format = chosen_format(asked, destination, info.format)
            height, width = _target_size(info.height, info.width, format, request.size)
        except DreamsrError as error:
            problems.append(Problem(str(source.path), f"{_prefix(source, error)}{error}"))
            continue
        factor = request.size.scale or width / info.width
        text = f"{factor:.4g}"
        namings.append((Naming(source, format, text, width, height, request.size.scale is not None), info))
    paths = targets([naming for naming, _ in namings], destination)
    stream = destination.place == "stream"
    jobs = [
        Job(naming.source, None if stream else path, naming.format, info.height, info.width, naming.height,
            naming.width, tells_size(naming, destination))
        for (naming, info), path in zip(namings, paths, strict=True)
    ]  # fmt: skip
    jobs, results = _without_earlier_results(jobs, request.if_exists)
    left_out = {source.path for source in sources if source.named} - {job.source.path for job in jobs}
    unusable = [path for path in left_out if str(path) in {problem.name for problem in problems}]
    jobs = _settled(jobs, unusable, request.if_exists)
    planned = UpscalePlan(jobs, problems, notes + results)
    return planned if page is None else _with_page(planned, page, sources, request.if_exists)


def _with_page(planned: UpscalePlan, page: Path, sources: Sequence[Source], policy: IfExists) -> UpscalePlan:
    """The plan with the page, or with a note that it stays as it is. Raises OutputError."""
    (output,) = plan_outputs(
        [Output("compare", page, PAGE_ENDINGS)],
        inputs=[source.path for source in sources if not source.is_stream],
        others=[job.target for job in planned.jobs if job.target is not None],
        if_exists=policy,
    )
    if output is None and is_page(page):
        return replace(planned, page=page, notes=[*planned.notes, f"{printable(page)} exists and is added to"])
    if output is None:
        return replace(planned, notes=[*planned.notes, f"{printable(page)} exists and stays as it is"])
    return replace(planned, page=output.path)


def _left_out(kinds: Counter[str]) -> list[str]:
    """One line on what folders hold that was not taken, by kind; none where there is nothing."""
    told = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items(), key=lambda item: (-item[1], item[0])))
    return [f"left out of folders: {told}"] if told else []


def _without_output_folder(sources: list[Source], destination: Destination) -> tuple[list[Source], list[str]]:
    """Leave out what lies in an output folder within an input folder: earlier results, of whatever size."""
    place = destination.text if destination.place == "folder" else destination.folder
    if not place:
        return sources, []
    output = identity(Path(place))
    kept = [source for source in sources if source.named or not _is_within(source, output)]
    count = len(sources) - len(kept)
    return kept, [f"{count} picture(s) in {printable(place)}, where results go, are left out"] if count else []


def _is_within(source: Source, output: str) -> bool:
    """Whether a folder's picture lies in `output` (an identity), which lies in that folder itself."""
    parents = source.path.parents
    return any(identity(folder) == output for folder in parents[: len(source.tree.parts)])


def _probe(source: Source, request: UpscaleRequest) -> PictureInfo:
    if not source.is_stream and is_device(source.path):
        raise ImageError(f"{source.label} is a pipe or a device, not a file; give - and send it to standard input")
    return probe_picture(request.data if source.is_stream else source.path, max_pixels=request.max_pixels)


def _prefix(source: Source, error: DreamsrError) -> str:
    """The input's name, where the message does not hold it already."""
    return "" if source.label in str(error) else f"{source.label}: "


def _target_size(height: int, width: int, format: str, size: Size) -> tuple[int, int]:
    """(height, width) of the result. Raises UsageError where it is no larger, OutputError beyond the format."""
    tall, wide = size.of(height, width)
    check_target(height, width, tall, wide, must_grow=True)
    if max(tall, wide) > MAX_SIDE_PX[format]:
        raise OutputError(
            f"{wide}x{tall} is too large for {format}, which ends at {MAX_SIDE_PX[format]} px a side; "
            "choose `format` png or tiff"
        )
    return tall, wide


def planned_anew(job: Job, input_height: int, input_width: int, size: Size) -> Job:
    """The same job for a picture that has been replaced by one of another size. Raises as `plan` would."""
    height, width = _target_size(input_height, input_width, job.format, size)
    return replace(job, input_height=input_height, input_width=input_width, height=height, width=width)


def _without_earlier_results(jobs: list[Job], policy: IfExists) -> tuple[list[Job], list[str]]:
    """Leave out pictures that are themselves the result of another: a folder is run over again and again.

    A file that stands on the command line itself is left out only where its result is to be skipped.
    """
    results = {identity(job.target): job for job in jobs if job.target is not None}
    kept: list[Job] = []
    notes: list[str] = []
    for job in jobs:
        maker = None if job.source.is_stream else results.get(identity(job.source.path))
        if maker is not None and maker is not job and (policy == "skip" or not job.source.named):
            notes.append(f"{job.source.label} is the result of {maker.source.label} and is left out")
        else:
            kept.append(job)
    return kept, notes


def _settled(jobs: list[Job], unusable: Sequence[Path], policy: IfExists) -> list[Job]:
    """The jobs with outputs that may be written under `policy`; `unusable` inputs must not be replaced either."""
    inputs = Protected([*(job.source.path for job in jobs if not job.source.is_stream), *unusable])
    if policy == "rename":
        return _renamed(jobs)
    for job in jobs:
        if job.target is not None and job.target in inputs:
            raise OutputError(
                f"{job.target_label} is an input, and the result of {job.source.label} would replace it; "
                "choose another `output`, or `if_exists` rename"
            )
    existing = [job for job in jobs if job.target is not None and os.path.lexists(job.target) and _is_file(job.target)]
    if policy == "error" and existing:
        others = f" (and {len(existing) - 1} more)" if len(existing) > 1 else ""
        raise OutputError(
            f"{existing[0].target_label}{others} exists already; choose `if_exists` skip, overwrite or rename"
        )
    return jobs


def _renamed(jobs: list[Job]) -> list[Job]:
    taken: set[str] = set()
    renamed = []
    for job in jobs:
        if job.target is not None and not is_device(job.target):
            target = free_name(job.target, taken=lambda path: os.path.lexists(path) or identity(path) in taken)
            taken.add(identity(target))
            job = replace(job, target=target)
        renamed.append(job)
    return renamed


def _is_file(path: Path) -> bool:
    return is_file(path) or path.is_symlink()
