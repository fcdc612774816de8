"""`--weights auto`: by scale, and by what a picture shows of its past."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from dreamsr.core.model import build_net
from dreamsr.errors import UsageError, WeightsError
from dreamsr.upscaling import nets
from dreamsr.upscaling.settings import Settings
from dreamsr.upscaling.signs import signs_of
from dreamsr.upscaling.upscaler import Upscaler
from dreamsr.weights import registry
from dreamsr.weights.file import save_weights
from dreamsr.weights.resolve import resolve_weights
from tests.conftest import TINY
from tests.upscaling.stand_ins import table

PICTURES = Path(__file__).parents[1] / "pictures"
Array = NDArray[np.uint8]


def photograph(name: str, side: int = 128) -> Array:
    """A photograph without a visible past: a large one, shrunk."""
    with Image.open(PICTURES / f"{name}.png") as image:
        rgb = image.convert("RGB")
    return np.asarray(rgb.resize((side, side), Image.Resampling.LANCZOS))


def as_jpeg(pixels: Array, quality: int) -> Array:
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, "JPEG", quality=quality)
    return np.asarray(Image.open(data).convert("RGB"))


def noisy(pixels: Array, deviation: float) -> Array:
    drawn = np.random.default_rng(0).normal(0, deviation, pixels.shape)
    return (pixels + drawn).round().clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("name", ["astronaut", "coffee", "cat"])
@pytest.mark.parametrize("side", [96, 128, 240])
def test_a_pristine_photograph_is_known(name: str, side: int) -> None:
    clean = photograph(name, side)
    assert signs_of(clean).pristine
    assert signs_of(clean.astype(np.uint16) * 257).pristine


@pytest.mark.parametrize("name", ["astronaut", "coffee", "cat"])
@pytest.mark.parametrize("quality", [40, 75, 90])
@pytest.mark.parametrize("cut", [0, 3])
def test_a_past_as_jpeg_is_seen_wherever_its_grid_lies(name: str, quality: int, cut: int) -> None:
    signs = signs_of(as_jpeg(photograph(name), quality)[cut:, cut:])
    assert signs.jpeg is not None
    assert signs.jpeg > 0.1
    assert not signs.pristine


@pytest.mark.parametrize("name", ["astronaut", "coffee", "cat"])
@pytest.mark.parametrize("deviation", [4.0, 8.0])
def test_noise_is_measured(name: str, deviation: float) -> None:
    signs = signs_of(noisy(photograph(name), deviation))
    assert not signs.pristine
    assert 0.4 * deviation < signs.colour_noise < 1.3 * deviation


def test_a_grey_picture_with_noise_is_not_pristine() -> None:
    grey = photograph("coffee").mean(-1, keepdims=True).astype(np.uint8)
    assert signs_of(grey).pristine
    assert not signs_of(noisy(grey, 6)).pristine


def test_drawings_and_what_tells_too_little_are_left_to_the_weights_that_repair() -> None:
    drawn = np.full((128, 128, 3), 255, np.uint8)
    drawn[20:40, 10:100] = 0
    assert signs_of(drawn).flat > 0.9
    assert not signs_of(drawn).pristine
    for side in (1, 7, 9, 16):
        assert not signs_of(photograph("coffee", side)).pristine


@pytest.fixture
def family(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three tiny weights known by name: `photo` and `small` may be chosen, `photo`'s partner is `clean`."""
    text = table("photo", 4, 'denoise_partner = "clean"\nautomatic = true') + table("clean", 4)
    (tmp_path / "weights.toml").write_text(text + table("small", 2, "automatic = true"))
    for seed, (name, scale) in enumerate({"photo": 4, "clean": 4, "small": 2}.items()):
        torch.manual_seed(seed)
        config = replace(TINY, scale=scale)
        state = build_net(config).state_dict()
        path = tmp_path / f"{name}.safetensors"
        save_weights(path, state, config, facts={"default_steps": 1}, dtype=torch.float32)
    monkeypatch.setattr(registry, "registry_file", lambda: tmp_path / "weights.toml")
    monkeypatch.setattr(nets, "resolve_weights", lambda name, **_: tmp_path / f"{name}.safetensors")
    return tmp_path


@pytest.mark.usefixtures("family")
@pytest.mark.parametrize(
    ("scale", "damaged", "chosen"),
    [
        (4, True, "photo"),
        (4, False, "clean"),
        (3, True, "photo"),
        (2, True, "small"),
        (2, False, "small"),
        (1.5, True, "small"),
        (8, True, "small, then photo"),
        (8, False, "small, then clean"),
    ],
)
def test_auto_chooses_by_scale_and_past_and_says_so(scale: float, damaged: bool, chosen: str) -> None:
    pixels = photograph("coffee", 96)
    pixels = as_jpeg(pixels, 60) if damaged else pixels
    upscaler, heard = Upscaler("auto", "cpu", precision="fp32"), list[str]()
    side = round(96 * scale)
    result = upscaler.enlarge(pixels, side, side, Settings(), on_choice=heard.append)
    assert result.shape == (side, side, 3)
    assert heard == [chosen]
    if "," not in chosen:
        alone = Upscaler(chosen, "cpu", precision="fp32").enlarge(pixels, side, side, Settings())
        assert (result == alone).all()


@pytest.mark.usefixtures("family")
def test_denoise_overrules_what_a_picture_shows() -> None:
    pixels = photograph("coffee", 96)
    for denoise, chosen in ((1.0, "photo"), (0.0, "clean"), (0.25, "0.25 photo, 0.75 clean")):
        heard: list[str] = []
        upscaler = Upscaler("auto", "cpu", precision="fp32", denoise=denoise)
        upscaler.enlarge(pixels, 384, 384, Settings(), on_choice=heard.append)
        assert heard == [chosen]


@pytest.mark.usefixtures("family")
def test_what_cannot_be_mixed_is_not_chosen_where_a_mixture_is_wanted() -> None:
    assert Upscaler("auto", "cpu", denoise=0.5).nets.scales == (4,)
    assert Upscaler("auto", "cpu", denoise=1).nets.scales == (2, 4)


@pytest.mark.usefixtures("family")
def test_weights_by_name_are_used_whatever_a_picture_shows() -> None:
    heard: list[str] = []
    Upscaler("photo", "cpu").enlarge(photograph("coffee", 96), 192, 192, Settings(), on_choice=heard.append)
    assert heard == ["photo"]


def test_two_of_one_scale_cannot_both_be_automatic(family: Path) -> None:
    text = (family / "weights.toml").read_text() + table("other", 4, "automatic = true")
    with pytest.raises(WeightsError, match=r"\[photo\]: automatic, as other weights of scale 4"):
        registry.parse_registry(text, source="weights.toml")


def test_where_one_file_is_meant_auto_names_what_could_be(family: Path) -> None:  # noqa: ARG001
    with pytest.raises(WeightsError, match=r"auto chooses .* name one of them: small, photo"):
        resolve_weights("auto")


@pytest.mark.usefixtures("family")
def test_too_many_steps_for_the_chosen_weights_are_refused() -> None:
    with pytest.raises(UsageError, match=r"`steps` is 2000, but these weights can take 1\.\.1000"):
        Upscaler("auto", "cpu").enlarge(photograph("coffee", 96), 192, 192, Settings(steps=2000))
