"""ARM's routes over loopback TLS, with the sign-in server, the serial logs and the price list beside them.

Only what the real service has is routed; each route knows its API versions and query parameters. Below `/_atoll/`
are the test's own controls, which take no token: faults, inventory, remove, reclaim.
"""

import json
import re
import secrets
import threading
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from azure.mgmt.compute import models as compute
from azure.mgmt.compute.operations import _operations as compute_calls
from azure.mgmt.network import models as network
from azure.mgmt.network.operations import _operations as network_calls

from tests.clouds.azure import catalogue, schema
from tests.clouds.azure.arm import (
    GROUP,
    REGION,
    SCOPE,
    SECURITY_GROUP,
    SUBNET,
    SUBSCRIPTION,
    ArmError,
    HungUp,
    Resource,
    not_found,
)
from tests.clouds.azure.cloud import ADDRESS, CARD, DISK, Answer, Cloud, Operation
from tests.clouds.azure.pki import loopback
from tests.clouds.guests import Guests

TENANT, CLIENT, SECRET = (
    "22222222-3333-4444-8555-666666666666",
    "33333333-4444-4555-8666-777777777777",
    "s3cret-of-test",
)
PAGE = 2
_KINDS = {"networkInterfaces": CARD, "publicIPAddresses": ADDRESS, "disks": DISK}
_NETWORK = "providers/Microsoft.Network"
_COMPUTE = "providers/Microsoft.Compute"


def _version(request: Any) -> str:
    return re.search(r"api-version=([\d-]+)", request.url)[1]  # type: ignore[index]


_VERSIONS = {
    "compute": {_version(compute_calls.build_virtual_machines_get_request("g", "n", "s"))},
    "disks": {_version(compute_calls.build_disks_get_request("g", "n", "s"))},
    "skus": {_version(compute_calls.build_resource_skus_list_request("s"))},
    "network": {_version(network_calls.build_network_interfaces_get_request("g", "n", "s")), "2024-05-01"},
    "group": {"2021-04-01"},
    "subscription": {"2022-12-01"},
    "rights": {"2022-04-01"},
}
"""What the SDK asks for, and what the driver asks for by itself: anything else is refused as ARM refuses it."""


@dataclass(frozen=True)
class Call:
    """One request: its path and what was matched in it, its query, body and headers, and the service's address."""

    path: str
    matched: dict[str, str]
    query: dict[str, str]
    body: Any
    headers: Any
    base: str

    @property
    def name(self) -> str:
        return self.matched["name"]


class Azure:
    """The service: start it, point a driver at `url` with `ca`, and look into `cloud`."""

    def __init__(self, directory: Path, guests: Guests, port: int = 0) -> None:
        self.cloud = Cloud(guests)
        self.tokens: set[str] = set()
        self.asked: list[str] = []
        self.defects: list[str] = []
        self.ca, context = loopback(directory)
        service = self

        class Handler(_Handler):
            azure = service

        self._http = _Server(("127.0.0.1", port), Handler)
        self._http.tls = context
        self.url = f"https://127.0.0.1:{self._http.server_address[1]}"
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.05,), name="azure", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()
        self.cloud.close()

    def answer(self, method: str, path: str, query: dict[str, str], body: Any, headers: Any) -> Answer:
        """Find the route and carry the call out; raise `ArmError` or `HungUp`."""
        for verb, pattern, service, allowed, call in _ROUTES:
            found = pattern.fullmatch(path)
            if found and verb == method:
                if service:
                    self._checked(found.groupdict(), query, headers, service, allowed)
                with self.cloud.lock:
                    return call(self, Call(path, found.groupdict(), query, body, headers, self.url))
        raise ArmError(404, "InvalidResourceType", f"There is no {method} {path}.")

    def _checked(
        self, matched: dict[str, str], query: dict[str, str], headers: Any, service: str, allowed: frozenset[str]
    ) -> None:
        token = str(headers.get("Authorization", "")).removeprefix("Bearer ")
        if token not in self.tokens:
            raise ArmError(401, "InvalidAuthenticationToken", "The access token is invalid.")
        version = query.get("api-version", "")
        if not version:
            raise ArmError(400, "MissingApiVersionParameter", "The api-version query parameter is required.")
        if version not in _VERSIONS[service]:
            raise ArmError(400, "NoRegisteredProviderFound", f"No registered provider found for version '{version}'.")
        if unknown := set(query) - allowed - {"api-version"}:
            raise ArmError(400, "InvalidQueryParameter", f"Unknown query parameters: {', '.join(sorted(unknown))}.")
        if matched.get("subscription", SUBSCRIPTION).lower() != SUBSCRIPTION:
            raise ArmError(404, "SubscriptionNotFound", "The subscription could not be found.")
        if matched.get("group", GROUP).lower() != GROUP:
            raise ArmError(404, "ResourceGroupNotFound", f"Resource group '{matched['group']}' could not be found.")


