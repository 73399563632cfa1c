"""Every grant that the client half asks for, at a certified provider of another make.

Whole sign-ins of a person are tested elsewhere; here each request meets a server that shares no code with it.
"""

from dataclasses import replace
from datetime import timedelta

import pytest
from joserfc.jwk import ECKey

from micromegas_jupyter.auth import OidcClientCredentialsProvider
from micromegas_jupyter.auth.provider_connection import ProviderConnection
from micromegas_jupyter.core.http import ProviderHttp
from micromegas_jupyter.core.system import SYSTEM_CLOCK, SYSTEM_RANDOMNESS
from micromegas_jupyter.errors import LoginFailed, LoginRequired
from micromegas_jupyter.oidc.authorization import build_authorization_request, parse_callback
from micromegas_jupyter.oidc.private_key import parse_private_key
from tests.fakes.clock import FakeClock
from tests.fakes.raw_client import claims_of
from tests.integration.other_provider.person import sign_in_other

pytestmark = pytest.mark.integration

SCOPE = "openid email offline_access"


def connect(other_provider, client_id, credential=None):
    return ProviderConnection(other_provider.issuer, client_id, credential, http=None, clock=SYSTEM_CLOCK)


@pytest.fixture
def connection(other_provider):
    return connect(other_provider, other_provider.client_id)


@pytest.fixture
def key(other_provider):
    return parse_private_key(
        other_provider.service_key, key_id=other_provider.service_key_id, algorithm=None, source_name="service key"
    )


def sign_in(connection, other_provider, resource=None):
    metadata = connection.metadata()
    request = build_authorization_request(
        metadata,
        client_id=connection.client_id,
        redirect_uri=other_provider.redirect_uri,
        scope=f"{SCOPE} lake" if resource else SCOPE,
        randomness=SYSTEM_RANDOMNESS,
        resource=resource,
    )
    answer = sign_in_other(request.url, visit_callback=False)
    code = parse_callback(answer.partition("?")[2], request=request, metadata=metadata)
    return connection.exchange_code(request, code)


class PostOnlyHttp(ProviderHttp):
    """Leaves of the provider's description that it takes secrets in the form, which it does beside Basic."""

    def fetch_json(self, url, **rest):
        answer = super().fetch_json(url, **rest)
        if isinstance(answer.body, dict) and "token_endpoint" in answer.body:
            methods = {"token_endpoint_auth_methods_supported": ["client_secret_post"]}
            return replace(answer, body={**answer.body, **methods})
        return answer


@pytest.mark.parametrize("method", ["basic", "post", "private_key_jwt"])
def test_a_service_account_proves_itself_in_each_way(method, other_provider, key):
    client_id, secret, key, http = {
        "basic": (other_provider.service_client_id, other_provider.service_secret, None, None),
        "post": (other_provider.service_post_client_id, other_provider.service_secret, None, PostOnlyHttp()),
        "private_key_jwt": (other_provider.service_key_client_id, None, key, None),
    }[method]
    options = {"scope": "lake", "private_key": key, "resource": other_provider.resource, "http": http}
    provider = OidcClientCredentialsProvider(other_provider.issuer, client_id, secret, **options)

    claims = claims_of(provider.get_token())

    assert claims["client_id"] == client_id
    assert claims["aud"] == other_provider.resource
    assert claims["scope"] == "lake"


def test_an_assertion_of_another_key_is_refused(other_provider, key):
    wrong = replace(key, key=ECKey.generate_key("P-256"))
    connection = connect(other_provider, other_provider.service_key_client_id, wrong)

    with pytest.raises(LoginFailed) as caught:
        connection.client_credentials(scope=None, audience=None)

    assert type(caught.value) is LoginFailed
    assert "private key" in caught.value.remedy


def test_an_assertion_is_accepted_once_only_so_each_call_makes_a_new_one(other_provider, key):
    connection = connect(other_provider, other_provider.service_key_client_id, key)

    tokens = [connection.client_credentials(scope=None, audience=None) for _ in range(3)]

    assert len({found.access_token for found in tokens}) == 3


def test_a_refresh_rotates_the_refresh_token_and_keeps_the_resource(connection, other_provider):
    first = sign_in(connection, other_provider, resource=other_provider.resource)
    before = other_provider.counts()

    second = connection.refresh(first.refresh_token, granted_scope=first.scope, resource=other_provider.resource)

    assert second.refresh_token not in {None, first.refresh_token}
    for tokens in (first, second):
        assert claims_of(tokens.access_token.reveal())["aud"] == other_provider.resource
    assert connection.verify(second, nonce=None) is not None
    with pytest.raises(LoginRequired):
        connection.refresh(first.refresh_token, granted_scope=first.scope)
    # Other tests rest on what this provider counts.
    spent = {"renewals": before["renewals"] + 1, "reuses": before["reuses"] + 1}
    assert other_provider.counts() == {**before, **spent}


@pytest.mark.parametrize("hours", [-1, 1])
def test_a_clock_that_is_an_hour_off_hinders_neither_people_nor_service_accounts(hours, other_provider, key):
    clock = FakeClock(SYSTEM_CLOCK.now() + timedelta(hours=hours))
    person = ProviderConnection(other_provider.issuer, other_provider.client_id, None, http=None, clock=clock)
    service = ProviderConnection(
        other_provider.issuer, other_provider.service_key_client_id, key, http=None, clock=clock
    )

    sign_in(person, other_provider)
    service_tokens = service.client_credentials(scope=None, audience=None)

    assert service_tokens.access_token.reveal()
    assert person.clock_offset_seconds == pytest.approx(-hours * 3600, abs=30)
