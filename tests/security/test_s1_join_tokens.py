"""S1: of 1,000 machines that show one join token at once, over TLS and HTTP and a real database, one gets in."""

import asyncio
import ssl
import time
from collections import Counter
from pathlib import Path

import aiohttp

from atoll.agent import Agent
from atoll.host.system import SystemChance, SystemClock
from federation.control.config import ControlConfig
from federation.control.control import Control
from federation.control.steps import Steps
from federation.store.bus import LocalBus
from federation.store.database import open_store
from providers.port import Driver
from tests.fakes.store import MemoryLogs
from tests.federation.served import served
from tests.federation.store.conftest import postgres_server as postgres_server
from tests.federation.store.conftest import url as url
from tunnel.acceptor import Acceptor, Route
from tunnel.certificates import new_key, new_request
from tunnel.identity import Authority
from tunnel.wire import ALPN_JOIN, CONTROL_NAME

MACHINES = 1000


def no_cloud(_provider: object) -> Driver:
    raise AssertionError("no cloud is asked here")


def joining(authority: Authority) -> ssl.SSLContext:
    context = ssl.create_default_context(cadata=authority.ca_pem)
    context.set_alpn_protocols([ALPN_JOIN])
    return context


async def join_all(where: str, secret: str, requests: list[str], context: ssl.SSLContext) -> Counter[tuple[int, str]]:
    """Ask as each machine, all at once; return how often each answer came."""

    async def join(http: aiohttp.ClientSession, number: int, csr: str) -> tuple[int, str]:
        body = {"secret": secret, "csr": csr, "name": f"m-{number}"}
        async with http.post(where, json=body, ssl=context, server_hostname=CONTROL_NAME) as answer:
            told = await answer.json(content_type=None)
            return answer.status, str(told.get("code") or "joined")

    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=120)) as http:
        return Counter(await asyncio.gather(*(join(http, number, csr) for number, csr in enumerate(requests))))


async def test_one_of_a_thousand_gets_in(url: str, tmp_path: Path) -> None:
    authority = await asyncio.to_thread(Authority.load_or_create, tmp_path / "keys", now=time.time())
    requests = await asyncio.to_thread(lambda: [new_request(new_key()) for _ in range(MACHINES)])
    store = await open_store(url, SystemClock())
    settings = ControlConfig(authority=authority, agent_url="https://127.0.0.1:1", secret_key=b"k" * 32)
    control = Control(store, MemoryLogs(), LocalBus(), SystemClock(), SystemChance(), no_cloud, Steps(), settings)
    try:
        _, secret = await control.tokens.create_join(site="here", group="hall")
        async with served(tmp_path, control) as server:
            routes = {ALPN_JOIN: Route(authority.join_context(), server.http_protocol)}
            acceptor = Acceptor(routes, deadline_s=120)  # a busy machine takes long for all these handshakes
            await acceptor.listen("127.0.0.1", 0)
            try:
                where = f"https://127.0.0.1:{acceptor.port}/v1/join"
                answers = await join_all(where, secret, requests, joining(authority))
            finally:
                await acceptor.close()
        assert answers == {(200, "joined"): 1, (401, "UNAUTHORIZED"): MACHINES - 1}
        async with store.transaction() as tx:
            [agent] = await tx.find(Agent)
        assert (agent.generation, agent.group) == (1, "hall")
    finally:
        await store.close()
