"""Plans: every output named, and nothing of the user's in danger, before any work begins."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from dreamsr.errors import OutputError, UsageError
from dreamsr.upscaling.plan import UpscalePlan, UpscaleRequest, plan
from dreamsr.upscaling.sizes import Size


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def draw(*names: str, size: tuple[int, int] = (8, 6)) -> None:
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size, "red").save(name)


def make(*inputs: str, size: Size | None = None, **more: Any) -> UpscalePlan:
    return plan(UpscaleRequest(inputs, size or Size(scale=4), **more))


def outputs(*inputs: str, **more: Any) -> list[str]:
    planned = make(*inputs, **more)
    assert planned.problems == []
    return [str(job.target) for job in planned.jobs]


# --- names ------------------------------------------------------------------------------------------------------------


def test_results_go_beside_the_input_in_its_own_format() -> None:
    draw("in/a.jpeg", "b.PNG")
    assert outputs("in/a.jpeg", "b.PNG") == ["in/a_x4.jpeg", "b_x4.PNG"]


def test_names_tell_the_scale_or_the_size() -> None:
    draw("a.png")
    assert outputs("a.png", size=Size(scale=2.5)) == ["a_x2.5.png"]
    assert outputs("a.png", size=Size(max_side=100)) == ["a_100x75.png"]


def test_a_file_named_after_another_format_gets_its_true_ending() -> None:
    draw("a.png")
    Path("a.png").rename("a.jpg")
    assert outputs("a.jpg") == ["a_x4.png"]


@pytest.mark.parametrize("spelling", ["jpg", "JPEG", ".jpeg"])
def test_the_format_can_be_chosen(spelling: str) -> None:
    draw("a.png")
    assert outputs("a.png", format=spelling) == ["a_x4.jpg"]
    assert make("a.png", format=spelling).jobs[0].format == "JPEG"


def test_one_file_may_be_named() -> None:
    draw("a.png")
    planned = make("a.png", output="b.webp")
    assert (planned.jobs[0].target, planned.jobs[0].format) == (Path("b.webp"), "WEBP")


def test_folders_keep_the_tree() -> None:
    draw("in/a.png", "in/deep/er/b.png")
    assert outputs("in", output="out", recursive=True) == ["out/a_x4.png", "out/deep/er/b_x4.png"]
    assert outputs("in/", output="o/u/t/") == ["o/u/t/a_x4.png"]


def test_templates_are_filled() -> None:
    draw("in/deep/a.png")
    template = "{tree}/{stem}-{width}x{height}@{scale}.{ext}"
    assert outputs("in", output=template, recursive=True, size=Size(scale=3)) == ["deep/a-24x18@3.png"]
    assert outputs("in/deep/a.png", output="{folder}/big.webp") == ["in/deep/big.webp"]


@pytest.mark.parametrize("template", ["{name}.png", "{stem", "stem}", "{stem!r}.png", "{stem:>9}.png", "{0}", "{}"])
def test_odd_templates_are_refused(template: str) -> None:
    draw("a.png")
    with pytest.raises(UsageError, match="a template knows"):
        make("a.png", output=template)


@pytest.mark.parametrize("output", ["x.png", "{folder}/x.png", "-"])
def test_one_name_for_several_results_is_refused(output: str) -> None:
    draw("a.png", "b.png")
    with pytest.raises(UsageError, match="`output`"):
        make("a.png", "b.png", output=output)


def test_an_unknown_ending_is_an_error_of_that_file() -> None:
    draw("a.png")
    assert "no format" in make("a.png", output="a.xyz").problems[0].reason


# --- collisions -------------------------------------------------------------------------------------------------------


def test_same_stem_in_two_formats_is_told_apart() -> None:
    draw("a.jpg", "a.png", "b.jpg")
    expected = ["out/a_jpg_x4.webp", "out/a_png_x4.webp", "out/b_x4.webp"]
    assert outputs(".", output="out", format="webp") == expected


def test_same_name_in_two_folders_is_told_apart() -> None:
    draw("p/a.png", "q/a.png")
    assert outputs("p/a.png", "q/a.png", output="out") == ["out/p_a_png_x4.png", "out/q_a_png_x4.png"]


def test_what_still_collides_is_numbered_always_the_same_way() -> None:
    draw("1/p/a.png", "2/p/a.png", "3/p/A.png")
    names = outputs("1/p/a.png", "2/p/a.png", "3/p/A.png", output="out")
    assert names == ["out/p_a_png_x4.png", "out/p_a_png_x4_2.png", "out/p_A_png_x4_3.png"]
    draw(*names)
    assert outputs("1/p/a.png", "2/p/a.png", "3/p/A.png", output="out", if_exists="skip") == names


# --- what exists ------------------------------------------------------------------------------------------------------


def test_existing_results_stop_everything_unless_told_otherwise() -> None:
    draw("a.png", "b.png", "out/a_x4.png", "out/b_x4.png")
    with pytest.raises(OutputError, match=r"a_x4\.png \(and 1 more\) exists already; choose `if_exists`"):
        make("a.png", "b.png", output="out")
    assert outputs("a.png", output="out", if_exists="skip") == ["out/a_x4.png"]
    assert outputs("a.png", output="out", if_exists="overwrite") == ["out/a_x4.png"]
    assert outputs("a.png", output="out", if_exists="rename") == ["out/a_x4_2.png"]


def test_renaming_avoids_other_results_too() -> None:
    draw("a.png", "a_x4_2.png", "a_x4.png")
    assert outputs("a.png", if_exists="rename") == ["a_x4_3.png"]


@pytest.mark.parametrize("policy", ["skip", "overwrite"])
def test_an_input_is_never_an_output(folder: Path, policy: str) -> None:
    draw("a.png")
    with pytest.raises(OutputError, match="is an input"):
        make("a.png", output="a.png", if_exists=policy)
    os.link("a.png", "hard.png")
    (folder / "soft.png").symlink_to("a.png")
    for same in ("hard.png", "soft.png", "./a.png", str(folder / "a.png")):
        with pytest.raises(OutputError, match="is an input"):
            make("a.png", output=same, if_exists=policy)


def test_letter_case_does_not_hide_an_input() -> None:
    draw("a.png")
    with pytest.raises(OutputError, match="is an input"):
        make("a.png", output="A.PNG", if_exists="overwrite")


def test_an_input_named_as_output_is_resolved_by_renaming() -> None:
    draw("a.png")
    assert outputs("a.png", output="a.png", if_exists="rename") == ["a_2.png"]


@pytest.mark.parametrize("policy", ["skip", "overwrite"])
def test_a_folder_run_twice_does_not_enlarge_its_own_results(policy: str) -> None:
    draw("a.png", "b.jpg")
    first = outputs(".")
    draw(*first)
    planned = make(".", if_exists=policy)
    assert [str(job.target) for job in planned.jobs] == first
    assert planned.notes == [
        "a_x4.png is the result of a.png and is left out",
        "b_x4.jpg is the result of b.jpg and is left out",
    ]


def test_a_file_named_by_hand_is_not_taken_for_a_result_and_overwritten() -> None:
    draw("a.png", "a_x4.png")
    with pytest.raises(OutputError, match=r"a_x4\.png is an input"):
        make("a.png", "a_x4.png", if_exists="overwrite")
    assert outputs("a.png", "a_x4.png", if_exists="skip") == ["a_x4.png"]


def test_names_too_long_for_any_file_are_no_crash() -> None:
    draw("a.png")
    for output in ("x" * 300, "x" * 300 + ".png", "y/" * 3000):
        assert make("a.png", output=output).problems == []
    assert make("x" * 300 + ".png").problems != []


def test_devices_are_written_to_and_not_renamed() -> None:
    draw("a.png")
    for policy in ("error", "rename", "overwrite"):
        assert outputs("a.png", output="/dev/null", if_exists=policy) == ["/dev/null"]


# --- what cannot be done ----------------------------------------------------------------------------------------------


def test_bad_inputs_are_listed_and_the_others_planned(folder: Path) -> None:
    draw("good.png", "tall.png", size=(8, 6))
    (folder / "bad.png").write_bytes(b"no picture")
    planned = make("good.png", "bad.png", "missing.png", "a\0b.png")
    assert [job.source.path.name for job in planned.jobs] == ["good.png"]
    assert [problem.name for problem in planned.problems] == ["bad.png", "missing.png", "a\0b.png"]
    assert all(problem.name.replace("\0", "\\x00") in problem.reason for problem in planned.problems)


def test_too_many_pixels_are_refused_by_the_header_alone() -> None:
    draw("a.png", size=(100, 100))
    assert "more than the 9999 allowed" in make("a.png", max_pixels=9999).problems[0].reason


def test_results_too_large_for_their_format_are_refused_before_the_work() -> None:
    draw("a.png", size=(5000, 2))
    assert "too large for WEBP" in make("a.png", output="a.webp").problems[0].reason


def test_pictures_that_would_not_grow_are_refused() -> None:
    draw("a.png")
    assert "a.png: 8x6 to 8x6 does not enlarge" in make("a.png", size=Size(max_side=8)).problems[0].reason


@pytest.mark.parametrize(
    "more", [{"if_exists": "ask"}, {"max_pixels": 0}, {"format": "gif"}, {"output": ""}, {"output": "a\0b"}]
)
def test_impossible_requests_are_refused(more: dict[str, Any]) -> None:
    draw("a.png")
    with pytest.raises(UsageError):
        make("a.png", **more)


# --- streams ----------------------------------------------------------------------------------------------------------


def test_standard_input_goes_to_standard_output_or_to_a_file() -> None:
    draw("a.png")
    data = Path("a.png").read_bytes()
    assert make("-", data=data).jobs[0].target is None
    assert outputs("-", data=data, output="b.jpg") == ["b.jpg"]
    assert outputs("-", "a.png", data=data, output="out") == ["out/stdin_x4.png", "out/a_x4.png"]
    with pytest.raises(UsageError, match="standard input"):
        make("-", "a.png", data=data)


def test_a_file_may_go_to_standard_output() -> None:
    draw("a.png")
    job = make("a.png", output="-", format="webp").jobs[0]
    assert (job.target, job.format, job.target_label) == (None, "WEBP", "standard output")


def test_names_that_differ_in_case_alone_are_numbered() -> None:
    draw("a.png", "A.PNG")
    assert outputs("a.png", "A.PNG") == ["a_x4.png", "A_x4_2.PNG"]
    draw("b/a.png")
    assert outputs("a.png", "b/a.png", output="out") == [f"out/{Path.cwd().name}_a_png_x4.png", "out/b_a_png_x4.png"]


def test_braces_in_folders_that_exist_are_their_own() -> None:
    draw("a.png")
    Path("o{1}/{stem}").mkdir(parents=True)
    assert outputs("a.png", output="o{1}") == ["o{1}/a_x4.png"]
    assert outputs("a.png", output="o{1}/r.png") == ["o{1}/r.png"]
    assert outputs("a.png", output="o{1}/{stem}/r_{width}.png") == ["o{1}/{stem}/r_32.png"]
    draw("{x}.png")
    assert outputs("a.png", output="{x}.png", if_exists="overwrite") == ["{x}.png"]
    with pytest.raises(UsageError, match=r"holds \{2\}"):
        make("a.png", output="o{1}/{2}/r.png")


@pytest.mark.parametrize("output", ["in/out", "in/out/{stem}.png"])
def test_earlier_results_in_an_output_folder_within_the_input_are_no_inputs(output: str) -> None:
    draw("in/a.png", "in/deep/b.png", "in/out/a_x2.png", "in/out/deep/b_x2.png")
    planned = make("in", output=output, recursive=True)
    assert [job.source.path.as_posix() for job in planned.jobs] == ["in/a.png", "in/deep/b.png"]
    assert any("2 picture(s) in in/out" in note for note in planned.notes)
    assert len(make("in/out", output="in/out", recursive=True).jobs) == 2


def test_what_folders_hold_besides_is_counted_in_one_line() -> None:
    draw("in/a.png")
    for name in ("b.gif", "c.gif", "d"):
        Path("in", name).write_bytes(b"x")
    assert make("in").notes == ["left out of folders: 2 .gif, 1 file without ending"]


def test_a_pipe_by_name_is_refused_at_once() -> None:
    os.mkfifo("p.png")
    draw("a.png")
    planned = make("p.png", "a.png")
    assert len(planned.jobs) == 1
    assert "give - and send it to standard input" in planned.problems[0].reason


def test_a_factor_that_adds_no_pixel_is_refused() -> None:
    draw("a.png", size=(48, 48))
    assert "48x48 to 48x48 does not enlarge" in make("a.png", size=Size(scale=1.0001)).problems[0].reason
