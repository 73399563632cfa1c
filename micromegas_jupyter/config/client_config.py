"""Reads the client half's settings from variables and `config.json`.

What a single value must look like is said in `client_values`; what a provider's preset adds, in `client_presets`.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import combinations, permutations
from types import MappingProxyType
from typing import TypeVar

from micromegas_jupyter.config.client import (
    DEFAULT_PROVIDER_TIMEOUT_SECONDS,
    DEFAULT_SCOPE,
    DEFAULT_URI,
    AssertionAudience,
    Bearer,
    ClientSettings,
    PrivateKeySetting,
    TokenStorage,
    WorkloadExchange,
    WorkloadPlatform,
    WorkloadSetting,
)
from micromegas_jupyter.config.client_presets import CLIENT_PRESETS, NO_PRESET, fill_in
from micromegas_jupyter.config.client_values import (
    as_algorithm,
    as_assertion_audience,
    as_authorize_params,
    as_bearer,
    as_exchange,
    as_flow,
    as_path,
    as_platform,
    as_preset_name,
    as_proxy,
    as_redirect_uri,
    as_resource,
    as_scope,
    as_secret,
    as_storage,
    as_timeout_seconds,
)
from micromegas_jupyter.config.decoding import (
    as_issuer,
    as_list,
    as_object,
    as_text,
    decode_setting,
)
from micromegas_jupyter.errors import ConfigurationError

CONFIG_FILE = "config.json"
PROFILE_VARIABLE = "MICROMEGAS_PROFILE"
WRAPPER_VARIABLE = "MICROMEGAS_PYTHON_MODULE_WRAPPER"
PROFILE_ARGUMENT = "the profile argument"

_PROFILE_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One object of the file.

    Attributes:
        values: Its members; those that are null count as not there.
        place: What stands before a member's name in a refusal.
    """

    values: Mapping[str, object] = field(repr=False)
    place: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """What `config.json` says.

    Attributes:
        name: The chosen profile's name, None for the flat file.
        origin: What chose it.
        members: The profile itself.
        issuer: Its first issuer.
    """

    name: str | None
    origin: str
    members: Part
    issuer: Part


def is_profile_name(name: str) -> bool:
    """Whether a profile may have that name."""
    return bool(_PROFILE_NAME.fullmatch(name)) and name not in {".", ".."}


def parse_profile(environ: Mapping[str, str], *, config_text: str | None, asked_for: str | None) -> Profile:
    """Read the file's text and choose a profile: by argument, by variable, by `default_profile`."""
    config = {} if config_text is None else as_object(decode_setting(config_text, CONFIG_FILE), CONFIG_FILE)
    wanted, origin = _wanted_profile(environ, asked_for)
    if "profiles" not in config:
        if wanted is not None:
            raise ConfigurationError(
                f"The profile {wanted!r} was asked for, but {CONFIG_FILE} has no profiles.",
                key="profiles",
                remedy=f"Add it to {CONFIG_FILE}, or name no profile.",
            )
        return _profile(config, place=f"{CONFIG_FILE}: ")
    profiles = as_object(config["profiles"], f"{CONFIG_FILE}: profiles")
    if wanted is None and config.get("default_profile") is not None:
        origin = f"{CONFIG_FILE}: default_profile"
        wanted = as_text(config["default_profile"], origin)
    known = ", ".join(sorted(filter(_PROFILE_NAME.fullmatch, profiles))) or "none"
    if wanted is None:
        raise ConfigurationError(
            f"{CONFIG_FILE} has profiles ({known}) and none was chosen.",
            key="default_profile",
            remedy=f"Give --profile, set {PROFILE_VARIABLE}, or set default_profile in {CONFIG_FILE}.",
        )
    if wanted not in profiles or not is_profile_name(wanted):
        raise ConfigurationError(f"{CONFIG_FILE} has no profile {wanted!r}; it has: {known}.", key="profiles")
    place = f"{CONFIG_FILE}: profiles.{wanted}"
    return _profile(as_object(profiles[wanted], place), place=f"{place}.", name=wanted, origin=origin)


def part_of(value: object, place: str, *, known: frozenset[str] | None = None) -> Part:
    """Return an object of the file as a part."""
    values = as_object(value, place, known=known)
    return Part(values={name: value for name, value in values.items() if value is not None}, place=f"{place}.")


def _wanted_profile(environ: Mapping[str, str], asked_for: str | None) -> tuple[str | None, str]:
    wanted, origin = (asked_for, PROFILE_ARGUMENT) if asked_for else (environ.get(PROFILE_VARIABLE), PROFILE_VARIABLE)
    if not wanted:
        return None, ""
    if not is_profile_name(wanted):
        raise ConfigurationError(f"The profile name {wanted!r} is not valid.", key="profile")
    return wanted, origin


