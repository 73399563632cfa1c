from __future__ import annotations

import pytest

from micromegas_jupyter.config.client import DEFAULT_SCOPE, ClientSettings
from micromegas_jupyter.wiring.credentials import service_scope


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
