"""A provider on loopback, and a person's settings for it."""

import pytest

from micromegas_jupyter.wiring import client_side
from tests.fakes.scripted_provider import ScriptedProvider


@pytest.fixture
def idp():
    with ScriptedProvider() as running:
        yield running


@pytest.fixture
def environ(idp, tmp_path):
    return {
        "MICROMEGAS_CONFIG_DIR": str(tmp_path / "config"),
        "MICROMEGAS_OIDC_ISSUER": idp.issuer,
        "MICROMEGAS_OIDC_CLIENT_ID": idp.client_id,
    }


@pytest.fixture
def settings(environ):
    return client_side.load_client_settings(environ=environ)
