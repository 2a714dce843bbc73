"""Setups: what a trace is to run on, from a YAML file or from an installation as its API tells it.

A file has `sites` and `groups` (as `atoll apply` takes them), `machines` of fixed groups, and `shapes` by provider:

    machines: [{group: own, count: 16, cpu: 64, memory: 512GiB, gpu: 8, gpu_model: V100, gpu_memory: 32GiB}]
    shapes:
      aws: [{name: p3.2xlarge, zone: a, cpu: 8, memory: 61GiB, gpu: 1, gpu_model: V100, price: 3.06, start: 3m,
             spot: false, billing: 1s, interruptions: 0.05, no_capacity: 0.2}]

`no_capacity` is the part of launches that the cloud refuses, or the hours in which it refuses all:
`[mon-fri 09:00-19:00 Asia/Seoul]`.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from atoll import document as documents
from atoll import hours
from atoll.agent import driver
from atoll.client.views import AgentView, GroupView, ShapeView, SiteView, SlotsView
from atoll.document.common import driver as driver_of
from atoll.errors import Invalid
from atoll.fields import Fields
from atoll.group import Group, GroupKind
from atoll.instance import Shape
from atoll.money import micros
from atoll.site import Site
from atoll.slots import Gpu, Slots
from federation.control.hours import check_zone
from federation.simulate.model import Lack, Machine, Setup

EXAMPLE = Path(__file__).with_name("example.yaml")
MAX_MACHINES = 200_000


class Installation(Protocol):
    """What is asked of the API: `atoll.client.Client` has it."""

    def sites(self) -> list[SiteView]:
        """Return all sites."""
        ...

    def groups(self) -> list[GroupView]:
        """Return all groups."""
        ...

    def agents(self) -> list[AgentView]:
        """Return all agents that are there."""
        ...

    def shapes(self, provider: str) -> list[ShapeView]:
        """Return what a provider's cloud has to offer."""
        ...


def of_file(path: Path) -> Setup:
    """Return the setup in a YAML file; raise `Invalid` naming the key at fault."""
    import yaml

    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        raise Invalid(f"{path}{where} is not YAML", hint="see `atoll simulate --print-setup`") from None
    return of_document(found)


def of_document(document: object) -> Setup:
    """Return the setup of a document."""
    doc = Fields(document, "setup")
    sites = tuple(documents.site(each) for each in _items(doc, "sites"))
    groups = tuple(documents.group(each) for each in _items(doc, "groups"))
    by_name = {group.name: group for group in groups}
    machines = [m for n, each in enumerate(_items(doc, "machines")) for m in _machines(each, n, by_name)]
    below = doc.section("shapes")
    shapes: dict[str, tuple[Shape, ...]] = {}
    lacks: dict[tuple[str, str], Lack] = {}
    for name in below.names():
        found = [_shape(each, name, n) for n, each in enumerate(_items(below, name))]
        shapes[name] = tuple(shape for shape, _ in found)
        lacks |= {(name, shape.key): lack for shape, lack in found if lack != Lack()}
    below.done()
    doc.done()
    return checked(Setup(sites=sites, groups=groups, machines=tuple(machines), shapes=shapes, lacks=lacks))


def of_installation(there: Installation) -> Setup:
    """Return the setup of an installation: its sites, groups, registered machines, and what its clouds offer now."""
    groups = tuple(documents.group({"name": view.name, **view.spec}) for view in there.groups())
    fixed = {group.name for group in groups if group.kind is GroupKind.FIXED}
    providers = sorted({group.provider for group in groups if group.kind is GroupKind.ELASTIC})
    machines = tuple(
        Machine(
            id=agent.id, site=agent.site, group=agent.group, capacity=slots(agent.capacity), driver=driver(agent.facts)
        )
        for agent in sorted(there.agents(), key=lambda agent: agent.id)
        if agent.group in fixed and not agent.instance
    )
    return checked(
        Setup(
            sites=tuple(
                Site(name=view.name, labels=dict(view.labels), price=micros(view.price), egress=micros(view.egress))
                for view in there.sites()
            ),
            groups=groups,
            machines=machines,
            shapes={name: tuple(_offered(name, view) for view in there.shapes(name)) for name in providers},
        )
    )


