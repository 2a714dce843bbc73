"""Routes for machines that want to become agents: the CA, the join itself, the script and the agent's program."""

import hashlib
from pathlib import Path

import msgspec
from aiohttp import web

from federation.api.route import Access, Call, Query, Route
from federation.control.bootscript import FETCH

SCRIPT = Path(__file__).parent / "join.sh"


class CaView(msgspec.Struct):
    """The installation's CA certificate, PEM."""

    ca: str


class JoinRequest(msgspec.Struct, kw_only=True):
    """`secret` is the join token's; `csr` is PEM, from a key made on the machine."""

    secret: str
    csr: str
    name: str = ""
    facts: dict[str, str] = {}


class JoinedView(msgspec.Struct, kw_only=True):
    """What makes a machine an agent."""

    agent: str
    certificate: str
    ca: str
    name: str
    site: str
    group: str


class RenewRequest(msgspec.Struct, kw_only=True):
    """An agent's last certificate, expired or not, and a request (both PEM) signed by the same key."""

    certificate: str
    csr: str


class RenewedView(msgspec.Struct):
    """The new certificate, PEM."""

    certificate: str


class PackQuery(Query):
    """`tag` is the machine's Python, e.g. `cpython-311-x86_64-linux-gnu` (`SOABI`)."""

    tag: str = ""


async def ca(call: Call) -> CaView:
    """Return the CA certificate; whoever asks checks it against the pin in its join token."""
    return CaView(call.control.config.authority.ca_pem)


async def join(call: Call) -> JoinedView:
    """Use up a join token and sign the machine's certificate."""
    body: JoinRequest = call.body
    joined = await call.control.tokens.join(body.secret, body.csr, body.name, body.facts)
    agent = joined.agent
    return JoinedView(
        agent=agent.id,
        certificate=joined.certificate,
        ca=call.control.config.authority.ca_pem,
        name=agent.name,
        site=agent.site,
        group=agent.group,
    )


async def renew(call: Call) -> RenewedView:
    """Sign an agent's key again after its certificate has ended; while it is valid, the link renews it."""
    body: RenewRequest = call.body
    return RenewedView(await call.control.tokens.renew(body.certificate, body.csr))


def line(url: str, token: str) -> str:
    """Return what to paste on a machine: a script that has the hash in this line becomes an agent of `url`.

    So nothing is run that another than the control plane wrote, whoever opens TLS on the way.
    """
    digest = hashlib.sha256(rendered(url).encode()).hexdigest()
    wrong = "{ echo 'atoll: this line is for another script: make a new token' >&2; false; }"
    fetch = f"s=$(curl -fsSk {url}/join) && {{ printf '%s\\n' \"$s\" | sha256sum | grep -q ^{digest} || {wrong}; }}"
    return f'{fetch} && sh -c "$s" join {token}'


def rendered(url: str) -> str:
    """Return the script for machines that are to join at `url`: the same for all of them."""
    return SCRIPT.read_text().replace("@URL@", url).replace("@FETCH@\n", FETCH.read_text())


async def script(call: Call) -> web.Response:
    """Return the shell script behind the line of `atoll token create`."""
    return web.Response(text=rendered(call.services.address.agent_url), content_type="text/x-shellscript")


async def agent_pack(call: Call) -> web.StreamResponse:
    """Return the agent with all that it imports, for a machine's Python."""
    query: PackQuery = call.query
    return web.FileResponse(await call.services.pack.path(query.tag), headers={"Content-Type": "application/gzip"})


ROUTES = (
    Route(
        method="GET", path="/v1/ca", handle=ca, access=Access.OPEN, answer=CaView,
        summary="The installation's CA certificate",
    ),
    Route(
        method="POST", path="/v1/join", handle=join, access=Access.OPEN, body=JoinRequest, answer=JoinedView,
        summary="Become an agent: a join token against a certificate",
    ),
    Route(
        method="POST", path="/v1/renew", handle=renew, access=Access.OPEN, body=RenewRequest, answer=RenewedView,
        summary="A new certificate for an agent that slept past the end of its last one",
    ),
    Route(
        method="GET", path="/join", handle=script, access=Access.OPEN, content="text/x-shellscript",
        summary="The script behind the line of `atoll token create`",
    ),
    Route(
        method="GET", path="/v1/agent.tar.gz", handle=agent_pack, access=Access.OPEN, query=PackQuery,
        content="application/gzip", summary="The agent's program for a machine's Python",
    ),
)  # fmt: skip
