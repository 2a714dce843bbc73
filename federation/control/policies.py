"""Policies: kept, in force, and beside the one in force a shadow whose decisions are only counted."""

from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from atoll.errors import Conflict, Invalid, NotFound
from atoll.ids import check_name
from atoll.offer import Decision
from atoll.policy import ACTIVE, Policy
from atoll.session import Session
from atoll.states import Reason
from atoll.suggest import hint
from federation.control.changes import Change, Changes
from federation.control.rulings import Active, Held, Plugin, active
from federation.ports import Transaction

Load: TypeAlias = Callable[[], tuple[Sequence[tuple[str, Plugin]], Mapping[str, str]]]
"""Loads plug-ins: those that are good by name, and why others are not."""
SHADOW = "policy.shadow"
"""The setting that names the shadow."""
KEPT = 100
"""How many differences are kept to be shown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A waiting session that live policy and shadow decided otherwise; each side in words."""

    at: float
    session: str
    name: str
    live: str
    shadow: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Shadow:
    """What is known of a shadow: sessions it was asked about, differences by what they are, and the newest of them."""

    policy: str
    since: float
    asked: int
    counts: Mapping[str, int]
    newest: Sequence[Difference]


class Policies:
    """Use cases of policies. `active` and `shadow` are compiled once and again after every change."""

    def __init__(
        self,
        changes: Changes,
        on_change: Callable[[], None],
        plugins: Load = lambda: ([], {}),
    ) -> None:
        self._changes = changes
        self._on_change = on_change
        self._load = plugins
        self._plugins: Sequence[tuple[str, Plugin]] | None = None
        self.failed: Mapping[str, str] = {}
        """Plug-ins that could not be loaded, with why."""
        self._active: Active | None = None
        self._shadow: Active | None = None
        self._shadow_name = ""
        self._since = 0.0
        self._asked: set[str] = set()
        self._told: dict[str, tuple[str, str]] = {}
        self._counts: Counter[str] = Counter()
        self._newest: deque[Difference] = deque(maxlen=KEPT)

    async def active(self) -> Active:
        """Return the policies in force."""
        if self._active is None:
            await self._read()
        return self._active or active(())

    async def shadow(self) -> Active | None:
        """Return what would be in force with the shadow in place of the live policy, None without one."""
        await self.active()
        return self._shadow

    @property
    def shadow_name(self) -> str:
        """The name of the shadow, empty without one."""
        return self._shadow_name

    async def list(self) -> list[Policy]:
        """Return all, oldest first."""
        async with self._changes.look() as tx:
            return await tx.find(Policy)

    async def get(self, name: str) -> Policy:
        """Return one; raise `NotFound` with a near name."""
        async with self._changes.look() as tx:
            return await _get(tx, name)

    async def apply(self, row: Policy, *, by: str) -> tuple[Policy, bool]:
        """Make it be as given; return it and whether it is new. It is in force from the next decision on."""
        check_name(row.name, "policy")
        async with self._changes.commit("policy.apply") as change:
            have = await change.tx.get(Policy, row.name)
            if have is None:
                saved = await change.tx.insert(replace(row, created_at=change.now))
            else:
                wanted = replace(row, created_at=have.created_at, version=have.version)
                if wanted == have:
                    return have, False
                saved = await change.tx.update(wanted)
            await self._tell(change, row.name, "changed" if have else "created", by)
        await self._renew()
        return saved, have is None

    async def delete(self, name: str, *, by: str) -> None:
        """Remove one; raise `Conflict` for the shadow."""
        async with self._changes.commit("policy.delete") as change:
            await _get(change.tx, name)
            if await change.tx.setting(SHADOW) == name:
                raise Conflict(f"policy {name!r} is the shadow", hint="end that first: atoll policy shadow --off")
            await change.tx.delete(Policy, name)
            await self._tell(change, name, "deleted", by)
        await self._renew()

    async def set_shadow(self, name: str, *, by: str) -> None:
        """Evaluate this policy beside the live one, in place of what it would replace; with an empty name, none."""
        async with self._changes.commit("policy.shadow") as change:
            if name:
                row = await _get(change.tx, name)
                if row.name == ACTIVE or row.project:
                    raise Invalid(f"policy {name!r} is in force", hint="give the one to be tried another name")
            await change.tx.set(SHADOW, name)
            await self._tell(change, name or ACTIVE, "shadow" if name else "no shadow", by)
        await self._renew()

    async def differences(self) -> Shadow:
        """Return what is known of the shadow; raise `NotFound` without one."""
        await self.active()
        if not self._shadow_name:
            raise NotFound("no policy is a shadow now", hint="set one: atoll policy shadow NAME")
        return Shadow(
            policy=self._shadow_name,
            since=self._since,
            asked=len(self._asked),
            counts=dict(self._counts),
            newest=list(reversed(self._newest)),
        )

    def compare(
        self, row: Session, live: Decision | Held | None, shadow: Decision | Held | None, now: float
    ) -> Difference | None:
        """Note what both policies decided for a waiting session; return the difference when it is a new one."""
        before, after = _words(live), _words(shadow)
        self._asked.add(row.id)
        if before == after or self._told.get(row.id) == (before, after):
            return None
        self._told[row.id] = (before, after)
        self._counts[f"{_kind(live)} -> {_kind(shadow)}"] += 1
        found = Difference(at=now, session=row.id, name=row.name, live=before, shadow=after)
        self._newest.append(found)
        return found

    async def _tell(self, change: Change, name: str, verb: str, by: str) -> None:
        await change.event("policy", name, verb, name=name, reason=Reason.USER, message=f"by {by}")

    async def _renew(self) -> None:
        self._active = None
        await self._read()
        self._on_change()

    async def _read(self) -> None:
        async with self._changes.look() as tx:
            rows = await tx.find(Policy)
            name = await tx.setting(SHADOW) or ""
        if self._plugins is None:
            self._plugins, self.failed = self._load()
        tried = next((row for row in rows if row.name == name), None)
        self._active = active(rows, self._plugins)
        if tried is None:
            self._shadow, self._shadow_name = None, ""
            return
        others = [row for row in rows if row.name != ACTIVE]
        shadow = active([replace(tried, name=ACTIVE), *others], self._plugins)
        if self._shadow is None or self._shadow.rules.version != shadow.rules.version:
            self._since = self._changes.clock.now()
            self._asked, self._told, self._counts = set(), {}, Counter()
            self._newest.clear()
        self._shadow, self._shadow_name = shadow, name


def _words(found: Decision | Held | None) -> str:
    """Return a decision in words that stay the same while it does."""
    if found is None:
        return "free to go on"
    if isinstance(found, Held):
        return found.message
    where = f" at {found.taken[0].site}, {found.taken[0].group}" if found.taken else ""
    return f"{found.outcome} ({found.reason}){where}"


def _kind(found: Decision | Held | None) -> str:
    if found is None:
        return "go on"
    return str(found.reason) if isinstance(found, Held) else str(found.outcome)


async def _get(tx: Transaction, name: str) -> Policy:
    row = await tx.get(Policy, name)
    if row is None:
        known = [each.name for each in await tx.find(Policy)]
        raise NotFound(f"there is no policy {name!r}", hint=hint(name, known, "see `atoll policy list`"))
    return row
