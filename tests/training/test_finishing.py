"""The finishing stage: what its steps draw, what learns from what, that it learns, stops, resumes and is shared."""

from __future__ import annotations

import math
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dreamsr.core.denoiser import evaluating
from dreamsr.core.device import Compute
from dreamsr.core.discriminator import gradient_penalty
from dreamsr.core.model import build_net
from dreamsr.core.samplers import sample
from dreamsr.data.sources import DataSource, open_source
from dreamsr.errors import ConfigError, OutputError, TrainingError, UsageError
from dreamsr.training import finishing
from dreamsr.training.config import FinishConfig, TrainConfig
from dreamsr.training.finishing import FinishLoss, Losses, draw, encoder_distance, rollout, shifted
from dreamsr.training.loader import Batch, Batches
from dreamsr.training.results.log import TrainProgress
from dreamsr.training.start import Start, load_start
from dreamsr.training.state import Run, begin
from dreamsr.training.step import learning_rate
from dreamsr.weights.file import load_weights
from tests.training.test_processes import in_two
from tests.training.tiny_runs import MODELS, TINY, checkpoint, largest_difference, run, same

CPU = Compute(torch.device("cpu"), torch.float32, "test")
FINISH = FinishConfig(
    steps=4,
    warmup_steps=1,
    learning_rate=1e-3,
    discriminator_learning_rate=1e-3,
    features="encoder",
    adversarial=0.1,
    discriminator_channels=4,
    gradient_penalty=0.1,
    penalty_every=2,
)
CONFIG = replace(TINY, finish=FINISH)
"""Steps 0 and 1 train the base, 2 is plain, 3 dreams, 4 to 7 finish."""


pytestmark = pytest.mark.usefixtures("single_threaded")


def ready(config: TrainConfig, data: DataSource, *, number: int = 0) -> tuple[Run, FinishLoss, Batch]:
    """A fresh run whose step net does something, the stage's loss, and a batch."""
    fresh = begin(config, CPU, None)
    torch.nn.init.normal_(fresh.denoiser.net.unet.leave.weight, std=0.1, generator=torch.Generator().manual_seed(1))
    assert fresh.finish is not None
    batch = Batches(open_source(data, config.crops), config, rank=0, world=1)[number]
    return fresh, FinishLoss(fresh.denoiser, fresh.finish, config), batch


# --- what a step draws ------------------------------------------------------------------------------------------------


def test_every_number_of_steps_and_every_index_is_drawn_and_the_seed_decides() -> None:
    drawn = [draw(CONFIG, step) for step in range(400)]
    assert drawn == [draw(CONFIG, step) for step in range(400)]
    assert drawn != [draw(replace(CONFIG, seed=1), step) for step in range(400)]
    assert {(d.steps, d.index) for d in drawn} == {(k, i) for k in (1, 2, 4) for i in range(k)}
    assert {d.shift for d in drawn} == {(y, x) for y in range(4) for x in range(4)}


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_earlier_steps_are_taken_as_often_as_told(share: float) -> None:
    config = replace(CONFIG, finish=replace(FINISH, rollout_steps=(4,), earlier_share=share))
    earlier = [draw(config, step).index < 3 for step in range(1000)]
    assert sum(earlier) / 1000 == pytest.approx(share, abs=0.05)


def test_a_rollout_is_the_samplers_own_guess(data: DataSource) -> None:
    """The last step's guess is what sampling returns, an earlier one's what it passes through."""
    fresh, _, batch = ready(CONFIG, data)
    denoiser = fresh.denoiser
    with evaluating(denoiser.net):
        condition = denoiser.condition(batch.low)
        guesses: dict[int, Tensor] = {}
        end = sample(
            denoiser, condition, steps=4, noise=lambda _: batch.eps, on_step=lambda i, x: guesses.update({i - 1: x})
        )
        for index in range(4):
            guess = rollout(denoiser, condition, batch.eps, steps=4, index=index)
            assert torch.equal(guess.clamp(-1, 1), guesses[index])
        assert torch.equal(guess.clamp(-1, 1), end)


def test_the_gradient_is_that_of_the_chosen_step_alone(data: DataSource) -> None:
    fresh, _, batch = ready(CONFIG, data)
    denoiser = fresh.denoiser
    calls: list[bool] = []
    denoiser.net.register_forward_hook(lambda *_: calls.append(torch.is_grad_enabled()))
    condition = denoiser.condition(batch.low).detached()
    rollout(denoiser, condition, batch.eps, steps=4, index=2).sum().backward()
    assert calls == [False, False, True]
    assert denoiser.net.training
    assert any(p.grad is not None and float(p.grad.abs().sum()) > 0 for p in denoiser.net.unet.parameters())
    assert all(p.grad is None for p in denoiser.net.base.parameters())


