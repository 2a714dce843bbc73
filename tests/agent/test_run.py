"""The agent's shell over the memory network, against a control end that keeps everything it is told."""

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from agent.core import Machine
from agent.entry import Entry
from agent.run import STOPPED, AgentShell
from atoll.errors import Invalid
from atoll.host.system import SystemChance
from atoll.session import Lifetime, MemberState, SessionSpec
from atoll.slots import Slots
from tests.agent.control import ME, RUN, Control, until
from tests.fakes.journal import MemoryJournal
from tests.fakes.runtime import MemoryRuntime
from tests.sim.clocks import SimClock
from tunnel import wire
from tunnel.lanes import Lane, Use
from tunnel.memory import MemoryNetwork
from tunnel.redial import RedialledTransport
from tunnel.relay import Relay
from tunnel.stream import StreamReset

VIRTUAL_TIME = True


class House:
    """A network, a control end, and the lives of one agent over one journal and one machine."""

    def __init__(self) -> None:
        self.network = MemoryNetwork()
        self.control = Control()
        self.network.listen(self.control.accept)
        self.journal = MemoryJournal()
        self.runtime = MemoryRuntime()
        self.shell: AgentShell
        self.task: asyncio.Task[object]

    def begin(self, **more: object) -> None:
        machine = Machine("1", f"boot-{id(self)}", Slots(cpu=2000))
        dialer = self.network.dialer(ME)
        parts = (dialer, self.runtime, self.journal, SimClock(asyncio.get_running_loop()), SystemChance(), machine)
        self.shell = AgentShell(*parts, **more)  # type: ignore[arg-type]
        self.task = asyncio.create_task(self.shell.run())

    async def registered(self, times: int = 1) -> None:
        await until(lambda: self.control.registered >= times and self.shell.registered)

    async def crash(self) -> None:
        """SIGKILL: nothing of the shell says goodbye."""
        self.runtime.detach()
        self.network.crash_agent(ME)
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
        self.runtime = MemoryRuntime(self.runtime.processes)


@pytest.fixture
async def house() -> AsyncIterator[House]:
    house = House()
    house.begin()
    await house.registered()
    yield house
    await house.shell.stop()
    await asyncio.gather(house.task, return_exceptions=True)


async def test_it_registers_with_its_capacity(house: House) -> None:
    hello = house.control.hellos[0]
    assert (hello.protocol, hello.capacity, hello.runs) == (wire.PROTOCOL, Slots(cpu=2000), [])


async def test_a_run_from_start_to_forget(house: House) -> None:
    house.control.start()
    await until(lambda: house.control.states() == ["starting", "running"])
    house.runtime.write(RUN, b"hello\n")
    house.runtime.write(RUN, b"oops\n", "err")
    house.runtime.exit(RUN, 7)
    await until(lambda: house.control.states() == ["starting", "running", "exited"])
    last = house.control.reports[-1]
    assert (last.exit_code, last.out, last.err, last.limits) == (7, 6, 5, "enforced")
    await until(lambda: house.control.stored == {"out": b"hello\n", "err": b"oops\n"})
    house.control.send(wire.Forget(runs=[RUN]))
    await until(lambda: not house.journal.entries and not house.runtime.processes)


async def test_a_repeated_start_starts_once(house: House) -> None:
    for _ in range(3):
        house.control.start()
    await until(lambda: len(house.control.reports) >= 4)
    house.control.start()
    await until(lambda: len(house.control.reports) >= 5)
    assert house.runtime.spawned == [RUN]


async def test_output_written_while_the_link_is_down_arrives_complete(house: House) -> None:
    house.control.start()
    await until(lambda: RUN in house.runtime.processes)
    house.runtime.write(RUN, b"a" * 1000)
    await until(lambda: len(house.control.stored["out"]) == 1000)
    house.network.refuse(ME, True)
    house.network.reset(ME)
    await until(lambda: not house.shell.registered)
    house.runtime.write(RUN, b"b" * 500_000)
    house.runtime.exit(RUN, 0)
    await until(lambda: house.shell.core.runs[RUN].state is MemberState.EXITED)
    house.network.refuse(ME, False)
    await house.registered(2)
    await until(lambda: len(house.control.stored["out"]) == 501_000)
    assert house.control.stored["out"] == b"a" * 1000 + b"b" * 500_000
    assert house.control.hellos[-1].runs[0].state == "exited"
    assert house.control.largest_gap == 0


