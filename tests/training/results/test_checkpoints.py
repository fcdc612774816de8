import json
import math
from dataclasses import replace

import pytest
import torch

from dreamsr.errors import OutputError, TrainingError
from dreamsr.training.config import DreamConfig, FinishConfig
from dreamsr.training.results.checkpoints import checkpoints, read_state, write_state
from dreamsr.training.resuming import MAY_CHANGE, with_short_warmup
from dreamsr.training.step import learning_rate
from tests.training.tiny_runs import TINY, checkpoint, draw_pictures, run, same

pytestmark = pytest.mark.usefixtures("single_threaded")


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


def test_a_run_with_a_falling_rate_may_be_made_longer_and_says_what_that_means(data, tmp_path):
    run(replace(TINY, max_steps=6), data, tmp_path / "run")
    told = []
    run(TINY, data, tmp_path / "run", resume=True, on_notice=told.append)
    assert "the run has 8 steps, not 6, of which 6 are done; from here on the learning rate falls as in 8" in told
    assert checkpoint(tmp_path / "run")["step"] == 8
    log = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [(line["step"], line["max_steps"]) for line in log[5:]] == [(6, 6), (7, 8), (8, 8)]
    assert log[6]["learning_rate"] == pytest.approx(learning_rate(TINY, 6))
    assert json.loads((tmp_path / "run" / "config.json").read_text())["train"]["max_steps"] == 8


def test_base_and_warm_up_of_a_longer_run_stay_as_they_were(data, tmp_path):
    run(replace(TINY, max_steps=4, base_steps=1, warmup_steps=1), data, tmp_path / "run")
    told = []
    run(TINY, data, tmp_path / "run", resume=True, on_notice=told.append)
    kept = json.loads((tmp_path / "run" / "config.json").read_text())["train"]
    assert (kept["base_steps"], kept["warmup_steps"], kept["max_steps"]) == (1, 1, 8)
    assert {"base_steps stays 1, as the run was begun", "warmup_steps stays 1, as the run was begun"} <= set(told)


def test_how_a_run_is_kept_and_measured_may_change(data, tmp_path):
    free = {"save_every": 2, "keep_last": 1, "valid_every": 3, "default_steps": 2, "precision": "auto"}
    assert free.keys() == set(MAY_CHANGE)
    run(TINY, data, tmp_path / "run")
    run(replace(TINY, **free), data, tmp_path / "run", resume=True)
    assert names(tmp_path / "run") == ["step-000008.pt"]


def test_what_may_change_is_said_where_something_else_did(data, tmp_path):
    run(TINY, data, tmp_path / "run")
    with pytest.raises(OutputError, match=r"only max_steps, save_every, .* may change"):
        run(replace(TINY, seed=1), data, tmp_path / "run", resume=True)


def test_fewer_steps_than_are_done_are_an_error_and_change_nothing(data, tmp_path):
    run(TINY, data, tmp_path / "run")
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    for schedule in ("cosine", "constant"):
        with pytest.raises(OutputError, match="max_steps is 5, but the run has done 8 already"):
            run(replace(TINY, max_steps=5, rate_schedule=schedule), data, tmp_path / "run", resume=True)
    assert before == {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}


def test_a_warm_up_longer_than_the_run_shrinks_with_a_note(data, tmp_path):
    config = replace(TINY, base_steps=0, max_steps=30, warmup_steps=5000, save_every=30)
    told = []
    run(config, data, tmp_path / "run", on_notice=told.append)
    assert "warmup_steps is 3, not 5000: no stage of this run has more than 30 steps" in told
    rates = [json.loads(line)["learning_rate"] for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert max(rates) > 0.9 * config.learning_rate
    run(config, data, tmp_path / "run", resume=True)  # asked for in the same words, it is the same run


@pytest.mark.parametrize(
    ("changed", "warm"),
    [({}, (2, 100)), ({"warmup_steps": 6}, (6, 100)), ({"warmup_steps": 7}, (1, 100)), ({"max_steps": 0}, (2, 100))],
)
def test_a_warm_up_that_fits_stays(changed, warm):
    config = with_short_warmup(replace(TINY, **changed), lambda _notice: None)
    assert (config.warmup_steps, config.finish.warmup_steps) == warm


def test_finishing_warms_up_within_its_steps_too():
    config = with_short_warmup(replace(TINY, finish=FinishConfig(steps=4)), lambda _notice: None)
    assert config.finish.warmup_steps == 1


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
