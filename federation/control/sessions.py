"""Sessions as users handle them: submit, find, list, stop."""

import difflib
import json
from collections.abc import Callable, Sequence
from dataclasses import replace

from atoll.clock import Chance
from atoll.errors import Conflict, Invalid, NotFound
from atoll.ids import SESSION, check_name, new_id
from atoll.session import Session, SessionSpec
from atoll.states import ENDED, WAITING, Reason, SessionState
from federation.control.changes import Change, Changes

MAX_COUNT = 1000
"""Most sessions one request may submit."""
_ORDER_S = 1e-6
"""Apart in time, so that the members of a count are served in their order."""
_S = SessionState


class Sessions:
    """Use cases on sessions. `on_change` is called after a change that the reconcilers should look at."""

    def __init__(self, changes: Changes, chance: Chance, on_change: Callable[[], None]) -> None:
        self._changes = changes
        self._chance = chance
        self._on_change = on_change

    async def submit(
        self, spec: SessionSpec, *, project: str, owner: str, count: int = 1, idempotency: tuple[str, str] | None = None
    ) -> list[Session]:
        """Queue `count` sessions; members of a count find their number in `ATOLL_INDEX`.

        `idempotency` is (key, fingerprint of the request): the same pair returns the sessions made the
        first time, the same key with another fingerprint raises `Conflict`.
        """
        _check(spec, count)
        async with self._changes.commit("session.submit") as change:
            if idempotency and (made := await self._recalled(change, *idempotency)) is not None:
                return made
            if spec.name:
                await self._check_free(change, project, spec.name, count)
            rows = [await self._queue(change, spec, project, owner, i, count) for i in range(count)]
            if idempotency:
                ids = json.dumps([row.id for row in rows])
                await change.tx.remember(idempotency[0], idempotency[1], ids, change.now)
        self._on_change()
        return rows

    async def get(self, project: str, ref: str) -> Session:
        """Return a session by id, else the newest of that name; raise `NotFound` with near names."""
        async with self._changes.look() as tx:
            return await find(Change(tx, 0.0), project, ref)

    async def stop(self, project: str, ref: str, *, by: str) -> Session:
        """Stop a session: at once while it waits, through its agents once placed; well if it has ended."""
        async with self._changes.commit("session.stop") as change:
            row = await find(change, project, ref)
            if row.state in ENDED or row.stopping_as is _S.CANCELLED:
                return row
            text = f"stopped by {by}"
            if row.state in WAITING:
                row = await change.session(row, _S.CANCELLED, Reason.STOP_REQUESTED, text, instance="")
            else:
                to = _S.LOST if row.state is _S.LOST else _S.STOPPING
                row = await change.session(row, to, Reason.STOP_REQUESTED, text, stopping_as=_S.CANCELLED)
        self._on_change()
        return row

    async def _recalled(self, change: Change, key: str, fingerprint: str) -> list[Session] | None:
        kept = await change.tx.recall(key)
        if kept is None:
            return None
        if kept[0] != fingerprint:
            raise Conflict(
                "this Idempotency-Key was used for another request", hint="use a new key for each new request"
            )
        rows = [await change.tx.get(Session, key) for key in json.loads(kept[1])]
        return [row for row in rows if row is not None]

    async def _check_free(self, change: Change, project: str, name: str, count: int) -> None:
        live = [str(state) for state in SessionState if state not in ENDED]
        names = [name] if count == 1 else [f"{name}-{i}" for i in range(count)]
        for row in await change.tx.find(Session, project=project, name=names, state=live, limit=1):
            raise Conflict(
                f"a session named {row.name!r} is {row.state} already ({row.id})",
                hint=f"choose another --name, or end it with `atoll stop {row.name}`",
            )

    async def _queue(
        self, change: Change, spec: SessionSpec, project: str, owner: str, index: int, count: int
    ) -> Session:
        key = new_id(SESSION, self._chance)
        name = spec.name or key
        if spec.name and count > 1:
            name = f"{spec.name}-{index}"
        own = replace(spec, name=name, env={"ATOLL_INDEX": str(index)} | spec.env)
        row = Session(
            id=key,
            name=name,
            project=project,
            owner=owner,
            spec=own,
            message="waits for the router",
            created_at=change.now + index * _ORDER_S,
            queued_at=change.now + index * _ORDER_S,
        )
        row = await change.tx.insert(row)
        await change.event("session", key, _S.QUEUED, name=name, reason=Reason.SUBMITTED, project=project)
        return row

    async def list(
        self, project: str, *, states: Sequence[str] = (), after: str = "", limit: int = 100
    ) -> list[Session]:
        """Return sessions, newest first, in pages: `after` is the id of the last one seen."""
        where = {"state": list(states)} if states else {}
        async with self._changes.look() as tx:
            return await tx.find(Session, project=project, newest=True, after=after, limit=limit, **where)


def _check(spec: SessionSpec, count: int) -> None:
    if not spec.command:
        raise Invalid("a session needs a command", hint="write it after --: atoll run -- python3 train.py")
    if not 1 <= count <= MAX_COUNT:
        raise Invalid(f"count is {count}", hint=f"it must be 1 to {MAX_COUNT}")
    if spec.nodes < 1:
        raise Invalid(f"nodes is {spec.nodes}", hint="it must be at least 1")
    if spec.runtime != "process":
        raise Invalid(f"there is no runtime {spec.runtime!r}", hint="this release has: process")
    if spec.name:
        check_name(spec.name, "session")
    for app in spec.apps:
        check_name(app, "app")


async def find(change: Change, project: str, ref: str) -> Session:
    """Return a session by id, else the newest of that name; raise `NotFound` with near names."""
    row = await change.tx.get(Session, ref)
    if row is not None and row.project == project:
        return row
    named = await change.tx.find(Session, project=project, name=ref, newest=True, limit=1)
    if named:
        return named[0]
    names = [row.name for row in await change.tx.find(Session, project=project, newest=True, limit=200)]
    near = difflib.get_close_matches(ref, names, 1)
    hint = f"did you mean {near[0]!r}?" if near else "see `atoll ps --all`"
    raise NotFound(f"there is no session {ref!r}", hint=hint)
