import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from dreamsr.core.backbones.sr3 import SR3Config
from dreamsr.core.model import ModelConfig, build_denoiser, build_net
from dreamsr.core.process import ProcessConfig
from dreamsr.core.resize import as_stored, enlarge, shrink
from dreamsr.data.sources import DataSource
from dreamsr.errors import OutputError, UsageError
from dreamsr.measure.lpips import Perceptual
from dreamsr.measure.score import score
from dreamsr.pictures.read import from_pil
from dreamsr.pictures.write import write_picture
from dreamsr.study import study as studying
from dreamsr.study.report import cells, markdown, write_report
from dreamsr.study.study import FIGURES, Row, StudyPlan, compared, measure, sampled, study
from dreamsr.training.config import TrainConfig

PROCESS = ProcessConfig(kind="gaussian", timesteps=4, beta_last=0.5)
NET = SR3Config(channels=4, multipliers=(1, 2), blocks_per_level=1, attention_levels=(), dropout=0.0, groups=2)
TINY = TrainConfig(
    model=ModelConfig(backbone="sr3", scale=2, prediction="eps", process=PROCESS, sizes=NET),
    max_steps=3,
    batch_size=2,
    crop_low_px=8,
    shrink_factors=(1,),
    rate_schedule="constant",
    warmup_steps=0,
    precision="fp32",
    valid_every=2,
    valid_steps=(2,),
    valid_limit=1,
)
PLAN = StudyPlan(TINY, (math.inf, 1.0), seeds=2, sample_steps=(1, 4), stochasticities=(1.0,), crops=3)


def pictures(folder, *, phase):
    from PIL import Image

    folder.mkdir()
    y, x = np.mgrid[0:48, 0:56]
    for i in range(3):
        waves = [np.sin(x / (3 + i) + c + phase) + np.cos(y / (2 + c)) for c in range(3)]
        write_picture(
            folder / f"{i}.png",
            from_pil(Image.fromarray((np.stack(waves, axis=2) * 60 + 128).clip(0, 255).astype(np.uint8))),
        )
    return folder


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    place = tmp_path_factory.mktemp("study")
    data, held = pictures(place / "data", phase=0), pictures(place / "held", phase=1)
    out = place / "out"
    out.mkdir()
    (out / studying.OVERHEAD).write_text(json.dumps({"ratio": 5 / 3}))
    rows = study(PLAN, DataSource(data=str(data)), held, out, device="cpu", on_notice=lambda _text: None)
    return place, rows


def test_every_arm_is_trained_and_sampled_and_plain_also_for_as_long_as_dream_takes(finished):
    _, rows = finished
    found = {(r.arm, r.seed, r.train_steps, r.steps) for r in rows}
    arms = [("plain", 3), ("plain, equal time", 5), ("p=1", 3)]
    assert found == {(arm, seed, length, n) for arm, length in arms for seed in (0, 1) for n in (1, 4)}
    assert all(math.isfinite(r.psnr_y) and r.consistency >= 0 and r.train_seconds > 0 for r in rows)


def test_dream_and_seed_change_what_is_learned(finished):
    _, rows = finished
    at = {(r.arm, r.seed): r.psnr_y for r in rows if r.steps == 4}
    assert len(set(at.values())) == len(at)


def test_a_finished_study_is_read_and_not_computed_again(finished, monkeypatch):
    place, rows = finished
    monkeypatch.setattr(studying, "train", lambda *_a, **_k: pytest.fail("trained again"))
    data = DataSource(data=str(place / "data"))
    again = study(PLAN, data, place / "held", place / "out", device="cpu", on_notice=lambda _text: None)
    assert again == rows


def test_a_study_neither_replaces_its_pictures_nor_lies_among_them(tmp_path):
    held = pictures(tmp_path / "held", phase=1)
    (tmp_path / "out").mkdir()
    for data, out in (("data", "data/out"), ("out/truth", "out"), ("out/p-1-seed1", "out"), ("data2", "held/out")):
        source = DataSource(data=str(pictures(tmp_path / data, phase=0)))
        before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
        with pytest.raises(OutputError, match="is or lies in"):
            study(PLAN, source, held, tmp_path / out, device="cpu", on_notice=lambda _text: None)
        assert before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}


