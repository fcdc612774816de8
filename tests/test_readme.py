"""What README.md and the errors promise must hold."""

import re
import shlex
from pathlib import Path

import pytest
import typer

from dreamsr import errors
from dreamsr.cli import app

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()
COMMAND = typer.main.get_command(app)


def code_lines():
    parts = re.split(r"^```(\w*)$", README, flags=re.MULTILINE)  # text, "sh", code, "", text, ...
    blocks = [code for language, code in zip(parts[1::4], parts[2::4], strict=True) if language == "sh"]
    return [line.strip() for block in blocks for line in block.splitlines() if line.strip()]


def own_lines():
    """The arguments of every command line of ours, cut at pipes, comments and `&&`."""
    for line in code_lines():
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
def test_every_line_of_the_readme_parses(arguments):
    command, name = COMMAND, "dreamsr"
    while getattr(command, "commands", None) is not None:
        name, arguments = arguments[0], arguments[1:]
        command = command.commands[name]
    with command.make_context(name, list(arguments)) as context:  # parses, checks types, runs nothing
        assert context.params


@pytest.mark.parametrize(
    ("path", "command"), list(leaf_commands(COMMAND)), ids=lambda x: " ".join(x) if isinstance(x, tuple) else ""
)
def test_every_command_has_help_and_stands_in_the_readme(path, command):
    assert command.help
    assert all(getattr(p, "help", None) for p in command.params if p.name != "help"), path
    shown = {tuple(arguments[: len(path)]) for arguments in own_lines()}
    assert path in shown


def test_the_readme_has_its_two_commands():
    assert sum(line.startswith("python3 -m venv") for line in code_lines()) == 2


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
