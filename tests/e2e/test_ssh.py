"""The SSH door with the machine's own OpenSSH client: shells, commands, files, ports, and who is not let in."""

import contextlib
import fcntl
import json
import os
import pty
import select
import shutil
import socket
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.installation import Installation
from tests.e2e.waiting import until
from tests.ports import free_port

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(shutil.which("ssh") is None, reason="OpenSSH's client is not installed"),
    pytest.mark.xdist_group("ssh"),
]

WEB = """
import http.server, os
address = ("127.0.0.1", int(os.environ["ATOLL_APP_WEB_PORT"]))
http.server.ThreadingHTTPServer(address, http.server.SimpleHTTPRequestHandler).serve_forever()
"""


class Door:
    """An installation with one session, `nb`, that serves its directory over HTTP, and an SSH configuration for it."""

    def __init__(self, installation: Installation, folder: Path) -> None:
        self.installation = installation
        self.folder = folder
        self.config = folder / "config"
        installation.atoll("run", "--detach", "--name", "nb", "--app", "web", "--", "python3", "-c", WEB)
        installation.wait(["nb"], ["running"])
        self.config.write_text(installation.atoll("ssh-config", "nb"))

    def command(self, *words: str, program: str = "ssh") -> list[str]:
        return [program, "-F", str(self.config), *words]

    def ssh(self, *words: str, stdin: bytes = b"", timeout: float = 60.0) -> "subprocess.CompletedProcess[bytes]":
        """Run `ssh nb WORDS`."""
        return subprocess.run(
            self.command("nb", *words), input=stdin, capture_output=True, timeout=timeout, env=self.env, check=False
        )

    @property
    def env(self) -> dict[str, str]:
        return self.installation.environment

    @property
    def web(self) -> int:
        """The port that the session's server listens on, on its own machine."""
        return int(self.ssh("echo $ATOLL_APP_WEB_PORT").stdout)

    @contextlib.contextmanager
    def background(self, *words: str) -> Iterator["subprocess.Popen[bytes]"]:
        process = subprocess.Popen(
            self.command(*words), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=self.env
        )
        try:
            yield process
        finally:
            process.kill()
            process.communicate()


