"""Every call of the REST API as a value: both clients send these, one blocking, one with asyncio."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar
from urllib.parse import quote

import msgspec

from atoll.budget import Budget
from atoll.client.linkviews import LinkView, PingView, StreamRecordView
from atoll.client.relayviews import RelayView
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
    View,
    WhyView,
)
from atoll.document import dump_budget, dump_group, dump_policy, dump_provider, dump_session_spec, dump_site
from atoll.errors import BY_CODE, AtollError, Invalid
from atoll.group import Group, Provider
from atoll.policy import Policy
from atoll.session import SessionSpec
from atoll.site import Site

T = TypeVar("T")
PING_S = 60.0
"""Seconds that pings may take: more than the control plane gives them."""
PRICES_S = 660.0
"""Seconds that reading a cloud's price list may take: a little more than the control plane waits for it."""
Document = Mapping[str, Any]


class Page(msgspec.Struct, Generic[T]):
    """One page of a list; `next` is the cursor of the next page, empty on the last."""

    items: list[T]
    next: str = ""


class Link(View):
    """The answer of `apps/{app}:link`."""

    url: str


class PriceDocument(View):
    """The answer of `/v1/prices:export`."""

    content: str


class Certificate(View):
    """The answer of `/v1/ca`."""

    ca: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Call(Generic[T]):
    """One request. `repeatable`: sending it twice does no harm, so a broken connection may be retried.

    `takes_s` is how long its answer may take, where that is longer than a client waits for others.
    """

    method: str
    path: str
    answer: type[T]
    body: object = None
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    takes_s: float = 0.0

    @property
    def repeatable(self) -> bool:
        """Whether sending it twice does no harm."""
        return self.method != "POST" or "Idempotency-Key" in self.headers or self.path.partition(":")[2] != ""

    def read(self, status: int, raw: bytes) -> T:
        """Return the decoded answer; raise the error that the server reported, or `AtollError` for nonsense."""
        if status >= 400:
            raise problem(status, raw)
        if self.answer is type(None):
            return None
        try:
            return msgspec.json.decode(raw, type=self.answer)
        except msgspec.MsgspecError as error:
            raise AtollError(
                f"the control plane answered something unexpected to {self.method} {self.path}",
                hint="its version may differ from this client's: compare with `atoll doctor`",
            ) from error


class _Problem(msgspec.Struct):
    """The members of problem+json that become an exception; everything may be missing."""

    title: str = ""
    detail: str = ""
    code: str = ""
    reason: str = ""
    hint: str = ""


def problem(status: int, raw: bytes) -> AtollError:
    """Return the exception for an error answer: by its code, else by its HTTP status."""
    try:
        told = msgspec.json.decode(raw, type=_Problem)
    except msgspec.MsgspecError:
        told = _Problem(detail=f"the server answered HTTP status {status}", hint="is this the URL of a control plane?")
    by_status = next((kind for kind in BY_CODE.values() if kind.status == status), AtollError)
    kind = BY_CODE.get(told.code, Invalid if 400 < status < 500 and by_status is AtollError else by_status)
    return kind(told.detail or told.title or f"HTTP status {status}", hint=told.hint, reason=told.reason or told.code)


def _q(part: str) -> str:
    return quote(part, safe="")


def _sessions(project: str, ref: str = "", rest: str = "") -> str:
    return f"/v1/projects/{_q(project)}/sessions" + (f"/{_q(ref)}{rest}" if ref else "")


def submit(project: str, spec: SessionSpec | Document, count: int, key: str) -> Call[Page[SessionView]]:
    """Submit `count` sessions of one spec; the same `key` again gives the same sessions."""
    document = dump_session_spec(spec) if isinstance(spec, SessionSpec) else dict(spec)
    return Call(
        method="POST",
        path=_sessions(project),
        answer=Page[SessionView],
        body={"spec": document, "count": count},
        headers={"Idempotency-Key": key},
    )


def sessions(project: str, states: Sequence[str], live: bool, after: str, limit: int) -> Call[Page[SessionView]]:
    """List a page of sessions, newest first; `live` leaves out those that have ended."""
    query = {"limit": str(limit), "after": after, "state": ",".join(states), "live": "1" if live else ""}
    query = {key: value for key, value in query.items() if value}
    return Call(method="GET", path=_sessions(project), answer=Page[SessionView], query=query)


def session(project: str, ref: str) -> Call[SessionView]:
    """Get a session by id or name."""
    return Call(method="GET", path=_sessions(project, ref), answer=SessionView)


