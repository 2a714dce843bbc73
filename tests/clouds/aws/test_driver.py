"""What the `aws` driver does beyond the contract, on the server's own inventory."""

import asyncio
import base64
import json
import logging
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest
from moto.ec2.models import ec2_backends
from moto.ec2.models.amis import Ami

from agent.probe import metadata
from atoll.group import Provider
from atoll.slots import GIB
from providers.errors import Auth, BadRequest, Capacity, ProviderError, Quota, Unknown
from providers.port import Driver, Intent, MachineState
from providers.prices.book import Book
from providers.registry import feed, make
from tests.clouds.aws import facts
from tests.clouds.aws.harness import REGION, AwsHarness
from tests.clouds.harness import OWNER, Seen


@pytest.fixture
def cloud(tmp_path: Path) -> Iterator[AwsHarness]:
    harness = AwsHarness(tmp_path / "clouds")
    harness.start()
    yield harness
    harness.stop()
    assert harness.leftovers() == []


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20.0):
        while not condition():
            await asyncio.sleep(0.02)


def only(cloud: AwsHarness) -> Seen:
    (seen,) = cloud.inventory()
    return seen


def instance(cloud: AwsHarness) -> dict[str, Any]:
    told = cloud.client("ec2").describe_instances()
    (found,) = [each for reservation in told["Reservations"] for each in reservation["Instances"]]
    return dict(found)


async def made(driver: Driver, intent: Intent) -> str:
    return (await driver.create(intent)).provider_id


async def test_what_a_launch_makes(cloud: AwsHarness) -> None:
    cloud.settings = {"tags": {"team": "ml & co"}}
    await made(cloud.driver(), cloud.intent("i-1"))
    found = instance(cloud)
    assert found["MetadataOptions"]["HttpTokens"] == "required"
    assert found["MetadataOptions"]["HttpPutResponseHopLimit"] == 1
    assert found["ImageId"] == facts.DEBIAN_AMI
    (disk,) = found["BlockDeviceMappings"]
    (volume,) = cloud.client("ec2").describe_volumes(VolumeIds=[disk["Ebs"]["VolumeId"]])["Volumes"]
    assert (volume["Size"], volume["Encrypted"], volume["VolumeType"]) == (20, True, "gp3")
    assert disk["Ebs"]["DeleteOnTermination"] is True
    assert {"Key": "team", "Value": "ml - co"} in found["Tags"]
    assert {"Key": "atoll-owner", "Value": OWNER} in volume["Tags"]
    assert only(cloud).user_data == "#!/bin/sh\nsleep 60\n"


async def test_a_machine_that_powers_itself_off_is_ended(cloud: AwsHarness) -> None:
    driver = cloud.driver()
    await made(driver, cloud.intent("i-1", script="#!/bin/sh\npoweroff\nsleep 60\n"))
    await until(lambda: only(cloud).state is MachineState.ENDED)
    (shown,) = await driver.describe(OWNER)
    assert (shown.state, shown.message) == (
        MachineState.ENDED,
        "Client.InstanceInitiatedShutdown: Instance initiated shutdown",
    )


async def test_a_reclaimed_spot_machine_says_why(cloud: AwsHarness) -> None:
    driver = cloud.driver()
    cloud.reclaim(await made(driver, cloud.intent("i-1", spot=True)))
    await until(lambda: only(cloud).state is MachineState.ENDED)
    (shown,) = await driver.describe(OWNER)
    assert "Spot instance termination" in shown.message


async def test_a_reclaimed_spot_machine_is_told_before(cloud: AwsHarness) -> None:
    provider_id = await made(cloud.driver(), cloud.intent("i-1", spot=True, script="#!/bin/sh\nenv; sleep 60\n"))
    where = f"{cloud.server.url}/_atoll/metadata/{provider_id}"
    await until(lambda: f"ATOLL_INSTANCE_METADATA={where}" in cloud.guests.console(provider_id))
    service = metadata.Service(where)
    assert await asyncio.to_thread(metadata.aws, service) is None
    cloud.server.reclaim(provider_id, 1.5)
    notice = await asyncio.to_thread(metadata.aws, service)
    assert notice is not None
    assert 0.0 <= notice[0] <= 2.0
    assert only(cloud).state is MachineState.RUNNING
    await until(lambda: only(cloud).state is MachineState.ENDED)


