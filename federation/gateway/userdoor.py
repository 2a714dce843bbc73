"""The control plane's own door for users' streams: who shows a good grant must still have the token it was made for."""

from collections.abc import Callable

import structlog

from atoll.agent import Agent
from atoll.errors import Conflict, Forbidden
from atoll.states import KEPT
from federation.api.plane import Plane
from federation.control import streamlog
from federation.control.streamlog import Entry
from federation.gateway.visitors import Visitor, Visitors
from tunnel.door import Door, Visit
from tunnel.grant import Grant, relay_key
from tunnel.relay import Relay

log = structlog.get_logger("door")


class UserDoor:
    """Takes connections under `wire.ALPN_USER`; they end with their session and with their user's API token.

    `relay` is the one in this process, `now` the control plane's time.
    """

    def __init__(self, control: Plane, relay: Relay, now: Callable[[], float]) -> None:
        self._door = Door(relay, relay_key(control.config.secret_key), now, guard=self)
        self._control = control
        self._visitors = Visitors(control)
        self._inside: dict[Visit, tuple[Visitor, Entry]] = {}

    def accept(self) -> Visit:
        """Return the protocol for a new connection."""
        return self._door.accept()

    async def admit(self, visit: Visit) -> None:
        """Let a visit in; raise `Forbidden`, `Unauthorized` or `Conflict`."""
        grant = visit.grant
        if grant is None or not (grant.user and grant.token):
            raise Forbidden("the grant is no user's")
        recorded = self._control.streams.log
        target = streamlog.Visit(
            door="stream",
            user=grant.user,
            project=grant.project,
            session=grant.session,
            run=grant.run,
            app=grant.app,
            port=grant.port,
            source=visit.source,
        )
        with recorded.refusals(target):
            await self._let_in(visit, grant)
        self._inside[visit] = self._inside[visit][0], recorded.began(target, stream=grant.resume.hex())
        log.info("entered", user=grant.user, session=grant.session, source=visit.source)

    async def _let_in(self, visit: Visit, grant: Grant) -> None:
        async with self._control.store.transaction() as tx:
            agent = await tx.get(Agent, grant.agent)
        if agent is None or agent.state not in KEPT:
            raise Conflict("the session's agent does not belong to this installation (any more)")
        visitor = Visitor(grant.user, grant.token, grant.session, grant.project, 0, visit.end)
        self._inside[visit] = visitor, Entry.none()
        await self._visitors.enter(visitor)

    def left(self, visit: Visit) -> None:
        """A visit is over."""
        if inside := self._inside.pop(visit, None):
            visitor, entry = inside
            self._visitors.left(visitor)
            if visit.opened is not None:
                entry.lane(visit.opened.choice.lane)
                entry.carried(*visit.opened.transport.carried)
            entry.ended(visit.error.code if visit.error else "", visit.error.message if visit.error else "")
            log.info("left", user=visitor.owner, session=visitor.session)

    async def close(self) -> None:
        """End all visits."""
        reason = "the control plane is stopping"
        self._door.close(reason)
        await self._visitors.close(reason)
