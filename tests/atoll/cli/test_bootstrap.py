"""The inventory of `atoll agent bootstrap`, and a login by password against a small SSH server."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncssh
import pytest

from atoll.cli.bootstrap.inventory import Host, Place, hosts, only
from atoll.cli.bootstrap.ssh import Network, Ran, Trust
from atoll.errors import Invalid, Refused

FOLDER = Path("/inventories")


def test_defaults_are_each_hosts_own() -> None:
    defaults = {"site": "hall", "user": "ops", "key": "keys/hall", "jump": "gate@bastion:2222", "sudo": True}
    first, second = hosts(
        {
            "defaults": defaults,
            "hosts": [
                "node-01.example.com",
                {
                    "name": "n2",
                    "address": "10.0.0.2",
                    "port": 2022,
                    "user": "root",
                    "jump": "",
                    "group": "gpu",
                    "sudo": False,
                },
            ],
        },
        FOLDER,
    )
    assert first == Host(
        name="node-01.example.com",
        place=Place(address="node-01.example.com", user="ops"),
        site="hall",
        group="hall",
        key=FOLDER / "keys/hall",
        jump=Place(address="bastion", port=2222, user="gate"),
        sudo=True,
    )
    assert second.place == Place(address="10.0.0.2", port=2022, user="root")
    assert (second.group, second.jump, second.sudo) == ("gpu", None, False)


@pytest.mark.parametrize(
    ("document", "said", "hint"),
    [
        ({}, "must be a list of hosts", "hosts:"),
        ({"hosts": []}, "must be a list of hosts", "hosts:"),
        ({"host": ["a"]}, "unknown key 'host'", "'hosts'"),
        ({"hosts": ["a"]}, "hosts[0].site is missing", "defaults"),
        ({"defaults": {"sit": "x"}, "hosts": ["a"]}, "unknown key 'sit'", "'site'"),
        ({"defaults": {"password": "x"}, "hosts": ["a"]}, "unknown key 'password'", "keys here"),
        ({"hosts": [{"name": "a", "site": "x", "labels": {}}]}, "unknown key 'labels'", "keys here"),
        ({"hosts": [{"address": "a", "site": "x"}]}, "hosts[0].name is missing", "name"),
        ({"hosts": [{"name": "-a", "site": "x"}]}, "name cannot be '-a'", "letters"),
        ({"hosts": [{"name": "a;reboot", "site": "x"}]}, "name cannot be", "letters"),
        ({"hosts": [{"name": "a", "site": "x", "port": 0}]}, "port is 0", "between 1 and 65535"),
        ({"hosts": [{"name": "a", "site": "x", "jump": "u@h:99999"}]}, "jump cannot be", "bastion"),
        ({"hosts": [{"name": "a", "site": "x", "home": "atoll"}]}, "home must be a full path", "/var/lib"),
        ({"defaults": {"site": "x"}, "hosts": ["a", "a"]}, "name a twice", "once"),
        (
            {"defaults": {"site": "x", "address": "h"}, "hosts": ["a"]},
            "unknown key 'address' in inventory.defaults",
            "keys here",
        ),
        ({"defaults": {"site": "x"}, "hosts": ["h", {"name": "b", "address": "h"}]}, "machine h:22", "once"),
    ],
)
def test_what_is_wrong_is_named(document: dict[str, Any], said: str, hint: str) -> None:
    with pytest.raises(Invalid) as caught:
        hosts(document, FOLDER)
    assert said in caught.value.message
    assert hint in caught.value.hint


def test_only_some() -> None:
    found = hosts({"defaults": {"site": "x"}, "hosts": ["node-1", "node-2"]}, FOLDER)
    assert only(found, ["node-2"]) == [found[1]]
    assert only(found, []) == found
    with pytest.raises(Invalid, match="no host 'node-3'"):
        only(found, ["node-3"])


class Door(asyncssh.SSHServer):
    """Lets in whoever says the password."""

    def begin_auth(self, username: str) -> bool:
        return True

    def password_auth_supported(self) -> bool:
        return True

    def validate_password(self, username: str, password: str) -> bool:
        return (username, password) == ("ops", "open sesame")


async def shell(process: "asyncssh.SSHServerProcess[bytes]") -> None:
    assert process.command is not None
    child = await asyncio.create_subprocess_exec(
        *process.command.split(),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await child.communicate(await process.stdin.read())
    process.stdout.write(out)
    process.stderr.write(err)
    process.exit(child.returncode or 0)


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[Host]:
    key = asyncssh.generate_private_key("ssh-ed25519")
    server = await asyncssh.create_server(
        Door, "127.0.0.1", 0, server_host_keys=[key], process_factory=shell, encoding=None
    )
    port = server.get_port()
    (tmp_path / "known_hosts").write_text(f"[127.0.0.1]:{port} {key.export_public_key().decode()}")
    yield Host(name="h", place=Place(address="127.0.0.1", port=port, user="ops"), site="x", group="x")
    server.close()
    await server.wait_closed()


async def test_a_password_opens_where_one_is_given(host: Host, tmp_path: Path) -> None:
    async with Network(Trust(known_hosts=(tmp_path / "known_hosts",), password="open sesame")) as network:
        assert await network.run(host, "echo $((6 * 7)); echo no >&2; exit 3\n") == Ran(3, "42\n", "no\n")


async def test_a_wrong_password_is_told_and_not_shown(host: Host, tmp_path: Path) -> None:
    trust = Trust(known_hosts=(tmp_path / "known_hosts",), password="open barley")
    async with Network(trust) as network:
        with pytest.raises(Refused, match="refused the login of ops with the password") as caught:
            await network.run(host, "true\n")
    assert "barley" not in f"{caught.value!r}{caught.value.hint}{trust!r}"


async def test_a_host_of_another_key_gets_no_password(host: Host, tmp_path: Path) -> None:
    other = asyncssh.generate_private_key("ssh-ed25519")
    (tmp_path / "known_hosts").write_text(f"[127.0.0.1]:{host.place.port} {other.export_public_key().decode()}")
    async with Network(Trust(known_hosts=(tmp_path / "known_hosts",), password="open sesame")) as network:
        with pytest.raises(Refused, match="host key is not the known one") as caught:
            await network.run(host, "true\n")
    assert other.get_fingerprint() in caught.value.message
