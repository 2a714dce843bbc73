"""Linux namespaces for tests: whether this machine lets us make them, and a network with only loopback."""

import contextlib
import os
import subprocess
from collections.abc import Iterator

import pytest


def permitted(*flags: str) -> bool:
    """Whether `unshare FLAGS` works here."""
    try:
        return subprocess.run(["unshare", *flags, "true"], capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


def need(*flags: str) -> None:
    """Skip the test, saying so, where `unshare FLAGS` is not permitted."""
    if not permitted(*flags):
        pytest.skip(f"this machine does not permit `unshare {' '.join(flags)}`")


@contextlib.contextmanager
def loopback_only() -> Iterator[list[str]]:
    """Make a network namespace in which only loopback is up; yield the words that run a command inside it."""
    as_root = os.geteuid() == 0
    flags = ["--net"] if as_root else ["--user", "--map-root-user", "--net"]
    need(*flags)
    script = "ip link set lo up && echo ready && exec cat"
    holder = subprocess.Popen(
        ["unshare", *flags, "sh", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout is not None
        if holder.stdout.readline() != "ready\n":
            pytest.skip("loopback could not be brought up in a namespace (is iproute2 installed?)")
        enter = ["nsenter", "--target", str(holder.pid), "--net"]
        yield enter if as_root else [*enter, "--user", "--preserve-credentials"]
    finally:
        holder.kill()
        holder.communicate()
