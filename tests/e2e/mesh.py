"""Sites with gateways for the tests of meshes: real agents behind real NAT, with WireGuard in user space."""

import json
import os
import shutil
import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from agent.mesh import interface_of
from tests.e2e.installation import BIN, Installation
from tests.e2e.internet import INSIDE, PUBLIC, Internet, Namespace
from tests.e2e.processes import alive, end_all
from tests.e2e.waiting import until
from tunnel.jointoken import JoinToken

PORT = 51820

_FORWARDED = f"""
table ip forwarded {{
    chain pre {{ type nat hook prerouting priority -100; iifname "wan" udp dport {PORT} dnat to {INSIDE}; }}
}}
"""
"""What the owner of a site sets up at its router: one UDP port goes to the gateway."""

ECHO = """
import socket, sys
s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM); s.bind((sys.argv[1], 7)); print("ready", flush=True)
while True:
    data, who = s.recvfrom(2048); s.sendto(data, who)
"""
PING = """
import json, select, socket, sys, time
host, seconds, pause = sys.argv[1], float(sys.argv[2]), float(sys.argv[3])
s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM); s.connect((host, 7)); s.setblocking(False)
sent, back, gap = 0, set(), 0.0
begun = due = last = time.monotonic()
end = begun + seconds
while (now := time.monotonic()) < end or (len(back) < sent and now < max(end, last) + 3):
    if now >= due and now < end:
        try: s.send(b"%d" % sent)
        except OSError: pass
        sent, due = sent + 1, due + pause
    select.select([s], [], [], max(0.0, min(due - time.monotonic(), 0.01)))
    try:
        while True:
            back.add(int(s.recv(2048)))
            gap, last = max(gap, time.monotonic() - last), time.monotonic()
    except OSError: pass
print(json.dumps({"sent": sent, "back": len(back), "gap": gap}))
"""
REACH = """
import json, socket, sys
def state(host):
    try: socket.create_connection((host, 9), 1.5).close()
    except ConnectionRefusedError: return "reached"
    except OSError as error: return error.strerror or str(error)
print(json.dumps({host: state(host) for host in sys.argv[1:]}))
"""
"""Whether hosts answer at all: one that listens on nothing refuses, which is an answer of its own."""

SERVE = """
import random, socket, sys
s = socket.socket(socket.AF_INET6); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s.bind((sys.argv[1], 7)); s.listen(); print("ready", flush=True)
while True:
    c, _ = s.accept(); source = random.Random(7); block = source.randbytes(1 << 20)
    with c:
        for i in range(int(sys.argv[2])): c.sendall(b"%8d" % i + block[8:])
"""
FETCH = """
import hashlib, json, socket, sys, time
digest, size, begun = hashlib.sha256(), 0, time.monotonic()
with socket.create_connection((sys.argv[1], 7), 30) as s:
    while data := s.recv(1 << 18): digest.update(data); size += len(data)
print(json.dumps({"digest": digest.hexdigest(), "size": size, "s": time.monotonic() - begun}))
"""


def need_wireguard() -> None:
    """Skip, saying what is missing, where WireGuard interfaces cannot be made."""
    if os.geteuid() != 0:
        pytest.skip("only root can make WireGuard interfaces")
    for program, package in (("wg", "wireguard-tools"), ("wireguard-go", "wireguard-go")):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed (Debian: {package})")
    if not os.access("/dev/net/tun", os.R_OK | os.W_OK):
        pytest.skip("/dev/net/tun cannot be used here")