async def test_a_flood_without_acknowledgements_is_bounded_and_control_goes_on(house: House) -> None:
    house.control.acks = False
    house.control.start()
    await until(lambda: RUN in house.runtime.processes)
    house.runtime.write(RUN, b"x" * 5_000_000)
    await until(lambda: len(house.control.stored["out"]) == 256 * 1024)
    house.control.send(wire.Cordon(epoch=3, cordoned=True))
    await until(lambda: house.control.others)
    assert house.control.others == [wire.CordonAck(epoch=3, runs=[RUN])]
    assert len(house.control.stored["out"]) == 256 * 1024


async def test_after_sigkill_the_next_agent_reports_what_ran_and_what_ended(house: House) -> None:
    other = "s-bbbbbbbbbb.1.0"
    house.control.start()
    house.control.start(other)
    await until(lambda: house.control.states(other) == ["starting", "running"])
    house.runtime.write(RUN, b"before ")
    await until(lambda: house.control.stored["out"] == b"before ")
    await house.crash()
    house.runtime.write(RUN, b"after")
    house.runtime.exit(other, 9)
    house.begin()
    await house.registered(2)
    assert [(run.run, run.state, run.exit_code) for run in house.control.hellos[-1].runs] == [
        (RUN, "running", None),
        (other, "exited", 9),
    ]
    await until(lambda: house.control.stored["out"] == b"before after")
    house.control.start(other)
    await until(lambda: house.control.reports[-1].exit_code == 9)
    assert house.runtime.spawned == []


async def test_a_run_whose_record_cannot_be_written_is_not_started(house: House) -> None:
    house.journal.full = True
    house.control.start()
    await until(lambda: house.control.states() == ["starting", "exited"])
    assert house.control.reports[-1].reason == "START_FAILED"
    assert "No space left" in house.control.reports[-1].message
    assert house.runtime.spawned == []


async def test_a_runtime_that_cannot_start_says_why(house: House) -> None:
    house.runtime.broken = "no such workdir"
    house.control.start()
    await until(lambda: house.control.states() == ["starting", "exited"])
    assert house.control.reports[-1].message == "no such workdir"


async def test_stop_kills_what_does_not_heed(house: House) -> None:
    house.control.start()
    await until(lambda: house.control.states() == ["starting", "running"])
    house.runtime.processes[RUN].heeds_term = False
    house.control.send(wire.Stop(run=RUN, grace=0.05))
    await until(lambda: house.control.states()[-1] == "exited")
    assert house.control.reports[-1].exit_code == 137


async def test_an_exclusive_run_ends_by_itself_when_the_control_plane_is_silent(house: House) -> None:
    spec = SessionSpec(command=("true",), lifetime=Lifetime(grace=0.0))
    house.control.send(wire.Start(run=RUN, epoch=1, spec=spec, slots=Slots(), env={}, lease_s=1.0))
    await until(lambda: house.control.states() == ["starting", "running"])
    house.network.cut(ME)
    await until(lambda: not house.runtime.processes[RUN].alive)
    house.network.heal(ME)
    await until(lambda: house.control.reports[-1].reason == "LEASE_EXPIRED")


async def test_an_exclusive_run_lives_while_pings_are_answered(house: House) -> None:
    spec = SessionSpec(command=("true",), lifetime=Lifetime(grace=0.0))
    house.control.send(wire.Start(run=RUN, epoch=1, spec=spec, slots=Slots(), env={}, lease_s=2.5))
    await until(lambda: house.control.states() == ["starting", "running"])
    await asyncio.sleep(3.0)
    assert house.runtime.processes[RUN].alive


