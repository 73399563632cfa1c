"""Makes all checks, each whatever the others found, and leaves out what cannot be checked.

What each check looks at is its own matter.
"""

from collections.abc import Callable, Collection, Mapping

from micromegas_jupyter import assembly
from micromegas_jupyter.auth.surroundings import Facts, gather_facts
from micromegas_jupyter.doctor.case import Case
from micromegas_jupyter.doctor.findings import Finding, Outcome, failed, guarded, skipped
from micromegas_jupyter.doctor.local_checks import (
    check_api_key_file,
    check_flow,
    check_program,
    check_wrapper,
)
from micromegas_jupyter.doctor.remote_checks import check_clock, check_issuer, check_server, check_token
from micromegas_jupyter.doctor.settings_check import check_settings, find_obstacle
from micromegas_jupyter.doctor.store_check import check_store
from micromegas_jupyter.errors import MicromegasError, ProviderMisbehaved, ProviderUnavailable
from micromegas_jupyter.seams import SYSTEM_CLOCK, Clock, process_variables
from micromegas_jupyter.settings import ClientSettings

_SEE_SETTINGS = "see settings"
_NOT_ASKED = "the provider cannot be asked"
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
            assembly.load_client_settings(profile=profile, environ=environ)
            if load_settings is None
            else load_settings()
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
    if case.is_wrapped:
        why = "the wrapper's client is used"
        return [*findings, check_settings(case), *(skipped(check, why) for check in _AFTER_SETTINGS)]
    return [*findings, *_examine_case(case)]


def _examine_case(case: Case) -> list[Finding]:
    obstacle = find_obstacle(case)
    prevented = frozenset[str]() if obstacle is None else obstacle.kind.prevented
    # Before the sign-in, which follows from what the provider offers.
    of_provider, offers_device = _ask_provider(case, prevented)
    findings = [
        check_settings(case, obstacle),
        _look("sign-in", lambda: check_flow(case, offers_device=offers_device), prevented),
        _look("store", lambda: check_store(case), prevented),
    ]
    key_file = case.settings.api_key_file
    if key_file is not None:
        findings.append(_look("api key file", lambda: check_api_key_file(key_file), prevented))
    return [*findings, *of_provider, *_ask_server(case, prevented)]


def _look(check: str, look: Callable[[], Finding], prevented: Collection[str]) -> Finding:
    """Make a check, unless what is wrong with the settings prevents it: that is said once."""
    return skipped(check, _SEE_SETTINGS) if check in prevented else guarded(check, look)


def _ask_provider(case: Case, prevented: Collection[str]) -> tuple[list[Finding], bool | None]:
    """Return what is found of the provider, and whether it has a sign-in with a code, None when that is not known."""
    if "issuer" in prevented:
        return [skipped("issuer", _SEE_SETTINGS), skipped("clock", _SEE_SETTINGS)], None
    try:
        connection = case.connection()
    except MicromegasError as error:
        return [failed("issuer", error), skipped("clock", _NOT_ASKED)], None
    if connection is None:
        why = "no identity provider is configured"
        return [skipped("issuer", why), skipped("clock", why)], None
    issuer = guarded("issuer", lambda: check_issuer(connection, case.clock))
    if issuer.outcome is Outcome.FAILED:
        return [issuer, skipped("clock", _WHY_NO_CLOCK.get(issuer.code or "", _NOT_ASKED))], None
    offers_device = connection.metadata().device_authorization_endpoint is not None
    return [issuer, guarded("clock", lambda: check_clock(connection))], offers_device


def _ask_server(case: Case, prevented: Collection[str]) -> list[Finding]:
    provider = None
    if "token" in prevented:
        token = skipped("token", _SEE_SETTINGS)
    else:
        try:
            provider = case.provider()
        except MicromegasError as error:
            token = failed("token", error)
        else:
            token = guarded("token", lambda: check_token(provider, case.clock))
    has_no_token = token.outcome is not Outcome.OK
    usable = None if has_no_token else provider
    server = _look("server", lambda: check_server(case, usable, token_failed=has_no_token), prevented)
    return [token, server]
