"""Tests of `http.exchange`."""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec
from types import ModuleType

import pytest

from micromegas_jupyter.core.http_exchange import environment_proxy
from micromegas_jupyter.errors import ConfigurationError

URL = "https://id.example.com/token"


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


def test_without_a_variable_there_is_no_proxy():
    assert environment_proxy(URL) is None


@pytest.mark.parametrize(
    "address",
    [
        "http://proxy.example:3128",
        "proxy.example:3128",
        "http://alice:sesame@proxy.example",
        "http://[2001:db8::1]:3128",
    ],
)
@pytest.mark.parametrize("name", ["https_proxy", "HTTPS_PROXY", "all_proxy"])
def test_the_proxy_of_the_environment_is_a_secret(monkeypatch, name, address):
    monkeypatch.setenv(name, address)

    proxy = environment_proxy(URL)

    assert proxy is not None
    assert proxy.reveal() == address
    assert "sesame" not in repr(proxy)


def test_a_host_without_a_proxy_has_none(monkeypatch):
    monkeypatch.setenv("https_proxy", "http://proxy.example:3128")
    monkeypatch.setenv("no_proxy", "example.com")

    assert environment_proxy(URL) is None


@pytest.mark.parametrize(
    "address", ["http://", "http://alice:sesame@", "proxy.example:port", "http://proxy.example:0", "http://[proxy"]
)
def test_a_malformed_proxy_is_refused_without_showing_it(monkeypatch, address):
    monkeypatch.setenv("https_proxy", address)

    with pytest.raises(ConfigurationError) as caught:
        environment_proxy(URL)

    assert caught.value.key == "https_proxy"
    assert "sesame" not in str(caught.value)


@pytest.mark.parametrize("address", ["socks5h://proxy.example:1080", "SOCKS5://alice:sesame@proxy.example"])
def test_a_socks_proxy_without_the_package_for_it_is_refused(monkeypatch, address):
    monkeypatch.setitem(sys.modules, "socks", None)
    monkeypatch.setenv("https_proxy", address)

    with pytest.raises(ConfigurationError, match="PySocks") as caught:
        environment_proxy(URL)

    assert "sesame" not in str(caught.value)


def test_a_socks_proxy_is_used_with_the_package_for_it(monkeypatch):
    installed = ModuleType("socks")
    installed.__spec__ = ModuleSpec("socks", None)
    monkeypatch.setitem(sys.modules, "socks", installed)
    monkeypatch.setenv("https_proxy", "socks5h://proxy.example:1080")

    proxy = environment_proxy(URL)

    assert proxy is not None
    assert proxy.reveal() == "socks5h://proxy.example:1080"
