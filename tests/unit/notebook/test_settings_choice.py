from collections.abc import Mapping
from dataclasses import replace

import pytest

from micromegas_jupyter.config.client import ClientSettings
from micromegas_jupyter.errors import ConfigurationError
from micromegas_jupyter.notebook.login.connections import SettingsChoice
from tests.fakes.notebook_world import SETTINGS

NO_OPTIONS: dict[str, str | None] = {"issuer": None, "client_id": None, "scope": None, "audience": None}


class Profiles:
    """Reads settings as the real ones are read: variables win over a profile's values."""

    def __init__(self, **profiles: ClientSettings) -> None:
        self.asked: list[tuple[str | None, dict[str, str]]] = []
        self._profiles = profiles

    def load(self, profile: str | None, variables: Mapping[str, str]) -> ClientSettings:
        self.asked.append((profile, dict(variables)))
        settings = self._profiles[profile or "configured"]
        return replace(settings, issuer=variables.get("MICROMEGAS_OIDC_ISSUER", settings.issuer))


def test_nothing_said_is_the_configured_profile() -> None:
    profiles = Profiles(configured=SETTINGS)

    settings = SettingsChoice().read(profiles.load)

    assert settings == SETTINGS
    assert profiles.asked == [(None, {})]


def test_options_stand_in_for_variables_and_leave_the_profile() -> None:
    choice = SettingsChoice(profile="prod")

    changed = choice.with_options(
        profile=None, options={"issuer": "https://other", "client_id": "app", "scope": "openid", "audience": "lake"}
    )

    assert changed == SettingsChoice(
        profile="prod",
        variables={
            "MICROMEGAS_OIDC_ISSUER": "https://other",
            "MICROMEGAS_OIDC_CLIENT_ID": "app",
            "MICROMEGAS_OIDC_SCOPE": "openid",
            "MICROMEGAS_OIDC_AUDIENCE": "lake",
        },
    )


def test_without_options_the_choice_stays() -> None:
    choice = SettingsChoice(profile="prod", variables={"MICROMEGAS_OIDC_AUDIENCE": "lake"})

    assert choice.with_options(profile=None, options=NO_OPTIONS) is choice


def test_a_service_account_is_kept_with_profile_and_options_until_a_person_is_asked_for() -> None:
    choice = SettingsChoice(profile="prod", variables={"MICROMEGAS_OIDC_AUDIENCE": "lake"})

    service = choice.with_options(profile=None, options=NO_OPTIONS, as_service_account=True)
    person = service.with_options(profile=None, options=NO_OPTIONS, as_service_account=False)

    assert service == replace(choice, as_service_account=True)
    assert service.with_options(profile=None, options=NO_OPTIONS) is service
    assert person == choice


def test_settings_for_a_service_account_say_so() -> None:
    profiles = Profiles(configured=SETTINGS, other=SETTINGS)
    choice = SettingsChoice(as_service_account=True)

    assert choice.read(profiles.load) == replace(SETTINGS, as_service_account=True)
    assert choice.read(profiles.load, profile="other") == SETTINGS


def test_another_profile_begins_afresh() -> None:
    choice = SettingsChoice(profile="prod", variables={"MICROMEGAS_OIDC_AUDIENCE": "lake"})

    assert choice.with_options(profile="dev", options=NO_OPTIONS) == SettingsChoice(profile="dev")


def test_a_statement_for_another_profile_uses_that_one_alone() -> None:
    profiles = Profiles(prod=SETTINGS, dev=SETTINGS)
    choice = SettingsChoice(profile="prod", variables={"MICROMEGAS_OIDC_AUDIENCE": "lake"})

    choice.read(profiles.load, profile="dev")
    choice.read(profiles.load, profile="prod")

    assert profiles.asked == [("dev", {}), ("prod", {"MICROMEGAS_OIDC_AUDIENCE": "lake"})]


def test_settings_that_cannot_be_read_are_an_error() -> None:
    def broken(_profile: str | None, _variables: Mapping[str, str]) -> ClientSettings:
        raise ConfigurationError("config.json has no profile 'prod'.", key="profiles")

    with pytest.raises(ConfigurationError):
        SettingsChoice(profile="prod").read(broken)


def test_a_choice_that_was_named_gives_its_settings_and_still_says_who_signs_in() -> None:
    uri = "grpc+tls://lake.example.com:1"
    named = SettingsChoice(uri=uri, settings=ClientSettings(uri=uri))

    def load(*_: object) -> ClientSettings:
        raise AssertionError("nothing is read afresh")

    as_account = named.with_options(profile=None, options={}, as_service_account=True)

    assert named.read(load).as_service_account is False
    assert as_account.read(load).as_service_account is True
    assert as_account.read(load).uri == "grpc+tls://lake.example.com:1"


def test_another_server_keeps_the_options_and_a_profile_drops_both() -> None:
    chosen = SettingsChoice(profile="a", variables={"MICROMEGAS_OIDC_AUDIENCE": "x"}, as_service_account=True)

    elsewhere = chosen.with_server("grpc+tls://b:1", profile=None)

    assert elsewhere == SettingsChoice(
        profile="a", variables={"MICROMEGAS_OIDC_AUDIENCE": "x"}, as_service_account=True, uri="grpc+tls://b:1"
    )
    assert elsewhere.with_server(None, profile="b") == SettingsChoice(profile="b")
