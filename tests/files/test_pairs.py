import numpy as np
import pytest
import torch

from dreamsr.core import degrade
from dreamsr.errors import DataError
from dreamsr.files.images import from_pil, write_picture
from dreamsr.files.pairs import CropPairs, PhotoFolder


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Three drawn photos: a busy one, one busy on its right half only, and a grey one."""
    from PIL import Image

    folder = tmp_path_factory.mktemp("photos")
    draw = np.random.default_rng(3)
    busy = draw.integers(0, 256, (150, 211, 3), dtype=np.uint8)
    half = busy.copy()
    half[:, :150] = 90
    (folder / "sub").mkdir()
    for name, pixels in (("busy.png", busy), ("sub/half.png", half), ("grey.png", busy[..., 0])):
        write_picture(folder / name, from_pil(Image.fromarray(pixels)))
    return folder


def open_folder(folder, **changes):
    return PhotoFolder(folder, **{"scale": 4, "min_side_px": 64, **changes})


def crops(folder, seed=5, candidates=1, shrink_factors=(1, 2)):
    return CropPairs(folder, seed=seed, crop_low_px=16, candidates=candidates, shrink_factors=shrink_factors)


def test_the_same_number_gives_the_same_pair_in_any_order_and_with_any_cache(photos):
    forward, backward = crops(open_folder(photos)), crops(open_folder(photos, cache_bytes=1))
    pairs = {n: forward[n] for n in range(12)}
    for n in reversed(range(12)):
        assert all(torch.equal(a, b) for a, b in zip(pairs[n], backward[n], strict=True))


def test_seed_and_number_both_matter(photos):
    folder = open_folder(photos)
    assert not torch.equal(crops(folder)[0][1], crops(folder)[1][1])
    assert not torch.equal(crops(folder)[0][1], crops(folder, seed=6)[0][1])


def test_a_batch_is_the_pairs_of_its_numbers(photos):
    pairs = crops(open_folder(photos))
    low, x0 = pairs.batch(3, 4)
    assert low.shape == (4, 3, 16, 16)
    assert x0.shape == (4, 3, 64, 64)
    assert torch.equal(x0[1], pairs[13][1])


def test_low_is_the_matlab_bicubic_of_x0_in_every_turn(photos):
    pairs = crops(open_folder(photos))
    for number in range(24):
        low, x0 = pairs[number]
        again = degrade.as_stored(degrade.shrink(x0, 4))
        inside = (slice(None), slice(2, -2), slice(2, -2))  # the border was filtered with what lay around the crop
        assert (low[inside] - again[inside]).abs().max() <= 1.01 / 127.5


def test_values_are_those_an_8_bit_file_can_hold(photos):
    low, x0 = crops(open_folder(photos))[0]
    for part in (low, x0):
        steps = (part + 1) * 127.5
        torch.testing.assert_close(steps, steps.round(), atol=1e-4, rtol=0)
        assert part.abs().max() <= 1


def test_of_several_places_the_most_detailed_is_taken(photos):
    folder = open_folder(photos / "sub")
    detail = [
        np.mean([pairs[n][1].diff(dim=-1).abs().mean().item() for n in range(40)])
        for pairs in (crops(folder), crops(folder, candidates=8))
    ]
    assert detail[1] > 1.3 * detail[0]


def test_grey_photos_become_three_equal_channels(photos):
    folder = open_folder(photos)
    index = [path.name for path in folder.paths].index("grey.png")
    low, large = folder.pair(index, 1)
    for part in (low, large):
        assert np.ptp(part.astype(int), axis=2).max() == 0


def test_a_photo_too_small_to_be_shrunk_is_used_at_full_size(photos):
    pairs = crops(open_folder(photos), shrink_factors=(8,))
    assert pairs[0][1].shape == (3, 64, 64)


def test_unusable_files_are_listed_and_passed_over(tmp_path):
    from PIL import Image

    write_picture(tmp_path / "small.png", from_pil(Image.new("RGB", (63, 200))))
    write_picture(tmp_path / "fine.png", from_pil(Image.new("RGB", (64, 64))))
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 nothing")
    folder = open_folder(tmp_path)
    assert [path.name for path in folder.paths] == ["fine.png"]
    assert len(folder.refused) == 2
    assert any("63x200" in reason for reason in folder.refused)


@pytest.mark.parametrize("make", [False, True])
def test_a_missing_or_empty_folder_is_an_error_that_names_it(tmp_path, make):
    folder = tmp_path / "data"
    if make:
        folder.mkdir()
    with pytest.raises(DataError, match="data"):
        open_folder(folder)


def test_the_fingerprint_tells_folders_apart(photos, tmp_path):
    from PIL import Image

    write_picture(tmp_path / "fine.png", from_pil(Image.new("RGB", (64, 64))))
    assert open_folder(photos).fingerprint() == open_folder(photos).fingerprint()
    assert open_folder(photos).fingerprint() != open_folder(tmp_path).fingerprint()
