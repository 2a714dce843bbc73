"""The pages in a real browser: they load without complaint, follow light and dark, and update by themselves."""

import base64
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from atoll.ids import run_id
from atoll.session import Member, MemberState
from atoll.slots import Slots
from atoll.states import SessionState
from tests.e2e import browser
from tests.e2e.browser import Tab
from tests.fakes.plane import NOW
from tests.federation.served import Served, served

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(
        browser.found() is None and not os.environ.get("CI"), reason="no Chromium here: apt-get install chromium"
    ),
]


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Served]:
    async with served(tmp_path / "server") as running:
        yield running


@pytest.fixture
async def tab(tmp_path: Path, server: Served) -> AsyncIterator[Tab]:
    await server.plane.furnish()
    link = (await server.good("POST", "/v1/login:link")).url
    async with browser.tab(tmp_path / "profile") as made:
        await made.open(link)
        await made.until("document.title.startsWith('Overview')")
        yield made


async def test_the_overview_loads_and_updates_by_itself(server: Served, tab: Tab) -> None:
    await tab.until("document.getElementById('pulse').textContent === 'live'")
    assert await tab.run("document.querySelectorAll('progress').length") >= 2
    assert not await tab.run("document.body.innerText.includes('fresh-one')")
    await server.submit(name="fresh-one")
    await tab.until("document.body.innerText.includes('fresh-one')", 5)
    assert await tab.run("document.querySelector('.tile.warm b').textContent") == "1"
    assert tab.complaints == []


async def test_pages_follow_light_and_dark(tab: Tab) -> None:
    grounds, inks = [], []
    for scheme in ("light", "dark"):
        await tab.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        style = "getComputedStyle(document.documentElement)"
        grounds.append(await tab.run(f"{style}.backgroundColor"))
        inks.append(await tab.run(f"{style}.color"))
    light, dark = (brightness(value) for value in grounds)
    assert light > 200 > 60 > dark
    assert brightness(inks[0]) < 80 < 180 < brightness(inks[1])


async def test_a_session_page_tails_its_output_and_state(server: Served, tab: Tab) -> None:
    view = await server.submit(name="job", command=["python3", "train.py"])
    row = await server.plane.sessions.get("default", view.id)
    await tab.open(f"{server.url}/sessions/job")
    member = Member(rank=0, agent="a-1", slots=Slots(1000), state=MemberState.RUNNING, started_at=NOW)
    row = await server.plane.change(row, state=SessionState.RUNNING, attempt=1, started_at=NOW, members=(member,))
    await tab.until("document.querySelector('h1 .badge').textContent === 'running'")
    run = run_id(row.id, 1, 0)
    await server.plane.logs.write(run, "out", 0, "epoch 1 äöü <b>\n".encode())
    server.plane.bus.publish(f"log:{run}")
    await tab.until("document.getElementById('log').textContent.includes('epoch 1 äöü <b>')")
    assert tab.complaints == []


async def test_pages_can_be_used_with_the_keyboard(tab: Tab) -> None:
    seen = []
    for _ in range(4):
        await tab.key("Tab", 9)
        seen.append(await tab.run("document.activeElement.textContent.trim()"))
    assert seen == ["Skip to content", "Atoll", "Overview", "Sessions"]
    assert await tab.run("getComputedStyle(document.activeElement).outlineStyle") == "solid"


async def test_a_stranger_sees_how_to_log_in(server: Served, tab: Tab) -> None:
    await tab.call("Network.clearBrowserCookies")
    await tab.open(server.url + "/sessions")
    await tab.until("document.title.startsWith('Log in')")
    assert "atoll open" in await tab.run("document.body.innerText")


async def test_pictures_for_people(server: Served, tab: Tab, tmp_path: Path) -> None:
    """With ATOLL_PICTURES=DIR the pages are kept as pictures, light and dark; always, they must not be blank."""
    for name in ("train-7b", "notebook"):
        view = await server.submit(name=name, apps={"web": 0})
        row = await server.plane.sessions.get("default", view.id)
        member = Member(rank=0, agent="a-1", slots=Slots(1000), state=MemberState.RUNNING, started_at=NOW)
        await server.plane.change(row, state=SessionState.RUNNING, attempt=1, started_at=NOW, members=(member,))
    folder = Path(os.environ.get("ATOLL_PICTURES") or tmp_path)
    await tab.call("Emulation.setDeviceMetricsOverride", width=1200, height=1000, deviceScaleFactor=1, mobile=False)
    for path in ("/", "/sessions", "/sessions/notebook"):
        await tab.open(server.url + path)
        for scheme in ("light", "dark"):
            await tab.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
            picture = base64.b64decode((await tab.call("Page.captureScreenshot", format="png"))["data"])
            (folder / f"{path.strip('/').replace('/', '-') or 'overview'}-{scheme}.png").write_bytes(picture)
            assert len(picture) > 15_000


def brightness(color: str) -> float:
    """Return the mean of the channels of `rgb(r, g, b)`."""
    channels = [float(part) for part in color.partition("(")[2].rstrip(")").split(",")[:3]]
    return sum(channels) / 3
