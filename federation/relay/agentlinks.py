"""The links of agents to this relay: who is let in, and when they are ended."""

import asyncio
import logging
from collections.abc import Callable

from tunnel import wire
from tunnel.link import Link, Side
from tunnel.relay import Relay

_log = logging.getLogger("atoll.relay")

LINKS_LIMIT = 10_000
"""Most agents' links of one relay."""
ATTACH_S = 10.0
"""A link that does not say what it is within this is closed."""


class AgentLinks:
    """Owner of all agents' links; `accept` is the protocol factory for connections under `ALPN_RELAY`.

    Their certificates were checked by TLS; `refuses` says whose counts no more.
    """

    def __init__(self, relay: Relay, refuses: Callable[[str], bool]) -> None:
        self._relay = relay
        self._refuses = refuses
        self._waiting: dict[Link, asyncio.TimerHandle] = {}
        self._attached: dict[str, Link] = {}
        self._newest: dict[str, int] = {}
        self.draining = False
        """Whether nobody is let in any more."""

    def accept(self) -> Link:
        """Return the protocol for a new connection."""
        return Link(self, side=Side.CONTROL)

    def agents(self) -> list[str]:
        """Return the ids of all agents that are linked."""
        return list(self._attached)

    def close(self, reason: str) -> None:
        """Close all links."""
        for link in [*self._waiting, *self._attached.values()]:
            link.close(reason)

    # LinkOwner.

    def linked(self, link: Link, /) -> None:
        """A connection is up; it has so long to say what it is."""
        self._waiting[link] = asyncio.get_running_loop().call_later(ATTACH_S, link.close, "no Attach in time")

    def received(self, link: Link, message: wire.FromAgent | wire.FromControl, /) -> None:
        """An agent says what it is, and nothing else."""
        if link not in self._waiting:
            return
        if not isinstance(message, wire.Attach):
            link.close("the first message must be Attach")
            return
        refusal = self._refusal(link, message)
        if refusal is not None:
            link.send(refusal)
            link.close(refusal.message)
            return
        self._waiting.pop(link).cancel()
        before = self._attached.get(link.peer)
        self._attached[link.peer] = link
        self._newest[link.peer] = link.generation
        link.send(wire.Attached(protocol=wire.PROTOCOL))
        self._relay.linked(link.peer, link, boot=message.boot, dials=True)
        if before is not None:
            before.close("the agent attached on a newer link")

    def stream_opened(self, link: Link, opening: wire.OpenStream, /) -> asyncio.Protocol | None:  # noqa: ARG002
        """Agents open no streams."""
        return None

    def lost(self, link: Link, reason: str, /) -> None:
        """A link is gone."""
        if timer := self._waiting.pop(link, None):
            timer.cancel()
        if self._attached.get(link.peer) is link:
            del self._attached[link.peer]
            self._relay.unlinked(link.peer, link)
            _log.info("the link of agent %s is down: %s", link.peer, reason)

    def _refusal(self, link: Link, message: wire.Attach) -> wire.Refuse | None:
        """Return why an agent is not let in, None where it is."""
        if not link.peer or self._refuses(link.peer):
            return wire.Refuse(code="FORBIDDEN", message="this agent does not belong to the installation (any more)")
        if link.generation < self._newest.get(link.peer, 0):  # a clone's, as the control plane will find out
            _log.warning("agent %s showed an older certificate than before", link.peer)
            return wire.Refuse(code="CLONED", message="a newer certificate of this agent has been shown here before")
        if message.protocol < wire.RELAYS:
            return wire.Refuse(code="PROTOCOL", message=f"protocol {message.protocol} is not spoken here")
        if self.draining:
            return wire.Refuse(code="DRAINING", message="the relay is being drained", retry_after_s=30.0)
        if len(self._attached) >= LINKS_LIMIT:
            return wire.Refuse(code="FULL", message=f"the relay has {LINKS_LIMIT} links", retry_after_s=30.0)
        return None
