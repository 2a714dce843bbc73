"""asyncssh's reverse forward, on uvloop: `relay HOST` and `agent HOST PORT USERS SERVERHOST SERVER`."""

import asyncio
import json
import sys

import asyncssh
import uvloop

CIPHER = "aes128-gcm@openssh.com"


class _Anyone(asyncssh.SSHServer):
    """Lets everybody in, to listen: for loopback and network namespaces only."""

    def begin_auth(self, username: str) -> bool:  # noqa: ARG002
        return False

    def server_requested(self, listen_host: str, listen_port: int) -> bool:  # noqa: ARG002
        return True


async def relay(host: str) -> None:
    """Serve until standard input ends."""
    key = asyncssh.generate_private_key("ssh-ed25519")
    server = await asyncssh.listen(host, 0, server_factory=_Anyone, server_host_keys=[key], encryption_algs=[CIPHER])
    print(json.dumps({"port": server.get_port()}), flush=True)
    await asyncio.to_thread(sys.stdin.read)


async def agent(host: str, port: int, users: int, far: str, server: int) -> None:
    """Forward until standard input ends."""
    async with asyncssh.connect(host, port, known_hosts=None, encryption_algs=[CIPHER], client_keys=None) as link:
        await link.forward_remote_port(host, users, far, server)
        print("up", flush=True)
        await asyncio.to_thread(sys.stdin.read)


def main(argv: list[str]) -> None:
    """Run one end."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        if argv[0] == "relay":
            runner.run(relay(argv[1]))
        else:
            host, port, users, far, server = argv[1:]
            runner.run(agent(host, int(port), int(users), far, int(server)))


if __name__ == "__main__":
    main(sys.argv[1:])
