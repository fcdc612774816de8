"""Training in several processes, as torchrun and accelerate start them; here forked, which saves loading torch."""

from __future__ import annotations

import json
import os
import pickle
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from dreamsr.data.sources import DataSource
from dreamsr.errors import DataError, DreamsrError, UsageError
from dreamsr.processes import launched
from dreamsr.training.loader import Batches
from tests.training.tiny_runs import TINY, checkpoint, draw_pictures, largest_difference, run, same

pytestmark = [
    pytest.mark.skipif(os.name != "posix", reason="forks"),
    pytest.mark.usefixtures("single_threaded"),
]
ROOT = Path(__file__).resolve().parent.parent.parent


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])


def start(folder: Path, work: Callable[[int], Any], world: int = 2) -> list[int]:
    """Process ids of copies of this process, each doing work(rank); see `ends` for what comes of it."""
    shared = {"WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    return [_child(folder, work, rank, shared) for rank in range(world)]


def _child(folder: Path, work: Callable[[int], Any], rank: int, shared: dict[str, str]) -> int:
    number = os.fork()
    if number != 0:
        return number
    end: Any = None
    try:
        os.environ.update(shared | {"RANK": str(rank), "LOCAL_RANK": str(rank), "OMP_NUM_THREADS": "1"})
        torch.set_num_threads(1)
        end = work(rank)
    except DreamsrError as error:
        end = error
    except BaseException as error:
        end = repr(error)
    finally:
        (folder / f"end-{rank}").write_bytes(pickle.dumps(end))
        os._exit(0)


def ends(folder: Path, processes: list[int]) -> list[Any]:
    """What each process returned or raised."""
    for process in processes:
        os.waitpid(process, 0)
    return [pickle.loads((folder / f"end-{rank}").read_bytes()) for rank in range(len(processes))]


def in_two(folder: Path, work: Callable[[int], Any]) -> list[Any]:
    folder.mkdir(exist_ok=True)
    return ends(folder, start(folder, work))


@pytest.mark.parametrize("accumulate", [1, 2])
def test_two_processes_equal_one_with_twice_the_batch(data: DataSource, tmp_path: Path, accumulate: int) -> None:
    config = replace(TINY, accumulate=accumulate)
    heard: list[str] = []

    def work(_rank: int) -> tuple[Path, list[str]]:
        path = run(config, data, tmp_path / "two", on_notice=heard.append)
        return path, heard

    (path, told), (other, silence) = in_two(tmp_path / "ends", work)
    assert path == other == tmp_path / "two" / "model.safetensors"
    assert told
    assert silence == []
    reports: list[Any] = []
    run(replace(config, batch_size=4), data, tmp_path / "one", on_progress=reports.append)
    one, two = checkpoint(tmp_path / "one"), checkpoint(tmp_path / "two")
    assert largest_difference(one["net"], two["net"]) < 1e-5
    assert largest_difference(one["ema"], two["ema"]) < 1e-5
    run(config, data, tmp_path / "half")
    assert largest_difference(one["net"], checkpoint(tmp_path / "half")["net"]) > 1e-4
    lines = (tmp_path / "two" / "log.jsonl").read_text().splitlines()
    assert len(lines) == 8
    assert json.loads(lines[-1])["loss"] == pytest.approx(reports[-1].loss, abs=1e-5)


def test_a_run_of_two_resumes_bit_for_bit_and_may_go_on_in_one(data: DataSource, tmp_path: Path) -> None:
    def stop(report: Any) -> None:
        if report.step == 4:
            raise KeyboardInterrupt

    in_two(tmp_path / "ends", lambda _: run(TINY, data, tmp_path / "whole"))
    told = in_two(tmp_path / "ends", lambda _: run(TINY, data, tmp_path / "parts", on_progress=stop))
    assert told == ["KeyboardInterrupt()"] * 2
    assert checkpoint(tmp_path / "parts")["step"] == 5  # the others hear of it with the next step
    stopped = checkpoint(tmp_path / "parts")
    in_two(tmp_path / "ends", lambda _: run(TINY, data, tmp_path / "parts", resume=True))
    assert same(checkpoint(tmp_path / "whole"), checkpoint(tmp_path / "parts"))
    assert stopped["step"] < checkpoint(tmp_path / "parts")["step"]
    run(replace(TINY, batch_size=4), data, tmp_path / "parts", resume=True)


def test_a_signal_to_one_process_stops_and_saves_all(data: DataSource, tmp_path: Path) -> None:
    config = replace(TINY, max_steps=500, save_every=500)

    def slowly(report: Any) -> None:
        (tmp_path / "mark").write_text(str(report.step))
        time.sleep(0.02)

    (tmp_path / "ends").mkdir()
    processes = start(tmp_path / "ends", lambda _: run(config, data, tmp_path / "run", on_progress=slowly))
    deadline = time.monotonic() + 60
    while not (tmp_path / "mark").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(processes[1], signal.SIGTERM)
    assert ends(tmp_path / "ends", processes) == ["SystemExit(143)"] * 2
    assert 1 <= checkpoint(tmp_path / "run")["step"] < 500


def test_bad_data_in_one_process_ends_all_with_the_leaders_line(data: DataSource, tmp_path: Path) -> None:
    clean = Batches.__getitem__

    def work(rank: int) -> Path:
        def broken(self: Batches, index: int) -> Any:
            return DataError("7.png: it is gone") if (rank, index) == (1, 3) else clean(self, index)

        Batches.__getitem__ = broken  # type: ignore[method-assign] # in a copy of this process
        return run(TINY, data, tmp_path / "run")

    leader, other = in_two(tmp_path / "ends", work)
    assert isinstance(leader, DataError)
    assert str(leader) == "7.png: it is gone"
    assert other == "SystemExit(1)"


def test_what_the_leader_cannot_write_ends_all(data: DataSource, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    leader, other = in_two(tmp_path / "ends", lambda _: run(TINY, data, tmp_path / "file" / "run"))
    assert "cannot be made" in str(leader)
    assert other == "SystemExit(1)"


@pytest.mark.parametrize("what", ["settings", "data"])
def test_all_processes_must_be_given_the_same(data: DataSource, tmp_path: Path, what: str) -> None:
    more = draw_pictures(tmp_path / "more", 4)

    def work(rank: int) -> Path:
        seed = rank if what == "settings" else 0
        return run(replace(TINY, seed=seed), more if what == "data" and rank else data, tmp_path / "run")

    leader, other = in_two(tmp_path / "ends", work)
    assert f"other {what} than process 0" in str(leader)
    assert other == "SystemExit(1)"
    assert not (tmp_path / "run").exists()


def test_a_loss_that_is_not_finite_in_one_process_is_skipped_by_all(data: DataSource, tmp_path: Path) -> None:
    from dreamsr.training.step import StepLoss

    clean = StepLoss.forward

    def work(rank: int) -> Path:
        def forward(self: StepLoss, batch: Any, step: int) -> Any:
            whole, base = clean(self, batch, step)
            return (whole + float("nan") if (rank, step) == (1, 4) else whole), base

        StepLoss.forward = forward  # type: ignore[method-assign] # in a copy of this process
        return run(TINY, data, tmp_path / "run")

    in_two(tmp_path / "ends", work)
    state = checkpoint(tmp_path / "run")
    assert (state["step"], state["skipped"]) == (8, 1)
    assert all(torch.isfinite(value).all() for value in state["net"].values())


# --- how it is launched -----------------------------------------------------------------------------------------------

LAUNCHERS = {
    "torchrun": ["torch.distributed.run", "--nproc-per-node", "2"],
    "accelerate": ["accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"],
}


@pytest.mark.slow
@pytest.mark.parametrize("launcher", sorted(LAUNCHERS))
def test_both_launchers_start_two_processes_on_the_cpu(data: DataSource, tmp_path: Path, launcher: str) -> None:
    worker = tmp_path / "worker.py"
    worker.write_text(
        "import pickle, sys\n"
        "from pathlib import Path\n"
        "from dreamsr.training.request import RunRequest\n"
        "from dreamsr.training.train import train\n"
        "config, data, out = pickle.loads(Path(sys.argv[1]).read_bytes())\n"
        "train(RunRequest(config, data, out, device='cpu'))\n"
    )
    (tmp_path / "given").write_bytes(pickle.dumps((TINY, data, tmp_path / "run")))
    port = ["--main_process_port" if launcher == "accelerate" else "--master-port", str(free_port())]
    done = subprocess.run(
        [sys.executable, "-m", *LAUNCHERS[launcher], *port, str(worker), str(tmp_path / "given")],
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=250,
    )
    assert done.returncode == 0, done.stderr
    run(replace(TINY, batch_size=4), data, tmp_path / "one")
    assert largest_difference(checkpoint(tmp_path / "one")["net"], checkpoint(tmp_path / "run")["net"]) < 1e-5


def test_a_broken_launch_and_an_unknown_precision_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UsageError, match="WORLD_SIZE"), launched("cpu", "auto", accumulate=1):
        pass
    monkeypatch.setenv("WORLD_SIZE", "1")
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "fp16")
    with pytest.raises(UsageError, match="bf16 or no"), launched("cpu", "auto", accumulate=1):
        pass


def test_what_accelerate_launch_was_told_counts_where_the_configuration_leaves_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    monkeypatch.setenv("ACCELERATE_USE_CPU", "True")
    with launched("auto", "auto", accumulate=1) as processes:
        assert (processes.compute.device.type, processes.compute.dtype) == ("cpu", torch.bfloat16)
        assert (processes.rank, processes.world_size, processes.is_rank_0) == (0, 1, True)
    with launched("cpu", "fp32", accumulate=3) as processes:
        assert processes.compute.dtype == torch.float32
        assert processes.accelerator.gradient_accumulation_steps == 3
