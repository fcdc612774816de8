import json
import math
import multiprocessing
import os
import signal
import sys
import time
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from dreamsr.core.backbones import config_classes
from dreamsr.core.denoiser import evaluating
from dreamsr.core.device import Compute
from dreamsr.core.process import ProcessConfig
from dreamsr.data.sources import DataSource, open_source
from dreamsr.errors import ConfigError, DataError, DeviceError, OutputError, TrainingError
from dreamsr.training import loader, memory, step
from dreamsr.training import train as training
from dreamsr.training.config import DreamConfig, TrainConfig
from dreamsr.training.loader import Batch, Batches, draws, large_side_px, step_numbers
from dreamsr.training.results.checkpoints import checkpoints
from dreamsr.training.speed import Stopwatch, duration
from dreamsr.training.start import load_start
from dreamsr.training.state import begin
from dreamsr.training.step import StepLoss, learning_rate
from dreamsr.training.stopping import StopRequest
from dreamsr.weights.file import load_weights
from tests.training.tiny_runs import MODELS, TINY, checkpoint, draw_pictures, largest_difference, run, same, valid_row

CPU = Compute(torch.device("cpu"), torch.float32, "test")
PLAIN = DreamConfig(power=math.inf)


pytestmark = pytest.mark.usefixtures("single_threaded")


def interrupt_at(step):
    def interrupt(report):
        if report.step == step:
            raise KeyboardInterrupt

    return interrupt


# --- learning ---------------------------------------------------------------------------------------------------------


def family(backbone):
    """A tiny run of one family; bits are compared with its dropout on."""
    return replace(TINY, model=MODELS[backbone], base_steps=2 if backbone == "refiner" else 0)


def error_on_other_crops(config, data, weights):
    """The plain loss of `weights` on fixed crops that no run here has seen."""
    config = replace(config, batch_size=16, dream=PLAIN)
    fresh = begin(config, CPU, weights)
    batch = Batches(open_source(data, config.crops), config, rank=0, world=1)[1000]
    with evaluating(fresh.denoiser.net):
        return float(StepLoss(fresh.denoiser, config)(batch, config.base_steps)[0])


@pytest.mark.parametrize("power", [1.0, math.inf])
@pytest.mark.parametrize("backbone", sorted(config_classes()))
def test_every_family_learns_with_and_without_dream(data, tmp_path, backbone, power):
    config = replace(
        family(backbone), max_steps=20, base_steps=0, learning_rate=3e-3, dream=DreamConfig(power), save_every=20
    )
    reports = []
    run(config, data, tmp_path / "run", on_progress=reports.append)
    before, after = (error_on_other_crops(config, data, w) for w in (None, checkpoint(tmp_path / "run")["net"]))
    assert after < 0.97 * before
    assert [r.step for r in reports] == list(range(1, 21))


