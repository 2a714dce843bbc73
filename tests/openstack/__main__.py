"""`python -m tests.openstack up|down --folder DIR`: an OpenStack to try things on by hand."""

import argparse
import shutil
import time
from pathlib import Path

from tests.openstack.prepare import prepared
from tests.openstack.processes import Processes
from tests.openstack.stack import PASSWORD, REGION, Stack, missing


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.openstack", description=__doc__)
    parser.add_argument("what", choices=("prepare", "up", "down"))
    parser.add_argument("--folder", type=Path, default=Path("/tmp/atoll-openstack"), help="where it lives")
    chosen = parser.parse_args()
    if why := missing():
        print(why)
        return 1
    folder = chosen.folder.absolute()
    begun = time.monotonic()

    def tell(what: str) -> None:
        print(f"{time.monotonic() - begun:6.1f} s  {what}", flush=True)

    if chosen.what != "prepare":
        Processes(folder, bound=False).stop()
        shutil.rmtree(folder, ignore_errors=True)
    if chosen.what == "down":
        return 0
    copy = prepared(tell)
    tell(f"prepared: {copy}")
    if chosen.what == "up":
        stack = Stack(folder, bound=False)
        stack.start(copy)
        tell("ready")
        print(
            f"export OS_AUTH_URL={stack.url('identity')} OS_USERNAME=demo OS_PASSWORD={PASSWORD} OS_PROJECT_NAME=demo"
        )
        print(f"export OS_USER_DOMAIN_ID=default OS_PROJECT_DOMAIN_ID=default OS_REGION_NAME={REGION}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
