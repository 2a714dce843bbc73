"""Who is the gateway of each site, what each gateway is told, and how a mesh stands. Pure."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from ipaddress import ip_address

from msgspec import structs

from atoll.errors import Invalid
from atoll.mesh import End, Mesh, MeshState, check_endpoint, check_key, check_subnet, covered, endpoint
from tunnel import wire

FRESH_S = 180.0
"""A WireGuard handshake older than this carries nothing: keys are renewed every two minutes while bytes flow."""
PEERS = 256
"""Most peers, and most networks, that an agent may speak of."""
_TEXT = 300
FIRST_S = 15.0
"""How long a first handshake may take before the mesh is called down."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """What an agent last said of its WireGuard interface, `age` seconds ago, and whether it is connected now.

    `came_from` is the address from which its link comes, "" where it is not known.
    """

    agent: str
    name: str
    site: str
    connected: bool
    status: wire.MeshStatus
    age: float = 0.0
    came_from: str = ""

    def seen(self, keys: Iterable[str]) -> float | None:
        """Return seconds since the last handshake with whoever has one of `keys`, None when there was none."""
        wanted = set(keys)
        found = [peer.seen_s + self.age for peer in self.status.peers if peer.key in wanted and peer.seen_s >= 0]
        return min(found, default=None)


Reports = Mapping[str, Heard]
"""By agent."""


def sane(status: wire.MeshStatus, keys: Collection[str]) -> wire.MeshStatus:
    """Return an agent's word as it may be used and shown; one that makes no sense makes the agent unable.

    `keys` are other agents': who claims one of those would take their bytes.
    """
    try:
        for key in (status.key, status.next, *(peer.key for peer in status.peers)):
            if key:
                check_key(key)
        for subnet in status.subnets:
            check_subnet(subnet)
        if status.endpoint:
            check_endpoint(status.endpoint)
        if {status.key, status.next} & set(keys):
            raise Invalid("its key is another agent's")
        if len(status.peers) > PEERS or len(status.subnets) > PEERS or not 0 <= status.port < 65536:
            raise Invalid("that is too much")
    except Invalid as error:
        return wire.MeshStatus(serial=status.serial, unable=_plain(f"what it says makes no sense: {error.message}"))
    return structs.replace(status, unable=_plain(status.unable), error=_plain(status.error))


def _plain(text: str) -> str:
    """Return a text of others as it may be shown on a terminal."""
    return "".join(c if c.isprintable() else "?" for c in text)[:_TEXT]


def settled(mesh: Mesh, reports: Reports, members: Collection[str], now: float, *, returning: bool = False) -> Mesh:
    """Return the mesh with its gateways, their keys and endpoints as they are known now (`now`: Unix seconds).

    `members` may be gateways. While agents are `returning`, none loses that place for not being connected.
    """
    keep = returning or flowing(mesh, reports)
    first, second = (_end(end, reports, members, keep, now) for end in mesh.ends)
    return replace(mesh, ends=(first, second))


def flowing(mesh: Mesh, reports: Reports) -> bool:
    """Say whether one of the gateways had a handshake with the other lately: bytes pass."""
    for end, other in pairs(mesh):
        heard = reports.get(end.agent)
        seen = heard.seen(_keys(other)) if heard else None
        if seen is not None and seen < FRESH_S:
            return True
    return False


def pairs(mesh: Mesh) -> tuple[tuple[End, End], tuple[End, End]]:
    """Return each end with the other."""
    first, second = mesh.ends
    return (first, second), (second, first)


def _end(end: End, reports: Reports, members: Collection[str], keep: bool, now: float) -> End:
    agent = _gateway(end, reports, members, keep)
    if agent != end.agent:
        end = replace(end, agent=agent, key="", next="", keyed_at=now, endpoint="", given=False)
    heard = reports.get(agent)
    if heard is None or not heard.connected:
        return end
    status = heard.status
    if status.key and status.key != end.key:
        end = replace(end, key=status.key, keyed_at=now)
    learned = endpoint(heard.came_from, status.port) if _usable(heard.came_from) and status.port else ""
    return replace(end, next=status.next, endpoint=status.endpoint or learned, given=bool(status.endpoint))


def _gateway(end: End, reports: Reports, members: Collection[str], keep: bool) -> str:
    """Return the gateway: the one there is while it works, else the best one; one that is no member never."""
    able = [heard for heard in reports.values() if heard.connected and heard.site == end.site and _can(heard, end)]
    if any(heard.agent == end.agent for heard in able):
        return end.agent
    mine = reports.get(end.agent)
    if end.agent in members and keep and (mine is None or not mine.connected or _can(mine, end)):
        return end.agent
    best = min(able, key=lambda heard: (not heard.status.endpoint, heard.name), default=None)
    if best is not None:
        return best.agent
    return end.agent if end.agent in members else ""


def _can(heard: Heard, end: End) -> bool:
    return not heard.status.unable and all(covered(each, heard.status.subnets) for each in end.subnets)


def _usable(address: str) -> bool:
    try:
        return bool(address) and not (ip_address(address).is_loopback or ip_address(address).is_link_local)
    except ValueError:
        return False


def _keys(end: End) -> list[str]:
    return [key for key in (end.key, end.next) if key]


def told(agent: str, meshes: Sequence[Mesh], reports: Reports, now: float, rotate_s: float) -> wire.MeshWanted:
    """Return what an agent's interface is to be: of all meshes whose gateway it is."""
    mine = [(end, other) for mesh in meshes for end, other in pairs(mesh) if end.agent == agent]
    if not mine:
        return wire.MeshWanted()
    own = mine[0][0]
    peers = [
        wire.MeshPeer(site=other.site, keys=_keys(other), endpoint=other.endpoint, allowed=list(other.reached))
        for _, other in mine
        if other.key
    ]
    due = bool(own.key) and now - min(end.keyed_at for end, _ in mine) > rotate_s
    return wire.MeshWanted(
        addresses=sorted({each for end, _ in mine for each in end.addresses}),
        subnets=sorted({each for end, _ in mine for each in end.subnets}),
        peers=peers,
        renew=due and not own.next,
        switch=own.next if own.next and _may_switch(agent, own.next, [other for _, other in mine], reports) else "",
    )


