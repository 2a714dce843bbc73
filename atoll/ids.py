"""Identifiers and names: short, lower-case, safe in host names, file names and cloud tags."""

import re

from atoll.clock import Chance
from atoll.errors import Invalid

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford base 32: no i, l, o, u to misread
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?")

SESSION, AGENT, INSTANCE, TOKEN, PLAN, RELAY = "s", "a", "i", "t", "p", "r"


def new_id(prefix: str, chance: Chance) -> str:
    """Return `<prefix>-<10 characters>`: 50 random bits, e.g. `s-7k2m9q4x1c`."""
    bits = int.from_bytes(chance.token_bytes(7), "big")
    return f"{prefix}-" + "".join(_ALPHABET[(bits >> (5 * i)) & 31] for i in range(10))


def check_name(name: str, noun: str) -> str:
    """Return `name` unchanged, or raise `Invalid` saying what a name of a `noun` may hold.

    A name is 1 to 40 of `a-z 0-9 -`, not starting or ending with `-` and without `--`: the gateway
    splits `<app>--<session>` host names at the double dash.
    """
    if not _NAME.fullmatch(name) or "--" in name:
        raise Invalid(
            f"{name!r} is not a valid {noun} name",
            hint="use 1 to 40 of a-z, 0-9 and single dashes, beginning and ending with a letter or digit",
        )
    return name


def run_id(session: str, attempt: int, rank: int) -> str:
    """Return the id of one member's run, `<session>.<attempt>.<rank>`: unique for ever, made once."""
    return f"{session}.{attempt}.{rank}"


def split_run_id(run: str) -> tuple[str, int, int]:
    """Return `(session, attempt, rank)` of a run id; raise `Invalid` where it is not one."""
    session, _, rest = run.partition(".")
    attempt, _, rank = rest.partition(".")
    if not (session and attempt.isdecimal() and rank.isdecimal()):
        raise Invalid(f"{run!r} is not a run id")
    return session, int(attempt), int(rank)
