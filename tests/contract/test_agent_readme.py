"""Every block of Python in the agent's README runs as it stands."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

README = Path(__file__).parents[2] / "agent" / "README.md"
HEADING = re.compile(r"^#{2,3} (.+)$", re.MULTILINE)
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def sections() -> dict[str, str]:
    """Heading to the Python below it."""
    parts = HEADING.split(README.read_text(encoding="utf-8"))[1:]
    return {
        heading: "\n".join(blocks)
        for heading, text in zip(parts[::2], parts[1::2], strict=True)
        if (blocks := BLOCK.findall(text))
    }


def test_every_kind_of_model_and_server_has_a_section():
    text = README.read_text(encoding="utf-8")
    headings = set(HEADING.findall(text))
    assert len(sections()) >= 10
    for link in re.findall(r"\]\(#([^)]+)\)", text):
        anchors = {re.sub(r"[^\w\- ]", "", one.lower()).replace(" ", "-") for one in headings}
        assert link in anchors, f"no heading for #{link}"


@pytest.mark.slow
def test_every_block_runs(tmp_path):
    """In one process, because importing torch takes longer than all of them."""
    found = sections()
    script = "import traceback, sys\nfailed = []\n" + "\n".join(
        f"try:\n    exec(compile({code!r}, {heading!r}, 'exec'), {{'__name__': 'readme'}})\n"
        f"except BaseException:\n    traceback.print_exc(); failed.append({heading!r})"
        for heading, code in found.items()
    )
    script += "\nprint('FAILED', failed)\nsys.exit(bool(failed))\n"
    ended = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout[-500:] + ended.stderr[-3000:]
