"""Every message there is, when it makes no sense: a link may end for it, and the control plane does not fail."""

import asyncio

import pytest
import structlog

from tests.federation.control.ring import Ring, ring
from tests.federation.control.test_relays import RelayEnd, enrolled
from tests.tunnel.ends import until
from tests.tunnel.test_wire import GOLDEN
from tunnel import wire

VIRTUAL_TIME = True

MESSAGES = [wire.decode_from_agent(bytes.fromhex(sample["bytes"])) for sample in GOLDEN if sample["from"] == "agent"]


async def failures(r: Ring) -> None:
    """Let what was sent be handled."""
    await asyncio.sleep(0.05)
    assert await r.control.status()


@pytest.mark.parametrize("twice", [False, True])
async def test_from_an_agent(twice: bool) -> None:
    with structlog.testing.capture_logs() as logged:
        async with ring() as r:
            for number, message in enumerate(MESSAGES):
                agent = await r.agent(group=f"g{number}")
                for _ in range(1 + twice):
                    agent._send(message)
            await failures(r)
            fine = await r.agent(group="fine")
            [row] = await r.submit()
            await r.until_state(row.id, "running")
            assert fine.link
    assert [entry for entry in logged if "exc_info" in entry] == []


@pytest.mark.parametrize("first", [False, True], ids=["to one that serves", "before it has said how it is"])
async def test_from_a_relay(first: bool) -> None:
    with structlog.testing.capture_logs() as logged:
        async with ring() as r:
            for number, message in enumerate(MESSAGES):
                row = await enrolled(r, f"east-{number}", f"https://east-{number}.example")
                end = RelayEnd(r, row)
                if first:
                    end.say = lambda *_, end=end, message=message, **__: end.link.send(message)  # type: ignore[method-assign]
                    end.connect()
                else:
                    await end.welcome()
                    end.link.send(message)
                    end.link.send(message)
            await failures(r)
            row = await enrolled(r)
            last = RelayEnd(r, row)
            await last.welcome()
            await until(lambda: r.control.relays.live(row.id))
            last.link.close("test over")
    assert [entry for entry in logged if "exc_info" in entry] == []
