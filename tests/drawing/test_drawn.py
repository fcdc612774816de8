"""Drawn training pictures: the same for the same numbers, varied, mixed in by their share."""

import pickle
from itertools import pairwise

import numpy as np
import pytest
import torch

from dreamsr.data import crops as pairs_module
from dreamsr.data import sources
from dreamsr.data.sources import DataSource, open_source
from dreamsr.drawing import fonts
from dreamsr.drawing.canvas import Canvas
from dreamsr.drawing.drawn import KINDS, draw_picture, drawn_side_px
from dreamsr.drawing.fonts import BUNDLED, Font, found_fonts, sized
from dreamsr.drawing.pixel_art import pixel_art
from dreamsr.errors import ConfigError, DataError, UsageError
from tests.data.drawn_photos import draw_photos, loaded, run, same

ALONE = (Font(BUNDLED, None),)
"""The one font that is on every machine."""
EACH_KIND = list(dict.fromkeys(KINDS))


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return draw_photos(tmp_path_factory.mktemp("photos"))


def pairs_of(folder, **changes):
    return open_source(DataSource(data=str(folder)), run(**changes))


@pytest.mark.parametrize("side", [32, 150, 224])
@pytest.mark.parametrize("kind", EACH_KIND, ids=lambda kind: kind.__name__)
def test_every_kind_is_a_picture_of_its_size_and_repeats(kind, side):
    pictures = [np.asarray(kind(Canvas(np.random.default_rng(seed), side, ALONE))) for seed in range(12)]
    assert all(picture.shape == (side, side, 3) and picture.dtype == np.uint8 for picture in pictures)
    again = np.asarray(kind(Canvas(np.random.default_rng(3), side, ALONE)))
    np.testing.assert_array_equal(again, pictures[3])
    assert all((one != other).any() for one, other in pairwise(pictures))
    assert np.median([picture.std() for picture in pictures]) > 10


@pytest.mark.parametrize("kind", EACH_KIND, ids=lambda kind: kind.__name__)
def test_no_seed_fails_with_the_fonts_of_this_machine(kind):
    for seed in range(60):
        kind(Canvas(np.random.default_rng([seed, 1]), 160, found_fonts()))


def test_a_picture_depends_on_seed_number_and_fonts_alone():
    first = [draw_picture(5, number, 120, ALONE) for number in range(20)]
    np.random.seed(1)  # noqa: NPY002 - the global state that must not matter
    for number in reversed(range(20)):
        np.testing.assert_array_equal(draw_picture(5, number, 120, ALONE), first[number])
        assert (draw_picture(6, number, 120, ALONE) != first[number]).any()


def test_drawn_crops_stay_upright(photos, monkeypatch):
    """Light above, dark below, in every crop; photos come in all turns."""
    rows = np.linspace(255, 0, drawn_side_px(16, 4)).astype(np.uint8)[:, None, None]
    monkeypatch.setattr(pairs_module, "draw_picture", lambda *_: np.broadcast_to(rows, (len(rows), len(rows), 3)))
    pairs = pairs_of(photos, drawn_share=1.0)
    assert all((part[:, 0] > part[:, -1]).all() for n in range(16) for part in pairs[n])


def test_pixel_art_is_of_few_colours_in_square_blocks():
    pictures = [np.asarray(pixel_art(Canvas(np.random.default_rng(seed), 160, ALONE))) for seed in range(30)]
    blocks = set()
    for picture in pictures:
        assert len(np.unique(picture.reshape(-1, 3), axis=0)) <= 14
        steps = np.flatnonzero((np.diff(picture.astype(int), axis=1) != 0).any(axis=(0, 2)))
        blocks.add(int(np.gcd.reduce(np.diff(steps))))
    assert {1, 4} <= blocks
    assert len(blocks) > 3


def test_fonts_are_sorted_named_once_and_never_lacking(tmp_path, monkeypatch):
    for name in (
        "one/DejaVuSans.ttf",
        "two/DejaVuSans.ttf",
        "Arial.ttf",
        "NotoSans-Bold.ttf",
        "NotoSansThai-Regular.ttf",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.setattr(fonts, "_folders", lambda: [tmp_path])
    assert [font.name for font in found_fonts()] == ["DejaVuSans", "NotoSans-Bold", BUNDLED]
    monkeypatch.setattr(fonts, "_folders", list)
    assert found_fonts() == ALONE
    assert sized(ALONE[0], 40).getlength("width") > 1.9 * sized(ALONE[0], 20).getlength("width")


@pytest.mark.parametrize("degradation", ["bicubic", "photo"])
def test_the_share_of_crops_is_drawn_and_the_others_stay(photos, degradation):
    plain, mixed = pairs_of(photos, degradation=degradation), pairs_of(photos, degradation=degradation, drawn_share=0.3)
    assert plain.fonts == ()
    assert mixed.fonts == tuple(font.name for font in found_fonts())
    stays = [same(plain[n], mixed[n]) for n in range(150)]
    assert np.mean(stays) == pytest.approx(0.7, abs=0.12)
    assert len(mixed) == len(plain) == 3
    assert mixed.fingerprint() != plain.fingerprint()


def test_drawn_crops_come_alike_in_any_order_and_process(photos):
    pairs = pairs_of(photos, drawn_share=1.0, degradation="photo")
    expected = {n: pairs[n] for n in range(12)}
    copy = pickle.loads(pickle.dumps(pairs))
    assert all(same(expected[n], copy[n]) for n in reversed(range(12)))
    assert all(same(expected[n], pair) for n, pair in enumerate(loaded(pairs, 12, workers=2)))
    low, x0 = expected[0]
    assert (low.shape, x0.shape) == ((3, 16, 16), (3, 64, 64))


def test_other_fonts_are_other_data(photos, monkeypatch):
    before = pairs_of(photos, drawn_share=0.5)
    monkeypatch.setattr(sources, "found_fonts", lambda: ALONE)
    after = pairs_of(photos, drawn_share=0.5)
    assert after.fonts == (BUNDLED,)
    assert (after.fingerprint() == before.fingerprint()) == (before.fonts == after.fonts)


@pytest.mark.parametrize(("scale", "crop"), [(4, 32), (2, 32), (4, 16), (2, 64)])
def test_drawn_pictures_have_room_for_damage_and_are_never_shrunk(photos, monkeypatch, scale, crop):
    side = drawn_side_px(crop, scale)
    assert crop * scale < side < 2 * crop * scale
    assert side <= (crop + 24) * scale
    hard = np.zeros((side, side, 3), np.uint8)
    hard[::2] = 255
    monkeypatch.setattr(pairs_module, "draw_picture", lambda *_: hard)
    pairs = pairs_of(photos, scale=scale, crop_low_px=crop, drawn_share=1.0, shrink_factors=(1, 2))
    assert all(set(torch.unique(pairs[n][1]).tolist()) == {-1.0, 1.0} for n in range(6))


def test_pairs_of_folders_are_not_mixed_with_drawn_ones(photos):
    with pytest.raises(UsageError, match=r"drawn_share is 0\.5"):
        open_source(DataSource(hr=photos, lr=photos), run(drawn_share=0.5))


def test_photos_are_needed_all_the_same(tmp_path):
    with pytest.raises(DataError):
        pairs_of(tmp_path, drawn_share=0.5)


@pytest.mark.parametrize("share", [-0.1, 1.1])
def test_an_impossible_share_is_refused(share):
    with pytest.raises(ConfigError, match="drawn_share"):
        run(drawn_share=share)