@pytest.mark.parametrize("backbone", sorted(config_classes()))
def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(data, tmp_path, backbone):
    config = family(backbone)
    run(config, data, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(config, data, tmp_path / "parts", on_progress=interrupt_at(5))
    assert checkpoint(tmp_path / "parts")["step"] == 5
    run(config, data, tmp_path / "parts", resume=True)
    assert same(checkpoint(tmp_path / "whole"), checkpoint(tmp_path / "parts"))


@pytest.mark.parametrize("stop", [1, 2, 4])
def test_it_may_be_stopped_at_any_step_and_go_on_with_other_workers(data, tmp_path, stop):
    run(TINY, data, tmp_path / "whole", workers=2)
    with pytest.raises(KeyboardInterrupt):
        run(TINY, data, tmp_path / "parts", on_progress=interrupt_at(stop), workers=1)
    run(TINY, data, tmp_path / "parts", resume=True)
    assert same(checkpoint(tmp_path / "whole"), checkpoint(tmp_path / "parts"))
    lines = (tmp_path / "parts" / "log.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == list(range(1, 9))


def test_the_loader_ends_its_workers(data, tmp_path):
    run(TINY, data, tmp_path / "run", workers=2)
    with pytest.raises(KeyboardInterrupt):
        run(TINY, data, tmp_path / "stopped", workers=2, on_progress=interrupt_at(1))
    assert multiprocessing.active_children() == []


def test_another_seed_gives_another_run(data, tmp_path):
    run(TINY, data, tmp_path / "a")
    run(replace(TINY, seed=1), data, tmp_path / "b")
    assert not same(checkpoint(tmp_path / "a")["net"], checkpoint(tmp_path / "b")["net"])


@pytest.mark.parametrize("backbone", ["refiner", "sr3"])
def test_training_leaves_the_global_generator_alone(data, tmp_path, backbone):
    before = torch.random.get_rng_state()
    run(family(backbone), data, tmp_path / "run")
    assert torch.equal(before, torch.random.get_rng_state())


def test_the_global_generator_has_no_say_in_a_run(data, tmp_path):
    for seed in (1, 2):
        torch.manual_seed(seed)
        run(family("sr3"), data, tmp_path / str(seed))
    assert same(checkpoint(tmp_path / "1"), checkpoint(tmp_path / "2"))


def test_the_weights_file_holds_the_average_and_how_it_was_made(data, tmp_path):
    weights = load_weights(run(TINY, data, tmp_path / "run"))
    average = {k.removeprefix("module."): v for k, v in checkpoint(tmp_path / "run")["ema"].items() if "module." in k}
    assert same(dict(weights.net.state_dict()), average)
    assert not same(average, checkpoint(tmp_path / "run")["net"])
    assert weights.config == TINY.model
    assert weights.facts["steps"] == 8
    assert weights.facts["train"]["dream"] == {"power": 1.0, "start": 3}
    assert data.data not in json.dumps(dict(weights.facts))  # paths are private


def test_without_a_halflife_the_average_is_the_weights(data, tmp_path):
    weights = load_weights(run(replace(TINY, ema_halflife_steps=0.0), data, tmp_path / "run"))
    assert same(dict(weights.net.state_dict()), dict(checkpoint(tmp_path / "run")["net"]))


def test_the_folder_tells_how_the_run_was_made(data, tmp_path):
    run(TINY, data, tmp_path / "run")
    told = json.loads((tmp_path / "run" / "config.json").read_text())
    assert told["train"]["max_steps"] == 8
    assert {"dreamsr", "torch", "accelerate", "python", "data", "device"} <= told.keys()
    assert (told["source"], told["photos"], told["seed"], told["processes"]) == (data.data, 3, 0, 1)


def test_fine_tuning_for_no_steps_reproduces_the_weights(data, tmp_path):
    first = run(TINY, data, tmp_path / "first")
    start = load_start(str(first))
    again = load_weights(run(replace(TINY, max_steps=0, base_steps=0), data, tmp_path / "second", start=start))
    assert same(dict(start.state), dict(again.net.state_dict()))


def test_the_base_phase_leaves_the_step_net_as_it_began(data, tmp_path):
    run(replace(TINY, max_steps=2), data, tmp_path / "base")
    run(replace(TINY, max_steps=0), data, tmp_path / "fresh")
    trained, fresh = checkpoint(tmp_path / "base")["net"], checkpoint(tmp_path / "fresh")["net"]
    assert all(torch.equal(trained[k], fresh[k]) for k in fresh if k.startswith("unet."))
    assert any(not torch.equal(trained[k], fresh[k]) for k in fresh if k.startswith("encoder."))


def test_only_nets_that_predict_a_base_have_a_base_phase(data, tmp_path):
    with pytest.raises(ConfigError, match=r"base_steps is 2, .* 0 with sr3"):
        run(replace(family("sr3"), base_steps=2), data, tmp_path / "run")


def test_dream_changes_nothing_before_its_start(data, tmp_path):
    plain = replace(TINY, dream=PLAIN, max_steps=3)
    run(plain, data, tmp_path / "plain")
    run(replace(plain, dream=DreamConfig(power=1.0, start=3)), data, tmp_path / "later")
    assert same(checkpoint(tmp_path / "plain")["net"], checkpoint(tmp_path / "later")["net"])
    run(replace(plain, dream=DreamConfig(power=1.0, start=2)), data, tmp_path / "now")
    # The step net starts as zero: its first dreaming step sees the same target, yet another input.
    assert not same(checkpoint(tmp_path / "plain")["net"], checkpoint(tmp_path / "now")["net"])


# --- what a step is made of -------------------------------------------------------------------------------------------


def test_two_accumulated_batches_equal_one_of_twice_the_size(data, tmp_path):
    run(replace(TINY, batch_size=4), data, tmp_path / "one")
    run(replace(TINY, batch_size=2, accumulate=2), data, tmp_path / "two")
    one, two = checkpoint(tmp_path / "one"), checkpoint(tmp_path / "two")
    assert largest_difference(one["net"], two["net"]) < 1e-5
    run(replace(TINY, batch_size=2), data, tmp_path / "half")
    assert largest_difference(one["net"], checkpoint(tmp_path / "half")["net"]) > 1e-4


def test_a_step_takes_the_same_crops_however_it_is_divided(data):
    whole = replace(TINY, batch_size=8)
    pairs = open_source(data, whole.crops)
    wanted = Batches(pairs, whole, rank=0, world=1)[3]
    half = replace(TINY, batch_size=2, accumulate=2)
    parts = [Batches(pairs, half, rank=rank, world=2)[3 * 2 + a] for a in (0, 1) for rank in (0, 1)]
    for k in range(3):
        assert torch.equal(wanted[k], torch.cat([part[k] for part in parts]))
    assert wanted.t == sum((part.t for part in parts), ())
    assert len({float(eps[0, 0, 0]) for eps in wanted.eps}) == len(set(wanted.t)) == 8
    assert step_numbers(whole, 3, 1) == step_numbers(half, 3, 2) == range(24, 32)


def test_whole_times_come_from_1_to_the_last_evenly():
    config = replace(TINY, model=MODELS["sr3"])
    times = [draws(config, number, (0,))[1] for number in range(2000)]
    assert {t % 1 for t in times} == {0}
    assert (min(times), max(times)) == (1, 50)
    assert np.mean(times) == pytest.approx(25.5, abs=1)


def test_continuous_times_lie_between_whole_ones_and_are_never_0():
    whole = replace(TINY, model=MODELS["sr3"])
    config = replace(whole, continuous_time=True)
    for number in range(2000):
        t, above = draws(config, number, (0,))[1], draws(whole, number, (0,))[1]
        assert above - 1 < t <= above
        assert t > 0
    assert np.mean([draws(config, n, (0,))[1] % 1 for n in range(2000)]) == pytest.approx(0.5, abs=0.03)


def test_the_least_continuous_time_is_above_0(monkeypatch):
    process = ProcessConfig(kind="gaussian", timesteps=1)
    config = replace(TINY, model=replace(MODELS["sr3"], process=process), continuous_time=True)
    for share in (0.0, 1 - 2**-53):
        monkeypatch.setattr(torch, "rand", lambda *_, share=share, **__: torch.tensor([share], dtype=torch.float64))
        assert 0 < draws(config, 0, (0,))[1] <= 1


def test_noise_is_standard_and_differs_from_crop_to_crop():
    eps = torch.stack([draws(TINY, number, (3, 32, 32))[0] for number in range(8)])
    assert float(eps.mean()) == pytest.approx(0, abs=0.02)
    assert float(eps.std()) == pytest.approx(1, abs=0.02)
    assert len({float(e[0, 0, 0]) for e in eps}) == 8


def test_a_continuous_net_meets_every_factor_and_one_per_step(data):
    config = replace(TINY, model=MODELS["idm"], accumulate=2)
    sides = [large_side_px(config, step) for step in range(500)]
    assert (min(sides), max(sides)) == (9, 32)
    assert np.mean(sides) == pytest.approx(20, abs=1)
    batches = Batches(open_source(data, config.crops), config, rank=0, world=1)
    for index in range(6):
        assert batches[index].x0.shape == batches[index].eps.shape == (2, 3, sides[index // 2], sides[index // 2])
        assert batches[index].low.shape == (2, 3, 8, 8)
        assert batches[index].x0.abs().max() <= 1


class Recording(torch.nn.Module):
    """Answers with a fixed error, and remembers which factor it was asked for."""

    continuous, predicts_base, scale = True, False, 4

    def encode(self, low, scale=None):
        from dreamsr.core.denoiser import Condition

        self.scale_asked = scale
        side = int(low.shape[-1] * (scale or 4))
        return Condition(torch.zeros(len(low), 3, side, side))

    def forward(self, x_t, _condition, _level):
        return torch.full_like(x_t, 0.5)


def test_the_factor_is_told_exactly_and_l2_squares_the_error():
    from dreamsr.core.model import build_denoiser

    model = replace(MODELS["idm"], prediction="x0")
    net = Recording()
    denoiser = build_denoiser(model, net)
    batch = Batch(torch.zeros(2, 3, 8, 8), torch.zeros(2, 3, 11, 11), torch.zeros(2, 3, 11, 11), (1.0, 9.0))
    for loss, wanted in (("l1", 0.5), ("l2", 0.25)):
        config = replace(TINY, model=model, dream=PLAIN, base_steps=0, loss=loss)
        whole, base = StepLoss(denoiser, config)(batch, 5)
        assert float(whole) == pytest.approx(wanted)
        assert float(base) == 0
    assert net.scale_asked == Fraction(11, 8)


def test_the_learning_rate_warms_up_and_falls_in_both_phases():
    config = replace(TINY, max_steps=100, base_steps=40, warmup_steps=5, learning_rate=1.0)
    rates = [learning_rate(config, step) for step in range(100)]
    assert rates[0] < rates[2] < rates[4]
    assert rates[39] < 0.05
    assert rates[44] > 0.9
    assert rates[99] < 0.05


def test_a_constant_rate_is_constant():
    config = replace(TINY, rate_schedule="constant", warmup_steps=0, learning_rate=0.5, base_steps=0)
    assert {learning_rate(config, step) for step in range(8)} == {0.5}
    warm = replace(config, warmup_steps=4)
    assert [learning_rate(warm, step) for step in range(5)] == [0.125, 0.25, 0.375, 0.5, 0.5]


def test_the_optimizer_has_the_rate_and_the_betas_of_the_configuration(data, tmp_path):
    run(replace(TINY, betas=(0.8, 0.95), rate_schedule="constant"), data, tmp_path / "run")
    group = checkpoint(tmp_path / "run")["optimizer"]["param_groups"][0]
    assert (tuple(group["betas"]), group["lr"]) == ((0.8, 0.95), 1e-3)


# --- folders ----------------------------------------------------------------------------------------------------------


def test_an_existing_run_is_not_overwritten(data, tmp_path):
    run(TINY, data, tmp_path / "run")
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    with pytest.raises(OutputError, match="`resume`"):
        run(TINY, data, tmp_path / "run")
    assert {path: path.read_bytes() for path in before} == before


def test_unusable_data_leaves_no_folder_behind(tmp_path):
    with pytest.raises(DataError, match="no such folder"):
        run(TINY, DataSource(data=str(tmp_path / "nowhere")), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_folder_that_cannot_be_made_is_named(data, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot be made"):
        run(TINY, data, tmp_path / "file" / "run")


def test_drawn_pictures_are_told_and_their_fonts_kept(data, tmp_path):
    heard, out = [], tmp_path / "run"
    run(replace(TINY, max_steps=1, drawn_share=0.25), data, out, on_notice=heard.append)
    kept = json.loads((out / "config.json").read_text())
    assert kept["train"]["drawn_share"] == 0.25
    assert "Pillow" in kept["fonts"]
    assert heard[0].endswith(f", and drawn pictures for 25% of the crops ({len(kept['fonts'])} fonts)")


def test_what_cannot_be_used_is_told_and_bad_data_met_later_ends_the_run_in_one_line(tmp_path, monkeypatch):
    source = draw_pictures(tmp_path / "data")
    (tmp_path / "data" / "bad.png").write_bytes(b"no picture")
    heard, looked = [], []
    run(
        replace(TINY, max_steps=1),
        source,
        tmp_path / "run",
        on_notice=heard.append,
        on_scan=lambda *now: looked.append(now),
    )
    assert looked == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert heard[0] == f"3 photos in {source.data}"
    assert any(notice.startswith("not used: ") and "bad.png" in notice for notice in heard)
    monkeypatch.setattr(loader.Batches, "_one", lambda *_: (_ for _ in ()).throw(DataError("0.png: it is gone")))
    for workers in (0, 1):
        with pytest.raises(DataError) as caught:
            run(TINY, source, tmp_path / f"broken{workers}", workers=workers)
        assert str(caught.value) == "0.png: it is gone"


# --- losses that are not finite ---------------------------------------------------------------------------------------


def poison(monkeypatch, steps, value=math.nan):
    """The loss of these steps is not finite. Its gradient may well be: abs() forgets what it saw."""
    clean = step.StepLoss.forward

    def forward(self, batch, step):
        whole, base = clean(self, batch, step)
        return (whole + value if step in steps else whole), base

    monkeypatch.setattr(step.StepLoss, "forward", forward)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_step_without_a_finite_loss_is_left_out_and_counted(data, tmp_path, monkeypatch, value):
    poison(monkeypatch, {4, 6}, value)
    reports = []
    run(TINY, data, tmp_path / "run", on_progress=reports.append)
    assert [r.skipped for r in reports] == [0, 0, 0, 0, 1, 1, 2, 2]
    state = checkpoint(tmp_path / "run")
    assert (state["step"], state["skipped"], state["bad_steps"]) == (8, 2, 0)
    assert state["ema"]["n_averaged"] == 6
    assert all(torch.isfinite(value).all() for value in state["net"].values())


def test_a_gradient_that_is_not_finite_is_left_out_too(data, tmp_path, monkeypatch):
    clean = step.StepLoss.forward

    def forward(self, batch, step):
        whole, base = clean(self, batch, step)
        weight = self.net.base.bias
        return (whole + (weight - weight.detach()).abs().sqrt().sum() if step == 4 else whole), base

    monkeypatch.setattr(step.StepLoss, "forward", forward)
    reports = []
    run(TINY, data, tmp_path / "run", on_progress=reports.append)
    assert reports[-1].skipped == 1
    assert all(math.isfinite(r.loss) for r in reports)
    assert all(torch.isfinite(value).all() for value in checkpoint(tmp_path / "run")["net"].values())


def test_many_in_a_row_stop_the_run_with_a_dump(data, tmp_path, monkeypatch):
    poison(monkeypatch, {0, 1, 2, *range(4, 20)})  # the fourth step is fine: it starts counting anew
    with pytest.raises(TrainingError, match=r"not finite in 5 steps in a row \(step 9\).*bad-step-9.pt"):
        run(replace(TINY, max_steps=20), data, tmp_path / "run")
    dump = torch.load(tmp_path / "run" / "bad-step-9.pt", weights_only=True)["bad_steps"]
    assert [bad["step"] for bad in dump] == [4, 5, 6, 7, 8]
    assert dump[0]["numbers"] == [8, 9]
    assert dump[0]["t"] == [draws(TINY, number, (0,))[1] for number in (8, 9)]
    assert dump[0]["learning_rate"] > 0
    assert math.isnan(dump[0]["loss"])
    assert math.isfinite(dump[0]["base_loss"])


# --- reports ----------------------------------------------------------------------------------------------------------


def test_the_log_has_one_line_per_step(data, tmp_path):
    run(TINY, data, tmp_path / "run")
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, 9))
    assert lines[0]["loss"] == lines[0]["base_loss"]  # the base phase
    assert lines[-1]["loss"] > lines[-1]["base_loss"]
    assert all(line["images_per_second"] > 0 and line["peak_memory_mb"] > 0 for line in lines)
    assert lines[-1]["seconds_left"] == 0
    assert lines[3]["seconds_left"] > 0


def test_a_forecast_is_told_once_per_kind_of_step(data, tmp_path):
    heard = []
    config = replace(TINY, max_steps=40, base_steps=15, dream=PLAIN, save_every=40)
    run(config, data, tmp_path / "run", on_notice=heard.append)
    told = [notice for notice in heard if "images/s" in notice]
    assert [" for 29 steps at " in told[0], " for 14 steps at " in told[1], len(told)] == [True, True, 2]
    assert told[0].endswith("; steps from 16 on take longer")
    assert told[1].startswith("about ")
    assert told[1].endswith(" GB")


def test_the_first_step_does_not_count_in_the_forecast():
    watch = Stopwatch(replace(TINY, max_steps=1000, base_steps=100, dream=PLAIN))
    watch.add(1, 30.0)
    assert watch.seconds_left(1) == pytest.approx(999 * 30)
    for number in range(2, 12):
        assert not watch.is_due
        watch.add(number, 0.5)
    assert watch.is_due
    assert watch.seconds_left(11) == pytest.approx(989 * 0.5)
    watch.add(101, 9.0)  # a new kind of step
    watch.add(102, 2.0)
    assert watch.seconds_per_step == 2.0
    times = {45: "45 s", 700: "12 min", 7800: "2 h 10 min", 270_000: "3 d 3 h"}
    assert {seconds: duration(seconds) for seconds in times} == times


# --- memory -----------------------------------------------------------------------------------------------------------


def test_a_net_that_cannot_fit_is_refused_before_it_is_built(data, tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "free_bytes", lambda _device: 100_000)
    monkeypatch.setattr(training, "begin", lambda *_: pytest.fail("built"))
    with pytest.raises(DeviceError, match=r"million parameters .* smaller preset or another `device`"):
        run(TINY, data, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_batch_that_cannot_fit_is_refused_with_one_that_does(data, tmp_path, monkeypatch):
    config = replace(TINY, batch_size=12)
    fresh = begin(config, CPU, None)
    count = sum(parameter.numel() for parameter in fresh.denoiser.net.parameters())
    one = memory.kept_for_backward(fresh, config, CPU)
    room = count * 12 + one * 5.5 * memory.PEAK_OVER_SAVED
    monkeypatch.setattr(training, "require_room_for_state", lambda *_: None)
    monkeypatch.setattr(memory, "free_bytes", lambda _device: int(room))
    with pytest.raises(DeviceError, match="try `batch_size` 4 `accumulate` 3, which gives the same steps"):
        run(config, data, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    run(replace(config, batch_size=4, accumulate=3, max_steps=1), data, tmp_path / "run")


def test_what_a_step_keeps_grows_with_the_crop():
    small, large = (replace(TINY, crop_low_px=side) for side in (8, 16))
    run_state = begin(TINY, CPU, None)
    assert memory.kept_for_backward(run_state, large, CPU) / memory.kept_for_backward(run_state, small, CPU) > 3
    assert memory.way_out(TINY, 0).startswith("choose a smaller `crop_low_px`")


def test_running_out_of_memory_in_a_step_is_explained(data, tmp_path, monkeypatch):
    def forward(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(training, "require_room_for_steps", lambda *_: None)
    monkeypatch.setattr(step.StepLoss, "forward", forward)
    with pytest.raises(DeviceError, match=r"`batch_size` 8; try `batch_size` 4 `accumulate` 2"):
        run(replace(TINY, batch_size=8), data, tmp_path / "run")


# --- stopping ---------------------------------------------------------------------------------------------------------


def child(work):
    """The process id of a copy of this process that does `work`; its exit code is that of SystemExit."""
    number = os.fork()
    if number == 0:
        code = 1
        try:
            os.setpgrp()
            torch.set_num_threads(1)
            work()
            code = 0
        except SystemExit as stop:
            code = int(stop.code)
        except KeyboardInterrupt:
            code = 130
        except BaseException as error:
            sys.stderr.write(f"{error!r}\n")
        finally:
            os._exit(code)
    return number


@pytest.mark.skipif(os.name != "posix", reason="sends signals")
@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 143), ("SIGINT", 130), ("SIGHUP", 129)])
def test_a_signal_finishes_the_step_and_saves(data, tmp_path, name, code):
    number = signal.Signals[name]
    config = replace(TINY, max_steps=16, save_every=16)
    marks, notices = tmp_path / "marks", tmp_path / "notices"

    def slowly(report):
        marks.write_text(str(report.step))
        time.sleep(0.1)

    def hear(notice):
        with notices.open("a") as file:
            file.write(notice + "\n")

    process = child(lambda: run(config, data, tmp_path / "parts", on_progress=slowly, on_notice=hear, workers=1))
    deadline = time.monotonic() + 60
    while not (marks.exists() and int(marks.read_text() or 0) >= 3) and time.monotonic() < deadline:
        time.sleep(0.005)
    os.killpg(process, number)  # as a terminal and as batch systems do: the workers hear it too
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == code
    step = checkpoint(tmp_path / "parts")["step"]
    assert 3 <= step < 16
    assert notices.read_text().endswith(f"stopped by {number.name} at step {step}; go on with `resume`\n")
    run(config, data, tmp_path / "parts", resume=True)
    run(config, data, tmp_path / "whole")
    assert same(checkpoint(tmp_path / "whole"), checkpoint(tmp_path / "parts"))


@pytest.mark.skipif(os.name != "posix", reason="sends signals")
def test_a_second_hangup_of_the_same_terminal_does_not_cut_the_save_short():
    before = signal.getsignal(signal.SIGHUP)
    with StopRequest() as stop:
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGHUP)
        assert stop.signal is signal.SIGHUP
    assert signal.getsignal(signal.SIGHUP) is before


@pytest.mark.skipif(os.name != "posix", reason="sends signals")
def test_under_nohup_a_hangup_is_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StopRequest() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not stop.asked
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.skipif(os.name != "posix", reason="sends signals")
def test_a_kill_during_a_save_costs_no_more_than_one_interval(data, tmp_path):
    from dreamsr.training.results import checkpoints as module

    def killed_in_the_middle(path, data):
        if path.name == "step-000008.pt":
            path.with_name(".step-000008.pt.dreamsr-00000000-1-00000000.tmp").write_bytes(bytes(data)[:500])
            os.kill(os.getpid(), signal.SIGKILL)
        clean(path, data)

    clean = module.write_bytes_atomically
    config = replace(TINY, max_steps=10)

    def work():
        module.write_bytes_atomically = killed_in_the_middle
        run(config, data, tmp_path / "parts")

    assert os.waitstatus_to_exitcode(os.waitpid(child(work), 0)[1]) == -signal.SIGKILL
    assert [path.name for path in checkpoints(tmp_path / "parts")] == ["step-000004.pt"]
    run(config, data, tmp_path / "parts", resume=True)
    run(config, data, tmp_path / "whole")
    assert same(checkpoint(tmp_path / "whole"), checkpoint(tmp_path / "parts"))


# --- validation -------------------------------------------------------------------------------------------------------


class Judge:
    """Stands in for the validator: gives the scores it is told to, and draws from the global generator."""

    def __init__(self, scores):
        self.scores = dict(scores)
        self.steps = []
        self.training = []

    def __call__(self, denoiser, step):
        from dreamsr.training.results.validation import Validation

        self.steps.append(step)
        self.training.append(denoiser.net.training)
        row = valid_row(1, 20.0, 0.5, None)
        return Validation(step, (row,), replace(row, steps=0), self.scores[step])


def judged(monkeypatch, scores):
    judge = Judge(scores)
    monkeypatch.setattr(training, "_open_validation", lambda *_: judge)
    return judge


def test_the_best_weights_are_kept_and_validation_comes_at_the_end_too(data, tmp_path, monkeypatch):
    judge = judged(monkeypatch, {3: 1.0, 6: 9.0, 8: 2.0})
    config = replace(TINY, valid_every=3)
    heard = []
    run(config, data, tmp_path / "run", valid=Path(data.data), on_validation=heard.append)
    assert judge.steps == [3, 6, 8]
    assert not any(judge.training)
    assert [found.score for found in heard] == [1.0, 9.0, 2.0]
    best = load_weights(tmp_path / "run" / "best.safetensors")
    assert (best.facts["steps"], best.facts["score"]) == (6, 9.0)
    assert checkpoint(tmp_path / "run")["best_score"] == 9.0
    assert len((tmp_path / "run" / "valid.jsonl").read_text().splitlines()) == 3


def test_the_best_is_remembered_over_a_stop(data, tmp_path, monkeypatch):
    config = replace(TINY, valid_every=3)
    judged(monkeypatch, {3: 5.0, 6: 1.0, 8: 2.0})
    with pytest.raises(KeyboardInterrupt):
        run(config, data, tmp_path / "run", valid=Path(data.data), on_progress=interrupt_at(4))
    run(config, data, tmp_path / "run", valid=Path(data.data), resume=True)
    assert load_weights(tmp_path / "run" / "best.safetensors").facts["steps"] == 3


def test_validation_changes_nothing_in_the_training(data, tmp_path):
    config = replace(TINY, valid_every=3, valid_steps=(1, 2), valid_limit=1)
    run(config, data, tmp_path / "with", valid=Path(data.data))
    run(config, data, tmp_path / "without")
    measured, plain = checkpoint(tmp_path / "with"), checkpoint(tmp_path / "without")
    assert measured.pop("best_score") is not None
    assert plain.pop("best_score") is None
    assert same(measured, plain)
    assert (tmp_path / "with" / "best.safetensors").exists()


def test_defaults_are_a_configuration_that_trains(data, tmp_path):
    run(replace(TrainConfig(), max_steps=0, crop_low_px=8), data, tmp_path / "run")
    assert checkpoint(tmp_path / "run")["step"] == 0
