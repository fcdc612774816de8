"""Files through their stages: overlapped, in order, within bounds, shared with other processes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dreamsr import claims
from dreamsr.claims import Claims
from dreamsr.errors import DamagedError, OutputError
from dreamsr.pictures.picture import Picture
from dreamsr.pictures.read import read_picture
from dreamsr.pictures.write import PictureEncoder
from dreamsr.upscaling import pipeline, stages
from dreamsr.upscaling.files import upscale_files
from dreamsr.upscaling.outcome import Counts, Outcome
from dreamsr.upscaling.plan import Job, UpscaleRequest
from dreamsr.upscaling.settings import OnProgress, Progress, Settings
from dreamsr.upscaling.sizes import Size
from dreamsr.upscaling.stages import Options

SECONDS = 20
"""How long something that must happen may take."""


class Repeater:
    """Enlarges without a net; `during` is called with the number of each picture while it is in work."""

    def __init__(self, during: Callable[[int], None] = lambda _: None) -> None:
        self.during, self.count = during, 0

    def enlarge_strips(
        self,
        picture: Picture,
        height: int,
        width: int,
        settings: Settings,  # noqa: ARG002
        *,
        on_progress: OnProgress | None = None,
        on_choice: object = None,
    ) -> Iterator[Picture]:
        self.count += 1
        self.during(self.count - 1)
        if on_choice is not None:
            on_choice("none")
        if on_progress is not None:
            on_progress(Progress(1, 1))
        rows, columns = np.arange(height) * picture.height // height, np.arange(width) * picture.width // width
        yield replace(picture, pixels=picture.pixels[rows][:, columns])


class Listener:
    """A watcher that remembers the order in which it is told things, and from which threads."""

    def __init__(self) -> None:
        self.outcomes: list[Outcome] = []
        self.events: list[tuple[str, str]] = []
        self.threads: set[int] = set()

    def planned(self, jobs: Sequence[Job], notes: Sequence[str]) -> None: ...

    def started(self, job: Job) -> None:
        self.told("started", job.source.path.name)

    def progressed(self, job: Job, fraction: float) -> None:  # noqa: ARG002
        self.told("progressed", job.source.path.name)

    def finished(self, outcome: Outcome) -> None:
        self.told("finished", Path(outcome.input).name)
        self.outcomes.append(outcome)

    def waiting(self, count: int) -> None:
        self.told("waiting", str(count))

    def told(self, what: str, name: str) -> None:
        self.threads.add(threading.get_ident())
        self.events.append((what, name))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    rng = np.random.default_rng(0)
    for number in range(5):
        Image.fromarray(rng.integers(0, 256, (6, 8, 3), np.uint8)).save(tmp_path / "in" / f"{number}.png")
    return tmp_path / "in"


def run(source: Path, enlarger: Repeater, listener: Listener, *, policy: str = "error") -> Counts:
    return upscale_files(
        UpscaleRequest([str(source)], Size(scale=2), str(source.parent / "out"), if_exists=policy),  # type: ignore[arg-type]
        Settings(),
        Options(),
        make_upscaler=lambda: enlarger,
        watcher=listener,
        write_stream=lambda _: None,
    )


def names(source: Path) -> list[str]:
    return sorted(path.name for path in (source.parent / "out").iterdir())


WHOLE = [f"{number}_x2.png" for number in range(5)]


def test_one_is_read_ahead_and_one_written_behind(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun = {name: threading.Event() for name in ("read", "written")}
    may_write = threading.Event()
    inner_read, inner_write = stages.read_picture, stages.write_bytes_atomically

    def read(path: Path, **more: object) -> Picture:
        if path.name == "1.png":
            begun["read"].set()
        return inner_read(path, **more)  # type: ignore[arg-type]

    def write(target: Path, data: bytes) -> None:
        if target.name == "0_x2.png":
            assert may_write.wait(SECONDS)
            inner_write(target, data)
            begun["written"].set()
        else:
            inner_write(target, data)

    def during(number: int) -> None:
        if number == 0:
            assert begun["read"].wait(SECONDS)  # the second, while the first is enlarged
        if number == 1:
            assert not begun["written"].is_set()
            may_write.set()
            assert begun["written"].wait(SECONDS)  # the first, while the second is enlarged

    monkeypatch.setattr(stages, "read_picture", read)
    monkeypatch.setattr(stages, "write_bytes_atomically", write)
    listener = Listener()
    assert run(source, Repeater(during), listener) == {"done": 5}
    assert names(source) == WHOLE
    assert listener.threads == {threading.get_ident()}
    for what in ("started", "finished"):
        assert [name for kind, name in listener.events if kind == what] == [f"{number}.png" for number in range(5)]


def test_large_pictures_come_one_after_the_other(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "BESIDE_PX", 100)  # less than two results of 16x12 px have
    read: list[str] = []
    inner = stages.read_picture

    def reading(path: Path, **more: object) -> Picture:
        read.append(path.name)
        return inner(path, **more)  # type: ignore[arg-type]

    def during(number: int) -> None:
        assert len(read) == number + 1
        assert names(source) == WHOLE[:number]

    monkeypatch.setattr(stages, "read_picture", reading)
    assert run(source, Repeater(during), Listener()) == {"done": 5}


def test_few_results_wait_to_be_written(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "BESIDE", 1)
    written: list[str] = []
    inner = stages.write_bytes_atomically

    def write(target: Path, data: bytes) -> None:
        inner(target, data)
        written.append(target.name)

    def during(number: int) -> None:
        assert len(written) >= number - 1

    monkeypatch.setattr(stages, "write_bytes_atomically", write)
    assert run(source, Repeater(during), Listener()) == {"done": 5}


def test_errors_stay_with_their_files(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (source / "1.png").write_bytes((source / "1.png").read_bytes()[:-30])
    inner = PictureEncoder.add
    small = {path.name: read_picture(path).pixels[0, 0].tolist() for path in source.glob("[023].png")}

    def add(self: PictureEncoder, rows: Picture) -> None:
        if rows.pixels[0, 0].tolist() == small["3.png"]:
            raise OutputError("no room")
        inner(self, rows)

    def during(number: int) -> None:
        if number == 1:  # of those that could be read: 0, 2, 3, 4
            raise DamagedError("cannot be enlarged")

    monkeypatch.setattr(PictureEncoder, "add", add)
    listener = Listener()
    assert run(source, Repeater(during), listener) == {"done": 2, "failed": 3}
    assert [outcome.status for outcome in listener.outcomes] == ["done", "failed", "failed", "failed", "done"]
    assert "2.png: cannot be enlarged" in str(listener.outcomes[2].error)
    assert "3.png: no room" in str(listener.outcomes[3].error)
    assert names(source) == [WHOLE[0], WHOLE[4]]


def test_what_is_enlarged_when_the_work_is_interrupted_is_written(source: Path) -> None:
    def during(number: int) -> None:
        if number == 2:
            raise KeyboardInterrupt

    listener = Listener()
    with pytest.raises(KeyboardInterrupt):
        run(source, Repeater(during), listener, policy="skip")
    assert [outcome.status for outcome in listener.outcomes] == ["done", "done"]
    assert names(source) == WHOLE[:2]


def test_who_cannot_be_told_of_a_result_ends_the_work(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "BESIDE", 1)

    class Deaf(Listener):
        def finished(self, outcome: Outcome) -> None:  # noqa: ARG002
            raise OutputError("standard output is closed")

    enlarger = Repeater()
    with pytest.raises(OutputError, match="standard output is closed"):
        run(source, enlarger, Deaf())
    assert enlarger.count <= 2


# --- several processes ------------------------------------------------------------------------------------------------


def test_what_another_process_works_on_comes_last(source: Path) -> None:
    (source.parent / "out").mkdir()
    taken = [source.parent / "out" / name for name in WHOLE[:2]]
    listener = Listener()
    with Claims() as theirs:
        assert all(theirs.take(target) for target in taken)

        def during(number: int) -> None:
            if number == 2:  # all that is free is done: one of the others is finished, one is given up
                Image.new("RGB", (16, 12)).save(taken[0])
                for target in taken:
                    theirs.give_back(target)

        summary = run(source, Repeater(during), listener, policy="skip")
    assert summary == {"done": 4, "skipped": 1}
    assert [Path(outcome.input).name for outcome in listener.outcomes] == [f"{n}.png" for n in (2, 3, 4, 0, 1)]
    assert names(source) == WHOLE
    assert Image.open(taken[0]).getpixel((0, 0)) == (0, 0, 0)


def test_it_waits_for_others_until_they_end(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (source.parent / "out").mkdir()
    listener = Listener()
    with Claims() as theirs:
        for name in WHOLE:
            theirs.take(source.parent / "out" / name)
        monkeypatch.setattr(pipeline.time, "sleep", lambda _: theirs.__exit__(None, None, None))
        assert run(source, Repeater(), listener, policy="skip") == {"done": 5}
    assert listener.events[0] == ("waiting", "5")


def test_what_another_has_finished_meanwhile_is_not_done_again(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the reading of a picture and its claim."""
    inner = Claims.take

    def take(self: Claims, target: Path) -> bool:
        Image.new("RGB", (16, 12)).save(target)
        return inner(self, target)

    monkeypatch.setattr(claims.Claims, "take", take)
    enlarger = Repeater()
    assert run(source, enlarger, Listener(), policy="skip") == {"skipped": 5}
    assert enlarger.count == 0
    assert names(source) == WHOLE


def test_other_policies_share_nothing(source: Path) -> None:
    (source.parent / "out").mkdir()
    with Claims() as theirs:
        for name in WHOLE:
            theirs.take(source.parent / "out" / name)
        assert run(source, Repeater(), Listener(), policy="overwrite") == {"done": 5}
