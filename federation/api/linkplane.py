"""The agents' links and users' streams, as the API and the gateway see them: part of `federation.api.plane.Plane`."""

import asyncio
from collections.abc import Sequence
from typing import Protocol

from atoll.agent import Agent
from atoll.streamrecord import StreamRecord
from federation.control.linkfacts import LinkStanding, Pinged
from federation.control.streamlog import StreamLog
from federation.control.streams import Permitted
from tunnel.door import Way
from tunnel.lanes import Use
from tunnel.metrics import Family


class LinksPort(Protocol):
    """The agents' links."""

    def owes(self, run: str) -> bool:
        """Say whether a connected agent has yet to send the rest of the output of a run that has ended."""
        ...

    def accept(self) -> asyncio.BaseProtocol:
        """Return the protocol of a new link."""
        ...


class LinkFactsPort(Protocol):
    """How links stand."""

    def standing(self, row: Agent) -> LinkStanding:
        """Return how an agent's link stands."""
        ...

    async def ping(self, row: Agent, count: int) -> Pinged:
        """Ping an agent over its link and over a stream on each lane; raises `Unavailable`."""
        ...


class RecordsPort(Protocol):
    """Records of users' streams."""

    async def list(
        self, *, project: str = "", session: str = "", user: str = "", after: str = "", limit: int = 100
    ) -> Sequence[StreamRecord]:
        """Return a page of those of a project, a session or a user, newest first."""
        ...


class MetricsPort(Protocol):
    """Figures."""

    async def families(self) -> list[Family]:
        """Return those of this moment."""
        ...


class StreamsPort(Protocol):
    """Users' streams; `log` is where they are recorded."""

    @property
    def log(self) -> StreamLog:
        """The log."""
        ...

    async def open(
        self,
        run: str,
        app: str,
        port: int,
        protocol: asyncio.Protocol,
        *,
        use: Use = Use.SHORT,
        exec: bool = False,  # noqa: A002 - the field's name on the wire
        user: str = "",
        door: str = "",
        source: str = "",
    ) -> asyncio.Transport:
        """Open a stream to an app or port of a run, suited to its `use`, or with `exec` to a program beside it.

        `user` is whom it is for; empty where it serves several or the installation itself. With the `door` by which
        the user came in, from the address `source`, it is recorded.
        Raises `NotFound` or `Unavailable`.
        """
        ...

    async def permit(
        self, run: str, app: str, port: int, *, user: str, token: str, resume: bytes = b"", client: bytes = b""
    ) -> Permitted:
        """Permit a user a stream from outside, with `resume` that one again, with `client` a blind one.

        Raises as `open` does, and `Conflict`.
        """
        ...

    def ways(self, agent: str, /) -> Sequence[Way]:
        """Return where there are doors to an agent."""
        ...
