"""Tokens of providers that are rented: Google, Entra ID, Okta, Auth0 and Cognito, claim by claim."""

from __future__ import annotations

from micromegas_jupyter.config.issuers import IssuerSetting
from micromegas_jupyter.core.protocols import TokenKind
from tests.fakes.mint import NOW_SECONDS
from tests.unit.access.real_tokens import WITHOUT, RealToken

_GOOGLE_CLIENT = "1234567890-abc123.apps.googleusercontent.com"
_GOOGLE = IssuerSetting(
    issuer="https://accounts.google.com",
    aliases=("accounts.google.com",),
    audiences=(_GOOGLE_CLIENT,),
    client_ids=(_GOOGLE_CLIENT,),
    required_claims={"hd": ("example.com",)},
    token_kind=TokenKind.ID,
)
_GOOGLE_CLAIMS = {
    "iss": "https://accounts.google.com",
    "azp": _GOOGLE_CLIENT,
    "aud": _GOOGLE_CLIENT,
    "sub": "110169484474386276334",
    "hd": "example.com",
    "email": "alice@example.com",
    "email_verified": True,
    "at_hash": "HK6E_P6Dh8Y93mRNtsDB1Q",
    "name": "Alice Example",
    "picture": "https://lh3.googleusercontent.com/a/photo=s96-c",
    "given_name": "Alice",
    "family_name": "Example",
}
_GOOGLE_EXPECTED = {
    "subject": "110169484474386276334",
    "issuer": "https://accounts.google.com",
    "email": "alice@example.com",
    "email_verified": True,
    "client_id": _GOOGLE_CLIENT,
}

_TENANT = "11111111-2222-3333-4444-555555555555"
_ENTRA_API = "99999999-8888-7777-6666-555555555555"
_ENTRA_CLIENT = "aaaaaaaa-0000-0000-0000-eeeeeeeeeeee"
_ENTRA_ISSUER = f"https://login.microsoftonline.com/{_TENANT}/v2.0"

_OKTA_ISSUER = "https://example.okta.com/oauth2/default"
_AUTH0_ISSUER = "https://example.eu.auth0.com/"
_AUTH0_API = "https://lake.example.com"
_COGNITO_ISSUER = "https://cognito-idp.eu-west-1.amazonaws.com/eu-west-1_AbCdEfGhI"
_COGNITO_CLIENT = "1h57kf5cpq17m0eml12EXAMPLE"
_COGNITO_SUBJECT = "aaaaaaaa-bbbb-cccc-dddd-example11111"

