import json
from typing import Any

import pytest

from providers.aws.policy import policy


def statements(**more: Any) -> dict[str, dict[str, Any]]:
    return {each["Sid"]: each for each in policy("eu-central-1", "123456789012", **more)["Statement"]}


def granted(action: str, **more: Any) -> list[dict[str, Any]]:
    return [each for each in statements(**more).values() if action in each["Action"]]


def test_it_is_a_policy_document() -> None:
    document = policy("eu-central-1", "123456789012")
    assert document["Version"] == "2012-10-17"
    assert len(json.dumps(document)) < 6144, "the most that a managed policy may have"
    for each in document["Statement"]:
        assert each["Effect"] == "Allow"
        assert each["Sid"].isalnum()
        assert all(":" in action and "*" not in action for action in each["Action"]), "no wildcard of actions"
    assert len({each["Sid"] for each in document["Statement"]}) == len(document["Statement"])


@pytest.mark.parametrize("action", ["ec2:TerminateInstances", "ec2:StopInstances", "ec2:StartInstances"])
def test_only_tagged_machines_may_be_changed(action: str) -> None:
    (anyone,) = granted(action)
    assert anyone["Condition"] == {"Null": {"aws:ResourceTag/atoll-owner": "false"}}
    (mine,) = granted(action, owner="inst-1")
    assert mine["Condition"] == {"StringEquals": {"aws:ResourceTag/atoll-owner": "inst-1"}}
    assert all(":123456789012:instance/" in resource for resource in mine["Resource"])


def test_what_a_launch_makes_must_be_tagged_in_the_same_call() -> None:
    tagged, stands_on = granted("ec2:RunInstances", owner="inst-1")
    assert tagged["Condition"] == {"StringEquals": {"aws:RequestTag/atoll-owner": "inst-1"}}
    assert not set(tagged["Resource"]) & set(stands_on["Resource"])
    assert any(":instance/" in resource for resource in tagged["Resource"])
    assert not any(":instance/" in resource for resource in stands_on["Resource"])
    (tagging,) = granted("ec2:CreateTags")
    assert tagging["Condition"] == {"StringEquals": {"ec2:CreateAction": "RunInstances"}}


def test_roles_are_passed_only_where_a_profile_is_set() -> None:
    assert granted("iam:PassRole") == []
    (passing,) = granted("iam:PassRole", instance_profile="arn:aws:iam::123456789012:instance-profile/path/sessions")
    assert passing["Resource"] == ["arn:aws:iam::123456789012:role/sessions"]
    assert passing["Condition"] == {"StringEquals": {"iam:PassedToService": "ec2.amazonaws.com"}}


def test_spots_role_is_made_only_where_spot_is_used() -> None:
    assert granted("iam:CreateServiceLinkedRole", spot=False) == []
    (making,) = granted("iam:CreateServiceLinkedRole", partition="aws-cn")
    assert making["Resource"][0].startswith("arn:aws-cn:iam::123456789012:role/aws-service-role/spot")


@pytest.mark.parametrize(
    ("parameter", "arn"),
    [
        ("/aws/service/debian/release/12/latest/amd64", "arn:aws:ssm:eu-central-1::parameter/aws/service/debian"),
        ("/ours/image", "arn:aws:ssm:eu-central-1:123456789012:parameter/ours/image"),
    ],
)
def test_only_the_images_parameter_may_be_read(parameter: str, arn: str) -> None:
    (reading,) = granted("ssm:GetParameter", parameter=parameter)
    assert len(reading["Resource"]) == 1
    assert reading["Resource"][0].startswith(arn)
