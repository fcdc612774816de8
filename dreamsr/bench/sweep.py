"""All images by all variants of all methods, once each, with the time left; what is finished is not done again."""

from __future__ import annotations

import base64
import dataclasses
import re
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dreamsr.bench.dataset import Dataset, Item, read_rgb8, sha256_of
from dreamsr.bench.methods import Method, Outputs, Produced, Variant
from dreamsr.bench.score import comparison, hints
from dreamsr.bench.store import Record, Store
from dreamsr.core.pixels import Pixels
from dreamsr.disk import ensure_folder
from dreamsr.errors import DataError, ImageError
from dreamsr.measure.lpips import Perceptual
from dreamsr.measure.metrics import REPORTED, Metric
from dreamsr.measure.score import score
from dreamsr.pictures.picture import Picture
from dreamsr.pictures.write import encode_picture, write_picture


@dataclass(frozen=True)
class SweepProgress:
    """`done` of `total` images, what is being done, and the seconds left as far as can be told."""

    done: int
    total: int
    doing: str
    seconds_left: float | None


OnSweepProgress = Callable[[SweepProgress], None]


@dataclass(frozen=True)
class Result:
    """One image by one variant, measured now or earlier."""

    dataset: str
    image: str
    method: str
    kind: str
    variant: Variant
    megapixels: float
    fingerprint: str
    record: Record


@dataclass(frozen=True)
class Failure:
    """A method that could not finish a set."""

    dataset: str
    method: str
    message: str


@dataclass(frozen=True)
class Measurement:
    """One image by one variant, still to be done."""

    dataset: Dataset
    number: int
    method: Method
    variant: Variant

    @property
    def weight(self) -> float:
        """How long it takes in units of its own method: evaluations."""
        return 1.0 + (self.variant.steps or 0)


@dataclass
class Clock:
    """The time left, from seconds per unit of work of each method so far."""

    jobs: Sequence[Measurement]
    done: int = 0
    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    work: dict[str, float] = field(default_factory=lambda: defaultdict(float))

    def tick(self, job: Measurement, seconds: float | None) -> None:
        """`job` is finished; `seconds` is None where it was finished before."""
        self.done += 1
        if seconds is not None:
            self.seconds[job.method.name] += seconds
            self.work[job.method.name] += job.weight

    def seconds_left(self) -> float | None:
        """None before anything was measured; methods not yet begun are taken to be as the slowest known."""
        rates = {name: self.seconds[name] / work for name, work in self.work.items() if work}
        if not rates:
            return None
        slowest = max(rates.values())
        left = self.jobs[self.done :]
        return sum(job.weight * rates[job.method.name] if job.method.name in rates else slowest for job in left)


