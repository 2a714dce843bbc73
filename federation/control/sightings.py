"""What several processes told of one stream, made into one record; telling the same again changes nothing. Pure."""

import hashlib
from collections.abc import Iterable
from dataclasses import replace

from atoll.streamrecord import Sighting, StreamRecord, StreamState

SEEN_LIMIT = 16
"""Most sightings of one record; where there are more, the oldest connections that are over become one."""
SEVERAL = "several"
UNSEEN = "UNSEEN"
"""The reason of an end that nobody told."""


def record_id(prefix: str, visit: Iterable[object], stream: bytes) -> str:
    """Return the id of the record of a stream: of that user to that target, whoever else names the same stream."""
    told = "\0".join(map(str, visit)).encode()
    return f"{prefix}-{hashlib.sha256(stream + told).hexdigest()[:20]}"


def teller_of(sighting: Sighting) -> str:
    """Return whose it is: a relay's or an agent's id, or `control`."""
    return sighting.by.partition("/")[0]


def seen(row: StreamRecord, *sightings: Sighting) -> StreamRecord:
    """Return the record with these sightings, in place of those that the same processes told before."""
    told = {each.by: each for each in row.seen} | {each.by: each for each in sightings}
    return _derived(row, _bounded(sorted(told.values(), key=lambda each: each.began_at)))


def joined(old: StreamRecord, new: StreamRecord) -> StreamRecord:
    """Return the stored record `old` as `new` says it is now; both are of one stream."""
    row = replace(new, version=old.version)
    if not (old.seen or new.seen):
        return row
    began_at = min(old.began_at, new.began_at)
    return seen(replace(row, began_at=began_at, seen=old.seen), *new.seen)


def unseen(row: StreamRecord, tellers: Iterable[str], now: float, message: str) -> StreamRecord:
    """Return the record with what these processes (`by` begins with one of them) left open closed, as not seen."""
    prefixes = tuple(tellers)
    lost = [
        replace(each, ended_at=now, reason=UNSEEN, message=message)
        for each in row.seen
        if each.ended_at is None and each.by.startswith(prefixes)
    ]
    return seen(row, *lost) if lost else row


def open_tellers(row: StreamRecord) -> set[str]:
    """Return whose sightings are still open."""
    return {teller_of(each) for each in row.seen if each.ended_at is None}


def _bounded(told: list[Sighting]) -> tuple[Sighting, ...]:
    while len(told) > SEEN_LIMIT:
        over = [each for each in told if each.ended_at is not None and not each.whole]
        if len(over) < 2:  # nobody has so many at a time: somebody makes them up
            return tuple(told[-SEEN_LIMIT:])
        first, second = over[:2]
        several = replace(
            second,
            by=SEVERAL,
            via=first.via if first.via == second.via else SEVERAL,
            source=first.source if first.source == second.source else SEVERAL,
            resumed=first.resumed + second.resumed + 1,
            received=first.received + second.received,
            sent=first.sent + second.sent,
            began_at=first.began_at,
        )
        told = [several, *(each for each in told if each not in (first, second))]
    return tuple(told)


def _derived(row: StreamRecord, told: tuple[Sighting, ...]) -> StreamRecord:
    """An agent sees the whole stream: where there is its word, it counts. Doors tell by which ways it went."""
    doors = [each for each in told if not each.whole]
    entered = [each for each in doors if each.lane]
    counting = [each for each in told if each.whole] or doors
    running = any(each.ended_at is None for each in counting)
    last = max(counting, key=lambda each: each.ended_at or each.began_at)
    agents_word = counting is not doors
    connections = sum(1 + each.resumed for each in entered)
    return replace(
        row,
        seen=told,
        state=StreamState.OPEN if running else StreamState.ENDED,
        began_at=min(each.began_at for each in told),
        ended_at=None if running else last.ended_at,
        lanes=tuple(dict.fromkeys(each.lane for each in entered)),
        source=next((each.source for each in reversed(doors) if each.source), row.source),
        received=sum(each.received for each in counting),
        sent=sum(each.sent for each in counting),
        resumed=sum(each.resumed for each in counting) if agents_word else max(0, connections - 1),
        reason="" if running else last.reason,
        message="" if running else last.message,
    )
