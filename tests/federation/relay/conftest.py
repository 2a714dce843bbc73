"""The tunnel's authority and loops."""

from tests.tunnel.conftest import authority, runner

__all__ = ["authority", "runner"]
