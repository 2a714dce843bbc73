"""Stretches: what attempts of a session cost, where they ran, also the one that runs now. Plain functions of rows."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from atoll.money import HOUR, cost
from atoll.session import Member, Session, Stretch
from atoll.states import PLACED

KEPT = 64
"""How many stretches a session keeps as they were; of more, the older half becomes one for each place."""


def ongoing(row: Session, now: float) -> list[Stretch]:
    """Return what the current attempt has cost up to `now`, a stretch for each place; nothing once it is settled.

    Members are charged from their start to their end, at their price; unfinished ones up to `now`.
    """
    if row.state not in PLACED:
        return []
    places: dict[tuple[str, str], list[Member]] = {}
    for member in row.members:
        if member.started_at is not None:
            places.setdefault((member.site or row.site, member.group or row.group), []).append(member)
    return [_stretch(row, members, place, now) for place, members in places.items()]


def all_of(row: Session, now: float) -> list[Stretch]:
    """Return all stretches of a session up to `now`."""
    return [*row.stretches, *ongoing(row, now)]


def settle(row: Session, now: float, *, kept: bool = False) -> Session:
    """Return the session with its running attempt's cost added, as of `now`.

    Only an attempt whose work is `kept` is compared with on-demand prices: what is taken away, an on-demand machine
    would not have lost.
    """
    new = ongoing(row, now)
    if not kept:
        new = [replace(each, on_demand_cost=0) for each in new]
    return replace(
        row,
        cost=row.cost + sum(each.cost for each in new),
        on_demand_cost=row.on_demand_cost + sum(each.on_demand_cost for each in new),
        stretches=folded((*row.stretches, *new)),
    )


def folded(stretches: Sequence[Stretch]) -> tuple[Stretch, ...]:
    """Return stretches so that a row does not grow without bound: sums stay, and places; times become coarser."""
    if len(stretches) <= KEPT:
        return tuple(stretches)
    old, new = stretches[: KEPT // 2], stretches[KEPT // 2 :]
    places: dict[tuple[str, str], list[Stretch]] = {}
    for each in old:
        places.setdefault((each.site, each.group), []).append(each)
    return (*(_folded(same) for same in places.values()), *new)


def since(stretch: Stretch, moment: float) -> int:
    """Return what a stretch cost from `moment` (Unix seconds) on, in micro-units."""
    return max(0, stretch.cost - cost(stretch.price, moment - stretch.started_at))


def _stretch(row: Session, members: Sequence[Member], place: tuple[str, str], now: float) -> Stretch:
    spans = [(member, (member.ended_at or now) - (member.started_at or now)) for member in members]
    asked = row.on_demand_price
    return Stretch(
        site=place[0],
        group=place[1],
        agents=tuple(dict.fromkeys(member.agent for member in members)),
        price=sum(member.price for member in members),
        started_at=min(member.started_at or now for member in members),
        ended_at=max(member.ended_at or now for member in members),
        cost=sum(cost(member.price, span) for member, span in spans),
        on_demand_cost=sum(cost(member.price if asked is None else asked, span) for member, span in spans),
    )


def _folded(same: Sequence[Stretch]) -> Stretch:
    began, ended = min(each.started_at for each in same), max(each.ended_at for each in same)
    whole = sum(each.cost for each in same)
    return Stretch(
        site=same[0].site,
        group=same[0].group,
        agents=_named(same),
        price=round(whole * HOUR / (ended - began)) if ended > began else 0,
        started_at=began,
        ended_at=ended,
        cost=whole,
        on_demand_cost=sum(each.on_demand_cost for each in same),
    )


def _named(stretches: Iterable[Stretch]) -> tuple[str, ...]:
    """Return the agent that all of these were on; nothing where there were several."""
    agents = {each.agents for each in stretches}
    return agents.pop() if len(agents) == 1 else ()
