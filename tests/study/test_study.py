"""A whole study of tiny nets: its arms are training runs, its table is one benchmark, and nothing is done twice."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import filelock
import numpy as np
import pytest

from dreamsr.data.sources import DataSource
from dreamsr.errors import OutputError, UsageError
from dreamsr.measure.metrics import CONSISTENCY, LPIPS_ALEX, PSNR_Y
from dreamsr.pictures.picture import Picture
from dreamsr.pictures.write import write_picture
from dreamsr.study import arms as arms_module
from dreamsr.study import study as study_module
from dreamsr.study.arms import MOST_STEPS, Studio, StudyPlan
from dreamsr.study.report import figures_of, markdown, systems_of, write_report
from dreamsr.study.study import BICUBIC, CROPS, FLAT, PICTURES, prepare, results, train_and_measure
from dreamsr.study.systems import SYSTEMS, Arm, arm_called
from dreamsr.training.results.log import read_lines

SETTINGS = (
    "crop_low_px=8",
    "shrink_factors=[1]",
    "batch_size=1",
    "precision=fp32",
    "model.process.timesteps=4",
    "model.process.beta_last=0.5",
    "model.sr3.channels=4",
    "model.sr3.multipliers=[1]",
    "model.sr3.groups=2",
)
PLAIN, DREAM = Arm("sr3-x0", math.inf, 0), Arm("sr3-x0", 1.0, 0)
PLAN = StudyPlan((PLAIN, DREAM), SETTINGS, max_steps=8, sample_steps=(2, MOST_STEPS), curve_steps=1, crops=3)
RATIO = 4 / 3


def pictures(folder, *, phase=0.0):
    folder.mkdir()
    y, x = np.mgrid[0:48, 0:56]
    for i in range(3):
        waves = [np.sin(x / (3 + i) + c + phase) + np.cos(y / (2 + c)) for c in range(3)]
        pixels = (np.stack(waves, axis=2) * 60 + 128).clip(0, 255).astype(np.uint8)
        write_picture(folder / f"{i}.png", Picture(pixels))
    return folder


def studio_in(place, plan=PLAN, **options):
    data = DataSource(data=str(place / "data"))
    return Studio(plan, data, place / "out", **{"device": "cpu", "judges": (), **options})


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A study of two arms, finished."""
    place = tmp_path_factory.mktemp("study")
    pictures(place / "data")
    pictures(place / "held", phase=1)
    (place / "out").mkdir()
    (place / "out" / "overhead-sr3-x0.json").write_text(json.dumps({"ratio": RATIO}))
    studio = studio_in(place)
    prepare(studio, place / "held")
    assert train_and_measure(studio, PLAN.arms) == []
    return place


def test_arms_are_called_by_what_they_are():
    for arm in (PLAIN, DREAM, Arm("resshift", 0.5, 12), Arm("sr3-centred", 3.0, 1)):
        assert arm_called(arm.name) == arm
    assert (PLAIN.name, DREAM.name, DREAM.kind) == ("sr3-x0-plain-0", "sr3-x0-p1-0", "sr3-x0-p1")
    for name in ("sr3-x0-plain", "sr3-x0-p1.0-0", "sr4-plain-0", "sr3-x0-plain-0.lock", "crops"):
        assert arm_called(name) is None


@pytest.mark.parametrize("system", SYSTEMS)
def test_every_system_is_trained_on_the_same_crops_at_a_constant_rate(system):
    plain, dream = (Arm(system, power, 3).config(40, ()) for power in (math.inf, 0.0))
    assert replace(plain, dream=dream.dream) == dream
    assert (dream.dream.power, dream.dream.start, plain.dream.enabled) == (0.0, 0, False)
    assert (plain.max_steps, plain.seed, plain.rate_schedule) == (40, 3, "constant")
    assert (plain.model.scale, plain.crop_low_px, plain.shrink_factors) == (4, 16, (2, 4))


