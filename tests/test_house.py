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
from itertools import combinations, pairwise
from pathlib import Path

import grimp

from dreamsr.cli.spelling import FIELD, OPTIONS
from dreamsr.measure.metrics import METRICS

PACKAGE = Path(__file__).parents[1] / "dreamsr"
MODULES = sorted(PACKAGE.rglob("*.py"))
FOLDERS = sorted({path.parent for path in MODULES})

MAX_FILES = 18

MAX_SHARE_PERCENT = 16.0
LARGE_ROOMS: dict[str, float] = {}

OPTION = re.compile(r"(?<![\w-])--[a-z]")
COMMAND_LINE = re.compile(r"\b(dreamsr|torchrun|accelerate) [a-z-]+ [^`\n]*")
"""Something to type as it stands, options and all: in documents, and where a program is started."""

OWN_JSON = {
    "config.py",  # below disk.py, and the next three: texts for pydantic, TOML and the header of safetensors
    "bench/check.py",
    "weights/registry.py",
    "weights/file.py",
    "bench/store.py",  # whose figures stay numbers, infinite ones too
    "measure/cost.py",  # beside disk.py: a word from one process to another
}

FILE_NAME = re.compile(r"(?<![\w./<{-])((?:[\w-]+/)*[\w-]+\.py)\b")
"""A module as prose names it: from the folder that it stands in, or from one above."""


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


def sentences(tree: ast.Module, *, docstrings: bool = True) -> Iterator[str]:
    """Every string of a module, f-strings whole, with … for what is filled in."""
    inner = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    if not docstrings:
        inner |= {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield "".join(part.value if isinstance(part, ast.Constant) else "…" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inner:
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
    assert {name: count for name, count in held.items() if count > MAX_FILES} == {}


def test_no_two_files_of_a_folder_share_a_prefix() -> None:
    shared = [
        (name_of(one), name_of(other))
        for folder in FOLDERS
        for one, other in combinations(sorted(folder.glob("[!_]*.py")), 2)
        if "_" in one.stem and "_" in other.stem and one.stem.split("_")[0] == other.stem.split("_")[0]
    ]
    assert shared == []


def test_a_public_class_has_a_name_of_its_own() -> None:
    """Nor does a type alias bear it; cli/ calls the types of its options as it likes."""
    classes: defaultdict[str, list[str]] = defaultdict(list)
    aliases: defaultdict[str, list[str]] = defaultdict(list)
    for path in MODULES:
        for node in tree_of(path).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                classes[node.name].append(name_of(path))
            if isinstance(node, ast.Assign) and "TypeVar(" not in ast.unparse(node.value):
                aliases[ast.unparse(node.targets[0])].append(name_of(path))
    below = {name: found for name, found in aliases.items() if any(not place.startswith("cli/") for place in found)}
    assert {name: found for name, found in classes.items() if len(found) > 1} == {}
    assert {name: (classes[name], below[name]) for name in classes.keys() & below.keys()} == {}


def test_no_option_is_spelled_below_the_command_line() -> None:
    """Errors name fields in backticks, as Python knows them, and cli/spelling.py turns these into options."""
    spelled = {
        (name_of(path), text)
        for path in MODULES
        if not name_of(path).startswith("cli/")
        for text in sentences(tree_of(path))
        if OPTION.search(COMMAND_LINE.sub("", text))
    }
    assert spelled == set()


def test_the_command_line_has_an_option_for_every_field_that_a_message_names() -> None:
    named = {
        name
        for path in MODULES
        if not name_of(path).startswith("cli/")
        for text in sentences(tree_of(path), docstrings=False)
        for name in FIELD.findall(text)
    }
    assert named <= OPTIONS.keys()


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


def test_json_is_read_and_written_in_one_place() -> None:
    others = {name_of(path) for path in MODULES if re.search(r"^import json$", path.read_text("utf-8"), re.M)}
    assert others == {"disk.py", *OWN_JSON}


def test_every_room_has_a_readme() -> None:
    rooms = {folder for folder in FOLDERS if folder.parent == PACKAGE}
    assert {name_of(room) for room in rooms if not (room / "README.md").is_file()} == set()


def test_the_ways_through_the_house_are_as_short_as_its_readme_says() -> None:
    graph = grimp.build_graph("dreamsr", exclude_type_checking_imports=False)
    text = (PACKAGE / "README.md").read_text(encoding="utf-8").split("## Ways through it\n")[1].split("\n## ")[0]
    ways = [" ".join(part.split()) for part in text.split("\n- ")[1:3]]
    assert [re.findall(r"`dreamsr (\w+)`", way)[0] for way in ways] == ["upscale", "train"]
    for way in ways:
        places = re.findall(r"\[`[\w/]+\.py`\]\(([\w/]+)\.py\)", way)
        for upper, lower in pairwise(f"dreamsr.{place.replace('/', '.')}" for place in places):
            assert graph.direct_import_exists(importer=upper, imported=lower), (upper, lower)
        (hops,) = re.findall(r"(\d) hops to", way)
        assert len(places) - 1 == int(hops) <= (4 if "`dreamsr upscale`" in way else 3)
        for name, place in re.findall(r"`(\w+)` of \[`([\w/]+\.py)`\]", way):
            defined = {
                node.name for node in tree_of(PACKAGE / place).body if isinstance(node, ast.ClassDef | ast.FunctionDef)
            }
            assert name in defined, (name, place)
    assert "`dreamsr.upscale` begins with `Upscaler`: 2 hops" in ways[0]
    assert graph.direct_import_exists(importer="dreamsr", imported="dreamsr.upscaling.upscaler")
