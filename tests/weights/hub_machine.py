"""A user's machine for tests of the Hub: a weights.toml, a cache, and client processes.

huggingface_hub reads its environment when it is imported, so every use is a process of its own.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from dreamsr.weights.registry import WeightsEntry, table
from tests.weights.hub_server import Hub

ROOT = Path(__file__).parents[2]
REPO, NAME = "user/tiny", "tiny-x4"
HASTY = {"HF_HUB_ETAG_TIMEOUT": "1", "HF_HUB_DOWNLOAD_TIMEOUT": "1"}  # 6 s of silence are allowed
SOON_SECONDS = 100  # the work takes a tenth of it; the rest is for machines that are busy

CLIENT = """
import json, sys
from pathlib import Path
from dreamsr.errors import DreamsrError
from dreamsr.weights import registry
registry.registry_file = lambda: Path(sys.argv[1])
from dreamsr.weights.resolve import resolve_weights

notices, progress = [], []
answer = {"notices": notices, "progress": progress}
show = lambda *at: progress.append(at)
try:
    found = resolve_weights(sys.argv[2], on_notice=notices.append, on_progress=show, refresh="refresh" in sys.argv)
    answer["path"] = str(found)
except DreamsrError as error:
    answer.update(error=type(error).__name__, message=str(error))
assert "torch" not in sys.modules, "fetching must not need torch"
print(json.dumps(answer))
"""


class Machine:
    """A user's machine: a weights.toml, a cache, an environment, and processes on it."""

    def __init__(self, folder: Path, hub: Hub, content: bytes) -> None:
        self.folder, self.hub, self.content = folder, hub, content
        self.home = folder / "home"
        self.toml = folder / "weights.toml"
        self.commit = hub.commit(REPO, {"model.safetensors": content, "config.json": b"{}\n"})
        self.entry = WeightsEntry(
            name=NAME,
            description="tiny",
            backbone="refiner",
            scale=4,
            degradation="bicubic",
            steps=2,
            sha256=hashlib.sha256(content).hexdigest(),
            size_bytes=len(content),
            licence="cc0-1.0",
            training_data="noise",
            training_data_licence="cc0-1.0",
            repo=REPO,
            revision=self.commit,
        )
        self.write(self.entry)

    def write(self, entry: WeightsEntry) -> None:
        self.toml.write_text(table(entry))

    def environment(self, **changes: str) -> dict[str, str]:
        kept = {
            key: value for key, value in os.environ.items() if not key.startswith("HF_") and "proxy" not in key.lower()
        }
        return {
            **kept,
            "HF_ENDPOINT": self.hub.url,
            "HF_HOME": str(self.home),
            "HF_HUB_DISABLE_XET": "1",  # the server stores files as LFS does
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_ETAG_TIMEOUT": "3",
            "HF_HUB_DOWNLOAD_TIMEOUT": "3",
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(ROOT),
            "PYTHONWARNINGS": "error::ResourceWarning",
            **changes,
        }

    def start(self, name: str = NAME, *more: str, before: str = "", **environment: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", before + CLIENT, str(self.toml), name, *more]
        return subprocess.Popen(
            command,
            env=self.environment(**environment),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=self.folder,
        )

    def resolve(self, name: str = NAME, *more: str, before: str = "", **environment: str) -> dict[str, Any]:
        return finish(self.start(name, *more, before=before, **environment))

    def cached(self) -> list[Path]:
        return sorted(path for path in self.home.rglob("*") if path.is_file() and path.stat().st_size > 1000)


def finish(process: subprocess.Popen[bytes], *, seconds: float = 200) -> dict[str, Any]:
    """What a client printed; it must have ended well and said nothing on stderr."""
    out, err = process.communicate(timeout=seconds)
    assert process.returncode == 0, err.decode()
    assert err == b"", err.decode()
    answer: dict[str, Any] = json.loads(out)
    if "message" in answer:
        assert answer["message"].isprintable(), "an error is one line"
    return answer
