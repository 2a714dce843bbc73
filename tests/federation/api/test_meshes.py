"""Routes of meshes, over the fake control plane's real use cases."""

from atoll.site import Site
from tests.federation.served import Served

BOTH = "/v1/meshes/hall/desk"


async def two_sites(server: Served) -> None:
    async with server.plane.store.transaction() as tx:
        for site in ("hall", "desk"):
            await tx.insert(Site(name=site))


async def test_sites_are_joined_shown_and_parted(server: Served) -> None:
    await two_sites(server)
    view = await server.good("PUT", BOTH, {"subnets": {"hall": ["10.20.0.0/16"]}})
    assert (view.state, [end.site for end in view.ends]) == ("pending", ["desk", "hall"])
    assert (view.ends[1].subnets, view.ends[1].agent, view.ends[1].handshake_s) == (["10.20.0.0/16"], "", None)
    six, four = view.ends[1].networks
    assert view.ends[1].addresses == [six.replace("/64", "1"), four.replace(".0/24", ".1")]
    assert await server.good("GET", "/v1/meshes/desk/hall") == view
    assert (await server.good("GET", "/v1/meshes")).items == [view]
    assert (await server.good("POST", f"{BOTH}:rotate")).ends[0].keyed_at == 0
    await server.good("DELETE", BOTH)
    assert (await server.ask("GET", BOTH))[0] == 404


async def test_mistakes_are_told(server: Served) -> None:
    await two_sites(server)
    status, problem = await server.ask("PUT", "/v1/meshes/hall/dek", {})
    assert (status, problem.hint) == (404, "did you mean 'desk'?")
    status, problem = await server.ask("PUT", BOTH, {"subnets": {"hall": ["0.0.0.0/0"]}})
    assert (status, "private networks only" in problem.detail) == (400, True)
    assert (await server.ask("PUT", BOTH, {"subnet": {}}))[0] == 400
    status, problem = await server.ask("DELETE", BOTH)
    assert (status, problem.hint) == (404, "join them: atoll mesh up hall desk")


async def test_only_administrators_change_them(server: Served) -> None:
    await two_sites(server)
    await server.good("PUT", BOTH, {})
    _, secret = await server.plane.tokens.create_api("bo", ())
    own = {"Authorization": f"Bearer {secret}"}
    for method, path in (("PUT", BOTH), ("DELETE", BOTH), ("POST", f"{BOTH}:rotate")):
        assert (await server.ask(method, path, {}, **own))[0] == 403
    assert (await server.ask("GET", BOTH, **own))[0] == 200
