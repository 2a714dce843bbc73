"""`python -m agent` as a person meets it: join, run, leave, and every way they can fail."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agent.home import AgentHome
from agent.runtime.shim import start_time
from tests.agent.control import ME, RUN, until
from tests.agent.server import Server
from tunnel import wire
from tunnel.identity import Authority

ROOT = Path(__file__).parents[2]


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    async with Server(tmp_path) as server:
        yield server


@pytest.fixture
async def home(tmp_path: Path) -> AsyncIterator[AgentHome]:
    home = AgentHome(tmp_path / "agent")
    yield home
    if pid := home.running():
        os.kill(pid, signal.SIGKILL)
        await until(lambda: home.running() is None)


class Done:
    """What a command did."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err


async def agent(*words: str, **env: str) -> Done:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "agent", *words),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), **env},
    )
    out, err = await asyncio.wait_for(process.communicate(), 120)
    return Done(process.returncode or 0, out.decode(), err.decode())


async def test_join_run_a_session_and_leave(server: Server, home: AgentHome) -> None:
    done = await agent("join", server.url, "--token", server.token(), "--home", str(home.path), "--name", "ws-1")
    assert (done.code, done.err) == (0, "")
    assert f"joined as ws-1 ({ME}), site hall, group gpus" in done.out
    assert "connected" in done.out
    assert server.joins[0]["facts"]["hostname"]
    hello = server.control.hellos[0]
    assert hello.capacity.cpu >= 1000
    server.control.start(command=("sh", "-c", "echo hi; exit 5"))
    await until(lambda: server.control.states() == ["starting", "running", "exited"])
    assert server.control.reports[-1].exit_code == 5
    await until(lambda: server.control.stored["out"] == b"hi\n")

    pid = home.running()
    assert pid is not None
    assert home.pid_file.read_text().split()[0] == str(pid)
    done = await agent("leave", "--home", str(home.path))
    assert (done.code, done.err) == (0, "")
    assert "no agent any more" in done.out
    assert any(isinstance(message, wire.Leave) for message in server.control.others)
    assert not start_time(pid)
    assert not home.joined
    assert not (home.path / "key.pem").exists()


async def test_kill_9_and_run_again_adopts_and_tells_the_true_exit_code(server: Server, home: AgentHome) -> None:
    await agent("join", server.url, "--token", server.token(), "--home", str(home.path))
    go = home.path / "go"
    server.control.start(command=("sh", "-c", f"while ! [ -e {go} ]; do sleep 0.05; done; echo done; exit 6"))
    await until(lambda: server.control.states() == ["starting", "running"])
    pid = home.running()
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    await until(lambda: home.running() is None)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "agent", "run", "--home", str(home.path)), cwd=ROOT, stderr=asyncio.subprocess.DEVNULL
    )
    await until(lambda: server.control.registered == 2)
    assert [(run.run, run.state) for run in server.control.hellos[-1].runs] == [(RUN, "running")]
    go.touch()
    await until(lambda: server.control.states()[-1] == "exited")
    assert server.control.reports[-1].exit_code == 6
    await until(lambda: server.control.stored["out"] == b"done\n")
    process.send_signal(signal.SIGTERM)
    assert await asyncio.wait_for(process.wait(), 60) == 0


async def test_a_foreground_join_takes_token_and_name_from_the_environment(server: Server, home: AgentHome) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "agent", "join", server.url, "--home", str(home.path), "--foreground"),
        cwd=ROOT,
        env={**os.environ, "ATOLL_JOIN_TOKEN": server.token(), "ATOLL_JOIN_NAME": "i-1", "ATOLL_AGENT_SLOTS": "cpu=7"},
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    await until(lambda: server.control.hellos)
    assert server.joins[0]["name"] == "i-1"
    assert server.control.hellos[0].capacity.cpu == 7000
    server.control.send(wire.Leave(reason="drained"))
    assert await asyncio.wait_for(process.wait(), 60) == 0


async def test_a_lonely_launched_machine_powers_off(server: Server, home: AgentHome, tmp_path: Path) -> None:
    await agent("join", server.url, "--token", server.token(), "--home", str(home.path), "--no-start")
    server.control.welcome = {"max_life_s": 0.3}
    off = tmp_path / "off"
    done = await agent("run", "--home", str(home.path), ATOLL_INSTANCE_POWEROFF=f"touch {off}")
    assert done.code == 0
    assert off.exists()
    assert any(isinstance(message, wire.Leave) for message in server.control.others)


async def test_a_used_token_is_one_sentence(server: Server, home: AgentHome) -> None:
    server.used = True
    done = await agent("join", server.url, "--token", server.token(), "--home", str(home.path))
    assert done.code == 121
    assert done.err == (
        "atoll: this join token is not valid: it is unknown, expired, or already used (make a new one)\n"
    )
    assert not home.joined


async def test_a_wrong_ca_is_refused_before_the_secret_is_told(server: Server, home: AgentHome, tmp_path: Path) -> None:
    done = await agent("join", server.url, "--token", server.token(pin="0" * 64), "--home", str(home.path))
    assert done.code == 121
    assert "its CA has another fingerprint" in done.err
    assert done.err.count("\n") == 1
    assert server.joins == []


