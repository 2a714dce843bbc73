"""Relays as processes: a stream through one survives its death, its standstill, its drain, and the control plane's."""

import contextlib
import json
import signal
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.installation import Installation
from tests.e2e.processes import end_all
from tests.e2e.relays import ECHO, Flow, Forward, RelayProcess
from tests.e2e.waiting import until
from tunnel.jointoken import JoinToken

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.xdist_group("relays")]


class Ring:
    """An installation with two relays that its agent is linked to, and an echo in a session."""

    def __init__(self, installation: Installation, folder: Path) -> None:
        self.installation = installation
        self.relays = [RelayProcess(installation, folder, name) for name in ("east", "west")]
        for relay in self.relays:
            relay.start()
        self.ready()
        self.echo = self.session("echo", "local")

    def ready(self) -> None:
        """Wait until both relays serve the agent."""
        for relay in self.relays:
            until(relay.serves, f"relay {relay.name}", within=60, story=relay.story)

    def session(self, name: str, site: str) -> str:
        """Start an echo at a site; return its port."""
        run = self.installation.atoll
        run("run", "--detach", "--site", site, "--name", name, "--", "python3", "-c", ECHO)
        self.installation.wait([name], ["running"])
        return until(lambda: run("logs", name).split(), "the echo's port")[0]

    def at(self, port: int) -> RelayProcess:
        """Return the relay at a port."""
        return next(relay for relay in self.relays if relay.port == port)


@pytest.fixture(scope="module")
def ring(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ring]:
    folder = tmp_path_factory.mktemp("relays")
    with Installation(folder) as installation:
        installation.up()
        made = None
        try:
            made = Ring(installation, folder)
            yield made
        finally:
            for relay in made.relays if made else []:
                relay.close()
            end_all(folder)


@pytest.fixture
def forward(ring: Ring) -> Iterator[Forward]:
    ring.ready()
    forwarding = Forward(ring.installation, "echo", ring.echo, {})
    yield forwarding
    forwarding.close()


@pytest.fixture
def flow(forward: Forward) -> Iterator[Flow]:
    flow = Flow(forward.port)
    until(flow.begun, "bytes of the echo")
    flow.forget_stall()
    yield flow
    flow.drop()


def used(ring: Ring, forward: Forward) -> RelayProcess:
    """Return the relay that the newest lane goes over: never the control plane, while there is one."""
    until(lambda: forward.ways, "a way")
    return ring.at(forward.ways[-1])


def moved(ring: Ring, forward: Forward, flow: Flow, before: RelayProcess, event: str) -> int:
    """The stream goes on over the other relay, whole; return how many bytes came back."""
    until(lambda: len(forward.ways) > 1, "another way", within=60, story=before.story)
    flow.more()
    count = flow.finish()
    print(f"{event}: {count >> 20} MiB whole, longest stall {flow.stall:.3f} s")
    assert used(ring, forward) is not before
    return count


def recorded(ring: Ring, relay: RelayProcess, state: str, count: int | None = None) -> dict[str, Any]:
    """Return the newest record in this state of a stream by a relay (that carried so many bytes), {} for none."""
    found = json.loads(ring.installation.atoll("audit", "streams", "echo", "-o", "json"))
    wanted = (row for row in found if row["state"] == state and count in (None, row["received"]) and by(row, relay))
    return next(wanted, {})


def by(row: dict[str, Any], relay: RelayProcess) -> list[dict[str, Any]]:
    """Return a stream's connections by a relay."""
    return [way for way in row.get("ways", ()) if way["via"] == relay.name]


def test_a_stream_survives_the_kill_of_its_relay(ring: Ring, forward: Forward, flow: Flow) -> None:
    relay = used(ring, forward)
    until(lambda: recorded(ring, relay, "open"), "the relay to tell of the stream")
    relay.send(signal.SIGKILL)
    relay.wait()
    count = moved(ring, forward, flow, relay, "SIGKILL")
    assert flow.stall < 5.0
    row = until(lambda: recorded(ring, relay, "ended", count), "the record of the stream")
    assert (row["sent"], row["reason"]) == (count, "")
    assert row["resumed"] >= 1
    relay.start()

    def closed() -> list[str]:
        ways = by(recorded(ring, relay, "ended", count), relay)
        return [way["reason"] for way in ways if way["ended_at"]]

    assert until(closed, "the end of its connection, as it was not seen", within=60) == ["UNSEEN"]