async def test_told_to_leave_it_reports_the_ends_ships_the_logs_and_returns(house: House) -> None:
    house.control.start()
    await until(lambda: house.control.states() == ["starting", "running"])
    house.runtime.write(RUN, b"z" * 1_000_000)
    house.control.send(wire.Leave(reason="drained"))
    end = await asyncio.wait_for(house.task, 10)
    assert getattr(end, "reason", "") == "TOLD_TO_LEAVE"
    assert house.control.states()[-1] == "exited"
    assert len(house.control.stored["out"]) == 1_000_000


async def test_a_final_refusal_ends_the_agent_and_what_it_ran(house: House) -> None:
    house.control.start()
    await until(lambda: house.control.states() == ["starting", "running"])
    house.control.refuse = wire.Refuse(code="GONE", message="removed", final=True)
    house.network.reset(ME)
    end = await asyncio.wait_for(house.task, 10)
    assert getattr(end, "reason", "") == "GONE"
    assert not house.runtime.processes[RUN].alive


async def test_stop_leaves_the_runs(house: House) -> None:
    house.control.start()
    await until(lambda: house.control.states() == ["starting", "running"])
    await house.shell.stop()
    assert getattr(house.task.result(), "reason", "") == STOPPED
    assert house.runtime.processes[RUN].alive


class Soon:
    """A notice that is there at once."""

    def check(self) -> tuple[float, str] | None:
        return 30.0, "spot"


async def test_a_notice_is_passed_on() -> None:
    house = House()
    house.begin(notices=Soon())
    await until(lambda: house.control.others)
    notice = house.control.others[0]
    assert isinstance(notice, wire.Notice)
    assert 25.0 < notice.in_s <= 30.0
    await house.shell.stop()


class Ends:
    """How far this machine's end was put off, each time."""

    def __init__(self, full: int = 0) -> None:
        self.told: list[float] = []
        self.full = full

    def put_off(self, seconds: float) -> None:
        self.full -= 1
        if self.full >= 0:
            raise OSError("no space left on device")
        self.told.append(seconds)


async def test_the_machines_end_is_put_off_while_it_is_heard_and_no_longer() -> None:
    house, ends = House(), Ends(full=1)
    house.control.welcome = {"lease_s": 3.0}
    house.begin(deadline=ends)
    await house.registered()
    await until(lambda: len(ends.told) >= 4)
    assert max(ends.told) > 1.0, "heard, it lives another lease; one full disk is no harm"
    house.network.cut(ME)
    heard = len(ends.told)
    await until(lambda: house.task.done())
    assert ends.told[-1] < 1.5, "in silence its end comes nearer"
    assert len(ends.told) > heard
    assert getattr(house.task.result(), "reason", "") == "LEASE_EXPIRED"


class Renewal:
    """A certificate that is always due until it is renewed."""

    def __init__(self) -> None:
        self.installed = ""
        self.trusted = "first"
        self.restored = 0

    def due_in(self) -> float:
        return 3600.0 if self.installed else -1.0

    def ended(self) -> bool:
        return self.restored < 0

    async def restore(self) -> None:
        self.restored += 1
        if self.restored < 0:
            raise OSError("not reached")

    async def request(self) -> str:
        return "CSR"

    def install(self, certificate: str) -> None:
        self.installed = certificate

    def authorities(self) -> list[str]:
        return [self.trusted]

    def trust(self, ca: str) -> None:
        if ca == "damaged":
            raise Invalid("no certificate")
        self.trusted = ca


async def test_the_certificate_is_renewed_when_due() -> None:
    house = House()
    renewal = Renewal()
    house.begin(renewal=renewal)
    await until(lambda: wire.Renew(csr="CSR") in house.control.others)
    house.control.send(wire.Certificate(certificate="NEW", generation=4))
    await until(lambda: wire.Kept(authorities=["first"], generation=4) in house.control.others)
    assert renewal.installed == "NEW"
    await house.shell.stop()


