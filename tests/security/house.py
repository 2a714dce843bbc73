"""A control plane with everything real but the store, the network and the agent, and users with all kinds of proof."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from atoll.host.system import SystemChance, SystemClock
from atoll.session import SessionSpec
from federation.api.grants import Purpose
from federation.control.config import ControlConfig
from federation.control.control import Control
from federation.control.steps import Steps
from federation.store.bus import LocalBus
from providers.port import Driver
from tests.fakes.authority import FakeAuthority
from tests.fakes.store import MemoryLogs, MemoryStore
from tests.fakes.tunnelled import TunnelledAgent
from tests.federation.gateway.app import running_app
from tests.federation.served import Served, served
from tunnel.memory import MemoryNetwork

USERS: dict[str, tuple[str, tuple[str, ...]]] = {
    "the owner": ("ada", ("member-acme",)),
    "an administrator": ("root", ("admin",)),
    "another user": ("bo", ("lead", "viewer")),
    "a deleted token": ("ada", ()),
}
"""Bearers: whose token it is, with which roles."""


@dataclass
class House:
    """`session` is ada's and runs; `other` is bo's."""

    control: Control
    server: Served
    port: int
    session: str = ""
    other: str = ""
    secrets: dict[str, str] = field(default_factory=dict)
    tokens: dict[str, str] = field(default_factory=dict)

    async def furnish(self) -> None:
        for name, (owner, roles) in USERS.items():
            row, self.secrets[name] = await self.control.tokens.create_api(owner, roles)
            self.tokens[name] = row.id
        await self.control.tokens.delete(self.tokens["a deleted token"])
        self.session = await self.run("nb", "ada")
        self.other = await self.run("theirs", "bo")

    async def run(self, name: str, owner: str, project: str = "default") -> str:
        spec = SessionSpec(command=("true",), name=name, apps={"web": 0})
        [row] = await self.control.sessions.submit(spec, project=project, owner=owner)
        async with asyncio.timeout(60):
            while (await self.control.sessions.get(project, row.id)).state != "running":
                await asyncio.sleep(0.02)
        return row.id

    def cookie(
        self, name: str, purpose: Purpose, owner: str, audience: str = "", ttl_s: float = 60.0
    ) -> dict[str, str]:
        return {
            "Cookie": f"{name}={self.server.services.door.grants.issue(purpose, owner, ttl_s=ttl_s, audience=audience)}"
        }

    def bearer(self, name: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.secrets[name]}"}


def _no_cloud(_provider: object) -> Driver:
    raise AssertionError("no cloud is asked here")


@asynccontextmanager
async def house(tmp_path: Path) -> AsyncIterator[House]:
    settings = ControlConfig(authority=FakeAuthority(), agent_url="https://127.0.0.1:1", secret_key=b"k" * 32)
    control = Control(
        MemoryStore(), MemoryLogs(), LocalBus(), SystemClock(), SystemChance(), _no_cloud, Steps(), settings
    )
    await control.start()
    network = MemoryNetwork()
    network.listen(lambda _: control.links.accept(), control.streams.relay.accept)
    _, secret = await control.tokens.create_join(site="local", group="local")
    async with running_app() as (port, _), served(tmp_path, control) as server:
        joined = await control.tokens.join(secret, "CSR", "box", {})
        agent = TunnelledAgent(joined.agent.id, {"web": port})
        await agent.connect(network)
        made = House(control, server, port)
        try:
            await made.furnish()
            yield made
        finally:
            await control.stop()
