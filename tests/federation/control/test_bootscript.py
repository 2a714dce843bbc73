"""The boot script as a shell runs it: the dead-man with no agent, the agent kept running, nothing outside its home."""

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from federation.control import bootscript
from federation.control.bootscript import BootScript
from tests.clouds.guests import Guests
from tunnel.jointoken import JoinToken

TOKEN = JoinToken("https://127.0.0.1:9", "ab" * 32, "5" * 64)
SHELLS = [shell for shell in ("/bin/sh", "/bin/dash", "/bin/bash", "/bin/busybox") if Path(shell).exists()]


def script(*, boot_s: float = 600, max_life_s: float = 86400, cloud: str = "aws") -> str:
    return BootScript(name="i-1", token=TOKEN, cloud=cloud, boot_s=boot_s, max_life_s=max_life_s).render()


class Machine:
    """A guest with programs of its own in place of `atoll`."""

    def __init__(self, guests: Guests, folder: Path) -> None:
        self.guests = guests
        self.base = folder / "m"
        self.home = self.base / "home" / ".atoll"

    def boot(self, text: str, agent: str = "exec sleep 1000") -> None:
        (self.base / "bin").mkdir(parents=True, exist_ok=True)
        (self.base / "bin" / "atoll").write_text(f'#!/bin/sh\necho "started $*"\n{agent}\n')
        (self.base / "bin" / "atoll").chmod(0o755)
        self.guests.boot("m", text)

    @property
    def console(self) -> str:
        return self.guests.console("m")

    @property
    def on(self) -> bool:
        return self.guests.running("m") and bool(self.guests.processes())

    def starts(self) -> int:
        return self.console.count("started agent join https://127.0.0.1:9 --foreground")

    def wait(self, what: Callable[[], bool], within: float = 15.0) -> None:
        deadline = time.monotonic() + within
        while not what():
            assert time.monotonic() < deadline, self.console
            time.sleep(0.05)


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    guests = Guests(tmp_path)
    yield Machine(guests, tmp_path)
    guests.close()


def uptime() -> int:
    return int(Path("/proc/uptime").read_text().split(".")[0])


def test_it_is_small_the_same_every_time_and_holds_no_other_secret() -> None:
    text = script()
    assert text == script()
    assert len(text.encode()) <= bootscript.LIMIT
    assert text.startswith("#!/bin/sh\n")
    assert text.count(TOKEN.text()) == 1
    assert TOKEN.secret not in text
    assert "boot_s=900\n" in text, "the control plane, which reads the console, comes first"
    assert "life_s=86460\n" in text, "the agent, which ends its sessions in peace, comes first"


@pytest.mark.parametrize("shell", SHELLS)
def test_every_shell_can_read_it(shell: str) -> None:
    words = [shell, "sh"] if shell.endswith("busybox") else [shell]
    subprocess.run([*words, "-n"], input=script(), text=True, check=True)


def test_hostile_names_are_quoted() -> None:
    token = JoinToken("https://h/';touch /tmp/owned;'", "00" * 32, "s")
    text = BootScript(name="i-1", token=token, cloud="aws", boot_s=1, max_life_s=1).render()
    subprocess.run(["/bin/sh", "-n"], input=text, text=True, check=True)
    head = text.partition("export PATH")[0]
    said = subprocess.run(["/bin/sh"], input=head + 'printf %s "$url"', capture_output=True, text=True, check=True)
    assert said.stdout == token.url


def test_a_machine_whose_agent_never_comes_up_ends_itself(machine: Machine) -> None:
    machine.boot(script(boot_s=1), agent="exit 1")
    machine.wait(lambda: machine.starts() >= 1)
    machine.wait(lambda: not machine.on)
    assert "atoll: this machine ends: nothing has let it live longer" in machine.console


