"""Routes of relays: list, look, create, enrol, drain, remove."""

import msgspec

from atoll import duration
from atoll.client import relayviews as api
from atoll.client.linkviews import LaneView
from atoll.relay import Relay
from federation.api.links import milliseconds
from federation.api.route import Access, Call, Page, Route
from tunnel import wire
from tunnel.jointoken import JoinToken

_BASE = "/v1/relays"


class NewRelay(msgspec.Struct, kw_only=True):
    """`url` (`https://host[:port]`) is where agents and users will find it; its token is good for `ttl_s` seconds."""

    name: str
    url: str
    ttl_s: float = 3600.0


class EnrolRequest(msgspec.Struct, kw_only=True):
    """`secret` is the token's; `csr` is PEM, from a key made on the relay's machine."""

    secret: str
    csr: str


class EnrolledView(msgspec.Struct, kw_only=True):
    """What makes a machine a relay."""

    relay: str
    name: str
    url: str
    certificate: str
    ca: str


class Drain(msgspec.Struct, kw_only=True):
    """It ends after `deadline` seconds at the latest."""

    deadline: float = 60.0


def _view(call: Call, row: Relay, *, secret: str = "", command: str = "") -> api.RelayView:
    live = call.control.relays.live(row.id)
    return api.RelayView(
        id=row.id,
        name=row.name,
        url=row.url,
        state=row.state,
        message=row.message,
        connected=live is not None,
        seen_at=call.now if live else row.seen_at,
        agents=live.agents if live else 0,
        streams=live.streams if live else 0,
        passing=live.passing if live else 0,
        received=live.received if live else 0,
        sent=live.sent if live else 0,
        rtt_ms=milliseconds(call.control.relays.rtt(row.id)),
        lanes=_lanes(live) if live else [],
        refused=live.refused if live else {},
        version=live.version if live else "",
        created_at=row.created_at,
        secret=secret,
        command=command,
    )


def _lanes(said: wire.Serving) -> list[LaneView]:
    return [
        LaneView(
            lane=lane,
            streams=each.streams,
            opens=each.opens,
            resumes=each.resumes,
            received=each.received,
            sent=each.sent,
            refused=each.refused,
        )
        for lane, each in said.lanes.items()
    ]


async def list_(call: Call) -> Page[api.RelayView]:
    """Return all relays, oldest first."""
    return Page([_view(call, row) for row in await call.control.relays.list()])


async def get(call: Call) -> api.RelayView:
    """Return one relay by name or id."""
    return _view(call, await call.control.relays.get(call.path["ref"]))


async def create(call: Call) -> api.RelayView:
    """Create a relay; the token with which its machine becomes it is in this answer only."""
    body: NewRelay = call.body
    row, secret = await call.control.relays.create(body.name, body.url, ttl_s=body.ttl_s, owner=call.caller.owner)
    address, authority = call.services.address, call.control.config.authority
    text = JoinToken(address.agent_url, authority.pin, secret).text()
    port = row.url.rpartition(":")[2]
    listen = f"0.0.0.0:{port if port.isdecimal() else 443}"
    return _view(call, row, secret=text, command=f"atoll relay run --listen {listen} --token {text}")


async def enrol(call: Call) -> EnrolledView:
    """Use up a relay's token and sign its machine's key."""
    body: EnrolRequest = call.body
    enrolled = await call.control.relays.enrol(body.secret, body.csr)
    row = enrolled.relay
    ca = call.control.config.authority.ca_pem
    return EnrolledView(relay=row.id, name=row.name, url=row.url, certificate=enrolled.certificate, ca=ca)


async def drain(call: Call) -> api.RelayView:
    """Let a relay take nothing new, let go of what it carries, and end."""
    body: Drain = call.body
    deadline_s = duration.parse(body.deadline)
    row = await call.control.relays.drain(call.path["ref"], deadline_s=deadline_s, by=call.caller.owner)
    return _view(call, row)


async def remove(call: Call) -> None:
    """Take a relay out of the installation, at once."""
    await call.control.relays.remove(call.path["ref"], by=call.caller.owner)


ROUTES = (
    Route(
        method="GET", path=_BASE, handle=list_, access=Access.USER,
        answer=Page[api.RelayView], summary="List relays",
    ),
    Route(
        method="POST", path=_BASE, handle=create, access=Access.ADMIN, status=201, body=NewRelay,
        answer=api.RelayView, summary="Create a relay and the token for its machine",
    ),
    Route(
        method="POST", path=_BASE + ":enrol", handle=enrol, access=Access.OPEN, body=EnrolRequest,
        answer=EnrolledView, summary="Become a relay: its token against a certificate",
    ),
    Route(
        method="GET", path=_BASE + "/{ref}", handle=get, access=Access.USER,
        answer=api.RelayView, summary="Look at a relay",
    ),
    Route(
        method="POST", path=_BASE + "/{ref}:drain", handle=drain, access=Access.ADMIN, body=Drain,
        answer=api.RelayView, summary="Let a relay take nothing new, and end",
    ),
    Route(
        method="DELETE", path=_BASE + "/{ref}", handle=remove, access=Access.ADMIN, status=204,
        summary="Take a relay out of the installation",
    ),
)  # fmt: skip
