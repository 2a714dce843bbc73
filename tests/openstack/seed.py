"""What is in the stack from its start: accounts, services, image, network, flavors, zones."""

from collections.abc import Callable
from typing import Any

import openstack

from tests.openstack.stack import PASSWORD, PATHS, REGION, ZONES

NAMES = {"placement": "placement", "image": "glance", "network": "neutron", "compute": "nova"}
QUOTA = {"instances": 20, "cores": 8000, "ram": -1}
FLAVORS: dict[str, tuple[int, int, int, dict[str, str]]] = {
    "m1.small": (1, 2048, 20, {"atoll:price": "0.02"}),
    "m1.large": (4, 8192, 40, {"atoll:price": "0.08"}),
    "g1.a100": (8, 65536, 100, {"pci_passthrough:alias": "a100:1", "atoll:price": "1.10"}),
    "g1.unpriced": (8, 65536, 100, {"pci_passthrough:alias": "a100:2"}),
    "m1.huge": (4000, 9_000_000, 10, {"atoll:price": "90"}),
}
"""Flavors: cores, MiB of memory, GiB of disk, extra specs."""


def admin(identity: str, project: str = "admin", user: str = "admin") -> Any:
    """Return a connection as the operator, or as a user of a project."""
    return openstack.connection.Connection(
        auth={
            "auth_url": identity, "username": user, "password": PASSWORD, "project_name": project,
            "user_domain_id": "default", "project_domain_id": "default",
        },
        region_name=REGION, api_timeout=60, compute_default_microversion="2.96",
    )  # fmt: skip


def accounts(url: Callable[[str], str]) -> None:
    """Make the services' own account, the catalogue, and a project with one member."""
    with admin(url("identity")) as cloud:
        identity = cloud.identity
        roles = {role.name: role for role in identity.roles()}
        services = identity.create_project(name="services", domain_id="default")
        account = identity.create_user(name="services", password=PASSWORD, domain_id="default")
        for role in ("admin", "service"):
            identity.assign_project_role_to_user(services, account, roles.get(role) or identity.create_role(name=role))
        for kind, name in NAMES.items():
            service = identity.create_service(name=name, type=kind)
            for interface in ("public", "internal"):
                identity.create_endpoint(service_id=service.id, interface=interface, url=url(kind), region_id=REGION)
        project = identity.create_project(name="demo", domain_id="default")
        member = identity.create_user(name="demo", password=PASSWORD, domain_id="default")
        identity.assign_project_role_to_user(project, member, roles["member"])


def things(identity: str) -> None:
    """Make the image, the network, the flavors and the zones."""
    assert set(NAMES) | {"identity"} == set(PATHS)
    with admin(identity) as cloud:
        cloud.image.create_image(
            name="debian-12", container_format="bare", disk_format="raw", data=b"0" * 1024, visibility="public"
        )
        network = cloud.network.create_network(name="private", shared=True)
        cloud.network.create_subnet(network_id=network.id, ip_version=4, cidr="10.9.0.0/16", enable_dhcp=False)
        cloud.compute.update_quota_set(cloud.identity.find_project("demo").id, **QUOTA)
        for name, (cores, memory, disk, extra) in FLAVORS.items():
            flavor = cloud.compute.create_flavor(name=name, vcpus=cores, ram=memory, disk=disk)
            cloud.compute.create_flavor_extra_specs(flavor, extra)
        for host, zone in ZONES.items():
            aggregate = cloud.compute.create_aggregate(name=f"zone-{zone}", availability_zone=zone)
            cloud.compute.add_host_to_aggregate(aggregate, host)
