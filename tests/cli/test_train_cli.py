import json
import math
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from rich.progress import Progress

from dreamsr.cli import main, train_view
from dreamsr.cli.train_view import duration
from dreamsr.core.model import ModelConfig
from dreamsr.data.recipes import degradation_table
from dreamsr.data.settings import PhotoConfig
from dreamsr.errors import ConfigError, UsageError
from dreamsr.pictures.read import from_pil
from dreamsr.pictures.write import write_picture
from dreamsr.training.config import DreamConfig, TrainConfig
from dreamsr.training.presets import preset_names
from dreamsr.training.resolve import altered, data_source, finish_table, name_of, resolve
from dreamsr.weights.file import load_weights

ASKED_NOTHING = {"enabled": None, "power": None, "start": None}
TINY = ["--set", "crop_low_px=8", "--batch-size", "2", "--precision", "fp32", "--device", "cpu"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    from PIL import Image

    folder = tmp_path_factory.mktemp("photos")
    y, x = np.mgrid[0:96, 0:120]
    for i in range(4):
        waves = [np.sin(x / (3 + i) + c) + np.cos(y / (2 + c)) for c in range(3)]
        pixels = (np.stack(waves, axis=2) * 60 + 128).clip(0, 255).astype(np.uint8)
        write_picture(folder / f"{i}.png", from_pil(Image.fromarray(pixels)))
    return folder


def resolved(*, preset="sr3-x4-tiny", settings=(), dream=ASKED_NOTHING, **options):
    return resolve(preset, settings, options, dream)


def test_options_win_over_settings_and_settings_over_the_preset():
    config = resolved(settings=["batch_size=3", "seed=5", "model.sr3.dropout=0.5"], batch_size=4, seed=None)
    assert (config.batch_size, config.seed, config.model.sizes.dropout) == (4, 5, 0.5)
    assert config.model.sizes.channels == 16


def test_unknown_fields_name_the_preset_and_the_field():
    with pytest.raises(UsageError, match=r"`preset` sr3-x4-tiny.*batch_sise.*batch_size"):
        resolved(settings=["batch_sise=3"])
    with pytest.raises(ConfigError, match="dropout"):
        resolved(settings=["model.sr3.dropout=1.5"])


@pytest.mark.parametrize(
    ("preset", "asked", "expected"),
    [
        ("sr3-x4-tiny", {}, DreamConfig(math.inf)),
        ("sr3-x4-tiny", {"enabled": True}, DreamConfig(1.0)),
        ("resshift-x4-tiny", {"enabled": True}, DreamConfig(3.0)),
        ("resshift-x4-tiny", {"enabled": True, "power": 2.0}, DreamConfig(2.0)),
        ("sr3-x4-tiny", {"power": 0.0}, DreamConfig(0.0)),
        ("sr3-x4-tiny", {"start": 7}, DreamConfig(1.0, 7)),
        ("sr3-x4-tiny", {"enabled": False}, DreamConfig(math.inf)),
    ],
)
def test_dream_is_what_was_asked_for(preset, asked, expected):
    assert resolved(preset=preset, dream={**ASKED_NOTHING, **asked}).dream == expected


def test_no_dream_cannot_have_a_power():
    with pytest.raises(UsageError, match="`no_dream`"):
        resolved(dream={"enabled": False, "power": 1.0, "start": None})


def test_a_shorter_run_keeps_the_share_of_the_base():
    assert resolved(preset="refiner-x4", max_steps=50).base_steps == 10
    assert resolved(preset="refiner-x4", max_steps=50, base_steps=3).base_steps == 3
    assert resolved(preset="refiner-x4", settings=["base_steps=4"], max_steps=50).base_steps == 4
    assert resolved(preset="sr3-x4", max_steps=50).base_steps == 0


def test_fine_tuning_changes_only_what_was_given():
    base = TrainConfig(dream=DreamConfig(1.0), learning_rate=1e-4)
    config = altered(base, ["seed=3"], {"max_steps": 9, "batch_size": None}, ASKED_NOTHING)
    assert (config.seed, config.max_steps, config.batch_size, config.dream) == (3, 9, 16, DreamConfig(1.0))
    assert altered(base, (), {}, {**ASKED_NOTHING, "enabled": False}).dream.power == math.inf


def test_degradations_by_name_and_by_table(tmp_path):
    table = tmp_path / "mild.toml"
    table.write_text("jpeg_quality = [80, 95]\n")
    assert degradation_table(None) == {}
    assert degradation_table("photo") == {"degradation": "photo"}
    config = resolved(**degradation_table(str(table)))
    assert config.degradation == "photo"
    assert config.photo.jpeg_quality == (80, 95)
    everyday = resolved(**degradation_table("everyday"))
    assert everyday.degradation == "photo"
    assert everyday.photo.clean_share > 0
    with pytest.raises(UsageError, match=r"`degradation`.*bicubic, photo, everyday"):
        degradation_table("blurry")


def test_photo_asked_for_by_name_is_the_harder_one_and_not_the_presets_own_table():
    preset = "release-photo-x4"
    assert resolved(preset=preset).photo.clean_share > 0
    assert resolved(preset=preset, **degradation_table("photo")).photo == PhotoConfig()
    assert resolved(preset=preset, settings=["photo.clean_share=0.5"]).photo.clean_share == 0.5
    assert resolved(preset=preset, **degradation_table("bicubic")).degradation == "bicubic"


def test_data_is_a_folder_or_a_pair_of_folders(tmp_path):
    assert data_source("photos", None, None).data == "photos"
    assert data_source(None, tmp_path, tmp_path).hr == tmp_path
    for wrong in ((None, None, None), ("a", tmp_path, tmp_path), (None, tmp_path, None), ("a", tmp_path, None)):
        with pytest.raises(UsageError, match="`hr` and `lr`"):
            data_source(*wrong)


@pytest.mark.parametrize(("text", "name"), [("a/div2k", "div2k"), ("hub:me/set:train", "set"), ("x/part.tar", "part")])
def test_runs_are_named_after_their_data(text, name):
    assert name_of(data_source(text, None, None)) == name


@pytest.mark.parametrize(
    ("seconds", "text"), [(5, "5 s"), (600, "10 min"), (8000, "2 h 13 min"), (400_000, "4 d 15 h")]
)
def test_durations_are_said_as_people_do(seconds, text):
    assert duration(seconds) == text


def test_train_leaves_weights_and_the_resolved_configuration(data, tmp_path, capfd):
    out = tmp_path / "run"
    arguments = ["train", "--data", str(data), "--out", str(out), "--preset", "refiner-x4-tiny", "--max-steps", "5"]
    assert main([*arguments, "--dream", "--seed", "3", "--val", str(data), *TINY]) == 0
    heard = capfd.readouterr()
    assert heard.out == ""
    assert "4 photos" in heard.err
    assert "validation at step 5" in heard.err
    assert "dreamsr upscale" in heard.err
    told = json.loads((out / "config.json").read_text())
    assert told["train"]["dream"] == {"power": 1.0, "start": 0}
    assert (told["train"]["base_steps"], told["train"]["seed"], told["seed"]) == (1, 3, 3)
    assert load_weights(out / "model.safetensors").facts["default_steps"] == 8


def test_train_says_in_one_line_what_is_wrong(tmp_path, capfd):
    for arguments in (
        ["--data", str(tmp_path / "none")],
        [],
        ["--data", str(tmp_path), "--preset", "sr5"],
        ["--data", str(tmp_path), "--set", "nonsense"],
    ):
        assert main(["train", *arguments, "--out", str(tmp_path / "run")]) != 0
        heard = capfd.readouterr()
        assert heard.err.startswith("error: ")
        assert heard.err.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_a_dry_run_says_speed_and_leaves_nothing(tmp_path, capfd, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["train", "--preset", "sr3-x4-tiny", "--set", "crop_low_px=8", "--batch-size", "1", "--dry-run"]) == 0
    text = capfd.readouterr().out
    assert "611,891 parameters" in text
    assert "with DREAM: " in text
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_times_finishing_too(capfd):
    own = ["--finish", "4", "--set", "finish.features=none", "--set", "finish.discriminator_channels=4"]
    assert main(["train", "--preset", "refiner-x4-tiny", "--max-steps", "20", *own, *TINY, "--dry-run"]) == 0
    lines = capfd.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines[1:4]] == ["without DREAM", "with DREAM", "finishing"]
    assert lines[2].endswith("for 16 steps")
    assert re.fullmatch(r"finishing: [0-9.]+ images/s, \d+ s for 4 steps", lines[3])


