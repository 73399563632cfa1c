from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives import serialization

from micromegas_jupyter.auth import OidcClientCredentialsProvider
from micromegas_jupyter.auth.workloads.google_service_account import GoogleServiceAccountProvider
from micromegas_jupyter.auth.workloads.provider import WorkloadProvider
from micromegas_jupyter.config.client import (
    AssertionAudience,
    Bearer,
    ClientSettings,
    PrivateKeySetting,
    WorkloadExchange,
    WorkloadPlatform,
    WorkloadSetting,
)
from micromegas_jupyter.core.secrets import Secret
from micromegas_jupyter.errors import ConfigurationError
from micromegas_jupyter.oidc.private_key import PrivateKey
from micromegas_jupyter.wiring import client_proof, service_provider
from tests.fakes.mint import ec_key
from tests.fakes.platform_stand_ins import GoogleTokenEndpoint

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SERVICE: dict[str, str] = {"issuer": "https://id.example.com", "client_id": "svc"}


@pytest.fixture
def secret_file(tmp_path: Path) -> Path:
    file = tmp_path / "secret"
    file.write_text("s3same\n")
    file.chmod(0o600)
    return file


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    file = tmp_path / "key.pem"
    file.write_bytes(
        ec_key().private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    file.chmod(0o600)
    return file


@pytest.fixture
def google_file(tmp_path: Path) -> Iterator[Path]:
    with GoogleTokenEndpoint() as google:
        file = tmp_path / "google.json"
        file.write_text(google.key_file())
        file.chmod(0o600)
        yield file


def test_a_public_application_proves_nothing() -> None:
    assert client_proof(ClientSettings(**SERVICE)) is None


def test_a_secret_of_the_settings_is_the_proof() -> None:
    assert client_proof(ClientSettings(**SERVICE, client_secret=Secret("s3same"))) == Secret("s3same")


def test_a_secret_is_read_from_its_file(secret_file: Path) -> None:
    assert client_proof(ClientSettings(**SERVICE, client_secret_file=secret_file)) == Secret("s3same")


def test_a_key_is_read_from_its_file(key_file: Path) -> None:
    proof = client_proof(ClientSettings(**SERVICE, private_key=PrivateKeySetting(file=key_file, key_id="k1")))

    assert isinstance(proof, PrivateKey)
    assert (proof.algorithm, proof.key_id) == ("ES256", "k1")
    assert proof.audience is AssertionAudience.TOKEN_ENDPOINT


def test_a_key_s_assertions_are_made_out_as_the_settings_say(key_file: Path) -> None:
    setting = PrivateKeySetting(file=key_file, audience=AssertionAudience.ISSUER)

    proof = client_proof(ClientSettings(**SERVICE, private_key=setting))

    assert isinstance(proof, PrivateKey)
    assert proof.audience is AssertionAudience.ISSUER


def test_a_key_that_others_can_read_is_refused(key_file: Path) -> None:
    key_file.chmod(0o644)

    with pytest.raises(ConfigurationError, match="can be read by others") as caught:
        client_proof(ClientSettings(**SERVICE, private_key=PrivateKeySetting(file=key_file)))

    assert "chmod 600" in caught.value.remedy


def test_an_error_names_the_setting_as_it_was_given(secret_file: Path) -> None:
    secret_file.chmod(0o644)
    settings = ClientSettings(
        **SERVICE, client_secret_file=secret_file, origins=(("client_secret_file", "config.json: client_secret_file"),)
    )

    with pytest.raises(ConfigurationError, match=r"config\.json: client_secret_file") as caught:
        client_proof(settings)

    assert caught.value.key == "config.json: client_secret_file"


@pytest.mark.parametrize(
    "settings",
    [
        ClientSettings(),
        ClientSettings(**SERVICE),
        ClientSettings(client_secret=Secret("s3same")),
        ClientSettings(**SERVICE, client_secret=Secret("s3same"), secret_is_native=True),
    ],
    ids=["nothing", "public", "no provider", "native"],
)
def test_a_person_signs_in_when_no_program_can(settings: ClientSettings) -> None:
    assert service_provider(settings, {}) is None


def test_a_secret_makes_a_service_account() -> None:
    provider = service_provider(ClientSettings(**SERVICE, client_secret=Secret("s3same"), audience="lake"), {})

    assert isinstance(provider, OidcClientCredentialsProvider)
    assert (provider.audience, provider.scope) == ("lake", None)


def test_a_chosen_scope_is_asked_for() -> None:
    provider = service_provider(ClientSettings(**SERVICE, client_secret=Secret("s3same"), scope="api/.default"), {})

    assert isinstance(provider, OidcClientCredentialsProvider)
    assert provider.scope == "api/.default"


def test_a_key_makes_a_service_account_even_where_secrets_are_native(key_file: Path) -> None:
    settings = ClientSettings(**SERVICE, private_key=PrivateKeySetting(file=key_file), secret_is_native=True)

    assert isinstance(service_provider(settings, {}), OidcClientCredentialsProvider)


def test_a_key_file_of_google_comes_first(google_file: Path) -> None:
    settings = ClientSettings(**SERVICE, client_secret=Secret("s3same"), service_account_file=google_file)

    assert isinstance(service_provider(settings, {}), GoogleServiceAccountProvider)


@pytest.mark.parametrize(("audience", "expected"), [("lake", "lake"), (None, "svc")])
def test_google_is_asked_for_an_id_token_for_the_audience_or_the_application(
    google_file: Path, audience: str | None, expected: str
) -> None:
    provider = service_provider(ClientSettings(**SERVICE, audience=audience, service_account_file=google_file), {})

    assert isinstance(provider, GoogleServiceAccountProvider)
    assert (provider.audience, provider.scope) == (expected, None)


def test_google_is_asked_for_an_access_token_by_its_scope(google_file: Path) -> None:
    settings = ClientSettings(
        audience="lake", service_account_file=google_file, bearer=Bearer.ACCESS_TOKEN, scope="https://scope"
    )

    provider = service_provider(settings, {})

    assert isinstance(provider, GoogleServiceAccountProvider)
    assert (provider.audience, provider.scope) == (None, "https://scope")


def test_a_key_file_of_google_without_an_audience_is_told_what_is_missing(google_file: Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        service_provider(ClientSettings(service_account_file=google_file), {})

    assert caught.value.key == "MICROMEGAS_OIDC_AUDIENCE"


def test_a_key_file_that_others_can_read_is_refused(google_file: Path) -> None:
    google_file.chmod(0o644)

    with pytest.raises(ConfigurationError, match="can be read by others"):
        service_provider(ClientSettings(audience="lake", service_account_file=google_file), {})


def test_what_the_platform_says_comes_before_a_secret() -> None:
    workload = WorkloadSetting(platform=WorkloadPlatform.GOOGLE)

    provider = service_provider(ClientSettings(**SERVICE, client_secret=Secret("s3same"), workload=workload), {})

    assert isinstance(provider, WorkloadProvider)


def test_a_secret_that_is_not_needed_is_not_read(tmp_path: Path) -> None:
    settings = ClientSettings(
        **SERVICE,
        client_secret_file=tmp_path / "missing",
        workload=WorkloadSetting(platform=WorkloadPlatform.GOOGLE),
    )

    assert isinstance(service_provider(settings, {}), WorkloadProvider)


def test_a_secret_that_an_exchange_needs_is_read(tmp_path: Path) -> None:
    settings = ClientSettings(
        **SERVICE,
        client_secret_file=tmp_path / "missing",
        workload=WorkloadSetting(platform=WorkloadPlatform.GOOGLE, exchange=WorkloadExchange.TOKEN_EXCHANGE),
    )

    with pytest.raises(ConfigurationError, match="does not exist"):
        service_provider(settings, {})


def test_no_secret_shows_in_a_provider(google_file: Path) -> None:
    for settings in (
        ClientSettings(**SERVICE, client_secret=Secret("s3same")),
        ClientSettings(audience="lake", service_account_file=google_file),
    ):
        shown = repr(service_provider(settings, {}))

        assert "s3same" not in shown
        assert "BEGIN" not in shown
