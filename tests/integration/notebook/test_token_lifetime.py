"""What becomes of queries and of the widget when tokens end: a real provider, a real server, real seconds."""

import json
import threading
from contextlib import contextmanager

import pytest

from micromegas_jupyter.auth import StaticTokenAuthProvider
from micromegas_jupyter.client.query_reader import ScanFollower
from micromegas_jupyter.config.server import ServerSettings
from micromegas_jupyter.core.system import SYSTEM_CLOCK
from micromegas_jupyter.demo.provider import DemoProvider
from micromegas_jupyter.demo.provider.scripted_person import ScriptedPerson
from micromegas_jupyter.errors import Rejected
from micromegas_jupyter.notebook.extension import register
from micromegas_jupyter.notebook.login.connections import NotebookServices
from micromegas_jupyter.notebook.results.rows import Progress
from micromegas_jupyter.wiring.client_side import open_client, service_account_provider
from micromegas_jupyter.wiring.server import ServerStack
from tests.integration.notebook.kernels import attended_kernel, card_address, card_views

pytestmark = pytest.mark.integration

QUERY_TOKEN_SECONDS = 4
RENEWED_TOKEN_SECONDS = 6
# A machine that stands still for seconds may do so when a token ends.
TRIES = 10
ROWS = 8_000_000


class CountingProvider:
    """Gives another provider's tokens and counts how often it was asked."""

    def __init__(self, provider):
        self._provider = provider
        self.given = []

    def get_token(self):
        self.given.append(self._provider.get_token())
        return self.given[-1]


def test_a_query_that_starts_with_a_fresh_token_survives_its_expiry(shell, tmp_path, monkeypatch):
    providers = []
    used = []
    rows_before_the_end = []
    note = Progress.note

    def stored_provider(settings):
        used.append(settings)
        providers.append(CountingProvider(service_account_provider(settings)))
        return providers[-1]

    def wait_after_the_first(progress, reader):
        if reader.rows and not rows_before_the_end:
            rows_before_the_end.append(reader.rows)
            threading.Event().wait(QUERY_TOKEN_SECONDS + 1)
        note(progress, reader)

    monkeypatch.setattr(Progress, "note", wait_after_the_first)
    # Asking how far the query is takes a token of its own, which is renewed as for any call.
    monkeypatch.setattr(ScanFollower, "text", lambda *_: "")
    with short_token_stack(tmp_path, token_lifetime_seconds=QUERY_TOKEN_SECONDS) as (provider, environ):
        for name, value in environ.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("MICROMEGAS_OIDC_CLIENT_ID", provider.service_client_id)
        monkeypatch.setenv("MICROMEGAS_OIDC_CLIENT_SECRET", provider.service_secret.reveal())
        monkeypatch.setenv("MICROMEGAS_OIDC_AUDIENCE", provider.lake_audience)
        dependencies = NotebookServices()
        monkeypatch.setattr(dependencies, "stored_provider", stored_provider)
        register(shell, dependencies)

        for _try in range(TRIES):
            rows_before_the_end.clear()
            given_before = len(providers[0].given) if providers else 0
            result = shell.run_line_magic("sql", f"rows << SELECT value FROM generate_series(1, {ROWS})")
            token, *further = providers[0].given[given_before:]
            if not further:  # else its first token ended before the query had begun
                break

        assert further == []
        assert result is None
        assert len(shell.user_ns["rows"]) == ROWS
        assert 0 < rows_before_the_end[0] < ROWS
        with open_client(used[0], StaticTokenAuthProvider(token)) as late, pytest.raises(Rejected):
            late.query_arrow("SELECT 1")


def test_an_idle_notebook_renews_its_token_and_says_so_to_the_widget_alone(tmp_path, monkeypatch):
    with short_token_stack(tmp_path, token_lifetime_seconds=RENEWED_TOKEN_SECONDS) as (provider, environ):
        for name, value in environ.items():
            monkeypatch.setenv(name, value)
        with attended_kernel() as kernel, ScriptedPerson() as person:
            kernel.run("%load_ext micromegas_jupyter")
            login = kernel.run("%micromegas_login --flow browser")
            person.open(card_address(login.messages))
            kernel.run("%sql SELECT 1")
            for _try in range(TRIES):
                kernel.later_messages(0.5)
                refreshes_before = provider.refresh_count

                idle = messages_until_renewed(kernel)
                refreshes = provider.refresh_count - refreshes_before
                left = [view["seconds"] for view in card_views(idle)]

                assert {message["msg_type"] for message in idle} <= {"comm_msg", "status"}
                if len(left) == refreshes == 1 and left[0] > RENEWED_TOKEN_SECONDS / 2:
                    break

    assert len(left) == refreshes == 1
    assert left[0] > RENEWED_TOKEN_SECONDS / 2


def messages_until_renewed(kernel):
    """Return what an idle kernel says until its token was renewed."""
    found = []
    deadline = SYSTEM_CLOCK.monotonic() + 4 * RENEWED_TOKEN_SECONDS
    while not card_views(found) and SYSTEM_CLOCK.monotonic() < deadline:
        found += kernel.later_messages(0.2)
    return found


@contextmanager
def short_token_stack(folder, *, token_lifetime_seconds):
    """Run both; yields the provider and the variables with which a person reaches them."""
    with DemoProvider(token_lifetime_seconds=token_lifetime_seconds) as provider:
        issuers = [
            {"issuer": provider.issuer, "audience": audience, "leeway_secs": 0}
            for audience in (provider.client_id, provider.lake_audience)
        ]
        options = ServerSettings(no_http=True, lake=folder / "lake", port=0, no_telemetry=True)
        environ = {"MICROMEGAS_OIDC_CONFIG": json.dumps({"issuers": issuers})}
        with ServerStack(options, environ=environ) as server:
            yield (
                provider,
                {
                    "MICROMEGAS_ANALYTICS_URI": server.uri,
                    "MICROMEGAS_OIDC_ISSUER": provider.issuer,
                    "MICROMEGAS_OIDC_CLIENT_ID": provider.client_id,
                    "MICROMEGAS_CONFIG_DIR": str(folder / "config"),
                },
            )