def _profile(values: Mapping[str, object], *, place: str, name: str | None = None, origin: str = "") -> Profile:
    members = Part(values={name: value for name, value in values.items() if value is not None}, place=place)
    return Profile(name=name, origin=origin, members=members, issuer=_first_issuer(members))


def _first_issuer(members: Part) -> Part:
    place = f"{members.place}issuers"
    if "issuers" not in members.values:
        return Part(values={}, place=place)
    listed = as_list(members.values["issuers"], place)
    if not listed:
        raise ConfigurationError(f"{place} is empty.", key="issuers")
    return part_of(listed[0], f"{place}[0]")


Value = TypeVar("Value")
Reader = Callable[[object, str], Value]


class SettingReader:
    """Reads settings one by one.

    Args:
        environ: The process environment; a variable that is empty counts as not set.

    Attributes:
        origins: Where each setting that was found stands, by the field that it belongs to.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self.origins: dict[str, str] = {}

    def read(
        self,
        field: str,
        reader: Reader[Value],
        *,
        variable: str | None = None,
        part: Part | None = None,
        member: str | None = None,
    ) -> Value | None:
        """Return what `reader` makes of a setting, None when it is not set.

        Args:
            field: What the setting belongs to.
            reader: Makes a value of what stands there.
            variable: The variable that names it, if one does.
            part: The object of `config.json` that may hold it, if one does.
            member: Its name there; the field's name when left out.
        """
        name = member or field
        # What stands there may be secret: among the variables here, a traceback would show it.
        if variable is not None and self._environ.get(variable):
            self._note(field, variable)
            return reader(self._environ[variable], variable)
        if part is not None and name in part.values:
            origin = f"{part.place}{name}"
            self._note(field, origin)
            return reader(part.values[name], origin)
        return None

    def _note(self, field: str, origin: str) -> None:
        # Several settings may make up one field; the first of them is the one that matters.
        self.origins.setdefault(field, origin)


PROOFS = ("client_secret", "client_secret_file", "private_key", "service_account_file", "workload")


def without_proofs(settings: ClientSettings) -> ClientSettings:
    """Return the settings without what proves the application or the machine to a provider."""
    return replace(
        settings,
        client_secret=None,
        client_secret_file=None,
        private_key=None,
        service_account_file=None,
        workload=None,
        secret_is_native=False,
        origins=tuple((name, origin) for name, origin in settings.origins if name.partition(".")[0] not in PROOFS),
    )


def same_application(settings: ClientSettings, other: ClientSettings) -> bool:
    """Whether both name the same application of the same provider, as far as `other` names one."""
    return other.issuer in {None, settings.issuer} and other.client_id in {None, settings.client_id}


def check_proofs_of_file(settings: ClientSettings, *, issuer_of_file: object) -> None:
    """Check that no proof of `config.json` would go to another provider than the one that is named there."""
    origins = dict(settings.origins)
    if issuer_of_file is None or issuer_of_file == settings.issuer:
        return
    for name in PROOFS:
        origin = origins.get(name, "")
        if origin.startswith(CONFIG_FILE):
            raise ConfigurationError(
                f"{origin} belongs to the provider of {CONFIG_FILE}, and {origins.get('issuer')} names another one.",
                key=origins.get("issuer") or "issuer",
                remedy=f"Make a profile for the other provider, or unset {origins.get('issuer')}.",
            )


WORKLOAD_MEMBERS = frozenset({"platform", "exchange", "audience", "token_file", "client_id"})

_PROOFS_OF_APPLICATION = ("client_secret", "client_secret_file", "private_key")
_WAYS_WITHOUT_A_PERSON = ("service_account_file", "workload")
_PROVIDER_OPTIONS = {"MICROMEGAS_OIDC_ISSUER", "MICROMEGAS_OIDC_CLIENT_ID"}


def parse_client_settings(
    environ: Mapping[str, str],
    *,
    config_text: str | None = None,
    profile: str | None = None,
    options: Mapping[str, str] = MappingProxyType({}),
) -> ClientSettings:
    """Combine the environment with `config.json`; a variable that is set wins over the profile's value.

    Args:
        environ: The process environment.
        config_text: The content of `config.json`, None when there is no such file.
        profile: A profile asked for by argument; wins over `MICROMEGAS_PROFILE` and `default_profile`.
        options: Variables that a command's options stand in for. When they name another application or provider
            than the configured one, nothing that proves the configured one is used: it would go to a stranger.
    """
    chosen = parse_profile(environ, config_text=config_text, asked_for=profile)
    configured = _combine(environ, chosen)
    if options.keys() >= _PROVIDER_OPTIONS:
        # A call that names its own provider signs in there, and the profile's API key stays at home.
        chosen = _without_api_key(chosen)
    settings = _combine({**environ, **options}, chosen) if options else configured
    if not same_application(settings, configured):
        return without_proofs(settings)
    check_proofs_of_file(settings, issuer_of_file=chosen.issuer.values.get("issuer"))
    return settings


def _without_api_key(chosen: Profile) -> Profile:
    kept = {name: value for name, value in chosen.members.values.items() if name != "api_key_file"}
    return replace(chosen, members=replace(chosen.members, values=kept))


def _combine(environ: Mapping[str, str], chosen: Profile) -> ClientSettings:
    reader = SettingReader(environ)
    if chosen.name is not None:
        reader.origins["profile"] = chosen.origin
    preset = reader.read(
        "preset",
        partial(as_preset_name, names=frozenset({*CLIENT_PRESETS, NO_PRESET})),
        variable="MICROMEGAS_OIDC_PRESET",
        part=chosen.issuer,
    )
    settings = replace(_read(reader, chosen), origins=tuple(sorted(reader.origins.items())))
    settings = fill_in(settings, named=preset)
    _check_contradictions(settings)
    return settings


def _read(reader: SettingReader, chosen: Profile) -> ClientSettings:
    members, issuer, read = chosen.members, chosen.issuer, reader.read
    return ClientSettings(
        profile=chosen.name,
        uri=read("uri", as_text, variable="MICROMEGAS_ANALYTICS_URI", part=members) or DEFAULT_URI,
        issuer=read("issuer", as_issuer, variable="MICROMEGAS_OIDC_ISSUER", part=issuer),
        client_id=read("client_id", as_text, variable="MICROMEGAS_OIDC_CLIENT_ID", part=members),
        client_secret=read("client_secret", as_secret, variable="MICROMEGAS_OIDC_CLIENT_SECRET"),
        client_secret_file=read(
            "client_secret_file", as_path, variable="MICROMEGAS_OIDC_CLIENT_SECRET_FILE", part=members
        ),
        private_key=_private_key(reader, members),
        api_key_file=read("api_key_file", as_path, part=members),
        service_account_file=read(
            "service_account_file", as_path, variable="MICROMEGAS_OIDC_SERVICE_ACCOUNT_FILE", part=members
        ),
        workload=_workload(reader, members),
        audience=read("audience", as_text, variable="MICROMEGAS_OIDC_AUDIENCE", part=issuer),
        resource=read("resource", as_resource, variable="MICROMEGAS_OIDC_RESOURCE", part=issuer),
        scope=read("scope", as_scope, variable="MICROMEGAS_OIDC_SCOPE", part=issuer) or DEFAULT_SCOPE,
        bearer=read("bearer", as_bearer, variable="MICROMEGAS_OIDC_BEARER", part=issuer) or Bearer.ID_TOKEN,
        redirect_uri=read("redirect_uri", as_redirect_uri, variable="MICROMEGAS_OIDC_REDIRECT_URI", part=issuer),
        authorize_params=read("authorize_params", as_authorize_params, part=issuer) or (),
        flow=read("flow", as_flow, variable="MICROMEGAS_OIDC_FLOW", part=members),
        storage=read("storage", as_storage, variable="MICROMEGAS_TOKEN_STORAGE", part=members, member="token_storage")
        or TokenStorage.FILE,
        ca_bundle=read("ca_bundle", as_path, variable="MICROMEGAS_CA_BUNDLE", part=members),
        client_certificate_file=read(
            "client_certificate_file", as_path, variable="MICROMEGAS_CLIENT_CERTIFICATE_FILE", part=members
        ),
        client_key_file=read("client_key_file", as_path, variable="MICROMEGAS_CLIENT_KEY_FILE", part=members),
        proxy=read("proxy", as_proxy, variable="MICROMEGAS_OIDC_PROXY", part=members),
        provider_timeout_seconds=read(
            "provider_timeout_seconds",
            as_timeout_seconds,
            variable="MICROMEGAS_OIDC_TIMEOUT_SECONDS",
            part=members,
            member="timeout_seconds",
        )
        or DEFAULT_PROVIDER_TIMEOUT_SECONDS,
    )


def _private_key(reader: SettingReader, members: Part) -> PrivateKeySetting | None:
    read = reader.read
    file = read(
        "private_key", as_path, variable="MICROMEGAS_OIDC_PRIVATE_KEY_FILE", part=members, member="private_key_file"
    )
    key_id = read(
        "private_key.key_id", as_text, variable="MICROMEGAS_OIDC_PRIVATE_KEY_ID", part=members, member="private_key_id"
    )
    algorithm = read(
        "private_key.algorithm",
        as_algorithm,
        variable="MICROMEGAS_OIDC_PRIVATE_KEY_ALGORITHM",
        part=members,
        member="private_key_algorithm",
    )
    audience = read(
        "private_key.audience",
        as_assertion_audience,
        variable="MICROMEGAS_OIDC_PRIVATE_KEY_AUDIENCE",
        part=members,
        member="private_key_audience",
    )
    if file is not None:
        return PrivateKeySetting(
            file=file,
            key_id=key_id,
            algorithm=algorithm,
            audience=audience or AssertionAudience.TOKEN_ENDPOINT,
        )
    _refuse_details(reader, "private_key", needed="MICROMEGAS_OIDC_PRIVATE_KEY_FILE or private_key_file")
    return None


def _workload(reader: SettingReader, members: Part) -> WorkloadSetting | None:
    part, read = None, reader.read
    if "workload" in members.values:
        part = part_of(members.values["workload"], f"{members.place}workload", known=WORKLOAD_MEMBERS)
    prefix = "MICROMEGAS_OIDC_WORKLOAD"
    platform = read("workload", as_platform, variable=prefix, part=part, member="platform")
    exchange = read("workload.exchange", as_exchange, variable=f"{prefix}_EXCHANGE", part=part, member="exchange")
    audience = read("workload.audience", as_text, variable=f"{prefix}_AUDIENCE", part=part, member="audience")
    token_file = read("workload.token_file", as_path, variable=f"{prefix}_TOKEN_FILE", part=part, member="token_file")
    client_id = read("workload.client_id", as_text, variable=f"{prefix}_CLIENT_ID", part=part, member="client_id")
    if platform is None:
        _refuse_details(reader, "workload", needed=f"{prefix} or workload.platform")
        return None
    for name, value, only in (
        ("workload.token_file", token_file, WorkloadPlatform.KUBERNETES),
        ("workload.client_id", client_id, WorkloadPlatform.AZURE),
    ):
        if value is not None and platform is not only:
            origin = reader.origins[name]
            raise ConfigurationError(
                f"{origin} is set, which is for {only} only, and {reader.origins['workload']} is {platform}.",
                key=origin,
                remedy=f"Remove {origin}, or name the platform {only}.",
            )
    return WorkloadSetting(
        platform=platform,
        exchange=exchange or WorkloadExchange.NONE,
        audience=audience,
        token_file=token_file,
        managed_identity_client_id=client_id,
    )


def _refuse_details(reader: SettingReader, field: str, *, needed: str) -> None:
    """Refuse settings that say more about something that is not set itself."""
    for name, origin in sorted(reader.origins.items()):
        if name.startswith(f"{field}."):
            raise ConfigurationError(
                f"{origin} is set, but what it belongs to is not.",
                key=origin,
                remedy=f"Set {needed} as well, or remove {origin}.",
            )


def _check_contradictions(settings: ClientSettings) -> None:
    origins = dict(settings.origins)
    if "api_key_file" in origins and settings.issuer and settings.client_id:
        raise ConfigurationError(
            f"Both {origins['api_key_file']} and an OpenID provider ({origins['issuer']}) are set.",
            key="api_key_file",
            remedy="Keep one of the two.",
        )
    for one, other in permutations(("client_certificate_file", "client_key_file")):
        if one in origins and other not in origins:
            raise ConfigurationError(
                f"{origins[one]} is set, and {other} is not.",
                key=origins[one],
                remedy="A certificate and its key go together: set both, or neither.",
            )
    pairs = [
        *combinations(_PROOFS_OF_APPLICATION, 2),
        *combinations(_WAYS_WITHOUT_A_PERSON, 2),
        *(("api_key_file", other) for other in (*_PROOFS_OF_APPLICATION, *_WAYS_WITHOUT_A_PERSON)),
    ]
    if settings.workload is not None and settings.workload.exchange is WorkloadExchange.CLIENT_ASSERTION:
        # The platform's token is the proof then.
        pairs += [("workload.exchange", other) for other in _PROOFS_OF_APPLICATION]
    for one, other in pairs:
        if one in origins and other in origins:
            raise ConfigurationError(
                f"Both {origins[one]} and {origins[other]} are set.", key=origins[other], remedy="Keep one of the two."
            )
