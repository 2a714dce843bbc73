"""Who is inside by a door of this process, and who is sent home: when the session, or the visitor's API token, ends."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from atoll.errors import AtollError, Conflict, Unauthorized
from atoll.session import Session
from atoll.states import ENDED
from atoll.token import Token, TokenKind
from federation.api.plane import Plane

LOOK_S = 15.0
"""Where no hint comes, changes that end connections are looked for this often."""


@dataclass(eq=False, slots=True)
class Visitor:
    """One connection that was let in: whose it is, to what, and how it is ended.

    Of one that came in without an API token, `over` says why it has to leave, if it has to; `token` is empty then.
    """

    owner: str
    token: str
    session: str
    project: str
    rank: int
    end: Callable[[str], None]
    over: Callable[[Session], Awaitable[AtollError | None]] | None = None


class Visitors:
    """Those inside. They are watched while there are any."""

    def __init__(self, control: Plane) -> None:
        self._control = control
        self._inside: set[Visitor] = set()
        self._watching: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        """How many there are."""
        return len(self._inside)

    async def enter(self, visitor: Visitor) -> None:
        """Let someone in; raise `Unauthorized` or `Conflict` where the token or the session has ended already."""
        self.watch(visitor)
        try:
            if over := await self._over(visitor):
                raise over
        except BaseException:
            self.left(visitor)
            raise

    def watch(self, visitor: Visitor) -> None:
        """Let someone in who was checked just now."""
        self._inside.add(visitor)
        if self._watching is None or self._watching.done():
            self._watching = asyncio.create_task(self._watch(), name="visitors")

    def left(self, visitor: Visitor) -> None:
        """Someone is gone."""
        self._inside.discard(visitor)

    async def close(self, reason: str) -> None:
        """Send everyone home."""
        for visitor in list(self._inside):
            visitor.end(reason)
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)

    async def _watch(self) -> None:
        """End connections as their sessions and tokens end; over when nobody is left."""
        hints = self._control.bus.subscribe("events")
        since = await self._control.store.last_rev()
        while self._inside:
            for visitor in list(self._inside):
                if over := await self._over(visitor):
                    visitor.end(over.message)
            since = await self._changed(hints, since)

    async def _changed(self, hints: object, since: int) -> int:
        """Wait until something of a visitor's may have changed; return the newest event's number."""
        store = self._control.store
        while self._inside:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_S):
                    await anext(hints)  # type: ignore[call-overload]
            found = await store.events(since, kinds=("session", "token"))
            since = found[-1].rev if found else since
            keys = {event.key for event in found}
            tokens = any(event.kind == "token" for event in found)
            if any(
                visitor.session in keys or (tokens if visitor.over else visitor.token[:12] in keys)
                for visitor in self._inside
            ):
                return since
        return since

    async def _over(self, visitor: Visitor) -> AtollError | None:
        async with self._control.store.transaction() as tx:
            row, token = await tx.get(Session, visitor.session), await tx.get(Token, visitor.token)
        if visitor.over is None and (
            token is None or token.kind is not TokenKind.API or token.owner != visitor.owner
        ):  # first: of sessions they hear nothing
            return Unauthorized("your API token was deleted", hint="log in again: atoll login URL --token …")
        if row is None or row.state in ENDED:
            return Conflict(f"the session has ended ({row.state if row else 'deleted'})", hint="see `atoll ps --all`")
        return await visitor.over(row) if visitor.over is not None else None
