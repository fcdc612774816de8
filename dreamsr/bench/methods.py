"""What can be measured: interpolation, other tools' folders, other tools' commands; weights.py has ours."""

from __future__ import annotations

import shlex
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from dreamsr.bench.dataset import Dataset, Item, partner, read_rgb8
from dreamsr.core import resize
from dreamsr.core.pixels import Pixels
from dreamsr.disk import file_sha256
from dreamsr.errors import DataError, UsageError
from dreamsr.measure import metrics
from dreamsr.measure.cost import Cost, measured, run_command
from dreamsr.pictures.lanczos import resized
from dreamsr.pictures.picture import Picture
from dreamsr.pictures.write import write_picture
from dreamsr.processes import users_environment

Kind = Literal["interpolation", "weights", "outputs", "command"]
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Variant:
    """One line of a sweep. The numbers are None where they mean nothing for the method."""

    steps: int | None = None
    stochasticity: float | None = None
    seed: int | None = None

    @property
    def label(self) -> str:
        """The numbers in words, fit for a file name."""
        parts = [f"steps{self.steps}" if self.steps is not None else "", f"seed{self.seed}" if self.seed else ""]
        parts.append(f"stochasticity{self.stochasticity:g}" if self.stochasticity else "")
        return "-".join(part for part in parts if part)


@dataclass(frozen=True, eq=False)
class Produced:
    """A result: `pixels` [s*h,s*w,3] uint8, or only its `luma` [s*h,s*w] where nothing else was enlarged."""

    pixels: Pixels | None = None
    luma: Tensor | None = None
    seconds: float | None = None
    peak_memory_mb: float | None = None
    evaluations: int | None = None


class Method(Protocol):
    """One competitor."""

    @property
    def name(self) -> str:
        """As shown in tables; unique in a report."""

    @property
    def kind(self) -> Kind:
        """What sort of competitor it is."""

    def variants(self) -> Sequence[Variant]:
        """Which lines it takes part with."""

    def identity(self, dataset: Dataset, number: int, variant: Variant) -> Mapping[str, Any]:
        """All that its result depends on beside the small image, as JSON values."""

    def run(self, dataset: Dataset, number: int, variant: Variant) -> Produced:
        """Enlarge picture `number`."""

    def release(self) -> None:
        """Let go of memory; the method can still be run again."""


@dataclass(frozen=True)
class Interpolation:
    """Bicubic as MATLAB's, or Lanczos as Pillow's: what every method has to beat."""

    name: str
    kind: Kind = "interpolation"

    def variants(self) -> Sequence[Variant]:
        return [Variant()]

    def identity(self, dataset: Dataset, number: int, variant: Variant) -> Mapping[str, Any]:  # noqa: ARG002
        return {"interpolation": self.name, "threads": torch.get_num_threads()}

    def run(self, dataset: Dataset, number: int, variant: Variant) -> Produced:
        item = dataset.item(number)
        if not dataset.protocol.interpolate_luma:
            return self.enlarged(item.low, dataset.scale, variant)
        with measured(CPU) as cost:
            luma = self._luma(item, dataset)
        return Produced(None, luma, cost.seconds, cost.peak_memory_mb, 0)

    def enlarged(self, low: Pixels, scale: int, variant: Variant = Variant()) -> Produced:  # noqa: ARG002
        """[h,w,3] uint8 enlarged, with its cost."""
        with measured(CPU) as cost:
            pixels = self._pixels(low, scale)
        return Produced(pixels, None, cost.seconds, cost.peak_memory_mb, 0)

    def _pixels(self, low: Pixels, scale: int) -> Pixels:
        if self.name == "bicubic":
            return metrics.as_pixels(resize.enlarge_8_bit(metrics.planes(low), scale))
        return resized(low, low.shape[0] * scale, low.shape[1] * scale)

    def release(self) -> None:
        """Nothing is held."""

    def _luma(self, item: Item, dataset: Dataset) -> Tensor:
        """Luma alone, shrunk and enlarged without rounding in between."""
        truth = dataset.protocol.luma(metrics.planes(item.truth), grey=item.grey)
        low = resize.shrink(truth, dataset.scale)
        if self.name == "bicubic":
            return resize.enlarge(low, dataset.scale)
        from PIL import Image

        plane = Image.fromarray(low.float().numpy())
        large = plane.resize((truth.shape[1], truth.shape[0]), Image.Resampling.LANCZOS)
        return torch.frombuffer(bytearray(large.tobytes()), dtype=torch.float32).reshape(truth.shape).double()


