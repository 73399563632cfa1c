"""Reads what lies outside the process, the environment and the configuration folder, and hands text to `settings`."""

import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from micromegas_jupyter.auth.trusted_files import current_reader, find_foreign_writer
from micromegas_jupyter.config.client import ClientSettings
from micromegas_jupyter.config.client_config import CONFIG_FILE, parse_client_settings
from micromegas_jupyter.core.files import FileProblem, NoSuchFile, read_shared_file
from micromegas_jupyter.core.system import process_variables
from micromegas_jupyter.errors import ConfigurationError

CONFIG_DIR = "MICROMEGAS_CONFIG_DIR"

_MAX_CONFIG_BYTES = 256 * 1024
_OWN_REMEDY = (
    "Look at what it says, then let it belong to you or to root (chown) and close it to changes by others "
    "(chmod go-w). A program that runs as root, under sudo for instance, believes files of root's only."
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

    Raises:
        ConfigurationError: A variable or the file is malformed, somebody else could have written the file, or the
                profile does not exist.
    """
    environ = process_variables(environ)
    config_text = _read_config(config_folder(environ) / CONFIG_FILE)
    return parse_client_settings(environ, config_text=config_text, profile=profile, options=options)


def _read_config(path: Path) -> str | None:
    """Return the file's text, None when there is none; a file that somebody else could have written is refused.

    It says which server gets a person's token. A symbolic link is followed, and what it leads to is what counts.
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
    writer = find_foreign_writer(found, reader=current_reader())
    if writer is not None:
        raise ConfigurationError(f"{path.name} {writer}, so it is not believed.", key=path.name, remedy=_OWN_REMEDY)
    return text
