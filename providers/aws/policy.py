"""The least-privilege IAM policy of an `aws` provider. Pure: the same for doctor, documents and terraform."""

from collections.abc import Sequence
from typing import Any

from providers.port import OWNER_TAG

READS: tuple[str, ...] = (
    "ec2:DescribeAvailabilityZones",
    "ec2:DescribeImages",
    "ec2:DescribeInstanceTypeOfferings",
    "ec2:DescribeInstanceTypes",
    "ec2:DescribeInstances",
    "ec2:DescribeLaunchTemplateVersions",
    "ec2:DescribeRouteTables",
    "ec2:DescribeSecurityGroups",
    "ec2:DescribeSpotPriceHistory",
    "ec2:DescribeSubnets",
    "pricing:GetProducts",
    "servicequotas:ListServiceQuotas",
)
"""Calls that change nothing; EC2 knows no narrower resource for them than all."""
MADE = ("instance", "network-interface", "spot-instances-request", "volume")
"""Resources that a launch makes: each carries the owner tag from the first moment."""
USED = ("key-pair", "launch-template", "security-group", "subnet")
"""Resources that a launch stands on."""


def policy(
    region: str,
    account: str,
    *,
    owner: str = "",
    partition: str = "aws",
    parameter: str = "/aws/service/*",
    instance_profile: str = "",
    spot: bool = True,
) -> dict[str, Any]:
    """Return the policy document.

    With `owner`, the installation's id, it may end only that installation's machines; without, those of any
    installation of Atoll in the account, and never one without the tag. `parameter` is the SSM parameter that
    names the image. `iam:PassRole` is granted only where an instance profile is used, for the role of its name.
    """
    holder = "" if parameter.startswith("/aws/") else account  # public parameters belong to no account
    ec2 = f"arn:{partition}:ec2:{region}:{account}:"
    made = [f"{ec2}{kind}/*" for kind in MADE]
    used = [f"{ec2}{kind}/*" for kind in USED]
    shared = [f"arn:{partition}:ec2:{region}::image/*", f"arn:{partition}:ec2:{region}::snapshot/*"]
    statements = [
        _statement("Read", READS, ["*"]),
        _statement(
            "ReadPublicImages", ["ssm:GetParameter"], [f"arn:{partition}:ssm:{region}:{holder}:parameter{parameter}"]
        ),
        _statement("LaunchOnlyTagged", ["ec2:RunInstances"], made, _marked("aws:RequestTag", owner)),
        _statement("LaunchOn", ["ec2:RunInstances"], [*used, *shared]),
        _statement("TagOnlyAtLaunch", ["ec2:CreateTags"], made, {"StringEquals": {"ec2:CreateAction": "RunInstances"}}),
        _statement(
            "ChangeOnlyOwn",
            ["ec2:GetConsoleOutput", "ec2:StartInstances", "ec2:StopInstances", "ec2:TerminateInstances"],
            [f"{ec2}instance/*"],
            _marked("aws:ResourceTag", owner),
        ),
    ]
    if spot:
        statements.append(_spot_role(partition, account))
    if instance_profile:
        statements.append(_pass_role(partition, account, instance_profile))
    return {"Version": "2012-10-17", "Statement": statements}


def _statement(
    sid: str, actions: Sequence[str], resources: Sequence[str], condition: dict[str, Any] | None = None
) -> dict[str, Any]:
    plain = {"Sid": sid, "Effect": "Allow", "Action": list(actions), "Resource": list(resources)}
    return plain | ({"Condition": condition} if condition else {})


def _marked(where: str, owner: str) -> dict[str, Any]:
    key = f"{where}/{OWNER_TAG}"
    return {"StringEquals": {key: owner}} if owner else {"Null": {key: "false"}}


def _spot_role(partition: str, account: str) -> dict[str, Any]:
    """The first spot launch of an account makes EC2's own role for it."""
    role = f"arn:{partition}:iam::{account}:role/aws-service-role/spot.amazonaws.com/AWSServiceRoleForEC2Spot"
    condition = {"StringEquals": {"iam:AWSServiceName": "spot.amazonaws.com"}}
    return _statement("FirstSpotLaunch", ["iam:CreateServiceLinkedRole"], [role], condition)


def _pass_role(partition: str, account: str, profile: str) -> dict[str, Any]:
    role = f"arn:{partition}:iam::{account}:role/{profile.rpartition('/')[2]}"
    condition = {"StringEquals": {"iam:PassedToService": "ec2.amazonaws.com"}}
    return _statement("GiveTheProfilesRole", ["iam:PassRole"], [role], condition)
