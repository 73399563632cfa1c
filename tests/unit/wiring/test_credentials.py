"""What the settings give a program to authenticate with, and the files that secrets come from."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives import serialization

from micromegas_jupyter.auth import OidcClientCredentialsProvider
from micromegas_jupyter.auth.workloads import GoogleServiceAccountProvider, WorkloadProvider
from micromegas_jupyter.config.client import (
    DEFAULT_SCOPE,
    AssertionAudience,
    Bearer,
    ClientSettings,
    PrivateKeySetting,
    WorkloadExchange,
    WorkloadPlatform,
    WorkloadSetting,
)
from micromegas_jupyter.core.files import find_exposure
from micromegas_jupyter.core.secrets import Secret
from micromegas_jupyter.errors import ConfigurationError
from micromegas_jupyter.oidc.private_key import PrivateKey
from micromegas_jupyter.wiring import client_proof, service_provider
from micromegas_jupyter.wiring.credentials import read_secret_file, read_secret_line
from micromegas_jupyter.wiring.environment import service_scope
from tests.fakes.mint import ec_key
from tests.fakes.platform_stand_ins import GoogleTokenEndpoint

if TYPE_CHECKING:
    from collections.abc import Iterator

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


def test_a_public_application_proves_nothing():
    assert client_proof(ClientSettings(**SERVICE)) is None


def test_a_secret_is_read_from_its_file(secret_file):
    assert client_proof(ClientSettings(**SERVICE, client_secret_file=secret_file)) == Secret("s3same")


def test_a_key_is_read_from_its_file(key_file):
    proof = client_proof(ClientSettings(**SERVICE, private_key=PrivateKeySetting(file=key_file, key_id="k1")))

    assert isinstance(proof, PrivateKey)
    assert (proof.algorithm, proof.key_id) == ("ES256", "k1")
    assert proof.audience is AssertionAudience.TOKEN_ENDPOINT


def test_an_error_names_the_setting_as_it_was_given(secret_file):
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
def test_a_person_signs_in_when_no_program_can(settings):
    assert service_provider(settings, {}) is None


def test_a_secret_makes_a_service_account():
    provider = service_provider(ClientSettings(**SERVICE, client_secret=Secret("s3same"), audience="lake"), {})

    assert isinstance(provider, OidcClientCredentialsProvider)
    assert (provider.audience, provider.scope) == ("lake", None)


def test_a_key_makes_a_service_account_even_where_secrets_are_native(key_file):
    settings = ClientSettings(**SERVICE, private_key=PrivateKeySetting(file=key_file), secret_is_native=True)

    assert isinstance(service_provider(settings, {}), OidcClientCredentialsProvider)


def test_a_key_file_of_google_comes_first(google_file):
    settings = ClientSettings(**SERVICE, client_secret=Secret("s3same"), service_account_file=google_file)

    assert isinstance(service_provider(settings, {}), GoogleServiceAccountProvider)


@pytest.mark.parametrize(("audience", "expected"), [("lake", "lake"), (None, "svc")])
def test_google_is_asked_for_an_id_token_for_the_audience_or_the_application(google_file, audience, expected):
    provider = service_provider(ClientSettings(**SERVICE, audience=audience, service_account_file=google_file), {})

    assert isinstance(provider, GoogleServiceAccountProvider)
    assert (provider.audience, provider.scope) == (expected, None)


def test_google_is_asked_for_an_access_token_by_its_scope(google_file):
    settings = ClientSettings(
        audience="lake", service_account_file=google_file, bearer=Bearer.ACCESS_TOKEN, scope="https://scope"
    )

    provider = service_provider(settings, {})

    assert isinstance(provider, GoogleServiceAccountProvider)
    assert (provider.audience, provider.scope) == (None, "https://scope")


def test_a_secret_that_is_not_needed_is_not_read(tmp_path):
    settings = ClientSettings(
        **SERVICE,
        client_secret_file=tmp_path / "missing",
        workload=WorkloadSetting(platform=WorkloadPlatform.GOOGLE),
    )

    assert isinstance(service_provider(settings, {}), WorkloadProvider)


def test_a_secret_that_an_exchange_needs_is_read(tmp_path):
    settings = ClientSettings(
        **SERVICE,
        client_secret_file=tmp_path / "missing",
        workload=WorkloadSetting(platform=WorkloadPlatform.GOOGLE, exchange=WorkloadExchange.TOKEN_EXCHANGE),
    )

    with pytest.raises(ConfigurationError, match="does not exist"):
        service_provider(settings, {})


ME = 1000

ROOT = 0


def found(mode: int, owner: int) -> os.stat_result:
    return os.stat_result((stat.S_IFREG | mode, 1, 1, 1, owner, owner, 10, 0, 0, 0))


def write(path: Path, content: str | bytes, mode: int = 0o600) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    path.chmod(mode)
    return path


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o660, 0o666, 0o611])
def test_a_file_that_others_can_reach_is_refused_with_the_remedy_and_left_as_it_is(tmp_path, mode):
    file = write(tmp_path / "secret", "s3same", mode)

    with pytest.raises(ConfigurationError, match="by others") as caught:
        read_secret_file(file, setting="client_secret_file")

    assert "chmod 600" in caught.value.remedy
    assert caught.value.key == "client_secret_file"
    assert stat.S_IMODE(file.stat().st_mode) == mode
    assert "s3same" not in str(caught.value)


def test_the_home_folder_may_be_written_as_a_tilde(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    write(tmp_path / "secret", "s3same")

    assert read_secret_line(Path("~/secret"), setting="client_secret_file") == Secret("s3same")


def test_a_file_system_that_says_nothing_of_itself_counts_as_writable(tmp_path, monkeypatch):
    def unknown(_path: object) -> os.statvfs_result:
        raise OSError

    monkeypatch.setattr(os, "statvfs", unknown)
    file = write(tmp_path / "secret", "s3same")

    assert read_secret_file(file, setting="client_secret_file") == Secret("s3same")
    file.chmod(0o644)
    with pytest.raises(ConfigurationError):
        read_secret_file(file, setting="client_secret_file")


def test_a_missing_file_is_told_by_its_setting_not_by_its_path(tmp_path):
    with pytest.raises(ConfigurationError, match="client_secret_file names does not exist") as caught:
        read_secret_file(tmp_path / "secret", setting="client_secret_file")

    assert str(tmp_path) not in str(caught.value)


@pytest.mark.parametrize("content", ["s3same", "s3same\n", "  s3same \r\n", "\ns3same\n"])
def test_white_space_around_a_secret_is_dropped(tmp_path, content):
    assert read_secret_line(write(tmp_path / "secret", content), setting="client_secret_file") == Secret("s3same")


@pytest.mark.parametrize("content", ["", " \n", "one\ntwo", "one\x00two"])
def test_a_file_without_one_line_is_refused_without_showing_it(tmp_path, content):
    with pytest.raises(ConfigurationError, match="does not hold one line") as caught:
        read_secret_line(write(tmp_path / "secret", content), setting="client_secret_file")

    assert "two" not in str(caught.value)


@pytest.mark.parametrize(
    ("mode", "owner", "is_mounted_read_only", "expected"),
    [
        (0o600, ME, False, None),
        (0o400, ME, False, None),
        (0o440, ME, False, "can be read by others"),
        (0o444, ME, True, "can be read by others"),
        (0o620, ME, False, "can be changed by others"),
        (0o600, 1001, False, "belongs to another user"),
        (0o444, 1001, True, "belongs to another user"),
        (0o440, ROOT, False, None),
        (0o640, ROOT, False, None),
        (0o660, ROOT, False, "can be changed by others"),
        (0o644, ROOT, False, "can be read by others"),
        (0o644, ROOT, True, None),
        (0o444, ROOT, True, None),
        (0o440, ROOT, True, None),
    ],
)
def test_who_may_reach_a_secret(mode, owner, is_mounted_read_only, expected):
    assert find_exposure(found(mode, owner), user_id=ME, is_mounted_read_only=is_mounted_read_only) == expected


def test_a_file_of_root_is_its_own_for_a_program_that_runs_as_root():
    assert find_exposure(found(0o640, ROOT), user_id=ROOT, is_mounted_read_only=False) == "can be read by others"
    assert find_exposure(found(0o644, ROOT), user_id=ROOT, is_mounted_read_only=True) is None


def test_a_scope_that_somebody_chose_is_asked_for():
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
def test_a_persons_scope_is_not(settings):
    assert service_scope(settings) is None
