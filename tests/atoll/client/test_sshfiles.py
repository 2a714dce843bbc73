"""The SSH door, where it can be dialled and where something on the way opens TLS."""

import asyncio
import contextlib
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from atoll.cli.ssh import own_command
from atoll.client.address import Address
from atoll.client.sshfiles import SshFiles, answers
from atoll.client.views import SshCertificateView


@contextlib.asynccontextmanager
async def saying(answer: bytes) -> AsyncIterator[Address]:
    """A server that hears a line and answers this."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(answer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield Address.parse(f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}")


@pytest.mark.parametrize(
    ("answer", "ssh"),
    [
        (b"SSH-2.0-there\r\n", True),
        (b"\x15\x03\x01\x00\x02\x02F", False),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", False),
        (b"", False),
    ],
)
async def test_whether_ssh_answers_is_looked_at(answer: bytes, ssh: bool) -> None:
    async with saying(answer) as address:
        assert await asyncio.to_thread(answers, address) is ssh


async def test_nobody_there_is_no_ssh_and_this_machine_is_not_asked() -> None:
    async with saying(b"") as gone:
        pass
    assert not await asyncio.to_thread(answers, gone)
    assert answers(Address.parse("http://127.0.0.1:1"))


@pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="OpenSSH's client is not installed")
@pytest.mark.parametrize("answer", [b"SSH-2.0-there\r\n", b""])
async def test_ssh_is_carried_only_where_it_must_be(tmp_path: Path, answer: bytes) -> None:
    view = SshCertificateView(certificate="ssh-ed25519-cert x", host_key="ssh-ed25519 y", user="ada", expires_at=1e12)
    async with saying(answer) as address:
        files = SshFiles(address, tmp_path / "ssh")
        await asyncio.to_thread(files.renew, "token", lambda _: view, 1.0)
        options = SshFiles(address, tmp_path / "ssh").options("nb", "env A=100% atoll ssh-config --carry")
    if answer:
        assert "ProxyCommand" not in options
    else:
        assert options["ProxyCommand"] == "env A=100%% atoll ssh-config --carry"


def test_the_command_that_carries_knows_whose_it_is() -> None:
    words = own_command({"ATOLL_HOME": "/a b", "PATH": "/bin"}, "--carry")
    assert words.startswith("env 'ATOLL_HOME=/a b' /")
    assert words.endswith(" ssh-config --carry")
