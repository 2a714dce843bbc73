"""The AWS modules made and destroyed for real, with moto as the cloud: asserted on moto's own inventory."""

import base64
import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import BotoCoreError

from atoll.cli.terraform import read
from atoll.document import provider as read_provider
from atoll.host.config import ServerConfig
from providers.aws.policy import policy
from providers.aws.settings import parse
from tests.e2e.waiting import until
from tests.ports import free_port
from tests.terraform.binary import Workspace, program

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("terraform")]

REGION = "eu-central-1"
ACCOUNT = "123456789012"
DEBIAN = {
    "owner_id": "136693071363", "description": "", "public": True, "virtualization_type": "hvm",
    "architecture": "x86_64", "state": "available", "platform": None, "image_type": "machine", "hypervisor": "xen",
    "root_device_name": "/dev/xvda", "root_device_type": "ebs", "sriov": "simple",
}  # fmt: skip
IMAGES = [
    {**DEBIAN, "ami_id": f"ami-0000000000000{year}", "name": f"debian-12-amd64-{year}0101-1",
     "creation_date": f"{year}-01-01T00:00:00.000Z"}
    for year in (2024, 2026, 2025)
]  # fmt: skip


class Account:
    """An account in a moto server of its own."""

    def __init__(self, url: str) -> None:
        self.url = url

    def client(self, service: str) -> Any:
        make: Callable[..., Any] = boto3.client
        return make(
            service,
            region_name=REGION,
            endpoint_url=self.url,
            aws_access_key_id="testing",
            aws_secret_access_key="testing",
            config=Config(connect_timeout=5, read_timeout=20, retries={"total_max_attempts": 1}),
        )

    def owned(self) -> dict[str, list[str]]:
        """Return all that somebody made: ids and names by kind. What every account has from the start is left out."""
        ec2, iam = self.client("ec2"), self.client("iam")
        return {
            "networks": [v["VpcId"] for v in ec2.describe_vpcs()["Vpcs"] if not v["IsDefault"]],
            "subnets": [s["SubnetId"] for s in ec2.describe_subnets()["Subnets"] if not s["DefaultForAz"]],
            "gateways": [g["InternetGatewayId"] for g in ec2.describe_internet_gateways()["InternetGateways"]],
            "groups": [
                g["GroupName"] for g in ec2.describe_security_groups()["SecurityGroups"] if g["GroupName"] != "default"
            ],
            "machines": [
                i["InstanceId"]
                for r in ec2.describe_instances()["Reservations"]
                for i in r["Instances"]
                if i["State"]["Name"] != "terminated"
            ],
            "disks": [v["VolumeId"] for v in ec2.describe_volumes()["Volumes"]],
            "addresses": [a["PublicIp"] for a in ec2.describe_addresses()["Addresses"]],
            "users": [u["UserName"] for u in iam.list_users()["Users"]],
            "roles": [r["RoleName"] for r in iam.list_roles()["Roles"]],
            "policies": [p["Arn"] for p in iam.list_policies(Scope="Local")["Policies"]],
            "profiles": [p["InstanceProfileName"] for p in iam.list_instance_profiles()["InstanceProfiles"]],
        }

    def group(self, name: str) -> dict[str, Any]:
        found = self.client("ec2").describe_security_groups(Filters=[{"Name": "group-name", "Values": [name]}])
        (group,) = found["SecurityGroups"]
        return dict(group)

    def rights(self, arn: str) -> dict[str, Any]:
        iam = self.client("iam")
        version = iam.get_policy(PolicyArn=arn)["Policy"]["DefaultVersionId"]
        document: dict[str, Any] = iam.get_policy_version(PolicyArn=arn, VersionId=version)["PolicyVersion"]["Document"]
        return document


@pytest.fixture(scope="module")
def account(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Account]:
    program()
    folder = tmp_path_factory.mktemp("moto")
    (folder / "images.json").write_text(json.dumps(IMAGES))
    port = free_port()
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
            env={**os.environ, "MOTO_AMIS_PATH": str(folder / "images.json")},
            stdout=log,
            stderr=log,
        )
    account = Account(f"http://127.0.0.1:{port}")
    try:
        until(lambda: answers(account), "moto", within=60)
        yield account
    finally:
        process.terminate()
        process.wait(10)


def answers(account: Account) -> bool:
    try:
        return bool(account.client("ec2").describe_vpcs()["Vpcs"])
    except BotoCoreError:
        return False


