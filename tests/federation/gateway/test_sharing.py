"""Whom an app lets in: its owner, its project, everyone; and who is sent out when that changes."""

import asyncio
from contextlib import AsyncExitStack, ExitStack
from dataclasses import replace

import pytest
from aiohttp import ClientError, ClientWebSocketResponse, WSMsgType, WSServerHandshakeError

from atoll.errors import Forbidden, NotFound
from atoll.session import AppAccess, AppRule, Session, SessionSpec
from federation.api.auth import ANYONE, Caller, may_enter
from federation.api.grants import Purpose
from federation.control.sharing import Sharing
from federation.gateway import crowd
from federation.gateway.crowd import Crowd, TooMany
from tests.fakes.plane import FakeClock
from tests.federation.gateway.conftest import App
from tests.federation.served import BEARER, SESSIONS

SHARE = f"{SESSIONS}/nb/apps/web:share"
LINK = f"{SESSIONS}/nb/apps/web:link"


async def bearer(app: App, owner: str, *roles: str) -> dict[str, str]:
    """Make an API token; return its header."""
    _, secret = await app.server.plane.tokens.create_api(owner, roles)
    return {"Authorization": f"Bearer {secret}"}


def cookie(app: App, owner: str) -> dict[str, str]:
    grant = app.server.services.door.grants.issue(Purpose.APP, owner, ttl_s=60, audience=app.row.id)
    return {"Cookie": f"atoll_app={grant}"}


async def status(app: App, headers: dict[str, str]) -> int:
    async with app.ask(auth=False, headers=headers) as answer:
        return int(answer.status)


async def entered(app: App, headers: dict[str, str]) -> ClientWebSocketResponse:
    socket = await app.server.http.ws_connect(
        app.server.url + "/ws", headers={"Host": app.host, "Origin": f"http://{app.host}", **headers}
    )
    assert (await socket.receive()).type is WSMsgType.TEXT
    return socket


@pytest.mark.parametrize("access", AppAccess)
def test_the_rule_of_every_door(access: AppAccess) -> None:
    spec = SessionSpec(command=("x",), apps={"web": 0}, app_rules={"web": AppRule(access=access)})
    row = Session(id="s-1", name="nb", project="lab", owner="ada", spec=spec)
    callers = {
        "owner": Caller("ada"),
        "admin": Caller("root", roles=("admin",)),
        "member": Caller("bo", roles=("member-lab",)),
        "member elsewhere": Caller("cy", roles=("member-default", "lab")),
        "anyone": ANYONE,
    }
    by_app = {name for name, caller in callers.items() if may_enter(caller, row, "web")}
    others = {name for name, caller in callers.items() if may_enter(caller, row)}
    assert others == {"owner", "admin"}, "ports, programs and SSH: whatever an app's access is"
    assert by_app == others | ({"member"} if access is AppAccess.PROJECT else set())
    assert {name for name, caller in callers.items() if may_enter(caller, row, "other")} == others


async def test_a_project_app_lets_its_members_in(app: App) -> None:
    member, stranger = await bearer(app, "bo", "member-default"), await bearer(app, "cy", "member-other")
    for who in (member, stranger, cookie(app, "bo")):
        assert await status(app, who) == 403
    assert (await app.server.ask("POST", LINK, **member))[0] == 403
    view = await app.server.good("POST", SHARE, {"access": "project"})
    assert view.spec["apps"] == {"web": {"port": 0, "access": "project"}}
    assert [await status(app, who) for who in (member, stranger, BEARER)] == [200, 403, 200]
    assert [await status(app, cookie(app, who)) for who in ("bo", "cy", "ada")] == [200, 403, 200]
    link = (await app.server.good("POST", LINK, **member)).url
    async with app.ask("/?" + link.partition("/?")[2], auth=False) as answer:
        given = answer.headers["Set-Cookie"].partition(";")[0]
    assert await status(app, {"Cookie": given}) == 200
    assert (await app.server.ask("GET", f"{SESSIONS}/nb/forward?port=1", **member))[0] == 403
    assert (await app.server.ask("POST", SHARE, {"access": "owner"}, **member))[0] == 403
    await app.server.good("POST", SHARE, {"access": "owner"})
    assert [await status(app, who) for who in (member, {"Cookie": given}, BEARER)] == [403, 403, 200]


