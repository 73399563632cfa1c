"""A server that keeps a lake, and what tests of ingest need to talk to it."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from micromegas_jupyter.auth import StaticTokenAuthProvider
from micromegas_jupyter.client.flight_client import FlightSQLClient
from micromegas_jupyter.lake import Lake
from tests.integration.flight_harness import FlightHarness, running_server

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@dataclass
class LakeServer:
    """A running server, and the folder of its lake."""

    flight: FlightHarness
    root: Path

    @property
    def uri(self) -> str:
        return self.flight.uri

    @contextmanager
    def client(self, token: str) -> Iterator[FlightSQLClient]:
        with FlightSQLClient(self.uri, auth_provider=StaticTokenAuthProvider(token)) as client:
            yield client

    def column(self, sql: str) -> list[Any]:
        """The first column of an answer to an administrator."""
        with self.client("alice") as client:
            found: list[Any] = client.query_arrow(sql).column(0).to_pylist()
        return found

    def files(self) -> list[str]:
        """Everything that lies in the lake's folder."""
        return sorted(str(path.relative_to(self.root)) for path in self.root.rglob("*") if path.is_file())


@contextmanager
def lake_server(root: Path, **settings: Any) -> Iterator[LakeServer]:
    with running_server(tables=Lake(root), worker={"lake": str(root)}, **settings) as flight:
        yield LakeServer(flight, root)
