"""A control plane killed by the kernel between Azure's yes and its end: the next one learns the end."""

import asyncio
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from atoll.group import Provider
from providers.errors import Capacity
from providers.registry import make
from tests.clouds.azure.harness import AzureHarness

_CREATE = """
import asyncio, json, sys
from pathlib import Path
from atoll.group import Provider
from providers.registry import make
from tests.clouds.azure.harness import AzureHarness
harness = AzureHarness(Path(sys.argv[1]))
provider = Provider(name="far", kind="azure", settings=json.loads(sys.stdin.read()))
asyncio.run(make(provider, harness.context()).create(harness.intent("i-1")))
"""


async def test_killed_after_the_yes_its_successor_learns_of_the_failure(tmp_path: Path) -> None:
    cloud = AzureHarness(tmp_path)
    cloud.start()
    try:
        cloud.inject(slow_boot={"extra_s": 6.0}, no_capacity={})
        settings = {**cloud.provider().settings, "create_wait": 30}
        await _killed_amid_create(tmp_path, settings)
        assert [seen.intent for seen in cloud.inventory()] == ["i-1"]
        successor = make(Provider(name="far", kind="azure", settings=settings), cloud.context())
        with pytest.raises(Capacity, match="AllocationFailed"):
            await successor.create(cloud.intent("i-1"))
        assert cloud.inventory() == []
        assert cloud.service.cloud.loose() == []
    finally:
        cloud.stop()


async def _killed_amid_create(directory: Path, settings: dict[str, object]) -> None:
    """Run a create in a process of its own, and kill it once it has noted that Azure took the call."""
    with subprocess.Popen([sys.executable, "-c", _CREATE, str(directory)], stdin=subprocess.PIPE) as process:
        assert process.stdin
        process.stdin.write(json.dumps(settings).encode())
        process.stdin.close()
        async with asyncio.timeout(30):
            while not list((directory / "plane" / "far" / "operations").glob("atoll-*[!t]")):
                assert process.poll() is None
                await asyncio.sleep(0.02)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
