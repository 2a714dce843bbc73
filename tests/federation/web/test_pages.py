"""The pages: who sees them, what they show, and that nothing on them comes from elsewhere or runs inline."""

import re

import pytest

from atoll.session import Member, MemberState
from atoll.slots import Slots
from atoll.states import Reason, SessionState
from federation.api.grants import Purpose
from federation.web import words
from tests.fakes.plane import NOW
from tests.federation.served import SESSIONS, Served

PAGES = ("/", "/sessions", "/sessions/nb")


async def furnish(server: Served) -> None:
    await server.plane.furnish()
    view = await server.submit(name="nb", apps={"web": 0}, command=["echo", "<script>alert(1)</script>"])
    row = await server.plane.sessions.get("default", view.id)
    await server.plane.change(
        row,
        state=SessionState.RUNNING,
        attempt=1,
        started_at=NOW,
        site="local",
        members=(Member(rank=0, agent="a-1", slots=Slots(1000), state=MemberState.RUNNING, started_at=NOW),),
    )
    held = await server.submit(name="big")
    row = await server.plane.sessions.get("default", held.id)
    await server.plane.change(
        row, state=SessionState.HELD, reason=Reason.NO_CAPABLE_SITE, message="no site has 9000 GPUs", hint="ask less"
    )


async def page(server: Served, path: str) -> str:
    async with server.http.get(server.url + path, headers=server.page_cookie()) as answer:
        text = await answer.text()
        assert answer.status == 200, text
        assert answer.content_type == "text/html"
        policy = answer.headers["Content-Security-Policy"]
        assert "script-src 'self'" in policy
        assert "unsafe" not in policy
        return text


async def test_the_overview_shows_sites_queue_spend_links_and_groups(server: Served) -> None:
    await furnish(server)
    text = await page(server, "/")
    assert "1 of 4 cores" in text
    assert "2 of 2 agents" not in text
    assert "1 of 2 agents connected" in text
    assert "attic" in text
    assert "burst" in text
    assert "no site has 9000 GPUs" in text
    assert "0.2000" in text
    assert "(simulated)" in text


async def test_sessions_can_be_narrowed(server: Served) -> None:
    await furnish(server)
    assert "big" in await page(server, "/sessions")
    narrowed = await page(server, "/sessions?state=running")
    assert ">nb</a>" in narrowed
    assert ">big</a>" not in narrowed


async def test_a_session_shows_its_story(server: Served) -> None:
    await furnish(server)
    text = await page(server, "/sessions/nb")
    assert "&lt;script&gt;alert(1)" in text
    assert "<script>alert" not in text
    assert "data-log=" in text
    assert "Open web<" in text
    await server.good("POST", f"{SESSIONS}/nb/apps/web:share", {"access": "project"})
    assert "Open web (project)<" in await page(server, "/sessions/nb")
    assert "cheapest" in text
    assert "too dear" in text
    assert "ask less" in await page(server, "/sessions/big")


async def test_a_session_of_another_shows_neither_output_nor_buttons(server: Served) -> None:
    await furnish(server)
    await server.plane.tokens.create_api("bo")
    headers = server.page_cookie("bo")
    async with server.http.get(server.url + "/sessions/nb", headers=headers) as answer:
        text = await answer.text()
    assert "The output is for ada and administrators" in text
    assert not any(each in text for each in ("data-log=", "Open web", "Stop this session"))
    stop = server.http.post(server.url + "/sessions/nb/stop", headers={**headers, "Origin": server.url})
    async with stop as answer:
        assert answer.status == 403
    assert (await server.plane.sessions.get("default", "nb")).state is not SessionState.CANCELLED


@pytest.mark.parametrize("path", PAGES)
async def test_pages_need_nothing_from_elsewhere(server: Served, path: str) -> None:
    await furnish(server)
    text = await page(server, path)
    for link in re.findall(r'(?:src|href|action)="([^"]*)"', text):
        assert link.startswith(("/", "#")), link
        assert not link.startswith("//")
    assert re.findall(r"<script(?![^>]*\bsrc=)", text) == []
    assert re.findall(r'\son\w+="|\sstyle="', text) == []
    for link in set(re.findall(r'"(/static/[^"]+)"', text)):
        async with server.http.get(server.url + link) as answer:
            assert answer.status == 200


