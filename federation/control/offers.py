"""Offers: dry runs of what would become of a session now, as its project's policies and budgets have it."""

from dataclasses import replace

from atoll import money
from atoll.offer import Decision, Offer, OfferKind, Outcome
from atoll.session import Session, SessionSpec
from federation.control.admission import Said, judge, own_groups, told
from federation.control.budgets import Budgets
from federation.control.moves import offered_member
from federation.control.policies import Policies
from federation.control.rulings import Active, Held
from federation.control.seating import Seating
from federation.control.spending import Accounts, need
from federation.control.world import Observer, World
from federation.routing.place import rank


class Offers:
    """Asks the router, the policies and the budgets of a session that nobody has submitted. Changes nothing."""

    def __init__(self, observer: Observer, seating: Seating, policies: Policies, budgets: Budgets) -> None:
        self._observer = observer
        self._seating = seating
        self._policies = policies
        self._budgets = budgets

    async def search(self, spec: SessionSpec, *, project: str, owner: str) -> Decision:
        """Rank every way to run `spec` now, and say why the others are out.

        Where it would be held, the outcome says why, beside what it could have else. The queue is left out: others
        may be served first.
        """
        active = await self._policies.active()
        world = await self._observer.look()
        accounts = await self._budgets.look()
        accounts.refused = {}  # nobody is remembered for asking
        row = Session(id="", name=spec.name or "SESSION", project=project, owner=owner, spec=spec, queued_at=world.now)
        row = replace(row, created_at=world.now)
        said = judge(row, active.ruling(row), active, accounts, own_groups(world.groups))
        found = rank(said.demand, self._seating.capacity(world), now=world.now, rules=active.rules)
        why = said.held or _held(row, found, said, active, accounts, world)
        return told(found, why) if why else found


def _held(row: Session, found: Decision, said: Said, active: Active, accounts: Accounts, world: World) -> Held | None:
    """Return why a session would be held where it is to go, None where it may."""
    expected = row.spec.lifetime.expected
    if found.outcome is Outcome.HOLD:
        return said.limited
    if found.outcome is Outcome.PLACE:
        members = [offered_member(rank, offer) for rank, offer in enumerate(found.taken)]
        return active.ruling(row, need(members, expected)) or accounts.start(row, members)
    if found.outcome is Outcome.LAUNCH:
        cost = sum(money.cost(offer.price, expected) for offer in found.taken)
        return active.ruling(row, cost) or _launched(row, found.taken, accounts, world)
    return None


def _launched(row: Session, offers: tuple[Offer, ...], accounts: Accounts, world: World) -> Held | None:
    groups = {group.name: group for group in world.groups}
    for offer in offers:
        group = groups.get(offer.group)
        if group is None or offer.kind is not OfferKind.LAUNCH:
            continue
        shape = next((shape for shape in world.offered(group) if shape.key == offer.target), None)
        if shape and (why := accounts.machine([row], shape, group.scale_down.idle_s)):
            return why
    return None
