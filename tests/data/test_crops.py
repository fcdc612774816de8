import os
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch

from dreamsr.core import resize
from dreamsr.core.pixels import to_tensor
from dreamsr.data import scan
from dreamsr.data.photo_files import PhotoCache
from dreamsr.data.sources import DataSource, open_source
from dreamsr.errors import DataError, UsageError
from dreamsr.pictures import read
from tests.data.drawn_photos import draw_photos, loaded, noise, run, same, save


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return draw_photos(tmp_path_factory.mktemp("photos"))


def pairs_of(folder, exclude=frozenset(), cache_bytes=10**9, **changes):
    return open_source(DataSource(data=str(folder), exclude=exclude), run(**changes), cache_bytes=cache_bytes)


@pytest.mark.parametrize("degradation", ["bicubic", "photo"])
def test_the_same_number_gives_the_same_pair_in_any_order_and_with_any_cache(photos, degradation):
    forward = pairs_of(photos, degradation=degradation)
    backward = pairs_of(photos, degradation=degradation, cache_bytes=0)
    pairs = {n: forward[n] for n in range(12)}
    for n in reversed(range(12)):
        assert same(pairs[n], backward[n])


def test_seed_and_number_both_matter(photos):
    pairs = pairs_of(photos)
    assert not torch.equal(pairs[0][1], pairs[1][1])
    assert not torch.equal(pairs[0][1], pairs_of(photos, seed=6)[0][1])


@pytest.mark.parametrize("workers", [0, 2])
def test_loaders_give_the_pairs_of_their_numbers(photos, workers):
    pairs = pairs_of(photos, degradation="photo")
    found = loaded(pairs, 6, workers=workers)
    assert all(same(pairs[number], pair) for number, pair in enumerate(found))


def test_a_copy_for_another_process_leaves_the_decoded_photos_behind(photos):
    pairs = pairs_of(photos)
    empty = len(pickle.dumps(pairs))
    expected = [pairs[n] for n in range(6)]
    data = pickle.dumps(pairs)
    assert len(data) == empty
    assert all(same(pair, pickle.loads(data)[n]) for n, pair in enumerate(expected))


@pytest.mark.parametrize("degradation", ["bicubic", "photo"])
def test_sizes_types_and_values_are_those_of_8_bit_crops(photos, degradation):
    low, x0 = pairs_of(photos, degradation=degradation)[0]
    assert low.shape == (3, 16, 16)
    assert x0.shape == (3, 64, 64)
    for part in (low, x0):
        assert part.dtype == torch.float32
        assert part.is_contiguous()
        steps = (part + 1) * 127.5
        torch.testing.assert_close(steps, steps.round(), atol=1e-4, rtol=0)
        assert part.abs().max() <= 1


def test_low_is_the_matlab_bicubic_of_x0_in_every_turn(photos):
    pairs = pairs_of(photos)
    for number in range(24):
        low, x0 = pairs[number]
        again = resize.as_stored(resize.shrink(x0, 4))
        inside = (slice(None), slice(2, -2), slice(2, -2))  # the border was filtered with what lay around the crop
        assert (low[inside] - again[inside]).abs().max() <= 1.01 / 127.5


def test_a_damaged_crop_has_the_large_image_of_a_clean_one(photos):
    clean, damaged = pairs_of(photos), pairs_of(photos, degradation="photo")
    assert all(clean[n][1].shape == damaged[n][1].shape for n in range(4))
    assert any(not torch.equal(clean[n][0], damaged[n][0]) for n in range(4))


def test_a_damaged_crop_lies_where_its_large_image_lies(tmp_path):
    """A bright half: as many columns (or rows) are bright in both, in every turn; one more would show."""
    photo = np.full((200, 200, 3), 60, np.uint8)
    photo[:, 100:] = 200
    for name, upright in (("columns", photo), ("rows", photo.swapaxes(0, 1))):
        save(tmp_path / name / "half.png", np.ascontiguousarray(upright))
        pairs = pairs_of(tmp_path / name, degradation="photo", crop_low_px=24, candidates=9, shrink_factors=(1,))
        bright = [[float((part.mean() * 127.5 + 67.5) / 140) for part in pairs[number]] for number in range(60)]
        inside = [(low, x0) for low, x0 in bright if 0.25 < x0 < 0.75]  # where blur carries nothing out of the crop
        assert len(inside) > 10
        drift_px = [24 * abs(low - x0) for low, x0 in inside]
        assert max(drift_px) < 0.9  # a sharp edge, shrunk without a filter, lands on a whole pixel
        assert np.mean(drift_px) < 0.2


