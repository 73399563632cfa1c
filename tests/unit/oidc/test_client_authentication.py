from __future__ import annotations

import pytest
from cryptography.hazmat.primitives import serialization

from micromegas_jupyter.core.secrets import Secret
from micromegas_jupyter.errors import ConfigurationError
from micromegas_jupyter.oidc.client_auth import (
    ClientAuthentication,
    ClientAuthenticationMethod,
    ClientProof,
    build_client_authentication,
    choose_authentication_method,
)
from micromegas_jupyter.oidc.jws import ParsedToken, parse_token
from micromegas_jupyter.oidc.keys import parse_key_set, verify_signature
from micromegas_jupyter.oidc.private_key import PrivateKey, parse_private_key
from tests.fakes.mint import NOW, NOW_SECONDS, ec_key


@pytest.mark.parametrize(
    ("supported", "has_secret", "chosen"),
    [
        (None, False, ClientAuthenticationMethod.NONE),
        (("client_secret_basic",), False, ClientAuthenticationMethod.NONE),
        (None, True, ClientAuthenticationMethod.BASIC),
        (("client_secret_post", "client_secret_basic"), True, ClientAuthenticationMethod.BASIC),
        (("client_secret_post", "private_key_jwt"), True, ClientAuthenticationMethod.POST),
    ],
)
def test_the_method_follows_the_secret_and_the_metadata(
    supported: tuple[str, ...] | None, has_secret: bool, chosen: ClientAuthenticationMethod
) -> None:
    assert choose_authentication_method(supported, proof=Secret("s") if has_secret else None) is chosen


@pytest.mark.parametrize("supported", [(), ("none",), ("private_key_jwt",)])
def test_a_secret_that_the_provider_cannot_take_is_a_configuration_error(supported: tuple[str, ...]) -> None:
    with pytest.raises(ConfigurationError):
        choose_authentication_method(supported, proof=Secret("s"))


@pytest.fixture
def key() -> PrivateKey:
    pem = ec_key().private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return parse_private_key(Secret(pem.decode()), key_id="ec", algorithm=None, source_name="key")


class CountingRandomness:
    """Implements `seams.Randomness` with texts that can be told apart."""

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


def test_a_public_client_names_itself_in_the_body() -> None:
    found = authenticate(ClientAuthenticationMethod.NONE, None)

    assert (found.fields, found.headers) == ({"client_id": "a"}, {})


def test_a_secret_goes_into_the_body_by_post() -> None:
    found = authenticate(ClientAuthenticationMethod.POST, Secret("s"))

    assert (found.fields, found.headers) == ({"client_id": "a", "client_secret": Secret("s")}, {})


def test_basic_credentials_are_form_encoded_before_they_are_joined() -> None:
    found = authenticate(ClientAuthenticationMethod.BASIC, Secret("p w+d/é"), client_id="a:b")

    assert found.fields == {}
    # base64 of "a%3Ab:p+w%2Bd%2F%C3%A9"
    assert found.headers["Authorization"] == Secret("Basic YSUzQWI6cCt3JTJCZCUyRiVDMyVBOQ==")
    assert "YSUz" not in repr(found)


@pytest.mark.parametrize(
    ("method", "key_name"),
    [
        (ClientAuthenticationMethod.BASIC, "MICROMEGAS_OIDC_CLIENT_SECRET"),
        (ClientAuthenticationMethod.POST, "MICROMEGAS_OIDC_CLIENT_SECRET"),
        (ClientAuthenticationMethod.PRIVATE_KEY_JWT, "MICROMEGAS_OIDC_PRIVATE_KEY_FILE"),
    ],
)
def test_a_method_with_a_proof_needs_one(method: ClientAuthenticationMethod, key_name: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        authenticate(method, None)

    assert caught.value.key == key_name


@pytest.mark.parametrize("supported", [None, ("client_secret_basic", "private_key_jwt")])
def test_a_key_is_used_where_the_provider_takes_one(supported: tuple[str, ...] | None, key: PrivateKey) -> None:
    method = choose_authentication_method(supported, proof=key)

    assert method is ClientAuthenticationMethod.PRIVATE_KEY_JWT


def test_a_key_that_the_provider_cannot_take_is_a_configuration_error_with_a_remedy(key: PrivateKey) -> None:
    with pytest.raises(ConfigurationError) as caught:
        choose_authentication_method(("client_secret_basic",), proof=key)

    assert caught.value.key == "MICROMEGAS_OIDC_PRIVATE_KEY_FILE"
    assert "client secret" in caught.value.remedy


def test_an_assertion_says_who_the_client_is_to_its_audience_for_minutes_only(key: PrivateKey) -> None:
    found = authenticate(ClientAuthenticationMethod.PRIVATE_KEY_JWT, key)

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


def test_an_assertion_is_signed_with_the_key_of_the_client(key: PrivateKey) -> None:
    found = authenticate(ClientAuthenticationMethod.PRIVATE_KEY_JWT, key)

    verify_signature(assertion_of(found), parse_key_set({"keys": [ec_key().jwk()]}))


def test_no_two_assertions_have_the_same_id(key: PrivateKey) -> None:
    randomness = CountingRandomness()

    first = assertion_of(authenticate(ClientAuthenticationMethod.PRIVATE_KEY_JWT, key, randomness=randomness))
    second = assertion_of(authenticate(ClientAuthenticationMethod.PRIVATE_KEY_JWT, key, randomness=randomness))

    assert first.claims["jti"] != second.claims["jti"]
    assert min(randomness.sizes) >= 16


def test_an_assertion_is_not_shown(key: PrivateKey) -> None:
    found = authenticate(ClientAuthenticationMethod.PRIVATE_KEY_JWT, key)

    assert "eyJ" not in repr(found)
