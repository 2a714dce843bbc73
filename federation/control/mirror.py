"""The rows that decisions are made from, kept in memory: read once, then changed with every commit.

One control plane writes (it holds the store), so what it committed is what is there. A commit whose outcome is not
known makes the next look read everything again.
"""

from collections.abc import Iterable
from typing import Any

from atoll.agent import Agent
from atoll.group import Group, Provider
from atoll.instance import Instance
from atoll.session import Session
from atoll.site import Site
from atoll.states import KEPT, LIVE, PLACED, WAITING
from federation.ports import Row, Transaction, Written

_OPEN = WAITING | PLACED


class Mirror:
    """Live rows by key, in the order of their creation, and which agents' capacity changed since it was asked.

    `sessions` that wait or are placed, `agents` of the installation, `instances` that may exist, and all `groups`,
    `providers` and `sites`. `generation` rises with every change of any of them.
    """

    def __init__(self) -> None:
        self.sessions: dict[str, Session] = {}
        self.agents: dict[str, Agent] = {}
        self.groups: dict[str, Group] = {}
        self.instances: dict[str, Instance] = {}
        self.providers: dict[str, Provider] = {}
        self.sites: dict[str, Site] = {}
        self.generation = 0
        self._loaded = False
        self._changed: set[str] = set()
        self._runs: dict[str, dict[str, Session]] = {}

    @property
    def loaded(self) -> bool:
        """Whether the rows were read and are true."""
        return self._loaded

    def forget(self) -> None:
        """Believe nothing any more: the next look reads everything."""
        self._loaded = False

    async def load(self, tx: Transaction) -> None:
        """Read everything."""
        self.sessions = {row.id: row for row in await tx.find(Session, state=sorted(_OPEN))}
        self.agents = {row.id: row for row in await tx.find(Agent, state=list(KEPT))}
        self.groups = {row.name: row for row in await tx.find(Group)}
        self.instances = {row.id: row for row in await tx.find(Instance, state=list(LIVE))}
        self.providers = {row.name: row for row in await tx.find(Provider)}
        self.sites = {row.name: row for row in await tx.find(Site)}
        self._runs = {}
        for row in self.sessions.values():
            self._occupy(row)
        self._changed = set(self.agents) | self._changed
        self.generation += 1
        self._loaded = True

    def apply(self, written: Iterable[Written]) -> None:
        """Take over what a transaction has committed."""
        for kind, key, row in written:
            table: dict[str, Any] | None = self._table(kind)
            if table is None:
                continue
            before = table.get(key)
            if row is not None and _live(row):
                table[key] = row
            else:
                table.pop(key, None)
            self._note(before)
            self._note(row)
            self.generation += 1

    def on_agent(self, agent: str) -> list[Session]:
        """Return the placed sessions that hold slots on an agent, or will."""
        return list(self._runs.get(agent, {}).values())

    def take_changed(self) -> set[str]:
        """Return the agents of which something changed since the last call: their rows, or what runs there."""
        changed, self._changed = self._changed, set()
        return changed

    def _table(self, kind: type[Row]) -> dict[str, Any] | None:
        tables: dict[type[Row], dict[str, Any]] = {
            Session: self.sessions,
            Agent: self.agents,
            Group: self.groups,
            Instance: self.instances,
            Provider: self.providers,
            Site: self.sites,
        }
        return tables.get(kind)

    def _note(self, row: Row | None) -> None:
        if isinstance(row, Agent):
            self._changed.add(row.id)
        elif isinstance(row, Instance) and row.agent:
            self._changed.add(row.agent)
        elif isinstance(row, Session):
            self._changed.update(_agents_of(row))
            for agent in _agents_of(row):
                runs = self._runs.get(agent, {})
                runs.pop(row.id, None)
                if not runs:
                    self._runs.pop(agent, None)
            now = self.sessions.get(row.id)
            if now is not None:
                self._occupy(now)

    def _occupy(self, row: Session) -> None:
        if row.state in PLACED:
            for agent in _agents_of(row):
                self._runs.setdefault(agent, {})[row.id] = row


def _agents_of(row: Session) -> set[str]:
    """Return the agents that a session's members are on, and those that it holds slots on to resume there."""
    moving = row.moving.to if row.moving else ()
    return {member.agent for member in (*row.members, *moving)}


def _live(row: Row) -> bool:
    if isinstance(row, Session):
        return row.state in _OPEN
    if isinstance(row, Agent):
        return row.state in KEPT
    return not isinstance(row, Instance) or row.state in LIVE
