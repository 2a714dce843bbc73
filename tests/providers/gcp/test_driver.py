"""What is Google's own about the driver: operations, request ids, quotas, sign-in; on the fake's inventory."""

import asyncio
import logging
import time
from base64 import urlsafe_b64decode
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from atoll.slots import Slots
from providers.errors import Auth, BadRequest, Capacity, Quota, Throttled, Unknown
from providers.gcp.setup import feed, make
from providers.port import Driver, Intent, MachineState
from providers.reserve import usable
from tests.clouds.gcp.harness import ZONE, GcpHarness
from tests.clouds.gcp.server import TOKEN
from tests.clouds.harness import OWNER


@pytest.fixture
def gcp(tmp_path: Path) -> Iterator[GcpHarness]:
    harness = GcpHarness(tmp_path / "gcp")
    harness.start()
    try:
        yield harness
    finally:
        harness.stop()
    assert harness.leftovers() == []


class Hurried:
    """A clock on which every look takes ten seconds: nobody waits."""

    def __init__(self) -> None:
        self._at = 0.0

    def now(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        self._at += 10.0
        return self._at


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.02)


def driver(gcp: GcpHarness, **settings: object) -> Driver:
    return make(gcp.provider(**settings), gcp.context())


def of(gcp: GcpHarness, name: str, kind: str, *, spot: bool = False) -> Intent:
    """Return an intent for a machine type."""
    plain = gcp.intent(name)
    return replace(plain, shape=replace(plain.shape, name=kind, spot=spot))


async def test_accelerators_and_quotas_of_them(gcp: GcpHarness) -> None:
    """The account may have two L4: the third is refused for its quota, which is told by its name."""
    made = await driver(gcp).create(of(gcp, "i-1", "g2-standard-24"))
    with pytest.raises(Quota) as caught:
        await driver(gcp).create(of(gcp, "i-2", "g2-standard-4"))
    assert caught.value.name == "NVIDIA_L4_GPUS"
    told = {limit.name: (limit.used, limit.limit) for limit in await driver(gcp).quota()}
    assert told["NVIDIA_L4_GPUS"] == (2, 2)
    assert told["IN_USE_ADDRESSES"] == (1, 64)
    assert (await driver(gcp).create(of(gcp, "i-3", "g2-standard-4", spot=True))).spot
    attached = await driver(gcp).create(of(gcp, "i-4", "n1-standard-4+nvidia-tesla-t4x1"))
    shown = {machine.provider_id: machine.shape for machine in await driver(gcp).describe(OWNER)}
    assert shown[made.provider_id] == "g2-standard-24"
    assert shown[attached.provider_id] == "n1-standard-4+nvidia-tesla-t4x1"


async def test_a_stock_out_told_late_shows_as_absence_and_the_next_create_tries_again(gcp: GcpHarness) -> None:
    gcp.inject(no_capacity={"after_s": 0.4})
    hurried = make(gcp.provider(), replace(gcp.context(), clock=Hurried()))
    made = await hurried.create(gcp.intent("i-1"))
    assert made.state is MachineState.PENDING
    assert [seen.provider_id for seen in gcp.inventory()] == [made.provider_id]
    await until(lambda: gcp.inventory() == [])
    assert await hurried.describe(OWNER) == []
    again = await driver(gcp).create(gcp.intent("i-1"))
    assert again.provider_id == made.provider_id
    assert len(gcp.inventory()) == 1


async def test_failed_operations_do_not_stand_for_ever(gcp: GcpHarness) -> None:
    """Google repeats a failed operation for a repeated request id: the driver asks under the next one."""
    gcp.inject(no_capacity={"times": 3, "zones": [ZONE]})
    for _ in range(3):
        with pytest.raises(Capacity) as caught:
            await driver(gcp).create(gcp.intent("i-1"))
        assert caught.value.scope == "shape"
    await driver(gcp).create(gcp.intent("i-1"))
    assert gcp.struck() == {"no_capacity": 3}
    assert len(gcp.inventory()) == 1


