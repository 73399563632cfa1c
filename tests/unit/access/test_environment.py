"""Tests of `access.environment`."""

import json

import pytest

from micromegas_jupyter.access import AuthType, Rejected, TokenValidator, Unavailable, validator_from_environment
from micromegas_jupyter.config.access import LegacyApiKeys
from micromegas_jupyter.errors import ConfigurationError
from tests.fakes.mint import mint

KEYS = json.dumps([{"name": "grafana", "key": "mmk_8c1f0a6de2b94b7f"}])
# Port 9 on loopback: nothing listens, so the provider is down.
OIDC = json.dumps({"issuers": [{"issuer": "http://127.0.0.1:9", "audience": "lake"}]})


def test_keys_alone_make_a_validator():
    validator = validator_from_environment({"MICROMEGAS_API_KEYS": KEYS})

    assert isinstance(validator, TokenValidator)
    assert validator.validate_token("mmk_8c1f0a6de2b94b7f").auth_type is AuthType.API_KEY
    validator.close()


def test_a_provider_that_is_down_does_not_stop_the_start():
    validator = validator_from_environment({"MICROMEGAS_OIDC_CONFIG": OIDC, "MICROMEGAS_ADMINS": '["root"]'})

    with pytest.raises(Unavailable):
        validator.validate_token(mint(issuer="http://127.0.0.1:9", exp=4_000_000_000, iat=0))
    with pytest.raises(Rejected):
        validator.validate_token(mint())
    validator.close()


def test_keys_work_while_the_provider_is_down():
    validator = validator_from_environment({"MICROMEGAS_API_KEYS": KEYS, "MICROMEGAS_OIDC_CONFIG": OIDC})

    assert validator.validate_token("mmk_8c1f0a6de2b94b7f").subject == "grafana"
    with pytest.raises(Rejected):
        validator.validate_token("another key")
    validator.close()


def test_keys_in_plain_text_become_what_the_caller_says_whatever_the_variable_says():
    environ = {"MICROMEGAS_API_KEYS": KEYS, "MICROMEGAS_LEGACY_API_KEYS": "refuse"}

    refusing = validator_from_environment(environ)
    accepting = validator_from_environment(environ, legacy_api_keys=LegacyApiKeys.ON)

    with pytest.raises(Rejected):
        refusing.validate_token("mmk_8c1f0a6de2b94b7f")
    assert accepting.validate_token("mmk_8c1f0a6de2b94b7f").notice is None
    assert accepting.settings.legacy_api_keys is LegacyApiKeys.ON
    refusing.close()
    accepting.close()


def test_the_variables_are_copied():
    environ = {"MICROMEGAS_API_KEYS": KEYS}
    validator = validator_from_environment(environ)

    environ.clear()
    validator.reload()

    assert validator.validate_token("mmk_8c1f0a6de2b94b7f").subject == "grafana"
    validator.close()


@pytest.mark.parametrize("environ", [{}, {"MICROMEGAS_API_KEYS": ""}, {"MICROMEGAS_API_KEYS": "[]"}])
def test_when_nothing_is_configured_the_error_says_what_to_set(environ):
    with pytest.raises(ConfigurationError) as caught:
        validator_from_environment(environ)

    for word in ("MICROMEGAS_OIDC_CONFIG", "MICROMEGAS_API_KEYS", "--disable-auth"):
        assert word in caught.value.remedy


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("MICROMEGAS_API_KEYS", "{"),
        ("MICROMEGAS_OIDC_CONFIG", "{}"),
        ("MICROMEGAS_ADMINS", '"root"'),
        ("MICROMEGAS_ADMINS", '["https://other.example|root"]'),
    ],
)
def test_a_malformed_variable_stops_the_start_and_is_named(name, text):
    good = {"MICROMEGAS_API_KEYS": KEYS, "MICROMEGAS_OIDC_CONFIG": OIDC}

    with pytest.raises(ConfigurationError) as caught:
        validator_from_environment({**good, name: text})

    assert name in caught.value.key
