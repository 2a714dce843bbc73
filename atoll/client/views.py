"""The REST API's objects, as both ends see them: the server encodes these, the SDK decodes them.

In views money is in units (0.526 USD an hour), cpu in cores, memory in bytes, times in Unix seconds;
`spec` and group fields have the document form of `atoll.document`, the one that YAML files use.
"""

from typing import Any

import msgspec


class View(msgspec.Struct, kw_only=True):
    """Base of all views."""


class GpuView(View):
    """Devices of one model: `count` of them, `memory` bytes each."""

    model: str
    count: float
    memory: int


class SlotsView(View):
    """An amount of resources: cores, bytes, devices."""

    cpu: float = 0.0
    memory: int = 0
    disk: int = 0
    gpu: list[GpuView] = []


class MemberView(View):
    """One member of a session's current attempt."""

    rank: int
    agent: str
    agent_name: str
    slots: SlotsView
    state: str
    exit_code: int | None = None
    limits: str = ""
    apps: dict[str, int] = {}


class SessionView(View):
    """A session. `cost` is what it has cost up to now, `saved` that against on-demand prices.

    `wait_s` is the time it has waited for a place, over all attempts. `moves` counts how often it was moved;
    `moving` is the reason of the move that is under way. `ran_s` is how long earlier attempts ran whose work was kept.
    """

    id: str
    name: str
    project: str
    owner: str
    state: str
    reason: str
    message: str
    hint: str
    attempt: int
    interruptions: int
    moves: int
    moving: str
    exit_code: int | None
    site: str
    group: str
    instance: str
    members: list[MemberView]
    apps: dict[str, str]
    cost: float
    price: float
    on_demand_cost: float
    wait_s: float
    created_at: float
    started_at: float | None
    ended_at: float | None
    spec: dict[str, Any]
    approved_by: str = ""
    ran_s: float = 0.0


class AgentView(View):
    """An agent with what it has, what is free, and whether its link is up. `runs` are its live run ids.

    `drain_until` (Unix seconds) is when what can be moved is moved off one that drains (none: never).
    """

    id: str
    name: str
    site: str
    group: str
    state: str
    reason: str
    message: str
    connected: bool
    rtt_ms: float | None
    capacity: SlotsView
    free: SlotsView
    price: float
    spot: bool
    instance: str
    epoch: int
    drain_until: float | None
    protected: bool
    runs: list[str]
    facts: dict[str, str]
    joined_at: float
    ended_at: float | None


class InstanceView(View):
    """A provider-side machine, from intent to its observed end; `catalogue` is the price list of its `price`."""

    id: str
    provider: str
    group: str
    site: str
    shape: str
    zone: str
    spot: bool
    state: str
    reason: str
    message: str
    provider_id: str
    agent: str
    price: float
    cost: float
    console: str
    created_at: float
    joined_at: float | None
    ended_at: float | None
    catalogue: str = ""


class SiteView(View):
    """A place, with what its agents have and what is free there; `upkeep` is what its price follows from.

    `egress` is what a GiB that leaves it costs.
    """

    name: str
    labels: dict[str, str]
    price: float
    agents: int
    connected: int
    capacity: SlotsView
    free: SlotsView
    created_at: float
    upkeep: str = ""
    egress: float = 0.0
    blind: bool = False


class GroupView(View):
    """A group with its counts: connected agents, launches under way, cold instances. `spec` is its document."""

    name: str
    site: str
    kind: str
    provider: str
    agents: int
    pending: int
    cold: int
    draining: int
    cost: float
    spec: dict[str, Any]
    created_at: float


class PriceView(View):
    """A row of a price list: what the list says of a machine type, in its currency, and what this account pays.

    `price` is None where nothing is to be believed: unpriced, never chosen.
    """

    shape: str
    zone: str
    spot: bool
    listed: float
    price: float | None
    cpu: float
    gpus: int
    gpu_model: str


class PriceRemarkView(View):
    """What a check said about a row; a `dropped` one is not used."""

    shape: str
    zone: str
    spot: bool
    listed: float
    reason: str
    dropped: bool


