"""A refused token is described by what it says about itself."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime

import pytest

from micromegas_jupyter.client.calls import describe_token
from micromegas_jupyter.core.protocols import Secret

_NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)


def _token(claims: object) -> Secret:
    payload = base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=").decode()
    return Secret(f"eyJhbGciOiJSUzI1NiJ9.{payload}.c2ln")


def test_audience_issuer_and_end_are_told() -> None:
    token = _token({"aud": "other-app", "iss": "https://id.example", "exp": 1_795_521_600, "email": "a@b"})

    text, has_expired = describe_token(token, now=_NOW)

    assert text == 'The token is for audience "other-app", from https://id.example. It expired at 2026-11-24 12:00 UTC.'
    assert has_expired


def test_a_token_that_is_still_valid_is_not_called_ended() -> None:
    token = _token({"aud": ["a", "b"], "iss": "https://id.example", "exp": 1_795_521_601})

    assert describe_token(token, now=_NOW) == ('The token is for audience "a, b", from https://id.example.', False)


def test_a_token_of_a_kind_that_no_server_takes_is_described_too() -> None:
    head = base64.urlsafe_b64encode(b'{"typ": "application/x-internal+jwt"}').rstrip(b"=").decode()
    token = Secret(f"{head}.{_token({'aud': 'org', 'iss': 'https://id.example'}).reveal().split('.')[1]}.")

    assert describe_token(token, now=_NOW) == ('The token is for audience "org", from https://id.example.', False)


@pytest.mark.parametrize(
    "token",
    [
        Secret("mmk_opaque"),
        Secret("a.b.c"),
        Secret("a.é.c"),
        Secret("..."),
        _token([]),
        _token({}),
        _token({"aud": 1, "iss": 2, "exp": "x"}),
        _token({"exp": True}),
        _token({"exp": 10**30}),
    ],
)
def test_anything_else_says_nothing(token: Secret) -> None:
    assert describe_token(token, now=_NOW) == ("", False)


def test_what_a_token_says_cannot_steer_a_terminal() -> None:
    token = _token({"aud": "a\x1b[31m", "iss": "x" * 9999})

    text, _ = describe_token(token, now=_NOW)

    assert "\x1b" not in text
    assert len(text) < 300