def test_systems_are_what_they_say():
    said = {name: Arm(name, math.inf, 0).config(1, ()).model for name in SYSTEMS}
    found = {name: (model.prediction, model.parametrisation) for name, model in said.items()}
    assert found == {
        "sr3-x0": ("x0", "plain"),
        "sr3-centred": ("eps", "centred"),
        "sr3-eps": ("eps", "plain"),
        "resshift": ("x0", "plain"),
        "idm": ("eps", "centred"),
    }
    process = said["resshift"].process
    assert (process.kind, process.schedule, process.kappa, process.timesteps) == ("residual", "geometric", 2.0, 15)


def test_arms_are_training_runs_that_kept_their_nets_on_the_way(place):
    studio = studio_in(place)
    assert studio.lengths(PLAIN) == [1, 2, 4, 6, 8]
    assert studio.equal_time_steps(DREAM) == 6  # 8 / (4/3)
    for arm in PLAN.arms:
        assert all(studio.kept(arm, length).exists() for length in studio.lengths(arm))
        lines = read_lines(studio.folder(arm) / "log.jsonl")
        assert [line["step"] for line in lines] == list(range(1, 9))
        assert {line["stage"] for line in lines} == {"dream" if arm is DREAM else "plain"}
    weights = [studio.kept(arm, 8).read_bytes() for arm in PLAN.arms]
    assert weights[0] != weights[1]


def test_the_tables_hold_every_net_beside_bicubic_and_a_flat_colour(place):
    studio = studio_in(place)
    found, arms, perceptual = results(studio)
    assert arms == list(PLAN.arms)
    figures = figures_of(found)
    assert set(figures.others[PSNR_Y.key]) == {BICUBIC, FLAT}
    assert all(len(values) == 3 for values in figures.others[CONSISTENCY.key].values())
    measured = {(net.kind, net.length, net.steps) for net in figures.nets[PSNR_Y.key]}
    whole = {(kind, 8, steps) for kind in ("sr3-x0-plain", "sr3-x0-p1") for steps in (1, 2, 4)}
    curve = {(kind, length, 1) for kind in ("sr3-x0-plain", "sr3-x0-p1") for length in (1, 2, 4, 6)}
    assert measured == whole | curve | {("sr3-x0-p1", 6, 2), ("sr3-x0-p1", 6, 4)}
    assert LPIPS_ALEX not in figures.metrics
    paths = write_report(studio, found, arms, {"seen": 1}, missing=perceptual.missing)
    text = paths[0].read_text()
    assert "| bicubic | " in text
    assert "| flat colour | " in text
    assert "| p = 1, as long as plain | 6 | 1 | " in text
    assert "Not measured: LPIPS, DISTS" in text
    assert "## sr3-x0: not judged, LPIPS is missing" in text
    assert "1.33 times" in text
    told = json.loads(paths[1].read_text())
    assert told["facts"] == {"seen": 1}
    assert told["systems"]["sr3-x0"]["verdict"] == "not judged, LPIPS is missing"
    assert paths[2].read_bytes()[:4] == b"\x89PNG"


def test_samples_lie_beside_each_other_for_other_judges(place):
    crops = sorted(path.name for path in (place / "out" / CROPS).glob("*.png"))
    assert crops == ["0000.png", "0001.png", "0002.png"]
    folders = list((place / "out" / PICTURES / CROPS).iterdir())
    assert {folder.name for folder in folders} >= {BICUBIC, FLAT, "sr3-x0-p1-0@8-steps4-stochasticity1"}
    assert all(sorted(path.name for path in folder.iterdir()) == crops for folder in folders)


def test_a_finished_study_is_read_and_nothing_is_done_again(place, monkeypatch):
    monkeypatch.setattr(arms_module, "train", lambda *_: pytest.fail("trained again"))
    monkeypatch.setattr(study_module.WeightsMethod, "run", lambda *_: pytest.fail("sampled again"))
    studio = studio_in(place)
    prepare(studio, place / "held")
    assert train_and_measure(studio, PLAN.arms) == []
    assert len(results(studio)[0]) == 3 * (2 + 14 + 2)


