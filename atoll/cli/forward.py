"""`atoll forward`: ports of a session on this machine's loopback, over streams that outlive what carries them."""

import argparse
import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

from atoll.cli.output import note
from atoll.cli.parser import Parser, Run
from atoll.cli.server import server_module
from atoll.client.asynchronous import AsyncClient
from atoll.errors import AtollError, Conflict, Invalid, NotFound, Refused
from atoll.host.system import SystemChance
from atoll.states import SessionState

if TYPE_CHECKING:
    from tunnel.forward import Forwarding

CHUNK = 64 * 1024

Serve: TypeAlias = Callable[[int, int], Awaitable[asyncio.Server]]
"""Listens on a local port for a remote one. Raises `OSError`."""


def forward(parser: Parser) -> Run:
    """Set up `atoll forward`."""
    parser.add_argument("session", help="id or name")
    parser.add_argument("port", nargs="+", metavar="LOCAL:REMOTE", help="8080:80, or 80 for both; may be repeated")
    parser.add_argument("--rank", type=int, default=0, help="member of a gang (default 0)")
    parser.add_argument("--blind", action="store_true", help="encrypt from here to the agent: no relay can read it")
    parser.add_argument("-v", action="store_true", help="tell which way each connection takes, and when it is resumed")
    parser.add_argument("--project", help=argparse.SUPPRESS)
    return _run


def parse_ports(word: str) -> tuple[int, int]:
    """Return `(local, remote)` of `8080:80` or `80` (local 0 picks a free one); raise `Invalid` for others."""
    local, separator, remote = word.partition(":")
    remote = remote if separator else local
    if not (local.isdecimal() and remote.isdecimal() and int(local) < 65536 and 0 < int(remote) < 65536):
        raise Invalid(f"{word!r} is not LOCAL:REMOTE", hint="write it like 8080:80; 0:80 picks a free local port")
    return int(local), int(remote)


def _run(args: argparse.Namespace) -> int:
    ports = [parse_ports(word) for word in args.port]
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_forward(args, ports))


async def _forward(args: argparse.Namespace, ports: list[tuple[int, int]]) -> int:
    done = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, done.set)
    async with AsyncClient(project=args.project or "", timeout=10.0) as client:
        session = await client.session(args.session)
        if session.state != SessionState.RUNNING:
            raise Conflict(f"{session.name} is {session.state}: it has no ports now", hint=session.message)
        forwarding = _forwarding(client, session.id, args)
        serve = await _way(forwarding, ports[0][1], partial(carry, client, session.id, args.rank))
        servers = [await _listen(serve, local, remote) for local, remote in ports]
        await done.wait()
        for server in servers:
            server.close()
        await forwarding.close()
    return 0


def _forwarding(client: AsyncClient, session: str, args: argparse.Namespace) -> "Forwarding":
    made: Forwarding = server_module("tunnel.forward").Forwarding(
        lambda port, stream, own: client.stream(session, port, rank=args.rank, resume=stream.hex(), client=own.hex()),
        (client.address.host, client.address.port),
        os.environ,
        SystemChance(),
        note,
        verbose=args.v,
        blind=args.blind,
    )
    return made


async def _way(
    forwarding: "Forwarding",
    port: int,
    by_websocket: Callable[[int, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> Serve:
    """Return how to listen: for streams that resume or, where there is no door for those, for WebSockets."""
    try:
        await forwarding.reach(port)
    except (OSError, Conflict, Invalid, NotFound) as error:
        note(f"through a WebSocket: a connection ends when its way breaks ({str(error) or 'no answer in time'})")
        return lambda local, remote: asyncio.start_server(partial(by_websocket, remote), "127.0.0.1", local)
    loop = asyncio.get_running_loop()
    return lambda local, remote: loop.create_server(lambda: forwarding.accept(remote), "127.0.0.1", local)


async def _listen(serve: Serve, local: int, remote: int) -> asyncio.Server:
    try:
        server = await serve(local, remote)
    except OSError as error:
        raise Refused(
            f"cannot listen on 127.0.0.1:{local}: {(error.strerror or str(error)).lower()}",
            hint=f"choose another local port: 0:{remote} picks a free one",
        ) from error
    bound = server.sockets[0].getsockname()[1]
    print(f"127.0.0.1:{bound} -> port {remote}", flush=True)
    return server


async def carry(
    client: AsyncClient,
    session: str,
    rank: int,
    port: int,
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
) -> None:
    """Carry one connection both ways until both ends have said all they had to."""
    try:
        async with client.connect(session, port, rank=rank) as channel:
            up = asyncio.create_task(_up(reader, channel))
            try:
                async for message in channel:
                    if isinstance(message.data, bytes):
                        writer.write(message.data)
                        await writer.drain()
                    elif message.data == "eof" and writer.can_write_eof():
                        writer.write_eof()
            finally:
                up.cancel()
    except (AtollError, OSError) as error:
        note(f"port {port}: {error}")
    finally:
        writer.close()


async def _up(reader: asyncio.StreamReader, channel: object) -> None:
    send_bytes, send_str = channel.send_bytes, channel.send_str  # type: ignore[attr-defined]
    while data := await reader.read(CHUNK):
        await send_bytes(data)
    await send_str("eof")
