"""Fixtures that several integration tests share."""

import tempfile
from pathlib import Path

import pytest

from tests.integration.other_provider.fixtures import other_provider

__all__ = ["other_provider"]


@pytest.fixture(scope="module")
def flight(tmp_path_factory):
    """A server with two tables and a fake validator, for all tests of a module."""
    # Most tests of these folders run no such server, and load nothing of it.
    from tests.integration.flight_harness import example_tables, running_server

    with running_server(tables=example_tables(tmp_path_factory.mktemp("tables"))) as harness:
        yield harness


@pytest.fixture
def runtime_folder(shared_temporary_folder):
    """A private folder whose path leaves room for a socket's name: the system takes 107 bytes in all."""
    with tempfile.TemporaryDirectory(dir=shared_temporary_folder) as folder:
        yield Path(folder)
