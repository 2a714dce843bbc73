"""The control plane's own door for users' streams: who shows a good grant must still have the token it was made for."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace

import structlog

from atoll.agent import Agent
from atoll.errors import Conflict, Forbidden
from atoll.states import KEPT
from atoll.streamrecord import Sighting
from federation.api.plane import Plane
from federation.control import streamlog
from federation.control.streamreports import visit_by
from federation.gateway.visitors import Visitor, Visitors
from tunnel.door import Door, Visit
from tunnel.grant import Grant, relay_key
from tunnel.relay import Relay

log = structlog.get_logger("door")


@dataclass(slots=True)
class _Inside:
    """One that was let in, and what is recorded of it."""

    visitor: Visitor
    target: streamlog.Visit | None = None
    seen: Sighting | None = None


class UserDoor:
    """Takes connections under `wire.ALPN_USER`; they end with their session and with their user's API token.

    `relay` is the one in this process, `now` the control plane's time.
    """

    def __init__(self, control: Plane, relay: Relay, now: Callable[[], float]) -> None:
        self._door = Door(relay, relay_key(control.config.secret_key), now, guard=self)
        self._control = control
        self._visitors = Visitors(control)
        self._inside: dict[Visit, _Inside] = {}

    @property
    def refused(self) -> Counter[str]:
        """Connections that were not let in, by the code of their error."""
        return self._door.refused

    def accept(self) -> Visit:
        """Return the protocol for a new connection."""
        return self._door.accept()

    async def admit(self, visit: Visit) -> None:
        """Let a visit in; raise `Forbidden`, `Unauthorized` or `Conflict`."""
        grant = visit.grant
        if grant is None or not (grant.user and grant.token):
            raise Forbidden("the grant is no user's")
        recorded = self._control.streams.log
        target = visit_by(grant, visit.source)
        with recorded.refusals(target):
            await self._let_in(visit, grant)
        seen = self._inside[visit].seen = replace(recorded.begins(), source=visit.source)
        recorded.saw(target, grant.resume, seen)
        self._inside[visit].target = target
        log.info("entered", user=grant.user, session=grant.session, source=visit.source)

    async def _let_in(self, visit: Visit, grant: Grant) -> None:
        visitor = Visitor(grant.user, grant.token, grant.session, grant.project, 0, visit.end)
        self._inside[visit] = _Inside(visitor)
        await self._visitors.enter(visitor)
        async with self._control.store.transaction() as tx:
            agent = await tx.get(Agent, grant.agent)
        if agent is None or agent.state not in KEPT:
            raise Conflict("the session's agent does not belong to this installation (any more)")

    def left(self, visit: Visit) -> None:
        """A visit is over."""
        if inside := self._inside.pop(visit, None):
            self._visitors.left(inside.visitor)
            self._tell_end(visit, inside)
            log.info("left", user=inside.visitor.owner, session=inside.visitor.session)

    def _tell_end(self, visit: Visit, inside: "_Inside") -> None:
        if inside.seen is None or inside.target is None or visit.grant is None:
            return
        recorded = self._control.streams.log
        seen = replace(inside.seen, ended_at=recorded.begins().began_at)
        if visit.error is not None:
            seen = replace(seen, reason=visit.error.code, message=visit.error.message)
        if visit.opened is not None:
            received, sent = visit.opened.transport.carried
            seen = replace(seen, lane=visit.opened.choice.lane, received=received, sent=sent)
        recorded.saw(inside.target, visit.grant.resume, seen)

    async def close(self) -> None:
        """End all visits."""
        reason = "the control plane is stopping"
        self._door.close(reason)
        await self._visitors.close(reason)
