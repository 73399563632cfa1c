"""Local checks: settings and the files that they name, the stored sign-in, where the program runs."""

import platform
import stat
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import fields, is_dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from itertools import islice
from pathlib import Path, PurePath
from typing import NamedTuple

from micromegas_jupyter import __version__, wiring
from micromegas_jupyter.auth.static import OPEN_FILE_REMEDY, read_api_key_file
from micromegas_jupyter.auth.tokens.store import LoginKey, TokenStore
from micromegas_jupyter.client.flight_client import DEPRECATION_NOTICE
from micromegas_jupyter.config.client import WRAPPER_VARIABLE, ClientSettings, Flow, WorkloadExchange
from micromegas_jupyter.core.http import environment_ca_bundle
from micromegas_jupyter.core.system import Secret
from micromegas_jupyter.doctor.findings import Case, Finding, complaint, failed, ok, skipped
from micromegas_jupyter.errors import ConfigurationError, LoginRequired, TokenStoreError

NO_PROVIDER = (
    "no provider is configured: set MICROMEGAS_OIDC_ISSUER and MICROMEGAS_OIDC_CLIENT_ID, or name them in a profile"
)
# What is said in other places, or is no setting.
_NOT_LISTED = frozenset({"origins", "secret_is_native", "as_service_account"})


# The checks that cannot be made with settings that could be read, by what is wrong with them.
INCOMPLETE = frozenset({"sign-in", "store", "token"})  # one half of what belongs together
AUTHORITIES = frozenset({"issuer", "clock", "token", "server"})  # the file of authorities to trust
CREDENTIAL = frozenset({"api key file", "token"})  # the file with a secret, a private key or an API key


class Obstacle(NamedTuple):
    """The first thing that is wrong with the settings: the error that the checks it prevents would meet."""

    prevented: frozenset[str]
    error: ConfigurationError


def find_obstacle(case: Case) -> Obstacle | None:
    """Return what is wrong with the settings; None when nothing is."""
    checks: list[tuple[frozenset[str], Callable[[], object]]] = [
        (AUTHORITIES, lambda: _check_authorities(case.settings)),
        (CREDENTIAL, lambda: _check_credential(case)),
    ]
    if not case.has_own_credential:
        checks.insert(0, (INCOMPLETE, lambda: wiring.sign_in_configured(case.settings)))
    for prevented, check in checks:
        try:
            check()
        except ConfigurationError as error:
            return Obstacle(prevented, error)
    return None


def check_settings(case: Case, obstacle: Obstacle | None = None) -> Finding:
    """List each setting that is not a default, and where it came from; a secret is only said to be set."""
    settings = case.settings
    origins = dict(settings.origins)
    names = [entry.name for entry in fields(settings) if entry.name in origins and entry.name not in _NOT_LISTED]
    values = {name: _shown(getattr(settings, name)) for name in names}
    profile = f"profile {settings.profile}" if settings.profile else "no profile"
    preset = f", preset {settings.preset}" if settings.preset else ""
    finding = ok(
        "settings",
        f"{profile}{preset}, {len(names)} set",
        details=[*(f"{name} = {values[name]}  ({origins[name]})" for name in names), *_lacking(case)],
        facts={"profile": settings.profile, "values": values, "origins": {name: origins[name] for name in names}},
    )
    if obstacle is None:
        return finding
    return replace(failed("settings", obstacle.error), details=finding.details, facts=finding.facts)


def _lacking(case: Case) -> list[str]:
    if wiring.is_wrapped(case.environ):
        return []
    lines = [NO_PROVIDER] if case.has_no_sign_in else []
    if case.has_default_server:
        lines.append(f"no server is configured: the default is used, {case.settings.uri}")
    return lines


def _check_authorities(settings: ClientSettings) -> None:
    if settings.ca_bundle is not None:
        name = settings.origin_of("ca_bundle") or "MICROMEGAS_CA_BUNDLE"
        try:
            wiring.provider_http(settings)
        except ConfigurationError as error:
            raise _naming(error, name) from None
    if settings.issuer is not None:
        environment_ca_bundle()


