"""Runs all checks: first the local ones, then the provider, its clock, the token, and the server."""

import enum
import json
import os
import platform
import stat
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields, is_dataclass, replace
from datetime import timedelta
from importlib.metadata import PackageNotFoundError, version
from itertools import islice
from pathlib import Path, PurePath

import msgspec

from micromegas_jupyter import __version__
from micromegas_jupyter.auth.flows.base import RuntimeInfo, gather_runtime_info
from micromegas_jupyter.auth.flows.hub import HubTokenProvider
from micromegas_jupyter.auth.provider import OidcAuthProvider
from micromegas_jupyter.auth.provider_connection import (
    MAX_OFFSET_SECONDS,
    ProviderConnection,
    configured_credential,
    provider_http,
)
from micromegas_jupyter.auth.static import OPEN_FILE_REMEDY, StaticTokenAuthProvider, read_api_key_file
from micromegas_jupyter.client.flight_client import DEPRECATION_NOTICE
from micromegas_jupyter.client.token_claims import claimed_end, read_claims
from micromegas_jupyter.config.client import WRAPPER_VARIABLE, ClientSettings, Flow, WorkloadExchange
from micromegas_jupyter.core.http import environment_ca_bundle
from micromegas_jupyter.core.protocols import AuthProvider
from micromegas_jupyter.core.system import SYSTEM_CLOCK, Clock, Secret, duration_text, process_variables
from micromegas_jupyter.errors import (
    ConfigurationError,
    InternalError,
    LoginRequired,
    MicromegasError,
    ProviderMisbehaved,
    ProviderUnavailable,
    Rejected,
    ServerUnavailable,
    UnsupportedRequest,
)
from micromegas_jupyter.flightsql.commands import printable_text
from micromegas_jupyter.wiring import client_side
from micromegas_jupyter.wiring import sign_in as signing_in
from micromegas_jupyter.wiring.service_accounts import service_provider

FAILED_EXIT_CODE = 1


class Outcome(enum.StrEnum):
    """The outcome of a check."""

    OK = "ok"
    FAILED = "failed"
    SKIPPED = "skipped"  # it does not apply, or a prerequisite has failed


