"""Tokens held against what one issuer's setting asks: applications, claims, tenants, subjects, aliases and the rest."""

from types import MappingProxyType

from micromegas_jupyter.config.issuers import IssuerSetting
from micromegas_jupyter.core.protocols import TokenKind
from tests.fakes.mint import AUDIENCE, ISSUER, NOW_SECONDS, ec_key, mint

# Reasons that many cases share.
AS_ACCESS = "id_token_as_access_token"
AS_ID = "access_token_as_id_token"
CLIENT = "client_not_allowed"
MISMATCH = "required_claim_mismatch"
SUBJECT = "subject_not_allowed"

TENANT = "11111111-2222-3333-4444-555555555555"
ALIAS = "id.example.com"


def setting(**changes):
    return IssuerSetting(**{"issuer": ISSUER, "audiences": (AUDIENCE, "second"), **changes})


def requiring(**required):
    return setting(required_claims=MappingProxyType(required))


CLIENTS = setting(client_ids=("notebook", "job"))
USE = requiring(token_use=("access",))
TWO_CLAIMS = requiring(hd=("example.com", "example.org"), level=(2, 3))
FLAG = requiring(is_member=(True,))
LITERAL = requiring(**{"https://lake.example.com/roles": ("reader",), "a.b": ("c",)})
TENANTED = setting(tenant=TENANT)
OBJECT_ID = setting(subject_claim="oid")
SUBJECTS = setting(subjects=("alice", "system:serviceaccount:obs:*", "repo:octo/lake*"))
ALIASED = setting(aliases=(ALIAS, "https://old.example.com/"))
NO_AUDIENCE = setting(
    audiences=(), client_ids=("notebook",), required_claims=MappingProxyType({"token_use": ("access",)})
)
RSA_ONLY = setting(algorithms=frozenset({"RS256"}))
STRICT_CLOCK = setting(leeway_seconds=0)
SHORT_LEEWAY = setting(leeway_seconds=5)


def without_audience(**changes):
    claims = {"without": ["aud"], "client_id": "notebook", "token_use": "access", **changes}
    return mint(**claims)


ACCEPTED = {
    "client: azp": (CLIENTS, mint(azp="notebook")),
    "client: client_id": (CLIENTS, mint(client_id="job")),
    "client: appid": (CLIENTS, mint(appid="notebook")),
    "client: cid": (CLIENTS, mint(cid="notebook")),
    "client: two places, one application": (CLIENTS, mint(azp="job", client_id="job")),
    "client: two places, two accepted applications": (CLIENTS, mint(azp="notebook", appid="job")),
    "required: text": (USE, mint(token_use="access")),
    "required: a list that holds it": (USE, mint(token_use=["x", "access"])),
    "required: two claims": (TWO_CLAIMS, mint(hd="example.org", level=2)),
    "required: number in a list": (TWO_CLAIMS, mint(hd="example.com", level=[1, 3])),
    "required: true": (FLAG, mint(is_member=True)),
    "required: names taken literally": (LITERAL, mint(**{"https://lake.example.com/roles": ["reader"], "a.b": "c"})),
    "tenant": (TENANTED, mint(tid=TENANT)),
    "subject: another claim": (OBJECT_ID, mint(oid="alice-1")),
    "subject: another claim without sub": (OBJECT_ID, mint(oid="alice-1", without=["sub"])),
    "subject: another claim, odd sub": (OBJECT_ID, mint(oid="alice-1", subject=5)),
    "subject: listed": (SUBJECTS, mint()),
    "subject: prefix": (SUBJECTS, mint(subject="system:serviceaccount:obs:reader")),
    "subject: prefix and nothing more": (SUBJECTS, mint(subject="system:serviceaccount:obs:")),
    "subject: prefix without a separator": (SUBJECTS, mint(subject="repo:octo/lakehouse:ref:refs/heads/main")),
    "alias: the issuer itself": (ALIASED, mint()),
    "alias: first": (ALIASED, mint(issuer=ALIAS)),
    "alias: second": (ALIASED, mint(issuer="https://old.example.com/")),
    "no audience": (NO_AUDIENCE, without_audience()),
    "algorithm: the listed one": (RSA_ONLY, mint()),
    "clock: to the second": (STRICT_CLOCK, mint(expires_in=1, nbf=NOW_SECONDS, iat=NOW_SECONDS)),
    "clock: within a short leeway": (SHORT_LEEWAY, mint(expires_in=-4, nbf=NOW_SECONDS + 5, iat=NOW_SECONDS + 5)),
}

