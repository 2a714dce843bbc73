"""Every route with a good request, its answer decoded as its view; and what bad requests are told."""

import asyncio
import subprocess
import sysconfig
import tarfile
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from openapi_spec_validator import validate

from federation.api.application import ROUTES
from federation.api.joining import rendered
from federation.api.openapi import document
from tests.fakes.plane import NOW
from tests.federation.served import BEARER, SESSIONS, Served
from tunnel.jointoken import JoinToken


async def test_sessions_are_queued_listed_and_stopped(server: Served) -> None:
    page = await server.good(
        "POST", SESSIONS, {"spec": {"command": ["echo", "hi"], "resources": {"cpu": 0.5}, "name": "hi"}, "count": 3}
    )
    assert [view.name for view in page.items] == ["hi-0", "hi-1", "hi-2"]
    assert page.items[0].owner == "ada"
    assert page.items[0].spec["resources"]["cpu"] == 0.5
    listed = await server.good("GET", SESSIONS + "?limit=2")
    assert [view.name for view in listed.items] == ["hi-2", "hi-1"]
    rest = await server.good("GET", f"{SESSIONS}?limit=2&after={listed.next}")
    assert ([view.name for view in rest.items], rest.next) == (["hi-0"], "")
    stopped = await server.good("POST", f"{SESSIONS}/hi-1:stop")
    assert (stopped.state, stopped.message) == ("cancelled", "stopped by ada")
    assert {v.name for v in (await server.good("GET", SESSIONS + "?live=1")).items} == {"hi-0", "hi-2"}
    assert [v.name for v in (await server.good("GET", SESSIONS + "?state=cancelled")).items] == ["hi-1"]
    assert (await server.good("GET", SESSIONS + "?state=cancelled&live=1")).items == []
    why = await server.good("GET", f"{SESSIONS}/hi-0/why")
    assert (why.kind, why.decisions[0].taken[0].target, why.events[0].state) == ("session", "a-1", "queued")


async def test_a_session_that_takes_checkpoints_is_moved(server: Served) -> None:
    spec = {"command": ["true"], "name": "able", "checkpoint": {"grace": "5s"}}
    await server.good("POST", SESSIONS, {"spec": spec})
    await server.good("POST", SESSIONS, {"spec": {"command": ["true"], "name": "unable"}})
    moving = await server.good("POST", f"{SESSIONS}/able:move", {"to": "desk"})
    assert (moving.moving, moving.moves, moving.message[-7:]) == ("USER", 0, "at desk")
    status, problem = await server.ask("POST", f"{SESSIONS}/unable:move", {"to": "desk"})
    assert (status, problem.code) == (409, "CONFLICT")


async def test_the_same_idempotency_key_gives_the_same_answer(server: Served) -> None:
    body = {"spec": {"command": ["true"]}}
    first = await server.good("POST", SESSIONS, body, **{"Idempotency-Key": "k1"})
    again = await server.good("POST", SESSIONS, body, **{"Idempotency-Key": "k1"})
    assert [view.id for view in first.items] == [view.id for view in again.items]
    status, problem = await server.ask("POST", SESSIONS, {**body, "count": 2}, **{"Idempotency-Key": "k1"})
    assert (status, problem.code) == (409, "CONFLICT")
    other = await server.good("POST", "/v1/projects/other/sessions", body, **{"Idempotency-Key": "k1"})
    assert other.items[0].id != first.items[0].id


async def test_agents_show_what_is_observed(server: Served) -> None:
    await server.plane.furnish()
    agents = {view.name: view for view in (await server.good("GET", "/v1/agents")).items}
    assert agents["desk"].connected
    assert agents["desk"].rtt_ms == 4.2
    assert agents["desk"].free.cpu == 4.0
    assert not agents["attic"].connected
    assert (await server.good("POST", "/v1/agents/desk:cordon")).state == "draining"
    due = await server.good("POST", "/v1/agents/desk:cordon", {"deadline": 60})
    assert due.drain_until == NOW + 60.0
    status, problem = await server.ask("POST", "/v1/agents/desk:cordon", {"deadline": -1})
    assert (status, problem.code) == (400, "INVALID")
    assert (await server.good("POST", "/v1/agents/desk:uncordon")).state == "ready"
    assert (await server.good("GET", "/v1/agents/desk/why")).kind == "agent"
    assert (await server.good("POST", "/v1/agents/attic:revoke")).state == "revoked"
    assert (await server.good("POST", "/v1/agents/attic:remove")).state == "left"