# -- what each route does -----------------------------------------------------------------------------


def _token(azure: Azure, call: Call) -> Answer:
    asked = {key: values[-1] for key, values in parse_qs(call.body or "").items()}
    if asked.get("client_id") != CLIENT or asked.get("client_secret") != SECRET:
        return 401, {"error": "invalid_client", "error_description": "AADSTS7000215: Invalid client secret."}, {}
    if asked.get("scope") != f"{call.base}/.default" or asked.get("grant_type") != "client_credentials":
        return 400, {"error": "invalid_scope", "error_description": "AADSTS70011: The scope is not valid."}, {}
    token = secrets.token_urlsafe(24)
    azure.tokens.add(token)
    return 200, {"token_type": "Bearer", "expires_in": 3599, "ext_expires_in": 3599, "access_token": token}, {}


def _discovery(azure: Azure, call: Call) -> Answer:
    tenant = f"{call.base}/{call.matched['tenant']}"
    endpoints = {"authorization_endpoint": f"{tenant}/oauth2/v2.0/authorize", "issuer": f"{tenant}/v2.0"}
    return 200, {**endpoints, "token_endpoint": f"{tenant}/oauth2/v2.0/token"}, {}


def _accepted(
    call: Call, operation: Operation | None, status: int = 202, body: Any = None, kind: str = "Compute"
) -> Answer:
    if operation is None:
        return 204, None, {}
    version = next(iter(_VERSIONS["network" if kind == "Network" else "compute"]))
    address = (
        f"{call.base}/subscriptions/{SUBSCRIPTION}/providers/Microsoft.{kind}/locations/{REGION}"
        f"/operations/{operation.id}?api-version={version}"
    )
    return status, body, {"Azure-AsyncOperation": address, **({} if body else {"Location": address})}


def _put_machine(azure: Azure, call: Call) -> Answer:
    schema.check(compute.VirtualMachine, call.body)
    match = call.headers.get("If-None-Match")
    if match not in (None, "*"):
        raise ArmError(400, "InvalidHeader", "If-None-Match can be * only.")
    body, operation = azure.cloud.put_machine(call.name, call.body, only_new=match == "*")
    return _accepted(call, operation, 201, body)


def _get_machine(azure: Azure, call: Call) -> Answer:
    return 200, azure.cloud.shown(azure.cloud.live(call.name)), {}


def _list_machines(azure: Azure, call: Call) -> Answer:
    if "$skiptoken" in call.query:
        return 200, _page(call, [azure.cloud.shown(m) for m in azure.cloud.machines.values()]), {}
    return 200, _page(call, azure.cloud.listed()), {}


def _page(call: Call, items: list[Resource]) -> Resource:
    """Return a part of a listing, with the next part's address: short parts, so that all are read."""
    begin = int(call.query.get("$skiptoken", "0"))
    page: Resource = {"value": items[begin : begin + PAGE]}
    if begin + PAGE < len(items):
        version = call.query["api-version"]
        page["nextLink"] = f"{call.base}{call.path}?api-version={version}&$skiptoken={begin + PAGE}"
    return page


