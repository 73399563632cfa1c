"""Tokens held against an issuer that wants one kind of token, or tokens of RFC 9068."""

from __future__ import annotations

from micromegas_jupyter.config.issuers import IssuerSetting
from micromegas_jupyter.core.protocols import TokenKind
from tests.fakes.mint import AUDIENCE, ISSUER, NOW_SECONDS, mint

ACCESS_ONLY = IssuerSetting(issuer=ISSUER, audiences=(AUDIENCE,), token_kind=TokenKind.ACCESS)
ID_ONLY = IssuerSetting(issuer=ISSUER, audiences=(AUDIENCE,), token_kind=TokenKind.ID)
EITHER = IssuerSetting(issuer=ISSUER, audiences=(AUDIENCE,), token_kind=TokenKind.EITHER)
RFC_9068 = IssuerSetting(issuer=ISSUER, audiences=(AUDIENCE,), is_rfc9068=True)

AT_JWT = {"typ": "at+jwt"}


def profile(header: dict[str, object] | None = None, **changes: object) -> str:
    return mint(header={**AT_JWT, **(header or {})}, **{"client_id": "notebook", "jti": "1", **changes})  # type: ignore[arg-type]


ACCEPTED = {
    "access: header type": (ACCESS_ONLY, mint(header=AT_JWT)),
    "access: full header type": (ACCESS_ONLY, mint(header={"typ": "application/at+jwt"})),
    "access: header type in capitals": (ACCESS_ONLY, mint(header={"typ": "AT+JWT"})),
    "access: header type before an ID token's marks": (ACCESS_ONLY, mint(header=AT_JWT, nonce="n", at_hash="x")),
    "access: token_use": (ACCESS_ONLY, mint(token_use="access")),
    "access: token_use before a nonce": (ACCESS_ONLY, mint(token_use="access", nonce="n")),
    "access: Keycloak's type": (ACCESS_ONLY, mint(typ="Bearer")),
    "access: Keycloak's type in lower case": (ACCESS_ONLY, mint(typ="bearer", nonce="n")),
    "access: scope": (ACCESS_ONLY, mint(scope="read")),
    "access: scope before a nonce": (ACCESS_ONLY, mint(scope="read", nonce="n")),
    "access: list of scopes": (ACCESS_ONLY, mint(scp=["read"])),
    "access: no mark at all": (ACCESS_ONLY, mint()),
    "access: odd marks": (ACCESS_ONLY, mint(token_use=["id"], typ=5)),
    "ID: token_use": (ID_ONLY, mint(token_use="id")),
    "ID: token_use before a scope": (ID_ONLY, mint(token_use="id", scope="openid")),
    "ID: Keycloak's type": (ID_ONLY, mint(typ="ID")),
    "ID: Keycloak's type in lower case": (ID_ONLY, mint(typ="id", scope="openid")),
    "ID: hash of an access token": (ID_ONLY, mint(at_hash="x")),
    "ID: hash of an access token before a scope": (ID_ONLY, mint(at_hash="x", scope="openid")),
    "ID: hash of a code": (ID_ONLY, mint(c_hash="x")),
    "ID: nonce": (ID_ONLY, mint(nonce="n")),
    "ID: no mark at all": (ID_ONLY, mint()),
    "either: an access token": (EITHER, mint(header=AT_JWT, scope="read")),
    "either: an ID token": (EITHER, mint(nonce="n", at_hash="x")),
    "either: no issue time": (EITHER, mint(without=["iat"])),
    "RFC 9068": (RFC_9068, profile()),
    "RFC 9068: full header type": (RFC_9068, profile({"typ": "application/at+jwt"})),
    "RFC 9068: header type in capitals": (RFC_9068, profile({"typ": "At+JWT"})),
}

