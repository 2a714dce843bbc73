"""The client profile: which control plane this machine's user talks to, and with which token."""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from atoll.errors import Invalid, Unavailable
from atoll.host.config import atoll_home
from atoll.host.files import write_private


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """How to reach a control plane. `ca` is the PEM of the only authority to trust (None: the system's)."""

    url: str
    token: str
    ca: str | None = None
    project: str = "default"


def path() -> Path:
    """Return where the profile is kept: `$ATOLL_HOME/client.json`."""
    return atoll_home() / "client.json"


def load(where: Path | None = None) -> Profile:
    """Return the profile; `ATOLL_URL`, `ATOLL_TOKEN` and `ATOLL_PROJECT` override the file's values.

    Raises `Unavailable` when there is none, `Invalid` when the file is not a profile.
    """
    place = where or path()
    values: dict[str, Any] = _read(place) if place.exists() else {}
    for key in ("url", "token", "project"):
        if given := os.environ.get(f"ATOLL_{key.upper()}"):
            values[key] = given
    if not values.get("url"):
        raise Unavailable(
            "no control plane is known on this machine", hint="start one with `atoll up`, or use `atoll login URL`"
        )
    return Profile(
        url=str(values["url"]).rstrip("/"),
        token=str(values.get("token") or ""),
        ca=values.get("ca") or None,
        project=str(values.get("project") or "default"),
    )


def save(profile: Profile, where: Path | None = None) -> None:
    """Write the profile, readable by its owner only; raise `Refused` where the machine does not allow it."""
    write_private(where or path(), json.dumps(asdict(profile), indent=2) + "\n")


def trust(ca: str, where: Path | None = None) -> None:
    """Replace the CAs (PEM) that the profile trusts, and nothing else of it; raise `Invalid` or `Refused`."""
    place = where or path()
    write_private(place, json.dumps({**_read(place), "ca": ca}, indent=2) + "\n")


def _read(place: Path) -> dict[str, Any]:
    advice = f"remove {place} and use `atoll login URL` (or `atoll up`) again"
    try:
        values = json.loads(place.read_text())
    except OSError as error:
        raise Invalid(f"cannot read the client profile {place}: {error.strerror}", hint=advice) from error
    except ValueError as error:
        raise Invalid(f"the client profile {place} is damaged", hint=advice) from error
    if not isinstance(values, dict):
        raise Invalid(f"the client profile {place} is damaged", hint=advice)
    return values
