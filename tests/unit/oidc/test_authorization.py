"""Tests of `oidc.authorization`: the request that a browser is sent with, and the callback."""

from __future__ import annotations

from dataclasses import replace
from urllib.parse import parse_qsl, urlencode, urlsplit

import pytest

from micromegas_jupyter.errors import LoginRefused, ProviderMisbehaved, ProviderUnavailable, UsageError
from micromegas_jupyter.oidc.authorization import (
    build_authorization_request,
    complete_scope,
    is_callback_of,
    parse_callback,
    resource_fields,
)
from micromegas_jupyter.oidc.discovery import ProviderMetadata

METADATA = ProviderMetadata(
    issuer="https://id.example.com",
    jwks_uri="https://id.example.com/keys",
    authorization_endpoint="https://id.example.com/authorize?tenant=1",
    token_endpoint="https://id.example.com/token",
)
ANNOUNCING = replace(METADATA, sends_issuer_in_callback=True)


class CountingRandomness:
    """Implements `seams.Randomness` with a verifier of RFC 7636 appendix B as third draw."""

    def __init__(self):
        self._draws = iter(["state-1", "nonce-1", "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"])
        self.sizes: list[int] = []

    def token_urlsafe(self, nbytes):
        self.sizes.append(nbytes)
        return next(self._draws)


def build(metadata=METADATA, **changes):
    arguments = {
        "client_id": "note book",
        "redirect_uri": "http://127.0.0.1:1234/callback",
        "scope": "openid email",
        "randomness": CountingRandomness(),
        **changes,
    }
    return build_authorization_request(metadata, **arguments)  # type: ignore[arg-type]


def query_of(request):
    pairs = parse_qsl(urlsplit(request.url).query)
    assert len(dict(pairs)) == len(pairs)
    return dict(pairs)


def test_a_resource_that_is_given_twice_is_refused():
    with pytest.raises(UsageError):
        build(resource="https://lake.example.com", extra_parameters={"resource": "https://other.example.com"})


def test_a_request_carries_state_nonce_and_an_s256_challenge():
    randomness = CountingRandomness()
    request = build(randomness=randomness)

    assert randomness.sizes == [32, 32, 32]
    assert request.url.startswith("https://id.example.com/authorize?tenant=1&")
    assert query_of(request) == {
        "tenant": "1",
        "response_type": "code",
        "client_id": "note book",
        "redirect_uri": "http://127.0.0.1:1234/callback",
        "scope": "openid email",
        "state": "state-1",
        "nonce": "nonce-1",
        "code_challenge": "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM",
        "code_challenge_method": "S256",
    }


def test_nothing_secret_shows_in_the_repr():
    shown = repr(build())

    assert not [secret for secret in ("state-1", "nonce-1", "dBjftJeZ", "E9Melhoa") if secret in shown]


def test_audience_and_extra_parameters_are_sent():
    extra = {"access_type": "offline", "prompt": "login"}
    query = query_of(build(audience="api", resource="urn:lake:1", extra_parameters=extra))

    assert (query["audience"], query["access_type"], query["prompt"]) == ("api", "offline", "login")
    assert query["resource"] == build(resource="urn:lake:1").resource == "urn:lake:1"
    asked = query_of(build(scope="email offline_access"))
    assert (asked["scope"], asked["prompt"]) == ("openid email offline_access", "consent")


@pytest.mark.parametrize(
    "name", ["state", "nonce", "redirect_uri", "code_challenge_method", "response_mode", "request"]
)
def test_a_parameter_of_the_protocol_cannot_be_replaced(name):
    with pytest.raises(UsageError):
        build(extra_parameters={name: "x"})


@pytest.mark.parametrize("methods", [("plain",), ()])
def test_a_provider_that_lists_pkce_without_s256_is_refused(methods):
    with pytest.raises(ProviderMisbehaved):
        build(replace(METADATA, pkce_methods=methods))


@pytest.mark.parametrize("missing", ["authorization_endpoint", "token_endpoint"])
def test_a_provider_without_the_endpoints_is_refused(missing):
    with pytest.raises(ProviderMisbehaved):
        build(replace(METADATA, **{missing: None}))


@pytest.mark.parametrize("scope", ["", " openid", "openid  email", 'open"id', "openid\n", "openid é"])
def test_a_malformed_scope_is_a_usage_error(scope):
    with pytest.raises(UsageError):
        complete_scope(scope)


def test_a_callback_gives_its_code():
    query = "code=c0de&state=state-1&iss=https%3A%2F%2Fid.example.com"

    code = parse_callback(query, request=build(), metadata=ANNOUNCING)

    assert code.reveal() == "c0de"
    assert "c0de" not in repr(code)


@pytest.mark.parametrize(
    "query",
    ["", "code=c", "state=state-2", "state=", "state=state-1&state=state-1", "state=%FF", "x&" * 60 + "state=state-1"],
)
def test_a_callback_with_another_state_is_not_of_this_request(query):
    request = build()

    assert not is_callback_of(query, request)
    with pytest.raises(ProviderMisbehaved):
        parse_callback(query, request=request, metadata=METADATA)


@pytest.mark.parametrize("issuer", ["https://evil.example", "https://id.example.com/", ""])
@pytest.mark.parametrize("metadata", [METADATA, ANNOUNCING])
@pytest.mark.parametrize("result", [{"code": "c"}, {"error": "access_denied"}])
def test_a_callback_of_another_issuer_is_refused(issuer, metadata, result):
    query = urlencode({"state": "state-1", "iss": issuer, **result})

    with pytest.raises(ProviderMisbehaved):
        parse_callback(query, request=build(), metadata=metadata)


def test_an_announced_issuer_must_not_be_missing():
    query = "code=c&state=state-1"

    with pytest.raises(ProviderMisbehaved):
        parse_callback(query, request=build(), metadata=ANNOUNCING)
    assert parse_callback(query, request=build(), metadata=METADATA).reveal() == "c"


@pytest.mark.parametrize("query", ["", "&code=", "&code=a&code=b", "&code=%0a", "&code=%C3%A9", "&code=" + "a" * 4097])
def test_a_callback_without_one_usable_code_is_refused(query):
    with pytest.raises(ProviderMisbehaved):
        parse_callback("state=state-1" + query, request=build(), metadata=METADATA)


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("access_denied", LoginRefused),
        ("unauthorized_client", LoginRefused),
        ("server_error", ProviderUnavailable),
        ("temporarily_unavailable", ProviderUnavailable),
    ],
)
def test_each_error_of_the_provider_has_its_class(code, expected):
    with pytest.raises(expected) as caught:
        parse_callback(f"state=state-1&error={code}", request=build(), metadata=METADATA)

    assert type(caught.value) is expected


@pytest.mark.parametrize(
    "resource",
    ["lake", "/lake", "//lake.example.com", "https://lake#part", "https://la ke", "https://lake\n", "x:" + "a" * 2047],
)
def test_what_is_not_an_absolute_uri_or_has_a_fragment_is_refused(resource):
    with pytest.raises(UsageError):
        resource_fields(resource)
