"""Routes of the installation's certificate authority: look, rotate, retire the one before."""

import msgspec

from atoll.client import views as api
from federation.api.route import Access, Call, Route
from federation.control.rotation import CaStanding

_BASE = "/v1/authority"


class Retire(msgspec.Struct, kw_only=True):
    """With `force` agents that have yet to move to the new CA are locked out: they must join anew."""

    force: bool = False


async def get(call: Call) -> api.AuthorityView:
    """Return the CAs that are trusted, and who has yet to move to the newest."""
    return _view(await call.control.rotation.standing())


async def rotate(call: Call) -> api.AuthorityView:
    """Begin to sign with a new CA; the one before is trusted until it is retired."""
    return _view(await call.control.rotation.rotate(by=call.caller.owner))


async def retire(call: Call) -> api.AuthorityView:
    """Trust the new CA alone."""
    body: Retire = call.body
    return _view(await call.control.rotation.retire(by=call.caller.owner, force=body.force))


def _view(standing: CaStanding) -> api.AuthorityView:
    return api.AuthorityView(
        authorities=[
            api.CaView(sha256=each.pin, since=each.since, until=each.until, signs=each.signs)
            for each in standing.authorities
        ],
        behind=[api.BehindView(agent=agent, lacks=lacks) for agent, lacks in sorted(standing.behind.items())],
    )


ROUTES = (
    Route(
        method="GET", path=_BASE, handle=get, access=Access.ADMIN, answer=api.AuthorityView,
        summary="The certificate authorities that are trusted",
    ),
    Route(
        method="POST", path=_BASE + ":rotate", handle=rotate, access=Access.ADMIN, answer=api.AuthorityView,
        summary="Begin to sign with a new certificate authority",
    ),
    Route(
        method="POST", path=_BASE + ":retire", handle=retire, access=Access.ADMIN, body=Retire,
        answer=api.AuthorityView, summary="Trust the new certificate authority alone",
    ),
)  # fmt: skip