def test_without_python_it_says_so_and_still_ends(machine: Machine, tmp_path: Path) -> None:
    few = tmp_path / "few"
    few.mkdir()
    for name in ("sh", "id", "sleep", "mkdir", "cat", "flock", "touch", "kill"):
        found = shutil.which(name)
        assert found
        (few / name).symlink_to(found)
    (few / "poweroff").symlink_to(machine.base / "bin" / "poweroff")
    machine.guests.environment["PATH"] = str(few)
    usual = ":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    text = script(boot_s=3)
    assert usual in text
    machine.guests.boot("m", text.replace(usual, ""))
    machine.wait(lambda: "CANNOT JOIN: there is no Python" in machine.console)
    machine.wait(lambda: not machine.on)


def test_an_agent_puts_the_end_off_and_brings_it_about(machine: Machine) -> None:
    machine.boot(script(boot_s=2))
    machine.wait(lambda: machine.starts() == 1)
    deadline = machine.home / "deadline"
    deadline.write_text(f"{uptime() + 1000:<19}\n")
    time.sleep(5.5)
    assert machine.on
    deadline.write_text("torn")
    time.sleep(2.5)
    assert machine.on
    deadline.write_text(f"{0:<19}\n")
    machine.wait(lambda: not machine.on)


def test_the_longest_life_holds_whatever_the_agent_says(machine: Machine) -> None:
    agent = f'echo {uptime() + 10000} >"$ATOLL_INSTANCE_DEADLINE"; exec sleep 1000'
    machine.boot(script().replace("life_s=86460", "life_s=4"), agent=agent)
    machine.wait(lambda: machine.starts() == 1)
    machine.wait(lambda: not machine.on)


def test_a_crashed_agent_comes_back_and_one_that_is_done_ends_the_machine(machine: Machine) -> None:
    agent = 'mkdir "$ATOLL_HOME/once" 2>/dev/null && kill -KILL $$; echo 0 >"$ATOLL_INSTANCE_DEADLINE"; exit 0'
    machine.boot(script(), agent=agent)
    machine.wait(lambda: machine.starts() == 1)
    machine.wait(lambda: not machine.on)
    assert machine.starts() == 2
    assert "this machine ends: its agent is done" in machine.console


def test_the_dead_man_says_that_the_agent_is_done_too(machine: Machine) -> None:
    """It may see the agent's last word before the agent's process is gone."""
    machine.boot(script(), agent='echo 0 >"$ATOLL_INSTANCE_DEADLINE"; exec sleep 1000')
    machine.wait(lambda: not machine.on)
    assert "this machine ends: its agent is done" in machine.console


def shells(machine: Machine) -> list[int]:
    """Return the machine's shells: what they wait with comes and goes."""
    return [pid for pid in machine.guests.processes() if _program(pid) != "sleep"]


def _program(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return "sleep"  # gone since it was listed


def test_it_may_run_again_and_a_later_boot_begins_anew(machine: Machine) -> None:
    machine.boot(script(boot_s=600))
    machine.wait(lambda: machine.starts() == 1)
    before = len(shells(machine))
    again = {**os.environ, **machine.guests._environment("m", machine.base)}
    subprocess.run(
        ["/bin/sh", str(machine.base / "user-data")], env=again, check=True, timeout=10, stdout=subprocess.DEVNULL
    )
    time.sleep(1)
    machine.wait(lambda: len(shells(machine)) == before)  # one dead-man, one agent
    machine.guests.stop("m")
    (machine.home / "deadline").write_text(f"{1:<19}\n")  # long over, by the boot before
    machine.boot(script(boot_s=600))
    machine.wait(lambda: machine.starts() == 2)
    time.sleep(2.5)
    assert machine.on
    told = int((machine.home / "deadline").read_text())
    assert uptime() + 850 < told <= uptime() + 900


def test_it_writes_nothing_outside_its_home(machine: Machine) -> None:
    machine.boot(script(boot_s=600))
    machine.wait(lambda: machine.starts() == 1)
    made = {path.name for path in (machine.base / "home").iterdir()} | {
        p.name for p in (machine.base / "tmp").iterdir()
    }
    assert made == {".atoll"}
    assert not Path("/etc/systemd/system/atoll-agent.service").exists()
