"""Tests of `settings.client_values`."""

from __future__ import annotations

from pathlib import PurePath

import pytest

from micromegas_jupyter.config.client import Bearer, Flow, TokenStorage, WorkloadExchange, WorkloadPlatform
from micromegas_jupyter.config.client_values import (
    PROTECTED_PARAMETERS,
    as_algorithm,
    as_authorize_params,
    as_bearer,
    as_exchange,
    as_flow,
    as_path,
    as_platform,
    as_preset_name,
    as_proxy,
    as_redirect_uri,
    as_resource,
    as_scope,
    as_secret,
    as_storage,
    as_timeout_seconds,
)
from micromegas_jupyter.config.decoding import as_issuer
from micromegas_jupyter.core.protocols import Secret
from micromegas_jupyter.errors import ConfigurationError


@pytest.mark.parametrize(
    ("reader", "text", "value"),
    [
        (as_path, "~/key.pem", PurePath("~/key.pem")),
        (as_secret, "hunter2", Secret("hunter2")),
        (as_issuer, "https://id.example.com", "https://id.example.com"),
        (as_scope, "openid api://lake/Lake.Read", "openid api://lake/Lake.Read"),
        (as_resource, "https://lake.example.com/a?b=c", "https://lake.example.com/a?b=c"),
        (as_resource, "urn:example:lake", "urn:example:lake"),
        (as_redirect_uri, "http://localhost:48080/callback", "http://localhost:48080/callback"),
        (as_redirect_uri, "http://[::1]/", "http://[::1]/"),
        (as_bearer, "access_token", Bearer.ACCESS_TOKEN),
        (as_flow, "auto", None),
        (as_flow, "browser", Flow.BROWSER),
        (as_flow, "device", Flow.DEVICE),
        (as_flow, "paste", Flow.PASTE),
        (as_flow, "hub", Flow.HUB),
        (as_storage, "keyring", TokenStorage.KEYRING),
        (as_platform, "github-actions", WorkloadPlatform.GITHUB_ACTIONS),
        (as_exchange, "client-assertion", WorkloadExchange.CLIENT_ASSERTION),
        (as_algorithm, "PS256", "PS256"),
        (as_timeout_seconds, "1", 1.0),
        (as_timeout_seconds, "2.5", 2.5),
        (as_timeout_seconds, 60, 60.0),
        (as_authorize_params, {"prompt": "login", "acr_values": "2"}, (("acr_values", "2"), ("prompt", "login"))),
    ],
)
def test_what_is_well_formed_is_read(reader, text, value):
    assert reader(text, "KEY") == value


@pytest.mark.parametrize(
    ("reader", "text"),
    [
        (as_path, ""),
        (as_path, 5),
        (as_secret, "a\nb"),
        (as_issuer, "http://id.example.com"),
        (as_scope, "openid  email"),
        (as_scope, 'openid "email"'),
        (as_scope, "openid é"),
        (as_resource, "lake"),
        (as_resource, "https://lake.example.com/#a"),
        (as_resource, "https://[lake"),
        (as_resource, "https://lake example.com"),
        (as_redirect_uri, "http://192.168.1.1:48080/callback"),
        (as_redirect_uri, "https://localhost/callback"),
        (as_redirect_uri, "http://localhost:0/callback"),
        (as_redirect_uri, "http://localhost:99999/callback"),
        (as_redirect_uri, "http://localhost/callback?a=b"),
        (as_redirect_uri, "http://alice@localhost/callback"),
        (as_redirect_uri, "urn:ietf:wg:oauth:2.0:oob"),
        (as_bearer, "token"),
        (as_flow, "redirect"),
        (as_flow, "AUTO"),
        (as_flow, None),
        (as_storage, "memory"),
        (as_platform, "mainframe"),
        (as_exchange, ""),
        (as_algorithm, "HS256"),
        (as_algorithm, "none"),
        (as_timeout_seconds, "0.5"),
        (as_timeout_seconds, "61"),
        (as_timeout_seconds, "nan"),
        (as_timeout_seconds, "1e1"),
        (as_timeout_seconds, "-5"),
        (as_timeout_seconds, "٣"),
        (as_timeout_seconds, True),
        (as_timeout_seconds, float("nan")),
        (as_timeout_seconds, float("inf")),
        (as_authorize_params, []),
        (as_authorize_params, {"prompt": 5}),
        (as_authorize_params, {"": "a"}),
        (as_authorize_params, {f"p{number}": "a" for number in range(33)}),
    ],
)
def test_what_is_malformed_is_refused_by_its_name(reader, text):
    with pytest.raises(ConfigurationError) as caught:
        reader(text, "KEY")

    assert caught.value.key.startswith("KEY")


@pytest.mark.parametrize("name", [*sorted(PROTECTED_PARAMETERS), "scope", "audience", "resource"])
def test_a_parameter_that_the_sign_in_makes_itself_cannot_be_set(name):
    with pytest.raises(ConfigurationError) as caught:
        as_authorize_params({name: "a"}, "KEY")

    assert caught.value.key == f"KEY.{name}"


@pytest.mark.parametrize(
    "address",
    [
        "http://proxy.example:3128",
        "http://proxy.example",
        "https://proxy.example:443/",
        "http://alice:s%40same@proxy.example:3128",
        "http://[2001:db8::1]:3128",
        "http://127.0.0.1:3128",
    ],
)
def test_an_address_of_a_proxy_is_a_secret(address):
    proxy = as_proxy(address, "KEY")

    assert proxy.reveal() == address
    assert address not in repr(proxy)


@pytest.mark.parametrize(
    "address",
    [
        "proxy.example:3128",
        "socks5h://alice:sesame@proxy.example:1080",
        "ftp://alice:sesame@proxy.example",
        "http://",
        "http://alice:sesame@",
        "http://alice:sesame@proxy.example:port",
        "http://alice:sesame@proxy.example:0",
        "http://alice:sesame@proxy.example:99999",
        "http://alice:sesame@proxy.example/path",
        "http://alice:sesame@proxy.example?query",
        "http://alice:sesame@proxy.example#fragment",
        "http://alice:sesame@[proxy",
        "http://alice:sesame@proxy example",
        "http://alice:sesame@pröxy.example",
        'http://alice:sesame@"proxy"',
        "http://alice:sesame@proxy,example",
    ],
)
def test_a_bad_address_of_a_proxy_is_refused_without_showing_it(address):
    with pytest.raises(ConfigurationError) as caught:
        as_proxy(address, "KEY")

    assert caught.value.key == "KEY"
    assert "sesame" not in str(caught.value)
    assert "alice" not in str(caught.value)


def test_a_preset_that_does_not_exist_is_refused_with_those_that_do():
    with pytest.raises(ConfigurationError, match="Known: google, okta"):
        as_preset_name("mine", "KEY", names=frozenset({"okta", "google"}))

    assert as_preset_name("okta", "KEY", names=frozenset({"okta"})) == "okta"
