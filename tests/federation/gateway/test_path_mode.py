"""Apps below paths of one name: their prefix, redirects and cookies, and what that name is not good for."""

import asyncio
from dataclasses import replace

import pytest
from aiohttp import WSMsgType

from atoll.session import AppRule
from federation.api.address import Address
from federation.api.grants import Purpose
from federation.gateway.mount import Mount
from tests.federation.gateway.conftest import App
from tests.federation.gateway.test_gateway import told
from tests.federation.served import BEARER, SESSIONS


@pytest.fixture
def paths(app: App) -> App:
    """The same app in path mode, at `localhost`; the pages are at 127.0.0.1."""
    services = app.server.services
    services.address = services.door.address = replace(services.address, path_mode=True)
    app.host = f"localhost:{app.server.port}"
    return app


async def whole(app: App) -> None:
    """Have the app be given its prefix."""
    row = await app.server.plane.sessions.get("default", app.row.id)
    spec = replace(row.spec, app_rules={"web": AppRule(prefix=True)})
    app.row = await app.server.plane.change(row, spec=spec)


async def test_an_app_below_a_path(paths: App) -> None:
    base = f"/apps/{paths.row.id}/web"
    async with paths.ask(f"{base}/a%2Fb/../c?x=1") as answer:
        got = await told(answer)
    assert got["path"].endswith("c?x=1")
    assert not got["path"].startswith("/apps")
    assert got["headers"]["x-forwarded-prefix"] == base
    assert got["headers"]["x-forwarded-proto"] == "http"
    for named in (f"/apps/nb/web/x?y={base}", f"/apps/{paths.row.id}/web?y=1", "/apps/nb/web"):
        async with paths.ask(named) as answer:
            assert answer.status == 307
            assert (
                answer.headers["Location"]
                == {
                    f"/apps/nb/web/x?y={base}": f"{base}/x?y={base}",
                    f"/apps/{paths.row.id}/web?y=1": f"{base}/?y=1",
                    "/apps/nb/web": f"{base}/",
                }[named]
            )
    await whole(paths)
    async with paths.ask(f"{base}/lab?x=1") as answer:
        assert (await told(answer))["path"] == f"{base}/lab?x=1"


async def test_a_link_and_its_cookie_hold_for_one_path(paths: App) -> None:
    link = (await paths.server.good("POST", f"{SESSIONS}/nb/apps/web:link")).url
    base = f"/apps/{paths.row.id}/web"
    assert link.startswith(f"http://localhost:{paths.server.port}{base}/?atoll_grant=")
    async with paths.ask(f"{base}/?{link.partition('/?')[2]}", auth=False) as answer:
        assert (answer.status, answer.headers["Location"]) == (303, f"{base}/")
        cookie = answer.headers["Set-Cookie"]
    assert f"Path={base}/" in cookie
    headers = {"Cookie": cookie.partition(";")[0], "Origin": f"http://{paths.host}"}
    async with paths.ask(f"{base}/", auth=False, headers=headers) as answer:
        assert "cookie" not in (await told(answer))["headers"]
    async with (
        asyncio.timeout(60),
        paths.server.http.ws_connect(
            paths.server.url + base + "/ws", headers={"Host": paths.host, **headers}
        ) as socket,
    ):
        assert (await socket.receive()).type is WSMsgType.TEXT
        await socket.send_str("hello")
        assert await socket.receive_str() == "HELLO"


async def test_the_name_of_the_apps_is_none_of_the_pages(paths: App) -> None:
    grants = paths.server.services.door.grants
    login = grants.issue(Purpose.LOGIN, "ada", ttl_s=60)
    async with paths.ask(f"/login?grant={login}", auth=False, headers={"Accept": "text/html"}) as answer:
        assert answer.status == 404
        assert "Set-Cookie" not in answer.headers
    for path in ("/v1/status", "/sessions", "/apps", f"/apps/{paths.row.id}", "/apps//web/"):
        async with paths.ask(path, auth=False, headers=paths.server.page_cookie()) as answer:
            assert answer.status in (403, 404), path
    async with paths.ask(f"/apps/{paths.row.id}/web/", host=f"127.0.0.1:{paths.server.port}") as answer:
        assert answer.status == 404, "apps are at their own name only"
    async with paths.ask("/v1/status", headers=BEARER) as answer:
        assert answer.status == 200, "a token is good anywhere"