async def test_a_spot_machine_is_not_stopped(cloud: AwsHarness) -> None:
    driver = cloud.driver()
    provider_id = await made(driver, cloud.intent("i-1", spot=True))
    with pytest.raises(BadRequest, match="one-time"):
        await driver.stop(provider_id)
    assert only(cloud).state is MachineState.RUNNING


async def test_listings_are_read_to_their_end(cloud: AwsHarness) -> None:
    cloud.server.overlay.page = 2
    driver = cloud.driver()
    for number in range(5):
        await made(driver, cloud.intent(f"i-{number}"))
    cloud.server.overlay.calls.clear()
    assert len(await driver.describe(OWNER)) == 5
    assert cloud.server.overlay.calls.count("DescribeInstances") == 3


async def test_create_is_asked_once_and_reads_twice(cloud: AwsHarness) -> None:
    driver = cloud.driver()
    cloud.inject(no_capacity={"times": 9})
    with pytest.raises(Capacity):
        await driver.create(cloud.intent("i-1"))
    assert cloud.struck() == {"no_capacity": 1}, "EC2 says it with 500, which the SDK would ask again for"


async def test_a_newer_image_of_the_same_name_does_not_hide_the_machine(cloud: AwsHarness) -> None:
    """The reply is lost, Debian publishes an image, another process asks again: other request, same intent."""
    cloud.inject(lost_reply={"after_effect": True})
    with pytest.raises(Unknown):
        await cloud.driver().create(cloud.intent("i-1"))
    backend = ec2_backends[facts.ACCOUNT][REGION]
    newer = Ami(backend, "ami-0newer", architecture="x86_64", root_device_type="ebs", root_device_name="/dev/xvda")
    backend.amis[newer.id] = newer
    cloud.settings = {"image": newer.id}
    found = await cloud.driver().create(cloud.intent("i-1"))
    assert found.provider_id == only(cloud).provider_id


async def test_a_token_that_was_used_is_unknown_while_the_listing_lags(cloud: AwsHarness) -> None:
    driver = cloud.driver()
    await driver.create(cloud.intent("i-1"))
    cloud.inject(list_lag={"lag_s": 60})
    with pytest.raises(Unknown):
        await driver.create(cloud.intent("i-1", script="#!/bin/sh\nsleep 61\n"))


async def test_quota_is_named_as_it_is_told(cloud: AwsHarness) -> None:
    driver = cloud.driver()
    names = {limit.name for limit in await driver.quota()}
    for spot in (False, True):
        cloud.inject(quota={"times": 1})
        with pytest.raises(Quota) as caught:
            await driver.create(cloud.intent("i-1", spot=spot))
        assert caught.value.name in names


async def test_quotas_are_the_accounts(cloud: AwsHarness) -> None:
    told = {(limit.limit, limit.spot) for limit in await cloud.driver().quota() if "G and VT" in limit.name}
    assert told == {(16, False), (8, True)}
    cloud.inject(auth={"calls": ["quota"]})
    assert await cloud.driver().quota() == []


async def test_prices_are_the_plain_machines(cloud: AwsHarness) -> None:
    source = feed(cloud.provider(), cloud.context())
    assert source is not None
    listed = await source.fetch()
    book = Book(listed)
    assert book.price("g4dn.xlarge", f"{REGION}a", False) == 526_000
    assert book.price("t3.nano", f"{REGION}b", True) == round(5200 * 0.33)
    assert book.price("c6i.large", f"{REGION}a", False) is None, "not among the settings' shapes"
    assert (listed.currency, listed.at > 1.7e9) == ("USD", True)
    assert next(p.gpus for p in listed.prices if p.shape == "g4dn.12xlarge") == 4
    shapes = await cloud.driver().shapes(book)
    assert all(s.price for s in shapes if s.name in facts.ON_DEMAND)


async def test_prices_say_when_they_may_not_be_read(cloud: AwsHarness) -> None:
    cloud.inject(auth={"calls": ["prices"]})
    source = feed(cloud.provider(), cloud.context())
    assert source is not None
    with pytest.raises(Auth):
        await source.fetch()


async def test_subnets_choose_the_zones(cloud: AwsHarness) -> None:
    subnets = cloud.client("ec2").describe_subnets()["Subnets"]
    chosen = next(each for each in subnets if each["AvailabilityZone"] == f"{REGION}b")
    cloud.settings = {"subnets": [chosen["SubnetId"]], "public_ip": False}
    driver = cloud.driver()
    assert {shape.zone for shape in await driver.shapes(Book())} == {f"{REGION}b"}
    await made(driver, cloud.intent("i-1", zone=f"{REGION}b"))
    assert instance(cloud)["SubnetId"] == chosen["SubnetId"]
    with pytest.raises(BadRequest, match="no subnet"):
        await driver.create(cloud.intent("i-2"))


