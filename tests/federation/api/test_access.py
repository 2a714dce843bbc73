"""Who may use what: made from the route table, so that no route is forgotten."""

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest
from aiohttp import WSServerHandshakeError

from federation.api.address import Address
from federation.api.agentpack import AgentPack
from federation.api.application import ROUTES, build
from federation.api.auth import Door
from federation.api.grants import Grants, Purpose
from federation.api.route import Access, Services
from tests.fakes.plane import API_TOKEN, FakePlane
from tests.federation.served import BEARER, SESSIONS, Served
from tunnel.sshkeys import SshKeys

OPEN = {
    "/healthz", "/readyz", "/v1/ca", "/v1/join", "/v1/relays:enrol", "/v1/renew", "/join", "/v1/agent.tar.gz",
    "/v1/openapi.json", "/v1/tunnel",
}  # fmt: skip


def filled(path: str, project: str = "default", ref: str = "x") -> str:
    return re.sub(r"\{(\w+)\}", lambda part: {"project": project, "ref": ref}.get(part[1], "x"), path)


def test_every_route_says_who_may_use_it() -> None:
    assert [f"{r.method} {r.path}" for r in ROUTES if r.access is None] == []
    assert {r.path for r in ROUTES if r.access is Access.OPEN} == OPEN


def test_a_route_without_access_is_refused(tmp_path: Path) -> None:
    plane: Any = FakePlane()
    broken = dataclasses.replace(ROUTES[0], access=None)
    nowhere = Address(public_url="http://x", agent_url="https://x")
    door = Door(plane.tokens, Grants(b"k", plane.clock), nowhere)
    services = Services(
        control=plane, door=door, address=nowhere, chance=plane.chance, pack=AgentPack(tmp_path), ssh=SshKeys(tmp_path)
    )
    with pytest.raises(ValueError, match="no access entry"):
        build(services, routes=[broken])


GUARDED = [r for r in ROUTES if r.access is not Access.OPEN]


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer atk_wrong"}, {"Cookie": "atoll_page=a.b"}])
async def test_guarded_routes_refuse_strangers(server: Served, headers: dict[str, str]) -> None:
    await server.plane.furnish()
    for route in GUARDED:
        path = filled(route.path) + ("?port=1" if route.path.endswith("forward") else "")
        async with server.http.request(route.method, server.url + path, headers=headers) as answer:
            assert answer.status == 401, route.path
            assert answer.headers["WWW-Authenticate"].startswith("Bearer")
            assert answer.content_type == "application/problem+json"


async def test_guarded_routes_know_their_user(server: Served) -> None:
    for route in GUARDED:
        if route.content != "application/json":
            continue
        async with server.http.request(route.method, server.url + filled(route.path), headers=BEARER) as answer:
            assert answer.status not in (401, 403, 500), route.path


async def test_routes_of_administrators_refuse_others(server: Served) -> None:
    _, secret = await server.plane.tokens.create_api("bo", ("lead",))
    own = [r for r in ROUTES if r.access is Access.ADMIN]
    assert {"/v1/groups", "/v1/providers", "/v1/sites/{name}", "/v1/agents/{ref}:revoke"} <= {r.path for r in own}
    for headers in ({"Authorization": f"Bearer {secret}"}, {**server.page_cookie(), "Origin": server.url}):
        for route in own:
            path = server.url + filled(route.path)
            async with server.http.request(route.method, path, headers=headers) as answer:
                assert answer.status == 403, route.path


def test_whatever_changes_what_is_shared_is_for_administrators() -> None:
    free = {r.path for r in ROUTES if r.method != "GET" and r.access is Access.USER and "{project}" not in r.path}
    assert free == {
        "/v1/links/{ref}:ping", "/v1/offers:search", "/v1/tokens", "/v1/tokens/{id}", "/v1/login:link",
        "/v1/ssh:certify",
    }  # fmt: skip


async def test_routes_of_owners_refuse_others(server: Served) -> None:
    own = [r for r in ROUTES if r.access is Access.OWNER]
    assert {"{ref}:stop", "{ref}:move", "logs"} <= {r.path.rpartition("/")[2] for r in own}
    _, secret = await server.plane.tokens.create_api("bo", ("lead", "member-default"))
    _, owner = await server.plane.tokens.create_api("cy")
    bearer = {"Authorization": f"Bearer {owner}"}
    path = server.url + "/v1/projects/default/sessions"
    async with server.http.post(path, json={"spec": {"command": ["true"]}}, headers=bearer) as answer:
        row = (await answer.json())["items"][0]["id"]
    cookie = {**server.page_cookie("bo"), "Origin": server.url}
    for headers, refused in (
        ({"Authorization": f"Bearer {secret}"}, True),
        (cookie, True),
        (bearer, False),
        (BEARER, False),
    ):
        for route in own:
            path = server.url + filled(route.path, ref=row)
            async with server.http.request(route.method, path, headers=headers) as answer:
                assert (answer.status == 403) is refused, route.path


async def test_the_secrets_of_a_session_are_its_owners(server: Served) -> None:
    row = await server.submit(name="nb", env={"KEY": "hushhush"}, stdin="hushhush too")
    _, secret = await server.plane.tokens.create_api("bo")
    headers = {"Authorization": f"Bearer {secret}"}
    for path in (SESSIONS, f"{SESSIONS}/{row.id}"):
        async with server.http.get(server.url + path, headers=headers) as answer:
            text = await answer.text()
            assert "KEY" in text
            assert "hushhush" not in text
        async with server.http.get(server.url + path, headers=BEARER) as answer:
            assert "hushhush too" in await answer.text()


