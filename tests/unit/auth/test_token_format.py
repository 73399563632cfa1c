from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from micromegas_jupyter.auth.tokens.format import (
    LoginKey,
    StoredLogin,
    add_extras,
    build_key,
    build_token_file,
    parse_key,
    parse_token,
    parse_token_file,
)
from micromegas_jupyter.core.secrets import Secret
from micromegas_jupyter.errors import LoginRequired
from micromegas_jupyter.oidc.tokens import TokenSet

NOON = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
ONE = datetime(2026, 11, 24, 13, 0, tzinfo=UTC)
LOGIN = StoredLogin(
    key=LoginKey(issuer="https://id.example.com", client_id="notebook", audience="api"),
    tokens=TokenSet(
        access_token=Secret("acc"),
        id_token=Secret("idt"),
        refresh_token=Secret("ref"),
        obtained_at=NOON,
        expires_at=ONE,
        scope="openid",
    ),
)


def test_the_file_has_upstreams_names_and_whole_seconds() -> None:
    text = build_token_file(LOGIN)

    assert json.loads(text) == {
        "issuer": "https://id.example.com",
        "client_id": "notebook",
        "token": {
            "access_token": "acc",
            "token_type": "Bearer",
            "id_token": "idt",
            "refresh_token": "ref",
            "scope": "openid",
            "expires_at": 1795525200,
            "expires_in": 3600,
        },
        "audience": "api",
    }
    assert text.startswith('{\n  "issuer"')


def test_what_was_written_is_read_back() -> None:
    assert parse_token_file(build_token_file(LOGIN)) == LOGIN


def test_a_file_that_upstream_wrote_is_read() -> None:
    text = json.dumps(
        {
            "issuer": "https://id.example.com",
            "client_id": "notebook",
            "token": {
                "access_token": "acc",
                "expires_in": 3600,
                "refresh_expires_in": 1800,
                "refresh_token": "ref",
                "token_type": "Bearer",
                "id_token": "idt",
                "not-before-policy": 0,
                "session_state": "x",
                "expires_at": 1795525200,
            },
        },
        indent=2,
    )

    found = parse_token_file(text)

    assert (found.tokens.expires_at, found.tokens.obtained_at, found.key.audience) == (ONE, NOON, None)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        "{}",
        '{"issuer": "a", "client_id": "b"}',
        '{"issuer": "a", "client_id": "b", "token": []}',
        '{"issuer": "a", "client_id": "b", "token": {}}',
        '{"issuer": 1, "client_id": "b", "token": {"access_token": "x"}}',
        '{"issuer": "a", "client_id": "b", "token": {"access_token": 1}}',
        '{"issuer": "a", "client_id": "b", "token": {"access_token": "x", "refresh_token": "a\\nb"}}',
        '{"issuer": "a", "issuer": "c", "client_id": "b", "token": {"access_token": "x"}}',
        "[" * 100_000,
    ],
)
def test_damaged_text_means_that_nobody_is_signed_in(text: str) -> None:
    with pytest.raises(LoginRequired):
        parse_token_file(text)


@pytest.mark.parametrize("value", ["soon", True, -1, 1e30, None, [], "NaN"])
def test_a_time_that_cannot_be_read_is_unknown(value: object) -> None:
    assert parse_token({"access_token": "acc", "expires_at": value, "expires_in": 5}).expires_at is None


def test_a_lifetime_longer_than_time_itself_does_no_harm() -> None:
    found = parse_token({"access_token": "acc", "expires_at": 100, "expires_in": 10**11})

    assert found.obtained_at == datetime(1970, 1, 1, tzinfo=UTC)


def test_whose_sign_in_it_is_can_be_read_without_usable_tokens() -> None:
    text = '{"issuer": "https://id.example.com", "client_id": "notebook", "token": {}, "audience": "api"}'

    assert parse_key(text) == LoginKey(issuer="https://id.example.com", client_id="notebook", audience="api")


WITH_EXTRAS = replace(LOGIN.key, scope="openid api", resource="https://lake.example.com")


def test_scope_and_resource_come_from_the_file_beside_the_token_file() -> None:
    assert add_extras(LOGIN.key, json.dumps(build_key(WITH_EXTRAS))) == WITH_EXTRAS


@pytest.mark.parametrize(
    "change", [{"issuer": "https://other.example.com"}, {"client_id": "other"}, {"audience": None}]
)
def test_a_file_beside_that_is_about_another_sign_in_does_not_count(change: dict[str, str]) -> None:
    other = replace(LOGIN.key, **change)

    assert add_extras(other, json.dumps(build_key(WITH_EXTRAS))) == other


@pytest.mark.parametrize("text", [None, "", "{", "[]", "[" * 100_000])
def test_a_file_beside_that_is_missing_or_damaged_does_not_count(text: str | None) -> None:
    assert add_extras(LOGIN.key, text) == LOGIN.key