def _may_switch(agent: str, following: str, others: Sequence[End], reports: Reports) -> bool:
    """Say whether every peer knows the next key, so that it may be used; of two that could, one at a time."""
    for other in others:
        heard = reports.get(other.agent)
        if heard is None or not heard.connected:
            return False
        if following not in {peer.key for peer in heard.status.peers}:
            return False
        if other.next and other.agent < agent:
            return False
    return True


def judged(mesh: Mesh, reports: Reports, now: float) -> Mesh:
    """Return the mesh with its state, and what a person should know of it."""
    state, message, hint = _judge(mesh, reports, now)
    if (state, message, hint) == (mesh.state, mesh.message, mesh.hint):
        return mesh
    return replace(mesh, state=state, message=message, hint=hint, since=now if state != mesh.state else mesh.since)


def _judge(mesh: Mesh, reports: Reports, now: float) -> tuple[MeshState, str, str]:
    waiting = MeshState.PENDING if mesh.state is MeshState.PENDING else MeshState.DOWN
    flows = flowing(mesh, reports)
    for end in mesh.ends:
        if not end.agent:
            return waiting, *_nobody(end, reports)
    for end in mesh.ends:
        heard = reports.get(end.agent)
        if heard is not None and heard.connected and heard.status.error:
            text = f"{heard.name}, the gateway of {end.site}: {heard.status.error}"
            return (MeshState.DEGRADED if flows else waiting), text, "put that right there; it is tried again by itself"
    for end in mesh.ends:
        heard = reports.get(end.agent)
        if heard is None or not heard.connected:
            name = heard.name if heard else end.agent
            text = f"{name}, the gateway of {end.site}, is not connected to the control plane"
            hint = "bytes pass as before; keys are not renewed" if flows else "see `atoll agent list`"
            return (MeshState.DEGRADED if flows else waiting), text, hint
    if flows:
        return MeshState.UP, "", ""
    since = max(mesh.created_at, *(end.keyed_at for end in mesh.ends))
    if any(not end.key for end in mesh.ends) or now - since < FIRST_S:
        return waiting, "the gateways have not shaken hands yet", "this takes some seconds"
    return MeshState.DOWN, *_silent(mesh)


def _nobody(end: End, reports: Reports) -> tuple[str, str]:
    here = [heard for heard in reports.values() if heard.site == end.site and heard.connected]
    for heard in here:
        if heard.status.unable:
            return f"{heard.name} cannot be the gateway of {end.site}: {heard.status.unable}", "put that right there"
    if here:
        lacking = next(each for each in end.subnets if not covered(each, here[0].status.subnets))
        return (
            f"no agent of {end.site} is permitted to let others reach {lacking}",
            f"on {here[0].name}: atoll agent mesh --subnet {lacking}, then restart the agent",
        )
    return (
        f"site {end.site} has no gateway: no agent that is connected there permits it",
        f"on one machine of {end.site}, as root: atoll agent mesh --endpoint HOST:PORT, then restart its agent",
    )


def _silent(mesh: Mesh) -> tuple[str, str]:
    """Say what two gateways need that cannot hear each other."""
    tried = " and ".join(f"{end.endpoint or 'nowhere'} ({end.site})" for end in mesh.ends)
    sites = " or ".join(end.site for end in mesh.ends)
    if any(end.given for end in mesh.ends):
        return f"no handshake: UDP does not pass between {tried}", "open that UDP port to the other gateway"
    return (
        f"no handshake: both gateways seem to be behind NAT; tried {tried}",
        f"make a UDP port of a gateway of {sites} reachable and say so there: atoll agent mesh --endpoint HOST:PORT",
    )
