import math
from dataclasses import fields

import pytest

from dreamsr.config import from_mapping
from dreamsr.core.backbones import config_classes
from dreamsr.data.recipes import degradation_names, load_degradation
from dreamsr.data.settings import PhotoConfig
from dreamsr.errors import ConfigError, UsageError
from dreamsr.training.config import TrainConfig
from dreamsr.training.presets import (
    load_preset,
    merged,
    parse_settings,
    preset_names,
)

PAPERS = ("refiner-x4", "sr3-face-8x", "sr3-64-512", "sr3-x4", "idm-face-8x", "idm-continuous", "resshift-x4")


RELEASES = tuple(name for name in preset_names() if name.startswith("release-"))


@pytest.mark.parametrize("name", sorted(set(preset_names()) - set(RELEASES)))
def test_every_preset_is_a_configuration_with_a_description(name):
    preset = load_preset(name)
    config = from_mapping(TrainConfig, preset.values, source=name)
    assert preset.description
    assert config.model.backbone == name.split("-")[0]
    assert config.base_steps < config.max_steps
    assert all(steps <= config.model.process.timesteps for steps in (*config.valid_steps, config.default_steps))
    assert config.dream.power == math.inf, "presets train plainly until --dream asks for more"


@pytest.mark.parametrize(
    ("name", "scale", "crops", "degradation"),
    [
        ("release-photo-x4", 4, 600_000, "photo"),
        ("release-clean-x4", 4, 300_000, "bicubic"),
        ("release-photo-x2", 2, 600_000, "photo"),
        ("release-art-x4", 4, 600_000, "photo"),
        ("release-clean-x2", 2, 300_000, "bicubic"),
    ],
)
def test_a_release_is_base_then_dream_then_finishing_in_the_last_tenth(name, scale, crops, degradation):
    assert name in RELEASES
    preset = load_preset(name)
    config = from_mapping(TrainConfig, preset.values, source=name)
    assert preset.description
    assert (config.model.backbone, config.model.scale, config.degradation) == ("refiner", scale, degradation)
    assert config.max_steps * config.batch_size == crops
    assert config.finish.steps * 10 == config.max_steps
    stages = [config.stage(step) for step in range(config.max_steps)]
    assert list(dict.fromkeys(stages)) == ["base", "dream", "finish"]
    assert (config.learning_rate, config.rate_schedule, config.crop_low_px) == (4e-4, "constant", 32)


@pytest.mark.parametrize("name", RELEASES)
def test_releases_finish_on_short_rollouts_above_all(name):
    assert load_preset(name).values["finish"]["rollout_steps"] == [1, 1, 2, 4]


def test_nets_that_enlarge_twice_have_a_coarser_grid_and_so_a_quarter_of_the_work():
    for name in RELEASES:
        model = from_mapping(TrainConfig, load_preset(name).values, source=name).model
        assert model.scale * model.sizes.unshuffle == 4


def test_photo_releases_are_for_everyday_pictures_and_drawings():
    for name, drawn in (("release-photo-x4", 0.15), ("release-photo-x2", 0.15), ("release-art-x4", 0.7)):
        config = from_mapping(TrainConfig, load_preset(name).values, source=name)
        assert config.photo == from_mapping(PhotoConfig, load_degradation("everyday"), source="everyday")
        assert config.drawn_share == drawn
    assert from_mapping(TrainConfig, load_preset("release-clean-x2").values, source="clean").drawn_share == 0


