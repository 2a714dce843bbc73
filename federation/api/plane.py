"""The control plane as the API, the pages and the gateway see it: `federation.control.control.Control` fits."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeAlias, TypeVar

from atoll.agent import Agent
from atoll.budget import Budget
from atoll.clock import Clock
from atoll.group import Group, Provider
from atoll.instance import Instance, Shape
from atoll.offer import Decision
from atoll.plan import Plan
from atoll.policy import Policy
from atoll.session import Session, SessionSpec
from atoll.site import Site
from atoll.token import Token
from federation.api.caplane import RotationPort
from federation.api.linkplane import LinkFactsPort, LinksPort, MetricsPort, RecordsPort, StreamsPort
from federation.api.meshplane import MeshesPort
from federation.api.relayplane import RelaysPort
from federation.api.shareplane import SharingPort
from federation.control.config import ControlConfig
from federation.control.policies import Shadow
from federation.control.prices import PriceFile, Standing
from federation.control.rulings import Active
from federation.control.spending import Account
from federation.ports import Bus, LogStore, Store
from providers.port import Driver

Runs: TypeAlias = dict[str, list[tuple[str, Session]]]
"""Live runs by agent id, each with its session."""

Noun = TypeVar("Noun", Site, Group, Provider)


class Live(Protocol):
    """A registered link."""

    @property
    def connected(self) -> bool:
        """Whether the link is up."""
        ...

    @property
    def rtt(self) -> float | None:
        """Round-trip time in seconds."""
        ...


class SessionsPort(Protocol):
    """Use cases of sessions; `ref` is an id or a name. All raise `NotFound` with a hint."""

    async def submit(
        self,
        spec: SessionSpec,
        *,
        project: str,
        owner: str,
        count: int = 1,
        idempotency: tuple[str, str] | None = None,
    ) -> list[Session]:
        """Queue `count` sessions; `idempotency` is (key, fingerprint of the request)."""
        ...

    async def get(self, project: str, ref: str) -> Session:
        """Return one."""
        ...

    async def list(
        self, project: str, *, states: Sequence[str] = (), after: str = "", limit: int = 100
    ) -> list[Session]:
        """Return a page, newest first."""
        ...

    async def stop(self, project: str, ref: str, *, by: str) -> Session:
        """Begin to stop one."""
        ...


class MovesPort(Protocol):
    """Moves of sessions."""

    async def request(self, project: str, ref: str, to: str, *, by: str) -> Session:
        """Begin to move one to a site or an agent, with `to` empty to the queue."""
        ...


class AgentsPort(Protocol):
    """Use cases of agents, and what is observed about them."""

    async def list(self, *, states: Sequence[str] = ...) -> list[Agent]:
        """Return those in `states`; by default all that belong to the installation."""
        ...

    async def placed(self) -> Runs:
        """Return the live runs of every agent, as (run id, session)."""
        ...

    async def get(self, ref: str) -> Agent:
        """Return one by id or name."""
        ...

    async def cordon(self, ref: str, by: str, deadline_s: float | None = None) -> Agent:
        """Let it take no new session; after `deadline_s` seconds what can take a checkpoint is moved off it."""
        ...

    async def uncordon(self, ref: str, by: str) -> Agent:
        """Let it take sessions again."""
        ...

    async def remove(self, ref: str, by: str) -> Agent:
        """Take it out of the installation."""
        ...

    async def revoke(self, ref: str, by: str) -> Agent:
        """Make its certificate worth nothing and end its link with all streams."""
        ...

    def live(self, agent: str, /) -> Live | None:
        """Return its registered link."""
        ...


class NounsPort(Protocol[Noun]):
    """Use cases of sites, groups and providers."""

    async def list(self) -> list[Noun]:
        """Return all."""
        ...

    async def get(self, name: str) -> Noun:
        """Return one, or raise `NotFound`."""
        ...

    async def create(self, row: Noun) -> Noun:
        """Add one, or raise `Conflict`."""
        ...

    async def apply(self, row: Noun) -> tuple[Noun, bool]:
        """Add or change one; the flag says that it is new."""
        ...

    async def delete(self, name: str) -> None:
        """Remove one that nothing depends on, or raise `Conflict`."""
        ...


class GroupsPort(NounsPort[Group], Protocol):
    """Groups and their plans."""

    async def plans(self, name: str, limit: int) -> list[Plan]:
        """Return the newest plans that mention the group, newest first."""
        ...

    async def resize(self, name: str, *, least: int | None, most: int | None, by: str) -> Group:
        """Change an elastic group's bounds."""
        ...

    async def terminate(self, name: str, *, now: bool, by: str, deadline_s: float | None = None) -> Group:
        """Close an elastic group; with `now` whatever runs there."""
        ...


