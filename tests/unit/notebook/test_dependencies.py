"""The default dependencies of the magics."""

from pathlib import Path

import pytest

from micromegas_jupyter.auth import StaticTokenAuthProvider
from micromegas_jupyter.config.client import WRAPPER_VARIABLE, Flow
from micromegas_jupyter.errors import LoginRequired
from micromegas_jupyter.notebook.login.connections import Dependencies, PersonalProvider, TokenRenewal
from tests.fakes.notebook_world import SETTINGS


@pytest.fixture(autouse=True)
def config_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MICROMEGAS_CONFIG_DIR", str(tmp_path))
    return tmp_path


def test_variables_stand_in_for_those_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MICROMEGAS_OIDC_ISSUER", "https://id.example.com")
    monkeypatch.setenv("MICROMEGAS_OIDC_CLIENT_ID", "lake-notebooks")

    settings = Dependencies().load_settings(None, {"MICROMEGAS_OIDC_ISSUER": "https://other.example.com"})

    assert (settings.issuer, settings.client_id) == ("https://other.example.com", "lake-notebooks")


def test_a_wrapper_signs_in_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(WRAPPER_VARIABLE, "corporate_wrapper")

    assert Dependencies().stored_provider(SETTINGS) is None


def test_a_terminal_that_nobody_sees_signs_nobody_in() -> None:
    with pytest.raises(LoginRequired):
        Dependencies().choose_flow(SETTINGS, None, None)


def test_a_way_is_remembered_and_forgotten(config_folder: Path) -> None:
    from micromegas_jupyter.wiring import remembered_flow

    parts = Dependencies()

    parts.remember_flow(SETTINGS, Flow.PASTE)
    remembered = remembered_flow(SETTINGS)
    parts.remember_flow(SETTINGS, None)

    assert remembered is Flow.PASTE
    assert remembered_flow(SETTINGS) is None
    assert config_folder.exists()


def test_a_key_is_not_renewed() -> None:
    assert Dependencies().renewal(StaticTokenAuthProvider("key"), lambda _: None) is None


def test_a_persons_sign_in_is_renewed() -> None:
    from micromegas_jupyter.auth import OidcAuthProvider

    provider = OidcAuthProvider("https://id.example.com", "lake-notebooks")

    renewal: TokenRenewal | None = Dependencies().renewal(provider, lambda _: None)

    assert renewal is not None
    assert isinstance(provider, PersonalProvider)
