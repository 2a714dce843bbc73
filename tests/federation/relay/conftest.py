"""The tunnel's authority."""

from tests.tunnel.conftest import authority

__all__ = ["authority"]
