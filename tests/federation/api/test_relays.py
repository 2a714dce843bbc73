"""Routes of relays."""

import pytest

from tests.federation.served import BEARER, Served
from tunnel.jointoken import JoinToken

URL = "https://east.example:8443"


async def test_relays_are_created_enrolled_listed_and_removed(server: Served) -> None:
    made = await server.good("POST", "/v1/relays", {"name": "east", "url": URL})
    assert (made.name, made.url, made.state, made.connected) == ("east", URL, "invited", False)
    token = JoinToken.parse(made.secret)
    assert made.command == f"atoll relay run --listen 0.0.0.0:8443 --token {made.secret}"
    request = {"secret": token.secret, "csr": "csr"}
    enrolled = await server.good("POST", "/v1/relays:enrol", request, Authorization="")
    assert (enrolled.relay, enrolled.name, enrolled.certificate) == (made.id, "east", f"certificate of {made.id}")
    status, problem = await server.ask("POST", "/v1/relays:enrol", {**request, "csr": "other"})
    assert (status, problem.code) == (401, "UNAUTHORIZED")
    page = await server.good("GET", "/v1/relays")
    assert [(view.name, view.secret) for view in page.items] == [("east", "")]
    assert (await server.good("GET", "/v1/relays/east")).id == made.id
    status, problem = await server.ask("POST", "/v1/relays/east:drain", {"deadline": 5})
    assert (status, problem.code) == (409, "CONFLICT")
    assert "invited" in problem.detail
    await server.good("DELETE", "/v1/relays/east")
    assert (await server.ask("GET", "/v1/relays/east"))[0] == 404
    assert (await server.good("GET", "/v1/relays")).items == []


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"name": "east", "url": "http://east.example"}, 400),
        ({"name": "East!", "url": URL}, 400),
        ({"name": "east", "url": URL, "ttl_s": 0}, 400),
        ({"name": "east"}, 400),
        ({"name": "east", "url": URL, "token": "x"}, 400),
    ],
)
async def test_bad_relays_are_refused(server: Served, body: dict[str, object], status: int) -> None:
    async with server.http.post(server.url + "/v1/relays", json=body, headers=BEARER) as answer:
        assert answer.status == status


async def test_a_users_token_lists_relays_and_makes_none(server: Served) -> None:
    _, secret = await server.plane.tokens.create_api("bo")
    headers = {"Authorization": f"Bearer {secret}"}
    async with server.http.get(server.url + "/v1/relays", headers=headers) as answer:
        assert answer.status == 200
    for method, path in (("POST", "/v1/relays"), ("POST", "/v1/relays/x:drain"), ("DELETE", "/v1/relays/x")):
        async with server.http.request(method, server.url + path, headers=headers) as answer:
            assert answer.status == 403
