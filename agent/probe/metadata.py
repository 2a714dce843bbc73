"""Notices of the end in the metadata services of AWS, GCP and Azure, asked by a thread of its own."""

import json
import logging
import threading
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from urllib.error import HTTPError
from urllib.request import ProxyHandler, Request, build_opener

_log = logging.getLogger("atoll.agent")

SERVICE = "http://169.254.169.254"
EVERY_S = 2.0
TIMEOUT_S = 5.0
SOON_S = 30.0
"""Seconds left where a cloud says that, but not when, a machine ends: GCP and Azure give spot machines 30 s."""
MAINTENANCE_S = 3600.0
"""GCP announces the termination of machines with GPUs for maintenance an hour ahead."""
TOKEN_S = 21600
_ENDING = frozenset({"Preempt", "Terminate", "Redeploy", "Reboot"})  # `Freeze` is a pause of seconds
Notice = tuple[float, str]
_open = build_opener(ProxyHandler({})).open  # a metadata service is never behind a proxy


class Service:
    """A metadata service as seen from its machine; times are compared with its own clock only (I11)."""

    def __init__(self, base: str) -> None:
        self._base = base.rstrip("/")
        self.token = ""
        self.name = ""

    def ask(self, path: str, headers: Mapping[str, str], method: str = "GET") -> tuple[str, datetime]:
        """Return the body ("" for 404) and when the service said so. Raises `OSError`, also for other statuses."""
        request = Request(f"{self._base}/{path}", headers=dict(headers), method=method)  # noqa: S310 - ours or http
        try:
            with _open(request, timeout=TIMEOUT_S) as answer:
                return answer.read(65536).decode(errors="replace").strip(), _time(answer.headers.get("Date", ""))
        except HTTPError as error:
            if error.code == 404:
                return "", _time("")
            raise


def aws(service: Service) -> Notice | None:
    """Look for EC2's spot interruption (IMDSv2); it comes two minutes ahead.

    https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/spot-instance-termination-notices.html
    """
    if not service.token:
        lifetime = {"X-aws-ec2-metadata-token-ttl-seconds": str(TOKEN_S)}
        service.token, _ = service.ask("latest/api/token", lifetime, "PUT")
    try:
        path = "latest/meta-data/spot/instance-action"
        body, now = service.ask(path, {"X-aws-ec2-metadata-token": service.token})
    except HTTPError as error:
        if error.code == 401:
            service.token = ""  # its life is over: the next look asks for another
        raise
    if not body:
        return None
    action = json.loads(body)
    at = datetime.fromisoformat(action["time"].replace("Z", "+00:00"))
    return max(0.0, (at - now).total_seconds()), f"EC2 takes this spot machine back: {action['action']}"


def gcp(service: Service) -> Notice | None:
    """Look for Compute Engine's preemption, and for maintenance that ends the machine instead of moving it.

    https://cloud.google.com/compute/docs/instances/preemptible · …/instances/monitor-plan-host-maintenance-event
    """
    ours = {"Metadata-Flavor": "Google"}
    if service.ask("computeMetadata/v1/instance/preempted", ours)[0].upper() == "TRUE":
        return SOON_S, "Compute Engine takes this spot machine back"
    if service.ask("computeMetadata/v1/instance/maintenance-event", ours)[0] == "TERMINATE_ON_HOST_MAINTENANCE":
        return MAINTENANCE_S, "Compute Engine ends this machine for the maintenance of its host"
    return None


def azure(service: Service) -> Notice | None:
    """Look for Scheduled Events that end this machine or all that runs on it.

    https://learn.microsoft.com/azure/virtual-machines/linux/scheduled-events
    """
    ours = {"Metadata": "true"}
    if not service.name:
        service.name, _ = service.ask("metadata/instance/compute/name?api-version=2021-02-01&format=text", ours)
    body, now = service.ask("metadata/scheduledevents?api-version=2020-07-01", ours)
    for event in json.loads(body or "{}").get("Events", []):
        # Machines of one availability set are told of each other's events.
        if event.get("EventType") in _ENDING and service.name in event.get("Resources", [service.name]):
            before = event.get("NotBefore")  # empty once the event has begun
            left = (_time(before) - now).total_seconds() if before else 0.0
            return max(0.0, left), f"Azure announces for this machine: {event['EventType']}"
    return None


LOOKS: Mapping[str, Callable[[Service], Notice | None]] = {"aws": aws, "gcp": gcp, "azure": azure}
"""How to look, by cloud. OpenStack tells its machines nothing of the kind."""


class MetadataWatch:
    """Looks every `EVERY_S` seconds once started; `check` answers at once with what was seen so far."""

    def __init__(self, cloud: str, base: str = SERVICE, every_s: float = EVERY_S) -> None:
        self._look = LOOKS[cloud]
        self._service = Service(base)
        self._every_s = every_s
        self._seen: Notice | None = None
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="notices", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """Look no more."""
        self._stopped.set()
        self._thread.join()

    def check(self) -> Notice | None:
        """See `agent.run.Notices`."""
        return self._seen

    def _watch(self) -> None:
        told = ""
        while self._seen is None and not self._stopped.is_set():
            try:
                self._seen = self._look(self._service)
                told = ""
            except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
                if not told:
                    told = repr(error)
                    _log.warning("the cloud's metadata service gives no notices: %s", told)
            self._stopped.wait(self._every_s)


def _time(text: str) -> datetime:
    """Return the moment an HTTP date names; without one, this machine's own."""
    return parsedate_to_datetime(text) if text else datetime.now(UTC)