async def test_a_cookie_is_worth_what_its_users_tokens_are(app: App) -> None:
    assert await status(app, cookie(app, "ada")) == 200
    app.server.plane.tokens.good.clear()
    assert await status(app, cookie(app, "ada")) == 401


async def test_nobody_makes_a_token_of_the_owners_for_themselves(app: App) -> None:
    member = await bearer(app, "bo", "member-default")
    for owner, expected in (("ada", 403), ("bo", 201), ("", 201)):
        body = {"kind": "api", "owner": owner}
        assert (await app.server.ask("POST", "/v1/tokens", body, **member))[0] == expected
    assert (await app.server.good("POST", "/v1/tokens", {"kind": "api", "owner": "bo"})).owner == "bo"


async def test_every_change_is_an_event(app: App) -> None:
    store = app.server.plane.store
    since = await store.last_rev()
    for access in ("project", "project", "owner"):
        await app.server.good("POST", SHARE, {"access": access})
    said = [event.message for event in await store.events(since, kinds=("session",))]
    assert said == ["app web is open to its project: said ada", "app web is open to its owner: said ada"]
    status_, problem = await app.server.ask("POST", f"{SESSIONS}/nb/apps/wob:share", {"access": "project"})
    assert (status_, problem.hint) == (404, "did you mean 'web'?")
    assert (await app.server.ask("POST", SHARE, {"access": "all"}))[0] == 400


async def test_who_may_stay_no_longer_is_sent_out_at_once(app: App) -> None:
    member = await bearer(app, "bo", "member-default")
    await app.server.good("POST", SHARE, {"access": "project"})
    async with asyncio.timeout(60):
        inside = [await entered(app, who) for who in (member, cookie(app, "bo"))]
        owner = await entered(app, cookie(app, "ada"))
        async with app.ask("/events", auth=False, headers=cookie(app, "bo")) as stream:
            await stream.content.readuntil(b"\n\n")
            await app.server.good("POST", SHARE, {"access": "owner"})
            app.server.plane.bus.publish("events")
            for socket in inside:
                assert (await socket.receive()).type in (WSMsgType.CLOSE, WSMsgType.CLOSED, WSMsgType.ERROR)
            with pytest.raises(ClientError):
                await stream.content.read()
        await owner.send_str("still here")
        assert await owner.receive_str() == "STILL HERE"
        await owner.close()


async def test_the_page_opens_only_what_its_user_may_enter(app: App) -> None:
    door = app.server.services.door
    await bearer(app, "bo")
    bo = {"Cookie": f"atoll_page={door.grants.issue(Purpose.PAGE, 'bo', ttl_s=60)}"}
    url = f"{app.server.url}/sessions/nb/apps/web"
    for headers, expected in ((bo, 403), (app.server.page_cookie(), 303)):
        async with app.server.http.get(url, headers=headers, allow_redirects=False) as answer:
            assert answer.status == expected


