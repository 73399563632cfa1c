"""Reads what lies outside the process, the environment and the configuration folder, and hands text to `settings`."""

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

from micromegas_jupyter.errors import ConfigurationError
from micromegas_jupyter.settings import ClientSettings, parse_client_settings
from micromegas_jupyter.strict_json import JsonError, decode_strict_json

CONFIG_DIR = "MICROMEGAS_CONFIG_DIR"

_MAX_CONFIG_BYTES = 256 * 1024
_MAX_TOKEN_FILE_BYTES = 1024 * 1024


def config_folder(environ: Mapping[str, str] | None = None) -> Path:
    """Return the folder of `config.json` and the token files: `MICROMEGAS_CONFIG_DIR`, else `~/.micromegas`."""
    chosen = (os.environ if environ is None else environ).get(CONFIG_DIR)
    return Path(chosen).expanduser() if chosen else Path.home() / ".micromegas"


def load_client_settings(*, profile: str | None = None, environ: Mapping[str, str] | None = None) -> ClientSettings:
    """Read the environment and `config.json`.

    Args:
        profile: A profile of `config.json`; wins over `MICROMEGAS_PROFILE` and `default_profile`.
        environ: Stands in for the process environment.

    Raises:
        ConfigurationError: A variable or the file is malformed, or the profile does not exist.
    """
    environ = os.environ if environ is None else environ
    config_text = _read_small_text(config_folder(environ) / "config.json")
    return parse_client_settings(environ, config_text=config_text, profile=profile)


def token_file(settings: ClientSettings, environ: Mapping[str, str] | None = None) -> Path:
    """Return the file that holds, or will hold, the sign-in of exactly these settings.

    It is upstream's file for the profile, unless that file holds a sign-in of another provider or
    application: that one is left alone and a file of its own beside it is used.
    """
    folder = config_folder(environ)
    own = folder / settings.token_file_name
    names = "\n".join((settings.issuer or "", settings.client_id or "", settings.audience or "", settings.scope))
    digest = hashlib.sha256(names.encode()).hexdigest()[:12]
    beside = own.with_name(f"{own.stem}.{digest}.json")
    if beside.exists() or _belongs_to_another(own, settings):
        return beside
    return own


def _belongs_to_another(path: Path, settings: ClientSettings) -> bool:
    try:
        if not path.is_file() or path.stat().st_size > _MAX_TOKEN_FILE_BYTES:
            return False
        content = decode_strict_json(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, JsonError):
        return False
    if not isinstance(content, dict):
        return False
    return (content.get("issuer"), content.get("client_id")) != (settings.issuer, settings.client_id)


def _read_small_text(path: Path) -> str | None:
    try:
        if not path.exists():
            return None
        if not path.is_file() or path.stat().st_size > _MAX_CONFIG_BYTES:
            raise ConfigurationError(f"{path.name} is not a file of at most 256 kB.", key=path.name)
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path.name} cannot be read as UTF-8 text.", key=path.name) from error
