"""A small program for the demo to monitor: it requests pages and statements, and records their durations."""

import threading
from contextlib import suppress
from time import perf_counter
from types import TracebackType
from typing import Final, Self
from urllib.parse import urlsplit

import pyarrow as pa
import requests

from micromegas_jupyter.auth import StaticTokenAuthProvider
from micromegas_jupyter.client.flight_client import FlightSQLClient
from micromegas_jupyter.core.system import SYSTEM_CLOCK, Secret
from micromegas_jupyter.errors import MicromegasError
from micromegas_jupyter.telemetry.tables import DEMO_REQUESTS

TABLE: Final = DEMO_REQUESTS.name
_DISCOVERY = "/.well-known/openid-configuration"
# Some return an error because no user signs in, as pages of real services do.
_ENDPOINTS = ("jwks_uri", "authorization_endpoint", "token_endpoint", "end_session_endpoint")
_STATEMENT = "SELECT 1"
_ROUND_SECONDS = 1.0
# Frequent at first, so that there is something to see; then less frequent, so that a day creates only a few thousand
# files.
_FIRST_ROUNDS = 10
_ROUNDS_PER_UPLOAD = 10
_TIMEOUT_SECONDS = 10.0
_STOP_SECONDS = 15.0


class Probe:
    """Requests each page, and one of the server's statements, every second; a context manager that runs a thread."""

    def __init__(self, *, issuer: str, uri: str, api_key: Secret) -> None:
        self._issuer = issuer
        self._uri = uri
        self._api_key = api_key
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="micromegas-demo-probe", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        self._stopping.set()
        self._thread.join(_STOP_SECONDS)

    def _run(self) -> None:
        rows: list[dict[str, object]] = []
        rounds = 0
        provider = StaticTokenAuthProvider(self._api_key)
        with FlightSQLClient(self._uri, auth_provider=provider) as client, requests.Session() as session:
            pages = self._pages(session)
            while not self._stopping.is_set():
                rows += [_request(session, page) for page in pages]
                rows.append(_query(client))
                rounds += 1
                if rounds <= _FIRST_ROUNDS or rounds % _ROUNDS_PER_UPLOAD == 0:
                    # A server that is stopping no longer accepts rows, and no one needs the error.
                    with suppress(MicromegasError):
                        uploaded = pa.Table.from_pylist(rows, DEMO_REQUESTS.schema)
                        client.bulk_ingest(TABLE, uploaded, mode="create_append")
                    rows = []
                self._stopping.wait(_ROUND_SECONDS)

    def _pages(self, session: requests.Session) -> list[str]:
        discovery = self._issuer + _DISCOVERY
        named: dict[str, str] = {}
        with suppress(requests.RequestException):
            named = session.get(discovery, timeout=_TIMEOUT_SECONDS).json()
        return [discovery, *(named[name] for name in _ENDPOINTS if name in named), f"{self._issuer}/missing"]


def _request(session: requests.Session, page: str) -> dict[str, object]:
    started_at, start = SYSTEM_CLOCK.now(), perf_counter()
    status = size = None
    with suppress(requests.RequestException):
        answer = session.get(page, timeout=_TIMEOUT_SECONDS, allow_redirects=False)
        status, size = answer.status_code, len(answer.content)
    path = urlsplit(page).path
    return _row(started_at, start, service="identity provider", path=path, status=status, size_bytes=size)


def _query(client: FlightSQLClient) -> dict[str, object]:
    started_at, start = SYSTEM_CLOCK.now(), perf_counter()
    status = size = None
    with suppress(MicromegasError):
        size = client.query_arrow(_STATEMENT).nbytes
        status = 0
    return _row(started_at, start, service="SQL server", path=_STATEMENT, status=status, size_bytes=size)


def _row(started_at: object, start: float, **facts: object) -> dict[str, object]:
    return {"time": started_at, "duration_ms": round((perf_counter() - start) * 1000, 3), **facts}
