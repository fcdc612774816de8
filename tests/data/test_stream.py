import io
import pickle
import sys

import numpy as np
import pytest

from dreamsr.data import stream
from dreamsr.data.sources import DataSource, open_source
from dreamsr.data.stream import StreamedPhotos
from dreamsr.errors import DataError, UsageError
from tests.data.drawn_photos import loaded, noise, run, same, save

datasets = pytest.importorskip("datasets")

BLOCK, EACH = 4, 3


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch, tmp_path_factory):
    """Also nothing is left in the user's cache."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.getbasetemp() / "cache")
    monkeypatch.setattr(stream, "PHOTOS_PER_BLOCK", BLOCK)
    monkeypatch.setattr(stream, "CROPS_PER_PHOTO", EACH)
    datasets.disable_progress_bars()


def encoded(level, side=64):
    """A flat picture, told by its level."""
    from PIL import Image

    file = io.BytesIO()
    Image.new("RGB", (side, side), (level,) * 3).save(file, "PNG")
    return file.getvalue()


def write(folder, pictures, *, split="train", shards=2):
    """A data set as the Hub holds it: parquet files of a label and a picture."""
    folder.mkdir(exist_ok=True)
    features = datasets.Features({"label": datasets.Value("int64"), "image": datasets.Image()})
    for shard, numbers in enumerate(np.array_split(range(len(pictures)), shards)):
        rows = {
            "label": list(numbers),
            "image": [None if pictures[n] is None else {"bytes": pictures[n], "path": None} for n in numbers],
        }
        table = datasets.Dataset.from_dict(rows, features=features)
        table.to_parquet(str(folder / f"{split}-{shard:05d}-of-{shards:05d}.parquet"))
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Ten pictures of the levels 0, 10 .. 90, in two files."""
    return write(tmp_path_factory.mktemp("hub") / "set", [encoded(10 * n) for n in range(10)])


def photos_of(folder, split="", **changes):
    return StreamedPhotos(f"hub:{folder}{split}", **{"min_side_px": 64, "cache_bytes": 10**8, **changes})


