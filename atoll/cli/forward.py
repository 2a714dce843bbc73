"""`atoll forward`: ports of a session on this machine's loopback, each connection a WebSocket of its own."""

import argparse
import asyncio
import signal
from functools import partial

from atoll.cli.output import note
from atoll.cli.parser import Parser, Run
from atoll.client.asynchronous import AsyncClient
from atoll.errors import AtollError, Conflict, Invalid, Refused
from atoll.states import SessionState

CHUNK = 64 * 1024


def forward(parser: Parser) -> Run:
    """Set up `atoll forward`."""
    parser.add_argument("session", help="id or name")
    parser.add_argument("port", nargs="+", metavar="LOCAL:REMOTE", help="8080:80, or 80 for both; may be repeated")
    parser.add_argument("--rank", type=int, default=0, help="member of a gang (default 0)")
    parser.add_argument("--project", help=argparse.SUPPRESS)
    return lambda args: asyncio.run(_forward(args))


def parse_ports(word: str) -> tuple[int, int]:
    """Return `(local, remote)` of `8080:80` or `80` (local 0 picks a free one); raise `Invalid` for others."""
    local, separator, remote = word.partition(":")
    remote = remote if separator else local
    if not (local.isdecimal() and remote.isdecimal() and int(local) < 65536 and 0 < int(remote) < 65536):
        raise Invalid(f"{word!r} is not LOCAL:REMOTE", hint="write it like 8080:80; 0:80 picks a free local port")
    return int(local), int(remote)


async def _forward(args: argparse.Namespace) -> int:
    ports = [parse_ports(word) for word in args.port]
    done = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, done.set)
    async with AsyncClient(project=args.project or "") as client:
        session = await client.session(args.session)
        if session.state != SessionState.RUNNING:
            raise Conflict(f"{session.name} is {session.state}: it has no ports now", hint=session.message)
        servers = [await _listen(client, session.id, local, remote, args.rank) for local, remote in ports]
        await done.wait()
        for server in servers:
            server.close()
    return 0


async def _listen(client: AsyncClient, session: str, local: int, remote: int, rank: int) -> asyncio.Server:
    try:
        server = await asyncio.start_server(partial(carry, client, session, remote, rank), "127.0.0.1", local)
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
    port: int,
    rank: int,
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
