"""Clients and TLS: only the pinned authority is trusted, whatever name the control plane is reached by."""

import asyncio
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from aiohttp import web

from atoll import AsyncClient, Client
from atoll.cli.login import fetch_ca
from atoll.client import profile
from atoll.client.address import Address
from atoll.errors import Unauthorized, Unavailable
from atoll.host.pem import blocks, pins
from tests.atoll.plane import TOKEN, Plane, reply
from tunnel.identity import Authority


@pytest.fixture
async def authority(tmp_path: Path) -> Authority:
    return await asyncio.to_thread(Authority.load_or_create, tmp_path / "ours", now=time.time())


@asynccontextmanager
async def serving(authority: Authority) -> AsyncIterator[str]:
    async def ca(request: web.Request) -> web.Response:
        return reply({"ca": authority.ca_pem})

    async def name_newest(_request: web.Request, response: web.StreamResponse) -> None:
        if authority.rotating:
            response.headers["Atoll-CA"] = authority.pin

    app = Plane().app()
    app.router.add_get("/v1/ca", ca)
    bare = web.Application()
    bare.on_response_prepare.append(name_newest)
    bare.router.add_get("/v1/ca", ca)
    bare.add_subapp("/plane", app)
    runner = web.AppRunner(bare, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=authority.http_context(None)).start()
    yield f"https://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


@pytest.fixture
async def secured(authority: Authority) -> AsyncIterator[str]:
    async with serving(authority) as url:
        yield url


@pytest.fixture
async def rotated(authority: Authority) -> AsyncIterator[str]:
    await asyncio.to_thread(authority.rotate, time.time())
    async with serving(authority) as url:
        yield url


async def test_the_pinned_authority_is_trusted(secured: str, authority: Authority) -> None:
    client = Client(secured + "/plane", TOKEN, ca=authority.ca_pem)
    assert (await asyncio.to_thread(client.status)).installation == "test"
    async with AsyncClient(secured + "/plane", TOKEN, ca=authority.ca_pem) as waiting:
        assert (await waiting.status()).installation == "test"


async def test_another_authority_is_not(secured: str, tmp_path: Path) -> None:
    other = await asyncio.to_thread(Authority.load_or_create, tmp_path / "theirs", now=time.time())
    for ca in (other.ca_pem, None):
        with pytest.raises(Unavailable, match="is not trusted") as caught:
            await asyncio.to_thread(Client(secured + "/plane", TOKEN, ca=ca).status)
        assert "--ca system" in caught.value.hint, "where a load balancer opens TLS"
        async with AsyncClient(secured + "/plane", TOKEN, ca=ca) as waiting:
            with pytest.raises(Unavailable, match="is not trusted"):
                await waiting.status()


async def test_a_name_the_certificate_lacks_is_fine_under_the_pinned_authority(
    secured: str, authority: Authority
) -> None:
    # Every address of 127/8 is this machine, but only one is in the certificate at most.
    url = secured.replace("127.0.0.1", "localhost") + "/plane"
    client = Client(url, TOKEN, ca=authority.ca_pem)
    assert (await asyncio.to_thread(client.status)).installation == "test"
    async with AsyncClient(url, TOKEN, ca=authority.ca_pem) as waiting:
        assert (await waiting.status()).installation == "test"


async def test_the_ca_is_fetched_by_its_pin_only(secured: str, authority: Authority) -> None:
    pem = await asyncio.to_thread(fetch_ca, secured, authority.pin)
    assert ssl.PEM_cert_to_DER_cert(pem) == ssl.PEM_cert_to_DER_cert(authority.ca_pem)
    with pytest.raises(Unauthorized, match="not the pinned one"):
        await asyncio.to_thread(fetch_ca, secured, "0" * 64)


async def test_a_client_learns_the_new_authority_while_the_old_one_vouches_for_it(
    authority: Authority, rotated: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    [_, old] = blocks(authority.ca_pem)
    monkeypatch.setenv("ATOLL_HOME", str(tmp_path))
    monkeypatch.delenv("ATOLL_URL", raising=False)
    profile.save(profile.Profile(url=f"{rotated}/plane", token=TOKEN, ca=old, project="mine"))
    monkeypatch.setenv("ATOLL_TOKEN", TOKEN)
    monkeypatch.setenv("ATOLL_PROJECT", "other")
    assert (await asyncio.to_thread(Client().status)).installation == "test"
    monkeypatch.delenv("ATOLL_PROJECT")
    kept = profile.load()
    assert kept.ca == authority.ca_pem
    assert (kept.token, kept.project) == (TOKEN, "mine"), "nothing of the environment is written down"
    assert (await asyncio.to_thread(Client().status)).installation == "test"
    async with AsyncClient(f"{rotated}/plane", TOKEN, ca=old) as waiting:
        assert (await waiting.status()).installation == "test"


async def test_so_does_one_of_an_asyncio_program(
    authority: Authority, rotated: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    [_, old] = blocks(authority.ca_pem)
    monkeypatch.setenv("ATOLL_HOME", str(tmp_path))
    monkeypatch.delenv("ATOLL_URL", raising=False)
    profile.save(profile.Profile(url=f"{rotated}/plane", token=TOKEN, ca=old))
    async with AsyncClient() as client:
        assert (await client.status()).installation == "test"
        assert profile.load().ca == authority.ca_pem
        await asyncio.to_thread(authority.retire, time.time())
        async with serving(authority) as url:  # which the old CA vouches for no more
            client.address = replace(client.address, port=Address.parse(url).port)
            assert (await client.status()).installation == "test"


async def test_a_client_without_a_profile_learns_for_itself(authority: Authority, rotated: str, tmp_path: Path) -> None:
    [new, old] = blocks(authority.ca_pem)
    client = Client(f"{rotated}/plane", TOKEN, ca=old)
    assert (await asyncio.to_thread(client.status)).installation == "test"
    assert client._ca == authority.ca_pem
    for pinned in (new, old):
        pem = await asyncio.to_thread(fetch_ca, rotated, pins(pinned)[0])
        assert pem == pinned, "a login believes what it pinned, and learns the rest from there"
