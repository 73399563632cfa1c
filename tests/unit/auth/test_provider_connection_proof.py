from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING
from urllib.parse import quote_plus

import pytest
from joserfc.jwk import ECKey

from micromegas_jupyter.auth.provider_connection import ProviderConnection
from micromegas_jupyter.config.client import AssertionAudience
from micromegas_jupyter.core.protocols import Secret
from micromegas_jupyter.core.system import SYSTEM_RANDOMNESS
from micromegas_jupyter.errors import ConfigurationError, MicromegasError
from micromegas_jupyter.oidc.authorization import AuthorizationRequest, build_authorization_request
from micromegas_jupyter.oidc.device import DeviceAuthorization
from micromegas_jupyter.oidc.jws import parse_token
from micromegas_jupyter.oidc.private_key import PrivateKey
from tests.fakes.scripted_provider import DirectCalls, Reply, ScriptedProvider

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.fakes.clock import FakeClock

CLIENT_SECRET = "p w+d/%:s3same"
# base64 of "notebook:p+w%2Bd%2F%25%3As3same"
BASIC_CREDENTIALS = "bm90ZWJvb2s6cCt3JTJCZCUyRiUyNSUzQXMzc2FtZQ=="


def code_request(connection: ProviderConnection) -> AuthorizationRequest:
    return build_authorization_request(
        connection.metadata(),
        client_id="notebook",
        redirect_uri="http://127.0.0.1:1/callback",
        scope="openid",
        randomness=SYSTEM_RANDOMNESS,
    )


@pytest.fixture
def key() -> PrivateKey:
    return PrivateKey(key=ECKey.generate_key("P-256"), algorithm="ES256", key_id="k1")


@pytest.mark.parametrize(
    ("path", "call"),
    [
        ("/token", lambda found: found.client_credentials(scope=None, audience=None)),
        ("/revoke", lambda found: found.revoke(Secret("t"), kind="refresh_token")),
        ("/device_authorization", lambda found: found.start_device(scope="openid", audience=None, resource=None)),
    ],
)
def test_a_private_key_signs_a_new_assertion_for_the_token_endpoint_at_each_endpoint(
    path: str,
    call: Callable[[ProviderConnection], object],
    *,
    key: PrivateKey,
    idp: ScriptedProvider,
    calls: DirectCalls,
    clock: FakeClock,
) -> None:
    connection = ProviderConnection(idp.issuer, "notebook", key, http=calls, clock=clock)
    connection.assume_clock_offset(300)
    for _ in range(2):
        idp.reply_once(path, Reply(body={**idp.device.start(base=idp.base, scope="openid"), **idp.issue()}))

    call(connection)
    call(connection)

    claims = [parse_token(request.form["client_assertion"]).claims for request in idp.seen(path)]
    assert [found["aud"] for found in claims] == [f"{idp.base}/token"] * 2
    assert claims[0]["jti"] != claims[1]["jti"]
    assert claims[0]["iat"] == int(clock.now().timestamp()) + 300
    assert "client_secret" not in idp.seen(path)[0].form


def test_an_assertion_is_made_out_to_the_issuer_where_that_is_asked_for(
    key: PrivateKey, idp: ScriptedProvider, calls: DirectCalls, clock: FakeClock
) -> None:
    key = replace(key, audience=AssertionAudience.ISSUER)
    connection = ProviderConnection(idp.issuer, "notebook", key, http=calls, clock=clock)

    connection.revoke(Secret("t"), kind="refresh_token")

    assert parse_token(idp.seen("/revoke")[0].form["client_assertion"]).claims["aud"] == idp.issuer


def test_an_assertion_is_made_out_to_the_endpoint_that_it_goes_to_where_that_is_asked_for(
    key: PrivateKey, idp: ScriptedProvider, calls: DirectCalls, clock: FakeClock
) -> None:
    key = replace(key, audience=AssertionAudience.CALLED_ENDPOINT)
    connection = ProviderConnection(idp.issuer, "notebook", key, http=calls, clock=clock)

    connection.revoke(Secret("t"), kind="refresh_token")

    assert parse_token(idp.seen("/revoke")[0].form["client_assertion"]).claims["aud"] == f"{idp.base}/revoke"


