"""The methods of Google's services that the fake serves, by their ids; all others are real but not served."""

import re
from collections.abc import Callable, Mapping
from typing import Any

from tests.clouds.gcp import catalogue
from tests.clouds.gcp.rules import Refusal, missing
from tests.clouds.gcp.world import BASE, World

Handler = Callable[[Mapping[str, str], dict[str, Any]], dict[str, Any]]
_FILTER = re.compile(r'\(?labels\.([a-z0-9_-]+)\s*=\s*"?([a-z0-9_-]*)"?\)?')


class Methods:
    """Answers to calls of one project, from the world and the catalogue.

    `denied` are rights it lacks, `unreachable` a zone that listings cannot see.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self.denied: set[str] = set()
        self.unreachable = ""

    def table(self) -> dict[str, Handler]:
        world = self._world
        return {
            "compute.instances.insert": lambda a, b: world.insert(_zone(a), b, a.get("requestId", "")),
            "compute.instances.get": lambda a, b: world.instance(_zone(a), a["instance"]),
            "compute.instances.delete": lambda a, b: world.delete(_zone(a), a["instance"]),
            "compute.instances.start": lambda a, b: world.start(_zone(a), a["instance"]),
            "compute.instances.stop": lambda a, b: world.stop(_zone(a), a["instance"]),
            "compute.instances.aggregatedList": self._instances,
            "compute.instances.getSerialPortOutput": self._console,
            "compute.zoneOperations.get": lambda a, b: world.operation(_zone(a), a["operation"]),
            "compute.machineTypes.list": lambda a, b: _page(
                "machineType", list(catalogue.machine_types(_zone(a)).values()), a
            ),
            "compute.acceleratorTypes.list": lambda a, b: _page(
                "acceleratorType", list(catalogue.accelerator_types(_zone(a)).values()), a
            ),
            "compute.projects.get": self._project,
            "compute.regions.get": self._region,
            "compute.zones.get": lambda a, b: {"kind": "compute#zone", "name": _zone(a), "status": "UP"},
            "compute.images.getFromFamily": self._image,
            "compute.networks.get": self._network,
            "compute.subnetworks.get": self._subnetwork,
            "cloudresourcemanager.projects.testIamPermissions": self._rights,
            "cloudbilling.services.skus.list": self._skus,
        }

    def _instances(self, a: Mapping[str, str], b: dict[str, Any]) -> dict[str, Any]:
        _project_of(a)
        wanted = _filter(a.get("filter", ""))
        seen = [each for each in self._world.listed() if wanted(each)]
        shown, token = _cut(seen, a)
        items: dict[str, Any] = {}
        for zone in catalogue.ZONES:
            there = [each for each in shown if each["zone"].endswith(f"/{zone}")]
            empty = {"code": "NO_RESULTS_ON_PAGE", "message": f"There are no results for scope 'zones/{zone}'."}
            items[f"zones/{zone}"] = {"instances": there} if there else {"warning": empty}
        if self.unreachable:
            blind = {"code": "UNREACHABLE", "message": f"{self.unreachable} cannot be reached"}
            items[f"zones/{self.unreachable}"] = {"warning": blind}
        return {"kind": "compute#instanceAggregatedList", "id": "instances", "items": items, **token}

    def _console(self, a: Mapping[str, str], b: dict[str, Any]) -> dict[str, Any]:
        said = self._world.console(_zone(a), a["instance"]).encode()
        start = int(a.get("start", "0"))
        start = max(0, len(said) + start) if start < 0 else start
        contents = said[start:].decode(errors="replace")
        return {"kind": "compute#serialPortOutput", "contents": contents, "start": str(start), "next": str(len(said))}

    def _project(self, a: Mapping[str, str], b: dict[str, Any]) -> dict[str, Any]:
        used = self._world.usage()
        quotas = [{"metric": m, "limit": float(n), "usage": float(used[m])} for m, n in catalogue.GLOBAL_QUOTAS.items()]
        return {"kind": "compute#project", "name": _project_of(a), "quotas": quotas}

    def _region(self, a: Mapping[str, str], b: dict[str, Any]) -> dict[str, Any]:
        project = _project_of(a)
        if a["region"] != catalogue.REGION:
            raise missing(f"projects/{project}/regions/{a['region']}")
        used = self._world.usage()
        return {
            "kind": "compute#region",
            "name": catalogue.REGION,
            "status": "UP",
            "zones": [f"{BASE}/projects/{project}/zones/{zone}" for zone in catalogue.ZONES],
            "quotas": [{"metric": m, "limit": float(n), "usage": float(used[m])} for m, n in catalogue.QUOTAS.items()],
        }

    def _image(self, a: Mapping[str, str], b: dict[str, Any]) -> dict[str, Any]:
        if (a["project"], a["family"]) != (catalogue.IMAGE_OWNER, catalogue.IMAGE_FAMILY):
            raise missing(f"projects/{a['project']}/global/images/family/{a['family']}")
        return {
            "kind": "compute#image",
            "name": catalogue.IMAGE,
            "family": catalogue.IMAGE_FAMILY,
            "status": "READY",
            "architecture": "X86_64",
            "diskSizeGb": "10",
        }

    def _network(self, a: Mapping[str, str], b: dict[str, Any]) -> dict[str, Any]:
        if a["network"] not in catalogue.NETWORKS:
            raise missing(f"projects/{_project_of(a)}/global/networks/{a['network']}")
        return {"kind": "compute#network", "name": a["network"], "autoCreateSubnetworks": True}

    def _subnetwork(self, a: Mapping[str, str], b: dict[str, Any]) -> dict[str, Any]:
        if a["region"] != catalogue.REGION or a["subnetwork"] not in catalogue.SUBNETWORKS:
            raise missing(f"projects/{_project_of(a)}/regions/{a['region']}/subnetworks/{a['subnetwork']}")
        return {"kind": "compute#subnetwork", "name": a["subnetwork"], "ipCidrRange": "10.128.0.0/20"}

    def _rights(self, a: Mapping[str, str], b: dict[str, Any]) -> dict[str, Any]:
        if a["resource"] != catalogue.PROJECT:
            raise Refusal(403, "The caller does not have permission", "forbidden")
        return {"permissions": [each for each in b.get("permissions", []) if each not in self.denied]}

    def _skus(self, a: Mapping[str, str], b: dict[str, Any]) -> dict[str, Any]:
        if a["servicesId"] != "6F81-5844-456A":
            raise missing(f"services/{a['servicesId']}")
        if int(a.get("pageSize", "5000")) > 5000:
            raise Refusal(400, "page_size must be at most 5000.")
        listed, start = catalogue.skus(), int(a.get("pageToken") or 0)
        end = start + 60  # as if there were thousands: Google may always send fewer than asked for
        return {"skus": listed[start:end], "nextPageToken": str(end) if end < len(listed) else ""}


def _project_of(a: Mapping[str, str]) -> str:
    if a["project"] != catalogue.PROJECT:
        raise missing(f"projects/{a['project']}")
    return a["project"]


def _zone(a: Mapping[str, str]) -> str:
    if a["zone"] not in catalogue.ZONES:
        raise missing(f"projects/{_project_of(a)}/zones/{a['zone']}")
    _project_of(a)
    return a["zone"]


def _filter(condition: str) -> Callable[[Mapping[str, Any]], bool]:
    match = _FILTER.fullmatch(condition)
    if condition and not match:
        raise Refusal(400, f"Invalid value for field 'filter': '{condition}'. Invalid list filter expression.")
    return lambda instance: not match or instance.get("labels", {}).get(match[1]) == match[2]


def _page(kind: str, items: list[dict[str, Any]], a: Mapping[str, str]) -> dict[str, Any]:
    shown, token = _cut(items, a)
    return {"kind": f"compute#{kind}List", "id": kind, "items": shown, **token}


def _cut(items: list[dict[str, Any]], a: Mapping[str, str]) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Return one page and the token of the next; pages are kept small, so that paging is always used."""
    most = int(a.get("maxResults", "500"))
    if not 0 <= most <= 500:
        raise Refusal(400, f"Invalid value for field 'maxResults': '{most}'. Must be less than or equal to 500.")
    start = int(a.get("pageToken") or 0)
    end = start + min(most or 500, 5)
    return items[start:end], {"nextPageToken": str(end)} if end < len(items) else {}
