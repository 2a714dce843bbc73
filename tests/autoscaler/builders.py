"""Short ways to write groups, agents and demands."""

from atoll.group import Group, GroupKind, Pools, ScaleDown, Size
from atoll.instance import Shape
from atoll.offer import Demand
from atoll.plan import Action, Plan, Step
from atoll.slots import GIB, Gpu, GpuRequest, Request, Slots
from atoll.states import AgentState, Reason
from autoscaler.plan import plan
from autoscaler.view import AgentView, GroupView


def slots(cpu: float = 4, memory: float = 16, gpu: str = "", count: float = 0) -> Slots:
    gpus = (Gpu(gpu, round(count * 1000), 16 * GIB),) if gpu else ()
    return Slots(round(cpu * 1000), round(memory * GIB), 0, gpus)


def shape(
    cpu: float = 4, price: int | None = 100_000, name: str = "", *, spot: bool = False, has: Slots | None = None
) -> Shape:
    whole = has or slots(cpu, cpu * 4)
    return Shape(provider="sim", name=name or f"m{cpu:g}", zone="z1", slots=whole, price=price, spot=spot)


def request(cpu: float = 1, memory: float = 1, gpu: float = 0) -> Request:
    return Request(round(cpu * 1000), round(memory * GIB), 0, GpuRequest(round(gpu * 1000)))


def demand(
    session: str = "s-1",
    cpu: float = 1,
    *,
    gpu: float = 0,
    nodes: int = 1,
    groups: tuple[str, ...] = (),
    max_price: int | None = None,
    spot: bool = True,
) -> Demand:
    return Demand(
        session=session, request=request(cpu, gpu=gpu), nodes=nodes, groups=groups, max_price=max_price, spot=spot
    )


def demands(count: int, cpu: float = 1) -> list[Demand]:
    return [demand(f"s-{n}", cpu) for n in range(count)]


def group(
    name: str = "cloud",
    *,
    least: int = 0,
    most: int = 4,
    hot: Request | None = None,
    hot_count: int = 0,
    cold: int = 0,
    kind: GroupKind = GroupKind.ELASTIC,
) -> Group:
    return Group(
        name=name,
        site=name,
        kind=kind,
        provider="sim",
        size=Size(min=least, max=most),
        pools=Pools(hot=hot or Request(), hot_count=hot_count, cold=cold),
        scale_down=ScaleDown(idle_s=60, cooldown_s=30),
    )


def agent(
    name: str = "a-1",
    *,
    on: Shape | None = None,
    sessions: tuple[str, ...] = (),
    protected: bool = False,
    idle_s: float | None = None,
    state: AgentState = AgentState.READY,
    connected: bool = True,
    cordon: int = 0,
    acknowledged: int = 0,
    notice: bool = False,
    by_user: bool = False,
    free: Slots | None = None,
) -> AgentView:
    made = on or shape()
    if free is None:
        free = Slots(0, 0, made.slots.disk) if sessions else made.slots
    return AgentView(
        id=name,
        instance=name.replace("a-", "i-old-"),
        shape=made,
        capacity=made.slots,
        free=free,
        sessions=sessions,
        protected=protected,
        idle_s=(0 if sessions else 1000) if idle_s is None else idle_s,
        state=state,
        connected=connected,
        epoch=7,
        cordon_epoch=cordon,
        acknowledged_epoch=acknowledged,
        notice=notice,
        by_user=by_user,
    )


def draining(name: str = "a-1", *, cordon: int = 5, acknowledged: int = 0, **more: object) -> AgentView:
    return agent(name, state=AgentState.DRAINING, cordon=cordon, acknowledged=acknowledged, **more)  # type: ignore[arg-type]


def view(*agents: AgentView, of: Group | None = None, shapes: tuple[Shape, ...] = (), **more: object) -> GroupView:
    return GroupView(group=of or group(), agents=agents, shapes=shapes or (shape(),), **more)  # type: ignore[arg-type]


def decide(views: GroupView | list[GroupView], waiting: list[Demand] | None = None) -> Plan:
    found = [views] if isinstance(views, GroupView) else views
    return plan(found, waiting or [], plan_id="p-abc", generation=1, at=100.0)


def steps(made: Plan, action: Action) -> list[Step]:
    return [step for step in made.steps if step.action is action]


def notes(made: Plan) -> list[tuple[str, Reason]]:
    return [(note.agent or note.group, note.reason) for note in made.notes]
