from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from micromegas_jupyter.auth.workloads.platforms import AzureManagedIdentitySource
from micromegas_jupyter.errors import ConfigurationError, LoginFailed, ProviderMisbehaved, ProviderUnavailable
from tests.fakes.mint import NOW, NOW_SECONDS, mint
from tests.fakes.platform_calls import PlatformScript, answer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.fakes.clock import FakeClock

APP = {"IDENTITY_ENDPOINT": "http://127.0.0.1:41056/MSI/token/", "IDENTITY_HEADER": "s3same"}


def source(
    http: PlatformScript, clock: FakeClock, environ: Mapping[str, str] | None = None, client_id: str | None = None
) -> AzureManagedIdentitySource:
    return AzureManagedIdentitySource(environ or {}, resource="api://lake", client_id=client_id, http=http, clock=clock)


def test_a_machine_is_asked_for_the_resource(clock: FakeClock) -> None:
    http = PlatformScript(answer({"access_token": "issued", "expires_in": "3599", "expires_on": "1"}))

    fetched = source(http, clock).fetch()

    assert fetched.text.reveal() == "issued"
    assert fetched.expires_at == NOW + timedelta(seconds=3599)
    assert http.asked[0].url == (
        "http://169.254.169.254/metadata/identity/oauth2/token?api-version=2018-02-01&resource=api%3A%2F%2Flake"
    )
    assert http.asked[0].headers == {"Metadata": "true"}


def test_an_app_is_asked_with_its_own_header(clock: FakeClock) -> None:
    http = PlatformScript(answer({"access_token": "issued", "expires_on": str(NOW_SECONDS + 60)}))

    fetched = source(http, clock, APP, client_id="two").fetch()

    assert fetched.expires_at == NOW + timedelta(seconds=60)
    assert http.asked[0].url == (
        "http://127.0.0.1:41056/MSI/token/?api-version=2019-08-01&resource=api%3A%2F%2Flake&client_id=two"
    )
    assert http.asked[0].headers == {"X-IDENTITY-HEADER": "s3same"}


@pytest.mark.parametrize("variable", list(APP))
def test_half_of_an_apps_variables_make_no_app(clock: FakeClock, variable: str) -> None:
    http = PlatformScript(answer({"access_token": "issued"}))

    source(http, clock, {variable: APP[variable]}).fetch()

    assert http.asked[0].headers == {"Metadata": "true"}


def test_an_end_by_azures_clock_is_told_by_the_own_one(clock: FakeClock) -> None:
    body = {"access_token": "issued", "expires_on": NOW_SECONDS + 3600}
    http = PlatformScript(answer(body, date=NOW + timedelta(minutes=10)))

    assert source(http, clock, APP).fetch().expires_at == NOW + timedelta(minutes=50)


@pytest.mark.parametrize("odd", ["soon", "06/20/2019 02:57:58 +00:00", True, -1, 1.5, "1" * 30, None])
def test_an_unreadable_life_leaves_it_to_the_token(clock: FakeClock, odd: object) -> None:
    body = {"access_token": mint(expires_in=900), "expires_in": odd, "expires_on": odd}

    assert source(PlatformScript(answer(body)), clock).fetch().expires_at == NOW + timedelta(seconds=900)


@pytest.mark.parametrize("status", [404, 410])
def test_a_metadata_service_that_is_being_updated_may_be_asked_again(clock: FakeClock, status: int) -> None:
    with pytest.raises(ProviderUnavailable, match=str(status)):
        source(PlatformScript(answer("", status=status)), clock).fetch()


def test_an_unknown_identity_is_a_failed_login_in_azures_words(clock: FakeClock) -> None:
    body = {"error": "invalid_request", "error_description": "Identity not found"}

    with pytest.raises(LoginFailed, match="status 400, invalid_request: Identity not found"):
        source(PlatformScript(answer(body, status=400)), clock).fetch()


@pytest.mark.parametrize("name", ["error", "error_description"])
def test_the_secret_of_an_app_is_never_shown_when_azure_repeats_it(clock: FakeClock, name: str) -> None:
    body = {"error": "invalid_request", name: "no853b9a84-5bfa"}
    app = {**APP, "IDENTITY_HEADER": "853b9a84-5bfa"}

    with pytest.raises(LoginFailed) as caught:
        source(PlatformScript(answer(body, status=400)), clock, app).fetch()

    assert "853b9a84" not in str(caught.value)


@pytest.mark.parametrize(
    "endpoint",
    [
        "https://evil.example.com/msi/token",
        "https://20.1.2.3/msi/token",
        "https://localhost.example.com/msi/token",
        "https://[2603:1030::1]/msi/token",
        "https://[::ffff:20.1.2.3]/msi/token",
        "https:///msi/token",
        "https://[::1/msi/token",
    ],
)
def test_the_secret_of_an_app_goes_to_no_address_outside_its_network(clock: FakeClock, endpoint: str) -> None:
    http = PlatformScript()

    with pytest.raises(ConfigurationError) as caught:
        source(http, clock, {**APP, "IDENTITY_ENDPOINT": endpoint}).fetch()

    assert caught.value.key == "IDENTITY_ENDPOINT"
    assert "s3same" not in str(caught.value)
    assert http.asked == []


@pytest.mark.parametrize(
    "endpoint",
    [
        "http://127.0.0.1:41056/msi/token",
        "http://169.254.129.3:8081/msi/token",
        "http://localhost:42356/msi/token",
        "http://[::1]:42356/msi/token",
        "https://10.0.0.4:2377/metadata/identity/oauth2/token",
    ],
)
def test_the_places_where_azure_puts_the_endpoint_are_asked(clock: FakeClock, endpoint: str) -> None:
    http = PlatformScript(answer({"access_token": "issued"}))

    source(http, clock, {**APP, "IDENTITY_ENDPOINT": endpoint}).fetch()

    assert http.asked[0].url.startswith(f"{endpoint}?")


def test_a_refusal_of_an_app_is_a_failed_login(clock: FakeClock) -> None:
    with pytest.raises(LoginFailed, match="status 404"):
        source(PlatformScript(answer("", status=404)), clock, APP).fetch()


@pytest.mark.parametrize("body", ["", "[]", {}, {"access_token": ""}, {"access_token": 7}, {"access_token": "a b"}])
def test_an_answer_without_a_token_is_refused(clock: FakeClock, body: object) -> None:
    with pytest.raises(ProviderMisbehaved):
        source(PlatformScript(answer(body)), clock).fetch()