REFUSED = {
    # client
    "client: none": (CLIENTS, mint(), CLIENT),
    "client: another": (CLIENTS, mint(azp="other"), CLIENT),
    "client: in capitals": (CLIENTS, mint(azp="Notebook"), CLIENT),
    "client: with a space": (CLIENTS, mint(azp="notebook "), CLIENT),
    "client: cut short": (CLIENTS, mint(cid="note"), CLIENT),
    "client: empty": (CLIENTS, mint(azp=""), CLIENT),
    "client: null": (CLIENTS, mint(azp=None), CLIENT),
    "client: a list": (CLIENTS, mint(azp=["notebook"]), CLIENT),
    "client: an object": (CLIENTS, mint(azp={"notebook": 1}), CLIENT),
    "client: a number": (CLIENTS, mint(azp=1), CLIENT),
    "client: one of two places names another": (CLIENTS, mint(azp="notebook", client_id="other"), CLIENT),
    "client: the last of four places names another": (
        CLIENTS,
        mint(azp="job", client_id="job", appid="job", cid="other"),
        CLIENT,
    ),
    "client: one of two places is null": (CLIENTS, mint(azp="notebook", cid=None), CLIENT),
    "client: only as the audience": (CLIENTS, mint(audience=[AUDIENCE, "notebook"]), CLIENT),
    "client: in a claim of another name": (CLIENTS, mint(client="notebook"), CLIENT),
    # required claims
    "required: absent": (USE, mint(), "required_claim_missing"),
    "required: name in capitals": (USE, mint(Token_Use="access"), "required_claim_missing"),
    "required: another value": (USE, mint(token_use="id"), MISMATCH),
    "required: value in capitals": (USE, mint(token_use="Access"), MISMATCH),
    "required: null": (USE, mint(token_use=None), MISMATCH),
    "required: an empty list": (USE, mint(token_use=[]), MISMATCH),
    "required: a list in a list": (USE, mint(token_use=[["access"]]), MISMATCH),
    "required: an object": (USE, mint(token_use={"access": True}), MISMATCH),
    "required: several values in one text": (USE, mint(token_use="access id"), MISMATCH),
    "required: one of two absent": (TWO_CLAIMS, mint(hd="example.com"), "required_claim_missing"),
    "required: one of two wrong": (TWO_CLAIMS, mint(hd="example.net", level=2), MISMATCH),
    "required: a number as text": (TWO_CLAIMS, mint(hd="example.com", level="2"), MISMATCH),
    "required: a number with a fraction": (TWO_CLAIMS, mint(hd="example.com", level=2.0), MISMATCH),
    "required: a domain with a suffix": (TWO_CLAIMS, mint(hd="example.com.evil.example", level=2), MISMATCH),
    "required: 1 for true": (FLAG, mint(is_member=1), MISMATCH),
    "required: text for true": (FLAG, mint(is_member="true"), MISMATCH),
    "required: false for true": (FLAG, mint(is_member=False), MISMATCH),
    "required: true for 1": (requiring(level=(1,)), mint(level=True), MISMATCH),
    "required: false for 0": (requiring(level=(0,)), mint(level=[False]), MISMATCH),
    "required: a dot is no path": (LITERAL, mint(a={"b": "c"}), "required_claim_missing"),
    # tenant
    "tenant: absent": (TENANTED, mint(), "tenant_mismatch"),
    "tenant: another": (TENANTED, mint(tid=TENANT.replace("1", "9")), "tenant_mismatch"),
    "tenant: in a list": (TENANTED, mint(tid=[TENANT]), "tenant_mismatch"),
    "tenant: null": (TENANTED, mint(tid=None), "tenant_mismatch"),
    "tenant: with a space": (TENANTED, mint(tid=f"{TENANT} "), "tenant_mismatch"),
    # subject
    "subject: the other claim is absent": (OBJECT_ID, mint(), "subject_missing"),
    "subject: the other claim is empty": (OBJECT_ID, mint(oid=""), "subject_malformed"),
    "subject: the other claim is a number": (OBJECT_ID, mint(oid=5), "subject_malformed"),
    "subject: the other claim is a list": (OBJECT_ID, mint(oid=["alice"]), "subject_malformed"),
    "subject: the other claim is too long": (OBJECT_ID, mint(oid="s" * 256), "subject_malformed"),
    "subject: the other claim has a line break": (OBJECT_ID, mint(oid="a\nb"), "subject_malformed"),
    "subject: not listed": (SUBJECTS, mint(subject="bob"), SUBJECT),
    "subject: in capitals": (SUBJECTS, mint(subject="Alice"), SUBJECT),
    "subject: longer than the listed one": (SUBJECTS, mint(subject="alice2"), SUBJECT),
    "subject: shorter than the prefix": (SUBJECTS, mint(subject="system:serviceaccount:obs"), SUBJECT),
    "subject: a neighbour of the prefix": (SUBJECTS, mint(subject="system:serviceaccount:obs2:reader"), SUBJECT),
    "subject: the prefix in the middle": (SUBJECTS, mint(subject="x:system:serviceaccount:obs:reader"), SUBJECT),
    "subject: the star itself": (SUBJECTS, mint(subject="*"), SUBJECT),
    # alias
    "alias: not of this issuer": (setting(), mint(issuer=ALIAS), "issuer_unknown"),
    "alias: without its slash": (ALIASED, mint(issuer="https://old.example.com"), "issuer_unknown"),
    "alias: in capitals": (ALIASED, mint(issuer=ALIAS.upper()), "issuer_unknown"),
    "alias: the rules count": (ALIASED, mint(issuer=ALIAS, audience="other"), "audience_mismatch"),
    # no audience
    "no audience: one is stated": (NO_AUDIENCE, without_audience(without=[]), "audience_mismatch"),
    "no audience: an empty one is stated": (NO_AUDIENCE, without_audience(without=[], aud=[]), "audience_mismatch"),
    "no audience: null is stated": (NO_AUDIENCE, without_audience(without=[], aud=None), "audience_mismatch"),
    "no audience: the application is": (NO_AUDIENCE, without_audience(without=[], aud="notebook"), "audience_mismatch"),
    "no audience: an ID token": (NO_AUDIENCE, without_audience(token_use="id"), MISMATCH),
    "no audience: no use": (NO_AUDIENCE, without_audience(without=["aud", "token_use"]), "required_claim_missing"),
    "no audience: another application": (NO_AUDIENCE, without_audience(client_id="other"), CLIENT),
    "no audience: no application": (NO_AUDIENCE, without_audience(without=["aud", "client_id"]), CLIENT),
    "audience: absent where one is wanted": (CLIENTS, without_audience(), "audience_missing"),
    # algorithm
    "algorithm: another accepted elsewhere": (RSA_ONLY, mint(key=ec_key()), "algorithm_not_allowed"),
    "algorithm: another hash": (RSA_ONLY, mint(header={"alg": "RS512"}), "algorithm_not_allowed"),
    # clock
    "clock: ended this second": (STRICT_CLOCK, mint(expires_in=0), "expired"),
    "clock: begins in a second": (STRICT_CLOCK, mint(nbf=NOW_SECONDS + 1), "not_yet_valid"),
    "clock: issued in a second": (STRICT_CLOCK, mint(iat=NOW_SECONDS + 1), "issued_in_the_future"),
    "clock: beyond a short leeway": (SHORT_LEEWAY, mint(expires_in=-5), "expired"),
    "clock: before a short leeway": (SHORT_LEEWAY, mint(nbf=NOW_SECONDS + 6), "not_yet_valid"),
}


