"""Connects settings, stored sign-ins, and the client: the entry point for notebook, terminal, and Python callers.

Modules are imported on demand, because a terminal command with a fresh token needs few of them.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, cast

from micromegas_jupyter.config.client import (
    CONFIG_FILE,
    WRAPPER_VARIABLE,
    ClientSettings,
    Flow,
    TokenStorage,
    parse_client_settings,
    profile_names,
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
from micromegas_jupyter.core.system import (
    SYSTEM_BROWSER,
    SYSTEM_CLOCK,
    Browser,
    Clock,
    Variables,
    process_variables,
)
from micromegas_jupyter.core.text import JsonError, decode_strict_json
from micromegas_jupyter.errors import ConfigurationError, LoginRequired, TokenStoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from micromegas_jupyter.auth.flows.base import RuntimeInfo
    from micromegas_jupyter.auth.flows.hub import HubService, HubTokenProvider
    from micromegas_jupyter.auth.logout import LogoutReport
    from micromegas_jupyter.auth.provider import OidcAuthProvider
    from micromegas_jupyter.auth.tokens.keyring import KeyringTokenStore
    from micromegas_jupyter.auth.tokens.store import FileTokenStore, LoginKey, TokenStore
    from micromegas_jupyter.client.flight_client import FlightSQLClient
    from micromegas_jupyter.core.http import ProviderCalls
    from micromegas_jupyter.core.protocols import AuthProvider


CONFIG_DIR = "MICROMEGAS_CONFIG_DIR"
_MAX_CONFIG_BYTES = 256 * 1024
_OWNER_REMEDY = (
    "Check its content, then make yourself or root its owner (chown) and remove write access for others (chmod go-w). "
    "A program that runs as root, such as under sudo, trusts only files that root owns."
)
CHOICES_FILE = "choices.json"
MAX_PROFILES = 256
_MAX_CHOICES_BYTES = 64 * 1024
_FILE_SUFFIX = ".json"
_MARKER_SUFFIX = ".keyring.json"  # see `auth.tokens.keyring`


def is_wrapped(environ: Mapping[str, str] | None = None) -> bool:
    """Whether `MICROMEGAS_PYTHON_MODULE_WRAPPER` makes another module create the client, overriding other settings."""
    return bool((os.environ if environ is None else environ).get(WRAPPER_VARIABLE))


def without_wrapper(environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment without the wrapper module, for callers that specified a server or provider."""
    return Variables({name: value for name, value in process_variables(environ).items() if name != WRAPPER_VARIABLE})


def stored_provider(
    settings: ClientSettings, environ: Mapping[str, str] | None = None, *, facts: RuntimeInfo | None = None
) -> AuthProvider | None:
    """Return the provider for these settings that works without a user; raise `LoginRequired` if not signed in.

    In this order: an API key file; a service account file or a workload identity; JupyterHub, if it signs users in and
    no other flow was chosen; the stored sign-in of exactly these settings, unless they specify a service account; a
    service account with a secret or a private key. Returns None if a wrapper module creates the client, which handles
    sign-in, or if the settings specify no sign-in. `facts` describes the runtime environment, for the remedy.
    """
    if is_wrapped(environ):
        return None
    if settings.api_key_file is not None:
        from micromegas_jupyter.auth.static import StaticTokenAuthProvider

        return StaticTokenAuthProvider.from_file(Path(settings.api_key_file).expanduser())
    found: AuthProvider | None = None
    if settings.service_account_file is None and settings.workload is None:
        if settings.as_service_account:
            return service_account_provider(settings, environ)
        if uses_hub(settings, environ):
            return hub_provider(settings, environ, stored=lambda: _stored_sign_in(settings, environ))
        if not sign_in_configured(settings):
            return None
        found = _stored_sign_in(settings, environ)
    by_itself = (
        settings.service_account_file, settings.workload, settings.client_secret, settings.client_secret_file,
        settings.private_key,
    )  # fmt: skip
    if found is None and any(one is not None for one in by_itself):
        from micromegas_jupyter.wiring.service_accounts import service_provider

        found = service_provider(settings, environ)
    if found is None:
        raise _login_required(settings, process_variables(environ), facts)
    return found


