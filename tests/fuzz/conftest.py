"""The servers of tests/integration."""

from tests.integration.conftest import own_server

__all__ = ["own_server"]
