"""Who types has one name, whatever the command and the environment."""

import json

from calidrift_agent._command_line import run
from calidrift_analyzer.cli._person import user_name

CONFIG = """
[models.net]
factory = "user:factory"
example_inputs = "user:example_inputs"
calibration = "user:calibration"
evaluate = "user:evaluate"
"""


def test_orders_and_remarks_have_the_same_author(tmp_path, monkeypatch, capsys):
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.setenv(name, "somebody-else")
    path = tmp_path / "calidrift.toml"
    path.write_text(CONFIG, encoding="utf-8")
    for words in (
        ["jobs", "freeze", "net", "--note", "audit week"],
        ["mute", "net", "--for", "1h", "--reason", "a test drive"],
        ["mark", "net", "a new client"],
    ):
        assert run([*words, "--config", str(path)]) == 0, capsys.readouterr().err
    capsys.readouterr()

    assert run(["jobs", "audit", "--json", "--config", str(path)]) == 0

    entries = json.loads(capsys.readouterr().out)["items"]
    assert {entry["action"] for entry in entries} >= {"freeze", "mute"}
    assert {entry["actor"] for entry in entries} == {user_name()}