def stop(project: str, ref: str) -> Call[SessionView]:
    """Stop a session."""
    return Call(method="POST", path=_sessions(project, ref, ":stop"), answer=SessionView)


def approve(project: str, ref: str, role: str) -> Call[SessionView]:
    """Approve a session as a role; empty: as each of the caller's that its policies know."""
    return Call(method="POST", path=_sessions(project, ref, ":approve"), answer=SessionView, body={"role": role})


def move(project: str, ref: str, to: str) -> Call[SessionView]:
    """Move a session to a site or an agent, with `to` empty to the queue."""
    return Call(method="POST", path=_sessions(project, ref, ":move"), answer=SessionView, body={"to": to})


def session_why(project: str, ref: str) -> Call[WhyView]:
    """Ask why a session is as it is."""
    return Call(method="GET", path=_sessions(project, ref, "/why"), answer=WhyView)


def app_link(project: str, ref: str, app: str) -> Call[Link]:
    """Ask for a link to an app, with a short-lived grant."""
    return Call(method="POST", path=_sessions(project, ref, f"/apps/{_q(app)}:link"), answer=Link)


def share(project: str, ref: str, app: str, access: str) -> Call[SessionView]:
    """Say whom an app lets in."""
    path = _sessions(project, ref, f"/apps/{_q(app)}:share")
    return Call(method="POST", path=path, answer=SessionView, body={"access": access})


def login_link() -> Call[Link]:
    """Ask for a link that logs a browser in to the page."""
    return Call(method="POST", path="/v1/login:link", answer=Link)


def ssh_certificate(key: str) -> Call[SshCertificateView]:
    """Ask for a short-lived SSH certificate for a public key."""
    return Call(method="POST", path="/v1/ssh:certify", answer=SshCertificateView, body={"key": key})


def logs_path(project: str, ref: str) -> str:
    """Return the path of a session's log stream."""
    return _sessions(project, ref, "/logs")


def stream(project: str, ref: str, port: int, rank: int, resume: str, client: str) -> Call[StreamPermitView]:
    """Ask for a permit for a stream to a port of a session; `resume` is the id of one that is to go on.

    `client` is the SHA-256 of the certificate by which the user's end of a blind stream is known.
    """
    body = {"port": port, "rank": rank, "resume": resume, "client": client}
    return Call(method="POST", path=_sessions(project, ref, "/streams"), answer=StreamPermitView, body=body)


def forward_path(project: str, ref: str) -> str:
    """Return the path of the WebSocket that reaches a port of a session."""
    return _sessions(project, ref, "/forward")


def offers(project: str, spec: SessionSpec | Document) -> Call[DecisionView]:
    """Rank the ways to run a session in a project, without running it."""
    document = dump_session_spec(spec) if isinstance(spec, SessionSpec) else dict(spec)
    body = {"spec": document, "project": project}
    return Call(method="POST", path="/v1/offers:search", answer=DecisionView, body=body)


def agents(everything: bool) -> Call[Page[AgentView]]:
    """List agents; `everything` shows those that have left or whose machine is gone, too."""
    query = {"all": "1"} if everything else {}
    return Call(method="GET", path="/v1/agents", answer=Page[AgentView], query=query)


def agent(ref: str, verb: str = "") -> Call[AgentView]:
    """Get an agent, or do `verb` (`uncordon`, `remove`, `revoke`) to it."""
    if verb:
        return Call(method="POST", path=f"/v1/agents/{_q(ref)}:{verb}", answer=AgentView)
    return Call(method="GET", path=f"/v1/agents/{_q(ref)}", answer=AgentView)


def cordon(ref: str, deadline: float | None) -> Call[AgentView]:
    """Let an agent take no new session, and be emptied after `deadline` seconds of what can be moved (None: never)."""
    path = f"/v1/agents/{_q(ref)}:cordon"
    return Call(method="POST", path=path, answer=AgentView, body=_due(deadline))


def _due(deadline: float | None) -> dict[str, object]:
    """Return the part of a body that says it; an earlier release knows no such key."""
    return {} if deadline is None else {"deadline": deadline}


def links(site: str, group: str) -> Call[Page[LinkView]]:
    """Ask how agents' links stand."""
    query = {key: value for key, value in {"site": site, "group": group}.items() if value}
    return Call(method="GET", path="/v1/links", answer=Page[LinkView], query=query)


def ping(ref: str, count: int) -> Call[PingView]:
    """Ping an agent over each lane."""
    return Call(method="POST", path=f"/v1/links/{_q(ref)}:ping", answer=PingView, body={"count": count}, takes_s=PING_S)