def _delete_machine(azure: Azure, call: Call) -> Answer:
    return _accepted(call, azure.cloud.delete_machine(call.name))


def _power(azure: Azure, call: Call) -> Answer:
    act = azure.cloud.start if call.matched["act"] == "start" else azure.cloud.deallocate
    return _accepted(call, act(call.name))


def _view(azure: Azure, call: Call) -> Answer:
    return 200, azure.cloud.view(call.name), {}


def _diagnostics(azure: Azure, call: Call) -> Answer:
    machine = azure.cloud.live(call.name)
    kept = (machine.body["properties"].get("diagnosticsProfile") or {}).get("bootDiagnostics") or {}
    if not kept.get("enabled"):
        raise ArmError(409, "BootDiagnosticsNotEnabled", f"Boot diagnostics are not enabled for VM '{call.name}'.")
    address = f"{call.base}/serial/{machine.id}?sig={secrets.token_urlsafe(8)}"
    return 200, {"consoleScreenshotBlobUri": f"{address}&s", "serialConsoleLogBlobUri": address}, {}


def _serial(azure: Azure, call: Call) -> Answer:
    text = azure.cloud.guests.console(call.matched["id"])
    return (200, text, {}) if text else (404, None, {})


def _put_part(azure: Azure, call: Call) -> Answer:
    if call.matched["kind"] == "networkInterfaces":
        schema.check(network.NetworkInterface, call.body)
        body, operation = azure.cloud.put_card(call.name, call.body)
    else:
        schema.check(network.PublicIPAddress, call.body)
        body, operation = azure.cloud.put_address(call.name, call.body)
    return _accepted(call, operation, 201, body, "Network")


def _get_part(azure: Azure, call: Call) -> Answer:
    kind = _KINDS[call.matched["kind"]]
    if call.name not in azure.cloud.parts[kind]:
        raise not_found(kind, call.name)
    return 200, azure.cloud.parts[kind][call.name], {}


def _list_parts(azure: Azure, call: Call) -> Answer:
    return 200, _page(call, list(azure.cloud.parts[_KINDS[call.matched["kind"]]].values())), {}


def _delete_part(azure: Azure, call: Call) -> Answer:
    kind = _KINDS[call.matched["kind"]]
    return _accepted(call, azure.cloud.delete_part(kind, call.name), kind="Compute" if kind == DISK else "Network")


def _operation(azure: Azure, call: Call) -> Answer:
    if "Microsoft.Compute" in call.path:
        azure.cloud.refuse("poll")
    operation = azure.cloud.operations.get(call.name)
    if operation is None:
        raise ArmError(404, "NotFound", f"Operation {call.name} was not found.")
    return 200, operation.shown(), {}


def _skus(azure: Azure, call: Call) -> Answer:
    if call.query.get("$filter", "") != f"location eq '{REGION}'":
        raise ArmError(400, "InvalidFilter", "Only location can be filtered by.")
    return 200, {"value": catalogue.skus()}, {}


def _usages(azure: Azure, call: Call) -> Answer:
    return 200, {"value": catalogue.usages(azure.cloud.used())}, {}


def _images(azure: Azure, call: Call) -> Answer:
    m = call.matched
    if (m["publisher"], m["offer"], m["sku"]) not in catalogue.URNS:
        raise ArmError(404, "NotFound", f"Artifact: VMImage {m['sku']} was not found.")
    return 200, [{"location": REGION, "name": "0.20260101.1"}, {"location": REGION, "name": "0.20261015.1"}], {}


def _subscription(azure: Azure, call: Call) -> Answer:
    return 200, {"id": f"/subscriptions/{SUBSCRIPTION}", "displayName": "Test", "state": "Enabled"}, {}


def _group(azure: Azure, call: Call) -> Answer:
    return 200, {"id": SCOPE, "name": GROUP, "location": REGION, "properties": {"provisioningState": "Succeeded"}}, {}


