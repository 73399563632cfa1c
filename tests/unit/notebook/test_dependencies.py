"""The default dependencies of the magics."""

import warnings
from pathlib import Path

import pytest

from micromegas_jupyter.auth import StaticTokenAuthProvider
from micromegas_jupyter.client.flight_client import DEPRECATION_NOTICE
from micromegas_jupyter.config.client import WRAPPER_VARIABLE, Flow
from micromegas_jupyter.errors import LoginRequired
from micromegas_jupyter.notebook.login.connections import (
    FlowPreference,
    PersonalProvider,
    TokenRenewal,
    default_dependencies,
)
from tests.fakes.notebook_world import SETTINGS


@pytest.fixture(autouse=True)
def config_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MICROMEGAS_CONFIG_DIR", str(tmp_path))
    return tmp_path


def test_variables_stand_in_for_those_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MICROMEGAS_OIDC_ISSUER", "https://id.example.com")
    monkeypatch.setenv("MICROMEGAS_OIDC_CLIENT_ID", "lake-notebooks")

    settings = default_dependencies().load_settings(None, {"MICROMEGAS_OIDC_ISSUER": "https://other.example.com"})

    assert (settings.issuer, settings.client_id) == ("https://other.example.com", "lake-notebooks")


def test_a_wrapper_signs_in_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(WRAPPER_VARIABLE, "corporate_wrapper")

    assert default_dependencies().stored_provider(SETTINGS) is None


def test_that_a_wrapper_is_deprecated_is_said_once_in_a_plain_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "wrapper_for_notebooks.py").write_text(
        "import warnings\n"
        "class Client:\n"
        "    def query(self, sql, begin=None, end=None): ...\n"
        "def connect():\n"
        "    warnings.warn('the wrapper itself is old', FutureWarning)\n"
        "    return Client()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv(WRAPPER_VARIABLE, "wrapper_for_notebooks")
    parts = default_dependencies()

    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        parts.open_client(SETTINGS, None)
        parts.open_client(SETTINGS, None)

    assert parts.is_wrapped()
    assert [str(warning.message) for warning in warned] == ["the wrapper itself is old"] * 2
    assert capsys.readouterr() == (f"note: {DEPRECATION_NOTICE}\n", "")


def test_a_terminal_that_nobody_sees_signs_nobody_in() -> None:
    with pytest.raises(LoginRequired):
        default_dependencies().choose_flow(SETTINGS, None, FlowPreference())


def test_a_way_is_remembered_and_forgotten(config_folder: Path) -> None:
    from micromegas_jupyter.wiring import remembered_flow

    parts = default_dependencies()

    parts.remember_flow(SETTINGS, Flow.PASTE)
    remembered = remembered_flow(SETTINGS)
    parts.remember_flow(SETTINGS, None)

    assert remembered is Flow.PASTE
    assert remembered_flow(SETTINGS) is None
    assert config_folder.exists()


def test_a_key_is_not_renewed() -> None:
    assert default_dependencies().renewal(StaticTokenAuthProvider("key"), lambda _: None) is None


def test_a_persons_sign_in_is_renewed() -> None:
    from micromegas_jupyter.auth import OidcAuthProvider

    provider = OidcAuthProvider("https://id.example.com", "lake-notebooks")

    renewal: TokenRenewal | None = default_dependencies().renewal(provider, lambda _: None)

    assert renewal is not None
    assert isinstance(provider, PersonalProvider)
