"""Weights from a Hub that misbehaves: one clear line, in time, and nothing wrong is kept."""

from __future__ import annotations

import dataclasses
import hashlib
import socket
import time
from pathlib import Path

import pytest

from tests.weights.hub_machine import HASTY, REPO, SOON_SECONDS, Machine
from tests.weights.hub_server import TOKEN, Fault, Hub


def test_wrong_bytes_are_deleted_tried_once_more_and_refused(machine: Machine, hub: Hub) -> None:
    hub.fault = Fault(body=bytes(len(machine.content)))
    answer = machine.resolve()
    assert answer["error"] == "DownloadError"
    assert machine.entry.sha256 in answer["message"]
    assert hashlib.sha256(hub.fault.body or b"").hexdigest() in answer["message"]
    assert hub.count("GET", "/cdn/") == 2
    assert any("trying once more" in notice for notice in answer["notices"])
    assert machine.cached() == []


def test_wrong_bytes_once_are_replaced(machine: Machine, hub: Hub) -> None:
    hub.fault = Fault(body=bytes(len(machine.content)), times=1)
    answer = machine.resolve()
    assert Path(answer["path"]).read_bytes() == machine.content
    assert "trying once more" in answer["notices"][1]
    assert hub.count("GET", "/cdn/") == 2


def test_a_damaged_cache_is_noticed_and_healed(machine: Machine) -> None:
    path = Path(machine.resolve()["path"])
    damaged = bytearray(machine.content)
    damaged[-1] ^= 1
    path.resolve().write_bytes(damaged)
    answer = machine.resolve()
    assert "damaged" in answer["notices"][0]
    assert Path(answer["path"]).read_bytes() == machine.content


def test_the_wrong_size_is_refused_before_anything_is_fetched(machine: Machine, hub: Hub) -> None:
    machine.write(dataclasses.replace(machine.entry, size_bytes=machine.entry.size_bytes + 1))
    answer = machine.resolve()
    assert "was not downloaded" in answer["message"]
    assert hub.count("GET", "/cdn/") == 0


def test_a_cut_connection_is_resumed(machine: Machine, hub: Hub) -> None:
    hub.fault = Fault(cut_after=70_000, cuts=1)
    assert Path(machine.resolve()["path"]).read_bytes() == machine.content
    ranges = [headers["range"] for method, path, headers in hub.requests if "range" in headers]
    assert ranges == ["bytes=65536-"]


def test_a_body_that_is_too_short_is_refused(machine: Machine, hub: Hub) -> None:
    hub.fault = Fault(body=machine.content[:-1000])
    answer = machine.resolve()
    assert "arrived incomplete" in answer["message"]
    assert machine.cached() == []


STATUS = {
    "404 repository": (Fault(status=404, headers={"X-Error-Code": "RepoNotFound"}), "no such repository"),
    "404 file": (Fault(status=404, headers={"X-Error-Code": "EntryNotFound"}), "no such file"),
    "404 revision": (Fault(status=404, headers={"X-Error-Code": "RevisionNotFound"}), "no such revision"),
    "401": (Fault(status=401), "HF_TOKEN"),
    "401 gated": (Fault(status=401, headers={"X-Error-Code": "GatedRepo"}), "accept its terms"),
    "403": (Fault(status=403), "accept its terms"),
    "429": (Fault(status=429, headers={"Retry-After": "300"}), "try again in 300 s"),
    "500": (Fault(status=500), "the server failed (500)"),
    "503": (Fault(status=503, headers={"X-Error-Message": "\x1b[31mon\u00e9"}), "the server failed (503)"),
    "no Hub": (Fault(status=200), "does not tell its size"),
}


@pytest.mark.parametrize("name", STATUS)
def test_what_the_server_refuses_becomes_one_clear_line(machine: Machine, hub: Hub, name: str) -> None:
    hub.fault, reason = STATUS[name]
    began = time.monotonic()
    answer = machine.resolve()
    assert answer["error"] == "DownloadError"
    assert reason in answer["message"]
    assert REPO in answer["message"]
    assert time.monotonic() - began < SOON_SECONDS
    assert not machine.cached()


def test_trouble_that_passes_is_waited_for(machine: Machine, hub: Hub) -> None:
    hub.fault = Fault(status=429, headers={"Retry-After": "1"}, times=2)
    assert "path" in machine.resolve()
    assert hub.count("HEAD", "/resolve/") >= 3


def test_private_and_gated_repositories_open_with_a_token(machine: Machine, hub: Hub) -> None:
    hub.repos[REPO].private = True
    assert "HF_TOKEN" in machine.resolve()["message"]
    hub.repos[REPO] = dataclasses.replace(hub.repos[REPO], private=False, gated=True)
    assert "accept its terms" in machine.resolve()["message"]
    assert "path" in machine.resolve(HF_TOKEN=TOKEN, DREAMSR_SEND_TOKEN="1")


def test_a_silent_server_gives_an_error_in_time(machine: Machine, hub: Hub) -> None:
    hub.fault = Fault(hang_on_look=True)
    began = time.monotonic()
    answer = machine.resolve(**HASTY)
    assert "no answer in time" in answer["message"]
    assert time.monotonic() - began < SOON_SECONDS


def test_a_body_that_stops_gives_an_error_in_time(machine: Machine, hub: Hub) -> None:
    hub.fault = Fault(hang_after=30_000)
    began = time.monotonic()
    answer = machine.resolve(**HASTY)
    assert answer["error"] == "DownloadError"
    assert time.monotonic() - began < SOON_SECONDS
    assert not [path for path in machine.cached() if path.suffix != ".incomplete"]


def test_a_dead_port_gives_an_error_in_time(machine: Machine) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        dead = f"http://127.0.0.1:{free.getsockname()[1]}"
    answer = machine.resolve(HF_ENDPOINT=dead)
    assert "cannot be reached" in answer["message"]
    assert f"HF_ENDPOINT is {dead}" in answer["message"]


def test_a_full_disk_is_told_and_nothing_is_left(machine: Machine) -> None:
    """A limit on the size of files makes the kernel refuse the write, as a full disk does."""
    limit = "import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))\n"
    answer = machine.resolve(before=limit)
    assert "is full" in answer["message"]
    assert "HF_HOME" in answer["message"]
    assert machine.cached() == []


def test_too_little_space_is_told_before_anything_is_fetched(machine: Machine, hub: Hub) -> None:
    full = "import shutil\nshutil.disk_usage = lambda _: shutil._ntuple_diskusage(10, 9, 1)\n"
    assert "0.0 MB free" in machine.resolve(before=full)["message"]
    assert hub.count("GET", "/cdn/") == 0


def test_a_cache_in_the_way_of_a_file_is_told(machine: Machine) -> None:
    machine.home.write_text("a file")
    assert "HF_HOME" in machine.resolve()["message"]


def test_a_lock_that_is_never_freed_gives_an_error_in_time(machine: Machine) -> None:
    hold = (
        "import fcntl, os\n"
        "place = os.path.join(os.environ['HF_HOME'], 'hub', '.locks', 'models--user--tiny')\n"
        "os.makedirs(place)\n"
        f"held = os.open(os.path.join(place, '{machine.entry.sha256}.lock'), os.O_CREAT | os.O_RDWR)\n"
        "fcntl.flock(held, fcntl.LOCK_EX)\n"
    )
    answer = machine.resolve(before=hold, **HASTY)
    assert "holds the lock" in answer["message"]
    assert "for 6 s" in answer["message"]
