"""Tests of `oidc.jws`: tokens as text, published keys, and signatures."""

import dataclasses

import pytest

from micromegas_jupyter.errors import ProviderMisbehaved
from micromegas_jupyter.oidc import jwt
from micromegas_jupyter.oidc.jwt import parse_key_set, parse_token, verify_signature
from tests.fakes.mint import ec_key, ed448_key, ed25519_key, encode, encode_number, mint, mint_raw, rsa_key


def test_a_token_comes_apart_into_header_claims_signing_input_and_signature():
    parsed = parse_token("eyJhbGciOiJSUzI1NiIsImtpZCI6ImEifQ.eyJzdWIiOiJiIn0.AQI")

    assert parsed.header == {"alg": "RS256", "kid": "a"}
    assert parsed.claims == {"sub": "b"}
    assert parsed.signing_input == b"eyJhbGciOiJSUzI1NiIsImtpZCI6ImEifQ.eyJzdWIiOiJiIn0"
    assert parsed.signature == b"\x01\x02"
    assert repr(parsed) == "ParsedToken()"
    assert (parsed.algorithm, parsed.key_id) == ("RS256", "a")


def test_what_one_caller_does_to_claims_or_header_does_not_reach_the_next():
    token = mint_raw(b'{"groups":["a"]}', header={"kid": None})
    parsed = parse_token(token)

    parsed.claims["groups"].append("b")
    with pytest.raises(TypeError):
        parsed.header["alg"] = "none"

    assert parse_token(token).claims == {"groups": ["a"]}