_SIGNS = {Outcome.OK: "✓", Outcome.FAILED: "✗", Outcome.SKIPPED: "-"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """The result of a check, with a remedy if it failed, and as `facts` for programs; never contains a secret."""

    check: str
    outcome: Outcome
    found: str
    remedy: str = ""
    code: str | None = None
    exit_code: int = 0
    details: tuple[str, ...] = ()
    facts: Mapping[str, object] = field(default_factory=dict)


def ok(check: str, text: str, *, details: Sequence[str] = (), facts: Mapping[str, object] | None = None) -> Finding:
    """Return the finding for a check that passed."""
    return Finding(check=check, outcome=Outcome.OK, found=text, details=tuple(details), facts=facts or {})


def skipped(check: str, why: str) -> Finding:
    """Return the finding for a skipped check."""
    return Finding(check=check, outcome=Outcome.SKIPPED, found=why)


def failed(check: str, error: MicromegasError) -> Finding:
    """Return the finding for a check that raised an error."""
    return Finding(
        check=check,
        outcome=Outcome.FAILED,
        found=error.what,
        remedy=error.remedy,
        code=error.code,
        exit_code=error.exit_code,
    )


def complaint(check: str, text: str, *, remedy: str, facts: Mapping[str, object] | None = None) -> Finding:
    """Return the finding for a check that failed without raising an error."""
    return Finding(
        check=check, outcome=Outcome.FAILED, found=text, remedy=remedy, exit_code=FAILED_EXIT_CODE, facts=facts or {}
    )


def guarded(check: str, run: Callable[[], Finding]) -> Finding:
    """Run a check; an error becomes its finding and does not stop the other checks."""
    try:
        return run()
    except MicromegasError as error:
        return failed(check, error)
    except Exception as error:  # noqa: BLE001 - the doctor must not fail because of what it examines
        return failed(
            check, InternalError(f"The check failed because of a bug in this program ({type(error).__name__}).")
        )


def exit_code_of(findings: Iterable[Finding]) -> int:
    """Return 0 if all checks passed, or the exit code of the first failed check."""
    return next((finding.exit_code or FAILED_EXIT_CODE for finding in findings if _has_failed(finding)), 0)


def findings_as_lines(findings: Iterable[Finding]) -> list[str]:
    """Return one line per check with its details below it, and a remedy under each failure."""
    lines = []
    for finding in findings:
        code = f" · {finding.code}" if finding.code else ""
        lines.append(f"{_SIGNS[finding.outcome]} {finding.check}: {finding.found}{code}")
        lines.extend(f"    {detail}" for detail in finding.details)
        if finding.remedy:
            lines.append(f"    → {finding.remedy}")
    return [printable_text(line.replace("\n", " ")) for line in lines]


def findings_as_json(findings: Sequence[Finding]) -> str:
    """Return one JSON object with the overall result and each check's findings."""
    checks = [msgspec.to_builtins(finding) for finding in findings]
    for check in checks:
        del check["exit_code"]
    return json.dumps({"ok": not any(map(_has_failed, findings)), "checks": checks}, indent=2, ensure_ascii=False)


def _has_failed(finding: Finding) -> bool:
    return finding.outcome is Outcome.FAILED


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One set of settings in one environment; `facts` describes where the program runs."""

    settings: ClientSettings
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ, repr=False)
    facts: RuntimeInfo = field(default_factory=gather_runtime_info)
    clock: Clock = SYSTEM_CLOCK

    @property
    def names_a_provider(self) -> bool:
        """Whether the settings specify both a provider and an application."""
        return self.settings.issuer is not None and self.settings.client_id is not None

    @property
    def has_no_sign_in(self) -> bool:
        """Whether no credential is configured."""
        return self.settings.issuer is None and self.settings.client_id is None and not self.has_own_credential

    @property
    def has_own_credential(self) -> bool:
        """Whether a credential is set that takes precedence over a user's sign-in."""
        settings = self.settings
        return bool(settings.api_key_file or settings.service_account_file or settings.workload)

    @property
    def program_credential(self) -> str | None:
        """A short description of the credential that replaces a user's sign-in, or None if a user signs in."""
        settings = self.settings
        if settings.api_key_file is not None:
            return "an API key is used"
        if settings.service_account_file is not None:
            return "a service account is used"
        if settings.workload is not None:
            return "a workload identity is used"
        has_key = settings.private_key is not None
        has_secret = settings.client_secret is not None or settings.client_secret_file is not None
        if not self.names_a_provider or not (has_key or (has_secret and not settings.secret_is_native)):
            return None
        is_stored = client_side.token_store(settings, self.environ).mark() is not None
        return None if is_stored else "a service account is used"


NO_PROVIDER = (
    "no provider is configured: set MICROMEGAS_OIDC_ISSUER and MICROMEGAS_OIDC_CLIENT_ID, or name them in a profile"
)
# Settings that are shown elsewhere, and fields that aren't settings.
_NOT_LISTED = frozenset({"origins", "secret_is_native", "as_service_account"})


def find_obstacle(case: Case) -> tuple[set[str], ConfigurationError | None]:
    """Return the checks that a problem with the settings would cause to fail, and the problem, if any."""
    checks: list[tuple[set[str], Callable[[], object]]] = [
        ({"issuer", "clock", "token", "server"}, lambda: _check_authorities(case.settings)),
        ({"api key file", "token"}, lambda: _check_credential(case)),
    ]
    if not case.has_own_credential:
        checks.insert(0, ({"sign-in", "store", "token"}, lambda: client_side.sign_in_configured(case.settings)))
    for prevented, check in checks:
        try:
            check()
        except ConfigurationError as error:
            return prevented, error
    return set(), None


def check_settings(case: Case, error: ConfigurationError | None = None) -> Finding:
    """List each nondefault setting and its source; for a secret, only that it is set."""
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
    if error is None:
        return finding
    return replace(failed("settings", error), details=finding.details, facts=finding.facts)


def _lacking(case: Case) -> list[str]:
    if client_side.is_wrapped(case.environ):
        return []
    lines = [NO_PROVIDER] if case.has_no_sign_in else []
    if case.settings.origin_of("uri") is None:
        lines.append(f"no server is configured: the default is used, {case.settings.uri}")
    return lines


def _check_authorities(settings: ClientSettings) -> None:
    if settings.ca_bundle is not None:
        name = settings.origin_of("ca_bundle") or "MICROMEGAS_CA_BUNDLE"
        try:
            provider_http(settings)
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
        service_provider(settings, case.environ)
    elif settings.workload is None or settings.workload.exchange is WorkloadExchange.TOKEN_EXCHANGE:
        configured_credential(settings)


def _naming(error: ConfigurationError, setting: str) -> ConfigurationError:
    """Return the error with the setting's name in its message."""
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
    """Check where a user's sign-in is stored, whether it is readable, and who else can read it."""
    program = case.program_credential
    if program is not None:
        return skipped("store", f"not needed: {program}")
    if not case.names_a_provider:
        return skipped("store", "nothing is kept: no person signs in with these settings")
    modes = _modes(case)  # before anything repairs them
    mode = modes.get(client_side.token_file(case.settings, case.environ))
    store = client_side.token_store(case.settings, case.environ)
    store.check_usable()
    mark = store.mark()
    is_stored = mark is not None
    others = [
        other for other in client_side.stored_logins(case.settings, case.environ) if other.mark() not in {None, mark}
    ]
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
            remedy="Only you can read it now. Sign out and back in, because another user may have read it.",
            facts=facts,
        )
    try:
        if is_stored:
            store.load()
    except LoginRequired:
        profile = f" --profile {case.settings.profile}" if case.settings.profile else ""
        damage = LoginRequired(
            f"The sign-in in {store.label} is corrupted.",
            remedy=f"Sign in again to replace it, or remove it with `micromegas logout{profile}`.",
        )
        return failed("store", damage)
    for_these = " for these settings" if others else ""
    text = f"{store.label}{' holds a sign-in' if is_stored else f', nothing kept yet{for_these}'}"
    details = [f"another sign-in of this profile is kept in {other.label}" for other in others]
    return ok("store", text + ("" if mode is None else f" (mode {mode:04o})"), details=details, facts=facts)


