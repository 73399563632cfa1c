from __future__ import annotations

from dataclasses import replace

import pytest

from micromegas_jupyter.auth.sign_in_entry import SignInEntry

ENTRY = SignInEntry(issuer="https://id.example.com", client_id="notebook", audience="lake", scope="openid api")
DIFFERENT = [
    replace(ENTRY, issuer="https://id.example.com/"),
    replace(ENTRY, client_id="other"),
    replace(ENTRY, audience="pond"),
    replace(ENTRY, audience=None),
    replace(ENTRY, scope="openid"),
    replace(ENTRY, scope="openid api more"),
    replace(ENTRY, resource="https://lake.example.com"),
]


@pytest.mark.parametrize("other", DIFFERENT)
def test_a_sign_in_never_answers_for_one_that_differs_in_anything(other: SignInEntry) -> None:
    assert not ENTRY.answers(other)
    assert not other.answers(ENTRY)


@pytest.mark.parametrize("other", DIFFERENT)
def test_entries_that_differ_have_different_digests(other: SignInEntry) -> None:
    assert other.digest != ENTRY.digest


def test_a_digest_never_changes() -> None:
    assert ENTRY.digest == "f350cd45a98a"


def test_the_order_of_a_scope_says_nothing() -> None:
    reordered = replace(ENTRY, scope="api openid")

    assert ENTRY.answers(reordered)
    assert reordered.digest == ENTRY.digest


def test_a_stored_scope_that_is_not_known_answers_for_any() -> None:
    assert replace(ENTRY, scope=None).answers(ENTRY)


def test_a_stored_sign_in_of_which_only_the_resource_is_known_answers_for_that_resource_only() -> None:
    stored = replace(ENTRY, scope=None, resource="https://lake.example.com")

    assert stored.answers(replace(ENTRY, resource="https://lake.example.com"))
    assert not stored.answers(ENTRY)


def test_an_empty_audience_is_none() -> None:
    assert replace(ENTRY, audience="").answers(replace(ENTRY, audience=None))