def test_a_preset_names_a_degradation_and_may_change_it(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text('extends = "release-photo-x4"\n[photo]\nclean_share = 0.5\n')
    preset = load_preset(str(path))
    assert preset.named_photo
    assert preset.values["photo"] == {**load_degradation("everyday"), "clean_share": 0.5}
    path.write_text('extends = "release-photo-x4"\ndegradation = "photo"\n')
    assert "photo" not in load_preset(str(path)).values, "another degradation brings its own table"


def test_every_system_has_a_preset_and_a_tiny_one():
    names = preset_names()
    assert set(PAPERS) <= set(names)
    tiny = {name.split("-")[0] for name in names if name.endswith("-tiny")}
    assert tiny == set(config_classes())


def test_small_gaussian_systems_are_centred_and_the_papers_are_not():
    for name in preset_names():
        model = from_mapping(TrainConfig, load_preset(name).values, source=name).model
        small = name.endswith("-tiny") and model.backbone in ("sr3", "idm")
        assert model.parametrisation == ("centred" if small else "plain"), name


@pytest.mark.parametrize("name", degradation_names())
def test_every_named_degradation_is_whole_so_that_no_earlier_table_shines_through(name):
    table = load_degradation(name)
    assert set(table) == {one.name for one in fields(PhotoConfig)}
    config = from_mapping(PhotoConfig, table, source=name)
    assert config != PhotoConfig()
    assert 0.25 <= config.clean_share + config.light_share <= 0.4


def test_a_preset_extends_another_table_by_table():
    face, x4 = (load_preset(name).values for name in ("sr3-face-8x", "sr3-x4"))
    assert x4["model"]["sr3"] == face["model"]["sr3"]
    assert (x4["model"]["scale"], x4["model"]["process"]["timesteps"]) == (4, 1000)
    assert x4["model"]["process"]["beta_last"] == face["model"]["process"]["beta_last"]
    assert "extends" not in x4


def test_a_file_of_ones_own_extends_a_preset(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text('extends = "sr3-x4-tiny"\ndream_power = 2\nmax_steps = 7\n[model.sr3]\ndropout = 0.5\n')
    preset = load_preset(str(path))
    assert (preset.dream_power, preset.values["max_steps"], preset.values["model"]["sr3"]["dropout"]) == (2.0, 7, 0.5)
    assert preset.values["model"]["sr3"]["channels"] == 16


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        ("max_steps = ", ConfigError, "not a TOML file"),
        ("extends = 3", ConfigError, "extends must be"),
        ('extends = "nothing"', UsageError, "possible: "),
        ("dream_power = 'much'", ConfigError, "dream_power a number"),
    ],
)
def test_broken_files_are_explained(tmp_path, text, error, words):
    path = tmp_path / "broken.toml"
    path.write_text(text)
    with pytest.raises(error, match=words):
        load_preset(str(path))


def test_missing_and_unknown_presets_are_named(tmp_path):
    with pytest.raises(UsageError, match="sr3-x4"):
        load_preset("sr4")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_preset(str(tmp_path / "none.toml"))


def test_a_preset_cannot_extend_itself(tmp_path):
    path = tmp_path / "loop.toml"
    path.write_text(f'extends = "{path.as_posix()}"')
    with pytest.raises(ConfigError, match="extends itself"):
        load_preset(str(path))


def test_settings_are_toml_values_or_words():
    table = parse_settings(["model.sr3.dropout=0.1", "model.backbone=sr3", "betas=[0.9, 0.999]", "clip_norm = inf"])
    assert table == {
        "model": {"sr3": {"dropout": 0.1}, "backbone": "sr3"},
        "betas": [0.9, 0.999],
        "clip_norm": math.inf,
    }


@pytest.mark.parametrize("text", ["max_steps", "=3", "model..scale=3", "a b=1"])
def test_settings_that_are_none_are_refused(text):
    with pytest.raises(UsageError, match="FIELD=VALUE"):
        parse_settings([text])


def test_merging_keeps_what_is_not_changed_and_changes_nothing_in_place():
    base = {"a": {"b": 1, "c": 2}, "d": 3}
    assert merged(base, {"a": {"b": 5}, "e": 6}) == {"a": {"b": 5, "c": 2}, "d": 3, "e": 6}
    assert base == {"a": {"b": 1, "c": 2}, "d": 3}
