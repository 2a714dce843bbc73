"""The invariants of TRUST.md, looked at from outside: clouds, machines and stored rows against each other."""

from collections import Counter, defaultdict

from atoll.ids import run_id
from atoll.instance import Instance
from atoll.session import Session
from atoll.states import ENDED, InstanceState, Reason, SessionState
from federation.control.changes import instance_cost
from providers.port import MachineState
from tests.sim.ledger import Life
from tests.sim.machines import VirtualMachine
from tests.sim.runtime import LINES, SAVED_CODE, line
from tests.sim.world import CAP, World

UNOWNED_S = 600.0
ADOPT_S = 60.0
LOOK_S = 1.0
_GONE = InstanceState.GONE


class Checks:
    """Looks at a world every second of its life, and once more at its end."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._unowned_since: dict[str, float] = {}
        self._asked: set[str] = set()
        world.on_end = self.about_to_end

    def look(self) -> None:
        """Check what must hold at every instant."""
        self._ownership()
        self._caps()
        self._adoption()
        self._overcommit()
        self._budget()
        self._world.host.call(self._world.loop.call_later, LOOK_S, self.look)

    def about_to_end(self, machine: VirtualMachine) -> None:
        """I4: the control plane asks the cloud to end a machine on which a session lives that nobody stopped."""
        world = self._world
        rows = {row.id: row for row in world.store.rows(Session)}
        for life in world.ledger.alive(machine.name):
            row = rows.get(life.run.partition(".")[0])
            current = row is not None and life.run.startswith(f"{row.id}.{row.attempt}.")
            if row and current and row.state not in ENDED and not row.stopping_as and not self._excused(machine):
                kind = "protected " if life.protected else ""
                self._violated("I4", f"{machine.name} is ended under the {kind}session {row.id} ({row.state})")

    def finish(self) -> None:
        """Check what must hold in the end."""
        self._ends_once()
        self._moves()
        for row in self._world.store.rows(Session):
            if row.state in ENDED:
                self._true_end(row)
        for provider, inventory in self._world.inventories.items():
            for kind, count in inventory.cloud.struck.items():
                self._world.ledger.faults[f"cloud {kind}"] += count
            struck = inventory.cloud.struck
            excused = provider in self._world.orphaned or struck.get("throttle")  # then limits may be unread
            if struck.get("over limit") and not excused:
                self._violated("quota", f"more was asked of {provider} than its account may have")
            intents = Counter(record.intent for record in inventory.cloud.machines.values())
            for intent, count in intents.items():
                if count > 1:
                    self._violated("I2", f"{count} machines of intent {intent} at {provider}")
        for life in self._world.ledger.lives:
            if life.ended is None:
                self._violated("I14", f"{life.run} still runs on {life.machine}")

    def _violated(self, invariant: str, text: str) -> None:
        self._world.ledger.violated(self._world.loop.true_time, invariant, text)

    def _excused(self, machine: VirtualMachine) -> bool:
        """A machine that is being reclaimed, or whose agent has left, may be ended whatever runs there."""
        row = next((r for r in self._world.store.rows(Instance) if r.provider_id == machine.name), None)
        return machine.notice is not None or (
            row is not None and row.reason in (Reason.LEFT, Reason.ENDED_BY_CLOUD, Reason.USER)
        )

    def _ownership(self) -> None:
        """I1: whatever lives at a cloud has a row that will end it. I2: one live machine an intent."""
        now = self._world.loop.true_time
        rows = {row.id: row for row in self._world.store.rows(Instance)}
        for inventory in self._world.inventories.values():
            for record in inventory.cloud.machines.values():
                row = rows.get(record.intent)
                if record.state is MachineState.ENDED or (row is not None and row.state is not _GONE):
                    self._unowned_since.pop(record.provider_id, None)
                    continue
                since = self._unowned_since.setdefault(record.provider_id, now)
                if now - since > UNOWNED_S:
                    self._unowned_since[record.provider_id] = now
                    self._violated("I1", f"{record.provider_id} ({record.intent}) runs unowned")

    def _caps(self) -> None:
        """I5: what lives at a cloud, pending included, never exceeds the group's cap."""
        for provider, inventory in self._world.inventories.items():
            live = sum(
                record.state not in (MachineState.ENDED, MachineState.STOPPED) and not _orphan(record.intent)
                for record in inventory.cloud.machines.values()
            )
            if live > CAP:
                self._violated("I5", f"{live} machines live at {provider}, the cap is {CAP}")

    def _overcommit(self) -> None:
        """What truly runs on a machine never asks for more than it has, whatever was decided twice or late."""
        alive: dict[str, list[Life]] = defaultdict(list)
        for life in self._world.ledger.lives:
            if life.ended is None:
                alive[life.machine].append(life)
        for machine in self._world.machines:
            lives = alive[machine.name]
            cpu, memory = sum(life.cpu for life in lives), sum(life.memory for life in lives)
            if cpu > machine.slots.cpu or memory > machine.slots.memory:
                self._violated("slots", f"{machine.name} is overcommitted: {[life.run for life in lives]}")

    def _budget(self) -> None:
        """I5: once machines have cost what the budget allows, no other one is asked for."""
        rows = self._world.store.rows(Instance)
        new = [row for row in rows if row.id not in self._asked]
        self._asked.update(row.id for row in new)
        limit = self._world.scenario.budget
        if limit is None or self._world.calm:
            return
        for row in new:
            spent = sum(instance_cost(other, row.created_at) for other in rows if other is not row)
            if spent > limit:
                self._violated("I5", f"{row.id} was asked for when {spent} of {limit} had been spent")

    def _adoption(self) -> None:
        """I14: an agent that has been up for a minute knows every process of every run on its machine."""
        now = self._world.loop.true_time
        for machine in self._world.machines:
            if machine.up and now - machine.agent_up_at > ADOPT_S:
                known = self._world.known_runs(machine)
                for life in self._world.ledger.alive(machine.name):
                    if life.run not in known:
                        self._violated("I14", f"the agent of {machine.name} does not know {life.run}")

    def _moves(self) -> None:
        """What a move leaves: every run that saved its state is followed by another one, and nothing stays held."""
        world = self._world
        told = [event for event in world.store._memory.events if event.kind == "session"]
        world.ledger.faults["came home"] += sum(event.reason == Reason.HOMECOMING for event in told)
        world.ledger.faults["held by budget"] += sum(event.reason == Reason.BUDGET for event in told)
        world.ledger.faults["made room"] += sum(event.reason == Reason.PREEMPTED for event in told)
        world.ledger.faults["moved"] += sum(row.moves for row in world.store.rows(Session))
        world.ledger.faults["not moved"] += sum(event.reason == Reason.NOT_MOVED for event in told)
        for row in world.store.rows(Session):
            if row.moving is not None:
                self._violated("move", f"{row.id} is {row.state} and still holds slots to move to")
            last = [life for life in world.ledger.lives if life.run.startswith(f"{row.id}.{row.attempt}.")]
            codes = {life.code for life in last}
            if row.state is not SessionState.CANCELLED and SAVED_CODE in codes <= {0, SAVED_CODE}:
                self._violated("move", f"{row.id} is {row.state} though its last attempt saved its state to go on")

    def _ends_once(self) -> None:
        ends: dict[str, list[str]] = defaultdict(list)
        for event in self._world.store._memory.events:
            if event.kind == "session" and event.state in ENDED:
                ends[event.key].append(event.state)
        for row in self._world.store.rows(Session):
            if row.state in ENDED and len(ends[row.id]) != 1:
                self._violated("end", f"{row.id} ended {len(ends[row.id])} times: {ends[row.id]}")
        for key in self._world.submitted:
            if key not in {row.id for row in self._world.store.rows(Session)}:
                self._violated("end", f"{key} was accepted and is not there")

    def _true_end(self, row: Session) -> None:
        """The stored end is what the processes truly did, and every byte they printed is stored."""
        lives = {life.run: life for life in self._world.ledger.lives}
        mine = [lives.get(run_id(row.id, row.attempt, member.rank)) for member in row.members]
        if row.state is SessionState.CANCELLED:
            if row.id not in self._world.cancelled:
                self._violated("end", f"{row.id} was cancelled by nobody")
        elif not any(mine):  # of a gang, one may fail before another began
            self._violated("end", f"{row.id} is {row.state} and never ran")
        else:
            codes = [life.code for life in mine if life]
            wanted = int(row.spec.command[2])
            if row.exit_code != wanted:
                self._violated(
                    "end", f"{row.id} has exit code {row.exit_code}, its command's is {wanted}; true {codes}"
                )
            if row.exit_code not in codes:
                self._violated("end", f"{row.id} has exit code {row.exit_code}, its processes had {codes}")
            if (row.state is SessionState.SUCCEEDED) != (row.exit_code == 0):
                self._violated("end", f"{row.id} is {row.state} with exit code {row.exit_code}")
        for life in mine:
            if life and self._world.owes_logs(life):
                self._logs(life.run, life.out, whole=row.state is SessionState.SUCCEEDED)

    def _logs(self, run: str, printed: bytes, *, whole: bool) -> None:
        kept = bytes(self._world.logs._kept.get((run, "out"), b""))
        if kept != printed:
            self._violated("logs", f"{run} printed {len(printed)} bytes, {len(kept)} are kept")
        if whole and kept != b"".join(line(run, number) for number in range(LINES)):
            self._violated("logs", f"{run} succeeded with {len(kept)} bytes of output")


def _orphan(intent: str) -> bool:
    return intent.startswith("i-orphan-")
