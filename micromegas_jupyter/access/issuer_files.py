"""Checks the files that issuers' settings name, before the settings come into force.

Fetching keys with these files is `key_fetch`'s job, and what they hold is checked again there.
"""

import os
from collections.abc import Iterable
from pathlib import Path

from micromegas_jupyter.access.file_rights import check_rights, warn_of_group
from micromegas_jupyter.access.key_fetch import MAX_KEY_FILE_BYTES
from micromegas_jupyter.access.named_files import read_named_file
from micromegas_jupyter.config.access import IssuerSetting
from micromegas_jupyter.core.json import JsonError, decode_strict_json
from micromegas_jupyter.errors import ConfigurationError, ProviderMisbehaved
from micromegas_jupyter.oidc.keys import parse_key_set


def check_issuer_files(issuers: Iterable[IssuerSetting]) -> None:
    """Check that key files and certificates are there and can be trusted, and that key files hold keys.

    A file with a token may come later and belong to anybody, as mounted secrets do; nobody else may change it.

    Raises:
        ConfigurationError: One is not so; the error names the setting, not the file.
    """
    checked: set[tuple[str, str]] = set()
    for issuer in issuers:
        for member, path in _files_of(issuer).items():
            if (member, path) in checked:
                continue
            # Keys are held against their issuer, so that each issuer's own look at one file counts.
            if member != "jwks_file":
                checked.add((member, path))
            _check_file(path, setting=f"{issuer.place}.{member}", is_token=member == "bearer_token_file")
            if member == "jwks_file":
                _check_keys(path, issuer)


def warn_of_issuer_files(issuers: Iterable[IssuerSetting]) -> None:
    """Tell the log of files that their group may change."""
    places = {
        path: f"{issuer.place}.{member}" for issuer in issuers for member, path in reversed(_files_of(issuer).items())
    }
    for path, setting in places.items():
        found = _look_at(path)
        if isinstance(found, os.stat_result):
            warn_of_group(found, setting=setting)


def _files_of(issuer: IssuerSetting) -> dict[str, str]:
    """Return the files that an issuer's setting names, by member."""
    named = {
        "jwks_file": issuer.jwks_file,
        "ca_file": issuer.ca_file,
        "bearer_token_file": issuer.bearer_token_file,
    }
    return {member: path for member, path in named.items() if path is not None}


def _check_file(path: str, *, setting: str, is_token: bool) -> None:
    found = _look_at(path)
    if isinstance(found, os.stat_result):
        check_rights(found, setting=setting, any_owner=is_token)
    elif not is_token:
        raise ConfigurationError(
            f"The file that {setting} names cannot be read: {found}.", key=setting, remedy="Correct the path."
        )


def _look_at(path: str) -> os.stat_result | str:
    """Return what the system says of the file, or why it says nothing."""
    try:
        return Path(path).stat()
    except OSError as error:
        return error.strerror or "it cannot be looked at"
    except ValueError:
        return "its name is malformed"


def _check_keys(path: str, issuer: IssuerSetting) -> None:
    setting = f"{issuer.place}.jwks_file"
    try:
        document = decode_strict_json(read_named_file(path, MAX_KEY_FILE_BYTES).decode("utf-8"))
        parse_key_set(document, issuer=issuer.issuer, tenant=issuer.tenant)
    except OSError as error:
        problem = f"cannot be read: {error.strerror or 'it cannot be opened'}"
    except (UnicodeDecodeError, JsonError):
        problem = "is not valid JSON"
    except ProviderMisbehaved:
        problem = "is not a key set (RFC 7517)"
    else:
        return
    raise ConfigurationError(
        f"The file that {setting} names {problem}.", key=setting, remedy="Write the issuer's key set into it."
    )
