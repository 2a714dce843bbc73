"""Short ways to write seats, launchables and demands."""

from atoll.instance import Shape
from atoll.offer import Demand, OfferKind
from atoll.slots import GIB, Gpu, GpuRequest, Request, Slots
from atoll.states import Reason
from federation.routing.capacity import Launchable, Seat, Standby


def slots(cpu: float = 4, memory: float = 16, gpu: str = "", count: float = 0, device: int = 16) -> Slots:
    gpus = (Gpu(gpu, round(count * 1000), device * GIB),) if gpu else ()
    return Slots(round(cpu * 1000), round(memory * GIB), 0, gpus)


def seat(
    agent: str,
    capacity: Slots | None = None,
    free: Slots | None = None,
    *,
    price: int = 0,
    site: str = "hall",
    group: str = "local",
    spot: bool = False,
    closed: Reason = Reason.NONE,
) -> Seat:
    has = capacity or slots()
    return Seat(
        agent=agent,
        site=site,
        group=group,
        capacity=has,
        free=has if free is None else free,
        price=price,
        spot=spot,
        open=not closed,
        why_closed=closed,
    )


def shape(name: str = "m4", has: Slots | None = None, *, price: int | None = 100_000, spot: bool = False) -> Shape:
    return Shape(provider="sim", name=name, zone="z1", slots=has or slots(), price=price, spot=spot, start_s=60)


def launchable(made: Shape, *, room: int = 4, blocked: Reason = Reason.NONE, group: str = "cloud") -> Launchable:
    return Launchable(group=group, site=group, provider="sim", shape=made, room=room, blocked=blocked)


def request(cpu: float = 1, memory: float = 1, gpu: float = 0, models: tuple[str, ...] = ()) -> Request:
    return Request(round(cpu * 1000), round(memory * GIB), 0, GpuRequest(round(gpu * 1000), models))


def demand(
    session: str = "s-1",
    asks: Request | None = None,
    *,
    nodes: int = 1,
    sites: tuple[str, ...] = (),
    groups: tuple[str, ...] = (),
    max_price: int | None = None,
    spot: bool = True,
    expected_s: float = 600.0,
) -> Demand:
    return Demand(
        session=session,
        request=asks or request(),
        nodes=nodes,
        sites=sites,
        groups=groups,
        max_price=max_price,
        spot=spot,
        expected_s=expected_s,
    )


def standby(
    instance: str,
    made: Shape | None = None,
    *,
    kind: OfferKind = OfferKind.PENDING,
    start_s: float = 30.0,
    free: Slots | None = None,
    sessions: tuple[str, ...] = (),
    room: int = 4,
    group: str = "cloud",
) -> Standby:
    of = made or shape()
    return Standby(
        group=group,
        site=group,
        provider="sim",
        shape=of,
        room=room,
        instance=instance,
        kind=kind,
        start_s=start_s,
        free=of.slots if free is None else free,
        sessions=sessions,
    )
