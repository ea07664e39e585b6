"""Outcomes of a command become an exit status and one sentence; streams stay clean."""

import json
import logging
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Annotated

import pytest
import typer

from calidrift_agent import __version__
from calidrift_agent._command_line import Command, CommandTable, run
from calidrift_agent._vocabulary import ExitCode
from calidrift_agent.errors import CalidriftError, ConfigurationError


class Refused(CalidriftError):
    exit_code = ExitCode.REFUSED


def table_of(function, **described):
    table = CommandTable()
    table.add(Command(name="work", summary="Works.", load=lambda: function, **described))
    table.add(Command(name="rest", summary="Rests.", load=broken_load))
    return table


def broken_load():
    raise AssertionError("only the command that was asked for is imported")


def failing(error):
    def work(invocation):
        raise error

    return work


def test_a_command_gets_its_own_and_the_common_options(capsys):
    given = []

    def work(
        invocation,
        layers: Annotated[int, typer.Option(help="How many.")] = 3,
        name: Annotated[str, typer.Argument()] = "all",
    ) -> None:
        given.append((invocation.config, invocation.json, invocation.debug, layers, name))

    table = table_of(work)

    assert run(["work"], table) == 0
    assert (
        run(["work", "--json", "--layers", "5", "--config", "a.toml", "--debug", "x"], table) == 0
    )
    assert given[0] == (None, False, False, 3, "all")
    assert (str(given[1][0]), *given[1][1:]) == ("a.toml", True, True, 5, "x")


def test_help_names_every_option_and_shows_no_placeholder(capsys):
    def work(invocation) -> None:
        """Do the work.

        It takes a while.
        """

    assert run(["work", "--help"], table_of(work)) == 0
    shown = capsys.readouterr().out
    assert "It takes a while." in shown
    assert all(option in shown for option in ("--config", "--json", "--debug", "--help"))


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"]])
def test_the_list_of_commands_imports_none_of_them(words, capsys):
    assert run(words, table_of(lambda invocation: None)) == 0
    shown = capsys.readouterr().out
    assert "Works." in shown
    assert "Rests." in shown


def test_the_version_is_told(capsys):
    assert run(["--version"], CommandTable()) == 0
    assert capsys.readouterr().out == f"calidrift {__version__}\n"


@pytest.mark.parametrize(
    ("error", "status", "told"),
    [
        (ConfigurationError("alpha is 2;\n  allowed is 1"), 2, "alpha is 2; allowed is 1"),
        (Refused("the gate said no"), 1, "the gate said no"),
        (KeyError("conv1"), 3, "internal error: KeyError: 'conv1'; run it again with --debug"),
        (ValueError(), 3, "internal error: ValueError: no message"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (SystemExit(0), 3, "called sys.exit(0)"),
    ],
    ids=["usage", "refused", "internal", "no message", "interrupt", "exit in user code"],
)
def test_every_outcome_is_one_sentence_and_a_status(error, status, told, capsys):
    assert run(["work"], table_of(failing(error))) == status
    written = capsys.readouterr()
    assert written.out == ""
    assert written.err.startswith("calidrift: ")
    assert told in written.err
    assert written.err.count("\n") == 1


def test_debug_shows_the_traceback_above_the_sentence(capsys):
    assert run(["work", "--debug"], table_of(failing(KeyError("conv1")))) == 3
    written = capsys.readouterr().err
    assert "Traceback (most recent call last)" in written
    assert written.splitlines()[-1].startswith("calidrift: internal error: KeyError")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["wrok"], "No such command 'wrok'"),
        (["work", "--layer"], "No such option: --layer"),
        (["work", "--config"], "--config"),
        (["work", "too", "many"], "too"),
    ],
    ids=["command", "option", "value", "argument"],
)
def test_bad_words_are_usage_errors_that_point_to_the_help(words, told, capsys):
    assert run(words, table_of(lambda invocation: None)) == 2
    written = capsys.readouterr().err
    assert told in written
    assert "--help'" in written
    assert written.count("\n") == 1


def test_with_json_an_error_is_the_one_document(capsys):
    assert run(["work", "--json"], table_of(failing(Refused("no")))) == 1
    written = capsys.readouterr()
    error = json.loads(written.out)["error"]
    assert error == {"kind": "Refused", "message": "no", "exit_code": 1}
    assert written.err == "calidrift: no\n"


def test_with_json_a_refusal_keeps_the_document_of_the_command(capsys):
    def work(invocation):
        invocation.emit({"passed": False})
        raise Refused("too much was lost")

    assert run(["work", "--json"], table_of(work)) == 1
    assert json.loads(capsys.readouterr().out) == {"passed": False}


def test_with_json_nothing_else_reaches_standard_output(capsys):
    def work(invocation):
        sys.stdout.write("a library talks\n")
        invocation.emit({"n": 1})

    assert run(["work", "--json"], table_of(work)) == 0
    written = capsys.readouterr()
    assert json.loads(written.out) == {"n": 1}
    assert written.err == "a library talks\n"


def test_without_json_a_document_is_not_written(capsys):
    assert run(["work"], table_of(lambda invocation: invocation.emit({"n": 1}))) == 0
    assert capsys.readouterr().out == ""


