"""A served API over fakes, as in the tests of the federation."""

from tests.federation.conftest import server as server
