"""What the store knows of each kind of row: its key, when it was created, and its indexed columns. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from atoll.agent import Agent
from atoll.budget import Budget
from atoll.errors import Conflict, Invalid
from atoll.group import Group, Provider
from atoll.instance import Instance
from atoll.mesh import Mesh
from atoll.plan import Plan
from atoll.policy import Policy
from atoll.price import PriceList
from atoll.relay import Relay
from atoll.session import Session
from atoll.site import Site
from atoll.streamrecord import StreamRecord
from atoll.token import Token
from federation.ports import Row, Stale

DECISIONS_KEPT = 20
"""How many decisions a subject are kept."""

ANSWERS_KEPT_S = 2 * 86400.0
"""How long answers to idempotent requests are kept, in seconds: never less than a day."""


@dataclass(frozen=True, slots=True)
class Kind:
    """How rows of one noun are kept.

    `key` and `created` name the fields that hold the key and the time of creation (Unix seconds; later
    changes of that field move no row); `columns` are the fields that `find` may ask for, and `sets`
    those of them that hold several values.
    """

    name: str
    key: str
    created: str
    columns: tuple[str, ...] = ()
    sets: tuple[str, ...] = ()

    def key_of(self, row: Row) -> str:
        """Return the row's key."""
        return str(getattr(row, self.key))

    def created_of(self, row: Row) -> float:
        """Return when the row was created, in Unix seconds."""
        return float(getattr(row, self.created))

    def values_of(self, row: Row) -> dict[str, str]:
        """Return the values of the indexed columns that hold one value."""
        return {column: str(getattr(row, column)) for column in self.columns if column not in self.sets}

    def check(self, where: Mapping[str, str | Sequence[str]]) -> dict[str, tuple[str, ...]]:
        """Return each asked column with the values it may have; raise `ValueError` for an unknown column."""
        for column in where:
            if column not in self.columns:
                raise ValueError(f"{self.name} has no indexed column {column!r}, only {', '.join(self.columns)}")
        return {
            column: (str(value),) if isinstance(value, str) else tuple(str(each) for each in value)
            for column, value in where.items()
        }


KINDS: Mapping[type[Row], Kind] = {
    Session: Kind("session", "id", "created_at", ("state", "project", "name", "group", "agent"), ("agent",)),
    Agent: Kind("agent", "id", "joined_at", ("state", "site", "group", "instance", "name")),
    Instance: Kind("instance", "id", "created_at", ("state", "group", "provider", "agent")),
    Group: Kind("group", "name", "created_at", ("site", "provider", "kind")),
    Provider: Kind("provider", "name", "created_at", ("kind",)),
    Site: Kind("site", "name", "created_at"),
    Token: Kind("token", "id", "created_at", ("kind", "group", "instance", "owner")),
    Plan: Kind("plan", "id", "at"),
    PriceList: Kind("price list", "provider", "at"),
    Policy: Kind("policy", "name", "created_at", ("project",)),
    Budget: Kind("budget", "name", "created_at", ("project",)),
    Relay: Kind("relay", "id", "created_at", ("state", "name")),
    Mesh: Kind("mesh", "name", "created_at"),
    StreamRecord: Kind("stream record", "id", "began_at", ("state", "project", "session", "user")),
}
"""Every kind of row there is."""


def agents_of(row: Row) -> frozenset[str]:
    """Return the agents of a session's current attempt, and those that hold slots for its next; none for other rows."""
    if not isinstance(row, Session):
        return frozenset()
    held = row.moving.to if row.moving else ()
    return frozenset(member.agent for member in (*row.members, *held))


def exists(kind: Kind, key: str) -> Conflict:
    """Return the error for a key that is taken."""
    return Conflict(f"{kind.name} {key!r} exists already", hint="choose another name, or change the existing one")


def stale(kind: Kind, key: str) -> Stale:
    """Return the error for a row that is not at the version it was read at."""
    return Stale(f"{kind.name} {key!r} changed since it was read", hint="read it again and try again")


def no_such_page(kind: Kind, after: str) -> Invalid:
    """Return the error for a page that should begin after a row that is not there (any more)."""
    return Invalid(f"there is no {kind.name} {after!r} to continue after", hint="begin again with the first page")


def remembered(key: str) -> Conflict:
    """Return the error for an idempotency key that has an answer already."""
    return Conflict(f"a request with the idempotency key {key!r} was answered already", hint="send the request again")
