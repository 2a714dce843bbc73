"""Routes of budgets: how they stand, apply, delete."""

from typing import Any

from atoll.client import views as api
from atoll.document import budget as read
from atoll.document import dump_budget
from federation.api.documents import body_for
from federation.api.route import Access, Call, Page, Route
from federation.api.views import units
from federation.control.spending import Account

_BASE = "/v1/budgets"


async def list_(call: Call) -> Page[api.BudgetView]:
    """Return how all budgets stand."""
    return Page([view(each) for each in await call.control.budgets.list()])


async def get(call: Call) -> api.BudgetView:
    """Return how one budget stands."""
    return view(await call.control.budgets.get(call.path["name"]))


async def put(call: Call) -> api.BudgetView:
    """Create a budget or change it to what the document says."""
    row = read(body_for(call))
    await call.control.budgets.apply(row, by=call.caller.owner)
    return view(await call.control.budgets.get(row.name))


async def delete(call: Call) -> None:
    """Delete a budget: nothing is limited by it any more."""
    await call.control.budgets.delete(call.path["name"], by=call.caller.owner)


def view(account: Account) -> api.BudgetView:
    """Return how a budget stands, in units."""
    row = account.budget
    return api.BudgetView(
        name=row.name,
        project=row.project,
        period=row.period,
        amount=units(row.amount),
        spent=units(account.spent),
        committed=units(account.committed),
        left=units(max(0, row.amount - account.total)),
        stage=account.reached or "",
        began=account.window.start,
        ends=account.window.end,
        spec=dump_budget(row),
        created_at=row.created_at,
    )


ROUTES = (
    Route(
        method="GET", path=_BASE, handle=list_, access=Access.USER,
        answer=Page[api.BudgetView], summary="How all budgets stand",
    ),
    Route(
        method="GET", path=_BASE + "/{name}", handle=get, access=Access.USER,
        answer=api.BudgetView, summary="How a budget stands",
    ),
    Route(
        method="PUT", path=_BASE + "/{name}", handle=put, access=Access.ADMIN, body=dict[str, Any],
        answer=api.BudgetView, summary="Create or change a budget",
    ),
    Route(
        method="DELETE", path=_BASE + "/{name}", handle=delete, access=Access.ADMIN, status=204,
        summary="Delete a budget",
    ),
)  # fmt: skip