def test_a_token_of_the_greatest_size_is_read():
    empty = mint_raw(b'{"a":""}', header={"kid": None})
    filler = "x" * ((jwt.MAX_TOKEN_BYTES - len(empty)) * 3 // 4)

    token = mint_raw(f'{{"a":"{filler}"}}'.encode(), header={"kid": None})

    assert jwt.MAX_TOKEN_BYTES - 4 < len(token) <= jwt.MAX_TOKEN_BYTES
    assert parse_token(token).claims == {"a": filler}
    with pytest.raises(jwt.TokenProblem, match="token_too_large"):
        parse_token("a" * (jwt.MAX_TOKEN_BYTES + 1))


def test_keys_of_all_accepted_kinds_are_imported_in_order():
    slip = ec_key("slip", "P-521").jwk(alg="ES521")
    keys = parse_key_set({"keys": [rsa_key().jwk(), ec_key().jwk(), ed25519_key().jwk(), ed448_key().jwk(), slip]})

    assert [(key.key_type, key.curve, key.key_id, key.algorithm) for key in keys.keys] == [
        ("RSA", None, "rsa", "RS256"),
        ("EC", "P-256", "ec", "ES256"),
        ("OKP", "Ed25519", "ed", "EdDSA"),
        ("OKP", "Ed448", "ed448", "EdDSA"),
        ("EC", "P-521", "slip", "ES512"),  # the usual slip for ES512
    ]
    assert keys.ignored_count == 0


def _roca_like_modulus():
    # A number that is a power of 65537 modulo each odd prime up to 167, built by the Chinese remainder theorem.
    primes = [number for number in range(3, 168) if all(number % smaller for smaller in range(2, number))]
    product = 1
    for prime in primes:
        product *= prime
    candidate = pow(65537, 1000, product)
    step = 2 * product
    start = candidate if candidate % 2 else candidate + product
    return start + step * ((2**2047 - start) // step + 1)


def changed(make, *changes):
    """Return a key with each of the changes."""
    return [pytest.param(make().jwk(**change), id=f"{make.__name__} {change!a:.60}") for change in changes]


@pytest.mark.parametrize(
    "unusable",
    [
        None, "key", [], {}, {"kty": "oct", "k": "c2VjcmV0"}, {"kty": "AKP", "alg": "ML-DSA-44"}, {"kty": ["RSA"]},
        # A private part, other primes, another use or operation, and members of the wrong type.
        *changed(
            rsa_key, {"d": "AQAB"}, {"oth": []}, {"use": "enc"}, {"use": 1}, {"key_ops": ["encrypt"]},
            {"key_ops": "verify"}, {"kid": 5}, {"alg": ["RS256"]},
        ),
        # A modulus that is missing, no number, too short, too long, even, and of a broken generator.
        *changed(rsa_key, *({"n": modulus} for modulus in (None, "", 5, "A" * 3000, "?!", "é" * 400))),
        *changed(rsa_key, *({"n": encode_number((1 << bits) + 1)} for bits in (1023, 2046, 8192))),
        *changed(rsa_key, *({"n": encode_number(modulus)} for modulus in (1 << 2047, _roca_like_modulus()))),
        # An exponent that is one, even or endless.
        *changed(rsa_key, *({"e": encode_number(exponent)} for exponent in (1, 65536, (1 << 64) + 1))),
        pytest.param(ec_key().jwk(y=ec_key().jwk()["x"]), id="point off the curve"),
        *changed(ec_key, *({"crv": curve} for curve in ("P-384", "secp256k1", ["P-256"], None))),
        *changed(ec_key, {"d": "AQAB"}, {"kty": "RSA"}),
        *changed(ed25519_key, {"x": encode(b"short")}, {"crv": "X25519"}),
    ],
)  # fmt: skip
def test_an_unusable_key_is_left_out_and_the_others_stay(unusable):
    keys = parse_key_set({"keys": [unusable, ec_key().jwk()]})

    assert ([key.key_id for key in keys.keys], keys.ignored_count) == (["ec"], 1)


def test_keys_after_the_first_thousand_are_left_out():
    keys = parse_key_set({"keys": [ec_key().jwk()] * (jwt.MAX_KEYS + 5)})

    assert (len(keys.keys), keys.ignored_count) == (1000, 5)


@pytest.mark.parametrize("document", [None, [], "keys", {}, {"keys": {}}, {"keys": None}, {"keys": []}])
def test_a_document_without_keys_is_the_providers_fault(document):
    with pytest.raises(ProviderMisbehaved):
        parse_key_set(document)


# Points for which anybody can write signatures: their order divides the curve's cofactor. The third is of order eight.
P25519 = 2**255 - 19
P448 = 2**448 - 2**224 - 1
Y8 = int.from_bytes(bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"), "little")


@pytest.mark.parametrize("sign", [0, 1])
@pytest.mark.parametrize(
    ("key", "size", "y"),
    [
        *((ed25519_key(), 32, y) for y in (0, 1, P25519 - 1, Y8, P25519 - Y8, P25519, P25519 + 1)),
        *((ed448_key(), 57, y) for y in (0, 1, P448 - 1)),
    ],
)
def test_a_key_of_small_order_is_left_out(key, size, y, sign):
    point = (y | sign << (8 * size - 1)).to_bytes(size, "little")
    keys = parse_key_set({"keys": [key.jwk(x=encode(point)), ec_key().jwk()]})

    assert [key.key_id for key in keys.keys] == ["ec"]


OF_A_KEY = "https://login.example.com/t1/v2.0"
ANY_TENANT = "https://login.example.com/{tenantid}/v2.0"


@pytest.mark.parametrize(
    ("issuers", "tenant", "used"),
    [
        ((OF_A_KEY, ANY_TENANT, None), "t1", ["0", "1", "2"]),
        (("https://login.example.com/t2/v2.0", OF_A_KEY), "t1", ["1"]),
        ((1, [OF_A_KEY], {"a": 1}, OF_A_KEY), "t1", ["3"]),
        ((ANY_TENANT, OF_A_KEY), None, ["1"]),
        (("https://evil.example.com/{tenantid}/v2.0", "{tenantid}"), "t1", []),
    ],
    ids=["own, all and nobody's", "another tenant's", "no text", "without a tenant", "the place alone"],
)
def test_of_a_provider_with_many_tenants_only_keys_for_this_one_are_used(issuers, tenant, used):
    listed = [ec_key(str(number)).jwk(issuer=issuer) for number, issuer in enumerate(issuers)]

    keys = parse_key_set({"keys": listed}, issuer=OF_A_KEY, tenant=tenant).keys

    assert [key.key_id for key in keys] == used


ALL_KEYS = [
    rsa_key(), rsa_key("rs384", "RS384"), rsa_key("rs512", "RS512"), rsa_key("ps256", "PS256"),
    rsa_key("ps384", "PS384"), rsa_key("ps512", "PS512"), ec_key(), ec_key("ec384", "P-384"),
    ec_key("ec521", "P-521"), ed25519_key(), ed448_key(),
    dataclasses.replace(ed25519_key(), algorithm="Ed25519"),  # the newer name
]  # fmt: skip


def key_set(*keys, **changes):
    return parse_key_set({"keys": [key.jwk(**changes) for key in keys]})


def reason_of(token, keys, **options):
    with pytest.raises(jwt.TokenProblem) as caught:
        verify_signature(parse_token(token), keys, **options)
    return caught.value.reason


@pytest.mark.parametrize("key", ALL_KEYS, ids=lambda key: key.kid)
def test_every_accepted_algorithm_verifies_its_own_signature(key):
    verify_signature(parse_token(mint(key=key)), key_set(key))


@pytest.mark.parametrize("algorithm", ["none", "None", "HS256", "HS512", "RS1", "ES256K", "dir", ""])
def test_no_setting_makes_another_algorithm_acceptable(algorithm):
    parsed = parse_token(mint(header={"alg": algorithm}))

    with pytest.raises(jwt.TokenProblem, match="algorithm_not_allowed"):
        jwt.check_algorithm(parsed, jwt.DEFAULT_ALGORITHMS | {algorithm})


@pytest.mark.parametrize(
    ("key", "algorithm"),
    [(rsa_key(), "ES256"), (ec_key(), "ES384"), (ed448_key(), "Ed25519")],
    ids=["another type", "another curve", "Ed448"],
)
def test_a_named_key_of_another_kind_is_never_tried(key, algorithm):
    token = mint(key=key, header={"alg": algorithm})

    assert reason_of(token, key_set(key, alg=None)) == "key_does_not_fit"


def test_two_keys_of_one_name_are_told_apart_by_their_kind():
    keys = key_set(ec_key("same"), rsa_key("same"))

    verify_signature(parse_token(mint(key=rsa_key("same"))), keys)


def test_without_a_key_name_at_most_ten_keys_are_tried():
    token = parse_token(mint(key=ec_key("last"), header={"kid": None}))
    nine = key_set(*[ec_key()] * 9, ec_key("last"))
    ten = key_set(*[ec_key()] * 10, ec_key("last"))

    verify_signature(token, nine)
    with pytest.raises(jwt.UnknownKey):
        verify_signature(token, ten)


def test_whatever_the_library_raises_the_signature_does_not_verify():
    class BrokenKey:
        def verify(self, *_arguments):
            raise KeyError("broken")

    broken = jwt.VerificationKey(key=BrokenKey(), key_id="rsa", algorithm=None, key_type="RSA", curve=None)

    assert reason_of(mint(), jwt.KeySet(keys=(broken,))) == "signature_wrong"
