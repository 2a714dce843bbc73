"""The pretended AWS refuses what EC2 refuses: a server that takes everything proves nothing."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from botocore.exceptions import ClientError

from tests.clouds.aws import facts
from tests.clouds.aws.harness import REGION, AwsHarness

SPOT = {"MarketType": "spot", "SpotOptions": {"SpotInstanceType": "one-time", "InstanceInterruptionBehavior": "stop"}}


@pytest.fixture
def cloud(tmp_path: Path) -> Iterator[AwsHarness]:
    harness = AwsHarness(tmp_path / "clouds")
    harness.start()
    yield harness
    harness.stop()


def run(cloud: AwsHarness, **more: Any) -> Any:
    plain = {"ImageId": facts.DEBIAN_AMI, "InstanceType": "t3.nano", "MinCount": 1, "MaxCount": 1}
    return cloud.client("ec2").run_instances(**plain | more)


def tagged(**tags: str) -> dict[str, Any]:
    listed = [{"Key": key, "Value": value} for key, value in tags.items()]
    return {"TagSpecifications": [{"ResourceType": "instance", "Tags": listed}]}


@pytest.mark.parametrize(
    ("more", "code"),
    [
        ({"InstanceType": "t3.enormous"}, "InvalidParameterValue"),
        ({"InstanceType": "c7g.large"}, "InvalidParameterValue"),
        ({"InstanceType": "g7e.2xlarge", "Placement": {"AvailabilityZone": f"{REGION}c"}}, "Unsupported"),
        ({"ImageId": "ami-0nothere"}, "InvalidAMIID.NotFound"),
        ({"UserData": "x" * 16385}, "InvalidParameterValue"),
        ({"MinCount": 2}, "InvalidParameterValue"),
        ({"Placement": {"AvailabilityZone": "us-east-1a"}}, "InvalidParameterValue"),
        ({"ClientToken": "t" * 65}, "InvalidParameterValue"),
        ({"MetadataOptions": {"HttpPutResponseHopLimit": 65}}, "InvalidParameterValue"),
        ({"MetadataOptions": {"HttpTokens": "maybe"}}, "InvalidParameterValue"),
        ({"InstanceInitiatedShutdownBehavior": "sleep"}, "InvalidParameterValue"),
        ({"InstanceMarketOptions": SPOT}, "InvalidParameterCombination"),
        ({"BlockDeviceMappings": [{"DeviceName": "/dev/xvda", "Ebs": {"VolumeSize": 4}}]}, "InvalidBlockDeviceMapping"),
        ({"NetworkInterfaces": [{"DeviceIndex": 0}], "SecurityGroupIds": ["sg-1"]}, "InvalidParameterCombination"),
        ({"NetworkInterfaces": [{"DeviceIndex": 0, "SubnetId": "subnet-x"}],
          "Placement": {"AvailabilityZone": f"{REGION}a"}}, "InvalidSubnetID.NotFound"),
        (tagged(**{"aws:mine": "x"}), "InvalidParameterValue"),
        (tagged(name="a&b"), "InvalidParameterValue"),
        (tagged(name="x" * 257), "InvalidParameterValue"),
        (tagged(**{f"t{n}": "" for n in range(51)}), "TagLimitExceeded"),
    ],
)  # fmt: skip
def test_what_is_refused(cloud: AwsHarness, more: dict[str, Any], code: str) -> None:
    with pytest.raises(ClientError) as caught:
        run(cloud, **more)
    assert caught.value.response["Error"]["Code"] == code
    assert cloud.inventory() == []


def test_a_token_is_honoured(cloud: AwsHarness) -> None:
    first = run(cloud, ClientToken="once", UserData="#!/bin/sh\nsleep 9\n")
    again = run(cloud, ClientToken="once", UserData="#!/bin/sh\nsleep 9\n")
    assert first["Instances"][0]["InstanceId"] == again["Instances"][0]["InstanceId"]
    with pytest.raises(ClientError, match="IdempotentParameterMismatch"):
        run(cloud, ClientToken="once", UserData="#!/bin/sh\nsleep 8\n")
    assert len(cloud.inventory()) == 1
    run(cloud)
    run(cloud)
    assert len(cloud.inventory()) == 3


def test_instances_are_found_by_their_token(cloud: AwsHarness) -> None:
    made = run(cloud, ClientToken="mine")["Instances"][0]["InstanceId"]
    run(cloud, ClientToken="other")
    for token, wanted in (("mine", [made]), ("nobodys", [])):
        told = cloud.client("ec2").describe_instances(Filters=[{"Name": "client-token", "Values": [token]}])
        assert [i["InstanceId"] for r in told["Reservations"] for i in r["Instances"]] == wanted


@pytest.mark.parametrize(
    ("call", "provider_id", "code"),
    [
        ("terminate_instances", "i-0123456789abcdef0", "InvalidInstanceID.NotFound"),
        ("stop_instances", "i-0123456789abcdef0", "InvalidInstanceID.NotFound"),
        ("terminate_instances", "machine-1", "InvalidInstanceID.Malformed"),
    ],
)
def test_ids_that_are_none(cloud: AwsHarness, call: str, provider_id: str, code: str) -> None:
    with pytest.raises(ClientError) as caught:
        getattr(cloud.client("ec2"), call)(InstanceIds=[provider_id])
    assert caught.value.response["Error"]["Code"] == code


def test_a_dry_run_makes_nothing(cloud: AwsHarness) -> None:
    with pytest.raises(ClientError, match="DryRunOperation"):
        run(cloud, DryRun=True)
    assert cloud.inventory() == []


def test_prices_are_those_of_the_filters(cloud: AwsHarness) -> None:
    def products(**fields: str) -> int:
        wanted = [{"Type": "TERM_MATCH", "Field": field, "Value": value} for field, value in fields.items()]
        pages = cloud.client("pricing").get_paginator("get_products").paginate(ServiceCode="AmazonEC2", Filters=wanted)
        return sum(len(page["PriceList"]) for page in pages)

    everything = products(regionCode=REGION)
    plain = products(
        regionCode=REGION, tenancy="Shared", operatingSystem="Linux", capacitystatus="Used", preInstalledSw="NA"
    )
    assert everything > plain > len(facts.ON_DEMAND), "capacity blocks pass these filters, as at AWS"


def test_metadata_needs_a_token(cloud: AwsHarness) -> None:
    provider_id = run(cloud)["Instances"][0]["InstanceId"]
    with pytest.raises(HTTPError, match="401") as caught:
        urlopen(Request(f"{cloud.server.url}/_atoll/metadata/{provider_id}/latest/meta-data/instance-id"), timeout=5)
    caught.value.close()