def test_two_documents_are_a_defect(capsys):
    def work(invocation):
        invocation.emit({})
        invocation.emit({})

    assert run(["work", "--json"], table_of(work)) == 3


@pytest.mark.parametrize(("words", "shown"), [(["work"], False), (["work", "--debug"], True)])
def test_the_log_goes_to_standard_error_and_is_left_as_it_was(words, shown, capsys):
    log = logging.getLogger("calidrift_agent.somewhere")
    before = logging.getLogger("calidrift_agent").handlers[:]

    def work(invocation):
        log.info("small talk")
        log.warning("look here")

    assert run(words, table_of(work)) == 0
    written = capsys.readouterr()
    assert "look here" in written.err
    assert ("small talk" in written.err) is shown
    assert written.out == ""
    assert logging.getLogger("calidrift_agent").handlers == before


def test_a_missing_extra_is_told_before_anything_is_imported(capsys):
    table = CommandTable()
    table.add(
        Command(
            name="work",
            summary="",
            load=broken_load,
            extra="analyzer",
            packages=("json", "no_such_package_anywhere"),
        )
    )

    assert run(["work", "--anything"], table) == 2
    assert capsys.readouterr().err == (
        "calidrift: 'calidrift work' needs no_such_package_anywhere, not installed here; install "
        'the extra that brings it: pip install "calidrift[analyzer]"\n'
    )


# What only a whole process can show.

PROGRAM = textwrap.dedent(
    """
    import os, signal, subprocess, sys
    from calidrift_agent._command_line import Command, CommandTable, _run
    def work(invocation):
        {body}
    table = CommandTable()
    table.add(Command(name="work", summary="", load=lambda: work))
    _run.joined = lambda: table
    _run.main()
    """
)


def process(body, *words, stdout=subprocess.PIPE):
    return subprocess.run(
        [sys.executable, "-c", PROGRAM.format(body=body), "work", *words],
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
        check=False,
    )


def test_with_json_a_child_and_a_library_below_python_cannot_soil_the_document():
    body = "subprocess.run(['echo', 'child']); os.write(1, b'raw'); invocation.emit({'n': 1})"
    ended = process(body, "--json")

    assert ended.returncode == 0
    assert json.loads(ended.stdout) == {"n": 1}
    assert "child" in ended.stderr
    assert "raw" in ended.stderr


@pytest.mark.parametrize("words", [(), ("--json",)], ids=["text", "json"])
def test_a_reader_that_goes_away_ends_the_command_quietly(words):
    reading, writing = os.pipe()
    os.close(reading)
    try:
        body = "sys.stdout.write('x' * 100000); invocation.emit({'n': 1})"
        ended = process(body, *words, stdout=writing)
    finally:
        os.close(writing)

    assert ended.returncode == 128 + signal.SIGPIPE
    assert "Error" not in ended.stderr
    assert "rror:" not in ended.stderr


def test_another_broken_pipe_is_an_internal_error():
    body = "r, w = os.pipe(); os.close(r); os.write(w, b'x')"

    ended = process(body)

    assert ended.returncode == 3
    assert "another process closed its end of a pipe" in ended.stderr


def test_sigterm_unwinds_and_ends_with_the_status_of_the_shell():
    body = (
        "\n    try:\n        os.kill(os.getpid(), signal.SIGTERM)\n"
        "    finally:\n        sys.stdout.write('cleaned up')"
    )

    ended = process(body)

    assert ended.returncode == 128 + signal.SIGTERM
    assert ended.stdout == "cleaned up"
    assert ended.stderr == "calidrift: ended by SIGTERM\n"


def test_ctrl_c_ends_with_the_status_of_the_shell():
    ended = process("os.kill(os.getpid(), signal.SIGINT)")

    assert ended.returncode == 130
    assert ended.stderr == "calidrift: interrupted\n"


@pytest.mark.parametrize(("words", "shown"), [((), False), (("--debug",), True)])
def test_warnings_of_libraries_are_for_developers(words, shown):
    ended = process("import warnings; warnings.warn('old', FutureWarning)", *words)

    assert ended.returncode == 0
    assert ("FutureWarning" in ended.stderr) is shown


@pytest.mark.parametrize(
    ("closed", "words", "status"),
    [
        (">&-", "--version", 0),
        (">&-", "nope", 2),
        (">&-", "nope --json", 2),
        ("2>&-", "nope --json", 2),
        (">&- 2>&- <&-", "nope --json", 2),
        (">/dev/full", "nope --json", 2),
    ],
)
def test_closed_and_full_streams_change_no_exit_status(closed, words, status):
    main = "from calidrift_agent._command_line import main; main()"
    line = f'exec "$0" -c "{main}" {words} {closed}'
    ended = subprocess.run(
        ["sh", "-c", line, sys.executable], capture_output=True, text=True, check=False
    )
    assert ended.returncode == status
    assert "Traceback" not in ended.stderr
    assert "internal error" not in ended.stderr


def test_a_document_that_finds_no_room_is_one_sentence():
    with Path("/dev/full").open("w") as full:
        ended = process("invocation.emit({'n': 1})", "--json", stdout=full)
    assert ended.returncode == 2
    assert "cannot be written to standard output" in ended.stderr
    assert "Traceback" not in ended.stderr
