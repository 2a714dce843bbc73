"""The agent's shell: it keeps the link up, feeds the core with events, carries out its commands and ships logs.

Everything real comes through its constructor, so the simulation runs this very class.
"""

import asyncio
import contextlib
import logging
import ssl
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from agent import events
from agent.core import Core, Machine, Run
from agent.credentials import Credentials
from agent.datalines import DataLines
from agent.deadline import Deadline
from agent.direct import Direct
from agent.entry import Entry
from agent.events import Command, Event, Exit
from agent.exec import ExecLeg
from agent.journal import Journal
from agent.logpump import CHANNELS, LogPump, Piece
from agent.permission import Permission
from agent.ports import MeshGateway, Notices, Renewal
from agent.relays import RelayLinks
from agent.runtime.port import Runtime
from agent.streams import StreamLeg
from atoll.clock import Chance, Clock
from atoll.session import MemberState
from tunnel import wire
from tunnel.backoff import Backoff
from tunnel.dialer import Dialer, why_not
from tunnel.echo import echo
from tunnel.grant import BadGrant
from tunnel.innertls import towards_user
from tunnel.link import Link, Side
from tunnel.reports import Account, Reports
from tunnel.resumables import Resumables, ServedTransport
from tunnel.stream import StreamReset

_log = logging.getLogger("atoll.agent")

ADOPT_S = 1.0
"""Longest wait for re-adopted runs before the first registration."""
FLUSH_S = 3.0
"""An agent that ends ships the rest of its logs for at most this long."""
NOTICE_EVERY_S = 1.0
PUT_OFF_STEPS = 10
"""A machine's end is put off each time this part of its lease has passed."""
PUT_OFF_EVERY_S = (1.0, 30.0)
"""… but never more and never less often than this."""
STOPPED = "STOPPED"
"""`Exit.reason` after `stop`: the runs go on."""


