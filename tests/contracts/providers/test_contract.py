"""The provider port's contract, held to on the server's own inventory."""

import asyncio
import logging
from collections.abc import Callable
from urllib.parse import urlsplit

import pytest

from providers.errors import Absent, Auth, BadRequest, Capacity, ProviderError, Quota, Throttled, Unknown
from providers.port import Driver, MachineState
from providers.prices.book import Book
from tests.clouds.every import REAL
from tests.clouds.harness import OWNER, Harness, Seen
from tests.clouds.proxy import Proxy

DEADLINE_S = 30.0
NOWHERE = "http://127.0.0.1:9"
"""The port of `discard`, where nobody listens."""


def can(cloud: Harness, *faults: str) -> None:
    """Skip, saying so, where this cloud's server cannot be made to have a fault."""
    if missing := [fault for fault in faults if fault not in cloud.can]:
        pytest.skip(f"the {cloud.name} server cannot be made to have {', '.join(missing)}")


async def until(condition: Callable[[], bool], what: str) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not condition():
            await asyncio.sleep(0.02)
    assert condition(), what


def only(cloud: Harness) -> Seen:
    (seen,) = cloud.inventory()
    return seen


def live(cloud: Harness) -> list[Seen]:
    return [seen for seen in cloud.inventory() if seen.state is not MachineState.ENDED]


def state(cloud: Harness) -> MachineState:
    """Return the state of the only machine there ever was; clouds that forget show an ended one no more."""
    return only(cloud).state if cloud.inventory() else MachineState.ENDED


async def gone(driver: Driver, provider_id: str) -> None:
    """Terminate as the control plane does: again and again until it is gone."""
    async with asyncio.timeout(DEADLINE_S):
        while True:
            try:
                await driver.terminate(provider_id)
            except Absent:
                return
            await asyncio.sleep(0.02)


async def test_shapes_are_priced_and_named(cloud: Harness) -> None:
    shapes = await cloud.driver().shapes(cloud.book())
    assert len({shape.key for shape in shapes}) == len(shapes) > 0
    assert all(shape.price is None or shape.price > 0 for shape in shapes)
    assert any(shape.price for shape in shapes)
    assert all(shape.slots.cpu > 0 and shape.slots.memory > 0 and shape.zone for shape in shapes)
    assert {True, False} >= {shape.spot for shape in shapes}
    gpus = [gpu for shape in shapes for gpu in shape.slots.gpu]
    assert all(gpu.milli >= 1000 and gpu.memory > 2**30 for gpu in gpus), "a GPU without its memory is no offer"
    assert cloud.intent("i-1").shape.key in {shape.key for shape in shapes}


async def test_a_shape_that_the_book_does_not_know_is_unpriced(cloud: Harness) -> None:
    shapes = await cloud.driver().shapes(Book())
    assert shapes
    if cloud.name in ("aws", "gcp", "azure"):  # others tell prices themselves
        assert {shape.price for shape in shapes} == {None}


async def test_quota_is_told_in_known_units(cloud: Harness) -> None:
    for limit in await cloud.driver().quota():
        assert limit.name
        assert limit.counts in ("cpu", "gpu", "memory", "instances")
        assert limit.limit >= 0
        assert limit.used is None or limit.used >= 0


async def test_doctor_is_well_and_makes_nothing(cloud: Harness) -> None:
    assert all(finding.ok for finding in await cloud.driver().doctor())
    assert cloud.inventory() == []


def over_http(cloud: Harness) -> None:
    if cloud.name not in REAL:
        pytest.skip(f"{cloud.name} is not reached by HTTP")


