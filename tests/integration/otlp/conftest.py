"""One server for the tests of a module."""

import pytest

from tests.integration.otlp.exporting import export_server


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with export_server(tmp_path_factory.mktemp("lake")) as running:
        yield running
