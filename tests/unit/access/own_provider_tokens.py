"""Tokens of providers that come with one's own systems: Keycloak, Dex, GitHub Actions and Kubernetes."""

from __future__ import annotations

from micromegas_jupyter.config.issuers import IssuerSetting
from micromegas_jupyter.core.protocols import TokenKind
from tests.fakes.mint import NOW_SECONDS
from tests.unit.access.real_tokens import WITHOUT, RealToken

_KEYCLOAK_ISSUER = "https://id.example.com/realms/example"
_KEYCLOAK_SUBJECT = "f81d4fae-7dec-11d0-a765-00a0c91e6bf6"
_GITHUB_ISSUER = "https://token.actions.githubusercontent.com"
_CLUSTER_ISSUER = "https://kubernetes.default.svc.cluster.local"

OWN: dict[str, RealToken] = {
    "Keycloak access token": RealToken(
        setting=IssuerSetting(
            issuer=_KEYCLOAK_ISSUER,
            audiences=("lake",),
            client_ids=("lake-nightly",),
            group_claims=(("realm_access", "roles"), ("resource_access", "lake", "roles")),
            token_kind=TokenKind.ACCESS,
        ),
        claims={
            "jti": "trrtcc:0d8a7d4e-0000-4000-8000-000000000000",
            "iss": _KEYCLOAK_ISSUER,
            "aud": ["lake", "account"],
            "sub": _KEYCLOAK_SUBJECT,
            "typ": "Bearer",
            "azp": "lake-nightly",
            "sid": "c0ffee00-0000-4000-8000-000000000000",
            "acr": "1",
            "allowed-origins": ["/*"],
            "realm_access": {"roles": ["default-roles-example", "lake-admin"]},
            "resource_access": {"lake": {"roles": ["reader"]}, "account": {"roles": ["view-profile"]}},
            "scope": "openid email profile",
            "email_verified": False,
            "preferred_username": "alice",
            "email": "alice@example.com",
        },
        expected={
            "subject": _KEYCLOAK_SUBJECT,
            "groups": ("default-roles-example", "lake-admin", "reader"),
            "email_verified": False,
            "client_id": "lake-nightly",
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
            "auth_time": NOW_SECONDS - 20,
            "jti": "6f9b1f3e-0000-4000-8000-000000000000",
            "iss": _KEYCLOAK_ISSUER,
            "aud": "lake-notebooks",
            "sub": _KEYCLOAK_SUBJECT,
            "typ": "ID",
            "azp": "lake-notebooks",
            "nonce": "n",
            "at_hash": "FGUo3gBTnk1mUa0cQJ7nFg",
            "acr": "1",
            "email_verified": True,
            "name": "Alice Example",
            "preferred_username": "alice",
            "email": "alice@example.com",
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
        setting=IssuerSetting(
            issuer="https://dex.example.com/dex", audiences=("lake-notebooks",), token_kind=TokenKind.ID
        ),
        claims={
            "iss": "https://dex.example.com/dex",
            "sub": "CgVhbGljZRIFbG9jYWw",
            "aud": "lake-notebooks",
            "nonce": "n",
            "at_hash": "x",
            "c_hash": "y",
            "email": "alice@example.com",
            "email_verified": True,
            "groups": ["example:ops"],
            "name": "alice",
        },
        header={"typ": None},
        expected={"subject": "CgVhbGljZRIFbG9jYWw", "groups": ("example:ops",), "email_verified": True},
        near_misses={
            "the issuer without its path": ({"iss": "https://dex.example.com"}, "issuer_unknown"),
            "the issuer with a slash": ({"iss": "https://dex.example.com/dex/"}, "issuer_unknown"),
            "another application": ({"aud": "grafana"}, "audience_mismatch"),
            "ended": ({"exp": NOW_SECONDS - 60}, "expired"),
        },
    ),
    "GitHub Actions": RealToken(
        setting=IssuerSetting(
            issuer=_GITHUB_ISSUER,
            audiences=("https://lake.example.com",),
            subjects=("repo:octo-org@1234/lake@5678:*",),
            required_claims={"repository_owner_id": ("1234",), "ref": ("refs/heads/main",)},
        ),
        claims={
            "jti": "example-id",
            "sub": "repo:octo-org@1234/lake@5678:ref:refs/heads/main",
            "aud": "https://lake.example.com",
            "ref": "refs/heads/main",
            "sha": "example-sha",
            "repository": "octo-org/lake",
            "repository_owner": "octo-org",
            "repository_id": "5678",
            "repository_owner_id": "1234",
            "run_id": "example-run-id",
            "actor": "octocat",
            "event_name": "workflow_dispatch",
            "ref_type": "branch",
            "runner_environment": "github-hosted",
            "iss": _GITHUB_ISSUER,
            "nbf": NOW_SECONDS - 310,
        },
        expected={"subject": "repo:octo-org@1234/lake@5678:ref:refs/heads/main", "groups": (), "email": None},
        near_misses={
            "a stranger's repository with the right audience": (
                {"sub": "repo:evil@9/lake@5678:ref:refs/heads/main", "repository_owner_id": "9"},
                "required_claim_mismatch",
            ),
            "another repository of the owner": (
                {"sub": "repo:octo-org@1234/other@1:ref:refs/heads/main"},
                "subject_not_allowed",
            ),
            "a repository that begins alike": (
                {"sub": "repo:octo-org@1234/lake@56789:ref:refs/heads/main"},
                "subject_not_allowed",
            ),
            "a pull request": ({"ref": "refs/pull/1/merge"}, "required_claim_mismatch"),
            "the owner's id as a number": ({"repository_owner_id": 1234}, "required_claim_mismatch"),
            "the usual audience": ({"aud": "https://github.com/octo-org"}, "audience_mismatch"),
        },
    ),
    "Kubernetes projected token": RealToken(
        setting=IssuerSetting(
            issuer=_CLUSTER_ISSUER,
            audiences=("lake",),
            subjects=("system:serviceaccount:obs:*", "system:serviceaccount:jobs:nightly"),
        ),
        claims={
            "aud": ["lake"],
            "iss": _CLUSTER_ISSUER,
            "jti": "ea28ed49-2e11-4280-9ec5-bc3d1d84661a",
            "kubernetes.io": {
                "namespace": "obs",
                "node": {"name": "node-1", "uid": "646e7c5e-32d6-4d42-9dbd-e504e6cbe6b1"},
                "pod": {"name": "reader-0", "uid": "5e0bd49b-f040-43b0-99b7-22765a53f7f3"},
                "serviceaccount": {"name": "reader", "uid": "14ee3fa4-a7e2-420f-9f9a-dbc4507c3798"},
            },
            "nbf": NOW_SECONDS - 10,
            "sub": "system:serviceaccount:obs:reader",
        },
        header={"typ": None},
        expected={"subject": "system:serviceaccount:obs:reader", "groups": (), "email": None},
        near_misses={
            "the API server's audience": ({"aud": [_CLUSTER_ISSUER]}, "audience_mismatch"),
            "a legacy token": ({"aud": WITHOUT, "exp": WITHOUT}, "audience_missing"),
            "a token that never ends": ({"exp": WITHOUT}, "expiry_missing"),
            "another namespace": ({"sub": "system:serviceaccount:other:reader"}, "subject_not_allowed"),
            "another account of a listed namespace": (
                {"sub": "system:serviceaccount:jobs:hourly"},
                "subject_not_allowed",
            ),
        },
    ),
}