def create_relay(name: str, url: str, ttl_s: float) -> Call[RelayView]:
    """Create a relay; its token is in the answer."""
    return Call(method="POST", path="/v1/relays", answer=RelayView, body={"name": name, "url": url, "ttl_s": ttl_s})


def drain_relay(ref: str, deadline: float) -> Call[RelayView]:
    """Let a relay take nothing new, and end within `deadline` seconds."""
    return Call(method="POST", path=f"/v1/relays/{_q(ref)}:drain", answer=RelayView, body={"deadline": deadline})


def streams(project: str, ref: str, user: str, after: str) -> Call[Page[StreamRecordView]]:
    """Ask who reached a session or, without `ref`, what users (or one `user`) reached."""
    path = _sessions(project, ref, "/streams") if ref else "/v1/audit/streams"
    query = {"after": after, "limit": "200", "user": "" if ref else user}
    query = {key: value for key, value in query.items() if value}
    return Call(method="GET", path=path, answer=Page[StreamRecordView], query=query)


def decisions(group: str, limit: int) -> Call[Page[StepView]]:
    """List the newest steps about a group and decisions not to act, newest first."""
    path = f"/v1/groups/{_q(group)}/decisions"
    return Call(method="GET", path=path, answer=Page[StepView], query={"limit": str(limit)})


def why(kind: str, ref: str) -> Call[WhyView]:
    """Ask why an agent or a group is as it is; `kind` is `agents` or `groups`."""
    return Call(method="GET", path=f"/v1/{kind}/{_q(ref)}/why", answer=WhyView)


Noun = Site | Group | Provider
NounView = SiteView | GroupView | ProviderView


def _noun(noun: Noun) -> tuple[str, dict[str, Any], type[NounView]]:
    """Return the collection, the document and the view of a named object."""
    if isinstance(noun, Site):
        return "sites", dump_site(noun), SiteView
    if isinstance(noun, Group):
        return "groups", dump_group(noun), GroupView
    return "providers", dump_provider(noun), ProviderView


def objects(collection: str, page: type[T]) -> Call[T]:
    """List named objects: `sites`, `groups`, `providers` or `tokens`."""
    return Call(method="GET", path=f"/v1/{collection}", answer=page)


def named(collection: str, name: str, view: type[T]) -> Call[T]:
    """Get a named object."""
    return Call(method="GET", path=f"/v1/{collection}/{_q(name)}", answer=view)


def create(noun: Noun) -> Call[NounView]:
    """Create a named object; `Conflict` when it exists."""
    collection, document, view = _noun(noun)
    return Call(method="POST", path=f"/v1/{collection}", answer=view, body=document)


def put(noun: Noun) -> Call[NounView]:
    """Create a named object, or make it as given."""
    collection, document, view = _noun(noun)
    return Call(method="PUT", path=f"/v1/{collection}/{_q(noun.name)}", answer=view, body=document)


def delete(collection: str, name: str) -> Call[None]:
    """Remove a named object or a token."""
    return Call(method="DELETE", path=f"/v1/{collection}/{_q(name)}", answer=type(None))


def put_policy(policy: Policy) -> Call[PolicyView]:
    """Create a policy, or make it as given."""
    return Call(method="PUT", path=f"/v1/policies/{_q(policy.name)}", answer=PolicyView, body=dump_policy(policy))


def shadow(name: str) -> Call[None]:
    """Evaluate a policy beside the live one; empty: none."""
    return Call(method="POST", path="/v1/policies:shadow", answer=type(None), body={"name": name})


def policy_diff() -> Call[ShadowView]:
    """Ask what the shadow would have decided otherwise."""
    return Call(method="GET", path="/v1/policies:diff", answer=ShadowView)


def policy_problems() -> Call[Page[RuleProblemView]]:
    """Ask which rules and plug-ins fail."""
    return Call(method="GET", path="/v1/policies:problems", answer=Page[RuleProblemView])


def put_budget(budget: Budget) -> Call[BudgetView]:
    """Create a budget, or make it as given."""
    return Call(method="PUT", path=f"/v1/budgets/{_q(budget.name)}", answer=BudgetView, body=dump_budget(budget))


def shapes(provider: str) -> Call[Page[ShapeView]]:
    """List what a provider could make now."""
    return Call(method="GET", path=f"/v1/providers/{_q(provider)}/shapes", answer=Page[ShapeView])


def provider_doctor(provider: str) -> Call[Page[FindingView]]:
    """Check a provider's account."""
    return Call(method="GET", path=f"/v1/providers/{_q(provider)}/doctor", answer=Page[FindingView])