def test_a_shift_drops_rows_and_columns_of_both_and_keeps_equal_pictures_equal(data: DataSource) -> None:
    fresh, _, batch = ready(CONFIG, data)
    distance = encoder_distance(fresh.denoiser.net.encoder)
    assert shifted(batch.x0, (1, 3)).shape == (2, 3, 31, 29)
    assert torch.equal(shifted(batch.x0, (1, 3))[..., 0, 0], batch.x0[..., 1, 3])
    for shift in ((0, 0), (2, 3)):
        assert torch.equal(distance(shifted(batch.x0, shift), shifted(batch.x0, shift)), torch.zeros(2))
    far, farther = (distance(batch.x0 + d, batch.x0) for d in (0.1, 0.2))
    assert far.shape == (2,)
    assert bool((far > 0).all() and (far < farther).all())


# --- what learns from what --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("discriminator", ["pixels", "features"])
def test_neither_side_learns_from_the_others_loss(data: DataSource, discriminator: Any) -> None:
    config = replace(CONFIG, finish=replace(FINISH, discriminator=discriminator))
    fresh, loss, batch = ready(config, data)
    assert fresh.finish is not None
    assert fresh.finish.discriminator is not None
    net, judge = fresh.denoiser.net, fresh.finish.discriminator
    losses = loss(batch, 6)
    losses.whole.backward()
    assert all(p.grad is None for p in judge.parameters())
    assert any(p.grad is not None for p in net.unet.parameters())
    net.zero_grad(set_to_none=True)
    losses = loss(batch, 6)
    assert losses.discriminator is not None
    losses.discriminator.backward()
    assert all(p.grad is None for p in net.parameters())
    assert all(p.grad is not None for p in judge.parameters())
    assert fresh.finish.encoder is not None
    assert all(p.grad is None for p in fresh.finish.encoder.parameters())


def test_the_adversarial_loss_reaches_the_net(data: DataSource) -> None:
    config = replace(CONFIG, finish=replace(FINISH, features="none", l1=0.0))
    fresh, loss, batch = ready(config, data)
    losses = loss(batch, 6)
    assert set(losses.parts) == {"l1", "adversarial"}
    losses.whole.backward()
    assert float(fresh.denoiser.net.unet.leave.weight.grad.abs().sum()) > 0


def test_the_whole_is_the_weighted_sum(data: DataSource) -> None:
    _, loss, batch = ready(CONFIG, data)
    told = loss(batch, 6).as_numbers()
    wanted = told["base_loss"] + 2 * told["l1"] + 0.5 * told["feature"] + 0.1 * told["adversarial"]
    assert told["loss"] == pytest.approx(wanted, rel=1e-6)


@pytest.mark.parametrize(("weight", "every"), [(0.1, 2), (0.3, 3)])
def test_the_penalty_is_that_of_truth_and_guess_for_all_steps_until_the_next(
    data: DataSource, weight: float, every: int
) -> None:
    config = replace(CONFIG, finish=replace(FINISH, gradient_penalty=weight, penalty_every=every))
    fresh, loss, batch = ready(config, data)
    due = [step for step in range(4, 8) if loss(batch, step).penalty is not None]
    assert due == [step for step in range(4, 8) if step % every == 0]
    penalty, judge, drawn = loss(batch, 6).penalty, loss.discriminator, draw(config, 6)
    condition = fresh.denoiser.condition(batch.low).detached()
    guess = rollout(fresh.denoiser, condition, batch.eps, steps=drawn.steps, index=drawn.index)
    assert penalty is not None
    assert judge is not None
    slopes = [gradient_penalty(judge, x, condition.y) for x in (batch.x0, guess)]
    assert float(penalty.detach()) == pytest.approx(weight * every * float(torch.cat(slopes).detach().mean()), rel=1e-5)
    penalty.backward()
    assert all(p.grad is None for p in fresh.denoiser.net.parameters())
    assert any(bool(p.grad.any()) for p in judge.parameters() if p.grad is not None)


def test_without_a_weight_there_is_no_penalty(data: DataSource) -> None:
    _, loss, batch = ready(replace(CONFIG, finish=replace(FINISH, gradient_penalty=0.0)), data)
    losses = loss(batch, 6)
    assert losses.penalty is None
    assert losses.discriminator is not None
    assert torch.equal(losses.minimised, losses.whole + losses.discriminator)