class RecordingCalls(DirectCalls):
    """Keeps the assertions that leave for addresses of another host, and answers them as a revocation."""

    def __init__(self, provider: ScriptedProvider) -> None:
        super().__init__(provider)
        self.assertions: list[str] = []

    def post_form(self, url, fields, **rest):  # type: ignore[no-untyped-def]
        self.assertions.append(fields["client_assertion"].reveal())
        return super().post_form(f"{self._provider.base}/revoke", fields, **rest)


def test_an_assertion_that_another_host_is_sent_cannot_be_used_at_the_token_endpoint(
    key: PrivateKey, idp: ScriptedProvider, clock: FakeClock
) -> None:
    calls = RecordingCalls(idp)
    idp.metadata_changes["revocation_endpoint"] = "https://other.example.com/revoke"
    idp.metadata_changes["jwks_uri"] = f"{idp.base}/keys"
    connection = ProviderConnection(idp.issuer, "notebook", key, http=calls, clock=clock)

    connection.revoke(Secret("t"), kind="refresh_token")

    assert parse_token(calls.assertions[0]).claims["aud"] == "https://other.example.com/revoke"


def test_a_provider_that_takes_no_assertions_is_told_about_before_anything_is_sent(
    key: PrivateKey, idp: ScriptedProvider, calls: DirectCalls, clock: FakeClock
) -> None:
    idp.metadata_changes["token_endpoint_auth_methods_supported"] = ["client_secret_basic"]
    connection = ProviderConnection(idp.issuer, "notebook", key, http=calls, clock=clock)

    with pytest.raises(ConfigurationError):
        connection.client_credentials(scope=None, audience=None)

    assert idp.seen("/token") == []


@pytest.mark.parametrize("method", ["client_secret_basic", "client_secret_post"])
@pytest.mark.parametrize("written", [CLIENT_SECRET, quote_plus(CLIENT_SECRET), BASIC_CREDENTIALS])
@pytest.mark.parametrize("name", ["error", "error_description"])
def test_a_provider_that_repeats_a_secret_does_not_get_it_into_an_error(
    name: str, written: str, method: str, *, idp: ScriptedProvider, calls: DirectCalls, clock: FakeClock
) -> None:
    idp.metadata_changes["token_endpoint_auth_methods_supported"] = [method]
    connection = ProviderConnection(idp.issuer, "notebook", Secret(CLIENT_SECRET), http=calls, clock=clock)
    answer = Reply(status=400, body={"error": "invalid_client", name: f"no {written} and r3fresh"})
    attempts = (
        lambda: connection.refresh(Secret("r3fresh"), granted_scope=None),
        lambda: connection.exchange_code(code_request(connection), Secret("r3fresh")),
        lambda: connection.request_token_answer({"assertion": Secret("r3fresh")}, asked_scope=None),
        lambda: connection.poll_device(device_authorization(Secret("r3fresh"), clock), scope="openid"),
    )

    for attempt in attempts:
        idp.reply_once("/token", answer)
        with pytest.raises(MicromegasError) as caught:
            attempt()
        shown = f"{caught.value} {caught.value!r} {caught.value.__cause__}"
        assert "s3same" not in shown
        assert "bm90ZW" not in shown
        assert "r3fresh" not in shown


def device_authorization(device_code: Secret, clock: FakeClock) -> DeviceAuthorization:
    return DeviceAuthorization(
        device_code=device_code, user_code="A", verification_uri="https://id.example.com/d", expires_at=clock.now()
    )


def test_a_revocation_s_error_shows_no_token(idp: ScriptedProvider, calls: DirectCalls, clock: FakeClock) -> None:
    connection = ProviderConnection(idp.issuer, "notebook", None, http=calls, clock=clock)
    idp.reply_once("/revoke", Reply(status=400, body={"error": "r3fresh"}))

    shown = connection.revoke(Secret("r3fresh"), kind="refresh_token")

    assert shown == "an unreadable error code"
