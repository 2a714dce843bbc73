"""The pretended AWS: moto and the overlay on loopback, once a process, with a clean account for each `open`."""

import json
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from moto.core.base_backend import BackendDict
from moto.ec2.models import ec2_backends
from moto.ec2.models.amis import Ami
from moto.moto_api._internal.models import moto_api_backend
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

from tests.clouds.aws import facts
from tests.clouds.aws.hall import Hall, Machines
from tests.clouds.aws.overlay import Overlay
from tests.clouds.harness import Seen


class _Quiet(WSGIRequestHandler):
    def connection_dropped(self, error: BaseException, environ: dict[str, Any] | None = None) -> None:
        self.close_connection = True  # a lost reply: the client sees the connection end

    def log(self, type: str, message: str, *args: Any) -> None:  # noqa: A002
        pass


class AwsServer:
    """Serves on `host:port`; below `/_atoll/` it takes faults and shows its inventory (loopback only)."""

    def __init__(self, host: str = "127.0.0.1", port: int = 0) -> None:
        self.overlay = Overlay(DomainDispatcherApplication(create_backend_app))
        self._server = make_server(host, port, self, threaded=True, request_handler=_Quiet)
        self._server.daemon_threads = True  # type: ignore[attr-defined]
        self.url = f"http://{host}:{self._server.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, name="aws-server", daemon=True)

    def start(self) -> "AwsServer":
        self._thread.start()
        return self

    def stop(self) -> None:
        self.close()
        self._server.shutdown()
        self._thread.join(5.0)
        self._server.server_close()

    def open(
        self, directory: Path, region: str, *, prefix: Sequence[str] = (), environment: dict[str, str] | None = None
    ) -> Hall:
        """Begin with an account that has nothing but its default VPC and the public images."""
        with self.overlay.lock:
            directory.mkdir(parents=True, exist_ok=True)
            guests = Machines(directory, prefix=prefix, environment=environment, slots=lambda key: self.hall.slots(key))
            guests.metadata = f"{self.url}/_atoll/metadata"
            self.overlay.hall = Hall(guests)
            self.overlay.faults.put()
            self.overlay.faults.struck.clear()
            self.overlay.page = 0
            self.overlay.calls.clear()
            BackendDict.reset()
            moto_api_backend.reset()
            _furnish(region)
            return self.hall

    def close(self) -> None:
        """Switch all machines off."""
        with self.overlay.lock:
            if self.overlay.hall is not None:
                self.overlay.hall.guests.close()

    @property
    def hall(self) -> Hall:
        assert self.overlay.hall is not None, "the server is open"
        return self.overlay.hall

    def inventory(self) -> list[Seen]:
        """Return every instance there ever was."""
        with self.overlay.lock:
            self.hall.refresh()
            return [self.hall.seen(record) for record in self.hall.records.values()]

    def end(self, provider_id: str, code: str, message: str) -> None:
        """End a machine as somebody other than its owner."""
        with self.overlay.lock:
            self.hall.terminate(self.hall.records[provider_id], code, message)

    def reclaim(self, provider_id: str, notice_s: float = 0.0) -> None:
        """Take a spot machine away, as EC2 does when it needs the room; EC2's notice is 120 s."""
        with self.overlay.lock:
            self.hall.records[provider_id].reclaimed_at = time.time() + notice_s
            self.hall.refresh()

    def __call__(self, environ: dict[str, Any], start: Any) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "")
        return self._control(path, environ, start) if path.startswith("/_atoll/") else self.overlay(environ, start)

    def _control(self, path: str, environ: dict[str, Any], start: Any) -> Iterable[bytes]:
        """POST faults, reclaim (id, notice_s), remove (id); GET inventory, struck; metadata of machines."""
        if path.startswith("/_atoll/metadata/"):
            return self._metadata(path.removeprefix("/_atoll/metadata/"), environ, start)
        raw = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        said = json.loads(raw or b"{}")
        answer: object = {}
        match (environ["REQUEST_METHOD"], path.removeprefix("/_atoll/")):
            case ("POST", "faults"):
                with self.overlay.lock:
                    self.overlay.faults.put(**said)
            case ("POST", "reclaim"):
                self.reclaim(said["id"], said.get("notice_s", 0.0))
            case ("POST", "remove"):
                self.end(said["id"], "Client.UserInitiatedShutdown", "User initiated shutdown")
            case ("GET", "inventory"):
                answer = [asdict(seen) for seen in self.inventory()]
            case ("GET", "struck"):
                answer = dict(self.overlay.faults.struck)
            case _:
                start("404 Not Found", [])
                return [b""]
        start("200 OK", [("Content-Type", "application/json")])
        return [json.dumps(answer).encode()]

    def _metadata(self, path: str, environ: dict[str, Any], start: Any) -> Iterable[bytes]:
        """Serve one machine's metadata, version 2 only: no answer without a token."""
        provider_id, _, item = path.partition("/")
        with self.overlay.lock:
            record = self.hall.records[provider_id]
        status, body = "404 Not Found", ""
        if (environ["REQUEST_METHOD"], item) == ("PUT", "latest/api/token"):
            lifetime = environ.get("HTTP_X_AWS_EC2_METADATA_TOKEN_TTL_SECONDS", "")
            well = lifetime.isdecimal() and 1 <= int(lifetime) <= 21600
            status, body = ("200 OK", f"token-of-{provider_id}") if well else ("400 Bad Request", "")
        elif environ.get("HTTP_X_AWS_EC2_METADATA_TOKEN") != f"token-of-{provider_id}":
            status = "401 Unauthorized"
        elif item == "latest/meta-data/instance-id":
            status, body = "200 OK", provider_id
        elif item == "latest/meta-data/spot/instance-action" and record.reclaimed_at is not None:
            at = datetime.fromtimestamp(record.reclaimed_at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            status, body = "200 OK", json.dumps({"action": "terminate", "time": at})
        start(status, [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
        return [body.encode()]


def _furnish(region: str) -> None:
    """Add what a real account has and moto's does not: Debian's image, and a way out of the default VPC."""
    backend = ec2_backends[facts.ACCOUNT][region]
    backend.amis[facts.DEBIAN_AMI] = Ami(
        backend,
        facts.DEBIAN_AMI,
        name="debian-12-amd64-20261101-2000",
        description="Debian 12 (20261101-2000)",
        owner_id=facts.DEBIAN_OWNER,
        public=True,
        virtualization_type="hvm",
        architecture="x86_64",
        hypervisor="xen",
        root_device_type="ebs",
        root_device_name="/dev/xvda",
        region_name=f"{region}a",
    )
    gateway = backend.create_internet_gateway()
    for table in backend.describe_route_tables():
        backend.attach_internet_gateway(gateway.id, table.vpc_id)
        backend.create_route(table.id, "0.0.0.0/0", gateway_id=gateway.id)


@cache
def shared() -> AwsServer:
    """Return this process's server: moto is too slow to start for each test."""
    return AwsServer().start()
