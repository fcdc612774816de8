import pickle

import numpy as np
import pytest
import torch

from dreamsr.core.pixels import to_tensor
from dreamsr.data import paired as module
from dreamsr.data.paired import similarity
from dreamsr.data.sources import DataSource, open_source
from dreamsr.data.window import shrunk_window
from dreamsr.errors import DataError
from tests.data.drawn_photos import loaded, noise, run, same, save, scene

SIZES = {"a": (96, 130), "b/c": (103, 99), "b/d": (128, 128)}


def small(photo, scale=4):
    """What somebody else made small: not bit for bit what we would, but a little brighter."""
    height, width = (n // scale for n in photo.shape[:2])
    return np.minimum(shrunk_window(photo, scale, top=0, left=0, height=height, width=width), 235) + np.uint8(20)


def write(folder, *, suffix="x4", ending=".png"):
    for number, (name, size) in enumerate(SIZES.items()):
        photo = scene(*size, number)
        save(folder / "hr" / f"{name}.png", photo)
        save(folder / "lr" / f"{name}{suffix}{ending}", small(photo))
    return folder


def twins_of(folder, exclude=frozenset(), **changes):
    return open_source(DataSource(hr=folder / "hr", lr=folder / "lr", exclude=exclude), run(**changes))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write(tmp_path_factory.mktemp("twins"))


@pytest.mark.parametrize("suffix", ["", "x4", "_x4", "-small"])
@pytest.mark.parametrize("ending", [".png", ".webp"])
def test_small_pictures_are_found_by_name_suffix_and_extension(tmp_path, suffix, ending):
    pairs = twins_of(write(tmp_path, suffix=suffix, ending=ending))
    assert len(pairs) == 3
    assert [twin.low.name for twin in pairs.twins] == [f"{name}{suffix}{ending}" for name in SIZES]


def test_a_crop_is_the_same_place_of_both_in_the_same_turn(data):
    """Both are cut and turned, never shrunk nor damaged, whatever the run asks for photos."""
    pairs = twins_of(data, shrink_factors=(3,), degradation="photo", candidates=3)
    for number in range(24):
        low, x0 = pairs[number]
        assert low.shape == (3, 16, 16)
        assert x0.shape == (3, 64, 64)
        area = torch.nn.functional.avg_pool2d(x0[None], 4)[0] + 20 / 127.5
        assert (low - area).abs().mean() < 0.05


def test_crops_reach_every_edge_of_pictures_that_are_no_multiple(data):
    pairs = twins_of(data, exclude=frozenset({"a.png", "b/d.png"}))
    assert len(pairs) == 1
    photo = to_tensor(scene(*SIZES["b/c"], 1))
    found = {(i, j) for n in range(150) for i, j in places(photo, pairs[n][1])}
    tops, lefts = (set(axis) for axis in zip(*found, strict=True))
    assert tops == set(range(0, 4 * (103 // 4 - 16) + 1, 4))
    assert lefts == set(range(0, 4 * (99 // 4 - 16) + 1, 4))


def places(photo, crop):
    """Where a crop lies in the photo, in any turn."""
    for side in (crop, crop.flip(2)):
        for turn in range(4):
            image = side.rot90(turn, (1, 2))
            for i in range(0, photo.shape[1] - 63, 4):
                for j in range(0, photo.shape[2] - 63, 4):
                    if torch.equal(photo[:, i : i + 64, j : j + 64], image):
                        yield i, j


def test_numbers_give_the_same_pairs_in_copies_and_in_workers(data):
    pairs = twins_of(data)
    expected = [pairs[n] for n in range(6)]
    copy = pickle.loads(pickle.dumps(pairs))
    assert all(same(pair, copy[n]) for n, pair in reversed(list(enumerate(expected))))
    assert all(same(a, b) for a, b in zip(expected, loaded(pairs, 6, workers=2), strict=True))


def test_the_fingerprint_counts_both_sides(data, tmp_path):
    again = write(tmp_path)
    assert twins_of(data).fingerprint() == twins_of(again).fingerprint()
    save(tmp_path / "lr" / "ax4.png", np.maximum(small(scene(*SIZES["a"], 0)), 150))
    assert twins_of(data).fingerprint() != twins_of(again).fingerprint()


def test_pictures_without_partner_are_named_and_counted(tmp_path):
    write(tmp_path)
    (tmp_path / "lr" / "ax4.png").unlink()
    save(tmp_path / "lr" / "stray.png", noise(40, 40))
    with pytest.raises(DataError, match=r"stray\.png: has no large picture.*a\.png: has no small pic.*2 pictures"):
        twins_of(tmp_path)


def test_two_small_pictures_for_one_are_refused(tmp_path):
    write(tmp_path)
    save(tmp_path / "lr" / "a_x2.png", noise(40, 40))
    with pytest.raises(DataError, match=r"a\.png: has 2 small pictures \(a_x2\.png, ax4\.png\)"):
        twins_of(tmp_path)


def test_large_pictures_whose_small_ones_would_be_one_are_refused(tmp_path):
    write(tmp_path)
    save(tmp_path / "hr" / "a.bmp", noise(96, 130))
    with pytest.raises(DataError, match="same name"):
        twins_of(tmp_path)


def test_a_name_that_another_begins_with_is_not_taken_for_it(tmp_path):
    for name in ("1", "1_2"):
        photo = scene(96, 96, len(name))
        save(tmp_path / "hr" / f"{name}.png", photo)
        save(tmp_path / "lr" / f"{name}.png", small(photo))
    assert len(twins_of(tmp_path)) == 2


def test_a_wrong_ratio_is_told_with_the_one_it_looks_like(data):
    with pytest.raises(DataError, match=r"32x24 does not fit a\.png of 130x96 at x2 \(this looks like x4\).*3 of 3"):
        twins_of(data, scale=2)


def test_contents_out_of_step_are_found(tmp_path):
    for number in range(5):
        save(tmp_path / "hr" / f"{number}.png", scene(128, 128, number))
        save(tmp_path / "lr" / f"{number}.png", small(scene(128, 128, max(3, number))))
    with pytest.raises(DataError, match=r"0\.png: is not 0\.png made small.*3 of 5 pairs"):
        twins_of(tmp_path)


def test_damage_is_not_taken_for_another_content():
    draw = np.random.default_rng(0)
    for number in range(6):
        photo = scene(160, 200, number)
        rough = np.clip(small(photo) + draw.normal(0, 25, (40, 50, 3)), 0, 255).astype(np.uint8)
        assert similarity(photo, rough) > 0.7
        assert similarity(photo, small(scene(160, 200, number + 10))) < 0.4
        assert similarity(photo[:32, :32], rough[:8, :8]) > 0.5
    assert similarity(np.full((64, 64, 3), 90, np.uint8), small(scene(64, 64, 0))) is None


def test_pairs_with_an_unusable_file_are_listed_and_left_out_whole(tmp_path):
    write(tmp_path)
    (tmp_path / "lr" / "ax4.png").write_bytes(b"nothing")
    save(tmp_path / "hr" / "b" / "d.png", noise(60, 128))
    save(tmp_path / "lr" / "b" / "dx4.png", small(noise(60, 128)))
    pairs = twins_of(tmp_path)
    assert [twin.large.name for twin in pairs.twins] == ["b/c.png"]
    assert len(pairs.refused) == 2
    assert "ax4.png" in pairs.refused[0]
    assert "32x15" in pairs.refused[1]


def test_of_very_many_pairs_sizes_are_still_checked(data, monkeypatch):
    monkeypatch.setattr(module, "FULL_CHECK_PHOTOS", 0)
    assert len(twins_of(data)) == 3
    with pytest.raises(DataError, match="looks like x4"):
        twins_of(data, scale=3)


def test_missing_folders_and_nothing_usable_are_named(data, tmp_path):
    with pytest.raises(DataError, match="`lr`"):
        open_source(DataSource(hr=data / "hr", lr=tmp_path / "none"), run())
    with pytest.raises(DataError, match="no usable photo"):
        twins_of(data, exclude=frozenset({"a.png", "b/c.png", "b/d.png"}))