async def test_other_authorities_are_kept_and_a_certificate_of_them_is_asked_for() -> None:
    house = House()
    renewal = Renewal()
    renewal.installed = "LAST"
    house.control.welcome = {"protocol": wire.PROTOCOL}
    house.begin(renewal=renewal)
    await until(lambda: wire.Kept(authorities=["first"]) in house.control.others)
    house.control.send(wire.Trust(ca="damaged", renew_s=0.1))
    house.control.send(wire.Trust(ca="second"))
    await until(lambda: wire.Kept(authorities=["second"]) in house.control.others)
    await asyncio.sleep(2.0)
    assert wire.Renew(csr="CSR") not in house.control.others
    house.control.send(wire.Trust(ca="third", renew_s=3.0))
    asked = asyncio.get_running_loop().time()
    await until(lambda: wire.Renew(csr="CSR") in house.control.others)
    assert asyncio.get_running_loop().time() - asked < 4.5
    assert wire.Kept(authorities=["third"]) in house.control.others
    await house.shell.stop()


async def test_an_ended_certificate_is_restored_before_the_dial() -> None:
    house = House()
    renewal = Renewal()
    renewal.restored = -2
    house.begin(renewal=renewal)
    await until(lambda: house.shell.registered)
    assert renewal.restored == 0, "asked until it was answered, then dialled"
    await house.shell.stop()


async def test_a_certificate_that_is_refused_again_and_again_is_restored() -> None:
    house = House()
    renewal = Renewal()

    def refusing() -> None:
        if renewal.restored < 1 and house.control.link is not None:
            house.control.link.close("TLS says no more than this")

    house.control.on_linked = refusing
    house.begin(renewal=renewal)
    await until(lambda: house.shell.registered, within=20.0)
    assert renewal.restored == 1
    await house.shell.stop()


class Echo(asyncio.Protocol):
    """An app that sends everything back and ends when its user does."""

    transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)

    def eof_received(self) -> bool:
        self.transport.write(b"<end>")
        return False


class User(asyncio.Protocol):
    """The control plane's end of a stream."""

    def __init__(self) -> None:
        self.got = b""
        self.eof = False
        self.lost: Exception | str | None = None

    def data_received(self, data: bytes) -> None:
        self.got += data

    def eof_received(self) -> bool:
        self.eof = True
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = exc or "closed"


async def test_a_stream_reaches_the_app_both_ways_with_half_close(house: House) -> None:
    house.runtime.apps[8080] = Echo
    house.control.start(apps={"web": 8080})
    await until(lambda: house.control.states() == ["starting", "running"])
    user = User()
    assert house.control.link is not None
    stream = house.control.link.open_stream(wire.OpenStream(run=RUN, app="web"), user)
    stream.write(b"x" * 1_000_000)
    await until(lambda: len(user.got) == 1_000_000)
    stream.write_eof()
    await until(lambda: user.lost)
    assert user.got.endswith(b"x<end>")


async def test_a_data_connection_serves_the_same_streams() -> None:
    house = House()
    relay = Relay(SystemChance())
    house.network.listen(house.control.accept, relay.accept)
    house.begin(lines=house.network.dialer(ME, data=True))
    await house.registered()
    house.runtime.apps[8080] = Echo
    house.control.start(apps={"web": 8080})
    await until(lambda: house.control.states() == ["starting", "running"])
    assert house.control.link is not None
    relay.linked(ME, house.control.link, boot="b", dials=True)
    opening = wire.OpenStream(run=RUN, app="web", resume=bytes(16))

    async def dial(make: Callable[[], asyncio.Protocol]) -> None:
        assert (await relay.open(ME, opening, make(), use=Use.BULK)).choice.lane is Lane.DATA

    user = User()
    stream = RedialledTransport(opening.resume, dial, chance=SystemChance())
    stream.attach(user)
    stream.start()
    stream.write(b"x" * 1_000_000)
    await until(lambda: len(user.got) == 1_000_000)
    stream.write_eof()
    await until(lambda: user.lost)
    assert user.got.endswith(b"x<end>")
    refused = User()
    await relay.open(ME, wire.OpenStream(run=RUN, port=9), refused, use=Use.BULK)
    await until(lambda: refused.lost)
    await house.shell.stop()
    await asyncio.gather(house.task)
    relay.close("test over")


