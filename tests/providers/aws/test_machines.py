from datetime import UTC, datetime
from typing import Any

import pytest

from providers.aws.machines import machine
from providers.port import INTENT_TAG, Machine, MachineState


def told(**more: Any) -> dict[str, Any]:
    return {"InstanceId": "i-0a", "State": {"Name": "running"}, "Tags": [{"Key": INTENT_TAG, "Value": "i-1"}], **more}


def test_a_machine_in_full() -> None:
    seen = machine(
        told(
            InstanceType="t3.small",
            Placement={"AvailabilityZone": "eu-central-1a"},
            InstanceLifecycle="spot",
            LaunchTime=datetime(2026, 11, 1, tzinfo=UTC),
            StateReason={"Code": "Server.SpotInstanceTermination", "Message": "Server.SpotInstanceTermination: taken"},
        )
    )
    assert seen == Machine(
        intent="i-1",
        provider_id="i-0a",
        state=MachineState.RUNNING,
        shape="t3.small",
        zone="eu-central-1a",
        spot=True,
        created_at=datetime(2026, 11, 1, tzinfo=UTC).timestamp(),
        message="Server.SpotInstanceTermination: taken",
    )


@pytest.mark.parametrize(
    ("name", "state"),
    [
        ("pending", MachineState.PENDING),
        ("running", MachineState.RUNNING),
        ("stopping", MachineState.STOPPING),
        ("stopped", MachineState.STOPPED),
        ("shutting-down", MachineState.ENDING),
        ("terminated", MachineState.ENDED),
    ],
)
def test_states(name: str, state: MachineState) -> None:
    assert machine(told(State={"Name": name})).state is state


def test_the_transition_explains_where_no_reason_is_told() -> None:
    assert machine(told(StateTransitionReason="User initiated")).message == "User initiated"
