"""A `sim` provider's settings and faults: what is taken, and what each mistake is told."""

import pytest

from atoll.errors import Invalid
from atoll.instance import Shape
from atoll.slots import GIB, Gpu, Slots
from providers.sim.catalogue import CATALOGUE, PRODUCTS, offered
from providers.sim.cloud import Cloud
from providers.sim.faults import FaultKind, parse_faults
from providers.sim.hall import slots_text
from providers.sim.settings import parse


def test_nothing_said_sells_the_whole_catalogue() -> None:
    settings = parse({})
    shapes = offered(list(settings.products), settings.zones, "p", 1.0)
    assert {shape.name for shape in shapes} == set(PRODUCTS)
    assert {shape.spot for shape in shapes} == {False, True}
    assert {shape.catalogue for shape in shapes} == {CATALOGUE}
    for name in PRODUCTS:
        on_demand, spot = (next(s for s in shapes if s.name == name and s.spot is wanted) for wanted in (False, True))
        assert on_demand.price is not None
        assert spot.price is not None
        assert 0 < spot.price < on_demand.price


def test_own_shape() -> None:
    gpu = {"model": "L4", "count": 2, "memory": "24GiB"}
    settings = parse({"shapes": [{"name": "mine", "cpu": 4, "memory": "8GiB", "price": 0.5, "gpu": gpu}, "cpu-1"]})
    mine, known = settings.products
    assert mine.slots == Slots(4000, 8 * GIB, 20 * GIB, (Gpu("L4", 2000, 24 * GIB),))
    assert (mine.price, mine.spot_price) == (500_000, None)
    assert known is PRODUCTS["cpu-1"]


@pytest.mark.parametrize(
    ("document", "message", "hint"),
    [
        ({"shape": []}, "unknown key 'shape'", "did you mean 'shapes'?"),
        ({"shapes": ["cpu2"]}, "no shape 'cpu2'", "did you mean 'cpu-2'?"),
        ({"shapes": []}, "must be a list", "cpu-1"),
        ({"shapes": ["cpu-1", "cpu-1"]}, "twice", "name of its own"),
        ({"shapes": [{"name": "x"}]}, "has no price", "price:"),
        ({"shapes": [{"name": "x", "price": 1, "cpus": 2}]}, "unknown key 'cpus'", "did you mean 'cpu'?"),
        ({"shapes": [{"price": 1}]}, "has no name", "name:"),
        ({"limits": {"cpus": 4}}, "unknown key 'cpus'", "did you mean 'cpu'?"),
        ({"limits": {"cpu": -1}}, "limits.cpu is -1", "between 0"),
        ({"boot_s": "soon"}, "boot_s must be a duration", ""),
        ({"faults": {"no_capasity": {}}}, "unknown key 'no_capasity'", "did you mean 'no_capacity'?"),
        ({"faults": {"reclaim": {"after": 3}}}, "unknown key 'after'", "did you mean 'after_s'?"),
        ({"faults": {"throttle": {"calls": ["creat"]}}}, "cannot hold 'creat'", "did you mean 'create'?"),
        ({"faults": []}, "must be a mapping", ""),
    ],
)
def test_mistakes_are_told(document: dict[str, object], message: str, hint: str) -> None:
    with pytest.raises(Invalid) as caught:
        parse(document)
    assert message in caught.value.message
    assert hint in caught.value.hint


def test_slots_text_is_what_agents_read() -> None:
    slots = Slots(1500, 3 * GIB // 2, 0, (Gpu("L4", 1000, 24 * GIB), Gpu("T4", 2000, 16 * GIB)))
    assert slots_text(slots) == "cpu=1.5,memory=1536MiB,gpu=L4:1:24GiB,gpu=T4:2:16GiB"


def shape(name: str, zone: str = "a", spot: bool = False) -> Shape:
    return Shape(provider="p", name=name, zone=zone, slots=Slots(), price=1, spot=spot)


def test_faults_strike_what_they_are_for_as_often_as_they_say() -> None:
    faults = parse_faults({"no_capacity": [{"shapes": "x", "times": 2}, {"zones": ["b"], "spot": True}]}, "faults")
    cloud = Cloud()
    kind = FaultKind.NO_CAPACITY
    hits = [bool(cloud.strike(faults, kind, 1.0, shape=shape("x"))) for _ in range(3)]
    assert hits == [True, True, False]
    assert not cloud.strike(faults, kind, 1.0, shape=shape("y", "b"))
    assert cloud.strike(faults, kind, 1.0, shape=shape("y", "b", True))
    assert cloud.struck == {"no_capacity": 3}


def test_faults_end_with_time() -> None:
    faults = parse_faults({"throttle": {"for_s": 10}}, "faults")
    cloud = Cloud()
    assert cloud.strike(faults, FaultKind.THROTTLE, 100.0, call="create")
    assert cloud.strike(faults, FaultKind.THROTTLE, 109.0, call="create")
    assert not cloud.strike(faults, FaultKind.THROTTLE, 110.0, call="create")
    until = parse_faults({"throttle": {"id": "later", "until": 500}}, "faults")
    assert cloud.strike(until, FaultKind.THROTTLE, 499.0)
    assert not cloud.strike(until, FaultKind.THROTTLE, 500.0)