def test_finetune_shows_before_and_after(data, tmp_path, capfd):
    first, second = tmp_path / "first", tmp_path / "second"
    common = ["--data", str(data), *TINY]
    assert main(["train", *common, "--preset", "refiner-x4-tiny", "--max-steps", "3", "--out", str(first)]) == 0
    capfd.readouterr()
    assert main(["finetune", *common, "--weights", str(first), "--max-steps", "2", "--out", str(second)]) == 0
    heard = capfd.readouterr()
    assert "held-out" in heard.out
    assert "sanity" in heard.out
    assert load_weights(second / "model.safetensors").facts["finetuned_from"]["name"] == "first"
    assert main(["finetune", *common, "--weights", str(first), "--max-steps", "2", "--out", str(second)]) == 1
    assert "already" in capfd.readouterr().err


def test_finetune_says_speed_and_leaves_nothing(tiny_weights, tmp_path, capfd, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["finetune", "--weights", str(tiny_weights), *TINY, "--dry-run"]) == 0
    text = capfd.readouterr().out
    assert f"{sum(p.numel() for p in load_weights(tiny_weights).net.parameters()):,} parameters" in text
    assert "with DREAM: " in text
    assert list(tmp_path.iterdir()) == []


def test_finetune_measures_on_a_share_or_on_given_pictures(data, tiny_weights, tmp_path, capfd):
    arguments = ["finetune", "--weights", str(tiny_weights), "--data", str(data), "--out", str(tmp_path / "run"), *TINY]
    assert main([*arguments, "--val", str(data), "--held-out", "0.2"]) == 2
    heard = capfd.readouterr()
    assert heard.err == "error: --held-out and --val both say what to measure on; choose one\n"
    assert not (tmp_path / "run").exists()


