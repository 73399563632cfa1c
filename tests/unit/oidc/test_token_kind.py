"""Tests of `oidc.token_kind`."""

import pytest

from micromegas_jupyter.config.access import TokenKind
from micromegas_jupyter.oidc.claims import check_kind, check_rfc9068, kind_of
from micromegas_jupyter.oidc.jws import ParsedToken, TokenProblem

ACCESS_HEADER = {"alg": "RS256", "typ": "at+jwt"}


def token(header: dict[str, object] | None = None, **claims: object) -> ParsedToken:
    return ParsedToken(header={"alg": "RS256", **(header or {})}, claims=claims, signing_input=b"", signature=b"x")


@pytest.mark.parametrize(
    ("header", "claims", "kind"),
    [
        ({"typ": "at+jwt"}, {}, TokenKind.ACCESS),
        ({"typ": "AT+JWT"}, {}, TokenKind.ACCESS),
        ({"typ": "application/at+jwt"}, {}, TokenKind.ACCESS),
        ({"typ": "at+jwt"}, {"token_use": "id", "nonce": "n", "at_hash": "x"}, TokenKind.ACCESS),
        ({}, {"token_use": "access"}, TokenKind.ACCESS),
        ({}, {"token_use": "id"}, TokenKind.ID),
        ({}, {"token_use": "id", "typ": "Bearer", "scope": "openid"}, TokenKind.ID),
        ({}, {"typ": "Bearer"}, TokenKind.ACCESS),
        ({}, {"typ": "bearer", "at_hash": "x"}, TokenKind.ACCESS),
        ({}, {"typ": "ID"}, TokenKind.ID),
        ({}, {"typ": "id", "scope": "openid"}, TokenKind.ID),
        ({}, {"at_hash": "x"}, TokenKind.ID),
        ({}, {"c_hash": "x", "scp": ["read"]}, TokenKind.ID),
        ({}, {"scope": "openid"}, TokenKind.ACCESS),
        ({}, {"scope": "", "nonce": "n"}, TokenKind.ACCESS),
        ({}, {"scp": ["read"]}, TokenKind.ACCESS),
        ({}, {"nonce": "n"}, TokenKind.ID),
        ({}, {}, None),
        ({"typ": "JWT"}, {"typ": "JWT", "token_use": "session"}, None),
        ({}, {"token_use": 5, "typ": ["ID"]}, None),
        ({"typ": 5}, {}, None),
    ],
)
def test_the_first_mark_in_order_says_what_a_token_is(header, claims, kind):
    assert kind_of(token(header, **claims)) is kind


@pytest.mark.parametrize("wanted", list(TokenKind))
def test_a_token_without_marks_passes_for_every_kind(wanted):
    check_kind(token(), wanted)


@pytest.mark.parametrize("claims", [{"nonce": "n"}, {"scope": "read"}])
def test_either_kind_passes_where_both_are_wanted(claims):
    check_kind(token(**claims), TokenKind.EITHER)


def test_the_wanted_kind_passes():
    check_kind(token(nonce="n"), TokenKind.ID)
    check_kind(token(scope="read"), TokenKind.ACCESS)


@pytest.mark.parametrize(
    ("claims", "wanted", "reason"),
    [
        ({"nonce": "n"}, TokenKind.ACCESS, "id_token_as_access_token"),
        ({"scope": "read"}, TokenKind.ID, "access_token_as_id_token"),
    ],
)
def test_the_other_kind_is_refused(claims, wanted, reason):
    with pytest.raises(TokenProblem) as caught:
        check_kind(token(**claims), wanted)

    assert caught.value.reason == reason


@pytest.mark.parametrize("kind", ["at+jwt", "At+Jwt", "application/at+jwt"])
def test_an_access_token_of_rfc_9068_passes(kind):
    check_rfc9068(token({"typ": kind}, client_id="notebook", jti="1"))


@pytest.mark.parametrize(
    ("header", "claims", "reason"),
    [
        ({}, {"client_id": "c", "jti": "1"}, "type_not_at_jwt"),
        ({"typ": "JWT"}, {"client_id": "c", "jti": "1"}, "type_not_at_jwt"),
        (ACCESS_HEADER, {"jti": "1"}, "client_id_missing"),
        (ACCESS_HEADER, {"client_id": "", "jti": "1"}, "client_id_malformed"),
        (ACCESS_HEADER, {"client_id": None, "jti": "1"}, "client_id_malformed"),
        (ACCESS_HEADER, {"client_id": ["c"], "jti": "1"}, "client_id_malformed"),
        (ACCESS_HEADER, {"client_id": "c"}, "token_id_missing"),
        (ACCESS_HEADER, {"client_id": "c", "jti": 1}, "token_id_malformed"),
        (ACCESS_HEADER, {"client_id": "c", "jti": ""}, "token_id_malformed"),
    ],
)
def test_each_deviation_from_rfc_9068_has_its_reason(header, claims, reason):
    with pytest.raises(TokenProblem) as caught:
        check_rfc9068(token(header, **claims))

    assert caught.value.reason == reason
