"""Batches: several processes, memory that does not grow, kills at any moment."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dreamsr.errors import UsageError
from dreamsr.pictures.read import probe_picture
from dreamsr.processes import Processes, joined
from dreamsr.upscaling.files import Counts, Options, Outcome, upscale_files
from dreamsr.upscaling.plan import Job, UpscaleRequest
from dreamsr.upscaling.settings import Settings
from dreamsr.upscaling.sizes import Size
from dreamsr.upscaling.upscaler import Upscaler

ROOT = Path(__file__).parents[2]


class Witness:
    """A watcher that remembers."""

    def __init__(self) -> None:
        self.outcomes: list[Outcome] = []
        self.fractions: list[float] = []
        self.memory_kb: list[float] = []
        self.keeps = True

    def planned(self, jobs: Sequence[Job], notes: Sequence[str]) -> None: ...

    def started(self, job: Job) -> None: ...

    def progressed(self, job: Job, fraction: float) -> None:  # noqa: ARG002
        if self.keeps:
            self.fractions.append(fraction)

    def waiting(self, count: int) -> None: ...

    def finished(self, outcome: Outcome) -> None:
        if self.keeps:
            self.outcomes.append(outcome)
        elif sys.platform == "linux":
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            self.memory_kb.append(pages * os.sysconf("SC_PAGE_SIZE") / 1024)


def run(request: UpscaleRequest, witness: Witness, upscaler: Upscaler, options: Options | None = None) -> Counts:
    return upscale_files(
        request,
        Settings(steps=1),
        options or Options(),
        make_upscaler=lambda: upscaler,
        watcher=witness,
        write_stream=lambda _: None,
    )


def draw(folder: Path, count: int, size: tuple[int, int] = (8, 6)) -> Path:
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(count):
        Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), np.uint8)).save(folder / f"{number:04}.png")
    return folder


def test_progress_goes_from_nothing_to_one(tmp_path: Path, tiny_upscaler: Upscaler) -> None:
    witness = Witness()
    folder = draw(tmp_path / "in", 1, (200, 100))
    settings = Settings(steps=2, tile_px=96)
    request = UpscaleRequest([str(folder)], Size(scale=2), output=str(tmp_path / "out"))
    upscale_files(
        request,
        settings,
        Options(),
        make_upscaler=lambda: tiny_upscaler,
        watcher=witness,
        write_stream=lambda _: None,
    )
    assert witness.fractions == sorted(witness.fractions)
    assert 0 < witness.fractions[0] < 0.2
    assert witness.fractions[-1] == 1


def test_damaged_pictures_are_refused_unless_they_are_accepted(tmp_path: Path, tiny_upscaler: Upscaler) -> None:
    source, target = tmp_path / "half.jpg", tmp_path / "half_x2.png"
    Image.effect_noise((48, 48), 60).convert("RGB").save(source)
    source.write_bytes(source.read_bytes()[: source.stat().st_size // 2] + b"\xff\xd9")
    request, witness = UpscaleRequest([str(source)], Size(scale=2), str(target)), Witness()
    assert run(request, witness, tiny_upscaler)["failed"] == 1
    assert "half.jpg is damaged" in str(witness.outcomes[-1].error)
    assert "`accept_damaged` enlarges it" in str(witness.outcomes[-1].error)
    assert not target.exists()
    assert run(request, witness, tiny_upscaler, Options(accept_damaged=True))["done"] == 1
    assert probe_picture(target).width == 96
    assert any("damaged" in note for note in witness.outcomes[-1].notes)


def test_a_damaged_result_is_not_skipped(tmp_path: Path, tiny_upscaler: Upscaler) -> None:
    source, target = tmp_path / "in.png", tmp_path / "out.jpg"
    Image.effect_noise((48, 48), 60).convert("RGB").save(source)
    Image.effect_noise((96, 96), 60).convert("RGB").save(target)
    whole = target.read_bytes()
    request, witness = UpscaleRequest([str(source)], Size(scale=2), str(target), if_exists="skip"), Witness()
    assert run(request, witness, tiny_upscaler)["skipped"] == 1
    target.write_bytes(whole[: len(whole) // 2] + b"\xff\xd9")
    assert run(request, witness, tiny_upscaler)["done"] == 1


def test_stale_files_of_killed_runs_are_cleared(tmp_path: Path, tiny_upscaler: Upscaler) -> None:
    from dreamsr import disk

    draw(tmp_path / "in", 1)
    (tmp_path / "out").mkdir()
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()  # a process id that is certainly of no living process
    stale = tmp_path / "out" / f".a.png.dreamsr-{disk._host()}-{process.pid}-0123abcd.tmp"
    stale.write_bytes(b"half")
    other = tmp_path / "out" / ".mine.tmp"
    other.write_bytes(b"mine")
    run(UpscaleRequest([str(tmp_path / "in")], Size(scale=2), output=str(tmp_path / "out")), Witness(), tiny_upscaler)
    assert not stale.exists()
    assert other.exists()


def test_an_interrupted_batch_keeps_its_page_and_skip_adds_to_it(tmp_path: Path, tiny_upscaler: Upscaler) -> None:
    folder, page = draw(tmp_path / "in", 4), tmp_path / "page.html"
    request = UpscaleRequest([str(folder)], Size(scale=2), output=str(tmp_path / "out"))

    class Impatient(Witness):
        def started(self, job: Job) -> None:
            if job.source.path.name == "0002.png":
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(request, Impatient(), tiny_upscaler, Options(compare=page))
    assert page.read_text().count("<figure>") == 2
    again = replace(request, if_exists="skip")
    assert run(again, Witness(), tiny_upscaler, Options(compare=page)) == {"skipped": 2, "done": 2}
    assert re.findall(r"(\w+\.png)</strong>", page.read_text()) == [f"000{n}.png" for n in range(4)]
    assert run(again, Witness(), tiny_upscaler, Options(compare=page)) == {"skipped": 4}
    assert page.read_text().count("<figure>") == 4


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads the memory in use from /proc")
def test_five_hundred_files_take_no_more_memory_than_a_hundred(tmp_path: Path, tiny_upscaler: Upscaler) -> None:
    witness = Witness()
    witness.keeps = False
    folder = draw(tmp_path / "in", 600)
    summary = run(UpscaleRequest([str(folder)], Size(scale=2), output=str(tmp_path / "out")), witness, tiny_upscaler)
    assert summary == {"done": 600}
    after_warm_up = witness.memory_kb[100:]
    slope = np.polyfit(np.arange(len(after_warm_up)), after_warm_up, 1)[0]
    print(f"memory slope: {slope:.3f} KB per file")  # noqa: T201 - a figure for the record
    assert slope < 1


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
@pytest.mark.parametrize("processes", [1, 2])
def test_kills_at_random_moments_lose_nothing(processes: int) -> None:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "tests.kill", "--times", str(8 // processes), "--processes", str(processes)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr
    assert "every rerun completed" in done.stdout
    assert ("others completed them" in done.stdout) == (processes > 1)


# --- several processes ------------------------------------------------------------------------------------------------


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])


def launch(world: int, folder: Path, *arguments: str) -> list[subprocess.Popen[str]]:
    """What torchrun and accelerate do: the same command with a RANK and a WORLD_SIZE each."""
    shared = os.environ | {
        "WORLD_SIZE": str(world),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(ROOT),
    }
    command = [sys.executable, "-m", "dreamsr", "upscale", *arguments]
    return [
        subprocess.Popen(
            command,
            env=shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(world)
    ]


@pytest.mark.slow
def test_two_processes_share_the_files_and_give_one_summary(tmp_path: Path, tiny_weights: Path) -> None:
    draw(tmp_path / "in", 7)
    (tmp_path / "in" / "bad.png").write_bytes(b"no picture")
    options = ["-w", str(tiny_weights), "--device", "cpu", "--json", "--compare", "page.html"]
    both = launch(2, tmp_path, "in", "-o", "out", *options)
    said = [process.communicate(timeout=200) for process in both]
    assert [process.returncode for process in both] == [1, 0], said
    found = [json.loads(line) for line in said[0][0].splitlines()]
    assert sorted(entry["status"] for entry in found) == ["done"] * 7 + ["failed"]
    assert len({entry["input"] for entry in found}) == 8
    assert said[1] == ("", "")
    assert "7 done, 1 failed" in said[0][1]
    assert len(list((tmp_path / "out").iterdir())) == 7
    assert (tmp_path / "page.html").read_text().count("<figure>") == 7


@pytest.mark.slow
def test_what_stops_the_leader_stops_all(tmp_path: Path, tiny_weights: Path) -> None:
    draw(tmp_path / "in", 3)
    both = launch(2, tmp_path, "in", "-o", "{stem", "-w", str(tiny_weights), "--device", "cpu")
    said = [process.communicate(timeout=200) for process in both]
    assert [process.returncode for process in both] == [2, 0], said
    assert said[0][1].startswith("error: -o holds")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "environment",
    [
        {"WORLD_SIZE": "2", "RANK": "0"},
        {"WORLD_SIZE": "two"},
        {"WORLD_SIZE": "2", "RANK": "2", "MASTER_ADDR": "x", "MASTER_PORT": "1"},
    ],
)
def test_broken_launches_are_told(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]) -> None:
    for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match="WORLD_SIZE"), joined():
        pass


def test_alone_nothing_is_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "1")
    with joined() as processes:
        assert processes == Processes(0, 1)
        assert processes.is_rank_0
        assert processes.broadcast("x") == "x"
        assert processes.gather("x") == ["x"]
