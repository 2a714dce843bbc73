"""This agent as its site's gateway: its WireGuard interface is as the control plane wants it, where that is permitted.

The interface outlives this process as sessions do, and the next one adopts it. Private keys never leave this machine.
"""

import asyncio
import contextlib
import hashlib
import logging
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from agent.meshpermit import Permit
from agent.peering import changes, check, check_here, resolve
from atoll.clock import Clock
from atoll.errors import AtollError, Forbidden
from tunnel import wire
from tunnel.wireguard import FRESH_S, Device, PeerChange, PeerState, Shown

_log = logging.getLogger("atoll.agent")

LOOK_S = 10.0
"""How often the interface is looked at and reported …"""
LOOK_SOON_S = 1.0
"""… and how often while a handshake is awaited."""


def interface_of(agent: str) -> str:
    """Return the name of an agent's interface: its own, however many agents a machine has."""
    return f"atoll{hashlib.sha256(agent.encode()).hexdigest()[:8]}"


class Gateway:
    """Keeps `device` as wanted. Without a `permit` it only removes what an earlier process left."""

    def __init__(self, device: Device, directory: Path, permit: Permit | None, clock: Clock, unable: str = "") -> None:
        self._device = device
        self._directory = directory
        self._permit = permit
        self._clock = clock
        self._unable = unable
        self._wanted: wire.MeshWanted | None = None
        self._applied: wire.MeshWanted | None = None
        self._control = ""
        self._endpoints: dict[str, str] = {}
        self._unresolved = ""
        self._said = ""
        self._publics: dict[tuple[int, int], str] = {}
        self._send: Callable[[wire.Message], None] = lambda _message: None
        self._wake = asyncio.Event()
        self._key = self._directory / "key"
        self._next = self._directory / "next"

    def linked(self, send: Callable[[wire.Message], None], control: str) -> None:
        """The control plane listens on a new link, which goes to the address `control` ("": not known)."""
        self._send, self._control = send, control
        self._wake.set()

    def wanted(self, message: wire.MeshWanted) -> None:
        """Take what is wanted from now on."""
        self._wanted = message
        self._wake.set()

    async def run(self) -> None:
        """Keep the interface as it is wanted, and say how it is, until cancelled."""
        while self._permit is None:
            await self._remove_left()
            await asyncio.sleep(LOOK_S)
        while True:
            self._wake.clear()
            pause = await self._round(self._permit)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._wake.wait()

    async def close(self, *, keep: bool) -> None:
        """End; without `keep` the interface and its keys go too."""
        if not keep:
            await self._remove_left()
            with contextlib.suppress(OSError):
                shutil.rmtree(self._directory)

    async def _round(self, permit: Permit) -> float:
        error, shown, wanted = "", None, self._wanted
        try:
            shown = await self._device.show() if not self._unable else None
            if wanted is not None:
                shown = await self._apply(wanted, permit, shown)
                error = self._unresolved or await self._device.closed(wanted.subnets)
        except AtollError as refused:
            error = refused.message
        except OSError as failed:
            error = str(failed)
        if error:
            self._applied = None
            if error != self._said:
                _log.warning("the mesh: %s", error)
        self._said = error
        status = await self._status(permit, shown, error, wanted.serial if wanted is not None else 0)
        self._send(status)
        return LOOK_S if error or self._settled(status) else LOOK_SOON_S

    async def _apply(self, wanted: wire.MeshWanted, permit: Permit, shown: Shown | None) -> Shown | None:
        """Make the interface as it is wanted; return it."""
        if not wanted.addresses:
            if shown is not None or self._key.exists():
                await self._remove()
            return None
        if wanted is not self._applied or shown is None:
            if self._unable:
                raise Forbidden(self._unable)
            ways = _ways_of(wanted)
            routed = shown is not None and self._applied is not None and _ways_of(self._applied) == ways
            await self._check(wanted, permit, shown, routed=routed)
            if await self._use_keys(wanted, shown, permit) or shown is None:
                shown = await self._shown()
            shown = await self._change(wanted, shown)
            if not routed:
                await self._device.route(*ways)
            self._applied = wanted
            return shown
        return await self._change(wanted, shown)

    async def _change(self, wanted: wire.MeshWanted, shown: Shown) -> Shown:
        """Make the peers the wanted ones; return the interface."""
        found = await self._resolved(wanted.peers, shown)
        if changed := changes(wanted.peers, shown.peers, found):
            await self._device.change(changed)
            shown = await self._shown()
        return shown

    async def _check(self, wanted: wire.MeshWanted, permit: Permit, shown: Shown | None, *, routed: bool) -> None:
        """Raise `AtollError` for what may not be; peers that are not wanted any more go all the same.

        Where the networks are `routed` already, it is a change of keys: packets are missed until that is done.
        """
        try:
            check(wanted, permit)
            if not routed:
                check_here(wanted, [*await self._device.taken(), *self._ways()])
        except AtollError:
            known = {key for peer in wanted.peers for key in peer.keys}
            gone = [key for key in (shown.peers if shown else ()) if key not in known]
            if gone:
                await self._device.change([PeerChange(key=key, remove=True) for key in gone])
            raise

    async def _use_keys(self, wanted: wire.MeshWanted, shown: Shown | None, permit: Permit) -> bool:
        """Have the keys that are wanted, and an interface with the present one; say whether that changed it."""
        if not self._key.exists():
            await self._device.make_key(self._key)
        if wanted.switch and self._next.exists() and await self._public(self._next) == wanted.switch:
            self._next.replace(self._key)
        elif wanted.renew and not self._next.exists():
            await self._device.make_key(self._next)
        if shown is None:
            await self._device.up(permit.listens)
        if shown is not None and shown.key == await self._public(self._key):
            return False
        await self._device.use_key(self._key)
        return True

    async def _public(self, path: Path) -> str:
        """Return the public key of a private one; it is asked for once."""
        found = path.stat()
        mark = (found.st_ino, found.st_mtime_ns)
        if mark not in self._publics:
            self._publics = {mark: await self._device.public_key(path), **dict(list(self._publics.items())[:1])}
        return self._publics[mark]

    async def _shown(self) -> Shown:
        shown = await self._device.show()
        if shown is None:
            raise OSError("the WireGuard interface was removed by somebody else")
        return shown

    async def _resolved(self, peers: Sequence[wire.MeshPeer], shown: Shown) -> dict[str, str]:
        """Return endpoints by site that are to be set: new ones, and those of peers that are not heard there."""
        now, found = self._clock.now(), {}
        self._unresolved = ""
        for peer in peers:
            heard = any(now - shown.peers[key].seen_at < FRESH_S for key in peer.keys if key in shown.peers)
            known = any(key in shown.peers for key in peer.keys) and self._endpoints.get(peer.site) == peer.endpoint
            if peer.endpoint and not (heard and (known or peer.site not in self._endpoints)):
                try:
                    found[peer.site] = await resolve(peer.endpoint)
                except (OSError, AtollError) as error:
                    self._unresolved = f"the endpoint {peer.endpoint} of site {peer.site} cannot be used: {error}"
            self._endpoints[peer.site] = peer.endpoint
        return found

    def _ways(self) -> list[tuple[str, str]]:
        return [("the way to the control plane", self._control)] if self._control else []

    async def _status(self, permit: Permit, shown: Shown | None, error: str, serial: int) -> wire.MeshStatus:
        now = self._clock.now()
        following = ""
        if shown is not None and self._next.exists():
            with contextlib.suppress(OSError):
                following = await self._public(self._next)
        return wire.MeshStatus(
            serial=serial,
            unable=self._unable,
            error=error,
            endpoint=permit.endpoint,
            subnets=permit.subnets,
            port=shown.port if shown else 0,
            key=shown.key if shown else "",
            next=following,
            peers=[_peer(each, now) for each in shown.peers.values()] if shown else [],
        )

    def _settled(self, status: wire.MeshStatus) -> bool:
        fresh = {peer.key for peer in status.peers if 0 <= peer.seen_s < FRESH_S}
        peers = self._wanted.peers if self._wanted is not None else []
        return all(len(peer.keys) == 1 and peer.keys[0] in fresh for peer in peers)

    async def _remove(self) -> None:
        await self._device.remove()
        for path in (self._key, self._next):
            path.unlink(missing_ok=True)

    async def _remove_left(self) -> None:
        """Remove what there may be of an interface, if this agent ever made one."""
        if self._key.exists():
            try:
                await self._remove()
            except OSError as error:
                _log.error("the mesh's interface could not be removed: %s", error)


def _ways_of(wanted: wire.MeshWanted) -> tuple[Sequence[str], Sequence[str], Sequence[str]]:
    """Return addresses, what is reached, and what is admitted."""
    return wanted.addresses, [network for peer in wanted.peers for network in peer.allowed], wanted.subnets


def _peer(state: PeerState, now: float) -> wire.MeshPeerStatus:
    return wire.MeshPeerStatus(
        key=state.key,
        seen_s=max(0.0, now - state.seen_at) if state.seen_at else -1.0,
        received=state.received,
        sent=state.sent,
        endpoint=state.endpoint,
    )