async def test_an_instance_profile_and_a_security_group(cloud: AwsHarness) -> None:
    ec2, iam = cloud.client("ec2"), cloud.client("iam")
    iam.create_instance_profile(InstanceProfileName="sessions")
    group = ec2.create_security_group(GroupName="out", Description="egress 443 only")["GroupId"]
    cloud.settings = {"instance_profile": "sessions", "security_groups": [group]}
    driver = cloud.driver()
    findings = {finding.check: finding for finding in await driver.doctor()}
    assert all(finding.ok for finding in findings.values()), findings
    assert "iam:PassRole" in findings["policy"].details
    await made(driver, cloud.intent("i-1"))
    found = instance(cloud)
    (card,) = found["NetworkInterfaces"]
    assert [each["GroupId"] for each in card["Groups"]] == [group]
    assert found["IamInstanceProfile"]["Arn"].endswith("instance-profile/sessions")


async def test_a_launch_template_gives_the_rest(cloud: AwsHarness) -> None:
    data = {"ImageId": facts.DEBIAN_AMI, "KeyName": "ops"}
    cloud.client("ec2").create_launch_template(LaunchTemplateName="base", LaunchTemplateData=data)
    cloud.settings = {"launch_template": "base"}
    document = cloud.provider()
    del document.settings["disk"]
    driver = make(document, cloud.context())
    assert (await driver.shapes(Book()))[0].slots.disk == 0
    await driver.create(cloud.intent("i-1"))
    assert instance(cloud)["ImageId"] == facts.DEBIAN_AMI


@pytest.mark.parametrize(
    ("settings", "check", "says"),
    [
        ({"zones": [f"{REGION}x"]}, "zones", "no zone"),
        ({"image": "ami-0nothere"}, "image", "ami-0nothere"),
        ({"image": "ssm:/no/such"}, "image", "ParameterNotFound"),
        ({"subnets": ["subnet-nothere"]}, "network", "subnet-nothere"),
        ({"security_groups": ["sg-nothere"]}, "network", "sg-nothere"),
        ({"shapes": ["zz9.*"]}, "launch", "no machine type"),
        ({"instance_profile": "nobody"}, "launch", "nobody"),
        ({"disk": "2GiB"}, "image", "larger"),
    ],
)
async def test_doctor_finds(cloud: AwsHarness, settings: dict[str, Any], check: str, says: str) -> None:
    cloud.settings = settings
    findings = {finding.check: finding for finding in await cloud.driver().doctor()}
    assert not findings[check].ok
    assert says in findings[check].message
    assert cloud.inventory() == []


@pytest.mark.parametrize(
    ("calls", "check"), [("create", "launch"), ("prices", "prices"), ("quota", "quotas"), ("identity", "credential")]
)
async def test_doctor_names_the_right_that_is_missing(cloud: AwsHarness, calls: str, check: str) -> None:
    cloud.inject(auth={"calls": [calls], "times": 9})
    findings = {finding.check: finding for finding in await cloud.driver().doctor()}
    assert not findings[check].ok
    assert "UnauthorizedOperation" in findings[check].message
    assert json.loads(findings["policy"].details)["Statement"]


async def test_doctor_tries_to_end_a_machine_of_ours_and_does_not(cloud: AwsHarness) -> None:
    driver = cloud.driver()
    await made(driver, cloud.intent("i-1"))
    assert all(finding.ok for finding in await driver.doctor())
    cloud.inject(auth={"calls": ["terminate"]})
    findings = {finding.check: finding for finding in await driver.doctor()}
    assert not findings["terminate"].ok
    assert only(cloud).state is MachineState.RUNNING


async def test_a_wrong_key_is_told(cloud: AwsHarness) -> None:
    cloud.settings = {"credentials": {"access_key_id": "AKIAWRONG", "secret_access_key": "x"}}
    with pytest.raises(Auth, match="AuthFailure"):
        await cloud.driver().describe(OWNER)