def _network_resource(azure: Azure, call: Call) -> Answer:
    found = next((r for r in (SUBNET, SECURITY_GROUP) if r.lower().endswith(call.matched["rest"].lower())), None)
    if found is None:
        raise not_found("Microsoft.Network", call.matched["rest"])
    return 200, {"id": found, "name": found.rpartition("/")[2], "properties": {"provisioningState": "Succeeded"}}, {}


def _rights(azure: Azure, call: Call) -> Answer:
    return 200, {"value": [{"actions": ["*"], "notActions": ["Microsoft.Authorization/*/Write"]}]}, {}


def _retail(azure: Azure, call: Call) -> Answer:
    wanted = f"serviceName eq 'Virtual Machines' and armRegionName eq '{REGION}' and priceType eq 'Consumption'"
    if call.query.get("$filter") != wanted:
        raise ArmError(400, "BadRequest", "The filter is not the one a region's machines are listed with.")
    begin, items = int(call.query.get("$skip", "0")), catalogue.retail()
    after = f"{call.base}/api/retail/prices?$filter={wanted.replace(' ', '%20')}&$skip={begin + 10}"
    page = {"BillingCurrency": "USD", "Items": items[begin : begin + 10], "Count": len(items[begin : begin + 10])}
    return 200, {**page, "NextPageLink": after if begin + 10 < len(items) else None}, {}


def _control(azure: Azure, call: Call) -> Answer:
    match call.matched["what"]:
        case "faults":
            azure.cloud.faults.inject(call.body or {})
        case "remove" | "reclaim":
            azure.cloud.vanish(call.body["provider_id"])
        case what:
            raise ArmError(404, "NotFound", what)
    return 200, {}, {}


def _survey(azure: Azure, call: Call) -> Answer:
    if call.matched["what"] != "inventory":
        raise ArmError(404, "NotFound", call.matched["what"])
    seen = [{**asdict(seen), "state": seen.state.value} for seen in azure.cloud.inventory()]
    return 200, {"machines": seen, "loose": azure.cloud.loose(), "struck": dict(azure.cloud.faults.struck)}, {}