class Gateway:
    """A site's machine with an agent whose owner permits a mesh; `open` if its router forwards the UDP port."""

    def __init__(self, at: Installation, net: Internet, folder: Path, name: str, *, open: bool = False) -> None:  # noqa: A002
        self.name = name
        self.at = at
        self.site = net.site(name)
        self.home = folder / name
        self.space: Namespace = self.site.machine
        self.endpoint = f"{self.site.address}:{PORT}" if open else ""
        if open:
            self.site.router.nft(rules=_FORWARDED)
            self.site.router.nft("insert", "rule", "inet", "guard", "forward", "udp", "dport", str(PORT), "accept")
        self._agent: subprocess.Popen[bytes] | None = None
        self._others: list[subprocess.Popen[str]] = []

    @property
    def interface(self) -> str:
        return interface_of(json.loads((self.home / "agent" / "agent.json").read_text())["agent"])

    def atoll(self, *words: str) -> None:
        """Run a command on this machine, as its owner would."""
        command = [*self.space.prefix, str(BIN / "atoll"), *words]
        done = subprocess.run(command, env=self._env(), capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stdout + done.stderr

    def join(self, *permit: str) -> None:
        secret = json.loads(self.at.atoll("token", "create", "--site", self.name, "-o", "json"))["secret"]
        url = JoinToken.parse(secret).url
        self.atoll("agent", "join", url, "--token", secret, "--name", f"gw-{self.name}", "--no-start")
        self.atoll("agent", "mesh", *(("--endpoint", self.endpoint) if self.endpoint else ()), *permit)
        self.start()

    def start(self) -> None:
        with (self.home / "agent.log").open("ab") as log:
            command = [*self.space.prefix, str(BIN / "atoll"), "agent", "run"]
            self._agent = subprocess.Popen(command, env=self._env(), stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def end(self, number: int = signal.SIGTERM) -> None:
        """End the agent's process, and nothing else."""
        assert self._agent is not None
        self._agent.send_signal(number)
        self._agent.wait(20)

    def wait(self) -> int:
        """Wait for the agent's own end."""
        assert self._agent is not None
        return self._agent.wait(20)

    def wireguard(self) -> list[int]:
        """Return the processes of this gateway's interface."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdecimal() and alive(int(entry.name)):
                words = _words(entry)
                if words and words[0].endswith("wireguard-go") and self.interface in words:
                    found.append(int(entry.name))
        return found

    def shown(self, *words: str) -> str:
        return subprocess.run([*self.space.prefix, *words], capture_output=True, text=True, check=True).stdout

    def traces(self) -> list[str]:
        """Return everything here that speaks of the interface."""
        told = [
            ("ip", "link"),
            ("ip", "-4", "route"),
            ("ip", "-6", "route"),
            ("ip", "-4", "rule"),
            ("ip", "-6", "rule"),
        ]
        found = [line for words in told for line in self.shown(*words).splitlines() if self.interface in line]
        return [*found, *(f"process {pid}" for pid in self.wireguard())]

    def begin(self, script: str, *words: object) -> "subprocess.Popen[str]":
        command = [*self.space.prefix, "python3", "-c", script, *map(str, words)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self._others.append(process)
        return process

    def serve(self, script: str, *words: object) -> "subprocess.Popen[str]":
        process = self.begin(script, *words)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        return process

    def run(self, script: str, *words: object) -> dict[str, Any]:
        return answer(self.begin(script, *words))

    def close(self) -> None:
        for process in self._others:
            process.kill()
            process.communicate()
        if self._agent is not None and self._agent.poll() is None:
            self.end(signal.SIGKILL)
        end_all(self.home)
        for pid in self.wireguard() if (self.home / "agent" / "agent.json").exists() else []:
            os.kill(pid, signal.SIGKILL)

    def log(self) -> str:
        path = self.home / "agent.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def _env(self) -> dict[str, str]:
        plain = {key: value for key, value in self.at.environment.items() if not key.startswith("ATOLL_")}
        self.home.mkdir(exist_ok=True)
        return {**plain, "ATOLL_HOME": str(self.home), "ATOLL_AGENT_SLOTS": "cpu=2,memory=2GiB"}


class World:
    """An installation on the public segment and its gateways."""

    def __init__(self, net: Internet, folder: Path) -> None:
        env = {"ATOLL_SERVER__LISTEN": f"{PUBLIC}:443", "ATOLL_TIMES__SETTLE_S": "1", "ATOLL_TIMES__LOST_AFTER_S": "3"}
        self.at = Installation(folder, port=443, prefix=net.core.prefix, env=env)
        self.hall = Gateway(self.at, net, folder, "hall", open=True)
        self.desk = Gateway(self.at, net, folder, "desk")
        self.attic = Gateway(self.at, net, folder, "attic")
        self.gateways = (self.hall, self.desk, self.attic)
        self.rack = Namespace(f"{net.name}-rack")

    def open(self) -> None:
        self._build_rack()
        self.at.up("--no-agent")
        with ThreadPoolExecutor() as threads:
            list(threads.map(Gateway.join, self.gateways))
        until(lambda: len([a for a in self.at.agents() if a["connected"]]) == 3, "the gateways", story=self.story)

    def mesh(self) -> Any:
        """Return the mesh of hall and desk, as the command line has it, with the end of desk first."""
        found: list[Any] = json.loads(self.at.atoll("mesh", "list", "-o", "json"))
        return next(view for view in found if {end["site"] for end in view["ends"]} == {"desk", "hall"})

    def _build_rack(self) -> None:
        """Put a machine behind the hall's, in two networks: 10.20.0.2 and 10.30.0.2."""
        hall = self.hall.space
        subprocess.run(["ip", "netns", "add", self.rack.name], check=True)
        hall.ip("link", "add", "rack", "type", "veth", "peer", "eth0", "netns", self.rack.name)
        hall.ip("link", "set", "rack", "up")
        self.rack.ip("link", "set", "eth0", "up")
        for network in ("10.20.0", "10.30.0"):
            hall.ip("address", "add", f"{network}.1/24", "dev", "rack")
            self.rack.ip("address", "add", f"{network}.2/24", "dev", "eth0")
        self.rack.ip("route", "add", "default", "via", "10.20.0.1")
        self.hall.shown("sysctl", "-qw", "net.ipv4.ip_forward=1")

    def close(self) -> None:
        self.at.close()
        for gateway in self.gateways:
            gateway.close()
        subprocess.run(["ip", "netns", "delete", self.rack.name], capture_output=True, check=False)

    def story(self) -> str:
        return self.at.story() + "".join(f"\n{gateway.name}:\n{gateway.log()}" for gateway in self.gateways)


def answer(process: "subprocess.Popen[str]") -> dict[str, Any]:
    told, _ = process.communicate(timeout=90)
    found: dict[str, Any] = json.loads(told)
    return found


def _words(entry: Path) -> list[str]:
    try:
        return entry.joinpath("cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return []
