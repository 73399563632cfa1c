"""Tests of `access.restraints`."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from micromegas_jupyter.access.config import NO_STATEMENTS, Statements, read_statements, restrain
from micromegas_jupyter.config.access import AccessSettings, ApiKeySetting, IssuerSetting, OidcServerSettings

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
A, B, C = (ApiKeySetting(name=name, sha256=name.encode() * 32) for name in "abc")
REVOKED_A = replace(A, revoked_at=NOON)
OIDC = OidcServerSettings(issuers=(IssuerSetting(issuer="https://id.example.com"),))
KEYS_TEXT = json.dumps([{"name": "x", "sha256": "ab" * 32}])


def test_each_part_is_read_by_itself_and_else_stays_as_it_was():
    earlier = Statements(denied=("old",), config_keys=(A,), file_keys=(B,))

    assert read_statements(None, None, otherwise=earlier) == earlier
    assert read_statements("[", "[", otherwise=earlier) == earlier
    assert read_statements('{"denied": ["new"], "api_keys": 1}', "[]", otherwise=earlier) == Statements(
        denied=("new",), config_keys=(A,), file_keys=()
    )
    assert read_statements("{}", KEYS_TEXT).file_keys[0].name == "x"


def test_where_nothing_is_said_anew_the_settings_stay_the_same():
    settings = AccessSettings(api_keys=(A,))

    assert restrain(settings, before=NO_STATEMENTS, now=NO_STATEMENTS) is settings


@pytest.mark.parametrize("part", ["file_keys", "config_keys"])
def test_a_key_that_is_revoked_now_is_revoked_and_no_other(part):
    settings = AccessSettings(api_keys=(A, B))

    found = restrain(settings, before=Statements(**{part: (A, B)}), now=Statements(**{part: (REVOKED_A, B)}))

    assert found.api_keys == (REVOKED_A, B)


def test_a_key_that_is_no_longer_listed_goes():
    settings = AccessSettings(api_keys=(A, B))

    assert restrain(settings, before=Statements(file_keys=(A, B)), now=Statements(file_keys=(B,))).api_keys == (B,)


def test_a_key_that_never_stood_in_a_file_stays():
    settings = AccessSettings(api_keys=(A, B, C))

    found = restrain(settings, before=Statements(file_keys=(A, B)), now=Statements(file_keys=(B,)))

    assert found.api_keys == (B, C)


def test_a_key_that_moved_from_one_file_to_the_other_stays():
    settings = AccessSettings(api_keys=(A,))

    assert restrain(settings, before=Statements(file_keys=(A,)), now=Statements(config_keys=(A,))).api_keys == (A,)


def test_a_new_key_and_wider_scopes_come_only_with_the_version_itself():
    settings = AccessSettings(api_keys=(A,))
    now = Statements(file_keys=(replace(A, scopes=frozenset({"read", "ingest"}), roles=("ops",)), B))

    assert restrain(settings, before=Statements(file_keys=(A,)), now=now).api_keys == (A,)


@pytest.mark.parametrize(("old", "new", "expected"), [(None, 1, 1), (2, 1, 1), (1, 2, 1), (1, None, 1)])
def test_the_earlier_end_counts(old, new, expected):
    def ending(hours: int | None) -> ApiKeySetting:
        return replace(A, expires_at=None if hours is None else NOON + timedelta(hours=hours))

    settings = AccessSettings(api_keys=(ending(old),))
    found = restrain(settings, before=Statements(file_keys=(ending(old),)), now=Statements(file_keys=(ending(new),)))

    assert found.api_keys == (ending(expected),)


def test_a_revocation_is_not_taken_back():
    settings = AccessSettings(api_keys=(REVOKED_A,))

    found = restrain(settings, before=Statements(file_keys=(REVOKED_A,)), now=Statements(file_keys=(A,)))

    assert found.api_keys == (REVOKED_A,)


def test_denials_are_added_and_none_is_taken_away():
    settings = AccessSettings(oidc=OIDC, denied=("i|a", "i|b"))

    found = restrain(settings, before=Statements(denied=("i|a", "i|b")), now=Statements(denied=("i|b", "i|c")))

    assert found.denied == ("i|a", "i|b", "i|c")


@pytest.mark.parametrize(("oidc", "expected"), [(None, (A,)), (OIDC, ())])
def test_an_empty_list_says_nothing_where_keys_are_the_only_way_in(oidc, expected):
    settings = AccessSettings(api_keys=(A,), oidc=oidc)

    assert restrain(settings, before=Statements(file_keys=(A,)), now=NO_STATEMENTS).api_keys == expected