REFUSED = {
    "access: ID token by token_use": (ACCESS_ONLY, mint(token_use="id"), "id_token_as_access_token"),
    "access: ID token by token_use, with a scope": (
        ACCESS_ONLY,
        mint(token_use="id", scope="read"),
        "id_token_as_access_token",
    ),
    "access: ID token by Keycloak's type": (ACCESS_ONLY, mint(typ="ID"), "id_token_as_access_token"),
    "access: ID token by Keycloak's type, with a scope": (
        ACCESS_ONLY,
        mint(typ="id", scope="read"),
        "id_token_as_access_token",
    ),
    "access: ID token by a hash": (ACCESS_ONLY, mint(at_hash="x"), "id_token_as_access_token"),
    "access: ID token by a hash, with a scope": (
        ACCESS_ONLY,
        mint(at_hash="x", scope="read"),
        "id_token_as_access_token",
    ),
    "access: ID token by the hash of a code": (ACCESS_ONLY, mint(c_hash="x"), "id_token_as_access_token"),
    "access: ID token by a nonce": (ACCESS_ONLY, mint(nonce="n"), "id_token_as_access_token"),
    "access: no issue time": (ACCESS_ONLY, mint(without=["iat"], scope="read"), "issued_at_missing"),
    "access: issue time is null": (ACCESS_ONLY, mint(iat=None, scope="read"), "issued_at_malformed"),
    "access: refresh token": (ACCESS_ONLY, mint(typ="Refresh", scope="read"), "not_a_bearer_token"),
    "ID: access token by header type": (ID_ONLY, mint(header=AT_JWT), "access_token_as_id_token"),
    "ID: access token by header type, with a nonce": (
        ID_ONLY,
        mint(header=AT_JWT, nonce="n", at_hash="x"),
        "access_token_as_id_token",
    ),
    "ID: access token by token_use": (ID_ONLY, mint(token_use="access"), "access_token_as_id_token"),
    "ID: access token by Keycloak's type": (ID_ONLY, mint(typ="Bearer"), "access_token_as_id_token"),
    "ID: access token by Keycloak's type, with a hash": (
        ID_ONLY,
        mint(typ="Bearer", at_hash="x"),
        "access_token_as_id_token",
    ),
    "ID: access token by a scope": (ID_ONLY, mint(scope="read"), "access_token_as_id_token"),
    "ID: access token by an empty scope": (ID_ONLY, mint(scope="", nonce="n"), "access_token_as_id_token"),
    "ID: access token by a list of scopes": (ID_ONLY, mint(scp=["read"]), "access_token_as_id_token"),
    "ID: no issue time": (ID_ONLY, mint(without=["iat"], nonce="n"), "issued_at_missing"),
    "ID: issued in the future": (ID_ONLY, mint(iat=NOW_SECONDS + 61, nonce="n"), "issued_in_the_future"),
    "RFC 9068: type JWT": (RFC_9068, profile({"typ": "JWT"}), "type_not_at_jwt"),
    "RFC 9068: no type": (RFC_9068, profile({"typ": None}), "type_not_at_jwt"),
    "RFC 9068: another type": (RFC_9068, profile({"typ": "jwt+at"}), "type_not_accepted"),
    "RFC 9068: no application": (RFC_9068, profile(without=["client_id"]), "client_id_missing"),
    "RFC 9068: application elsewhere": (RFC_9068, profile(without=["client_id"], azp="x"), "client_id_missing"),
    "RFC 9068: application is a list": (RFC_9068, profile(client_id=["notebook"]), "client_id_malformed"),
    "RFC 9068: application is empty": (RFC_9068, profile(client_id=""), "client_id_malformed"),
    "RFC 9068: application is null": (RFC_9068, profile(client_id=None), "client_id_malformed"),
    "RFC 9068: no token id": (RFC_9068, profile(without=["jti"]), "token_id_missing"),
    "RFC 9068: token id is a number": (RFC_9068, profile(jti=1), "token_id_malformed"),
    "RFC 9068: token id is empty": (RFC_9068, profile(jti=""), "token_id_malformed"),
    "RFC 9068: no issue time": (RFC_9068, profile(without=["iat"]), "issued_at_missing"),
}
