"""GPUs by UUID: exclusive, in parts, and exact."""

import pytest

from agent.devices import Device, Held, capacity, pick
from atoll.slots import Gpu, Slots

L4S = (Device("a", "L4", 24), Device("b", "L4", 24), Device("c", "H100", 80))


def wants(model: str, milli: int) -> Slots:
    return Slots(gpu=(Gpu(model, milli),))


def test_capacity_sums_a_model_and_takes_its_least_memory() -> None:
    assert capacity([*L4S, Device("d", "L4", 16)]) == (Gpu("H100", 1000, 80), Gpu("L4", 3000, 16))


@pytest.mark.parametrize(
    ("held", "slots", "picked"),
    [
        ([], Slots(), Held((), 1000)),
        ([], wants("L4", 1000), Held(("a",), 1000)),
        ([], wants("L4", 2000), Held(("a", "b"), 1000)),
        ([Held(("a",), 1000)], wants("L4", 1000), Held(("b",), 1000)),
        ([Held(("b",), 500)], wants("L4", 500), Held(("b",), 500)),
        ([Held(("b",), 600)], wants("L4", 500), Held(("a",), 500)),
        ([Held(("b",), 600)], wants("L4", 2000), None),
        ([], wants("T4", 1000), None),
        ([Held(("c",), 1000)], wants("H100", 1), None),
    ],
)
def test_pick(held: list[Held], slots: Slots, picked: Held | None) -> None:
    assert pick(L4S, held, slots) == picked