@pytest.mark.parametrize(
    ("path", "doc", "change"),
    [
        ("/v1/sites", {"name": "hall", "price": 0.25}, {"price": 0.5}),
        ("/v1/groups", {"name": "gpu", "site": "hall"}, {"labels": {"a": "b"}}),
        ("/v1/providers", {"name": "cloud", "type": "sim"}, {"type": "sim", "settings": {"x": 1}}),
    ],
)
async def test_documents_are_created_applied_and_deleted(
    server: Served, path: str, doc: dict[str, Any], change: dict[str, Any]
) -> None:
    name = doc["name"]
    assert (await server.good("POST", path, doc)).name == name
    status, problem = await server.ask("POST", path, doc)
    assert (status, problem.code) == (409, "CONFLICT")
    await server.good("PUT", f"{path}/{name}", change)
    assert (await server.good("GET", f"{path}/{name}")).name == name
    assert [view.name for view in (await server.good("GET", path)).items] == [name]
    status, problem = await server.ask("PUT", f"{path}/{name}", {**change, "name": "other"})
    assert status == 400
    await server.good("DELETE", f"{path}/{name}")
    assert (await server.ask("GET", f"{path}/{name}"))[0] == 404


async def test_groups_and_providers_tell_more(server: Served) -> None:
    await server.plane.furnish()
    group = await server.good("GET", "/v1/groups/burst")
    assert (group.kind, group.pending, group.spec["provider"]) == ("elastic", 1, "sim")
    assert (await server.good("GET", "/v1/groups/burst/why")).steps[0].sessions == ["s-1"]
    steps = (await server.good("GET", "/v1/groups/burst/decisions")).items
    assert [step.action for step in steps] == ["launch", "keep"]
    assert steps[0].shape == "c4/east-a/on-demand"
    provider = await server.good("GET", "/v1/providers/sim")
    assert provider.settings == {"api_secret": "***", "zones": ["a"]}
    assert (await server.good("GET", "/v1/providers/sim/shapes")).items[0].price == 0.2
    assert (await server.good("GET", "/v1/providers/sim/doctor")).items[0].ok
    assert (await server.good("POST", "/v1/providers/sim:sweep", {"dry_run": True})).items[0].action == "none"
    assert [i.id for i in (await server.good("GET", "/v1/instances?provider=sim&live=1")).items] == ["i-1"]
    site = await server.good("GET", "/v1/sites/local")
    assert (site.agents, site.connected, site.capacity.cpu, site.free.cpu) == (2, 1, 4.0, 4.0)


async def test_groups_are_resized_and_terminated(server: Served) -> None:
    await server.plane.furnish()
    group = await server.good("POST", "/v1/groups/burst:resize", {"max": 9})
    assert group.spec["size"] == {"min": 0, "max": 9}
    closed = await server.good("POST", "/v1/groups/burst:terminate", {"now": True})
    assert closed.spec["size"] == {"min": 0, "max": 0}
    await server.good("POST", "/v1/groups/burst:terminate", {})
    await server.good("POST", "/v1/groups/burst:terminate", {"deadline": 90})
    assert server.plane.terminated == [
        ("burst", True, "ada", None),
        ("burst", False, "ada", None),
        ("burst", False, "ada", 90.0),
    ]
    status, problem = await server.ask("POST", "/v1/groups/burst:terminate", {"noww": True})
    assert (status, problem.code) == (400, "INVALID")


