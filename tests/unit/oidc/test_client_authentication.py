from __future__ import annotations

import pytest

from micromegas_jupyter.contracts import Secret
from micromegas_jupyter.errors import ConfigurationError
from micromegas_jupyter.oidc.client_authentication import (
    ClientAuthenticationMethod,
    build_client_authentication,
    choose_authentication_method,
)


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
    assert choose_authentication_method(supported, has_secret=has_secret) is chosen


@pytest.mark.parametrize("supported", [(), ("none",), ("private_key_jwt",)])
def test_a_secret_that_the_provider_cannot_take_is_a_configuration_error(supported: tuple[str, ...]) -> None:
    with pytest.raises(ConfigurationError):
        choose_authentication_method(supported, has_secret=True)


def test_a_public_client_names_itself_in_the_body() -> None:
    proof = build_client_authentication(ClientAuthenticationMethod.NONE, client_id="a", client_secret=None)

    assert (proof.fields, proof.headers) == ({"client_id": "a"}, {})


def test_a_secret_goes_into_the_body_by_post() -> None:
    proof = build_client_authentication(ClientAuthenticationMethod.POST, client_id="a", client_secret=Secret("s"))

    assert (proof.fields, proof.headers) == ({"client_id": "a", "client_secret": Secret("s")}, {})


def test_basic_credentials_are_form_encoded_before_they_are_joined() -> None:
    proof = build_client_authentication(
        ClientAuthenticationMethod.BASIC, client_id="a:b", client_secret=Secret("p w+d/é")
    )

    assert proof.fields == {}
    # base64 of "a%3Ab:p+w%2Bd%2F%C3%A9"
    assert proof.headers["Authorization"] == Secret("Basic YSUzQWI6cCt3JTJCZCUyRiVDMyVBOQ==")
    assert "YSUz" not in repr(proof)


@pytest.mark.parametrize("method", [ClientAuthenticationMethod.BASIC, ClientAuthenticationMethod.POST])
def test_a_method_with_a_secret_needs_one(method: ClientAuthenticationMethod) -> None:
    with pytest.raises(ConfigurationError):
        build_client_authentication(method, client_id="a", client_secret=None)