def test_a_blind_stream_passes_its_relay_in_the_kernel_and_survives_its_kill(ring: Ring) -> None:
    ring.ready()
    forwarding = Forward(ring.installation, "echo", ring.echo, {}, "--blind")

    def spliced() -> list[Flow]:
        """One that waited too long for its lane took another; the next one may find it ready."""
        known = len(forwarding.ways)
        flow = Flow(forwarding.port)
        until(flow.begun, "bytes of the echo")
        until(lambda: len(forwarding.ways) > known, "word of its way")
        if "splice lane" in forwarding.said[-1]:
            return [flow]
        flow.drop()
        return []

    try:
        [flow] = until(spliced, "a spliced lane")
        relay = used(ring, forwarding)
        count = flow.finish()

        def spliced_bytes() -> int:
            """Return how many bytes, of the stream's frames and of TLS inside, went both ways in the relay's kernel."""
            found = json.loads(ring.installation.atoll("audit", "streams", "echo", "-o", "json"))
            ways = [way for row in found for way in by(row, relay) if way["lane"] == "splice"]
            return max((min(way["received"], way["sent"]) for way in ways), default=0)

        until(lambda: spliced_bytes() > count, "the record of the stream")
        [flow] = until(spliced, "a spliced lane")
        relay = used(ring, forwarding)
        relay.send(signal.SIGKILL)
        relay.wait()
        flow.more()
        print(f"SIGKILL under a blind stream: {flow.finish() >> 20} MiB whole, longest stall {flow.stall:.3f} s")
        assert used(ring, forwarding) is not relay
        relay.start()
    finally:
        forwarding.close()


def test_a_stream_survives_the_standstill_of_its_relay(ring: Ring, forward: Forward, flow: Flow) -> None:
    relay = used(ring, forward)
    relay.send(signal.SIGSTOP)
    try:
        moved(ring, forward, flow, relay, "SIGSTOP")
        assert flow.stall < 15.0
    finally:
        relay.send(signal.SIGCONT)


def test_a_stream_survives_a_drain(ring: Ring, forward: Forward, flow: Flow) -> None:
    relay = used(ring, forward)
    told = ring.installation.atoll("relay", "drain", relay.name, "--deadline", "30s", "-o", "json")
    assert json.loads(told)["state"] == "draining"
    moved(ring, forward, flow, relay, "drain")
    assert relay.wait() == 0
    assert until(lambda: relay.view()["state"] == "drained", "the end of the drain")
    relay.start()  # as after an upgrade


def test_a_stream_survives_sigterm(ring: Ring, forward: Forward, flow: Flow) -> None:
    relay = used(ring, forward)
    relay.send(signal.SIGTERM)
    moved(ring, forward, flow, relay, "SIGTERM")
    assert relay.wait() == 0
    relay.start()


def test_a_restart_of_the_control_plane_does_not_cut_it(ring: Ring, forward: Forward, flow: Flow) -> None:
    relay = used(ring, forward)
    installation = ring.installation
    installation.kill("control")
    flow.more()
    assert installation.call("relay", "list").returncode != 0  # it is away, and bytes flow
    flow.more()
    installation.up()
    until(relay.serves, "the relay to be back", within=60, story=relay.story)
    flow.more()
    count = flow.finish()
    print(f"control plane's restart: {count >> 20} MiB whole, longest stall {flow.stall:.3f} s, lanes {forward.ways}")
    assert forward.ways == [relay.port]
    assert installation.session("echo")["state"] == "running"


def test_a_relay_may_be_killed_while_the_control_plane_is_away(ring: Ring, forward: Forward, flow: Flow) -> None:
    relay = used(ring, forward)
    ring.installation.kill("control")
    flow.more()
    relay.send(signal.SIGKILL)
    relay.wait()
    moved(ring, forward, flow, relay, "SIGKILL without a control plane")
    ring.installation.up()
    relay.start()


