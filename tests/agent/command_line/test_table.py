"""How commands join the table."""

from dataclasses import dataclass

import pytest

from calidrift_agent._command_line import Command, CommandTable
from calidrift_agent._command_line._table import joined
from calidrift_agent.errors import ConfigurationError


@dataclass
class Point:
    """An entry point that is not installed."""

    name: str
    register: object

    def load(self):
        if isinstance(self.register, Exception):
            raise self.register
        return self.register


def command(name):
    return Command(name=name, summary=f"{name}s.", load=lambda: lambda invocation: None)


def test_commands_keep_the_order_in_which_they_joined():
    table = joined(
        [
            Point("one", lambda table: [table.add(command(name)) for name in ("zeta", "alpha")]),
            Point("two", lambda table: table.add(command("mid"))),
        ]
    )

    assert [one.name for one in table] == ["zeta", "alpha", "mid"]


def test_a_broken_package_loses_its_commands_and_is_named(caplog):
    table = joined(
        [
            Point("broken", ImportError("no module")),
            Point("sound", lambda table: table.add(command("work"))),
        ]
    )

    assert [one.name for one in table] == ["work"]
    assert "the commands of 'broken' cannot be loaded: no module" in caplog.text


def test_a_name_can_be_taken_once():
    table = CommandTable()
    table.add(command("work"))

    with pytest.raises(ConfigurationError, match="two packages bring a command 'work'"):
        table.add(command("work"))


def test_the_installed_analyzer_brings_its_commands():
    assert [one.name for one in joined() if one.extra] == [
        "demo",
        "demo-stack",
        "calibrate",
        "reference",
        "status",
        "coverage",
        "mute",
        "unmute",
        "mutes",
        "mark",
        "marks",
        "select",
        "recalibrate",
        "validate",
        "promote",
        "publish",
        "rollback",
        "store",
        "serve",
        "jobs",
        "dashboards",
    ]


@pytest.mark.parametrize(
    ("words", "found"),
    [(["work", "rest"], "work"), (["--flag", "rest"], "rest"), (["--help"], None), ([], None)],
)
def test_the_first_word_that_is_a_command_is_asked_for(words, found):
    table = CommandTable()
    table.add(command("work"))
    table.add(command("rest"))

    named = table.first_named(words)

    assert (named and named.name) == found


def test_packages_that_are_there_are_no_reason_to_refuse():
    Command(name="w", summary="", load=lambda: print, extra="e", packages=("json",)).require_extra()
