from __future__ import annotations

import pytest

from micromegas_jupyter.errors import ProviderMisbehaved
from micromegas_jupyter.oidc.discovery import ProviderMetadata, build_metadata_url, parse_metadata

ISSUER = "https://id.example.com/tenant"


def document(**changes: object) -> dict[str, object]:
    """A complete document; a change to None removes the member."""
    members = {
        "issuer": ISSUER,
        "authorization_endpoint": "https://id.example.com/authorize",
        "token_endpoint": "https://id.example.com/token",
        "jwks_uri": "https://keys.example.com/keys",
        "revocation_endpoint": "https://id.example.com/revoke",
        "device_authorization_endpoint": "https://id.example.com/device",
        "end_session_endpoint": "https://id.example.com/end",
        "authorization_response_iss_parameter_supported": True,
        "token_endpoint_auth_methods_supported": ["client_secret_basic", "none"],
        "code_challenge_methods_supported": ["S256", "plain"],
        **changes,
    }
    return {name: value for name, value in members.items() if value is not None}


def test_every_endpoint_and_ability_is_kept() -> None:
    assert parse_metadata(document(), issuer=ISSUER) == ProviderMetadata(
        issuer=ISSUER,
        jwks_uri="https://keys.example.com/keys",
        authorization_endpoint="https://id.example.com/authorize",
        token_endpoint="https://id.example.com/token",
        revocation_endpoint="https://id.example.com/revoke",
        device_authorization_endpoint="https://id.example.com/device",
        end_session_endpoint="https://id.example.com/end",
        sends_issuer_in_callback=True,
        token_endpoint_auth_methods=("client_secret_basic", "none"),
        pkce_methods=("S256", "plain"),
    )


def test_an_issuer_of_machines_needs_no_more_than_keys() -> None:
    found = parse_metadata({"issuer": ISSUER, "jwks_uri": "https://id.example.com/keys"}, issuer=ISSUER)

    assert (found.authorization_endpoint, found.sends_issuer_in_callback, found.pkce_methods) == (None, False, None)
    with pytest.raises(ProviderMisbehaved):
        found.require_token_endpoint()


@pytest.mark.parametrize(
    ("issuer", "url"),
    [
        ("https://id.example.com", "https://id.example.com/.well-known/openid-configuration"),
        ("https://id.example.com/", "https://id.example.com/.well-known/openid-configuration"),
        ("https://id.example.com/a//", "https://id.example.com/a//.well-known/openid-configuration"),
    ],
)
def test_one_trailing_slash_is_dropped_to_build_the_address(issuer: str, url: str) -> None:
    assert build_metadata_url(issuer) == url


@pytest.mark.parametrize(
    "stated", [ISSUER + "/", ISSUER.upper(), "https://id.example.com", "https://evil.example", None, 1, [ISSUER]]
)
def test_an_issuer_that_differs_in_one_byte_is_refused(stated: object) -> None:
    with pytest.raises(ProviderMisbehaved):
        parse_metadata(document(issuer=stated), issuer=ISSUER)


@pytest.mark.parametrize("body", [None, [], "text", 1])
def test_a_document_that_is_no_object_is_refused(body: object) -> None:
    with pytest.raises(ProviderMisbehaved):
        parse_metadata(body, issuer=ISSUER)


@pytest.mark.parametrize(
    "name",
    [
        "authorization_endpoint",
        "token_endpoint",
        "jwks_uri",
        "revocation_endpoint",
        "device_authorization_endpoint",
        "end_session_endpoint",
    ],
)
@pytest.mark.parametrize("url", ["http://id.example.com/x", "http://127.0.0.1/x", "https://a@b.example/", 1, ""])
def test_an_endpoint_that_may_not_be_called_is_refused(name: str, url: object) -> None:
    with pytest.raises(ProviderMisbehaved):
        parse_metadata(document(**{name: url}), issuer=ISSUER)


def test_a_provider_on_this_machine_may_use_http_on_this_machine() -> None:
    issuer = "http://127.0.0.1:8080"
    body = {"issuer": issuer, "jwks_uri": "http://127.0.0.1:8080/keys"}

    assert parse_metadata(body, issuer=issuer).jwks_uri == "http://127.0.0.1:8080/keys"


def test_keys_are_required() -> None:
    with pytest.raises(ProviderMisbehaved):
        parse_metadata(document(jwks_uri=None), issuer=ISSUER)


@pytest.mark.parametrize("listed", ["S256", [1], {"S256": True}])
def test_a_list_of_the_wrong_type_is_refused(listed: object) -> None:
    with pytest.raises(ProviderMisbehaved):
        parse_metadata(document(code_challenge_methods_supported=listed), issuer=ISSUER)


@pytest.mark.parametrize("value", ["true", 1, False])
def test_the_iss_parameter_is_announced_by_json_true_only(value: object) -> None:
    found = parse_metadata(document(authorization_response_iss_parameter_supported=value), issuer=ISSUER)

    assert not found.sends_issuer_in_callback
