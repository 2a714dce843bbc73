"""The pretend cloud's operator desk: `python -m providers.sim FOLDER reclaim MACHINE` takes a machine back.

FOLDER is `$ATOLL_HOME/providers/NAME`. It acts as the cloud would, behind the back of the control plane.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from atoll.errors import AtollError, Refused
from atoll.host.system import SystemClock
from providers.sim.driver import Sim
from providers.sim.files import FileInventory
from providers.sim.hall import ProcessMachines
from providers.sim.settings import Settings


def main(argv: Sequence[str] | None = None) -> int:
    """Do what the arguments say; return 0, or the exit code of an error that is told on stderr."""
    parser = argparse.ArgumentParser(prog="python -m providers.sim", description="Act as the pretend cloud's operator.")
    parser.add_argument("folder", type=Path, help="$ATOLL_HOME/providers/NAME")
    orders = parser.add_subparsers(dest="order", required=True)
    reclaim = orders.add_parser("reclaim", help="take a machine back, as spot clouds do")
    reclaim.add_argument("machine", help="its provider id, from `atoll get instances -o json`")
    reclaim.add_argument("--notice", type=float, default=30.0, metavar="S", help="seconds of warning (default 30)")
    options = parser.parse_args(argv)
    try:
        if not options.folder.is_dir():
            raise Refused(f"there is no pretend cloud in {options.folder}", hint="it is $ATOLL_HOME/providers/NAME")
        machines = ProcessMachines(options.folder / "machines", _no_launch)
        cloud = Sim(options.folder.name, Settings(), FileInventory(options.folder), machines, SystemClock())
        cloud.reclaim(options.machine, options.notice)
    except AtollError as error:
        print(error.text, file=sys.stderr)
        return error.exit_code
    print(f"{options.machine} is taken back in {options.notice:g} s")
    return 0


def _no_launch(argv: Sequence[str], directory: Path, environment: Mapping[str, str]) -> int:
    raise Refused(f"an operator starts no machine ({directory.name}, {argv[0]}, {len(environment)} variables)")


if __name__ == "__main__":
    sys.exit(main())
