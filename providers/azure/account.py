"""The subscription's compute and network, as blocking calls through Azure's SDK. All errors are `providers.errors`."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any

from azure.core import MatchConditions, PipelineClient
from azure.core.credentials import TokenCredential
from azure.core.exceptions import (
    AzureError,
    ClientAuthenticationError,
    HttpResponseError,
    ODataV4Format,
    ServiceRequestError,
    ServiceResponseError,
)
from azure.core.pipeline.policies import ProxyPolicy, UserAgentPolicy
from azure.core.rest import HttpRequest, HttpResponse
from azure.mgmt.compute import ComputeManagementClient
from azure.mgmt.compute.models import VirtualMachine
from azure.mgmt.core.polling.arm_polling import ARMPolling
from azure.mgmt.network import NetworkManagementClient
from azure.mgmt.network.models import NetworkInterface, PublicIPAddress

from providers.azure.errors import RESERVED, TAKEN, classified
from providers.azure.request import Body
from providers.azure.settings import Settings
from providers.errors import Absent, Auth, ProviderError, Unknown

PUBLIC = "https://management.azure.com"
CONNECT_S, READ_S = 10.0, 30.0
PART_S = 20.0
"""Seconds an address or a card may take to be made or deleted."""
POLL_S = 0.25
"""Seconds between two looks at an operation where Azure does not say how long to wait."""
_WRAPPERS = frozenset({"ResourceDeploymentFailure", "ResourceOperationFailure", "MultipleErrorsOccurred"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How far an operation got: under way, done, or failed for `code`; `machine` is what it makes or made."""

    done: bool
    machine: Body | None = None
    code: str = ""
    message: str = ""


class Patient(ARMPolling):
    """Polls an operation until it is over or this long has gone by, whichever is first."""

    def __init__(self, seconds: float, monotonic: Callable[[], float]) -> None:
        super().__init__(POLL_S)
        self._monotonic = monotonic
        self._until = monotonic() + seconds

    def over(self) -> bool:
        """Say whether the operation itself has ended."""
        return super().finished()

    def finished(self) -> bool:
        """Say whether there is nothing more to wait for."""
        return self.over() or self._monotonic() >= self._until


