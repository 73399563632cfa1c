"""A token as a real provider gives it, with settings that accept it and near misses; the tokens stand in two tables."""

import json
from dataclasses import make_dataclass

from micromegas_jupyter.config.issuers import IssuerSetting
from micromegas_jupyter.core.protocols import TokenKind
from tests.fakes.mint import NOW_SECONDS, mint_raw

WITHOUT = object()

# A setting that accepts the token, its payload, what the context says by attribute, near misses by what is different,
# and the header's type. A near miss: the changed claims (`WITHOUT` removes one; `typ!` is the header's type), and the
# reason of the refusal.
RealToken = make_dataclass("RealToken", ["setting", "claims", "expected", "near_misses", ("typ", str, "JWT")])


def sign(real, changes):
    """Return the text of a provider's token, with changes."""
    times = {"iat": NOW_SECONDS - 10, "exp": NOW_SECONDS + 3590}
    claims = {name: value for name, value in {**times, **real.claims, **changes}.items() if value is not WITHOUT}
    header_type = claims.pop("typ!", real.typ)
    return mint_raw(json.dumps(claims).encode(), header={"typ": header_type})


_GOOGLE_CLIENT = "1234567890-abc123.apps.googleusercontent.com"
_GOOGLE = IssuerSetting(
    issuer="https://accounts.google.com", aliases=("accounts.google.com",), audiences=(_GOOGLE_CLIENT,),
    client_ids=(_GOOGLE_CLIENT,), required_claims={"hd": ("example.com",)}, token_kind=TokenKind.ID,
)  # fmt: skip
_GOOGLE_CLAIMS = {
    "iss": "https://accounts.google.com", "azp": _GOOGLE_CLIENT, "aud": _GOOGLE_CLIENT,
    "sub": "110169484474386276334", "hd": "example.com", "email": "alice@example.com", "email_verified": True,
    "at_hash": "HK6E_P6Dh8Y93mRNtsDB1Q", "name": "Alice Example",
    "picture": "https://lh3.googleusercontent.com/a/photo=s96-c", "given_name": "Alice", "family_name": "Example",
}  # fmt: skip
_GOOGLE_EXPECTED = {
    "subject": "110169484474386276334", "issuer": "https://accounts.google.com", "email": "alice@example.com",
    "email_verified": True, "client_id": _GOOGLE_CLIENT,
}  # fmt: skip

_TENANT = "11111111-2222-3333-4444-555555555555"
_ENTRA_API = "99999999-8888-7777-6666-555555555555"
_ENTRA_CLIENT = "aaaaaaaa-0000-0000-0000-eeeeeeeeeeee"
_ENTRA_ISSUER = f"https://login.microsoftonline.com/{_TENANT}/v2.0"

_OKTA_ISSUER = "https://example.okta.com/oauth2/default"
_AUTH0_ISSUER = "https://example.eu.auth0.com/"
_API = "https://lake.example.com"
_COGNITO_ISSUER = "https://cognito-idp.eu-west-1.amazonaws.com/eu-west-1_AbCdEfGhI"
_COGNITO_CLIENT = "1h57kf5cpq17m0eml12EXAMPLE"
_COGNITO_SUBJECT = "aaaaaaaa-bbbb-cccc-dddd-example11111"