async def test_calls_go_through_the_configured_proxy(cloud: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment names one that is not there: what the configuration says comes first."""
    over_http(cloud)
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"):
        monkeypatch.setenv(name, NOWHERE)
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    proxy = Proxy()
    try:
        driver = cloud.driver(proxy=proxy.url)
        assert await driver.describe(OWNER) == []
        settings = cloud.provider().settings
        credentials = settings["credentials"]
        assert isinstance(credentials, dict)
        assert urlsplit(str(settings.get("endpoint") or credentials["auth_url"])).netloc in proxy.asked
        made = await driver.create(cloud.intent("i-1"))
        assert [machine.provider_id for machine in await driver.describe(OWNER)] == [made.provider_id]
        assert all(finding.ok for finding in await driver.doctor())
        await gone(driver, made.provider_id)
    finally:
        proxy.close()


async def test_a_proxy_that_is_not_there_is_an_unknown_and_nothing_goes_around_it(cloud: Harness) -> None:
    over_http(cloud)
    driver = cloud.driver(proxy=NOWHERE)
    with pytest.raises(Unknown):
        await driver.create(cloud.intent("i-1"))
    with pytest.raises(Unknown):
        await driver.describe(OWNER)
    assert not all(finding.ok for finding in await driver.doctor())
    assert cloud.inventory() == []


async def test_create_makes_one_owned_machine_that_runs(cloud: Harness) -> None:
    driver = cloud.driver()
    made = await driver.create(cloud.intent("i-1"))
    seen = only(cloud)
    assert (seen.intent, seen.owner, seen.provider_id) == ("i-1", OWNER, made.provider_id)
    assert seen.tags.get("atoll-group") == "burst"
    await until(lambda: state(cloud) is MachineState.RUNNING, "it boots")


async def test_create_again_is_the_same_machine(cloud: Harness) -> None:
    driver = cloud.driver()
    await driver.create(cloud.intent("i-1"))
    await driver.create(cloud.intent("i-1"))
    await cloud.driver().create(cloud.intent("i-1"))
    assert len(cloud.inventory()) == 1


async def test_create_at_once_from_two_sides_is_one_machine(cloud: Harness) -> None:
    await asyncio.gather(*(cloud.driver().create(cloud.intent("i-1")) for _ in range(4)))
    assert len(cloud.inventory()) == 1


@pytest.mark.parametrize("after_effect", [False, True])
async def test_lost_reply_is_unknown_and_the_retry_makes_no_second(cloud: Harness, after_effect: bool) -> None:
    can(cloud, "lost_reply")
    cloud.inject(lost_reply={"times": 1, "after_effect": after_effect})
    with pytest.raises(Unknown):
        await cloud.driver().create(cloud.intent("i-1"))
    assert len(cloud.inventory()) == int(after_effect)
    await cloud.driver().create(cloud.intent("i-1"))
    assert only(cloud).intent == "i-1"
    assert cloud.struck() == {"lost_reply": 1}


async def test_same_intent_with_other_parameters_is_refused(cloud: Harness) -> None:
    driver = cloud.driver()
    await driver.create(cloud.intent("i-1"))
    with pytest.raises(BadRequest):
        await driver.create(cloud.intent("i-1", script="#!/bin/sh\nsleep 61\n"))
    assert len(cloud.inventory()) == 1


async def test_an_ended_intent_is_not_launched_again(cloud: Harness) -> None:
    driver = cloud.driver()
    made = await driver.create(cloud.intent("i-1"))
    await gone(driver, made.provider_id)
    if not cloud.remembers:
        pytest.skip(f"{cloud.name} forgets what was deleted: the control plane's row keeps it from being made again")
    again = await driver.create(cloud.intent("i-1"))
    assert again.state is MachineState.ENDED
    assert live(cloud) == []


async def test_a_look_alike_without_our_tag_is_never_listed(cloud: Harness) -> None:
    driver = cloud.driver()
    await driver.create(cloud.intent("i-1"))
    ours = only(cloud)
    theirs = cloud.intruder(ours)
    assert {machine.provider_id for machine in await driver.describe(OWNER)} == {ours.provider_id}
    await gone(driver, ours.provider_id)
    assert [seen.provider_id for seen in live(cloud)] == [theirs]


async def test_foreign_machines_are_not_listed_nor_mixed_up(cloud: Harness) -> None:
    driver = cloud.driver()
    await driver.create(cloud.intent("i-1", owner="someone-else"))
    await driver.create(cloud.intent("i-1"))
    assert len(cloud.inventory()) == 2
    mine = await driver.describe(OWNER)
    assert [machine.provider_id for machine in mine] == [
        seen.provider_id for seen in cloud.inventory() if seen.owner == OWNER
    ]
    assert mine[0].intent == "i-1"
    await gone(driver, mine[0].provider_id)
    assert [seen.owner for seen in live(cloud)] == ["someone-else"]


async def test_terminate_until_it_is_gone(cloud: Harness) -> None:
    driver = cloud.driver()
    made = await driver.create(cloud.intent("i-1"))
    await until(lambda: state(cloud) is MachineState.RUNNING, "it boots")
    await gone(driver, made.provider_id)
    assert state(cloud) is MachineState.ENDED
    assert cloud.leftovers() == []


async def test_terminate_while_it_boots(cloud: Harness) -> None:
    can(cloud, "slow_boot")
    cloud.inject(slow_boot={"extra_s": 60})
    driver = cloud.driver()
    made = await driver.create(cloud.intent("i-1"))
    await gone(driver, made.provider_id)
    assert state(cloud) is MachineState.ENDED


async def test_terminate_of_what_never_was(cloud: Harness) -> None:
    with pytest.raises(Absent):
        await cloud.driver().terminate(await never_was(cloud))


async def never_was(cloud: Harness) -> str:
    """Return an id of this cloud's form that no live machine has."""
    driver = cloud.driver()
    made = await driver.create(cloud.intent("i-was"))
    await gone(driver, made.provider_id)
    return made.provider_id


async def test_terminate_refused_then_done(cloud: Harness) -> None:
    can(cloud, "terminate")
    driver = cloud.driver()
    made = await driver.create(cloud.intent("i-1"))
    cloud.inject(terminate=[{"times": 1}, {"times": 1, "silent": True}])
    with pytest.raises(ProviderError):
        await driver.terminate(made.provider_id)
    await driver.terminate(made.provider_id)
    assert state(cloud) not in (MachineState.ENDING, MachineState.ENDED)
    await gone(driver, made.provider_id)
    assert state(cloud) is MachineState.ENDED
    assert cloud.struck() == {"terminate": 2}


async def test_no_capacity_makes_nothing_and_passes(cloud: Harness) -> None:
    can(cloud, "no_capacity")
    zone = cloud.intent("i-1").shape.zone
    cloud.inject(no_capacity={"times": 2, "zones": [zone], "spot": False})
    driver = cloud.driver()
    for _ in range(2):
        with pytest.raises(Capacity):
            await driver.create(cloud.intent("i-1"))
    assert live(cloud) == []
    await driver.create(cloud.intent("i-1"))
    assert len(live(cloud)) == 1


async def test_quota_is_not_taken_for_capacity(cloud: Harness) -> None:
    can(cloud, "quota")
    cloud.inject(quota={"times": 1})
    driver = cloud.driver()
    with pytest.raises(Quota):
        await driver.create(cloud.intent("i-1"))
    assert live(cloud) == []
    await driver.create(cloud.intent("i-1"))
    assert len(live(cloud)) == 1


async def test_a_refused_credential_is_told_as_such(cloud: Harness) -> None:
    can(cloud, "auth")
    cloud.inject(auth={"times": 2, "calls": ["create", "describe"]})
    driver = cloud.driver()
    with pytest.raises(Auth):
        await driver.create(cloud.intent("i-1"))
    with pytest.raises(Auth):
        await driver.describe(OWNER)
    assert live(cloud) == []


async def test_spot_is_made_as_spot(cloud: Harness) -> None:
    shapes = await cloud.driver().shapes(cloud.book())
    wanted = cloud.intent("i-1").shape
    if not any(shape.spot for shape in shapes):
        pytest.skip(f"{cloud.name} sells nothing as spot")
    spot = next(s for s in shapes if s.spot and (s.name, s.zone) == (wanted.name, wanted.zone))
    await cloud.driver().create(cloud.intent("i-1", spot=True, price=spot.price))
    seen = only(cloud)
    assert (seen.spot, seen.zone) == (True, wanted.zone)
    assert [machine.spot for machine in await cloud.driver().describe(OWNER)] == [True]


async def test_what_somebody_else_removed_is_seen_as_ended(cloud: Harness) -> None:
    driver = cloud.driver()
    made = await driver.create(cloud.intent("i-1"))
    await until(lambda: state(cloud) is MachineState.RUNNING, "it boots")
    cloud.remove(made.provider_id)
    await until(lambda: live(cloud) == [], "it is removed")
    shown = [machine.state for machine in await driver.describe(OWNER)]
    assert shown in ([], [MachineState.ENDED])
    await gone(driver, made.provider_id)


async def test_throttled_says_when_and_makes_nothing(cloud: Harness) -> None:
    can(cloud, "throttle")
    cloud.inject(throttle={"times": 1, "retry_after": 7, "calls": ["create"]})
    driver = cloud.driver()
    await driver.describe(OWNER)
    with pytest.raises(Throttled) as caught:
        await driver.create(cloud.intent("i-1"))
    assert caught.value.retry_after > 0
    assert live(cloud) == []


async def test_restart_between_accept_and_poll(cloud: Harness) -> None:
    """The one who created it is gone; another finds it by its owner tag and its intent."""
    await cloud.driver().create(cloud.intent("i-1"))
    found = await cloud.driver().describe(OWNER)
    assert [machine.intent for machine in found] == ["i-1"]
    await gone(cloud.driver(), found[0].provider_id)
    assert state(cloud) is MachineState.ENDED


async def test_listing_that_lags_proves_nothing(cloud: Harness) -> None:
    can(cloud, "list_lag")
    cloud.inject(list_lag={"times": 1, "lag_s": 60})
    driver = cloud.driver()
    await driver.create(cloud.intent("i-1"))
    assert await driver.describe(OWNER) == []
    assert len(cloud.inventory()) == 1
    assert [machine.intent for machine in await driver.describe(OWNER)] == ["i-1"]


async def test_stop_and_start_keep_the_disk(cloud: Harness) -> None:
    script = '#!/bin/sh\ntest -e "$HOME/disk" && echo found the disk; touch "$HOME/disk"; echo up; exec sleep 60\n'
    driver = cloud.driver()
    made = await driver.create(cloud.intent("i-1", script=script))
    await shows(driver, made.provider_id, "up")
    await driver.stop(made.provider_id)
    await until(lambda: state(cloud) is MachineState.STOPPED, "it stops")
    assert cloud.leftovers() == []
    await driver.stop(made.provider_id)
    await driver.start(made.provider_id)
    await shows(driver, made.provider_id, "found the disk")
    await driver.start(made.provider_id)
    await until(lambda: state(cloud) is MachineState.RUNNING, "it runs again")
    await driver.stop(made.provider_id)
    await until(lambda: state(cloud) is MachineState.STOPPED, "it stops again")
    await gone(driver, made.provider_id)
    assert state(cloud) is MachineState.ENDED


async def test_stop_and_start_of_what_is_not_there(cloud: Harness) -> None:
    absent = await never_was(cloud)
    for call in (cloud.driver().stop, cloud.driver().start):
        with pytest.raises(Absent):
            await call(absent)


async def shows(driver: Driver, provider_id: str, text: str) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while text not in await driver.console(provider_id):
            await asyncio.sleep(0.02)


async def test_console_is_told_and_bounded(cloud: Harness) -> None:
    script = "#!/bin/sh\nhead -c 200000 /dev/zero | tr '\\0' x; echo; echo last words; exec sleep 60\n"
    driver = cloud.driver()
    made = await driver.create(cloud.intent("i-1", script=script))
    await shows(driver, made.provider_id, "last words")
    text = await driver.console(made.provider_id)
    assert "last words" in text
    assert len(text) <= 64 * 1024


async def test_secrets_reach_no_log_error_or_console(cloud: Harness, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    secret = "atj_verysecretvalue"
    driver = cloud.driver()
    errors: list[ProviderError] = []
    made = await driver.create(cloud.intent("i-1", script=f"#!/bin/sh\nTOKEN={secret}; exec sleep 60\n"))
    for intent in (
        cloud.intent("i-1", script=f"#!/bin/sh\nTOKEN={secret}; exec sleep 61\n"),
        cloud.intent("i-2", script=f"#!/bin/sh\nTOKEN={secret}" + "#" * 70_000),
    ):
        with pytest.raises(ProviderError) as caught:
            await driver.create(intent)
        errors.append(caught.value)
    assert len(errors) == 2
    for error in errors:
        assert secret not in f"{error!r} {error.hint} {error.__cause__!r}"
    assert secret not in caplog.text
    assert secret not in await driver.console(made.provider_id)
    assert secret not in repr(await driver.describe(OWNER))
