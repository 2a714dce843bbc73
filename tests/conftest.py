"""Settings of all tests; and at the end of a run, which faults were injected into which cloud, and how often."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator, Mapping

import pytest
import uvloop
from hypothesis import settings

from tests.tunnel.virtual import VirtualLoop

STRUCK = "struck"
"""A test's property: the cloud's name and how often each kind of fault struck in it."""


class Summary:
    """Adds up what tests recorded, also those of other processes (xdist)."""

    def __init__(self) -> None:
        self.struck: dict[str, Counter[str]] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "teardown":
            for key, value in report.user_properties:
                if key == STRUCK and isinstance(value, list | tuple):
                    name, faults = value
                    self.struck.setdefault(name, Counter()).update(faults)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self.struck:
            terminalreporter.section("faults injected, by cloud")
        for name, faults in sorted(self.struck.items()):
            told = ", ".join(f"{kind} {count}" for kind, count in sorted(faults.items())) or "none"
            terminalreporter.write_line(f"{name}: {told}")


def pytest_configure(config: pytest.Config) -> None:
    settings.register_profile("untimed", deadline=None)  # how long an example takes says how busy the machine is
    settings.load_profile("untimed")
    config.pluginmanager.register(Summary())


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Give a module that says `VIRTUAL_TIME` a loop whose clock jumps, so that no machine is too slow for it."""
    if getattr(getattr(item, "module", None), "VIRTUAL_TIME", False):
        return {"virtual": VirtualLoop}
    return {"real": asyncio.new_event_loop}


@pytest.fixture(params=["stock", "uvloop"])
def runner(request: pytest.FixtureRequest) -> Iterator[asyncio.Runner]:
    """A runner on each kind of loop; a traceback that a loop would have logged fails the test."""
    failures: list[dict[str, object]] = []

    def make() -> asyncio.AbstractEventLoop:
        loop = uvloop.new_event_loop() if request.param == "uvloop" else asyncio.SelectorEventLoop()
        loop.set_exception_handler(lambda _, context: failures.append(context))
        return loop

    with asyncio.Runner(loop_factory=make) as runner:
        yield runner
    assert failures == []
