"""The relay's process, put together: one port for agents, users and the control plane behind it; and its drain.

`python -m federation.relay --home DIR --listen HOST:PORT` runs an enrolled relay in the foreground.
"""

import argparse
import asyncio
import logging
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

from atoll import __version__
from atoll.errors import AtollError, Forbidden, Invalid, Refused
from atoll.host.config import split_listen
from atoll.host.system import SystemChance, SystemClock
from federation.relay.agentlinks import AgentLinks
from federation.relay.home import About, RelayHome
from federation.relay.httpdoor import HttpDoor
from federation.relay.passage import Passage
from federation.relay.terms import Terms
from federation.relay.uplink import Uplink
from federation.relay.visits import Visits
from tunnel import wire
from tunnel.acceptor import Acceptor, Route
from tunnel.door import Door
from tunnel.figures import LaneFigures
from tunnel.relay import Carried, Relay
from tunnel.reports import Reports
from tunnel.routes import data_routes, user_routes

_log = logging.getLogger("atoll.relay")

SIGNALLED_S = 10.0
"""A relay that is told to end by a signal has so long to let go of everything."""
NOTICE_S = 0.5
"""Between the word that it drains and the first stream that it lets go of: agents and users hear of it first."""
LAST_S = 0.1
"""What is to be said last leaves within this."""
SPREAD_S = 10.0
"""Streams are let go of agent by agent within this, so that not all move at once."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the relay until it is drained, removed or told to end; return its exit code."""
    options = _options(argv)
    home = RelayHome(options.home)
    try:
        if options.csr:
            from tunnel.identity import make_key_and_csr

            print(make_key_and_csr(home.path), end="")
            return 0
        from atoll.host.logging import configure

        configure(os.environ.get("ATOLL_LOG_LEVEL", "info"))
        logging.getLogger("atoll").setLevel(logging.INFO)
        import uvloop

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve(home, options.listen))
    except AtollError as error:
        print(error.text, file=sys.stderr)
        return error.exit_code
    return 0


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m federation.relay", description="Run a relay.")
    parser.add_argument("--home", type=Path, help="where its identity is")
    parser.add_argument("--listen", default="0.0.0.0:443", metavar="HOST:PORT")
    parser.add_argument("--csr", action="store_true", help="print a certificate request, and no more")
    return parser.parse_args(argv)


async def serve(home: RelayHome, listen: str) -> None:
    """Be the relay of `home` at `listen` until its end. Raises `AtollError`."""
    about = home.about()
    if about is None:
        raise Invalid(f"{home.path} holds no relay's identity", hint="enrol first: `atoll relay run --token …`")
    host, port = split_listen(listen)
    process = Process(home, about)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, process.drain, SIGNALLED_S)
    try:
        await process.listen(host, port)
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        raise Refused(f"cannot listen on {listen}: {why}", hint="choose another address with --listen") from error
    print(f"atoll: relay {about.name} at {listen}", file=sys.stderr, flush=True)
    await process.run()


