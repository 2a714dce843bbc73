import json
from dataclasses import replace
from typing import Any

import pytest

from atoll.slots import GIB
from providers.aws.doctor import clock_finding, image_finding, leads_out, rights
from tests.providers.aws.facts import IMAGE, SETTINGS

DATE, AT = "Sun, 01 Nov 2026 00:00:00 GMT", 1793491200.0


@pytest.mark.parametrize(("now", "ok"), [(AT, True), (AT + 60, True), (AT - 300, False), (AT + 300, False)])
def test_a_clock_that_is_off_is_told(now: float, ok: bool) -> None:
    assert clock_finding(DATE, now).ok is ok


def test_no_time_told_is_no_finding_against_the_clock() -> None:
    assert clock_finding("", AT).ok


def test_images_must_fit() -> None:
    assert image_finding(IMAGE, SETTINGS).ok
    assert not image_finding(replace(IMAGE, architecture="arm64"), SETTINGS).ok
    assert not image_finding(replace(IMAGE, size=30 * GIB), SETTINGS).ok


SUBNET = {"SubnetId": "subnet-1", "VpcId": "vpc-1"}


def table(*, main: bool = False, vpc: str = "vpc-1", **route: str) -> dict[str, Any]:
    tie: dict[str, Any] = {"Main": True} if main else {"SubnetId": "subnet-1"}
    routes = [
        {"DestinationCidrBlock": "10.0.0.0/8", "GatewayId": "local"},
        {"DestinationCidrBlock": "0.0.0.0/0", **route},
    ]
    return {"VpcId": vpc, "Associations": [tie], "Routes": routes if route else routes[:1]}


@pytest.mark.parametrize(
    ("tables", "public", "out"),
    [
        ([table(main=True, GatewayId="igw-1")], True, True),
        ([table(main=True, GatewayId="igw-1")], False, False),
        ([table(main=True, NatGatewayId="nat-1")], False, True),
        ([table(main=True, vpc="vpc-2", GatewayId="igw-1")], True, False),
        ([table(main=True, GatewayId="igw-1"), table()], True, False),
        ([table(TransitGatewayId="tgw-1")], False, True),
        ([], True, False),
    ],
)
def test_a_subnet_needs_a_way_out(tables: list[dict[str, Any]], public: bool, out: bool) -> None:
    assert leads_out(SUBNET, tables, public) is out


def test_the_policy_is_printed_for_these_settings() -> None:
    finding = rights(replace(SETTINGS, instance_profile="sessions"), "123456789012", "arn:aws-cn:iam::1:user/u")
    text = finding.details
    assert "arn:aws-cn:ec2:eu-central-1:123456789012:instance/*" in text
    assert "iam:PassRole" in text
    assert json.loads(text)["Version"] == "2012-10-17"