def test_an_arm_of_another_call_stands_in_the_tables_too(place):
    found, arms, _ = results(studio_in(place, replace(PLAN, arms=(DREAM,))))
    assert arms == [DREAM, PLAIN]
    assert {result.method.partition("@")[0] for result in found} >= {PLAIN.name, DREAM.name}


def test_an_arm_that_another_process_works_on_is_left_to_it(place):
    studio = studio_in(place)
    with filelock.FileLock(place / "out" / f"{PLAIN.name}.lock"):
        assert train_and_measure(studio, PLAN.arms) == [PLAIN]
    assert train_and_measure(studio, PLAN.arms) == []


def test_other_crops_are_not_mixed_into_a_study(place):
    with pytest.raises(OutputError, match="on other crops"):
        prepare(studio_in(place), place / "data")


class Interrupted(BaseException):
    """As ctrl-C ends a run."""


def test_a_stopped_study_goes_on_where_it_was_and_a_longer_one_goes_on_from_it(tmp_path, monkeypatch):
    pictures(tmp_path / "data")
    pictures(tmp_path / "held", phase=1)
    short = replace(PLAN, arms=(PLAIN,), max_steps=4)
    studio = studio_in(tmp_path, short)
    prepare(studio, tmp_path / "held")
    real, lengths = arms_module.train, []

    def stopping(request, listener):
        lengths.append((request.config.max_steps, request.resume))
        if len(lengths) == 3:
            raise Interrupted
        return real(request, listener)

    monkeypatch.setattr(arms_module, "train", stopping)
    with pytest.raises(Interrupted):
        studio.train(PLAIN)
    studio.train(PLAIN)
    assert lengths == [(1, False), (2, True), (3, True), (3, True), (4, True)]
    studio_in(tmp_path, replace(short, max_steps=8)).train(PLAIN)
    assert lengths[5:] == [(6, True), (8, True)]
    lines = read_lines(studio.folder(PLAIN) / "log.jsonl")
    assert [line["step"] for line in lines] == list(range(1, 9))


def test_a_study_neither_replaces_its_pictures_nor_lies_among_them(tmp_path):
    held = pictures(tmp_path / "held", phase=1)
    (tmp_path / "out").mkdir()
    for data, out in (("data", "data/out"), ("out/crops", "out"), ("out/sr3-x0-p1-0", "out"), ("data2", "held/out")):
        source = DataSource(data=str(pictures(tmp_path / data)))
        before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
        with pytest.raises(OutputError, match="is or lies in"):
            prepare(Studio(PLAN, source, tmp_path / out, device="cpu"), held)
        assert before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"arms": ()}, "one or more"),
        ({"sample_steps": ()}, "one or more"),
        ({"crops": 0}, "1 or more"),
        ({"stochasticity": 1.5}, "in 0..1"),
    ],
)
def test_impossible_plans_are_refused(change, words):
    with pytest.raises(UsageError, match=words):
        replace(PLAN, **change)


def test_a_rate_that_falls_is_refused():
    with pytest.raises(UsageError, match="constant"):
        PLAIN.config(8, (*SETTINGS, "rate_schedule=cosine"))


def test_overhead_is_measured_once_and_kept(tmp_path):
    heard = []
    studio = Studio(PLAN, DataSource(data="nowhere"), tmp_path, device="cpu", on_notice=heard.append)
    first = studio.overhead(DREAM)
    assert 1 < first < 3
    assert studio.overhead(PLAIN) == first
    assert len(heard) == 1
    assert 8 / 3 < studio.equal_time_steps(DREAM) <= 8
    assert studio.equal_time_steps(PLAIN) == 8


def test_sections_are_the_systems_and_plain_stands_first(place):
    found, arms, _ = results(studio_in(place))
    reports = systems_of(studio_in(place), figures_of(found), arms[::-1])
    assert [report.system for report in reports] == ["sr3-x0"]
    assert [arm.power for arm in reports[0].arms] == [math.inf, 1.0]
    assert "28.10 / 0.79 / 0.121" in markdown(reports, "")
