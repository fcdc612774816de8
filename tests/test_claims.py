"""Claims: one process works on a result at a time, and what killed ones left is taken over."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from dreamsr import claims
from dreamsr.claims import Claims, is_claimed, remove_stale_claims


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / ("ü" * 120 + ".png")  # nearly as long as a name may be


def left(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def claim_of(target: Path, **facts: object) -> Path:
    """A claim as another process leaves it; this process's own facts unless others are given."""
    own = {"host": platform.node(), "pid": os.getpid(), "began": psutil.Process().create_time(), "output": target.name}
    path = claims._claim_on(target)
    path.write_text(json.dumps(own | facts))
    return path


@pytest.fixture
def ended() -> int:
    """The number of a process that has certainly ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_one_process_at_a_time(target: Path) -> None:
    with Claims() as mine, Claims() as other:
        assert mine.take(target)
        assert is_claimed(target)
        assert not other.take(target)
        other.give_back(target)  # which it does not hold
        assert is_claimed(target)
        mine.give_back(target)
        assert not is_claimed(target)
        assert other.take(target)
    assert left(target.parent) == []


def test_of_many_at_once_one_gets_it(target: Path) -> None:
    start, got = threading.Barrier(8), []

    def take(claims: Claims) -> None:
        start.wait()
        got.append(claims.take(target))

    for _ in range(20):
        got.clear()
        with Claims() as one, Claims() as two:
            threads = [threading.Thread(target=take, args=[(one, two)[n % 2]]) for n in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        assert sorted(got) == [False] * 7 + [True]
    assert left(target.parent) == []


def test_all_is_given_back_whatever_happens(target: Path) -> None:
    def work() -> None:
        with Claims() as mine:
            assert mine.take(target)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work()
    assert left(target.parent) == []


def test_what_a_killed_process_left_is_taken_over(target: Path, ended: int) -> None:
    claim_of(target, pid=ended)
    assert not is_claimed(target)
    claim_of(target, pid=ended)
    with Claims() as mine:
        assert mine.take(target)
        assert is_claimed(target)


def test_what_is_killed_and_not_yet_buried_has_ended(target: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        claim_of(target, pid=process.pid, began=psutil.Process(process.pid).create_time())
        assert is_claimed(target)
        process.kill()
        deadline = time.monotonic() + 20
        while is_claimed(target) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert not is_claimed(target)


def test_a_number_that_another_process_has_now_is_no_claimant(target: Path) -> None:
    claim_of(target, began=psutil.Process().create_time() - 60)
    with Claims() as mine:
        assert mine.take(target)


def test_of_many_that_take_over_one_gets_it(target: Path, ended: int) -> None:
    for _ in range(20):
        claim_of(target, pid=ended)
        start, got = threading.Barrier(6), []

        def take(mine: Claims, start: threading.Barrier = start, got: list[bool] = got) -> None:
            start.wait()
            got.append(mine.take(target))

        with Claims() as mine:
            threads = [threading.Thread(target=take, args=[mine]) for _ in range(6)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        assert sorted(got) == [False] * 5 + [True]


@pytest.mark.parametrize("facts", [{"host": "elsewhere"}, {"pid": "none"}, {"more": 1}])
def test_who_cannot_be_seen_has_time(target: Path, facts: dict[str, object]) -> None:
    path = claim_of(target, **facts)
    with Claims() as mine:
        assert not mine.take(target)
        long_ago = time.time() - claims.STALE_SECONDS - 5
        os.utime(path, (long_ago, long_ago))
        assert mine.take(target)
    assert left(target.parent) == []


def test_who_holds_a_claim_touches_it(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "BEAT_SECONDS", 0.01)
    with Claims() as mine:
        assert mine.take(target)
        path = claims._claim_on(target)
        os.utime(path, (0, 0))
        deadline = time.monotonic() + 20
        while path.stat().st_mtime == 0 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert path.stat().st_mtime > 0


def test_what_was_lost_to_another_host_is_not_given_back(target: Path) -> None:
    with Claims() as mine:
        assert mine.take(target)
        theirs = claim_of(target, host="elsewhere")
    assert theirs.exists()


def test_without_links_a_claim_is_made_exclusively(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    with Claims() as mine, Claims() as other:
        assert mine.take(target)
        assert not other.take(target)
    assert left(target.parent) == []


def test_without_claims_the_work_goes_on(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, "open", refuse)
    with Claims() as mine:
        assert mine.take(target)
        assert not is_claimed(target)


def test_stale_claims_are_cleared(target: Path, ended: int) -> None:
    claim_of(target, pid=ended)
    alive = claim_of(target.with_name("other.png"))
    remove_stale_claims(target.parent)
    assert left(target.parent) == [alive.name]
