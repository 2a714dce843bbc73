"""Route of users' streams from outside: a permit for one, to be shown at a door of a relay."""

import base64
from dataclasses import replace

import msgspec

from atoll.client import views as api
from atoll.errors import Conflict, Forbidden, Invalid
from atoll.ids import run_id
from atoll.states import PLACED
from atoll.suggest import hint
from federation.api.auth import check_entry
from federation.api.route import Access, Call, Route
from federation.control.streamlog import Visit
from tunnel.grant import USER_LIFE_S
from tunnel.resume import ID_SIZE


class StreamRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Which stream: to an `app` by name, or to a `port`; `resume` (hex) is the id of one that is to go on.

    `client` (hex) is the SHA-256 of the certificate (DER) by which the user's end of a blind stream is known.
    """

    app: str = ""
    port: int = 0
    rank: int = 0
    resume: str = ""
    client: str = ""


async def permit(call: Call) -> api.StreamPermitView:
    """Permit the bearer of an API token one stream to a session: for ten minutes, and as long as that token counts."""
    body: StreamRequest = call.body
    caller = call.caller
    if not caller.token or not caller.owner:
        raise Forbidden("a permit is given to the bearer of an API token only", hint="`atoll forward` asks for it")
    row = await call.control.sessions.get(call.path["project"], call.path["ref"])
    visit = Visit(
        door="stream",
        user=caller.owner,
        project=row.project,
        session=row.id,
        app=body.app,
        port=body.port,
        source=call.request.remote or "",
    )
    with call.control.streams.log.refusals(visit):
        check_entry(caller, row)
        if row.state not in PLACED:
            raise Conflict(f"{row.name} is {row.state}, so it has no ports", hint="see `atoll ps`")
    if not 0 <= body.rank < row.spec.nodes:
        raise Invalid(f"{row.name} has no member of rank {body.rank}", hint=f"0 to {row.spec.nodes - 1}")
    if body.app and body.app not in row.spec.apps:
        raise Invalid(f"{row.name} has no app {body.app}", hint=hint(body.app, row.spec.apps, "see `atoll get`"))
    if bool(body.app) == (0 < body.port < 65536):
        raise Invalid("either an app or a port is needed", hint="a port is 1 to 65535")
    run = run_id(row.id, row.attempt, body.rank)
    streams = call.control.streams
    made = await streams.permit(
        run,
        body.app,
        body.port,
        user=caller.owner,
        token=caller.token,
        resume=_bytes("resume", body.resume, ID_SIZE),
        client=_bytes("client", body.client, 32),
    )
    streams.log.permitted(replace(visit, run=run), made.opening.resume)
    return api.StreamPermitView(
        agent=made.agent,
        run=run,
        app=body.app,
        port=body.port,
        resume=made.opening.resume.hex(),
        grant=base64.b64encode(made.opening.grant).decode(),
        expires_at=made.expires_at,
        valid_s=USER_LIFE_S,
        ways=[
            api.WayView(host=way.host, port=way.port, server_name=way.server_name) for way in streams.ways(made.agent)
        ],
        ca=call.control.config.authority.ca_pem,
    )


def _bytes(name: str, text: str, size: int) -> bytes:
    try:
        value = bytes.fromhex(text)
    except ValueError:
        value = b"?"
    if value and len(value) != size:
        raise Invalid(f"{name!r} is not {2 * size} hexadecimal digits", hint="or leave it out")
    return value


ROUTES = (
    Route(
        method="POST", path="/v1/projects/{project}/sessions/{ref}/streams", handle=permit, access=Access.USER,
        body=StreamRequest, answer=api.StreamPermitView, status=201,
        summary="Permit one stream to a session, through a relay's door for users",
    ),
)  # fmt: skip
