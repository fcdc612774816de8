"""Publish weights: a Hub repository and a table of weights.toml, both written from what a training run left."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dreamsr.config import to_mapping
from dreamsr.core import resize
from dreamsr.core.pixels import Pixels, from_tensor, to_tensor
from dreamsr.disk import ensure_folder, json_text, write_bytes_atomically
from dreamsr.errors import OutputError, UsageError, WeightsError, printable
from dreamsr.outputs import require_folder
from dreamsr.pictures.picture import Picture, to_8_bit
from dreamsr.pictures.read import read_picture
from dreamsr.pictures.write import encode_picture
from dreamsr.publishing.card import model_card
from dreamsr.publishing.metrics import read_metrics
from dreamsr.upscaling.nets import recommended_steps
from dreamsr.upscaling.upscaler import Upscaler
from dreamsr.weights.file import FILE_NAME, Weights, load_weights
from dreamsr.weights.push import upload
from dreamsr.weights.registry import NAME, REPO, WeightsEntry, parse_registry, table
from dreamsr.weights.resolve import resolve_weights

SAMPLE_LOW_PX = 96
DEGRADATIONS = {
    "everything": "MATLAB bicubic, 8 bit",
    "colour": "blur, resizing, noise and compression, as cameras and the web leave pictures, 8 bit",
}
"""How small pictures were made in training, by what the weights hold of theirs."""


@dataclass(frozen=True)
class About:
    """What a run does not know of itself. Empty texts are filled from the run where they can be."""

    licence: str
    training_data: str
    training_data_licence: str
    name: str = ""
    description: str = ""
    degradation: str = ""
    metrics: Path | None = None
    sample: Path | None = None


@dataclass(frozen=True)
class Staged:
    """Everything that is to be published: the repository's files by path, and the table for weights.toml."""

    repo: str
    files: Mapping[str, bytes]
    entry: WeightsEntry


def stage(run: Path, repo: str, about: About) -> Staged:
    """Make the repository of a run (its folder, or a .safetensors file), without writing anything.

    Raises WeightsError for unusable weights, UsageError for impossible names and texts, ImageError for the sample.
    """
    if not REPO.fullmatch(repo):
        raise UsageError(f"{repo!r} cannot be a repository; it must be user/repo")
    if not run.exists():
        raise UsageError(
            f"{printable(run)}: no such run; give a folder that `dreamsr train` wrote, or a .safetensors file"
        )
    path = resolve_weights(str(run.absolute()))
    weights, content = load_weights(path), path.read_bytes()
    entry = _entry(repo, about, weights, content)
    sample = _sample(path, about.sample, weights.config.scale)
    card = model_card(entry, weights.config, weights.facts, reference=repo, has_sample=True)
    files = {
        "README.md": card.encode(),
        "config.json": (json_text(to_mapping(weights.config), indent=2) + "\n").encode(),
        FILE_NAME: content,
        "sample.png": sample,
    }
    return Staged(repo, files, entry)


def publish(staged: Staged, *, private: bool) -> WeightsEntry:
    """Upload what was staged in one commit; returns the entry with the repository and the commit that hold it."""
    message = f"Publish {staged.entry.name} (sha256 {staged.entry.sha256[:12]})"
    commit = upload(staged.repo, staged.files, private=private, message=message)
    return dataclasses.replace(staged.entry, repo=staged.repo, revision=commit)


def require_stage(folder: Path) -> None:
    """Make sure that a repository can be put into `folder`: an empty one, or a new one. Raises OutputError."""
    try:
        taken = folder.exists() and (not folder.is_dir() or any(folder.iterdir()))
    except OSError as error:
        raise OutputError(f"{printable(folder)}: cannot be read ({error.strerror}); choose another") from None
    if taken:
        raise OutputError(f"{printable(folder)} exists and is not an empty folder; choose another")
    require_folder(folder, f"`stage` {printable(folder)}")


def write_stage(staged: Staged, folder: Path) -> None:
    """Put the repository's files into a folder instead, with its table as weights.toml. Raises OutputError."""
    require_stage(folder)
    ensure_folder(folder)
    for name, content in {**staged.files, "weights.toml": table(staged.entry).encode()}.items():
        write_bytes_atomically(folder / name, content)


def _entry(repo: str, about: About, weights: Weights, content: bytes) -> WeightsEntry:
    config, facts, traits = weights.config, weights.facts, weights.traits
    name = about.name or repo.split("/")[1].lower()
    if not NAME.fullmatch(name):
        raise UsageError(f"`name` is {name!r}, but it must be made of a-z, 0-9, '.', '_' and '-'")
    sha256 = hashlib.sha256(content).hexdigest()
    entry = WeightsEntry(
        name=name,
        description=about.description or f"{config.scale}x super-resolution with the {config.backbone} backbone",
        backbone=config.backbone,
        scale=config.scale,
        degradation=about.degradation or DEGRADATIONS[traits.holds],
        steps=recommended_steps(facts),
        sha256=sha256,
        size_bytes=len(content),
        licence=about.licence,
        training_data=about.training_data,
        training_data_licence=about.training_data_licence,
        metrics=read_metrics(about.metrics, sha256=sha256) if about.metrics else (),
    )
    try:
        return parse_registry(table(entry), source="the table")[name]
    except WeightsError as error:
        raise UsageError(f"the weights cannot be described like this: {error}") from None


def _sample(weights: Path, photo: Path | None, scale: int) -> bytes:
    """A PNG that shows bicubic, the weights and the original side by side."""
    side = SAMPLE_LOW_PX * scale
    high = chart(side) if photo is None else _middle(to_8_bit(read_picture(photo).pixels), side, scale)
    low = resize.shrink(to_tensor(high).double(), scale)  # [3,h,w]
    bicubic = from_tensor(resize.enlarge(resize.as_stored(low), scale))
    ours = Upscaler(weights, "cpu", precision="fp32")(from_tensor(low), scale)
    return encode_picture(Picture(np.concatenate([bicubic, ours, high], axis=1)), format="PNG")


def _middle(pixels: Pixels, side: int, scale: int) -> Pixels:
    """The middle of a photo, at most `side` px square, its sides multiples of `scale`, [H,W,3]."""
    height, width = (min(side, n) // scale * scale for n in pixels.shape[:2])
    if min(height, width) < 8 * scale:
        raise UsageError(
            f"the sample is {pixels.shape[1]}x{pixels.shape[0]} px; give a photo of {8 * scale} px or more"
        )
    top, left = (pixels.shape[0] - height) // 2, (pixels.shape[1] - width) // 2
    part = pixels[top : top + height, left : left + width]
    grey = part.shape[2] == 1
    return np.concatenate([part, part, part], axis=2) if grey else part


def chart(side: int) -> Pixels:
    """A test chart, [side,side,3] uint8: rings that grow finer outwards, slanted edges, a colour gradient."""
    y, x = np.mgrid[0:side, 0:side] / side - 0.5
    rings = np.cos(side * 0.6 * (x**2 + y**2) * np.pi)
    edges = np.where(np.sin((x * 3 + y) * 12) > 0, 0.8, -0.8)
    half = np.where(y < 0, rings, edges)
    tint = np.stack([1 + x, np.ones_like(x), 1 - x], axis=2)
    drawn: Pixels = ((half[..., None] * tint * 0.33 + 0.5).clip(0, 1) * 255).round().astype(np.uint8)
    return drawn