async def test_a_server_that_shows_the_right_ca_without_its_key_is_refused(
    server: Server, home: AgentHome, tmp_path: Path
) -> None:
    """A man in the middle may copy the CA certificate; he cannot serve under it."""
    other = Authority.load_or_create(tmp_path / "other", now=0.0)
    server.pretended_ca = other.ca_pem
    done = await agent("join", server.url, "--token", server.token(pin=other.pin), "--home", str(home.path))
    assert done.code == 121
    assert "is not one of the CA that the token names" in done.err
    assert server.joins == []


async def test_an_unreachable_control_plane(server: Server, home: AgentHome) -> None:
    url = "https://127.0.0.1:1"
    done = await agent("join", url, "--token", server.token(), "--home", str(home.path))
    assert done.code == 124
    assert f"the control plane at {url} cannot be reached" in done.err


@pytest.mark.parametrize("token", ["rubbish", "atj_AAAA"])
async def test_a_damaged_token(home: AgentHome, token: str) -> None:
    done = await agent("join", "https://127.0.0.1:1", "--token", token, "--home", str(home.path))
    assert done.code == 120
    assert "Traceback" not in done.err


async def test_a_home_that_cannot_be_written(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = await agent("join", server.url, "--token", server.token(), "--home", str(tmp_path / "file" / "agent"))
    assert done.code == 125
    assert "cannot write" in done.err


async def test_joining_twice(server: Server, home: AgentHome) -> None:
    await agent("join", server.url, "--token", server.token(), "--home", str(home.path), "--no-start")
    done = await agent("join", server.url, "--token", server.token(), "--home", str(home.path))
    assert done.code == 123
    assert "is an agent already" in done.err


async def test_two_agents_on_one_home(server: Server, home: AgentHome) -> None:
    await agent("join", server.url, "--token", server.token(), "--home", str(home.path))
    done = await agent("run", "--home", str(home.path))
    assert done.code == 123
    assert f"an agent (process {home.running()}) already runs" in done.err


@pytest.mark.parametrize("verb", ["run", "leave"])
async def test_a_machine_that_never_joined(home: AgentHome, verb: str) -> None:
    done = await agent(verb, "--home", str(home.path))
    assert done.code == 122
    assert "is no agent" in done.err


async def test_bad_pretended_slots(server: Server, home: AgentHome) -> None:
    await agent("join", server.url, "--token", server.token(), "--home", str(home.path), "--no-start")
    done = await agent("run", "--home", str(home.path), ATOLL_AGENT_SLOTS="cpus=2")
    assert done.code == 120
    assert "ATOLL_AGENT_SLOTS: 'cpus=2' is no kind of slot" in done.err


async def test_a_final_refusal_is_one_sentence(server: Server, home: AgentHome) -> None:
    await agent("join", server.url, "--token", server.token(), "--home", str(home.path), "--no-start")
    server.control.refuse = wire.Refuse(code="GONE", message="this agent was removed", final=True)
    done = await agent("run", "--home", str(home.path))
    assert done.code == 121
    assert "the control plane refuses this agent: this agent was removed" in done.err.splitlines()[-1]


async def test_leave_without_a_control_plane_still_undoes(server: Server, home: AgentHome) -> None:
    await agent("join", server.url, "--token", server.token(), "--home", str(home.path), "--no-start")
    about = home.path / "agent.json"
    about.write_text(json.dumps({**json.loads(about.read_text()), "url": "https://127.0.0.1:1"}))
    done = await agent("leave", "--home", str(home.path))
    assert done.code == 0
    assert "could not be told" in done.out
    assert not home.joined


async def test_an_idle_agent_is_small_and_loads_no_heavy_library(server: Server, home: AgentHome) -> None:
    await agent("join", server.url, "--token", server.token(), "--home", str(home.path))
    pid = home.running()
    assert pid is not None
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    pss = next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:"))
    assert pss < 50 * 1024
    maps = Path(f"/proc/{pid}/maps").read_text()
    assert not any(name in maps for name in ("cryptography", "aiohttp", "sqlalchemy"))


async def test_a_gateway_is_permitted_and_forbidden_by_the_owner(server: Server, home: AgentHome) -> None:
    place = ("--home", str(home.path))
    assert (await agent("mesh", *place)).code == 122
    assert (await agent("join", server.url, "--token", server.token(), *place, "--no-start")).code == 0
    done = await agent("mesh", "--endpoint", "a.example:51820", "--subnet", "10.1.0.0/16", *place)
    assert (done.code, done.out) == (0, "this machine is permitted to be a gateway; it counts when the agent starts\n")
    kept = json.loads((home.mesh / "permit.json").read_text())
    assert kept == {"endpoint": "a.example:51820", "port": 0, "subnets": ["10.1.0.0/16"]}
    for wrong, why in (("--endpoint=127.0.0.1:1", "no gateway"), ("--subnet=0.0.0.0/0", "private networks only")):
        refused = await agent("mesh", wrong, *place)
        assert (refused.code, why in refused.err) == (120, True)
    assert json.loads((home.mesh / "permit.json").read_text()) == kept
    assert "no gateway any more" in (await agent("mesh", "--off", *place)).out
    assert not (home.mesh / "permit.json").exists()