def test_every_preset_can_be_named_on_the_command_line():
    for name in preset_names():
        assert resolved(preset=name).max_steps > 0


# --- finishing, and beginning with weights ----------------------------------------------------------------------------


def test_finish_counts_the_last_steps_and_every_field_of_it_can_be_set():
    config = altered(
        TrainConfig(), ["finish.features=none", "finish.rollout_steps=[1]"], finish_table(7), ASKED_NOTHING
    )
    assert (config.finish.steps, config.finish.features, config.finish.rollout_steps) == (7, "none", (1,))
    assert finish_table(None) == {}
    assert resolved(preset="refiner-x4", max_steps=50, **finish_table(5)).finish.steps == 5
    with pytest.raises(ConfigError, match=r"finish\.steps is 60, but it must be at most"):
        resolved(preset="refiner-x4", max_steps=50, **finish_table(60))


def test_a_shorter_run_keeps_the_share_of_finishing():
    assert resolved(preset="release-photo-x4", max_steps=500).finish.steps == 50
    assert resolved(preset="release-photo-x4", max_steps=500, **finish_table(5)).finish.steps == 5
    assert resolved(preset="release-photo-x4", settings=["finish.steps=4"], max_steps=500).finish.steps == 4
    changed = resolved(preset="release-photo-x4", settings=["finish.l1=1.0"], max_steps=500)
    assert (changed.finish.steps, changed.finish.l1) == (50, 1.0)


def test_the_net_is_that_of_the_weights_and_cannot_be_contradicted():
    model = ModelConfig(scale=2)
    assert resolve("sr3-x4-tiny", (), {}, ASKED_NOTHING, model=model).model == model
    assert resolve("refiner-x4", ["model.scale=2"], {}, ASKED_NOTHING, model=model).model == model
    for setting, words in (("model.scale=4", "scale is 4.*has 2"), ("model.backbone=sr3", "backbone is 'sr3'")):
        with pytest.raises(UsageError, match=words):
            resolve("refiner-x4", [setting], {}, ASKED_NOTHING, model=model)


def test_a_run_that_begins_with_weights_does_not_repeat_the_base():
    model = ModelConfig()
    assert resolve("release-photo-x4", (), {}, ASKED_NOTHING, model=model).base_steps == 0
    assert resolve("release-photo-x4", (), {"base_steps": 7}, ASKED_NOTHING, model=model).base_steps == 7
    assert resolve("release-photo-x4", ["base_steps=8"], {}, ASKED_NOTHING, model=model).base_steps == 8


def test_train_begins_with_weights_and_finishes(data, tmp_path, capfd):
    first, second = tmp_path / "first", tmp_path / "second"
    common = ["train", "--data", str(data), *TINY, "--preset", "refiner-x4-tiny"]
    assert main([*common, "--max-steps", "3", "--out", str(first)]) == 0
    more = ["--weights", str(first), "--max-steps", "4", "--base-steps", "0", "--finish", "2", "--out", str(second)]
    own = ["--set", "finish.features=encoder", "--set", "finish.discriminator_channels=4"]
    assert main([*common, *more, *own]) == 0
    assert "finish: loss" in capfd.readouterr().err
    told = json.loads((second / "config.json").read_text())
    assert told["finetuned_from"] == load_weights(second / "model.safetensors").facts["finetuned_from"]
    assert told["finetuned_from"]["name"] == "first"
    assert [json.loads(line)["stage"] for line in (second / "log.jsonl").read_text().splitlines()] == [
        *["plain"] * 2,
        *["finish"] * 2,
    ]
    before = load_weights(first / "model.safetensors").net.state_dict()
    again = tmp_path / "again"
    assert main([*common, "--weights", str(first), "--max-steps", "0", "--base-steps", "0", "--out", str(again)]) == 0
    after = load_weights(again / "model.safetensors").net.state_dict()
    assert all(bool((after[name] == before[name]).all()) for name in before)


