"""Tests of `oidc.signature`."""

import dataclasses

import msgspec
import pytest

from micromegas_jupyter.oidc.jws import (
    DEFAULT_ALGORITHMS,
    MAX_KEYS_TRIED,
    KeySet,
    TokenProblem,
    UnknownKey,
    VerificationKey,
    check_algorithm,
    parse_key_set,
    parse_token,
    verify_signature,
)
from tests.fakes.mint import SigningKey, ec_key, ed448_key, ed25519_key, mint, rsa_key

ALL_KEYS = [
    rsa_key(),
    rsa_key("rs384", "RS384"),
    rsa_key("rs512", "RS512"),
    rsa_key("ps256", "PS256"),
    rsa_key("ps384", "PS384"),
    rsa_key("ps512", "PS512"),
    ec_key(),
    ec_key("ec384", "P-384"),
    ec_key("ec521", "P-521"),
    ed25519_key(),
    ed448_key(),
]


def key_set(*keys: SigningKey, **changes: object) -> KeySet:
    return parse_key_set({"keys": [key.jwk(**changes) for key in keys]})


def reason_of(token: str, keys: KeySet, **options: frozenset[str]) -> str:
    with pytest.raises(TokenProblem) as caught:
        verify_signature(parse_token(token), keys, **options)
    return caught.value.reason


@pytest.mark.parametrize("key", ALL_KEYS, ids=lambda key: key.kid)
def test_every_accepted_algorithm_verifies_its_own_signature(key):
    verify_signature(parse_token(mint(key=key)), key_set(key))


@pytest.mark.parametrize("key", ALL_KEYS, ids=lambda key: key.kid)
def test_no_algorithm_verifies_a_signature_over_other_claims(key):
    parsed = parse_token(mint(key=key))
    other = msgspec.structs.replace(parsed, signing_input=parsed.signing_input + b"x")

    with pytest.raises(TokenProblem, match="signature_wrong"):
        verify_signature(other, key_set(key))


def test_the_default_algorithms_are_asymmetric_only():
    assert {
        *("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
        *("ES256", "ES384", "ES512", "EdDSA", "Ed25519"),
    } == DEFAULT_ALGORITHMS


@pytest.mark.parametrize("algorithm", ["none", "None", "HS256", "HS512", "RS1", "ES256K", "dir", ""])
def test_no_setting_makes_another_algorithm_acceptable(algorithm):
    parsed = parse_token(mint(header={"alg": algorithm}))

    with pytest.raises(TokenProblem, match="algorithm_not_allowed"):
        check_algorithm(parsed, DEFAULT_ALGORITHMS | {algorithm})


def test_an_algorithm_off_the_callers_list_is_refused():
    assert reason_of(mint(), key_set(rsa_key()), algorithms=frozenset({"ES256"})) == "algorithm_not_allowed"


def test_the_newer_name_of_ed25519_verifies_with_a_key_of_that_name():
    token = mint(key=dataclasses.replace(ed25519_key(), algorithm="Ed25519"))

    verify_signature(parse_token(token), key_set(ed25519_key(), alg="Ed25519"))


def test_an_unknown_key_name_may_be_in_a_newer_set():
    with pytest.raises(UnknownKey) as caught:
        verify_signature(parse_token(mint(header={"kid": "new"})), key_set(rsa_key()))

    assert caught.value.reason == "unknown_key"


@pytest.mark.parametrize(
    ("token", "published"),
    [
        pytest.param(mint(header={"alg": "PS256"}), rsa_key().jwk(), id="the key's own algorithm differs"),
        pytest.param(mint(header={"alg": "ES256"}), rsa_key().jwk(alg=None), id="the key's type differs"),
        pytest.param(mint(key=ec_key(), header={"alg": "ES384"}), ec_key().jwk(alg=None), id="the key's curve differs"),
        pytest.param(
            mint(key=ed448_key(), header={"alg": "Ed25519"}), ed448_key().jwk(alg=None), id="the key's curve is Ed448"
        ),
    ],
)
def test_a_named_key_that_does_not_fit_is_never_tried(token, published):
    assert reason_of(token, parse_key_set({"keys": [published]})) == "key_does_not_fit"


def test_two_keys_of_one_name_are_told_apart_by_their_kind():
    keys = key_set(ec_key("same"), rsa_key("same"))

    verify_signature(parse_token(mint(key=rsa_key("same"))), keys)


def test_a_token_without_a_key_name_is_verified_by_whichever_key_made_it():
    keys = key_set(ec_key(), rsa_key("first"), rsa_key("second"))

    verify_signature(parse_token(mint(key=rsa_key("second"), header={"kid": None})), keys)


def test_a_token_without_a_key_name_that_no_key_verifies_may_be_of_a_newer_key():
    token = mint(key=rsa_key("elsewhere"), header={"kid": None})

    with pytest.raises(UnknownKey):
        verify_signature(parse_token(token), key_set(rsa_key()))


def test_without_a_key_name_at_most_ten_keys_are_tried():
    token = parse_token(mint(key=ec_key("last"), header={"kid": None}))
    nine = key_set(*[ec_key()] * (MAX_KEYS_TRIED - 1), ec_key("last"))
    ten = key_set(*[ec_key()] * MAX_KEYS_TRIED, ec_key("last"))

    verify_signature(token, nine)
    with pytest.raises(UnknownKey):
        verify_signature(token, ten)


@pytest.mark.parametrize(
    ("key", "length"),
    [(ec_key(), 64), (ec_key("ec384", "P-384"), 96), (ec_key("ec521", "P-521"), 132), (ed25519_key(), 64)],
    ids=["P-256", "P-384", "P-521", "Ed25519"],
)
def test_a_signature_of_another_length_is_wrong(key, length):
    parsed = parse_token(mint(key=key))
    assert len(parsed.signature) == length

    for signature in (parsed.signature + b"\0", parsed.signature[:-1], b"\0" + parsed.signature):
        with pytest.raises(TokenProblem, match="signature_wrong"):
            verify_signature(msgspec.structs.replace(parsed, signature=signature), key_set(key))


@pytest.mark.parametrize("filler", [b"\0", b"\xff"])
def test_a_signature_of_zeros_or_ones_is_wrong(filler):
    parsed = parse_token(mint(key=ec_key()))

    with pytest.raises(TokenProblem, match="signature_wrong"):
        verify_signature(msgspec.structs.replace(parsed, signature=filler * 64), key_set(ec_key()))


def test_whatever_the_library_raises_the_signature_does_not_verify():
    class BrokenKey:
        def verify(self, *_arguments: object) -> None:
            raise KeyError("broken")

    broken = VerificationKey(
        key=BrokenKey(),  # type: ignore[arg-type]
        key_id="rsa",
        algorithm=None,
        key_type="RSA",
        curve=None,
    )

    assert reason_of(mint(), KeySet(keys=(broken,))) == "signature_wrong"
