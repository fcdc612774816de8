"""The rules of the house: where a thing may stand, how much may stand together, what it may be called.

A rule that does not hold everywhere yet names its exceptions here. An exception that is no longer needed fails, too,
so the lists only shrink.
"""

import ast
import io
import re
import tokenize
from collections import Counter, defaultdict
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path

import grimp

from dreamsr.measure.metrics import METRICS

PACKAGE = Path(__file__).parents[1] / "dreamsr"
MODULES = sorted(PACKAGE.rglob("*.py"))
FOLDERS = sorted({path.parent for path in MODULES})

MAX_FILES = 18
CROWDED = {"training": 25}
"""Folders over the limit, and how many files they may hold until they are divided."""

MAX_SHARE_PERCENT = 16.0
LARGE_ROOMS = {"pictures": 17.0}

SEVERAL_CLASSES = {
    "Plan",
    "Progress",
    "Request",
    "Source",
}
"""Names of public classes that still stand in several modules."""

OPTION = re.compile(r"(?<![\w-])--[a-z]")
"""An option as a user types it; also what looks like one in style sheets and HTML comments."""
OPTIONS_SPELLED = {
    "bench/benchmark.py": 14,
    "bench/check.py": 4,
    "bench/dataset.py": 3,
    "bench/methods.py": 3,
    "bench/page.py": 1,
    "bench/places.py": 7,
    "bench/plots.py": 1,
    "bench/protocol.py": 1,
    "bench/speed.py": 3,
    "bench/weights.py": 1,
    "data/paired.py": 2,
    "data/recipes.py": 1,
    "data/scan.py": 1,
    "data/shrinking.py": 4,
    "data/sources.py": 4,
    "data/stream.py": 2,
    "measure/cost.py": 1,
    "measure/lpips.py": 1,
    "pictures/folders.py": 1,
    "processes.py": 1,
    "publishing/card.py": 2,
    "publishing/metrics.py": 1,
    "publishing/publish.py": 2,
    "training/checkpoints.py": 5,
    "training/finetune.py": 2,
    "training/holdout.py": 2,
    "training/log.py": 1,
    "training/memory.py": 4,
    "training/places.py": 7,
    "training/presets.py": 1,
    "training/resolve.py": 8,
    "training/start.py": 3,
    "training/train.py": 3,
    "training/validation.py": 3,
    "upscaling/files.py": 4,
    "upscaling/naming.py": 1,
    "upscaling/outputs.py": 1,
    "upscaling/plan.py": 6,
    "upscaling/settings.py": 5,
    "upscaling/sizes.py": 5,
    "upscaling/tiled.py": 1,
    "upscaling/upscaler.py": 1,
    "weights/push.py": 1,
    "weights/registry.py": 2,
    "weights/resolve.py": 2,
}
"""Modules below cli/ with an option in their strings, until errors name the field; in how many strings at most."""

FILE_NAME = re.compile(r"(?<![\w./<{-])((?:[\w-]+/)*[\w-]+\.py)\b")
"""A module as prose names it: from the folder that it stands in, or from one above."""

WITHOUT_README = {"cli"}
"""Its commands are told at the rooms that they open."""


def name_of(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def texts(tree: ast.Module) -> Iterator[str]:
    """Every string of a module that is no docstring."""
    prose = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in prose:
            yield node.value


def prose(path: Path) -> Iterator[str]:
    """Docstrings and comments of a module, or the whole of a README."""
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".py":
        yield text
        return
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield node.value.value
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            yield token.string


def test_modules_that_prose_names_are_there() -> None:
    root = PACKAGE.parent
    tests = sorted((root / "tests").rglob("*.py"))
    there = [f"/{path.relative_to(root).as_posix()}" for path in (*MODULES, *tests)]
    places = [*MODULES, *tests, root / "README.md", *sorted(PACKAGE.rglob("README.md"))]
    named = {(path.relative_to(root).as_posix(), name) for path in places for text in prose(path)
             for name in FILE_NAME.findall(text)}  # fmt: skip
    assert len(named) > 50
    assert {(place, name) for place, name in named if not any(path.endswith(f"/{name}") for path in there)} == set()


def test_a_folder_holds_few_files() -> None:
    held = {name_of(folder): len(list(folder.glob("*.py"))) for folder in FOLDERS}
    over = {name: count for name, count in held.items() if count > MAX_FILES}
    assert over.keys() == CROWDED.keys()
    assert all(count <= CROWDED[name] for name, count in over.items()), over


def test_no_two_files_of_a_folder_share_a_prefix() -> None:
    shared = [
        (name_of(one), name_of(other))
        for folder in FOLDERS
        for one, other in combinations(sorted(folder.glob("[!_]*.py")), 2)
        if "_" in one.stem and "_" in other.stem and one.stem.split("_")[0] == other.stem.split("_")[0]
    ]
    assert shared == []


def test_a_public_class_has_a_name_of_its_own() -> None:
    places: defaultdict[str, list[str]] = defaultdict(list)
    for path in MODULES:
        for node in tree_of(path).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places[node.name].append(name_of(path))
    assert {name for name, found in places.items() if len(found) > 1} == SEVERAL_CLASSES


def test_no_option_is_spelled_below_the_command_line() -> None:
    spelled = Counter(
        name_of(path)
        for path in MODULES
        if not name_of(path).startswith("cli/")
        for text in texts(tree_of(path))
        if OPTION.search(text)
    )
    assert spelled.keys() == OPTIONS_SPELLED.keys()
    assert spelled <= Counter(OPTIONS_SPELLED)


def test_no_room_holds_most_of_the_house() -> None:
    lines: Counter[str] = Counter()
    for path in MODULES:
        lines[path.relative_to(PACKAGE).parts[0]] += len(path.read_text(encoding="utf-8").splitlines())
    shares = {name: 100 * count / lines.total() for name, count in lines.items()}
    over = {name: share for name, share in shares.items() if share > MAX_SHARE_PERCENT}
    assert over.keys() == LARGE_ROOMS.keys(), shares
    assert all(share <= LARGE_ROOMS[name] for name, share in over.items()), over


def test_every_metric_stands_in_one_table_alone() -> None:
    repeated = {
        (name_of(path), text)
        for path in MODULES
        if name_of(path) != "measure/metrics.py"
        for text in texts(tree_of(path))
        if text in METRICS
    }
    assert repeated == set()


def test_no_module_imports_itself_by_way_of_others() -> None:
    graph = grimp.build_graph("dreamsr", exclude_type_checking_imports=False)
    graph.remove_module("dreamsr")  # the lazy door: inside, it is imported for the version alone
    left = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    while free := {module for module, imported in left.items() if not imported & left.keys()}:
        left = {module: imported for module, imported in left.items() if module not in free}
    assert sorted(left) == []


def test_every_room_has_a_readme() -> None:
    rooms = {folder for folder in FOLDERS if folder.parent == PACKAGE}
    assert {name_of(room) for room in rooms if not (room / "README.md").is_file()} == WITHOUT_README
