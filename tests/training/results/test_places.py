"""What a run must never do: replace what it reads, or read at its next start what it wrote."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from dreamsr.data.sources import DataSource
from dreamsr.errors import OutputError
from dreamsr.training.finetuning.finetune import finetune
from dreamsr.training.request import RunRequest
from dreamsr.training.results.places import require_place
from dreamsr.training.start import load_start
from tests.training.tiny_runs import TINY, draw_pictures, run

SHORT = replace(TINY, max_steps=1, base_steps=0)


def snapshot(place: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in place.rglob("*") if path.is_file()}


@pytest.fixture
def data(tmp_path: Path) -> DataSource:
    return draw_pictures(tmp_path / "photos" / "mine")


@pytest.mark.parametrize("out", ["photos/mine", "photos/mine/run", "photos/mine/deep/run", "photos/../photos/mine/run"])
def test_a_run_inside_its_own_data_is_refused_and_nothing_is_written(
    data: DataSource, tmp_path: Path, out: str
) -> None:
    before = snapshot(tmp_path)
    with pytest.raises(OutputError, match=r"is or lies in `data` .*mine, whose pictures are read"):
        run(SHORT, data, tmp_path / out)
    assert snapshot(tmp_path) == before
    assert not (tmp_path / "photos" / "mine" / "run").exists()


def test_links_into_the_data_are_seen_through(data: DataSource, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "photos", target_is_directory=True)
    with pytest.raises(OutputError, match="lies in `data`"):
        require_place(tmp_path / "link" / "mine" / "run", data, None)
    with pytest.raises(OutputError, match="lies in `data`"):
        require_place(tmp_path / "photos/mine/run", DataSource(data=str(tmp_path / "link")), None)


def test_the_folders_of_validation_and_of_pairs_count_too(data: DataSource, tmp_path: Path) -> None:
    held = tmp_path / "held"
    held.mkdir()
    with pytest.raises(OutputError, match="lies in `valid`"):
        require_place(held / "run", data, held)
    pairs = DataSource(hr=tmp_path / "photos" / "mine", lr=held)
    with pytest.raises(OutputError, match="lies in `hr`"):
        require_place(tmp_path / "photos" / "mine", pairs, None)
    with pytest.raises(OutputError, match="lies in `lr`"):
        require_place(held / "run", pairs, None)


@pytest.mark.parametrize("folder", ["samples", "checkpoints", "tensorboard/old"])
def test_pictures_where_the_run_writes_are_refused(tmp_path: Path, folder: str) -> None:
    data = draw_pictures(tmp_path / "run" / folder)
    with pytest.raises(OutputError, match=f"lies in `out` .*run/{folder.split('/')[0]}, where the run writes"):
        require_place(tmp_path / "run", data, None)


def test_places_beside_the_data_are_fine(data: DataSource, tmp_path: Path) -> None:
    for out in ("run", "photos/run", "photos/mine-run", "new/deep/run"):
        require_place(tmp_path / out, data, tmp_path / "run" / "held-out", weights=tmp_path / "first.safetensors")
    require_place(tmp_path, data, None)
    assert not (tmp_path / "new").exists()


def test_the_weights_begun_with_are_not_replaced(data: DataSource, tmp_path: Path) -> None:
    out = tmp_path / "run"
    run(SHORT, data, out)
    before = snapshot(out)
    for resume in (False, True):
        with pytest.raises(OutputError, match=r"lies in `out` .* and would be replaced"):
            run(SHORT, data, out, start=load_start(str(out)), resume=resume)
    with pytest.raises(OutputError, match=r"`weights` .*model\.safetensors lies in `out` .* and would be replaced"):
        finetune(RunRequest(SHORT, data, out, device="cpu", resume=True), str(out))
    assert snapshot(out) == before


def test_files_of_others_are_not_replaced(data: DataSource, tmp_path: Path) -> None:
    for name, content in (("model.safetensors", "someone's"), ("config.json", '{"model_type": "bert"}')):
        out = tmp_path / Path(name).stem
        out.mkdir()
        (out / name).write_text(content)
        with pytest.raises(OutputError, match=rf"holds .*{name}.* would be replaced; choose another `out`"):
            run(SHORT, data, out)
        assert snapshot(out) == {out / name: content.encode()}


def test_a_run_killed_before_its_first_checkpoint_may_be_begun_anew(data: DataSource, tmp_path: Path) -> None:
    def kill(_progress: object) -> None:
        raise RuntimeError("as if killed")

    with pytest.raises(RuntimeError, match="killed"):
        run(replace(TINY, save_every=100), data, tmp_path / "run", on_progress=kill)
    assert (tmp_path / "run" / "config.json").exists()
    assert run(SHORT, data, tmp_path / "run").exists()


def test_places_that_cannot_be_written_are_found_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    nowhere = DataSource(data=str(tmp_path / "not even looked for"))
    for out, told in (("file/run", "below the file"), ("x" * 300, "255 bytes")):
        with pytest.raises(OutputError, match=told):
            run(SHORT, nowhere, tmp_path / out)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write everywhere")
def test_read_only_folders_are_found_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0o555)
    with pytest.raises(OutputError, match="is read-only"):
        require_place(tmp_path / "closed" / "run", DataSource(data=str(tmp_path / "photos")), None)
