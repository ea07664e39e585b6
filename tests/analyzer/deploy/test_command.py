"""A command as a hook: what it gets, what becomes of it, and nothing of it stays behind."""

import hashlib
import threading
import time
from pathlib import Path

import pytest

from calidrift_analyzer.deploy import _courier, check_hook, serving
from calidrift_analyzer.errors import ConfigurationError

DEADLINE = 30.0
CHILD = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
open("child.pid", "w").write(str(child.pid))
print("started", flush=True)
"""


def wait_for(condition):
    until = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < until, "it never came to that"
        time.sleep(0.01)


def gone(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except (FileNotFoundError, ProcessLookupError):
        return True
    return stat.rsplit(")", 1)[1].split()[0] in "ZX"


def test_a_promotion_reaches_the_command_by_variables(shop, monkeypatch):
    monkeypatch.setenv("CALIDRIFT_TOKENS", "ci:promote:0123456789abcdef")
    shop.script("print('deployed')")
    first = shop.promote()
    shop.deliver()
    second = shop.promote()

    ended = shop.deliver()

    manifest = shop.contract.registry / "net" / "versions" / second / "manifest.json"
    one, two = shop.notes()
    assert one["CALIDRIFT_PREVIOUS"] == ""
    assert {name: two[f"CALIDRIFT_{name}"] for name in ("MODEL", "VERSION", "PREVIOUS")} == {
        "MODEL": "net",
        "VERSION": second,
        "PREVIOUS": first,
    }
    assert two["CALIDRIFT_ACTION"] == "promote"
    assert two["CALIDRIFT_REGISTRY"] == str(shop.contract.registry)
    assert two["CALIDRIFT_MANIFEST_SHA256"] == hashlib.sha256(manifest.read_bytes()).hexdigest()
    assert two["CALIDRIFT_IDEMPOTENCY_KEY"] == ended.key != one["CALIDRIFT_IDEMPOTENCY_KEY"]
    assert two["argv"] == ["an argument; $HOME"], "no shell reads it"
    assert two["cwd"] == str(shop.root)
    assert "CALIDRIFT_TOKENS" not in two, "secrets of the analyzer stay with it"
    assert (ended.state, ended.attempts, ended.output) == ("delivered", 1, "deployed")
    assert [row.outcome for row in shop.audit()] == ["done", "done"]


def test_a_rollback_reaches_it_too(shop):
    shop.script()
    first, second = shop.promote(), shop.promote()
    shop.deliver()

    shop.roll_back()
    shop.deliver()

    told = shop.notes()[-1]
    assert (told["CALIDRIFT_ACTION"], told["CALIDRIFT_VERSION"]) == ("rollback", first)
    assert told["CALIDRIFT_PREVIOUS"] == second


def test_one_that_fails_is_given_up_and_the_move_stands(shop):
    shop.script("print('x' * 10_000); print('no room', file=sys.stderr); sys.exit(3)")
    version = shop.promote()

    ended = shop.deliver()

    assert ended.state == "failed"
    assert "ended with status 3" in ended.sentence
    assert "the move stands" in ended.sentence
    assert "calidrift jobs deploy net" in ended.sentence
    assert "no room" in ended.output
    assert len(ended.output) <= 4_096, "the end of it is kept"
    assert serving(shop.contract) == version
    [row] = shop.audit()
    assert (row.outcome, row.subject) == ("refused", version)
    assert shop.deliver() is None, "it is not tried again"
    assert len(shop.notes()) == 1


def test_status_75_is_tried_again(shop):
    shop.script("sys.exit(75 if not os.path.exists('ready') else 0)\n")
    text = (shop.root / "hook.py").read_text(encoding="utf-8")
    again = "if os.path.exists('once'): open('ready', 'w')\nopen('once', 'w')\n"
    (shop.root / "hook.py").write_text(text.replace("sys.exit(75", again + "sys.exit(75"))
    shop.promote()

    ended = shop.deliver()

    assert (ended.state, ended.attempts) == ("delivered", 2)
    assert len({one["CALIDRIFT_IDEMPOTENCY_KEY"] for one in shop.notes()}) == 1


def test_after_a_bounded_time_it_is_given_up(shop):
    shop.script("sys.exit(75)", give_up_seconds=0.2)
    shop.promote()

    ended = shop.deliver()

    assert ended.state == "failed"
    assert "gave up after 0.2 seconds" in ended.sentence
    assert ended.attempts == len(shop.notes()) >= 1


def test_at_the_timeout_the_whole_group_ends(shop):
    shop.script(CHILD + "time.sleep(600)", timeout_seconds=2.0)
    shop.promote()

    ended = shop.deliver()

    assert ended.state == "failed"
    assert "did not end within 2 seconds" in ended.sentence
    pid = int((shop.root / "child.pid").read_text())
    wait_for(lambda: gone(pid))


def test_what_it_leaves_behind_ends_with_it(shop):
    shop.script(CHILD)
    shop.promote()

    ended = shop.deliver()

    assert (ended.state, ended.output) == ("delivered", "started")
    pid = int((shop.root / "child.pid").read_text())
    wait_for(lambda: gone(pid))


def test_a_command_that_is_not_there_is_told_when_it_runs(shop):
    shop.hook(command=("no-such-program-here",))
    shop.promote()

    ended = shop.deliver()

    assert ended.state == "failed"
    assert "cannot be started (No such file or directory)" in ended.sentence
    with pytest.raises(ConfigurationError, match=r"\[models.net.deploy\] is not there"):
        check_hook(shop.contract)


def test_one_that_is_killed_is_told_by_its_signal(shop):
    shop.script("os.kill(os.getpid(), 9)")
    shop.promote()

    assert "was ended by SIGKILL" in shop.deliver().sentence


def test_it_ends_with_the_service_and_runs_again_with_the_next(shop):
    shop.script("import time\nif not os.path.exists('ready'): time.sleep(600)")
    shop.promote()
    courier = shop.courier()
    courier.start()
    wait_for(shop.notes)

    courier.stop(timeout=DEADLINE)

    assert shop.states() == ["pending"], "nothing was found out about it"
    (shop.root / "ready").touch()
    ended = threading.Event()
    courier = shop.courier(on_end=lambda row: ended.set())
    courier.start()
    assert ended.wait(DEADLINE)
    courier.stop(timeout=DEADLINE)
    assert shop.states() == ["delivered"]
    assert len({one["CALIDRIFT_IDEMPOTENCY_KEY"] for one in shop.notes()}) == 1
    assert len(shop.notes()) == 2


STUBBORN = """
import signal, subprocess, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
open("hook.pid", "w").write(str(os.getpid()))
open("at-work", "w").close()
time.sleep(600)
"""


def test_one_that_will_not_end_does_not_outlive_the_service(shop, monkeypatch):
    monkeypatch.setattr(_courier, "_FORCED_SECONDS", DEADLINE)
    shop.script(STUBBORN)
    shop.promote()
    courier = shop.courier()
    courier.start()
    wait_for((shop.root / "at-work").exists)
    pid = int((shop.root / "hook.pid").read_text())

    courier.halt()
    assert not gone(pid), "it is asked first"
    courier.stop(timeout=0.0)

    assert not courier._thread.is_alive()
    assert gone(pid)
    assert shop.states() == ["pending"], "it is told again after the next start"
