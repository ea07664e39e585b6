"""What importing costs the host: no file, socket, thread or process, and no heavy package.

Each check runs in a fresh interpreter and is shown able to fail on a planted module.
"""

import json
import subprocess
import sys
import textwrap

import pytest

# Modules of the standard library read what they need (time zones, certificates) while *they* are
# imported; what counts is a file that is neither Python code nor looked up by the import system.
WATCHER = textwrap.dedent(
    """
    import json, sys, threading
    seen = []
    def hook(event, arguments):
        if event == "open":
            path = str(arguments[0])
            if not path.endswith((".py", ".pyc", ".so", ".zip")) and ".pyc." not in path:
                seen.append(f"open {path}")
        elif event.startswith(("socket.", "subprocess.", "os.system", "os.fork", "os.exec")):
            seen.append(event)
    def start(*arguments, original=threading._start_new_thread, **options):
        seen.append("thread")
        return original(*arguments, **options)
    threading._start_new_thread = start
    names = sys.argv[2:]
    sys.path.insert(0, sys.argv[1])
    sys.addaudithook(hook)
    for name in names:
        __import__(name)
    print(json.dumps({"seen": seen, "modules": sorted(sys.modules)}))
    """
)

LIGHT = [
    *("_sketch", "_profile", "_state", "_capture", "_export", "_registry", "_environment"),
    "_sidecar",
]
HEAVY = {
    "torch",
    "torchao",
    "duckdb",
    "typer",
    "rich",
    "pydantic",
    "scipy",
    "sklearn",
    "matplotlib",
}


def imported(*names, path=""):
    run = subprocess.run(
        [sys.executable, "-c", WATCHER, str(path), *names],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    found = json.loads(run.stdout)
    return found["seen"], set(found["modules"])


@pytest.mark.parametrize("face", ["calidrift_agent", "calidrift_analyzer"])
def test_importing_a_package_has_no_effect_and_loads_nothing_heavy(face):
    seen, loaded = imported(face)

    assert seen == []
    assert loaded & (HEAVY | {"numpy"}) == set()


def test_reading_state_sketches_and_profiles_needs_no_torch():
    seen, loaded = imported(*(f"calidrift_agent.{name}" for name in LIGHT))

    assert [event for event in seen if not event.startswith("open /")] == []
    assert loaded & (HEAVY | {"calidrift_analyzer"}) == set()


def test_the_lazy_face_loads_the_reader_without_torch():
    run = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys, calidrift_agent as c; c.StateReader, c.MagnitudeSketch, "
            "c.CalibrationProfile, c.open_version; print('torch' in sys.modules)",
        ],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )

    assert run.stdout.strip() == "False"


def test_the_commands_are_listed_without_importing_them():
    _, loaded = imported("calidrift_agent._command_line", "calidrift_analyzer.cli")

    assert loaded & {"torch", "torchao", "duckdb", "scipy", "sklearn", "matplotlib"} == set()


@pytest.mark.parametrize(
    ("text", "effect"),
    [
        ("open('/etc/hostname').close()", "open /etc/hostname"),
        ("import threading; threading.Thread(target=int).start()", "thread"),
        ("import socket; socket.socket().close()", "socket.__new__"),
        ("import subprocess; subprocess.run(['true'])", "subprocess.Popen"),
    ],
    ids=["file", "thread", "socket", "process"],
)
def test_the_watcher_sees_a_planted_effect(text, effect, tmp_path):
    (tmp_path / "planted_effect.py").write_text(text, encoding="utf-8")

    seen, _ = imported("planted_effect", path=tmp_path)

    assert effect in seen


def test_the_watcher_sees_a_planted_heavy_import(tmp_path):
    (tmp_path / "planted_import.py").write_text("import rich", encoding="utf-8")

    _, loaded = imported("planted_import", path=tmp_path)

    assert loaded & HEAVY == {"rich"}
