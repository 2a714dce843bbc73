"""A pretend machine's folder: the names of its files, and how its driver and its process write them."""

import json
from pathlib import Path
from typing import Any

BOOT = "boot.json"  # how it boots; written by the driver
USER_DATA = "user-data"  # the boot script; written by the driver
ORDER = "order.json"  # what it is to do; written by the driver, taken by the machine
PID = "pid"  # identity of its process; written by the machine
LOCK = "lock"  # held by its process for life
STATUS = "status.json"  # its state and why; written by the machine
CONSOLE = "console"  # what it printed
NOTICE = "notice.json"  # there once it is to be taken away
POWEROFF = "poweroff"  # the command that switches it off from inside
HOME = "home"
TMP = "tmp"


def write(path: Path, document: dict[str, Any]) -> None:
    """Replace a file by `document` as JSON: readers see the old or the new one."""
    fresh = path.with_name(f".{path.name}.new")
    fresh.write_text(json.dumps(document))
    fresh.replace(path)


def read(path: Path) -> dict[str, Any]:
    """Return a file's document; empty when there is no such file."""
    try:
        document = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    return document if isinstance(document, dict) else {}