async def test_a_public_app_asks_for_nothing_and_tells_nothing(app: App) -> None:
    await app.server.good("POST", SHARE, {"access": "public"})
    strange = {"Authorization": "Bearer atk_wrong", "Cookie": "theirs=1; atoll_app=forged; atoll_page=x"}
    assert [await status(app, who) for who in ({}, strange)] == [401, 401], "the installation has no public apps"
    app.server.services.door.public = True
    async with app.ask(auth=False, headers=strange) as answer:
        told = {name.lower(): value for name, value in (await answer.json())["headers"]}
    assert answer.status == 200
    assert "authorization" not in told
    assert told["cookie"] == "theirs=1"
    assert "Set-Cookie" not in answer.headers or "atoll" not in answer.headers["Set-Cookie"]
    assert (await app.server.good("POST", LINK, **await bearer(app, "bo"))).url == f"http://{app.host}/"
    assert (await app.server.ask("GET", f"{SESSIONS}/nb/forward?port=1", **await bearer(app, "bo")))[0] == 403
    async with asyncio.timeout(60):
        socket = await entered(app, {})
        app.server.services.door.public = False
        app.server.plane.bus.publish("events")
        await app.server.good("POST", SHARE, {"access": "owner"})
        app.server.plane.bus.publish("events")
        assert (await socket.receive()).type in (WSMsgType.CLOSE, WSMsgType.CLOSED, WSMsgType.ERROR)
    assert await status(app, {}) == 401


async def test_strangers_messages_are_short(app: App) -> None:
    app.server.services.door.public = True
    await app.server.good("POST", SHARE, {"access": "public"})
    async with asyncio.timeout(60):
        for headers, back in (({}, WSMsgType.CLOSE), (cookie(app, "ada"), WSMsgType.BINARY)):
            socket = await entered(app, headers)
            await socket.send_bytes(bytes(2 * 1024 * 1024))
            assert (await socket.receive()).type is back
            await socket.close()


async def test_an_installation_without_public_apps_says_so(app: App) -> None:
    closed = Sharing(app.server.plane.changes, public=False)
    with pytest.raises(Forbidden, match="no public apps") as refused:
        await closed.share("default", "nb", "web", AppAccess.PUBLIC, by="ada")
    assert "public = true below [apps]" in refused.value.hint
    with pytest.raises(Forbidden):
        closed.check(replace(app.row.spec, app_rules={"web": AppRule(access=AppAccess.PUBLIC)}))
    closed.check(replace(app.row.spec, app_rules={"web": AppRule(access=AppAccess.PROJECT)}))
    with pytest.raises(NotFound):
        await closed.share("default", "nb", "none", AppAccess.OWNER, by="ada")


async def test_strangers_do_not_crowd_the_owner_out(app: App) -> None:
    app.server.services.door.public = True
    await app.server.good("POST", SHARE, {"access": "public"})
    async with asyncio.timeout(60), AsyncExitStack() as stack:
        for _ in range(crowd.SOURCE_LIMIT):
            stack.push_async_callback((await entered(app, {})).close)
        assert await status(app, {}) == 429
        with pytest.raises(WSServerHandshakeError) as refused:
            await entered(app, {})
        assert refused.value.status == 429
        assert [await status(app, who) for who in (BEARER, cookie(app, "ada"))] == [200, 200]
    assert await status(app, {}) == 200


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def test_a_crowd_is_limited_by_app_source_and_rate(clock: FakeClock) -> None:
    some = Crowd(clock)
    with ExitStack() as stack:
        for number in range(crowd.APP_LIMIT):
            stack.enter_context(some.one("web", f"10.0.0.{number}"))
        with pytest.raises(TooMany), some.one("web", "10.1.0.1"):
            pass
        with some.one("other", "10.0.0.1"):
            pass
    for number in range(int(crowd.BURST) - crowd.APP_LIMIT):
        with some.one("web", f"10.0.0.{number}"):
            pass
    with pytest.raises(TooMany), some.one("web", "10.1.0.1"):
        pass
    clock.time += 2.5 / crowd.RATE
    for _ in range(2):
        with some.one("web", "10.1.0.1"):
            pass
    with pytest.raises(TooMany), some.one("web", "10.1.0.1"):
        pass


def test_a_crowd_remembers_only_those_who_are_there(clock: FakeClock) -> None:
    some = Crowd(clock)
    for number in range(3 * crowd.LIMIT):
        clock.time += 1.0
        with some.one(f"app-{number}", f"10.{number}"):
            pass
    assert not some._apps
    assert not some._sources
    assert len(some._left) <= crowd.LIMIT