ACCESS_ONLY = IssuerSetting(issuer=ISSUER, audiences=(AUDIENCE,), token_kind=TokenKind.ACCESS)
ID_ONLY = IssuerSetting(issuer=ISSUER, audiences=(AUDIENCE,), token_kind=TokenKind.ID)
EITHER = IssuerSetting(issuer=ISSUER, audiences=(AUDIENCE,), token_kind=TokenKind.EITHER)
RFC_9068 = IssuerSetting(issuer=ISSUER, audiences=(AUDIENCE,), is_rfc9068=True)

AT_JWT = {"typ": "at+jwt"}


def profile(header=None, **changes):
    return mint(header={**AT_JWT, **(header or {})}, **{"client_id": "notebook", "jti": "1", **changes})


ACCEPTED_KINDS = {
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

REFUSED_KINDS = {
    "access: ID token by token_use": (ACCESS_ONLY, mint(token_use="id"), AS_ACCESS),
    "access: ID token by token_use, with a scope": (ACCESS_ONLY, mint(token_use="id", scope="read"), AS_ACCESS),
    "access: ID token by Keycloak's type": (ACCESS_ONLY, mint(typ="ID"), AS_ACCESS),
    "access: ID token by Keycloak's type, with a scope": (ACCESS_ONLY, mint(typ="id", scope="read"), AS_ACCESS),
    "access: ID token by a hash": (ACCESS_ONLY, mint(at_hash="x"), AS_ACCESS),
    "access: ID token by a hash, with a scope": (ACCESS_ONLY, mint(at_hash="x", scope="read"), AS_ACCESS),
    "access: ID token by the hash of a code": (ACCESS_ONLY, mint(c_hash="x"), AS_ACCESS),
    "access: ID token by a nonce": (ACCESS_ONLY, mint(nonce="n"), AS_ACCESS),
    "access: no issue time": (ACCESS_ONLY, mint(without=["iat"], scope="read"), "issued_at_missing"),
    "access: issue time is null": (ACCESS_ONLY, mint(iat=None, scope="read"), "issued_at_malformed"),
    "access: refresh token": (ACCESS_ONLY, mint(typ="Refresh", scope="read"), "not_a_bearer_token"),
    "ID: access token by header type": (ID_ONLY, mint(header=AT_JWT), AS_ID),
    "ID: access token by header type, with a nonce": (ID_ONLY, mint(header=AT_JWT, nonce="n", at_hash="x"), AS_ID),
    "ID: access token by token_use": (ID_ONLY, mint(token_use="access"), AS_ID),
    "ID: access token by Keycloak's type": (ID_ONLY, mint(typ="Bearer"), AS_ID),
    "ID: access token by Keycloak's type, with a hash": (ID_ONLY, mint(typ="Bearer", at_hash="x"), AS_ID),
    "ID: access token by a scope": (ID_ONLY, mint(scope="read"), AS_ID),
    "ID: access token by an empty scope": (ID_ONLY, mint(scope="", nonce="n"), AS_ID),
    "ID: access token by a list of scopes": (ID_ONLY, mint(scp=["read"]), AS_ID),
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
