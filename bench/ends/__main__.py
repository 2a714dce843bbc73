"""Run one end until standard input ends."""

import asyncio
import json
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
                folder, host, port, doors = rest
                runner.run(relay.run(Path(folder), host, int(port), json.loads(doors)))
            case "agent":
                folder, host, server, url = rest
                runner.run(agent.run(Path(folder), (host, int(server)), url))
            case "client":
                host, door = rest
                runner.run(client.run(host, int(door)))
            case "crowd":
                folder, count, url = rest
                runner.run(crowd.run(Path(folder), int(count), url))


if __name__ == "__main__":
    main(sys.argv[1:])