HOSTED = {
    "Google ID token": RealToken(
        setting=_GOOGLE, claims=_GOOGLE_CLAIMS, expected=_GOOGLE_EXPECTED,
        near_misses={
            "a private account": ({"hd": WITHOUT}, "required_claim_missing"),
            "another organisation": ({"hd": "example.org"}, "required_claim_mismatch"),
            "another application": ({"aud": "other.apps.googleusercontent.com"}, "audience_mismatch"),
            "a service account with the right audience": ({"azp": "112233445566778899"}, "client_not_allowed"),
            "the issuer with a slash": ({"iss": "https://accounts.google.com/"}, "issuer_unknown"),
        },
    ),
    "Google ID token of the older form": RealToken(
        setting=_GOOGLE, claims={**_GOOGLE_CLAIMS, "iss": "accounts.google.com"}, expected=_GOOGLE_EXPECTED,
        near_misses={
            "the issuer over http": ({"iss": "http://accounts.google.com"}, "issuer_unknown"),
            "the issuer in capitals": ({"iss": "Accounts.Google.com"}, "issuer_unknown"),
            "no issue time": ({"iat": WITHOUT}, "issued_at_missing"),
        },
    ),
    "Entra ID access token, version 2": RealToken(
        setting=IssuerSetting(
            issuer=_ENTRA_ISSUER, audiences=(_ENTRA_API,), subject_claim="oid",
            group_claims=(("roles",), ("groups",)), client_ids=(_ENTRA_CLIENT,), tenant=_TENANT,
            token_kind=TokenKind.ACCESS,
        ),
        claims={
            "aud": _ENTRA_API, "iss": _ENTRA_ISSUER, "nbf": NOW_SECONDS - 10, "aio": "AXQAi/8TAAAAsample",
            "azp": _ENTRA_CLIENT, "azpacr": "0", "groups": ["0f0f0f0f-1111-2222-3333-444444444444"],
            "name": "Alice Example", "oid": "bbbbbbbb-1111-2222-3333-cccccccccccc",
            "preferred_username": "alice@example.com", "rh": "0.AXkAsample", "roles": ["Lake.Admin"],
            "scp": "access_as_user", "sub": "pairwise-2hT0QqXq5h3uYc4pM", "tid": _TENANT, "uti": "sample",
            "ver": "2.0",
        },
        expected={
            "subject": "bbbbbbbb-1111-2222-3333-cccccccccccc",
            "groups": ("Lake.Admin", "0f0f0f0f-1111-2222-3333-444444444444"), "client_id": _ENTRA_CLIENT,
            "email": "alice@example.com", "email_verified": False,
        },
        near_misses={
            "another tenant's person in this tenant's issuer": ({"tid": _TENANT[::-1]}, "tenant_mismatch"),
            "version 1": ({"iss": f"https://sts.windows.net/{_TENANT}/"}, "issuer_unknown"),
            "the template itself": ({"iss": "https://login.microsoftonline.com/{tenantid}/v2.0"}, "issuer_unknown"),
            "the API by its address": ({"aud": f"api://{_ENTRA_API}"}, "audience_mismatch"),
            "a token for Microsoft Graph": ({"aud": "00000003-0000-0000-c000-000000000000"}, "audience_mismatch"),
            "an ID token": ({"scp": WITHOUT, "nonce": "n"}, "id_token_as_access_token"),
            "another application": ({"azp": _ENTRA_API}, "client_not_allowed"),
            "no object id": ({"oid": WITHOUT}, "subject_missing"),
        },
    ),
    "Okta access token of a custom server": RealToken(
        setting=IssuerSetting(
            issuer=_OKTA_ISSUER, audiences=("api://default",), client_ids=("0oa9z8y7x6w5v4u3t2s1",),
            subject_claim="uid", token_kind=TokenKind.ACCESS,
        ),
        claims={
            "ver": 1, "jti": "AT.0mP4JKAZX1iACIT4vbEDF7LpvDVjxypPMf0D7uX39RE", "iss": _OKTA_ISSUER,
            "aud": "api://default", "cid": "0oa9z8y7x6w5v4u3t2s1", "uid": "00u1a2b3c4d5e6f7g8h9",
            "scp": ["openid", "profile", "lake.read"], "auth_time": NOW_SECONDS - 20, "sub": "alice@example.com",
            "groups": ["Everyone", "lake-admins"],
        },
        expected={
            "subject": "00u1a2b3c4d5e6f7g8h9", "groups": ("Everyone", "lake-admins"),
            "client_id": "0oa9z8y7x6w5v4u3t2s1",
        },
        near_misses={
            "the organisation's own server": ({"iss": "https://example.okta.com"}, "issuer_unknown"),
            "another custom server": ({"iss": "https://example.okta.com/oauth2/other"}, "issuer_unknown"),
            "another application": ({"cid": "0oaother"}, "client_not_allowed"),
            "a service account, which has no uid": ({"uid": WITHOUT}, "subject_missing"),
            "an ID token": ({"scp": WITHOUT, "at_hash": "x"}, "id_token_as_access_token"),
        },
    ),
    "Auth0 access token": RealToken(
        setting=IssuerSetting(
            issuer=_AUTH0_ISSUER, audiences=(_API,), client_ids=("ZyXwVuTsRqPoNmLkJiHgFeDcBa543210",),
            group_claims=(("https://lake.example.com/groups",),), token_kind=TokenKind.ACCESS,
        ),
        claims={
            "https://lake.example.com/groups": ["lake-admins"], "iss": _AUTH0_ISSUER,
            "sub": "auth0|5f7c8ec7c33c6c004bbafe82", "aud": [_API, "https://example.eu.auth0.com/userinfo"],
            "scope": "openid profile email", "azp": "ZyXwVuTsRqPoNmLkJiHgFeDcBa543210",
        },
        expected={"subject": "auth0|5f7c8ec7c33c6c004bbafe82", "groups": ("lake-admins",)},
        near_misses={
            "the issuer without its slash": ({"iss": _AUTH0_ISSUER[:-1]}, "issuer_unknown"),
            "for userinfo only": ({"aud": ["https://example.eu.auth0.com/userinfo"]}, "audience_mismatch"),
            "the audience with a slash": ({"aud": [f"{_API}/"]}, "audience_mismatch"),
            "a machine": ({"azp": "machine", "sub": "machine@clients"}, "client_not_allowed"),
            "an ID token": ({"scope": WITHOUT, "nonce": "n"}, "id_token_as_access_token"),
        },
    ),
    "Cognito access token": RealToken(
        setting=IssuerSetting(
            issuer=_COGNITO_ISSUER, client_ids=(_COGNITO_CLIENT,), required_claims={"token_use": ("access",)},
            token_kind=TokenKind.ACCESS,
        ),
        claims={
            "sub": _COGNITO_SUBJECT, "cognito:groups": ["lake-admins"], "iss": _COGNITO_ISSUER, "version": 2,
            "client_id": _COGNITO_CLIENT, "origin_jti": "aaaaaaaa-0000-0000-0000-example",
            "event_id": "bbbbbbbb-0000-0000-0000-example", "token_use": "access", "scope": "openid email",
            "auth_time": NOW_SECONDS - 20, "jti": "cccccccc-0000-0000-0000-example", "username": "alice",
        },
        typ=None, expected={"subject": _COGNITO_SUBJECT, "groups": ("lake-admins",), "client_id": _COGNITO_CLIENT},
        near_misses={
            "an ID token": ({"aud": _COGNITO_CLIENT, "token_use": "id"}, "audience_mismatch"),
            "an ID token whose audience was taken out": ({"token_use": "id"}, "id_token_as_access_token"),
            "no use": ({"token_use": WITHOUT}, "required_claim_missing"),
            "another application of the pool": ({"client_id": "other"}, "client_not_allowed"),
            "another pool": ({"iss": f"{_COGNITO_ISSUER}2"}, "issuer_unknown"),
        },
    ),
    "Cognito ID token": RealToken(
        setting=IssuerSetting(
            issuer=_COGNITO_ISSUER, audiences=(_COGNITO_CLIENT,), required_claims={"token_use": ("id",)},
            token_kind=TokenKind.ID,
        ),
        claims={
            "sub": _COGNITO_SUBJECT, "cognito:groups": ["lake-admins"], "email_verified": "true",
            "iss": _COGNITO_ISSUER, "cognito:username": "alice", "aud": _COGNITO_CLIENT,
            "event_id": "bbbbbbbb-0000-0000-0000-example", "token_use": "id", "auth_time": NOW_SECONDS - 20,
            "email": "alice@example.com",
        },
        typ=None,
        expected={
            "subject": _COGNITO_SUBJECT, "email": "alice@example.com", "email_verified": False,
            "groups": ("lake-admins",),
        },
        near_misses={
            "an access token": ({"aud": WITHOUT, "token_use": "access"}, "audience_missing"),
            "an access token with an audience": ({"token_use": "access"}, "access_token_as_id_token"),
            "a refresh token": ({"token_use": "refresh"}, "not_a_bearer_token"),
            "another application": ({"aud": "other"}, "audience_mismatch"),
        },
    ),
}  # fmt: skip


