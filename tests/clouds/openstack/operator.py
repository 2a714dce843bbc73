"""The cloud's own people: what its operator sees and does, past the front and past the driver."""

import base64
import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from providers.port import INTENT_TAG, OWNER_TAG, MachineState
from tests.clouds.guests import Guests
from tests.clouds.harness import Seen
from tests.openstack.seed import QUOTA, admin
from tests.openstack.server import HOW, MADE
from tests.openstack.stack import ZONES, Stack

VERSION = "2.67"
STATES = {
    "building": MachineState.PENDING, "active": MachineState.RUNNING, "stopped": MachineState.STOPPED,
    "error": MachineState.ENDING, "deleted": MachineState.ENDED, "soft-delete": MachineState.ENDED,
}  # fmt: skip
CLEAN_S = 30.0


class FarGuests(Guests):
    """Machines that nova's process boots: it is told what stands before their commands."""

    def __init__(self, directory: Path) -> None:
        self._prefix: tuple[str, ...] = ()
        self.tell: Callable[[], None] = lambda: None
        super().__init__(directory)

    @property
    def prefix(self) -> tuple[str, ...]:
        return self._prefix

    @prefix.setter
    def prefix(self, words: tuple[str, ...]) -> None:
        self._prefix = tuple(words)
        self.tell()


class Operator:
    """Speaks to nova and keystone themselves, as the administrator."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._cloud = admin(stack.url("identity"))
        self._lock = threading.RLock()
        self._nova = stack.url("compute")
        self._off: set[str] = set()
        self._limits = QUOTA
        self._member_may = True
        self._projects = {project.name: project.id for project in self._cloud.identity.projects()}
        self.image: str = self._cloud.image.find_image("debian-12").id
        self.network: str = self._cloud.network.find_network("private").id
        self._member = self._cloud.identity.find_user("demo")
        self.guests = FarGuests(stack.guests)
        self.guests.tell = lambda: self.how({})

    def servers(self) -> list[dict[str, Any]]:
        return self._pages("servers", "all_tenants=1")

    def flavors(self) -> list[dict[str, Any]]:
        return self._pages("flavors", "is_public=true")

    def inventory(self) -> list[Seen]:
        return [_seen(server) for server in self.servers()]

    def delete(self, server: str) -> None:
        self._call("DELETE", f"/servers/{server}")

    def act(self, server: str, action: str) -> None:
        self._call("POST", f"/servers/{server}/action", {action: None})

    def set_quota(self, **limits: int) -> None:
        if (wanted := {**QUOTA, **limits}) != self._limits:
            self._call("PUT", f"/os-quota-sets/{self._projects['demo']}", {"quota_set": {**wanted, "force": True}})
            self._limits = wanted

    def set_hosts(self, on: dict[str, bool]) -> None:
        """Switch the hosts of zones on or off; those not named are on."""
        wanted = {host for host, zone in ZONES.items() if not on.get(zone, True)}
        if wanted == self._off:
            return
        for service in self._call("GET", "/os-services?binary=nova-compute")["services"]:
            status = "disabled" if service["host"] in wanted else "enabled"
            self._call("PUT", f"/os-services/{service['id']}", {"status": status})
        self._off = wanted

    def enable_member(self, well: bool) -> None:
        with self._lock:
            if well is not self._member_may:
                self._cloud.identity.update_user(self._member, is_enabled=well)
                self._member_may = well

    def how(self, how: dict[str, Any]) -> None:
        """Say how guests are booted from now on, besides where."""
        path: Path = self._stack.guests / HOW
        path.with_suffix(".new").write_text(json.dumps({"prefix": self.guests.prefix, **how}))
        path.with_suffix(".new").rename(path)

    def create(self, body: dict[str, Any]) -> str:
        """Make a server in the member's project, as another person of it would."""
        with self._lock, admin(self._stack.url("identity"), "demo", "demo") as cloud:
            made = cloud.compute.post(f"{self._nova}/servers", json=body, microversion=VERSION)
            assert made.status_code == 202, made.text
            return str(made.json()["server"]["id"])

    def credential(self, rules: list[dict[str, str]]) -> tuple[str, str]:
        """Make an application credential of the member, limited by access rules; return its id and secret."""
        with admin(self._stack.url("identity"), "demo", "demo") as cloud:
            made = cloud.identity.create_application_credential(
                user=cloud.current_user_id,
                name=f"atoll-{time.monotonic_ns()}",
                **({"access_rules": rules} if rules else {}),
            )
            return made.id, made.secret

    def clean(self) -> None:
        """Delete every server of everybody, and undo what faults did."""
        self.enable_member(True)
        self.set_hosts({})
        self.set_quota()
        self.guests.prefix = ()
        deadline = time.monotonic() + CLEAN_S
        asked: set[str] = set()
        while servers := self.servers():
            for server in servers:
                if server["id"] not in asked:
                    asked.add(server["id"])
                    self.delete(server["id"])
            if time.monotonic() > deadline:
                raise RuntimeError(f"servers that cannot be deleted: {servers}")
            time.sleep(0.05)
        (self._stack.guests / MADE).unlink(missing_ok=True)

    def made(self) -> list[str]:
        """Return the intent of every machine that a host was ever given, whatever became of it."""
        path = self._stack.guests / MADE
        return path.read_text().split() if path.exists() else []

    def leftovers(self) -> list[int]:
        return self.guests.processes()

    def _pages(self, kind: str, query: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        while True:
            marker = f"&marker={found[-1]['id']}" if found else ""
            page = self._call("GET", f"/{kind}/detail?{query}{marker}")
            found += page[kind]
            if f"{kind}_links" not in page:
                return found

    def _call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        with self._lock:
            answer = self._cloud.compute.request(f"{self._nova}{path}", method, json=body, microversion=VERSION)
        assert answer.status_code < 400 or (answer.status_code == 404 and method == "DELETE"), answer.text
        return answer.json() if answer.content else None


def _seen(server: dict[str, Any]) -> Seen:
    metadata = server["metadata"]
    deleting = server["OS-EXT-STS:task_state"] == "deleting"
    return Seen(
        provider_id=server["id"],
        intent=metadata.get(INTENT_TAG, ""),
        owner=metadata.get(OWNER_TAG, ""),
        state=MachineState.ENDING if deleting else STATES[server["OS-EXT-STS:vm_state"]],
        created=server["flavor"]["original_name"],
        zone=server["OS-EXT-AZ:availability_zone"] or "",
        user_data=base64.b64decode(server["OS-EXT-SRV-ATTR:user_data"] or b"").decode(),
        tags=metadata,
    )
