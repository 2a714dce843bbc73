"""A machine that joins through a load balancer: what it fetches, whom it believes, what the balancer gets to see."""

import asyncio
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from agent import joining
from atoll.errors import Unauthorized
from federation.api.joining import line, rendered
from federation.control import fetch
from federation.control.bootscript import FETCH
from tests.federation.api.test_tunnel import Inside
from tests.federation.served import Served
from tests.tunnel.balancer import knowing, opening_tls
from tunnel.asking import ask, verified
from tunnel.envelope import PATH
from tunnel.identity import Authority
from tunnel.jointoken import JoinToken
from tunnel.wire import ALPN_JOIN, CONTROL_NAME

SECRET = "correct-horse-battery-staple"


@dataclass(frozen=True, slots=True)
class Cas:
    """Of the installation, of the load balancer, and of somebody else."""

    ours: Authority
    balancers: Authority
    impostors: Authority


@pytest.fixture(scope="module")
def cas(tmp_path_factory: pytest.TempPathFactory) -> Cas:
    folder = tmp_path_factory.mktemp("authorities")
    made = (Authority.load_or_create(folder / name, now=time.time()) for name in ("ours", "balancers", "impostors"))
    return Cas(*made)


@pytest.fixture
def lib(tmp_path: Path) -> Path:
    return tmp_path / "agent-lib"


def shows(server: Served, authority: Authority) -> None:
    server.plane.config.authority.ca_pem = authority.ca_pem  # type: ignore[misc] # a fake one: it is no property there


async def fetched(url: str, pin: str, home: Path) -> subprocess.CompletedProcess[str]:
    """Run what the scripts run, with a token of that pin."""
    environ = {**os.environ, "ATOLL_JOIN_TOKEN": JoinToken(url, pin, SECRET).text()}
    command = [sys.executable, "-I", "-", url, str(home)]
    return await asyncio.to_thread(
        subprocess.run, command, env=environ, input=FETCH.read_text(), capture_output=True, text=True, timeout=60
    )


def test_it_speaks_as_the_rest_does() -> None:
    assert (fetch._NAME, fetch._ALPN, fetch._PATH) == (CONTROL_NAME, ALPN_JOIN, PATH)


async def test_the_agent_is_fetched_directly(server: Served, cas: Cas, lib: Path) -> None:
    shows(server, cas.ours)
    inside = Inside(server, cas.ours)
    await inside.acceptor.listen("127.0.0.1", 0)
    try:
        done = await fetched(f"https://127.0.0.1:{inside.acceptor.port}", cas.ours.pin, lib.parent)
    finally:
        await inside.acceptor.close()
    assert (done.returncode, done.stderr) == (0, "")
    assert (lib / "agent" / "cli.py").exists()
    assert inside.sources == []


async def test_the_agent_is_fetched_inside_a_websocket(server: Served, cas: Cas, lib: Path) -> None:
    shows(server, cas.ours)
    inside, seen = Inside(server, cas.ours), bytearray()
    async with opening_tls(cas.balancers, server.port, seen) as port:
        done = await fetched(f"https://localhost:{port}", cas.ours.pin, lib.parent)
    assert (done.returncode, done.stderr) == (0, "")
    assert (lib / "agent" / "cli.py").exists()
    assert len(inside.sources) == 2, "the CA, the program"
    assert b"GET /v1/tunnel HTTP/1.1\r\n" in seen
    for secret in (SECRET, JoinToken("https://x", cas.ours.pin, SECRET).text()[:40], "agent.tar.gz", "/v1/ca"):
        assert secret.encode() not in seen


async def test_a_balancer_that_hangs_up_on_unknown_names_is_passed_too(
    server: Served, cas: Cas, lib: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shows(server, cas.ours)
    inside = Inside(server, cas.ours)
    (lib.parent / "balancers.pem").write_text(cas.balancers.ca_pem)
    monkeypatch.setenv("SSL_CERT_FILE", str(lib.parent / "balancers.pem"))
    async with opening_tls(cas.balancers, server.port) as behind, knowing({"localhost"}, behind) as port:
        url = f"https://localhost:{port}"
        answer = await asyncio.to_thread(ask, url, "GET", "/v1/ca", verified(cas.ours.ca_pem))
        assert answer["ca"] == cas.ours.ca_pem
        done = await fetched(url, cas.ours.pin, lib.parent)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(inside.sources) == 3


async def test_who_shows_another_ca_delivers_nothing(server: Served, cas: Cas, lib: Path) -> None:
    shows(server, cas.impostors)
    Inside(server, cas.impostors)
    async with opening_tls(cas.balancers, server.port) as port:
        done = await fetched(f"https://localhost:{port}", cas.ours.pin, lib.parent)
    assert done.returncode == 1
    assert "CANNOT JOIN" in done.stderr
    assert "its CA is not the one of the join token" in done.stderr
    assert not lib.exists()


async def test_who_shows_the_right_ca_and_has_another_delivers_nothing(server: Served, cas: Cas, lib: Path) -> None:
    shows(server, cas.ours)
    Inside(server, cas.impostors)
    async with opening_tls(cas.balancers, server.port) as port:
        done = await fetched(f"https://localhost:{port}", cas.ours.pin, lib.parent)
    assert done.returncode == 1
    assert "CERTIFICATE_VERIFY_FAILED" in done.stderr
    assert not lib.exists()


@pytest.mark.parametrize(("inside", "trusts"), [("ours", "nobody"), ("impostors", "balancers")])
async def test_a_token_is_shown_to_nobody_but_its_control_plane(
    server: Served, cas: Cas, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inside: str, trusts: str
) -> None:
    shows(server, cas.ours)
    Inside(server, cas.ours if inside == "ours" else cas.impostors)
    if trusts == "balancers":
        (tmp_path / "balancers.pem").write_text(cas.balancers.ca_pem)
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "balancers.pem"))
    seen = bytearray()
    async with opening_tls(cas.balancers, server.port, seen) as port:
        url = f"https://localhost:{port}"
        token = JoinToken(url, cas.ours.pin, SECRET)
        with pytest.raises(Unauthorized, match="is not one of the CA") as caught:
            await asyncio.to_thread(joining.join, url, token, tmp_path / "agent", name="x", facts={})
    assert "SSL_CERT_FILE" in caught.value.hint
    assert b"/v1/tunnel" in seen
    assert SECRET.encode() not in seen
    assert not (tmp_path / "agent" / "agent.json").exists()


def test_the_pasted_line_runs_the_script_that_it_was_made_for_and_no_other(tmp_path: Path) -> None:
    url = "https://fed.example.com"
    (tmp_path / "join").write_text(rendered(url))
    (tmp_path / "curl").write_text(f'#!/bin/sh\n[ "$*" = "-fsSk {url}/join" ] && cat {tmp_path}/join\n')
    (tmp_path / "curl").chmod(0o755)
    environ = {"PATH": f"{tmp_path}:{os.environ.get('PATH', os.defpath)}", "HOME": str(tmp_path)}

    def paste(token: str) -> subprocess.CompletedProcess[str]:
        words = ["sh", "-c", line(url, token)]
        return subprocess.run(words, env=environ, capture_output=True, text=True, check=False, timeout=30)

    right = paste("no-token")
    assert right.returncode == 125
    assert "no join token was given" in right.stderr
    (tmp_path / "join").write_text(rendered(url) + "touch owned\n")
    wrong = paste("no-token")
    assert wrong.returncode == 1
    assert wrong.stderr == "atoll: this line is for another script: make a new token\n"
    (tmp_path / "join").unlink()
    assert paste("no-token").returncode != 0
