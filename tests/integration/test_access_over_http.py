"""A validator from the environment against a provider behind a real socket."""

import json
import threading

import pytest

from micromegas_jupyter.access import Rejected, Unavailable, validator_from_environment
from micromegas_jupyter.core.system import SYSTEM_CLOCK
from tests.fakes.loopback_http import Reply
from tests.fakes.mint import ec_key, mint
from tests.fakes.scripted_provider import ScriptedProvider

pytestmark = pytest.mark.integration

DISCOVERY = "/.well-known/openid-configuration"


@pytest.fixture
def provider():
    with ScriptedProvider() as running:
        yield running


@pytest.fixture
def validator(provider):
    config = {"issuers": [{"issuer": provider.issuer, "audience": "lake"}]}
    admins = json.dumps([f"{provider.issuer}|root"])
    made = validator_from_environment({"MICROMEGAS_OIDC_CONFIG": json.dumps(config), "MICROMEGAS_ADMINS": admins})
    yield made
    made.close()


def test_tokens_for_the_url_of_agents_are_accepted_besides_the_configured_audiences(provider):
    config = {"issuers": [{"issuer": provider.issuer, "audience": "lake"}]}
    environ = {"MICROMEGAS_OIDC_CONFIG": json.dumps(config)}
    with_url = validator_from_environment(environ)
    with_url.accept_resource("https://lake.example/mcp")
    without = validator_from_environment(environ)
    try:
        for audience in ("lake", "https://lake.example/mcp"):
            assert with_url.validate_token(token_of(provider, audience=audience)).subject == "alice"
        for validator, audience in ((with_url, "https://other.example/mcp"), (without, "https://lake.example/mcp")):
            with pytest.raises(Rejected):
                validator.validate_token(token_of(provider, audience=audience))
    finally:
        with_url.close()
        without.close()


def token_of(provider, **changes):
    now = int(SYSTEM_CLOCK.now().timestamp())
    return mint(**{"issuer": provider.issuer, "key": ec_key(), "iat": now, "exp": now + 300, **changes})


def test_tokens_are_judged_with_keys_from_the_network(provider, validator):
    assert validator.validate_token(token_of(provider)).subject == "alice"
    assert validator.validate_token(token_of(provider, subject="root")).is_admin
    with pytest.raises(Rejected):
        validator.validate_token(token_of(provider, key=ec_key("another"), header={"kid": ec_key().kid}))
    assert [seen.path for seen in provider.requests] == [DISCOVERY, "/keys"]


@pytest.mark.parametrize("status", [302, 404, 429, 503])
def test_a_provider_in_trouble_is_undecided_and_then_forgotten(provider, validator, status):
    provider.reply_once(DISCOVERY, Reply(status=status, body={}))
    with pytest.raises(Unavailable) as caught:
        validator.validate_token(token_of(provider))
    assert type(caught.value) is Unavailable

    threading.Event().wait(1)  # so long the provider is left alone after its first failure

    assert validator.validate_token(token_of(provider)).subject == "alice"