@pytest.mark.parametrize("path", PAGES)
async def test_strangers_read_how_to_log_in(server: Served, path: str) -> None:
    async with server.http.get(server.url + path) as answer:
        assert answer.status == 401
        text = await answer.text()
    assert "atoll open" in text
    assert "big" not in text


async def test_a_login_link_sets_a_cookie_out_of_scripts_reach(server: Served) -> None:
    link = (await server.good("POST", "/v1/login:link")).url
    async with server.http.get(link, allow_redirects=False) as answer:
        assert (answer.status, answer.headers["Location"]) == (303, "/")
        cookie = answer.headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Lax" in cookie
    headers = {"Cookie": cookie.partition(";")[0]}
    async with server.http.get(server.url, headers=headers) as answer:
        assert answer.status == 200
    headers["Origin"] = server.url
    async with server.http.post(server.url + "/logout", headers=headers, allow_redirects=False) as answer:
        assert (answer.status, answer.headers["Location"]) == (303, "/login")


async def test_bad_login_links_are_refused(server: Served) -> None:
    old = server.services.door.grants.issue(Purpose.LOGIN, "ada", ttl_s=-1)
    page_grant = server.services.door.grants.issue(Purpose.PAGE, "ada", ttl_s=60)
    for grant in ("", "x.y", old, page_grant):
        async with server.http.get(f"{server.url}/login?grant={grant}", allow_redirects=False) as answer:
            assert answer.status == 401
            assert "Set-Cookie" not in answer.headers
    good = (await server.good("POST", "/v1/login:link")).url
    async with server.http.get(good, headers={"Host": "rebound.example"}, allow_redirects=False) as answer:
        assert answer.status == 404
        assert "Set-Cookie" not in answer.headers


async def test_the_pages_buttons_work_from_our_own_pages_only(server: Served) -> None:
    await furnish(server)
    url = server.url + "/sessions/nb/stop"
    async with server.http.post(url, headers=server.page_cookie(), allow_redirects=False) as answer:
        assert answer.status == 403
    headers = {**server.page_cookie(), "Origin": server.url}
    async with server.http.post(url, headers=headers, allow_redirects=False) as answer:
        assert answer.status == 303
    assert (await server.plane.sessions.get("default", "nb")).state is SessionState.CANCELLED


async def test_an_app_opens_through_a_fresh_grant(server: Served) -> None:
    await furnish(server)
    url = server.url + "/sessions/nb/apps/web"
    async with server.http.get(url, headers=server.page_cookie(), allow_redirects=False) as answer:
        assert answer.status == 303
        assert answer.headers["Location"].startswith("http://web--s-")
        assert "atoll_grant=" in answer.headers["Location"]


async def test_missing_pages_and_files_are_said_so(server: Served) -> None:
    async with server.http.get(server.url + "/sessions/none", headers=server.page_cookie()) as answer:
        assert answer.status == 404
        assert "there is no session" in await answer.text()
    for name in ("..%2fpages.py", "secret.key", "style.css.map"):
        async with server.http.get(f"{server.url}/static/{name}") as answer:
            assert answer.status == 404


async def test_an_empty_installation_says_what_to_do(server: Served) -> None:
    text = await page(server, "/")
    assert "atoll run" in text
    assert "No sites yet" in text


def test_words() -> None:
    assert [words.money(x) for x in (0, 0.25, 3.5, 1234.5)] == ["0.00", "0.2500", "3.50", "1,234.50"]
    assert [words.size(x) for x in (10, 2048, 3 * 2**30, 5 * 2**40)] == ["10 B", "2.0 KiB", "3.0 GiB", "5.0 TiB"]
    assert [words.span(x) for x in (4.21, 42, 185, 7800, 273600)] == [
        "4.2 s",
        "42 s",
        "3 min 5 s",
        "2 h 10 min",
        "3 d 4 h",
    ]
    assert words.command(["echo", "a b"]) == "echo 'a b'"