def test_of_several_places_the_most_detailed_is_taken(photos):
    sub, once = photos / "sub", (1,)
    detail = [
        np.mean([pairs[n][1].diff(dim=-1).abs().mean().item() for n in range(40)])
        for pairs in (pairs_of(sub, shrink_factors=once), pairs_of(sub, shrink_factors=once, candidates=16))
    ]
    assert detail[1] > 2.5 * detail[0]


def test_all_photos_and_factors_are_drawn(photos):
    pairs = pairs_of(photos, shrink_factors=(1, 2))
    x0 = [pairs[n][1] for n in range(60)]
    assert any((one[0] - one[1]).abs().max() == 0 for one in x0)  # the grey photo
    contrast = sorted(one.std().item() for one in x0)
    assert contrast[0] < 0.7 * contrast[-1]  # shrunk noise is fainter


@pytest.mark.parametrize("degradation", ["bicubic", "photo"])
def test_a_photo_of_exactly_one_crop_comes_in_its_eight_turns(tmp_path, degradation):
    photo = noise(64, 64)
    save(tmp_path / "one.png", photo)
    whole = to_tensor(photo)
    turns = [side.rot90(n, (1, 2)) for side in (whole, whole.flip(2)) for n in range(4)]
    pairs = pairs_of(tmp_path, degradation=degradation)
    found = [[torch.equal(pairs[n][1], turn) for turn in turns] for n in range(60)]
    assert all(sum(one) == 1 for one in found)
    assert np.any(found, axis=0).all()


def test_a_photo_too_small_to_be_shrunk_is_used_at_full_size(photos):
    assert pairs_of(photos, shrink_factors=(8,))[0][1].shape == (3, 64, 64)


def test_unusable_files_are_listed_and_passed_over(tmp_path):
    save(tmp_path / "small.png", noise(200, 63))
    save(tmp_path / "fine.png", noise(64, 64))
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 nothing")
    half = save(tmp_path / "half.png", noise(99, 99))
    half.write_bytes(half.read_bytes()[:9000])  # its header is sound
    pairs = pairs_of(tmp_path)
    assert len(pairs) == 1
    assert len(pairs.refused) == 3
    for part in ("63x200", "broken.jpg", "half.png"):
        assert sum(part in reason for reason in pairs.refused) == 1
    assert all("\n" not in reason for reason in pairs.refused)


def test_photos_that_decode_although_they_are_damaged_are_refused(tmp_path):
    save(tmp_path / "fine.jpg", noise(99, 99))
    half = save(tmp_path / "half.jpg", noise(99, 99))
    half.write_bytes(half.read_bytes()[:9000] + b"\xff\xd9")
    pairs = pairs_of(tmp_path)
    assert len(pairs) == len(pairs.refused) == 1
    assert "half.jpg is damaged" in pairs.refused[0]


@pytest.mark.parametrize("full_check", [10, 0])
def test_a_photo_is_looked_through_for_damage_once_and_again_when_it_was_written_anew(
    tmp_path, monkeypatch, full_check
):
    looked = []
    monkeypatch.setattr(read, "damage_in", lambda data, _format: looked.append(len(data)) or "")
    monkeypatch.setattr(scan, "FULL_CHECK_PHOTOS", full_check)
    path = save(tmp_path / "one.jpg", noise(99, 99))
    pairs = pickle.dumps(pairs_of(tmp_path))  # a copy has nothing decoded
    assert same(pickle.loads(pairs)[0], pickle.loads(pairs)[0])
    assert looked == [path.stat().st_size]
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))
    for _ in range(3):
        pickle.loads(pairs)[0]
    assert len(looked) == 2


