"""Tests of `settings.client`."""

from __future__ import annotations

from micromegas_jupyter.config.client import ClientSettings
from micromegas_jupyter.core.protocols import Secret


def test_each_profile_has_its_token_file():
    assert ClientSettings().token_file_name == "tokens.json"
    assert ClientSettings(profile="production").token_file_name == "tokens-production.json"


def test_a_setting_says_where_it_came_from_and_a_default_does_not():
    settings = ClientSettings(uri="grpc://h:1", origins=(("uri", "MICROMEGAS_ANALYTICS_URI"),))

    assert settings.origin_of("uri") == "MICROMEGAS_ANALYTICS_URI"
    assert settings.origin_of("scope") is None


def test_where_settings_came_from_does_not_make_them_differ():
    assert ClientSettings(origins=(("uri", "MICROMEGAS_ANALYTICS_URI"),)) == ClientSettings()


def test_neither_the_secret_nor_the_proxy_is_shown():
    settings = ClientSettings(client_secret=Secret("hunter2"), proxy=Secret("http://alice:sesame@proxy:3128"))

    assert "hunter2" not in repr(settings)
    assert "proxy:3128" not in repr(settings)
