"""Protocols and dialers that stay with their host: whoever delivers to them, their code runs as their own process."""

import asyncio
from collections.abc import Callable

from tests.sim.loop import Host
from tunnel.dialer import Dialer


class Hosted(asyncio.Protocol):
    """Passes every callback on to `inner`, as `host`; to a dead host nothing is passed."""

    def __init__(self, host: Host, inner: asyncio.Protocol) -> None:
        self._host = host
        self._inner = inner

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection is up."""
        self._host.call(self._inner.connection_made, transport)

    def data_received(self, data: bytes) -> None:
        """Bytes came."""
        if not self._host.dead:
            self._host.call(self._inner.data_received, data)

    def eof_received(self) -> bool | None:
        """The other end will send no more."""
        return None if self._host.dead else self._host.call(self._inner.eof_received)

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is over."""
        if not self._host.dead:
            self._host.call(self._inner.connection_lost, exc)

    def pause_writing(self) -> None:
        """The connection is full."""
        if not self._host.dead:
            self._host.call(self._inner.pause_writing)

    def resume_writing(self) -> None:
        """The connection takes bytes again."""
        if not self._host.dead:
            self._host.call(self._inner.resume_writing)


class HostedDialer:
    """A dialer whose protocols are hosted."""

    def __init__(self, host: Host, dialer: Dialer) -> None:
        self._host = host
        self._dialer = dialer

    async def dial(self, make: Callable[[], asyncio.Protocol], *, splice: bool = False) -> None:
        """Connect `make()`, hosted."""
        await self._dialer.dial(lambda: Hosted(self._host, make()), splice=splice)
