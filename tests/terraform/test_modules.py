"""Every module: its form, its argument names, and the provider's document that comes out of it."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from atoll.cli.terraform import read
from atoll.document import provider as read_provider
from providers.azure.doctor import ACTIONS, SUBSCRIPTION_ACTIONS
from providers.azure.settings import parse as parse_azure
from providers.gcp.rights import permissions
from providers.gcp.settings import parse as parse_gcp
from providers.openstack.rights import RULES
from providers.openstack.settings import parse as parse_openstack
from tests.terraform.binary import EXAMPLES, MODULES, ROOT, Workspace, call
from tests.terraform.hcl import blocks, plain, text

ARGUMENTS: dict[str, Any] = json.loads((Path(__file__).parent / "arguments.json").read_text())
"""Names from the providers' published types, for the resources that are used here; `source` says which."""
META = {"count", "for_each", "depends_on", "lifecycle", "provider"}
CLOUDS = [path for path in MODULES if path.name in ("gcp", "azure", "openstack")]


def named(path: Path) -> str:
    return path.name


def test_there_is_a_module_and_an_example_for_each_cloud() -> None:
    wanted = {"aws", "azure", "control-plane-aws", "gcp", "openstack"}
    assert {path.name for path in MODULES} == {path.name for path in EXAMPLES} == wanted


