from itertools import permutations
from typing import Any

import pytest

from providers.openstack.machines import LAUNCHED, TASK, ZONE, elect, machine, owned, state_of
from providers.port import INTENT_TAG, OWNER_TAG, MachineState


def server(key: str, status: str = "ACTIVE", created: str = "2026-11-21T07:10:43Z", **more: Any) -> dict[str, Any]:
    return {
        "id": key,
        "status": status,
        "created": created,
        "hostId": "h",
        "metadata": {OWNER_TAG: "us", INTENT_TAG: "i-1", "atoll-shape": "m1"},
        ZONE: "a",
        TASK: None,
        **more,
    }


def test_a_server_is_a_machine() -> None:
    found = machine(server("s"))
    assert (found.intent, found.provider_id, found.shape, found.zone) == ("i-1", "s", "m1", "a")
    assert (found.state, found.created_at, found.spot) == (MachineState.RUNNING, 1795245043.0, False)


@pytest.mark.parametrize(
    ("status", "task", "state"),
    [
        ("BUILD", "scheduling", MachineState.PENDING),
        ("ACTIVE", None, MachineState.RUNNING),
        ("ACTIVE", "powering-off", MachineState.STOPPING),
        ("SHUTOFF", None, MachineState.STOPPED),
        ("SHUTOFF", "powering-on", MachineState.PENDING),
        ("SHELVED_OFFLOADED", None, MachineState.STOPPED),
        ("ACTIVE", "deleting", MachineState.ENDING),
        ("BUILD", "deleting", MachineState.ENDING),
        ("ERROR", None, MachineState.ENDING),
        ("DELETED", "deleting", MachineState.ENDED),
        ("SOFT_DELETED", None, MachineState.ENDED),
        ("REBOOT", "rebooting", MachineState.RUNNING),
        ("UNKNOWN", None, MachineState.RUNNING),
    ],
)
def test_states(status: str, task: str | None, state: MachineState) -> None:
    assert state_of({**server("s", status), TASK: task}) is state


def test_a_fault_is_told() -> None:
    found = machine(server("s", "ERROR", fault={"message": "No valid host was found."}))
    assert found.message == "No valid host was found."


def test_owner_and_intent_are_metadata() -> None:
    ours = server("s")
    assert owned(ours, "us")
    assert owned(ours, "us", "i-1")
    assert not owned(ours, "us", "i-2")
    assert not owned(ours, "them")
    assert not owned({"id": "x"}, "us")


def test_whoever_elects_keeps_the_oldest_then_the_least_id() -> None:
    servers = [
        server("c", created="2026-11-21T07:10:42Z"),
        server("b", "BUILD"),
        server("a"),
        server("d", "ERROR"),
        server("e", **{TASK: "deleting"}),
    ]
    for order in permutations(servers):
        found = elect(order)
        assert found.kept is not None
        assert found.kept["id"] == "c"
        assert [loser["id"] for loser in found.losers] == ["a", "b", "d"]
        assert [failed["id"] for failed in found.failed] == ["d"]
        assert not found.undecided


def test_a_server_that_ran_and_broke_is_kept() -> None:
    found = elect([server("s", "ERROR", **{LAUNCHED: "2026-11-21T07:10:47"})])
    assert found.kept is not None
    assert found.losers == ()


def test_nothing_is_decided_while_a_host_is_looked_for() -> None:
    looking = server("s", "BUILD", hostId="", **{TASK: "scheduling"})
    assert elect([looking]).undecided
    assert not elect([{**looking, "hostId": "h", TASK: "spawning"}]).undecided
    assert elect([]).kept is None
