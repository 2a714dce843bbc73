"""Relays as administrators handle them: invite, enrol, list, drain, remove; and what agents and users hear of them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

from atoll.clock import Chance
from atoll.errors import Conflict, Invalid, NotFound, Unauthorized
from atoll.ids import RELAY, check_name, new_id
from atoll.relay import Relay, RelayState
from atoll.token import Token, TokenKind
from federation.control.changes import Change, Changes
from federation.control.config import ControlConfig
from federation.control.uplinks import CERTIFICATE_S, Uplinks
from tunnel import wire
from tunnel.jointoken import token_hash

DRAIN_S = (1.0, 86_400.0)
"""How long a drain may take, in seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Enrolled:
    """A relay and the certificate (PEM) for its own key."""

    relay: Relay
    certificate: str


class Relays:
    """Use cases on relays. `uplinks` has those that are connected; `now` gives the time that grants are made by.

    `on_serving` is told the URLs of the relays that serve, whenever that may have changed.
    """

    def __init__(self, changes: Changes, config: ControlConfig, chance: Chance, now: Callable[[], float]) -> None:
        self._changes = changes
        self._config = config
        self._chance = chance
        self.uplinks = Uplinks(changes, config, now)
        self.uplinks.on_change = self.tell
        self.on_serving: Callable[[Sequence[str]], None] = lambda _: None

    async def tell(self) -> None:
        """Tell which relays serve now."""
        self.on_serving([row.url for row in await self.list() if row.state is RelayState.SERVING])

    async def behind(self) -> dict[str, str]:
        """Return what relays lack to be believed by those who trust the newest CA alone, by name."""
        pin = self._config.authority.pin
        lacking = [row for row in await self.list() if row.key and row.issued_by != pin]
        return {
            f"relay {row.name}": "renews within a minute" if self.live(row.id) else "not connected since"
            for row in lacking
        }

    def live(self, relay: str) -> wire.Serving | None:
        """Return what a relay last said of itself, or None while it is not connected."""
        live = self.uplinks.live(relay)
        return live.said if live else None

    def rtt(self, relay: str) -> float | None:
        """Return the smoothed round trip over a relay's link, in seconds; None while there is none."""
        live = self.uplinks.live(relay)
        return live.link.rtt if live else None

    async def list(self) -> Sequence[Relay]:
        """Return all relays, oldest first."""
        async with self._changes.look() as tx:
            return await tx.find(Relay)

    async def get(self, ref: str) -> Relay:
        """Return a relay by name or id; raise `NotFound`."""
        async with self._changes.look() as tx:
            return await _find(Change(tx, 0.0), ref)

    async def create(self, name: str, url: str, *, ttl_s: float, owner: str) -> tuple[Relay, str]:
        """Return a new relay and the secret of its one-use token; raise `Conflict` when name or URL is taken."""
        check_name(name, "relay")
        url = checked(url)
        if not 1 <= ttl_s <= 30 * 86_400:
            raise Invalid("a relay's token lives 1 s to 30 days", hint="e.g. --ttl 1h")
        secret = self._chance.token_bytes(32).hex()
        async with self._changes.commit("relay.create") as change:
            for row in await change.tx.find(Relay):
                if name == row.name or url == row.url:
                    raise Conflict(
                        f"relay {row.name} at {row.url} exists already", hint=f"atoll relay remove {row.name}"
                    )
            row = Relay(id=new_id(RELAY, self._chance), name=name, url=url, created_at=change.now)
            row = await change.tx.insert(row)
            token = Token(
                id=token_hash(secret),
                kind=TokenKind.RELAY,
                owner=owner,
                relay=row.id,
                expires_at=change.now + ttl_s,
                created_at=change.now,
            )
            await change.tx.insert(token)
            await change.event("relay", row.id, row.state, name=name, message=f"created by {owner}")
        return row, secret

    async def enrol(self, secret: str, csr: str) -> Enrolled:
        """Use up a relay's token and sign its key; raise `Unauthorized` where the token is not good (any more).

        Who used it and asks again with the same key, since the answer was lost, gets another certificate.
        """
        authority = self._config.authority
        key = authority.key_of(csr)
        async with self._changes.commit("relay.enrol") as change:
            token = await change.tx.get(Token, token_hash(secret))
            kind = token.kind if token else None
            row = await change.tx.get(Relay, token.relay) if token and kind is TokenKind.RELAY else None
            repeated = row is not None and row.key == key and token is not None
            fresh = repeated or (kind is TokenKind.RELAY and await change.tx.consume(token_hash(secret), change.now))
            if row is None or not fresh or (token and (token.expires_at or 0.0) <= change.now):
                raise Unauthorized(
                    "this relay's token is not valid: it is unknown, expired, or already used",
                    hint="make the relay anew: atoll relay remove NAME; atoll relay create NAME --url URL",
                )
            row = await change.tx.update(replace(row, key=key, issued_by=authority.pin))
            certificate = authority.sign_relay(csr, row.id, now=change.now, ttl_s=CERTIFICATE_S)
            await change.event("relay", row.id, "enrolled", name=row.name)
        return Enrolled(relay=row, certificate=certificate)

    async def drain(self, ref: str, *, deadline_s: float, by: str) -> Relay:
        """Let a relay take nothing new, let go of what it carries and end, within `deadline_s`.

        Agents and users go over others from now on. It serves again once it is started again.
        """
        least, most = DRAIN_S
        if not least <= deadline_s <= most:
            raise Invalid("a drain takes 1 s to 1 day", hint="e.g. --deadline 60s")
        async with self._changes.commit("relay.drain") as change:
            row = await _find(change, ref)
            if row.state in (RelayState.INVITED, RelayState.DRAINED):
                raise Conflict(f"relay {row.name} is {row.state}: there is nothing to drain")
            row = await change.tx.update(replace(row, state=RelayState.DRAINING, message=f"drained by {by}"))
            await change.event("relay", row.id, row.state, name=row.name, message=row.message)
        await self.tell()
        self.uplinks.drain(row.id, deadline_s)
        return row

    async def remove(self, ref: str, *, by: str) -> Relay:
        """Take a relay out of the installation: its certificate is worth nothing, and it ends."""
        async with self._changes.commit("relay.remove") as change:
            row = await _find(change, ref)
            await change.tx.delete(Relay, row.id)
            for token in await change.tx.find(Token, kind=TokenKind.RELAY):
                if token.relay == row.id:
                    await change.tx.delete(Token, token.id)
            await change.event("relay", row.id, "removed", name=row.name, message=f"removed by {by}")
        await self.tell()
        self.uplinks.end(row.id, "the relay was removed")
        return row


def checked(url: str) -> str:
    """Return the URL of a relay in one spelling; raise `Invalid` where it is none."""
    try:
        parts = urlsplit(url.strip())
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    if parts.scheme != "https" or not parts.hostname or parts.path.strip("/") or parts.query or parts.username:
        raise Invalid(f"{url!r} is not where a relay could be", hint="write https://relay1.example.com[:PORT]")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"https://{host}" + (f":{port}" if port not in (None, 443) else "")


async def _find(change: Change, ref: str) -> Relay:
    rows = [row for row in await change.tx.find(Relay) if ref in (row.name, row.id)]
    if not rows:
        raise NotFound(f"there is no relay {ref!r}", hint="see `atoll relay list`")
    return rows[0]