Route = tuple[str, re.Pattern[str], str, frozenset[str], Callable[[Azure, Call], Answer]]
_S = "/subscriptions/(?P<subscription>[^/]+)"
_G = f"{_S}/resourceGroups/(?P<group>[^/]+)"
_VM = f"{_G}/{_COMPUTE}/virtualMachines/(?P<name>[^/]+)"
_NET_PART = rf"{_G}/{_NETWORK}/(?P<kind>networkInterfaces|publicIPAddresses)"
_IMAGES = "publishers/(?P<publisher>[^/]+)/artifacttypes/vmimage/offers/(?P<offer>[^/]+)/skus/(?P<sku>[^/]+)/versions"
_ROUTES: list[Route] = [
    (verb, re.compile(path, re.IGNORECASE), service, frozenset(query.split()), call)
    for verb, path, service, query, call in (
        ("GET", r"/(?P<tenant>[0-9a-f-]+)/v2\.0/\.well-known/openid-configuration", "", "", _discovery),
        ("POST", r"/(?P<tenant>[0-9a-f-]+)/oauth2/v2\.0/token", "", "", _token),
        ("PUT", _VM, "compute", "", _put_machine),
        ("GET", _VM, "compute", "$expand", _get_machine),
        ("DELETE", _VM, "compute", "forceDeletion", _delete_machine),
        ("POST", f"{_VM}/(?P<act>start|deallocate)", "compute", "hibernate", _power),
        ("GET", f"{_VM}/instanceView", "compute", "", _view),
        ("POST", f"{_VM}/retrieveBootDiagnosticsData", "compute", "sasUriExpirationTimeInMinutes", _diagnostics),
        ("GET", f"{_G}/{_COMPUTE}/virtualMachines", "compute", "$skiptoken", _list_machines),
        ("PUT", f"{_NET_PART}/(?P<name>[^/]+)", "network", "", _put_part),
        ("GET", f"{_NET_PART}/(?P<name>[^/]+)", "network", "$expand", _get_part),
        ("DELETE", f"{_NET_PART}/(?P<name>[^/]+)", "network", "", _delete_part),
        ("GET", _NET_PART, "network", "$skiptoken", _list_parts),
        ("GET", f"{_G}/{_COMPUTE}/(?P<kind>disks)/(?P<name>[^/]+)", "disks", "", _get_part),
        ("DELETE", f"{_G}/{_COMPUTE}/(?P<kind>disks)/(?P<name>[^/]+)", "disks", "", _delete_part),
        ("GET", f"{_G}/{_COMPUTE}/(?P<kind>disks)", "disks", "$skiptoken", _list_parts),
        ("GET", f"{_S}/{_COMPUTE}/locations/{REGION}/operations/(?P<name>[^/]+)", "compute", "", _operation),
        ("GET", f"{_S}/{_NETWORK}/locations/{REGION}/operations/(?P<name>[^/]+)", "network", "", _operation),
        ("GET", f"{_S}/{_COMPUTE}/skus", "skus", "$filter includeExtendedLocations", _skus),
        ("GET", f"{_S}/{_COMPUTE}/locations/{REGION}/usages", "compute", "", _usages),
        ("GET", f"{_S}/{_COMPUTE}/locations/{REGION}/{_IMAGES}", "compute", "$expand $top $orderby", _images),
        ("GET", _S, "subscription", "", _subscription),
        ("GET", _G, "group", "", _group),
        ("GET", f"{_G}/providers/Microsoft.Authorization/permissions", "rights", "", _rights),
        ("GET", rf"{_G}/{_NETWORK}/(?P<rest>.+)", "network", "$expand", _network_resource),
        ("GET", "/serial/(?P<id>[0-9a-f-]+)", "", "", _serial),
        ("GET", "/api/retail/prices", "", "", _retail),
        ("POST", "/_atoll/(?P<what>[a-z]+)", "", "", _control),
        ("GET", "/_atoll/(?P<what>[a-z]+)", "", "", _survey),
    )
]


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    tls: Any

    def get_request(self) -> Any:
        connection, address = super().get_request()
        return self.tls.wrap_socket(connection, server_side=True, do_handshake_on_connect=False), address

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that go away are none of our business."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    azure: Azure

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        return

    def _serve(self) -> None:
        raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = urlsplit(self.path)
        query = {key: values[-1] for key, values in parse_qs(parts.query).items()}
        try:
            self.azure.asked.append(self.command)
            body = self._body(raw)
            status, document, headers = self.azure.answer(self.command, parts.path, query, body, self.headers)
        except ArmError as error:
            status, document, headers = error.status, error.body(), {}
            if error.retry_after:
                headers["Retry-After"] = str(error.retry_after)
        except HungUp:
            self.close_connection = True
            return
        except Exception:  # noqa: BLE001  # a defect of this server: told, and no test passes over it
            self.azure.defects.append(traceback.format_exc())
            status, document, headers = 500, ArmError(500, "InternalServerError", "a defect").body(), {}
        self._reply(status, document, headers)

    def _body(self, raw: bytes) -> Any:
        if not raw:
            return None
        if "json" not in self.headers.get("Content-Type", ""):
            return raw.decode()
        try:
            return json.loads(raw)
        except ValueError:
            raise ArmError(400, "InvalidRequestContent", "The request content is not valid JSON.") from None

    def _reply(self, status: int, document: Any, headers: dict[str, str]) -> None:
        text = isinstance(document, str)
        raw = b"" if document is None else document.encode() if text else json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/plain" if text else "application/json; charset=utf-8")
        self.send_header("Content-Length", str(len(raw)))
        for key, value in headers.items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(raw)

    do_GET = do_PUT = do_POST = do_DELETE = do_PATCH = _serve