async def test_credentials_are_rotated_and_never_shown(server: Served) -> None:
    await server.plane.furnish()
    provider = await server.good("POST", "/v1/providers/sim:rotate", {"credentials": {"key": "right"}})
    assert provider.settings["credentials"] == "***"
    status, problem = await server.ask("POST", "/v1/providers/sim:rotate", {"credentials": {"key": "wrong"}})
    assert (status, problem.code) == (409, "CONFLICT")
    assert "old ones stay" in problem.hint
    assert (await server.ask("POST", "/v1/providers/sim:rotate", {}))[0] == 400


async def test_a_providers_health_tells_limits_pauses_and_the_last_sweep(server: Served) -> None:
    await server.plane.furnish()
    health = await server.good("GET", "/v1/providers/sim/health")
    assert [(each.name, each.committed, each.limit, each.learned) for each in health.limits] == [
        ("vcpus", 4, 16, False)
    ]
    assert [(each.what, each.why, each.left_s) for each in health.pauses] == [("create calls", "AUTH: wrong key", 12.0)]
    assert (health.orphans, health.live, health.credentials_age_s) == ("terminate", 1, 60.0)
    assert health.swept == "m-1: nobody owns it (report)"


async def test_the_rest_answers(server: Served) -> None:
    await server.plane.furnish()
    await server.submit()
    assert (await server.good("GET", "/v1/status")).sessions == {"queued": 1}
    usage = await server.good("GET", "/v1/usage?since=5")
    assert (usage.since, usage.rows[0].instance_cost, usage.simulated) == (5.0, 1.25, True)
    assert [e.kind for e in (await server.good("GET", "/v1/events?since=0&kinds=session")).items] == ["session"]
    assert (await server.good("POST", "/v1/offers:search", {"spec": {"command": ["x"]}})).considered == 2
    link = (await server.good("POST", "/v1/login:link")).url
    assert link.startswith(f"{server.url}/login?grant=")


async def test_a_join_token_carries_what_a_machine_needs(server: Served) -> None:
    view = await server.good("POST", "/v1/tokens", {"kind": "join", "site": "desk", "uses": 1, "ttl_s": 60})
    token = JoinToken.parse(view.secret)
    assert (token.url, token.pin) == (server.services.address.agent_url, server.plane.config.authority.pin)
    assert view.command == f"atoll agent join {token.url} --token {view.secret}"
    assert view.paste.startswith(f"s=$(curl -fsSk {token.url}/join) && ")
    assert view.paste.endswith(f' && sh -c "$s" join {view.secret}')
    body = {"secret": token.secret, "csr": "CSR", "name": "box", "facts": {"os": "Debian"}}
    async with server.http.post(server.url + "/v1/join", json=body) as answer:
        joined = await answer.json()
    assert (joined["name"], joined["site"], joined["group"]) == ("box", "desk", "desk")
    status, problem = await server.ask("POST", "/v1/join", body)
    assert (status, problem.code) == (401, "UNAUTHORIZED")
    listed = (await server.good("GET", "/v1/tokens")).items
    assert [each.secret for each in listed] == [""]
    await server.good("DELETE", f"/v1/tokens/{listed[0].id}")
    assert (await server.good("GET", "/v1/tokens")).items == []
    api_token = await server.good("POST", "/v1/tokens", {"kind": "api", "owner": "bob"})
    assert api_token.secret.startswith("atk_")


BAD: list[tuple[str, str, Any, int, str, str]] = [
    ("POST", SESSIONS, {"spec": {"command": ["x"], "resources": {"memroy": 1}}}, 400, "memroy", "memory"),
    ("POST", SESSIONS, {"spec": {"command": ["x"]}, "cuont": 1}, 400, "cuont", "count"),
    ("POST", SESSIONS, {"spec": {"command": ["x"]}, "count": 0}, 400, "count", "1 to"),
    ("POST", SESSIONS, {"spec": {"command": ["x"]}, "count": "two"}, 400, "int", "spec, count"),
    ("POST", SESSIONS, [1], 400, "object", ""),
    ("GET", SESSIONS + "?limt=1", None, 400, "limt", "limit"),
    ("GET", SESSIONS + "?limit=0", None, 400, "limit", "1 to"),
    ("GET", SESSIONS + "?limit=1&limit=2", None, 400, "twice", ""),
    ("GET", SESSIONS + "?state=runing", None, 400, "runing", "running"),
    ("GET", SESSIONS + "/none", None, 404, "none", ""),
    ("GET", "/v1/nothing", None, 404, "path", "openapi"),
    ("PATCH", "/v1/status", None, 405, "PATCH", "GET"),
    ("POST", "/v1/tokens", {"kind": "jion"}, 400, "jion", "join"),
    ("GET", "/v1/events?kinds=sesion", None, 400, "sesion", "session"),
]


