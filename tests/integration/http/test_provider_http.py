"""What a call sends, follows, keeps and trusts, over real sockets."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from micromegas_jupyter.core.http import ProviderHttp
from micromegas_jupyter.core.secrets import Secret
from micromegas_jupyter.errors import ConfigurationError, ProviderMisbehaved, ProviderUnavailable
from tests.fakes.scripted_provider import Reply, ScriptedProvider
from tests.fakes.tls_provider import TlsProvider

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.integration


def test_a_redirect_is_not_followed(provider: ScriptedProvider) -> None:
    provider.reply_once("/start", Reply(status=302, headers={"Location": f"{provider.base}/target"}))

    with pytest.raises(ProviderMisbehaved):
        ProviderHttp().fetch_json(f"{provider.base}/start")

    assert provider.seen("/target") == []


def test_cookies_are_not_kept(provider: ScriptedProvider) -> None:
    http = ProviderHttp()
    for _ in range(2):
        provider.reply_once("/document", Reply(body={}, headers={"Set-Cookie": "a=1; Path=/"}))

    http.fetch_json(f"{provider.base}/document")
    http.fetch_json(f"{provider.base}/document")

    assert "cookie" not in provider.seen("/document")[1].headers


def test_a_form_is_posted_with_its_secrets_revealed_to_the_provider_only(provider: ScriptedProvider) -> None:
    provider.reply_once("/token", Reply(body={"a": 1}))

    answer = ProviderHttp().post_form(
        f"{provider.base}/token",
        {"grant_type": "refresh_token", "refresh_token": Secret("se same")},
        headers={"Authorization": Secret("Basic abc")},
    )

    seen = provider.seen("/token")[0]
    assert answer.body == {"a": 1}
    assert answer.date is not None
    assert seen.form == {"grant_type": "refresh_token", "refresh_token": "se same"}
    assert seen.headers["authorization"] == "Basic abc"
    assert seen.headers["accept-encoding"] == "identity"


def test_a_call_for_which_no_thread_is_left_gives_its_place_back(
    provider: ScriptedProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    http = ProviderHttp(timeout_seconds=1)
    with monkeypatch.context() as patch:

        def have_no_thread(_thread: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        patch.setattr(threading.Thread, "start", have_no_thread)
        for _ in range(20):
            with pytest.raises(ProviderUnavailable, match="no thread left"):
                http.fetch_json(f"{provider.base}/document")
    provider.reply_once("/document", Reply(body={}))

    assert http.fetch_json(f"{provider.base}/document").is_success


def test_a_certificate_that_nobody_vouches_for_is_refused(tls_provider: TlsProvider) -> None:
    with pytest.raises(ProviderUnavailable, match="certificate could not be verified") as caught:
        ProviderHttp().fetch_json(tls_provider.url)

    assert "MICROMEGAS_CA_BUNDLE" in caught.value.remedy


def test_with_a_ca_bundle_no_other_certificate_is_trusted_whatever_the_environment_says(
    tls_provider: TlsProvider, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    other = TlsProvider(tmp_path / "other")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tls_provider.ca_file))
    monkeypatch.setenv("SSL_CERT_FILE", str(tls_provider.ca_file))

    with other, pytest.raises(ProviderUnavailable, match="certificate could not be verified"):
        ProviderHttp(ca_bundle=other.ca_file).fetch_json(tls_provider.url)


@pytest.mark.parametrize("url", ["http://id.example.com/", "ftp://127.0.0.1/", "https://a@id.example.com/", "nonsense"])
def test_an_address_that_may_not_be_called_is_refused_before_any_request(url: str) -> None:
    with pytest.raises(ProviderMisbehaved):
        ProviderHttp().fetch_json(url)


def test_a_ca_bundle_that_does_not_exist_is_a_configuration_error(
    provider: ScriptedProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigurationError):
        ProviderHttp(ca_bundle="/nowhere/ca.pem")

    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nowhere/ca.pem")
    with pytest.raises(ConfigurationError):
        ProviderHttp().fetch_json(f"{provider.base}/document")