class ProvidersPort(NounsPort[Provider], Protocol):
    """Providers and their drivers."""

    async def driver(self, name: str) -> Driver:
        """Return the driver of a provider."""
        ...

    async def shapes(self, name: str) -> Sequence[Shape]:
        """Return what it could make now."""
        ...

    async def rotate(self, name: str, credentials: Mapping[str, object], *, by: str) -> Provider:
        """Replace its credentials by ones that work, or raise `Conflict`."""
        ...


class InstancesPort(Protocol):
    """Machines at providers."""

    async def list(self, *, group: str = "", provider: str = "", states: Sequence[Any] = ()) -> list[Instance]:
        """Return those that match."""
        ...


class JoinedPort(Protocol):
    """What a join returns."""

    @property
    def agent(self) -> Agent:
        """The new agent."""
        ...

    @property
    def certificate(self) -> str:
        """Its certificate, PEM."""
        ...


class TokensPort(Protocol):
    """Credentials."""

    async def create_join(self, *, site: str, group: str, uses: int, ttl_s: float, owner: str) -> tuple[Token, str]:
        """Return the row and its secret."""
        ...

    async def create_api(self, owner: str, roles: Sequence[str] = ()) -> tuple[Token, str]:
        """Return the row and its secret, `atk_…`."""
        ...

    async def authenticate(self, secret: str) -> Token:
        """Return the API token, or raise `Unauthorized`."""
        ...

    async def standing(self, owner: str, token: str = "") -> tuple[str, ...] | None:
        """Return the roles that a user's API tokens give, or just the one with this id; None where there is none."""
        ...

    async def list(self) -> list[Token]:
        """Return all."""
        ...

    async def delete(self, id_prefix: str) -> None:
        """Remove one."""
        ...

    async def join(self, secret: str, csr: str, name: str, facts: dict[str, str]) -> JoinedPort:
        """Use up a join token."""
        ...

    async def renew(self, certificate: str, csr: str) -> str:
        """Return a new certificate for an agent whose last one has ended."""
        ...


class WhyPort(Protocol):
    """Explanations; each answer has the fields of `WhyView` as nouns."""

    async def session(self, project: str, ref: str) -> Any:
        """Explain a session."""
        ...

    async def agent(self, ref: str) -> Any:
        """Explain an agent."""
        ...

    async def group(self, name: str) -> Any:
        """Explain a group."""
        ...


class OffersPort(Protocol):
    """The router, dry."""

    async def search(self, spec: SessionSpec, *, project: str, owner: str) -> Decision:
        """Rank everything for a session, and say whether it would be held."""
        ...


class UsagePort(Protocol):
    """The ledger."""

    async def summary(self, since: float) -> Any:
        """Return the fields of `UsageView` in micro-units."""
        ...


class SweeperPort(Protocol):
    """The sweep."""

    async def sweep(self, provider: str, dry_run: bool) -> Sequence[Any]:
        """Return the fields of `SweepFinding` for each finding."""
        ...


class HealthPort(Protocol):
    """How providers' accounts are."""

    async def look(self, name: str) -> Any:
        """Return the fields of `federation.control.health.Health`."""
        ...


class PricesPort(Protocol):
    """Price lists of providers."""

    async def standings(self, provider: str = "") -> list[Standing]:
        """Return how the prices of one or all stand; `NotFound` for an unknown one."""
        ...

    async def update(self, provider: str, *, by: str, accept_jumps: bool = False) -> Standing:
        """Read the live source now."""
        ...

    async def import_file(self, given: PriceFile, *, by: str) -> list[Standing]:
        """Put a file's lists in place."""
        ...

    async def export(self, provider: str = "") -> str:
        """Return the lists in place as a file's text."""
        ...


