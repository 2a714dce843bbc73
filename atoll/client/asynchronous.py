"""`AsyncClient`: the SDK for asyncio programs, over aiohttp; the same methods as `Client`."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import aiohttp

from atoll.budget import Budget
from atoll.client import calls, mesh
from atoll.client.asyncwire import AsyncWire
from atoll.client.calls import Document, Noun, NounView, Page
from atoll.client.linkviews import LinkView, PingView, StreamRecordView
from atoll.client.mesh import MeshView
from atoll.client.relayviews import RelayView
from atoll.client.stream import Follow, Followed, Watch
from atoll.client.views import (
    AgentView,
    AuthorityView,
    BudgetView,
    DecisionView,
    EventView,
    FindingView,
    GroupView,
    HealthView,
    InstanceView,
    PolicyView,
    PriceListView,
    ProviderView,
    RuleProblemView,
    SessionView,
    ShadowView,
    ShapeView,
    SiteView,
    SshCertificateView,
    StatusView,
    StepView,
    StreamPermitView,
    SweepFinding,
    TokenView,
    UsageView,
    WhyView,
)
from atoll.errors import Unavailable
from atoll.ids import new_id
from atoll.policy import Policy
from atoll.session import SessionSpec
from atoll.states import ENDED


class AsyncClient(AsyncWire):
    """A control plane, as an asyncio program sees it: `async with AsyncClient() as client`.

    Arguments, errors and retries are `Client`'s. To be used within one event loop.
    """

    # Sessions

    async def submit(self, spec: SessionSpec | Document, *, count: int = 1, key: str = "") -> list[SessionView]:
        """Submit `count` sessions of one spec. The same `key` again returns the same sessions (24 h at least)."""
        return (await self.call(calls.submit(self.project, spec, count, key or new_id("k", self._chance)))).items

    async def session(self, ref: str) -> SessionView:
        """Return a session by id or name."""
        return await self.call(calls.session(self.project, ref))

    async def sessions(self, states: Sequence[str] = (), *, live: bool = False, limit: int = 1000) -> list[SessionView]:
        """Return up to `limit` sessions, newest first; `live` leaves out those that have ended."""
        found: list[SessionView] = []
        after = ""
        while len(found) < limit:
            page = await self.call(calls.sessions(self.project, states, live, after, min(500, limit - len(found))))
            found += page.items
            after = page.next
            if not after:
                break
        return found

    async def stop(self, ref: str) -> SessionView:
        """Stop a session: TERM, its grace period, KILL. Returns at once; `wait` waits for the end."""
        return await self.call(calls.stop(self.project, ref))

    async def approve(self, ref: str, role: str = "") -> SessionView:
        """Approve a session that waits for it, as one of this token's roles (default: as each that is asked for)."""
        return await self.call(calls.approve(self.project, ref, role))

    async def move(self, ref: str, to: str = "") -> SessionView:
        """Ask a session for a checkpoint, to go on at `to` (a site or an agent; empty: wherever there is a place)."""
        return await self.call(calls.move(self.project, ref, to))

    async def wait(self, ref: str, *, timeout: float | None = None) -> SessionView:
        """Return the session once it has ended; raise `Unavailable` after `timeout` seconds."""
        limit = None if timeout is None else self._clock.monotonic() + timeout
        pause = 0.05
        while (session := await self.session(ref)).state not in ENDED:
            if limit is not None and self._clock.monotonic() > limit:
                raise Unavailable(f"{session.name} is {session.state} after {timeout:g} s", hint=session.message)
            await asyncio.sleep(pause)
            pause = min(1.0, pause * 1.5)
        return session

    async def follow(
        self,
        ref: str,
        *,
        channel: str = "both",
        rank: int = 0,
        attempt: int = 0,
        stay: bool = True,
        patience: float = 600.0,
    ) -> AsyncIterator[Followed]:
        """Yield output and state changes of a session's member, at last the session itself.

        With `stay` until it has ended and its output is complete. When the stream breaks it goes on by
        offsets, nothing lost and nothing twice, for up to `patience` seconds without any answer.
        `attempt` 0 means the current and all later ones.
        """
        follow = Follow(channel=channel, rank=rank, attempt=attempt, stay=stay, only=attempt > 0)
        async for event in self._events(calls.logs_path(self.project, ref), follow, patience):
            if news := follow.take(event):
                yield news
            if follow.done:
                return

    async def why(self, ref: str) -> WhyView:
        """Return why a session is as it is."""
        return await self.call(calls.session_why(self.project, ref))

    async def app_link(self, ref: str, app: str) -> str:
        """Return a URL of a session's app, with a short-lived grant."""
        return (await self.call(calls.app_link(self.project, ref, app))).url

    async def share(self, ref: str, app: str, access: str) -> SessionView:
        """Let the owner alone, the project's members or the public into a session's app."""
        return await self.call(calls.share(self.project, ref, app, access))

    async def login_link(self) -> str:
        """Return a URL that logs a browser in to the page, good for a few minutes."""
        return (await self.call(calls.login_link())).url

    async def ssh_certificate(self, key: str) -> SshCertificateView:
        """Return a short-lived certificate for a public key, which opens the SSH door of this user's sessions."""
        return await self.call(calls.ssh_certificate(key))

    async def stream(
        self, ref: str, port: int, *, rank: int = 0, resume: str = "", client: str = ""
    ) -> StreamPermitView:
        """Return a permit for a stream to a port of a session, to be shown at the door of a relay.

        `resume` (hex) is the id of a stream that goes on, `client` the SHA-256 of the certificate of a blind one.
        """
        return await self.call(calls.stream(self.project, ref, port, rank, resume, client))

    async def offers(self, spec: SessionSpec | Document) -> DecisionView:
        """Return the ranked ways to run a session now, without running it."""
        return await self.call(calls.offers(self.project, spec))

    # Agents

    async def agents(self, *, everything: bool = False) -> list[AgentView]:
        """Return the agents; `everything` includes those that have left."""
        return (await self.call(calls.agents(everything))).items

    async def agent(self, ref: str) -> AgentView:
        """Return an agent by id or name."""
        return await self.call(calls.agent(ref))

    async def cordon(self, ref: str, *, deadline: float | None = None) -> AgentView:
        """Let an agent take no new session; after `deadline` seconds what can take a checkpoint is moved off it."""
        return await self.call(calls.cordon(ref, deadline))

    async def uncordon(self, ref: str) -> AgentView:
        """Let a cordoned agent take sessions again; a deadline is cancelled."""
        return await self.call(calls.agent(ref, "uncordon"))

    async def remove_agent(self, ref: str) -> AgentView:
        """Forget an agent: its certificate is worth nothing from now on."""
        return await self.call(calls.agent(ref, "remove"))

    async def revoke_agent(self, ref: str) -> AgentView:
        """Make an agent's certificate worth nothing and end its link with all streams; its sessions are lost."""
        return await self.call(calls.agent(ref, "revoke"))

    async def links(self, *, site: str = "", group: str = "") -> list[LinkView]:
        """Return how agents' links stand, of one site or group where that is given."""
        return (await self.call(calls.links(site, group))).items

    async def ping(self, ref: str, *, count: int = 5) -> PingView:
        """Ping an agent `count` times over its link and over a stream on each lane."""
        return await self.call(calls.ping(ref, count))

    async def streams(self, ref: str = "", *, user: str = "") -> AsyncIterator[StreamRecordView]:
        """Yield the records of a session's streams, newest first; without one those of all sessions (or one `user`)."""
        after = ""
        while True:
            page = await self.call(calls.streams(self.project, ref, user, after))
            for each in page.items:
                yield each
            after = page.next
            if not after:
                return

    async def why_agent(self, ref: str) -> WhyView:
        """Return why an agent is as it is."""
        return await self.call(calls.why("agents", ref))

    # Relays

    async def relays(self) -> list[RelayView]:
        """Return all relays, oldest first."""
        return (await self.call(calls.objects("relays", Page[RelayView]))).items

    async def create_relay(self, name: str, url: str, *, ttl_s: float = 3600.0) -> RelayView:
        """Create a relay that will be found at `url`; the token for its machine is in this answer only."""
        return await self.call(calls.create_relay(name, url, ttl_s))

    async def drain_relay(self, ref: str, *, deadline: float = 60.0) -> RelayView:
        """Let a relay take nothing new, let go of what it carries, and end within `deadline` seconds."""
        return await self.call(calls.drain_relay(ref, deadline))

    # Sites, groups, providers

    async def sites(self) -> list[SiteView]:
        """Return all sites."""
        return (await self.call(calls.objects("sites", Page[SiteView]))).items

    async def site(self, name: str) -> SiteView:
        """Return a site."""
        return await self.call(calls.named("sites", name, SiteView))

    async def groups(self) -> list[GroupView]:
        """Return all groups."""
        return (await self.call(calls.objects("groups", Page[GroupView]))).items

    async def group(self, name: str) -> GroupView:
        """Return a group."""
        return await self.call(calls.named("groups", name, GroupView))

    async def why_group(self, name: str) -> WhyView:
        """Return why a group is as large as it is."""
        return await self.call(calls.why("groups", name))

    async def decisions(self, group: str, *, limit: int = 50) -> list[StepView]:
        """Return the newest steps about a group, newest first."""
        return (await self.call(calls.decisions(group, limit))).items

    async def providers(self) -> list[ProviderView]:
        """Return all providers."""
        return (await self.call(calls.objects("providers", Page[ProviderView]))).items

    async def provider(self, name: str) -> ProviderView:
        """Return a provider."""
        return await self.call(calls.named("providers", name, ProviderView))

    async def create(self, noun: Noun) -> NounView:
        """Create a site, group or provider; `Conflict` when one of that name exists."""
        return await self.call(calls.create(noun))

    async def apply(self, noun: Noun) -> NounView:
        """Create a site, group or provider, or make it as given."""
        return await self.call(calls.put(noun))

    async def delete(self, collection: str, name: str) -> None:
        """Remove one of the `sites`, `groups`, `providers`, `policies`, `budgets` or `relays`."""
        await self.call(calls.delete(collection, name))

    async def shapes(self, provider: str) -> list[ShapeView]:
        """Return what a provider could make now, with prices of whole machines."""
        return (await self.call(calls.shapes(provider))).items

    async def provider_doctor(self, provider: str) -> list[FindingView]:
        """Check a provider's account without creating anything."""
        return (await self.call(calls.provider_doctor(provider))).items

    async def provider_health(self, provider: str) -> HealthView:
        """Return a provider's limits, pauses, credentials' age and last sweep."""
        return await self.call(calls.provider_health(provider))

    async def rotate(self, provider: str, credentials: Mapping[str, Any]) -> ProviderView:
        """Replace a provider's credentials; `Conflict`, and the old ones stay, when the new ones do not work."""
        return await self.call(calls.rotate(provider, credentials))

    async def resize(self, group: str, *, least: int | None = None, most: int | None = None) -> GroupView:
        """Change an elastic group's bounds."""
        return await self.call(calls.resize(group, least, most))

    async def terminate(self, group: str, *, now: bool = False, deadline: float | None = None) -> GroupView:
        """Close an elastic group: its size becomes 0..0 and its instances go, with `now` whatever runs there.

        After `deadline` seconds sessions there that can take a checkpoint, and are not protected, are moved elsewhere.
        """
        return await self.call(calls.terminate(group, now, deadline))

    async def price_lists(self) -> list[PriceListView]:
        """Return how the prices of all providers stand, without their rows."""
        return (await self.call(calls.price_lists())).items

    async def prices(self, provider: str, *, shape: str = "*") -> PriceListView:
        """Return a provider's prices: of the shapes that match a glob pattern, and what checks said of them."""
        return await self.call(calls.prices(provider, shape))

    async def update_prices(self, provider: str, *, accept_jumps: bool = False) -> PriceListView:
        """Let a provider's live source be read now; `accept_jumps` believes prices that fell to less than a fifth."""
        return await self.call(calls.update_prices(provider, accept_jumps))

    async def import_prices(self, file: Document) -> list[PriceListView]:
        """Put a price file's lists in place; `file` has its `name`, `content`, `signature` and what it may do."""
        return (await self.call(calls.import_prices(file))).items

    async def export_prices(self, provider: str = "") -> str:
        """Return the lists in place as the text of a price file, of one provider or of all."""
        return (await self.call(calls.export_prices(provider))).content

    async def sweep(self, provider: str, *, dry_run: bool = False) -> list[SweepFinding]:
        """Compare a provider's inventory with the store; end what nobody owns (not with `dry_run`)."""
        return (await self.call(calls.sweep(provider, dry_run))).items

    async def instances(self, *, group: str = "", provider: str = "", live: bool = True) -> list[InstanceView]:
        """Return instances; `live` leaves out those that were seen to be gone."""
        return (await self.call(calls.instances(group, provider, live))).items

    async def policies(self) -> list[PolicyView]:
        """Return all policies."""
        return (await self.call(calls.objects("policies", Page[PolicyView]))).items

    async def policy(self, name: str) -> PolicyView:
        """Return a policy."""
        return await self.call(calls.named("policies", name, PolicyView))

    async def apply_policy(self, policy: Policy) -> PolicyView:
        """Create a policy, or make it as given; it is in force at once."""
        return await self.call(calls.put_policy(policy))

    async def shadow(self, policy: str = "") -> None:
        """Evaluate a policy beside the live one, without acting; with an empty name, none."""
        await self.call(calls.shadow(policy))

    async def policy_diff(self) -> ShadowView:
        """Return how the shadow's decisions differ from the live policy's."""
        return await self.call(calls.policy_diff())

    async def policy_problems(self) -> list[RuleProblemView]:
        """Return the rules and plug-ins that fail, and so do not apply."""
        return (await self.call(calls.policy_problems())).items

    async def budgets(self) -> list[BudgetView]:
        """Return how all budgets stand."""
        return (await self.call(calls.objects("budgets", Page[BudgetView]))).items

    async def budget(self, name: str) -> BudgetView:
        """Return how a budget stands."""
        return await self.call(calls.named("budgets", name, BudgetView))

    async def apply_budget(self, budget: Budget) -> BudgetView:
        """Create a budget, or make it as given."""
        return await self.call(calls.put_budget(budget))

    # Meshes

    async def meshes(self) -> list[MeshView]:
        """Return how all meshes are."""
        return (await self.call(calls.objects("meshes", Page[MeshView]))).items

    async def mesh(self, site: str, other: str) -> MeshView:
        """Return how the mesh of two sites is."""
        return await self.call(mesh.one(site, other))

    async def mesh_up(self, site: str, other: str, subnets: Mapping[str, Sequence[str]] | None = None) -> MeshView:
        """Join two sites by WireGuard; `subnets` are the networks that each lets the other reach."""
        return await self.call(mesh.up(site, other, subnets or {}))

    async def mesh_rotate(self, site: str, other: str) -> MeshView:
        """Change the keys of both gateways of a mesh."""
        return await self.call(mesh.rotate(site, other))

    async def mesh_down(self, site: str, other: str) -> None:
        """Part two sites."""
        await self.call(mesh.down(site, other))

    # Tokens, cost, the installation

    async def tokens(self) -> list[TokenView]:
        """Return all tokens, without secrets."""
        return (await self.call(calls.objects("tokens", Page[TokenView]))).items

    async def create_token(
        self, *, site: str, group: str, uses: int = 1, ttl_s: float = 3600.0, owner: str = ""
    ) -> TokenView:
        """Make a join token for `uses` agents of a group; its secret is in this answer only."""
        body = {"kind": "join", "site": site, "group": group, "uses": uses, "ttl_s": ttl_s, "owner": owner}
        return await self.call(calls.create_token(body))

    async def create_api_token(self, owner: str, roles: Sequence[str] = ()) -> TokenView:
        """Make an API token for `owner` with `roles`, which only an administrator may give; see `create_token`."""
        return await self.call(calls.create_token({"kind": "api", "owner": owner, "roles": list(roles)}))

    async def delete_token(self, token: str) -> None:
        """Make a token worthless, by its id."""
        await self.call(calls.delete("tokens", token))

    async def usage(self, since: float = 0.0) -> UsageView:
        """Return cost since a moment (Unix seconds)."""
        return await self.call(calls.usage(since))

    async def events(self, *, since: int = 0, limit: int = 500) -> list[EventView]:
        """Return changes after a revision, oldest first."""
        return (await self.call(calls.events(since, limit))).items

    async def watch(
        self, kinds: Sequence[str] = (), *, since: int | None = None, patience: float = 600.0
    ) -> AsyncIterator[EventView]:
        """Yield changes as they happen, from `since` (default: now) on, for ever; a broken stream goes on."""
        watch = Watch(tuple(kinds), since)
        async for event in self._events("/v1/watch", watch, patience):
            if change := watch.take(event):
                yield change

    async def status(self) -> StatusView:
        """Return the installation in one look."""
        return await self.call(calls.status())

    async def standing_authority(self) -> AuthorityView:
        """Return the CAs that are trusted, and the agents that have yet to move to the newest."""
        return await self.call(calls.standing_authority())

    async def rotate_authority(self) -> AuthorityView:
        """Begin to sign with a new CA; the one before is trusted until `retire_authority`."""
        return await self.call(calls.rotate_authority())

    async def retire_authority(self, *, force: bool = False) -> AuthorityView:
        """Trust the new CA alone; raise `Conflict` with the agents that this locks out, unless `force`."""
        return await self.call(calls.retire_authority(force))

    @contextlib.asynccontextmanager
    async def connect(self, ref: str, port: int, *, rank: int = 0) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
        """Open a WebSocket to a port of a session: binary messages are bytes, the text `eof` a half-close."""
        url = self.address.url + calls.forward_path(self.project, ref)
        query = {"port": str(port), "rank": str(rank)}
        try:
            async with self._http().ws_connect(
                url, params=query, server_hostname=self._server_name, max_msg_size=0, heartbeat=20.0
            ) as channel:
                yield channel
        except aiohttp.WSServerHandshakeError as error:
            raise calls.problem(error.status, b"") from error