async def test_a_profile_that_is_not_there_is_told(cloud: AwsHarness) -> None:
    cloud.settings = {"credentials": {"profile": "nobodys"}}
    with pytest.raises(Auth, match="nobodys"):
        await cloud.driver().describe(OWNER)


async def test_a_role_is_assumed(cloud: AwsHarness) -> None:
    keys = cloud.provider().settings["credentials"]
    assert isinstance(keys, dict)
    role = {"role_arn": "arn:aws:iam::123456789012:role/atoll", "external_id": "ours"}
    cloud.settings = {"credentials": keys | role}
    driver = cloud.driver()
    await made(driver, cloud.intent("i-1"))
    assert len(await driver.describe(OWNER)) == 1
    assert cloud.server.overlay.calls.count("AssumeRole") == 1
    assert len(cloud.server.overlay.keys) > 1


async def test_prices_are_read_through_the_proxy(cloud: AwsHarness) -> None:
    """No such host: only the proxy, which is the server here, can have answered."""
    cloud.settings = {"endpoint": "http://ec2.nowhere.invalid"}
    source = feed(cloud.provider(), replace(cloud.context(), proxy=cloud.server.url))
    assert source
    assert (await source.fetch()).prices


async def test_no_log_of_the_sdk_holds_the_boot_script(cloud: AwsHarness, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    script = "#!/bin/sh\nTOKEN=atj_secret; exec sleep 60\n"
    await made(cloud.driver(), cloud.intent("i-1", script=script))
    assert base64.b64encode(script.encode()).decode()[:40] not in caplog.text
    assert facts.SECRET_KEY not in caplog.text


async def test_a_value_the_sdk_does_not_take_is_not_repeated(cloud: AwsHarness) -> None:
    wrong = replace(cloud.intent("i-1"), user_data="#!/bin/sh\n# atj_secret")
    object.__setattr__(wrong, "tags", {"n": "v"})
    odd = replace(wrong, shape=replace(wrong.shape, name=7))  # type: ignore[arg-type]
    with pytest.raises(ProviderError) as caught:
        await cloud.driver().create(odd)
    assert isinstance(caught.value, BadRequest)
    assert "atj_secret" not in f"{caught.value} {caught.value.__cause__!r}"


async def test_the_whole_catalogue(cloud: AwsHarness) -> None:
    document = cloud.provider()
    del document.settings["shapes"]
    shapes = await make(document, cloud.context()).shapes(Book())
    assert len({shape.name for shape in shapes}) > 500
    assert all(gpu.milli >= 1000 and gpu.memory >= 8 * GIB for shape in shapes for gpu in shape.slots.gpu)
    assert not any("metal" in shape.name or shape.name.startswith(("c7g", "mac", "g6f")) for shape in shapes)


def ask(url: str, body: object = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    with urlopen(Request(url, data), timeout=10) as answer:
        return json.load(answer)


async def test_it_serves_as_a_process_of_its_own(cloud: AwsHarness, tmp_path: Path) -> None:
    server = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.clouds.aws", "--guests", str(tmp_path / "guests"), stdout=asyncio.subprocess.PIPE
    )
    assert server.stdout is not None
    try:
        told = json.loads(await asyncio.wait_for(server.stdout.readline(), 30.0))
        url = told["endpoint"]
        document = Provider(name="ec2", kind="aws", settings={**told, "shapes": ["t3.*"]})
        driver = make(document, cloud.context())
        await asyncio.to_thread(ask, f"{url}/_atoll/faults", {"no_capacity": {"times": 1}})
        with pytest.raises(Capacity):
            await driver.create(cloud.intent("i-1"))
        await driver.create(cloud.intent("i-1", script='#!/bin/sh\necho booted > "$HOME/sign"\nsleep 60\n'))
        (seen,) = await asyncio.to_thread(ask, f"{url}/_atoll/inventory")
        sign = tmp_path / "guests" / seen["provider_id"] / "home" / "sign"
        await until(sign.exists)
        assert seen["intent"] == "i-1"
        assert await asyncio.to_thread(ask, f"{url}/_atoll/struck") == {"no_capacity": 1}
        await asyncio.to_thread(ask, f"{url}/_atoll/remove", {"id": seen["provider_id"]})
        async with asyncio.timeout(20.0):
            while (await driver.describe(OWNER))[0].state is not MachineState.ENDED:
                await asyncio.sleep(0.05)
    finally:
        server.terminate()
        await server.wait()
    assert not (tmp_path / "guests" / seen["provider_id"] / "home").exists()