class Account:
    """One resource group of one subscription. No call here retries; none outlasts its timeouts by much."""

    def __init__(
        self, settings: Settings, credential: TokenCredential, options: dict[str, Any], monotonic: Callable[[], float]
    ) -> None:
        endpoint = settings.endpoint or PUBLIC
        options = {**options, "base_url": endpoint, "credential_scopes": [f"{endpoint}/.default"]}
        self._group = settings.resource_group
        self._region = settings.region
        self._compute = ComputeManagementClient(credential, settings.subscription, **options)
        self._network = NetworkManagementClient(credential, settings.subscription, **options)
        self._plain = plain(options)
        self._monotonic = monotonic

    # -- machines -------------------------------------------------------------------------------------

    def machine(self, name: str) -> Body | None:
        """Return a virtual machine, None where there is none."""
        with suppress(Absent), answers():
            return self._compute.virtual_machines.get(self._group, name).as_dict()
        return None

    def view(self, name: str) -> Body | None:
        """Return a machine's instance view, None where there is no such machine (any more)."""
        with suppress(Absent), answers():
            return self._compute.virtual_machines.instance_view(self._group, name).as_dict()
        return None

    def machines(self) -> list[Body]:
        """Return all virtual machines of the group."""
        with answers():
            return [vm.as_dict() for vm in self._compute.virtual_machines.list(self._group)]

    def make(self, name: str, body: Body) -> str:
        """Ask for a machine of a name that must be free; return the operation's token, "" where it is taken."""
        with answers():
            try:
                poller = self._compute.virtual_machines.begin_create_or_update(
                    self._group,
                    name,
                    VirtualMachine(body),
                    etag="*",
                    match_condition=MatchConditions.IfMissing,
                    polling=Patient(0.0, self._monotonic),
                )
            except HttpResponseError as error:
                if _code(error) == TAKEN:
                    return ""
                raise
            return poller.continuation_token()

    def follow(self, name: str, token: str, seconds: float) -> Outcome:
        """Look at a create operation for a while; raise `Absent` where Azure knows it no more."""
        polling = Patient(seconds, self._monotonic)
        with answers():
            poller = self._compute.virtual_machines.begin_create_or_update(
                self._group,
                name,
                VirtualMachine(location=self._region),
                continuation_token=token,
                polling=polling,
            )
            try:
                made = poller.result()
            except HttpResponseError as error:
                if error.status_code != 200 or not _code(error):
                    raise  # it is the look that failed, not the operation
                return Outcome(done=True, code=_code(error), message=_message(error))
            return Outcome(done=polling.over(), machine=made.as_dict())

    def unmake(self, name: str, seconds: float = 0.0) -> bool:
        """Ask for a machine's end, wait for it a while, and say whether it has come."""
        polling = Patient(seconds, self._monotonic)
        with answers():
            self._compute.virtual_machines.begin_delete(self._group, name, force_deletion=True, polling=polling).wait()
            return polling.over()

    def start(self, name: str) -> None:
        """Ask for a deallocated machine to start."""
        with answers():
            self._compute.virtual_machines.begin_start(self._group, name, polling=False)

    def deallocate(self, name: str) -> None:
        """Ask for a machine to stop and to cost nothing but its disk."""
        with answers():
            self._compute.virtual_machines.begin_deallocate(self._group, name, polling=False)

    def console(self, name: str) -> str:
        """Return what a machine wrote to its serial port; empty where Azure has nothing yet."""
        with answers():
            kept = self._compute.virtual_machines.retrieve_boot_diagnostics_data(self._group, name)
            address = kept.serial_console_log_blob_uri
            if not address:
                return ""
            answer = self._plain.send_request(HttpRequest("GET", address))
            if answer.status_code == 404:
                return ""
            answer.raise_for_status()
            return answer.content.decode(errors="replace")

    # -- parts ----------------------------------------------------------------------------------------

    def put_address(self, name: str, body: Body) -> str:
        """Make a public address, or bring it in line; return its id."""
        polling = Patient(PART_S, self._monotonic)
        with answers():
            made = self._network.public_ip_addresses.begin_create_or_update(
                self._group, name, PublicIPAddress(body), polling=polling
            ).result()
            return _in_time(polling, made.id)

    def put_card(self, name: str, body: Body) -> str:
        """Make a network card, or bring it in line; return its id."""
        polling = Patient(PART_S, self._monotonic)
        with answers():
            made = self._network.network_interfaces.begin_create_or_update(
                self._group, name, NetworkInterface(body), polling=polling
            ).result()
            return _in_time(polling, made.id)

    def part(self, kind: str, name: str) -> Body | None:
        """Return a `card`, `address` or `disk` by its name, None where there is none."""
        with suppress(Absent), answers():
            match kind:
                case "card":
                    return self._network.network_interfaces.get(self._group, name).as_dict()
                case "address":
                    return self._network.public_ip_addresses.get(self._group, name).as_dict()
                case _:
                    return self._compute.disks.get(self._group, name).as_dict()
        return None

    def parts(self, kind: str) -> list[Body]:
        """Return every `card`, `address` or `disk` of the group."""
        with answers():
            match kind:
                case "card":
                    return [card.as_dict() for card in self._network.network_interfaces.list(self._group)]
                case "address":
                    return [address.as_dict() for address in self._network.public_ip_addresses.list(self._group)]
                case _:
                    return [disk.as_dict() for disk in self._compute.disks.list_by_resource_group(self._group)]

    def remove(self, kind: str, name: str) -> bool:
        """Delete a `card`, `address` or `disk`; well if there is none.

        False where Azure holds it for some minutes more, for a machine that was not made. Raises `Unknown` where
        it takes too long.
        """
        polling = Patient(PART_S, self._monotonic)
        with answers():
            try:
                match kind:
                    case "card":
                        self._network.network_interfaces.begin_delete(self._group, name, polling=polling).wait()
                    case "address":
                        self._network.public_ip_addresses.begin_delete(self._group, name, polling=polling).wait()
                    case _:
                        self._compute.disks.begin_delete(self._group, name, polling=polling).wait()
            except HttpResponseError as error:
                if _code(error) in RESERVED:
                    return False
                raise
            _in_time(polling, name)
            return True

    # -- the region and the account -------------------------------------------------------------------

    def skus(self) -> list[Body]:
        """Return the region's VM sizes as this subscription may use them."""
        with answers():
            listed = self._compute.resource_skus.list(filter=f"location eq '{self._region}'")
            return [sku.as_dict() for sku in listed]

    def usages(self) -> list[Body]:
        """Return the region's limits and what is used of them."""
        with answers():
            return [usage.as_dict() for usage in self._compute.usage.list(self._region)]

    def image_versions(self, publisher: str, offer: str, sku: str) -> int:
        """Return how many versions of an image the region has."""
        with answers():
            return len(self._compute.virtual_machine_images.list(self._region, publisher, offer, sku))

    def read(self, path: str, version: str) -> tuple[Body, float]:
        """Return any resource by its path, and the time at Azure in Unix seconds (0.0 where it tells none)."""
        with answers():
            answer = self._compute.send_request(HttpRequest("GET", path, params={"api-version": version}))
            answer.raise_for_status()
            return dict(answer.json()), _date(answer)


