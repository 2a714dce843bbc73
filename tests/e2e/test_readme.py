"""Every command shown in the README and the manual is run, as shown, by a shell.

A page's ```console blocks are one script: lines that begin with `$ ` are commands, what follows is output, or the
command's here-document.
A block after `<!-- not run here: WHY -->` is left out; WHY says what runs it instead.
"""

import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.installation import BIN, ROOT, Installation

pytestmark = [pytest.mark.e2e, pytest.mark.slow]
BLOCK = re.compile(r"(<!-- not run here: (?P<why>[^>]+) -->\n)?```console\n(?P<text>.*?)```", re.DOTALL)
APPS = ".venv-apps/bin"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def commands(page: Path) -> list[str]:
    """Return the commands of a page that are to be run, in order; a line ending in a backslash goes on."""
    found = []
    for block in BLOCK.finditer(page.read_text()):
        if not block["why"]:
            lines = iter(re.sub(r"\\\n", "", block["text"]).splitlines())
            found += [_whole(line[2:], lines) for line in lines if line.startswith("$ ")]
    return found


def _whole(command: str, lines: Iterator[str]) -> str:
    """Return a command with its here-document, if it has one: `<<'END'` and the lines up to `END`."""
    here = re.search(r"<<'(\w+)'", command)
    if here:
        for line in lines:
            command += f"\n{line}"
            if line == here[1]:
                return command
    assert not here, f"the here-document of {command!r} does not end"
    return command


@pytest.mark.parametrize("page", [page for page in PAGES if commands(page)], ids=lambda page: page.stem)
def test_the_commands_of(page: Path, tmp_path: Path) -> None:
    lines = commands(page)
    script = "set -e\n" + "".join(f"echo {n}: {shlex.quote(line)}\n{line}\n" for n, line in enumerate(lines, 1))
    root = tmp_path / ".jupyter" / "jupyter_server_config.json"  # which Jupyter will not run as, unless told
    root.parent.mkdir()
    root.write_text('{"ServerApp": {"allow_root": true}}')
    with Installation(tmp_path, slots="cpu=2,memory=8GiB") as installation:
        path = f"{BIN}:{installation.environment['PATH']}"
        done = subprocess.run(
            ["bash", "-c", script],
            capture_output=True,
            text=True,
            timeout=240,
            cwd=tmp_path,
            env={**installation.environment, "HOME": str(tmp_path), "PATH": f"{path}:{ROOT / APPS}"},
            check=False,
        )
        assert done.returncode == 0, f"{done.stdout[-4000:]}\n{done.stderr[-4000:]}\n{installation.story()}"
        assert "Traceback" not in done.stdout + done.stderr
        assert f"\n{len(lines)}: " in f"\n{done.stdout}", "all of the page was run, to its last command"


def test_the_readme_runs_the_main_job() -> None:
    lines = commands(ROOT / "README.md")
    assert any(line.startswith("atoll up --detach") for line in lines)
    assert any("print(6*7)" in line for line in lines)
    assert len(lines) >= 8
