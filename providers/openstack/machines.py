"""Nova's servers as machines, and which of several servers of one intent is kept. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from providers.openstack.errors import plain
from providers.port import INTENT_TAG, OWNER_TAG, Machine, MachineState

_M = MachineState
_STATES: Mapping[str, MachineState] = {
    "BUILD": _M.PENDING,
    "SHUTOFF": _M.STOPPED, "PAUSED": _M.STOPPED, "SUSPENDED": _M.STOPPED,
    "SHELVED": _M.STOPPED, "SHELVED_OFFLOADED": _M.STOPPED,
    "ERROR": _M.ENDING, "DELETED": _M.ENDED, "SOFT_DELETED": _M.ENDED,
}  # fmt: skip
"""By nova's status; whatever is not named here has a machine that runs or may run."""
_TASKS: Mapping[str, MachineState] = {
    "deleting": _M.ENDING, "soft-deleting": _M.ENDING,
    "powering-off": _M.STOPPING, "powering-on": _M.PENDING,
}  # fmt: skip
ZONE = "OS-EXT-AZ:availability_zone"
TASK = "OS-EXT-STS:task_state"
LAUNCHED = "OS-SRV-USG:launched_at"
SHAPE_TAG = "atoll-shape"
"""Metadata with the flavor's name: nova shows only its id before 2.47."""


def machine(server: Mapping[str, Any]) -> Machine:
    """Return a server as a machine. One that nova gave up (`ERROR`) holds quota until it is deleted: `ending`."""
    metadata = server.get("metadata", {})
    state = state_of(server)
    fault = server.get("fault") or {}
    return Machine(
        intent=metadata.get(INTENT_TAG, ""),
        provider_id=server["id"],
        state=state,
        shape=metadata.get(SHAPE_TAG, ""),
        zone=server.get(ZONE) or "",
        created_at=_seconds(server.get("created", "")),
        message=plain(fault.get("message", "")) if server["status"] == "ERROR" else (server.get(TASK) or ""),
    )


def state_of(server: Mapping[str, Any]) -> MachineState:
    """Return a server's state: what is being done with it counts before what it is."""
    status = server["status"]
    if status not in ("DELETED", "SOFT_DELETED") and (doing := _TASKS.get(server.get(TASK) or "")):
        return doing
    return _STATES.get(status, _M.RUNNING)


def owned(server: Mapping[str, Any], owner: str, intent: str = "") -> bool:
    """Say whether a server carries our owner tag, and the intent's where one is given."""
    metadata = server.get("metadata", {})
    return metadata.get(OWNER_TAG) == owner and (not intent or metadata.get(INTENT_TAG) == intent)


@dataclass(frozen=True, slots=True, kw_only=True)
class Election:
    """The servers of one intent, sorted out.

    `kept` is the machine; `losers` are to be deleted, `failed` among them could not be built; `undecided`
    says that nova still looks for a host for one of them.
    """

    kept: Mapping[str, Any] | None
    losers: tuple[Mapping[str, Any], ...]
    failed: tuple[Mapping[str, Any], ...]
    undecided: bool


def elect(servers: Iterable[Mapping[str, Any]]) -> Election:
    """Keep the oldest by the cloud's clock, the least id of equally old ones: whoever looks decides alike.

    Servers that are being deleted take no part.
    """
    present = [server for server in servers if state_of(server) is not _M.ENDED and not _deleting(server)]
    failed = tuple(server for server in present if server["status"] == "ERROR" and not server.get(LAUNCHED))
    alive = sorted((s for s in present if s not in failed), key=lambda s: (s.get("created", ""), s["id"]))
    return Election(
        kept=alive[0] if alive else None,
        losers=(*alive[1:], *failed),
        failed=failed,
        undecided=any(
            s["status"] == "BUILD" and s.get(TASK) in ("scheduling", None) and not s.get("hostId") for s in alive
        ),
    )


def _deleting(server: Mapping[str, Any]) -> bool:
    return server.get(TASK) in ("deleting", "soft-deleting")


def _seconds(stamp: str) -> float:
    try:
        return datetime.fromisoformat(stamp.replace("Z", "+00:00")).replace(tzinfo=UTC).timestamp()
    except ValueError:
        return 0.0
