"""Tokens held against what one issuer's setting asks: applications, claims, tenants, subjects, aliases and the rest."""

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
    return setting(required_claims=required)


CLIENTS = setting(client_ids=("notebook", "job"))
USE = requiring(token_use=("access",))
TWO_CLAIMS = requiring(hd=("example.com", "example.org"), level=(2, 3))
FLAG = requiring(is_member=(True,))
LITERAL = requiring(**{"https://lake.example.com/roles": ("reader",), "a.b": ("c",)})
TENANTED = setting(tenant=TENANT)
OBJECT_ID = setting(subject_claim="oid")
NAMESPACE = "system:serviceaccount:obs"
SUBJECTS = setting(subjects=("alice", f"{NAMESPACE}:*", "repo:octo/lake*"))
ALIASED = setting(aliases=(ALIAS, "https://old.example.com/"))
NO_AUDIENCE = setting(audiences=(), client_ids=("notebook",), required_claims={"token_use": ("access",)})
RSA_ONLY = setting(algorithms=frozenset({"RS256"}))
STRICT_CLOCK = setting(leeway_seconds=0)
SHORT_LEEWAY = setting(leeway_seconds=5)


def accepted(topic, setting, *changes):
    """Return a row for each change to a good token."""
    return {f"{topic}: {change!a}": (setting, mint(**change)) for change in changes}


def refused(topic, setting, reason, *changes):
    return {name: (*row, reason) for name, row in accepted(topic, setting, *changes).items()}


def each(claim, *values):
    return [{claim: value} for value in values]


WITHOUT_AUDIENCE = {"without": ["aud"], "client_id": "notebook", "token_use": "access"}

ACCEPTED = {
    **accepted(
        "client", CLIENTS, {"azp": "notebook"}, {"client_id": "job"}, {"appid": "notebook"}, {"cid": "notebook"},
        {"azp": "job", "client_id": "job"}, {"azp": "notebook", "appid": "job"},
    ),
    **accepted("required", USE, {"token_use": "access"}, {"token_use": ["x", "access"]}),
    **accepted("required", TWO_CLAIMS, {"hd": "example.org", "level": 2}, {"hd": "example.com", "level": [1, 3]}),
    **accepted("required", FLAG, {"is_member": True}),
    **accepted("required", LITERAL, {"https://lake.example.com/roles": ["reader"], "a.b": "c"}),
    **accepted("tenant", TENANTED, {"tid": TENANT}),
    **accepted("subject", OBJECT_ID, {"oid": "alice-1"}, {"oid": "alice-1", "without": ["sub"]}),
    **accepted("subject", OBJECT_ID, {"oid": "alice-1", "subject": 5}, {"oid": "Zoë|läken/1 2"}),
    # A prefix with something behind it, with nothing, and one that ends without a separator.
    **accepted("subject", SUBJECTS, {}, {"subject": "repo:octo/lakehouse:ref:refs/heads/main"}),
    **accepted("subject", SUBJECTS, *each("subject", f"{NAMESPACE}:reader", f"{NAMESPACE}:")),
    **accepted("alias", ALIASED, *each("issuer", ISSUER, ALIAS, "https://old.example.com/")),
    **accepted("no audience", NO_AUDIENCE, WITHOUT_AUDIENCE),
    **accepted("algorithm", RSA_ONLY, {}),
    **accepted("clock", STRICT_CLOCK, {"expires_in": 1, "nbf": NOW_SECONDS, "iat": NOW_SECONDS}),
    **accepted("clock", SHORT_LEEWAY, {"expires_in": -4, "nbf": NOW_SECONDS + 5, "iat": NOW_SECONDS + 5}),
}  # fmt: skip