def _login_required(settings: ClientSettings, environ: Mapping[str, str], facts: RuntimeInfo | None) -> LoginRequired:
    from micromegas_jupyter.auth.flows.base import detect_environment, gather_runtime_info, login_remedy

    environment = detect_environment(environ, gather_runtime_info(environ=environ) if facts is None else facts)
    return LoginRequired(
        f"You are not signed in to {settings.issuer}.", remedy=login_remedy(environment, profile=settings.profile)
    )


def service_account_provider(settings: ClientSettings, environ: Mapping[str, str] | None = None) -> AuthProvider:
    """Return a service account's provider, regardless of signed-in users."""
    from micromegas_jupyter.wiring.service_accounts import service_provider

    provider = None
    if sign_in_configured(settings):
        provider = service_provider(replace(settings, secret_is_native=False), environ)
    if provider is None:
        raise ConfigurationError(
            "A service account requires an issuer, a client ID, and a client secret.",
            key="MICROMEGAS_OIDC_CLIENT_SECRET",
        )
    return provider


def open_client(
    settings: ClientSettings,
    auth_provider: AuthProvider | None,
    *,
    environ: Mapping[str, str] | None = None,
    entrypoint: str | None = None,
) -> FlightSQLClient:
    """Return a client for the configured server, or a wrapper module's client; it connects on the first call.

    `entrypoint` identifies in the server's audit how the program was started.
    """
    wrapped = _wrapped_client(environ)
    return _build_client(settings, auth_provider, entrypoint=entrypoint) if wrapped is None else wrapped


def connect(  # noqa: PLR0913 - options that few give
    uri: str | None = None,
    *,
    profile: str | None = None,
    auth_provider: AuthProvider | None = None,
    preserve_dictionary: bool = False,
    read_only: bool = False,
    environ: Mapping[str, str] | None = None,
) -> FlightSQLClient:
    """Return a client; without arguments, it uses the environment and `~/.micromegas/config.json`.

    Args:
        uri: The server; overrides every setting.
        profile: A profile in `config.json`.
        auth_provider: Provides the bearer token for each call; overrides the configured sign-in.
        preserve_dictionary: Keep dictionary-encoded columns unchanged.
        read_only: Have the server reject changes, even if the setting `read_only` doesn't.
        environ: Replaces the process environment.

    Returns:
        The client; the wrapper module's client if `MICROMEGAS_PYTHON_MODULE_WRAPPER` is set and no argument specifies
        a server or provider.

    Raises:
        ConfigurationError: A setting is malformed.
        LoginRequired: A sign-in is configured, but no user is signed in.
    """
    if uri is None and profile is None and auth_provider is None and not read_only:
        wrapped = _wrapped_client(environ)
        if wrapped is not None:
            return wrapped
    environ = without_wrapper(environ)
    settings = load_client_settings(profile=profile, environ=environ)
    if uri is not None:
        settings = replace(settings, uri=uri, origins=(*settings.origins, ("uri", "argument")))
    if read_only:
        settings = replace(settings, read_only=True, origins=(*settings.origins, ("read_only", "argument")))
    provider = stored_provider(settings, environ) if auth_provider is None else auth_provider
    return _build_client(settings, provider, preserve_dictionary=preserve_dictionary)


def _build_client(
    settings: ClientSettings,
    auth_provider: AuthProvider | None,
    *,
    preserve_dictionary: bool = False,
    entrypoint: str | None = None,
) -> FlightSQLClient:
    from micromegas_jupyter.client.flight_client import FlightSQLClient

    if settings.client_key_file is not None:
        from micromegas_jupyter.core.files import read_secret_file

        setting = settings.origin_of("client_key_file") or "client_key_file"
        read_secret_file(settings.client_key_file, setting=setting)  # rejected if others can read it
    ca_bundle = None
    if settings.ca_bundle is not None:
        from micromegas_jupyter.auth.provider_connection import ca_bundle_file
        from micromegas_jupyter.core.http import read_certificates

        ca_bundle = ca_bundle_file(settings)
        if ca_bundle is not None:
            read_certificates(ca_bundle)  # rejected if it contains none
    certificate_file, key_file = settings.client_certificate_file, settings.client_key_file
    return FlightSQLClient(
        settings.uri,
        auth_provider=auth_provider,
        preserve_dictionary=preserve_dictionary,
        client_entrypoint=entrypoint,
        extra_ca_bundle=ca_bundle,
        read_only=settings.read_only,
        client_certificate_file=None if certificate_file is None else Path(certificate_file),
        client_key_file=None if key_file is None else Path(key_file),
    )


