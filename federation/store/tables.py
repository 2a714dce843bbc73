"""The tables: one per kind of row, with its indexed columns and the whole row as JSON in `body`."""

from collections.abc import Mapping

from sqlalchemy import BigInteger, Column, Double, Index, Integer, MetaData, Table, Text

from atoll.agent import Agent
from atoll.budget import Budget
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
from federation.ports import Row

metadata = MetaData()

# Byte order on both databases: a page must not depend on the server's locale.
_Key = Text().with_variant(Text(collation="C"), "postgresql")
# SQLite counts up only in a column declared INTEGER; PostgreSQL's INTEGER ends at 2 billion.
_Serial = BigInteger().with_variant(Integer(), "sqlite")


def _rows(name: str, *indexed: str, extra: tuple[Column[int] | Column[float | None], ...] = ()) -> Table:
    table = Table(
        name,
        metadata,
        Column("key", _Key, primary_key=True),
        Column("version", Integer, nullable=False),
        Column("created", Double, nullable=False),
        *(Column(column, Text, nullable=False) for column in indexed),
        *extra,
        Column("body", Text, nullable=False),
    )
    Index(f"ix_{name}_created", table.c.created, table.c.key)
    for column in indexed:
        Index(f"ix_{name}_{column}", table.c[column])
    return table


ROWS: Mapping[type[Row], Table] = {
    Session: _rows("sessions", "state", "project", "name", "group"),
    Agent: _rows("agents", "state", "site", "group", "instance", "name"),
    Instance: _rows("instances", "state", "group", "provider", "agent"),
    Group: _rows("groups", "site", "provider", "kind"),
    Provider: _rows("providers", "kind"),
    Site: _rows("sites"),
    # One guarded UPDATE uses up a use: the count must be a column, and its value wins over the body's.
    Token: _rows(
        "tokens",
        "kind",
        "group",
        "instance",
        "owner",
        extra=(Column("uses_left", Integer, nullable=False), Column("expires_at", Double)),
    ),
    Plan: _rows("plans"),
    PriceList: _rows("price_lists"),
    Policy: _rows("policies", "project"),
    Budget: _rows("budgets", "project"),
    Relay: _rows("relays", "state", "name"),
    Mesh: _rows("meshes"),
    StreamRecord: _rows("stream_records", "state", "project", "session", "user"),
}
"""The table of each kind of row. `body` holds every field, so a new field needs no migration."""

session_agents = Table(
    "session_agents",
    metadata,
    Column("agent", _Key, primary_key=True),
    Column("session", _Key, primary_key=True, index=True),
)
"""Which agents a session's current members are on: the `agent` column of `Session`."""

events = Table(
    "events",
    metadata,
    Column("rev", _Serial, primary_key=True, autoincrement=True),
    Column("kind", Text, nullable=False),
    Column("body", Text, nullable=False),
    sqlite_autoincrement=True,
)

decisions = Table(
    "decisions",
    metadata,
    Column("id", _Serial, primary_key=True, autoincrement=True),
    Column("subject", Text, nullable=False),
    Column("at", Double, nullable=False),
    Column("body", Text, nullable=False),
    Index("ix_decisions_subject", "subject", "id"),
    sqlite_autoincrement=True,
)

answers = Table(
    "answers",
    metadata,
    Column("key", _Key, primary_key=True),
    Column("fingerprint", Text, nullable=False),
    Column("answer", Text, nullable=False),
    Column("at", Double, nullable=False, index=True),
)
"""Answers to idempotent requests."""

settings = Table(
    "settings",
    metadata,
    Column("name", _Key, primary_key=True),
    Column("value", Text, nullable=False),
)