def checked(setup: Setup) -> Setup:
    """Return a setup in which every group has its site and something to run on is there; else raise `Invalid`."""
    sites = {site.name for site in setup.sites}
    for group in setup.groups:
        if group.site not in sites:
            raise Invalid(f"group {group.name!r} is at site {group.site!r}, which the setup does not have")
    for kind, names in (("site", [s.name for s in setup.sites]), ("group", [g.name for g in setup.groups])):
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise Invalid(f"the setup has two {kind}s {twice[0]!r}")
    able = any(setup.shapes.get(group.provider) for group in setup.groups if group.kind is GroupKind.ELASTIC)
    if not setup.machines and not able:
        raise Invalid(
            "the setup has nothing to run on", hint="give it `machines`, or a group whose provider has `shapes`"
        )
    return setup


def slots(view: SlotsView) -> Slots:
    """Return the amount that a view shows."""
    gpus = tuple(sorted(Gpu(gpu.model, round(gpu.count * 1000), gpu.memory) for gpu in view.gpu))
    return Slots(round(view.cpu * 1000), view.memory, view.disk, gpus)


def _items(doc: Fields, key: str) -> Sequence[Mapping[str, Any]]:
    value = doc.raw(key)
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(item, Mapping) for item in value):
        raise Invalid(f"{doc.path}.{key} must be a list of mappings", hint="begin each with `- `")
    return value


def _machines(document: Mapping[str, Any], number: int, groups: Mapping[str, Group]) -> list[Machine]:
    doc = Fields(document, f"setup.machines[{number}]")
    name = doc.text("group")
    group = groups.get(name)
    if group is None or group.kind is GroupKind.ELASTIC:
        raise Invalid(f"{doc.path}.group is {name!r}, and the setup has no fixed group of that name")
    prefix = doc.text("name") or f"{name}-{number}"
    count, capacity = doc.integer("count", 1, low=1, high=MAX_MACHINES), _slots(doc)
    version = driver_of(doc)
    doc.done()
    return [
        Machine(id=f"{prefix}-{n:0{len(str(count))}}", site=group.site, group=name, capacity=capacity, driver=version)
        for n in range(1, count + 1)
    ]


def _shape(document: Mapping[str, Any], provider: str, number: int) -> tuple[Shape, Lack]:
    doc = Fields(document, f"setup.shapes.{provider}[{number}]")
    rate = doc.raw("interruptions")
    if rate is not None and (isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 <= rate <= 3600):
        raise Invalid(f"{doc.path}.interruptions cannot be {rate!r}", hint="how often an hour, like 0.05")
    name = doc.text("name")
    if not name:
        raise doc.missing("name", "give the shape a name")
    shape = Shape(
        provider=provider,
        name=name,
        zone=doc.text("zone") or provider,
        slots=_slots(doc),
        price=doc.money("price", None),
        spot=bool(doc.flag("spot", False)),
        start_s=doc.seconds("start", 60.0),
        billing_s=doc.seconds("billing", 1.0, low=0.001),
        interruptions=None if rate is None else float(rate),
    )
    lack = _lack(doc)
    doc.done()
    if not shape.price:
        raise Invalid(f"{doc.path}.price is missing", hint="units an hour; a shape without a price is never chosen")
    return shape, lack


def _lack(doc: Fields) -> Lack:
    value = doc.raw("no_capacity")
    if value is None:
        return Lack()
    if isinstance(value, list) and all(isinstance(each, str) for each in value):
        found = tuple(hours.parse(each) for each in value)
        for each in found:
            check_zone(each.zone)
        return Lack(hours=found)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        advice = "a part of launches, like 0.2, or hours: [mon-fri 09:00-19:00 Asia/Seoul]"
        raise Invalid(f"{doc.path}.no_capacity cannot be {value!r}", hint=advice)
    return Lack(part=float(value))


def _slots(doc: Fields) -> Slots:
    milli = doc.milli("gpu", 0)
    model, memory = doc.text("gpu_model") or "GPU", doc.bytes("gpu_memory", 0)
    gpu = (Gpu(model, milli, memory),) if milli else ()
    return Slots(doc.milli("cpu", 1000), doc.bytes("memory", 2**30), doc.bytes("disk", 0), gpu)


def _offered(provider: str, view: ShapeView) -> Shape:
    name, zone, _ = (*view.target.rsplit("/", 2), "", "")[:3]
    return Shape(
        provider=provider,
        name=name,
        zone=zone,
        slots=slots(view.slots),
        price=micros(view.price),
        spot=view.spot,
        start_s=view.start_s,
        billing_s=view.billing_s,
        interruptions=view.interruptions,
    )