def _wrapped_client(environ: Mapping[str, str] | None) -> FlightSQLClient | None:
    if not is_wrapped(environ):
        return None
    from micromegas_jupyter.client.flight_client import wrapped_client

    # It has the interface of `FlightSQLClient`, as far as the other client supports it.
    return cast("FlightSQLClient | None", wrapped_client(environ))


def _stored_sign_in(settings: ClientSettings, environ: Mapping[str, str] | None) -> OidcAuthProvider | None:
    if settings.issuer is None or settings.client_id is None:
        return None
    store = token_store(settings, environ)
    if store.mark() is None:
        return None
    from micromegas_jupyter.auth.provider import open_stored_login
    from micromegas_jupyter.auth.provider_connection import configured_connection

    return open_stored_login(store, partial(configured_connection, settings), bearer=settings.bearer)


def config_folder(environ: Mapping[str, str] | None = None) -> Path:
    """Return the folder of `config.json` and the token files: `MICROMEGAS_CONFIG_DIR` or `~/.micromegas`."""
    chosen = (os.environ if environ is None else environ).get(CONFIG_DIR)
    return Path(chosen).expanduser() if chosen else Path.home() / ".micromegas"


def load_client_settings(
    *,
    profile: str | None = None,
    environ: Mapping[str, str] | None = None,
    options: Mapping[str, str] = MappingProxyType({}),
) -> ClientSettings:
    """Load the environment and `config.json`; `profile` overrides the configured one, `options` override variables."""
    environ = process_variables(environ)
    config_text = _read_config(config_folder(environ) / CONFIG_FILE)
    return parse_client_settings(environ, config_text=config_text, profile=profile, options=options)


def load_settings_of_all_profiles() -> list[ClientSettings]:
    """Load the settings of every profile in `config.json`, and those without a profile if usable."""
    names = profile_names(_read_config(config_folder() / CONFIG_FILE))
    try:
        chosen = load_client_settings()
    except ConfigurationError:
        if not names:
            raise
        chosen = None
    profiles = [load_client_settings(profile=name) for name in names]
    return [*profiles, chosen] if chosen is not None and chosen.profile is None else profiles


def sign_in_configured(settings: ClientSettings) -> bool:
    """Whether the settings specify a provider to sign in to."""
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
    """Return the issuer and the client ID from the settings."""
    if not sign_in_configured(settings) or settings.issuer is None or settings.client_id is None:
        raise ConfigurationError(
            "No identity provider is configured.",
            key="MICROMEGAS_OIDC_ISSUER",
            remedy="Set MICROMEGAS_OIDC_ISSUER and MICROMEGAS_OIDC_CLIENT_ID, or choose a profile that has them.",
        )
    return settings.issuer, settings.client_id


def _read_config(path: Path) -> str | None:
    """Return the file's text, or None.

    The file determines which server gets a user's token, so files that other users can change are rejected. A symbolic
    link is followed, and its target is checked.
    """
    try:
        content, found = read_shared_file(path, max_bytes=_MAX_CONFIG_BYTES)
        text = content.decode("utf-8")
    except NoSuchFile:
        return None
    except FileProblem as problem:
        if isinstance(problem.__cause__, NotADirectoryError):
            return None  # a home directory of /dev/null, as for programs without a user
        raise ConfigurationError(f"{path.name} {problem.args[0]}.", key=path.name) from problem.__cause__
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{path.name} cannot be read as UTF-8 text.", key=path.name) from error
    writer = find_foreign_writer(found)
    if writer is not None:
        raise ConfigurationError(f"{path.name} {writer}, so it is not used.", key=path.name, remedy=_OWNER_REMEDY)
    return text


def remembered_flow(settings: ClientSettings, environ: Mapping[str, str] | None = None) -> Flow | None:
    """Return the last chosen flow for the settings' profile; None if none was chosen or `auto` is set."""
    if settings.flow is None and settings.origin_of("flow") is not None:
        return None
    return _read_choices(config_folder(environ) / CHOICES_FILE).get(settings.profile or "")


