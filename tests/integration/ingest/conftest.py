"""One server for the tests of a module."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.integration.ingest.lake_server import lake_server

if TYPE_CHECKING:
    from collections.abc import Iterator

    from micromegas_jupyter.client.flight_client import FlightSQLClient
    from tests.integration.ingest.lake_server import LakeServer


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LakeServer]:
    with lake_server(tmp_path_factory.mktemp("lake")) as running:
        yield running


@pytest.fixture(scope="module")
def alice(server: LakeServer) -> Iterator[FlightSQLClient]:
    """An administrator's client."""
    with server.client("alice") as client:
        yield client
