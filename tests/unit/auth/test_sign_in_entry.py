from __future__ import annotations

from dataclasses import replace

import pytest

from micromegas_jupyter.auth.tokens.format import LoginKey

KEY = LoginKey(issuer="https://id.example.com", client_id="notebook", audience="lake", scope="openid api")
DIFFERENT = [
    replace(KEY, issuer="https://id.example.com/"),
    replace(KEY, client_id="other"),
    replace(KEY, audience="pond"),
    replace(KEY, audience=None),
    replace(KEY, scope="openid"),
    replace(KEY, scope="openid api more"),
    replace(KEY, resource="https://lake.example.com"),
]


@pytest.mark.parametrize("other", DIFFERENT)
def test_a_sign_in_never_answers_for_one_that_differs_in_anything(other: LoginKey) -> None:
    assert not KEY.satisfies(other)
    assert not other.satisfies(KEY)


@pytest.mark.parametrize("other", DIFFERENT)
def test_keys_that_differ_have_different_digests(other: LoginKey) -> None:
    assert other.digest != KEY.digest


def test_a_digest_never_changes() -> None:
    assert KEY.digest == "f350cd45a98a"


def test_the_order_of_a_scope_says_nothing() -> None:
    reordered = replace(KEY, scope="api openid")

    assert KEY.satisfies(reordered)
    assert reordered.digest == KEY.digest


def test_a_stored_scope_that_is_not_known_answers_for_any() -> None:
    assert replace(KEY, scope=None).satisfies(KEY)


def test_a_stored_sign_in_of_which_only_the_resource_is_known_answers_for_that_resource_only() -> None:
    stored = replace(KEY, scope=None, resource="https://lake.example.com")

    assert stored.satisfies(replace(KEY, resource="https://lake.example.com"))
    assert not stored.satisfies(KEY)


def test_an_empty_audience_is_none() -> None:
    assert replace(KEY, audience="").satisfies(replace(KEY, audience=None))
