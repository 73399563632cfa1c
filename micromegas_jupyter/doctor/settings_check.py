"""Looks at the settings: what is set and where that came from, what is missing, and the files that they name.

Reading settings is `settings`'s job; what a file holds is for whoever uses it.
"""

import enum
from dataclasses import dataclass, fields, replace

from micromegas_jupyter import assembly
from micromegas_jupyter.auth.api_key_file import read_api_key_file
from micromegas_jupyter.contracts import Secret
from micromegas_jupyter.doctor.case import Case
from micromegas_jupyter.doctor.findings import Finding, failed, found
from micromegas_jupyter.errors import ConfigurationError
from micromegas_jupyter.http.certificates import environment_ca_bundle
from micromegas_jupyter.settings import ClientSettings, WorkloadExchange

NO_PROVIDER = (
    "no provider is configured: set MICROMEGAS_OIDC_ISSUER and MICROMEGAS_OIDC_CLIENT_ID, or name them in a profile"
)
# What is said in other places, or is no setting.
_NOT_LISTED = frozenset({"origins", "secret_is_native", "as_service_account"})


class ObstacleKind(enum.Enum):
    """What is wrong with settings that could be read."""

    INCOMPLETE = "incomplete"  # one half of what belongs together
    AUTHORITIES = "authorities"  # the file of authorities to trust
    CREDENTIAL = "credential"  # the file with a secret, a private key or an API key

    @property
    def prevented(self) -> frozenset[str]:
        """The checks that cannot be made."""
        return _PREVENTED[self]


_PREVENTED = {
    ObstacleKind.INCOMPLETE: frozenset({"sign-in", "store", "token"}),
    ObstacleKind.AUTHORITIES: frozenset({"issuer", "clock", "token", "server"}),
    ObstacleKind.CREDENTIAL: frozenset({"api key file", "token"}),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Obstacle:
    """The first thing that is wrong with the settings, and the error that everything else would meet."""

    kind: ObstacleKind
    error: ConfigurationError


def find_obstacle(case: Case) -> Obstacle | None:
    """Return what is wrong with the settings; None when nothing is."""
    settings = case.settings
    try:
        if not case.has_credential_of_its_own:
            assembly.sign_in_configured(settings)
    except ConfigurationError as error:
        return Obstacle(kind=ObstacleKind.INCOMPLETE, error=error)
    try:
        _check_authorities(settings)
    except ConfigurationError as error:
        return Obstacle(kind=ObstacleKind.AUTHORITIES, error=error)
    try:
        _check_credential_file(case)
    except ConfigurationError as error:
        return Obstacle(kind=ObstacleKind.CREDENTIAL, error=error)
    return None


def check_settings(case: Case, obstacle: Obstacle | None = None) -> Finding:
    """List each setting that is not a default, and where it came from; a secret is only said to be set.

    Args:
        case: What is looked at.
        obstacle: What is wrong with the settings.
    """
    settings = case.settings
    origins = dict(settings.origins)
    names = [entry.name for entry in fields(settings) if entry.name in origins and entry.name not in _NOT_LISTED]
    values = {name: _shown(getattr(settings, name)) for name in names}
    profile = f"profile {settings.profile}" if settings.profile else "no profile"
    preset = f", preset {settings.preset}" if settings.preset else ""
    finding = found(
        "settings",
        f"{profile}{preset}, {len(names)} set",
        details=[*(f"{name} = {values[name]}  ({origins[name]})" for name in names), *_lacking(case)],
        facts={"profile": settings.profile, "values": values, "origins": {name: origins[name] for name in names}},
    )
    if obstacle is None:
        return finding
    return replace(failed("settings", obstacle.error), details=finding.details, facts=finding.facts)


def _lacking(case: Case) -> list[str]:
    if case.is_wrapped:
        return []
    lines = [NO_PROVIDER] if case.has_no_sign_in else []
    if case.has_default_server:
        lines.append(f"no server is configured: the default is used, {case.settings.uri}")
    return lines


def _check_authorities(settings: ClientSettings) -> None:
    if settings.ca_bundle is not None:
        name = settings.origin_of("ca_bundle") or "MICROMEGAS_CA_BUNDLE"
        try:
            assembly.provider_http(settings)
        except ConfigurationError as error:
            raise _naming(error, name) from None
    if settings.issuer is not None:
        environment_ca_bundle()


def _check_credential_file(case: Case) -> None:
    settings = case.settings
    if settings.api_key_file is not None:
        try:
            read_api_key_file(settings.api_key_file)
        except ConfigurationError as error:
            raise _naming(error, settings.origin_of("api_key_file") or "api_key_file") from None
    elif settings.service_account_file is not None:
        assembly.service_provider(settings, case.environ)
    elif settings.workload is None or settings.workload.exchange is WorkloadExchange.TOKEN_EXCHANGE:
        assembly.client_proof(settings)


def _naming(error: ConfigurationError, setting: str) -> ConfigurationError:
    """Return the error with the setting in its sentence."""
    what = error.what if setting in error.what else f"{error.what.removesuffix('.')} ({setting})."
    return ConfigurationError(what, key=setting, remedy=error.remedy)


def _shown(value: object) -> str:
    if isinstance(value, Secret):
        return "set, not shown"
    if isinstance(value, tuple):
        return ", ".join(f"{name}={text}" for name, text in value)
    named = [(entry.name, getattr(value, entry.name)) for entry in fields(value)] if _is_group(value) else None  # type: ignore[arg-type] # a dataclass
    if named is not None:
        return ", ".join(f"{name} {text}" for name, text in named if text is not None)
    return str(value)


def _is_group(value: object) -> bool:
    return hasattr(value, "__dataclass_fields__")
