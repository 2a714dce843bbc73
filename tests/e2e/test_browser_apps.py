"""Jupyter and TensorBoard as people have them: real servers in sessions, used through the gateway in a real browser."""

import asyncio
import json
import os
import shlex
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.e2e import browser
from tests.e2e.browser import Tab
from tests.e2e.installation import ROOT, Installation
from tests.e2e.test_readme import commands

APPS = ROOT / ".venv-apps" / "bin"
CI = bool(os.environ.get("CI"))
pytestmark = [
    pytest.mark.e2e,
    pytest.mark.slow,
    pytest.mark.skipif(browser.found() is None and not CI, reason="no Chromium here: apt-get install chromium"),
    pytest.mark.skipif(not APPS.exists() and not CI, reason="no .venv-apps here: make .venv-apps/.installed"),
]
SHARED = pytest.mark.xdist_group("browser apps")
SCALARS = """
import sys
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.event_file_writer import EventFileWriter
writer = EventFileWriter(sys.argv[1])
for step in range(20):
    value = Summary.Value(tag="loss", simple_value=1 / (step + 1))
    writer.add_event(Event(step=step, wall_time=1.8e9 + step, summary=Summary(value=[value])))
writer.close()
"""
NOTEBOOK = {
    "cells": [
        {"cell_type": "code", "id": "a", "source": "print(6*7)", "metadata": {}, "outputs": [], "execution_count": None}
    ],
    "metadata": {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}},
    "nbformat": 4,
    "nbformat_minor": 5,
}
STARTED = {line.split()[4]: shlex.split(line)[-1] for line in commands(ROOT / "docs" / "apps.md") if " --app " in line}
"""The commands of the manual, by their sessions' names."""
LAB = STARTED["nb"] + " --allow-root --expose-app-in-browser --ServerApp.port_retries=0"
BOARD = STARTED["tb"].replace("--logdir runs", "--logdir .")
CARD = "document.querySelector('scalar-card')"


@contextmanager
def installed(folder: Path, **env: str) -> Iterator[Installation]:
    """Start an installation whose sessions find the apps, and end both."""
    path = f"{APPS}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    with Installation(folder, env={"PATH": path, "HOME": str(folder), **env}) as installation:
        installation.up()
        try:
            yield installation
        finally:
            installation.call("down", "--sessions")  # servers end when told, not by themselves


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    with installed(tmp_path_factory.mktemp("apps"), ATOLL_APPS__PUBLIC="true") as made:
        yield made


@pytest.fixture
async def tab(tmp_path: Path) -> AsyncIterator[Tab]:
    async with browser.tab(tmp_path / "profile") as made:
        await made.call("Emulation.setFocusEmulationEnabled", enabled=True)  # Jupyter does nothing in the background
        yield made


def start(installation: Installation, name: str, app: str, command: str, folder: Path) -> str:
    """Start a session with an app; return the link that opens it once it answers."""
    installation.atoll(
        "run", "--detach", "--name", name, "--app", app, "--workdir", str(folder), "--", "sh", "-c", command
    )
    installation.wait([name], ["running"])
    return installation.atoll("open", name, app.partition(":")[0]).strip()


@SHARED
async def test_a_notebook_runs_in_jupyter_lab(installation: Installation, tab: Tab, tmp_path: Path) -> None:
    link = start(installation, "nb", "lab", LAB, tmp_path)
    await evaluated(tab, link, tmp_path)
    assert "grant" not in await tab.run("location.href + document.cookie")

    await tab.run("void window.jupyterapp.commands.execute('terminal:create-new')")
    await tab.until("document.querySelector('.jp-Terminal textarea') !== null", 60)
    written = tmp_path / "typed"
    async with asyncio.timeout(60):
        while not written.exists():  # the shell may not read yet
            await tab.run("document.querySelector('.jp-Terminal textarea').focus()")
            await tab.call("Input.insertText", text="echo $((6*9)) > typed")
            await tab.key("Enter", 13, "\r")
            await asyncio.sleep(0.5)
    assert written.read_text() == "54\n"


@SHARED
async def test_tensorboard_draws_a_scalar_for_its_owner_then_for_everyone(
    installation: Installation, tab: Tab, tmp_path: Path
) -> None:
    write_scalars(tmp_path)
    await drawn(tab, start(installation, "tb", "board", BOARD, tmp_path))
    address = installation.atoll("share", "tb", "board", "--public").strip()
    await tab.call("Network.clearBrowserCookies")
    await drawn(tab, address)
    installation.atoll("share", "tb", "board", "--off")
    await tab.open(address)
    await tab.until("document.body.innerText.includes('you are not logged in')")


async def test_both_below_paths_of_one_name(tab: Tab, tmp_path: Path) -> None:
    write_scalars(tmp_path)
    with installed(tmp_path, ATOLL_APPS__PATH_MODE="true") as installation:
        below = f"{LAB} --ServerApp.base_url=/apps/$ATOLL_SESSION/lab/"
        lab = start(installation, "nb", "lab:prefix", below, tmp_path)
        board = start(installation, "tb", "board", BOARD, tmp_path)
        assert lab.startswith(f"http://localhost:{installation.port}/apps/")
        await drawn(tab, board)
        await evaluated(tab, lab, tmp_path)


def write_scalars(folder: Path) -> None:
    subprocess.run([APPS / "python", "-c", SCALARS, str(folder / "run")], check=True, capture_output=True)


async def drawn(tab: Tab, link: str) -> None:
    """Open TensorBoard, and see its scalars."""
    await opened(tab, link, "document.title === 'TensorBoard'")
    await tab.open(f"{link.partition('?')[0]}?darkMode=false#timeseries")
    await tab.until(f"{CARD}?.innerText.includes('loss') && {CARD}.querySelector('canvas, path') !== null", 60)
    cells = f"[...{CARD}.querySelectorAll('td, .cell, tb-data-table-content-cell')].map(each => each.innerText.trim())"
    await tab.until(f"{cells}.includes('0.05') && {cells}.includes('19')", 60)  # the last of its twenty values


async def evaluated(tab: Tab, link: str, folder: Path) -> None:
    """Open a notebook in Jupyter Lab, have it run, and see what it printed."""
    (folder / "six.ipynb").write_text(json.dumps(NOTEBOOK))
    await opened(tab, link, "document.title.includes('JupyterLab')")
    await tab.open(f"{link.partition('?')[0]}lab/tree/six.ipynb")
    kernel = "window.jupyterapp.shell.currentWidget.sessionContext.session.kernel"
    await tab.until(f"{kernel}.connectionStatus === 'connected' && {kernel}.status === 'idle'", 60)
    await tab.run("void window.jupyterapp.commands.execute('notebook:run-all-cells')")
    await tab.until("document.querySelector('.jp-OutputArea-output')?.textContent.trim() === '42'", 60)


async def opened(tab: Tab, link: str, seen: str) -> None:
    """Load a link, again while the app is still starting, until what it shows is there."""
    async with asyncio.timeout(60):
        await tab.open(link)
        while await tab.run("document.body.innerText.includes('ATOLL · 503')"):
            await asyncio.sleep(0.3)
            await tab.open(link)
    await tab.until(seen, 60)
