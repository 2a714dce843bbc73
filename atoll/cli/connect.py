"""The client of a command line: made from the profile, with `--project` where the command has it."""

import argparse

from atoll.client.synchronous import Client


def client(args: argparse.Namespace | None = None, *, patience: float = 5.0) -> Client:
    """Return a client of the control plane that this machine's user is logged in to."""
    return Client(project=getattr(args, "project", None) or "", patience=patience)
