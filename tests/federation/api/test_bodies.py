"""Bodies that are no JSON, or too much of it, are the sender's mistake: never an internal error."""

import pytest

from tests.fakes.plane import API_TOKEN
from tests.federation.served import Served

BODIES = {
    "no JSON": b"{",
    "no text": b'{"name": "\xff\xfe"}',
    "nested too deeply": b'{"name": ' + b"[" * 100_000,
    "no object": b"[]",
}


@pytest.mark.parametrize("what", BODIES)
@pytest.mark.parametrize("path", ["/v1/join", "/v1/projects/default/sessions"])
async def test_a_wrong_body_is_refused(server: Served, path: str, what: str) -> None:
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {API_TOKEN}"}
    async with server.http.post(server.url + path, data=BODIES[what], headers=headers) as answer:
        assert answer.status == 400
        assert (await answer.json(content_type=None))["code"] == "INVALID"