def test_all_is_in_terraforms_own_form() -> None:
    done = call("fmt", "-check", "-diff", "-recursive", folder=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("module", CLOUDS, ids=named)
def test_arguments_are_those_of_the_providers_schema(module: Path) -> None:
    seen = 0
    for block in blocks(module):
        fits(block.body, ARGUMENTS[f"{block.kind}.{block.type}"], f"{block.type}.{block.name}")
        seen += 1
    assert seen >= 9


def fits(body: dict[str, Any], schema: dict[str, Any], where: str) -> None:
    body = {**body, **dynamic(body)}
    given = plain(body).keys() - META - {"dynamic"}
    known = {*schema["required"], *schema["optional"]}
    assert given <= known, f"{where} knows no {given - known}"
    assert set(schema["required"]) <= given, f"{where} lacks {set(schema['required']) - given}"
    for key, below in schema.get("blocks", {}).items():
        for each in body.get(key, ()):
            fits(each, below, f"{where}.{key}")


def dynamic(body: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Return the blocks that are made for each of a list, as if they stood there once."""
    made = [(name.strip('"'), block) for each in body.get("dynamic", ()) for name, block in plain(each).items()]
    return {name: [plain(content) for content in block["content"]] for name, block in made}


@pytest.mark.parametrize("module", CLOUDS, ids=named)
def test_attributes_that_are_read_exist(module: Path) -> None:
    place = r"\b(data\.)?((?:google|azurerm|azuread|openstack)_\w+)\.\w+(?:\[\w+\])?\.(\w+)"
    read_there = {(("data." if d else "resource.") + t, a) for d, t, a in re.findall(place, text(module))}
    assert len(read_there) >= 6
    for block, attribute in read_there:
        schema = ARGUMENTS[block]
        known = {"id", *schema["attributes"], *schema["required"], *schema["optional"]}
        assert attribute in known, f"{block} has no {attribute}"


@pytest.mark.parametrize("module", MODULES, ids=named)
def test_every_variable_is_used_and_said(module: Path) -> None:
    everything = text(module)
    declared = re.findall(r'^variable "(\w+)" \{(.*?)^\}', everything, re.MULTILINE | re.DOTALL)
    assert len(declared) >= 5
    for name, body in declared:
        assert f"var.{name}" in re.sub(r'^variable ".*?^\}', "", everything, flags=re.MULTILINE | re.DOTALL), name
        assert "description" in body, name
        assert "type " in body, name
    assert set(re.findall(r"\bvar\.(\w+)", everything)) == {name for name, _ in declared}


# What a cloud would have told, by the names of the resources in the modules.
STAND_INS: dict[str, dict[str, Any]] = {
    "gcp": {
        "google_compute_network": {"agents": {"id": "projects/mine/global/networks/gcp-agents"}},
        "google_compute_subnetwork": {
            "agents": {"id": "projects/mine/regions/europe-west4/subnetworks/gcp-agents"},
        },
        "google_service_account_key": {"atoll": [{"private_key": ""}]},
        "data": {
            "google_compute_zones": {"all": {"names": ["europe-west4-b", "europe-west4-a"]}},
            "google_compute_image": {
                "debian": [{"id": "projects/debian-cloud/global/images/debian-12-bookworm-v20260101"}]
            },
        },
    },
    "azure": {
        "azurerm_resource_group": {"agents": {"name": "azure-agents", "location": "westeurope"}},
        "azurerm_subnet": {
            "agents": {
                "id": "/subscriptions/11111111-2222-3333-4444-555555555555/resourceGroups/azure-agents"
                "/providers/Microsoft.Network/virtualNetworks/azure-agents/subnets/agents"
            }
        },
        "azurerm_network_security_group": {
            "agents": {
                "id": "/subscriptions/11111111-2222-3333-4444-555555555555/resourceGroups/azure-agents"
                "/providers/Microsoft.Network/networkSecurityGroups/azure-agents"
            }
        },
        "azuread_application": {"atoll": {"client_id": "66666666-2222-3333-4444-555555555555"}},
        "azuread_application_password": {"atoll": {"value": "the-secret"}},
        "data": {
            "azurerm_subscription": {
                "here": {
                    "subscription_id": "11111111-2222-3333-4444-555555555555",
                    "tenant_id": "77777777-2222-3333-4444-555555555555",
                }
            }
        },
    },
    "openstack": {
        "openstack_networking_network_v2": {"agents": {"id": "8f1d6e2c-0000-4000-8000-00000000000a"}},
        "openstack_networking_secgroup_v2": {"agents": {"name": "openstack-agents"}},
        "openstack_identity_application_credential_v3": {"atoll": {"id": "abc123", "secret": "the-secret"}},
        "data": {"openstack_images_image_v2": {"machine": {"id": "8f1d6e2c-0000-4000-8000-00000000000b"}}},
    },
}
GIVEN = {
    "gcp": {"project": "mine"},
    "azure": {"tags": {"team": "research"}},
    "openstack": {"auth_url": "https://keystone.example.com:5000/v3"},
}
KEY = {"type": "service_account", "client_email": "a@mine.iam.gserviceaccount.com", "private_key": "PEM"}


def document(cloud: str, folder: Path) -> dict[str, Any]:
    """Evaluate a module's output with terraform itself, where its resources are stand-ins: no provider is needed."""
    stand_ins = json.loads(json.dumps(STAND_INS[cloud]))
    if cloud == "gcp":
        (folder / "key.json").write_text(json.dumps(KEY))
        stand_ins["google_service_account_key"]["atoll"][0]["private_key"] = '${base64encode(file("key.json"))}'
    shutil.copy(ROOT / "modules" / cloud / "variables.tf", folder)
    output = (ROOT / "modules" / cloud / "outputs.tf").read_text()
    output = re.sub(r"^  depends_on = .*\n", "", output, flags=re.MULTILINE)
    output = re.sub(r"\b(data\.)?(google|azurerm|azuread|openstack)_", r"local.\1\2_", output)
    (folder / "outputs.tf").write_text(output)
    (folder / "stand_ins.tf.json").write_text(json.dumps({"locals": stand_ins}))
    (folder / "given.auto.tfvars.json").write_text(json.dumps(GIVEN[cloud]))
    for args in (("init", "-input=false"), ("apply", "-input=false", "-auto-approve")):
        done = call(*args, folder=folder)
        assert done.returncode == 0, done.stdout + done.stderr
    return read(call("output", "-json", folder=folder).stdout, cloud)


def test_what_comes_out_of_gcp_is_a_provider(tmp_path: Path) -> None:
    noun = read_provider(document("gcp", tmp_path))
    settings = parse_gcp(noun.settings)
    assert (noun.name, noun.kind) == ("gcp", "gcp")
    assert (settings.project, settings.region) == ("mine", "europe-west4")
    assert settings.zones == ("europe-west4-a", "europe-west4-b")
    assert settings.network == "projects/mine/global/networks/gcp-agents"
    assert settings.subnetwork == "projects/mine/regions/europe-west4/subnetworks/gcp-agents"
    assert settings.image == "projects/debian-cloud/global/images/debian-12-bookworm-v20260101"
    assert settings.sign_in.key == KEY


def test_what_comes_out_of_azure_is_a_provider(tmp_path: Path) -> None:
    noun = read_provider(document("azure", tmp_path))
    settings = parse_azure(noun.settings)
    assert (noun.name, noun.kind) == ("azure", "azure")
    assert (settings.resource_group, settings.region, settings.zones) == ("azure-agents", "westeurope", ("1", "2", "3"))
    assert settings.subnet.endswith("/subnets/agents")
    assert settings.security_group.endswith("/networkSecurityGroups/azure-agents")
    assert settings.tags == {"team": "research"}
    assert settings.credentials.secret == "the-secret"
    assert settings.credentials.tenant == "77777777-2222-3333-4444-555555555555"


def test_what_comes_out_of_openstack_is_a_provider(tmp_path: Path) -> None:
    noun = read_provider(document("openstack", tmp_path))
    settings = parse_openstack(noun.settings)
    assert (noun.name, noun.kind) == ("openstack", "openstack")
    assert settings.region == "RegionOne"
    assert settings.security_groups == ("openstack-agents",)
    assert settings.network == ("8f1d6e2c-0000-4000-8000-00000000000a",)
    assert settings.image == "8f1d6e2c-0000-4000-8000-00000000000b"
    assert settings.credentials.auth_url == "https://keystone.example.com:5000/v3"
    assert settings.credentials.application_credential_secret == "the-secret"


def test_the_rights_at_gcp_are_those_that_the_doctor_prints() -> None:
    given = re.findall(r'"((?:compute|iam)\.[\w.]+)"', (ROOT / "modules/gcp/access.tf").read_text())
    here = {"project": "mine", "zones": ["europe-west4-a"], "subnetwork": "projects/mine/regions/r/subnetworks/s"}
    own_image = parse_gcp({**here, "image": "projects/mine/global/images/family/debian"})
    assert sorted(given) == sorted(permissions(own_image))
    assert {name for name in given if ".images." in name} == {*permissions(own_image)} - {*permissions(parse_gcp(here))}


def test_the_rights_at_azure_are_those_that_the_doctor_prints() -> None:
    lists = re.findall(r"actions = \[(.*?)\]", (ROOT / "modules/azure/access.tf").read_text(), re.DOTALL)
    assert [tuple(re.findall(r'"(.*?)"', each)) for each in lists] == [ACTIONS, SUBSCRIPTION_ACTIONS]


def test_the_rights_at_openstack_are_those_that_the_doctor_prints() -> None:
    rule = r'\{ service = "(.*?)", method = "(.*?)", path = "(.*?)" \}'
    given = re.findall(rule, (ROOT / "modules/openstack/variables.tf").read_text())
    assert given == [(rule["service"], rule["method"], rule["path"]) for rule in RULES]


@pytest.mark.parametrize("example", [path.name for path in EXAMPLES if path.name.endswith("aws")])
def test_the_modules_of_aws_are_valid(example: str, tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "terraform", f"examples/{example}")
    workspace.init("hashicorp/aws")
    told = json.loads(workspace.run("validate", "-json"))
    assert (told["valid"], told["error_count"], told["diagnostics"]) == (True, 0, [])
