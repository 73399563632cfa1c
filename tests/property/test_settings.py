"""Whatever the settings hold, they are read or refused by `ConfigurationError`."""

from __future__ import annotations

import json

from hypothesis import given, settings
from hypothesis import strategies as st

from micromegas_jupyter.access import validator_from_environment
from micromegas_jupyter.errors import ConfigurationError
from micromegas_jupyter.settings import check_issuer_url, parse_access_settings, parse_client_settings

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["name", "key", "issuer", "audience", "issuers", "token_cache_size", "profiles", "uri"])
            | st.text(max_size=5),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)
any_text = st.text(alphabet=st.characters(), max_size=60)
texts = any_text | json_values.map(json.dumps)
server_variables = st.sampled_from(["MICROMEGAS_API_KEYS", "MICROMEGAS_OIDC_CONFIG", "MICROMEGAS_ADMINS"])
client_variables = st.sampled_from(
    ["MICROMEGAS_ANALYTICS_URI", "MICROMEGAS_OIDC_ISSUER", "MICROMEGAS_OIDC_CLIENT_ID", "MICROMEGAS_PROFILE"]
)


@settings(max_examples=300)
@given(st.dictionaries(server_variables, texts))
def test_server_settings_are_read_or_refused(environ):
    try:
        read = parse_access_settings(environ)
        validator_from_environment(environ).close()
    except ConfigurationError as error:
        assert error.key  # noqa: PT017 - either outcome is right
    else:
        assert read.api_keys or read.oidc


@settings(max_examples=300)
@given(st.dictionaries(client_variables, texts), st.none() | texts, st.none() | st.text(max_size=10))
def test_client_settings_are_read_or_refused(environ, config_text, profile):
    try:
        read = parse_client_settings(environ, config_text=config_text, profile=profile)
    except ConfigurationError as error:
        assert error.key  # noqa: PT017 - either outcome is right
    else:
        assert read.uri


@given(
    st.text(alphabet=st.characters(), max_size=40) | st.from_regex(r"https?://[^/]{0,20}(/.{0,10})?", fullmatch=True)
)
def test_issuers_are_accepted_or_refused(issuer):
    try:
        check_issuer_url(issuer, key="KEY")
    except ConfigurationError:
        return

    assert issuer.lower().startswith(("https://", "http://"))
    assert issuer.isascii()
    assert issuer.isprintable()
