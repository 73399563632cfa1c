from __future__ import annotations

import json

import pytest
from cryptography.hazmat.primitives import serialization

from micromegas_jupyter.core.secrets import Secret
from micromegas_jupyter.errors import UsageError
from micromegas_jupyter.oidc.jws import parse_token
from micromegas_jupyter.oidc.keys import parse_key_set, verify_signature
from micromegas_jupyter.oidc.private_key import PrivateKey, parse_private_key
from micromegas_jupyter.oidc.tokens import (
    build_assertion,
    build_client_assertion_request,
    build_jwt_bearer_request,
)
from tests.fakes.mint import NOW, NOW_SECONDS, SigningKey, ec_key, ed25519_key, rsa_key

CLAIMS = {"iss": "svc", "aud": "https://id.example.com/token"}


def private_key(key: SigningKey) -> PrivateKey:
    pem = key.private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return parse_private_key(Secret(pem.decode()), key_id=key.kid, algorithm=None, source_name="private_key_file")


@pytest.mark.parametrize("key", [rsa_key(), ec_key(), ed25519_key()], ids=lambda key: key.algorithm)
def test_an_assertion_is_signed_and_says_who_to_whom_and_how_long(key: SigningKey) -> None:
    assertion = build_assertion(private_key(key), CLAIMS, now=NOW, lifetime_seconds=600)

    parsed = parse_token(assertion.reveal())
    verify_signature(parsed, parse_key_set({"keys": [key.jwk()]}), algorithms=frozenset({key.algorithm}))
    assert parsed.claims == {**CLAIMS, "iat": NOW_SECONDS, "exp": NOW_SECONDS + 600}
    assert parsed.key_id == key.kid


def test_a_bearer_request_has_the_fields_of_rfc_7523() -> None:
    assert build_jwt_bearer_request(Secret("a.b.c")) == {
        "grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer",
        "assertion": Secret("a.b.c"),
    }


def test_an_assertion_of_somebody_else_authenticates_client_credentials() -> None:
    fields = build_client_assertion_request(
        Secret("a.b.c"), scope="api://lake/.default", audience="lake", resource="https://lake.example.com"
    )

    assert fields == {
        "grant_type": "client_credentials",
        "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
        "client_assertion": Secret("a.b.c"),
        "scope": "api://lake/.default",
        "audience": "lake",
        "resource": "https://lake.example.com",
    }


def test_what_is_not_wanted_is_not_asked_for() -> None:
    fields = build_client_assertion_request(Secret("a.b.c"), scope=None, audience=None, resource=None)

    assert fields.keys() == {"grant_type", "client_assertion_type", "client_assertion"}


def test_a_resource_that_is_no_uri_is_refused() -> None:
    with pytest.raises(UsageError):
        build_client_assertion_request(Secret("a.b.c"), scope=None, audience=None, resource="lake")


def test_no_assertion_shows_in_a_request() -> None:
    fields = build_jwt_bearer_request(Secret("a.b.c"))

    assert "a.b.c" not in json.dumps({name: str(value) for name, value in fields.items()})
