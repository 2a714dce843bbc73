"""Whom an agent tells of streams: control planes that understand it, at once, and by the name of its process."""

import asyncio

import pytest

from tests.agent.control import until
from tests.agent.test_run import House
from tunnel import wire


@pytest.mark.parametrize("protocol", [wire.REPORTS - 1, wire.REPORTS])
async def test_only_a_control_plane_that_understands_it_is_told(protocol: int) -> None:
    house = House()
    house.control.welcome = {"protocol": protocol}
    house.begin()
    await house.registered()
    house.control.send(wire.Cordon(epoch=3, cordoned=True))  # its answer comes after whatever was said before
    await until(lambda: any(isinstance(message, wire.CordonAck) for message in house.control.others))
    told = [message for message in house.control.others if isinstance(message, wire.StreamReports)]
    assert [message.boot for message in told] == [house.shell.core.machine.boot] * (protocol >= wire.REPORTS)
    await house.shell.stop()
    await asyncio.gather(house.task, return_exceptions=True)
