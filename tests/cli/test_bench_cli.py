"""`dreamsr bench` as people use it."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import subprocess
import sys
from base64 import b64decode
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dreamsr import cli, processes
from dreamsr.bench import plots
from dreamsr.bench.methods import Variant, filled
from dreamsr.bench.timing import race
from dreamsr.bench.weights import WeightsMethod
from dreamsr.pictures.read import read_picture

PICTURES = Path(__file__).parents[1] / "pictures"
ENLARGE = (
    "import sys; from PIL import Image; i = Image.open(sys.argv[1]); "
    "i.resize((i.width * 4, i.height * 4)).save(sys.argv[2])"
)
Bench = Callable[..., int]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "set").mkdir()
    Image.open(PICTURES / "astronaut.png").convert("RGB").crop((60, 0, 124, 64)).save(tmp_path / "set/astro.png")
    return tmp_path


@pytest.fixture
def bench(tiny_weights: Path) -> Bench:
    def run(*arguments: str) -> int:
        return cli.main(["bench", "set", "--weights", f"tiny={tiny_weights}", "--device", "cpu", *arguments])

    return run


def test_the_table_names_the_protocol_and_all_methods(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench("--steps", "1,2", "--seeds", "2", "--lpips", "none") == 0
    out, err = capsys.readouterr()
    assert "protocol standard: x4" in out
    assert "4 px border shaved" in out
    for method in ("bicubic", "lanczos", "tiny"):
        assert method in out
    assert "done" in err


def test_all_reports_are_written(bench: Bench, folder: Path) -> None:
    pytest.importorskip("matplotlib", reason="charts need matplotlib, the extra dreamsr[bench]")
    files = ("--json", "r.json", "--csv", "r.csv", "--html", "r.html", "--plots", "plots", "--save-outputs", "out")
    assert bench("--steps", "1", *files, "-q") == 0
    report = json.loads((folder / "r.json").read_text())
    assert report["command_line"].startswith("dreamsr bench set --weights tiny=")
    assert [r["method"] for r in report["rows"]] == ["bicubic", "lanczos", "tiny"]
    assert (folder / "r.csv").read_text().count("\n") == 1 + 3
    assert (folder / "r.html").read_text().startswith("<!doctype html>")
    assert len(list((folder / "plots").glob("*.svg"))) == len(list((folder / "plots").glob("*.png"))) == 4
    assert read_picture(folder / "out/set/tiny-steps1/astro.png").width == 64


def test_json_on_stdout_is_the_only_thing_there(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench("--json", "-", "-q", "--lpips", "none") == 0
    report = json.loads(capsys.readouterr().out)
    assert report["rows"][-1]["steps"] == 2  # what the weights recommend


def test_check_says_whether_the_figures_hold(
    bench: Bench, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert bench("--json", "r.json", "-q") == 0
    monkeypatch.chdir("/")  # paths in a report do not depend on where one stands
    assert cli.main(["bench", "--check", str(folder / "r.json"), "-q"]) == 0
    monkeypatch.chdir(folder)
    assert "the report holds" in capsys.readouterr().out
    report = json.loads((folder / "r.json").read_text())
    report["rows"][0]["ssim_y"] -= 0.01
    (folder / "r.json").write_text(json.dumps(report))
    assert cli.main(["bench", "--check", "r.json", "-q"]) == 1
    out = capsys.readouterr().out
    assert "does not hold" in out
    assert "set bicubic" in out


def test_a_failed_command_is_told_and_exits_with_1(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    command = f"no-luck={sys.executable} -c 'raise SystemExit(5)' {{input}} {{output}}"
    assert bench("--steps", "1", "--command", command, "-q") == 1
    out, err = capsys.readouterr()
    assert "no-luck on set" in err
    assert "exit code 5" in err
    assert "tiny" in out


def test_other_tools_get_the_environment_as_the_user_had_it(
    bench: Bench, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "_replaced", {})
    for name in processes.PASSIVE:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("KMP_BLOCKTIME", "")
    (folder / "tool.py").write_text(f"import os, json; json.dump(dict(os.environ), open('env.json', 'w')); {ENLARGE}")
    command = f"tool={sys.executable} tool.py {{input}} {{output}}"
    assert bench("--steps", "1", "--lpips", "none", "--command", command, "-q") == 0
    assert os.environ["OMP_WAIT_POLICY"] == "PASSIVE"
    seen = json.loads((folder / "env.json").read_text())
    assert {name: seen.get(name) for name in processes.PASSIVE} == {
        "OMP_WAIT_POLICY": None,
        "GOMP_SPINCOUNT": None,
        "KMP_BLOCKTIME": "",
    }
    assert seen["PATH"] == os.environ["PATH"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--steps", "one"), "--steps is 'one'"),
        (("--steps", "1.5"), "whole numbers"),
        (("--stochasticity", "x"), "--stochasticity is 'x'"),
        (("--outputs", "folder"), "--outputs NAME=DIR"),
        (("--command", "tool {input} {output}"), "put a name and = in front"),
        (("--precision", "fp8"), "--precision is 'fp8'"),
        (("--protocol", "mine"), "--protocol is 'mine'"),
        (("--lpips", "squeeze"), "--lpips is 'squeeze'"),
        (("--scale", "0"), "--scale is 0"),
    ],
)
def test_impossible_requests_exit_with_2(
    bench: Bench, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], message: str
) -> None:
    assert bench(*arguments) == 2
    assert message in capsys.readouterr().err


def test_missing_data_and_unwritable_reports_are_found_at_once(
    bench: Bench, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cli.main(["bench"]) == 2
    assert cli.main(["bench", "nowhere", "--outputs", "x=set"]) == 1
    assert "nowhere: no such folder" in capsys.readouterr().err
    assert bench("--json", "no/such/r.json") == 1
    assert "there is no folder" in capsys.readouterr().err
    assert not (folder / "cache").exists()
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert bench("--html", "r.html") == 2
    assert plots.INSTALL in capsys.readouterr().err


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> str:
    """Two rounds, and weights whose command is another tool that takes no time; its command line."""
    words = f"{sys.executable} -c '{ENLARGE}' {{input}} {{output}}"
    monkeypatch.setattr(race, "ROUNDS", 2)
    monkeypatch.setattr(WeightsMethod, "command", lambda *_: words)
    return words


def test_speed_reports_commands_and_warm_pictures_over_sizes(
    bench: Bench, folder: Path, capsys: pytest.CaptureFixture[str], quick: str
) -> None:
    more = ("--steps", "1", "--speed-px", "32,16", "--json", "r.json", "--lpips", "none")
    assert bench("--speed", "--command", f"pillow={quick}", *more) == 0
    report = json.loads((folder / "r.json").read_text())
    measured = {(entry["method"], entry["low_px"]): entry for entry in report["speed"]}
    assert set(measured) == {(m, n) for m in ("bicubic", "lanczos", "pillow", "tiny") for n in (16, 32)}
    assert len(report["rows"]) == 4  # figures are there as ever
    tiny = measured["tiny", 16]
    assert (tiny["dataset"], tiny["image"]) == ("set", "astro")
    assert tiny["cold_seconds_per_megapixel"] == pytest.approx(tiny["cold_seconds"] / (16 * 16 / 1e6))
    assert tiny["warm_seconds_lowest"] <= tiny["warm_seconds"] <= tiny["warm_seconds_highest"]
    assert tiny["cold_ratio"] == tiny["warm_ratio"] == 1
    assert tiny["convolution_share"] > 0
    assert (tiny["evaluations"], tiny["device"]) == (2, "cpu")
    pillow = measured["pillow", 32]
    assert pillow["cold_seconds"] > 0
    assert pillow["cold_ratio_lowest"] <= pillow["cold_ratio"] <= pillow["cold_ratio_highest"]
    assert pillow["warm_seconds"] is pillow["convolution_share"] is None
    assert measured["bicubic", 32]["warm_ratio"] < 1
    assert "speed" in capsys.readouterr().out


def test_speed_alone_needs_no_pictures_and_gives_every_report(
    folder: Path, tiny_weights: Path, quick: str, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib", reason="charts need matplotlib, the extra dreamsr[bench]")
    no_luck = f"no-luck={sys.executable} -c 'raise SystemExit(5)' {{input}} {{output}}"
    files = ("--json", "r.json", "--csv", "r.csv", "--html", "r.html", "--speed-px", "16", "--device", "cpu")
    weights = ("--weights", f"tiny={tiny_weights}", "--command", f"pillow={quick}", "--command", no_luck)
    assert cli.main(["bench", "--speed", *weights, *files, "-q"]) == 1
    assert "no-luck on 16 px" in capsys.readouterr().err
    entries = json.loads((folder / "r.json").read_text())["speed"]
    assert [entry["method"] for entry in entries] == ["tiny", "pillow", "no-luck", "bicubic", "lanczos"]
    assert "exit code 5" in entries[2]["failure"]
    lines = list(csv.DictReader((folder / "r.csv").read_text().splitlines()))
    assert [line["method"] for line in lines] == [entry["method"] for entry in entries]
    assert float(lines[0]["warm_seconds"]) == entries[0]["warm_seconds"]
    assert lines[0]["weights_sha256"]
    page = (folder / "r.html").read_text()
    assert "<h2>Speed</h2>" in page
    assert "<h2>Charts</h2>" not in page
    assert cli.main(["bench", "--speed", *weights[:4], *files, "-q"]) == 0  # over reports of its own kind
    assert cli.main(["bench", "--check", "r.json"]) == 1
    assert "timings alone" in capsys.readouterr().err


@pytest.mark.slow
def test_the_command_of_weights_enlarges_as_they_do_here(tiny_weights: Path, folder: Path) -> None:
    method = WeightsMethod(
        "tiny", str(tiny_weights), steps=(2,), stochasticity=(0.0,), seeds=(0,), device="cpu", precision="fp32",
        tile_px=96, fidelity=0.5, match=False,
    )  # fmt: skip
    command = method.command(2, 4, 1)
    source, result = folder / "set/astro.png", folder / "large.png"
    subprocess.run(filled(command, {"{input}": str(source), "{output}": str(result)}), check=True, timeout=200)
    here = method.enlarged(np.array(Image.open(source)), 4, Variant(2, 0.0, 0)).pixels
    assert np.array_equal(np.array(Image.open(result)), here)


def test_pictures_without_truth_become_a_contact_sheet(
    bench: Bench, folder: Path, capsys: pytest.CaptureFixture[str], quick: str
) -> None:
    photo = Image.open(PICTURES / "astronaut.png").convert("RGB").resize((200, 200))
    photo.save(folder / "set/photo.png")
    (folder / "theirs").mkdir()
    for path in (folder / "set").iterdir():
        small = Image.open(path)
        small.resize((small.width * 4, small.height * 4), Image.Resampling.NEAREST).save(folder / "theirs" / path.name)
    tools = ("--command", f"pillow={quick}", "--outputs", "theirs=theirs")
    assert bench("--no-truth", "--steps", "1,2", *tools, "--html", "sheet.html") == 0
    page = (folder / "sheet.html").read_text()
    shown = re.findall(r'base64,([^"]+)"><figcaption>(.*?)</figcaption>', page)
    methods = ["small picture", "bicubic", "lanczos", "theirs", "pillow", "tiny steps1", "tiny steps2"]
    assert [caption for _, caption in shown] == methods * 2
    crops = [np.array(Image.open(io.BytesIO(b64decode(data)))) for data, _ in shown]
    assert [crop.shape for crop in crops] == [(256, 256, 3)] * 7 + [(320, 320, 3)] * 7
    assert np.array_equal(crops[7], crops[7 + methods.index("theirs")])  # the same place, whole picture or part
    assert np.abs(crops[8].astype(int) - crops[9]).mean() < 5
    assert "Charts" not in page
    assert bench("--no-truth", "--html", "sheet.html", "--json", "r.json") == 2
    assert bench("--no-truth") == 2
    assert "give --html for it" in capsys.readouterr().err


def test_a_tool_that_fails_leaves_its_crop_out_and_is_told(
    bench: Bench, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = f"no-luck={sys.executable} -c 'raise SystemExit(5)' {{input}} {{output}}"
    assert bench("--no-truth", "--steps", "1", "--command", command, "--html", "sheet.html", "-q") == 1
    assert "no-luck did not finish astro.png" in capsys.readouterr().err
    page = (folder / "sheet.html").read_text()
    assert "no-luck did not finish astro.png" in page
    assert "<figcaption>tiny steps1</figcaption>" in page


def snapshot(folder: Path) -> dict[str, bytes]:
    """Every file outside the cache, with its bytes."""
    files = (path for path in folder.rglob("*") if path.is_file() and "cache" not in path.parts)
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--json set/astro.png", "must end in .json"),
        ("--csv set/astro.png", "must end in .csv"),
        ("--html set/astro.png", "must end in .html or .htm"),
        ("--json truth.json", "--json truth.json is an input"),
        ("--json low.json --low low", "--json low.json is an input"),
        ("--json run/config.json --dream-ablation a=run b=run", "--json run/config.json is an input"),
        ("--json model.json --dream-ablation a=run b=run", "--json model.json is an input"),
        ("--json notes.json", "--json notes.json exists and is no earlier one of its kind"),
        ("--json picture.json", "is no earlier one of its kind (a PNG picture)"),
        ("--csv table.csv", "--csv table.csv exists and is no earlier one of its kind"),
        ("--html page.html", "--html page.html exists and is no earlier one of its kind (a web page)"),
        ("--json set", "must end in .json"),
        ("--plots set", "--plots set is a folder that is read, too"),
        ("--plots figures", "figures/per-image.png exists and is no earlier one of its kind (a PNG picture)"),
        ("--plots notes.json", "its folder cannot be made below the file"),
        ("--save-outputs set", "--save-outputs set is a folder that is read, too"),
        ("--save-outputs results --outputs x=results", "--save-outputs results is a folder that is read, too"),
        ("--save-outputs saved --outputs x=saved/set/bicubic", "saved/set/bicubic/astro.png is an input"),
        ("--work notes.json", "--work notes.json cannot be written: its folder cannot be made below the file"),
        ("--save-outputs link", "--save-outputs link is a folder that is read, too"),
    ],
)
def test_no_result_replaces_what_is_read_or_another_file(
    bench: Bench, folder: Path, capsys: pytest.CaptureFixture[str], tiny_weights: Path, arguments: str, message: str
) -> None:
    pytest.importorskip("matplotlib", reason="charts need matplotlib, the extra dreamsr[bench]")
    for name in ("low", "run", "figures", "results", "saved/set/bicubic"):
        (folder / name).mkdir(parents=True)
    picture = Image.open("set/astro.png")
    for name in ("picture.png", "figures/per-image.png", "results/astro.png", "saved/set/bicubic/astro.png"):
        picture.save(name)
    (folder / "picture.png").rename("picture.json")
    picture.resize((16, 16)).save("low/astro.png")
    (folder / "run/model.safetensors").write_bytes(tiny_weights.read_bytes())
    (folder / "run/config.json").write_text('{"train": {}}')
    (folder / "notes.json").write_text('{"mine": true}')
    (folder / "table.csv").write_text("my,table\n")
    (folder / "page.html").write_text("<!doctype html><title>mine</title>")
    for link, target in (("truth.json", "set/astro.png"), ("low.json", "low/astro.png"), ("link", "set")):
        (folder / link).symlink_to(target)
    (folder / "model.json").symlink_to("run/model.safetensors")
    before = snapshot(folder)
    words = arguments.split()
    assert bench("-q", "--lpips", "none", *words) == 1
    assert message in capsys.readouterr().err
    assert snapshot(folder) == before
    assert not (folder / "cache").exists()


def test_a_report_replaces_an_earlier_one_of_its_kind(bench: Bench, folder: Path) -> None:
    pytest.importorskip("matplotlib", reason="charts need matplotlib, the extra dreamsr[bench]")
    files = ("--json", "r.json", "--csv", "r.csv", "--html", "r.html", "--plots", "plots", "--save-outputs", "out")
    for name in ("r.json", "r.csv"):
        (folder / name).touch()  # an empty file holds nothing to lose
    assert bench("--steps", "1", "--lpips", "none", *files, "-q") == 0
    first = (folder / "r.json").read_bytes()
    assert bench("--steps", "2", "--lpips", "none", *files, "-q") == 0
    assert (folder / "r.json").read_bytes() != first


def test_check_keeps_the_report_it_checks(bench: Bench, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench("--json", "r.json", "-q", "--lpips", "none") == 0
    before = (folder / "r.json").read_bytes()
    assert cli.main(["bench", "--check", "r.json", "--json", "r.json", "-q"]) == 1
    assert "--json r.json is an input" in capsys.readouterr().err
    assert (folder / "r.json").read_bytes() == before
    assert cli.main(["bench", "--check", "r.json", "--json", "new.json", "--csv", "new.csv", "-q"]) == 0
    assert json.loads((folder / "new.json").read_text())["rows"]
    assert (folder / "new.csv").read_text().count("\n") == 1 + 3


def test_saved_pictures_stay_below_their_folder(bench: Bench, folder: Path, tiny_weights: Path) -> None:
    (folder / "other").mkdir()
    (folder / "set").rename(folder / "other/set")
    (folder / "set").mkdir()
    Image.open("other/set/astro.png").save("set/astro.png")
    before = set(snapshot(folder))
    more = ("--weights", f"../../up={tiny_weights}", "--steps", "1", "--lpips", "none", "-q")
    assert bench("other/set", "--save-outputs", "out", *more) == 0
    new = set(snapshot(folder)) - before
    assert len(new) == 2 * 4
    assert all(name.startswith("out/") for name in new)


def test_a_degradation_of_training_is_measured_and_checked_from_anywhere(
    bench: Bench, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "mine.toml").write_text("noise = [20.0, 25.0]\nnoise_probability = 1.0\n")
    for name, asked in (("clean", "bicubic"), ("everyday", "everyday"), ("mine", "mine.toml")):
        assert bench("--degradation", asked, "--json", f"{name}.json", "--steps", "1", "--lpips", "none", "-q") == 0
    reports = {name: json.loads((folder / f"{name}.json").read_text()) for name in ("clean", "everyday", "mine")}
    assert reports["mine"]["rows"][0]["psnr_y"] < reports["clean"]["rows"][0]["psnr_y"] - 1
    assert "noise=[20.0, 25.0]" in reports["mine"]["protocol"]["small_image"]
    assert len({report["datasets"][0]["sha256"] for report in reports.values()}) == 3
    monkeypatch.chdir("/")
    assert cli.main(["bench", "--check", str(folder / "mine.json"), "-q"]) == 0
    (folder / "mine.toml").write_text("noise = [2.0, 2.0]\n")
    assert cli.main(["bench", "--check", str(folder / "mine.json"), "-q"]) == 1
    assert "pictures sha256" in capsys.readouterr().out
