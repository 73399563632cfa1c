from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from micromegas_jupyter.auth.provider_connection import ProviderConnection
from micromegas_jupyter.contracts import Secret
from micromegas_jupyter.errors import ConfigurationError, ProviderMisbehaved, ProviderUnavailable
from micromegas_jupyter.oidc.token import TokenSet
from tests.fakes.mint import ec_key, rsa_key
from tests.fakes.scripted_provider import DirectCalls, Reply, ScriptedProvider

if TYPE_CHECKING:
    from tests.fakes.clock import FakeClock


@pytest.fixture
def connection(idp: ScriptedProvider, calls: DirectCalls, clock: FakeClock) -> ProviderConnection:
    return ProviderConnection(idp.issuer, "notebook", None, http=calls, clock=clock)


def tokens_of(idp: ScriptedProvider) -> TokenSet:
    return TokenSet(access_token=Secret("acc"), id_token=Secret(idp.mint_id_token(access_token="acc")))


def test_documents_are_fetched_once_an_hour(
    connection: ProviderConnection, idp: ScriptedProvider, clock: FakeClock
) -> None:
    for _ in range(3):
        connection.keys()
    clock.advance(3600)
    connection.keys()

    assert len(idp.seen("/.well-known/openid-configuration")) == 2
    assert len(idp.seen("/keys")) == 2


def test_documents_are_kept_beyond_their_age_while_the_provider_is_down(
    connection: ProviderConnection, idp: ScriptedProvider, clock: FakeClock
) -> None:
    keys = connection.keys()
    clock.advance(7200)
    idp.is_down = True

    assert connection.keys() == keys
    assert connection.metadata().issuer == idp.issuer


def test_a_provider_that_was_never_reached_is_unavailable(
    connection: ProviderConnection, idp: ScriptedProvider
) -> None:
    idp.is_down = True

    with pytest.raises(ProviderUnavailable):
        connection.metadata()


def test_a_missing_discovery_document_is_unavailable_with_a_hint_at_the_issuer(
    connection: ProviderConnection, idp: ScriptedProvider
) -> None:
    idp.reply_once("/.well-known/openid-configuration", Reply(status=404, body={}))

    with pytest.raises(ProviderUnavailable) as caught:
        connection.metadata()

    assert "issuer" in caught.value.remedy


def test_a_discovery_document_of_another_issuer_stops_before_any_other_request(
    connection: ProviderConnection, idp: ScriptedProvider
) -> None:
    idp.metadata_changes["issuer"] = "https://evil.example"

    with pytest.raises(ProviderMisbehaved):
        connection.keys()

    assert [request.path for request in idp.requests] == ["/.well-known/openid-configuration"]


def test_a_key_that_was_rotated_in_has_the_keys_fetched_again_once(
    connection: ProviderConnection, idp: ScriptedProvider
) -> None:
    connection.keys()
    idp.signing_key = rsa_key("new")
    idp.published_keys = (ec_key(), rsa_key("new"))

    claims = connection.verify(tokens_of(idp), nonce=None)

    assert claims is not None
    assert claims.subject == "alice-1"
    assert len(idp.seen("/keys")) == 2


def test_unknown_keys_do_not_make_the_client_fetch_again_and_again(
    connection: ProviderConnection, idp: ScriptedProvider, clock: FakeClock
) -> None:
    connection.keys()
    idp.signing_key = rsa_key("unpublished")

    for _ in range(20):
        with pytest.raises(ProviderMisbehaved):
            connection.verify(tokens_of(idp), nonce=None)
    clock.advance(10)
    with pytest.raises(ProviderMisbehaved):
        connection.verify(tokens_of(idp), nonce=None)

    assert len(idp.seen("/keys")) == 3


def test_a_set_without_an_id_token_has_nothing_to_verify(connection: ProviderConnection) -> None:
    assert connection.verify(TokenSet(access_token=Secret("acc")), nonce=None) is None


@pytest.mark.parametrize(
    ("methods", "is_basic"), [(None, True), (["client_secret_basic"], True), (["client_secret_post"], False)]
)
def test_the_secret_is_sent_as_the_provider_wants_it(
    methods: list[str] | None, is_basic: bool, clock: FakeClock
) -> None:
    secret = "p w+d/%é:"
    idp = ScriptedProvider(clock=clock, client_id="svc:1", client_secret=secret)
    idp.metadata_changes["token_endpoint_auth_methods_supported"] = methods
    connection = ProviderConnection(idp.issuer, "svc:1", Secret(secret), http=DirectCalls(idp), clock=clock)

    tokens = connection.client_credentials(scope=None, audience=None)

    assert tokens.access_token.reveal().startswith("service-")
    assert ("authorization" in idp.seen("/token")[0].headers) is is_basic
    assert ("client_secret" in idp.seen("/token")[0].form) is not is_basic


def test_a_revocation_that_answers_with_a_web_page_has_worked(
    connection: ProviderConnection, idp: ScriptedProvider
) -> None:
    assert connection.revoke(Secret("ref"), kind="refresh_token") is None
    assert connection.revoke(Secret("acc"), kind="access_token") == "unsupported_token_type"
    assert idp.seen("/revoke")[0].form == {
        "token": "ref",
        "token_type_hint": "refresh_token",
        "client_id": "notebook",
    }


def test_a_provider_without_revocation_says_so(connection: ProviderConnection, idp: ScriptedProvider) -> None:
    idp.metadata_changes["revocation_endpoint"] = None

    with pytest.raises(ProviderMisbehaved):
        connection.revoke(Secret("ref"), kind="refresh_token")


@pytest.mark.parametrize("issuer", ["http://id.example.com", "id.example.com", "https://id.example.com/?a=1"])
def test_an_issuer_that_is_not_https_is_a_configuration_error(issuer: str, clock: FakeClock) -> None:
    with pytest.raises(ConfigurationError):
        ProviderConnection(issuer, "notebook", None, http=None, clock=clock)
