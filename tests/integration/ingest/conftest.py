"""One server for the tests of a module."""

import pytest

from tests.integration.ingest.lake_server import lake_server


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with lake_server(tmp_path_factory.mktemp("lake")) as running:
        yield running


@pytest.fixture(scope="module")
def alice(server):
    """An administrator's client."""
    with server.client("alice") as client:
        yield client
