"""One full row of every kind, for tests of stores."""

from dataclasses import replace

from atoll.agent import Agent
from atoll.budget import Budget, Do, Period, Stage
from atoll.group import Group, GroupKind, Pools, Provider, Size
from atoll.instance import Instance, Shape
from atoll.mesh import End, Mesh, MeshState
from atoll.offer import Decision, Offer, OfferKind, Outcome, Rejection
from atoll.plan import Action, Note, Plan, Step
from atoll.policy import Approve, Deny, Homecoming, Policy, Prefer
from atoll.price import Commitment, Price, PriceList, PriceRules, Remark
from atoll.relay import Relay, RelayState
from atoll.session import Member, MemberState, Session, SessionSpec, Stretch
from atoll.site import Site
from atoll.slots import GIB, Gpu, GpuRequest, Request, Slots
from atoll.states import InstanceState, Reason, SessionState
from atoll.streamrecord import Sighting, StreamRecord, StreamState
from atoll.token import Token, TokenKind
from federation.ports import Row

SLOTS = Slots(4000, 16 * GIB, 0, (Gpu("L4", 1000, 24 * GIB),))
SHAPE = Shape(provider="cloud", name="g2", zone="z1", slots=SLOTS, price=700_000, catalogue="2026-01")

STRETCH = Stretch(
    site="far", group="g", agents=("a-9",), price=9, started_at=1.5, ended_at=4.5, cost=7, on_demand_cost=8
)


def session(
    key: str = "s-1", *agents: str, created_at: float = 5.0, state: SessionState = SessionState.QUEUED
) -> Session:
    members = tuple(
        Member(rank=rank, agent=agent, slots=SLOTS, state=MemberState.RUNNING, apps={"web": 80}, started_at=7)
        for rank, agent in enumerate(agents)
    )
    spec = SessionSpec(
        command=("python", "-c", "print('grüße \x00 €')"),
        env={"A": "b"},
        resources=Request(500, GIB, 0, GpuRequest(1000, ("L4",), 8 * GIB)),
    )
    return Session(
        id=key, name=f"n-{key}", project="default", owner="me", spec=spec, state=state, members=members,
        stopping_as=SessionState.CANCELLED, on_demand_price=3, created_at=created_at, stretches=(STRETCH,),
    )  # fmt: skip


def token(key: str = "hash", *, uses: int = 1, expires_at: float | None = None, created_at: float = 1.0) -> Token:
    return Token(
        id=key, kind=TokenKind.JOIN, owner="me", site="home", group="local", instance="i-1", uses_left=uses,
        expires_at=expires_at, created_at=created_at,
    )  # fmt: skip


def site(name: str = "home", created_at: float = 1.0) -> Site:
    return Site(name=name, labels={"zone": "1"}, price=12, created_at=created_at)


def decision(number: int = 0) -> Decision:
    offer = Offer(
        kind=OfferKind.AGENT, site="home", group="local", target="a-1", slots=SLOTS, price=1, cost=number, start_s=1
    )
    refusal = Rejection(site="x", group="y", target="z", reason=Reason.PRICE_LIMIT, message="0.70 > 0.50")
    return Decision(
        session="s-1", outcome=Outcome.PLACE, reason=Reason.PLACED, message="fits", taken=(offer,), ranked=(offer,),
        rejected=(refusal,), considered=number,
    )  # fmt: skip


def price_list(provider: str = "cloud") -> PriceList:
    price = Price(shape="g2", amount=700_000, zone="z1", spot=True, cpu=4000, memory=16 * GIB, gpus=1, gpu_model="L4")
    doubt = Remark(price=Price(shape="g3", amount=0), reason="is zero", before=7)
    return PriceList(provider=provider, source="a file", currency="EUR", at=3.0, prices=(price,), remarks=(doubt,))


def every_kind() -> list[Row]:
    step = Step(action=Action.LAUNCH, group="g", reason=Reason.DEMAND, message="m", shape=SHAPE, sessions=("s-1",))
    note = Note(group="g", reason=Reason.MAX_SIZE, message="full")
    return [
        session("s-1", "a-1", "a-2"),
        Agent(id="a-1", name="n", site="home", group="local", capacity=SLOTS, facts={"os": "linux"}, joined_at=3.5),
        Group(name="g", site="home", kind=GroupKind.ELASTIC, spot=True, size=Size(max=7), pools=Pools(cold=1)),
        Provider(
            name="cloud",
            kind="sim",
            settings={"zones": ["a", "b"], "deep": {"n": 1, "f": 1.5, "no": None}},
            prices=PriceRules(discount=0.1, commitments=(Commitment(shape="g2", count=2, price=5),)),
        ),
        Instance(id="i-1", provider="cloud", group="g", site="home", shape=SHAPE, state=InstanceState.BOOTING),
        site(),
        token(expires_at=9.25),
        Plan(id="p-1", generation=3, at=4.0, steps=(step,), notes=(note,), awaits=(("s-1", "i-1"),)),
        price_list(),
        Policy(
            name="default",
            deny=(Deny(when="offer.site == 'far'", reason="too far"),),
            approve=(Approve(when="session.gpu > 4", role="lead"),),
            prefer=(Prefer(when="offer.spot", cost="x1.5"),),
            max_wait=60.0,
            wait_value=36_000,
            shares={"red": 2.0},
            homecoming=Homecoming(max_moves=3),
        ),
        Budget(
            name="red",
            amount=5_000_000,
            project="red",
            period=Period.WEEK,
            zone="Asia/Seoul",
            stages=(Stage(at=0.5, do=Do.OWNED_ONLY), Stage(at=1.0, do=Do.STOP)),
            stage=Do.OWNED_ONLY,
            stage_at=7.0,
        ),
        _relay(),
        _mesh(),
        _record(),
    ]


def _relay() -> Relay:
    plain = Relay(id="r-1", name="east", url="https://east.example", state=RelayState.DRAINING)
    return replace(plain, message="m", key="k", issued_by="ca", boot="b", seen_at=4.5)


def _mesh() -> Mesh:
    return Mesh(
        name="a+b",
        ends=(
            End(site="a", networks=("fd00:0:0:1::/64",), subnets=("10.1.0.0/16",), agent="ag-1", key="K=", next="N="),
            End(
                site="b",
                networks=("fd00:0:0:2::/64", "100.64.2.0/24"),
                keyed_at=7.5,
                endpoint="192.0.2.1:51820",
                given=True,
            ),
        ),
        state=MeshState.DEGRADED,
        message="m",
        hint="h",
        since=8.0,
    )


def _record() -> StreamRecord:
    return StreamRecord(
        id="st-1",
        state=StreamState.SUMMED,
        project="default",
        session="s-1",
        run="s-1.1.0",
        user="ada",
        door="ssh",
        app="web",
        port=22,
        exec=True,
        source="192.0.2.7",
        lanes=("mux", "data"),
        streams=3,
        resumed=2,
        received=7,
        sent=8,
        reason="RESET",
        message="m",
        began_at=9.0,
        ended_at=10.0,
        seen=(
            Sighting(
                by="r-1/b1/7",
                whole=True,
                via="east",
                lane="data",
                source="192.0.2.7",
                resumed=1,
                received=7,
                sent=8,
                reason="UNSEEN",
                message="m",
                began_at=9.0,
                ended_at=10.0,
            ),
        ),
    )
