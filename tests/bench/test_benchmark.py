"""Benchmarks as a whole: figures against a second way of computing them, resuming, other tools, sabotage."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from dreamsr.bench import sweep
from dreamsr.bench.benchmark import Report, bench
from dreamsr.bench.check import check
from dreamsr.bench.report import to_csv, to_json
from dreamsr.bench.request import BenchRequest, ablation
from dreamsr.bench.score import hints
from dreamsr.bench.store import Store
from dreamsr.bench.sweep import SweepProgress
from dreamsr.bench.weights import weights_name
from dreamsr.core.pixels import Pixels
from dreamsr.errors import ConfigError, DataError, UsageError, WeightsError
from dreamsr.measure import lpips
from dreamsr.measure.cost import measured, run_command
from dreamsr.measure.lpips import Perceptual
from dreamsr.upscaling.upscaler import Settings, Upscaler

PICTURES = Path(__file__).parents[1] / "pictures"
NEAREST = (
    "import sys; from PIL import Image; i = Image.open(sys.argv[1]); "
    "i.resize((i.width * 4, i.height * 4), Image.Resampling.NEAREST).save(sys.argv[2])"
)
PILLOW = f"{sys.executable} -c '{NEAREST}' {{input}} {{output}}"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two small photographs, one of odd size."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for name, box in (("astronaut", (60, 0, 156, 96)), ("cat", (40, 30, 141, 109))):
        Image.open(PICTURES / f"{name}.png").convert("RGB").crop(box).save(folder / f"{name}.png")
    return folder


@pytest.fixture
def request_for(data: Path, tiny_weights: Path) -> BenchRequest:
    return BenchRequest(
        data=(str(data),), weights=(f"tiny={tiny_weights}",), steps=(1, 2), device="cpu", precision="fp32"
    )


def run(request: BenchRequest, tmp_path: Path, **more: Any) -> Report:
    return bench(request, work=tmp_path / "work", **more)


def row(report: Report, method: str, steps: int | None = None, seed: int | None = None) -> dict[str, Any]:
    found = [r for r in report.data["rows"] if r["method"] == method and r["steps"] == steps]
    found = [r for r in found if seed is None or r["seed"] == seed]
    assert len(found) == 1
    return dict(found[0])


def second_opinion(truth: Pixels, result: Pixels) -> tuple[float, float]:
    """PSNR-Y and PSNR-RGB in plain numpy."""
    truth, result = (a[: truth.shape[0] // 4 * 4, : truth.shape[1] // 4 * 4][4:-4, 4:-4] for a in (truth, result))
    a, b = (16 + p.astype(float) @ np.array([65.481, 128.553, 24.966]) / 255 for p in (truth, result))
    rgb = np.mean((truth.astype(float) - result) ** 2)
    return 10 * math.log10(255**2 / np.mean((a - b) ** 2)), 10 * math.log10(255**2 / rgb)


def test_rows_hold_what_the_saved_pictures_show_and_what_upscale_makes(
    request_for: BenchRequest, tmp_path: Path, data: Path, tiny_weights: Path
) -> None:
    report = run(request_for, tmp_path, save_outputs=tmp_path / "out")
    assert [(r["method"], r["steps"]) for r in report.data["rows"]] == [
        ("bicubic", None),
        ("lanczos", None),
        ("tiny", 1),
        ("tiny", 2),
    ]
    for folder, own in (("bicubic", row(report, "bicubic")), ("tiny-steps2", row(report, "tiny", 2))):
        figures = [
            second_opinion(
                np.array(Image.open(data / name)), np.array(Image.open(tmp_path / "out/photos" / folder / name))
            )
            for name in ("astronaut.png", "cat.png")
        ]
        assert own["psnr_y"] == pytest.approx(np.mean([f[0] for f in figures]), abs=1e-6)
        assert own["psnr_rgb"] == pytest.approx(np.mean([f[1] for f in figures]), abs=1e-6)
        assert own["images"] == 2
    low = report.datasets[0].item(1).low
    upscaler = Upscaler(tiny_weights, "cpu", precision="fp32")
    direct = upscaler.enlarge(low, low.shape[0] * 4, low.shape[1] * 4, Settings(steps=2, tile_px=512))
    assert np.array_equal(np.array(Image.open(tmp_path / "out/photos/tiny-steps2/cat.png")), direct)


def test_every_row_and_report_names_its_origin(request_for: BenchRequest, tmp_path: Path, tiny_weights: Path) -> None:
    data = run(request_for, tmp_path, command_line="dreamsr bench x").data
    names = "dataset method steps seed psnr_y ssim_y psnr_rgb lpips_alex lr_psnr seconds_per_megapixel peak_memory_mb"
    assert all(set(names.split()) <= set(r) for r in data["rows"])
    assert {"protocol", "environment", "rows", "weights", "command_line"} <= set(data)
    assert {"torch", "device", "dtype", "threads", "dreamsr", "code_sha256"} <= set(data["environment"])
    assert data["weights"][0]["sha256"] == hashlib.sha256(tiny_weights.read_bytes()).hexdigest()
    assert data["command_line"] == "dreamsr bench x"
    tiny = [r for r in data["rows"] if r["method"] == "tiny"]
    assert all(r["seconds_per_megapixel"] > 0 and r["evaluations"] == r["steps"] + 1 for r in tiny)
    assert all(r["peak_memory_mb"] is None or r["peak_memory_mb"] > 10 for r in data["rows"])
    assert json.loads(to_json(data))["format"] == "dreamsr-bench-1"


def test_seeds_give_a_spread_and_steps_their_pairs(
    request_for: BenchRequest, tmp_path: Path, tiny_weights: Path
) -> None:
    twin = f"twin={tiny_weights}"
    request = replace(request_for, weights=(*request_for.weights, twin), seeds=2, stochasticity=(0.0, 1.0), steps=(2,))
    data = run(request, tmp_path).data
    assert len([r for r in data["rows"] if r["method"] == "tiny"]) == 4
    (entry,) = [e for e in data["summary"] if e["method"] == "tiny" and e["stochasticity"] == 1.0]
    luma = entry["metrics"]["psnr_y"]
    assert luma["seeds"] == 2
    assert luma["seed_std"] > 0
    assert luma["low"] <= luma["mean"] <= luma["high"]
    same = [d for d in data["differences"] if (d["a"], d["b"], d["metric"]) == ("twin", "tiny", "psnr_y")]
    assert len(same) == 2
    assert all(d["mean"] == 0 and not d["clear"] and d["better"] == 0 for d in same)
    against = [d for d in data["differences"] if (d["a"], d["b"], d["metric"]) == ("tiny", "bicubic", "psnr_y")]
    assert all(d["images"] == 2 for d in against)


def test_an_interrupted_sweep_goes_on_and_computes_nothing_twice(
    request_for: BenchRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = bench(request_for, work=tmp_path / "elsewhere").data["rows"]
    calls: list[sweep.Measurement] = []
    compute = sweep.Sweep._compute

    def counting(self: sweep.Sweep, job: sweep.Measurement, item: Any) -> Any:
        calls.append(job)
        if len(calls) == 6:
            raise KeyboardInterrupt
        return compute(self, job, item)

    monkeypatch.setattr(sweep.Sweep, "_compute", counting)
    with pytest.raises(KeyboardInterrupt):
        run(request_for, tmp_path)
    rows = run(request_for, tmp_path).data["rows"]
    assert len(calls) == 6 + 3  # of eight, five were finished before the interruption
    figures = ("psnr_y", "ssim_y", "psnr_rgb", "lr_psnr", "colour_error")
    assert [[r[f] for f in figures] for r in rows] == [[r[f] for f in figures] for r in whole]
    assert run(request_for, tmp_path).data["rows"] == rows
    assert len(calls) == 9
    run(request_for, tmp_path, fresh=True)
    assert len(calls) == 17


def test_damaged_records_are_computed_again(request_for: BenchRequest, tmp_path: Path) -> None:
    before = run(request_for, tmp_path).data["rows"]
    for number, path in enumerate(sorted((tmp_path / "work").rglob("*.json"))):
        path.write_bytes([b"", b"{}", b'{"format": "dreamsr-bench-image-1"}', path.read_bytes()[:99]][number % 4])
    after = run(request_for, tmp_path).data["rows"]
    assert [r["psnr_y"] for r in after] == [r["psnr_y"] for r in before]


def test_progress_counts_up_and_tells_the_time_left(request_for: BenchRequest, tmp_path: Path) -> None:
    heard: list[SweepProgress] = []
    run(request_for, tmp_path, on_progress=heard.append)
    assert [p.done for p in heard] == list(range(9))
    assert all(p.total == 8 for p in heard)
    assert heard[0].seconds_left is None
    assert heard[4].seconds_left is not None
    assert heard[-1].seconds_left == 0


def test_records_of_other_code_or_other_settings_are_not_taken(tmp_path: Path) -> None:
    store, record = Store(tmp_path), sweep.Record({}, 1.0, None, None, (), "", "")
    store.put({"a": 1}, record)
    assert store.get({"a": 1}) == record
    assert store.get({"a": 2}) is None
    assert Store(tmp_path, fresh=True).get({"a": 1}) is None


# --- other tools ------------------------------------------------------------------------------------------------------


def test_folders_of_other_tools_are_scored_like_our_own(request_for: BenchRequest, tmp_path: Path) -> None:
    run(request_for, tmp_path, save_outputs=tmp_path / "out")
    others = replace(
        request_for,
        weights=(),
        outputs=(("copy", str(tmp_path / "out/photos/bicubic")), ("truth", str(tmp_path / "photos"))),
    )
    for path in (tmp_path / "photos").iterdir():  # a truth of odd size is no result of x4
        image = Image.open(path)
        image.crop((0, 0, image.width // 4 * 4, image.height // 4 * 4)).save(path)
    report = run(others, tmp_path)
    assert row(report, "copy")["ssim_y"] == row(report, "bicubic")["ssim_y"]
    assert row(report, "copy")["seconds_per_megapixel"] is None
    assert row(report, "truth")["psnr_y"] == math.inf
    assert json.loads(to_json(report.data))["rows"][3]["psnr_y"] == "inf"


def test_commands_are_run_timed_and_scored(request_for: BenchRequest, tmp_path: Path) -> None:
    report = run(replace(request_for, weights=(), commands=(("nearest", PILLOW),)), tmp_path)
    own = row(report, "nearest")
    assert own["psnr_y"] < row(report, "bicubic")["psnr_y"]
    assert own["seconds_per_megapixel"] > 1
    assert own["peak_memory_mb"] is None or 5 < own["peak_memory_mb"] < 400
    assert not report.failed


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ('import sys; print("no luck"); sys.exit(3)', "exit code 3: no luck"),
        ("pass", "wrote no {output}"),
        (NEAREST.replace("* 4", "* 2"), "looks like x2"),
        ("import time; time.sleep(60)", "longer than 2 s"),
    ],
)
def test_a_command_that_fails_is_listed_and_the_rest_goes_on(
    request_for: BenchRequest, tmp_path: Path, script: str, message: str
) -> None:
    command = f"{sys.executable} -c '{script}' {{input}} {{output}}"
    request = replace(request_for, weights=(), commands=(("broken", command),), command_timeout_s=2)
    report = run(request, tmp_path)
    (failure,) = report.data["failures"]
    assert message in failure["message"]
    assert report.failed
    assert [r["method"] for r in report.data["rows"]] == ["bicubic", "lanczos"]


@pytest.mark.parametrize(
    "template", ["tool {input}", "no-such-program-here {input} {output}", "tool '{input} {output}"]
)
def test_impossible_commands_are_refused_at_once(request_for: BenchRequest, tmp_path: Path, template: str) -> None:
    with pytest.raises(UsageError, match="`command` x="):
        run(replace(request_for, commands=(("x", template),)), tmp_path)


def test_a_command_is_measured_without_the_memory_of_its_parent() -> None:
    ballast = torch.ones(80_000_000)
    small = run_command([sys.executable, "-S", "-c", "pass"], timeout_s=60)
    assert small.seconds > 0
    assert small.peak_memory_mb is None or small.peak_memory_mb < 100
    assert len(ballast) == 80_000_000


@pytest.mark.skipif(not hasattr(os, "killpg"), reason="needs POSIX process groups")
def test_a_killed_benchmark_leaves_no_command_running(tmp_path: Path) -> None:
    sign = tmp_path / "beats"
    tool = f"import time\nwhile True:\n open({str(sign)!r}, 'w').write(str(time.time()))\n time.sleep(0.1)"
    words = [sys.executable, "-c", tool]
    code = f"from dreamsr.measure.cost import run_command; run_command({words!r}, timeout_s=99)"
    root = str(Path(__file__).parents[2])
    process = subprocess.Popen([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": root})
    started = time.monotonic()
    while not sign.exists() and time.monotonic() - started < 90:
        time.sleep(0.1)
    process.kill()
    process.wait()
    time.sleep(2)
    last = sign.stat().st_mtime_ns
    time.sleep(1)
    assert sign.stat().st_mtime_ns == last


def test_peak_memory_of_a_block_holds_what_it_allocates() -> None:
    with measured(torch.device("cpu")) as first:
        pass
    with measured(torch.device("cpu")) as second:
        torch.ones(50_000_000)
    if first.peak_memory_mb is None or second.peak_memory_mb is None:
        pytest.skip("this system does not tell")
    assert second.peak_memory_mb > first.peak_memory_mb + 150 or not Path("/proc/self/clear_refs").exists()


# --- sabotage ---------------------------------------------------------------------------------------------------------


def sabotaged(tmp_path: Path, name: str, change: Any) -> str:
    """The bicubic results of an earlier run, each changed."""
    folder = tmp_path / name
    folder.mkdir()
    for path in (tmp_path / "out/photos/bicubic").iterdir():
        Image.fromarray(np.ascontiguousarray(change(np.array(Image.open(path))))).save(folder / path.name)
    return str(folder)


def test_swapped_channels_and_shifts_are_noticed_and_lower_the_figures(
    request_for: BenchRequest, tmp_path: Path
) -> None:
    base = replace(request_for, weights=(), outputs=(("none", str(tmp_path)),))
    run(replace(base, outputs=(), weights=request_for.weights, steps=(1,)), tmp_path, save_outputs=tmp_path / "out")
    outputs = (
        ("good", sabotaged(tmp_path, "good", lambda p: p)),
        ("bgr", sabotaged(tmp_path, "bgr", lambda p: p[..., ::-1])),
        ("shifted", sabotaged(tmp_path, "shifted", lambda p: np.roll(p, (1, 1), axis=(0, 1)))),
    )
    heard: list[str] = []
    report = run(replace(base, outputs=outputs), tmp_path, on_notice=heard.append)
    for name in ("bgr", "shifted"):
        assert row(report, name)["psnr_rgb"] < row(report, "good")["psnr_rgb"] - 0.5
        assert row(report, name)["psnr_y"] < row(report, "good")["psnr_y"]
    told = {(h["method"], h["text"]) for h in report.data["hints"]}
    assert ("bgr", "red and blue look swapped (RGB or BGR)") in told
    assert any(method == "shifted" and "1 px to the right and 1 px down" in text for method, text in told)
    assert not any(method == "good" for method, _ in told)
    assert any("bgr on photos" in line for line in heard)


def test_a_missing_result_stops_the_run_before_anything_is_computed(request_for: BenchRequest, tmp_path: Path) -> None:
    (tmp_path / "results").mkdir()
    Image.new("RGB", (96, 96)).save(tmp_path / "results/astronaut.png")
    with pytest.raises(DataError, match=r"no file for cat\.png"):
        run(replace(request_for, outputs=(("x", str(tmp_path / "results")),)), tmp_path)
    assert not (tmp_path / "work").exists()


def test_a_result_at_the_wrong_scale_stops_the_run(request_for: BenchRequest, tmp_path: Path) -> None:
    (tmp_path / "results").mkdir()
    for name in ("astronaut", "cat"):
        Image.new("RGB", (72, 72)).save(tmp_path / f"results/{name}.png")
    with pytest.raises(DataError, match=r"is 72x72, but x4 .* is 96x96 \(this looks like x3\)"):
        run(replace(request_for, outputs=(("x", str(tmp_path / "results")),)), tmp_path)


def test_hints_are_silent_for_noise_blur_and_flat_pictures() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    flat = np.full((64, 64, 3), 90, np.uint8)
    assert hints(noise, flat) == []
    assert hints(flat, flat) == []
    assert hints(flat, noise) == []


# --- requests ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": ()}, "DATA"),
        ({"scale": 1}, "`scale`"),
        ({"seeds": 0}, "`seeds`"),
        ({"steps": (0,)}, "`steps`"),
        ({"steps": (2, 2)}, "`steps`"),
        ({"stochasticity": (2.0,)}, "`stochasticity`"),
        ({"stochasticity": ()}, "`stochasticity`"),
        ({"limit": 0}, "`limit`"),
        ({"threads": 0}, "`threads`"),
        ({"first_seed": -1}, "`first_seed`"),
        ({"command_timeout_s": 0.0}, "`command_timeout_s`"),
        ({"protocol": "y-channel", "degradation": "noise-5"}, "y-channel"),
    ],
)
def test_impossible_requests_are_refused(request_for: BenchRequest, change: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        replace(request_for, **change)


def test_names_and_steps_are_checked_before_the_run(request_for: BenchRequest, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="two methods are called 'tiny'"):
        run(replace(request_for, weights=request_for.weights * 2), tmp_path)
    with pytest.raises(UsageError, match=r"`steps` is 1001, but tiny can take 1\.\.1000"):
        run(replace(request_for, steps=(1001,)), tmp_path)
    with pytest.raises(WeightsError):
        run(replace(request_for, weights=("no-such-weights",)), tmp_path)
    assert weights_name("a=b/model.safetensors") == ("a", "b/model.safetensors")
    assert weights_name("runs/dream/model.safetensors")[0] == "dream"
    assert weights_name("clean-x4") == ("clean-x4", "clean-x4")
    assert weights_name("dir/some.safetensors")[0] == "some"


def test_an_ablation_names_the_settings_in_which_two_runs_differ(tmp_path: Path) -> None:
    for name, power in (("plain", "inf"), ("dream", 1.0)):
        (tmp_path / name).mkdir()
        config = {"train": {"seed": 1, "dream": {"power": power}}}
        (tmp_path / name / "config.json").write_text(json.dumps(config))
    runs = (str(tmp_path / "dream"), str(tmp_path / "plain"))
    found = ablation(runs)
    assert found == {"runs": list(runs), "differences": {"dream.power": [1.0, "inf"]}}
    assert ablation(()) is None
    (tmp_path / "plain/config.json").write_text("[]")
    with pytest.raises(ConfigError, match="not a training run's configuration"):
        ablation(runs)


# --- LPIPS ------------------------------------------------------------------------------------------------------------


def test_without_torchvision_lpips_is_null_and_told_in_one_line(
    request_for: BenchRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(_: str) -> Any:
        raise ModuleNotFoundError("torchvision")

    monkeypatch.setattr(lpips, "_load", missing)
    heard: list[str] = []
    report = run(replace(request_for, lpips=("alex", "vgg")), tmp_path, on_notice=heard.append)
    assert heard == ['no lpips_alex and lpips_vgg (install it: pip install "dreamsr[lpips]")']
    assert all(r["lpips_alex"] is None and r["lpips_vgg"] is None for r in report.data["rows"])
    assert report.data["environment"]["lpips"] == heard[0]


def test_lpips_sees_images_in_minus_one_to_one_and_fills_earlier_records(
    request_for: BenchRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(replace(request_for, lpips=()), tmp_path)

    def judge(image: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
        assert image.shape == truth.shape
        assert image.shape[:2] == (1, 3)
        assert -1 <= float(truth.min()) < -0.5 < 0.5 < float(truth.max()) <= 1
        return (image - truth).abs().mean()

    monkeypatch.setattr(lpips, "_load", lambda _: judge)
    report = run(request_for, tmp_path)
    assert all(r["lpips_alex"] > 0 for r in report.data["rows"])
    with pytest.raises(UsageError, match="`lpips` is 'squeeze'"):
        Perceptual(("squeeze",))


def test_lpips_of_torchmetrics_where_it_works() -> None:
    perceptual = Perceptual(("alex",))
    if perceptual.missing:
        pytest.skip(perceptual.missing)
    truth = np.array(Image.open(PICTURES / "astronaut.png").convert("RGB"))[:128, :128]
    assert perceptual(truth, truth)["lpips_alex"] == pytest.approx(0, abs=1e-6)
    noisy = np.clip(truth + np.random.default_rng(0).normal(0, 30, truth.shape), 0, 255).astype(np.uint8)
    assert perceptual(noisy, truth)["lpips_alex"] > 0.1


# --- reports ----------------------------------------------------------------------------------------------------------


def test_csv_has_a_line_per_image_with_its_origin(request_for: BenchRequest, tmp_path: Path) -> None:
    report = run(request_for, tmp_path)
    lines = list(csv.DictReader(io.StringIO(to_csv(report.data).decode())))
    assert len(lines) == 8
    assert {line["protocol"] for line in lines} == {"standard"}
    tiny = [line for line in lines if line["method"] == "tiny"]
    assert {line["weights_sha256"] for line in tiny} == {report.data["weights"][0]["sha256"]}
    mean = np.mean([float(line["psnr_y"]) for line in tiny if line["steps"] == "1"])
    assert mean == pytest.approx(row(report, "tiny", 1)["psnr_y"])


def test_check_holds_for_an_honest_report_and_finds_a_changed_figure(request_for: BenchRequest, tmp_path: Path) -> None:
    report = run(request_for, tmp_path)
    path = tmp_path / "report.json"
    path.write_bytes(to_json(report.data))
    found = check(path, work=tmp_path / "work")
    assert found.holds
    assert found.compared == 4 * 5
    forged = json.loads(path.read_text())
    forged["rows"][2]["psnr_y"] += 0.01
    forged["weights"][0]["sha256"] = "0" * 64
    path.write_text(json.dumps(forged))
    found = check(path, work=tmp_path / "work")
    assert not found.holds
    assert [(d.where, d.figure) for d in found.deviations] == [
        ("tiny", "weights sha256"),
        ("photos tiny steps 1 seed 0", "psnr_y"),
    ]


@pytest.mark.parametrize("text", ["", "[]", '{"format": "other"}', '{"format": "dreamsr-bench-1", "request": {}}'])
def test_what_is_no_report_cannot_be_checked(tmp_path: Path, text: str) -> None:
    (tmp_path / "r.json").write_text(text)
    with pytest.raises(DataError, match=r"r\.json"):
        check(tmp_path / "r.json")