class AgentShell:
    """One agent. `run` it once; it ends when the core says so or `stop` is called."""

    def __init__(
        self,
        dialer: Dialer,
        runtime: Runtime,
        journal: Journal,
        clock: Clock,
        chance: Chance,
        machine: Machine,
        *,
        notices: Notices | None = None,
        renewal: Renewal | None = None,
        deadline: Deadline | None = None,
        lines: Dialer | None = None,
        relays: RelayLinks | None = None,
        mesh: MeshGateway | None = None,
        direct: Direct | None = None,
        inner_context: Callable[[bytes], ssl.SSLContext] | None = None,
    ) -> None:
        """`lines` dials data connections; without it none are made, and all streams take the link.

        `inner_context` is for blind streams, from the user with that certificate (DER).
        """
        self.core = Core(machine)
        self._dialer = dialer
        self._runtime = runtime
        self._journal = journal
        self._clock = clock
        self._backoff = Backoff(chance)
        self._notices = notices
        self._credentials = (
            Credentials(renewal, chance, self._send, lambda: self.core.registered) if renewal is not None else None
        )
        self._deadline = deadline
        self._mesh = mesh
        self._inner_context = inner_context
        self._lines = DataLines(lines, self._serve) if lines is not None else None
        self._relays = relays
        self._streams = Resumables()
        if relays is not None:
            relays.attach(self._serve, self._streams.awaited)
        self._reports = Reports(machine.boot)
        self._permission = Permission(clock)
        self._direct = direct
        if direct is not None:
            direct.attach(self._permission.check, self._serve, self._reports)
        self._pump = LogPump()
        self._link: Link | None = None
        self._lost: asyncio.Future[str] | None = None
        self._events: deque[Event] = deque()
        self._handling = False
        self._timer: asyncio.TimerHandle | None = None
        self._ended: asyncio.Future[Exit] | None = None
        self._closed: asyncio.Event | None = None
        self._unjournaled: set[str] = set()
        self._loop: asyncio.AbstractEventLoop
        self.refusal: wire.Refuse | None = None
        """What the control plane last said instead of a welcome."""
        self.dial_error = ""
        """Why the last dial failed, for people."""
        self.on_registered: Callable[[], None] = _nothing
        """Called once, at the first registration."""

    @property
    def registered(self) -> bool:
        """Whether the control plane has welcomed this agent on the present link."""
        return self.core.registered

    async def run(self) -> Exit:
        """Run until the agent ends; return why. The caller switches the machine off where that is asked for."""
        self._loop = asyncio.get_running_loop()
        self._ended = self._loop.create_future()
        self._closed = asyncio.Event()
        self._runtime.attach(self)
        self._restore()
        tasks = [self._loop.create_task(self._stay_linked(), name="agent link")]
        if self._notices is not None:
            tasks.append(self._loop.create_task(self._watch_notices(self._notices), name="agent notices"))
        if self._credentials is not None:
            tasks.append(self._loop.create_task(self._credentials.run(), name="agent renewal"))
        if self._deadline is not None:
            tasks.append(self._loop.create_task(self._put_off(self._deadline), name="agent deadline"))
        if self._mesh is not None:
            tasks.append(self._loop.create_task(self._mesh.run(), name="agent mesh"))
        if self._direct is not None:
            tasks.append(self._loop.create_task(self._direct.run(), name="agent direct"))
        try:
            waited: list[asyncio.Future[Any]] = [self._ended, *tasks]
            await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                if task.done():
                    task.result()
            end = await self._ended
            await self._flush_logs()
            return end
        finally:
            await self._close(tasks)

    async def stop(self) -> None:
        """End this process of the agent; its runs go on and are adopted by the next."""
        self.stop_now()
        if self._closed is not None:
            await self._closed.wait()

    def stop_now(self) -> None:
        """Ask for what `stop` does, without waiting: for signal handlers."""
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(Exit(STOPPED, "it was stopped; its sessions run on"))

    def leave(self, reason: str) -> None:
        """Take the agent out of the installation: its runs are stopped, then `run` returns."""
        self._handle(events.LeaveAsked(reason))

    # What the runtime tells (`Observer`).

    def observed(self, event: events.RuntimeStarted | events.RuntimeExited | events.StartFailed, /) -> None:
        """A run changed."""
        self._handle(event)

    def grown(self, run: str, channel: str, size: int, /) -> None:
        """A run wrote output: ship it, or drop the oldest when too much waits."""
        if run in self.core.runs:
            self._spool(run, channel, size)
            self._ship()

    # What the link tells (`LinkOwner`).

    def linked(self, link: Link, /) -> None:
        """The connection is up: register."""
        self._link = link
        if self._credentials is not None:
            self._credentials.linked()
        self._handle(events.Linked())

    def received(self, link: Link, message: wire.FromAgent | wire.FromControl, /) -> None:
        """A message of the control plane."""
        if link is not self._link:
            return
        if self._credentials is not None:
            self._credentials.received(message)
        match message:
            case wire.LogAck():
                self._logs_stored(message)
            case wire.MeshWanted() if self._mesh is not None:
                self._mesh.wanted(message)
            case wire.Relays(relays=relays) if self._relays is not None:
                self._relays.serving(relays)
            case wire.Noted(serial=serial):
                self._reports.noted(serial)
            case wire.Evict(tokens=tokens) if self._direct is not None:
                self._direct.evict(tokens)
            case wire.Refuse():
                self._refused(message)
            case wire.Dial(tokens, splice):
                if self._lines is not None:
                    self._lines.dial(tokens, splice=splice)
            case wire.Welcome():
                self.refusal = None
                self._permission.welcomed(message)
                if message.protocol >= wire.REPORTS:
                    self._reports.linked(link.send)
                if self._direct is not None:
                    self._direct.welcomed(message, link.send)
                if self._relays is not None:
                    self._relays.welcomed(message.relays, link.send)
                if self._mesh is not None and message.protocol >= wire.MESHES:
                    self._mesh.linked(link.send, link.address)
                self._pump.restart()
                self._handle(events.Received(message))
                self._ship()
                on_registered, self.on_registered = self.on_registered, _nothing
                on_registered()
            case wire.Start() | wire.Stop() | wire.Checkpoint() | wire.Forget() | wire.Cordon() | wire.Leave():
                self._handle(events.Received(message))

    def stream_opened(self, _link: Link, opening: wire.OpenStream, /) -> asyncio.Protocol | None:
        """A user's stream on the link."""
        return self._serve(opening)

    def _serve(self, opening: wire.OpenStream) -> asyncio.Protocol | None:
        """A user's stream, of which the frames of a resumable one may come by way after way. None refuses it."""
        try:
            grant = self._permission.check(opening)
        except BadGrant as error:
            _log.warning("a stream to %s is refused: %s", opening.run, error)
            return None
        if opening.echo:
            return echo()
        if opening.resume:
            told = partial(self._account, opening.grant) if grant is not None and grant.token else None
            return self._streams.lane(opening.resume, opening.run, lambda: self._leg(opening), told)
        try:
            return self._leg(opening)
        except StreamReset:
            return None

    def _account(self, grant: bytes, stream: ServedTransport) -> None:
        """Have the control plane told of a user's stream, whichever ways it goes."""

        def look(account: Account) -> None:
            account.sent, account.received = stream.carried
            account.resumed = max(0, stream.resumed)

        account = self._reports.began(grant, look, whole=True)
        stream.on_over = lambda error: account.over("RESET" if error else "", str(error or ""))

    def _leg(self, opening: wire.OpenStream) -> asyncio.Protocol:
        """A user's stream to a program beside a run, or to a port that this very run listens on (S2)."""
        run = self.core.runs.get(opening.run)
        if run is None or not run.live:
            raise StreamReset("the session does not run on this agent (any more)")
        if not opening.client and run.entry.blind:
            raise StreamReset("the session takes streams that are encrypted end to end, and no others")
        leg = self._plain_leg(opening, run)
        return towards_user(self._inner(opening.client), opening.client, leg) if opening.client else leg

    def _plain_leg(self, opening: wire.OpenStream, run: Run) -> asyncio.Protocol:
        if opening.exec:
            return ExecLeg(self._runtime, opening.run)
        port = run.apps.get(opening.app, 0) if opening.app else opening.port
        if not port or not self._runtime.listens(opening.run, port):
            raise StreamReset(f"no process of the session listens on {f'port {port}' if port else opening.app}")
        return StreamLeg(lambda make: self._runtime.connect(opening.run, port, make))

    def _inner(self, client: bytes) -> ssl.SSLContext:
        try:
            if self._inner_context is not None:
                return self._inner_context(client)
        except OSError as error:
            raise StreamReset(f"the user's certificate cannot be read: {error}") from None
        raise StreamReset("this agent has no certificate for streams that are encrypted end to end")

    def lost(self, link: Link, reason: str, /) -> None:
        """The link is over."""
        if link is self._link:
            self._link = None
            self._reports.unlinked()
            self._handle(events.Unlinked())
        if self._lost is not None and not self._lost.done():
            self._lost.set_result(reason)

    # Events and commands.

    def _handle(self, event: Event) -> None:
        """Give the core an event and carry out what it commands; events raised meanwhile wait their turn."""
        self._events.append(event)
        if self._handling:
            return
        self._handling = True
        try:
            while self._events:
                self._note_contact()
                for command in self.core.handle(self._events.popleft(), self._clock.monotonic()):
                    self._carry_out(command)
        finally:
            self._handling = False
        self._arm()

    def _note_contact(self) -> None:
        if self._link is not None and self._link.answered_at is not None and self.core.registered:
            at = self._clock.monotonic() - (self._loop.time() - self._link.answered_at)
            if self.core.contact is None or at > self.core.contact:
                now = self._clock.monotonic()
                for command in self.core.handle(events.Contact(at), now):
                    self._carry_out(command)

    def _carry_out(self, command: Command) -> None:
        match command:
            case events.Send(message):
                if self._link is not None:
                    self._link.send(message)
            case events.JournalPut(entry):
                self._put(entry)
            case events.Keep(run, until):
                self._runtime.keep(run, until)
            case events.Spawn(run, spec, slots, env, gpus, until):
                if run not in self._unjournaled:
                    self._runtime.spawn(run, spec, slots, env, gpus, until)
            case events.Signal(run, signal):
                refusal = self._runtime.signal(run, signal)
                if refusal:
                    self._events.append(events.SignalRefused(run, refusal))
            case events.Terminate(run):
                self._runtime.terminate(run)
            case events.Kill(run):
                self._runtime.kill(run)
            case events.Drop(run):
                self._drop(run)
            case events.Adopt(runs):
                self._runtime.adopt(runs)
            case events.JournalTerms(terms):
                with self._disk("the terms"):
                    self._journal.put_terms(terms)
            case events.Exit() as end:
                if self._ended is not None and not self._ended.done():
                    self._ended.set_result(end)

    def _put(self, entry: Entry) -> None:
        try:
            self._journal.put(entry)
        except OSError as error:
            _log.error("the journal record of %s could not be written: %s", entry.run, error)
            if self.core.runs[entry.run].state is MemberState.STARTING and not entry.exited:
                self._unjournaled.add(entry.run)
                self._events.append(events.StartFailed(entry.run, f"its journal record could not be written: {error}"))

    def _drop(self, run: str) -> None:
        self._pump.forget(run)
        self._streams.end(run, "the run is over")
        self._unjournaled.discard(run)
        with self._disk(run):
            self._journal.drop(run)
        with self._disk(run):
            self._runtime.forget(run)

    @contextlib.contextmanager
    def _disk(self, what: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            _log.error("the disk refused a change about %s: %s", what, error)

    def _arm(self) -> None:
        """Wake up at the core's next deadline."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        deadline = self.core.next_deadline()
        if deadline is not None and self._ended is not None and not self._ended.done():
            self._timer = self._loop.call_later(max(0.0, deadline - self._clock.monotonic()), self._tick)

    def _tick(self) -> None:
        self._timer = None
        self._handle(events.Tick())

    def _restore(self) -> None:
        entries, terms = self._journal.load()
        self._handle(events.Restored(tuple(entries), terms))
        for entry in entries:
            for channel in CHANNELS:
                self._spool(entry.run, channel, self._runtime.log_size(entry.run, channel))

    # Logs.

    def _spool(self, run: str, channel: str, size: int) -> None:
        drop = self._pump.grown(run, channel, size, self._runtime.log_base(run, channel))
        if drop:
            self._runtime.free_log(run, channel, drop)

    def _ship(self) -> None:
        if self._link is not None and self.core.registered:
            self._pump.send(self._read, self._emit)

    def _read(self, piece: Piece) -> bytes:
        return self._runtime.read_log(piece.run, piece.channel, piece.offset, piece.limit)

    def _emit(self, piece: Piece, data: bytes) -> None:
        if self._link is not None:
            self._link.send(wire.Log(run=piece.run, channel=piece.channel, offset=piece.offset, data=data))

    def _logs_stored(self, message: wire.LogAck) -> None:
        below = self._pump.acked(message.run, message.channel, message.offset)
        if below:
            self._runtime.free_log(message.run, message.channel, below)
        self._ship()

    async def _flush_logs(self) -> None:
        """Before the end, and unless the runs go on, let the control plane store the rest of the output."""
        if self._ended is None or self._ended.result().reason == STOPPED:
            return
        deadline = self._loop.time() + FLUSH_S
        while self.core.registered and self._pump.pending and self._loop.time() < deadline:  # noqa: ASYNC110 - asks two objects, once in an agent's life
            await asyncio.sleep(0.02)

    # The link.

    def _send(self, message: wire.Message) -> None:
        if self._link is not None:
            self._link.send(message)

    async def _stay_linked(self) -> None:
        await self._wait_for_adoption()
        while True:
            self._lost = self._loop.create_future()
            began = self._loop.time()
            try:
                if self._credentials is not None:
                    await self._credentials.before_dial()
                await self._dialer.dial(lambda: Link(self, side=Side.AGENT))
            except OSError as error:
                self.dial_error = why_not(error)
                _log.info("the control plane cannot be reached: %s", self.dial_error)
            else:
                reason = await self._lost
                self.dial_error = ""
                self._backoff.succeeded_for(self._loop.time() - began)
                _log.info("the link is down: %s", reason)
            await self._backoff.pause(self._streams.awaited)

    async def _wait_for_adoption(self) -> None:
        deadline = self._loop.time() + ADOPT_S
        while self._loop.time() < deadline:
            if all(run.state is not MemberState.STARTING for run in self.core.runs.values()):
                return
            await asyncio.sleep(0.01)

    def _refused(self, message: wire.Refuse) -> None:
        _log.warning("the control plane refuses this agent: %s (%s)", message.message, message.code)
        self.refusal = message
        self._backoff.retry_after(message.retry_after_s)
        self._handle(events.Received(message))

    async def _close(self, tasks: "list[asyncio.Task[None]]") -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._link is not None:
            self._link.close("the agent ends")
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._streams.close("the agent ends")
        if self._relays is not None:
            await self._relays.close()
        if self._lines is not None:
            await self._lines.close()
        if self._direct is not None:
            await self._direct.close()
        if self._mesh is not None:
            end = self._ended.result() if self._ended is not None and self._ended.done() else None
            await self._mesh.close(keep=end is None or end.reason == STOPPED)
        if self._closed is not None:
            self._closed.set()

    # Notices, the machine's end and certificates.

    async def _watch_notices(self, notices: Notices) -> None:
        while True:
            notice = notices.check()
            if notice is not None:
                self._handle(events.NoticeSeen(*notice))
                await self._loop.create_future()  # one notice is all there is: nothing more to watch
            await asyncio.sleep(NOTICE_EVERY_S)

    async def _put_off(self, deadline: Deadline) -> None:
        often, seldom = PUT_OFF_EVERY_S
        while True:
            self._handle(events.Tick())  # contact is known from then on
            now = self._clock.monotonic()
            until = self.core.lives_until(now)
            if until is not None:
                with self._disk("the machine's end"):
                    deadline.put_off(until - now)
            await asyncio.sleep(min(max(self.core.terms.lease_s / PUT_OFF_STEPS, often), seldom))


def _nothing() -> None:
    """Do nothing."""