def _modes(case: Case) -> dict[Path, int]:
    folder = client_side.config_folder(case.environ)
    pattern = f"{Path(case.settings.token_file_name).stem}*.json"
    with suppress(OSError):
        listed = list(islice(folder.glob(pattern), _MAX_FILES))
        return {path: stat.S_IMODE(path.lstat().st_mode) for path in listed}
    return {}


_LIBRARIES = ("pyarrow", "authlib", "joserfc", "ipywidgets", "anywidget", "keyring")


def check_program() -> Finding:
    """Report the versions in use."""
    versions = {name: _version(name) for name in _LIBRARIES}
    listed = ", ".join(f"{name} {number}" for name, number in versions.items() if number is not None)
    return ok(
        "program",
        f"micromegas_jupyter {__version__} on Python {platform.python_version()} ({platform.system()})",
        details=[listed],
        facts={"version": __version__, "python": platform.python_version(), "libraries": versions},
    )


def check_wrapper(environ: Mapping[str, str]) -> Finding | None:
    """Return the finding for a wrapper module, which makes all other checks irrelevant, or None."""
    if not environ.get(WRAPPER_VARIABLE):
        return None
    return complaint("wrapper", f"{WRAPPER_VARIABLE} is set.", remedy=DEPRECATION_NOTICE)


