"""The whole demo on one machine: identity provider, server, recorder, and a small program."""

import hashlib
import json
import os
import secrets
import threading
from contextlib import ExitStack
from typing import TYPE_CHECKING, Self

from micromegas_jupyter.config.server import ServerSettings
from micromegas_jupyter.core.files import TemporaryFolder, ensure_private_folder, remove_abandoned, write_private_file
from micromegas_jupyter.core.system import SYSTEM_CLOCK, Secret, Variables
from micromegas_jupyter.demo.folder import DemoFolder
from micromegas_jupyter.demo.probe import TABLE, Probe
from micromegas_jupyter.demo.provider import DemoProvider
from micromegas_jupyter.errors import DeadlineExceeded, InvalidStatement, ResourcesExhausted, Unavailable
from micromegas_jupyter.otlp.exchange import Signal
from micromegas_jupyter.wiring.client_side import CONFIG_DIR
from micromegas_jupyter.wiring.server import DEFAULT_ROW_FILTERS, ServerStack

if TYPE_CHECKING:
    from micromegas_jupyter.client.flight_client import FlightSQLClient

ADMIN_EMAIL = "alice@example.com"
_PREFIX = "micromegas-demo-"
_FIRST_ROWS_TIMEOUT_SECONDS = 120.0
_POLL_SECONDS = 0.2
BUSY_REMEDY = "This machine may be too busy. Try again when its load is lower."
_FIRST_TABLES = ("log_entries", "measures", TABLE)
# Users can read the same data as without roles, and can create keys.
_ROLE = {"tables": {**DEFAULT_ROW_FILTERS, "*": None}, "keys": "self"}
_ACCESS = {"roles": {"everyone": _ROLE}, "default_roles": ["everyone"]}