HOSTED: dict[str, RealToken] = {
    "Google ID token": RealToken(
        setting=_GOOGLE,
        claims=_GOOGLE_CLAIMS,
        expected=_GOOGLE_EXPECTED,
        near_misses={
            "a private account": ({"hd": WITHOUT}, "required_claim_missing"),
            "another organisation": ({"hd": "example.org"}, "required_claim_mismatch"),
            "another application": ({"aud": "other.apps.googleusercontent.com"}, "audience_mismatch"),
            "a service account with the right audience": ({"azp": "112233445566778899"}, "client_not_allowed"),
            "the issuer with a slash": ({"iss": "https://accounts.google.com/"}, "issuer_unknown"),
        },
    ),
    "Google ID token of the older form": RealToken(
        setting=_GOOGLE,
        claims={**_GOOGLE_CLAIMS, "iss": "accounts.google.com"},
        expected=_GOOGLE_EXPECTED,
        near_misses={
            "the issuer over http": ({"iss": "http://accounts.google.com"}, "issuer_unknown"),
            "the issuer in capitals": ({"iss": "Accounts.Google.com"}, "issuer_unknown"),
            "no issue time": ({"iat": WITHOUT}, "issued_at_missing"),
        },
    ),
    "Entra ID access token, version 2": RealToken(
        setting=IssuerSetting(
            issuer=_ENTRA_ISSUER,
            audiences=(_ENTRA_API,),
            subject_claim="oid",
            group_claims=(("roles",), ("groups",)),
            client_ids=(_ENTRA_CLIENT,),
            tenant=_TENANT,
            token_kind=TokenKind.ACCESS,
        ),
        claims={
            "aud": _ENTRA_API,
            "iss": _ENTRA_ISSUER,
            "nbf": NOW_SECONDS - 10,
            "aio": "AXQAi/8TAAAAsample",
            "azp": _ENTRA_CLIENT,
            "azpacr": "0",
            "groups": ["0f0f0f0f-1111-2222-3333-444444444444"],
            "name": "Alice Example",
            "oid": "bbbbbbbb-1111-2222-3333-cccccccccccc",
            "preferred_username": "alice@example.com",
            "rh": "0.AXkAsample",
            "roles": ["Lake.Admin"],
            "scp": "access_as_user",
            "sub": "pairwise-2hT0QqXq5h3uYc4pM",
            "tid": _TENANT,
            "uti": "sample",
            "ver": "2.0",
        },
        expected={
            "subject": "bbbbbbbb-1111-2222-3333-cccccccccccc",
            "groups": ("Lake.Admin", "0f0f0f0f-1111-2222-3333-444444444444"),
            "client_id": _ENTRA_CLIENT,
            "email": "alice@example.com",
            "email_verified": False,
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
            issuer=_OKTA_ISSUER,
            audiences=("api://default",),
            client_ids=("0oa9z8y7x6w5v4u3t2s1",),
            subject_claim="uid",
            token_kind=TokenKind.ACCESS,
        ),
        claims={
            "ver": 1,
            "jti": "AT.0mP4JKAZX1iACIT4vbEDF7LpvDVjxypPMf0D7uX39RE",
            "iss": _OKTA_ISSUER,
            "aud": "api://default",
            "cid": "0oa9z8y7x6w5v4u3t2s1",
            "uid": "00u1a2b3c4d5e6f7g8h9",
            "scp": ["openid", "profile", "lake.read"],
            "auth_time": NOW_SECONDS - 20,
            "sub": "alice@example.com",
            "groups": ["Everyone", "lake-admins"],
        },
        expected={
            "subject": "00u1a2b3c4d5e6f7g8h9",
            "groups": ("Everyone", "lake-admins"),
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
            issuer=_AUTH0_ISSUER,
            audiences=(_AUTH0_API,),
            client_ids=("ZyXwVuTsRqPoNmLkJiHgFeDcBa543210",),
            group_claims=(("https://lake.example.com/groups",),),
            token_kind=TokenKind.ACCESS,
        ),
        claims={
            "https://lake.example.com/groups": ["lake-admins"],
            "iss": _AUTH0_ISSUER,
            "sub": "auth0|5f7c8ec7c33c6c004bbafe82",
            "aud": [_AUTH0_API, "https://example.eu.auth0.com/userinfo"],
            "scope": "openid profile email",
            "azp": "ZyXwVuTsRqPoNmLkJiHgFeDcBa543210",
        },
        expected={"subject": "auth0|5f7c8ec7c33c6c004bbafe82", "groups": ("lake-admins",)},
        near_misses={
            "the issuer without its slash": ({"iss": _AUTH0_ISSUER[:-1]}, "issuer_unknown"),
            "for the userinfo endpoint only": (
                {"aud": ["https://example.eu.auth0.com/userinfo"]},
                "audience_mismatch",
            ),
            "the audience with a slash": ({"aud": [f"{_AUTH0_API}/"]}, "audience_mismatch"),
            "a machine": ({"azp": "machine", "sub": "machine@clients"}, "client_not_allowed"),
            "an ID token": ({"scope": WITHOUT, "nonce": "n"}, "id_token_as_access_token"),
        },
    ),
    "Cognito access token": RealToken(
        setting=IssuerSetting(
            issuer=_COGNITO_ISSUER,
            client_ids=(_COGNITO_CLIENT,),
            required_claims={"token_use": ("access",)},
            token_kind=TokenKind.ACCESS,
        ),
        claims={
            "sub": _COGNITO_SUBJECT,
            "cognito:groups": ["lake-admins"],
            "iss": _COGNITO_ISSUER,
            "version": 2,
            "client_id": _COGNITO_CLIENT,
            "origin_jti": "aaaaaaaa-0000-0000-0000-example",
            "event_id": "bbbbbbbb-0000-0000-0000-example",
            "token_use": "access",
            "scope": "openid email",
            "auth_time": NOW_SECONDS - 20,
            "jti": "cccccccc-0000-0000-0000-example",
            "username": "alice",
        },
        header={"typ": None},
        expected={"subject": _COGNITO_SUBJECT, "groups": ("lake-admins",), "client_id": _COGNITO_CLIENT},
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
            issuer=_COGNITO_ISSUER,
            audiences=(_COGNITO_CLIENT,),
            required_claims={"token_use": ("id",)},
            token_kind=TokenKind.ID,
        ),
        claims={
            "sub": _COGNITO_SUBJECT,
            "cognito:groups": ["lake-admins"],
            "email_verified": "true",
            "iss": _COGNITO_ISSUER,
            "cognito:username": "alice",
            "aud": _COGNITO_CLIENT,
            "event_id": "bbbbbbbb-0000-0000-0000-example",
            "token_use": "id",
            "auth_time": NOW_SECONDS - 20,
            "email": "alice@example.com",
        },
        header={"typ": None},
        expected={
            "subject": _COGNITO_SUBJECT,
            "email": "alice@example.com",
            "email_verified": False,
            "groups": ("lake-admins",),
        },
        near_misses={
            "an access token": ({"aud": WITHOUT, "token_use": "access"}, "audience_missing"),
            "an access token with an audience": ({"token_use": "access"}, "access_token_as_id_token"),
            "a refresh token": ({"token_use": "refresh"}, "not_a_bearer_token"),
            "another application": ({"aud": "other"}, "audience_mismatch"),
        },
    ),
}