def test_an_x2_net_takes_over_what_fits_of_an_x4_net(data, tmp_path, capfd):
    first, second = tmp_path / "first", tmp_path / "second"
    common = ["train", "--data", str(data), *TINY, "--preset", "refiner-x4-tiny"]
    assert main([*common, "--max-steps", "3", "--out", str(first)]) == 0
    half = ["--set", "model.scale=2", "--set", "model.refiner.unshuffle=2", "--max-steps", "0", "--out", str(second)]
    assert main([*common, *half, "--weights", str(first)]) == 2
    assert "--partial" in capfd.readouterr().err
    assert main([*common, *half, "--weights", str(first), "--partial"]) == 0
    old, new = (load_weights(path / "model.safetensors") for path in (first, second))
    before, after = old.net.state_dict(), new.net.state_dict()
    told = f"{len(after) - 1} of {len(after)}"
    assert f"{told} tensors of the net fit and are taken over" in capfd.readouterr().err
    assert (new.config.scale, new.facts["finetuned_from"]["tensors"]) == (2, told)
    assert [name for name in after if after[name].shape != before[name].shape] == ["encoder.head.weight"]
    assert all(bool((after[name] == before[name]).all()) for name in after if name != "encoder.head.weight")


def test_a_part_is_taken_of_weights_that_are_named_and_fit(data, tmp_path, capfd):
    common = ["train", "--data", str(data), *TINY, "--max-steps", "1", "--out", str(tmp_path / "run"), "--partial"]
    assert main(common) == 2
    assert "say which by --weights" in capfd.readouterr().err
    assert main([*common, "--weights", "clean-x4", "--preset", "sr3-x4-tiny"]) == 2
    assert "no tensor of the refiner weights fits the sr3" in capfd.readouterr().err
    assert not (tmp_path / "run").exists()


def test_finetune_can_finish_only(data, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    common = ["--data", str(data), *TINY]
    assert main(["train", *common, "--preset", "refiner-x4-tiny", "--max-steps", "3", "--out", str(first)]) == 0
    own = ["--max-steps", "2", "--finish", "2", "--set", "finish.features=none"]
    assert main(["finetune", *common, *own, "--weights", str(first), "--out", str(second)]) == 0
    lines = [json.loads(line) for line in (second / "log.jsonl").read_text().splitlines()]
    assert [line["stage"] for line in lines] == ["finish"] * 2
    assert set(lines[-1]["parts"]) == {"l1", "adversarial", "discriminator"}


def test_a_long_look_at_the_photos_is_told_after_a_second_and_every_half_minute(monkeypatch, capfd):
    now = [100.0]
    monkeypatch.setattr(train_view.time, "monotonic", lambda: now[0])
    view = train_view.TrainView(None)
    for done, seconds in ((1, 0.0), (2, 0.9), (3, 0.2), (4, 20.0), (5, 10.0), (2000, 40.0)):
        now[0] += seconds
        view.scan(done, 2000)
    lines = capfd.readouterr().err.splitlines()
    assert lines == ["looking at the photos: 3 of 2,000", "looking at the photos: 5 of 2,000"]


def test_on_a_terminal_the_look_at_the_photos_has_a_bar_that_goes_when_it_is_done():
    bars = Progress()
    view = train_view.TrainView(bars)
    view.scan(1, 3)
    (task,) = bars.tasks
    assert (task.completed, task.total, task.visible) == (1, 3, True)
    view.scan(3, 3)
    assert (task.completed, task.visible, len(bars.tasks)) == (3, False, 1)


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="needs a pseudo-terminal")
def test_a_terminal_that_closes_saves_the_run_and_ends_with_129(data, tmp_path):
    import fcntl
    import pty
    import select
    import termios

    out = tmp_path / "run"
    length = ["--max-steps", "100000", "--save-every", "100000"]
    arguments = ["train", "--data", str(data), "--preset", "refiner-x4-tiny", *TINY, *length, "--out", str(out)]
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "dreamsr", *arguments],
        **dict.fromkeys(("stdin", "stdout", "stderr"), theirs),
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2]), "TERM": "xterm"},
    )
    os.close(theirs)
    log, deadline = out / "log.jsonl", time.monotonic() + 120
    while not (log.exists() and log.read_text().count("\n") > 3) and time.monotonic() < deadline:
        if select.select([ours], [], [], 0.1)[0]:
            os.read(ours, 65536)
    os.close(ours)
    assert process.wait(timeout=60) == 129
    assert [path.name for path in (out / "checkpoints").iterdir()] == [f"step-{log.read_text().count(chr(10)):06d}.pt"]