REFUSED = {
    # The application stands in one of four places; where it stands in several, each must be accepted.
    **refused(
        "client", CLIENTS, CLIENT, {}, {"azp": "other"}, {"azp": "Notebook"}, {"azp": "notebook "}, {"cid": "note"},
        {"azp": ""}, {"azp": None}, {"azp": ["notebook"]}, {"azp": {"notebook": 1}}, {"azp": 1},
        {"azp": "notebook", "client_id": "other"},
        {"azp": "job", "client_id": "job", "appid": "job", "cid": "other"}, {"azp": "notebook", "cid": None},
        {"audience": [AUDIENCE, "notebook"]}, {"client": "notebook"},
    ),
    # Required claims
    **refused("required", USE, "required_claim_missing", {}, {"Token_Use": "access"}),
    **refused("required", USE, MISMATCH, *each(
        "token_use", "id", "Access", None, [], [["access"]], {"access": True}, "access id",
    )),
    **refused("required", TWO_CLAIMS, "required_claim_missing", {"hd": "example.com"}),
    **refused(
        "required", TWO_CLAIMS, MISMATCH, {"hd": "example.net", "level": 2}, {"hd": "example.com", "level": "2"},
        {"hd": "example.com", "level": 2.0}, {"hd": "example.com.evil.example", "level": 2},
    ),
    **refused("required", FLAG, MISMATCH, *each("is_member", 1, "true", False)),
    **refused("required 1", requiring(level=(1,)), MISMATCH, {"level": True}),
    **refused("required 0", requiring(level=(0,)), MISMATCH, {"level": [False]}),
    **refused("required", LITERAL, "required_claim_missing", {"a": {"b": "c"}}),  # a dot is no path
    # Tenant
    **refused("tenant", TENANTED, "tenant_mismatch", {}, *each("tid", TENANT[:-1] + "6", [TENANT], None, f"{TENANT} ")),
    # Subject
    **refused("subject", OBJECT_ID, "subject_missing", {}),
    **refused("subject", OBJECT_ID, "subject_malformed", *each("oid", "", 5, ["alice"], "s" * 256, "a\nb")),
    **refused("subject", SUBJECTS, SUBJECT, *each(
        "subject", "bob", "Alice", "alice2", NAMESPACE, f"{NAMESPACE}2:reader", f"x:{NAMESPACE}:reader", "*",
    )),
    # Alias
    **refused("alias of nobody", setting(), "issuer_unknown", {"issuer": ALIAS}),
    **refused("alias", ALIASED, "issuer_unknown", *each("issuer", "https://old.example.com", ALIAS.upper())),
    **refused("alias", ALIASED, "audience_mismatch", {"issuer": ALIAS, "audience": "other"}),
    # No audience
    **refused("no audience", NO_AUDIENCE, "audience_mismatch", *(
        {**WITHOUT_AUDIENCE, "without": [], "aud": audience} for audience in (AUDIENCE, [], None, "notebook")
    )),
    **refused("no audience", NO_AUDIENCE, MISMATCH, {**WITHOUT_AUDIENCE, "token_use": "id"}),
    **refused("no use", NO_AUDIENCE, "required_claim_missing", {**WITHOUT_AUDIENCE, "without": ["aud", "token_use"]}),
    **refused("no audience", NO_AUDIENCE, CLIENT, {**WITHOUT_AUDIENCE, "client_id": "other"}),
    **refused("no application", NO_AUDIENCE, CLIENT, {**WITHOUT_AUDIENCE, "without": ["aud", "client_id"]}),
    **refused("audience wanted", CLIENTS, "audience_missing", WITHOUT_AUDIENCE),
    # Algorithm
    "algorithm: another accepted elsewhere": (RSA_ONLY, mint(key=ec_key()), "algorithm_not_allowed"),
    "algorithm: another hash": (RSA_ONLY, mint(header={"alg": "RS512"}), "algorithm_not_allowed"),
    # Clock
    **refused("strict clock", STRICT_CLOCK, "expired", {"expires_in": 0}),
    **refused("strict clock", STRICT_CLOCK, "not_yet_valid", {"nbf": NOW_SECONDS + 1}),
    **refused("strict clock", STRICT_CLOCK, "issued_in_the_future", {"iat": NOW_SECONDS + 1}),
    **refused("short leeway", SHORT_LEEWAY, "expired", {"expires_in": -5}),
    **refused("short leeway", SHORT_LEEWAY, "not_yet_valid", {"nbf": NOW_SECONDS + 6}),
}  # fmt: skip