def test_samples_and_truths_lie_beside_each_other_for_other_judges(finished):
    place, rows = finished
    truths = sorted(p.name for p in (place / "out" / "truth").iterdir())
    assert truths == ["000.png", "001.png", "002.png"]
    folders = [p for p in (place / "out" / "p-1-seed0").iterdir() if p.is_dir() and p.name.startswith("p=1")]
    assert len(folders) == 2
    assert all(sorted(p.name for p in folder.iterdir()) == truths for folder in folders)
    assert len(rows) == 12


def test_report_tells_means_and_deviations_and_the_papers_figures(finished):
    place, rows = finished
    found = cells(rows, "p=1", 4, 1.0)["psnr_y"]
    own = [r.psnr_y for r in rows if (r.arm, r.steps) == ("p=1", 4)]
    assert found is not None
    assert found[0] == pytest.approx(np.mean(own))
    assert found[1] == pytest.approx(np.std(own, ddof=1))
    text = markdown(rows)
    assert "| plain, equal time | 5 |" in text
    assert "28.10 / 0.79 / 0.121" in text
    paths = write_report(rows, {}, place / "out")
    assert [p.name for p in paths] == ["study.json", "study.md", "study.png"]
    assert paths[-1].read_bytes()[:4] == b"\x89PNG"
    assert len(json.loads(paths[0].read_text())["rows"]) == len(rows)


def figures(image, low, x0):
    return score(compared(image, low, x0, 2), Perceptual(()), FIGURES).values()


def test_the_score_of_the_truth_is_perfect_and_of_a_shift_is_not():
    x0 = as_stored(torch.rand(3, 32, 32) * 2 - 1)
    low = shrink(x0, 2)
    psnr_y, ssim_y, _, consistency = figures(x0, low, x0)
    assert psnr_y == math.inf
    assert ssim_y == pytest.approx(1)
    assert consistency < 1e-6
    psnr_y, _, _, consistency = figures((x0 + 0.1).clamp(-1, 1), low, x0)
    assert 25 < psnr_y < 35
    # The shift is .05 on [0,1], a little less where it was clipped: 1e5 * .05^2 = 250.
    assert 150 < consistency < 251


def test_a_crop_meets_the_same_noise_in_any_batch():
    denoiser = build_denoiser(TINY.model, build_net(TINY.model).eval())
    low = torch.rand(3, 3, 8, 8) * 2 - 1
    together = sampled(denoiser, low, [4, 5, 6], 3, 1.0)
    alone = sampled(denoiser, low[2:], [6], 3, 1.0)
    assert torch.allclose(together[2:], alone, atol=1e-5)
    assert not torch.allclose(alone, sampled(denoiser, low[2:], [7], 3, 1.0), atol=1e-3)


def test_a_denoiser_that_enlarges_scores_like_bicubic(tmp_path):
    class Bicubic(torch.nn.Module):
        scale, continuous, predicts_base = 2, False, False

        def encode(self, low, _scale=None):
            from dreamsr.core.denoiser import Condition

            return Condition(y=enlarge(low, 2))

        def forward(self, _x_t, condition, _level):
            return condition.y

    denoiser = build_denoiser(replace(TINY.model, prediction="x0"), Bicubic())
    x0 = as_stored(torch.rand(3, 32, 32) * 2 - 1)
    low = shrink(x0, 2)
    expected = list(figures(enlarge(low[None], 2).clamp(-1, 1)[0], low, x0))
    found = list(measure(denoiser, [(low, x0)], 4, 0.0, tmp_path / "samples").values())
    assert found[:2] == pytest.approx(expected[:2], abs=0.05)
    assert (tmp_path / "samples" / "000.png").exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"powers": ()}, "at least one"),
        ({"seeds": 0}, "1 or more"),
        ({"sample_steps": (5,)}, "1..4"),
        ({"config": replace(TINY, rate_schedule="cosine")}, "constant"),
    ],
)
def test_impossible_plans_are_refused(change, words):
    with pytest.raises(UsageError, match=words):
        replace(PLAN, **change)


def test_missing_figures_leave_a_dash():
    row = Row("plain", 0, 1, 1.0, 4, 1.0, 20.0, 0.5, None, 3.0)
    assert "20.00 (0.00) / 0.5000 / - / 3.0" in markdown([row])
