"""Tests of `oidc.jws`."""

import json

import pytest

from micromegas_jupyter.oidc.jws import MAX_TOKEN_BYTES, TokenProblem, decode_base64url, parse_token
from tests.fakes.mint import AUDIENCE, ISSUER, NOW_SECONDS, encode, encode_json, mint, mint_raw


def reason_of(token: str) -> str:
    with pytest.raises(TokenProblem) as caught:
        parse_token(token)
    return caught.value.reason


def test_a_token_comes_apart_into_header_claims_signing_input_and_signature():
    parsed = parse_token("eyJhbGciOiJSUzI1NiIsImtpZCI6ImEifQ.eyJzdWIiOiJiIn0.AQI")

    assert parsed.header == {"alg": "RS256", "kid": "a"}
    assert parsed.claims == {"sub": "b"}
    assert parsed.signing_input == b"eyJhbGciOiJSUzI1NiIsImtpZCI6ImEifQ.eyJzdWIiOiJiIn0"
    assert parsed.signature == b"\x01\x02"
    assert (parsed.algorithm, parsed.key_id) == ("RS256", "a")


def test_a_token_without_a_key_name_has_none():
    assert parse_token(mint(header={"kid": None})).key_id is None


def test_the_representation_of_a_parsed_token_shows_none_of_it():
    parsed = parse_token(mint(subject="somebody"))

    assert repr(parsed) == "ParsedToken()"


def test_header_and_claims_cannot_be_changed():
    parsed = parse_token(mint())

    with pytest.raises(TypeError):
        parsed.claims["sub"] = "mallory"  # type: ignore[index]


def test_embedded_keys_and_links_are_carried_along_unread():
    parsed = parse_token(mint(header={"jku": 5, "x5u": ["x"], "jwk": {"kty": "RSA"}, "x5c": "?"}))

    assert parsed.claims["iss"] == ISSUER


@pytest.mark.parametrize("kind", [None, "JWT", "jwt", "at+jwt", "AT+JWT", "application/at+jwt"])
def test_types_of_plain_tokens_are_accepted_in_any_case(kind):
    assert parse_token(mint(header={"typ": kind})).claims["aud"] == AUDIENCE


def test_a_token_of_the_greatest_size_is_read():
    empty = mint_raw(b'{"a":""}', header={"kid": None})
    filler = "x" * ((MAX_TOKEN_BYTES - len(empty)) * 3 // 4)

    token = mint_raw(f'{{"a":"{filler}"}}'.encode(), header={"kid": None})

    assert MAX_TOKEN_BYTES - 4 < len(token) <= MAX_TOKEN_BYTES
    assert parse_token(token).claims == {"a": filler}


CLAIMS = encode_json({"exp": NOW_SECONDS})
HEADER = encode_json({"alg": "RS256"})


def with_claims(payload: bytes) -> str:
    return f"{HEADER}.{encode(payload)}.AQ"


def with_header(header: bytes) -> str:
    return f"{encode(header)}.{CLAIMS}.AQ"


@pytest.mark.parametrize(
    ("token", "reason"),
    [
        ("", "token_empty"),
        ("a" * (MAX_TOKEN_BYTES + 1), "token_too_large"),
        (f"{HEADER}.{CLAIMS}.é", "token_not_ascii"),
        (f"{HEADER}.{CLAIMS}", "not_three_segments"),
        (f"{HEADER}.{CLAIMS}.AQ.AQ", "not_three_segments"),
        (f"{HEADER}.{CLAIMS}.", "signature_missing"),
        (f".{CLAIMS}.AQ", "header_malformed"),
        (f"{HEADER}..AQ", "claims_malformed"),
        (f" {HEADER}.{CLAIMS}.AQ", "not_base64url"),
        (f"{HEADER}.{CLAIMS}.AQ\n", "not_base64url"),
        (f"{HEADER}.{CLAIMS}.AQ==", "not_base64url"),
        (f"{HEADER}.{CLAIMS}.AR", "not_base64url"),
        (f"{HEADER}.{CLAIMS}.A", "not_base64url"),
        (f"{HEADER}.{CLAIMS}.+/+/", "not_base64url"),
        (f"{HEADER}.{CLAIMS}.A?QI", "not_base64url"),
        (with_header(b"[]"), "header_malformed"),
        (with_header(b"{"), "header_malformed"),
        (with_header(json.dumps({"typ": "JWT"}).encode()), "algorithm_missing"),
        (with_header(json.dumps({"alg": 5}).encode()), "algorithm_missing"),
        (with_header(json.dumps({"alg": None}).encode()), "algorithm_missing"),
        (with_claims(b"null"), "claims_malformed"),
        (with_claims(b'{"a":1,"a":2}'), "claims_malformed"),
        (with_claims(b'{"a":NaN}'), "claims_malformed"),
        (with_claims(b'{"a":1e400}'), "claims_malformed"),
        (with_claims(b'{"a":"\xff"}'), "claims_malformed"),
        (with_claims('{"a":1}'.encode("utf-16")), "claims_malformed"),
        (with_claims('{"a":1}'.encode("utf-8-sig")), "claims_malformed"),
        (with_claims(rb'{"a":"\ud800"}'), "claims_malformed"),
        (with_claims(b'{"a":' + b"[" * 40 + b"]" * 40 + b"}"), "claims_malformed"),
    ],
)
def test_each_form_with_a_second_reading_is_refused(token, reason):
    assert reason_of(token) == reason


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"crit": ["exp"]}, "critical_extension"),
        ({"crit": []}, "critical_extension"),
        ({"b64": False}, "critical_extension"),
        ({"b64": True}, "critical_extension"),
        ({"typ": "logout+jwt"}, "type_not_accepted"),
        ({"typ": "dpop+jwt"}, "type_not_accepted"),
        ({"typ": "secevent+jwt"}, "type_not_accepted"),
        ({"typ": "JOSE"}, "type_not_accepted"),
        ({"typ": ""}, "type_not_accepted"),
        ({"typ": 1}, "type_not_accepted"),
        ({"kid": 1}, "key_id_malformed"),
        ({"kid": "k" * 1025}, "key_id_malformed"),
    ],
)
def test_each_header_that_is_not_accepted_has_its_reason(change, reason):
    assert reason_of(mint(header=change)) == reason


def test_base64url_is_decoded_in_its_canonical_form_only():
    assert decode_base64url("_-8") == b"\xff\xef"
    with pytest.raises(TokenProblem):
        decode_base64url("_-9")