class DemoStack:
    """A provider and a server, both on loopback, that record their own logs and load, and a program that uses both.

    The lake is in `demo_folder`, where Alice administers all tables, although the issuer changes with each start.
    Everything else, including the lake without `demo_folder`, is in a temporary directory, which is removed when the
    stack stops, or when the next one starts.
    """

    def __init__(  # noqa: PLR0913 - the options of a demo
        self,
        *,
        demo_folder: DemoFolder | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
        spare_executors: int = 2,
        memory_mib: int = 4096,
        jupyter_base_url: str | None = None,
    ) -> None:
        remove_abandoned(_PREFIX)
        with ExitStack() as started:
            own = TemporaryFolder(_PREFIX)
            started.callback(own.close)
            self.folder = own.path
            write_private_file(self.folder / "access.json", json.dumps(_ACCESS).encode())
            write_private_file(self.folder / "api-keys.json", b"[]")
            self._probe_key = Secret(secrets.token_hex(32))
            self._exporter_key = Secret(secrets.token_hex(32))
            self.provider = DemoProvider(jupyter_base_url=jupyter_base_url)
            started.enter_context(self.provider)
            self.server = ServerStack(
                ServerSettings(
                    lake=str(self.folder / "lake" if demo_folder is None else demo_folder.lake),
                    host=host,
                    port=port,
                    drain_timeout_seconds=5.0,
                    telemetry_interval_seconds=5.0,
                    memory_mib=memory_mib,
                ),
                environ=self.server_environment(),
                program="micromegas demo",
                spare_executors=spare_executors,
            )
            self.server.start()
            started.callback(self.server.stop)
            probe = Probe(issuer=self.provider.issuer, uri=self.server.uri, api_key=self._probe_key)
            started.enter_context(probe)
            self._started = started.pop_all()

    def server_environment(self) -> dict[str, str]:
        """Return the server's settings: the provider's tokens, Alice as administrator, and users' own keys."""
        issuers = [
            {"issuer": self.provider.issuer, "audience": audience}
            for audience in (self.provider.client_id, self.provider.hub_client_id, self.provider.lake_audience)
        ]
        keys = [
            _api_key("demo-probe", self._probe_key, "read", "ingest"),
            _api_key("demo-exporter", self._exporter_key, *(f"ingest:{signal.table}" for signal in Signal)),
        ]
        return {
            "MICROMEGAS_API_KEYS": json.dumps(keys),
            "MICROMEGAS_OIDC_CONFIG": json.dumps({"issuers": issuers}),
            "MICROMEGAS_ADMINS": json.dumps([ADMIN_EMAIL]),
            "MICROMEGAS_ACCESS_CONFIG": str(self.folder / "access.json"),
            "MICROMEGAS_API_KEY_FILE": str(self.folder / "api-keys.json"),
        }

    def client_environment(self) -> dict[str, str]:
        """Return the environment variables that a user's notebooks and terminals need to reach the demo."""
        return {
            "MICROMEGAS_NAME": "Micromegas demo",
            "MICROMEGAS_ANALYTICS_URI": self.server.uri,
            "MICROMEGAS_OIDC_ISSUER": self.provider.issuer,
            "MICROMEGAS_OIDC_CLIENT_ID": self.provider.client_id,
            CONFIG_DIR: str(self.folder / "config"),
        }

    def exporter_environment(self) -> dict[str, str]:
        """Return the variables with which an OpenTelemetry exporter can send data to the demo but not read it."""
        return {
            "OTEL_EXPORTER_OTLP_ENDPOINT": self.server.http_url or "",
            "OTEL_EXPORTER_OTLP_HEADERS": f"authorization=Bearer%20{self._exporter_key.reveal()}",
        }

    def service_environment(self) -> Variables:
        """Return the variables that a job without a user needs to reach the demo."""
        return Variables(
            {
                **self.client_environment(),
                "MICROMEGAS_OIDC_CLIENT_ID": self.provider.service_client_id,
                "MICROMEGAS_OIDC_CLIENT_SECRET": self.provider.service_secret.reveal(),
                "MICROMEGAS_OIDC_AUDIENCE": self.provider.lake_audience,
            }
        )

    def job_environment(self) -> dict[str, str]:
        """Return `service_environment` with the secret in a separate file, and a separate configuration directory."""
        variables = self.service_environment()
        secret = self.folder / "job" / "client-secret"
        ensure_private_folder(secret.parent)
        write_private_file(secret, variables.pop("MICROMEGAS_OIDC_CLIENT_SECRET").encode())
        return {**variables, "MICROMEGAS_OIDC_CLIENT_SECRET_FILE": str(secret), CONFIG_DIR: str(secret.parent)}

    def process_environment(self) -> Variables:
        """Return the process environment with this project's variables replaced by the demo's."""
        others = {name: value for name, value in os.environ.items() if not name.startswith("MICROMEGAS_")}
        return Variables({**others, **self.client_environment(), **self.exporter_environment()})

    def stop(self) -> None:
        """Stop everything and remove the directory."""
        self._started.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.stop()


def _api_key(name: str, key: Secret, *scopes: str) -> dict[str, object]:
    return {"name": name, "sha256": hashlib.sha256(key.reveal().encode()).hexdigest(), "scopes": scopes}


def wait_for_rows(client: "FlightSQLClient", *, timeout_seconds: float = _FIRST_ROWS_TIMEOUT_SECONDS) -> None:
    """Wait until the stack has recorded its first log lines, measurements, and requests; raises Unavailable."""
    deadline = SYSTEM_CLOCK.monotonic() + timeout_seconds
    pause = threading.Event()
    sql = f"SELECT {' AND '.join(f'(SELECT count(*) FROM {table}) > 0' for table in _FIRST_TABLES)} AS ready"  # noqa: S608
    while not _is_ready(client, sql):
        if SYSTEM_CLOCK.monotonic() > deadline:
            raise Unavailable(f"The demo didn't record any rows within {timeout_seconds:g} s.", remedy=BUSY_REMEDY)
        pause.wait(_POLL_SECONDS)


def _is_ready(client: "FlightSQLClient", sql: str) -> bool:
    try:
        return bool(client.query_arrow(sql)["ready"][0].as_py())
    except (InvalidStatement, Unavailable, DeadlineExceeded, ResourcesExhausted):
        return False  # the program's first rows create its table; the other errors indicate a busy machine
