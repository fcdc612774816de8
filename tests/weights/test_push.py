"""From a training run to the Hub and back: the same bytes, the same pictures, a card that tells the truth."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from dreamsr.cli import main
from dreamsr.config import from_mapping, to_mapping
from dreamsr.core.model import ModelConfig
from dreamsr.errors import OutputError, UsageError, WeightsError
from dreamsr.publishing import publish
from dreamsr.publishing.publish import About, stage, write_stage
from dreamsr.training.config import DreamConfig, TrainConfig
from dreamsr.upscaling.upscaler import Upscaler
from dreamsr.weights.file import load_weights, save_weights
from dreamsr.weights.registry import parse_registry
from tests.conftest import TINY
from tests.weights.hub_server import TOKEN, Fault, Hub, Repo

ROOT = Path(__file__).parents[2]
ABOUT = About("apache-2.0", "CC0 photos", "CC0-1.0")
SAID = ("--licence", "apache-2.0", "--data", "CC0 photos", "--data-licence", "CC0-1.0")

COMMAND = """
import sys
from pathlib import Path
from dreamsr.weights import registry
registry.registry_file = lambda: Path(sys.argv[1])
from dreamsr.cli import main
sys.exit(main(sys.argv[2:]))
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny_weights: Path) -> Path:
    """A folder as `dreamsr train` leaves it."""
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    folder.mkdir()
    config = TrainConfig(model=TINY, dream=DreamConfig(power=1.0, start=10), max_steps=200, seed=7)
    facts = {"dreamsr": "0.1.0", "torch": "2.13", "data": "ab" * 32, "device": "cpu"}
    facts |= {"train": to_mapping(config), "steps": 200, "default_steps": 2}
    state = load_weights(tiny_weights).net.state_dict()
    save_weights(folder / "model.safetensors", state, TINY, facts=facts, dtype=torch.float32)
    (folder / "config.json").write_text(json.dumps({"train": to_mapping(config)}))
    return folder


@pytest.fixture(scope="module")
def staged(run: Path) -> Any:
    return stage(run, "user/photo", ABOUT)


class Shell:
    """Commands in processes of their own, with one cache."""

    def __init__(self, folder: Path, hub: Hub) -> None:
        self.folder, self.hub = folder, hub
        self.toml = folder / "weights.toml"
        self.toml.write_text("")

    def python(self, code: str, *arguments: str, **changes: str) -> subprocess.CompletedProcess[str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith("HF_") and "proxy" not in k.lower()}
        environment = {
            **kept,
            "HF_ENDPOINT": self.hub.url,
            "HF_HOME": str(self.folder / "home"),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_ETAG_TIMEOUT": "3",
            "HF_HUB_DOWNLOAD_TIMEOUT": "3",
            "HF_TOKEN": TOKEN,
            "DREAMSR_SEND_TOKEN": "1",  # the server is on loopback, not the Hub
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(ROOT),
            **changes,
        }
        command = [sys.executable, "-c", code, *arguments]
        return subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=250, cwd=self.folder, check=False
        )

    def dreamsr(self, *arguments: str, **changes: str) -> subprocess.CompletedProcess[str]:
        return self.python(COMMAND, str(self.toml), *arguments, **changes)


@pytest.fixture
def shell(tmp_path: Path, hub: Hub) -> Shell:
    return Shell(tmp_path, hub)


def enlarged(weights: Path) -> np.ndarray[Any, Any]:
    low = np.random.default_rng(0).integers(0, 256, (12, 10, 3), dtype=np.uint8)
    result = Upscaler(weights, "cpu", precision="fp32")(low, 4, steps=2, seed=3)
    return np.asarray(result)


