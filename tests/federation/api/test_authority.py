"""The certificate authority over the API: look, rotate, retire; every answer of a rotation names the new one."""

from aiohttp import ClientResponse

from atoll.client.address import CA_HEADER
from tests.federation.served import BEARER, Served

BASE = "/v1/authority"


async def test_a_rotation_from_its_beginning_to_its_end(server: Served) -> None:
    await server.plane.furnish()
    [only] = (await server.good("GET", BASE)).authorities
    assert (only.sha256, only.signs) == ("ab" * 32, True)
    view = await server.good("POST", f"{BASE}:rotate")
    assert [(each.sha256[:2], each.signs) for each in view.authorities] == [("cd", True), ("ab", False)]
    assert [(each.agent, each.lacks) for each in view.behind] == [("attic", "not connected since")]
    assert (await server.ask("POST", f"{BASE}:rotate"))[0] == 409
    status, refused = await server.ask("POST", f"{BASE}:retire")
    assert (status, refused.code) == (409, "CONFLICT")
    assert "attic" in refused.detail
    view = await server.good("POST", f"{BASE}:retire", {"force": True})
    assert [each.sha256[:2] for each in view.authorities] == ["cd"]
    assert view.behind == []


async def test_answers_name_the_new_one_while_there_are_two(server: Served) -> None:
    async def answer() -> ClientResponse:
        async with server.http.get(server.url + "/v1/status", headers=BEARER) as got:
            return got

    authority = server.plane.config.authority
    assert CA_HEADER not in (await answer()).headers
    authority.rotating = True  # type: ignore[misc]
    assert (await answer()).headers[CA_HEADER] == authority.pin