class PriceListView(View):
    """How a provider's prices stand. `at` is their date, None where there are none; rows only where asked for.

    `live` says that its cloud has a source that is read regularly, `failure` what that source last failed with;
    `blocks` that nothing is launched at stale prices.
    """

    provider: str
    kind: str
    source: str
    currency: str
    at: float | None
    age_s: float | None
    stale: bool
    blocks: bool
    live: bool
    count: int
    dropped: int
    failure: str
    failed_at: float | None
    rules: dict[str, Any]
    rows: list[PriceView] = []
    remarks: list[PriceRemarkView] = []


class PolicyView(View):
    """A policy; `active`: it is in force; `shadow`: it is evaluated beside the one in force. `spec` is its document."""

    name: str
    project: str
    active: bool
    shadow: bool
    spec: dict[str, Any]
    created_at: float


class DifferenceView(View):
    """A waiting session that live policy and shadow decided otherwise."""

    at: float
    session: str
    name: str
    live: str
    shadow: str


class ShadowView(View):
    """What is known of the shadow policy: sessions it was asked about, differences by kind, the newest of them."""

    policy: str
    since: float
    asked: int
    counts: dict[str, int]
    newest: list[DifferenceView]


class RuleProblemView(View):
    """A rule or plug-in that does not apply since it fails."""

    rule: str
    why: str


class BudgetView(View):
    """How a budget stands: `left` is what is neither spent nor committed, `stage` what is done now (empty: nothing).

    `began` and `ends` are its present period's; `ends` is None for one that has no end.
    """

    name: str
    project: str
    period: str
    amount: float
    spent: float
    committed: float
    left: float
    stage: str
    began: float
    ends: float | None
    spec: dict[str, Any]
    created_at: float


class ProviderView(View):
    """A cloud account. `credentials_at` is since when it has the credentials it has here, None where it has none."""

    name: str
    kind: str
    settings: dict[str, Any]
    live: int
    created_at: float
    prices: dict[str, Any] = {}
    orphans: str = "terminate"
    credentials_at: float | None = None


class CaView(View):
    """A certificate authority that is trusted, named by its SHA-256 in hex; one of them signs."""

    sha256: str
    since: float
    until: float
    signs: bool


class BehindView(View):
    """An agent that has yet to move to the new certificate authority, and what it lacks."""

    agent: str
    lacks: str


class AuthorityView(View):
    """The certificate authorities that are trusted, newest first, and the agents that have yet to move to it."""

    authorities: list[CaView]
    behind: list[BehindView]


class TokenView(View):
    """A token without its secret; `secret`, `command` and `paste` are only in the answer to its creation."""

    id: str
    kind: str
    owner: str
    site: str
    group: str
    uses_left: int
    expires_at: float | None
    created_at: float
    roles: list[str] = []
    secret: str = ""
    command: str = ""
    paste: str = ""


class CostView(View):
    """What an offer's cost is made of; `risk`, `scarcity` and `delay` decide between offers, and nobody pays them."""

    run: float = 0.0
    delay: float = 0.0
    egress: float = 0.0
    risk: float = 0.0
    scarcity: float = 0.0
    policy: float = 0.0


class OfferView(View):
    """One ranked way to run a session; `price` an hour for its share, `cost` expected in all, made of `parts`."""

    kind: str
    site: str
    group: str
    target: str
    slots: SlotsView
    price: float
    cost: float
    start_s: float
    spot: bool
    parts: CostView = msgspec.field(default_factory=CostView)


class ShapeView(OfferView):
    """A shape of a provider, as an offer for a whole machine; a price of 0 means that none is known.

    `billing_s` is the period it is charged by, `interruptions` how often an hour it is taken away (None: unknown).
    """

    billing_s: float = 1.0
    interruptions: float | None = None


class RejectionView(View):
    """Why something is no offer."""

    site: str
    group: str
    target: str
    reason: str
    message: str


class DecisionView(View):
    """What was decided for a session, with the alternatives. `at` is 0 for a dry run."""

    at: float
    outcome: str
    reason: str
    message: str
    hint: str
    taken: list[OfferView]
    ranked: list[OfferView]
    rejected: list[RejectionView]
    considered: int


