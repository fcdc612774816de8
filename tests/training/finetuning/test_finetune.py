"""Fine-tuning: what is held out, that it helps, what it tells, and what the weights say of themselves."""

from __future__ import annotations

import json
import math
import os
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dreamsr.config import to_mapping
from dreamsr.core.backbones.refiner import RefinerConfig
from dreamsr.core.model import ModelConfig
from dreamsr.core.pixels import from_tensor, to_tensor
from dreamsr.core.resize import shrink
from dreamsr.data.sources import DataSource
from dreamsr.disk import file_sha256
from dreamsr.errors import ConfigError, DataError, OutputError, UsageError
from dreamsr.measure.metrics import PSNR_Y, SSIM_Y
from dreamsr.publishing.publish import About, stage
from dreamsr.training import start
from dreamsr.training.config import DreamConfig, TrainConfig
from dreamsr.training.finetuning.before_after import FinetuneReport, FinetuneRow
from dreamsr.training.finetuning.finetune import FINETUNE, finetune, suited
from dreamsr.training.finetuning.holdout import MOST_HELD_OUT, held_out_by_user, hold_out
from dreamsr.training.finetuning.sanity import sanity_picture
from dreamsr.training.results import validation
from dreamsr.upscaling.upscaler import Upscaler
from dreamsr.weights.file import load_weights, save_weights
from tests.training.test_processes import in_two
from tests.training.tiny_runs import asked, checkpoint, largest_difference, valid_row
from tests.training.tiny_runs import run as run_on_cpu

TINY = TrainConfig(
    model=ModelConfig(sizes=RefinerConfig(encoder_channels=8, encoder_blocks=1, channels=(8, 12))),
    dream=DreamConfig(power=1.0),
    max_steps=60,
    batch_size=4,
    crop_low_px=8,
    crop_candidates=1,
    shrink_factors=(1,),
    learning_rate=3e-3,
    warmup_steps=5,
    ema_halflife_steps=5.0,
    precision="fp32",
    valid_every=30,
    valid_steps=(1,),
    valid_limit=3,
)
SHORT = replace(TINY, max_steps=2)


def disks(number: int, side: int = 64) -> np.ndarray:
    """Grey disks with sharp edges, [side,side,3] uint8: something a net can learn in seconds."""
    draw = np.random.default_rng(number)
    y, x = np.mgrid[0:side, 0:side]
    plane = np.full((side, side), 60, np.uint8)
    for _ in range(14):
        top, left, radius, level = draw.uniform(0, [side, side, 14, 255])
        plane[np.hypot(y - top, x - left) < max(5, radius)] = level
    return np.repeat(plane[..., None], 3, axis=2)


def noise(side: int) -> np.ndarray:
    """What a net should best forget."""
    return np.repeat(np.random.default_rng(3).integers(0, 256, (side, side, 1), np.uint8), 3, axis=2)


def write_pictures(folder: Path, count: int) -> Path:
    folder.mkdir(parents=True)
    for number in range(count):
        Image.fromarray(disks(number)).save(folder / f"{number:03d}.png")
    return folder


def tuned(config: TrainConfig, weights: str, source: DataSource, out: Path, *, share: float | None = None, **options):
    """`finetune`; `options` are fields of its request or its listener."""
    request, listener = asked(config, source, out, **options)
    return finetune(request, weights, share=share, listener=listener)


