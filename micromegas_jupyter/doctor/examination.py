"""Makes all checks, whatever the others found; those of the provider, its clock, the token and the server are here."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from datetime import timedelta

from micromegas_jupyter import wiring
from micromegas_jupyter.auth.flows.hub import HubTokenProvider
from micromegas_jupyter.auth.flows.select import Facts, gather_facts
from micromegas_jupyter.auth.provider import OidcAuthProvider
from micromegas_jupyter.auth.provider_connection import MAX_OFFSET_SECONDS, ProviderConnection
from micromegas_jupyter.auth.static import StaticTokenAuthProvider
from micromegas_jupyter.client.transport import claimed_end, read_claims
from micromegas_jupyter.config.client import ClientSettings
from micromegas_jupyter.core.protocols import AuthProvider
from micromegas_jupyter.core.system import SYSTEM_CLOCK, Clock, process_variables
from micromegas_jupyter.doctor.findings import Case, Finding, Outcome, complaint, failed, guarded, ok, skipped
from micromegas_jupyter.doctor.local_checks import (
    check_api_key_file,
    check_flow,
    check_program,
    check_settings,
    check_store,
    check_wrapper,
    find_obstacle,
)
from micromegas_jupyter.errors import (
    LoginRequired,
    MicromegasError,
    ProviderMisbehaved,
    ProviderUnavailable,
    Rejected,
    ServerUnavailable,
    UnsupportedRequest,
)

# From here on a server with the usual leeway of a minute begins to refuse tokens as not yet valid or ended.
TOLERATED_OFFSET_SECONDS = 30.0

_MAX_SHOWN_CHARACTERS = 100
_SHOWN_CLAIMS = ("iss", "aud", "sub", "email", "azp", "client_id", "scope", "scp")
_GROUP_CLAIMS = ("groups", "roles", "cognito:groups")
_SECONDS_A_MINUTE = 60
_SECONDS_AN_HOUR = 3600
_SECONDS_A_DAY = 86_400
_CLOCK_REMEDY = "Set this machine's clock (NTP). Signing in allows for it; other programs and servers may not."
_LARGE_CLOCK_REMEDY = (
    "Set this machine's clock (NTP), then sign in again. Signing in allows for a day at most, so tokens are refused."
)
_NO_ROLE_REMEDY = "Ask the server's administrator for a role (docs/access.md)."
_NOTHING_SET_REMEDY = (
    "Nothing is configured, so the default server was asked. Start one there, or set MICROMEGAS_ANALYTICS_URI to "
    "yours, and, if it wants a sign-in, MICROMEGAS_OIDC_ISSUER and MICROMEGAS_OIDC_CLIENT_ID; a profile of config.json "
    "can name them all."
)


def check_issuer(connection: ProviderConnection, clock: Clock) -> Finding:
    """Fetch the provider's description and keys, and say what it offers to people who sign in."""
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
    """Compare this machine's clock with the provider's, as far as the provider has told it."""
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
    """Get the token that a call would carry, and say what it says."""
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
    # The service says how long its token lives on; this machine's clock may be wrong.
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
    except LoginRequired:  # the token is there, so somebody is signed in
        return "of somebody whom it does not name", provider.renewal_due_at() is not None
    return f"of {identity.name or identity.email or identity.subject}", identity.renews


def check_server(case: Case, provider: AuthProvider | None, *, token_failed: bool) -> Finding:
    """Ask the server who the caller is; without a token only whether it answers."""
    with wiring.open_client(case.settings, provider, environ=case.environ) as client:
        started = case.clock.monotonic()
        try:
            identity = client.whoami()
        except ServerUnavailable as error:
            finding = failed("server", error)
            is_bare = case.has_default_server and case.has_no_sign_in
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


def duration_text(left: timedelta) -> str:
    """Return how long that is, in words."""
    seconds = int(left.total_seconds())
    if seconds < _SECONDS_A_MINUTE:
        return f"{max(seconds, 0)} s"
    if seconds < _SECONDS_AN_HOUR:
        return f"{seconds // _SECONDS_A_MINUTE} min"
    if seconds >= 2 * _SECONDS_A_DAY:
        return f"{seconds // _SECONDS_A_DAY} days"
    return f"{seconds // _SECONDS_AN_HOUR} h {seconds % _SECONDS_AN_HOUR // _SECONDS_A_MINUTE} min"


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
    facts: Facts | None = None,
    clock: Clock = SYSTEM_CLOCK,
) -> list[Finding]:
    """Make all checks and return what they found, in the order in which things depend on each other.

    Args:
        profile: A profile of `config.json`.
        load_settings: Reads the settings, in place of those of `profile`.
        environ: Stands in for the process environment.
        facts: Where the program runs; looked up when None.
        clock: Tells the time.
    """
    environ = process_variables(environ)
    wrapper = check_wrapper(environ)
    findings = [check_program(), *([wrapper] if wrapper else [])]
    try:
        settings = (
            wiring.load_client_settings(profile=profile, environ=environ) if load_settings is None else load_settings()
        )
    except MicromegasError as error:
        why = "the settings cannot be read"
        return [*findings, failed("settings", error), *(skipped(check, why) for check in _AFTER_SETTINGS)]
    case = Case(
        settings=settings,
        environ=environ,
        facts=gather_facts(environ=environ) if facts is None else facts,
        clock=clock,
    )
    if wiring.is_wrapped(environ):
        why = "the wrapper's client is used"
        return [*findings, check_settings(case), *(skipped(check, why) for check in _AFTER_SETTINGS)]
    obstacle = find_obstacle(case)
    prevented = frozenset[str]() if obstacle is None else obstacle.prevented
    # Before the sign-in, which follows from what the provider offers.
    of_provider, offers_device = _check_provider_calls(case, prevented)
    findings += [
        check_settings(case, obstacle),
        _look("sign-in", lambda: check_flow(case, offers_device=offers_device), prevented),
        _look("store", lambda: check_store(case), prevented),
    ]
    key_file = case.settings.api_key_file
    if key_file is not None:
        findings.append(_look("api key file", lambda: check_api_key_file(key_file), prevented))
    return [*findings, *of_provider, *_check_server_calls(case, prevented)]


def _look(check: str, look: Callable[[], Finding], prevented: Collection[str]) -> Finding:
    """Make a check, unless what is wrong with the settings prevents it: that is said once."""
    return skipped(check, _SEE_SETTINGS) if check in prevented else guarded(check, look)


def _check_provider_calls(case: Case, prevented: Collection[str]) -> tuple[list[Finding], bool | None]:
    """Return what is found of the provider, and whether it has a sign-in with a code, None when that is not known."""
    if "issuer" in prevented:
        return [skipped("issuer", _SEE_SETTINGS), skipped("clock", _SEE_SETTINGS)], None
    settings = case.settings
    if settings.issuer is None:
        why = "no identity provider is configured"
        return [skipped("issuer", why), skipped("clock", why)], None
    try:
        http = wiring.provider_http(settings)
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
            provider = wiring.stored_provider(case.settings, case.environ, facts=case.facts)
        except MicromegasError as error:
            token = failed("token", error)
        else:
            token = guarded("token", lambda: check_token(provider, case.clock))
    has_no_token = token.outcome is not Outcome.OK
    usable = None if has_no_token else provider
    server = _look("server", lambda: check_server(case, usable, token_failed=has_no_token), prevented)
    return [token, server]