ACCESS_ONLY = IssuerSetting(issuer=ISSUER, audiences=(AUDIENCE,), token_kind=TokenKind.ACCESS)
ID_ONLY = IssuerSetting(issuer=ISSUER, audiences=(AUDIENCE,), token_kind=TokenKind.ID)
EITHER = IssuerSetting(issuer=ISSUER, audiences=(AUDIENCE,), token_kind=TokenKind.EITHER)
RFC_9068 = IssuerSetting(issuer=ISSUER, audiences=(AUDIENCE,), is_rfc9068=True)

AT_JWT = {"header": {"typ": "at+jwt"}}


def profile(typ="at+jwt", **changes):
    return {"header": {"typ": typ}, "client_id": "notebook", "jti": "1", **changes}


ACCEPTED_KINDS = {
    **accepted(
        "access", ACCESS_ONLY, AT_JWT, {"header": {"typ": "application/at+jwt"}}, {"header": {"typ": "AT+JWT"}},
        # a mark of an access token before those of an ID token
        {**AT_JWT, "nonce": "n", "at_hash": "x"}, {"token_use": "access"}, {"token_use": "access", "nonce": "n"},
        {"typ": "Bearer"}, {"typ": "bearer", "nonce": "n"}, {"scope": "read"}, {"scope": "read", "nonce": "n"},
        {"scp": ["read"]}, {}, {"token_use": ["id"], "typ": 5},
    ),
    **accepted(
        "ID", ID_ONLY, {"token_use": "id"}, {"token_use": "id", "scope": "openid"}, {"typ": "ID"},
        {"typ": "id", "scope": "openid"}, {"at_hash": "x"}, {"at_hash": "x", "scope": "openid"}, {"c_hash": "x"},
        {"nonce": "n"}, {},
    ),
    **accepted("either", EITHER, {**AT_JWT, "scope": "read"}, {"nonce": "n", "at_hash": "x"}, {"without": ["iat"]}),
    **accepted("RFC 9068", RFC_9068, profile(), profile("application/at+jwt"), profile("At+JWT")),
}  # fmt: skip

REFUSED_KINDS = {
    **refused(
        "access", ACCESS_ONLY, AS_ACCESS, {"token_use": "id"}, {"token_use": "id", "scope": "read"}, {"typ": "ID"},
        {"typ": "id", "scope": "read"}, {"at_hash": "x"}, {"at_hash": "x", "scope": "read"}, {"c_hash": "x"},
        {"nonce": "n"},
    ),
    **refused("access", ACCESS_ONLY, "issued_at_missing", {"without": ["iat"], "scope": "read"}),
    **refused("access", ACCESS_ONLY, "issued_at_malformed", {"iat": None, "scope": "read"}),
    **refused("access", ACCESS_ONLY, "not_a_bearer_token", {"typ": "Refresh", "scope": "read"}),
    **refused(
        "ID", ID_ONLY, AS_ID, AT_JWT, {**AT_JWT, "nonce": "n", "at_hash": "x"}, {"token_use": "access"},
        {"typ": "Bearer"}, {"typ": "Bearer", "at_hash": "x"}, {"scope": "read"}, {"scope": "", "nonce": "n"},
        {"scp": ["read"]},
    ),
    **refused("ID", ID_ONLY, "issued_at_missing", {"without": ["iat"], "nonce": "n"}),
    **refused("ID", ID_ONLY, "issued_in_the_future", {"iat": NOW_SECONDS + 61, "nonce": "n"}),
    **refused("RFC 9068", RFC_9068, "type_not_at_jwt", profile("JWT"), profile(None)),
    **refused("RFC 9068", RFC_9068, "type_not_accepted", profile("jwt+at")),
    **refused(
        "RFC 9068", RFC_9068, "client_id_missing", profile(without=["client_id"]),
        profile(without=["client_id"], azp="x"),
    ),
    **refused(
        "RFC 9068", RFC_9068, "client_id_malformed", *(profile(client_id=odd) for odd in (["notebook"], "", None))
    ),
    **refused("RFC 9068", RFC_9068, "token_id_missing", profile(without=["jti"])),
    **refused("RFC 9068", RFC_9068, "token_id_malformed", profile(jti=1), profile(jti="")),
    **refused("RFC 9068", RFC_9068, "issued_at_missing", profile(without=["iat"])),
}  # fmt: skip
