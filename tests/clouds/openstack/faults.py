"""Faults of the test cloud: where it can, the real one is made to have them; the rest happens in front of it."""

import json
import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.clouds.openstack.front import DROPPED, Forward, Passing, Reply
from tests.clouds.openstack.operator import Operator


@dataclass
class Fault:
    """One kind of fault, `left` times."""

    kind: str
    left: int
    how: dict[str, Any] = field(default_factory=dict)


class Faults:
    """What `inject` takes, carried out: `compute` and `identity` judge what passes to nova and to keystone."""

    def __init__(self, operator: Operator) -> None:
        self._operator = operator
        self._faults: list[Fault] = []
        self._lock = threading.Lock()
        self.struck: Counter[str] = Counter()

    def inject(self, faults: Mapping[str, Any]) -> None:
        for kind, given in faults.items():
            for how in given if isinstance(given, list) else [given]:
                self._faults.append(Fault(kind, how.get("times", 1), dict(how)))
        if "auth" in faults:
            self._operator.enable_member(False)

    def clear(self) -> None:
        self._faults.clear()
        self.struck.clear()

    def identity(self, passing: Passing, forward: Forward) -> Reply:
        """Count refused logins; the member may log in again after so many."""
        reply = forward(passing)
        if passing.path.endswith("/auth/tokens") and passing.method == "POST" and reply.status == 401:
            self._strike("auth")
            if not self._next("auth"):
                self._operator.enable_member(True)
        return reply

    def compute(self, passing: Passing, forward: Forward) -> Reply:
        call = call_of(passing)
        if throttled := self._next("throttle", calls=call):
            self._strike("throttle", throttled)
            wait = str(throttled.how.get("retry_after", 1))
            return Reply(status=429, headers={"Retry-After": wait, "Content-Type": "text/plain"}, body=b"slow down")
        if call == "create":
            return self._create(passing, forward)
        if call == "terminate" and (fault := self._next("terminate")):
            self._strike("terminate", fault)
            return Reply(status=204) if fault.how.get("silent") else self._locked(passing, forward)
        reply = forward(passing)
        if call == "describe" and (fault := self._next("list_lag")):
            self._strike("list_lag", fault)
            return _older(reply, float(fault.how.get("lag_s", 60)))
        return reply

    def _create(self, passing: Passing, forward: Forward) -> Reply:
        self._operator.set_hosts({})  # those that a fault switched off
        self._operator.how({})
        zone = json.loads(passing.body)["server"].get("availability_zone")
        lost = self._next("lost_reply")
        if lost:
            self._strike("lost_reply", lost)
            if not lost.how.get("after_effect", True):
                return DROPPED
        if short := self._next("no_capacity", zones=zone):
            self._strike("no_capacity", short)
            self._operator.set_hosts({zone: False})
        if slow := self._next("slow_boot"):
            self._strike("slow_boot", slow)
            self._operator.how({"slow_boot_s": slow.how.get("extra_s", 5)})
        limited = self._next("quota")
        if limited:
            self._strike("quota", limited)
            self._operator.set_quota(instances=0)
        try:
            reply = forward(passing)
        finally:
            if limited:
                self._operator.set_quota()
        return DROPPED if lost else reply

    def _locked(self, passing: Passing, forward: Forward) -> Reply:
        """Let nova itself refuse, as it does for a server that an operator locked."""
        server = passing.path.rpartition("/")[2]
        self._operator.act(server, "lock")
        try:
            return forward(passing)
        finally:
            self._operator.act(server, "unlock")

    def _next(self, kind: str, **where: str | None) -> Fault | None:
        with self._lock:
            for fault in self._faults:
                if fault.kind == kind and fault.left > 0:
                    asked: dict[str, Any] = {
                        key: fault.how.get(key) or (["create"] if key == "calls" else None) for key in where
                    }
                    if all(not asked[key] or where[key] in asked[key] for key in where):
                        return fault
        return None

    def _strike(self, kind: str, fault: Fault | None = None) -> None:
        fault = fault or self._next(kind)
        with self._lock:
            self.struck[kind] += 1
            if fault:
                fault.left -= 1


def call_of(passing: Passing) -> str:
    """Name a request as the faults do."""
    where = urlsplit(passing.path)
    parts = where.path.strip("/").split("/")[1:]  # without the version
    query = parse_qs(where.query)
    match passing.method, parts:
        case "POST", ["servers"]:
            return "create"
        case "GET", ["servers", "detail"]:
            return "find" if "name" in query else "describe"
        case "DELETE", ["servers", _]:
            return "terminate"
        case "POST", ["servers", _, "action"]:
            return {"os-start": "start", "os-stop": "stop"}.get(next(iter(json.loads(passing.body))), "console")
    return ""


def _older(reply: Reply, lag_s: float) -> Reply:
    horizon = (datetime.now(UTC) - timedelta(seconds=lag_s)).strftime("%Y-%m-%dT%H:%M:%SZ")
    document = json.loads(reply.body)
    document["servers"] = [server for server in document["servers"] if server["created"] <= horizon]
    return Reply(status=reply.status, headers=reply.headers, body=json.dumps(document).encode())