_KEYCLOAK_ISSUER = "https://id.example.com/realms/example"
_KEYCLOAK_SUBJECT = "f81d4fae-7dec-11d0-a765-00a0c91e6bf6"
_DEX_ISSUER = "https://dex.example.com/dex"
_GITHUB_ISSUER = "https://token.actions.githubusercontent.com"
_CLUSTER_ISSUER = "https://kubernetes.default.svc.cluster.local"

OWN = {
    "Keycloak access token": RealToken(
        setting=IssuerSetting(
            issuer=_KEYCLOAK_ISSUER, audiences=("lake",), client_ids=("lake-nightly",),
            group_claims=(("realm_access", "roles"), ("resource_access", "lake", "roles")),
            token_kind=TokenKind.ACCESS,
        ),
        claims={
            "jti": "trrtcc:0d8a7d4e-0000-4000-8000-000000000000", "iss": _KEYCLOAK_ISSUER,
            "aud": ["lake", "account"], "sub": _KEYCLOAK_SUBJECT, "typ": "Bearer", "azp": "lake-nightly",
            "sid": "c0ffee00-0000-4000-8000-000000000000", "acr": "1", "allowed-origins": ["/*"],
            "realm_access": {"roles": ["default-roles-example", "lake-admin"]},
            "resource_access": {"lake": {"roles": ["reader"]}, "account": {"roles": ["view-profile"]}},
            "scope": "openid email profile", "email_verified": False, "preferred_username": "alice",
            "email": "alice@example.com",
        },
        expected={
            "subject": _KEYCLOAK_SUBJECT, "groups": ("default-roles-example", "lake-admin", "reader"),
            "email_verified": False, "client_id": "lake-nightly",
        },
        near_misses={
            "no audience mapper": ({"aud": "account"}, "audience_mismatch"),
            "no audience at all": ({"aud": WITHOUT}, "audience_missing"),
            "an ID token": ({"typ": "ID"}, "id_token_as_access_token"),
            "a refresh token": ({"typ": "Refresh"}, "not_a_bearer_token"),
            "an offline token": ({"typ": "Offline"}, "not_a_bearer_token"),
            "another realm": ({"iss": "https://id.example.com/realms/other"}, "issuer_unknown"),
            "another client": ({"azp": "account-console"}, "client_not_allowed"),
            "bound to a key": ({"cnf": {"jkt": "x"}}, "sender_constrained"),
            "no subject": ({"sub": WITHOUT}, "subject_missing"),
        },
    ),
    "Keycloak ID token": RealToken(
        setting=IssuerSetting(issuer=_KEYCLOAK_ISSUER, audiences=("lake-notebooks",), token_kind=TokenKind.ID),
        claims={
            "auth_time": NOW_SECONDS - 20, "jti": "6f9b1f3e-0000-4000-8000-000000000000", "iss": _KEYCLOAK_ISSUER,
            "aud": "lake-notebooks", "sub": _KEYCLOAK_SUBJECT, "typ": "ID", "azp": "lake-notebooks", "nonce": "n",
            "at_hash": "FGUo3gBTnk1mUa0cQJ7nFg", "acr": "1", "email_verified": True, "name": "Alice Example",
            "preferred_username": "alice", "email": "alice@example.com",
        },
        expected={"subject": _KEYCLOAK_SUBJECT, "email_verified": True, "groups": (), "name": "Alice Example"},
        near_misses={
            "an access token": ({"typ": "Bearer"}, "access_token_as_id_token"),
            "a logout token": ({"typ": "Logout"}, "not_a_bearer_token"),
            "a logout token by its header": ({"typ!": "logout+jwt"}, "type_not_accepted"),
            "another client": ({"aud": "account-console"}, "audience_mismatch"),
        },
    ),
    "Dex ID token": RealToken(
        setting=IssuerSetting(issuer=_DEX_ISSUER, audiences=("lake-notebooks",), token_kind=TokenKind.ID),
        claims={
            "iss": _DEX_ISSUER, "sub": "CgVhbGljZRIFbG9jYWw", "aud": "lake-notebooks",
            "nonce": "n", "at_hash": "x", "c_hash": "y", "email": "alice@example.com", "email_verified": True,
            "groups": ["example:ops"], "name": "alice",
        },
        typ=None, expected={"subject": "CgVhbGljZRIFbG9jYWw", "groups": ("example:ops",), "email_verified": True},
        near_misses={
            "the issuer without its path": ({"iss": "https://dex.example.com"}, "issuer_unknown"),
            "the issuer with a slash": ({"iss": "https://dex.example.com/dex/"}, "issuer_unknown"),
            "another application": ({"aud": "grafana"}, "audience_mismatch"),
            "ended": ({"exp": NOW_SECONDS - 60}, "expired"),
        },
    ),
    "GitHub Actions": RealToken(
        setting=IssuerSetting(
            issuer=_GITHUB_ISSUER, audiences=(_API,), subjects=("repo:octo-org@1234/lake@5678:*",),
            required_claims={"repository_owner_id": ("1234",), "ref": ("refs/heads/main",)},
        ),
        claims={
            "jti": "example-id", "sub": "repo:octo-org@1234/lake@5678:ref:refs/heads/main",
            "aud": _API, "ref": "refs/heads/main", "sha": "example-sha",
            "repository": "octo-org/lake", "repository_owner": "octo-org", "repository_id": "5678",
            "repository_owner_id": "1234", "run_id": "example-run-id", "actor": "octocat",
            "event_name": "workflow_dispatch", "ref_type": "branch", "runner_environment": "github-hosted",
            "iss": _GITHUB_ISSUER, "nbf": NOW_SECONDS - 310,
        },
        expected={"subject": "repo:octo-org@1234/lake@5678:ref:refs/heads/main", "groups": (), "email": None},
        near_misses={
            "a stranger's repository with the right audience": (
                {"sub": "repo:evil@9/lake@5678:ref:refs/heads/main", "repository_owner_id": "9"},
                "required_claim_mismatch",
            ),
            "another of the owner": ({"sub": "repo:octo-org@1234/other@1:ref:refs/heads/main"}, "subject_not_allowed"),
            "a longer name": ({"sub": "repo:octo-org@1234/lake@56789:ref:refs/heads/main"}, "subject_not_allowed"),
            "a pull request": ({"ref": "refs/pull/1/merge"}, "required_claim_mismatch"),
            "the owner's id as a number": ({"repository_owner_id": 1234}, "required_claim_mismatch"),
            "the usual audience": ({"aud": "https://github.com/octo-org"}, "audience_mismatch"),
        },
    ),
    "Kubernetes projected token": RealToken(
        setting=IssuerSetting(
            issuer=_CLUSTER_ISSUER, audiences=("lake",),
            subjects=("system:serviceaccount:obs:*", "system:serviceaccount:jobs:nightly"),
        ),
        claims={
            "aud": ["lake"], "iss": _CLUSTER_ISSUER, "jti": "ea28ed49-2e11-4280-9ec5-bc3d1d84661a",
            "nbf": NOW_SECONDS - 10, "sub": "system:serviceaccount:obs:reader",
            "kubernetes.io": {
                "namespace": "obs", "node": {"name": "node-1", "uid": "646e7c5e-32d6-4d42-9dbd-e504e6cbe6b1"},
                "pod": {"name": "reader-0", "uid": "5e0bd49b-f040-43b0-99b7-22765a53f7f3"},
                "serviceaccount": {"name": "reader", "uid": "14ee3fa4-a7e2-420f-9f9a-dbc4507c3798"},
            },
        },
        typ=None, expected={"subject": "system:serviceaccount:obs:reader", "groups": (), "email": None},
        near_misses={
            "the API server's audience": ({"aud": [_CLUSTER_ISSUER]}, "audience_mismatch"),
            "a legacy token": ({"aud": WITHOUT, "exp": WITHOUT}, "audience_missing"),
            "a token that never ends": ({"exp": WITHOUT}, "expiry_missing"),
            "another namespace": ({"sub": "system:serviceaccount:other:reader"}, "subject_not_allowed"),
            "another account of one": ({"sub": "system:serviceaccount:jobs:hourly"}, "subject_not_allowed"),
        },
    ),
}  # fmt: skip