PRETRAINED = """
import sys, torch
from pathlib import Path
from dreamsr.publishing.hub_model import HubModel
from dreamsr.weights.file import load_weights
model = HubModel.from_pretrained("user/photo")
own = load_weights(Path(sys.argv[1]))
assert model.config == own.config and model.facts == own.facts
assert not model.training
for key, value in own.net.state_dict().items():
    assert torch.equal(model.net.state_dict()[key], value)
low = torch.linspace(-1, 1, 3 * 6 * 5).reshape(1, 3, 6, 5)
large = model(low, steps=2)
assert large.shape == (1, 3, 24, 20) and torch.equal(large, HubModel(own.config, own.net)(low, steps=2))
model.push_to_hub("user/again", private=True)
again = HubModel.from_pretrained("user/again", revision="main")
assert torch.equal(again(low, steps=2), large)
model.save_pretrained("folder")
assert torch.equal(HubModel.from_pretrained("folder")(low, steps=2), large)
"""


def test_what_is_pushed_is_pulled_and_enlarges_the_same(shell: Shell, hub: Hub, run: Path) -> None:
    pushed = shell.dreamsr("weights", "push", str(run), "user/photo", *SAID, "--name", "photo-x4", "--private")
    assert pushed.returncode == 0, pushed.stderr
    (entry,) = parse_registry(pushed.stdout, source="printed").values()
    repo = hub.repos["user/photo"]
    ((commit, files),) = repo.commits
    assert repo.private
    assert (entry.name, entry.repo, entry.revision, entry.steps) == ("photo-x4", "user/photo", commit, 2)
    assert sorted(files) == ["README.md", "config.json", "model.safetensors", "sample.png"]
    content = (run / "model.safetensors").read_bytes()
    assert files["model.safetensors"] == content
    assert from_mapping(ModelConfig, json.loads(files["config.json"]), source="config.json") == TINY

    shell.toml.write_text(pushed.stdout)
    pulled = shell.dreamsr("weights", "pull", "photo-x4", "user/photo")
    assert pulled.returncode == 0, pulled.stderr
    assert "fetching" in pulled.stderr
    by_name, by_reference = map(Path, pulled.stdout.splitlines())
    assert by_name.read_bytes() == by_reference.read_bytes() == content
    want = enlarged(run)
    assert np.array_equal(enlarged(by_name), want)

    asked = len(hub.requests)
    listed = shell.dreamsr("weights", "list", "--json", HF_HUB_OFFLINE="1")
    assert json.loads(listed.stdout)["state"] == "cached"
    assert "photo-x4: ok" in shell.dreamsr("weights", "verify", HF_HUB_OFFLINE="1").stdout
    assert len(hub.requests) == asked


def test_from_pretrained_and_push_to_hub_work_on_what_was_pushed(
    shell: Shell, hub: Hub, run: Path, staged: Any
) -> None:
    hub.commit("user/photo", dict(staged.files))
    used = shell.python(PRETRAINED, str(run / "model.safetensors"))
    assert used.returncode == 0, used.stderr
    assert hub.repos["user/again"].private
    assert "library_name: dreamsr" in hub.repos["user/again"].commits[-1][1]["README.md"].decode()


UPLOAD = """
import sys
from dreamsr.errors import OutputError
from dreamsr.weights.push import upload
try:
    upload(sys.argv[1], {"README.md": b"a"}, private="private" in sys.argv, message="m")
except OutputError as error:
    print(error)
assert "torch" not in sys.modules
"""

