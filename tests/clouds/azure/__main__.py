"""The pretend Azure as a process of its own: `python -m tests.clouds.azure --port 8443 --guests DIR --ca FILE`.

Prints one line of JSON once it listens: its address, and the settings of a provider that uses it.
"""

import argparse
import json
import signal
import threading
from pathlib import Path

from tests.clouds.azure.arm import GROUP, REGION, SECURITY_GROUP, SUBNET, SUBSCRIPTION
from tests.clouds.azure.server import CLIENT, SECRET, TENANT, Azure
from tests.clouds.guests import Guests


def main() -> None:
    given = argparse.ArgumentParser(prog="tests.clouds.azure")
    given.add_argument("--port", type=int, default=0)
    given.add_argument("--guests", type=Path, required=True, help="a folder for the machines")
    given.add_argument("--ca", type=Path, required=True, help="where the run's CA certificate is written")
    options = given.parse_args()
    azure = Azure(options.guests / ".tls", Guests(options.guests), options.port)
    options.ca.write_bytes(azure.ca.read_bytes())
    settings = {
        "subscription": SUBSCRIPTION,
        "resource_group": GROUP,
        "region": REGION,
        "subnet": SUBNET,
        "security_group": SECURITY_GROUP,
        "endpoint": azure.url,
        "ca": str(options.ca.absolute()),
        "credentials": {
            "tenant_id": TENANT,
            "client_id": CLIENT,
            "client_secret": SECRET,
            "authority": azure.url,
        },
    }
    print(json.dumps({"url": azure.url, "settings": settings}), flush=True)
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    ended.wait()
    azure.close()


if __name__ == "__main__":
    main()
