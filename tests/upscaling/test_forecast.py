"""How long work will take: learned from runs, remembered, never guessed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dreamsr import cli
from dreamsr.folders import Source
from dreamsr.upscaling import forecast
from dreamsr.upscaling.forecast import Forecast, key_of
from dreamsr.upscaling.plan import Job
from dreamsr.upscaling.settings import Progress
from dreamsr.upscaling.sizes import Size


def job(height: int = 100, width: int = 200, scale: int = 4) -> Job:
    return Job(Source(Path("a.png")), Path("b.png"), "PNG", height, width, scale * height, scale * width)


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def run(steps: int | None, *, default_steps: int = 2, tiles: int = 2, slower: float = 1.0, key: str = "k") -> Forecast:
    """A run whose condition takes 3 s and whose steps take 5 s each for every tile of a picture of .02 MP."""
    clock = Clock()
    made = Forecast(key, steps, clock)
    made.loaded([4], False, default_steps, 2.0)
    heard: list[float] = []
    hear = made.hearing(job(), lambda progress: heard.append(progress.fraction))
    count = (steps or default_steps) + 1
    for number in range(tiles * count):
        clock.now += slower * (3.0 if number % count == 0 else 5.0)
        hear(Progress(number + 1, tiles * count))
    clock.now += 1.0
    made.enlarged()
    made.finished(job(), 0.6)
    assert heard[-1] == 1
    made.keep()
    return made


def test_what_never_ran_is_not_guessed() -> None:
    assert Forecast("k", None).expected([job()]) is None
    run(None)
    assert Forecast("other", None).expected([job()]) is None


@pytest.mark.parametrize("tiles", [1, 2, 7])
def test_a_run_tells_of_the_next_with_other_steps_and_sizes(tiles: int) -> None:
    run(None, tiles=tiles)
    known = Forecast("k", None).expected([job()])
    assert known is not None
    assert known.seconds == pytest.approx(2 + tiles * (3 + 2 * 5) + 1.6)
    assert known.with_one_step == pytest.approx(2 + tiles * (3 + 5) + 1.6)
    more = Forecast("k", 10).expected([job(200, 200), job()])
    assert more is not None
    assert more.seconds == pytest.approx(2 + 3 * (tiles * (3 + 10 * 5) + 1.6))
    one = Forecast("k", 1).expected([job()])
    assert one is not None
    assert one.with_one_step is None


def test_two_passes_count_both() -> None:
    run(None, tiles=1)
    large = Forecast("k", None).expected([job(100, 200, scale=16)])
    assert large is not None
    assert large.seconds == pytest.approx(2 + (1 + 16) * 13 + 16 * 1.6)


def test_later_runs_count_more_the_longer_they_are_back() -> None:
    for _ in range(3):
        run(None)
    for _ in range(300):
        run(None, slower=2.0)
    known = Forecast("k", None).expected([job()])
    assert known is not None
    assert known.seconds == pytest.approx(2 + 2 * 2 * 13 + 1.6, rel=0.05)


def test_flat_tiles_take_no_time_and_teach_none() -> None:
    clock = Clock()
    made = Forecast("k", 1, clock)
    made.loaded([4], False, 1, 0.0)
    hear = made.hearing(job(200, 200), lambda _: None)  # .04 MP, of which half is flat
    for number, seconds in enumerate([3.0, 5.0, 0.0, 0.0]):
        clock.now += seconds
        hear(Progress(number + 1, 4))
    made.enlarged()
    made.finished(job(200, 200), 0.0)
    made.keep()
    known = Forecast("k", 1).expected([job()])
    assert known is not None
    assert known.seconds == pytest.approx(8)


def test_tiny_pictures_teach_nothing(own_speeds: Path) -> None:
    clock = Clock()
    made = Forecast("k", 1, clock)
    made.loaded([4], False, 1, 0.0)
    hear = made.hearing(job(9, 12), lambda _: None)
    for number in range(2):
        clock.now += 1
        hear(Progress(number + 1, 2))
    made.finished(job(9, 12), 0.0)
    made.keep()
    assert not own_speeds.exists()


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[1]",
        "{",
        '{"k": 1}',
        '{"k": {"scales": [4]}}',
        "[" * 100_000,
        None,
        '{"k": {"scale": -1, "continuous": false}}',
    ],
)
def test_a_damaged_memory_is_none(own_speeds: Path, content: str | None) -> None:
    if content is not None:
        own_speeds.write_text(content)
    else:
        run(None)
        own_speeds.write_text(own_speeds.read_text().replace("2.0", "-2.0"))
    assert Forecast("k", None).expected([job()]) is None
    run(None)
    assert Forecast("k", None).expected([job()]) is not None


def test_memory_is_bounded_and_keeps_the_latest(own_speeds: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forecast, "KEPT", 3)
    for key in ("a", "b", "a", "c", "d"):
        run(None, key=key)
    assert list(json.loads(own_speeds.read_text())) == ["a", "c", "d"]


def test_a_memory_that_cannot_be_written_is_no_failure(own_speeds: Path) -> None:
    own_speeds.mkdir()
    run(None)


def test_the_key_tells_weights_by_content(tiny_weights: Path, tmp_path: Path) -> None:
    def key(weights: str, device: str = "cpu", threads: int | None = 1) -> str:
        return key_of(weights, Size(scale=4), device, "auto", "auto", threads)

    mine = tmp_path / "mine.safetensors"
    mine.write_bytes(tiny_weights.read_bytes())
    before = key(str(mine))
    assert before == key(str(mine)) != key(str(tiny_weights))
    mine.write_bytes(b"longer" + tiny_weights.read_bytes())
    assert key(str(mine)) != before
    assert key("photo-x4") != key("clean-x4") != key("auto")
    twice = key_of("auto", Size(scale=2), "cpu", "auto", "auto", 1)  # which other weights may do
    assert twice != key("auto")
    assert len({key("a"), key("./none"), key("a", "cuda"), key("a", threads=2)}) == 4


# --- on the command line ----------------------------------------------------------------------------------------------


@pytest.fixture
def picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    from PIL import Image

    monkeypatch.chdir(tmp_path)
    Image.effect_noise((160, 120), 60).convert("RGB").save("a.png")
    return "a.png"


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[list[dict[str, object]], str]:
    assert cli.main(["upscale", *arguments]) == 0
    told = capsys.readouterr()
    return [json.loads(line) for line in told.out.splitlines()], told.err


def test_a_dry_run_tells_the_time_once_it_is_known(
    picture: str, tiny_weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = [picture, "-w", str(tiny_weights), "--device", "cpu"]
    planned, told = said(capsys, *common, "--dry-run", "--json")
    assert "how long it takes is not known" in told
    assert "expected_seconds" not in planned[0]
    said(capsys, *common)
    planned, told = said(capsys, *common, "--dry-run", "--json", "-o", "b.png")
    assert told.startswith("about ")
    assert isinstance(planned[0]["expected_seconds"], float)
    events, _ = said(capsys, *common, "--dry-run", "--progress", "json", "-o", "b.png", "--steps", "40")
    assert [event["event"] for event in events] == ["estimate"]
    assert float(str(events[0]["seconds"])) >= float(str(events[0]["seconds_with_one_step"]))
    _, told = said(capsys, *common, "--dry-run", "--if-exists", "skip")
    assert "about" not in told  # there is nothing to do


def test_long_work_is_announced_with_a_cheaper_way(
    picture: str, tiny_weights: Path, capsys: pytest.CaptureFixture[str], own_speeds: Path
) -> None:
    common = [picture, "-w", str(tiny_weights), "--device", "cpu"]
    _, told = said(capsys, *common)
    assert "about" not in told
    (pace,) = json.loads(own_speeds.read_text()).items()
    slow = {"load_s": 0.0, "condition_s": 0.0, "step_s": 60 / 0.0192, "rest_s": 0.0}
    own_speeds.write_text(json.dumps({pace[0]: pace[1] | slow}))
    _, told = said(capsys, *common, "-o", "b.png", "--steps", "4")
    assert told.startswith("about 4 min; with --steps 1 about 60 s\n")
    own_speeds.write_text(json.dumps({pace[0]: pace[1] | slow}))
    _, told = said(capsys, *common, "-o", "c.png", "--steps", "1")
    assert told.startswith("about 60 s\n")