async def test_projects_are_for_their_members(server: Served) -> None:
    within = [r for r in ROUTES if "{project}" in r.path]
    assert len(within) >= 12
    for roles, refused in ((("lead", "member-acm"), True), (("member-acme",), False), (("admin",), False)):
        _, secret = await server.plane.tokens.create_api("bo", roles)
        for route in within:
            path = server.url + filled(route.path, project="acme")
            async with server.http.request(route.method, path, headers={"Authorization": f"Bearer {secret}"}) as answer:
                assert (answer.status == 403) is refused, route.path
        search = {"spec": {"command": ["true"]}, "project": "acme"}
        headers = {"Authorization": f"Bearer {secret}"}
        async with server.http.post(server.url + "/v1/offers:search", json=search, headers=headers) as answer:
            assert (answer.status == 403) is refused


async def test_events_of_a_project_are_for_its_members(server: Served) -> None:
    tx = server.plane
    _, stranger = await tx.tokens.create_api("bo")
    _, member = await tx.tokens.create_api("bo", ("member-acme",))
    for name, project in (("theirs", "acme"), ("ours", "default")):
        await server.good("POST", f"/v1/projects/{project}/sessions", {"spec": {"command": ["true"], "name": name}})
    for secret, seen in ((stranger, {"ours"}), (member, {"ours", "theirs"}), (API_TOKEN, {"ours", "theirs"})):
        headers = {"Authorization": f"Bearer {secret}"}
        async with server.http.get(server.url + "/v1/events?kinds=session", headers=headers) as answer:
            assert {each["name"] for each in (await answer.json())["items"]} == seen
        async with server.http.get(server.url + "/v1/watch?kinds=session&since=0", headers=headers) as answer:
            text = b""
            while b"ours" not in text:
                text += await answer.content.readany()
            assert (b"theirs" in text) is ("theirs" in seen)


async def test_only_administrators_let_machines_join_and_see_all_tokens(server: Served) -> None:
    _, secret = await server.plane.tokens.create_api("bo")
    await server.plane.tokens.create_api("cy")
    headers = {"Authorization": f"Bearer {secret}"}
    async with server.http.post(server.url + "/v1/tokens", json={"site": "local"}, headers=headers) as answer:
        assert answer.status == 403
        assert "may not let machines join" in (await answer.json())["detail"]
    async with server.http.get(server.url + "/v1/tokens", headers=headers) as answer:
        assert {each["owner"] for each in (await answer.json())["items"]} == {"bo"}
    assert {each.owner for each in (await server.good("GET", "/v1/tokens")).items} == {"bo", "cy"}


async def test_open_routes_need_nothing(server: Served) -> None:
    for path in sorted(OPEN - {"/v1/join", "/v1/relays:enrol", "/v1/renew", "/v1/agent.tar.gz", "/v1/tunnel"}):
        async with server.http.get(server.url + path) as answer:
            assert answer.status == 200, path


async def test_a_cookie_may_read(server: Served) -> None:
    async with server.http.get(server.url + "/v1/status", headers=server.page_cookie()) as answer:
        assert answer.status == 200


@pytest.mark.parametrize(
    ("origin", "status"),
    [("", 403), ("http://evil.example", 403), ("null", 403), ("same", 201), ("http://nb--s-1.localhost", 403)],
)
async def test_a_cookie_may_change_from_our_own_page_only(server: Served, origin: str, status: int) -> None:
    headers = server.page_cookie()
    if origin:
        headers["Origin"] = server.url if origin == "same" else origin
    body = {"spec": {"command": ["true"]}}
    async with server.http.post(server.url + "/v1/projects/default/sessions", json=body, headers=headers) as answer:
        assert answer.status == status


async def test_a_cookie_is_good_on_our_own_names_only(server: Served) -> None:
    headers = {**server.page_cookie(), "Host": f"rebound.example:{server.port}"}
    async with server.http.get(server.url + "/v1/status", headers=headers) as answer:
        assert answer.status == 403


async def test_a_websocket_with_a_cookie_needs_our_origin(server: Served) -> None:
    view = await server.submit()
    url = f"{server.url}/v1/projects/default/sessions/{view.id}/forward?port=80"
    with pytest.raises(WSServerHandshakeError) as refused:
        await server.http.ws_connect(url, headers={**server.page_cookie(), "Origin": "http://evil.example"})
    assert refused.value.status == 403


def test_grants_are_bound_to_purpose_audience_and_time() -> None:
    plane = FakePlane()
    grants = Grants(b"key", plane.clock)
    text = grants.issue(Purpose.APP, "ada", ttl_s=10, audience="s-1")
    assert grants.check(text, Purpose.APP, audience="s-1").owner == "ada"
    for purpose, audience in ((Purpose.APP, "s-2"), (Purpose.PAGE, "s-1"), (Purpose.APP, "")):
        with pytest.raises(Exception, match="not valid"):
            grants.check(text, purpose, audience=audience)
    with pytest.raises(Exception, match="not valid"):
        Grants(b"other", plane.clock).check(text, Purpose.APP, audience="s-1")
    for damaged in ("", ".", "a", text[:-2], "é.é", text.replace(".", "")):
        with pytest.raises(Exception, match="not valid"):
            grants.check(damaged, Purpose.APP, audience="s-1")
    plane.clock.time += 11
    with pytest.raises(Exception, match="expired"):
        grants.check(text, Purpose.APP, audience="s-1")


async def test_no_answer_holds_the_token(server: Served) -> None:
    async with server.http.get(server.url + "/v1/tokens", headers=BEARER) as answer:
        assert API_TOKEN not in await answer.text()
