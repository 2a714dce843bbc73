"""The users' SSH door: who may enter which session, for how long, and who is inside. It loads no SSH library itself."""

import socket
from collections.abc import Callable

import structlog

from atoll.errors import Conflict, NotFound, Unauthorized, Unavailable
from atoll.ids import run_id
from atoll.policy import COMMON
from atoll.session import Session
from atoll.states import ENDED, PLACED, SessionState
from atoll.token import Token, TokenKind
from federation.api.auth import Caller, may_enter
from federation.api.route import Services
from federation.control.streamlog import Visit
from federation.gateway.visitors import Visitor, Visitors

log = structlog.get_logger("ssh")

VISITORS_LIMIT = 1024
"""Most connections at a time."""


class SshDoor:
    """Takes accepted connections that begin with `SSH-`, and ends them when their session or API token does."""

    def __init__(self, services: Services) -> None:
        self.services = services
        self._visitors = Visitors(services.control)

    async def serve(self, connection: socket.socket) -> None:
        """Serve a connection; returns once its user is known. Raises `OSError` for one that never got that far."""
        if len(self._visitors) >= VISITORS_LIMIT:
            connection.close()
            return
        from federation.gateway.ssh import serve  # here: an installation that nobody enters never loads it

        await serve(self, connection)

    async def close(self) -> None:
        """Send everyone home."""
        await self._visitors.close("the control plane is stopping")

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
            visit = Visit(door="ssh", user=owner, project=row.project, session=row.id)
            self.services.control.streams.log.refused(visit, "FORBIDDEN", "the session belongs to another user")
            raise absent
        if not 0 <= rank < row.spec.nodes:
            raise NotFound(f"{row.name} has no member of rank {rank}", hint=f"0 to {row.spec.nodes - 1}")
        visitor = Visitor(owner, token, row.id, project, rank, end)
        await self._visitors.enter(visitor)
        log.info("entered", user=owner, session=row.id)
        return visitor

    def left(self, visitor: Visitor) -> None:
        """A connection is over."""
        self._visitors.left(visitor)
        log.info("left", user=visitor.owner, session=visitor.session)

    async def run_of(self, visitor: Visitor) -> str:
        """Return the run that a visitor is at now; raise `Conflict` or `Unavailable` while it does not run."""
        row = await self.services.control.sessions.get(visitor.project, visitor.session)
        return _run(row, visitor.rank)


def _parsed(name: str) -> tuple[str, str, int]:
    """Return project, session and rank of a user name."""
    project, slash, rest = name.rpartition("/")
    ref, _, rank = rest.partition(".")
    return project if slash else COMMON, ref, int(rank) if rank.isdecimal() and len(rank) < 6 else 0


def _run(row: Session, rank: int) -> str:
    if row.state in ENDED:
        raise Conflict(f"{row.name} has ended ({row.state})", hint="start it again with `atoll run`")
    if row.state not in PLACED or row.state is SessionState.STARTING:
        text = f": {row.message}" if row.message else ""
        raise Unavailable(f"{row.name} is {row.state}{text}", hint=row.hint or "try again in a moment")
    return run_id(row.id, row.attempt, rank)
