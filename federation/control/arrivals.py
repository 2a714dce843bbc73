"""When sessions came that groups' hot pools would have served: read from the store at first, noted from then on."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from atoll.group import Group, GroupKind
from atoll.session import Placement, Session
from atoll.slots import Request
from autoscaler.predict import WEEK_S, Arrivals, Habits, units
from federation.control.changes import Changes
from federation.control.world import World

MOST = 100_000
"""Sessions looked back at, at the most."""
_FORGET_S = 3600.0


@dataclass(frozen=True, slots=True)
class _Came:
    """A session as far as it matters here: when it came, and what it asked for."""

    at: float
    request: Request
    nodes: int
    placement: Placement


@dataclass(frozen=True, slots=True)
class Pool:
    """A hot pool whose size is predicted: what it holds ready, and where."""

    group: str
    site: str
    hot: Request

    def units(self, request: Request, nodes: int, sites: Sequence[str], groups: Sequence[str]) -> int:
        """Return how many of the pool's slots a session would have taken; 0: it has no use for it.

        `sites` and `groups` are those it is limited to.
        """
        if (sites and self.site not in sites) or (groups and self.group not in groups):
            return 0
        return nodes * units(request, self.hot)


def pools(groups: Iterable[Group]) -> list[Pool]:
    """Return the hot pools whose size is predicted."""
    predicts = (group for group in groups if group.kind is GroupKind.ELASTIC and group.pools.predict)
    return [Pool(group.name, group.site, group.pools.hot) for group in predicts]


class History:
    """Keeps one `Arrivals` for each group that predicts its hot pool. Nothing is kept, or read, while none does.

    The past is read anew when another group begins to predict, or one asks for another size: `pages` pages of `page`
    sessions a look, so that no round waits for a long history.
    """

    def __init__(self, changes: Changes, *, page: int = 500, pages: int = 4) -> None:
        self._changes = changes
        self._page, self._pages = page, pages
        self._arrivals: dict[Pool, Arrivals] = {}
        self._seen: set[str] = set()
        self._since = 0.0
        self._forgot_at = 0.0
        self._reading = False
        self._after = ""
        self._past: list[_Came] = []

    async def look(self, world: World) -> Mapping[str, Arrivals]:
        """Note who came since the last look; return the arrivals by group, none until the past has been read."""
        wanted = set(pools(world.groups))
        if wanted != self._arrivals.keys():
            self._begin(wanted, world)
        if not wanted:
            return {}
        self._note(world.waiting)
        for _ in range(self._pages if self._reading else 0):
            await self._read(world.now)
        if world.now - self._forgot_at > _FORGET_S:
            self._forgot_at = world.now
            for arrivals in self._arrivals.values():
                arrivals.forget(world.now)
        return {} if self._reading else {pool.group: arrivals for pool, arrivals in self._arrivals.items()}

    def _begin(self, wanted: Iterable[Pool], world: World) -> None:
        self._arrivals = {pool: Arrivals() for pool in sorted(wanted, key=lambda pool: pool.group)}
        self._reading, self._after, self._past = bool(self._arrivals), "", []
        self._since, self._seen = world.now, set()

    def _note(self, waiting: Iterable[Session]) -> None:
        """Count sessions that were submitted since the reading began; one that is back in the queue is none."""
        ids = set()
        for row in waiting:
            ids.add(row.id)
            if row.attempt == 0 and row.created_at > self._since and row.id not in self._seen:
                self._take(_came(row))
        self._seen = ids

    async def _read(self, now: float) -> None:
        """Read a page of the past, the newest sessions first; they are counted, the oldest first, once it is read."""
        if not self._reading:
            return
        async with self._changes.look() as tx:
            page = await tx.find(Session, newest=True, after=self._after, limit=self._page)
        oldest = now - Habits().weeks * WEEK_S
        self._past += [_came(row) for row in page if oldest <= row.created_at <= self._since]
        if len(page) == self._page and page[-1].created_at >= oldest and len(self._past) < MOST:
            self._after = page[-1].id
            return
        past, self._past, self._reading = self._past, [], False
        for came in sorted(past, key=lambda came: came.at):
            self._take(came)

    def _take(self, came: _Came) -> None:
        if self._reading:
            self._past.append(came)
            return
        for pool, arrivals in self._arrivals.items():
            if count := pool.units(came.request, came.nodes, came.placement.sites, came.placement.groups):
                arrivals.note(came.at, count)


def _came(row: Session) -> _Came:
    return _Came(row.created_at, row.spec.resources, row.spec.nodes, row.spec.placement)