def check_flow(case: Case, *, offers_device: bool | None = None) -> Finding:
    """Report how a user would sign in here; `offers_device` is None if device code support is unknown."""
    program = case.program_credential
    if program is not None:
        return skipped("sign-in", f"not needed: {program}")
    choice = signing_in.choose_flow(
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
            # The token request shows whether a user is required.
            what = "nobody can sign in here" if nobody else "nobody has to sign in"
            return ok("sign-in", f"{choice.environment.value}: {what}", facts=facts)
        return complaint("sign-in", f"{choice.environment.value}: {choice.reason}", remedy=choice.remedy, facts=facts)
    return ok(
        "sign-in", f"{choice.environment.value}: {choice.flow.value}. {choice.reason}", details=details, facts=facts
    )


def check_api_key_file(path: PurePath) -> Finding:
    """Check the API key file, and who can read it."""
    file = read_api_key_file(path)
    if file.is_readable_by_others:
        return complaint("api key file", f"Others can read {file.name}.", remedy=OPEN_FILE_REMEDY)
    return ok("api key file", f"{file.name} is there, and nobody else can read it")


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


# With a larger offset, a server with the usual one-minute leeway starts to reject tokens as not yet valid or expired.
TOLERATED_OFFSET_SECONDS = 30.0

_MAX_SHOWN_CHARACTERS = 100
_SHOWN_CLAIMS = ("iss", "aud", "sub", "email", "azp", "client_id", "scope", "scp")
_GROUP_CLAIMS = ("groups", "roles", "cognito:groups")
_CLOCK_REMEDY = "Synchronize the clock (NTP). Sign-in tolerates the offset, but other programs and servers may not."
_LARGE_CLOCK_REMEDY = (
    "Synchronize the clock (NTP), then sign in again. Sign-in tolerates an offset of at most one day, so "
    "tokens are rejected."
)
_NO_ROLE_REMEDY = "Ask the server's administrator for a role."
_NOTHING_SET_REMEDY = (
    "Nothing is configured, so the default server was used. Start one there, or set MICROMEGAS_ANALYTICS_URI to "
    "yours and, if it requires sign-in, MICROMEGAS_OIDC_ISSUER and MICROMEGAS_OIDC_CLIENT_ID; a profile in config.json "
    "can contain all of these settings."
)


def check_issuer(connection: ProviderConnection, clock: Clock) -> Finding:
    """Fetch the provider's metadata and keys, and report the supported sign-in flows."""
    started = clock.monotonic()
    metadata = connection.metadata()
    key_count = len(connection.keys().keys)
    milliseconds = (clock.monotonic() - started) * 1000
    offers = {
        "browser sign-in": metadata.authorization_endpoint is not None,
        "device codes": metadata.device_authorization_endpoint is not None,
        "revocation": metadata.revocation_endpoint is not None,
        "end of session": metadata.end_session_endpoint is not None,
    }
    lacking = ", ".join(name for name, is_offered in offers.items() if not is_offered)
    offered = ", ".join(name for name, is_offered in offers.items() if is_offered)
    details = [f"offers {offered}"] if offered else []
    if lacking:
        details.append(f"does not offer {lacking}")
    return ok(
        "issuer",
        f"{metadata.issuer} answers, {key_count} {'key' if key_count == 1 else 'keys'}, {milliseconds:.0f} ms",
        details=details,
        facts={"issuer": metadata.issuer, "offers": offers, "keys": key_count, "milliseconds": round(milliseconds)},
    )


def check_clock(connection: ProviderConnection) -> Finding:
    """Compare the local clock with the provider's, if known."""
    offset = connection.measured_clock_offset_seconds
    if offset is None:
        return skipped("clock", "not measured: the provider's answers do not say what time it is")
    facts = {"offset_seconds": round(offset, 1)}
    if abs(offset) <= TOLERATED_OFFSET_SECONDS:
        text = f"is {_behind(offset)} the provider's; it is allowed for" if offset else "agrees with the provider's"
        return ok("clock", f"this machine's clock {text}", facts=facts)
    return complaint(
        "clock",
        f"this machine's clock is {_behind(offset)} the provider's",
        remedy=_CLOCK_REMEDY if abs(offset) <= MAX_OFFSET_SECONDS else _LARGE_CLOCK_REMEDY,
        facts=facts,
    )


def check_token(provider: AuthProvider | None, clock: Clock) -> Finding:
    """Get the token that a call would send, and report its claims."""
    if provider is None:
        return ok("token", "none is needed: no sign-in is configured", facts={"kind": "none"})
    token = provider.get_token()
    claims = read_claims(token)
    if isinstance(provider, StaticTokenAuthProvider):
        kind = "an API key" if claims is None else "a token"
        return ok("token", f"{kind} from a file", facts=_facts(claims))
    who = "of a service account"
    renews = True
    now = clock.now()
    if isinstance(provider, OidcAuthProvider):
        now += timedelta(seconds=provider.clock_offset_seconds)
        who, renews = _owner(provider)
    elif isinstance(provider, HubTokenProvider):
        who, renews = _owner(provider)
        who = f"{who}, through {provider.through}" if provider.through else who
    # The service reports the token's remaining lifetime, because the local clock may be wrong.
    ends_at = provider.identity().expires_at if isinstance(provider, HubTokenProvider) else claimed_end(claims)
    left = "" if ends_at is None else f", valid for {duration_text(ends_at - now)}"
    details = _claim_lines(claims or {})
    if claims is None:
        details.append("it is opaque: nothing can be read from it here")
    if not renews:
        details.append("it does not renew by itself")
    return ok("token", f"{who}{left}", details=details, facts={**_facts(claims), "renews": renews})


def _owner(provider: OidcAuthProvider | HubTokenProvider) -> tuple[str, bool]:
    try:
        identity = provider.identity()
    except LoginRequired:  # the token exists, so a user is signed in
        return "of somebody whom it does not name", provider.renewal_due_at() is not None
    return f"of {identity.name or identity.email or identity.subject}", identity.renews


def check_server(case: Case, provider: AuthProvider | None, *, token_failed: bool) -> Finding:
    """Request the caller's identity from the server; without a token, only check that it responds."""
    with client_side.open_client(case.settings, provider, environ=case.environ) as client:
        started = case.clock.monotonic()
        try:
            identity = client.whoami()
        except ServerUnavailable as error:
            finding = failed("server", error)
            is_bare = case.settings.origin_of("uri") is None and case.has_no_sign_in
            return replace(finding, remedy=_NOTHING_SET_REMEDY) if is_bare else finding
        except UnsupportedRequest:
            return ok("server", f"{case.settings.uri} answers, but cannot say who you are")
        except Rejected:
            if provider is not None:
                raise
            text = "answers. Sign in to see who it says you are."
            if token_failed:
                return ok("server", f"{case.settings.uri} {text}")
            return complaint(
                "server",
                f"{case.settings.uri} wants a token, and no sign-in is configured.",
                remedy="Set MICROMEGAS_OIDC_ISSUER and MICROMEGAS_OIDC_CLIENT_ID, or api_key_file in a profile.",
            )
        milliseconds = (case.clock.monotonic() - started) * 1000
    who = identity.email or identity.subject
    text = f"{case.settings.uri} knows you as {who}{' (admin)' if identity.is_admin else ''}, {milliseconds:.0f} ms"
    if identity.reads_nothing:
        return complaint("server", f"{text}. You have no role there, so you can read no table.", remedy=_NO_ROLE_REMEDY)
    return ok(
        "server",
        text,
        facts={
            "subject": identity.subject,
            "email": identity.email,
            "issuer": identity.issuer,
            "is_admin": identity.is_admin,
            "milliseconds": round(milliseconds),
        },
    )


def _behind(offset_seconds: float) -> str:
    return f"{duration_text(timedelta(seconds=abs(offset_seconds)))} {'behind' if offset_seconds > 0 else 'ahead of'}"


def _claim_lines(claims: Mapping[str, object]) -> list[str]:
    lines = [f"{name} = {_short(claims[name])}" for name in _SHOWN_CLAIMS if name in claims]
    groups = {name: claims[name] for name in _GROUP_CLAIMS if name in claims}
    return lines + [f"{name}: {len(listed)} of them" for name, listed in groups.items() if isinstance(listed, list)]


def _facts(claims: Mapping[str, object] | None) -> dict[str, object]:
    if claims is None:
        return {"kind": "opaque"}
    return {"kind": "jwt", **{name: claims[name] for name in (*_SHOWN_CLAIMS, "exp") if name in claims}}


def _short(value: object) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return text if len(text) <= _MAX_SHOWN_CHARACTERS else f"{text[:_MAX_SHOWN_CHARACTERS]}…"


_SEE_SETTINGS = "see settings"
_NOT_CHECKED = "the provider cannot be asked"
_WHY_NO_CLOCK = {
    ProviderUnavailable.code: "the provider does not answer properly",
    ProviderMisbehaved.code: "the provider's description is not acceptable",
}
_AFTER_SETTINGS = ("sign-in", "store", "issuer", "clock", "token", "server")


def examine(
    *,
    profile: str | None = None,
    load_settings: Callable[[], ClientSettings] | None = None,
    environ: Mapping[str, str] | None = None,
    facts: RuntimeInfo | None = None,
    clock: Clock = SYSTEM_CLOCK,
) -> list[Finding]:
    """Run all checks in dependency order; the arguments override the detected environment."""
    environ = process_variables(environ)
    wrapper = check_wrapper(environ)
    findings = [check_program(), *([wrapper] if wrapper else [])]
    try:
        settings = (
            client_side.load_client_settings(profile=profile, environ=environ)
            if load_settings is None
            else load_settings()
        )
    except MicromegasError as error:
        why = "the settings cannot be read"
        return [*findings, failed("settings", error), *(skipped(check, why) for check in _AFTER_SETTINGS)]
    case = Case(
        settings=settings,
        environ=environ,
        facts=gather_runtime_info(environ=environ) if facts is None else facts,
        clock=clock,
    )
    if client_side.is_wrapped(environ):
        why = "the wrapper's client is used"
        return [*findings, check_settings(case), *(skipped(check, why) for check in _AFTER_SETTINGS)]
    prevented, error_of_settings = find_obstacle(case)
    # Runs before the sign-in check, which depends on what the provider supports.
    of_provider, offers_device = _check_provider_calls(case, prevented)
    findings += [
        check_settings(case, error_of_settings),
        _look("sign-in", lambda: check_flow(case, offers_device=offers_device), prevented),
        _look("store", lambda: check_store(case), prevented),
    ]
    key_file = case.settings.api_key_file
    if key_file is not None:
        findings.append(_look("api key file", lambda: check_api_key_file(key_file), prevented))
    return [*findings, *of_provider, *_check_server_calls(case, prevented)]


def _look(check: str, look: Callable[[], Finding], prevented: Collection[str]) -> Finding:
    """Run a check, unless a problem with the settings, which is reported only once, prevents it."""
    return skipped(check, _SEE_SETTINGS) if check in prevented else guarded(check, look)


def _check_provider_calls(case: Case, prevented: Collection[str]) -> tuple[list[Finding], bool | None]:
    """Return the provider's findings, and whether it supports the device flow, or None if unknown."""
    if "issuer" in prevented:
        return [skipped("issuer", _SEE_SETTINGS), skipped("clock", _SEE_SETTINGS)], None
    settings = case.settings
    if settings.issuer is None:
        why = "no identity provider is configured"
        return [skipped("issuer", why), skipped("clock", why)], None
    try:
        http = provider_http(settings)
    except MicromegasError as error:
        return [failed("issuer", error), skipped("clock", _NOT_CHECKED)], None
    connection = ProviderConnection(settings.issuer, settings.client_id or "", None, http=http, clock=case.clock)
    issuer = guarded("issuer", lambda: check_issuer(connection, case.clock))
    if issuer.outcome is Outcome.FAILED:
        return [issuer, skipped("clock", _WHY_NO_CLOCK.get(issuer.code or "", _NOT_CHECKED))], None
    offers_device = connection.metadata().device_authorization_endpoint is not None
    return [issuer, guarded("clock", lambda: check_clock(connection))], offers_device


def _check_server_calls(case: Case, prevented: Collection[str]) -> list[Finding]:
    provider = None
    if "token" in prevented:
        token = skipped("token", _SEE_SETTINGS)
    else:
        try:
            provider = client_side.stored_provider(case.settings, case.environ, facts=case.facts)
        except MicromegasError as error:
            token = failed("token", error)
        else:
            token = guarded("token", lambda: check_token(provider, case.clock))
    has_no_token = token.outcome is not Outcome.OK
    usable = None if has_no_token else provider
    server = _look("server", lambda: check_server(case, usable, token_failed=has_no_token), prevented)
    return [token, server]
