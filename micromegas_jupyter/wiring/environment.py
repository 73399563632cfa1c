"""The environment and the configuration folder, read into settings; whether and where the settings let people sign in.

Cheap to load, for whoever asks before anything else is needed.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from micromegas_jupyter.config.client import (
    CONFIG_FILE,
    DEFAULT_SCOPE,
    ClientSettings,
    Flow,
    is_profile_name,
    parse_client_settings,
)
from micromegas_jupyter.core.files import (
    FileProblem,
    NoSuchFile,
    ensure_private_folder,
    find_foreign_writer,
    read_private_file,
    read_shared_file,
    write_private_file,
)
from micromegas_jupyter.core.http import ProviderHttp, read_certificates
from micromegas_jupyter.core.json import JsonError, decode_strict_json
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


def provider_http(settings: ClientSettings) -> ProviderHttp:
    """Return what calls the identity provider; raises `ConfigurationError` when the certificates cannot be used."""
    return ProviderHttp(
        timeout_seconds=settings.provider_timeout_seconds,
        extra_ca_bundle=ca_bundle_file(settings),
        proxy=settings.proxy,
    )


def ca_bundle_file(settings: ClientSettings) -> Path | None:
    """Return the file of authorities to trust besides the usual ones, its `~` expanded; None when none is set."""
    if settings.ca_bundle is None:
        return None
    written = Path(settings.ca_bundle)
    try:
        return written.expanduser()
    except RuntimeError:  # there is no such home folder; whoever reads the file reports it
        return written


def checked_ca_bundle(settings: ClientSettings) -> Path | None:
    """Return the same after checking it, for a reader that does not check certificates as `ProviderHttp` does."""
    path = ca_bundle_file(settings)
    if path is not None:
        read_certificates(path)
    return path


def service_scope(settings: ClientSettings) -> str | None:
    """Return the scope that somebody chose for a program; None leaves it to the provider.

    The default, and what a preset puts in its place, ask for a person's claims, which no program has.
    """
    is_chosen = settings.scope != DEFAULT_SCOPE and not (settings.origin_of("scope") or "").startswith("preset ")
    return settings.scope if is_chosen else None


FILE_NAME = "choices.json"
MAX_PROFILES = 256

_MAX_BYTES = 64 * 1024
# The key of the flat configuration, which no profile can have.
_FLAT = ""


def remembered_flow(settings: ClientSettings, environ: Mapping[str, str] | None = None) -> Flow | None:
    """Return the flow that was chosen last for the settings' profile; None when none was, or `auto` is set.

    A file that is damaged, or not this person's, counts as empty.
    """
    if settings.flow is None and settings.origin_of("flow") is not None:
        return None
    return _read(config_folder(environ) / FILE_NAME).get(settings.profile or _FLAT)


def remember_flow(settings: ClientSettings, flow: Flow | None, environ: Mapping[str, str] | None = None) -> None:
    """Keep the flow for the settings' profile; None forgets it.

    Of two programs that write at the same moment, one choice is kept.

    Raises:
        ConfigurationError: The file cannot be written safely.
    """
    path = config_folder(environ) / FILE_NAME
    profile = settings.profile or _FLAT
    choices = _read(path)
    if choices.get(profile) is flow:
        return
    choices.pop(profile, None)
    if flow is not None:
        choices[profile] = flow  # the newest stands last
    try:
        ensure_private_folder(path.parent)
        write_private_file(path, _render(choices))
    except FileProblem as problem:
        raise ConfigurationError(
            f"{path.name} {problem.args[0]}, so the choice is not remembered.",
            key=path.name,
            remedy=f"Look at {path.name} in the configuration folder and remove it.",
        ) from problem.__cause__


def _read(path: Path) -> dict[str, Flow]:
    try:
        content, _ = read_private_file(path, max_bytes=_MAX_BYTES)
        decoded = decode_strict_json(content.decode("utf-8"))
    except (FileProblem, UnicodeDecodeError, JsonError):
        return {}
    if not isinstance(decoded, dict):
        return {}
    listed = decoded.get("profiles")
    profiles = listed if isinstance(listed, dict) else {}
    found = {name: _flow_of(entry) for name, entry in profiles.items() if is_profile_name(name)}
    found[_FLAT] = _flow_of(decoded)
    return {name: flow for name, flow in found.items() if flow is not None}


def _flow_of(entry: object) -> Flow | None:
    flow = entry.get("flow") if isinstance(entry, dict) else None
    return Flow(flow) if isinstance(flow, str) and flow in set(Flow) else None


def _render(choices: Mapping[str, Flow]) -> bytes:
    kept = [(name, flow) for name, flow in choices.items() if name != _FLAT][-MAX_PROFILES:]
    document: dict[str, Any] = {"profiles": {name: {"flow": flow} for name, flow in kept}}
    if _FLAT in choices:
        document["flow"] = choices[_FLAT]
    return json.dumps(document, indent=2).encode()