@pytest.fixture(autouse=True)
def no_lpips(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is installed here: its weights may have to be fetched."""
    monkeypatch.setattr(validation, "Perceptual", lambda _: lambda _image, _truth: {})


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pictures(tmp_path_factory.mktemp("data") / "mine", 12)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny net that has learnt something else, and recommends 3 steps."""
    place = tmp_path_factory.mktemp("first")
    (place / "other").mkdir()
    Image.fromarray(noise(128)).save(place / "other" / "a.png")
    first = load_weights(run_on_cpu(replace(TINY, max_steps=40), DataSource(data=str(place / "other")), place / "run"))
    path = place / "secret-folder" / "first.safetensors"
    path.parent.mkdir()
    save_weights(path, first.net.state_dict(), first.config, facts={"default_steps": 3}, dtype=torch.float32)
    return path


@pytest.fixture(scope="module")
def run(data: Path, weights: Path, tmp_path_factory: pytest.TempPathFactory):
    """(the report of one real run, its folder, what it told)."""
    out, told = tmp_path_factory.mktemp("runs") / "tuned", []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(validation, "Perceptual", lambda _: lambda _image, _truth: {})
        source = DataSource(data=str(data))
        report = tuned(TINY, str(weights), source, out, share=0.25, device="cpu", on_notice=told.append)
    return report, out, told


# --- what a run gives -------------------------------------------------------------------------------------------------


def test_it_helps_on_pictures_that_were_not_trained_on(run) -> None:
    report, out, told = run
    held = [row for row in report.rows if row.pictures == "held-out"]
    assert [row.steps for row in held] == [1, 3]
    gains = [row.after.figures[PSNR_Y] - row.before.figures[PSNR_Y] for row in held]
    assert gains[0] > 0.1
    assert gains[1] > 1
    assert all(row.after.figures[SSIM_Y] > row.before.figures[SSIM_Y] for row in held)
    assert not any(row.worse for row in held)
    assert len(report.held_out) == 3
    assert json.loads((out / "config.json").read_text())["photos"] == 9
    assert "3 of 12 pictures are held out of training, to measure on" in told


def test_the_sanity_picture_is_measured_too(run) -> None:
    report, _, _ = run
    rows = [row for row in report.rows if row.pictures == "sanity"]
    assert [row.steps for row in rows] == [1, 3]
    assert all(row.before != row.after for row in rows)
    assert rows[0].bicubic.steps == 0


def test_validations_on_the_way_use_the_held_out_pictures(run) -> None:
    report, out, _ = run
    names = sorted(path.name for path in (out / "held-out").iterdir())
    assert names == [f"{number:02d}-{Path(name).stem}.png" for number, name in enumerate(report.held_out)]
    last = [json.loads(line) for line in (out / "valid.jsonl").read_text().splitlines()][-1]
    row = next(row for row in report.rows if row.pictures == "held-out")
    assert last["rows"][0]["psnr_y"] == pytest.approx(row.after.figures[PSNR_Y])
    assert last["bicubic"]["psnr_y"] == pytest.approx(row.bicubic.figures[PSNR_Y])


def test_the_report_is_written_with_all_it_takes_to_repeat_it(run, weights: Path) -> None:
    report, out, _ = run
    told = json.loads((out / "report.json").read_text())
    assert told["weights"] == {"file": "model.safetensors", "sha256": file_sha256(out / "model.safetensors")}
    assert told["finetuned_from"] == {"name": "first.safetensors", "sha256": file_sha256(weights)}
    assert told["held_out"] == list(report.held_out)
    assert told["environment"]["dtype"] == "float32"
    assert told["degradation"] == "bicubic"
    assert [row["after"]["psnr_y"] for row in told["rows"]] == [row.after.figures[PSNR_Y] for row in report.rows]
    assert {row["pictures"] for row in told["rows"]} == {"held-out", "sanity"}


def test_the_weights_load_and_say_what_they_come_from(run, weights: Path) -> None:
    report, out, _ = run
    assert report.weights == out / "model.safetensors"
    upscaler = Upscaler(out, "cpu")
    assert upscaler.default_steps == 3
    assert upscaler(disks(1, 16), 4).shape == (64, 64, 3)
    for name in ("model.safetensors", "best.safetensors"):
        facts = load_weights(out / name).facts
        assert facts["finetuned_from"]["sha256"] == file_sha256(weights)
        assert facts["train"]["max_steps"] == 60
        assert "secret-folder" not in json.dumps(facts)


def test_the_weights_can_be_published(run) -> None:
    _, out, _ = run
    about = About(licence="CC0-1.0", training_data="my disks", training_data_licence="CC0-1.0")
    assert stage(out, "someone/disks-x4", about).entry.steps == 3


def test_before_and_after_stand_side_by_side(run, data: Path) -> None:
    report, out, _ = run
    with Image.open(out / "before-after.png") as sheet:
        pixels = np.asarray(sheet)
    # The last column, 256 px wide for the sanity picture, shows the truths.
    left = pixels.shape[1] - 4 - 256
    for number, name in enumerate(report.held_out):
        top = 22 + 68 * number
        assert np.array_equal(pixels[top : top + 64, left : left + 64], np.asarray(Image.open(data / name)))
    assert np.array_equal(pixels[top + 68 : top + 68 + 256, left:-4], sanity_picture(256))


def test_a_finished_run_is_not_overwritten(run, data: Path, weights: Path) -> None:
    _, out, _ = run
    before = (out / "report.json").read_bytes(), (out / "model.safetensors").read_bytes()
    with pytest.raises(OutputError, match="`resume`"):
        tuned(SHORT, str(weights), DataSource(data=str(data)), out, device="cpu")
    assert before == ((out / "report.json").read_bytes(), (out / "model.safetensors").read_bytes())


def test_weights_that_lie_there_are_not_overwritten_and_it_is_said_at_once(weights: Path, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"someone's")
    with pytest.raises(OutputError, match=r"holds model\.safetensors"):
        tuned(SHORT, str(weights), DataSource(data=str(tmp_path / "not even looked for")), tmp_path)
    assert (tmp_path / "model.safetensors").read_bytes() == b"someone's"


# --- what it begins with ----------------------------------------------------------------------------------------------


def saying(path: Path, weights: Path, facts: dict) -> str:
    own = load_weights(weights)
    save_weights(path, own.net.state_dict(), own.config, facts=facts, dtype=torch.float32)
    return str(path)


def test_it_goes_on_as_the_weights_were_trained(weights: Path, tmp_path: Path) -> None:
    trained = replace(
        TINY, loss="l2", continuous_time=True, valid_steps=(2, 7), dream=DreamConfig(power=3.0, start=9), batch_size=64
    )
    config = suited(saying(tmp_path / "a.safetensors", weights, {"train": to_mapping(trained)}))
    assert config == replace(
        FINETUNE, loss="l2", continuous_time=True, valid_steps=(2, 7), dream=DreamConfig(power=3.0)
    )
    rectified = to_mapping(replace(trained, dream=DreamConfig(power=0.0)))
    assert suited(saying(tmp_path / "b.safetensors", weights, {"train": rectified})).dream.power == 0


def test_weights_that_do_not_say_and_those_trained_plainly_get_the_usual(weights: Path, tmp_path: Path) -> None:
    plain = to_mapping(replace(TINY, dream=DreamConfig(power=math.inf)))
    for facts in ({}, {"train": "?"}, {"train": {"dream": 1}}):
        assert suited(saying(tmp_path / "a.safetensors", weights, facts)) == FINETUNE
    assert suited(saying(tmp_path / "b.safetensors", weights, {"train": plain})).dream == FINETUNE.dream


def test_what_a_file_says_of_its_training_is_checked(weights: Path, tmp_path: Path) -> None:
    path = saying(tmp_path / "a.safetensors", weights, {"train": {"loss": "huber"}})
    with pytest.raises(ConfigError, match=r"how .*a\.safetensors was trained: loss"):
        suited(path)


# --- how a run goes ---------------------------------------------------------------------------------------------------


def test_no_steps_change_nothing(data: Path, weights: Path, tmp_path: Path) -> None:
    report = tuned(replace(TINY, max_steps=0), str(weights), DataSource(data=str(data)), tmp_path / "run")
    assert all(row.before == row.after for row in report.rows)


def test_a_stopped_run_goes_on_to_the_same_weights(data: Path, weights: Path, tmp_path: Path) -> None:
    source = DataSource(data=str(data))
    config = replace(TINY, max_steps=6)

    def interrupt(now) -> None:
        if now.step == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tuned(config, str(weights), source, tmp_path / "parts", on_progress=interrupt)
    parts = tuned(config, str(weights), source, tmp_path / "parts", resume=True)
    whole = tuned(config, str(weights), source, tmp_path / "whole")
    assert parts.rows == whole.rows
    assert parts.weights.read_bytes() == whole.weights.read_bytes()


def test_with_two_pictures_it_trains_on_both_and_says_what_that_costs(weights: Path, tmp_path: Path) -> None:
    data, told = write_pictures(tmp_path / "two", 2), []
    report = tuned(SHORT, str(weights), DataSource(data=str(data)), tmp_path / "run", on_notice=told.append)
    assert report.held_out == ()
    assert {row.pictures for row in report.rows} == {"sanity"}
    assert report.told == told[0]
    assert "2 pictures are too few to hold one out" in report.told
    assert json.loads((tmp_path / "run" / "config.json").read_text())["photos"] == 2
    assert not (tmp_path / "run" / "held-out").exists()


def test_pairs_are_measured_on_their_own_small_halves(weights: Path, tmp_path: Path) -> None:
    source = write_pairs(tmp_path, 4)
    report = tuned(SHORT, str(weights), source, tmp_path / "run")
    assert len(report.held_out) == 1
    assert json.loads((tmp_path / "run" / "config.json").read_text())["photos"] == 3
    assert not (tmp_path / "run" / "valid.jsonl").read_text()


def test_the_model_is_that_of_the_weights(data: Path, weights: Path, tmp_path: Path) -> None:
    report = tuned(replace(SHORT, model=ModelConfig(scale=2)), str(weights), DataSource(data=str(data)), tmp_path)
    assert load_weights(report.weights).config == TINY.model


def test_the_steps_are_those_that_the_weights_recommend(data: Path, weights: Path, tmp_path: Path) -> None:
    """Whatever the settings say, and four where the weights say nothing."""
    first = load_weights(weights)
    silent = tmp_path / "silent.safetensors"
    save_weights(silent, first.net.state_dict(), first.config, facts={}, dtype=torch.float32)
    config = replace(SHORT, default_steps=16)
    for path, steps in ((weights, 3), (silent, 4)):
        report = tuned(config, str(path), DataSource(data=str(data)), tmp_path / f"run-{steps}")
        assert load_weights(report.weights).facts["default_steps"] == steps
        assert [row.steps for row in report.rows] == [1, steps, 1, steps]


@pytest.mark.skipif(os.name != "posix", reason="forks")
@pytest.mark.usefixtures("single_threaded")
def test_two_processes_equal_one_with_twice_the_batch(data: Path, weights: Path, tmp_path: Path) -> None:
    config = replace(TINY, max_steps=6, valid_every=3)

    def work(place: str, config: TrainConfig = config) -> FinetuneReport:
        return tuned(config, str(weights), DataSource(data=str(data)), tmp_path / place, share=0.25)

    ours, theirs = in_two(tmp_path / "ends", lambda _: work("two"))
    assert ours == theirs
    whole = work("one", replace(config, batch_size=8))
    assert (ours.held_out, ours.told) == (whole.held_out, whole.told)
    one, two = checkpoint(tmp_path / "one"), checkpoint(tmp_path / "two")
    for name in ("net", "ema"):
        assert largest_difference(one[name], two[name]) < 1e-5
    half = work("half")
    assert largest_difference(one["net"], checkpoint(tmp_path / "half")["net"]) > 1e-4
    for a, b in zip(whole.rows, ours.rows, strict=True):
        assert b.after.figures[PSNR_Y] == pytest.approx(a.after.figures[PSNR_Y], abs=0.01)
    assert [row.before for row in ours.rows] == [row.before for row in half.rows]
    assert json.loads((tmp_path / "two" / "config.json").read_text())["processes"] == 2
    assert (tmp_path / "two" / "report.json").is_file()


@pytest.mark.skipif(os.name != "posix", reason="forks")
@pytest.mark.usefixtures("single_threaded")
def test_what_goes_wrong_in_several_processes_is_told_once(data: Path, weights: Path, tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text("{}")
    source = DataSource(data=str(data))
    ours, theirs = in_two(tmp_path / "ends", lambda _: tuned(SHORT, str(weights), source, tmp_path))
    assert isinstance(ours, OutputError)
    assert "holds report.json of a run already" in str(ours)
    assert theirs == repr(SystemExit(OutputError.exit_code))


def test_missing_data_leave_no_folder_behind(weights: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        tuned(SHORT, str(weights), DataSource(data=str(tmp_path / "nowhere")), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_name_of_the_registry_brings_its_licence(weights: Path, monkeypatch) -> None:
    from dreamsr.weights.registry import WeightsEntry

    facts = ("licence", "training_data", "training_data_licence")
    entry = WeightsEntry("photo-x4", "", "refiner", 4, "", 2, "", 0, *facts)
    monkeypatch.setattr(start, "describe_weights", lambda name: entry if name == "photo-x4" else None)
    origin = start.origin("photo-x4", weights)["finetuned_from"]
    assert origin == {"name": "photo-x4", "sha256": file_sha256(weights), **dict(zip(facts, facts, strict=True))}


@pytest.mark.parametrize(
    ("psnr", "lpips", "worse"),
    [(27.0, None, False), (26.95, None, False), (26.8, None, True), (27.0, 0.305, False), (28.0, 0.32, True)],
)
def test_what_people_would_see_as_worse(psnr: float, lpips: float | None, worse: bool) -> None:
    before = valid_row(1, 27.0, 0.8, None if lpips is None else 0.3)
    assert FinetuneRow("sanity", before, before, valid_row(1, psnr, 0.8, lpips)).worse is worse


def test_the_defaults_dream_and_average_and_are_gentler_than_training_anew() -> None:
    assert FINETUNE.dream.enabled
    assert FINETUNE.ema_halflife_steps > 0
    assert FINETUNE.learning_rate < TrainConfig().learning_rate
    assert FINETUNE.base_steps == 0


# --- pictures of one's own to measure on ------------------------------------------------------------------------------


def test_pictures_to_measure_on_can_be_given(data: Path, weights: Path, tmp_path: Path) -> None:
    others = write_pictures(tmp_path / "others", 5)
    report = tuned(
        replace(TINY, max_steps=30), str(weights), DataSource(data=str(data)), tmp_path / "run", valid=others
    )
    assert report.held_out == ("000.png", "001.png", "002.png")  # valid_limit
    assert report.told == f"3 pictures in {others} are measured on"
    assert {row.pictures for row in report.rows} == {"held-out", "sanity"}
    assert json.loads((tmp_path / "run" / "config.json").read_text())["photos"] == 12
    last = [json.loads(line) for line in (tmp_path / "run" / "valid.jsonl").read_text().splitlines()][-1]
    row = next(row for row in report.rows if row.pictures == "held-out")
    assert last["rows"][0]["psnr_y"] == pytest.approx(row.after.figures[PSNR_Y])
    assert not (tmp_path / "run" / "held-out").exists()


def test_given_pictures_that_lie_among_the_others_are_not_trained_on(data: Path, weights: Path, tmp_path: Path) -> None:
    mine = write_pictures(tmp_path / "mine", 4)
    write_pictures(mine / "measured", 5)
    held = held_out_by_user(mine / "measured", DataSource(data=str(mine)), TINY)
    assert held.left_out == {f"measured/00{number}.png" for number in range(5)}
    assert held.told.endswith("; 5 that lie there are left out of training")
    assert held_out_by_user(mine / "measured", DataSource(data=str(data)), TINY).left_out == set()
    tuned(SHORT, str(weights), DataSource(data=str(mine)), tmp_path / "run", valid=mine / "measured")
    assert json.loads((tmp_path / "run" / "config.json").read_text())["photos"] == 4


def test_given_pictures_serve_pairs_and_streams_too(tmp_path: Path) -> None:
    source, others = write_pairs(tmp_path, 4), write_pictures(tmp_path / "others", 2)
    assert held_out_by_user(others, source, TINY).names == ("000.png", "001.png")
    assert source.hr is not None
    assert held_out_by_user(source.hr, source, TINY).left_out == {f"00{number}.png" for number in range(4)}
    assert len(held_out_by_user(others, DataSource(data="hub:user/name"), TINY).examples) == 2


def test_a_folder_and_a_share_cannot_both_be_asked_for(data: Path, weights: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="choose one"):
        tuned(SHORT, str(weights), DataSource(data=str(data)), tmp_path / "run", valid=data, share=0.1)
    with pytest.raises(DataError, match="no such folder"):
        tuned(SHORT, str(weights), DataSource(data=str(data)), tmp_path / "run", valid=tmp_path / "nowhere")
    assert not (tmp_path / "run").exists()


# --- what is held out -------------------------------------------------------------------------------------------------


def write_pairs(folder: Path, count: int) -> DataSource:
    """Pairs, the small ones named as DIV2K does."""
    hr = write_pictures(folder / "hr", count)
    (folder / "lr").mkdir()
    for path in hr.iterdir():
        low = from_tensor(shrink(to_tensor(np.asarray(Image.open(path))), 4))
        Image.fromarray(low).save(folder / "lr" / f"{path.stem}x4.png")
    return DataSource(hr=hr, lr=folder / "lr")


def test_the_same_pictures_are_held_out_whatever_else_lies_in_the_folder(data: Path, tmp_path: Path) -> None:
    first = hold_out(DataSource(data=str(data)), TINY)
    moved = write_pictures(tmp_path / "elsewhere", 12)
    (moved / "notes.txt").write_text("no picture")
    Image.fromarray(disks(0, 24)).save(moved / "too-small.png")
    again = hold_out(DataSource(data=str(moved)), TINY)
    assert again.names == first.names == (first.examples[0].name,)
    assert again.told == first.told == "1 of 12 pictures are held out of training, to measure on"
    assert np.array_equal(first.examples[0].truth, np.asarray(Image.open(data / first.names[0])))


@pytest.mark.parametrize(("count", "share", "held"), [(3, 0.1, 1), (12, 0.1, 1), (12, 0.25, 3), (60, 0.5, 20)])
def test_how_many_are_held_out(tmp_path: Path, count: int, share: float, held: int) -> None:
    data = write_pictures(tmp_path / "data", count)
    found = hold_out(DataSource(data=str(data)), TINY, share=share)
    assert len(found.names) == len(set(found.names)) == held <= MOST_HELD_OUT


def test_names_do_not_decide_in_their_order(tmp_path: Path) -> None:
    data = write_pictures(tmp_path / "data", 40)
    names = hold_out(DataSource(data=str(data)), TINY, share=0.5).names
    assert sorted(names) != sorted(path.name for path in data.iterdir())[:20]


def test_pictures_in_folders_below_keep_their_place_in_the_name(tmp_path: Path) -> None:
    write_pictures(tmp_path / "all" / "a", 2)
    write_pictures(tmp_path / "all" / "b", 2)
    names = hold_out(DataSource(data=str(tmp_path / "all")), TINY, share=0.5).names
    assert all((tmp_path / "all" / name).is_file() and "/" in name for name in names)


def test_damaged_pictures_and_those_left_out_already_are_not_held_out(tmp_path: Path) -> None:
    copy = write_pictures(tmp_path / "data", 12)
    (first,) = hold_out(DataSource(data=str(copy)), TINY).names
    (second,) = hold_out(DataSource(data=str(copy), exclude=frozenset({first})), TINY).names
    assert second != first
    content = (copy / first).read_bytes()
    (copy / first).write_bytes(content[: len(content) // 2])
    assert hold_out(DataSource(data=str(copy)), TINY).names == (second,)


def test_shards_are_split_by_their_members(data: Path, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "one.tar", "w") as archive:
        for path in sorted(data.iterdir()):
            archive.add(path, path.name)
    found = hold_out(DataSource(data=str(tmp_path / "one.tar")), TINY)
    assert len(found.names) == 1
    member = found.names[0].removeprefix("one.tar/")
    assert np.array_equal(found.examples[0].truth, np.asarray(Image.open(data / member)))


def test_pairs_are_held_out_by_their_large_pictures(tmp_path: Path) -> None:
    source = write_pairs(tmp_path, 4)
    found = hold_out(source, TINY)
    assert source.hr is not None
    assert source.lr is not None
    (name,) = found.names
    assert np.array_equal(found.examples[0].truth, np.asarray(Image.open(source.hr / name)))
    low = np.asarray(Image.open(source.lr / f"{Path(name).stem}x4.png"))
    assert np.array_equal(found.examples[0].low, low)


def test_of_a_stream_nothing_is_held_out_and_it_is_said() -> None:
    found = hold_out(DataSource(data="hub:user/name"), TINY)
    assert found.examples == ()
    assert "stream" in found.told


def test_nothing_is_held_out_where_nobody_wants_it(data: Path) -> None:
    assert hold_out(DataSource(data=str(data)), TINY, share=0).names == ()
    for share in (-0.1, 0.6):
        with pytest.raises(UsageError, match="held-out share"):
            hold_out(DataSource(data=str(data)), TINY, share=share)


# --- the sanity picture -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("side", [64, 128, 256])
def test_the_sanity_picture_is_always_the_same_and_has_something_in_every_quarter(side: int) -> None:
    picture = sanity_picture(side)
    assert picture.shape == (side, side, 3)
    assert np.array_equal(picture, sanity_picture(side))
    half = side // 2
    quarters = [picture[y : y + half, x : x + half] for y in (0, half) for x in (0, half)]
    steepest = [np.abs(np.diff(quarter.astype(int), axis=1)).max() for quarter in quarters]
    assert [quarter.std() > 10 for quarter in quarters] == [True] * 4
    assert steepest[1] < 10 < min(steepest[0], *steepest[2:])  # all but the gradients have edges