async def test_without_path_mode_there_are_no_paths(app: App) -> None:
    async with app.ask(f"/apps/{app.row.id}/web/", host=f"localhost:{app.server.port}") as answer:
        assert answer.status == 404


@pytest.mark.parametrize(
    ("mount", "target", "seen"),
    [
        (Mount(), "/x?y", "/x?y"),
        (Mount("/apps/s/a"), "/apps/s/a/x?y", "/x?y"),
        (Mount("/apps/s/a"), "/apps/s/a/", "/"),
        (Mount("/apps/s/a", whole=True), "/apps/s/a/x", "/apps/s/a/x"),
    ],
)
def test_targets(mount: Mount, target: str, seen: str) -> None:
    assert mount.target(target) == seen


@pytest.mark.parametrize(
    ("location", "stripped"),
    [
        ("/login?next=/", "/apps/s/a/login?next=/"),
        ("login", "login"),
        ("?page=2", "?page=2"),
        ("//elsewhere.example/x", "//elsewhere.example/x"),
        ("https://elsewhere.example/x", "https://elsewhere.example/x"),
        ("https://host:1/x?y#z", "https://host:1/apps/s/a/x?y#z"),
        ("https://host:1", "https://host:1/apps/s/a/"),
    ],
)
def test_redirects(location: str, stripped: str) -> None:
    assert Mount("/apps/s/a").location(location, "host:1") == stripped
    for untouched in (Mount(), Mount("/apps/s/a", whole=True)):
        assert untouched.location(location, "host:1") == location


@pytest.mark.parametrize(
    ("cookie", "own", "stripped", "whole_"),
    [
        ("a=1", "a=1", "a=1", "a=1"),
        ("a=1; Path=/", "a=1; Path=/", "a=1; Path=/apps/s/a/", "a=1; Path=/apps/s/a/"),
        ("a=1;path=/x; Secure", "a=1;path=/x; Secure", "a=1; Path=/apps/s/a/x; Secure", "a=1; Path=/apps/s/a/; Secure"),
        ("a=1; Path=/apps/s/a/l", "a=1; Path=/apps/s/a/l", "a=1; Path=/apps/s/a/apps/s/a/l", "a=1; Path=/apps/s/a/l"),
        ("a=1; Path=/apps/s/ab", "a=1; Path=/apps/s/ab", "a=1; Path=/apps/s/a/apps/s/ab", "a=1; Path=/apps/s/a/"),
        ("a=1; Domain=.a.io; HttpOnly", "a=1; HttpOnly", "a=1; HttpOnly", "a=1; HttpOnly"),
    ],
)
def test_cookies_of_apps_stay_with_the_app(cookie: str, own: str, stripped: str, whole_: str) -> None:
    assert Mount().cookie(cookie) == own
    assert Mount("/apps/s/a").cookie(cookie) == stripped
    assert Mount("/apps/s/a", whole=True).cookie(cookie) == whole_


def test_addresses() -> None:
    address = Address(public_url="https://fed.io", agent_url="https://fed.io", apps_domain="apps.io",
                      apps_scheme="https", apps_port=443, path_mode=True, names=frozenset({"apps.io"}))  # fmt: skip
    assert address.app_url("web", "s-1") == "https://apps.io/apps/s-1/web/"
    assert address.app_at("apps.io:443", "/apps/s-1/web/x?y=/z") == ("web", "s-1")
    assert address.app_at("apps.io", "/apps/s-1/web?x") == ("web", "s-1")
    for host, path in (
        ("fed.io", "/apps/s/a/"),
        ("apps.io", "/apps/s"),
        ("apps.io", "/apps//a/"),
        ("apps.io", "/x/s/a"),
    ):
        assert address.app_at(host, path) is None
    assert not address.is_ours("apps.io")
    assert address.is_ours("fed.io")
