"""Tests of `oidc.client_auth`: how a client proves itself, chosen from what the provider takes."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives import serialization

from micromegas_jupyter.core.system import Secret
from micromegas_jupyter.errors import ConfigurationError
from micromegas_jupyter.oidc.authorization import (
    ClientAuthentication,
    ClientAuthenticationMethod,
    ClientProof,
    build_client_authentication,
    choose_authentication_method,
)
from micromegas_jupyter.oidc.jws import ParsedToken, parse_key_set, parse_token, verify_signature
from micromegas_jupyter.oidc.private_key import parse_private_key
from tests.fakes.mint import NOW, NOW_SECONDS, ec_key

PEM = ec_key().private.private_bytes(
    serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
)
KEY = parse_private_key(Secret(PEM.decode()), key_id="ec", algorithm=None, source_name="key")
SECRET = Secret("s")
BASIC, POST = ClientAuthenticationMethod.BASIC, ClientAuthenticationMethod.POST
JWT, NONE = ClientAuthenticationMethod.PRIVATE_KEY_JWT, ClientAuthenticationMethod.NONE
SECRET_KEY, KEY_FILE_KEY = "MICROMEGAS_OIDC_CLIENT_SECRET", "MICROMEGAS_OIDC_PRIVATE_KEY_FILE"


class CountingRandomness:
    """Draws texts that can be told apart."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def token_urlsafe(self, nbytes: int) -> str:
        self.sizes.append(nbytes)
        return f"random-{len(self.sizes)}"


def authenticate(
    method: ClientAuthenticationMethod,
    proof: ClientProof,
    *,
    client_id: str = "a",
    randomness: CountingRandomness | None = None,
) -> ClientAuthentication:
    return build_client_authentication(
        method,
        client_id=client_id,
        proof=proof,
        assertion_audience="https://id.example.com/token",
        now=NOW,
        randomness=randomness or CountingRandomness(),
    )


def assertion_of(authentication: ClientAuthentication) -> ParsedToken:
    assertion = authentication.fields["client_assertion"]
    assert isinstance(assertion, Secret)
    return parse_token(assertion.reveal())


@pytest.mark.parametrize(
    ("supported", "proof", "chosen"),
    [
        (None, None, NONE),
        (("client_secret_basic",), None, NONE),
        (None, SECRET, BASIC),
        (("client_secret_post", "client_secret_basic"), SECRET, BASIC),
        (("client_secret_post", "private_key_jwt"), SECRET, POST),
        (None, KEY, JWT),
        (("client_secret_basic", "private_key_jwt"), KEY, JWT),
    ],
)
def test_the_method_follows_the_proof_and_the_metadata(supported, proof, chosen):
    assert choose_authentication_method(supported, proof=proof) is chosen


@pytest.mark.parametrize(
    ("supported", "proof", "key"),
    [
        ((), SECRET, SECRET_KEY),
        (("none",), SECRET, SECRET_KEY),
        (("private_key_jwt",), SECRET, SECRET_KEY),
        (("client_secret_basic",), KEY, KEY_FILE_KEY),
    ],
)
def test_a_proof_that_the_provider_cannot_take_is_a_configuration_error(supported, proof, key):
    with pytest.raises(ConfigurationError) as caught:
        choose_authentication_method(supported, proof=proof)

    assert caught.value.key == key
    assert "client secret" in caught.value.remedy


@pytest.mark.parametrize(("method", "key"), [(BASIC, SECRET_KEY), (POST, SECRET_KEY), (JWT, KEY_FILE_KEY)])
def test_a_method_with_a_proof_needs_one(method, key):
    with pytest.raises(ConfigurationError) as caught:
        authenticate(method, None)

    assert caught.value.key == key


def test_a_client_names_itself_in_the_body_with_its_secret_if_it_has_one():
    public, post = authenticate(NONE, None), authenticate(POST, SECRET)

    assert (public.fields, public.headers) == ({"client_id": "a"}, {})
    assert (post.fields, post.headers) == ({"client_id": "a", "client_secret": Secret("s")}, {})


def test_basic_credentials_are_form_encoded_before_they_are_joined():
    found = authenticate(BASIC, Secret("p w+d/é"), client_id="a:b")

    assert found.fields == {}
    # base64 of "a%3Ab:p+w%2Bd%2F%C3%A9"
    assert found.headers["Authorization"] == Secret("Basic YSUzQWI6cCt3JTJCZCUyRiVDMyVBOQ==")
    assert "YSUz" not in repr(found)


def test_an_assertion_is_signed_and_says_who_the_client_is_to_its_audience_for_minutes_only():
    found = authenticate(JWT, KEY)

    parsed = assertion_of(found)
    assert dict(parsed.header) == {"alg": "ES256", "typ": "JWT", "kid": "ec"}
    assert dict(parsed.claims) == {
        "iss": "a",
        "sub": "a",
        "aud": "https://id.example.com/token",
        "jti": "random-1",
        "iat": NOW_SECONDS,
        "exp": NOW_SECONDS + 120,
    }
    assert found.headers == {}
    assert found.fields["client_id"] == "a"
    assert found.fields["client_assertion_type"] == "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
    assert "eyJ" not in repr(found)
    verify_signature(parsed, parse_key_set({"keys": [ec_key().jwk()]}))


def test_no_two_assertions_have_the_same_id():
    randomness = CountingRandomness()

    first, second = (assertion_of(authenticate(JWT, KEY, randomness=randomness)) for _ in range(2))

    assert first.claims["jti"] != second.claims["jti"]
    assert min(randomness.sizes) >= 16
