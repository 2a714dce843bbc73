"""The guard in front of a driver: what pauses what, and what never does."""

import asyncio
from dataclasses import replace

import pytest

from atoll.instance import Shape
from atoll.slots import Slots
from federation.control.guard import Guard, Paused
from providers.errors import Auth, BadRequest, Capacity, ProviderError, Quota, Throttled, Unknown
from providers.port import Intent, Machine
from tests.fakes.cloud import SMALL, MemoryCloud
from tests.fakes.plane import FakeClock
from tests.federation.control.ring import CONFIG

VIRTUAL_TIME = True

LARGE = replace(SMALL, name="large", slots=Slots(cpu=8000))
ELSEWHERE = replace(SMALL, zone="z2")


class Highest:
    """Draws the longest pause."""

    def token_bytes(self, count: int) -> bytes:
        return bytes(count)

    def uniform(self, low: float, high: float) -> float:
        return high


class Moody(MemoryCloud):
    """Raises `mood` by name of call."""

    def __init__(self) -> None:
        super().__init__(SMALL, LARGE, ELSEWHERE)
        self.mood: dict[str, ProviderError] = {}
        self.asked: list[str] = []

    def _ask(self, call: str) -> None:
        self.asked.append(call)
        if error := self.mood.get(call):
            raise error

    async def describe(self, owner: str) -> list[Machine]:
        self._ask("describe")
        return await super().describe(owner)

    async def terminate(self, provider_id: str) -> None:
        self._ask("terminate")
        await super().terminate(provider_id)

    async def create(self, intent: Intent) -> Machine:
        self._ask("create")
        return await super().create(intent)


class Bench:
    """A guard over a moody cloud, and a clock that tests move."""

    def __init__(self) -> None:
        self.cloud = Moody()
        self.clock = FakeClock()
        config = replace(CONFIG, backoff_s=20.0, backoff_max_s=300.0, calls_rate=5.0, calls_burst=1000.0)
        self.guard = Guard(self.cloud, "cloud", config, self.clock, Highest())

    def intent(self, name: str, shape: Shape = SMALL) -> Intent:
        return Intent(id=name, owner="me", shape=shape, user_data="")

    async def fails(self, error: ProviderError, call: str, times: int = 1) -> None:
        """Let `call` fail with `error`."""
        self.cloud.mood[call] = error
        for n in range(times):
            with pytest.raises(type(error)) as caught:
                await self._ask(call, n)
            assert not isinstance(caught.value, Paused)
        del self.cloud.mood[call]

    async def _ask(self, call: str, number: int) -> None:
        if call == "describe":
            await self.guard.describe("me")
        elif call == "terminate":
            await self.guard.terminate("m-x")
        else:
            await self.guard.create(self.intent(f"i-{call}-{number}"))


@pytest.fixture
def bench() -> Bench:
    return Bench()


@pytest.mark.parametrize(
    ("error", "times", "pause"),
    [(Auth("wrong key"), 1, 20.0), (Throttled("slow", retry_after=7.0), 1, 14.0), (Unknown("no answer"), 3, 20.0)],
)
async def test_creates_pause_after_errors_of_the_account(
    bench: Bench, error: ProviderError, times: int, pause: float
) -> None:
    await bench.fails(error, "create", times)
    asked = len(bench.cloud.asked)
    with pytest.raises(Paused) as caught:
        await bench.guard.create(bench.intent("i-1"))
    assert (len(bench.cloud.asked), caught.value.retry_after) == (asked, pause), "nothing was asked of the cloud"
    assert error.message in bench.guard.blocked(SMALL)
    assert error.message in bench.guard.blocked(LARGE)
    bench.clock.time += pause - 0.1
    with pytest.raises(Paused):
        await bench.guard.create(bench.intent("i-1"))
    bench.clock.time += 0.2
    assert bench.guard.blocked(SMALL) == ""
    await bench.guard.create(bench.intent("i-1"))
    assert bench.guard.pauses() == []


async def test_two_failures_without_an_answer_pause_nothing(bench: Bench) -> None:
    await bench.fails(Unknown("no answer"), "create", 2)
    await bench.guard.create(bench.intent("i-1"))
    await bench.fails(Unknown("no answer"), "create", 2)
    await bench.guard.create(bench.intent("i-2"))


