"""`atoll agent bootstrap` over real OpenSSH servers: who joins, why others do not, and what a second run does."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from atoll.errors import Invalid
from tests.e2e import namespaces
from tests.e2e.installation import Installation
from tests.e2e.processes import end_all
from tests.e2e.sshd import SshHost, closing_all, keygen
from tests.e2e.waiting import until
from tests.ports import free_port
from tunnel.jointoken import JoinToken

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.xdist_group("bootstrap")]


class Hall:
    """Hosts, an inventory of them, and a file of known keys."""

    def __init__(self, installation: Installation, folder: Path, hosts: list[SshHost], key: Path) -> None:
        self.at = installation
        self.hosts = {host.name: host for host in hosts}
        self.inventory = folder / "hosts.yaml"
        self.known_hosts = folder / "known_hosts"
        self.entries = [{"name": h.name, "address": "127.0.0.1", "port": h.port} for h in hosts]
        self.defaults: dict[str, Any] = {"site": "hall", "key": key.name}
        self.known_hosts.write_text("".join(host.known() for host in hosts))

    def write(self) -> None:
        self.inventory.write_text(yaml.safe_dump({"defaults": self.defaults, "hosts": self.entries}))

    def call(self, *flags: str) -> "subprocess.CompletedProcess[str]":
        self.write()
        told = ("-i", str(self.inventory), "--known-hosts", str(self.known_hosts))
        return self.at.call("agent", "bootstrap", *told, *flags, timeout=150)

    def outcomes(self, *flags: str, code: int = 0) -> dict[str, dict[str, Any]]:
        done = self.call("-o", "json", *flags)
        assert done.returncode == code, done.stdout + done.stderr
        return {each["host"]: each for each in json.loads(done.stdout)}

    def joined(self) -> list[str]:
        return sorted(agent["name"] for agent in self.at.agents() if agent["site"] == "hall" and agent["connected"])


@pytest.fixture
def key(tmp_path: Path) -> Path:
    keygen(tmp_path / "id")
    return tmp_path / "id"


@pytest.fixture
def hall(running: Installation, tmp_path: Path, key: Path) -> Iterator[Hall]:
    """Five hosts: two good ones, one of another key than is known, one without Python, one that is not there."""
    made: list[SshHost] = []
    with closing_all(made):
        for name in ("node-1", "node-2", "node-3"):
            made.append(SshHost(tmp_path, name, key))
        made.append(SshHost(tmp_path, "node-4", key, python=False))
        hall = Hall(running, tmp_path, made, key)
        keygen(tmp_path / "other")
        kind, other, *_ = (tmp_path / "other.pub").read_text().split()
        known = [made[n].known() for n in (0, 1, 3)] + [f"[127.0.0.1]:{made[2].port} {kind} {other}\n"]
        hall.known_hosts.write_text("".join(known))
        hall.entries.append({"name": "node-5", "address": "127.0.0.1", "port": free_port()})
        yield hall
        for agent in running.agents():
            if agent["site"] == "hall":
                running.atoll("agent", "remove", agent["id"])


def fingerprint(path: Path) -> str:
    done = subprocess.run(["ssh-keygen", "-lf", str(path)], capture_output=True, text=True, check=True)
    return done.stdout.split()[1]


def test_who_can_join_joins_and_a_second_run_does_the_rest(hall: Hall, tmp_path: Path) -> None:
    told = hall.outcomes(code=125)
    assert {name: each["state"] for name, each in told.items()} == {
        "node-1": "joined",
        "node-2": "joined",
        "node-3": "failed",
        "node-4": "failed",
        "node-5": "failed",
    }
    assert hall.joined() == ["node-1", "node-2"]
    shown, known = fingerprint(hall.hosts["node-3"].base / "host_key"), fingerprint(tmp_path / "other")
    assert "host key is not the known one" in told["node-3"]["message"]
    assert shown in told["node-3"]["message"]
    assert known in told["node-3"]["message"]
    assert told["node-4"]["message"] == "python3 is not installed"
    assert told["node-4"]["hint"] == "install Python 3.11, 3.12 or 3.13 on the host"
    assert "cannot reach 127.0.0.1" in told["node-5"]["message"]
    assert hall.hosts["node-3"].logins() == 0, "an unknown server gets no login"
    before = [hall.hosts[name].logins() for name in ("node-1", "node-2")]

    with hall.known_hosts.open("a") as known_hosts:
        known_hosts.write(hall.hosts["node-3"].known())
    again = hall.outcomes("--parallel", "2", code=125)
    assert {name: each["state"] for name, each in again.items()} == {
        "node-1": "already",
        "node-2": "already",
        "node-3": "joined",
        "node-4": "failed",
        "node-5": "failed",
    }
    assert [hall.hosts[name].logins() for name in ("node-1", "node-2")] == before, "who has joined is left alone"
    assert hall.joined() == ["node-1", "node-2", "node-3"]
    ran = hall.at.atoll("run", "--site", "hall", "--cpu", "0.5", "--", "sh", "-c", "echo it runs in $HOME")
    assert ran.startswith("it runs in ")
    left = [token for token in json.loads(hall.at.atoll("token", "list", "-o", "json")) if token["site"] == "hall"]
    assert [token["uses_left"] for token in left if token["uses_left"]] == [], "no token is left to be used"


def test_an_agent_that_ended_is_started_again(hall: Hall) -> None:
    assert hall.outcomes("--only", "node-1")["node-1"]["state"] == "joined"
    end_all(hall.hosts["node-1"].home)
    until(lambda: hall.joined() == [], "the end of its link", within=60, story=hall.at.story)
    ready = hall.outcomes("--only", "node-1", "--dry-run")
    assert ready["node-1"]["state"] == "ready"
    assert hall.joined() == []
    assert hall.outcomes("--only", "node-1")["node-1"]["state"] == "joined"
    assert hall.joined() == ["node-1"]
    assert len([agent for agent in hall.at.agents() if agent["site"] == "hall"]) == 1


def test_a_dry_run_looks_and_changes_nothing(hall: Hall) -> None:
    tokens = hall.at.atoll("token", "list", "-o", "json")
    told = hall.outcomes("--dry-run", code=125)
    assert [told[f"node-{n}"]["state"] for n in (1, 2, 3, 4, 5)] == ["ready", "ready", "failed", "failed", "failed"]
    assert told["node-1"]["service"] in ("background", "systemd")
    assert hall.joined() == []
    assert hall.at.atoll("token", "list", "-o", "json") == tokens
    assert list(hall.hosts["node-1"].home.iterdir()) == []


def test_an_unknown_host_is_refused_with_its_fingerprint(hall: Hall) -> None:
    hall.known_hosts.write_text("")
    done = hall.call("--only", "node-1")
    host = hall.hosts["node-1"]
    assert done.returncode == 125
    assert f"its host key is not known: it shows ssh-ed25519 {fingerprint(host.base / 'host_key')}" in done.stdout
    assert f"ssh-keyscan -p {host.port} 127.0.0.1 >>{hall.known_hosts}" in done.stdout
    assert "1 hosts: 1 failed" in done.stderr
    assert host.logins() == 0


def test_a_login_that_is_refused_is_told(hall: Hall, tmp_path: Path) -> None:
    keygen(tmp_path / "strange")
    hall.defaults["key"] = "strange"
    told = hall.outcomes("--only", "node-1", code=125)
    assert "refused the login" in told["node-1"]["message"]
    assert "keys and ssh-agent" in told["node-1"]["message"]
    flags = ("-i", str(hall.inventory), "--known-hosts", str(hall.known_hosts), "--only", "node-1", "--pass-fd", "0")
    done = hall.at.call("agent", "bootstrap", *flags, stdin="hush-hush\n")
    assert done.returncode == 125
    assert "with the password" in done.stdout
    assert "hush-hush" not in done.stdout + done.stderr


def test_a_host_behind_a_jump_host(hall: Hall) -> None:
    jump = hall.hosts["node-2"]
    for entry in hall.entries:
        if entry["name"] == "node-1":
            entry["jump"] = f"127.0.0.1:{jump.port}"
    assert hall.outcomes("--only", "node-1")["node-1"]["state"] == "joined"
    assert jump.logins() == 1
    assert hall.joined() == ["node-1"]


def test_an_agent_of_somewhere_else_is_left_alone(hall: Hall, tmp_path: Path) -> None:
    home = hall.hosts["node-1"].home / ".atoll" / "agent"
    home.mkdir(parents=True)
    (home / "agent.json").write_text("{}")
    told = hall.outcomes("--only", "node-1", code=125)
    assert "is an agent already" in told["node-1"]["message"]
    assert (home / "agent.json").read_text() == "{}"


def test_the_token_is_in_no_arguments(hall: Hall) -> None:
    """The host's shell notes the arguments of every process there is while it works."""
    seen = hall.hosts["node-1"].base / "seen"
    curl = hall.hosts["node-1"].base / "bin" / "curl"
    real = curl.readlink()
    curl.unlink()
    curl.write_text(f"#!/bin/sh\ncat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' ' >>{seen}\nexec {real} \"$@\"\n")
    curl.chmod(0o755)
    assert hall.outcomes("--only", "node-1")["node-1"]["state"] == "joined"
    noted = seen.read_text()
    assert "/join" in noted
    assert hall.at.port not in {port_in(word) for word in re.findall(r"\batj_[\w-]+", noted)}


