"""Who guesses is slowed, by address; who has a good token there is not."""

import asyncio
import time
from dataclasses import dataclass

from federation.api.failures import FORGET_S, FREE, HELD_LIMIT, MOST_S, Failures
from tests.federation.served import BEARER, Served

WRONG = {"Authorization": "Bearer atk_" + "0" * 64}


@dataclass
class Clock:
    at: float = 0.0

    def now(self) -> float:
        return self.at

    def monotonic(self) -> float:
        return self.at


def test_each_failure_costs_more_until_a_quiet_minute() -> None:
    clock = Clock()
    failures = Failures(clock)
    assert [failures.noted("192.0.2.1") for _ in range(FREE)] == [0.0] * FREE
    waits = [failures.noted("192.0.2.1") or 0.0 for _ in range(100)]
    assert waits == sorted(waits)
    assert (waits[0], waits[-1]) == (0.1, MOST_S)
    assert failures.noted("192.0.2.2") == 0.0, "another address"
    clock.at = FORGET_S + 1
    assert failures.noted("192.0.2.1") == 0.0
    assert all(failures.noted("127.0.0.1") == 0.0 for _ in range(100)), "this machine itself"
    assert failures.refused["slowed"] == 100


def test_ipv6_is_counted_by_network() -> None:
    failures = Failures(Clock())
    for number in range(FREE):
        failures.noted(f"2001:db8::{number:x}")
    assert failures.noted("2001:db8::ffff") == 0.1
    assert failures.noted("2001:db8:0:1::1") == 0.0


def test_many_addresses_are_forgotten_again() -> None:
    failures = Failures(Clock())
    for number in range(12_000):
        failures.noted(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}")
    assert len(failures._known) == 10_000


async def test_over_http(server: Served) -> None:
    failures = Failures(server.plane.clock, name=str)
    server.services.failures.__dict__.update(failures.__dict__)

    async def ask(headers: dict[str, str], path: str = "/v1/status", method: str = "GET") -> tuple[int, str]:
        body = {"secret": "x", "csr": "y"} if method == "POST" else None
        async with server.http.request(method, server.url + path, headers=headers, json=body) as answer:
            told = await answer.json()
            return answer.status, str(told.get("reason", "")) + answer.headers.get("Retry-After", "")

    for _ in range(30):
        assert (await ask({}))[0] == 401, "who shows nothing guesses nothing"
    assert not server.services.failures.refused
    for _ in range(FREE - 1):
        assert (await ask(WRONG))[0] == 401
    assert (await ask({}, "/v1/join", "POST"))[0] == 401, "joins count, too"
    began = time.monotonic()
    assert (await ask(WRONG))[0] == 401
    assert time.monotonic() - began >= 0.1
    flood = asyncio.gather(*(ask(WRONG) for _ in range(HELD_LIMIT + 20)))
    await asyncio.sleep(0.05)
    assert (await ask(BEARER))[0] == 200, "a good token is not slowed"
    answers = await flood
    assert set(answers) == {(401, "UNAUTHORIZED"), (429, "TOO_MANY5")}
    assert server.services.failures.refused["turned_away"] == answers.count((429, "TOO_MANY5")) > 0
    assert not server.services.failures._held