def remember_flow(settings: ClientSettings, flow: Flow | None, environ: Mapping[str, str] | None = None) -> None:
    """Store the flow for the settings' profile; None deletes it."""
    path = config_folder(environ) / CHOICES_FILE
    profile = settings.profile or ""
    choices = _read_choices(path)
    if choices.get(profile) is flow:
        return
    choices.pop(profile, None)
    if flow is not None:
        choices[profile] = flow  # the newest comes last
    document = {
        "flow": choices.pop("", None),
        "profiles": {name: {"flow": chosen} for name, chosen in list(choices.items())[-MAX_PROFILES:]},
    }
    try:
        ensure_private_folder(path.parent)
        write_private_file(path, json.dumps(document, indent=2).encode())
    except FileProblem as problem:
        raise ConfigurationError(
            f"{path.name} {problem.args[0]}, so the choice is not remembered.",
            key=path.name,
            remedy=f"Look at {path.name} in the configuration folder and remove it.",
        ) from problem.__cause__


def _read_choices(path: Path) -> dict[str, Flow]:
    """Return the flows by profile; "" stands for a configuration without profiles. A corrupted file counts as empty."""
    try:
        content, _ = read_private_file(path, max_bytes=_MAX_CHOICES_BYTES)
        decoded: Any = decode_strict_json(content.decode("utf-8"))
        flows = {"": decoded.get("flow")} | {name: entry["flow"] for name, entry in decoded["profiles"].items()}
        return {name: Flow(flow) for name, flow in flows.items() if flow is not None}
    except (FileProblem, ValueError, JsonError, LookupError, AttributeError, TypeError):
        return {}


def token_file(settings: ClientSettings, environ: Mapping[str, str] | None = None) -> Path:
    """Return the file for the sign-in with exactly these settings, whether or not it exists.

    It is upstream's file for the profile, or a file next to it if upstream's has a sign-in for other settings.
    Upstream's sign-in counts for any scope, except for a scope that has its own file, which remains in use after the
    other sign-in expires.
    """
    return _own_path(settings, environ, _FILE_SUFFIX)


def token_store(settings: ClientSettings, environ: Mapping[str, str] | None = None) -> TokenStore:
    """Return the store for the sign-in with exactly these settings."""
    suffix = _FILE_SUFFIX if settings.storage is TokenStorage.FILE else _MARKER_SUFFIX
    return _store_at(_own_path(settings, environ, suffix), environ, key=login_key(settings))


def stored_logins(settings: ClientSettings, environ: Mapping[str, str] | None = None) -> list[TokenStore]:
    """Return all stores of the settings' profile that contain a sign-in with any provider.

    Reads the keyring only if it has a sign-in, or if the settings choose it.
    """
    from micromegas_jupyter.auth.tokens.store import OLD_EXTRAS_SUFFIX

    folder = config_folder(environ)
    stem = re.escape(settings.token_file_name.removesuffix(_FILE_SUFFIX))
    # This includes the previous version's extra file, because upstream's logout leaves it behind.
    names = {path.name.removesuffix(OLD_EXTRAS_SUFFIX) for path in folder.glob("*.json")}
    own = re.compile(rf"{stem}(\.[0-9a-f]{{12}})?({re.escape(_MARKER_SUFFIX)}|{re.escape(_FILE_SUFFIX)})")
    paths = {folder / name for name in names if own.fullmatch(name)}
    if settings.storage is TokenStorage.KEYRING:
        paths.add(_own_path(settings, environ, _MARKER_SUFFIX))  # a logout elsewhere may have left its entry
    return [_store_at(path, environ) for path in sorted(paths)]


def login_key(settings: ClientSettings) -> LoginKey | None:
    """Return the key of the sign-in that the settings request; None without a provider."""
    if settings.issuer is None or settings.client_id is None:
        return None
    from micromegas_jupyter.auth.tokens.store import LoginKey

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
) -> LogoutReport:
    """End all sign-ins of the settings' profile, both locally and with the providers.

    Only the configured application has credentials here; the report lists what a provider did not revoke. With
    `end_session`, the browser also opens the page that ends the user's session with the provider.
    """
    from micromegas_jupyter.auth.logout import end_stored_logins
    from micromegas_jupyter.auth.provider_connection import ProviderConnection, configured_credential, provider_http

    def connect(issuer: str, client_id: str) -> ProviderConnection:
        calls = provider_http(settings) if http is None else http
        is_configured = (issuer, client_id) == (settings.issuer, settings.client_id)
        credential = configured_credential(settings) if is_configured else None
        return ProviderConnection(issuer, client_id, credential, http=calls, clock=clock)

    return end_stored_logins(
        stored_logins(settings, environ),
        connect,
        issuer=settings.issuer if settings.client_id is not None else None,
        client_id=settings.client_id,
        clock=clock,
        browser=browser if end_session else None,
    )


