"""The server's answer to who the caller is."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from micromegas_jupyter.client.calls import ServerIdentity, parse_server_identity
from micromegas_jupyter.errors import InternalError

_ANSWER = {
    "subject": "u-1",
    "name": "Alice Martin",
    "email": "alice@example.com",
    "issuer": "https://id.example",
    "auth_type": "oidc",
    "is_admin": True,
    "expires_at": "2026-11-24T13:00:00+00:00",
}


def test_an_answer_is_read() -> None:
    identity = parse_server_identity(json.dumps(_ANSWER).encode())

    assert identity == ServerIdentity(
        subject="u-1",
        name="Alice Martin",
        email="alice@example.com",
        issuer="https://id.example",
        auth_type="oidc",
        is_admin=True,
        expires_at=datetime(2026, 11, 24, 13, 0, tzinfo=UTC),
    )


def test_what_a_credential_does_not_say_is_none() -> None:
    answer = {"subject": "ci", "issuer": "api_key", "auth_type": "api_key", "is_admin": False, "expires_at": None}

    identity = parse_server_identity(json.dumps(answer).encode())

    assert (identity.name, identity.email, identity.expires_at, identity.is_admin) == (None, None, None, False)


def test_groups_are_read_and_counted_by_the_server() -> None:
    answer = {**_ANSWER, "groups": ["analysts", "a\x1b[2J"], "group_count": 250}

    identity = parse_server_identity(json.dumps(answer).encode())

    assert (identity.groups, identity.group_count) == (("analysts", "a\ufffd[2J"), 250)


@pytest.mark.parametrize("count", [None, "many", True, -1])
def test_a_count_that_is_none_is_that_of_the_names(count: object) -> None:
    answer = {**_ANSWER, "groups": ["analysts"], "group_count": count}

    assert parse_server_identity(json.dumps(answer).encode()).group_count == 1


@pytest.mark.parametrize("groups", ["analysts", [7], {}])
def test_groups_that_are_no_list_of_names_are_no_answer(groups: object) -> None:
    with pytest.raises(InternalError):
        parse_server_identity(json.dumps({**_ANSWER, "groups": groups}).encode())


def test_a_name_cannot_steer_a_terminal() -> None:
    identity = parse_server_identity(json.dumps({**_ANSWER, "name": "a\x1b[2J"}).encode())

    assert identity.name == "a\ufffd[2J"


def test_a_name_is_one_line() -> None:
    identity = parse_server_identity(json.dumps({**_ANSWER, "email": "ann@x\nSession expired. Run: this"}).encode())

    assert identity.email == "ann@x Session expired. Run: this"


@pytest.mark.parametrize("claimed", ["true", 1, None, []])
def test_only_true_makes_an_administrator(claimed: object) -> None:
    assert not parse_server_identity(json.dumps({**_ANSWER, "is_admin": claimed}).encode()).is_admin


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"\xff",
        b'{"subject":"a"}',
        json.dumps({**_ANSWER, "subject": 1}).encode(),
        json.dumps({**_ANSWER, "expires_at": "soon"}).encode(),
        json.dumps({**_ANSWER, "expires_at": "2026-11-24T13:00:00"}).encode(),
        json.dumps({**_ANSWER, "expires_at": 7}).encode(),
        json.dumps({**_ANSWER, "name": "x" * 20_000}).encode(),
    ],
    ids=range(9),
)
def test_another_answer_cannot_be_read(data: bytes) -> None:
    with pytest.raises(InternalError):
        parse_server_identity(data)