@pytest.mark.parametrize("fault", ["throttle", "auth"])
async def test_reading_that_fails_after_the_insert_is_no_failed_create(gcp: GcpHarness, fault: str) -> None:
    """`Throttled` and `Auth` would say that nothing was made."""
    gcp.inject(**{fault: {"times": 1, "calls": ["read"], "status": 403}})
    made = await driver(gcp).create(gcp.intent("i-1"))
    assert made.state is MachineState.PENDING
    assert [seen.provider_id for seen in gcp.inventory()] == [made.provider_id]
    assert gcp.struck() == {fault: 1}


async def test_a_taken_name_that_cannot_be_read_is_unknown(gcp: GcpHarness) -> None:
    await driver(gcp).create(gcp.intent("i-1"))
    gcp.inject(throttle={"calls": ["read"]})
    with pytest.raises(Unknown):
        await driver(gcp).create(gcp.intent("i-1", script="#!/bin/sh\nsleep 61\n"))


async def test_a_name_somebody_else_took_is_refused(gcp: GcpHarness) -> None:
    intent = gcp.intent("i-1")
    await driver(gcp).create(intent)
    world = gcp.server.world
    with world.lock:
        instance = world.instances[ZONE, intent.name]
        instance.document = {**instance.document, "metadata": {"items": []}}
    with pytest.raises(BadRequest):
        await driver(gcp).create(replace(intent, user_data="#!/bin/sh\nsleep 61\n"))
    assert len(gcp.inventory()) == 1


async def test_a_machine_that_switches_itself_off_is_stopped_and_can_be_ended(gcp: GcpHarness) -> None:
    made = await driver(gcp).create(gcp.intent("i-1", script="#!/bin/sh\nsleep 0.2\npoweroff\n"))
    await until(lambda: [seen.state for seen in gcp.inventory()] == [MachineState.STOPPED])
    (shown,) = await driver(gcp).describe(OWNER)
    assert shown.state is MachineState.STOPPED
    await driver(gcp).terminate(made.provider_id)
    await until(lambda: gcp.inventory() == [])


async def test_a_reclaimed_spot_machine_leaves_nothing(gcp: GcpHarness) -> None:
    made = await driver(gcp).create(gcp.intent("i-1", spot=True))
    gcp.reclaim(made.provider_id)
    await until(lambda: gcp.inventory() == [])
    assert await driver(gcp).describe(OWNER) == []


async def test_the_hard_end_is_kept_by_google(gcp: GcpHarness) -> None:
    made = await driver(gcp).create(replace(gcp.intent("i-1"), max_life_s=3600.0))
    await until(lambda: gcp.inventory()[0].state is MachineState.RUNNING)
    world = gcp.server.world
    with world.lock:
        _, zone, name = made.provider_id.split("/")
        assert world.instances[zone, name].ends_at - time.monotonic() == pytest.approx(3600, abs=60)
        world.instances[zone, name].ends_at = 0.0
    await until(lambda: gcp.inventory() == [])


@pytest.mark.parametrize(("status", "wait"), [(429, 7.0), (403, 7.0)])
async def test_throttled_by_either_status(gcp: GcpHarness, status: int, wait: float) -> None:
    gcp.inject(throttle={"calls": ["create"], "status": status, "retry_after": wait})
    with pytest.raises(Throttled) as caught:
        await driver(gcp).create(gcp.intent("i-1"))
    assert caught.value.retry_after == wait
    assert gcp.inventory() == []


async def test_forbidden_is_auth(gcp: GcpHarness) -> None:
    gcp.inject(auth={"calls": ["create"], "status": 403})
    with pytest.raises(Auth):
        await driver(gcp).create(gcp.intent("i-1"))


async def test_references_that_are_not_there_are_bad_requests(gcp: GcpHarness) -> None:
    for wrong in ({"network": "nowhere"}, {"image": "projects/debian-cloud/global/images/family/debian-1"}):
        with pytest.raises(BadRequest):
            await driver(gcp, **wrong).create(gcp.intent("i-1"))
    with pytest.raises(BadRequest):
        await driver(gcp).create(gcp.intent("i-1", zone="us-central1-z"))
    assert gcp.inventory() == []


async def test_a_machine_is_found_after_the_project_of_the_settings_changed(gcp: GcpHarness) -> None:
    made = await driver(gcp).create(gcp.intent("i-1"))
    other = driver(gcp, project="other")
    assert (await other.console(made.provider_id)) == ""
    await other.terminate(made.provider_id)
    await until(lambda: gcp.inventory() == [])


