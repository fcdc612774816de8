"""How training crops are cut, and how a small picture is made of a large one, as settings."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Literal

from dreamsr.config import require


@dataclass(frozen=True)
class PhotoConfig:
    """The degradation "photo": what happens to pictures on their way through cameras, phones and the web.

    Second-order blur, resize, noise and JPEG after Real-ESRGAN (Wang et al. 2021, section 3) with BSRGAN's random
    order (Zhang et al. 2021). Pairs are ranges to draw from.

    blur_px: standard deviation of the first blur, in px of the large image.
    blur_probability: of the first blur.
    second_blur_px: that of the second round's blur.
    second_blur_probability: of it, where there is a second round.
    resize: the first round's resize, as a factor of the large image.
    second_resize: the second round's, as a factor of the small image.
    noise: standard deviation of the noise, in levels of 255.
    noise_probability: of noise, in each round.
    grey_noise_probability: of noise that is equal in all channels.
    poisson_probability: of shot noise in place of Gaussian noise.
    jpeg_quality: of each compression, as Pillow's quality.
    second_probability: of the second round.
    sinc_probability: of ringing in place of a blur.
    final_sinc_probability: of ringing at the end.

    For everyday pictures, which suffer less and otherwise; at their defaults these change nothing:
    clean_share: of crops that are shrunk by MATLAB's bicubic and nothing else.
    light_share: of crops shrunk likewise and then compressed once, by JPEG of quality 75..98.
    early_shrink_probability: the picture is shrunk, with a filter, right after the first blur, so that the first
        round's noise and JPEG are those of a small picture and its resize is relative to the small image.
    resize_probability: of the resize in each round.
    jpeg_probability: of each compression.
    double_jpeg_probability: of a second JPEG behind each, of another quality and on another grid of blocks.
    subsampling_probability: of JPEG with colour at half the size (4:2:0), as most cameras and sites write, not 4:4:4.
    webp_probability: of WebP in place of JPEG, of the same quality number; its colour always has half the size.
    sharpen_probability: of unsharp masking, of radius .6..1.3 px, before the first JPEG, as phones do.
    sharpen: its amount; 1 adds once what the blur takes away.
    camera_noise_probability: of noise as cameras leave it, in place of the other two kinds: fine in luma, in coloured
        blobs of some px in chroma, and twice as strong in shadows as in the light.
    chroma_noise: strength of those blobs, as a factor of the noise in luma.
    """

    blur_px: tuple[float, float] = (0.2, 3.0)
    blur_probability: float = 0.9
    second_blur_px: tuple[float, float] = (0.2, 1.5)
    second_blur_probability: float = 0.6
    resize: tuple[float, float] = (0.3, 1.5)
    second_resize: tuple[float, float] = (0.5, 1.3)
    noise: tuple[float, float] = (1.0, 25.0)
    noise_probability: float = 0.9
    grey_noise_probability: float = 0.4
    poisson_probability: float = 0.5
    jpeg_quality: tuple[int, int] = (30, 95)
    second_probability: float = 0.8
    sinc_probability: float = 0.1
    final_sinc_probability: float = 0.4
    clean_share: float = 0.0
    light_share: float = 0.0
    early_shrink_probability: float = 0.0
    resize_probability: float = 1.0
    jpeg_probability: float = 1.0
    double_jpeg_probability: float = 0.0
    subsampling_probability: float = 0.7
    webp_probability: float = 0.0
    sharpen_probability: float = 0.0
    sharpen: tuple[float, float] = (0.3, 1.2)
    camera_noise_probability: float = 0.0
    chroma_noise: tuple[float, float] = (0.3, 1.5)

    def __post_init__(self) -> None:
        for name in (one.name for one in fields(self) if one.name.endswith(("_probability", "_share"))):
            value = getattr(self, name)
            require(0 <= value <= 1, f"photo.{name}", value, "in [0, 1]")
        shares = self.clean_share + self.light_share
        require(shares <= 1, "photo.clean_share + photo.light_share", shares, "at most 1")
        for name, least, most in (
            ("blur_px", 0, 20),
            ("second_blur_px", 0, 20),
            ("resize", 0.05, 4),
            ("second_resize", 0.05, 4),
            ("noise", 0, 128),
            ("sharpen", 0, 10),
            ("chroma_noise", 0, 10),
        ):
            low, high = getattr(self, name)
            require(least <= low <= high <= most, f"photo.{name}", (low, high), f"rising and in {least}..{most}")
        low, high = self.jpeg_quality
        require(1 <= low <= high <= 100, "photo.jpeg_quality", (low, high), "rising and in 1..100")


@dataclass(frozen=True)
class CropConfig:
    """What decides, with the pictures themselves, what crop number n shows.

    scale: how many times as long the sides of a large crop are as those of a small one.
    crop_low_px: side of the small crop in px.
    crop_candidates: of so many random places the one with most detail is taken.
    shrink_factors: photos are first shrunk by one of these (they are softer at full size than what people enlarge).
    degradation: how the small picture is made: by MATLAB's bicubic, or damaged as `photo` says.
    photo: the damage.
    drawn_share: of crops that are cut from drawn pictures (text, screens, line art, pixel art) in place of photos.
    seed: of every draw.
    """

    scale: int = 4
    crop_low_px: int = 32
    crop_candidates: int = 3
    shrink_factors: tuple[int, ...] = (1, 2)
    degradation: Literal["bicubic", "photo"] = "bicubic"
    photo: PhotoConfig = field(default_factory=PhotoConfig)
    drawn_share: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        require(self.crop_low_px >= 8, "crop_low_px", self.crop_low_px, "8 or more")
        require(self.crop_candidates >= 1, "crop_candidates", self.crop_candidates, "1 or more")
        shrinks_fit = bool(self.shrink_factors) and all(1 <= s <= 8 for s in self.shrink_factors)
        require(shrinks_fit, "shrink_factors", self.shrink_factors, "integers 1..8")
        require(0 <= self.drawn_share <= 1, "drawn_share", self.drawn_share, "in [0, 1]")
        require(self.seed >= 0, "seed", self.seed, "0 or more")

    @property
    def smallest_side_px(self) -> int:
        """The shortest side of a photo that still holds one crop."""
        return self.crop_low_px * self.scale
