"""What people and machines see of an answer."""

import json

import pytest

from calidrift_agent._command_line import Command, CommandTable, run
from calidrift_analyzer.cli._output import Output, number, share


def shown(work, *words):
    table = CommandTable()
    table.add(Command(name="work", summary="", load=lambda: work))
    return run(["work", *words], table)


def answer(invocation):
    output = Output(invocation)
    output.note("reading [conv1] windows")
    with output.progress("measuring") as step:
        step("measuring [fc]", 1, 2)
        step("done", 2, 0)
    output.show("2 points [bold] of digits")
    output.table(
        "Worst point first",
        ("point", "coverage", "units", "verdict", "dB"),
        [
            ("layer1.conv:input", share(0.5), 1234, "drifted_harmful", None),
            ("layer2[0].fc:input", share(1.0), 8, "not_drifted", -12.34567),
        ],
    )
    output.document({"points": 2, "coverage": [0.5, float("nan")], "json": output.json})


def test_people_get_a_table_on_standard_output(capsys):
    assert shown(answer) == 0
    written = capsys.readouterr()
    assert "2 points [bold] of digits" in written.out
    assert "layer2[0].fc:input" in written.out
    assert "1,234" in written.out
    assert "-12.3" in written.out
    assert "50 %" in written.out
    assert written.err == "reading [conv1] windows\n"


def test_machines_get_one_document_on_standard_output(capsys):
    assert shown(answer, "--json") == 0
    written = capsys.readouterr()
    assert json.loads(written.out) == {"points": 2, "coverage": [0.5, None], "json": True}
    assert written.err == "reading [conv1] windows\n"


def test_numbers_stand_to_the_right_and_words_to_the_left(capsys):
    def work(invocation):
        rows = [("a", 1), ("bbb", 1000)]
        Output(invocation).table("T", ("name", "count"), rows)

    shown(work)
    lines = [line for line in capsys.readouterr().out.splitlines() if "│" in line][-2:]
    assert lines == ["│ a    │     1 │", "│ bbb  │ 1,000 │"]


def test_progress_is_drawn_on_a_terminal_only(capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")

    assert shown(answer, "--json") == 0
    written = capsys.readouterr()
    assert "measuring" in written.err
    assert json.loads(written.out)["points"] == 2


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        (float("inf"), "-"),
        (0, "0"),
        (0.0, "0"),
        (1234567, "1,234,567"),
        (1234.0, "1,234"),
        (0.000123456, "0.000123"),
    ],
)
def test_numbers_for_people(value, text):
    assert number(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "-"), (0.0, "0 %"), (0.0312, "3.12 %"), (0.99999, "<100 %"), (1.0, "100 %")],
)
def test_shares_for_people(value, text):
    assert share(value) == text


def test_truth_values_are_words(capsys):
    shown(lambda invocation: Output(invocation).table("T", ("ok",), [(True,), (False,)]))

    written = capsys.readouterr().out
    assert "yes" in written
    assert "no" in written
