import math
from dataclasses import replace

import pytest
import torch

from dreamsr.errors import OutputError, TrainingError
from dreamsr.training.checkpoints import checkpoints, read_state, write_state
from dreamsr.training.config import DreamConfig
from dreamsr.training.train import train
from tests.training.tiny_runs import TINY, checkpoint, draw_pictures, one_thread, same


@pytest.fixture(autouse=True)
def single_threaded():
    with one_thread():
        yield


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return draw_pictures(tmp_path_factory.mktemp("data"))


def run(config, data, out, **options):
    return train(config, data, out, device="cpu", **options)


def names(out):
    return sorted(path.name for path in (out / "checkpoints").iterdir())


def test_the_last_few_are_kept(data, tmp_path):
    config = replace(TINY, save_every=1, keep_last=2)
    run(config, data, tmp_path / "run")
    assert names(tmp_path / "run") == ["step-000007.pt", "step-000008.pt"]
    assert [checkpoint(tmp_path / "run")["step"], len(checkpoints(tmp_path / "run"))] == [8, 2]


def cut(path):
    path.write_bytes(path.read_bytes()[:1000])


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def replace_by_text(path):
    path.write_text("not a checkpoint")


@pytest.mark.parametrize("damage", [cut, flip, replace_by_text])
def test_a_damaged_checkpoint_is_told_and_the_one_before_is_used(data, tmp_path, damage):
    run(TINY, data, tmp_path / "whole")
    run(TINY, data, tmp_path / "run")
    damage(tmp_path / "run" / "checkpoints" / "step-000008.pt")
    heard = []
    run(TINY, data, tmp_path / "run", resume=True, on_notice=heard.append)
    assert any("step-000008.pt: damaged" in notice and "the one before" in notice for notice in heard)
    assert same(checkpoint(tmp_path / "whole"), checkpoint(tmp_path / "run"))
    lines = (tmp_path / "run" / "log.jsonl").read_text().splitlines()
    assert len(lines) == 8


def test_a_damaged_one_ahead_does_not_push_out_a_sound_one(data, tmp_path):
    config = replace(TINY, save_every=2, keep_last=1, rate_schedule="constant")
    run(config, data, tmp_path / "run")
    (tmp_path / "run/checkpoints/step-000010.pt").write_text("damaged")

    def stop(_report):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(replace(config, max_steps=12), data, tmp_path / "run", resume=True, on_progress=stop)
    assert names(tmp_path / "run") == ["step-000009.pt"]
    assert checkpoint(tmp_path / "run")["step"] == 9


def test_where_all_are_damaged_the_run_cannot_go_on(data, tmp_path):
    run(TINY, data, tmp_path / "run")
    for path in checkpoints(tmp_path / "run"):
        cut(path)
    with pytest.raises(TrainingError, match=r"step-000004.pt: damaged .* no other checkpoint"):
        run(TINY, data, tmp_path / "run", resume=True)


def test_the_checkpoint_of_another_net_is_no_traceback(data, tmp_path):
    run(TINY, data, tmp_path / "run")
    for path in checkpoints(tmp_path / "run"):
        write_state(path, {**read_state(path), "net": {"x": torch.zeros(1)}})
    with pytest.raises(TrainingError, match="does not fit"):
        run(TINY, data, tmp_path / "run", resume=True)


def test_resuming_needs_a_run_with_the_same_settings(data, tmp_path):
    with pytest.raises(OutputError, match="no checkpoint"):
        run(TINY, data, tmp_path / "none", resume=True)
    run(TINY, data, tmp_path / "run")
    for changed, told in (
        ({"batch_size": 3}, r"batch_size: 2 -> 3\)"),
        ({"seed": 1}, r"seed: 0 -> 1\)"),
        ({"max_steps": 9}, r"max_steps: 8 -> 9\)"),  # a cosine is drawn for one length
        ({"dream": DreamConfig(math.inf)}, r"dream: "),
    ):
        with pytest.raises(OutputError, match=told):
            run(replace(TINY, **changed), data, tmp_path / "run", resume=True)


def test_a_step_may_be_divided_otherwise_when_a_run_goes_on(data, tmp_path):
    run(TINY, data, tmp_path / "run")
    run(replace(TINY, batch_size=1, accumulate=2), data, tmp_path / "run", resume=True)
    with pytest.raises(OutputError, match="accumulate: 2 -> 4"):
        run(replace(TINY, batch_size=1, accumulate=4), data, tmp_path / "run", resume=True)


def test_a_run_at_a_constant_rate_may_be_made_longer(data, tmp_path):
    config = replace(TINY, rate_schedule="constant")
    run(replace(config, max_steps=5), data, tmp_path / "parts")
    run(config, data, tmp_path / "parts", resume=True)
    run(config, data, tmp_path / "whole")
    assert same(checkpoint(tmp_path / "parts"), checkpoint(tmp_path / "whole"))


def test_resuming_needs_the_same_data(data, tmp_path):
    run(TINY, data, tmp_path / "run")
    with pytest.raises(OutputError, match="other data"):
        run(TINY, draw_pictures(tmp_path / "more", 4), tmp_path / "run", resume=True)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"train": 1}'])
def test_a_damaged_configuration_is_told(data, tmp_path, content):
    run(replace(TINY, max_steps=1), data, tmp_path / "run")
    (tmp_path / "run" / "config.json").write_text(content)
    with pytest.raises(OutputError, match=r"config\.json"):
        run(replace(TINY, max_steps=1), data, tmp_path / "run", resume=True)
