"""Whatever a client's settings hold, they are read or refused by `ConfigurationError`."""

import hashlib
import json
from dataclasses import fields

from hypothesis import given
from hypothesis import strategies as st

from micromegas_jupyter.config.client import parse_client_settings
from micromegas_jupyter.errors import ConfigurationError
from tests.property.settings_values import places, replaced, telling_values, texts

client_variables = st.sampled_from(
    [
        "ANALYTICS_URI", "PROFILE", "TOKEN_STORAGE", "CA_BUNDLE", "OIDC_ISSUER", "OIDC_CLIENT_ID", "OIDC_CLIENT_SECRET",
        "OIDC_CLIENT_SECRET_FILE", "OIDC_AUDIENCE", "OIDC_RESOURCE", "OIDC_SCOPE", "OIDC_PRESET", "OIDC_BEARER",
        "OIDC_FLOW", "OIDC_REDIRECT_URI", "OIDC_PROXY", "OIDC_TIMEOUT_SECONDS", "OIDC_SERVICE_ACCOUNT_FILE",
        "OIDC_PRIVATE_KEY_FILE", "OIDC_PRIVATE_KEY_ID", "OIDC_PRIVATE_KEY_ALGORITHM", "OIDC_WORKLOAD",
        "OIDC_WORKLOAD_EXCHANGE", "OIDC_WORKLOAD_AUDIENCE", "OIDC_WORKLOAD_TOKEN_FILE", "OIDC_WORKLOAD_CLIENT_ID",
    ]
).map("MICROMEGAS_{}".format)  # fmt: skip
client_texts = texts | st.sampled_from(
    [
        *("none", "auto", "google", "entra", "device", "access_token", "keyring", "kubernetes", "azure", "5", "ES256"),
        *("https://accounts.google.com", "https://id.example.com/realms/a", "http://localhost/callback", "nan"),
        *("http://proxy:3128", "token-exchange", "client-assertion"),
    ]
)


@given(st.dictionaries(client_variables, client_texts), st.none() | texts, st.none() | st.text(max_size=10))
def test_client_settings_are_read_or_refused(environ, config_text, profile):
    try:
        read = parse_client_settings(environ, config_text=config_text, profile=profile)
    except ConfigurationError as error:
        assert error.key  # noqa: PT017 - either outcome is right
    else:
        assert read.uri
        assert "hunter2" not in repr(read)


# Not a constant of this file, which could be drawn as a value.
PASSWORD = hashlib.sha256(b"a password").hexdigest()

# One of everything for a client, with a preset that fills in what it can.
CLIENT_COMPLETE = {
    "default_profile": "work",
    "profiles": {
        "work": {
            "uri": "grpc+tls://lake.example.com:50051", "client_id": "notebooks", "private_key_file": "~/key.pem",
            "private_key_id": "2026", "private_key_algorithm": "ES256", "flow": "device", "token_storage": "keyring",
            "ca_bundle": "~/ca.pem", "proxy": f"http://alice:{PASSWORD}@proxy.example:3128", "timeout_seconds": 20,
            "workload": {
                "platform": "kubernetes", "exchange": "token-exchange", "audience": "lake", "token_file": "/run/token",
            },
            "issuers": [
                {
                    "issuer": "https://accounts.google.com", "preset": "google", "audience": "lake",
                    "resource": "https://lake.example.com", "scope": "openid lake.read", "bearer": "access_token",
                    "redirect_uri": "http://127.0.0.1:48080/callback", "authorize_params": {"prompt": "login"},
                }
            ],
        }
    },
}  # fmt: skip


def test_the_complete_configuration_of_a_client_is_accepted():
    read = parse_client_settings({}, config_text=json.dumps(CLIENT_COMPLETE))

    assert (read.profile, read.preset) == ("work", "google")
    assert read.workload is not None


@given(st.sampled_from(places(CLIENT_COMPLETE)), telling_values | client_texts, st.booleans())
def test_any_value_in_any_place_of_a_clients_configuration_is_read_or_refused(place, value, is_left_out):
    text = json.dumps(replaced(CLIENT_COMPLETE, place, value, is_left_out=is_left_out))
    try:
        read = parse_client_settings({}, config_text=text)
    except ConfigurationError as error:
        assert error.key  # noqa: PT017 - either outcome is right
        assert PASSWORD not in str(error)  # noqa: PT017
    else:
        assert PASSWORD not in repr(read)
        assert read.issuer is None or read.issuer.startswith("http")
        assert 1 <= read.provider_timeout_seconds <= 60
        assert {name.partition(".")[0] for name, _ in read.origins} <= {field.name for field in fields(read)}
