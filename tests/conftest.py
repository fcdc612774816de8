"""What many tests share: a tiny net with random parameters in a real weights file."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

from dreamsr.core.backbones.refiner import RefinerConfig
from dreamsr.core.model import ModelConfig, build_net
from dreamsr.upscaling.upscaler import Upscaler
from dreamsr.weights.file import save_weights

if TYPE_CHECKING:
    from tests.browser import Browser
    from tests.weights.hub_machine import Machine
    from tests.weights.hub_server import Hub


def pytest_configure() -> None:
    """Listen to signals that whatever started the tests has ignored (nohup, a shell's background); children inherit."""
    for name, handler in (("SIGINT", signal.default_int_handler), ("SIGHUP", signal.SIG_DFL)):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, handler)


TINY = ModelConfig(sizes=RefinerConfig(encoder_channels=8, encoder_blocks=1, channels=(8, 8), blocks_per_level=1))


def write_tiny_weights(path: Path, config: ModelConfig = TINY) -> Path:
    """A net that really does something: every parameter random, none left at zero."""
    generator = torch.Generator().manual_seed(0)
    net = build_net(config)
    state = {
        name: torch.randn(value.shape, generator=generator) * (0.3 / max(1, value[0].numel()) ** 0.5)
        for name, value in net.state_dict().items()
    }
    save_weights(path, state, config, facts={"default_steps": 2}, dtype=torch.float32)
    return path


@pytest.fixture(autouse=True)
def own_speeds(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where this test's runs note their speed: what is expected must not depend on other runs."""
    file = tmp_path_factory.mktemp("cache") / "speeds.json"
    monkeypatch.setattr("dreamsr.upscaling.forecast.speeds_file", lambda: file)
    return file


@pytest.fixture(scope="session")
def tiny_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A weights file of a x4 refiner with random parameters; enlarges 64x64 in a few milliseconds per step."""
    return write_tiny_weights(tmp_path_factory.mktemp("weights") / "tiny-x4.safetensors")


@pytest.fixture(scope="session")
def tiny_upscaler(tiny_weights: Path) -> Upscaler:
    """The tiny weights, loaded on the CPU in float32."""
    return Upscaler(tiny_weights, "cpu", precision="fp32")


@pytest.fixture
def hub() -> Iterator[Hub]:
    """A server on loopback that speaks the Hub's protocol."""
    from tests.weights.hub_server import running_hub

    with running_hub() as running:
        yield running


@pytest.fixture(scope="session")
def content(tiny_weights: Path) -> bytes:
    """The bytes of the tiny weights, as a server sends them."""
    return tiny_weights.read_bytes()


@pytest.fixture
def machine(tmp_path: Path, hub: Hub, content: bytes) -> Machine:
    """A user's machine whose registry names one file on that server."""
    from tests.weights.hub_machine import Machine

    return Machine(tmp_path, hub, content)


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    """Chromium, started anew."""
    from tests.browser import CHROMIUM, Browser

    if not CHROMIUM:
        pytest.skip("no chromium on PATH: apt-get install chromium runs this test")
    with contextlib.closing(Browser(tmp_path / "profile")) as opened:
        yield opened
