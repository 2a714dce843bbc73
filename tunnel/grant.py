"""A grant: permission for one stream, sealed by the control plane for a relay and for one agent.

A relay and the agent each check it by themselves, with a key of their own, so that neither a relay nor a user can
make one. Only the standard library's HMAC is used: an agent's process stays without `cryptography`.
"""

import hashlib
import hmac
from collections.abc import Iterable

import msgspec

from tunnel.wire import MALFORMED, OpenStream

LIFE_S = 60.0
"""A grant is good for this long from when it was made: it is used at once, or made anew."""
USER_LIFE_S = 600.0
"""The same of one that a user has: with it a stream finds its way again while the control plane is away."""
LIMIT = 2048
"""Most bytes of a sealed grant."""
_TAG = 32


class BadGrant(Exception):
    """This grant does not permit this; the message says why."""


class Grant(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is permitted to whom: one stream to an app or a port of a run, or (`exec`) a program beside it.

    With `echo` it is of no run: whoever holds it may measure the way to the agent.

    `user` is empty for the installation itself. `resume` is the stream's id where it may be resumed. `expires_at` is in
    the control plane's time. `token` names the credential by which the user asked for it, `client` is the SHA-256 of
    the certificate that the user's end shows to the agent in a blind stream.
    """

    id: bytes
    agent: str
    run: str
    project: str
    session: str
    expires_at: float
    user: str = ""
    token: str = ""
    app: str = ""
    port: int = 0
    exec: bool = False
    echo: bool = False
    resume: bytes = b""
    client: bytes = b""


_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Grant] = msgspec.msgpack.Decoder(Grant)


def relay_key(secret: bytes) -> bytes:
    """Return the key by which the relays of an installation check grants."""
    return _tag(secret, b"atoll relay grants v1")


def agent_key(secret: bytes, agent: str, generation: int) -> bytes:
    """Return the key by which one generation of an agent checks grants; no other's grants pass it."""
    return _tag(secret, b"atoll agent grants v1\0" + agent.encode() + b"\0" + str(generation).encode())


def seal(grant: Grant, relay: bytes, agent: bytes) -> bytes:
    """Return a grant with the tags by the relays' key and by its agent's; the agent's covers the other, too."""
    payload = _encoder.encode(grant)
    inner = _tag(relay, payload) + payload
    return _tag(agent, inner) + inner


def for_relay(sealed: bytes, key: bytes, now: float) -> Grant:
    """Return the grant that a relay was shown, at `now` of the control plane; raise `BadGrant`."""
    return _opened(sealed, sealed[_TAG : 2 * _TAG], key, sealed[2 * _TAG :], now)


def for_agent(sealed: bytes, key: bytes, now: float) -> Grant:
    """Return the grant that an agent was shown, at `now` of the control plane; raise `BadGrant`."""
    return _opened(sealed, sealed[:_TAG], key, sealed[_TAG:], now)


def for_record(sealed: bytes, relay: bytes, agents: Iterable[bytes]) -> Grant:
    """Return a grant as who made it reads it, expired or not; raise `BadGrant`.

    It is good where the relays' tag and one by any of these `agents` keys are: nobody but the control plane has both.
    """
    tags, payload = (sealed[:_TAG], sealed[_TAG : 2 * _TAG]), sealed[2 * _TAG :]
    inner = sealed[_TAG:]
    if not any(hmac.compare_digest(tags[0], _tag(key, inner)) for key in agents):
        raise BadGrant("the grant was not made for this agent")
    return _opened(sealed, tags[1], relay, payload, -1.0)


def agent_named(sealed: bytes) -> str:
    """Return the agent that a sealed grant says it is for, unchecked; raise `BadGrant`."""
    try:
        return _decoder.decode(sealed[2 * _TAG :]).agent
    except MALFORMED:
        raise BadGrant("the grant cannot be read") from None


def permits(grant: Grant, opening: OpenStream) -> bool:
    """Say whether a grant is for this very stream."""
    client = hashlib.sha256(opening.client).digest() if opening.client else b""
    asked = (opening.run, opening.app, opening.port, opening.exec, opening.echo, opening.resume, client)
    return asked == (grant.run, grant.app, grant.port, grant.exec, grant.echo, grant.resume, grant.client)


def _opened(sealed: bytes, tag: bytes, key: bytes, tagged: bytes, now: float) -> Grant:
    if len(sealed) > LIMIT or len(sealed) <= 2 * _TAG:
        raise BadGrant("there is no grant" if not sealed else "the grant is not whole")
    if not hmac.compare_digest(tag, _tag(key, tagged)):
        raise BadGrant("the grant was not made for this place, or was changed")
    try:
        grant = _decoder.decode(sealed[2 * _TAG :])
    except MALFORMED:
        raise BadGrant("the grant cannot be read") from None
    if not now < grant.expires_at:
        raise BadGrant("the grant has expired")
    return grant


def _tag(key: bytes, data: bytes) -> bytes:
    return hmac.digest(key, data, "sha256")
