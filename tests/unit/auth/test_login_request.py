from __future__ import annotations

import pytest
from joserfc.jwk import RSAKey

from micromegas_jupyter.auth.provider_connection import LoginRequest, client_proof
from micromegas_jupyter.config.client import Bearer
from micromegas_jupyter.core.system import Secret
from micromegas_jupyter.errors import UsageError
from micromegas_jupyter.oidc.private_key import PrivateKey


@pytest.fixture(scope="module")
def key() -> PrivateKey:
    return PrivateKey(key=RSAKey.generate_key(2048), algorithm="RS256")


@pytest.mark.parametrize(("bearer", "expected"), [(Bearer.ID_TOKEN, True), (Bearer.ACCESS_TOKEN, False)])
def test_only_who_wants_the_id_token_needs_one(bearer: Bearer, expected: bool) -> None:
    assert LoginRequest(bearer=bearer).needs_id_token is expected


@pytest.mark.parametrize("secret", ["s3same", Secret("s3same")])
def test_a_secret_proves_the_application(secret: str | Secret) -> None:
    assert client_proof(secret, None) == Secret("s3same")


def test_a_private_key_proves_the_application(key: PrivateKey) -> None:
    assert client_proof(None, key) is key


@pytest.mark.parametrize("secret", [None, "", Secret("")])
def test_an_empty_secret_is_none(secret: str | Secret | None, key: PrivateKey) -> None:
    assert client_proof(secret, None) is None
    assert client_proof(secret, key) is key


def test_a_secret_and_a_private_key_are_one_too_many(key: PrivateKey) -> None:
    with pytest.raises(UsageError) as caught:
        client_proof("s3same", key)

    assert "s3same" not in str(caught.value)