@dataclass
class Sweep:
    """Runs jobs and gathers results and failures."""

    datasets: Sequence[Dataset]
    methods: Sequence[Method]
    perceptual: Perceptual
    store: Store
    outputs: Path | None = None
    metrics: Sequence[Metric] = tuple(REPORTED.values())
    results: list[Result] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)

    def run(self, on_progress: OnSweepProgress | None = None) -> None:
        """Do everything. Raises DataError for folders of results that lack a picture, before anything is computed."""
        self._check_outputs()
        jobs = list(self._jobs())
        clock = Clock(jobs)
        for index, job in enumerate(jobs):
            if on_progress is not None:
                doing = " ".join(p for p in (job.dataset.name, job.method.name, job.variant.label) if p)
                on_progress(SweepProgress(index, len(jobs), doing, clock.seconds_left()))
            started = time.perf_counter()
            clock.tick(job, time.perf_counter() - started if self._do(job) else None)
            if index + 1 == len(jobs) or jobs[index + 1].method is not job.method:
                job.method.release()
        if on_progress is not None:
            on_progress(SweepProgress(len(jobs), len(jobs), "done", 0.0))

    def _jobs(self) -> Iterator[Measurement]:
        """Method by method, so that weights are loaded once; image by image, so that pictures are read once."""
        for method in self.methods:
            variants = method.variants()
            for dataset in self.datasets:
                for number in range(len(dataset)):
                    for variant in variants:
                        yield Measurement(dataset, number, method, variant)

    def _check_outputs(self) -> None:
        for method in self.methods:
            if isinstance(method, Outputs):
                for dataset in self.datasets:
                    for number in range(len(dataset)):
                        method.run(dataset, number, Variant())

    def _do(self, job: Measurement) -> bool:
        """One job; whether anything had to be computed."""
        if any((f.dataset, f.method) == (job.dataset.name, job.method.name) for f in self.failures):
            return False
        item = job.dataset.item(job.number)
        identity = identity_of(job, item)
        record = self.store.get(identity)
        finished = record is not None and self._is_complete(record) and self._is_saved(job, record)
        if record is None or not finished:
            try:
                record = self._compute(job, item)
            except (DataError, ImageError) as error:
                if job.method.kind != "command":
                    raise
                self._fail(job, str(error))
                return False
            self.store.put(identity, record)
        self.results.append(
            Result(
                job.dataset.name,
                item.name,
                job.method.name,
                job.method.kind,
                job.variant,
                item.megapixels,
                item.fingerprint,
                record,
            )
        )
        return not finished

    def _fail(self, job: Measurement, message: str) -> None:
        """A method that fails on one picture has no figure for the set: its other pictures are taken back."""
        self.failures.append(Failure(job.dataset.name, job.method.name, message))
        self.results = [r for r in self.results if (r.dataset, r.method) != (job.dataset.name, job.method.name)]

    def _is_complete(self, record: Record) -> bool:
        """Whether a record holds LPIPS by every network there is now; where only luma was enlarged there is none."""
        keys = self.perceptual.keys if record.crop_png else ()
        return all(record.scores.get(key) is not None for key in keys)

    def _is_saved(self, job: Measurement, record: Record) -> bool:
        """Whether exactly this result lies where results are to be saved, if they are."""
        if self.outputs is None or not record.crop_png:
            return True
        try:
            return sha256_of(read_rgb8(self._place(job))[0]) == record.output_sha256
        except ImageError:
            return False

    def _compute(self, job: Measurement, item: Item) -> Record:
        produced = job.method.run(job.dataset, job.number, job.variant)
        scores = score(comparison(produced, item, job.dataset), self.perceptual, self.metrics)
        pixels = produced.pixels
        foreign = job.method.kind in ("outputs", "command") and pixels is not None
        if self.outputs is not None and pixels is not None:
            self._save(job, pixels)
        return Record(
            scores,
            produced.seconds,
            produced.peak_memory_mb,
            produced.evaluations,
            tuple(hints(pixels, item.truth)) if foreign and pixels is not None else (),
            sha256_of(pixels) if pixels is not None else sha256_of_luma(produced),
            "" if pixels is None else png_base64(item.show(pixels)),
        )

    def _save(self, job: Measurement, pixels: Pixels) -> None:
        path = self._place(job)
        ensure_folder(path.parent)
        write_picture(path, Picture(pixels))

    def places(self) -> list[Path]:
        """Where every enlarged picture will be saved, if they are."""
        return [] if self.outputs is None else [self._place(job) for job in self._jobs()]

    def _place(self, job: Measurement) -> Path:
        assert self.outputs is not None
        variant = "-".join(part for part in (job.method.name, job.variant.label) if part)
        name = f"{job.dataset.paths[job.number].stem}.png"
        return self.outputs / folder_name(job.dataset.name) / folder_name(variant) / name


def folder_name(name: str) -> str:
    """The name of a set or a method as that of one folder, whatever stands in it: results stay where they belong."""
    return "_" if name in (".", "..") else re.sub(r"[\\/\0]", "_", name)


def identity_of(job: Measurement, item: Item) -> dict[str, Any]:
    """All that the record of a job depends on, as JSON values."""
    return {
        "item": item.fingerprint,
        "protocol": dataclasses.asdict(job.dataset.protocol),
        "scale": job.dataset.scale,
        "method": job.method.identity(job.dataset, job.number, job.variant),
    }


def sha256_of_luma(produced: Produced) -> str:
    """Of a plane that is no picture."""
    assert produced.luma is not None
    return sha256_of(produced.luma.numpy())


def png_base64(pixels: Pixels) -> str:
    """[h,w,3] uint8 as a PNG file in base64."""
    return base64.b64encode(encode_picture(Picture(pixels), format="PNG")).decode("ascii")
