"""What an offer is expected to cost one kind of session: the parts that offers are ranked by.

For a member at `price` an hour, expected to run for E seconds after a start of S seconds:

- run    = price x (E + S): the machine is paid for while it starts, too
- delay  = S x wait value
- egress = the member's part of the data's GiB x what a GiB costs that leaves the site where the data is
- risk   = interruptions an hour x E x (price x L + wait value x (L + S)): each interruption costs L seconds of work,
           paid for again and waited for again, and one more start. L is half of E, the mean of an interruption that
           comes at any time, and at most the rules' `rework_s`, or `CHECKPOINT_S` where the session saves its work
- policy = (factor - 1) x the sum of the above + extra, as the policy says

Scarcity is added where offers are compared: it changes from one decision to the next.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from atoll import money
from atoll.offer import Cost, Demand, egress_cost, interruption_cost, lost_s
from federation.routing.rules import Rules, Ruling


@dataclass(frozen=True, slots=True)
class SiteTerms:
    """What the router knows of a site: its region, and what a GiB costs (micro-units) that leaves it."""

    region: str = ""
    egress: int = 0


class Weigher:
    """Costs for one kind of demand, under given rules."""

    def __init__(self, demand: Demand, rules: Rules, sites: Mapping[str, SiteTerms]) -> None:
        self._rules = rules
        self._sites = sites
        self._near = demand.near
        self._nodes = demand.nodes
        self._most = demand.max_total
        self._expected_s = demand.expected_s
        self._lost_s = lost_s(demand, rules.rework_s)
        self._egress = egress_cost(demand, sites.get(demand.near, SiteTerms()).egress)
        self.has_egress = self._egress > 0
        """Whether sites differ in what they cost: the order by price is not the order by cost then."""

    def region(self, site: str) -> str:
        """Return a site's region, empty where unknown."""
        found = self._sites.get(site)
        return found.region if found else ""

    def rate(self, known: float | None, *, spot: bool) -> float:
        """Return how often an hour a machine is taken away."""
        if known is not None:
            return known
        return self._rules.spot_interruptions if spot else 0.0

    def cost(
        self, price: int, site: str, *, rate: float = 0.0, start_s: float = 0.0, ruling: Ruling | None = None
    ) -> Cost:
        """Return the parts of a member's cost at `price` an hour, without scarcity."""
        egress = self._egress if site != self._near else 0
        if not rate and not start_s and ruling is None:
            return Cost(money.cost(price, self._expected_s), 0, egress)
        worth, risk = self._rules.wait_value, 0
        if rate:
            risk = interruption_cost(price, rate, self._expected_s, self._lost_s, start_s, worth)
        plain = Cost(
            money.cost(price, self._expected_s + start_s),
            round(start_s * worth),
            egress,
            risk,
        )
        if ruling is None or (ruling.factor == 1.0 and not ruling.extra):
            return plain
        added = round((ruling.factor - 1.0) * plain.total) + ruling.extra
        return Cost(plain.run, plain.delay, plain.egress, plain.risk, 0, added)

    def over_total(self, cost: Cost) -> bool:
        """Say whether what all members pay is more than the session's `max_total`."""
        return self._most is not None and self.all_pay(cost) > self._most

    def all_pay(self, cost: Cost) -> int:
        """Return what all members together are expected to pay."""
        return self._nodes * cost.money