@dataclass(frozen=True)
class Outputs:
    """A folder that another tool filled: one picture for each of the set."""

    name: str
    folder: Path
    kind: Kind = "outputs"

    def variants(self) -> Sequence[Variant]:
        return [Variant()]

    def identity(self, dataset: Dataset, number: int, variant: Variant) -> Mapping[str, Any]:  # noqa: ARG002
        return {"outputs": sha256_of_file(partner(dataset.paths[number], self.folder_for(dataset)))}

    def folder_for(self, dataset: Dataset) -> Path:
        """The subfolder named like the set where there is one, so that several sets can be measured at once."""
        inner = self.folder / dataset.name
        return inner if inner.is_dir() else self.folder

    def run(self, dataset: Dataset, number: int, variant: Variant) -> Produced:  # noqa: ARG002
        path = partner(dataset.paths[number], self.folder_for(dataset))
        pixels, _ = read_rgb8(path)
        check_size(pixels, dataset.item(number).low, dataset.scale, what=str(path))
        return Produced(pixels)

    def release(self) -> None:
        """Nothing is held."""


@dataclass(frozen=True)
class Command:
    """Another tool, started once for each picture; {input}, {output} and {scale} are filled in, no shell is used."""

    name: str
    template: str
    timeout_s: float
    kind: Kind = "command"

    def __post_init__(self) -> None:
        if "{input}" not in self.template or "{output}" not in self.template:
            raise UsageError(f"`command` {self.name}= needs {{input}} and {{output}} in {self.template!r}")
        try:
            words = shlex.split(self.template)
        except ValueError as error:
            raise UsageError(f"`command` {self.name}= cannot be taken apart ({error}): {self.template!r}") from None
        if shutil.which(words[0]) is None:
            raise UsageError(f"`command` {self.name}=: there is no program {words[0]!r}; install it or give its path")

    def variants(self) -> Sequence[Variant]:
        return [Variant()]

    def identity(self, dataset: Dataset, number: int, variant: Variant) -> Mapping[str, Any]:  # noqa: ARG002
        return {"command": self.template, "scale": dataset.scale}

    def run(self, dataset: Dataset, number: int, variant: Variant) -> Produced:  # noqa: ARG002
        item = dataset.item(number)
        return self._produced(item.low, dataset.scale, item.name)

    def enlarged(self, low: Pixels, scale: int, variant: Variant = Variant()) -> Produced:  # noqa: ARG002
        """[h,w,3] uint8 enlarged, with its cost. Raises DataError."""
        return self._produced(low, scale, "a picture")

    def _produced(self, low: Pixels, scale: int, of: str) -> Produced:
        pixels, cost = run_tool(self.template, low, scale, timeout_s=self.timeout_s, name=self.name, of=of)
        return Produced(pixels, None, cost.seconds, cost.peak_memory_mb)

    def release(self) -> None:
        """Nothing is held."""


def run_tool(
    template: str, low: Pixels, scale: int, *, timeout_s: float, name: str, of: str = "a picture"
) -> tuple[Pixels, Cost]:
    """What a command line with {input}, {output} and {scale} makes of a small image [h,w,3], and what it costs.

    `name` and `of` are the tool and the picture for messages. Raises DataError if it fails.
    """
    with tempfile.TemporaryDirectory(prefix="dreamsr-bench-") as folder:
        source, result = Path(folder, "low.png"), Path(folder, "large.png")
        write_picture(source, Picture(low))
        words = filled(template, {"{input}": str(source), "{output}": str(result), "{scale}": str(scale)})
        cost = run_command(words, timeout_s=timeout_s, environment=users_environment())
        if not result.exists():
            raise DataError(f"{name} wrote no {{output}} for {of}; it must write a picture there")
        pixels, _ = read_rgb8(result)
    check_size(pixels, low, scale, what=f"what {name} wrote for {of}")
    return pixels, cost


def filled(template: str, names: Mapping[str, str]) -> list[str]:
    """The words of a command line with its placeholders replaced, also inside words."""
    words = []
    for word in shlex.split(template):
        for placeholder, value in names.items():
            word = word.replace(placeholder, value)
        words.append(word)
    return words


def check_size(pixels: Pixels, low: Pixels, scale: int, *, what: str) -> None:
    """Raise DataError unless a result is `scale` times as large as `low`: a wrong scale is never resized away."""
    height, width = low.shape[0] * scale, low.shape[1] * scale
    if pixels.shape[:2] == (height, width):
        return
    ratio = pixels.shape[0] / low.shape[0]
    raise DataError(
        f"{what} is {pixels.shape[1]}x{pixels.shape[0]}, but x{scale} of the small image is "
        f"{width}x{height} (this looks like x{ratio:.3g}); make it again at the right scale"
    )


def sha256_of_file(path: Path) -> str:
    """Raises DataError for a file that cannot be read."""
    try:
        return file_sha256(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