REFUSED: dict[str, tuple[str, dict[str, str], tuple[str, ...], str]] = {
    "no token": ("user/photo", {"HF_TOKEN": ""}, (), "without a token"),
    "wrong token": ("user/new", {"HF_TOKEN": "hf_wrong"}, (), "HF_TOKEN"),
    "offline": ("user/photo", {"HF_HUB_OFFLINE": "1"}, (), "HF_HUB_OFFLINE is set"),
    "public": ("user/photo", {}, ("private",), "exists and is public"),
    "dead": ("user/photo", {"HF_ENDPOINT": "http://127.0.0.1:9"}, (), "cannot be reached"),
    "no repository": ("photo", {}, (), "must be user/repo"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_uploaded_is_told_in_one_line(shell: Shell, hub: Hub, name: str) -> None:
    hub.repos["user/photo"] = Repo()
    repo, environment, options, reason = REFUSED[name]
    answer = shell.python(UPLOAD, repo, *options, **environment)
    assert answer.returncode == 0, answer.stderr
    (message,) = answer.stdout.splitlines()
    assert reason in message
    assert not any(repo.commits for repo in hub.repos.values())


def test_a_push_without_a_token_is_refused_before_any_work(shell: Shell, run: Path) -> None:
    answer = shell.dreamsr("weights", "push", str(run), "user/photo", *SAID, HF_TOKEN="")
    assert answer.returncode == 1
    (line,) = answer.stderr.splitlines()
    assert line.startswith("error: ")
    assert "without a token" in line
    assert answer.stdout == ""


def test_a_failing_server_is_told_by_pull(shell: Shell, hub: Hub) -> None:
    hub.fault = Fault(status=500)
    answer = shell.dreamsr("weights", "pull", "user/photo")
    assert answer.returncode == 1
    assert answer.stderr.splitlines() == [line for line in answer.stderr.splitlines() if line.startswith("error: ")]
    assert "the server failed (500)" in answer.stderr


# Without a network: what is staged


def test_the_card_tells_what_the_run_was(staged: Any) -> None:
    card = staged.files["README.md"].decode()
    head, body = card.removeprefix("---\n").split("\n---\n", 1)
    for part in ("library_name: dreamsr", "license: apache-2.0", "pipeline_tag: image-to-image", "- DREAM"):
        assert part in head
    for part in (
        "CC0 photos",
        "CC0-1.0",
        "power p = 1, from step 10",
        "200 steps",
        "Seed 7",
        "Not measured yet",
        "dreamsr upscale photo.jpg -s 4 --steps 2 --weights user/photo",
        "sample.png",
        staged.entry.sha256,
        "evidence",
    ):
        assert part in body
    assert "More Information Needed" not in card


def test_plain_training_and_unknown_licences_are_named(run: Path) -> None:
    weights = load_weights(run / "model.safetensors")
    path = run.parent / "plain.safetensors"
    facts = {"train": to_mapping(TrainConfig(model=TINY))}
    save_weights(path, weights.net.state_dict(), TINY, facts=facts, dtype=torch.float16)
    card = stage(path, "user/photo", replace(ABOUT, licence="My-Own")).files["README.md"].decode()
    assert "not used (plain training)" in card
    assert "license: other\nlicense_name: my-own" in card


def test_the_sample_shows_three_pictures(staged: Any, run: Path, tmp_path: Path) -> None:
    (tmp_path / "sample.png").write_bytes(staged.files["sample.png"])
    with Image.open(tmp_path / "sample.png") as picture:
        assert picture.size == (3 * 384, 384)
        picture.crop((768, 0, 969, 147)).convert("L").save(tmp_path / "photo.png")
    own = stage(run, "user/photo", replace(ABOUT, sample=tmp_path / "photo.png"))
    (tmp_path / "own.png").write_bytes(own.files["sample.png"])
    with Image.open(tmp_path / "own.png") as picture:
        assert picture.size == (3 * 200, 144)


def test_the_card_names_the_damage_that_was_trained_on(staged: Any, run: Path, tmp_path: Path) -> None:
    assert staged.entry.degradation == "MATLAB bicubic, 8 bit"
    weights = load_weights(run / "model.safetensors")
    facts = {**weights.facts, "train": {**weights.facts["train"], "degradation": "photo"}}
    path = tmp_path / "photo.safetensors"
    save_weights(path, weights.net.state_dict(), TINY, facts=facts, dtype=torch.float32)
    damaged = stage(path, "user/photo", ABOUT)
    assert "compression" in damaged.entry.degradation
    assert damaged.entry.degradation in damaged.files["README.md"].decode()


def test_a_stage_is_the_repository_and_its_table(staged: Any, run: Path, tmp_path: Path) -> None:
    write_stage(staged, tmp_path / "stage")
    assert (tmp_path / "stage" / "model.safetensors").read_bytes() == (run / "model.safetensors").read_bytes()
    (entry,) = parse_registry((tmp_path / "stage" / "weights.toml").read_text(), source="stage").values()
    assert not entry.published, "no repository holds it yet"
    with pytest.raises(OutputError, match="not an empty folder"):
        write_stage(staged, tmp_path / "stage")
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="not an empty folder"):
        write_stage(staged, tmp_path / "file")


def test_the_place_of_a_stage_is_looked_at_before_anything_is_computed(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(publish, "stage", lambda *_: pytest.fail("computed"))
    (tmp_path / "file").write_text("")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    for place, words in (
        ("file", "not an empty folder"),
        ("full", "not an empty folder"),
        ("file/in", "below the file"),
    ):
        assert main(["weights", "push", str(run), "user/photo", *SAID, "--stage", str(tmp_path / place)]) == 1
        assert words in capfd.readouterr().err
    assert (tmp_path / "full" / "notes.txt").read_text() == "mine"


def report(sha256: str) -> dict[str, Any]:
    row = {"dataset": "Set5", "method": "mine", "images": 5, "steps": 4, "seed": 0, "psnr_y": 30.12348, "ssim_y": 0.9}
    row |= dict.fromkeys(("psnr_rgb", "lpips_alex", "lpips_vgg", "lr_psnr", "colour_error"))
    return {
        "format": "dreamsr-bench-1",
        "weights": [{"name": "mine", "sha256": sha256, "device": "cpu", "dtype": "float32"}],
        "protocol": {"summary": "full images", "small_image": "bicubic, 8 bit", "border_px": 4},
        "environment": {"torch": "2.13", "dreamsr": "0.1.0"},
        "rows": [row, {**row, "method": "bicubic"}],
    }


def test_metrics_come_from_a_report_about_these_very_weights(staged: Any, run: Path, tmp_path: Path) -> None:
    path = tmp_path / "bench.json"
    path.write_text(json.dumps(report(staged.entry.sha256)))
    measured = stage(run, "user/photo", replace(ABOUT, metrics=path))
    (metric,) = measured.entry.metrics
    assert metric["dataset"] == "Set5 (5 images)"
    assert (metric["psnr_y"], metric["steps"], metric["seed"]) == (30.1235, 4, 0)
    card = measured.files["README.md"].decode()
    assert "| Set5 (5 images) | full images; small images: bicubic, 8 bit; 4 px border shaved; cpu float32" in card
    assert "model-index:" in card
    path.write_text(json.dumps(report("0" * 64)))
    with pytest.raises(UsageError, match="measured other weights"):
        stage(run, "user/photo", replace(ABOUT, metrics=path))


@pytest.mark.parametrize(
    "text", ["{", "[]", "3", '{"dataset": "a"}', '{"format": "dreamsr-bench-1"}', '[{"dataset": 1, "protocol": 2}]']
)
def test_wrong_metrics_are_refused(run: Path, tmp_path: Path, text: str) -> None:
    path = tmp_path / "metrics.json"
    path.write_text(text)
    with pytest.raises(UsageError):
        stage(run, "user/photo", replace(ABOUT, metrics=path))


def test_impossible_publications_are_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="must be user/repo"):
        stage(run, "photo", ABOUT)
    with pytest.raises(UsageError, match="no such run"):
        stage(tmp_path / "none", "user/photo", ABOUT)
    with pytest.raises(WeightsError, match=r"holds no model\.safetensors"):
        stage(tmp_path, "user/photo", ABOUT)
    with pytest.raises(UsageError, match="`name`"):
        stage(run, "user/photo", replace(ABOUT, name="A b"))
    with pytest.raises(UsageError, match="licence is empty"):
        stage(run, "user/photo", replace(ABOUT, licence=" "))
    Image.new("RGB", (20, 20)).save(tmp_path / "small.png")
    with pytest.raises(UsageError, match="photo of 32 px or more"):
        stage(run, "user/photo", replace(ABOUT, sample=tmp_path / "small.png"))
