"""`python -m tests.attack` in every run, and what else hostile files must not do."""

from __future__ import annotations

import json
import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest

from dreamsr.bench import report
from dreamsr.cli import main
from dreamsr.errors import DownloadError, TrainingError
from dreamsr.training.results.checkpoints import read_state
from dreamsr.weights.token import may_have_token, redirected
from tests import attack


def test_no_attack_writes_anything_or_gets_a_token(tmp_path: Path) -> None:
    findings = attack.attack(tmp_path)
    assert findings.broken == []
    assert len(findings.said) == len(attack.MIRRORS) + len(attack.REPORTS) + 4 + len(attack.VISITS)
    assert "sends more than the" in findings.said["mirror: endless"]
    assert "no sound safetensors" in findings.said["mirror: HTML"]
    assert "not safe to follow" in findings.said["mirror: file:"]
    refused = {name: said[:3] for name, said in findings.said.items() if name.startswith("visit: ")}
    assert list(refused.values())[:6] == ["403"] * 6
    assert refused["visit: too large unannounced"] == refused["visit: announced too large"] == "400"


def test_the_snapshot_sees_what_is_written(tmp_path: Path) -> None:
    findings = attack.Findings()
    attack.judged(findings, "x", tmp_path / "x", lambda at: str((at / "victim" / ".bashrc").write_text("theirs")))
    assert findings.broken == ["x: something outside the cache was written or changed"]


@pytest.mark.parametrize(
    ("url", "endpoint", "plain", "opted_in"),
    [
        ("https://huggingface.co/a", "https://huggingface.co", True, True),
        ("https://huggingface.co.evil.org/a", "https://huggingface.co", False, False),
        ("https://mirror.org/a", "https://mirror.org", False, True),
        ("https://cdn.org/a", "https://mirror.org", False, False),
        ("http://mirror.org/a", "http://mirror.org", False, False),
        ("http://huggingface.co/a", "http://huggingface.co", False, False),
        ("http://127.0.0.1:8/a", "http://127.0.0.1:8", False, True),
        ("http://127.0.0.1:9/a", "http://127.0.0.1:8", False, False),
    ],
)
def test_where_the_token_may_go(
    monkeypatch: pytest.MonkeyPatch, url: str, endpoint: str, plain: bool, opted_in: bool
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", endpoint)
    monkeypatch.delenv("DREAMSR_SEND_TOKEN", raising=False)
    assert may_have_token(url) is plain
    monkeypatch.setenv("DREAMSR_SEND_TOKEN", "1")
    assert may_have_token(url) is opted_in


def test_redirects_never_leave_https() -> None:
    assert redirected("https://a.org/x", "/y") == "https://a.org/y"
    assert redirected("https://a.org/x", "https://cdn.org/y") == "https://cdn.org/y"
    for target in (
        "http://a.org/x",
        "http://127.0.0.1/x",
        "file:///etc/passwd",
        "ftp://a.org/x",
        "https://[x",
    ):
        with pytest.raises(DownloadError, match="not safe to follow"):
            redirected("https://a.org/x", target)


def test_commands_of_a_report_are_shown_and_not_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "report.json"
    command = f"touch {tmp_path}/owned {{input}} {{output}}"
    request = {"data": [str(tmp_path)], "commands": [["tool", command]]}
    path.write_text(json.dumps({**attack.WHOLE, "request": request}))
    assert main(["bench", "--check", str(path)]) != 0
    said = capsys.readouterr().err.replace("\n", "")
    assert "touch" in said
    assert "--run-commands" in said
    assert not (tmp_path / "owned").exists()
    assert main(["bench", "--check", str(path), "--run-commands"]) != 0  # the folder has no pictures
    assert "nothing was run" not in capsys.readouterr().err


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return print, ("owned",)


def test_a_refused_checkpoint_gives_no_advice_to_load_it(tmp_path: Path) -> None:
    path = tmp_path / "step-000001.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(Evil(), protocol=2))
        archive.writestr("archive/version", "3\n")
        archive.writestr("archive/byteorder", "little")
    with pytest.raises(TrainingError) as caught:
        read_state(path)
    assert "refused" in str(caught.value)
    assert "weights_only" not in str(caught.value)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@x", "\tx", "\rx"])
def test_csv_texts_are_no_formulas(text: str) -> None:
    line = {"image": text, "method": "m", "psnr_y": -1.5}
    environment = dict.fromkeys(("device", "threads", "torch", "dreamsr", "date"), "x")
    protocol = {"name": "p", "small_image": "bicubic", "scale": 4}
    content = {"images": [line], "protocol": protocol, "environment": environment, "weights": [], "command_line": text}
    written = report.to_csv(content).decode()
    assert f"'{text}" in written
    assert ",-1.5," in written
