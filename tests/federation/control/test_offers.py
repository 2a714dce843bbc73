"""Dry runs: what would become of a session, by the policies and budgets of its project."""

from dataclasses import replace

from atoll.money import micros
from atoll.offer import Decision, Outcome
from atoll.session import Placement, SessionSpec
from atoll.site import Site
from atoll.slots import Request
from atoll.states import Reason
from tests.federation.control.ring import ring
from tests.federation.control.test_round import HALF, HOUR, budget, policy

VIRTUAL_TIME = True


async def test_a_dry_run_has_the_policy_and_the_budgets_of_its_project_and_is_remembered_nowhere() -> None:
    async with ring() as r:
        await r.agent()
        await r.elastic()
        await r.control.sites.apply(Site(name="here", price=micros(1.0)))
        deny = [{"when": "offer.site == 'here'", "reason": "not for them"}]
        approve = [{"when": "session.cost > 0.2", "role": "lead"}]
        await policy(r, name="reds", project="red", deny=deny)
        await policy(r, name="blues", project="blue", approve=approve)
        await budget(r, 0.1, name="greens", project="green")
        await budget(r, 0.001, name="greys", project="grey", stages=[{"at": 1, "do": "owned_only"}])

        async def search(project: str, **spec: object) -> Decision:
            asked = replace(SessionSpec(command=("x",), lifetime=HOUR, resources=HALF), **spec)  # type: ignore[arg-type]
            return await r.control.offers.search(asked, project=project, owner="me")

        near = Placement(sites=("here",))
        for _ in range(2):  # no answer changes the next
            plain = await search("default", placement=near)
            assert (plain.outcome, plain.reason) == (Outcome.PLACE, Reason.PLACED)
            assert (await search("red", placement=near)).reason is Reason.POLICY
            assert {offer.site for offer in (await search("red")).ranked} == {"far"}
            dear = await search("blue", placement=near)
            assert (dear.outcome, dear.reason) == (Outcome.HOLD, Reason.APPROVAL)
            assert dear.ranked, "and what it would have"
            short = await search("green", placement=near)
            assert (short.reason, short.message) == (
                Reason.BUDGET,
                "budget greens has no room for more that costs money",
            )
            assert (await search("green", placement=near, resources=Request(cpu=100))).outcome is Outcome.PLACE
            owned = await search("grey", placement=Placement(sites=("far",)))
            assert (owned.outcome, owned.reason) == (Outcome.HOLD, Reason.BUDGET)
        await policy(r, deny=[{"when": "session.cpu > 0.9", "reason": "too large"}])
        assert (await search("default")).reason is Reason.POLICY
