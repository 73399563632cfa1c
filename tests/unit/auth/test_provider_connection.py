from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from micromegas_jupyter.auth.provider_connection import ProviderConnection
from micromegas_jupyter.core.protocols import Secret
from micromegas_jupyter.core.system import SYSTEM_RANDOMNESS
from micromegas_jupyter.errors import (
    ConfigurationError,
    ProviderMisbehaved,
)
from micromegas_jupyter.oidc.authorization import AuthorizationRequest, build_authorization_request
from micromegas_jupyter.oidc.tokens import TokenSet
from tests.fakes.mint import ec_key, rsa_key
from tests.fakes.scripted_provider import DirectCalls, Reply, ScriptedProvider
from tests.fakes.tracebacks import traceback_with_variables

if TYPE_CHECKING:
    from tests.fakes.clock import FakeClock

RESOURCE = "https://lake.example.com"


@pytest.fixture
def connection(idp: ScriptedProvider, calls: DirectCalls, clock: FakeClock) -> ProviderConnection:
    return ProviderConnection(idp.issuer, "notebook", None, http=calls, clock=clock)


def tokens_of(idp: ScriptedProvider) -> TokenSet:
    return TokenSet(access_token=Secret("acc"), id_token=Secret(idp.mint_id_token(access_token="acc")))


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


def code_request(connection: ProviderConnection, resource: str | None = None) -> AuthorizationRequest:
    return build_authorization_request(
        connection.metadata(),
        client_id="notebook",
        redirect_uri="http://127.0.0.1:1/callback",
        scope="openid",
        randomness=SYSTEM_RANDOMNESS,
        resource=resource,
    )


def test_a_caller_that_wants_the_access_token_can_do_without_an_id_token(
    connection: ProviderConnection, idp: ScriptedProvider
) -> None:
    answer = {"access_token": "acc", "token_type": "Bearer"}
    authorization = connection.start_device(scope="openid", audience=None, resource=None)
    idp.reply_once("/token", Reply(body=answer))
    idp.reply_once("/token", Reply(body=answer))

    by_device = connection.poll_device(authorization, scope="openid", needs_id_token=False)
    by_code = connection.exchange_code(code_request(connection), Secret("c"), needs_id_token=False)

    assert isinstance(by_device, TokenSet)
    assert by_device.id_token is None
    assert by_code.id_token is None


def test_an_id_token_that_is_not_needed_is_checked_all_the_same(
    connection: ProviderConnection, idp: ScriptedProvider
) -> None:
    idp.reply_once("/token", Reply(body=idp.issue(nonce="another")))

    with pytest.raises(ProviderMisbehaved, match="nonce"):
        connection.exchange_code(code_request(connection), Secret("c"), needs_id_token=False)


def test_every_grant_names_the_resource(connection: ProviderConnection, idp: ScriptedProvider) -> None:
    for _ in range(3):
        idp.reply_once("/token", Reply(body={"access_token": "acc", "token_type": "Bearer"}))

    connection.exchange_code(code_request(connection, RESOURCE), Secret("c"), needs_id_token=False)
    connection.refresh(Secret("ref"), granted_scope=None, resource=RESOURCE)
    connection.client_credentials(scope=None, audience=None, resource=RESOURCE)

    assert [request.form["resource"] for request in idp.seen("/token")] == [RESOURCE] * 3


def test_another_grant_s_answer_is_returned_as_it_stands(connection: ProviderConnection, idp: ScriptedProvider) -> None:
    idp.reply_once("/token", Reply(body={"id_token": "i", "extra": 1}))
    idp.reply_once("/token", Reply(body={"scope": "given"}))

    first = connection.request_token_answer({"grant_type": "g"}, asked_scope="asked")
    second = connection.request_token_answer({"grant_type": "g"}, asked_scope="asked")

    assert first == {"id_token": "i", "extra": 1, "scope": "asked"}
    assert second == {"scope": "given"}
    assert idp.seen("/token")[0].form == {"grant_type": "g", "client_id": "notebook"}


def test_another_grant_s_answer_that_is_no_object_is_refused(
    connection: ProviderConnection, idp: ScriptedProvider
) -> None:
    idp.reply_once("/token", Reply(body=["id_token"]))

    with pytest.raises(ProviderMisbehaved):
        connection.request_token_answer({"grant_type": "g"}, asked_scope=None)


def test_where_a_session_ends_is_the_provider_s_to_say(connection: ProviderConnection, idp: ScriptedProvider) -> None:
    idp.metadata_changes["end_session_endpoint"] = f"{idp.base}/end"

    assert connection.end_session_endpoint() == f"{idp.base}/end"


@pytest.mark.parametrize("changes", [{"token_type": "DPoP"}, {"scope": 1}, {"refresh_token": "s3same\n"}])
def test_an_answer_that_is_refused_shows_no_token_not_even_with_all_variables(
    changes: dict[str, object], connection: ProviderConnection, idp: ScriptedProvider
) -> None:
    idp.reply_once("/token", Reply(body={"access_token": "s3same", "token_type": "bearer", **changes}))

    with pytest.raises(ProviderMisbehaved) as caught:
        connection.client_credentials(scope=None, audience=None)

    shown = traceback_with_variables(caught.value)
    assert "_redeem" in shown
    assert "s3same" not in shown


@pytest.mark.parametrize("changes", [{"aud": "another"}, {"exp": 1}, {"nonce": None}])
def test_an_id_token_that_is_refused_shows_nothing_of_it_not_even_with_all_variables(
    changes: dict[str, object], connection: ProviderConnection, idp: ScriptedProvider
) -> None:
    idp.id_token_changes.update(changes)
    tokens = tokens_of(idp)
    assert tokens.id_token is not None

    with pytest.raises(ProviderMisbehaved) as caught:
        connection.verify(tokens, nonce=Secret("n0nce"))

    shown = traceback_with_variables(caught.value)
    assert tokens.id_token.reveal()[:40] not in shown
    assert "n0nce" not in shown


def test_an_answer_for_other_grants_shows_no_token(connection: ProviderConnection, idp: ScriptedProvider) -> None:
    idp.reply_once("/token", Reply(body={"access_token": "s3same"}))

    answer = connection.request_token_answer({"grant_type": "g"}, asked_scope="read")

    assert answer == {"access_token": "s3same", "scope": "read"}
    assert "s3same" not in repr(answer)