def test_damage_that_comes_later_is_seen(tmp_path):
    path = save(tmp_path / "one.jpg", noise(99, 99))
    pairs, whole = pickle.dumps(pairs_of(tmp_path)), path.read_bytes()
    pickle.loads(pairs)[0]
    path.write_bytes(whole[:9000] + b"\xff\xd9")
    for _ in range(2):
        with pytest.raises(DataError, match=r"one\.jpg is damaged"):
            pickle.loads(pairs)[1]
    path.write_bytes(whole)
    pickle.loads(pairs)[1]


def test_of_very_many_photos_only_headers_are_read_and_damage_is_told_when_it_is_met(tmp_path, monkeypatch):
    monkeypatch.setattr(scan, "FULL_CHECK_PHOTOS", 0)
    half = save(tmp_path / "half.png", noise(99, 99))
    half.write_bytes(half.read_bytes()[:9000])
    save(tmp_path / "small.png", noise(200, 63))
    pairs = pairs_of(tmp_path)
    assert len(pairs) == len(pairs.refused) == 1
    for _ in range(2):
        with pytest.raises(DataError, match=r"half\.png.*take it out"):
            pairs[0]


def test_a_photo_lost_after_the_start_is_an_error_that_names_it(tmp_path):
    path = save(tmp_path / "one.png", noise(64, 64))
    pairs = pairs_of(tmp_path)
    path.unlink()
    with pytest.raises(DataError, match=r"one\.png"):
        pairs[0]
    save(path, noise(30, 64))
    with pytest.raises(DataError, match="64x30"):
        pairs[0]


def test_the_scan_tells_how_far_it_is(photos):
    seen = []
    open_source(DataSource(data=str(photos)), run(), on_progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_pictures_are_left_out_by_name(photos):
    pairs = pairs_of(photos, exclude=frozenset({"sub/half.png", "grey.png", "no such.png"}))
    assert len(pairs) == 1
    assert pairs.fingerprint() != pairs_of(photos).fingerprint()
    with pytest.raises(DataError, match="no usable photo"):
        pairs_of(photos, exclude=frozenset({"sub/half.png", "grey.png", "busy.png"}))


@pytest.mark.parametrize("make", [False, True])
def test_a_missing_or_empty_folder_is_an_error_that_names_it(tmp_path, make):
    folder = tmp_path / "data"
    if make:
        folder.mkdir()
    with pytest.raises(DataError, match="data"):
        pairs_of(folder)


def test_the_fingerprint_tells_folders_apart_wherever_they_lie(photos, tmp_path):
    save(tmp_path / "other" / "fine.png", noise(64, 64))
    moved = draw_photos(tmp_path / "moved")
    assert pairs_of(photos).fingerprint() == pairs_of(moved).fingerprint()
    assert pairs_of(photos).fingerprint() != pairs_of(tmp_path / "other").fingerprint()
    (moved / "busy.png").rename(moved / "renamed.png")
    assert pairs_of(photos).fingerprint() != pairs_of(moved).fingerprint()


def test_the_cache_forgets_the_least_recently_used_and_keeps_to_its_room():
    one = np.zeros((10, 10, 3), np.uint8)
    cache = PhotoCache(2 * one.nbytes)
    for key in "abac":
        if cache.get(key) is None:
            cache.put(key, one)
    assert [cache.get(key) is not None for key in "abc"] == [True, False, True]
    cache.put("huge", np.zeros((100, 10, 3), np.uint8))
    assert [cache.get(key) is not None for key in ("a", "c", "huge")] == [False, False, True]
    cache.put("d", one)
    assert [cache.get(key) is not None for key in ("huge", "d")] == [False, True]


def test_workers_share_the_room_for_decoded_photos(photos):
    config, source = run(), DataSource(data=str(photos))
    rooms = [open_source(source, config, workers=n, cache_bytes=900).photos._cache.room_bytes for n in (0, 1, 3)]
    assert rooms == [900, 900, 300]


@pytest.mark.parametrize(
    "names", [{}, {"data": "a", "hr": "b", "lr": "c"}, {"hr": "b"}, {"lr": "c"}, {"data": "a", "hr": "b"}]
)
def test_a_source_is_either_data_or_a_pair_of_folders(names):
    with pytest.raises(UsageError, match="`data`, or by `hr` and `lr`"):
        DataSource(**names)


def test_a_source_can_be_changed_by_name():
    assert replace(DataSource(data="a"), exclude=frozenset({"x"})).exclude == {"x"}