def test_what_is_minimised_holds_the_penalty(data: DataSource) -> None:
    _, loss, batch = ready(CONFIG, data)
    losses = loss(batch, 6)
    assert losses.discriminator is not None
    assert losses.penalty is not None
    assert torch.equal(losses.minimised, losses.whole + losses.discriminator + losses.penalty)
    assert losses.as_numbers()["penalty"] == float(losses.penalty.detach())


@pytest.mark.parametrize("step", [6, 7])
def test_the_loss_does_not_depend_on_the_batch_that_a_crop_is_in(data: DataSource, step: int) -> None:
    _, loss, both = ready(CONFIG, data)
    singles = [Batch(*(part[i : i + 1] for part in both)) for i in range(2)]
    apart = [loss(single, step).as_numbers() for single in singles]
    for name, value in loss(both, step).as_numbers().items():
        assert value == pytest.approx((apart[0][name] + apart[1][name]) / 2, rel=1e-5)


# --- the stage in a run -----------------------------------------------------------------------------------------------


def test_the_stages_follow_each_other_and_are_told(data: DataSource, tmp_path: Path) -> None:
    reports: list[TrainProgress] = []
    run(CONFIG, data, tmp_path / "run", on_progress=reports.append)
    assert [r.stage for r in reports] == ["base", "base", "plain", "dream", *["finish"] * 4]
    names = {"l1", "feature", "adversarial", "discriminator"}
    assert [set(r.parts) for r in reports] == [set()] * 4 + [names | {"penalty"}, names] * 2
    assert all(math.isfinite(value) for r in reports for value in r.parts.values())


def test_finishing_learns(data: DataSource, tmp_path: Path) -> None:
    """From a net that was trained plainly; on crops that no run here has seen."""
    start = load_weights(run(replace(TINY, max_steps=30, learning_rate=3e-3), data, tmp_path / "start"))
    finish = replace(FINISH, steps=40, learning_rate=3e-3, adversarial=0.003)
    config = replace(TINY, base_steps=0, max_steps=40, finish=finish, batch_size=4)
    state = start.net.state_dict()
    run(config, data, tmp_path / "run", start=load_start(str(tmp_path / "start")))

    def measured(weights: Any) -> dict[str, float]:
        fresh, _, batch = ready(replace(config, batch_size=16), data, number=1000)
        fresh.denoiser.net.load_state_dict(weights)
        assert fresh.finish is not None
        fresh.finish.encoder.load_state_dict(start.net.encoder.state_dict())  # type: ignore[union-attr,operator]
        with torch.no_grad():
            return FinishLoss(fresh.denoiser, fresh.finish, config)(batch, 6).as_numbers()

    before, after = measured(state), measured(checkpoint(tmp_path / "run")["net"])
    assert after["l1"] < 0.97 * before["l1"]
    assert after["feature"] < 0.97 * before["feature"]


def test_it_begins_with_the_average_and_a_new_optimizer(data: DataSource, tmp_path: Path) -> None:
    finish = replace(FINISH, learning_rate=1e-30)
    run(replace(CONFIG, max_steps=4, finish=FinishConfig()), data, tmp_path / "before")
    run(replace(CONFIG, max_steps=5, finish=replace(finish, steps=1)), data, tmp_path / "after")
    average = {k.removeprefix("module."): v for k, v in checkpoint(tmp_path / "before")["ema"].items() if "." in k}
    after = checkpoint(tmp_path / "after")
    assert largest_difference(average, after["net"]) < 1e-12
    assert {float(state["step"]) for state in after["optimizer"]["state"].values()} == {1.0}
    assert tuple(after["optimizer"]["param_groups"][0]["betas"]) == finishing.BETAS
    encoder = {k.removeprefix("encoder."): v for k, v in average.items() if k.startswith("encoder.")}
    assert same(encoder, dict(after["finish"]["encoder"]))


