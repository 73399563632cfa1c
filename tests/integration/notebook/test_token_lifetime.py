"""What becomes of queries and of the widget when tokens end: a real provider, a real server, real seconds."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Self

import pytest
from IPython.core.interactiveshell import InteractiveShell

from micromegas_jupyter.auth import StaticTokenAuthProvider
from micromegas_jupyter.core.system import SYSTEM_CLOCK
from micromegas_jupyter.demo.provider.scripted_person import ScriptedPerson
from micromegas_jupyter.errors import Rejected
from micromegas_jupyter.notebook.extension import register, unregister
from micromegas_jupyter.notebook.login.connections import Dependencies
from micromegas_jupyter.wiring import open_client, service_account_provider
from tests.integration.notebook.kernels import attended_kernel, widget_states
from tests.integration.notebook.short_tokens import short_token_stack

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import Any

    from micromegas_jupyter.client.flight_client import FlightSQLClient
    from micromegas_jupyter.client.query_reader import QueryReader
    from micromegas_jupyter.config.client import ClientSettings
    from micromegas_jupyter.core.protocols import AuthProvider
    from tests.integration.notebook.kernels import AttendedKernel

pytestmark = pytest.mark.integration

QUERY_TOKEN_SECONDS = 4
RENEWED_TOKEN_SECONDS = 6
# A machine that stands still for seconds may do so when a token ends.
TRIES = 10
ROWS = 8_000_000


class CountingProvider:
    """Gives another provider's tokens and counts how often it was asked."""

    def __init__(self, provider: AuthProvider) -> None:
        self._provider = provider
        self.given: list[str] = []

    def get_token(self) -> str:
        self.given.append(self._provider.get_token())
        return self.given[-1]


class SlowReader:
    """A reader whose rows are not taken while the token ends."""

    def __init__(self, reader: QueryReader) -> None:
        self._reader = reader
        self.rows_before_the_end = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reader, name)

    def __enter__(self) -> Self:
        self._reader.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._reader.__exit__(*error)

    def __iter__(self) -> Iterator[Any]:
        for batch in self._reader:
            if not self.rows_before_the_end:
                self.rows_before_the_end = batch.num_rows
                until_it_ends = threading.Event()
                until_it_ends.wait(QUERY_TOKEN_SECONDS + 1)
            yield batch


class SlowClient:
    """A client whose readers are slow."""

    def __init__(self, client: FlightSQLClient) -> None:
        self._client = client
        self.readers: list[SlowReader] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def open_query(self, *arguments: Any, **options: Any) -> SlowReader:
        self.readers.append(SlowReader(self._client.open_query(*arguments, **options)))
        return self.readers[-1]


@pytest.fixture
def shell() -> Iterator[InteractiveShell]:
    shell = InteractiveShell()
    shell.history_manager.enabled = False
    with shell.builtin_trap, shell.display_trap:
        yield shell
    unregister(shell)
    shell.history_manager.end_session()
    shell.restore_sys_module_state()


def test_a_query_that_starts_with_a_fresh_token_survives_its_expiry(
    shell: InteractiveShell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clients: list[SlowClient] = []
    providers: list[CountingProvider] = []
    used: list[ClientSettings] = []

    def stored_provider(settings: ClientSettings) -> CountingProvider:
        used.append(settings)
        providers.append(CountingProvider(service_account_provider(settings)))
        return providers[-1]

    def open_slow_client(settings: ClientSettings, provider: AuthProvider | None) -> SlowClient:
        clients.append(SlowClient(open_client(settings, provider)))
        return clients[-1]

    with short_token_stack(tmp_path, token_lifetime_seconds=QUERY_TOKEN_SECONDS) as (provider, environ):
        for name, value in environ.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("MICROMEGAS_OIDC_CLIENT_ID", provider.service_client_id)
        monkeypatch.setenv("MICROMEGAS_OIDC_CLIENT_SECRET", provider.service_secret.reveal())
        monkeypatch.setenv("MICROMEGAS_OIDC_AUDIENCE", provider.lake_audience)
        dependencies = Dependencies()
        monkeypatch.setattr(dependencies, "stored_provider", stored_provider)
        monkeypatch.setattr(dependencies, "open_client", open_slow_client)
        register(shell, dependencies)

        for _try in range(TRIES):
            given_before = len(providers[0].given) if providers else 0
            result = shell.run_line_magic("sql", f"SELECT value FROM generate_series(1, {ROWS})")
            token, *further = providers[0].given[given_before:]
            if not further:  # else its first token ended before the query had begun
                break

        assert further == []
        assert len(result) == ROWS
        assert 0 < clients[-1].readers[-1].rows_before_the_end < ROWS
        with open_client(used[0], StaticTokenAuthProvider(token)) as late, pytest.raises(Rejected):
            late.query_arrow("SELECT 1")


def test_an_idle_notebook_renews_its_token_and_says_so_to_the_widget_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with short_token_stack(tmp_path, token_lifetime_seconds=RENEWED_TOKEN_SECONDS) as (provider, environ):
        for name, value in environ.items():
            monkeypatch.setenv(name, value)
        with attended_kernel() as kernel, ScriptedPerson() as person:
            kernel.run("%load_ext micromegas_jupyter")
            login = kernel.run("%micromegas_login --flow browser")
            person.open(widget_states(login.messages)[-1]["start_url"])
            kernel.run("%sql SELECT 1")
            for _try in range(TRIES):
                kernel.later_messages(0.5)
                refreshes_before = provider.refresh_count

                idle = messages_until_renewed(kernel)
                refreshes = provider.refresh_count - refreshes_before
                left = [state["remaining_seconds"] for state in widget_states(idle)]

                assert {message["msg_type"] for message in idle} <= {"comm_msg", "status"}
                if len(left) == refreshes == 1 and left[0] > RENEWED_TOKEN_SECONDS / 2:
                    break

    assert len(left) == refreshes == 1
    assert left[0] > RENEWED_TOKEN_SECONDS / 2


def messages_until_renewed(kernel: AttendedKernel) -> list[dict[str, Any]]:
    """Return what an idle kernel says until its token was renewed."""
    found: list[dict[str, Any]] = []
    deadline = SYSTEM_CLOCK.monotonic() + 4 * RENEWED_TOKEN_SECONDS
    while not widget_states(found) and SYSTEM_CLOCK.monotonic() < deadline:
        found += kernel.later_messages(0.2)
    return found
