"""Remembers, for each profile, the flow that a person chose last."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from micromegas_jupyter.config.client import ClientSettings, Flow
from micromegas_jupyter.config.client_config import is_profile_name
from micromegas_jupyter.core.files import FileProblem, ensure_private_folder, read_private_file, write_private_file
from micromegas_jupyter.core.json import JsonError, decode_strict_json
from micromegas_jupyter.errors import ConfigurationError
from micromegas_jupyter.wiring.environment import config_folder

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