def _store_at(
    path: Path, environ: Mapping[str, str] | None, *, key: LoginKey | None = None
) -> FileTokenStore | KeyringTokenStore:
    if not path.name.endswith(_MARKER_SUFFIX):
        from micromegas_jupyter.auth.tokens.store import FileTokenStore

        return FileTokenStore(path, key=key)
    from micromegas_jupyter.auth.tokens.keyring import KeyringTokenStore, open_keyring

    return KeyringTokenStore(path, lambda: open_keyring(environ), key=key)


def _own_path(settings: ClientSettings, environ: Mapping[str, str] | None, suffix: str) -> Path:
    folder = config_folder(environ)
    stem = settings.token_file_name.removesuffix(_FILE_SUFFIX)
    shared = folder / f"{stem}{suffix}"
    key = login_key(settings)
    if key is None:
        return shared
    beside = folder / f"{stem}.{key.digest}{suffix}"
    try:
        stored = _store_at(shared, environ).stored_key()
    except TokenStoreError:
        stored = None  # its reader reports the problem
    # Upstream drops scope and resource when it renews a sign-in, which then matches any request for its audience.
    is_known = stored is not None and (stored.scope is not None or stored.resource is not None)
    if stored is not None and (is_known or not os.path.lexists(beside)):
        return shared if stored.satisfies(key) else beside
    return beside if os.path.lexists(beside) else shared


def uses_hub(settings: ClientSettings, environ: Mapping[str, str] | None = None) -> bool:
    """Whether calls with these settings use the Hub's token of the user who owns this server.

    False if a user chose another flow, the settings specify a service account, or no setting specifies server or
    provider, so that no token is sent to an unknown program at the default address.
    """
    environ = process_variables(environ)
    if not environ.get("KERNEL_MICROMEGAS_HUB"):
        return False  # its modules aren't needed elsewhere
    from micromegas_jupyter.auth.flows.base import is_below_hub

    has_secret = settings.client_secret is not None or settings.client_secret_file is not None
    names_service_account = settings.private_key is not None or (has_secret and not settings.secret_is_native)
    if not is_below_hub(environ) or names_service_account:
        return False
    if settings.issuer is None and settings.origin_of("uri") is None:
        return False
    return (settings.flow or remembered_flow(settings, environ)) in {None, Flow.HUB}


def hub_service(settings: ClientSettings, environ: Mapping[str, str] | None = None) -> HubService:
    """Return the sign-in service of the Hub that started this Jupyter server."""
    from micromegas_jupyter.auth.flows.hub import HUB, HubService, find_hub
    from micromegas_jupyter.auth.provider_connection import ca_bundle_file
    from micromegas_jupyter.core.http import HubHttp

    try:
        endpoint = find_hub(process_variables(environ))
    except ConfigurationError as error:
        error.sign_in_service = HUB
        raise
    if endpoint is None:
        raise ConfigurationError(
            "This program's server was not started by a JupyterHub with a sign-in service.",
            key="KERNEL_MICROMEGAS_HUB",
            remedy="Choose another way to sign in.",
        )
    http = HubHttp(timeout_seconds=settings.provider_timeout_seconds, extra_ca_bundle=ca_bundle_file(settings))
    return HubService(endpoint, http=http)


def hub_provider(
    settings: ClientSettings,
    environ: Mapping[str, str] | None = None,
    *,
    stored: Callable[[], OidcAuthProvider | None] = lambda: None,
) -> HubTokenProvider:
    """Return the provider of the Hub's tokens without calling it; `stored` is used if the Hub rejects the request."""
    from micromegas_jupyter.auth.flows.hub import HubTokenProvider

    return HubTokenProvider(hub_service(settings, environ), issuer=settings.issuer, stored=stored)