def _check_credential(case: Case) -> None:
    settings = case.settings
    if settings.api_key_file is not None:
        try:
            read_api_key_file(settings.api_key_file)
        except ConfigurationError as error:
            raise _naming(error, settings.origin_of("api_key_file") or "api_key_file") from None
    elif settings.service_account_file is not None:
        wiring.service_provider(settings, case.environ)
    elif settings.workload is None or settings.workload.exchange is WorkloadExchange.TOKEN_EXCHANGE:
        wiring.client_proof(settings)


def _naming(error: ConfigurationError, setting: str) -> ConfigurationError:
    """Return the error with the setting in its sentence."""
    what = error.what if setting in error.what else f"{error.what.removesuffix('.')} ({setting})."
    return ConfigurationError(what, key=setting, remedy=error.remedy)


def _shown(value: object) -> str:
    if isinstance(value, Secret):
        return "set, not shown"
    if isinstance(value, tuple):
        return ", ".join(f"{name}={text}" for name, text in value)
    if is_dataclass(value):
        named = [(entry.name, getattr(value, entry.name)) for entry in fields(value)]
        return ", ".join(f"{name} {text}" for name, text in named if text is not None)
    return str(value)


_MAX_FILES = 1000
_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def check_store(case: Case) -> Finding:
    """Look where a person's sign-in is kept, whether it can be read, and who else may read it."""
    program = case.program_credential
    if program is not None:
        return skipped("store", f"not needed: {program}")
    if not case.names_a_provider:
        return skipped("store", "nothing is kept: no person signs in with these settings")
    modes = _modes(case)  # before anything that would mend them
    mode = modes.get(wiring.token_file(case.settings, case.environ))
    store = wiring.token_store(case.settings, case.environ)
    store.check_usable()
    mark = store.mark()
    is_stored = mark is not None
    others = [other for other in wiring.stored_logins(case.settings, case.environ) if other.mark() not in {None, mark}]
    facts: dict[str, object] = {
        "label": store.label,
        "holds_a_sign_in": is_stored,
        "mode": None if mode is None else f"{mode:04o}",
        "others": [other.label for other in others],
    }
    if mode is not None and mode & _OTHERS:
        return complaint(
            "store",
            f"{store.label} could be read by others (mode {mode:04o}).",
            remedy="It is yours alone from now on. Sign out and in again: somebody may have read it.",
            facts=facts,
        )
    damage = _damage(store, case.settings) if is_stored else None
    if damage is not None:
        return failed("store", damage)
    text = f"{store.label}{' holds a sign-in' if is_stored else f', nothing kept yet{_for_these(others)}'}"
    details = [_line_of_other(other, case.settings, is_stored=is_stored) for other in others]
    return ok("store", text + ("" if mode is None else f" (mode {mode:04o})"), details=details, facts=facts)


def _damage(store: TokenStore, settings: ClientSettings) -> LoginRequired | None:
    """Return what is wrong with the sign-in that is kept, None when it can be read."""
    try:
        store.load()
    except LoginRequired:
        profile = f" --profile {settings.profile}" if settings.profile else ""
        return LoginRequired(
            f"The sign-in in {store.label} is damaged.",
            remedy=f"Sign in again, which replaces it, or remove it with `micromegas logout{profile}`.",
        )
    return None


def _for_these(others: list[TokenStore]) -> str:
    return " for these settings" if others else ""


def _line_of_other(other: TokenStore, settings: ClientSettings, *, is_stored: bool) -> str:
    try:
        difference = _difference(other.load()[0].key, settings)
    except (LoginRequired, TokenStoreError):
        return f"another sign-in of this profile, which cannot be read: {other.label}"
    if is_stored:
        return f"another sign-in of this profile{difference}: {other.label}"
    return f"a sign-in with other settings{difference} is kept in {other.label}"


