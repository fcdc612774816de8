"""What the READMEs (the root's, and one on the door of each room) and the errors promise must hold."""

import dataclasses
import re
import shlex
import tomllib
from pathlib import Path

import pytest
import typer

from dreamsr import errors
from dreamsr.bench.protocol import PROTOCOLS
from dreamsr.cli import app
from dreamsr.config import from_mapping
from dreamsr.data.recipes import DEGRADATIONS, degradation_names
from dreamsr.data.settings import PhotoConfig
from dreamsr.measure.metrics import METRICS
from dreamsr.pictures.picture import FORMATS
from dreamsr.training.presets import preset_names
from dreamsr.training.resuming import MAY_CHANGE
from dreamsr.upscaling.plan import POLICIES
from dreamsr.weights.registry import WeightsEntry

ROOT = Path(__file__).resolve().parent.parent
READMES = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for path in [ROOT / "README.md", *sorted((ROOT / "dreamsr").rglob("README.md"))]
}
ROOMS = sorted(path.parent.name for path in (ROOT / "dreamsr").glob("*/__init__.py"))
DOORS = {"upscale": "upscaling/", "serve": "serving/", "finetune": "training/", "train": "training/", "doctor": ""}
"""Where a command's options stand, if not in the room of its name."""
COMMAND = typer.main.get_command(app)


def code_blocks(text, language):
    parts = re.split(r"^```(\w*)$", text, flags=re.MULTILINE)  # text, "sh", code, "", text, ...
    return [code for kind, code in zip(parts[1::4], parts[2::4], strict=True) if kind == language]


def code_lines(text):
    return [line.strip() for block in code_blocks(text, "sh") for line in block.splitlines() if line.strip()]


def own_lines():
    """The arguments of every command line of ours in any README, cut at pipes, comments and `&&`."""
    for line in (line for text in READMES.values() for line in code_lines(text)):
        for part in re.split(r"&&|\|", line):
            words = shlex.split(part, comments=True)
            if "dreamsr" in words[1:]:  # behind torchrun or accelerate
                words = words[words.index("dreamsr") :]
            if words and Path(words[0]).name == "dreamsr":
                yield words[1:]


def leaf_commands(command, path=()):
    inner = getattr(command, "commands", None)
    if inner is None:
        yield path, command
        return
    for name, child in inner.items():
        yield from leaf_commands(child, (*path, name))


@pytest.mark.parametrize("arguments", list(own_lines()), ids=" ".join)
def test_every_line_of_the_readmes_parses(arguments):
    command, name = COMMAND, "dreamsr"
    while getattr(command, "commands", None) is not None:
        name, arguments = arguments[0], arguments[1:]
        command = command.commands[name]
    with command.make_context(name, list(arguments)) as context:  # parses, checks types, runs nothing
        assert context.params


@pytest.mark.parametrize(
    ("path", "command"), list(leaf_commands(COMMAND)), ids=lambda x: " ".join(x) if isinstance(x, tuple) else ""
)
def test_every_command_has_help_and_stands_in_a_readme_with_its_options(path, command):
    assert command.help
    assert all(getattr(p, "help", None) for p in command.params if p.name != "help"), path
    shown = {tuple(arguments[: len(path)]) for arguments in own_lines()}
    assert path in shown
    place = f"dreamsr/{DOORS.get(path[0], path[0] + '/')}README.md"
    options = {tuple(p.opts) for p in command.params if p.param_type_name == "option" and p.name != "help"}
    missing = [names for names in options if not any(names_option(READMES[place], name) for name in names)]
    assert not missing, f"{place} does not say what these are for"


def names_option(text, name):
    return re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", text)


@pytest.mark.parametrize("room", ROOMS)
def test_every_room_has_a_readme_on_its_door_and_stands_in_the_house(room):
    assert f"dreamsr/{room}/README.md" in READMES
    assert f"({room}/README.md)" in READMES["dreamsr/README.md"]


@pytest.mark.parametrize("place", READMES)
def test_links_lead_somewhere(place):
    for target in re.findall(r"\]\((?!https?://)([^)\s]+)\)", READMES[place]):
        path, _, heading = target.partition("#")
        found = ((ROOT / place).parent / path).resolve()
        assert found.exists(), target
        assert not heading or heading in headings(READMES[found.relative_to(ROOT).as_posix()]), target


def headings(text):
    """As links name them."""
    titles = re.findall(r"^#+ (.*)$", text, flags=re.MULTILINE)
    return [re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles]


@pytest.mark.parametrize("place", READMES)
def test_examples_in_python_and_toml_are_sound(place):
    for code in code_blocks(READMES[place], "python"):
        compile(code, place, "exec")
    for code in code_blocks(READMES[place], "toml"):
        from_mapping(PhotoConfig, tomllib.loads(code), source=place)


@pytest.mark.parametrize(
    ("room", "names"),
    [
        ("training", [name for name in preset_names() if not name.endswith("-tiny")]),
        ("training", MAY_CHANGE),
        ("data", (*DEGRADATIONS, *degradation_names())),
        ("bench", PROTOCOLS),
        (
            "weights",
            [field.name for field in dataclasses.fields(WeightsEntry) if field.name not in ("name", "metrics")],
        ),
        ("upscaling", POLICIES),
    ],
)
def test_what_can_be_chosen_stands_in_the_readme_of_its_room(room, names):
    text = READMES[f"dreamsr/{room}/README.md"]
    assert [name for name in names if f"`{name}`" not in text] == []


def test_the_house_tells_the_import_contract_as_it_is_held():
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layered = [contract for contract in contracts if contract["type"] == "layers"]
    assert layered
    for contract in layered:
        (room,) = contract.get("containers", ["dreamsr"])
        told = " ".join(READMES[f"{room.replace('.', '/')}/README.md"].split())
        assert f"`{' > '.join(contract['layers']).replace('dreamsr.', '')}`" in told


def test_every_metric_stands_in_the_readme_of_measure():
    rows = re.findall(r"^\| (.*?) \|", READMES["dreamsr/measure/README.md"], re.M)
    named = [title for row in rows for title in row.removesuffix(", dB").split(", ")]
    assert {metric.title for metric in METRICS.values()} <= set(named)


def test_every_format_stands_in_the_readme_of_upscaling_with_its_endings():
    text = READMES["dreamsr/upscaling/README.md"]
    assert all(f"| {' '.join(endings)} |" in text for endings in FORMATS.values())


def test_the_readme_has_its_two_commands():
    assert sum(line.startswith("python3 -m venv") for line in code_lines(READMES["README.md"])) == 2


def subclasses(kind):
    return {kind} | {inner for child in kind.__subclasses__() for inner in subclasses(child)}


@pytest.mark.parametrize(
    "kind", sorted(subclasses(errors.DreamsrError) - {errors.DreamsrError}, key=lambda k: k.__name__)
)
def test_every_error_is_raised_somewhere_and_stands_in_the_tree(kind):
    source = "".join(path.read_text() for path in (ROOT / "dreamsr").rglob("*.py") if path.name != "errors.py")
    assert (
        f"raise {kind.__name__}(" in source or f"= {kind.__name__}(" in source or f"return {kind.__name__}(" in source
    )
    assert kind.__name__ in errors.__doc__