class Process:
    """All parts of one relay. `listen`, then `run`; it ends by `drain`."""

    def __init__(self, home: RelayHome, about: About) -> None:
        clock, chance = SystemClock(), SystemChance()
        self._home = home
        self._boot = chance.token_bytes(8).hex()
        self._ended: asyncio.Event = asyncio.Event()
        self._removed = ""
        self._draining: asyncio.Task[None] | None = None
        self._door: Door | None = None
        self._key = b""
        self.relay = Relay(chance)
        self.terms = Terms(home, clock)
        self.reports = Reports(self._boot)
        self.visits = Visits(clock, self.reports)
        self.agents = AgentLinks(self.relay, self.terms.refuses)
        self.passage = Passage(about.control)
        self.uplink = Uplink(about.control, home, self.terms, self.state, clock, chance)
        others = self.passage.serve
        self.inside = Acceptor({}, ssh=others, other=others, name=wire.RELAY_NAME)
        self.http = HttpDoor(self.inside.take, lambda: self.agents.draining)
        self.acceptor = Acceptor(
            {}, self.http.accept, ssh=others, other=others, name=wire.RELAY_NAME, local=lambda _: True
        )
        self.terms.on_refused = self.relay.revoke
        self.uplink.on_linked = self.visits.forget_told
        self.uplink.on_welcome = self.reports.linked
        self.uplink.on_lost = self.reports.unlinked
        self.uplink.on_noted = self.reports.noted
        self.uplink.on_evicted = self.visits.evict
        self.uplink.on_terms = self._renew_routes
        self.uplink.on_drain = self.drain
        self.uplink.on_removed = self._remove
        self._renew_routes()

    def state(self) -> wire.Serving:
        """Return how it is, for the control plane."""
        carried = self.relay.carried()
        tallies = carried.lanes.values()
        return wire.Serving(
            protocol=wire.PROTOCOL,
            version=__version__,
            boot=self._boot,
            draining=self._draining is not None,
            agents=len(self.agents.agents()),
            streams=len(self.visits),
            passing=len(self.passage),
            received=sum(tally.received for tally in tallies),
            sent=sum(tally.sent for tally in tallies),
            tokens=self.visits.news(),
            lanes=figures(carried),
            held={each.name: getattr(carried.held, each.name) for each in fields(carried.held)},
            buffered=carried.buffered,
            refused=dict(self._door.refused) if self._door is not None else {},
            port=dict(self.acceptor.refused + self.inside.refused),
            lost=self.reports.lost,
        )

    async def listen(self, host: str, port: int) -> None:
        """Begin to serve; raise `OSError` where that cannot be."""
        await self.acceptor.listen(host, port)

    async def run(self) -> None:
        """Serve until the relay has ended; raise `Forbidden` when it was removed."""
        uplink = asyncio.create_task(self.uplink.run(), name="uplink")
        ended = asyncio.create_task(self._ended.wait(), name="end")
        try:
            await asyncio.wait([uplink, ended], return_when=asyncio.FIRST_COMPLETED)
            if uplink.done():
                uplink.result()
        finally:
            await self._close(uplink, ended)
        if self._removed:
            raise Forbidden(f"this relay ends: {self._removed}", hint="`atoll relay create` makes another one")

    def drain(self, seconds: float) -> None:
        """Take nothing new, let go of everything, end within so many seconds; said again: within so many from now."""
        if self._draining is not None:
            self._draining.cancel()
        self._draining = asyncio.get_running_loop().create_task(self._drain(seconds), name="drain")

    def _remove(self, reason: str) -> None:
        self._removed = reason
        self.drain(0.0)

    def _renew_routes(self) -> None:
        """Serve with the certificate, trust and key of now; without a key there is no door for users yet."""
        home = self._home
        routes = {
            wire.ALPN_RELAY: Route(home.server_context(wire.ALPN_RELAY, agents=True), self.agents.accept),
            **data_routes(home.server_context, self.relay),
        }
        if self.terms.grant_key and self.terms.grant_key != self._key:
            self._key = self.terms.grant_key
            self._door = Door(self.relay, self._key, self.terms.now, guard=self.visits)
        if self._door is not None:
            routes |= user_routes(home.server_context, self._door.accept)
        self.acceptor.reroute(routes)
        self.inside.reroute(routes)

    async def _drain(self, seconds: float) -> None:
        """Agents and users hear of it first. A stream that loses its lane here goes on over another relay."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        _log.info("draining within %g s: %d streams", seconds, len(self.visits))
        try:
            self.agents.draining = True
            self.uplink.report()
            await self.acceptor.close()
            await asyncio.sleep(min(NOTICE_S, seconds / 4))
            await self._let_go(min(SPREAD_S, seconds / 2))
            while (self.visits or self.passage) and loop.time() < deadline:  # noqa: ASYNC110 - asks several, once in a relay's life
                await asyncio.sleep(0.05)
        except Exception:  # noqa: BLE001 - the task's boundary: the relay ends then all the same
            _log.exception("the drain failed")
        self._ended.set()

    async def _let_go(self, seconds: float) -> None:
        """End what there is of each agent, one after the other within that time."""
        agents = self.agents.agents()
        for agent in agents:
            self.relay.revoke(agent, "the relay is being drained")
            if self.visits:
                await asyncio.sleep(min(1.0, seconds / len(agents)))

    async def _close(self, *tasks: "asyncio.Task[None] | asyncio.Task[bool]") -> None:
        if self._draining is not None:
            self._draining.cancel()
        for task in tasks:  # first, so that nobody dials anew
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.acceptor.close()
        await self.inside.close()
        if self._door is not None:
            self._door.close("the relay ends")
        self.passage.close()
        self.agents.close("the relay ends")
        self.relay.close("the relay ends")
        await asyncio.sleep(LAST_S)  # what was aborted is over then
        self.reports.last()
        self.uplink.close("the relay ends")
        await self.http.close()
        await asyncio.sleep(LAST_S)


def figures(carried: Carried) -> dict[str, LaneFigures]:
    """Return what each lane carries and has carried, as it is told."""
    return {
        lane: LaneFigures(
            streams=carried.streams[lane],
            opens=tally.opens,
            resumes=tally.resumes,
            received=tally.received,
            sent=tally.sent,
            refused=tally.refused,
        )
        for lane, tally in carried.lanes.items()
    }
