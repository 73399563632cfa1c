"""Tests of `access.credential`."""

import hashlib

import pytest

from micromegas_jupyter.access.validator import digest_name, plausible_digest, token_digest, token_name


@pytest.mark.parametrize("token", ["", "key", "clé", "\ud800", "a\udfffb"], ids=ascii)
def test_both_ways_to_a_digest_agree_for_every_text(token):
    expected = hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()

    assert token_digest(token) == plausible_digest(token) == expected


def test_texts_that_differ_in_half_a_character_have_different_digests():
    assert len({token_digest(text) for text in ("\ud800", "\udbff", "?", "\ufffd")}) == 4


@pytest.mark.parametrize("token", ["x" * 16385, None, 5, b"key"], ids=["huge", "None", "5", "bytes"])
def test_what_is_not_plausible_has_no_digest_and_a_name_that_says_so(token):
    assert plausible_digest(token) is None
    assert token_name(token) == "implausible"


def test_a_credential_goes_by_eight_digits_of_its_digest():
    assert token_name("key") == digest_name(hashlib.sha256(b"key").digest()) == "2c70e12b"
