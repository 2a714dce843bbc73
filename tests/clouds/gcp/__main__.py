"""The fake as a process of its own: `python -m tests.clouds.gcp --port 8123 --guests DIR`."""

import argparse
import shlex
import signal
from pathlib import Path

from tests.clouds.gcp.harness import GcpHarness


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.clouds.gcp", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="0: a free one, which is printed")
    parser.add_argument("--guests", type=Path, required=True, help="folder for the machines' disks and consoles")
    parser.add_argument("--prefix", default="", help="before each machine's command, like 'ip netns exec guests'")
    given = parser.parse_args()
    harness = GcpHarness(given.guests.absolute(), port=given.port, prefix=shlex.split(given.prefix))
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    harness.start()
    print(f"listening on {harness.server.url}", flush=True)
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    harness.stop()


if __name__ == "__main__":
    main()
