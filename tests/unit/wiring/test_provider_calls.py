"""Which file of authorities the settings name, for the provider and for the server."""

from __future__ import annotations

from pathlib import Path, PurePath

import certifi
import pytest

from micromegas_jupyter.config.client import ClientSettings
from micromegas_jupyter.errors import ConfigurationError
from micromegas_jupyter.wiring.provider_calls import ca_bundle_file, checked_ca_bundle, provider_http


def test_a_home_folder_is_put_for_the_tilde(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))

    assert ca_bundle_file(ClientSettings(ca_bundle=PurePath("~/ca.pem"))) == tmp_path / "ca.pem"


def test_a_tilde_elsewhere_is_a_name(tmp_path: Path) -> None:
    path = tmp_path / "~" / "ca.pem"

    assert ca_bundle_file(ClientSettings(ca_bundle=path)) == path


def test_no_setting_is_no_file() -> None:
    assert ca_bundle_file(ClientSettings()) is None
    assert checked_ca_bundle(ClientSettings()) is None


def test_a_file_of_certificates_is_fit_for_both() -> None:
    settings = ClientSettings(ca_bundle=PurePath(certifi.where()))

    provider_http(settings)

    assert checked_ca_bundle(settings) == Path(certifi.where())


@pytest.mark.parametrize("content", [None, b"", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"])
def test_a_file_that_cannot_be_used_is_the_same_error_for_provider_and_server(
    tmp_path: Path, content: bytes | None
) -> None:
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_bytes(content)
    settings = ClientSettings(ca_bundle=path)

    with pytest.raises(ConfigurationError) as for_provider:
        provider_http(settings)
    with pytest.raises(ConfigurationError) as for_server:
        checked_ca_bundle(settings)

    assert str(for_server.value) == str(for_provider.value)
    assert for_server.value.key == "ca_bundle"


def test_a_home_folder_that_is_not_there_is_an_error_of_the_setting() -> None:
    settings = ClientSettings(ca_bundle=PurePath("~nobody-of-that-name/ca.pem"))

    with pytest.raises(ConfigurationError, match="does not exist"):
        checked_ca_bundle(settings)