def test_the_end_of_a_token_ends_its_streams(ring: Ring) -> None:
    ring.ready()
    installation = ring.installation
    made = json.loads(installation.atoll("token", "create", "--api", "--owner", "admin", "-o", "json"))
    login = installation.home.with_name("elsewhere")
    environment = {"ATOLL_URL": installation.url, "ATOLL_TOKEN": made["secret"], "ATOLL_HOME": str(login)}
    forwarding = Forward(installation, "echo", ring.echo, environment)
    flow = Flow(forwarding.port)
    try:
        until(flow.begun, "bytes of the echo")
        assert used(ring, forwarding)
        installation.atoll("token", "delete", made["id"])
        answered = time.monotonic()
        until(lambda: flow.ended, "the stream's end", within=30)
        print(f"the stream ended {(flow.ended or 0.0) - answered:+.3f} s after its token")
    finally:
        flow.drop()
        forwarding.close()


def test_a_revoked_agents_streams_end_within_a_second(ring: Ring, tmp_path: Path) -> None:
    ring.ready()
    installation, desk = ring.installation, tmp_path / "desk"
    secret = json.loads(installation.atoll("token", "create", "--site", "desk", "-o", "json"))["secret"]
    url = JoinToken.parse(secret).url
    installation.atoll("agent", "join", url, "--token", secret, "--name", "desk", "--home", str(desk))
    try:
        until(lambda: all(relay.view()["agents"] == 2 for relay in ring.relays), "two agents on both relays")
        port = ring.session("desk-echo", "desk")
        forwarding = Forward(installation, "desk-echo", port, {})
        flow = Flow(forwarding.port)
        try:
            until(flow.begun, "bytes of the echo")
            assert used(ring, forwarding)
            installation.atoll("agent", "revoke", "desk")
            answered, count = time.monotonic(), flow.back

            def silent() -> bool:
                before = flow.back
                time.sleep(1.0)
                return flow.back == before

            until(silent, "an end of the bytes of a revoked agent", within=10)
            late, took = (flow.back - count) >> 10, time.monotonic() - answered
            print(f"{late} KiB came after the command had ended, and nothing any more after {took:.1f} s")
            until(lambda: all(relay.view()["agents"] == 1 for relay in ring.relays), "no link of a revoked agent")
        finally:
            flow.drop()
            forwarding.close()
        installation.atoll("agent", "remove", "desk")
        installation.atoll("stop", "desk-echo")
    finally:
        end_all(desk)


def test_a_relay_may_be_the_only_address_that_a_site_knows(ring: Ring, tmp_path: Path) -> None:
    ring.ready()
    installation, attic, relay = ring.installation, tmp_path / "attic", ring.relays[0]
    secret = json.loads(installation.atoll("token", "create", "--site", "attic", "-o", "json"))["secret"]
    installation.atoll("agent", "join", relay.url, "--token", secret, "--name", "attic", "--home", str(attic))
    try:
        until(lambda: relay.view()["passing"] >= 1, "the control link through the relay", story=relay.story)
        port = ring.session("attic-echo", "attic")
        # The control plane's own door, too, gets data connections of this agent: they pass the relay by.
        script = (
            f"import socket; s = socket.create_connection(('127.0.0.1', {port})); s.sendall(b'hi'); print(s.recv(9))"
        )
        assert installation.atoll("ssh", "attic-echo", "--", "python3", "-c", script) == "b'hi'\n"
        with contextlib.closing(socket.create_connection(("127.0.0.1", relay.port), 10)) as plain:
            context = ssl.create_default_context()
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            with context.wrap_socket(plain, server_hostname="fed.example") as secured:
                secured.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                assert secured.recv(15) == b"HTTP/1.1 200 OK"
        installation.atoll("stop", "attic-echo")
        installation.atoll("agent", "leave", "--home", str(attic))
    finally:
        end_all(attic)


def test_a_token_makes_one_relay_only(ring: Ring, tmp_path: Path) -> None:
    installation = ring.installation
    made = json.loads(installation.atoll("relay", "create", "spare", "--url", "https://spare.example", "-o", "json"))
    taken = f"127.0.0.1:{ring.installation.port}"
    words = ("relay", "run", "--listen", taken, "--token", made["secret"], "--home")
    first = installation.call(*words, str(tmp_path / "first"))
    assert f"cannot listen on {taken}: address already in use" in first.stderr
    second = installation.call(*words, str(tmp_path / "second"))
    assert "already used" in second.stderr
    assert second.returncode == 121
    installation.atoll("relay", "remove", "spare")
    third = installation.call("relay", "run", "--home", str(tmp_path / "third"))
    assert "this machine is no relay" in third.stderr