async def test_a_wrong_project_never_says_that_a_machine_is_gone(gcp: GcpHarness) -> None:
    made = await driver(gcp).create(gcp.intent("i-1"))
    elsewhere = made.provider_id.replace("atoll-test", "other")
    for call in (driver(gcp).terminate, driver(gcp).stop, driver(gcp).start, driver(gcp).console):
        with pytest.raises(Unknown):
            await call(elsewhere)
    with pytest.raises(BadRequest):
        await driver(gcp, project="other").describe(OWNER)


async def test_owners_that_look_alike_as_labels_are_told_apart(gcp: GcpHarness) -> None:
    made = await driver(gcp).create(gcp.intent("i-1", owner="Inst.A"))
    await driver(gcp).create(gcp.intent("i-1", owner="inst_a"))
    shown = await driver(gcp).describe("Inst.A")
    assert [machine.provider_id for machine in shown] == [made.provider_id]


async def test_the_sdk_repeats_nothing_by_itself(gcp: GcpHarness) -> None:
    calls: dict[str, Callable[[Driver], Awaitable[object]]] = {
        "create": lambda at: at.create(gcp.intent("i-1")),
        "describe": lambda at: at.describe(OWNER),
        "quota": lambda at: at.quota(),
        "shapes": lambda at: at.shapes(gcp.book()),
    }
    for number, (name, call) in enumerate(calls.items(), 1):
        gcp.inject(auth={"times": 99, "calls": [name], "status": 503})
        with pytest.raises(Unknown):
            await call(driver(gcp, zones=[ZONE]))
        assert gcp.struck()["auth"] == number, name


async def test_a_zone_that_cannot_be_seen_makes_the_listing_unknown(gcp: GcpHarness) -> None:
    await driver(gcp).create(gcp.intent("i-1"))
    gcp.server.methods.unreachable = "us-central1-f"
    with pytest.raises(Unknown, match="us-central1-f"):
        await driver(gcp).describe(OWNER)


async def test_listings_are_paged_and_reach_zones_that_left_the_settings(gcp: GcpHarness) -> None:
    made = [await driver(gcp).create(of(gcp, f"i-{n}", "e2-micro")) for n in range(7)]
    assert len(await driver(gcp, zones=["us-central1-f"]).describe(OWNER)) == len(made)


async def test_without_zones_all_of_the_region_is_offered(gcp: GcpHarness) -> None:
    there = await driver(gcp, zones=[], region="us-central1", shapes=["e2-medium", "n2d-*"]).shapes(gcp.book())
    assert {(shape.name, shape.zone[-1]) for shape in there if not shape.spot} == {
        *(("e2-medium", zone) for zone in "abf"),
        *(("n2d-standard-4", zone) for zone in "af"),
    }
    assert not any(shape.spot for shape in await driver(gcp, spot=False).shapes(gcp.book()))
    assert next(shape for shape in there if shape.name == "e2-medium").slots == Slots(
        1000, usable(4 * 2**30), 10 * 2**30
    )


async def test_doctor_names_what_is_wrong_and_prints_the_role(gcp: GcpHarness) -> None:
    gcp.server.methods.denied = {"compute.instances.delete"}
    wrong = driver(gcp, zones=["us-central1-a", "us-central1-z"], subnetwork="nowhere")
    findings = {finding.check: finding for finding in await wrong.doctor()}
    assert {check for check, finding in findings.items() if not finding.ok} == {"zones", "network", "rights"}
    assert "us-central1-z" in findings["zones"].message
    assert findings["rights"].message == "missing: compute.instances.delete"
    assert "- compute.instances.delete\n" in findings["rights"].details
    assert "setServiceAccount" not in findings["rights"].details
    assert all(finding.hint for finding in findings.values() if not finding.ok)


async def test_doctor_notices_a_wrong_clock_and_a_wrong_project(gcp: GcpHarness) -> None:
    class Late(Hurried):
        def now(self) -> float:
            return time.time() + 600

    late = make(gcp.provider(), replace(gcp.context(), clock=Late()))
    assert [finding.check for finding in await late.doctor() if not finding.ok] == ["clock"]
    assert [(f.check, f.ok) for f in await driver(gcp, project="other").doctor()] == [("project", False)]


