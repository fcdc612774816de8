import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from dreamsr.config import DreamConfig, ModelConfig, RefinerConfig, TrainConfig
from dreamsr.errors import DataError, OutputError, TrainingError
from dreamsr.files.images import from_pil, write_picture
from dreamsr.files.weights import load_weights
from dreamsr.tasks import train as training
from dreamsr.tasks.train import learning_rate, train

TINY = TrainConfig(
    model=ModelConfig(refiner=RefinerConfig(encoder_channels=8, encoder_blocks=1, channels=(8, 12))),
    dream=DreamConfig(power=1.0, start=3),
    max_steps=8,
    base_steps=2,
    batch_size=2,
    crop_low_px=8,
    warmup_steps=2,
    save_every=4,
    precision="fp32",
)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    from PIL import Image

    folder = tmp_path_factory.mktemp("data")
    y, x = np.mgrid[0:96, 0:120]
    for i in range(3):
        waves = [np.sin(x / (3 + i) + c) + np.cos(y / (2 + c)) for c in range(3)]
        pixels = (np.stack(waves, axis=2) * 60 + 128).clip(0, 255).astype(np.uint8)
        write_picture(folder / f"{i}.png", from_pil(Image.fromarray(pixels)))
    return folder


def checkpoint(out):
    return torch.load(out / training.CHECKPOINT, weights_only=True)


def flat(value):
    if isinstance(value, dict):
        return {f"{key}/{k}": v for key, inner in value.items() for k, v in flat(inner).items()}
    if isinstance(value, list | tuple):
        return flat(dict(enumerate(value)))
    return {"": value}


def same(a, b):
    a, b = flat(a), flat(b)
    return a.keys() == b.keys() and all(
        torch.equal(a[k], b[k]) if isinstance(a[k], torch.Tensor) else a[k] == b[k] for k in a
    )


@pytest.mark.parametrize("power", [0.0, 1.0, math.inf])
def test_the_loss_falls_with_and_without_dream(data, tmp_path, power):
    config = replace(TINY, max_steps=60, base_steps=0, learning_rate=3e-3, dream=DreamConfig(power=power))
    reports = []
    train(config, data, tmp_path / "run", on_progress=reports.append)
    first, last = (np.mean([r.loss for r in part]) for part in (reports[:10], reports[-10:]))
    assert last < 0.9 * first
    assert [r.step for r in reports] == list(range(1, 61))


@pytest.mark.parametrize("stop", [1, 4, 6])
def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(data, tmp_path, stop):
    train(TINY, data, tmp_path / "whole")

    def interrupt(report):
        if report.step == stop:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(TINY, data, tmp_path / "parts", on_progress=interrupt)
    assert checkpoint(tmp_path / "parts")["step"] == stop
    train(TINY, data, tmp_path / "parts", resume=True)
    assert same(checkpoint(tmp_path / "whole"), checkpoint(tmp_path / "parts"))


def test_another_seed_gives_another_run(data, tmp_path):
    train(TINY, data, tmp_path / "a")
    train(replace(TINY, seed=1), data, tmp_path / "b")
    assert not same(checkpoint(tmp_path / "a")["net"], checkpoint(tmp_path / "b")["net"])


def test_training_leaves_the_global_generator_alone(data, tmp_path):
    before = torch.random.get_rng_state()
    train(TINY, data, tmp_path / "run")
    assert torch.equal(before, torch.random.get_rng_state())


def test_the_weights_file_holds_the_average_and_how_it_was_made(data, tmp_path):
    weights = load_weights(train(TINY, data, tmp_path / "run"))
    average = {k.removeprefix("module."): v for k, v in checkpoint(tmp_path / "run")["ema"].items() if "module." in k}
    assert same(dict(weights.net.state_dict()), average)
    assert weights.config == TINY.model
    assert weights.facts["steps"] == 8
    assert weights.facts["train"]["dream"] == {"power": 1.0, "start": 3}


def test_fine_tuning_for_no_steps_reproduces_the_weights(data, tmp_path):
    first = load_weights(train(TINY, data, tmp_path / "first"))
    start = first.net.state_dict()
    again = load_weights(train(replace(TINY, max_steps=0, base_steps=0), data, tmp_path / "second", start_from=start))
    assert same(dict(start), dict(again.net.state_dict()))