class PoliciesPort(Protocol):
    """Policies, the shadow, and what is in force."""

    @property
    def failed(self) -> Mapping[str, str]:
        """Plug-ins that could not be loaded, with why."""
        ...

    @property
    def shadow_name(self) -> str:
        """The shadow's name."""
        ...

    async def list(self) -> list[Policy]:
        """Return all."""
        ...

    async def get(self, name: str) -> Policy:
        """Return one, or raise `NotFound`."""
        ...

    async def apply(self, row: Policy, *, by: str) -> tuple[Policy, bool]:
        """Add or change one; the flag says that it is new."""
        ...

    async def delete(self, name: str, *, by: str) -> None:
        """Remove one."""
        ...

    async def active(self) -> Active:
        """Return what is in force."""
        ...

    async def set_shadow(self, name: str, *, by: str) -> None:
        """Choose the shadow."""
        ...

    async def differences(self) -> Shadow:
        """Return what is known of the shadow."""
        ...


class BudgetsPort(Protocol):
    """Budgets."""

    async def list(self) -> list[Account]:
        """Return how all stand."""
        ...

    async def get(self, name: str) -> Account:
        """Return how one stands, or raise `NotFound`."""
        ...

    async def apply(self, row: Budget, *, by: str) -> bool:
        """Add or change one; return whether it is new."""
        ...

    async def delete(self, name: str, *, by: str) -> None:
        """Remove one."""
        ...


class ApprovalsPort(Protocol):
    """Approvals."""

    async def approve(self, project: str, ref: str, *, by: str, has: Sequence[str], role: str = "") -> Session:
        """Approve a waiting session."""
        ...


class Plane(Protocol):
    """All of it."""

    @property
    def config(self) -> ControlConfig:
        """Addresses and keys."""
        ...

    @property
    def store(self) -> Store:
        """The store."""
        ...

    @property
    def logs(self) -> LogStore:
        """Sessions' output."""
        ...

    @property
    def bus(self) -> Bus:
        """Hints."""
        ...

    @property
    def clock(self) -> Clock:
        """Time."""
        ...

    @property
    def sessions(self) -> SessionsPort:
        """Sessions."""
        ...

    @property
    def agents(self) -> AgentsPort:
        """Agents."""
        ...

    @property
    def sites(self) -> NounsPort[Site]:
        """Sites."""
        ...

    @property
    def groups(self) -> GroupsPort:
        """Groups."""
        ...

    @property
    def providers(self) -> ProvidersPort:
        """Providers."""
        ...

    @property
    def instances(self) -> InstancesPort:
        """Instances."""
        ...

    @property
    def meshes(self) -> MeshesPort:
        """Meshes."""
        ...

    @property
    def relays(self) -> RelaysPort:
        """Relays."""
        ...

    @property
    def rotation(self) -> RotationPort:
        """The CA."""
        ...

    @property
    def tokens(self) -> TokensPort:
        """Tokens."""
        ...

    @property
    def offers(self) -> OffersPort:
        """Offers."""
        ...

    @property
    def why(self) -> WhyPort:
        """Explanations."""
        ...

    @property
    def usage(self) -> UsagePort:
        """Usage."""
        ...

    @property
    def sweeper(self) -> SweeperPort:
        """Sweeps."""
        ...

    @property
    def health(self) -> HealthPort:
        """Providers' health."""
        ...

    @property
    def prices(self) -> PricesPort:
        """Prices."""
        ...

    @property
    def moves(self) -> MovesPort:
        """Moves."""
        ...

    @property
    def sharing(self) -> SharingPort:
        """Whom apps let in."""
        ...

    @property
    def policies(self) -> PoliciesPort:
        """Policies."""
        ...

    @property
    def budgets(self) -> BudgetsPort:
        """Budgets."""
        ...

    @property
    def approvals(self) -> ApprovalsPort:
        """Approvals."""
        ...

    @property
    def links(self) -> LinksPort:
        """Links."""
        ...

    @property
    def records(self) -> RecordsPort:
        """Records of users' streams."""
        ...

    @property
    def metrics(self) -> MetricsPort:
        """Figures."""
        ...

    @property
    def linkfacts(self) -> LinkFactsPort:
        """How links stand."""
        ...

    @property
    def streams(self) -> StreamsPort:
        """Users' streams."""
        ...

    async def status(self) -> Any:
        """Return the fields of `StatusView`, money in micro-units."""
        ...
