"""Serves the pretended AWS as a process of its own: `python -m tests.clouds.aws --port 5000 --guests DIR`."""

import argparse
import json
import signal
import threading
from pathlib import Path

from tests.clouds.aws import facts
from tests.clouds.aws.server import AwsServer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--guests", type=Path, required=True, help="folder of the machines' disks")
    parser.add_argument("--region", default="eu-central-1")
    parser.add_argument("--netns", default="", help="network namespace in which machines run")
    parser.add_argument("--env", action="append", default=[], metavar="NAME=VALUE", help="environment of machines")
    options = parser.parse_args()
    prefix = ("ip", "netns", "exec", options.netns) if options.netns else ()
    server = AwsServer(options.host, options.port).start()
    environment = dict(each.split("=", 1) for each in options.env)
    server.open(options.guests.absolute(), options.region, prefix=prefix, environment=environment)
    keys = {"access_key_id": facts.ACCESS_KEY, "secret_access_key": facts.SECRET_KEY}
    print(json.dumps({"endpoint": server.url, "region": options.region, "credentials": keys}), flush=True)
    done = threading.Event()
    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, lambda *_: done.set())
    done.wait()
    server.stop()


if __name__ == "__main__":
    main()
