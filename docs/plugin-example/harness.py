"""The lab as the provider contract's suite wants it: see `tests.clouds.harness.Harness` for what each method is."""

import json
import os
import signal
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from atoll.group import Provider
from atoll.host.system import SystemClock
from providers.port import Intent, MachineState
from providers.prices.book import Book
from providers.registry import DriverContext, make
from tests.clouds.harness import OWNER, Seen
from tests.fakes.launch import Launcher, processes_below


@dataclass
class LabHarness:
    """The inventory is read from the lab's folders and this computer's processes, never through the driver."""

    directory: Path
    name: str = "lab"
    can: frozenset[str] = frozenset()
    remembers: bool = True
    launcher: Launcher = field(default_factory=Launcher)

    def start(self):
        self.directory.mkdir(parents=True)

    def provider(self):
        return Provider(name="bench", kind="lab", settings={"machines": 4})

    def driver(self, proxy=""):
        # Through the registry, as the control plane does: the entry point of the installed package is found.
        context = DriverContext(directory=self.directory, launch=self.launcher, clock=SystemClock(), proxy=proxy)
        return make(self.provider(), context)

    def book(self):
        return Book()

    def inject(self, **faults):
        raise NotImplementedError(f"the lab cannot have {faults}")

    def struck(self):
        return {}

    def inventory(self):
        found = []
        for path in sorted((self.directory / "bench").glob("*/record.json")):
            record, runs = json.loads(path.read_text()), bool(processes_below(path.parent))
            state = "ended" if record["state"] == "running" and not runs else record["state"]
            found.append(
                Seen(
                    provider_id=path.parent.name,
                    intent=record["intent"],
                    owner=record["owner"],
                    state=MachineState(state),
                    zone="here",
                    user_data=(path.parent / "boot.sh").read_text(),
                    tags=record["tags"],
                )
            )
        return found

    def intent(self, name, *, owner=OWNER, script="#!/bin/sh\nsleep 60\n", **more):
        shape = replace(self.driver().shape, **more)
        return Intent(id=name, owner=owner, shape=shape, user_data=script, tags={"atoll-group": "burst"})

    def remove(self, provider_id):
        kill_below(self.directory / "bench" / provider_id)

    reclaim = remove

    def intruder(self, like):
        """A machine of somebody else's, for the same intent."""
        base = self.directory / "bench" / "theirs"
        base.mkdir()
        (base / "boot.sh").write_text("#!/bin/sh\n")
        record = {"intent": like.intent, "owner": "somebody-else", "print": "", "tags": {}, "created_at": 0.0}
        (base / "record.json").write_text(json.dumps({**record, "state": "stopped"}))
        return "theirs"

    def leftovers(self):
        return processes_below(self.directory)

    def stop(self):
        kill_below(self.directory)
        self.launcher.close()


def kill_below(folder):
    """End every process of the machines in a folder, and what it starts meanwhile."""
    while pids := processes_below(folder):
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
