"""What the control plane needs from outside, as Protocols only: store, logs, bus, launch port."""

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol, TypeAlias, TypeVar

from atoll.agent import Agent
from atoll.budget import Budget
from atoll.errors import Conflict
from atoll.event import Event
from atoll.group import Group, Provider
from atoll.instance import Instance
from atoll.mesh import Mesh
from atoll.offer import Decision
from atoll.plan import Plan
from atoll.policy import Policy
from atoll.price import PriceList
from atoll.relay import Relay
from atoll.session import Session
from atoll.site import Site
from atoll.streamrecord import StreamRecord
from atoll.token import Token

Row: TypeAlias = (
    Session
    | Agent
    | Group
    | Provider
    | Instance
    | Site
    | Token
    | Plan
    | PriceList
    | Policy
    | Budget
    | Relay
    | Mesh
    | StreamRecord
)
Written: TypeAlias = tuple[type[Row], str, Row | None]
"""Kind and key of a row that was written, and the row as it is now, None when it was removed."""
R = TypeVar(
    "R",
    Session,
    Agent,
    Group,
    Provider,
    Instance,
    Site,
    Token,
    Plan,
    PriceList,
    Policy,
    Budget,
    Relay,
    Mesh,
    StreamRecord,
)


class Stale(Conflict):
    """The row changed since it was read: nothing was written. Read again and decide again."""

    code = "STALE"


class Transaction(Protocol):
    """One atomic look-and-change. All writes commit together when the block ends without an error.

    Keys: `Session.id Agent.id Instance.id Token.id Plan.id Relay.id StreamRecord.id`, `name` for `Group Provider Site
    Policy Budget Mesh`, `PriceList.provider`.
    """

    @property
    def written(self) -> Sequence[Written]:
        """Return what was inserted, updated and deleted so far, in order, for whoever keeps a copy of rows."""
        ...

    async def get(self, kind: type[R], key: str) -> R | None:
        """Return the row, or None."""
        ...

    async def find(
        self, kind: type[R], /, *, after: str = "", limit: int = 0, newest: bool = False, **where: str | Sequence[str]
    ) -> list[R]:
        """Return rows whose indexed columns equal (or are among) the given values, ordered by creation then key.

        Indexed columns: Session `state project name group agent` (agent: a member is or was placed
        there in the current attempt, or slots are held there for the move that is under way); Agent `state
        site group instance name`; Instance `state group provider agent`; Group `site provider kind`; Provider
        `kind`; Token `kind group instance owner`; Policy, Budget `project`; Relay `state name`;
        StreamRecord `state project session user`; Site, Plan, PriceList, Mesh: none. `newest` reverses the order;
        `after` is the key of the last row of the previous page; `limit` 0 means all. An unknown column raises
        `ValueError`.
        """
        ...

    async def tally(self, kind: type[Row], column: str) -> dict[str, int]:
        """Return how many rows there are for each value of an indexed column that holds one value."""
        ...

    async def insert(self, row: R) -> R:
        """Add a row and return it with `version` 1; raise `Conflict` when its key exists."""
        ...

    async def update(self, row: R) -> R:
        """Replace the row whose version is still `row.version`; return it with the next version, or raise `Stale`."""
        ...

    async def delete(self, kind: type[R], key: str) -> None:
        """Remove a row; well if there is none."""
        ...

    async def append(self, event: Event) -> None:
        """Add an event; it gets its `rev` at commit."""
        ...

    async def decide(self, subject: str, decision: Decision, at: float) -> None:
        """Keep `decision` as the newest about `subject` (a session id); the newest 20 a subject are kept.

        A decision equal to the newest kept one only moves its time.
        """
        ...

    async def decisions(self, subject: str) -> list[tuple[float, Decision]]:
        """Return the decisions kept about `subject`, newest first, each with its time."""
        ...

    async def consume(self, token: str, now: float) -> Token | None:
        """Use up one use of a token that has uses left and has not expired; None if it has not.

        One guarded UPDATE … RETURNING: of any number of concurrent callers at most `uses_left` win (S1).
        """
        ...

    async def remember(self, key: str, fingerprint: str, answer: str, at: float) -> None:
        """Keep the answer to an idempotent request, for 24 hours at least."""
        ...

    async def recall(self, key: str) -> tuple[str, str] | None:
        """Return `(fingerprint, answer)` kept under an idempotency key, or None."""
        ...

    async def setting(self, name: str) -> str | None:
        """Return a value kept for the installation (`installation` is its id), or None."""
        ...

    async def set(self, name: str, value: str) -> None:
        """Keep a value for the installation."""
        ...


class Store(Protocol):
    """The memory of the control plane."""

    def transaction(self) -> AbstractAsyncContextManager[Transaction]:
        """Open a transaction: serialisable for the rows it reads and updates by version; undone on error."""
        ...

    async def events(self, since: int, limit: int = 500, kinds: Sequence[str] = ()) -> list[Event]:
        """Return committed events with `rev > since`, in order; no rev can appear below one already returned."""
        ...

    async def last_rev(self) -> int:
        """Return the rev of the newest event, 0 when there is none."""
        ...

    async def close(self) -> None:
        """Release connections and locks."""
        ...


class LogStore(Protocol):
    """Where session output is kept: one byte sequence per run id and channel (`out`, `err`)."""

    async def size(self, run: str, channel: str) -> int:
        """Return how many bytes are kept durably: the offset that an agent may forget below."""
        ...

    async def write(self, run: str, channel: str, offset: int, data: bytes) -> int:
        """Keep `data` at `offset`; return the new size.

        Bytes below the size are ignored (a repeat); `offset` beyond the size first fills the gap with
        one line saying how many bytes were dropped, and pads to `offset`: later offsets stay true.
        """
        ...

    async def read(self, run: str, channel: str, offset: int, limit: int) -> bytes:
        """Return up to `limit` bytes from `offset`; empty at the end."""
        ...


class Bus(Protocol):
    """Wakes those who wait for changes within this installation. A hint only: losing one delays, never loses."""

    def publish(self, topic: str) -> None:
        """Wake all waiters on `topic` (`events`, `log:<run>`, `placement`, …)."""
        ...

    def subscribe(self, topic: str) -> AsyncIterator[None]:
        """Yield once whenever `topic` was published since the last yield; many hints may become one."""
        ...
