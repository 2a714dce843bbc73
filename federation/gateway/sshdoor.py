"""The users' SSH door: who may enter which session, for how long, and who is inside. It loads no SSH library itself."""

import asyncio
import contextlib
import socket
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from atoll.errors import AtollError, Conflict, NotFound, Unauthorized, Unavailable
from atoll.ids import run_id
from atoll.session import Session
from atoll.states import ENDED, PLACED, SessionState
from atoll.token import Token, TokenKind
from federation.api.auth import Caller, may_enter
from federation.api.route import Services

log = structlog.get_logger("ssh")

LOOK_S = 15.0
"""Where no hint comes, changes that end connections are looked for this often."""
PROJECT = "default"
VISITORS_LIMIT = 1024
"""Most connections at a time."""


@dataclass(eq=False, slots=True)
class Visitor:
    """One connection that was let in: whose it is, to what, and how it is ended."""

    owner: str
    token: str
    session: str
    project: str
    rank: int
    end: Callable[[str], None]


class SshDoor:
    """Takes accepted connections that begin with `SSH-`, and ends them when their session or API token does."""

    def __init__(self, services: Services) -> None:
        self.services = services
        self._visitors: set[Visitor] = set()
        self._watching: asyncio.Task[None] | None = None

    async def serve(self, connection: socket.socket) -> None:
        """Serve a connection; returns once its user is known. Raises `OSError` for one that never got that far."""
        if len(self._visitors) >= VISITORS_LIMIT:
            connection.close()
            return
        from federation.gateway.ssh import serve  # here: an installation that nobody enters never loads it

        await serve(self, connection)

    async def close(self) -> None:
        """Send everyone home."""
        for visitor in list(self._visitors):
            visitor.end("the control plane is stopping")
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)

    async def admit(self, name: str, owner: str, token: str, end: Callable[[str], None]) -> Visitor:
        """Let a user whose certificate was good into the session that `name` names: `[PROJECT/]SESSION[.RANK]`.

        Raises `Unauthorized` when the API token behind the certificate is gone, `NotFound` when there is no such
        session that this user may enter: whether others have one is not told (S5).
        """
        async with self.services.control.store.transaction() as tx:
            known = await tx.get(Token, token)
        if known is None or known.kind is not TokenKind.API or known.owner != owner:
            raise Unauthorized("the API token behind this certificate is not valid any more", hint="log in again")
        project, ref, rank = _parsed(name)
        absent = NotFound(f"there is no session {name} that {owner} may enter", hint="`atoll ps` lists sessions")
        try:
            row = await self.services.control.sessions.get(project, ref)
        except NotFound:
            raise absent from None
        if not may_enter(Caller(owner, roles=known.roles), row):
            log.warning("refused", user=owner, session=row.id)
            raise absent
        if not 0 <= rank < row.spec.nodes:
            raise NotFound(f"{row.name} has no member of rank {rank}", hint=f"0 to {row.spec.nodes - 1}")
        visitor = Visitor(owner, token, row.id, project, rank, end)
        self._visitors.add(visitor)
        if self._watching is None or self._watching.done():
            since = await self.services.control.store.last_rev()
            self._watching = asyncio.create_task(self._watch(since), name="ssh door")
        log.info("entered", user=owner, session=row.id)
        return visitor

    def left(self, visitor: Visitor) -> None:
        """A connection is over."""
        self._visitors.discard(visitor)
        log.info("left", user=visitor.owner, session=visitor.session)

    async def run_of(self, visitor: Visitor) -> str:
        """Return the run that a visitor is at now; raise `Conflict` or `Unavailable` while it does not run."""
        row = await self.services.control.sessions.get(visitor.project, visitor.session)
        return _run(row, visitor.rank)

    async def _watch(self, since: int) -> None:
        """End connections as their sessions and tokens end; over when nobody is left."""
        hints = self.services.control.bus.subscribe("events")
        while self._visitors:
            for visitor in list(self._visitors):
                await self._check(visitor)
            since = await self._changed(hints, since)

    async def _changed(self, hints: object, since: int) -> int:
        """Wait until something of a visitor's may have changed; return the newest event's number."""
        store = self.services.control.store
        while self._visitors:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_S):
                    await anext(hints)  # type: ignore[call-overload]
            found = await store.events(since, kinds=("session", "token"))
            since = found[-1].rev if found else since
            keys = {event.key for event in found}
            if any(visitor.session in keys or visitor.token[:12] in keys for visitor in self._visitors):
                return since
        return since

    async def _check(self, visitor: Visitor) -> None:
        async with self.services.control.store.transaction() as tx:
            row, token = await tx.get(Session, visitor.session), await tx.get(Token, visitor.token)
        if row is None or row.state in ENDED:
            visitor.end(f"the session has ended ({row.state if row else 'deleted'})")
        elif token is None:
            visitor.end("your API token was deleted")


def _parsed(name: str) -> tuple[str, str, int]:
    """Return project, session and rank of a user name."""
    project, slash, rest = name.rpartition("/")
    ref, _, rank = rest.partition(".")
    return project if slash else PROJECT, ref, int(rank) if rank.isdecimal() and len(rank) < 6 else 0


def _run(row: Session, rank: int) -> str:
    if row.state in ENDED:
        raise Conflict(f"{row.name} has ended ({row.state})", hint="start it again with `atoll run`")
    if row.state not in PLACED or row.state is SessionState.STARTING:
        text = f": {row.message}" if row.message else ""
        raise Unavailable(f"{row.name} is {row.state}{text}", hint=row.hint or "try again in a moment")
    return run_id(row.id, row.attempt, rank)


def said(error: AtollError) -> str:
    """Return an error as people read it in a terminal."""
    return f"error: {error.message}\n" + (f"hint: {error.hint}\n" if error.hint else "")