class StepView(View):
    """A plan step or, with `action` `keep`, a decision not to act."""

    at: float
    plan: str
    action: str
    group: str
    reason: str
    message: str
    agent: str = ""
    instance: str = ""
    shape: str = ""
    sessions: list[str] = []


class WhyView(View):
    """The answer of `atoll why`: the present state in words, the decisions that led there, newest first, events."""

    kind: str
    id: str
    name: str
    state: str
    reason: str
    message: str
    hint: str
    decisions: list[DecisionView] = []
    steps: list[StepView] = []
    events: list["EventView"] = []


class EventView(View):
    """One change."""

    rev: int
    at: float
    kind: str
    key: str
    name: str
    state: str
    reason: str
    message: str


class UsageRow(View):
    """Cost of one site and group: what instances cost, what sessions there were charged, and on-demand prices."""

    site: str
    group: str
    sessions: int
    session_cost: float
    instance_cost: float
    on_demand_cost: float
    instances: int
    live: int


class UsageView(View):
    """`atoll cost`: rows and totals. `saved` is what on-demand prices would have cost more for the same runs."""

    since: float
    currency: str
    rows: list[UsageRow]
    session_cost: float
    instance_cost: float
    on_demand_cost: float
    simulated: bool


class SweepFinding(View):
    """Something a sweep saw that cloud and store do not agree on, and what it did (or would do)."""

    provider: str
    instance: str
    provider_id: str
    state: str
    finding: str
    action: str


class LimitView(View):
    """What an account may have of something. `committed` is what lives or is to; `learned`: it follows from a refusal.

    `left_s` is for how long a learned one is believed yet.
    """

    name: str
    limit: int
    committed: int
    counts: str
    shapes: list[str]
    spot: bool | None
    learned: bool
    left_s: float


class PauseView(View):
    """A class of calls, or a shape, that is left alone for `left_s` seconds yet."""

    what: str
    why: str
    left_s: float


class HealthView(View):
    """A provider's account: limits, pauses, the age of its credentials (None: it has none here), its last sweep."""

    orphans: str
    live: int
    credentials_age_s: float | None
    limits: list[LimitView]
    pauses: list[PauseView]
    swept_at: float | None = None
    swept: str = ""


class FindingView(View):
    """One line of `doctor`; `details` is longer text, such as the policy that grants the missing rights."""

    check: str
    ok: bool
    message: str
    hint: str = ""
    details: str = ""


class SshCertificateView(View):
    """`/v1/ssh:certify`: an OpenSSH certificate, good until `expires_at`, and the key that the SSH door shows."""

    certificate: str
    host_key: str
    user: str
    expires_at: float


class WayView(View):
    """Where a relay's door for users is, and the name in the certificate there."""

    host: str
    port: int
    server_name: str


class StreamPermitView(View):
    """`/v1/projects/{project}/sessions/{ref}/streams`: permission for one stream, by any of these `ways`.

    `grant` (Base64) is shown at the door, for the stream of the id `resume` (hex) to this `run` on this `agent`;
    `ca` (PEM) signs the doors' certificates. It is good for `valid_s` seconds from when it was asked for.
    """

    agent: str
    run: str
    app: str
    port: int
    resume: str
    grant: str
    expires_at: float
    valid_s: float
    ways: list[WayView]
    ca: str


class StatusView(View):
    """`/v1/status`: the installation in one look, for the overview page and `atoll doctor`."""

    installation: str
    version: str
    protocol: int
    started_at: float
    database: str
    sessions: dict[str, int]
    agents_connected: int
    agents: int
    instances_live: int
    oldest_wait_s: float
    oldest_wait_session: str
    oldest_wait_reason: str
    cost_now_per_hour: float
    rev: int


class Problem(View):
    """RFC 9457 problem+json, with `code`, `reason` and `hint` of Atoll."""

    type: str = "about:blank"
    title: str = ""
    status: int = 500
    detail: str = ""
    code: str = "INTERNAL"
    reason: str = ""
    hint: str = ""
    id: str = ""