def port_in(token: str) -> int | None:
    """Return the port of a token's control plane: tests beside this one have tokens of their own."""
    try:
        return urlsplit(JoinToken.parse(token).url).port
    except Invalid:
        return None


def test_what_is_wrong_with_an_inventory_is_told_before_anything_is_done(hall: Hall) -> None:
    hall.defaults["sit"] = "hall"
    done = hall.call()
    assert done.returncode == 120
    assert "unknown key 'sit'" in done.stderr
    assert "did you mean 'site'?" in done.stderr
    assert all(host.logins() == 0 for host in hall.hosts.values())


def test_ask_pass_needs_a_terminal(hall: Hall) -> None:
    done = hall.call("--ask-pass")
    assert done.returncode == 120
    assert "--pass-fd" in done.stderr


# A host that systemd runs, as far as one is seen from outside: its folders, and a systemctl that starts what a unit
# says, in the unit's own words.
SYSTEMD = """
mount -t tmpfs none /run && mkdir -p /run/sshd /run/systemd/system
mount -t tmpfs none /etc/systemd && mkdir /etc/systemd/system
exec "$@"
"""
SYSTEMCTL = """#!/bin/sh
echo "$*" >>{base}/systemctl
[ "$1" = restart ] || exit 0
cp "/etc/systemd/system/$2" {base}/unit.service
export $(sed -n 's/^Environment=//p' {base}/unit.service)
setsid $(sed -n 's/^ExecStart=//p' {base}/unit.service) </dev/null >>{base}/journal 2>&1 &
"""


