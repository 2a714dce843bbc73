"""Routes of policies: list, apply, look, delete, the shadow beside the live one, and what could not be evaluated."""

from typing import Any

import msgspec

from atoll.client import views as api
from atoll.document import dump_policy
from atoll.document import policy as read
from atoll.policy import Policy
from federation.api.documents import body_for
from federation.api.route import Access, Call, Page, Route

_BASE = "/v1/policies"


class Chosen(msgspec.Struct, kw_only=True):
    """The policy that is to be the shadow; empty: none."""

    name: str = ""


async def list_(call: Call) -> Page[api.PolicyView]:
    """Return all policies."""
    return Page([await _view(call, row) for row in await call.control.policies.list()])


async def get(call: Call) -> api.PolicyView:
    """Return one policy."""
    return await _view(call, await call.control.policies.get(call.path["name"]))


async def put(call: Call) -> api.PolicyView:
    """Create a policy or change it to what the document says; it is in force at once."""
    row, _ = await call.control.policies.apply(read(body_for(call)), by=call.caller.owner)
    return await _view(call, row)


async def delete(call: Call) -> None:
    """Delete a policy."""
    await call.control.policies.delete(call.path["name"], by=call.caller.owner)


async def shadow(call: Call) -> None:
    """Let a policy be evaluated beside the live one, or none: what it would decide is counted and not done."""
    body: Chosen = call.body
    await call.control.policies.set_shadow(body.name, by=call.caller.owner)


async def diff(call: Call) -> api.ShadowView:
    """Return how the shadow's decisions differ from the live policy's, the newest differences first."""
    found = await call.control.policies.differences()
    return api.ShadowView(
        policy=found.policy,
        since=found.since,
        asked=found.asked,
        counts=dict(found.counts),
        newest=[
            api.DifferenceView(at=each.at, session=each.session, name=each.name, live=each.live, shadow=each.shadow)
            for each in found.newest
        ],
    )


async def problems(call: Call) -> Page[api.RuleProblemView]:
    """Return the rules and plug-ins that do not apply since they fail, with why."""
    active = await call.control.policies.active()
    found = {f"plug-in {name}": why for name, why in call.control.policies.failed.items()} | active.errors
    return Page([api.RuleProblemView(rule=rule, why=why) for rule, why in sorted(found.items())])


async def _view(call: Call, row: Policy) -> api.PolicyView:
    policies = call.control.policies
    active = await policies.active()
    return api.PolicyView(
        name=row.name,
        project=row.project,
        active=row.name in {each.name for each in active.policies},
        shadow=row.name == policies.shadow_name,
        spec=dump_policy(row),
        created_at=row.created_at,
    )


ROUTES = (
    Route(
        method="GET", path=_BASE, handle=list_, access=Access.USER,
        answer=Page[api.PolicyView], summary="List policies",
    ),
    Route(
        method="GET", path=_BASE + ":diff", handle=diff, access=Access.USER,
        answer=api.ShadowView, summary="What the shadow policy would have decided otherwise",
    ),
    Route(
        method="GET", path=_BASE + ":problems", handle=problems, access=Access.USER,
        answer=Page[api.RuleProblemView], summary="Rules and plug-ins that fail, and so do not apply",
    ),
    Route(
        method="POST", path=_BASE + ":shadow", handle=shadow, access=Access.ADMIN, status=204, body=Chosen,
        summary="Evaluate a policy beside the live one, or none",
    ),
    Route(
        method="GET", path=_BASE + "/{name}", handle=get, access=Access.USER,
        answer=api.PolicyView, summary="Look at a policy",
    ),
    Route(
        method="PUT", path=_BASE + "/{name}", handle=put, access=Access.ADMIN, body=dict[str, Any],
        answer=api.PolicyView, summary="Create or change a policy",
    ),
    Route(
        method="DELETE", path=_BASE + "/{name}", handle=delete, access=Access.ADMIN, status=204,
        summary="Delete a policy",
    ),
)  # fmt: skip