def test_the_base_phase_leaves_the_step_net_as_it_began(data, tmp_path):
    train(replace(TINY, max_steps=2), data, tmp_path / "base")
    train(replace(TINY, max_steps=0), data, tmp_path / "fresh")
    trained, fresh = checkpoint(tmp_path / "base")["net"], checkpoint(tmp_path / "fresh")["net"]
    assert all(torch.equal(trained[k], fresh[k]) for k in fresh if k.startswith("unet."))
    assert any(not torch.equal(trained[k], fresh[k]) for k in fresh if k.startswith("encoder."))


def test_dream_changes_nothing_before_its_start(data, tmp_path):
    plain = replace(TINY, dream=DreamConfig(power=math.inf), max_steps=3)
    train(plain, data, tmp_path / "plain")
    train(replace(plain, dream=DreamConfig(power=1.0, start=3)), data, tmp_path / "later")
    assert same(checkpoint(tmp_path / "plain")["net"], checkpoint(tmp_path / "later")["net"])
    train(replace(plain, dream=DreamConfig(power=1.0, start=2)), data, tmp_path / "now")
    # The step net starts as zero: its first dreaming step sees the same target, yet another input.
    assert not same(checkpoint(tmp_path / "plain")["net"], checkpoint(tmp_path / "now")["net"])


def test_an_existing_run_is_not_overwritten(data, tmp_path):
    train(TINY, data, tmp_path / "run")
    before = (tmp_path / "run" / training.CHECKPOINT).read_bytes()
    with pytest.raises(OutputError, match="--resume"):
        train(TINY, data, tmp_path / "run")
    assert (tmp_path / "run" / training.CHECKPOINT).read_bytes() == before


def test_unusable_data_leaves_no_folder_behind(tmp_path):
    with pytest.raises(DataError, match="no such folder"):
        train(TINY, tmp_path / "nowhere", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_folder_that_cannot_be_made_is_named(data, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot be made"):
        train(TINY, data, tmp_path / "file" / "run")


def test_resuming_needs_a_run_with_the_same_settings(data, tmp_path):
    with pytest.raises(OutputError, match="no checkpoint"):
        train(TINY, data, tmp_path / "none", resume=True)
    train(TINY, data, tmp_path / "run")
    with pytest.raises(OutputError, match=r"batch_size: 2 -> 3"):
        train(replace(TINY, batch_size=3), data, tmp_path / "run", resume=True)


def test_a_damaged_checkpoint_is_named(data, tmp_path):
    train(TINY, data, tmp_path / "run")
    path = tmp_path / "run" / training.CHECKPOINT
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(TrainingError, match="damaged"):
        train(TINY, data, tmp_path / "run", resume=True)


def test_non_finite_losses_stop_the_run_and_leave_the_weights_alone(data, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "losses", lambda *_: (torch.tensor(math.nan), torch.tensor(0.0)))
    before = training.begin(TINY, training.choose_compute("cpu", "fp32"), None)
    with pytest.raises(TrainingError, match="not finite"):
        train(TINY, data, tmp_path / "run")
    kept = load_weights(train(replace(TINY, max_steps=0), data, tmp_path / "other"))
    assert same(dict(before.denoiser.net.state_dict()), dict(kept.net.state_dict()))


def test_the_log_has_one_line_per_step(data, tmp_path):
    train(TINY, data, tmp_path / "run")
    lines = [json.loads(line) for line in (tmp_path / "run" / training.LOG).read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, 9))
    assert lines[0]["loss"] == lines[0]["base_loss"]  # the base phase
    assert lines[-1]["loss"] > lines[-1]["base_loss"]


def test_the_learning_rate_warms_up_and_falls_in_both_phases():
    config = replace(TINY, max_steps=100, base_steps=40, warmup_steps=5, learning_rate=1.0)
    rates = [learning_rate(config, step) for step in range(100)]
    assert rates[0] < rates[2] < rates[4]
    assert rates[39] < 0.05
    assert rates[44] > 0.9
    assert rates[99] < 0.05
