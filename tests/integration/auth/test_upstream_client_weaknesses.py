"""Weak points that were verified in another client of this kind; here each is shown not to exist.

The numbers are those of the list that they come from. These concern signing in and making calls; those of stored tokens
are in `test_upstream_kept_token_weaknesses`. What other tests of this folder show is not repeated.
"""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from micromegas_jupyter.auth import OidcAuthProvider, OidcClientCredentialsProvider, PendingLogin
from micromegas_jupyter.client.flight_client import FlightSQLClient
from micromegas_jupyter.errors import (
    LoginRequired,
    ProviderMisbehaved,
    UsageError,
)
from tests.fakes import faulty_replies as faulty
from tests.fakes.faulty_replies import FaultyProvider
from tests.fakes.flight_server import SMALL_TABLE, FakeFlightServer
from tests.fakes.mint import rsa_key
from tests.fakes.scripted_browser import ScriptedBrowser
from tests.fakes.scripted_provider import ScriptedProvider

if TYPE_CHECKING:
    from collections.abc import Iterator


pytestmark = pytest.mark.integration

WAIT_SECONDS = 60


@pytest.fixture
def idp() -> Iterator[FaultyProvider]:
    with FaultyProvider() as running:
        running.device.interval_seconds = 1
        yield running


@pytest.fixture
def server() -> Iterator[FakeFlightServer]:
    with closing(FakeFlightServer()) as running:
        yield running


def sign_in(idp: ScriptedProvider, browser: ScriptedBrowser | None = None, **options: object) -> OidcAuthProvider:
    arguments = {"browser": browser or ScriptedBrowser(), "timeout_seconds": WAIT_SECONDS, **options}
    return OidcAuthProvider.login(idp.issuer, "notebook", **arguments)  # type: ignore[arg-type]


def begin(idp: ScriptedProvider, **options: object) -> PendingLogin:
    arguments = {"timeout_seconds": WAIT_SECONDS, **options}
    return OidcAuthProvider.begin_login(idp.issuer, "notebook", **arguments)  # type: ignore[arg-type]


CALLS = {
    "query": lambda client: client.query("SELECT 1"),
    "stream": lambda client: list(client.query_stream("SELECT 1")),
    "statement": lambda client: client.prepare_statement("SELECT 1"),
    "write": lambda client: client.bulk_ingest("t", SMALL_TABLE),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_c01_a_token_that_cannot_be_had_stops_the_call(call, idp, server):
    """A provider that failed was passed over in silence, and the call went out without any authorization."""
    token = {**idp.stored_token(ends_in_seconds=-10), "refresh_token": "dead"}
    provider = OidcAuthProvider(idp.issuer, "notebook", token=token)

    with FlightSQLClient(server.uri, auth_provider=provider) as client, pytest.raises(LoginRequired):
        call(client)

    assert server.calls == []


def test_c03_sign_ins_at_the_same_time_listen_on_ports_of_their_own(idp):
    """The port was the same for everybody, so whoever came first on a machine kept all others from signing in."""
    first, second = begin(idp), begin(idp)

    for pending in (first, second):
        ScriptedBrowser().open(str(pending.start_url))

    assert [pending.result(WAIT_SECONDS).identity().subject for pending in (first, second)] == ["alice-1"] * 2
    assert all(pending.wait_closed(WAIT_SECONDS) for pending in (first, second))


ID_TOKENS = {
    "another nonce": faulty.forge(nonce="another"),
    "no nonce": faulty.forge(nonce=None),
    "another issuer": faulty.forge(iss="https://evil.example"),
    "another audience": faulty.forge(aud="another"),
    "another key": faulty.forge(key=rsa_key("hidden")),
    "no signature": faulty.unsigned,
    "no JWT": faulty.change(id_token="opaque"),
}


@pytest.mark.parametrize("fault", ID_TOKENS.values(), ids=ID_TOKENS)
def test_c06_an_id_token_that_does_not_fit_is_refused(fault, idp, tmp_path):
    """No nonce was sent, and of the ID token nothing was checked: not the signature, nor for whom it was."""
    idp.faults["/token"] = fault

    with pytest.raises(ProviderMisbehaved):
        sign_in(idp, token_file=tmp_path / "t.json")

    assert not (tmp_path / "t.json").exists()
    assert len(idp.seen("/authorize")[0].query["nonce"]) >= 43


def test_c07_an_issuer_with_a_slash_at_its_end_is_asked_at_the_right_place():
    """A slash at the issuer's end gave an address with two of them, where some providers have nothing."""
    with ScriptedProvider(issuer_path="/tenant/") as idp:
        provider = sign_in(idp)

        assert idp.requests[0].path == "/tenant/.well-known/openid-configuration"
        assert provider.identity().issuer == idp.issuer


def test_c16_a_service_account_sends_scope_and_authenticates_as_the_provider_wants(monkeypatch):
    """A service account could send no scope, ignored the variable for it, and put its secret into the form only."""
    with ScriptedProvider(client_id="service", client_secret="s3 cret:+%") as idp:
        idp.metadata_changes["token_endpoint_auth_methods_supported"] = ["client_secret_basic"]
        monkeypatch.setenv("MICROMEGAS_OIDC_ISSUER", idp.issuer)
        monkeypatch.setenv("MICROMEGAS_OIDC_CLIENT_ID", "service")
        monkeypatch.setenv("MICROMEGAS_OIDC_CLIENT_SECRET", "s3 cret:+%")
        monkeypatch.setenv("MICROMEGAS_OIDC_SCOPE", "api://lake/.default")

        assert OidcClientCredentialsProvider.from_env().get_token().startswith("service-")

        (asked,) = idp.seen("/token")
    assert asked.form == {"grant_type": "client_credentials", "scope": "api://lake/.default"}
    assert asked.headers["authorization"].startswith("Basic ")


@pytest.mark.parametrize("scheme", ["grpc", "grpc+tcp", "http"])
def test_c18_a_token_never_goes_to_another_machine_in_plain_text(scheme, idp):
    """Tokens went in plain text to any host, without a word."""
    provider = OidcAuthProvider(idp.issuer, "notebook", token=idp.stored_token(ends_in_seconds=3600))

    with pytest.raises(UsageError, match="not encrypted"):
        FlightSQLClient(f"{scheme}://lake.example.com:50051", auth_provider=provider)
