"""Weights from the Hub: huggingface_hub itself against a server on loopback."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np

from dreamsr.upscaling.upscaler import Upscaler
from dreamsr.weights.registry import bundled_file
from tests.weights.hub_machine import REPO, Machine, finish
from tests.weights.hub_server import TOKEN, Fault, Hub, Repo, running_hub, wait_until


def test_first_use_fetches_announces_and_checks_second_use_needs_no_server(machine: Machine, hub: Hub) -> None:
    first = machine.resolve(HF_TOKEN=TOKEN, DREAMSR_SEND_TOKEN="1")
    assert Path(first["path"]).read_bytes() == machine.content
    (notice,) = first["notices"]
    assert f"{len(machine.content) / 1e6:.1f} MB" in notice
    assert "licence cc0-1.0" in notice
    assert REPO in notice
    assert first["progress"][-1] == [len(machine.content)] * 2
    # The token goes to the Hub and never to another origin.
    cdn = [headers for method, path, headers in hub.requests if path.startswith("/cdn/")]
    assert cdn
    assert all("authorization" not in headers for headers in cdn)
    asked = len(hub.requests)
    second = machine.resolve(HF_ENDPOINT="http://127.0.0.1:9")
    assert second == {"notices": [], "progress": [], "path": first["path"]}
    assert len(hub.requests) == asked


def test_shipped_weights_arrive_byte_for_byte_and_enlarge_the_same(tmp_path: Path, hub: Hub) -> None:
    shipped = bundled_file("clean-x4")
    machine = Machine(tmp_path, hub, shipped.read_bytes())
    fetched = Path(machine.resolve()["path"])
    assert fetched.read_bytes() == shipped.read_bytes()
    low = np.random.default_rng(0).integers(0, 256, (12, 10, 3), dtype=np.uint8)
    large = [Upscaler(path, "cpu")(low, 4, steps=2) for path in (shipped, fetched)]
    assert np.array_equal(large[0], large[1])


def test_a_warm_cache_opens_no_socket(machine: Machine) -> None:
    machine.resolve()
    deaf = (
        "import socket\n"
        "def refuse(*_, **__): raise AssertionError('a socket was opened')\n"
        "socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse\n"
    )
    assert "path" in machine.resolve(before=deaf)


def test_two_processes_at_once_download_once(machine: Machine, hub: Hub) -> None:
    hub.fault = Fault(trickle_seconds=0.5)
    both = [machine.start(), machine.start()]
    answers = [finish(process) for process in both]
    assert answers[0]["path"] == answers[1]["path"]
    assert Path(answers[0]["path"]).read_bytes() == machine.content
    assert hub.count("GET", "/cdn/") == 1


def test_killed_in_the_middle_and_run_again(machine: Machine, hub: Hub) -> None:
    hub.fault = Fault(hang_after=60_000)
    process = machine.start()
    wait_until(lambda: hub.count("GET", "/cdn/") == 1)
    wait_until(lambda: list(machine.home.rglob("*.incomplete")))
    process.send_signal(signal.SIGKILL)
    process.communicate()
    hub.fault = Fault()
    (left,) = machine.home.rglob("*.incomplete")
    os.utime(left, (0, 0))  # long ago
    answer = machine.resolve()
    assert Path(answer["path"]).read_bytes() == machine.content
    assert not list(machine.home.rglob("*.incomplete")), "what the killed process left is swept away"


def test_offline_and_missing_says_what_to_fetch_and_where_to_put_it(machine: Machine, hub: Hub) -> None:
    answer = machine.resolve(HF_HUB_OFFLINE="1")
    url = f"{hub.url}/{REPO}/resolve/{machine.commit}/model.safetensors"
    place = machine.home / "hub" / "models--user--tiny" / "snapshots" / machine.commit / "model.safetensors"
    for part in ("HF_HUB_OFFLINE", url, str(place), machine.entry.sha256, "`weights`"):
        assert part in answer["message"]
    assert hub.requests == []
    place.parent.mkdir(parents=True)
    place.write_bytes(machine.content)
    assert machine.resolve(HF_HUB_OFFLINE="1")["path"] == str(place)


def test_a_mirror_is_used_instead_of_the_hub(machine: Machine, hub: Hub) -> None:
    with running_hub() as mirror:
        mirror.commit(REPO, {"model.safetensors": machine.content, "config.json": b"{}\n"})
        answer = machine.resolve(HF_ENDPOINT=mirror.url)
        assert mirror.url in answer["notices"][0]
        assert mirror.count("GET", "/cdn/") == 1
    assert hub.requests == []


def test_references_follow_a_branch_only_when_asked(machine: Machine, hub: Hub) -> None:
    first = machine.resolve(REPO)
    assert machine.commit in first["path"]
    newer = hub.commit(
        REPO, {"model.safetensors": machine.content[:-4] + b"\0\0\0\0", "small/other.safetensors": machine.content}
    )
    assert machine.resolve(REPO) == {"notices": [], "progress": [], "path": first["path"]}
    again = machine.resolve(REPO, "refresh")
    assert newer in again["path"]
    assert Path(again["path"]).read_bytes()[-4:] == b"\0\0\0\0"
    assert "up to date" in machine.resolve(REPO, "refresh")["notices"][0]
    pinned = machine.resolve(f"{REPO}@{machine.commit}")
    assert pinned["path"] == first["path"]
    other = machine.resolve(f"{REPO}@{newer}:small/other.safetensors")
    assert Path(other["path"]).read_bytes() == machine.content


def test_wrong_bytes_behind_a_reference_are_refused_too(machine: Machine, hub: Hub) -> None:
    hub.fault = Fault(body=bytes(len(machine.content)))
    assert "twice gave bytes" in machine.resolve(REPO)["message"]
    assert machine.cached() == []


def test_unknown_references_are_told(machine: Machine, hub: Hub) -> None:
    hub.repos["user/empty"] = Repo()
    assert "no such repository" in machine.resolve("user/nothing")["message"]
    assert "local folder of that name does not exist" in machine.resolve("runs/x")["message"]
    assert "no such revision" in machine.resolve(f"{REPO}@v9")["message"]
    assert "no such file" in machine.resolve(f"{REPO}:none.safetensors")["message"]


def test_the_shared_cache_and_a_real_user_agent(machine: Machine, hub: Hub) -> None:
    machine.resolve(HF_HUB_CACHE=str(machine.folder / "elsewhere"))
    assert list((machine.folder / "elsewhere").glob("models--user--tiny"))
    assert any("dreamsr/" in headers.get("user-agent", "") for _, _, headers in hub.requests)
