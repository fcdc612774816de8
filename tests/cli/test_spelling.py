"""Messages name fields; the command line shows its options."""

import pytest

from dreamsr.cli.spelling import OPTIONS, as_typed
from dreamsr.errors import UsageError
from dreamsr.upscaling.sizes import Size
from tests.test_readme import COMMAND, leaf_commands

FOREIGN = {"mixed_precision"}
"""Of launchers."""


@pytest.mark.parametrize(
    ("message", "typed"),
    [
        ("`scale` is 17", "--scale is 17"),
        ("choose `if_exists` skip, or another `output`.", "choose --if-exists skip, or another -o."),
        ("`timeout_s`: too short", "--command-timeout: too short"),
        ("`scale`.png and `unheard_of` stay, as does `dreamsr upscale`", None),
    ],
)
def test_fields_become_options(message: str, typed: str | None) -> None:
    assert as_typed(message) == (typed or message)


def test_every_field_is_an_option_of_some_command() -> None:
    known = {
        opt
        for _, command in leaf_commands(COMMAND)
        for param in command.params
        for opt in (*param.opts, *param.secondary_opts)
    }
    assert {OPTIONS[name] for name in OPTIONS.keys() - FOREIGN} <= known


def test_python_reads_the_name_that_python_knows() -> None:
    with pytest.raises(UsageError, match=r"^`scale` is 17, but it must be above 1"):
        Size(scale=17)
