"""Which authorities and which scope for a program the settings name."""

from __future__ import annotations

from pathlib import Path, PurePath

import pytest

from micromegas_jupyter.config.client import DEFAULT_SCOPE, ClientSettings
from micromegas_jupyter.wiring.credentials import ca_bundle_file, service_scope


def test_a_home_folder_is_put_for_the_tilde(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))

    assert ca_bundle_file(ClientSettings(ca_bundle=PurePath("~/ca.pem"))) == tmp_path / "ca.pem"


def test_a_tilde_elsewhere_is_a_name(tmp_path: Path) -> None:
    path = tmp_path / "~" / "ca.pem"

    assert ca_bundle_file(ClientSettings(ca_bundle=path)) == path


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
