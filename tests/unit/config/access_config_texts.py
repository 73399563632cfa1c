"""A server's access configuration as variables and files hold it, and how it is read."""

import json

import pytest

from micromegas_jupyter.config.access import AccessSettings
from micromegas_jupyter.config.access_config import parse_access_settings
from micromegas_jupyter.errors import ConfigurationError

KEYS = "MICROMEGAS_API_KEYS"
KEY_FILE = "MICROMEGAS_API_KEY_FILE"
OIDC = "MICROMEGAS_OIDC_CONFIG"
ADMINS = "MICROMEGAS_ADMINS"
LEGACY = "MICROMEGAS_LEGACY_API_KEYS"
CONFIG = "MICROMEGAS_ACCESS_CONFIG"
ISSUER = {"issuer": "https://id.example.com", "audience": "lake"}
PLAIN = {"name": "grafana", "key": "hunter2"}
DIGEST = {"name": "collector", "sha256": "ab" * 32}


def parse(config: object = None, keys: object = None, **environ: str) -> AccessSettings:
    return parse_access_settings(
        environ,
        config_text=None if config is None else json.dumps(config),
        key_file_text=None if keys is None else json.dumps(keys),
    )


def refusal(config: object = None, keys: object = None, **environ: str) -> ConfigurationError:
    with pytest.raises(ConfigurationError) as caught:
        parse(config, keys, **environ)
    return caught.value


def issuers(*entries: object, **more: object) -> str:
    return json.dumps({"issuers": list(entries), **more})
