"""Every command shown in the README and the manual is run, as shown, by a shell.

A page's ```console blocks are one script: lines that begin with `$ ` are commands, what follows is output.
A block after `<!-- not run here: WHY -->` is left out; WHY says what runs it instead.
"""

import re
import subprocess
from pathlib import Path

import pytest

from tests.e2e.installation import BIN, ROOT, Installation

pytestmark = [pytest.mark.e2e, pytest.mark.slow]
BLOCK = re.compile(r"(<!-- not run here: (?P<why>[^>]+) -->\n)?```console\n(?P<text>.*?)```", re.DOTALL)
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def commands(page: Path) -> list[str]:
    """Return the commands of a page that are to be run, in order; a line ending in a backslash goes on."""
    found = []
    for block in BLOCK.finditer(page.read_text()):
        if not block["why"]:
            lines = re.sub(r"\\\n", "", block["text"]).splitlines()
            found += [line[2:] for line in lines if line.startswith("$ ")]
    return found


@pytest.mark.parametrize("page", [page for page in PAGES if commands(page)], ids=lambda page: page.stem)
def test_the_commands_of(page: Path, tmp_path: Path) -> None:
    script = "set -e\n" + "".join(f"echo '$ {re.sub(chr(39), '', line)}'\n{line}\n" for line in commands(page))
    with Installation(tmp_path, slots="cpu=2,memory=8GiB") as installation:
        done = subprocess.run(
            ["bash", "-c", script],
            capture_output=True,
            text=True,
            timeout=240,
            cwd=tmp_path,
            env={**installation.environment, "PATH": f"{BIN}:{installation.environment['PATH']}"},
            check=False,
        )
        assert done.returncode == 0, f"{done.stdout[-4000:]}\n{done.stderr[-4000:]}\n{installation.story()}"
        assert "Traceback" not in done.stdout + done.stderr


def test_the_readme_runs_the_main_job() -> None:
    lines = commands(ROOT / "README.md")
    assert any(line.startswith("atoll up --detach") for line in lines)
    assert any("print(6*7)" in line for line in lines)
    assert len(lines) >= 8
