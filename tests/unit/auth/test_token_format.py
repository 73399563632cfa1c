from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from micromegas_jupyter.auth.sign_in_entry import SignInEntry
from micromegas_jupyter.auth.token_format import (
    Extras,
    StoredLogin,
    build_extras,
    build_token_file,
    parse_entry,
    parse_extras,
    parse_token,
    parse_token_file,
)
from micromegas_jupyter.core.protocols import Secret
from micromegas_jupyter.errors import LoginRequired
from micromegas_jupyter.oidc.tokens import TokenSet

NOON = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
ONE = datetime(2026, 11, 24, 13, 0, tzinfo=UTC)
LOGIN = StoredLogin(
    issuer="https://id.example.com",
    client_id="notebook",
    audience="api",
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

    assert (found.tokens.expires_at, found.tokens.obtained_at, found.audience) == (ONE, NOON, None)


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

    assert parse_entry(text) == SignInEntry(issuer="https://id.example.com", client_id="notebook", audience="api")


WITH_EXTRAS = replace(LOGIN, scope="openid api", resource="https://lake.example.com", clock_offset_seconds=-42.5)


def test_what_upstreams_format_has_no_place_for_is_kept_beside_the_file() -> None:
    found = parse_extras(build_extras(WITH_EXTRAS), entry=LOGIN.entry)

    assert found == Extras(scope="openid api", resource="https://lake.example.com", clock_offset_seconds=-42.5)


@pytest.mark.parametrize(
    "other",
    [
        replace(LOGIN.entry, issuer="https://other.example.com"),
        replace(LOGIN.entry, client_id="other"),
        replace(LOGIN.entry, audience=None),
    ],
)
def test_nothing_is_taken_from_a_file_beside_that_is_about_another_sign_in(other: SignInEntry) -> None:
    assert parse_extras(build_extras(WITH_EXTRAS), entry=other) == Extras()


def test_a_file_beside_that_names_no_audience_counts_for_any() -> None:
    text = '{"issuer": "https://id.example.com", "client_id": "notebook", "scope": "openid api"}'

    assert parse_extras(text, entry=LOGIN.entry) == Extras(scope="openid api")


@pytest.mark.parametrize("text", ["", "{", "[]", "[" * 100_000])
def test_nothing_is_taken_from_a_damaged_file_beside(text: str) -> None:
    assert parse_extras(text, entry=LOGIN.entry) == Extras()


@pytest.mark.parametrize("value", ["1", True, None, 1e9, float("inf")])
def test_a_clock_offset_that_cannot_be_is_none(value: object) -> None:
    document = {**json.loads(build_extras(WITH_EXTRAS)), "clock_offset_seconds": value}

    assert parse_extras(json.dumps(document), entry=LOGIN.entry).clock_offset_seconds == 0.0


def test_a_sign_in_matches_what_it_was_asked_for() -> None:
    login = replace(LOGIN, scope="openid api")

    asked = {"issuer": "https://id.example.com", "client_id": "notebook", "audience": "api"}
    assert login.matches(**asked, scope="api openid")
    assert not login.matches(**asked, scope="openid")
    assert replace(login, scope=None).matches(**asked, scope="openid")
