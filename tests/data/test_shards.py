import io
import pickle
import tarfile

import pytest

from dreamsr.data import scan
from dreamsr.data.sources import DataSource, open_source
from dreamsr.errors import DataError
from tests.data.drawn_photos import draw_photos, loaded, noise, run, same, save


def write_shard(path, members, mode="w"):
    with tarfile.open(path, mode) as archive:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """The bytes of three photos by name."""
    folder = draw_photos(tmp_path_factory.mktemp("photos"))
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*.png"))}


@pytest.fixture(scope="module")
def shards(tmp_path_factory, photos):
    """Two shards as WebDataset writes them: samples of a picture, a label and a text."""
    folder = tmp_path_factory.mktemp("shards")
    for number, names in enumerate((("busy.png", "grey.png"), ("sub/half.png",))):
        members = {}
        for name in names:
            members |= {name: photos[name], f"{name[:-4]}.json": b"{}", f"{name[:-4]}.cls": b"1"}
        write_shard(folder / f"{number:06d}.tar", members)
    return folder


def pairs_of(data, exclude=frozenset(), **changes):
    return open_source(DataSource(data=str(data), exclude=exclude), run(**changes))


def test_photos_in_shards_are_those_of_a_folder_in_the_same_order(shards, photos, tmp_path):
    for name in photos:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(photos[name])
    packed, loose = pairs_of(shards), pairs_of(tmp_path)
    assert [file.name for file in packed.photos.files] == [
        "000000.tar/busy.png",
        "000000.tar/grey.png",
        "000001.tar/sub/half.png",
    ]
    assert all(same(packed[n], loose[n]) for n in range(12))


def test_a_folder_a_glob_and_a_single_file_of_shards_are_taken(shards):
    assert len(pairs_of(shards)) == len(pairs_of(shards / "*.tar")) == 3
    assert len(pairs_of(shards / "000000.tar")) == 2
    assert len(pairs_of(shards / "00000[1-9].tar")) == 1
    assert pairs_of(shards).fingerprint() == pairs_of(shards / "*.tar").fingerprint()
    assert pairs_of(shards).fingerprint() != pairs_of(shards / "000000.tar").fingerprint()


def test_numbers_give_the_same_pairs_in_copies_and_in_workers(shards):
    pairs = pairs_of(shards, degradation="photo")
    expected = [pairs[n] for n in range(6)]
    copy = pickle.loads(pickle.dumps(pairs))
    assert all(same(pair, copy[n]) for n, pair in reversed(list(enumerate(expected))))
    assert all(same(a, b) for a, b in zip(expected, loaded(pairs, 6, workers=2), strict=True))


def test_members_are_left_out_by_name(shards):
    assert len(pairs_of(shards, exclude=frozenset({"000000.tar/busy.png"}))) == 2


@pytest.mark.parametrize("limit", [0, 5000], ids=["headers", "full"])
def test_unusable_members_are_listed_with_their_shard(tmp_path, photos, monkeypatch, limit):
    monkeypatch.setattr(scan, "FULL_CHECK_PHOTOS", limit)
    tiny = save(tmp_path / "tiny.png", noise(20, 90)).read_bytes()
    members = {"a.png": b"nothing", "b.jpg": b"", "c.png": tiny, "._d.png": b"hidden", "d.png": photos["busy.png"]}
    pairs = pairs_of(write_shard(tmp_path / "one.tar", members))
    assert len(pairs) == 1
    assert len(pairs.refused) == 3
    for name, reason in zip(("a.png", "b.jpg", "c.png"), pairs.refused, strict=True):
        assert f"one.tar/{name}: " in reason
    assert "90x20" in pairs.refused[2]


def test_a_large_header_is_read_whole(tmp_path, photos, monkeypatch):
    monkeypatch.setattr(scan, "FULL_CHECK_PHOTOS", 0)
    monkeypatch.setattr("dreamsr.data.photo_files.HEAD_BYTES", 12)
    assert len(pairs_of(write_shard(tmp_path / "one.tar", {"a.png": photos["busy.png"]}))) == 1


def test_a_shard_cut_off_in_the_middle_is_refused_at_once_and_later(tmp_path, photos):
    path = write_shard(tmp_path / "one.tar", {"a.png": photos["busy.png"]})
    pairs = pairs_of(path)
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(DataError, match=r"one\.tar/a\.png: the archive ends in the middle"):
        pairs[0]
    with pytest.raises(DataError, match=r"one\.tar: not a whole"):
        pairs_of(path)


def test_what_is_no_plain_tar_is_refused_with_a_remedy(tmp_path, photos):
    packed = write_shard(tmp_path / "packed.tar", {"a.png": photos["busy.png"]}, mode="w:gz")
    with pytest.raises(DataError, match="unpack"):
        pairs_of(packed)
    (tmp_path / "data.zip").write_bytes(b"PK")
    for wrong in ("data.zip", "none.tar", "*.tgz", "none"):
        with pytest.raises(DataError, match=r"give `data` a folder"):
            pairs_of(tmp_path / wrong)


def test_shards_beside_pictures_are_ambiguous(tmp_path, photos):
    write_shard(tmp_path / "one.tar", {"a.png": photos["busy.png"]})
    (tmp_path / "b.png").write_bytes(photos["busy.png"])
    with pytest.raises(DataError, match=r"`data` '.*\*\.tar'"):
        pairs_of(tmp_path)
    assert len(pairs_of(tmp_path / "*.tar")) == 1