@pytest.mark.parametrize("stop", [2, 4, 5, 7])
@pytest.mark.parametrize("discriminator", ["pixels", "features"])
def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(
    data: DataSource, tmp_path: Path, discriminator: Any, stop: int
) -> None:
    config = replace(CONFIG, finish=replace(FINISH, discriminator=discriminator))

    def interrupt(report: TrainProgress) -> None:
        if report.step == stop:
            raise KeyboardInterrupt

    run(config, data, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(config, data, tmp_path / "parts", on_progress=interrupt)
    run(config, data, tmp_path / "parts", resume=True)
    whole = checkpoint(tmp_path / "whole")
    assert same(whole, checkpoint(tmp_path / "parts"))
    assert {"encoder", "discriminator", "optimizer"} == whole["finish"].keys()


@pytest.mark.parametrize("backbone", ["sr3", "idm", "resshift"])
def test_every_family_can_be_finished_and_resumed(data: DataSource, tmp_path: Path, backbone: str) -> None:
    finish = replace(FINISH, features="none", steps=3)
    config = replace(TINY, model=MODELS[backbone], base_steps=0, max_steps=4, save_every=2, finish=finish)

    def interrupt(report: TrainProgress) -> None:
        if report.step == 3:
            raise KeyboardInterrupt

    run(config, data, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(config, data, tmp_path / "parts", on_progress=interrupt)
    run(config, data, tmp_path / "parts", resume=True)
    assert same(checkpoint(tmp_path / "whole"), checkpoint(tmp_path / "parts"))


@pytest.mark.skipif(os.name != "posix", reason="forks")
@pytest.mark.parametrize("accumulate", [1, 2])
def test_two_processes_equal_one_with_twice_the_batch(data: DataSource, tmp_path: Path, accumulate: int) -> None:
    config = replace(CONFIG, accumulate=accumulate)
    told = in_two(tmp_path / "ends", lambda _: run(config, data, tmp_path / "two"))
    assert told == [tmp_path / "two" / "model.safetensors"] * 2
    run(replace(config, batch_size=4), data, tmp_path / "one")
    one, two = checkpoint(tmp_path / "one"), checkpoint(tmp_path / "two")
    for name in ("net", "ema"):
        assert largest_difference(one[name], two[name]) < 1e-5
    assert largest_difference(one["finish"]["discriminator"], two["finish"]["discriminator"]) < 1e-5
    run(config, data, tmp_path / "half")
    half = checkpoint(tmp_path / "half")
    assert largest_difference(one["finish"]["discriminator"], half["finish"]["discriminator"]) > 1e-4


def test_a_discriminator_loss_that_is_not_finite_leaves_both_sides_as_they_are(
    data: DataSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clean = FinishLoss.forward

    def forward(self: FinishLoss, batch: Batch, step: int) -> Losses:
        losses = clean(self, batch, step)
        assert losses.discriminator is not None
        return losses._replace(discriminator=losses.discriminator * math.nan) if step in (6, 7) else losses

    run(replace(CONFIG, max_steps=6, finish=replace(FINISH, steps=2)), data, tmp_path / "shorter")
    monkeypatch.setattr(FinishLoss, "forward", forward)
    reports: list[TrainProgress] = []
    run(CONFIG, data, tmp_path / "run", on_progress=reports.append)
    state = checkpoint(tmp_path / "run")
    assert reports[-1].skipped == state["skipped"] == 2
    for part in (state["net"], state["finish"]["discriminator"]):
        assert all(torch.isfinite(value).all() for value in part.values())


def test_many_bad_steps_in_a_row_stop_the_run(
    data: DataSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forward(self: FinishLoss, batch: Batch, _step: int) -> Losses:
        return Losses(next(self.net.parameters()).sum() * math.nan, batch.x0.new_zeros(()))

    monkeypatch.setattr(FinishLoss, "forward", forward)
    with pytest.raises(TrainingError, match="not finite in 5 steps in a row"):
        run(replace(CONFIG, max_steps=20, finish=replace(FINISH, steps=10)), data, tmp_path / "run")


def test_the_rate_is_constant_and_falls_in_the_last_fifth() -> None:
    finish = replace(FINISH, steps=100, warmup_steps=10, learning_rate=1.0)
    config = replace(TINY, max_steps=200, rate_schedule="constant", finish=finish)
    rates = [learning_rate(config, step) for step in range(100, 200)]
    assert rates[0] == pytest.approx(0.1)
    assert set(rates[9:80]) == {1.0}
    assert rates[80:] == sorted(rates[80:], reverse=True)
    assert rates[99] < 0.05
    assert learning_rate(config, 99) == config.learning_rate


def test_the_cosine_before_it_ends_where_finishing_begins() -> None:
    config = replace(TINY, max_steps=200, base_steps=0, finish=replace(FINISH, steps=100))
    assert learning_rate(config, 99) < 0.02 * config.learning_rate


def test_what_comes_is_free_until_finishing_begins(data: DataSource, tmp_path: Path) -> None:
    """At a constant rate a run may be made longer, and be finished otherwise; once it finishes, it may not."""
    config = replace(CONFIG, rate_schedule="constant")

    def interrupt(at: int) -> Any:
        def stop(report: TrainProgress) -> None:
            if report.step == at:
                raise KeyboardInterrupt

        return stop

    longer = replace(config, max_steps=9, finish=replace(FINISH, l1=1.0, discriminator_channels=6))
    run(longer, data, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(replace(config, finish=FinishConfig()), data, tmp_path / "parts", on_progress=interrupt(4))
    run(longer, data, tmp_path / "parts", resume=True)
    assert same(checkpoint(tmp_path / "whole"), checkpoint(tmp_path / "parts"))
    with pytest.raises(KeyboardInterrupt):
        run(config, data, tmp_path / "late", on_progress=interrupt(6))
    for other in (replace(config, max_steps=9), replace(config, finish=replace(FINISH, l1=1.0)), longer):
        with pytest.raises(OutputError, match="other settings"):
            run(other, data, tmp_path / "late", resume=True)


def test_a_resumed_run_still_says_what_it_began_with(data: DataSource, tmp_path: Path) -> None:
    def interrupt(report: TrainProgress) -> None:
        if report.step == 5:
            raise KeyboardInterrupt

    origin = {"finetuned_from": {"name": "first", "sha256": "0" * 64}}
    with torch.random.fork_rng(devices=[]):
        state = build_net(CONFIG.model).state_dict()
    start = Start(CONFIG.model, state, origin, tmp_path / "first.safetensors")
    with pytest.raises(KeyboardInterrupt):
        run(CONFIG, data, tmp_path / "run", start=start, on_progress=interrupt)
    assert load_weights(tmp_path / "run" / "model.safetensors").facts["finetuned_from"] == origin["finetuned_from"]
    path = run(CONFIG, data, tmp_path / "run", resume=True)
    assert load_weights(path).facts["finetuned_from"] == origin["finetuned_from"]


def test_alex_distances_are_by_image_and_reach_the_guess(
    data: DataSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Squared(torch.nn.Module):
        def forward(self, guess: Tensor, truth: Tensor) -> Tensor:
            return (guess - truth).square().mean(dim=(1, 2, 3), keepdim=True)

    monkeypatch.setattr(finishing, "_alex_net", Squared)
    config = replace(CONFIG, finish=replace(FINISH, features="alex"))
    fresh, loss, batch = ready(config, data)
    losses = loss(batch, 6)
    losses.parts["feature"].backward()
    assert float(fresh.denoiser.net.unet.leave.weight.grad.abs().sum()) > 0
    distance = finishing.alex_distance(CPU)(batch.x0 + 0.5, batch.x0)
    assert torch.allclose(distance, torch.full((2,), 0.25))
    reports: list[TrainProgress] = []
    run(config, data, tmp_path / "run", on_progress=reports.append)
    assert reports[-1].parts["feature"] > 0


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("finish", "words"),
    [
        ({"steps": 7}, r"finish.steps is 7, but it must be at most max_steps - base_steps, here 8 - 2"),
        ({"rollout_steps": (1, 1001)}, r"finish.rollout_steps is .*1\.\.1000"),
    ],
)
def test_a_stage_must_fit_its_run(finish: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        replace(TINY, finish=replace(FINISH, **finish))


@pytest.mark.parametrize(
    "finish",
    [
        {"steps": -1},
        {"rollout_steps": ()},
        {"rollout_steps": (0,)},
        {"earlier_share": 1.1},
        {"learning_rate": 0.0},
        {"discriminator_learning_rate": math.inf},
        {"warmup_steps": -1},
        {"l1": -1.0},
        {"feature": math.inf},
        {"adversarial": math.nan},
        {"discriminator_channels": 0},
        {"gradient_penalty": -0.1},
        {"penalty_every": 0},
    ],
)
def test_impossible_settings_name_the_field(finish: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"finish.{next(iter(finish))} is "):
        FinishConfig(**finish)


@pytest.mark.parametrize("change", [{"features": "encoder"}, {"features": "none", "discriminator": "features"}])
def test_only_the_refiner_has_an_encoder_to_look_through(change: dict[str, Any]) -> None:
    finish = replace(FINISH, **change)
    with pytest.raises(ConfigError, match=r"backbone is 'sr3', but it must be refiner"):
        replace(TINY, model=MODELS["sr3"], base_steps=0, finish=finish)


def test_missing_lpips_is_told_in_one_line_before_the_first_step(
    data: DataSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "torchmetrics.functional.image.lpips", None)
    config = replace(CONFIG, finish=replace(FINISH, features="alex"))
    with pytest.raises(UsageError, match=r"finish.features is 'alex'.*pip install \"dreamsr\[lpips\]\"") as caught:
        run(config, data, tmp_path / "run")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()
