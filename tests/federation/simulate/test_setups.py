"""Setups and histories: from a file, and from what the API tells."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from atoll.client.views import AgentView, GpuView, GroupView, SessionView, ShapeView, SiteView, SlotsView
from atoll.document import dump_group, dump_session_spec
from atoll.errors import Invalid
from atoll.group import Group, GroupKind, Size
from atoll.hours import Hours
from atoll.instance import Shape
from atoll.money import micros
from atoll.policy import asked
from atoll.session import Checkpoint, CostLimits, Lifetime, Placement, SessionSpec, SessionType
from atoll.slots import GIB, Gpu, GpuRequest, Request, Slots
from federation.api.views import shape_offer
from federation.simulate import history, setups
from federation.simulate.model import Lack
from federation.simulate.policies import asked_of


def test_the_example_is_a_setup() -> None:
    setup = setups.of_file(setups.EXAMPLE)
    assert len(setup.machines) == 16
    assert setup.machines[0].capacity == Slots(64000, 512 * GIB, 0, (Gpu("V100", 8000, 32 * GIB),))
    assert {site.name: site.price for site in setup.sites} == {"hall": micros(2.40), "cloud": 0}
    assert [shape.name for shape in setup.shapes["cloud"]][:2] == ["gpu-1", "gpu-4"]
    assert setup.gpus()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sites: [", "line 1 is not YAML"),
        ("sites: [{name: a}]\nmachines: [{group: b}]", "no fixed group of that name"),
        ("sites: [{name: a}]\ngroups: [{name: g, site: b}]", "at site 'b'"),
        ("sites: [{name: a}, {name: a}]", "two sites 'a'"),
        ("sites: [{name: a}]", "nothing to run on"),
        ("shapes: {x: [{name: m, cpu: 1}]}", "price is missing"),
        ("shapes: {x: [{name: m, price: 1, interruptions: -1}]}", "interruptions cannot be -1"),
        ("shapes: {x: [{name: m, price: 1, no_capacity: 2}]}", "no_capacity cannot be 2"),
        ("shapes: {x: [{name: m, price: 1, no_capacity: [sometimes]}]}", "are not weekly hours"),
        ("shapes: {x: [{name: m, price: 1, no_capacity: [8-9 Mars]}]}", "no time zone 'Mars'"),
        ("shops: []", "unknown key 'shops'"),
    ],
)
def test_what_is_wrong_in_a_setup_is_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "setup.yaml"
    path.write_text(text)
    with pytest.raises(Invalid) as caught:
        setups.of_file(path)
    assert message in caught.value.message


def test_a_setup_says_where_there_is_no_capacity_and_which_driver_is_there(tmp_path: Path) -> None:
    path = tmp_path / "setup.yaml"
    path.write_text(
        "sites: [{name: a}]\ngroups: [{name: g, site: a}]\nmachines: [{group: g, driver: '550.54'}]\n"
        "shapes: {x: [{name: m, price: 1, no_capacity: 0.25}, {name: n, zone: z, price: 1, spot: true,"
        " no_capacity: ['8-9']}, {name: o, price: 1}]}\n"
    )
    found = setups.of_file(path)
    assert found.machines[0].driver == (550, 54)
    assert found.lacks == {
        ("x", "m/x/on-demand"): Lack(part=0.25),
        ("x", "n/z/spot"): Lack(hours=(Hours(start=480, end=540),)),
    }


def view(
    key: str, created: float, started: float | None, ended: float | None, spec: SessionSpec, ran_s: float = 0.0
) -> SessionView:
    blank: dict[str, Any] = {field.name: None for field in msgspec.structs.fields(SessionView) if field.required}
    told = {
        "id": key,
        "project": "vision",
        "owner": "ada",
        "created_at": created,
        "started_at": started,
        "ended_at": ended,
    }
    return SessionView(**blank | told | {"spec": dump_session_spec(spec), "ran_s": ran_s})


def test_a_history_takes_in_what_ran_since() -> None:
    spec = SessionSpec(
        command=("train",), checkpoint=Checkpoint(lost=5.0), priority=3, type=SessionType.SERVICE, labels={"a": "b"}
    )
    views = [
        view("s-old", 10, 20, 30, spec),
        view("s-done", 100, 130, 190, spec),
        view("s-moved", 105, 160, 190, spec, ran_s=20.0),
        view("s-runs", 110, 150, None, spec),
        view("s-never", 120, None, 125, spec),
    ]
    found = history.of_sessions(views, since=100, now=200)
    assert [(job.id, job.at, job.duration_s) for job in found.jobs] == [
        ("s-done", 100, 60), ("s-moved", 105, 50), ("s-runs", 110, 50),
    ]  # fmt: skip
    assert (found.running, found.unstarted, found.unread) == (1, 1, 0)
    first = found.jobs[0]
    assert (first.project, first.checkpoint, first.priority) == ("vision", Checkpoint(lost=5.0), 3)
    assert (first.type, first.owner, first.tags) == ("service", "ada", ("a=b",))
    assert len(history.told(found)) == 2


def test_a_job_is_to_policies_what_its_session_was() -> None:
    spec = SessionSpec(
        command=("train",),
        type=SessionType.SERVICE,
        resources=Request(2500, 3 * GIB, 0, GpuRequest(1500, ("L4", "T4"))),
        nodes=2,
        placement=Placement(sites=("hall",), groups=("own",), near="hall"),
        cost=CostLimits(max_price=micros(0.5), spot=False),
        lifetime=Lifetime(expected=7200.0, protect=True),
        priority=3,
        preemptible=True,
        checkpoint=Checkpoint(),
        labels={"kind": "long"},
    )
    job = history.of_spec(spec, "s-1", 0.0, 10.0, project="vision", owner="ada")
    assert asked_of(job, 600.0) == asked(spec, "vision", "ada")


def blank(kind: type[Any], **told: Any) -> Any:
    return kind(**{field.name: None for field in msgspec.structs.fields(kind) if field.required} | told)


class Told:
    """An installation with a hall of one machine and a cloud with one, and one shape."""

    def sites(self) -> list[SiteView]:
        return [
            blank(SiteView, name="hall", labels={"region": "kr"}, price=0.5, egress=0.09),
            blank(SiteView, name="aws", labels={}, price=0.0),
        ]

    def groups(self) -> list[GroupView]:
        rows = [Group(name="own", site="hall"),
                Group(name="burst", site="aws", kind=GroupKind.ELASTIC, provider="aws", size=Size(max=7))]  # fmt: skip
        return [blank(GroupView, name=row.name, spec=dump_group(row)) for row in rows]

    def agents(self) -> list[AgentView]:
        has = SlotsView(cpu=4.0, memory=8 * GIB, gpu=[GpuView(model="L4", count=2.0, memory=24 * GIB)])
        facts = {"nvidia_driver": "550.54.15"}
        return [
            blank(AgentView, id="a-2", site="aws", group="burst", instance="i-1", capacity=has, facts=facts),
            blank(AgentView, id="a-1", site="hall", group="own", instance="", capacity=has, facts=facts),
        ]

    def shapes(self, provider: str) -> list[ShapeView]:
        row = Shape(provider=provider, name="m5.2xlarge", zone="us-east-1a", slots=Slots(8000, 32 * GIB),
                    price=micros(0.2), spot=True, start_s=90.0, billing_s=60.0, interruptions=0.07)  # fmt: skip
        return [shape_offer(row)]


def test_an_installation_is_a_setup_without_the_machines_it_launched() -> None:
    setup = setups.of_installation(Told())
    assert [(machine.id, machine.group) for machine in setup.machines] == [("a-1", "own")]
    assert setup.machines[0].capacity == Slots(4000, 8 * GIB, 0, (Gpu("L4", 2000, 24 * GIB),))
    assert [(group.name, group.kind, group.size.max) for group in setup.groups][1] == ("burst", GroupKind.ELASTIC, 7)
    (shape,) = setup.shapes["aws"]
    assert shape == Shape(
        provider="aws", name="m5.2xlarge", zone="us-east-1a", slots=Slots(8000, 32 * GIB), price=micros(0.2),
        spot=True, start_s=90.0, billing_s=60.0, interruptions=0.07,
    )  # fmt: skip
    assert setup.machines[0].driver == (550, 54, 15)
    assert (setup.sites[0].labels, setup.sites[0].egress) == ({"region": "kr"}, micros(0.09))