@pytest.mark.parametrize(
    "opening",
    [
        wire.OpenStream(run=RUN, port=9),
        wire.OpenStream(run=RUN, app="none"),
        wire.OpenStream(run=RUN),
        wire.OpenStream(run="s-other00000.1.0", port=8080),
    ],
)
async def test_a_stream_to_anything_else_is_refused(house: House, opening: wire.OpenStream) -> None:
    house.runtime.apps[8080] = Echo
    house.control.start(apps={"web": 8080})
    await until(lambda: house.control.states() == ["starting", "running"])
    user = User()
    assert house.control.link is not None
    house.control.link.open_stream(opening, user)
    await until(lambda: user.lost)
    assert isinstance(user.lost, StreamReset)
    assert user.got == b""


async def test_exited_runs_of_the_journal_are_told_with_their_logs() -> None:
    house = House()
    house.journal.put(Entry(run=RUN, epoch=1, exited=True, exit_code=3, out=5))
    house.begin()
    await house.registered()
    assert house.control.hellos[0].runs[0].exit_code == 3
    await house.shell.stop()


async def test_a_checkpoint_reaches_the_process_once_and_its_end_tells_of_it(house: House) -> None:
    house.control.start()
    await until(lambda: house.control.states() == ["starting", "running"])
    for _ in range(2):
        house.control.send(wire.Checkpoint(run=RUN, signal="USR1", asked_at=5.0))
    await until(lambda: house.runtime.processes[RUN].signalled)
    await house.crash()
    house.begin()
    await house.registered(2)
    house.control.send(wire.Checkpoint(run=RUN, signal="USR1", asked_at=5.0))
    await until(lambda: RUN in house.shell.core.runs)
    house.runtime.exit(RUN, 85)
    await until(lambda: house.control.reports[-1].state == "exited")
    assert (house.control.reports[-1].exit_code, house.control.reports[-1].asked) == (85, True)
    assert house.runtime.processes[RUN].signalled == ["USR1"]


async def test_a_process_that_does_not_handle_the_signal_is_left_alone(house: House) -> None:
    house.control.start()
    await until(lambda: house.control.states() == ["starting", "running"])
    house.control.send(wire.Checkpoint(run=RUN, signal="HUP", asked_at=5.0))
    await until(lambda: house.control.others)
    assert house.control.others == [wire.NoCheckpoint(run=RUN, asked_at=5.0, message="it does not handle HUP")]
    assert house.runtime.processes[RUN].alive


class Mesh:
    """A gateway that notes what it is told."""

    def __init__(self) -> None:
        self.told: list[object] = []

    async def run(self) -> None:
        await asyncio.Event().wait()

    def linked(self, send: Callable[[wire.Message], None], control: str) -> None:
        self.told.append(control)
        send(wire.MeshStatus(port=7))

    def wanted(self, message: wire.MeshWanted) -> None:
        self.told.append(message)

    async def close(self, *, keep: bool) -> None:
        self.told.append(keep)


@pytest.mark.parametrize("leaves", [False, True])
async def test_a_gateway_hears_what_is_wanted_and_stays_unless_the_agent_leaves(leaves: bool) -> None:
    house, mesh = House(), Mesh()
    house.control.welcome = {"protocol": wire.MESHES}
    house.begin(mesh=mesh)
    await house.registered()
    await until(lambda: wire.MeshStatus(port=7) in house.control.others)
    wanted = wire.MeshWanted(addresses=["fd00::1"])
    house.control.send(wanted)
    await until(lambda: wanted in mesh.told)
    if leaves:
        house.shell.leave("its owner took it out")
    else:
        house.shell.stop_now()
    await house.task
    assert mesh.told[-1] is not leaves


async def test_an_older_control_plane_hears_nothing_of_gateways() -> None:
    house, mesh = House(), Mesh()
    house.control.welcome = {"protocol": wire.MESHES - 1}
    house.begin(mesh=mesh)
    await house.registered()
    assert mesh.told == []
    house.shell.stop_now()
    await house.task
