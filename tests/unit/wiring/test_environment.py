"""Reading the configuration folder, and whether the settings name a provider."""

import json
import os

import pytest

from micromegas_jupyter.config.client import ClientSettings
from micromegas_jupyter.errors import ConfigurationError
from micromegas_jupyter.wiring.client_side import load_client_settings, provider_of, sign_in_configured


@pytest.fixture
def environ(tmp_path):
    return {"MICROMEGAS_CONFIG_DIR": str(tmp_path)}


def test_without_a_file_the_environment_decides(environ):
    settings = load_client_settings(environ={**environ, "MICROMEGAS_ANALYTICS_URI": "grpc://h:1"})

    assert settings == ClientSettings(uri="grpc://h:1")


def test_a_profile_of_the_file_is_read(environ, tmp_path):
    profile = {"uri": "grpc+tls://lake:1", "client_id": "app", "issuers": [{"issuer": "https://id.example"}]}
    (tmp_path / "config.json").write_text(json.dumps({"profiles": {"work": profile}}))

    settings = load_client_settings(profile="work", environ=environ)

    assert settings == ClientSettings(
        uri="grpc+tls://lake:1", client_id="app", issuer="https://id.example", profile="work"
    )


def test_settings_say_where_they_came_from(environ, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"uri": "grpc+tls://lake:1", "flow": "paste"}))

    settings = load_client_settings(environ={**environ, "MICROMEGAS_OIDC_FLOW": "device"})

    assert settings.origins == (("flow", "MICROMEGAS_OIDC_FLOW"), ("uri", "config.json: uri"))


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe", b"[]", b'{"a": 1, "a": 2}', b"x" * 300_000])
def test_a_file_that_cannot_be_read_in_full_is_refused(environ, tmp_path, content):
    (tmp_path / "config.json").write_bytes(content)

    with pytest.raises(ConfigurationError, match=r"config\.json"):
        load_client_settings(environ=environ)


def test_a_file_that_everybody_can_change_is_refused_with_what_to_do(environ, tmp_path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"uri": "grpc+tls://evil.example.com:1"}))
    path.chmod(0o666)

    with pytest.raises(ConfigurationError, match=r"config\.json can be changed by everybody") as caught:
        load_client_settings(environ=environ)

    assert caught.value.key == "config.json"
    assert "chmod go-w" in caught.value.remedy
    assert path.stat().st_mode & 0o777 == 0o666


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives a file away")
def test_a_file_of_another_user_is_refused(environ, tmp_path):
    path = tmp_path / "config.json"
    path.write_text("{}")
    os.chown(path, 12345, -1)

    with pytest.raises(ConfigurationError, match=r"config\.json belongs to another user") as caught:
        load_client_settings(environ=environ)

    assert "sudo" in caught.value.remedy


def test_a_link_is_followed_and_what_it_leads_to_is_what_counts(environ, tmp_path):
    target = tmp_path / "dotfiles.json"
    target.write_text(json.dumps({"uri": "grpc+tls://lake:1"}))
    (tmp_path / "config.json").symlink_to(target)

    assert load_client_settings(environ=environ).uri == "grpc+tls://lake:1"
    target.chmod(0o666)
    with pytest.raises(ConfigurationError, match=r"config\.json can be changed"):
        load_client_settings(environ=environ)


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir], ids=["pipe", "folder"])
def test_what_is_no_file_is_refused_without_waiting(environ, tmp_path, make):
    make(tmp_path / "config.json")

    with pytest.raises(ConfigurationError, match=r"config\.json is not a regular file"):
        load_client_settings(environ=environ)


def test_a_home_that_is_no_folder_has_no_file(tmp_path):
    (tmp_path / "null").touch()

    settings = load_client_settings(environ={"MICROMEGAS_CONFIG_DIR": str(tmp_path / "null" / ".micromegas")})

    assert settings == ClientSettings()


def test_both_names_make_a_provider():
    settings = ClientSettings(issuer="https://id.example", client_id="app")

    assert sign_in_configured(settings)
    assert provider_of(settings) == ("https://id.example", "app")


@pytest.mark.parametrize(
    ("settings", "missing"),
    [
        (ClientSettings(issuer="https://id.example"), "MICROMEGAS_OIDC_CLIENT_ID"),
        (ClientSettings(client_id="app"), "MICROMEGAS_OIDC_ISSUER"),
    ],
)
def test_half_a_configuration_is_refused_by_name(settings, missing):
    with pytest.raises(ConfigurationError) as caught:
        sign_in_configured(settings)

    assert caught.value.key == missing
