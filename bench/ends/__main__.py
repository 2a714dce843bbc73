"""Run one end until standard input ends."""

import asyncio
import sys
from pathlib import Path

import uvloop

from bench.ends import agent, client, crowd, relay


def main(argv: list[str]) -> None:
    """Run one end."""
    kind, *rest = argv
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        match kind:
            case "relay":
                folder, host = rest
                runner.run(relay.run(Path(folder), host))
            case "agent":
                folder, host, server, url = rest
                runner.run(agent.run(Path(folder), (host, int(server)), url))
            case "client":
                host, door = rest
                runner.run(client.run(host, int(door)))
            case "crowd":
                folder, kind, url = rest
                runner.run(crowd.run(Path(folder), kind, url))


if __name__ == "__main__":
    main(sys.argv[1:])
