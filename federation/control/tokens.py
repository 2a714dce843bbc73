"""Credentials: join tokens that make agents, API tokens that let people in."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from atoll.agent import Agent
from atoll.clock import Chance
from atoll.errors import Invalid, NotFound, Unauthorized
from atoll.group import Group, GroupKind
from atoll.ids import AGENT, check_name, new_id
from atoll.instance import Instance
from atoll.site import Site
from atoll.states import KEPT, AgentState, InstanceState, Reason
from atoll.token import Token, TokenKind
from federation.control.changes import Change, Changes
from federation.control.config import ControlConfig
from federation.control.trust import issue, refusal, vetted
from tunnel.jointoken import token_hash

API_PREFIX = "atk_"
_JOINABLE = (InstanceState.CREATING, InstanceState.BOOTING)


@dataclass(frozen=True, slots=True, kw_only=True)
class Joined:
    """A new member: its agent row and the certificate (PEM) for its own key."""

    agent: Agent
    certificate: str


class Tokens:
    """Use cases on tokens. Secrets have 256 bits and are stored only as their hash."""

    def __init__(self, changes: Changes, config: ControlConfig, chance: Chance, on_change: Callable[[], None]) -> None:
        self._changes = changes
        self._config = config
        self._chance = chance
        self._on_change = on_change
        self.on_revoked: Callable[[Agent], None] = lambda _agent: None
        self.on_deleted: Callable[[str], None] = lambda _token: None

    async def create_join(
        self, *, site: str, group: str, uses: int = 1, ttl_s: float = 900.0, owner: str = ""
    ) -> tuple[Token, str]:
        """Return a join token's row and its secret; a fixed group and its site are made when they are not there."""
        if not 1 <= uses <= 10_000 or not 1 <= ttl_s <= 30 * 86400:
            raise Invalid("a join token has 1 to 10000 uses and lives 1 s to 30 days", hint="e.g. --uses 1 --ttl 1h")
        secret = self._chance.token_bytes(32).hex()
        async with self._changes.commit("token.create") as change:
            await self._fixed_group(change, site, group)
            token = await change.tx.insert(
                Token(
                    id=token_hash(secret),
                    kind=TokenKind.JOIN,
                    owner=owner,
                    site=site,
                    group=group,
                    uses_left=uses,
                    expires_at=change.now + ttl_s,
                    created_at=change.now,
                )
            )
            await change.event("token", token.id[:12], "created", name=group)
        return token, secret

    async def create_api(self, owner: str, roles: Sequence[str] = ()) -> tuple[Token, str]:
        """Return an API token's row and its secret (with prefix); its bearer has these roles."""
        for role in roles:
            check_name(role, "role")
        secret = API_PREFIX + self._chance.token_bytes(32).hex()
        async with self._changes.commit("token.create") as change:
            row = Token(
                id=token_hash(secret), kind=TokenKind.API, owner=owner, roles=tuple(roles), created_at=change.now
            )
            token = await change.tx.insert(row)
            await change.event("token", token.id[:12], "created", name=owner)
        return token, secret

    async def authenticate(self, secret: str) -> Token:
        """Return the API token that `secret` is; raise `Unauthorized` for any other."""
        async with self._changes.look() as tx:
            token = await tx.get(Token, token_hash(secret))
        now = self._changes.clock.now()
        if token is None or token.kind is not TokenKind.API or (token.expires_at or now + 1) <= now:
            raise Unauthorized("this API token is not valid", hint="log in with: atoll login URL --token …")
        return token

    async def standing(self, owner: str, token: str = "") -> tuple[str, ...] | None:
        """Return the roles that a user's API tokens give, or just the one with this id; None where there is none."""
        now = self._changes.clock.now()
        async with self._changes.look() as tx:
            rows = await tx.find(Token, owner=owner, kind=str(TokenKind.API))
        good = [
            row for row in rows if (not token or row.id == token) and (row.expires_at is None or row.expires_at > now)
        ]
        return tuple(sorted({role for row in good for role in row.roles})) if good else None

    async def list(self) -> list[Token]:
        """Return all tokens, without secrets."""
        async with self._changes.look() as tx:
            return [token for token in await tx.find(Token) if not token.instance]

    async def delete(self, prefix: str) -> None:
        """Revoke the token whose id begins with `prefix` (8 characters at least)."""
        async with self._changes.commit("token.delete") as change:
            rows = [t for t in await change.tx.find(Token) if len(prefix) >= 8 and t.id.startswith(prefix)]
            if len(rows) != 1:
                raise NotFound(f"no single token begins with {prefix!r}", hint="see `atoll token list`")
            await change.tx.delete(Token, rows[0].id)
            await change.event("token", rows[0].id[:12], "deleted")
        self.on_deleted(rows[0].id)

    async def join(self, secret: str, csr: str, name: str, facts: dict[str, str]) -> Joined:
        """Use up one use of a join token and make an agent of its group; raise `Unauthorized` when it has none.

        Who used it and asks again with the same key, since the answer was lost, is the same agent.
        """
        key = self._config.authority.key_of(csr)
        async with self._changes.commit("join.consume") as change:
            agent = await self._again(change, token_hash(secret), key)
            if agent is None:
                agent = await self._first(change, token_hash(secret), key, name, facts)
            agent, certificate = await issue(change, self._config, agent, csr)
        self._on_change()
        return Joined(agent=agent, certificate=certificate)

    async def _first(self, change: Change, token_id: str, key: str, name: str, facts: dict[str, str]) -> Agent:
        token = await change.tx.consume(token_id, change.now)
        if token is None or token.kind is not TokenKind.JOIN:
            raise Unauthorized(
                "this join token is not valid: it is unknown, expired, or already used",
                hint="make a new one: atoll token create --site S --group G",
            )
        if any(row.key == key for row in await change.tx.find(Agent, state=AgentState.REVOKED)):
            raise Unauthorized("the agent with this key was revoked", hint="join with a new key, from a clean machine")
        agent = await self._agent(change, token, key, name, facts)
        await change.tx.update(replace(token, keys=token.keys | {key: agent.id}))
        return agent

    async def _again(self, change: Change, token_id: str, key: str) -> Agent | None:
        token = await change.tx.get(Token, token_id)
        if token is None or key not in token.keys or (token.expires_at or 0.0) <= change.now:
            return None
        agent = await change.tx.get(Agent, token.keys[key])
        return agent if agent and agent.state in KEPT else None

    async def renew(self, certificate: str, csr: str) -> str:
        """Return a new certificate for an agent that slept past the end of its last one, for the same key.

        Raises `Unauthorized` for a certificate that is not ours, and for an agent that left, is gone or is revoked.
        """
        try:
            shown = self._config.authority.agent_of(certificate, csr)
        except Invalid as error:
            raise Unauthorized(error.message, hint="join anew: atoll agent join") from error
        async with self._changes.commit("agent.renew") as change:
            agent = await vetted(change, await change.tx.get(Agent, shown.agent), shown.generation)
            if agent is not None and agent.state in KEPT:
                return (await issue(change, self._config, agent, csr))[1]
        if agent is not None and agent.state is AgentState.REVOKED:
            self.on_revoked(agent)
        raise Unauthorized(refusal(shown.agent, agent).message, hint="join anew")

    async def _agent(self, change: Change, token: Token, public: str, name: str, facts: dict[str, str]) -> Agent:
        """Insert the agent; site, group, price and spot come from our side, never from the machine (S3)."""
        key = new_id(AGENT, self._chance)
        site = await change.tx.get(Site, token.site)
        agent = Agent(
            id=key,
            name=await self._free_name(change, name or key),
            site=token.site,
            group=token.group,
            facts=facts,
            price=site.price if site else 0,
            key=public,
            joined_at=change.now,
        )
        if token.instance:
            instance = await change.tx.get(Instance, token.instance)
            if instance is None or instance.state not in _JOINABLE:
                raise Unauthorized("the launch that this token was made for is over", hint="the machine may end itself")
            shape = instance.shape
            agent = replace(agent, instance=instance.id, price=shape.price or 0, spot=shape.spot, capacity=shape.slots)
            await change.instance(
                instance,
                InstanceState.JOINED,
                Reason.JOINED,
                f"joined as {key}",
                agent=key,
                joined_at=change.now,
                booted_at=instance.booted_at or change.now,
            )
        agent = await change.tx.insert(agent)
        await change.event("agent", key, AgentState.READY, name=agent.name, reason=Reason.JOINED)
        return agent

    async def _free_name(self, change: Change, name: str) -> str:
        base = "".join(c if c.isascii() and c.isalnum() else "-" for c in name.lower().partition(".")[0])
        base = "-".join(part for part in base.split("-") if part)[:32] or "agent"
        taken = {row.name for row in await change.tx.find(Agent, state=list(KEPT))}
        if base not in taken:
            return base
        return next(f"{base}-{i}" for i in range(2, len(taken) + 3) if f"{base}-{i}" not in taken)

    async def _fixed_group(self, change: Change, site: str, group: str) -> None:
        check_name(site, "site")
        check_name(group, "group")
        have = await change.tx.get(Group, group)
        if have and have.kind is GroupKind.ELASTIC:
            raise Invalid(f"group {group!r} is elastic: its provider makes its agents", hint="name another group")
        if have and have.site != site:
            raise Invalid(f"group {group!r} is at site {have.site!r}", hint=f"use --site {have.site}")
        if await change.tx.get(Site, site) is None:
            await change.tx.insert(Site(name=site, created_at=change.now))
            await change.event("site", site, "created", name=site)
        if have is None:
            await change.tx.insert(Group(name=group, site=site, created_at=change.now))
            await change.event("group", group, "created", name=group)
