"""Which provider the settings give, and what the client is made with."""

import json
import sys
import types
from pathlib import PurePath

import pytest

from micromegas_jupyter.auth import OidcAuthProvider
from micromegas_jupyter.auth.flows.select import Facts
from micromegas_jupyter.client.flight_client import FlightSQLClient
from micromegas_jupyter.config.client import ClientSettings, WorkloadPlatform, WorkloadSetting
from micromegas_jupyter.core.system import Secret
from micromegas_jupyter.errors import ConfigurationError, LoginRequired
from micromegas_jupyter.wiring.client_side import (
    connect,
    open_client,
    service_account_provider,
    stored_provider,
)
from tests.fakes.scripted_provider import ScriptedProvider

CONFIGURED = ClientSettings(issuer="https://id.example", client_id="app")
NOT_TO_BE_READ = "not there"


@pytest.fixture
def environ(tmp_path):
    return {"MICROMEGAS_CONFIG_DIR": str(tmp_path / "config")}


@pytest.fixture
def signed_in(environ, tmp_path):
    """Somebody is signed in at a provider that nobody needs to ask; returns the settings."""
    idp = ScriptedProvider()
    folder = tmp_path / "config"
    folder.mkdir(mode=0o700)
    stored = {"issuer": idp.issuer, "client_id": idp.client_id, "token": idp.stored_token(ends_in_seconds=3600)}
    (folder / "tokens.json").write_text(json.dumps(stored))
    (folder / "tokens.json").chmod(0o600)
    return ClientSettings(issuer=idp.issuer, client_id=idp.client_id)


def _with(settings, **changes):
    import dataclasses

    return dataclasses.replace(settings, **changes)


def test_a_service_account_that_was_asked_for_and_is_not_configured_is_no_person(signed_in, environ):
    with pytest.raises(ConfigurationError, match="service account") as caught:
        stored_provider(_with(signed_in, as_service_account=True), environ)

    assert caught.value.key == "MICROMEGAS_OIDC_CLIENT_SECRET"


def test_a_stored_sign_in_is_taken_up(signed_in, environ):
    provider = stored_provider(signed_in, environ)

    assert isinstance(provider, OidcAuthProvider)
    assert provider.identity().email == "alice@example.com"


def test_a_stored_sign_in_wins_over_a_service_accounts_secret(signed_in, environ):
    settings = _with(signed_in, client_secret=Secret("s"))

    assert isinstance(stored_provider(settings, environ), OidcAuthProvider)


def test_a_sign_in_of_another_scope_does_not_count(signed_in, environ, tmp_path):
    (tmp_path / "config" / "tokens.json").unlink()
    login = json.dumps({"issuer": signed_in.issuer, "client_id": "another", "token": {}})
    (tmp_path / "config" / "tokens.json").write_text(login)

    with pytest.raises(LoginRequired):
        stored_provider(signed_in, environ)


def test_the_stored_token_that_the_server_wants_is_given(signed_in, environ, tmp_path):
    from micromegas_jupyter.config.client import Bearer

    stored = json.loads((tmp_path / "config" / "tokens.json").read_text())["token"]

    id_token = stored_provider(signed_in, environ).get_token()
    access_token = stored_provider(_with(signed_in, bearer=Bearer.ACCESS_TOKEN), environ).get_token()

    assert (id_token, access_token) == (stored["id_token"], stored["access_token"])


@pytest.mark.parametrize(
    "settings",
    [
        {"service_account_file": PurePath(NOT_TO_BE_READ)},
        {"workload": WorkloadSetting(platform=WorkloadPlatform.GITHUB_ACTIONS)},
    ],
)
def test_what_names_a_program_wins_over_a_persons_sign_in(signed_in, environ, settings):
    # Neither the file nor the platform is there: that it is asked for shows that the person's sign-in is not used.
    with pytest.raises(ConfigurationError):
        stored_provider(_with(signed_in, **settings), environ)


def test_the_secret_of_an_application_for_people_makes_none(environ):
    settings = _with(CONFIGURED, client_secret=Secret("s"), secret_is_native=True)

    with pytest.raises(LoginRequired):
        stored_provider(settings, environ)


@pytest.mark.parametrize("settings", [ClientSettings(), CONFIGURED, ClientSettings(client_secret=Secret("s"))])
def test_a_service_account_needs_all_its_parts(settings, environ):
    with pytest.raises(ConfigurationError, match="service account"):
        service_account_provider(settings, environ)


@pytest.mark.parametrize(
    ("facts", "remedy"),
    [
        (Facts(has_terminal=True), "Run `micromegas login --profile work`, or set"),
        (Facts(has_kernel=True, allows_input=True), "Run %micromegas_login --profile work, or set"),
        (Facts(has_kernel=True, allows_input=False), "or run `micromegas login --profile work` on this machine"),
        (Facts(), "MICROMEGAS_OIDC_PRIVATE_KEY_FILE or MICROMEGAS_OIDC_CLIENT_SECRET; or run `micromegas login"),
    ],
)
def test_who_is_not_signed_in_learns_what_to_do_in_this_place(environ, facts, remedy):
    with pytest.raises(LoginRequired) as caught:
        stored_provider(_with(CONFIGURED, profile="work"), environ, facts=facts)

    assert "id.example" in caught.value.what
    assert remedy in caught.value.remedy


def test_a_wrapper_module_leaves_no_sign_in_to_do(environ):
    environ["MICROMEGAS_PYTHON_MODULE_WRAPPER"] = "company_lake"

    assert stored_provider(CONFIGURED, environ) is None


@pytest.fixture
def wrapper(monkeypatch):
    """A wrapper module whose client is this package's own."""
    made = FlightSQLClient("grpc://127.0.0.1:1")
    module = types.ModuleType("company_lake")
    module.connect = lambda: made
    monkeypatch.setitem(sys.modules, "company_lake", module)
    yield made
    made.close()


def test_a_wrapper_modules_client_wins_over_every_setting(environ, wrapper):
    environ |= {"MICROMEGAS_PYTHON_MODULE_WRAPPER": "company_lake", "MICROMEGAS_OIDC_ISSUER": "https://id.example"}

    with pytest.warns(FutureWarning, match="deprecated"):
        connected = connect(environ=environ)
    with pytest.warns(FutureWarning, match="deprecated"):
        opened = open_client(CONFIGURED, None, environ=environ)

    assert connected is wrapper
    assert opened is wrapper


class _Token:
    def get_token(self):
        return "a-token"


@pytest.mark.parametrize("arguments", [{"uri": "grpc://127.0.0.1:2"}, {"auth_provider": _Token()}])
def test_an_argument_wins_over_a_wrapper_module(environ, wrapper, arguments):
    environ |= {"MICROMEGAS_PYTHON_MODULE_WRAPPER": "company_lake"}

    with connect(**arguments, environ=environ) as connected:
        assert connected is not wrapper


def test_a_ca_bundle_without_certificates_is_refused_for_the_server_too(environ, tmp_path):
    (tmp_path / "ca.pem").write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    settings = ClientSettings(uri="grpc+tls://127.0.0.1:1", ca_bundle=PurePath(tmp_path / "ca.pem"))

    with pytest.raises(ConfigurationError, match="damaged"), open_client(settings, None, environ=environ) as client:
        client.whoami()