def provider_health(provider: str) -> Call[HealthView]:
    """Look at a provider's limits, pauses, credentials' age and last sweep."""
    return Call(method="GET", path=f"/v1/providers/{_q(provider)}/health", answer=HealthView)


def rotate(provider: str, credentials: Document) -> Call[ProviderView]:
    """Replace a provider's credentials once they are found to work."""
    body = {"credentials": dict(credentials)}
    return Call(method="POST", path=f"/v1/providers/{_q(provider)}:rotate", answer=ProviderView, body=body)


def resize(group: str, least: int | None, most: int | None) -> Call[GroupView]:
    """Change a group's bounds; None leaves one as it is."""
    path = f"/v1/groups/{_q(group)}:resize"
    return Call(method="POST", path=path, answer=GroupView, body={"min": least, "max": most})


def terminate(group: str, now: bool, deadline: float | None) -> Call[GroupView]:
    """Close a group; with `now` whatever runs there, after `deadline` seconds what can be moved is moved off."""
    path = f"/v1/groups/{_q(group)}:terminate"
    return Call(method="POST", path=path, answer=GroupView, body={"now": now, **_due(deadline)})


def price_lists() -> Call[Page[PriceListView]]:
    """Ask how the prices of all providers stand."""
    return Call(method="GET", path="/v1/prices", answer=Page[PriceListView])


def prices(provider: str, shape: str) -> Call[PriceListView]:
    """Ask for a provider's prices of the shapes that match a pattern."""
    return Call(method="GET", path=f"/v1/prices/{_q(provider)}", answer=PriceListView, query={"shape": shape})


def update_prices(provider: str, accept_jumps: bool) -> Call[PriceListView]:
    """Let a provider's live source be read now."""
    path, body = f"/v1/prices/{_q(provider)}:update", {"accept_jumps": accept_jumps}
    return Call(method="POST", path=path, answer=PriceListView, body=body, takes_s=PRICES_S)


def import_prices(body: Document) -> Call[Page[PriceListView]]:
    """Put a price file's lists in place."""
    return Call(method="POST", path="/v1/prices:import", answer=Page[PriceListView], body=dict(body))


def export_prices(provider: str) -> Call[PriceDocument]:
    """Ask for the lists in place as a price file."""
    query = {"provider": provider} if provider else {}
    return Call(method="GET", path="/v1/prices:export", answer=PriceDocument, query=query)


def sweep(provider: str, dry_run: bool) -> Call[Page[SweepFinding]]:
    """Compare a provider's inventory with the store and put right what differs (or say what would be)."""
    path = f"/v1/providers/{_q(provider)}:sweep"
    return Call(method="POST", path=path, answer=Page[SweepFinding], body={"dry_run": dry_run})


def instances(group: str, provider: str, live: bool) -> Call[Page[InstanceView]]:
    """List instances."""
    query = {"group": group, "provider": provider, "live": "1" if live else ""}
    query = {key: value for key, value in query.items() if value}
    return Call(method="GET", path="/v1/instances", answer=Page[InstanceView], query=query)


def create_token(body: Document) -> Call[TokenView]:
    """Make a token; its secret is in this answer only."""
    return Call(method="POST", path="/v1/tokens", answer=TokenView, body=dict(body))


def usage(since: float) -> Call[UsageView]:
    """Sum up cost since a moment (Unix seconds)."""
    return Call(method="GET", path="/v1/usage", answer=UsageView, query={"since": f"{since:.3f}"})


def events(since: int, limit: int) -> Call[Page[EventView]]:
    """List events after a revision."""
    return Call(
        method="GET", path="/v1/events", answer=Page[EventView], query={"since": str(since), "limit": str(limit)}
    )


def status() -> Call[StatusView]:
    """Look at the installation."""
    return Call(method="GET", path="/v1/status", answer=StatusView)


def standing_authority() -> Call[AuthorityView]:
    """Look at the installation's CAs."""
    return Call(method="GET", path="/v1/authority", answer=AuthorityView)


def rotate_authority() -> Call[AuthorityView]:
    """Begin to sign with a new CA."""
    return Call(method="POST", path="/v1/authority:rotate", answer=AuthorityView)


def retire_authority(force: bool) -> Call[AuthorityView]:
    """Trust the new CA alone."""
    return Call(method="POST", path="/v1/authority:retire", answer=AuthorityView, body={"force": force})


def authority() -> Call[Certificate]:
    """Fetch the installation's CA certificate; needs no token."""
    return Call(method="GET", path="/v1/ca", answer=Certificate)
