"""Reading the configuration folder."""

import json
from pathlib import Path

import pytest

from micromegas_jupyter.assembly.environment import config_folder, load_client_settings, token_file
from micromegas_jupyter.errors import ConfigurationError
from micromegas_jupyter.settings import ClientSettings

SETTINGS = ClientSettings(issuer="https://id.example", client_id="app")


@pytest.fixture
def environ(tmp_path):
    return {"MICROMEGAS_CONFIG_DIR": str(tmp_path)}


def test_the_configuration_folder_is_in_the_home_folder():
    assert config_folder({}) == Path.home() / ".micromegas"


def test_the_configuration_folder_can_be_named(environ, tmp_path):
    assert config_folder(environ) == tmp_path


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


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe", b"[]", b'{"a": 1, "a": 2}', b"x" * 300_000])
def test_a_file_that_cannot_be_read_in_full_is_refused(environ, tmp_path, content):
    (tmp_path / "config.json").write_bytes(content)

    with pytest.raises(ConfigurationError, match=r"config\.json"):
        load_client_settings(environ=environ)


def test_the_token_file_is_upstreams(environ, tmp_path):
    assert token_file(SETTINGS, environ) == tmp_path / "tokens.json"


def test_the_token_file_of_a_profile_is_upstreams(environ, tmp_path):
    settings = ClientSettings(issuer="https://id.example", client_id="app", profile="work")

    assert token_file(settings, environ) == tmp_path / "tokens-work.json"


@pytest.mark.parametrize(("issuer", "client_id"), [("https://other.example", "app"), ("https://id.example", "other")])
def test_a_file_of_another_provider_or_application_is_left_alone(environ, tmp_path, issuer, client_id):
    (tmp_path / "tokens.json").write_text(json.dumps({"issuer": issuer, "client_id": client_id, "token": {}}))

    path = token_file(SETTINGS, environ)

    assert path.parent == tmp_path
    assert path.name.startswith("tokens.")
    assert path.name != "tokens.json"


def test_a_file_of_this_provider_and_application_is_used(environ, tmp_path):
    content = {"issuer": "https://id.example", "client_id": "app", "token": {}}
    (tmp_path / "tokens.json").write_text(json.dumps(content))

    assert token_file(SETTINGS, environ) == tmp_path / "tokens.json"


def test_a_damaged_file_keeps_its_name_so_that_its_reader_can_say_so(environ, tmp_path):
    (tmp_path / "tokens.json").write_text("not json")

    assert token_file(SETTINGS, environ) == tmp_path / "tokens.json"