@pytest.fixture(scope="module")
def door(running: Installation, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    yield Door(running, tmp_path_factory.mktemp("ssh"))
    running.atoll("stop", "nb", "--wait")


def get(port: int, path: str = "/", via: int = 0) -> bytes:
    """Fetch from a port of this machine, or through a SOCKS 5 proxy from one of the proxy's loopback."""
    with socket.create_connection(("127.0.0.1", via or port), timeout=20) as client:
        if via:
            client.sendall(b"\x05\x01\x00\x05\x01\x00\x01\x7f\x00\x00\x01" + struct.pack("!H", port))
            reply = b""
            while len(reply) < 12 and (data := client.recv(12 - len(reply))):
                reply += data
            assert reply[:4] == b"\x05\x00\x05\x00", reply
        client.sendall(f"GET {path} HTTP/1.0\r\n\r\n".encode())
        answer = b""
        with contextlib.suppress(ConnectionResetError):  # a refusal, where what was sent lay unread
            while data := client.recv(65536):
                answer += data
        return answer


def listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def test_a_command_has_its_own_output_errors_and_code(door: Door) -> None:
    done = door.ssh("echo out; echo err >&2; exit 7")
    assert (done.returncode, done.stdout, done.stderr) == (7, b"out\n", b"err\n")


def test_a_command_runs_beside_the_session_as_a_part_of_it(door: Door) -> None:
    done = door.ssh('echo "$ATOLL_SESSION"; pwd; ls /proc/self/fd | wc -l; cat /proc/self/cgroup')
    session, directory, descriptors, *groups = done.stdout.decode().split("\n")
    assert session == door.installation.session("nb")["id"]
    assert directory.endswith("/work")
    assert int(descriptors) <= 4  # its three, and the folder that ls reads
    own = Path("/proc/self/cgroup").read_text().split("\n")
    if any(f"/{session}." in group for group in groups):  # where this machine has cgroups for us
        assert groups != own


def test_ten_megabytes_come_and_go_byte_for_byte(door: Door) -> None:
    data = os.urandom(10_000_000)
    assert door.ssh("cat", stdin=data).stdout == data


def test_a_signal_ends_what_runs_there_and_is_told(door: Door) -> None:
    assert door.ssh("kill -TERM $$").returncode == 255  # as OpenSSH's client has it for a signal
    assert door.installation.call("ssh", "nb", "--", "sh", "-c", "exit 9").returncode == 9


def test_words_after_the_dashes_stay_words(door: Door) -> None:
    done = door.installation.call("ssh", "nb", "--", "printf", "%s|", "a  b", "$HOME", "c'd")
    assert done.stdout == "a  b|$HOME|c'd|"


def test_a_terminal_has_a_size_and_keeps_up_with_it(door: Door) -> None:
    near, far = pty.openpty()
    fcntl.ioctl(near, termios.TIOCSWINSZ, struct.pack("4H", 31, 101, 0, 0))
    wait = 'until [ "$(stty size)" = "40 120" ]; do sleep 0.1; done'
    words = door.command("-tt", "nb", f"sh -c 'stty size; {wait}; stty size; tty; echo $TERM'")
    environment = {**door.env, "TERM": "xterm-256color"}
    process = subprocess.Popen(words, stdin=far, stdout=far, stderr=far, env=environment, start_new_session=True)
    try:
        read_until(near, b"31 101")
        fcntl.ioctl(near, termios.TIOCSWINSZ, struct.pack("4H", 40, 120, 0, 0))
        os.kill(process.pid, 28)  # SIGWINCH: this terminal is not its controlling one
        rest = read_until(near, b"xterm-256color")
        assert b"40 120" in rest
        assert b"/dev/pts/" in rest
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()
        os.close(near)
        os.close(far)


def read_until(descriptor: int, wanted: bytes, within: float = 30.0) -> bytes:
    seen = b""
    end = time.monotonic() + within
    while wanted not in seen:
        ready, _, _ = select.select([descriptor], [], [], max(0.0, end - time.monotonic()))
        assert ready, seen
        seen += os.read(descriptor, 4096)
    return seen


def test_files_are_copied_both_ways(door: Door, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "below").mkdir(parents=True)
    (tree / "a:b.bin").write_bytes(os.urandom(3_000_000))
    (tree / "below" / "empty").touch()
    door.installation.atoll("cp", "-q", "-r", str(tree), "nb:copied")
    assert door.ssh("ls -R copied").stdout == b"copied:\na:b.bin\nbelow\n\ncopied/below:\nempty\n"
    back = tmp_path / "back"
    door.installation.atoll("cp", "-q", "-r", "nb:copied", str(back))
    assert (back / "a:b.bin").read_bytes() == (tree / "a:b.bin").read_bytes()
    assert door.installation.call("cp", "a", "b").returncode == 120


def test_sftp_and_rsync_work_as_ever(door: Door, tmp_path: Path) -> None:
    data = os.urandom(1_000_000)
    (tmp_path / "x").write_bytes(data)
    batch = tmp_path / "batch"
    batch.write_text(f"put {tmp_path / 'x'} y\nrename y z\nget z {tmp_path / 'z'}\n")
    done = subprocess.run(
        door.command("-b", str(batch), "nb", program="sftp"), capture_output=True, env=door.env, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "z").read_bytes() == data
    if shutil.which("rsync"):
        shell = f"ssh -F {door.config}"
        subprocess.run(["rsync", "-e", shell, "nb:z", str(tmp_path / "r")], env=door.env, timeout=60, check=True)
        assert (tmp_path / "r").read_bytes() == data


def test_ports_of_the_session_are_reached_and_no_others(door: Door) -> None:
    remote, near, socks, foreign = door.web, free_port(), free_port(), free_port()
    elsewhere = door.installation.port  # listens on this very machine, but is not of the session
    with door.background(
        "-N", "-L", f"{near}:localhost:{remote}", "-L", f"{foreign}:127.0.0.1:{elsewhere}", "-D", str(socks), "nb"
    ) as process:
        until(lambda: listens(socks), "the ports are there", within=30)
        assert b"200 OK" in get(near)
        assert b"Directory listing" in get(remote, via=socks)
        assert get(elsewhere, via=socks) == b""
        assert get(foreign) == b""
        assert process.poll() is None
    done = subprocess.run(
        door.command("-W", "example.com:80", "nb"), stdin=subprocess.DEVNULL, capture_output=True, env=door.env,
        timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 255
    assert b"only ports of the session itself" in done.stderr


def test_ways_back_and_agents_are_refused_in_words(door: Door) -> None:
    done = door.ssh  # the session's own options come first
    assert done("true").returncode == 0
    back = subprocess.run(
        door.command("-o", "ExitOnForwardFailure=yes", "-R", "0:localhost:1", "-A", "nb", "true"),
        capture_output=True, env=door.env, timeout=60, check=False,
    )  # fmt: skip
    assert back.returncode == 255
    assert b"remote port forwarding failed" in back.stderr


def test_what_stays_in_the_background_lives_as_long_as_the_session(door: Door) -> None:
    """VS Code starts its server so: it must be there for the next connection."""
    port = free_port()
    server = f"setsid nohup python3 -m http.server --bind 127.0.0.1 {port} >/dev/null 2>&1 & echo started"
    done = door.ssh(server)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"started\n", b"")
    near = free_port()
    with door.background("-N", "-L", f"{near}:localhost:{port}", "nb"):
        until(lambda: listens(near) and get(near), "the server in the background answers", within=30)


def test_a_program_ends_with_its_connection(door: Door) -> None:
    mark = f"5{os.getpid()}"
    with door.background("nb", f"sleep {mark}"):
        until(lambda: alive(mark), "it runs")
    until(lambda: not alive(mark), "it has ended")


def alive(mark: str) -> bool:
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if path.read_bytes() == b"sleep\0" + mark.encode() + b"\0":
                return True
    return False


def test_everything_ends_with_the_session(door: Door) -> None:
    installation = door.installation
    installation.atoll("run", "--detach", "--name", "short", "--", "sleep", "600")
    installation.wait(["short"], ["running"])
    config = door.folder / "short"
    config.write_text(installation.atoll("ssh-config", "short"))
    mark = f"6{os.getpid()}"
    process = subprocess.Popen(
        ["ssh", "-F", str(config), "short", f"setsid sleep {mark} & sleep 500"],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=door.env,
    )  # fmt: skip
    try:
        until(lambda: alive(mark), "it runs", within=30)
        installation.atoll("stop", "short", "--wait")
        process.communicate(timeout=60)
        assert process.returncode != 0
        assert not alive(mark)
    finally:
        process.kill()
        process.communicate()
    late = installation.call("ssh", "short")
    assert late.returncode == 123
    assert "cannot be entered" in late.stderr


def person(installation: Installation, owner: str, folder: Path) -> dict[str, str]:
    """Return the environment of another user of the installation."""
    made: dict[str, Any] = json.loads(installation.atoll("token", "create", "--api", "--owner", owner, "-o", "json"))
    home = folder / owner
    home.mkdir(parents=True)
    profile = json.loads((installation.home / "client.json").read_text())
    (home / "client.json").write_text(json.dumps({**profile, "token": made["secret"]}))
    return {"ATOLL_HOME": str(home), "TOKEN": made["id"]}


def test_another_user_stays_outside(door: Door, tmp_path: Path) -> None:
    eve = person(door.installation, "eve", tmp_path)
    for ref in ("nb", door.installation.session("nb")["id"]):
        done = door.installation.call("ssh", ref, "--", "id", env=eve)
        assert (done.returncode, done.stdout) == (122, "")
        assert "that eve may enter" in done.stderr
    done = door.installation.call("cp", "-q", "nb:/etc/passwd", str(tmp_path / "p"), env=eve)
    assert done.returncode != 0
    assert not (tmp_path / "p").exists()
    door.installation.atoll("token", "delete", eve["TOKEN"][:16])


def test_a_deleted_token_ends_live_connections_and_opens_none(door: Door, tmp_path: Path) -> None:
    bob = person(door.installation, "bob", tmp_path)
    assert door.installation.call("run", "--detach", "--name", "bobs", "--", "sleep", "600", env=bob).returncode == 0
    door.installation.wait(["bobs"], ["running"])
    config = tmp_path / "config"
    config.write_text(door.installation.call("ssh-config", "bobs", env=bob).stdout)
    plain = "".join(line for line in config.read_text().splitlines(keepends=True) if not line.startswith("Match"))
    config.write_text(plain)  # the certificate as it is, never renewed
    with subprocess.Popen(
        ["ssh", "-vv", "-F", str(config), "bobs", "echo in; sleep 300"],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=door.env,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == b"in\n"
        door.installation.atoll("token", "delete", bob["TOKEN"][:16])
        began = time.monotonic()
        _, told = process.communicate(timeout=60)
        assert process.returncode == 255, told
        assert b"your API token was deleted" in told
        assert b"rcvd close" not in told  # a client that read so far could leave before it read why
        assert time.monotonic() - began < 15  # at once: its certificate would have been good for a quarter of an hour
    again = subprocess.run(["ssh", "-F", str(config), "bobs", "id"], capture_output=True, timeout=60, env=door.env)
    assert (again.returncode, again.stdout) == (121, b"")
    door.installation.atoll("stop", "bobs", "--wait")


def test_a_key_without_a_certificate_or_with_an_old_one_is_refused(door: Door, tmp_path: Path) -> None:
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    held = door.installation.home / "ssh"
    base = ["-F", "/dev/null", "-p", str(door.installation.port), "-l", "nb", "-o", "BatchMode=yes"]
    base += ["-o", f"UserKnownHostsFile={held / 'known_hosts'}", "-o", "IdentitiesOnly=yes"]

    def refused(*words: str) -> bool:
        done = subprocess.run(["ssh", *base, *words, "127.0.0.1", "id"], capture_output=True, timeout=60, check=False)
        return done.returncode == 255 and b"Permission denied (publickey)" in done.stderr and not done.stdout

    def signed(*words: str, authority: Path) -> str:
        subprocess.run(["ssh-keygen", "-q", "-s", str(authority), "-I", "x", *words, f"{key}.pub"], check=True)
        return f"CertificateFile={key}-cert.pub"

    authority = door.installation.home / "keys" / "ssh_ca.key"
    token = json.loads(door.installation.atoll("token", "list", "-o", "json"))[0]["id"]
    mine = ["-i", str(key), "-o"]
    assert refused("-i", str(key))
    assert refused(*mine, signed("-n", f"admin,{token}", "-V", "-2h:-1h", authority=authority))
    assert refused(*mine, signed("-n", "nb", authority=authority))
    assert refused(*mine, signed("-h", "-n", f"admin,{token}", authority=authority))
    stranger = tmp_path / "stranger"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(stranger)], check=True)
    assert refused(*mine, signed("-n", f"admin,{token}", authority=stranger))
    assert (authority.stat().st_mode & 0o777, (held / "id_ed25519").stat().st_mode & 0o777) == (0o600, 0o600)


def test_http_is_served_on_the_same_port_as_ever(door: Door) -> None:
    assert b"200 OK" in get(door.installation.port, "/healthz")
    with socket.create_connection(("127.0.0.1", door.installation.port), timeout=10) as client:
        client.sendall(b"SSH-2.0-x\r\n")
        assert client.recv(100).startswith(b"SSH-2.0-Atoll")


def test_an_audit_finds_only_what_old_clients_need(door: Door) -> None:
    program = Path(sys.executable).with_name("ssh-audit")
    done = subprocess.run(
        [program, "--json", "--port", str(door.installation.port), "127.0.0.1"],
        capture_output=True,
        timeout=120,
        env=door.env,
        check=False,
    )
    found = json.loads(done.stdout)
    notes = [
        (kind, algorithm["algorithm"], level)
        for kind in ("kex", "key", "enc", "mac")
        for algorithm in found[kind]
        for level in ("fail", "warn")
        if algorithm.get("notes", {}).get(level)
    ]
    assert all(found[kind] for kind in ("kex", "key", "enc", "mac"))
    assert {algorithm for _, algorithm, _ in notes} == {"curve25519-sha256"}, notes
    assert {level for _, _, level in notes} == {"warn"}, notes
