from dataclasses import replace

import pytest

from atoll.slots import GIB
from providers.aws.ground import Ground
from providers.aws.request import MAX_TAGS, run_instances, tags
from providers.aws.settings import LaunchTemplate
from providers.errors import BadRequest
from providers.port import INTENT_TAG, OWNER_TAG, PRINT_TAG
from tests.providers.aws.facts import GROUND, IMAGE, SETTINGS, intent


def test_the_request_of_a_plain_intent() -> None:
    made = run_instances(intent(), SETTINGS, GROUND)
    assert (made["MinCount"], made["MaxCount"], made["ImageId"]) == (1, 1, "ami-1")
    assert made["ClientToken"] == intent().token
    assert len(made["ClientToken"]) <= 64
    assert made["Placement"] == {"AvailabilityZone": "eu-central-1a"}
    assert made["MetadataOptions"] == {
        "HttpTokens": "required",
        "HttpPutResponseHopLimit": 1,
        "HttpEndpoint": "enabled",
    }
    assert made["InstanceInitiatedShutdownBehavior"] == "terminate"
    assert made["BlockDeviceMappings"] == [
        {
            "DeviceName": "/dev/xvda",
            "Ebs": {"VolumeType": "gp3", "Encrypted": True, "DeleteOnTermination": True, "VolumeSize": 20},
        }
    ]
    assert "InstanceMarketOptions" not in made
    assert made == run_instances(intent(), SETTINGS, GROUND)


def test_everything_a_launch_makes_is_tagged() -> None:
    for spot, kinds in ((False, 3), (True, 4)):
        marks = run_instances(intent(spot=spot), SETTINGS, GROUND)["TagSpecifications"]
        assert len({each["ResourceType"] for each in marks}) == kinds
        assert all({"Key": OWNER_TAG, "Value": "inst-1"} in each["Tags"] for each in marks)


def test_spot_ends_when_taken() -> None:
    made = run_instances(intent(spot=True), SETTINGS, GROUND)
    assert made["InstanceMarketOptions"]["SpotOptions"] == {
        "SpotInstanceType": "one-time",
        "InstanceInterruptionBehavior": "terminate",
    }


def test_the_disk_is_never_smaller_than_the_image() -> None:
    big = Ground(image=replace(IMAGE, size=30 * GIB))
    (root,) = run_instances(intent(), SETTINGS, big)["BlockDeviceMappings"]
    assert root["Ebs"]["VolumeSize"] == 30


def test_subnet_and_security_groups_go_with_the_network_card() -> None:
    settings = replace(SETTINGS, security_groups=("sg-1",), public_ip=False)
    made = run_instances(intent(), settings, Ground(image=IMAGE, subnets={"eu-central-1a": "subnet-1"}))
    assert made["NetworkInterfaces"] == [
        {
            "DeviceIndex": 0,
            "AssociatePublicIpAddress": False,
            "DeleteOnTermination": True,
            "SubnetId": "subnet-1",
            "Groups": ["sg-1"],
        }
    ]
    assert "SecurityGroupIds" not in made


def test_a_zone_without_a_subnet_is_refused() -> None:
    with pytest.raises(BadRequest, match="eu-central-1a"):
        run_instances(intent(), SETTINGS, Ground(image=IMAGE, subnets={"eu-central-1b": "subnet-1"}))


def test_a_launch_template_is_left_to_say_the_rest() -> None:
    settings = replace(SETTINGS, launch_template=LaunchTemplate(id="lt-1", version="4"), disk=0)
    made = run_instances(intent(), settings, Ground())
    assert made["LaunchTemplate"] == {"LaunchTemplateId": "lt-1", "Version": "4"}
    assert not {"ImageId", "BlockDeviceMappings", "NetworkInterfaces"} & set(made)


ARN = "arn:aws:iam::1:instance-profile/sessions"


@pytest.mark.parametrize(("profile", "asked"), [("sessions", {"Name": "sessions"}), (ARN, {"Arn": ARN})])
def test_instance_profile(profile: str, asked: dict[str, str]) -> None:
    made = run_instances(intent(), replace(SETTINGS, instance_profile=profile, key_name="ops"), GROUND)
    assert (made["IamInstanceProfile"], made["KeyName"]) == (asked, "ops")


def test_user_data_that_is_too_long_never_leaves() -> None:
    with pytest.raises(BadRequest, match="16384") as caught:
        run_instances(intent(script="#!/bin/sh\n# secret" + "x" * 16384), SETTINGS, GROUND)
    assert "secret" not in str(caught.value)


def test_users_tags_are_fitted_and_never_crowd_out_ours() -> None:
    wild = {"cost/centre": "a&b=c", "aws:no": "x", "k" * 200: "v" * 400, OWNER_TAG: "another", "": "empty"}
    made = tags(intent(tags=wild | {f"t{n}": "" for n in range(80)}), {"team": "ml"})
    assert len(made) == MAX_TAGS
    assert (made[OWNER_TAG], made[INTENT_TAG], made[PRINT_TAG]) == (
        "inst-1",
        "i-1",
        intent(tags=wild | {f"t{n}": "" for n in range(80)}).fingerprint,
    )
    assert made["cost/centre"] == "a-b=c"
    assert made["team"] == "ml"
    assert made["k" * 128] == "v" * 256
    assert "aws:no" not in made
