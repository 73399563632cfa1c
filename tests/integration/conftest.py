"""Fixtures that several integration tests share."""

from tests.integration.other_provider.fixtures import other_provider

__all__ = ["other_provider"]