async def test_reads_that_fail_never_stop_terminates(bench: Bench) -> None:
    machine = await bench.guard.create(bench.intent("i-1"))
    for error, times in ((Unknown("no answer"), 3), (Auth("no right to list"), 1), (Throttled("slow"), 1)):
        await bench.fails(error, "describe", times)
        bench.clock.time += 1000.0
    await bench.fails(Auth("no right to list"), "describe")
    await bench.fails(Auth("no right to create"), "create")
    with pytest.raises(Paused):
        await bench.guard.describe("me")
    await bench.guard.terminate(machine.provider_id)
    assert bench.cloud.live() == []


async def test_changes_and_reads_never_pause_for_longer_than_a_minute(bench: Bench) -> None:
    for _ in range(10):
        await bench.fails(Auth("no right"), "terminate")
        [pause] = bench.guard.pauses()
        assert pause.left_s <= 60.0
        bench.clock.time += pause.left_s
    assert pause.left_s == 60.0


async def test_no_capacity_concerns_one_offer_and_never_the_provider(bench: Bench) -> None:
    await bench.fails(Capacity("none left"), "create", 20)
    assert "none left" in bench.guard.blocked(SMALL)
    assert bench.guard.blocked(LARGE) == ""
    await bench.guard.create(bench.intent("i-1", LARGE))
    await bench.fails(BadRequest("not with this image"), "create")
    assert bench.guard.blocked(LARGE) == ""


async def test_no_capacity_of_a_zone_concerns_its_offers_of_that_kind(bench: Bench) -> None:
    await bench.fails(Capacity("z1 is full", scope="zone"), "create")
    assert "z1 is full" in bench.guard.blocked(LARGE)
    assert bench.guard.blocked(ELSEWHERE) == ""
    assert bench.guard.blocked(replace(LARGE, spot=True)) == ""


async def test_a_quota_refusal_shows_that_the_account_works(bench: Bench) -> None:
    await bench.fails(Unknown("no answer"), "create", 2)
    await bench.fails(Quota("no more vcpus", name="vcpus"), "create", 5)
    assert (bench.guard.blocked(SMALL), bench.guard.pauses()) == ("", [])
    await bench.fails(Unknown("no answer"), "create", 2)
    assert bench.guard.pauses() == []


async def test_a_machine_of_no_use_is_shunned_like_a_refusal(bench: Bench) -> None:
    bench.guard.shun(SMALL, "NOT_JOINED: no agent joined within 900 s")
    assert bench.guard.blocked(SMALL) == "NOT_JOINED: no agent joined within 900 s (tried again in 20 s)"
    assert [pause.what for pause in bench.guard.pauses()] == [SMALL.key]


async def test_half_open_probes_with_one_call(bench: Bench) -> None:
    await bench.fails(Auth("wrong key"), "create")
    bench.clock.time += 20.0
    held = asyncio.Event()
    create = bench.cloud.create

    async def slow(intent: Intent) -> Machine:
        await held.wait()
        return await create(intent)

    bench.cloud.create = slow  # type: ignore[method-assign]
    probe = asyncio.create_task(bench.guard.create(bench.intent("i-1")))
    await asyncio.sleep(0)
    with pytest.raises(Paused):
        await bench.guard.create(bench.intent("i-2"))
    probe.cancel()
    with pytest.raises(asyncio.CancelledError):
        await probe
    held.set()
    await bench.guard.create(bench.intent("i-3"))
    await bench.guard.create(bench.intent("i-2"))


async def test_calls_are_paced_and_a_long_queue_is_refused() -> None:
    bench = Bench()
    config = replace(CONFIG, calls_rate=50.0, calls_burst=2.0)
    guard = Guard(bench.cloud, "cloud", config, bench.clock, Highest())
    loop = asyncio.get_running_loop()
    began = loop.time()
    await asyncio.gather(*(guard.describe("me") for _ in range(7)))
    assert loop.time() - began >= 0.09
    slow = Guard(bench.cloud, "cloud", replace(CONFIG, calls_rate=0.01, calls_burst=1.0), bench.clock, Highest())
    await slow.describe("me")
    with pytest.raises(Paused, match="wait already"):
        await slow.describe("me")
    await slow.terminate((await slow.create(bench.intent("i-1"))).provider_id)


async def test_the_doctor_is_always_let_in(bench: Bench) -> None:
    await bench.fails(Auth("wrong key"), "describe")
    await bench.fails(Auth("wrong key"), "create")
    assert (await bench.guard.doctor())[0].ok
