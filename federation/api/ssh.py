"""Routes of the SSH door: a short-lived certificate for a user's own key."""

import msgspec

from atoll.client import views as api
from atoll.errors import Forbidden
from federation.api.route import Access, Call, Route
from tunnel.sshkeys import TTL_S


class SshKey(msgspec.Struct, kw_only=True):
    """`key` is a public key as `ssh-keygen` writes it: `ssh-ed25519 AAAA… comment`."""

    key: str


async def certify(call: Call) -> api.SshCertificateView:
    """Sign a user's public key for a quarter of an hour; the certificate is worth nothing without its API token."""
    body: SshKey = call.body
    caller = call.caller
    if not caller.token or not caller.owner:
        raise Forbidden("a certificate is given to the bearer of an API token only", hint="`atoll ssh` asks for it")
    keys = call.services.ssh
    certificate = keys.certify(body.key, (caller.owner, caller.token), name=caller.owner, now=call.now)
    return api.SshCertificateView(
        certificate=certificate, host_key=keys.host_public, user=caller.owner, expires_at=call.now + TTL_S
    )


ROUTES = (
    Route(
        method="POST", path="/v1/ssh:certify", handle=certify, access=Access.USER, body=SshKey,
        answer=api.SshCertificateView, summary="Get a short-lived SSH certificate for a key of one's own",
    ),
)  # fmt: skip