@pytest.mark.parametrize(("method", "path", "body", "status", "said", "hinted"), BAD)
async def test_bad_requests_are_told_why(
    server: Served, method: str, path: str, body: Any, status: int, said: str, hinted: str
) -> None:
    got, problem = await server.ask(method, path, body)
    assert got == status
    assert said in problem.detail
    assert hinted in problem.hint


async def test_bodies_are_json_objects_of_bounded_size(server: Served) -> None:
    async with server.http.post(server.url + SESSIONS, data=b"{", headers=BEARER) as answer:
        assert answer.status == 400
    form = {**BEARER, "Content-Type": "text/plain"}
    async with server.http.post(server.url + SESSIONS, data=b"{}", headers=form) as answer:
        assert answer.status == 403
    async with server.http.post(
        server.url + SESSIONS, data=BytesIO(b" " * (1 << 20) + b"{}"), headers=BEARER
    ) as answer:
        assert answer.status == 413
        assert (await answer.json(content_type=None))["code"] == "INVALID"


async def test_an_unknown_error_shows_a_number_and_nothing_else(server: Served) -> None:
    async def broken() -> Any:
        raise RuntimeError("the password is hunter2")

    server.plane.status = broken  # type: ignore[method-assign]
    status, problem = await server.ask("GET", "/v1/status")
    assert (status, problem.detail, problem.code) == (500, "internal error", "INTERNAL")
    assert problem.id
    assert problem.id in problem.hint
    assert "hunter2" not in str(problem)


def test_the_openapi_document_is_valid() -> None:
    made = document(ROUTES)
    validate(made)
    assert len(made["paths"]) == len({route.path for route in ROUTES})
    operations = [op for path in made["paths"].values() for op in path.values()]
    assert len({op["operationId"] for op in operations}) == len(ROUTES)
    assert "SessionView" in made["components"]["schemas"]


async def test_the_served_document_is_the_same(server: Served) -> None:
    assert set((await server.good("GET", "/v1/openapi.json"))["paths"]) == {route.path for route in ROUTES}


async def test_the_join_script_is_shell(server: Served, tmp_path: Path) -> None:
    async with server.http.get(server.url + "/join") as answer:
        text = await answer.text()
    assert server.services.address.agent_url in text
    assert "@" not in text.replace("$@", "")
    assert text == rendered(server.services.address.agent_url)
    script = tmp_path / "join.sh"
    script.write_text(text)
    process = await asyncio.create_subprocess_exec("sh", "-n", str(script))
    assert await process.wait() == 0
    refused = await asyncio.create_subprocess_exec("sh", str(script), stderr=subprocess.PIPE)
    _, said = await refused.communicate()
    assert refused.returncode == 125
    assert b"no join token was given" in said


async def test_the_agent_comes_with_all_it_imports(server: Served) -> None:
    tag = sysconfig.get_config_var("SOABI")
    async with server.http.get(f"{server.url}/v1/agent.tar.gz?tag={tag}") as answer:
        assert answer.status == 200
        packed = BytesIO(await answer.read())
    with tarfile.open(fileobj=packed) as archive:
        names = archive.getnames()
    for wanted in (
        "atoll/errors.py",
        "tunnel/wire.py",
        "agent/__init__.py",
        "msgspec/__init__.py",
        "structlog/__init__.py",
    ):
        assert wanted in names
    assert any(name.startswith("cryptography/") for name in names)
    assert not any(name.startswith(("/", "..", "federation", "aiohttp")) for name in names)
    status, problem = await server.ask("GET", "/v1/agent.tar.gz?tag=cpython-27")
    assert status == 409
    assert "cpython-27" in problem.detail
