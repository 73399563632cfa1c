"""Where the sign-ins of a profile are stored, and how all of them end."""

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from micromegas_jupyter.auth.tokens.store import EXTRAS_SUFFIX, FileTokenStore, LoginKey, TokenStore
from micromegas_jupyter.config.client import CONFIG_FILE, ClientSettings, TokenStorage
from micromegas_jupyter.core.files import FileProblem, read_shared_file
from micromegas_jupyter.core.http import ProviderCalls
from micromegas_jupyter.core.json import JsonError, decode_strict_json
from micromegas_jupyter.core.system import SYSTEM_BROWSER, SYSTEM_CLOCK, Browser, Clock
from micromegas_jupyter.errors import TokenStoreError
from micromegas_jupyter.wiring.environment import config_folder

if TYPE_CHECKING:
    from micromegas_jupyter.auth.logout import LogoutReport
    from micromegas_jupyter.auth.tokens.keyring import KeyringTokenStore


_FILE_SUFFIX = ".json"


def token_file(settings: ClientSettings, environ: Mapping[str, str] | None = None) -> Path:
    """Return the file that holds, or will hold, the sign-in of exactly these settings.

    It is upstream's file for the profile, unless that holds a sign-in of another provider, application, audience,
    scope or resource: then it is a file of its own beside that. A file whose scope is unknown, because upstream signed
    in, counts for any scope. A sign-in that has a file of its own stays there when the other one has ended.
    """
    return _own_path(settings, environ, _FILE_SUFFIX, lambda path: FileTokenStore(path).stored_key())


def token_store(settings: ClientSettings, environ: Mapping[str, str] | None = None) -> TokenStore:
    """Return the store of the sign-in of exactly these settings."""
    key = login_key(settings)
    if settings.storage is TokenStorage.FILE:
        return FileTokenStore(token_file(settings, environ), key=key)
    from micromegas_jupyter.auth.tokens.keyring import MARKER_SUFFIX

    path = _own_path(settings, environ, MARKER_SUFFIX, lambda path: _keyring_store(path, environ).stored_key())
    return _keyring_store(path, environ, key=key)


def stored_logins(settings: ClientSettings, environ: Mapping[str, str] | None = None) -> list[TokenStore]:
    """Return every store of the settings' profile that holds a sign-in, for whatever provider.

    The keyring is asked only when there is a sign-in in it, or when the settings choose it.
    """
    from micromegas_jupyter.auth.tokens.keyring import MARKER_SUFFIX

    folder = config_folder(environ)
    stem = settings.token_file_name.removesuffix(_FILE_SUFFIX)
    found = _names_in(folder)
    # An extras file counts, too: upstream's logout leaves it behind.
    found |= {name.removesuffix(EXTRAS_SUFFIX) for name in found}
    names = sorted(found - (_files_of_profiles(folder) - {settings.token_file_name}))
    files: list[TokenStore] = [FileTokenStore(folder / name) for name in names if _belongs(name, stem, _FILE_SUFFIX)]
    markers = [folder / name for name in names if _belongs(name, stem, MARKER_SUFFIX)]
    if settings.storage is TokenStorage.KEYRING:
        chosen = _own_path(settings, environ, MARKER_SUFFIX, lambda path: _keyring_store(path, environ).stored_key())
        if chosen not in markers:
            markers.append(chosen)  # a logout elsewhere may have left its entry behind
    return files + [_keyring_store(path, environ) for path in markers]


def login_key(settings: ClientSettings) -> LoginKey | None:
    """Return what the settings request; None when they name no provider."""
    if settings.issuer is None or settings.client_id is None:
        return None
    return LoginKey(
        issuer=settings.issuer,
        client_id=settings.client_id,
        audience=settings.audience,
        scope=settings.scope,
        resource=settings.resource,
    )


def logout(  # noqa: PLR0913 - its dependencies
    settings: ClientSettings,
    *,
    environ: Mapping[str, str] | None = None,
    end_session: bool = False,
    browser: Browser = SYSTEM_BROWSER,
    http: ProviderCalls | None = None,
    clock: Clock = SYSTEM_CLOCK,
) -> "LogoutReport":
    """End every sign-in of the settings' profile, here and at the providers.

    The application that the settings name authenticates as they say. Any other has no credentials here, so a provider
    that requires them does not revoke its tokens, and the report says so.

    Args:
        settings: Whose sign-ins.
        environ: Stands in for the process environment.
        end_session: Whether to end the person's session at the provider, too.
        browser: Shows the page that ends it.
        http: Calls the providers; by default as the settings say.
        clock: Tells the time.
    """
    from micromegas_jupyter.auth.logout import end_stored_logins
    from micromegas_jupyter.auth.provider_connection import ProviderConnection
    from micromegas_jupyter.wiring.credentials import client_proof
    from micromegas_jupyter.wiring.environment import provider_http

    calls = http

    def connect(issuer: str, client_id: str) -> ProviderConnection:
        nonlocal calls
        calls = provider_http(settings) if calls is None else calls
        is_configured = (issuer, client_id) == (settings.issuer, settings.client_id)
        proof = client_proof(settings) if is_configured else None
        return ProviderConnection(issuer, client_id, proof, http=calls, clock=clock)

    return end_stored_logins(
        stored_logins(settings, environ),
        connect,
        issuer=settings.issuer if settings.client_id is not None else None,
        client_id=settings.client_id,
        clock=clock,
        browser=browser if end_session else None,
    )


def _keyring_store(
    path: Path, environ: Mapping[str, str] | None, *, key: LoginKey | None = None
) -> "KeyringTokenStore":
    from micromegas_jupyter.auth.tokens.keyring import KeyringTokenStore, open_keyring

    return KeyringTokenStore(path, lambda: open_keyring(environ), key=key)


def _own_path(
    settings: ClientSettings,
    environ: Mapping[str, str] | None,
    suffix: str,
    stored_key: Callable[[Path], LoginKey | None],
) -> Path:
    folder = config_folder(environ)
    stem = settings.token_file_name.removesuffix(_FILE_SUFFIX)
    shared = folder / f"{stem}{suffix}"
    key = login_key(settings)
    if key is None:
        return shared
    beside = folder / f"{stem}.{key.digest}{suffix}"
    try:
        stored = stored_key(shared)
    except TokenStoreError:
        stored = None  # whoever reads it says what is wrong with it
    if stored is not None:
        return shared if stored.satisfies(key) else beside
    return beside if os.path.lexists(beside) else shared


def _belongs(name: str, stem: str, suffix: str) -> bool:
    return re.fullmatch(rf"{re.escape(stem)}(\.[0-9a-f]{{12}})?{re.escape(suffix)}", name) is not None


def _names_in(folder: Path) -> set[str]:
    try:
        return {path.name for path in folder.iterdir()}
    except OSError:
        return set()


def _files_of_profiles(folder: Path) -> set[str]:
    """Return the names of upstream's files of all profiles: one of them may look like a file beside another."""
    try:
        content, _ = read_shared_file(folder / CONFIG_FILE)
        config = decode_strict_json(content.decode("utf-8"))
    except (FileProblem, UnicodeDecodeError, JsonError):
        return set()
    profiles = config.get("profiles") if isinstance(config, dict) else None
    return {f"tokens-{name}.json" for name in profiles} if isinstance(profiles, dict) else set()