@contextmanager
def made(account: Account, example: str, folder: Path, **variables: str) -> Iterator[Workspace]:
    """Apply an example; destroy it afterwards, and hold that the account is as it was."""
    workspace = Workspace(folder / "terraform", f"examples/{example}")
    endpoints = "\n".join(f'    {name} = "{account.url}"' for name in ("ec2", "iam", "sts"))
    (workspace.folder / "providers_override.tf").write_text(
        f'provider "aws" {{\n  region     = "{REGION}"\n  access_key = "testing"\n  secret_key = "testing"\n'
        f"  endpoints {{\n{endpoints}\n  }}\n"
        "  skip_credentials_validation = true\n  skip_metadata_api_check = true\n}\n"
    )
    (workspace.folder / "given.auto.tfvars.json").write_text(json.dumps(variables))
    workspace.init("hashicorp/aws")
    before = account.owned()
    try:
        workspace.run("apply", "-auto-approve", "-input=false", "-no-color")
        yield workspace
    finally:
        workspace.run("destroy", "-auto-approve", "-input=false", "-no-color")
    assert account.owned() == before


@pytest.fixture(scope="module")
def by_key(account: Account, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    with made(account, "aws", tmp_path_factory.mktemp("aws")) as workspace:
        yield workspace


@pytest.fixture
def settings(by_key: Workspace) -> Mapping[str, Any]:
    return read_provider(read(by_key.run("output", "-json"), "all outputs")).settings


def test_every_form_of_the_output_is_the_same_provider(by_key: Workspace) -> None:
    forms = {
        "all": by_key.run("output", "-json"),
        "one": by_key.run("output", "-json", "atoll_provider"),
        "show": by_key.run("show", "-json"),
        "state": (by_key.folder / "terraform.tfstate").read_text(),
    }
    documents = [read(text, form) for form, text in forms.items()]
    assert documents == [documents[0]] * 4
    assert (documents[0]["name"], documents[0]["type"]) == ("aws-eu-central-1", "aws")


def test_the_settings_are_what_the_driver_reads(account: Account, settings: Mapping[str, Any]) -> None:
    read_there = parse(settings)
    ec2 = account.client("ec2")
    subnets = {s["AvailabilityZone"]: s["SubnetId"] for s in ec2.describe_subnets()["Subnets"] if not s["DefaultForAz"]}
    assert read_there.region == REGION
    assert read_there.zones == ("eu-central-1a", "eu-central-1b", "eu-central-1c")
    assert read_there.subnets == subnets
    assert read_there.security_groups == (account.group("aws-eu-central-1-agents")["GroupId"],)
    assert read_there.image == "ami-00000000000002026"
    assert read_there.tags == {"team": "research"}
    keys = account.client("iam").list_access_keys(UserName="aws-eu-central-1-atoll")["AccessKeyMetadata"]
    assert [read_there.credentials.access_key_id] == [key["AccessKeyId"] for key in keys]
    assert read_there.credentials.secret_access_key


def test_the_secret_is_not_shown_where_nobody_asked(by_key: Workspace, settings: Mapping[str, Any]) -> None:
    assert settings["credentials"]["secret_access_key"] not in by_key.run("show", "-no-color") + by_key.run("output")


def test_agents_dial_out_and_nobody_dials_in(account: Account, by_key: Workspace) -> None:
    group = account.group("aws-eu-central-1-agents")
    assert group["IpPermissions"] == []
    out = {(rule["IpProtocol"], rule["FromPort"], rule["ToPort"]) for rule in group["IpPermissionsEgress"]}
    assert out == {("tcp", 443, 443), ("tcp", 53, 53), ("udp", 53, 53)}


def test_the_rights_are_those_that_the_doctor_prints(account: Account, by_key: Workspace) -> None:
    attached = account.client("iam").list_attached_user_policies(UserName="aws-eu-central-1-atoll")
    (arn,) = [each["PolicyArn"] for each in attached["AttachedPolicies"]]
    equal_rights(account.rights(arn), policy(REGION, ACCOUNT))


def equal_rights(given: dict[str, Any], printed: dict[str, Any]) -> None:
    """Hold that both allow the same; what machines stand on may be narrower: the module's own network."""
    ours, theirs = ({s["Sid"]: s for s in document["Statement"]} for document in (given, printed))
    assert ours.keys() == theirs.keys()
    for sid, statement in ours.items():
        assert sorted(listed(statement["Action"])) == sorted(listed(theirs[sid]["Action"])), sid
        assert statement.get("Condition") == theirs[sid].get("Condition"), sid
        allowed = listed(theirs[sid]["Resource"])
        for resource in listed(statement["Resource"]):
            assert any(fnmatchcase(resource, pattern) for pattern in allowed), (sid, resource)
        if sid != "LaunchOn":
            assert sorted(listed(statement["Resource"])) == sorted(allowed), sid


def listed(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else list(value)


def test_a_second_apply_changes_nothing(by_key: Workspace) -> None:
    by_key.run("plan", "-detailed-exitcode", "-input=false", "-no-color", code=0)


@pytest.fixture(scope="module")
def control(
    account: Account, by_key: Workspace, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Workspace, dict[str, Any]]]:
    package = "atoll[aws] @ https://files.example.com/atoll-0.1.0-py3-none-any.whl"
    with made(account, "control-plane-aws", tmp_path_factory.mktemp("control"), package=package) as workspace:
        yield workspace, json.loads(workspace.run("output", "-json"))


def test_the_control_plane_is_reached_on_443_only(account: Account, control: tuple[Workspace, dict[str, Any]]) -> None:
    (rule,) = account.group("atoll")["IpPermissions"]
    assert (rule["IpProtocol"], rule["FromPort"], rule["ToPort"]) == ("tcp", 443, 443)
    (address,) = account.owned()["addresses"]
    assert control[1]["url"]["value"] == f"https://{address}"


def test_the_control_planes_machine(
    account: Account, control: tuple[Workspace, dict[str, Any]], tmp_path: Path
) -> None:
    ec2 = account.client("ec2")
    (machine,) = (i for r in ec2.describe_instances()["Reservations"] for i in r["Instances"])
    assert machine["MetadataOptions"]["HttpTokens"] == "required"
    disks = ec2.describe_volumes(Filters=[{"Name": "tag:Name", "Values": ["atoll-state"]}])["Volumes"]
    assert [(d["Encrypted"], d["Attachments"][0]["InstanceId"]) for d in disks] == [(True, machine["InstanceId"])]
    script = boot_script(ec2, machine["InstanceId"])
    assert "$" + "{" not in script
    assert disks[0]["VolumeId"].replace("-", "") in script
    assert "package='atoll[aws] @ https://files.example.com/atoll-0.1.0-py3-none-any.whl'" in script
    (tmp_path / "boot.sh").write_text(script)
    checked = subprocess.run(["sh", "-n", str(tmp_path / "boot.sh")], capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stderr) == (0, "")


def boot_script(ec2: Any, machine: str) -> str:
    told = ec2.describe_instance_attribute(InstanceId=machine, Attribute="userData")["UserData"]["Value"]
    return base64.b64decode(told).decode()


def test_the_control_planes_configuration_is_read(account: Account, control: tuple[Workspace, dict[str, Any]]) -> None:
    ec2 = account.client("ec2")
    (machine,) = (i["InstanceId"] for r in ec2.describe_instances()["Reservations"] for i in r["Instances"])
    written = boot_script(ec2, machine).partition("server.toml <<END\n")[2].partition("\nEND\n")[0]
    (address,) = account.owned()["addresses"]
    told = tomllib.loads(written.replace("$host", address))
    assert told["server"]["public_url"] == f"https://{address}"
    known = asdict(ServerConfig())
    for section, values in told.items():
        assert values.keys() <= known[section].keys(), section


def test_no_key_is_made_where_the_machine_takes_a_role_on(
    account: Account, control: tuple[Workspace, dict[str, Any]]
) -> None:
    settings = parse(read_provider(control[1]["atoll_provider"]["value"]).settings)
    assert settings.credentials.role_arn == f"arn:aws:iam::{ACCOUNT}:role/aws-atoll"
    assert not settings.credentials.access_key_id
    assert "aws-atoll" not in account.owned()["users"]
    iam = account.client("iam")
    trust = iam.get_role(RoleName="aws-atoll")["Role"]["AssumeRolePolicyDocument"]
    assert trust["Statement"][0]["Principal"] == {"AWS": f"arn:aws:iam::{ACCOUNT}:role/atoll-control"}
    may = iam.get_role_policy(RoleName="atoll-control", PolicyName="providers")["PolicyDocument"]
    (statement,) = may["Statement"]
    assert (listed(statement["Action"]), listed(statement["Resource"])) == (
        ["sts:AssumeRole"], [settings.credentials.role_arn],
    )  # fmt: skip
