"""Tests of `oidc.keys`."""

import pytest

from micromegas_jupyter.errors import ProviderMisbehaved
from micromegas_jupyter.oidc.keys import MAX_KEYS, parse_key_set
from tests.fakes.mint import ec_key, ed448_key, ed25519_key, encode, encode_number, rsa_key


def test_keys_of_all_accepted_kinds_are_imported_in_order():
    keys = parse_key_set({"keys": [rsa_key().jwk(), ec_key().jwk(), ed25519_key().jwk(), ed448_key().jwk()]})

    assert [(key.key_type, key.curve, key.key_id, key.algorithm) for key in keys.keys] == [
        ("RSA", None, "rsa", "RS256"),
        ("EC", "P-256", "ec", "ES256"),
        ("OKP", "Ed25519", "ed", "EdDSA"),
        ("OKP", "Ed448", "ed448", "EdDSA"),
    ]
    assert keys.ignored_count == 0


def test_name_use_and_algorithm_may_be_absent():
    keys = parse_key_set({"keys": [rsa_key().jwk(kid=None, use=None, alg=None)]})

    assert (keys.keys[0].key_id, keys.keys[0].algorithm) == (None, None)


def test_members_that_nobody_needs_do_not_cost_the_key():
    keys = parse_key_set({"keys": [rsa_key().jwk(x5u=5, x5c="?", x5t=[], extra={"a": 1})]})

    assert len(keys.keys) == 1


def test_the_usual_slip_for_es512_means_es512():
    keys = parse_key_set({"keys": [ec_key("slip", "P-521").jwk(alg="ES521")]})

    assert keys.keys[0].algorithm == "ES512"


def _roca_like_modulus() -> int:
    # A number that is a power of 65537 modulo each odd prime up to 167, built by the Chinese remainder theorem.
    primes = [number for number in range(3, 168) if all(number % smaller for smaller in range(2, number))]
    product = 1
    for prime in primes:
        product *= prime
    candidate = pow(65537, 1000, product)
    step = 2 * product
    start = candidate if candidate % 2 else candidate + product
    return start + step * ((2**2047 - start) // step + 1)


@pytest.mark.parametrize(
    "unusable",
    [
        pytest.param(None, id="null"),
        pytest.param("key", id="text"),
        pytest.param([], id="list"),
        pytest.param({}, id="empty object"),
        pytest.param({"kty": "oct", "k": "c2VjcmV0"}, id="symmetric"),
        pytest.param({"kty": "AKP", "alg": "ML-DSA-44"}, id="unknown type"),
        pytest.param({"kty": ["RSA"]}, id="type is a list"),
        pytest.param(rsa_key().jwk(d="AQAB"), id="private part"),
        pytest.param(ec_key().jwk(d="AQAB"), id="private part of a curve key"),
        pytest.param(rsa_key().jwk(oth=[]), id="other primes"),
        pytest.param(rsa_key().jwk(use="enc"), id="for encryption"),
        pytest.param(rsa_key().jwk(use=1), id="use is a number"),
        pytest.param(rsa_key().jwk(key_ops=["encrypt"]), id="for another operation"),
        pytest.param(rsa_key().jwk(key_ops="verify"), id="operations are text"),
        pytest.param(rsa_key().jwk(kid=5), id="name is a number"),
        pytest.param(rsa_key().jwk(alg=["RS256"]), id="algorithm is a list"),
        pytest.param(rsa_key().jwk(n=None), id="no modulus"),
        pytest.param(rsa_key().jwk(n=""), id="empty modulus"),
        pytest.param(rsa_key().jwk(n=5), id="modulus is a number"),
        pytest.param(rsa_key().jwk(n="A" * 3000), id="endless modulus"),
        pytest.param(rsa_key().jwk(n="?!"), id="modulus is not base64url"),
        pytest.param(rsa_key().jwk(n="é" * 400), id="modulus is not ASCII"),
        pytest.param(rsa_key().jwk(n=encode_number((1 << 1023) + 1)), id="1024 bits"),
        pytest.param(rsa_key().jwk(n=encode_number((1 << 2046) + 1)), id="2047 bits"),
        pytest.param(rsa_key().jwk(n=encode_number((1 << 8192) + 1)), id="8193 bits"),
        pytest.param(rsa_key().jwk(n=encode_number(1 << 2047)), id="even modulus"),
        pytest.param(rsa_key().jwk(n=encode_number(_roca_like_modulus())), id="broken generator"),
        pytest.param(rsa_key().jwk(e=encode_number(1)), id="exponent one"),
        pytest.param(rsa_key().jwk(e=encode_number(65536)), id="even exponent"),
        pytest.param(rsa_key().jwk(e=encode_number((1 << 64) + 1)), id="endless exponent"),
        pytest.param(ec_key().jwk(y=ec_key().jwk()["x"]), id="point off the curve"),
        pytest.param(ec_key().jwk(crv="P-384"), id="another curve's point"),
        pytest.param(ec_key().jwk(crv="secp256k1"), id="curve that no algorithm uses"),
        pytest.param(ec_key().jwk(crv=["P-256"]), id="curve is a list"),
        pytest.param(ec_key().jwk(crv=None), id="no curve"),
        pytest.param(ec_key().jwk(kty="RSA"), id="curve key called RSA"),
        pytest.param(ed25519_key().jwk(x=encode(b"short")), id="Ed25519 key of five bytes"),
        pytest.param(ed25519_key().jwk(crv="X25519"), id="key agreement"),
    ],
)
def test_an_unusable_key_is_left_out_and_the_others_stay(unusable):
    keys = parse_key_set({"keys": [unusable, ec_key().jwk()]})

    assert [key.key_id for key in keys.keys] == ["ec"]
    assert keys.ignored_count == 1


def test_keys_after_the_first_hundred_are_left_out():
    keys = parse_key_set({"keys": [ec_key().jwk()] * (MAX_KEYS + 5)})

    assert (len(keys.keys), keys.ignored_count) == (100, 5)


def test_a_set_of_only_unusable_keys_is_empty():
    keys = parse_key_set({"keys": [{"kty": "oct"}]})

    assert (keys.keys, keys.ignored_count) == ((), 1)


@pytest.mark.parametrize("document", [None, [], "keys", {}, {"keys": {}}, {"keys": None}, {"keys": []}])
def test_a_document_without_keys_is_the_providers_fault(document):
    with pytest.raises(ProviderMisbehaved):
        parse_key_set(document)
