"""Where the sign-ins of a profile are kept: upstream's file for one of them, files of their own for the others.

Reading and writing them is `auth`'s job.
"""

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path

from micromegas_jupyter.auth.sign_in_entry import SignInEntry
from micromegas_jupyter.auth.sign_in_store import SignInStore
from micromegas_jupyter.auth.token_store import EXTRAS_SUFFIX, TokenStore
from micromegas_jupyter.config.client import ClientSettings, TokenStorage
from micromegas_jupyter.config.client_config import CONFIG_FILE
from micromegas_jupyter.core.files import FileProblem, read_shared_file
from micromegas_jupyter.core.json import JsonError, decode_strict_json
from micromegas_jupyter.errors import TokenStoreError
from micromegas_jupyter.wiring.environment import config_folder

_FILE_SUFFIX = ".json"


def token_file(settings: ClientSettings, environ: Mapping[str, str] | None = None) -> Path:
    """Return the file that holds, or will hold, the sign-in of exactly these settings.

    It is upstream's file for the profile, unless that file holds a sign-in of another provider, application,
    audience, scope or resource: that one is left alone and a file of its own beside it is used. A file whose scope is
    not known, because upstream signed in, counts for any scope. A sign-in that has a file of its own stays there when
    the other one has ended.
    """
    return _place(settings, environ, _FILE_SUFFIX, lambda path: TokenStore(path).stored_entry())


def sign_in_store(
    settings: ClientSettings,
    environ: Mapping[str, str] | None = None,
    *,
    announce: Callable[[str], None] | None = None,
) -> SignInStore:
    """Return the place that keeps the sign-in of exactly these settings.

    Args:
        settings: Which provider, application, audience and scope, and which kind of place.
        environ: Stands in for the process environment.
        announce: Told in one sentence when it is not the kind of place that the settings ask for.
    """
    entry = entry_of(settings)
    store = TokenStore(token_file(settings, environ), entry=entry)
    if settings.storage is TokenStorage.FILE:
        return store
    from micromegas_jupyter.auth.keyring_store import KeyringTokenStore
    from micromegas_jupyter.auth.system_keyring import KeyringUnusable, usable_keyring

    keyring = usable_keyring(environ)
    if isinstance(keyring, KeyringUnusable):
        if announce is not None:
            announce(f"The system's keyring cannot be used ({keyring.reason}): the sign-in is kept in {store.label}.")
        return store
    return KeyringTokenStore(_marker_file(settings, environ), keyring, entry=entry)


def stored_sign_ins(settings: ClientSettings, environ: Mapping[str, str] | None = None) -> list[SignInStore]:
    """Return every place that keeps a sign-in of the settings' profile, whatever provider it is for.

    The keyring is asked only when there is a sign-in in it, or when the settings want it.
    """
    folder = config_folder(environ)
    stem = settings.token_file_name.removesuffix(_FILE_SUFFIX)
    taken = _files_of_profiles(folder) - {settings.token_file_name}
    found = _names_in(folder)
    # A small file counts, too: upstream's logout leaves it behind.
    mains = found | {name.removesuffix(EXTRAS_SUFFIX) for name in found}
    names = sorted(mains - taken)
    files: list[SignInStore] = [TokenStore(folder / name) for name in names if _belongs(name, stem, _FILE_SUFFIX)]
    from micromegas_jupyter.auth.keyring_store import MARKER_SUFFIX, KeyringTokenStore
    from micromegas_jupyter.auth.system_keyring import usable_keyring

    markers = [folder / name for name in names if _belongs(name, stem, MARKER_SUFFIX)]
    if settings.storage is TokenStorage.KEYRING and (wanted := _marker_file(settings, environ)) not in markers:
        markers.append(wanted)  # a logout elsewhere may have left its entry behind
    if not markers:
        return files
    keyring = usable_keyring(environ)
    return files + [KeyringTokenStore(path, keyring) for path in markers]


def entry_of(settings: ClientSettings) -> SignInEntry | None:
    """Return what the settings ask for; None when they name no provider."""
    if settings.issuer is None or settings.client_id is None:
        return None
    return SignInEntry(
        issuer=settings.issuer,
        client_id=settings.client_id,
        audience=settings.audience,
        scope=settings.scope,
        resource=settings.resource,
    )


def _marker_file(settings: ClientSettings, environ: Mapping[str, str] | None) -> Path:
    from micromegas_jupyter.auth.keyring_store import MARKER_SUFFIX, KeyringTokenStore
    from micromegas_jupyter.auth.system_keyring import KeyringUnusable

    def stored_entry(path: Path) -> SignInEntry | None:
        return KeyringTokenStore(path, KeyringUnusable(reason="only the marker is read")).stored_entry()

    return _place(settings, environ, MARKER_SUFFIX, stored_entry)


def _place(
    settings: ClientSettings,
    environ: Mapping[str, str] | None,
    suffix: str,
    stored_entry: Callable[[Path], SignInEntry | None],
) -> Path:
    folder = config_folder(environ)
    stem = settings.token_file_name.removesuffix(_FILE_SUFFIX)
    own = folder / f"{stem}{suffix}"
    entry = entry_of(settings)
    if entry is None:
        return own
    beside = folder / f"{stem}.{entry.digest}{suffix}"
    try:
        stored = stored_entry(own)
    except TokenStoreError:
        stored = None  # its reader will say what is wrong with it
    if stored is not None:
        return own if stored.answers(entry) else beside
    return beside if os.path.lexists(beside) else own


def _belongs(name: str, stem: str, suffix: str) -> bool:
    return re.fullmatch(rf"{re.escape(stem)}(\.[0-9a-f]{{12}})?{re.escape(suffix)}", name) is not None


def _names_in(folder: Path) -> set[str]:
    try:
        return {path.name for path in folder.iterdir()}
    except OSError:
        return set()


def _files_of_profiles(folder: Path) -> set[str]:
    """Return the names of upstream's files of all profiles: one that looks like a file beside is none."""
    try:
        content, _ = read_shared_file(folder / CONFIG_FILE)
        config = decode_strict_json(content.decode("utf-8"))
    except (FileProblem, UnicodeDecodeError, JsonError):
        return set()
    profiles = config.get("profiles") if isinstance(config, dict) else None
    return {f"tokens-{name}.json" for name in profiles} if isinstance(profiles, dict) else set()
