"""What a platform is asked for, by the settings; each platform itself is tried in `tests/unit/auth`."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

import pytest

from micromegas_jupyter.config.client import ClientSettings, WorkloadExchange, WorkloadPlatform, WorkloadSetting
from micromegas_jupyter.errors import ConfigurationError, LoginFailed, MicromegasError, Unavailable
from micromegas_jupyter.wiring.credentials import workload_provider
from tests.fakes.mint import mint
from tests.fakes.platform_calls import PlatformScript

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from micromegas_jupyter.auth.workloads.provider import WorkloadProvider
    from tests.fakes.clock import FakeClock

GITHUB = {
    "ACTIONS_ID_TOKEN_REQUEST_URL": "https://run.actions.example.com/?api-version=2.0",
    "ACTIONS_ID_TOKEN_REQUEST_TOKEN": "s3same",
}
NONE, EXCHANGE, ASSERTION = WorkloadExchange.NONE, WorkloadExchange.TOKEN_EXCHANGE, WorkloadExchange.CLIENT_ASSERTION
SETTINGS = ClientSettings(issuer="https://id.example.com", client_id="svc")


def build(
    settings: ClientSettings, clock: FakeClock, environ: Mapping[str, str] | None = None, **workload: object
) -> tuple[WorkloadProvider, PlatformScript]:
    """Return the provider, and the platform that it will ask in vain."""
    script = PlatformScript(Unavailable("down"))
    provider = workload_provider(
        settings,
        WorkloadSetting(**workload),  # type: ignore[arg-type]
        GITHUB if environ is None else environ,
        http=script,
    )
    return provider, script


def asked_of_platform(settings: ClientSettings, clock: FakeClock, **workload: object) -> dict[str, str]:
    provider, script = build(settings, clock, **workload)
    with pytest.raises(MicromegasError):
        provider.get_token()
    return {name: values[0] for name, values in parse_qs(urlsplit(script.asked[0].url).query).items()}


@pytest.mark.parametrize("platform", [WorkloadPlatform.GITHUB_ACTIONS, WorkloadPlatform.GOOGLE])
@pytest.mark.parametrize(
    ("settings", "exchange", "expected"),
    [
        (SETTINGS, NONE, "svc"),
        (replace(SETTINGS, audience="lake"), NONE, "lake"),
        (replace(SETTINGS, audience="lake"), EXCHANGE, "https://id.example.com"),
        (replace(SETTINGS, audience="lake"), ASSERTION, "https://id.example.com"),
        (replace(SETTINGS, preset="entra"), ASSERTION, "api://AzureADTokenExchange"),
        (replace(SETTINGS, preset="entra"), EXCHANGE, "https://id.example.com"),
    ],
)
def test_the_platforms_token_is_for_whoever_reads_it(
    clock: FakeClock, platform: WorkloadPlatform, settings: ClientSettings, exchange: WorkloadExchange, expected: str
) -> None:
    assert asked_of_platform(settings, clock, platform=platform, exchange=exchange)["audience"] == expected


@pytest.mark.parametrize("exchange", list(WorkloadExchange))
def test_an_audience_that_was_set_wins(clock: FakeClock, exchange: WorkloadExchange) -> None:
    settings = replace(SETTINGS, audience="lake", preset="entra")
    platform = WorkloadPlatform.GITHUB_ACTIONS

    asked = asked_of_platform(settings, clock, platform=platform, exchange=exchange, audience="chosen")

    assert asked["audience"] == "chosen"


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (SETTINGS, "svc"),
        (replace(SETTINGS, audience="lake"), "lake"),
        (replace(SETTINGS, audience="lake", resource="api://lake"), "api://lake"),
    ],
)
def test_azure_is_asked_for_the_resource(clock: FakeClock, settings: ClientSettings, expected: str) -> None:
    asked = asked_of_platform(settings, clock, platform=WorkloadPlatform.AZURE, managed_identity_client_id="identity-2")

    assert (asked["resource"], asked["client_id"]) == (expected, "identity-2")


def test_without_anything_to_ask_for_the_missing_setting_is_named(clock: FakeClock) -> None:
    with pytest.raises(ConfigurationError) as caught:
        build(ClientSettings(), clock, platform=WorkloadPlatform.GOOGLE)

    assert caught.value.key == "MICROMEGAS_OIDC_WORKLOAD_AUDIENCE"


@pytest.mark.parametrize("exchange", [EXCHANGE, ASSERTION])
@pytest.mark.parametrize(
    ("settings", "missing"),
    [
        (ClientSettings(client_id="svc"), "MICROMEGAS_OIDC_ISSUER"),
        (ClientSettings(issuer="https://id.example.com"), "MICROMEGAS_OIDC_CLIENT_ID"),
    ],
)
def test_an_exchange_without_a_provider_names_what_is_missing(
    clock: FakeClock, exchange: WorkloadExchange, settings: ClientSettings, missing: str
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        build(settings, clock, platform=WorkloadPlatform.GOOGLE, exchange=exchange, audience="x")

    assert caught.value.key == missing


def test_kubernetes_needs_the_name_of_the_file(clock: FakeClock) -> None:
    with pytest.raises(ConfigurationError) as caught:
        build(SETTINGS, clock, platform=WorkloadPlatform.KUBERNETES)

    assert caught.value.key == "MICROMEGAS_OIDC_WORKLOAD_TOKEN_FILE"


def test_the_token_of_a_pod_is_the_bearer(clock: FakeClock, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(mint(audience="lake", expires_in=10 * 365 * 86_400))

    provider, script = build(SETTINGS, clock, platform=WorkloadPlatform.KUBERNETES, token_file=file, audience="lake")

    assert provider.get_token() == file.read_text()
    assert not script.asked


def test_the_token_of_a_pod_has_to_be_for_the_audience_that_was_set(clock: FakeClock, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(mint(audience="other"))
    provider, _ = build(SETTINGS, clock, platform=WorkloadPlatform.KUBERNETES, token_file=file, audience="lake")

    with pytest.raises(LoginFailed, match="a different audience"):
        provider.get_token()


def test_a_pod_of_azure_with_a_federated_identity_has_to_exchange_it(clock: FakeClock) -> None:
    environ = {"AZURE_FEDERATED_TOKEN_FILE": "/var/run/secrets/azure/tokens/azure-identity-token"}

    with pytest.raises(ConfigurationError) as caught:
        build(SETTINGS, clock, environ, platform=WorkloadPlatform.AZURE)

    assert "MICROMEGAS_OIDC_WORKLOAD_EXCHANGE=client-assertion" in caught.value.remedy


def test_an_app_of_azure_asks_its_own_endpoint(clock: FakeClock) -> None:
    environ = {
        "AZURE_FEDERATED_TOKEN_FILE": "/nowhere",
        "IDENTITY_ENDPOINT": "http://127.0.0.1:41056/MSI/token/",
        "IDENTITY_HEADER": "s3same",
    }
    provider, script = build(SETTINGS, clock, environ, platform=WorkloadPlatform.AZURE)

    with pytest.raises(Unavailable):
        provider.get_token()

    assert script.asked[0].url.startswith("http://127.0.0.1:41056/MSI/token/?")
