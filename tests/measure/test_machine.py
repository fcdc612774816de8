from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import dreamsr.upscaling.upscaler
from dreamsr.measure.machine import code_fingerprint


def module(path: Path) -> ModuleType:
    made = ModuleType("made")
    made.__file__ = str(path)
    return made


def test_a_changed_module_changes_the_fingerprint(tmp_path: Path) -> None:
    source = tmp_path / "tiled.py"
    source.write_text("one = 1")
    modules = {"dreamsr.upscaling.tiled": module(source)}
    before = code_fingerprint(modules)
    assert code_fingerprint(modules) == before
    source.write_text("one = 2")
    assert code_fingerprint(modules) != before


def test_all_that_makes_pictures_counts_and_what_looks_at_them_does_not(tmp_path: Path) -> None:
    source = tmp_path / "x.py"
    source.write_text("")
    assert "dreamsr.upscaling.upscaler" in sys.modules
    assert dreamsr.upscaling.upscaler.__file__
    for name in [n for n in sys.modules if n.startswith("dreamsr.")]:
        less = {n: m for n, m in sys.modules.items() if n != name}
        counts = name.split(".")[1] not in ("cli", "study", "bench", "training", "publishing")
        assert (code_fingerprint(less) != code_fingerprint(dict(sys.modules))) is counts, name


def test_a_module_that_moved_is_another(tmp_path: Path) -> None:
    source = tmp_path / "x.py"
    source.write_text("")
    names = ("dreamsr.core.a", "dreamsr.core.b")
    assert len({code_fingerprint({name: module(source)}) for name in names}) == 2