def plain(options: dict[str, Any]) -> PipelineClient[HttpRequest, HttpResponse]:
    """Return a client that sends no token: for signed links and the public price list."""
    kept = {key: value for key, value in options.items() if key not in ("base_url", "credential_scopes")}
    return PipelineClient("", policies=[UserAgentPolicy(**kept), ProxyPolicy(**kept)], **kept)


def transport(settings: Settings, proxy: str) -> dict[str, Any]:
    """Return what all clients are made with: timeouts, no retries, the private cloud's CA, the proxy."""
    return {
        "retry_total": 0,
        "connection_timeout": CONNECT_S,
        "read_timeout": READ_S,
        **({"connection_verify": settings.ca} if settings.ca else {}),
        **({"proxies": {"http": proxy, "https": proxy}} if proxy else {}),
    }


@contextmanager
def answers() -> Iterator[None]:
    """Turn the SDK's errors into ours. Its own are not kept as causes: they hold what was sent."""
    try:
        yield
    except ClientAuthenticationError as error:
        raise _sign_in(error) from None
    except HttpResponseError as error:
        raise _classified(error) from None
    except (AzureError, ValueError) as error:
        raise Unknown(f"no answer from Azure that can be read: {type(error).__name__}: {_short(error)}") from None


def _sign_in(error: ClientAuthenticationError) -> ProviderError:
    """Return `Auth` for a refusal; a sign-in service that cannot be reached has refused nothing."""
    unreached = isinstance(error.__cause__, ServiceRequestError | ServiceResponseError)
    if unreached or (error.status_code or 0) >= 500:
        return Unknown(f"no answer from Azure's sign-in: {_short(error)}")
    known = _classified(error) if _code(error) else None
    return known if isinstance(known, Auth) else Auth(_short(error), hint="see: atoll doctor")


def _classified(error: HttpResponseError) -> ProviderError:
    headers = getattr(error.response, "headers", {})
    retry_after = str(headers.get("Retry-After") or "")
    return classified(
        _code(error),
        _message(error),
        error.status_code or 0,
        float(retry_after) if retry_after.isdecimal() else 0.0,
    )


def _told(error: HttpResponseError) -> ODataV4Format | None:
    """Return the error that says most: below ARM's own wrappers lies the resource provider's."""
    told = error.error
    while told and told.details and told.code in _WRAPPERS:
        told = told.details[0]
    return told


def _code(error: HttpResponseError) -> str:
    told = _told(error)
    return str(told.code or "") if told else ""


def _message(error: HttpResponseError) -> str:
    told = _told(error)
    return str((told.message if told else error.reason) or "")


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:300]


def _in_time(polling: Patient, name: str | None) -> str:
    if not polling.over() or not name:
        raise Unknown(f"Azure did not finish with {name or 'a part'} in {PART_S:.0f} s")
    return name


def _date(answer: HttpResponse) -> float:
    try:
        return parsedate_to_datetime(answer.headers["Date"]).timestamp()
    except (KeyError, ValueError):
        return 0.0
