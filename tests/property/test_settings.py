"""Whatever a server's settings hold, they are read or refused by `ConfigurationError`."""

import hashlib
import json
from datetime import UTC

import pytest
from hypothesis import given
from hypothesis import strategies as st

from micromegas_jupyter.access import validator_from_environment
from micromegas_jupyter.config.access import (
    AccessSettings,
    ApiKeySetting,
    find_config_file,
    find_key_file,
    parse_access_settings,
    parse_api_keys,
    render_api_keys,
)
from micromegas_jupyter.core.system import Secret
from micromegas_jupyter.core.text import as_fetch_url, as_issuer
from micromegas_jupyter.errors import ConfigurationError
from tests.property.settings_values import places, replaced, telling_values, texts

SCOPES = ["read", "write", "ingest", "ingest:orders", "ingest:team_*"]
server_variables = st.sampled_from(["MICROMEGAS_API_KEYS", "MICROMEGAS_OIDC_CONFIG", "MICROMEGAS_ADMINS"])


@given(st.dictionaries(server_variables, texts))
def test_server_settings_are_read_or_refused(environ):
    try:
        read = parse_access_settings(environ)
        validator_from_environment(environ).close()
    except ConfigurationError as error:
        assert error.key  # noqa: PT017 - either outcome is right
    else:
        assert read.api_keys or read.oidc


@pytest.mark.parametrize("read", [as_issuer, as_fetch_url])
@given(
    url=st.text(alphabet=st.characters(), max_size=40)
    | st.from_regex(r"https?://[^/]{0,20}(/.{0,10})?", fullmatch=True)
)
def test_issuers_and_addresses_of_documents_are_accepted_or_refused(read, url):
    try:
        read(url, "KEY")
    except ConfigurationError:
        return

    assert url.lower().startswith(("https://", "http://"))
    assert url.isascii()
    assert "#" not in url
    assert url.isprintable() or read is as_fetch_url


# One of everything: each place in it is replaced by any JSON value, or left out.
COMPLETE = {
    "oidc": {
        "issuers": [
            {
                "issuer": "https://id.example.com/{tenantid}", "audience": ["lake", "second"],
                "tenants": ["one", "two"], "aliases": ["id-{tenantid}"],
                "discovery_url": "https://keys.example.com/{tenantid}?a=b", "ca_file": "/ca.pem",
                "bearer_token_file": "/token", "algorithms": ["RS256", "EdDSA"], "subject_claim": "uid",
                "subjects": ["alice", "robot-*"], "groups_claim": [["realm_access", "roles"], ["groups"]],
                "required_claims": {"hd": ["example.com", 5, True]}, "client_ids": ["app"],
                "trusted_for_email": True, "token_kind": "access", "rfc9068": True, "leeway_secs": 5,
                "admin_groups": ["admins"], "group_roles": {"staff": "viewer", "others": ["viewer"]},
            },
            {
                "preset": "cognito", "issuer": "https://cognito-idp.eu-central-1.amazonaws.com/pool",
                "without_audience": True, "client_ids": ["app"], "required_claims": {"token_use": "access"},
                "jwks_url": "https://keys.example.com/",
            },
            {"preset": "kubernetes", "issuer": "https://k.example.com", "audience": "lake", "jwks_file": "/keys.json"},
            {
                "preset": "github_actions", "audience": "lake", "subjects": ["repo:example/lake:*"],
                "required_claims": {"repository_owner_id": "1"},
            },
            {"preset": "entra", "audience": "lake", "tenants": ["0b1c"]},
            {"preset": "google", "audience": "lake", "client_ids": ["lake"]},
            {"preset": "google", "audience": "second", "client_ids": ["lake"]},
        ],
        "jwks_refresh_interval_secs": 60, "jwks_stale_limit_secs": 600, "jwks_cool_down_secs": 10,
        "token_cache_size": 10, "token_cache_ttl_secs": 10,
    },
    "api_keys": [
        {"name": "a", "key": "hunter2", "roles": ["viewer"]},
        {
            "name": "b", "sha256": "ab" * 32, "scopes": ["read", "ingest"], "created_at": "2026-01-31T12:00:00Z",
            "expires_at": "2027-01-31T12:00:00Z", "revoked_at": "2026-02-01T12:00:00Z",
        },
    ],
    "api_key_file": "/keys.json",
    "admins": ["root"],
    "denied": ["https://id.example.com/one|eve", "api_key|a"],
    "roles": {"viewer": {"tables": {"log_entries": None, "spans": "a = 1"}}, "all": {"tables": ["*"]}},
    "default_roles": ["all"],
    "legacy_api_keys": "on",
    "rate_limits": {
        "calls_per_second": 1.5, "burst_calls": 2, "refusals_per_second": 3, "burst_refusals": 4, "max_tracked": 5,
    },
}  # fmt: skip


def test_the_complete_configuration_is_accepted():
    read = parse_access_settings({}, config_text=json.dumps(COMPLETE))

    assert read.oidc is not None
    assert len(read.oidc.issuers) == 7
    assert len(read.api_keys) == 2


@given(st.sampled_from(places(COMPLETE)), telling_values, st.booleans())
def test_any_value_in_any_place_of_the_configuration_is_read_or_refused(place, value, is_left_out):
    text = json.dumps(replaced(COMPLETE, place, value, is_left_out=is_left_out))
    try:
        read = parse_access_settings({}, config_text=text)
    except ConfigurationError as error:
        assert error.key.startswith("MICROMEGAS_ACCESS_CONFIG")  # noqa: PT017 - either outcome is right
        assert "hunter2" not in str(error)  # noqa: PT017
    else:
        assert isinstance(read, AccessSettings)
        assert all(issuer.issuer.startswith("http") for issuer in (read.oidc.issuers if read.oidc else ()))


@given(texts | st.none(), texts | st.none(), st.dictionaries(server_variables, texts))
def test_files_of_any_content_are_read_or_refused(config_text, key_file_text, environ):
    try:
        find_config_file(environ)
        find_key_file(environ, config_text=config_text)
        read = parse_access_settings(environ, config_text=config_text, key_file_text=key_file_text)
    except ConfigurationError as error:
        assert error.key  # noqa: PT017 - either outcome is right
    else:
        assert isinstance(read, AccessSettings)


printable = st.characters(exclude_categories=["C", "Z"]) | st.just(" ")
printable_texts = st.text(printable, min_size=1, max_size=20).filter(str.strip)
moments = st.none() | st.datetimes(timezones=st.just(UTC))


@st.composite
def api_keys(draw):
    text = draw(printable_texts)
    is_plain = draw(st.booleans())
    return ApiKeySetting(
        name=draw(printable_texts),
        key=Secret(text) if is_plain else None,
        sha256=None if is_plain else hashlib.sha256(text.encode()).digest(),
        expires_at=draw(moments),
        scopes=draw(st.frozensets(st.sampled_from(SCOPES), min_size=1)),
        roles=tuple(draw(st.lists(printable_texts, max_size=3))),
        created_at=draw(moments),
        revoked_at=draw(moments),
    )


def digest(key):
    return key.sha256 or hashlib.sha256(key.key.reveal().encode()).digest()


@given(st.lists(api_keys(), max_size=5, unique_by=digest))
def test_rendered_keys_read_back_the_same_sorted_by_name(keys):
    text = render_api_keys(keys)

    read = parse_api_keys(text, "KEYS")

    assert read == tuple(sorted(keys, key=lambda key: key.name))
    assert render_api_keys(read) == text
