"""The first cases of `python -m tests.fuzz`, in every run."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("resource", reason="the fuzzer needs POSIX signals and limits")

from tests import fuzz


@pytest.mark.slow
def test_hostile_pictures_end_in_an_answer_or_one_error(tmp_path: Path) -> None:
    report = fuzz.Report()
    fuzz.fuzz_pictures(600, 0, report, tmp_path)
    assert report.broken == []
    assert report.endings["ok"] > 50
    assert report.endings["ImageError"] > 100


@pytest.mark.slow
def test_hostile_command_lines_end_with_a_known_code(tmp_path: Path) -> None:
    report = fuzz.Report()
    fuzz.fuzz_arguments(150, 0, report, tmp_path)
    assert report.broken == []
    assert set(report.endings) <= {f"exit {code}" for code in fuzz.ALLOWED_CODES}
    assert report.endings["exit 0"] > 0