def levels(photos, numbers, seed=1):
    return [int(photos.photo_for(seed, n)[0, 0, 0]) // 10 for n in numbers]


def test_a_block_gives_each_of_its_photos_its_crops_in_a_mixed_order(data):
    found = levels(photos_of(data), range(2 * BLOCK * EACH))
    first, second = found[: BLOCK * EACH], found[BLOCK * EACH :]
    assert sorted(first) == sorted([0, 1, 2, 3] * EACH)
    assert sorted(second) == sorted([4, 5, 6, 7] * EACH)
    assert first != sorted(first)
    assert [n - 4 for n in second] != first


def test_behind_the_end_comes_the_beginning(data):
    found = levels(photos_of(data), range(2 * BLOCK * EACH, 6 * BLOCK * EACH))
    blocks = [sorted(set(found[i : i + BLOCK * EACH])) for i in range(0, len(found), BLOCK * EACH)]
    assert blocks == [[0, 1, 8, 9], [2, 3, 4, 5], [6, 7, 8, 9], [0, 1, 2, 3]]


def test_photos_are_pure_functions_of_seed_and_number(data):
    numbers = list(range(0, 10 * BLOCK * EACH, 5))
    forward = levels(photos_of(data), numbers)
    assert levels(photos_of(data, cache_bytes=0), numbers[::-1]) == forward[::-1]
    assert levels(photos_of(data), numbers[-1:]) == forward[-1:]
    assert levels(photos_of(data), numbers, seed=2) != forward


def test_fewer_photos_than_a_block_come_more_often(tmp_path):
    photos = photos_of(write(tmp_path / "set", [encoded(0), encoded(10), encoded(20)]))
    assert set(levels(photos, range(BLOCK * EACH))) == {0, 1, 2}


@pytest.mark.parametrize("workers", [0, 2])
def test_loaders_give_the_pairs_of_their_numbers(data, workers):
    """Left to themselves, streamed data sets give each worker its own share of the files.

    Here workers come into being with a stream in the middle of a block, of which they hold nothing else.
    """
    expected, pairs = (open_source(DataSource(data=f"hub:{data}"), run(), cache_bytes=0) for _ in range(2))
    pairs[BLOCK * EACH]
    found = loaded(pairs, 60, workers=workers)
    assert all(same(expected[n], pair) for n, pair in enumerate(found))


def test_a_copy_for_another_process_opens_the_stream_anew(data):
    photos = photos_of(data)
    expected = levels(photos, range(30))
    copy = pickle.loads(pickle.dumps(photos))
    assert levels(copy, range(29, -1, -1)) == expected[::-1]


def test_a_process_does_not_read_on_in_the_stream_of_another(data, monkeypatch):
    """A forked one shares the places in files and connections."""
    opened = []
    for process in (stream.os.getpid(), -1):
        photos = photos_of(data)
        original = photos._stream._opened
        with monkeypatch.context() as patch:
            patch.setattr(
                photos._stream, "_opened", lambda process=process, open=original: opened.append(process) or open()
            )
            patch.setattr(stream.os, "getpid", lambda process=process: process)
            assert set(levels(photos, range(BLOCK * EACH, 2 * BLOCK * EACH))) == {4, 5, 6, 7}
    assert opened == [-1]


def test_splits_have_names(tmp_path):
    folder = write(tmp_path / "set", [encoded(10 * n) for n in range(4)])
    write(folder, [encoded(200)], split="test", shards=1)
    assert set(levels(photos_of(folder, ":test"), range(5))) == {20}
    assert set(levels(photos_of(folder), range(12))) == {0, 1, 2, 3}
    with pytest.raises(DataError, match="nosuch"):
        photos_of(folder, ":nosuch")


def test_a_folder_of_pictures_streams_as_well(tmp_path):
    for n in range(3):
        save(tmp_path / "set" / f"{n}.png", np.full((70, 80, 3), 10 * n, np.uint8))
    assert set(levels(photos_of(tmp_path / "set"), range(12))) == {0, 1, 2}


def test_unusable_photos_are_listed_and_the_next_takes_their_place(tmp_path):
    bad = [encoded(0), b"nothing", encoded(20), encoded(30, side=20), *(encoded(10 * n) for n in range(4, 8))]
    bad[6] = None
    photos = photos_of(write(tmp_path / "set", bad))
    assert len(photos.refused) == 2  # those of the first block, at the start
    assert "photo 1:" in photos.refused[0]
    assert "20x20" in photos.refused[1]
    found = levels(photos, range(2 * BLOCK * EACH))
    assert sorted(found[: BLOCK * EACH]) == sorted([0] * 2 * EACH + [2] * 2 * EACH)
    assert sorted(found[BLOCK * EACH :]) == sorted([4, 5] * EACH + [7] * 2 * EACH)
    assert len(photos.refused) == 3
    assert levels(photos_of(tmp_path / "set"), range(23, -1, -1)) == found[::-1]


def test_a_block_without_any_usable_photo_ends_the_run(tmp_path):
    photos = [encoded(1)] * BLOCK + [b"nothing"] * BLOCK
    with pytest.raises(DataError, match="none of 4 photos"):
        levels(photos_of(write(tmp_path / "set", photos)), [BLOCK * EACH])
    with pytest.raises(DataError, match="none of 4 photos"):
        photos_of(write(tmp_path / "bad", [b"nothing"] * BLOCK))


def test_the_fingerprint_tells_streams_apart_wherever_they_lie(data, tmp_path):
    copy = write(tmp_path / "copy", [encoded(10 * n) for n in range(10)])
    other = write(tmp_path / "other", [encoded(11 * n) for n in range(10)])
    assert photos_of(data).fingerprint() == photos_of(copy).fingerprint()
    assert photos_of(data).fingerprint() != photos_of(other).fingerprint()


def test_data_sets_without_pictures_and_unknown_ones_are_refused(tmp_path):
    (tmp_path / "text").mkdir()
    datasets.Dataset.from_dict({"words": ["a", "b"]}).to_parquet(str(tmp_path / "text" / "train.parquet"))
    with pytest.raises(DataError, match="no column of pictures among words"):
        photos_of(tmp_path / "text")
    with pytest.raises(DataError, match="check the name"):
        photos_of(tmp_path / "none")


def test_a_connection_that_breaks_is_told(data, monkeypatch):
    photos = photos_of(data)

    def broken():
        yield encoded(0)
        raise ConnectionError("lost the\nline")

    monkeypatch.setattr(photos._stream, "_opened", broken)
    photos._stream._rows = None
    with pytest.raises(DataError, match="lost the line"):
        levels(photos, [BLOCK * EACH])


def test_without_the_library_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UsageError, match=r'pip install "dreamsr\[stream\]"'):
        open_source(DataSource(data="hub:user/name"), run())


@pytest.mark.parametrize("text", ["hub:", "hub:user/name:"])
def test_impossible_names_are_refused(text):
    with pytest.raises(UsageError, match=r"hub:user/name\[:split\]"):
        StreamedPhotos(text, min_side_px=1)


def test_names_and_splits_are_told_apart():
    assert stream._parts("hub:user/name") == ("user/name", "train")
    assert stream._parts("hub:user/name:test") == ("user/name", "test")


def test_a_stream_leaves_nothing_out_by_name(data):
    with pytest.raises(UsageError, match="left out"):
        open_source(DataSource(data=f"hub:{data}", exclude=frozenset({"a"})), run())


def test_pictures_of_any_kind_become_rgb(tmp_path):
    save(tmp_path / "set" / "grey.png", noise(70, 70)[..., 0])
    assert photos_of(tmp_path / "set").photo_for(0, 0).shape == (70, 70, 3)
