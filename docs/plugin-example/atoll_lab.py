"""A provider of kind `lab`: machines that are PID namespaces of this computer, so that one's end ends all in it."""

import fcntl
import json
import os
import shutil
import signal
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from atoll.fields import Fields
from atoll.instance import Shape
from atoll.slots import GIB, Slots
from providers.errors import Absent, BadRequest, Quota
from providers.port import Finding, Limit, Machine, MachineState

AS_ROOT = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
INIT = 'trap "exit 0" TERM; sh "$0" & while :; do wait; sleep 3600 & done'  # process 1 stays when the script is done
BOOT = ["unshare", *AS_ROOT, "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", INIT]


class Lab:
    """Each machine is a folder: its record, boot script, home (the disk) and what it printed."""

    def __init__(self, provider, context):
        said = Fields(provider.settings, "provider.settings")
        self.most = said.integer("machines", 2, low=1, high=1000)
        slots = Slots(said.milli("cpu", 1000), said.bytes("memory", GIB), said.bytes("disk", 10 * GIB))
        price = said.money("price", 10_000)
        said.done()
        self.shape = Shape(provider=provider.name, name="lab", zone="here", slots=slots, price=price, start_s=3.0)
        self.root, self.launch, self.clock = context.directory / provider.name, context.launch, context.clock

    async def doctor(self):
        found = shutil.which("unshare") or ""
        return [Finding(check="unshare", ok=bool(found), message=found, hint="install util-linux")]

    async def quota(self):
        return [Limit(name="machines", limit=self.most, counts="instances")]

    async def shapes(self, prices):
        return [replace(self.shape, price=prices.price("lab", "here", False, told=self.shape.price), catalogue="lab")]

    async def create(self, intent):
        if intent.shape.key != self.shape.key or len(intent.user_data.encode()) > 16 * 1024:
            raise BadRequest("there is no such shape here, or the boot script is longer than 16 KiB")
        with self.records() as records:
            record = records.get(intent.name)
            if record and record["print"] != intent.fingerprint:
                raise BadRequest(f"intent {intent.id} was used before with other parameters")
            if not record and sum(record["state"] != "ended" for record in records.values()) >= self.most:
                raise Quota(f"all {self.most} machines of the lab are taken", name="machines")
            if not record:
                base = self.root / intent.name
                (base / "home").mkdir(parents=True, exist_ok=True)
                (base / "boot.sh").write_text(intent.user_data)
                (base / "poweroff").write_text("#!/bin/sh\nkill -TERM 1\n")
                (base / "poweroff").chmod(0o755)
                told = {"intent": intent.id, "owner": intent.owner, "print": intent.fingerprint, "tags": intent.tags}
                record = {**told, "state": "stopped", "created_at": self.clock.now()}
                self.turn(intent.name, record, "running")
            return self.machine(intent.name, record)

    async def describe(self, owner):
        with self.records() as records:
            return [self.machine(key, record) for key, record in records.items() if record["owner"] == owner]

    async def start(self, provider_id):
        self.turn_live(provider_id, "running")

    async def stop(self, provider_id):
        self.turn_live(provider_id, "stopped")

    async def terminate(self, provider_id):
        self.turn_live(provider_id, "ended")

    async def console(self, provider_id):
        console = self.root / provider_id / "console"
        return console.read_bytes()[-65536:].decode(errors="replace") if console.exists() else ""

    @contextmanager
    def records(self):
        """Lock the lab, for there are drivers in other processes, and make what is written and what runs agree."""
        self.root.mkdir(parents=True, exist_ok=True)
        with (self.root / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            records = {path.parent.name: json.loads(path.read_text()) for path in self.root.glob("*/record.json")}
            for key, record in records.items():
                on = record["state"] == "running"
                if on != bool(self.processes(key)):  # it switched itself off, or was left on
                    self.turn(key, record, "ended" if on else record["state"])
            yield records

    def turn_live(self, key, state):
        with self.records() as records:
            if records.get(key, {"state": "ended"})["state"] == "ended":
                raise Absent(f"there is no machine {key}")
            self.turn(key, records[key], state)

    def turn(self, key, record, state):
        """Write down what is to be, then make it so: who is interrupted in between leaves nothing unknown running."""
        base, switch_on = self.root / key, state == "running" != record["state"]
        record["state"] = state
        (base / "record.new").write_text(json.dumps(record))
        (base / "record.new").replace(base / "record.json")
        if switch_on:
            home, slots = str(base / "home"), self.shape.slots
            own = {"HOME": home, "ATOLL_HOME": f"{home}/.atoll", "ATOLL_INSTANCE_POWEROFF": str(base / "poweroff")}
            size = f"cpu={slots.cpu / 1000:g},memory={slots.memory},disk={slots.disk}"
            mark = {"PATH": os.environ["PATH"], "ATOLL_AGENT_SLOTS": size, "LAB_MACHINE": str(base)}
            shell = ["sh", "-c", 'exec "$@" >>"$LAB_MACHINE/console" 2>&1', "lab"]
            self.launch([*shell, *BOOT, str(base / "boot.sh")], base / "home", {**own, **mark})
        while state != "running" and (pids := self.processes(key)):
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def processes(self, key):
        """Every live process that names the machine: its namespace's first one is among them."""
        mark, found = f"LAB_MACHINE={self.root / key}\0".encode(), []
        for entry in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if mark in (entry / "environ").read_bytes() and b") Z" not in (entry / "stat").read_bytes():
                    found.append(int(entry.name))
        return found

    def machine(self, key, record):
        told = {"intent": record["intent"], "created_at": record["created_at"]}
        return Machine(provider_id=key, shape="lab", zone="here", state=MachineState(record["state"]), **told)
