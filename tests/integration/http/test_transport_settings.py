"""Further authorities to trust, and proxies: real TLS, a real CONNECT proxy."""

import logging
import traceback

import pytest
import requests

from micromegas_jupyter.auth.provider_connection import provider_http
from micromegas_jupyter.config.client import ClientSettings
from micromegas_jupyter.core.http import ProviderHttp
from micromegas_jupyter.core.system import Secret
from micromegas_jupyter.errors import ProviderUnavailable
from tests.fakes.raw_server import RawServer, hang
from tests.fakes.scripted_provider import Reply, ScriptedProvider
from tests.fakes.tls_provider import OTHER_HOST, TlsProvider, server_context
from tests.integration.http.connect_proxy import ConnectProxy

pytestmark = pytest.mark.integration

DOCUMENT = {"tls": True}
NOBODY = "http://127.0.0.1:9"


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch):
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "requests_ca_bundle", "curl_ca_bundle"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def provider(tmp_path):
    """A provider on another host, as far as proxies are concerned."""
    (tmp_path / "provider").mkdir()
    with TlsProvider(tmp_path / "provider", host=OTHER_HOST) as running:
        yield running


@pytest.fixture
def other(tmp_path):
    (tmp_path / "other").mkdir()
    with TlsProvider(tmp_path / "other") as running:
        yield running


def test_an_extra_authority_adds_to_the_usual_ones(provider, other, monkeypatch):
    monkeypatch.setattr("requests.utils.DEFAULT_CA_BUNDLE_PATH", str(other.ca_file))
    http = ProviderHttp(extra_ca_bundle=provider.ca_file)

    assert http.fetch_json(provider.url).body == DOCUMENT
    assert http.fetch_json(other.url).body == DOCUMENT


def test_an_extra_authority_is_trusted_by_its_own_connection_only(provider, other):
    http = ProviderHttp(extra_ca_bundle=provider.ca_file)
    http.fetch_json(provider.url)

    with pytest.raises(ProviderUnavailable, match="certificate could not be verified"):
        http.fetch_json(other.url)
    with pytest.raises(ProviderUnavailable, match="certificate could not be verified"):
        ProviderHttp().fetch_json(provider.url)
    with pytest.raises(requests.exceptions.SSLError):
        requests.get(provider.url, timeout=30)


def test_an_extra_authority_does_not_make_another_name_acceptable(provider):
    port = int(provider.url.rpartition(":")[2].partition("/")[0])

    with ConnectProxy(leads_to=("127.0.0.1", port)) as proxy:
        http = ProviderHttp(extra_ca_bundle=provider.ca_file, proxy=Secret(f"http://{proxy.address}"))
        with pytest.raises(ProviderUnavailable, match="certificate could not be verified"):
            http.fetch_json("https://id.example.com/document")

    assert proxy.targets == ["id.example.com:443"]


@pytest.mark.parametrize("name", ["https_proxy", "ALL_PROXY"])
def test_without_a_setting_the_environments_proxy_is_used(provider, monkeypatch, name):
    with ConnectProxy(credentials="alice:s@same") as proxy:
        monkeypatch.setenv(name, f"http://alice:s%40same@{proxy.address}")

        ProviderHttp(extra_ca_bundle=provider.ca_file).fetch_json(provider.url)

    assert len(proxy.targets) == 1


@pytest.mark.parametrize("hosts", [OTHER_HOST, "id.example.com, 127.0.0.0/8"])
def test_no_proxy_counts_for_the_proxy_that_was_set(provider, monkeypatch, hosts):
    monkeypatch.setenv("NO_PROXY", hosts)

    with ConnectProxy() as proxy:
        http = ProviderHttp(extra_ca_bundle=provider.ca_file, proxy=Secret(f"http://{proxy.address}"))

        assert http.fetch_json(provider.url).body == DOCUMENT
    assert proxy.targets == []


def test_this_machine_is_never_reached_through_the_proxy_that_was_set(other):
    http = ProviderHttp(extra_ca_bundle=other.ca_file, proxy=Secret(NOBODY))

    with ScriptedProvider() as plain:
        plain.reply_once("/document", Reply(body={"a": 1}))

        assert http.fetch_json(f"{plain.base}/document").body == {"a": 1}
    assert http.fetch_json(other.url).body == DOCUMENT


def test_a_proxy_whose_certificate_nobody_vouches_for_is_not_used(provider, tmp_path):
    context, _authority = server_context(tmp_path, host="127.0.0.1")

    with ConnectProxy(tls=context) as proxy:
        http = ProviderHttp(extra_ca_bundle=provider.ca_file, proxy=Secret(f"https://{proxy.address}"))
        with pytest.raises(ProviderUnavailable, match="proxy's TLS certificate could not be verified"):
            http.fetch_json(provider.url)

    assert proxy.targets == []


def test_the_password_of_a_proxy_appears_nowhere(provider, caplog, monkeypatch):
    caplog.set_level(logging.DEBUG)
    texts = []

    with ConnectProxy(credentials="alice:another") as proxy:
        address = f"http://alice:sesame@{proxy.address}"
        for http in (ProviderHttp(proxy=Secret(address)), ProviderHttp()):
            with pytest.raises(ProviderUnavailable, match="user name and password") as caught:
                http.fetch_json(provider.url)
            beyond_this_test = caught.value.__traceback__.tb_next if caught.value.__traceback__ else None
            told = traceback.TracebackException(
                ProviderUnavailable, caught.value, beyond_this_test, capture_locals=True
            )
            texts += [repr(http), "".join(told.format())]
            monkeypatch.setenv("https_proxy", address)

    assert not any("sesame" in text or "YWxpY2U6c2VzYW1l" in text for text in (*texts, caplog.text))


def test_the_settings_authority_and_proxy_are_used(provider, monkeypatch):
    monkeypatch.setenv("https_proxy", NOBODY)

    with ConnectProxy() as proxy:
        settings = ClientSettings(ca_bundle=provider.ca_file, proxy=Secret(f"http://{proxy.address}"))

        answer = provider_http(settings).fetch_json(provider.url)

    assert answer.body == DOCUMENT
    assert not answer.reached_private
    assert proxy.targets == [provider.url.removeprefix("https://").removesuffix("/document")]


def test_the_settings_deadline_is_used():
    with RawServer(hang) as server, pytest.raises(ProviderUnavailable, match="within 1 seconds"):
        provider_http(ClientSettings(provider_timeout_seconds=1.0)).fetch_json(server.url)
