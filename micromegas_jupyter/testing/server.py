"""An identity provider and a server on a temporary lake, on loopback, for the duration of a `with` block."""

import hashlib
import json
import os
import re
import secrets
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from micromegas_jupyter.auth.static import StaticTokenAuthProvider
from micromegas_jupyter.auth.tokens.store import StoredLogin, parse_token
from micromegas_jupyter.config.server import ServerSettings
from micromegas_jupyter.core.files import TemporaryFolder, ensure_private_folder, remove_abandoned, write_private_file
from micromegas_jupyter.core.system import SYSTEM_CLOCK, Secret, Variables
from micromegas_jupyter.demo.provider import DemoProvider
from micromegas_jupyter.demo.provider.state import Grant, Person, SignedIn
from micromegas_jupyter.errors import ConfigurationError, UsageError
from micromegas_jupyter.wiring import client_side
from micromegas_jupyter.wiring.server import ServerStack

if TYPE_CHECKING:
    import pyarrow as pa

    from micromegas_jupyter.client.flight_client import FlightSQLClient

_PREFIX: Final = "micromegas-testing-"
_PERSON: Final = re.compile(r"[a-z][a-z0-9-]{0,31}")
_SCOPE: Final = "openid profile email offline_access"


@contextmanager
def local_server(
    *,
    roles: Mapping[str, object] | None = None,
    admins: Collection[str] = ("alice",),
    token_lifetime_seconds: int = 600,
    memory_mib: int = 2048,
) -> Iterator["LocalServer"]:
    """Run a provider and a server for the duration of the block, and then remove all their data.

    Args:
        roles: The server's roles, in the format of `roles` in the access configuration. By default, users can read all
            tables.
        admins: Users who are administrators.
        token_lifetime_seconds: The lifetime of a token; clients renew it automatically.
        memory_mib: The memory limit for all running queries together.

    Raises:
        ConfigurationError: A role is malformed.
    """
    remove_abandoned(_PREFIX)
    folder = TemporaryFolder(_PREFIX)
    try:
        with DemoProvider(token_lifetime_seconds=token_lifetime_seconds) as provider:
            ingest_key = Secret(secrets.token_hex(32))
            access = folder.path / "access.json"
            write_private_file(access, _access_configuration(provider, ingest_key, roles, admins).encode())
            settings = ServerSettings(
                lake=str(folder.path / "lake"), port=0, memory_mib=memory_mib, no_telemetry=True, no_http=True,
                access_config=access, audit_log=folder.path / "audit.jsonl", drain_timeout_seconds=1.0,
            )  # fmt: skip
            with ServerStack(settings, environ={}, program="a test", spare_executors=1) as stack:
                yield LocalServer(provider, stack, folder, ingest_key=ingest_key, roles=frozenset(roles or ()))
    finally:
        folder.close()


class LocalServer:
    """A running server, created by `local_server`."""

    def __init__(
        self,
        provider: DemoProvider,
        stack: ServerStack,
        folder: TemporaryFolder,
        *,
        ingest_key: Secret,
        roles: frozenset[str],
    ) -> None:
        #: The identity provider, on this machine.
        self.provider = provider
        self._stack = stack
        self._folder = folder
        self._ingest_key = ingest_key
        self._roles = roles
        self._environments: dict[tuple[str, frozenset[str]], dict[str, str]] = {}

    @property
    def uri(self) -> str:
        """The server's address, as for `--uri`."""
        return self._stack.uri

    def client(self, person: str = "alice", *, roles: Collection[str] = ()) -> "FlightSQLClient":
        """Return a client for a signed-in user with these server roles; close it after use."""
        return client_side.connect(environ=self.environment(person, roles=roles))

    def environment(self, person: str = "alice", *, roles: Collection[str] = ()) -> Variables:
        """Return the process environment for programs, notebooks, and terminals of a signed-in user."""
        key = person, frozenset(roles)
        if key not in self._environments:
            self._environments[key] = self._sign_in(person, frozenset(roles), len(self._environments))
        others = {name: value for name, value in os.environ.items() if not name.startswith("MICROMEGAS_")}
        return Variables({**others, **self._environments[key]})

    def service_environment(self) -> Variables:
        """Return the process environment for a job: a service account with client ID and secret, and without roles."""
        variables = self.environment()
        return Variables(
            {
                **variables,
                client_side.CONFIG_DIR: str(self._folder.path / "service"),
                "MICROMEGAS_OIDC_CLIENT_ID": self.provider.service_client_id,
                "MICROMEGAS_OIDC_CLIENT_SECRET": self.provider.service_secret.reveal(),
                "MICROMEGAS_OIDC_AUDIENCE": self.provider.lake_audience,
            }
        )

    def ingest(self, table: str, rows: "pa.Table") -> int:
        """Append rows to a table, creating it if it does not exist; return the number of rows."""
        from micromegas_jupyter.client.flight_client import FlightSQLClient

        with FlightSQLClient(self.uri, auth_provider=StaticTokenAuthProvider(self._ingest_key.reveal())) as client:
            client.bulk_ingest(table, rows, mode="create_append")
        return int(rows.num_rows)

    def _sign_in(self, person: str, roles: frozenset[str], number: int) -> dict[str, str]:
        """Store a sign-in as `micromegas login` does, and return the environment variables to find it."""
        if not _PERSON.fullmatch(person):
            raise UsageError("A user must be a lowercase name, such as alice.")
        if not roles <= self._roles:
            raise UsageError("The server doesn't have one of these roles.", remedy="Add it to local_server(roles=…).")
        variables = {
            "MICROMEGAS_ANALYTICS_URI": self.uri,
            "MICROMEGAS_OIDC_ISSUER": self.provider.issuer,
            "MICROMEGAS_OIDC_CLIENT_ID": self.provider.client_id,
            client_side.CONFIG_DIR: str(self._folder.path / f"{person}-{number}"),
        }
        settings = client_side.load_client_settings(environ=variables)
        key = client_side.login_key(settings)
        if key is None:
            raise ConfigurationError("Users can't sign in without an issuer.", key="MICROMEGAS_OIDC_ISSUER")
        now = SYSTEM_CLOCK.now()
        somebody = SignedIn(person=Person(person, f"{person.title()} Example", tuple(roles)), authenticated_at=now)
        grant = Grant(client=self.provider.clients[self.provider.client_id], signed_in=somebody, scope=_SCOPE)
        answer = self.provider.issue_tokens(grant, scope=_SCOPE)
        tokens = parse_token({**answer, "expires_at": int(now.timestamp()) + self.provider.token_lifetime_seconds})
        ensure_private_folder(Path(variables[client_side.CONFIG_DIR]))
        client_side.token_store(settings, variables).save(StoredLogin(key=key, tokens=tokens))
        return variables


def _access_configuration(
    provider: DemoProvider, ingest_key: Secret, roles: Mapping[str, object] | None, admins: Collection[str]
) -> str:
    """Return who may connect and what they may read; a group with a role's name grants that role."""
    of_groups = {"groups_claim": ["groups"], "group_roles": {role: [role] for role in roles}} if roles else {}
    audiences = (provider.client_id, provider.lake_audience)
    issuers = [{"issuer": provider.issuer, "audience": audience, **of_groups} for audience in audiences]
    digest = hashlib.sha256(ingest_key.reveal().encode()).hexdigest()
    configuration = {
        "oidc": {"issuers": issuers},
        "api_keys": [{"name": "test-rows", "sha256": digest, "scopes": ["ingest"]}],
        "admins": [f"{person}@example.com" for person in admins],
    }
    return json.dumps(configuration if roles is None else {**configuration, "roles": roles})