def _difference(key: LoginKey, settings: ClientSettings) -> str:
    """Return in brackets how a stored sign-in differs from these settings; empty when it does not."""
    pairs = (
        ("issuer", key.issuer, settings.issuer),
        ("client id", key.client_id, settings.client_id),
        ("audience", key.audience, settings.audience),
        ("resource", key.resource, settings.resource),
    )
    parts = [
        f"{name} {stored or 'none'}" for name, stored, configured in pairs if (stored or None) != (configured or None)
    ]
    if key.scope is not None and set(key.scope.split()) != set(settings.scope.split()):
        parts.append(f"scope {key.scope}")
    return f" ({', '.join(parts)})" if parts else ""


def _modes(case: Case) -> dict[Path, int]:
    folder = wiring.config_folder(case.environ)
    pattern = f"{Path(case.settings.token_file_name).stem}*.json"
    with suppress(OSError):
        listed = list(islice(folder.glob(pattern), _MAX_FILES))
        return {path: stat.S_IMODE(path.lstat().st_mode) for path in listed}
    return {}


_LIBRARIES = ("pyarrow", "authlib", "joserfc", "ipywidgets", "anywidget", "keyring")


def check_program() -> Finding:
    """Say which versions run."""
    versions = {name: _version(name) for name in _LIBRARIES}
    listed = ", ".join(f"{name} {number}" for name, number in versions.items() if number is not None)
    return ok(
        "program",
        f"micromegas_jupyter {__version__} on Python {platform.python_version()} ({platform.system()})",
        details=[listed],
        facts={"version": __version__, "python": platform.python_version(), "libraries": versions},
    )


def check_wrapper(environ: Mapping[str, str]) -> Finding | None:
    """Complain about a wrapper module, which hides everything else from view; None when there is none."""
    if not environ.get(WRAPPER_VARIABLE):
        return None
    return complaint("wrapper", f"{WRAPPER_VARIABLE} is set.", remedy=DEPRECATION_NOTICE)


def check_flow(case: Case, *, offers_device: bool | None = None) -> Finding:
    """Say where the program runs and how a person would sign in there, without asking the provider.

    `offers_device` says whether the provider has a sign-in with a code; None when that is not known.
    """
    program = case.program_credential
    if program is not None:
        return skipped("sign-in", f"not needed: {program}")
    choice = wiring.choose_flow(
        case.settings,
        facts=case.facts,
        environ=case.environ,
        can_device=True if offers_device is None else offers_device,
    )
    facts = {
        "environment": choice.environment.value,
        "flow": None if choice.flow is None else choice.flow.value,
        "fallbacks": [flow.value for flow in choice.fallbacks],
        "origin": choice.origin,
    }
    details = [f"not {entry.flow.value}: {entry.reason}" for entry in choice.skipped]
    if offers_device is None and choice.flow is Flow.DEVICE and case.settings.issuer is not None:
        details.append("whether the provider offers that is not known: see issuer")
    if choice.fallbacks:
        details.append("otherwise " + ", then ".join(flow.value for flow in choice.fallbacks))
    if choice.flow is None:
        nobody = choice.environment.is_unattended
        if nobody or not case.names_a_provider:
            # Whether a person is needed at all is seen when the token is asked for.
            what = "nobody can sign in here" if nobody else "nobody has to sign in"
            return ok("sign-in", f"{choice.environment.value}: {what}", facts=facts)
        return complaint("sign-in", f"{choice.environment.value}: {choice.reason}", remedy=choice.remedy, facts=facts)
    return ok(
        "sign-in",
        f"{choice.environment.value}: {choice.flow.value}. {choice.reason}",
        details=details,
        facts=facts,
    )


def check_api_key_file(path: PurePath) -> Finding:
    """Look at the file with the API key, and who may read it."""
    file = read_api_key_file(path)
    if file.is_readable_by_others:
        return complaint("api key file", f"Others can read {file.name}.", remedy=OPEN_FILE_REMEDY)
    return ok("api key file", f"{file.name} is there, and nobody else can read it")


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