def test_a_host_with_systemd_gets_a_unit(hall: Hall, tmp_path: Path, key: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root's agents get a unit")
    namespaces.need("--mount")
    host = SshHost(tmp_path, "node-6", key, prefix=("unshare", "--mount", "sh", "-c", SYSTEMD, "host"))
    with closing_all([host]):
        systemctl = host.base / "bin" / "systemctl"
        systemctl.write_text(SYSTEMCTL.format(base=host.base))
        systemctl.chmod(0o755)
        hall.entries = [{"name": "node-6", "address": "127.0.0.1", "port": host.port}]
        with hall.known_hosts.open("a") as known_hosts:
            known_hosts.write(host.known())
        told = hall.outcomes()["node-6"]
        assert (told["state"], told["service"]) == ("joined", "systemd"), told
        assert hall.joined() == ["node-6"]
        assert (host.base / "systemctl").read_text().splitlines() == [
            "daemon-reload",
            "enable --quiet atoll-agent.service",
            "restart atoll-agent.service",
        ]
        unit = host.base / "unit.service"
        assert "KillMode=process" in unit.read_text()
        if shutil.which("systemd-analyze"):
            checked = subprocess.run(
                ["systemd-analyze", "verify", "--man=no", str(unit)], capture_output=True, text=True, check=False
            )
            assert (checked.returncode, checked.stderr) == (0, "")
