"""Every command that is registered exists, documents itself, and takes the common options."""

import json

import pytest

from calidrift_agent._command_line import CommandTable, run
from calidrift_analyzer.cli import register


def commands():
    table = CommandTable()
    register(table)
    return list(table)


@pytest.mark.parametrize("command", commands(), ids=lambda command: command.name)
def test_a_command_loads_and_documents_itself(command, capsys):
    status = run([command.name, "--help"])

    shown = capsys.readouterr().out
    function = command.load()
    assert status == 0
    assert function.__name__ == command.name.replace("-", "_")
    assert function.__doc__.splitlines()[0] in " ".join(shown.split())
    assert all(option in shown for option in ("--config", "--json", "--debug"))


@pytest.mark.parametrize(
    "command",
    [command for command in commands() if not command.name.startswith("demo")],  # they bring theirs
    ids=lambda command: command.name,
)
def test_a_bad_configuration_is_told_by_every_command(command, tmp_path, capsys):
    path = tmp_path / "calidrift.toml"
    path.write_text("[analyser]\n", encoding="utf-8")

    status = run([command.name, "--json", "--config", str(path)])

    written = capsys.readouterr()
    assert status == 2
    assert "did you mean 'analyzer'?" in json.loads(written.out)["error"]["message"]
    assert written.err.count("\n") == 1


@pytest.mark.parametrize("command", commands(), ids=lambda command: command.name)
def test_an_unknown_option_is_a_usage_error(command, capsys):
    assert run([command.name, "--no-such-option"]) == 2
    assert f"see 'calidrift {command.name} --help'" in capsys.readouterr().err
