"""The environment and the configuration folder, read into settings; whether and where the settings let people sign in.

Cheap to load, for whoever asks before anything else is needed.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from micromegas_jupyter.config.client import ClientSettings
from micromegas_jupyter.config.client_config import CONFIG_FILE, parse_client_settings
from micromegas_jupyter.core.files import FileProblem, NoSuchFile, find_foreign_writer, read_shared_file
from micromegas_jupyter.core.system import process_variables
from micromegas_jupyter.errors import ConfigurationError

CONFIG_DIR = "MICROMEGAS_CONFIG_DIR"

_MAX_CONFIG_BYTES = 256 * 1024
_OWNER_REMEDY = (
    "Check its content, then make yourself or root its owner (chown) and close it to changes by others (chmod go-w). A "
    "program that runs as root, such as under sudo, trusts only files of root's."
)


def config_folder(environ: Mapping[str, str] | None = None) -> Path:
    """Return the folder of `config.json` and the token files: `MICROMEGAS_CONFIG_DIR`, else `~/.micromegas`."""
    chosen = (os.environ if environ is None else environ).get(CONFIG_DIR)
    return Path(chosen).expanduser() if chosen else Path.home() / ".micromegas"


def load_client_settings(
    *,
    profile: str | None = None,
    environ: Mapping[str, str] | None = None,
    options: Mapping[str, str] = MappingProxyType({}),
) -> ClientSettings:
    """Read the environment and `config.json`.

    Args:
        profile: A profile of `config.json`; wins over `MICROMEGAS_PROFILE` and `default_profile`.
        environ: Stands in for the process environment.
        options: Variables that a command's options stand in for; see `parse_client_settings`.
    """
    environ = process_variables(environ)
    config_text = _read_config(config_folder(environ) / CONFIG_FILE)
    return parse_client_settings(environ, config_text=config_text, profile=profile, options=options)


def sign_in_configured(settings: ClientSettings) -> bool:
    """Whether the settings name a provider to sign in at."""
    if (settings.issuer is None) != (settings.client_id is None):
        names = ("MICROMEGAS_OIDC_ISSUER", "MICROMEGAS_OIDC_CLIENT_ID")
        missing, present = names if settings.issuer is None else names[::-1]
        raise ConfigurationError(
            f"{missing} is not set, but {present} is.",
            key=missing,
            remedy="Set both MICROMEGAS_OIDC_ISSUER and MICROMEGAS_OIDC_CLIENT_ID, or neither.",
        )
    return settings.issuer is not None


def provider_of(settings: ClientSettings) -> tuple[str, str]:
    """Return the issuer and the client id that the settings name."""
    if not sign_in_configured(settings) or settings.issuer is None or settings.client_id is None:
        raise ConfigurationError(
            "No identity provider is configured.",
            key="MICROMEGAS_OIDC_ISSUER",
            remedy="Set MICROMEGAS_OIDC_ISSUER and MICROMEGAS_OIDC_CLIENT_ID, or name a profile that has them.",
        )
    return settings.issuer, settings.client_id


def _read_config(path: Path) -> str | None:
    """Return the file's text, None when there is none.

    The file says which server gets a person's token, so one that somebody else could have written is refused. A
    symbolic link is followed, and its target counts.
    """
    try:
        content, found = read_shared_file(path, max_bytes=_MAX_CONFIG_BYTES)
        text = content.decode("utf-8")
    except NoSuchFile:
        return None
    except FileProblem as problem:
        if isinstance(problem.__cause__, NotADirectoryError):
            return None  # a home folder of /dev/null, as programs without a person have it
        raise ConfigurationError(f"{path.name} {problem.args[0]}.", key=path.name) from problem.__cause__
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{path.name} cannot be read as UTF-8 text.", key=path.name) from error
    writer = find_foreign_writer(found)
    if writer is not None:
        raise ConfigurationError(f"{path.name} {writer}, so it is not used.", key=path.name, remedy=_OWNER_REMEDY)
    return text
