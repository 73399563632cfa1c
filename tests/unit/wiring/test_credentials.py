"""What the settings give a program to authenticate with, and the files that secrets come from."""

import os
import stat

import pytest
from cryptography.hazmat.primitives import serialization

from micromegas_jupyter.auth import OidcClientCredentialsProvider
from micromegas_jupyter.auth.provider_connection import configured_credential
from micromegas_jupyter.auth.workloads import GoogleServiceAccountProvider, WorkloadProvider
from micromegas_jupyter.config.client import (
    DEFAULT_SCOPE,
    Bearer,
    ClientSettings,
    PrivateKeySetting,
    WorkloadExchange,
    WorkloadPlatform,
    WorkloadSetting,
)
from micromegas_jupyter.core.files import find_exposure, read_secret_line
from micromegas_jupyter.core.system import Secret
from micromegas_jupyter.errors import ConfigurationError
from micromegas_jupyter.oidc.private_key import PrivateKey
from micromegas_jupyter.wiring.service_accounts import service_provider, service_scope
from tests.fakes.mint import ec_key
from tests.fakes.platform_stand_ins import GoogleTokenEndpoint

SERVICE = {"issuer": "https://id.example.com", "client_id": "svc"}
ME, ROOT = 1000, 0


def write(path, content, mode=0o600):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    path.chmod(mode)
    return path


@pytest.fixture
def key_file(tmp_path):
    pem = ec_key().private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return write(tmp_path / "key.pem", pem)


@pytest.fixture
def google_file(tmp_path):
    with GoogleTokenEndpoint() as google:
        yield write(tmp_path / "google.json", google.key_file())


def test_secret_and_key_are_read_from_their_files(tmp_path, key_file):
    secret_file = write(tmp_path / "secret", "s3same\n")
    key = configured_credential(ClientSettings(**SERVICE, private_key=PrivateKeySetting(file=key_file, key_id="k1")))

    assert configured_credential(ClientSettings(**SERVICE)) is None
    assert configured_credential(ClientSettings(**SERVICE, client_secret_file=secret_file)) == Secret("s3same")
    assert isinstance(key, PrivateKey)
    assert (key.algorithm, key.key_id) == ("ES256", "k1")


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


def test_a_secret_makes_a_service_account_and_a_key_does_even_where_secrets_are_native(key_file):
    by_secret = service_provider(ClientSettings(**SERVICE, client_secret=Secret("s3same"), audience="lake"), {})
    by_key = service_provider(
        ClientSettings(**SERVICE, private_key=PrivateKeySetting(file=key_file), secret_is_native=True), {}
    )

    assert isinstance(by_secret, OidcClientCredentialsProvider)
    assert (by_secret.audience, by_secret.scope) == ("lake", None)
    assert isinstance(by_key, OidcClientCredentialsProvider)


@pytest.mark.parametrize(
    ("options", "audience", "scope"),
    [
        ({**SERVICE, "audience": "lake", "client_secret": Secret("s3same")}, "lake", None),
        (SERVICE, "svc", None),
        ({"audience": "lake", "bearer": Bearer.ACCESS_TOKEN, "scope": "https://scope"}, None, "https://scope"),
    ],
)
def test_a_key_file_of_google_comes_first_and_asks_for_what_the_server_takes(google_file, options, audience, scope):
    provider = service_provider(ClientSettings(**options, service_account_file=google_file), {})

    assert isinstance(provider, GoogleServiceAccountProvider)
    assert (provider.audience, provider.scope) == (audience, scope)


def test_a_secret_is_read_only_where_an_exchange_needs_it(tmp_path):
    def settings(exchange):
        workload = WorkloadSetting(platform=WorkloadPlatform.GOOGLE, exchange=exchange)
        return ClientSettings(**SERVICE, client_secret_file=tmp_path / "missing", workload=workload)

    assert isinstance(service_provider(settings(WorkloadExchange.NONE), {}), WorkloadProvider)
    with pytest.raises(ConfigurationError, match="does not exist"):
        service_provider(settings(WorkloadExchange.TOKEN_EXCHANGE), {})


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o611])
def test_a_file_that_others_can_reach_is_refused_with_the_remedy_and_left_as_it_is(tmp_path, mode):
    name = "config.json: client_secret_file"
    file = write(tmp_path / "secret", "s3same", mode)
    settings = ClientSettings(**SERVICE, client_secret_file=file, origins=(("client_secret_file", name),))

    with pytest.raises(ConfigurationError, match="by others") as caught:
        configured_credential(settings)

    assert "chmod 600" in caught.value.remedy
    assert caught.value.key == name
    assert stat.S_IMODE(file.stat().st_mode) == mode
    assert "s3same" not in str(caught.value)


@pytest.mark.parametrize("content", ["", " \n", "one\ntwo", "one\x00two", b"\xff"])
def test_a_file_without_one_line_of_text_is_refused_without_showing_it(tmp_path, content):
    with pytest.raises(ConfigurationError) as caught:
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
    found = os.stat_result((stat.S_IFREG | mode, 1, 1, 1, owner, owner, 10, 0, 0, 0))

    assert find_exposure(found, user_id=ME, is_mounted_read_only=is_mounted_read_only) == expected


def test_a_file_of_root_is_its_own_for_a_program_that_runs_as_root():
    found = os.stat_result((stat.S_IFREG | 0o640, 1, 1, 1, ROOT, ROOT, 10, 0, 0, 0))

    assert find_exposure(found, user_id=ROOT, is_mounted_read_only=False) == "can be read by others"


@pytest.mark.parametrize(
    ("scope", "origin", "expected"),
    [
        ("api/.default", "MICROMEGAS_OIDC_SCOPE", "api/.default"),
        (DEFAULT_SCOPE, "MICROMEGAS_OIDC_SCOPE", None),
        ("openid email profile", "preset google", None),
    ],
)
def test_a_program_asks_for_a_scope_that_somebody_chose_and_for_no_persons(scope, origin, expected):
    assert service_scope(ClientSettings(scope=scope, origins=(("scope", origin),))) == expected
