"""Which authorities and which scope for a program the settings name."""

from __future__ import annotations

from pathlib import Path, PurePath

import pytest

from micromegas_jupyter.config.client import DEFAULT_SCOPE, ClientSettings
from micromegas_jupyter.errors import ConfigurationError
from micromegas_jupyter.wiring.environment import ca_bundle_file, checked_ca_bundle, provider_http, service_scope


def test_a_home_folder_is_put_for_the_tilde(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))

    assert ca_bundle_file(ClientSettings(ca_bundle=PurePath("~/ca.pem"))) == tmp_path / "ca.pem"


def test_a_tilde_elsewhere_is_a_name(tmp_path: Path) -> None:
    path = tmp_path / "~" / "ca.pem"

    assert ca_bundle_file(ClientSettings(ca_bundle=path)) == path


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


def test_a_scope_that_somebody_chose_is_asked_for() -> None:
    settings = ClientSettings(scope="api/.default", origins=(("scope", "MICROMEGAS_OIDC_SCOPE"),))

    assert service_scope(settings) == "api/.default"


@pytest.mark.parametrize(
    "settings",
    [
        ClientSettings(),
        ClientSettings(scope=DEFAULT_SCOPE, origins=(("scope", "MICROMEGAS_OIDC_SCOPE"),)),
        ClientSettings(scope="openid email profile", origins=(("scope", "preset google"),)),
    ],
)
def test_a_persons_scope_is_not(settings: ClientSettings) -> None:
    assert service_scope(settings) is None
