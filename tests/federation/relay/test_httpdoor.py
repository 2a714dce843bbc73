"""A relay behind a load balancer that opens TLS: agents, users and what passes by come inside a WebSocket."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from tests.federation.relay.test_process import Place
from tests.tunnel.balancer import opening_tls
from tests.tunnel.ends import until
from tunnel import wire
from tunnel.asking import verified
from tunnel.dialer import connect
from tunnel.door import Way
from tunnel.envelope import enveloped, outer_context
from tunnel.identity import Authority
from tunnel.userstream import reach


@asynccontextmanager
async def balanced(
    authority: Authority, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[Place, int]]:
    """A relay, and the port of the load balancer before it, whose certificate this machine trusts."""
    theirs = await asyncio.to_thread(Authority.load_or_create, folder / "theirs", now=time.time())
    (folder / "theirs.pem").write_text(theirs.ca_pem)
    monkeypatch.setenv("SSL_CERT_FILE", str(folder / "theirs.pem"))
    place = Place(authority, folder)
    await place.listen()
    await place.start()
    try:
        await until(lambda: place.process.uplink.connected)
        async with opening_tls(theirs, place.port) as port:
            yield place, port
    finally:
        await place.close()


def test_agents_and_users_meet_inside(
    runner: asyncio.Runner, authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        async with balanced(authority, tmp_path, monkeypatch) as (place, port):
            links = await place.agent(f"https://localhost:{port}")
            await until(lambda: links.linked)
            way = Way("localhost", port, wire.RELAY_NAME)
            assert (await reach([way], authority.ca_pem, {})).inside
            stream, user = place.stream(replace(place.permit(), ways=[way]))
            stream.write(b"x" * 2_000_000)
            await until(lambda: user.size == 2_000_000, 20)
            assert place.process.acceptor.refused == {}
            assert len(place.process.visits) == 1
            stream.abort()
            await until(lambda: len(place.process.visits) == 0)
            await links.close()

    runner.run(main())


async def test_what_is_not_for_the_relay_passes_by_inside_too(
    authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with balanced(authority, tmp_path, monkeypatch) as (place, port):
        context = verified(authority.ca_pem)
        context.set_alpn_protocols(["http/1.1"])
        plain = await connect("localhost", port, {})
        inside = await enveloped(plain, "localhost", port, outer_context(context))
        reader, writer = await asyncio.open_unix_connection(sock=inside, ssl=context, server_hostname=wire.CONTROL_NAME)
        writer.write(b"GET")
        assert await reader.read(100) == b"heard GET"
        assert len(place.process.passage) == 1
        writer.close()
        await until(lambda: len(place.process.passage) == 0)


async def test_a_balancer_learns_whether_the_relay_serves(authority: Authority, tmp_path: Path) -> None:
    place = Place(authority, tmp_path)
    await place.listen()
    await place.start()
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", place.port)

        async def get(path: str) -> bytes:
            writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            head = await reader.readuntil(b"\r\n\r\n")
            size = next(int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:"))
            return head.split(b" ")[1] + b" " + await reader.readexactly(size)

        assert await get("/healthz") == b"200 ok\n"
        assert (await get("/v1/tunnel")).startswith(b"404 This is a relay")
        assert (await get("/v1/status")).startswith(b"404 This is a relay")
        place.process.drain(20.0)
        await until(lambda: place.process.agents.draining)
        assert (await get("/healthz")).startswith(b"503 ")
        assert (await get("/v1/tunnel")).startswith(b"503 ")
        writer.close()
    finally:
        await place.close()
