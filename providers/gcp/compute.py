"""Compute Engine at one endpoint: blocking calls that take and give plain documents, and raise our errors."""

import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from google.api_core.client_options import ClientOptions
from google.api_core.exceptions import GoogleAPICallError
from google.auth.credentials import Credentials
from google.cloud import compute_v1 as api

from providers.errors import ProviderError, Unknown
from providers.gcp.access import TIMEOUT_S, route, told
from providers.gcp.errors import answered
from providers.gcp.machines import Place, leaf
from providers.gcp.settings import Settings

_PAGE = 500
_LAST = -64 * 1024  # bytes of the serial console, from its end
_BARE: dict[str, Any] = {"retry": None, "timeout": TIMEOUT_S}

for _name in ("google.auth", "google.cloud.compute_v1"):
    logging.getLogger(_name).setLevel(logging.INFO)  # their debug lines hold whole requests: boot scripts, tokens


class Compute:
    """One project at one endpoint. Its calls may be made from several threads.

    Operations are polled by `operation`, never by the SDK's futures: those ask googleapis.com whatever the
    endpoint.
    """

    def __init__(self, settings: Settings, signed: Credentials, proxy: str = "") -> None:
        self._project = settings.project
        self._region = settings.region
        self._signed = signed
        self._options = ClientOptions(api_endpoint=settings.endpoint)
        self._proxy = proxy
        self._clients: dict[type, Any] = {}

    def insert(self, zone: str, body: Mapping[str, Any], request_id: str) -> dict[str, Any]:
        """Ask for an instance; return the operation. Raises `Taken` where the name is in use."""
        instance = api.Instance.from_json(json.dumps(body))
        return self._ask(
            self._instances.insert_unary,
            api.InsertInstanceRequest(
                project=self._project, zone=zone, instance_resource=instance, request_id=request_id
            ),
        )

    def operation(self, zone: str, name: str) -> dict[str, Any]:
        """Return how an operation stands."""
        request = api.GetZoneOperationRequest(project=self._project, zone=zone, operation=name)
        return self._ask(self._client(api.ZoneOperationsClient).get, request)

    def instance(self, place: Place) -> dict[str, Any]:
        """Return an instance; raises `Absent`."""
        return self._at(self._instances.get, api.GetInstanceRequest, place)

    def instances(self, condition: str) -> list[dict[str, Any]]:
        """Return the instances of every zone that meet a filter; raises `Unknown` when a zone cannot be seen."""
        request = api.AggregatedListInstancesRequest(project=self._project, filter=condition, max_results=_PAGE)
        with _told():  # a zone comes again on every page, each time with others of its instances
            scopes = [(place, _document(scope)) for place, scope in self._instances.aggregated_list(request, **_BARE)]
        if blind := sorted({place for place, scope in scopes if _warned(scope) == "UNREACHABLE"}):
            raise Unknown(f"some zones cannot be listed now: {', '.join(blind)}")
        return [instance for _, scope in scopes for instance in scope.get("instances", [])]

    def delete(self, place: Place) -> dict[str, Any]:
        """Ask for an instance's end; raises `Absent`."""
        return self._at(self._instances.delete_unary, api.DeleteInstanceRequest, place)

    def start(self, place: Place) -> dict[str, Any]:
        """Ask for a stopped instance to start; raises `Absent`."""
        return self._at(self._instances.start_unary, api.StartInstanceRequest, place)

    def stop(self, place: Place) -> dict[str, Any]:
        """Ask for an instance to stop; raises `Absent`."""
        return self._at(self._instances.stop_unary, api.StopInstanceRequest, place)

    def console(self, place: Place) -> str:
        """Return the last 64 KiB of an instance's serial console; raises `Absent`."""
        call, kind = self._instances.get_serial_port_output, api.GetSerialPortOutputInstanceRequest
        return str(self._at(call, kind, place, port=1, start=_LAST).get("contents", ""))

    def project(self) -> dict[str, Any]:
        """Return the project, with its quotas."""
        return self._ask(self._client(api.ProjectsClient).get, api.GetProjectRequest(project=self._project))

    def region(self) -> dict[str, Any]:
        """Return the region, with its zones and quotas."""
        request = api.GetRegionRequest(project=self._project, region=self._region)
        return self._ask(self._client(api.RegionsClient).get, request)

    def zone(self, name: str) -> dict[str, Any]:
        """Return a zone."""
        return self._ask(self._client(api.ZonesClient).get, api.GetZoneRequest(project=self._project, zone=name))

    def machine_types(self, zone: str) -> list[dict[str, Any]]:
        """Return the machine types of a zone."""
        request = api.ListMachineTypesRequest(project=self._project, zone=zone, max_results=_PAGE)
        return self._list(self._client(api.MachineTypesClient).list, request)

    def accelerator_types(self, zone: str) -> list[dict[str, Any]]:
        """Return the accelerator types of a zone."""
        request = api.ListAcceleratorTypesRequest(project=self._project, zone=zone, max_results=_PAGE)
        return self._list(self._client(api.AcceleratorTypesClient).list, request)

    def image(self, path: str) -> dict[str, Any]:
        """Return the image at a path, or the newest of a family."""
        client, owner, name = self._client(api.ImagesClient), path.split("/")[1], leaf(path)
        if "/family/" in path:
            return self._ask(client.get_from_family, api.GetFromFamilyImageRequest(project=owner, family=name))
        return self._ask(client.get, api.GetImageRequest(project=owner, image=name))

    def network(self, path: str) -> dict[str, Any]:
        """Return the network or subnetwork at a path like `projects/p/global/networks/n`."""
        parts = path.split("/")
        project = parts[1] if parts[0] == "projects" else self._project
        if "subnetworks" in parts:
            region = parts[parts.index("regions") + 1] if "regions" in parts else self._region
            asked = api.GetSubnetworkRequest(project=project, region=region, subnetwork=parts[-1])
            return self._ask(self._client(api.SubnetworksClient).get, asked)
        return self._ask(
            self._client(api.NetworksClient).get, api.GetNetworkRequest(project=project, network=parts[-1])
        )

    @property
    def _instances(self) -> api.InstancesClient:
        client: api.InstancesClient = self._client(api.InstancesClient)
        return client

    def _client(self, kind: Any) -> Any:
        if kind not in self._clients:
            made = kind(credentials=self._signed, client_options=self._options, transport="rest")
            route(made.transport._session, self._proxy)
            self._clients[kind] = made
        return self._clients[kind]

    def _at(self, call: Callable[..., Any], kind: Any, place: Place, **more: int) -> dict[str, Any]:
        with _told(place.name):
            return _document(call(kind(project=place.project, zone=place.zone, instance=place.name, **more), **_BARE))

    def _ask(self, call: Callable[..., Any], request: object) -> dict[str, Any]:
        with _told():
            return _document(call(request, **_BARE))

    def _list(self, call: Callable[..., Iterable[Any]], request: object) -> list[dict[str, Any]]:
        with _told():
            return [_document(each) for each in call(request, **_BARE)]


@contextmanager
def _told(instance: str = "") -> Iterator[None]:
    """Raise Google's errors as ours, without a cause: theirs repeat what was sent."""
    with told():
        try:
            yield
        except GoogleAPICallError as error:
            raise _answered(error, instance) from None


def _answered(error: GoogleAPICallError, instance: str) -> ProviderError:
    reason = str(error.reason or next((each.get("reason", "") for each in error.errors), ""))
    said = error.message.partition(": ")[2] if error.message.startswith(("GET ", "POST ", "DELETE ")) else error.message
    headers = getattr(error.response, "headers", {})
    wait = str(headers.get("Retry-After", ""))
    pause = float(wait) if wait.isdecimal() else 0.0
    return answered(int(error.code or 0), reason, said, retry_after=pause, instance=instance)


def _warned(scope: Mapping[str, Any]) -> str:
    return str(scope.get("warning", {}).get("code", ""))


def _document(message: Any) -> dict[str, Any]:
    document: dict[str, Any] = type(message).to_dict(
        message, use_integers_for_enums=False, preserving_proto_field_name=False
    )
    return document
