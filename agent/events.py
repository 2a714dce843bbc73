"""What the agent's core is told (events) and what it wants done (commands): values only."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from agent.entry import Entry, Terms
from atoll.session import SessionSpec
from atoll.slots import Slots
from tunnel import wire


@dataclass(frozen=True, slots=True)
class Restored:
    """What the journal held when this process began. Comes first, once."""

    entries: tuple[Entry, ...]
    terms: Terms


@dataclass(frozen=True, slots=True)
class Linked:
    """The connection to the control plane is up; nothing was said yet."""


@dataclass(frozen=True, slots=True)
class Unlinked:
    """The connection is over."""


@dataclass(frozen=True, slots=True)
class Contact:
    """The control plane heard this agent at `at` (monotonic seconds) or later: a message sent then was answered."""

    at: float


@dataclass(frozen=True, slots=True)
class Received:
    """A message of the control plane."""

    message: wire.FromControl


@dataclass(frozen=True, slots=True)
class RuntimeStarted:
    """The run's process exists. `limits` says honestly whether they hold; `apps` are the ports it was given."""

    run: str
    limits: str = ""
    apps: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RuntimeExited:
    """The run and its whole tree are over. `exit_code` None: it could not be learned, `message` says why."""

    run: str
    exit_code: int | None
    out: int = 0
    err: int = 0
    message: str = ""


@dataclass(frozen=True, slots=True)
class StartFailed:
    """The run could not be started; no process of it exists."""

    run: str
    message: str


@dataclass(frozen=True, slots=True)
class SignalRefused:
    """The run's main process was not sent the signal; `message` says why."""

    run: str
    message: str


@dataclass(frozen=True, slots=True)
class NoticeSeen:
    """This machine will be taken away in about `in_s` seconds."""

    in_s: float
    message: str


@dataclass(frozen=True, slots=True)
class LeaveAsked:
    """The machine's owner takes the agent out of the installation."""

    reason: str = ""


@dataclass(frozen=True, slots=True)
class Tick:
    """Time passed: look at the deadlines."""


Event: TypeAlias = (
    Restored
    | Linked
    | Unlinked
    | Contact
    | Received
    | RuntimeStarted
    | RuntimeExited
    | StartFailed
    | SignalRefused
    | NoticeSeen
    | LeaveAsked
    | Tick
)


@dataclass(frozen=True, slots=True)
class Send:
    """Say this on the link; dropped when there is none (the next `Hello` says it all again)."""

    message: wire.FromAgent


@dataclass(frozen=True, slots=True)
class Adopt:
    """Find the processes of these runs, started by an earlier process of this agent, and report on each."""

    runs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class JournalPut:
    """Make this record durable. Must be done before the commands after it."""

    entry: Entry


@dataclass(frozen=True, slots=True)
class JournalTerms:
    """Keep the terms for the next process of this agent."""

    terms: Terms


@dataclass(frozen=True, slots=True)
class Spawn:
    """Start the run's process. `gpus` are the devices it may see; past `until` (monotonic time) it is ended."""

    run: str
    spec: SessionSpec
    slots: Slots
    env: Mapping[str, str]
    gpus: tuple[str, ...] = ()
    until: float | None = None


@dataclass(frozen=True, slots=True)
class Keep:
    """Put off the end of a run that was started with one: it may live until then (monotonic time)."""

    run: str
    until: float


@dataclass(frozen=True, slots=True)
class Signal:
    """Send the run's main process a signal (a name without SIG); answered by `SignalRefused` where it was not sent."""

    run: str
    signal: str


@dataclass(frozen=True, slots=True)
class Terminate:
    """Ask the run's processes to end (TERM)."""

    run: str


@dataclass(frozen=True, slots=True)
class Kill:
    """End the run's whole tree (KILL), until nothing of it is left."""

    run: str


@dataclass(frozen=True, slots=True)
class Drop:
    """The run's end and logs are stored: free its journal record, logs and directory."""

    run: str


@dataclass(frozen=True, slots=True)
class Exit:
    """End this agent; `poweroff` asks for the machine to be switched off as well."""

    reason: str
    message: str
    poweroff: bool = False


Command: TypeAlias = Send | Adopt | JournalPut | JournalTerms | Spawn | Keep | Signal | Terminate | Kill | Drop | Exit
