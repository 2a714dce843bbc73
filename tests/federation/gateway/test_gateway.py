"""Users' traffic to apps: who gets in, what passes, what stays behind, and what a broken app looks like."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import ClientError, ClientResponse, WSMsgType, WSServerHandshakeError

from atoll.states import SessionState
from federation.api.address import Address
from tests.fakes.plane import API_TOKEN
from tests.federation.gateway.conftest import App
from tests.federation.served import BEARER, SESSIONS


async def told(answer: ClientResponse) -> dict[str, Any]:
    assert answer.status == 200, await answer.text()
    value: dict[str, Any] = await answer.json()
    value["headers"] = {name.lower(): text for name, text in value["headers"]}
    return value


async def test_requests_reach_the_app_as_they_were_sent(app: App) -> None:
    async with app.ask("/a%2Fb/../c?x=1&y=%20", "PUT", data=b"body", headers={"X-Mine": "1"}) as answer:
        got = await told(answer)
        assert answer.headers["X-App"] == "yes"
        assert answer.headers["Set-Cookie"] == "mine=1; Path=/"
    assert (got["method"], got["body"]) == ("PUT", "body")
    assert got["path"].endswith("c?x=1&y=%20")
    assert got["headers"]["host"] == app.host
    assert got["headers"]["x-mine"] == "1"
    assert app.server.plane.streams.opened[0] == (f"{app.row.id}.1.0", "web", 0)


async def test_ours_never_reaches_the_app(app: App) -> None:
    headers = {
        "X-Forwarded-For": "1.2.3.4", "X-Forwarded-Host": "evil", "Forwarded": "for=1", "TE": "trailers",
        "Connection": "keep-alive, X-Secret", "X-Secret": "1",
        "Cookie": "atoll_app=a; theirs=2; __Host-atoll_page=b; atoll_page=c",
    }  # fmt: skip
    async with app.ask(headers=headers) as answer:
        got = (await told(answer))["headers"]
    assert got["cookie"] == "theirs=2"
    assert not {"authorization", "x-forwarded-for", "x-forwarded-host", "forwarded", "te", "x-secret"} & set(got)
    assert API_TOKEN not in str(got)


async def test_the_app_cannot_set_our_cookies(app: App) -> None:
    async with app.ask("/cookie") as answer:
        assert "Set-Cookie" not in answer.headers
        assert answer.status == 302


async def test_large_uploads_and_downloads_stream(app: App) -> None:
    part = bytes(range(256)) * 256

    async def body() -> AsyncIterator[bytes]:
        for _ in range(512):
            yield part

    async with app.ask("/upload", "POST", data=body()) as answer:
        got = await answer.json()
    assert got == {"sha256": hashlib.sha256(part * 512).hexdigest(), "size": 32 * 1024 * 1024}
    size = 0
    async with app.ask("/download?mib=32") as answer:
        async for piece in answer.content.iter_any():
            size += len(piece)
    assert size == 32 * 1024 * 1024


async def test_event_streams_are_not_held_back(app: App) -> None:
    async with asyncio.timeout(60), app.ask("/events") as answer:
        assert answer.content_type == "text/event-stream"
        assert await answer.content.readuntil(b"\n\n") == b"data: first\n\n"
        app.gate.set()
        assert await answer.content.read() == b"data: second\n\n"


async def test_head_and_empty_answers(app: App) -> None:
    async with app.ask("/", "HEAD") as answer:
        assert answer.status == 200
        assert await answer.read() == b""


async def test_websockets_pass_text_bytes_and_close_codes(app: App) -> None:
    headers = {"Host": app.host, **BEARER, "X-Forwarded-For": "9"}
    async with (
        asyncio.timeout(60),
        app.server.http.ws_connect(
            app.server.url + "/ws", headers=headers, protocols=("other", "chat"), max_msg_size=0
        ) as socket,
    ):
        assert socket.protocol == "chat"
        seen = {name.lower() for name in await socket.receive_json()}
        assert not {"authorization", "x-forwarded-for"} & seen
        await socket.send_str("hello")
        assert await socket.receive_str() == "HELLO"
        await socket.send_bytes(b"\0" * 3_000_000)
        assert len(await socket.receive_bytes()) == 3_000_000
        await socket.send_str("bye")
        last = await socket.receive()
        assert (last.type, last.data, last.extra) == (WSMsgType.CLOSE, 4001, "so long")


async def test_strangers_are_kept_out(app: App) -> None:
    for headers in ({}, {"Authorization": "Bearer atk_no"}, app.cookie("s-other"), app.server.page_cookie()):
        async with app.ask(auth=False, headers=headers) as answer:
            assert answer.status == 401
        with pytest.raises(WSServerHandshakeError) as refused:
            await app.server.http.ws_connect(app.server.url + "/ws", headers={"Host": app.host, **headers})
        assert refused.value.status == 401
    assert app.server.plane.streams.opened == []


async def test_strangers_do_not_hear_which_sessions_there_are(app: App) -> None:
    said = set()
    for host in (app.host, "web--s-none.localhost", "web--other.localhost"):
        async with app.server.http.get(app.server.url, headers={"Host": host}) as answer:
            said.add((answer.status, (await answer.json())["title"]))
    assert {status for status, _ in said} == {401}
    assert len(said) == 1


async def test_a_websocket_with_a_cookie_must_come_from_the_app_itself(app: App) -> None:
    cookie = {"Host": app.host, **app.cookie()}
    for origin in ("http://evil.example", f"http://localhost:{app.server.port}", ""):
        headers = {**cookie, **({"Origin": origin} if origin else {})}
        with pytest.raises(WSServerHandshakeError) as refused:
            await app.server.http.ws_connect(app.server.url + "/ws", headers=headers)
        assert refused.value.status == 403
    headers = {**cookie, "Origin": f"http://{app.host}"}
    async with app.server.http.ws_connect(app.server.url + "/ws", headers=headers) as socket:
        assert (await socket.receive()).type is WSMsgType.TEXT


async def test_another_apps_page_cannot_post_with_our_cookie(app: App) -> None:
    other = {**app.cookie(), "Origin": f"http://evil--s-2.localhost:{app.server.port}"}
    async with app.ask("/", "POST", auth=False, headers=other) as answer:
        assert answer.status == 403
    async with app.ask("/", "POST", auth=False, headers={**app.cookie(), "Origin": f"http://{app.host}"}) as answer:
        assert answer.status == 200


async def test_a_link_logs_in_and_is_cleaned_from_the_address(app: App) -> None:
    link = (await app.server.good("POST", f"{SESSIONS}/nb/apps/web:link")).url
    assert link.startswith(f"http://{app.host}/?atoll_grant=")
    query = link.partition("/?")[2]
    async with app.ask(f"/lab/tree?a=1&{query}", auth=False) as answer:
        assert (answer.status, answer.headers["Location"]) == (303, "/lab/tree?a=1")
        cookie = answer.headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Lax" in cookie
    assert "Path=/" in cookie
    assert "Domain" not in cookie
    async with app.ask(auth=False, headers={"Cookie": cookie.partition(";")[0]}) as answer:
        assert answer.status == 200
    second = await app.server.submit(name="nb2", apps={"web": 0})
    async with app.ask(f"/?{query}", auth=False, host=f"web--{second.id}.localhost") as answer:
        assert answer.status == 401


async def test_the_host_must_match_exactly(app: App) -> None:
    for host in (f"web--{app.row.id}.localhost.evil.example", f"x.web--{app.row.id}.localhost", "web.localhost"):
        async with app.ask("/", host=host) as answer:
            assert "X-App" not in answer.headers
    async with app.ask(host=f"WEB--{app.row.id}.LOCALHOST") as answer:
        assert answer.status == 200
    async with app.ask(host="web--nb.localhost:1") as answer:
        assert answer.status == 200


@pytest.mark.parametrize(
    ("host", "status", "said"),
    [
        ("web--s-none.localhost", 404, "no session"),
        ("wob--nb.localhost", 404, "no app wob"),
        ("web--waits.localhost", 503, "is queued"),
        ("web--over.localhost", 409, "has ended"),
        ("web--away.localhost", 503, "not connected"),
        ("web--nothing.localhost", 503, "does not answer"),
    ],
)
async def test_what_is_not_there_is_said(app: App, host: str, status: int, said: str) -> None:
    plane = app.server.plane
    await app.server.submit(name="waits", apps={"web": 0})
    for name, state in (
        ("over", SessionState.SUCCEEDED),
        ("away", SessionState.RUNNING),
        ("nothing", SessionState.RUNNING),
    ):
        view = await app.server.submit(name=name, apps={"web": 0})
        row = await plane.sessions.get("default", view.id)
        await plane.change(row, state=state, attempt=1)
    if host.startswith("web--away"):
        del plane.streams.apps["web"]
    if host.startswith("web--nothing"):
        plane.streams.apps["web"] = 1
    async with app.ask(host=host) as answer:
        assert answer.status == status
        assert answer.content_type == "application/problem+json"
        assert said in (await answer.json(content_type=None))["detail"]
    async with app.ask(host=host, headers={"Accept": "text/html"}) as answer:
        assert answer.status == status
        assert answer.content_type == "text/html"
        assert said in await answer.text()


async def test_a_cut_answer_is_not_taken_for_a_whole_one(app: App) -> None:
    with pytest.raises(ClientError):
        async with app.ask("/cut") as answer:
            await answer.read()


def test_addresses() -> None:
    address = Address(public_url="https://fed.example.com", agent_url="https://fed.example.com", apps_domain="a.io",
                      apps_scheme="https", apps_port=443)  # fmt: skip
    assert address.app_url("web", "s-1") == "https://web--s-1.a.io/"
    assert address.app_of("web--s-1.a.io:8443") == ("web", "s-1")
    for host in ("web--s-1.a.io.evil", "web--.a.io", "--s.a.io", "web.a.io", "", "[", "a.io"):
        assert address.app_of(host) is None
    assert address.is_ours("fed.example.com:1")
    assert address.is_ours("[::1]:80")
    assert address.is_ours("10.0.0.1")
    assert not address.is_ours("evil.example")