async def test_prices_are_composed_page_by_page(gcp: GcpHarness) -> None:
    listed = await gcp.feed().fetch()
    amounts = {(price.shape, price.spot): price.amount for price in listed.prices}
    assert amounts["g2-standard-4", False] == 706_824
    assert amounts["n1-standard-8+nvidia-tesla-t4x1", False] == 729_998
    assert 0 < amounts["g2-standard-4", True] < 706_824 / 2
    assert ("a3-highgpu-8g", False) not in amounts
    assert (listed.currency, listed.provider) == ("USD", "google")
    assert abs(listed.at - time.time()) < 60


@pytest.mark.parametrize("fault", ["auth", "throttle"])
async def test_a_price_list_that_is_refused(gcp: GcpHarness, fault: str) -> None:
    gcp.inject(**{fault: {"calls": ["prices"]}})
    with pytest.raises({"auth": Auth, "throttle": Throttled}[fault]):
        await gcp.feed().fetch()


async def test_prices_are_read_through_the_proxy(gcp: GcpHarness) -> None:
    """No such host: only the proxy, which is the fake here, can have answered."""
    away = "http://google.invalid"
    provider = gcp.provider(endpoint=away, prices_endpoint=away)
    assert (await feed(provider, replace(gcp.context(), proxy=gcp.server.url)).fetch()).prices


def key(gcp: GcpHarness, pem: str) -> dict[str, object]:
    return {
        "type": "service_account",
        "client_email": "atoll@atoll-test.iam.gserviceaccount.com",
        "private_key": pem,
        "private_key_id": "k1",
        "token_uri": f"{gcp.server.url}/token",
    }


def signed_by(public: rsa.RSAPublicKey, authorization: str) -> bool:
    """Say whether a header holds the token of the token service, or a JWT the key signed by itself."""
    bearer = authorization.removeprefix("Bearer ")
    said, _, signature = bearer.rpartition(".")
    try:
        public.verify(urlsafe_b64decode(signature + "=="), said.encode(), PKCS1v15(), SHA256())
    except (InvalidSignature, ValueError):
        return bearer == TOKEN
    return True


async def test_a_service_account_s_key_signs_every_call(gcp: GcpHarness) -> None:
    private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    gcp.server.admits = lambda authorization: signed_by(private.public_key(), authorization)
    with pytest.raises(Auth):
        await driver(gcp).describe(OWNER)
    context = replace(gcp.context(), proxy=gcp.server.url)  # google-auth asks googleapis.com of a key's regions
    signed = make(gcp.provider(credentials=key(gcp, pem)), context)
    assert all(finding.ok for finding in await signed.doctor())
    await signed.create(gcp.intent("i-1"))
    assert len(gcp.inventory()) == 1


async def test_a_credential_that_cannot_be_used_is_told_without_it(gcp: GcpHarness) -> None:
    for wrong in (key(gcp, "-----BEGIN PRIVATE KEY-----\nsecretsecret\n"), {"file": "/nowhere/key.json"}):
        with pytest.raises(Auth) as caught:
            await driver(gcp, credentials=wrong).describe(OWNER)
        assert "secretsecret" not in f"{caught.value!r} {caught.value.__cause__!r}"


async def test_nothing_answers(gcp: GcpHarness) -> None:
    nobody = driver(gcp, endpoint="http://127.0.0.1:1")
    with pytest.raises(Unknown):
        await nobody.create(gcp.intent("i-1"))
    with pytest.raises(Unknown):
        await nobody.describe(OWNER)


async def test_google_s_own_debug_log_holds_no_script(gcp: GcpHarness) -> None:
    """Also when somebody turns it on: its lines hold whole requests."""
    lines: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage() + repr(record.__dict__))  # type: ignore[method-assign]
    logger = logging.getLogger("google")
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    try:
        await driver(gcp).create(gcp.intent("i-1", script="#!/bin/sh\nTOKEN=atj_secret; exec sleep 60\n"))
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)
    assert "atj_secret" not in "".join(lines)
