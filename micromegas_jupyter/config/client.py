"""The client half's settings, each declared once: its variable, its `config.json` member, and its check."""

import enum
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import partial
from itertools import combinations, permutations
from pathlib import PurePath
from types import MappingProxyType
from typing import Annotated, Any, Final, Literal
from urllib.parse import SplitResult, urlsplit

from msgspec import Meta

from micromegas_jupyter.config.decoding import (
    SIGNATURE_ALGORITHMS,
    as_list,
    as_named,
    as_object,
    as_type,
    decode_setting,
    parse_count,
)
from micromegas_jupyter.core.system import Secret, Variables
from micromegas_jupyter.core.text import LOOPBACK_HOSTS, as_issuer, as_text, is_text, refused, shown
from micromegas_jupyter.errors import ConfigurationError


class Flow(enum.StrEnum):
    """How a user signs in."""

    BROWSER = "browser"  # the browser redirects to a loopback address of this machine (RFC 8252)
    DEVICE = "device"  # a short code that the user types on any device (RFC 8628)
    PASTE = "paste"  # the user pastes the final URL of the browser
    REDIRECT = "redirect"  # the browser redirects to the Jupyter server
    HUB = "hub"  # JupyterHub provides the token of its signed-in user


class Bearer(enum.StrEnum):
    """Which token is sent to the server."""

    ID_TOKEN = "id_token"  # noqa: S105 - a kind of token, not a token
    ACCESS_TOKEN = "access_token"  # noqa: S105 - a kind of token, not a token


class TokenStorage(enum.StrEnum):
    """The storage locations of a user's sign-in."""

    FILE = "file"  # readable only by its owner; shared with upstream's programs
    KEYRING = "keyring"  # the operating system's keyring; an error if it is unavailable


class WorkloadPlatform(enum.StrEnum):
    """Platforms that issue identity tokens to programs running on them."""

    GITHUB_ACTIONS = "github-actions"
    KUBERNETES = "kubernetes"
    GOOGLE = "google"
    AZURE = "azure"


class WorkloadExchange(enum.StrEnum):
    """How the platform's token is used."""

    NONE = "none"  # as the bearer token
    TOKEN_EXCHANGE = "token-exchange"  # noqa: S105 - RFC 8693: it is exchanged at the provider
    CLIENT_ASSERTION = "client-assertion"  # RFC 7523 section 2.2: to authenticate the client for client credentials


class AssertionAudience(enum.StrEnum):
    """The audience of an application's assertions."""

    TOKEN_ENDPOINT = "token-endpoint"  # noqa: S105 - a place: OpenID Connect Core 1.0 section 9
    CALLED_ENDPOINT = "called-endpoint"  # differs from the token endpoint only for revocation and device sign-in
    ISSUER = "issuer"


DEFAULT_URI: Final = "grpc://localhost:50051"
DEFAULT_SCOPE: Final = "openid email profile offline_access"
PRESET_ORIGIN: Final = "preset "
# Variables that may hold a secret.
SECRET_VARIABLES: Final = ("MICROMEGAS_OIDC_CLIENT_SECRET", "MICROMEGAS_OIDC_PROXY")

# The sign-in sets these itself; other values would defeat a check.
PROTECTED_PARAMETERS: Final = frozenset({
    "client_id", "client_secret", "code_challenge", "code_challenge_method", "nonce", "redirect_uri", "request",
    "request_uri", "response_mode", "response_type", "state",
})  # fmt: skip
_PARAMETERS_WITH_A_SETTING: Final = frozenset({"audience", "resource", "scope"})
_MAX_PARAMETERS: Final = 32
_PROXY_HOST: Final = re.compile(r"[A-Za-z0-9._:%-]+")


def as_path(value: object, key: str) -> PurePath:
    """Return a file's path; the reader of the file expands `~`."""
    return PurePath(as_text(value, key))


def as_secret(value: object, key: str) -> Secret:
    """Return a secret string."""
    value = Secret(value) if is_text(value) else None  # a traceback would show it otherwise
    if value is None:
        raise refused(key, "is not a string of printable characters")
    return value


def as_proxy(value: object, key: str) -> Secret:
    """Return a proxy's address, which is never shown because it may contain a password."""
    value = Secret(value) if is_text(value) else None  # otherwise a traceback would show it
    if value is None or not _is_proxy(value):
        raise refused(
            key,
            "is not a proxy address",
            "Use http://host:port or https://host:port. If the proxy requires a user and password, add "
            "user:password@ before the host, with special characters percent-encoded.",
        )
    return value


def _is_proxy(address: Secret) -> bool:
    parts = _split_url(address.reveal(), forbidden=' \\"<>?#')
    if parts is None or not parts.hostname or not _PROXY_HOST.fullmatch(parts.hostname):
        return False
    return parts.scheme in {"http", "https"} and parts.path in {"", "/"}


def _split_url(text: str, *, forbidden: str) -> SplitResult | None:
    """Return the parts of an ASCII URL, or None if it is not a URL, has port 0, or contains a forbidden character."""
    try:
        parts = urlsplit(text)
        is_valid = parts.port != 0 and bool(parts.scheme)
    except ValueError:
        return None
    return parts if is_valid and text.isascii() and not set(text) & set(forbidden) else None


def as_resource(value: object, key: str) -> str:
    """Return a resource, which is an absolute URI without a fragment (RFC 8707 section 2)."""
    resource = as_text(value, key)
    if _split_url(resource, forbidden="# ") is None:
        raise refused(key, "is not an absolute URI without a fragment")
    return resource


def as_redirect_uri(value: object, key: str) -> str:
    """Return a loopback redirect URI (RFC 8252 section 7.3)."""
    uri = as_text(value, key)
    parts = _split_url(uri, forbidden="?#@ ")
    if parts is None or parts.scheme != "http" or parts.hostname not in LOOPBACK_HOSTS:
        raise refused(
            key,
            "is not an HTTP URL on this machine without a query, fragment, and user",
            "Use a URL such as http://127.0.0.1:48080/callback, exactly as registered with the provider.",
        )
    return uri


def as_authorize_params(value: object, key: str) -> tuple[tuple[str, str], ...]:
    """Return additional parameters for the authorization request."""
    named = as_named(value, key)
    if len(named) > _MAX_PARAMETERS:
        raise refused(key, f"has more than {_MAX_PARAMETERS} parameters")
    for name in named:
        if name in PROTECTED_PARAMETERS:
            raise refused(f"{key}.{name}", "cannot be set, because each sign-in creates its own")
        if name in _PARAMETERS_WITH_A_SETTING:
            raise refused(f"{key}.{name}", "cannot be set here", f"Use the setting {name} instead.")
    return tuple(sorted((name, as_text(text, f"{key}.{name}")) for name, text in named.items()))


def as_flow(value: object, key: str) -> Flow | None:
    """Return the chosen flow, or None for `auto`."""
    name = as_type(value, key, kind=Literal["auto", "browser", "device", "paste", "hub"])
    return None if name == "auto" else Flow(name)


def as_preset_name(value: object, key: str) -> str:
    """Return a preset's name, or `none`."""
    name = as_text(value, key)
    if name not in {*CLIENT_PRESETS, NO_PRESET}:
        raise refused(
            key,
            f"specifies the unknown preset {shown(name)}",
            f"Known: {', '.join(sorted((*CLIENT_PRESETS, NO_PRESET)))}.",
        )
    return name


# RFC 6749 section 3.3.
_NAMES = r"^[\x21\x23-\x5b\x5d-\x7e]+( [\x21\x23-\x5b\x5d-\x7e]+)*\Z"
as_scope = partial(
    as_type, kind=Annotated[str, Meta(pattern=_NAMES, description="a list of names separated by single spaces")]
)
_FLAGS: Final = {"true": True, "false": False}


def as_read_only(value: object, key: str) -> bool:
    """Return a flag; variables contain `true` or `false`."""
    return bool(as_type(_FLAGS.get(value, value) if isinstance(value, str) else value, key, kind=bool))


as_timeout_seconds = partial(as_type, kind=Annotated[float, Meta(ge=1, le=60)])
as_algorithm = partial(as_type, kind=Literal[tuple(sorted(SIGNATURE_ALGORITHMS))])


def _setting(
    reader: Callable[[Any, str], Any], *sources: str, meaning: str, default: Any = None, unset: str | None = None
) -> Any:
    """Declare a setting: its check, and the variable and the `config.json` member that set it.

    docs/client-settings.md shows, as Markdown, `meaning` and the default, or `unset` if there is no default.
    """
    variable = next((name for name in sources if name.startswith("MICROMEGAS_")), None)
    member = next((name for name in sources if name != variable), None)
    if unset is None:
        unset = f"`{default:g}`" if isinstance(default, float) else f"`{default}`" if default else ""
    metadata = {
        "source": {"reader": reader, "variable": variable, "member": member},
        "meaning": meaning,
        "unset": unset,
    }
    return field(default=default, repr=reader not in {as_secret, as_proxy}, metadata=metadata)


# fmt: off
@dataclass(frozen=True, slots=True, kw_only=True)
class WorkloadSetting:
    """How a program signs in with the identity from its platform; `token_file` is for Kubernetes."""

    platform: WorkloadPlatform = _setting(
        partial(as_type, kind=WorkloadPlatform), "MICROMEGAS_OIDC_WORKLOAD", "workload.platform",
        meaning="platform that identifies the program: `github-actions`, `kubernetes`, `google`, or `azure`",
    )
    exchange: WorkloadExchange = _setting(
        partial(as_type, kind=WorkloadExchange), "MICROMEGAS_OIDC_WORKLOAD_EXCHANGE", "workload.exchange",
        default=WorkloadExchange.NONE,
        meaning="how the platform's token is used: `none` (sent to the server), `token-exchange` (RFC 8693), or "
        "`client-assertion` (RFC 7523)",
    )
    audience: str | None = _setting(
        as_text, "MICROMEGAS_OIDC_WORKLOAD_AUDIENCE", "workload.audience",
        meaning="audience of the platform's token",
    )
    token_file: PurePath | None = _setting(
        as_path, "MICROMEGAS_OIDC_WORKLOAD_TOKEN_FILE", "workload.token_file", meaning="path of the token on Kubernetes"
    )
    managed_identity_client_id: str | None = _setting(
        as_text, "MICROMEGAS_OIDC_WORKLOAD_CLIENT_ID", "workload.client_id", unset="the only one",
        meaning="client ID of the managed identity on Azure",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class PrivateKeySetting:
    """The application's key, in a PEM or JWK file (`private_key_jwt`, RFC 7523 section 2.2)."""

    file: PurePath = _setting(
        as_path, "MICROMEGAS_OIDC_PRIVATE_KEY_FILE", "private_key_file",
        meaning="PEM or JWK file with the application's private key (`private_key_jwt`), instead of a secret",
    )
    key_id: str | None = _setting(
        as_text, "MICROMEGAS_OIDC_PRIVATE_KEY_ID", "private_key_id", unset="from the JWK",
        meaning="key ID (`kid`) that the provider expects",
    )
    algorithm: str | None = _setting(
        as_algorithm, "MICROMEGAS_OIDC_PRIVATE_KEY_ALGORITHM", "private_key_algorithm",
        meaning=f"signature algorithm: {', '.join(sorted(SIGNATURE_ALGORITHMS))}", unset="by key type",
    )
    audience: AssertionAudience = _setting(
        partial(as_type, kind=AssertionAudience), "MICROMEGAS_OIDC_PRIVATE_KEY_AUDIENCE", "private_key_audience",
        default=AssertionAudience.TOKEN_ENDPOINT,
        meaning="audience of client assertions: `token-endpoint`, `called-endpoint`, or `issuer`",
        unset="`token-endpoint`, or by preset",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientSettings:
    """Where to connect and how to sign in (docs/client-settings.md); sign-in requires issuer and client ID.

    With `secret_is_native`, users sign in with the application that has the secret, so it isn't a service account.
    `origins` are pairs of a field and its source: a variable, a `config.json` member, or a preset.
    """

    uri: str = _setting(
        as_text, "MICROMEGAS_ANALYTICS_URI", "uri", default=DEFAULT_URI,
        meaning="Flight SQL server: `grpc+tls://host:port`, or `grpc://` on loopback",
    )
    name: str | None = _setting(
        as_text, "MICROMEGAS_NAME", "name", unset="address",
        meaning="server name in sign-in prompts",
    )
    issuer: str | None = _setting(
        as_issuer, "MICROMEGAS_OIDC_ISSUER", "issuers[0].issuer",
        meaning="provider's issuer URL: HTTPS, or HTTP on loopback; `MICROMEGAS_OIDC_ISSUERS` isn't used here",
    )
    client_id: str | None = _setting(
        as_text, "MICROMEGAS_OIDC_CLIENT_ID", "client_id",
        meaning="application's client ID; requires the issuer",
    )
    client_secret: Secret | None = _setting(
        as_secret, "MICROMEGAS_OIDC_CLIENT_SECRET",
        meaning="client secret; makes the application a service account, except with Google",
    )
    client_secret_file: PurePath | None = _setting(
        as_path, "MICROMEGAS_OIDC_CLIENT_SECRET_FILE", "client_secret_file", meaning="file that contains the secret"
    )
    private_key: PrivateKeySetting | None = None
    api_key_file: PurePath | None = _setting(
        as_path, "api_key_file", meaning="file that contains an API key, instead of signing in"
    )
    service_account_file: PurePath | None = _setting(
        as_path, "MICROMEGAS_OIDC_SERVICE_ACCOUNT_FILE", "service_account_file",
        meaning="key file of a Google service account",
    )
    workload: WorkloadSetting | None = None
    preset: str | None = _setting(
        as_preset_name, "MICROMEGAS_OIDC_PRESET", "issuers[0].preset", unset="by issuer",
        meaning="name of a [preset](#provider-presets), or `none`",
    )
    audience: str | None = _setting(
        as_text, "MICROMEGAS_OIDC_AUDIENCE", "issuers[0].audience",
        meaning="audience to request",
    )
    resource: str | None = _setting(
        as_resource, "MICROMEGAS_OIDC_RESOURCE", "issuers[0].resource",
        meaning="resource to request, as an absolute URI (RFC 8707)",
    )
    scope: str = _setting(
        as_scope, "MICROMEGAS_OIDC_SCOPE", "issuers[0].scope", default=DEFAULT_SCOPE,
        meaning="scopes to request",
    )
    bearer: Bearer = _setting(
        partial(as_type, kind=Bearer), "MICROMEGAS_OIDC_BEARER", "issuers[0].bearer", default=Bearer.ID_TOKEN,
        meaning="token to send to the server: `id_token` or `access_token`",
        unset="`id_token`, or by preset",
    )
    redirect_uri: str | None = _setting(
        as_redirect_uri, "MICROMEGAS_OIDC_REDIRECT_URI", "issuers[0].redirect_uri", unset="any free port",
        meaning="loopback address, if the provider checks the port: `http://127.0.0.1:48080/callback`",
    )
    authorize_params: tuple[tuple[str, str], ...] = _setting(
        as_authorize_params, "issuers[0].authorize_params", default=(), unset="by preset",
        meaning="object with additional authorization request parameters",
    )
    flow: Flow | None = _setting(
        as_flow, "MICROMEGAS_OIDC_FLOW", "flow", unset="`auto`",
        meaning="sign-in [flow](how-sign-in-works.md#how-the-flow-is-chosen): `browser`, `device`, `paste`, `hub`, or "
        "`auto`",
    )
    storage: TokenStorage = _setting(
        partial(as_type, kind=TokenStorage), "MICROMEGAS_TOKEN_STORAGE", "token_storage", default=TokenStorage.FILE,
        meaning="storage for sign-ins: `file`, or `keyring` for the operating system's keyring",
    )
    ca_bundle: PurePath | None = _setting(
        as_path, "MICROMEGAS_CA_BUNDLE", "ca_bundle",
        meaning="PEM file with additional CAs for the server, the provider, and its proxy",
    )
    client_certificate_file: PurePath | None = _setting(
        as_path, "MICROMEGAS_CLIENT_CERTIFICATE_FILE", "client_certificate_file",
        meaning="PEM file with the [client certificate](operating.md#require-client-certificates)",
    )
    client_key_file: PurePath | None = _setting(
        as_path, "MICROMEGAS_CLIENT_KEY_FILE", "client_key_file",
        meaning="PEM file with the certificate's key",
    )
    read_only: bool = _setting(
        as_read_only, "MICROMEGAS_READ_ONLY", "read_only", unset="`false`",
        meaning="whether all calls are [read-only](flight-sql.md#read-only-calls): `true` or `false`",
    )
    proxy: Secret | None = _setting(
        as_proxy, "MICROMEGAS_OIDC_PROXY", "proxy", unset="`https_proxy`",
        meaning="proxy for the provider: `http://` or `https://`, with optional `user:password@`; `NO_PROXY` applies",
    )
    provider_timeout_seconds: float = _setting(
        as_timeout_seconds, "MICROMEGAS_OIDC_TIMEOUT_SECONDS", "timeout_seconds", default=10.0,
        meaning="timeout for each request to the provider, in seconds, 1 to 60",
    )
    profile: str | None = None
    secret_is_native: bool = False
    as_service_account: bool = False
    origins: tuple[tuple[str, str], ...] = field(default=(), compare=False, repr=False)

    @property
    def token_file_name(self) -> str:
        """The token file's name in the configuration folder, which is the same as upstream's for this profile."""
        return "tokens.json" if self.profile is None else f"tokens-{self.profile}.json"

    def origin_of(self, name: str) -> str | None:
        """Return the source of the field's value, or None for a default."""
        return dict(self.origins).get(name)


# fmt: on
RESULT_ROWS_VARIABLE: Final = "MICROMEGAS_RESULT_ROWS"
DEFAULT_RESULT_ROWS: Final = 1_000_000
MAX_RESULT_ROWS: Final = 10_000_000


def parse_result_rows(environ: Mapping[str, str]) -> int:
    """Return the maximum number of rows sent to the browser; 0 sends only the preview."""
    text = environ.get(RESULT_ROWS_VARIABLE, "")
    if not text:
        return DEFAULT_RESULT_ROWS
    return parse_count(text, RESULT_ROWS_VARIABLE, minimum=0, maximum=MAX_RESULT_ROWS)


CONFIG_FILE: Final = "config.json"
PROFILE_VARIABLE: Final = "MICROMEGAS_PROFILE"
WRAPPER_VARIABLE: Final = "MICROMEGAS_PYTHON_MODULE_WRAPPER"
PROFILE_ARGUMENT: Final = "the profile argument"

_PROFILE_NAME: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")
_WORKLOAD_MEMBERS: Final = frozenset({"platform", "exchange", "audience", "token_file", "client_id"})
_CLIENT_AUTHENTICATION: Final = ("client_secret", "client_secret_file", "private_key")
_PROGRAM_IDENTITIES: Final = ("service_account_file", "workload")
_CREDENTIALS: Final = (*_CLIENT_AUTHENTICATION, *_PROGRAM_IDENTITIES)
_PROVIDER_OPTIONS: Final = {"MICROMEGAS_OIDC_ISSUER", "MICROMEGAS_OIDC_CLIENT_ID"}
_COMPLETE_VARIABLES: Final = ("MICROMEGAS_ANALYTICS_URI", "MICROMEGAS_OIDC_ISSUER", "MICROMEGAS_OIDC_CLIENT_ID")


SERVERS_VARIABLE: Final = "MICROMEGAS_OIDC_ISSUERS"  # easily mistaken for the setting


def parse_client_settings(
    environ: Mapping[str, str],
    *,
    config_text: str | None = None,
    profile: str | None = None,
    options: Mapping[str, str] = MappingProxyType({}),
) -> ClientSettings:
    """Combine the environment with `config.json`; environment variables override the profile's values.

    `options` are variables that a command's options set. If they specify another application or provider than the
    configured one, none of the configured credentials are used, because they would be sent to a third party.
    """
    if environ.get(SERVERS_VARIABLE):
        raise ConfigurationError(
            f"{SERVERS_VARIABLE} is not a setting.",
            key=SERVERS_VARIABLE,
            remedy="Set MICROMEGAS_OIDC_ISSUER to the provider that you sign in with. A server's "
            "MICROMEGAS_OIDC_CONFIG lists the providers that it accepts.",
        )
    chosen = _choose_profile({**environ, **options}, config_text=config_text, requested=profile)
    configured = _combine(environ, chosen)
    if options.keys() >= _PROVIDER_OPTIONS:
        # A call with its own provider signs in with that provider and doesn't use the profile's API key.
        chosen = replace(chosen, members={**chosen.members, "api_key_file": None})
    settings = _combine(Variables({**environ, **options}), chosen) if options else configured
    if configured.issuer not in {None, settings.issuer} or configured.client_id not in {None, settings.client_id}:
        return _without_credentials(settings)
    _check_credentials_of_file(settings, issuer_of_file=chosen.members.get("issuers[0].issuer"))
    return settings


def profile_names(config_text: str | None) -> list[str]:
    """Return the names of the profiles in the contents of `config.json`, or an empty list without profiles."""
    config = {} if config_text is None else as_object(decode_setting(config_text, CONFIG_FILE), CONFIG_FILE)
    profiles = as_object(config.get("profiles", {}), f"{CONFIG_FILE}: profiles")
    return sorted(filter(is_profile_name, profiles))


def is_profile_name(name: str) -> bool:
    """Whether a profile may have this name."""
    return bool(_PROFILE_NAME.fullmatch(name)) and name not in {".", ".."}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Profile:
    """A profile in `config.json`, or a file without profiles (no name); `members` by path (`issuers[0].scope`)."""

    name: str | None = None
    origin: str = ""
    location: str
    members: Mapping[str, object] = field(repr=False)


def _choose_profile(environ: Mapping[str, str], *, config_text: str | None, requested: str | None) -> _Profile:
    """Parse the file and choose a profile by argument, variable, or `default_profile`.

    No profile is required if none is chosen and the variables specify the server and the provider.
    """
    config = {} if config_text is None else as_object(decode_setting(config_text, CONFIG_FILE), CONFIG_FILE)
    name, origin = (requested, PROFILE_ARGUMENT) if requested else (environ.get(PROFILE_VARIABLE), PROFILE_VARIABLE)
    if name and not is_profile_name(name):
        raise ConfigurationError(f"The profile name {name!r} is not valid.", key="profile")
    if "profiles" not in config:
        if name:
            raise ConfigurationError(
                f"The profile {name!r} was requested, but {CONFIG_FILE} has no profiles.",
                key="profiles",
                remedy=f"Add the profile to {CONFIG_FILE}, or don't specify one.",
            )
        location = f"{CONFIG_FILE}: "
        return _Profile(location=location, members=_flatten(config, location))
    profiles = as_object(config["profiles"], f"{CONFIG_FILE}: profiles")
    if not name and config.get("default_profile") is not None:
        origin = f"{CONFIG_FILE}: default_profile"
        name = as_text(config["default_profile"], origin)
    known = ", ".join(sorted(filter(_PROFILE_NAME.fullmatch, profiles))) or "none"
    if not name and all(environ.get(variable) for variable in _COMPLETE_VARIABLES):
        return _Profile(location=f"{CONFIG_FILE}: ", members={})
    if not name:
        raise ConfigurationError(
            f"{CONFIG_FILE} contains profiles ({known}), but none was selected.",
            key="default_profile",
            remedy=f"Specify --profile, set {PROFILE_VARIABLE}, or set default_profile in {CONFIG_FILE}.",
        )
    if name not in profiles or not is_profile_name(name):
        raise ConfigurationError(f"{CONFIG_FILE} does not contain the profile {name!r}, only {known}.", key="profiles")
    members = as_object(profiles[name], f"{CONFIG_FILE}: profiles.{name}")
    location = f"{CONFIG_FILE}: profiles.{name}."
    return _Profile(name=name, origin=origin, location=location, members=_flatten(members, location))


def _flatten(members: Mapping[str, object], location: str) -> dict[str, object]:
    flat = dict(members)
    if members.get("issuers") is not None:
        issuers = as_list(members["issuers"], f"{location}issuers")
        if not issuers:
            raise ConfigurationError(f"{location}issuers is empty.", key="issuers")
        first = as_object(issuers[0], f"{location}issuers[0]")
        flat |= {f"issuers[0].{name}": value for name, value in first.items()}
    if members.get("workload") is not None:
        workload = as_object(members["workload"], f"{location}workload", known=_WORKLOAD_MEMBERS)
        flat |= {f"workload.{name}": value for name, value in workload.items()}
    return flat


class _Reader:
    """Reads the declared settings of one environment and profile, and records the source of each."""

    def __init__(self, environ: Mapping[str, str], profile: _Profile) -> None:
        self._environ = environ
        self._profile = profile
        self.origins: dict[str, str] = {}
        if profile.name is not None:
            self.origins["profile"] = profile.origin

    def read(self, name: str, reader: Any, *, variable: str | None, member: str | None) -> Any:
        """Return the result of `reader` for a setting, or None if it is not set."""
        # The value may be secret; a local variable would appear in a traceback.
        if variable is not None and self._environ.get(variable):
            self.origins[name] = variable
            return reader(self._environ[variable], variable)
        if member is not None and self._profile.members.get(member) is not None:
            self.origins[name] = origin = f"{self._profile.location}{member}"
            return reader(self._profile.members[member], origin)
        return None

    def read_group(self, kind: type, group: str = "") -> dict[str, Any]:
        """Return the declared fields of a class that are set; the first field determines the group's origin."""
        values = {}
        for index, entry in enumerate(fields(kind)):
            if entry.metadata:
                name = f"{group}.{entry.name}" if group and index else group or entry.name
                value = self.read(name, **entry.metadata["source"])
                if value is not None:
                    values[entry.name] = value
        return values

    def read_details(self, kind: type, group: str, *, needed: str) -> Any:
        """Return an object for a group of settings, or None if none are set; reject details without the main one."""
        values = self.read_group(kind, group)
        if group in self.origins:
            return kind(**values)
        for name in sorted(values):
            origin = self.origins[f"{group}.{name}"]
            raise refused(origin, "is set without its related setting", f"Also set {needed}, or remove {origin}.")
        return None


def _combine(environ: Mapping[str, str], profile: _Profile) -> ClientSettings:
    reader = _Reader(environ, profile)
    settings = ClientSettings(
        profile=profile.name,
        private_key=reader.read_details(
            PrivateKeySetting, "private_key", needed="MICROMEGAS_OIDC_PRIVATE_KEY_FILE or private_key_file"
        ),
        workload=reader.read_details(
            WorkloadSetting, "workload", needed="MICROMEGAS_OIDC_WORKLOAD or workload.platform"
        ),
        **reader.read_group(ClientSettings),
        origins=tuple(sorted(reader.origins.items())),
    )
    settings = apply_preset(settings, named=settings.preset)
    _check_contradictions(settings)
    return settings


def _without_credentials(settings: ClientSettings) -> ClientSettings:
    """Return the settings without the application's or the machine's credentials."""
    return replace(
        settings,
        client_secret=None,
        client_secret_file=None,
        private_key=None,
        service_account_file=None,
        workload=None,
        secret_is_native=False,
        origins=tuple(entry for entry in settings.origins if entry[0].partition(".")[0] not in _CREDENTIALS),
    )


def _check_credentials_of_file(settings: ClientSettings, *, issuer_of_file: object) -> None:
    """Check that no credential in `config.json` would be sent to a provider other than the file's own."""
    origins = dict(settings.origins)
    if issuer_of_file is None or issuer_of_file == settings.issuer:
        return
    for name in _CREDENTIALS:
        origin = origins.get(name, "")
        if origin.startswith(CONFIG_FILE):
            raise ConfigurationError(
                f"{origin} belongs to the provider of {CONFIG_FILE}, but {origins.get('issuer')} specifies a "
                "different provider.",
                key=origins.get("issuer") or "issuer",
                remedy=f"Create a profile for the other provider, or unset {origins.get('issuer')}.",
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
            raise refused(
                origins[one],
                f"is set, but {other} is not",
                "Set both the certificate and its key, or neither.",
            )
    if settings.workload is not None:
        for name, only in (("token_file", WorkloadPlatform.KUBERNETES), ("managed_identity_client_id", "azure")):
            origin = origins.get(f"workload.{name}")
            if origin is not None and settings.workload.platform != only:
                raise refused(
                    origin,
                    f"applies only to {only}, but {origins['workload']} is {settings.workload.platform}",
                    f"Remove {origin}, or set the platform to {only}.",
                )
    pairs = [
        *combinations(_CLIENT_AUTHENTICATION, 2),
        *combinations(_PROGRAM_IDENTITIES, 2),
        *(("api_key_file", other) for other in _CREDENTIALS),
    ]
    if settings.workload is not None and settings.workload.exchange is WorkloadExchange.CLIENT_ASSERTION:
        # In that case, the platform's token authenticates the client.
        pairs += [("workload.exchange", other) for other in _CLIENT_AUTHENTICATION]
    for one, other in pairs:
        if one in origins and other in origins:
            raise ConfigurationError(
                f"Both {origins[one]} and {origins[other]} are set.", key=origins[other], remedy="Keep one of the two."
            )


NO_PRESET = "none"
RECOGNIZED = "recognized by the issuer"


def _requests_token_for_own_api(settings: ClientSettings) -> bool:
    # API names are URIs or IDs with a path; only Microsoft Graph can check tokens for Graph.
    return any("/" in name and not name.startswith("https://graph.microsoft.") for name in settings.scope.split())


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientPreset:
    """One provider, recognized by its issuer; `sends_access_token` applies if the preset is configured explicitly."""

    pattern: re.Pattern[str] | None = None
    issuer: str | None = None
    scope: str | None = None
    authorize_params: tuple[tuple[str, str], ...] = ()
    secret_is_native: bool = False
    private_key_audience: AssertionAudience | None = None
    sends_access_token: Callable[[ClientSettings], bool] = lambda _settings: False


def _hosts(*names: str, path: str = "(?:/.*)?") -> re.Pattern[str]:
    """Return a pattern for issuers on these hosts; `*` matches labels, and case and port are ignored."""
    hosts = "|".join(re.escape(name).replace(r"\*", r"[a-z0-9.-]+") for name in names)
    return re.compile(rf"https://(?:{hosts})(?::443)?{path}", flags=re.IGNORECASE)


_MICROSOFT = ("login.microsoftonline.com", "login.microsoftonline.us", "login.partner.microsoftonline.cn")
CLIENT_PRESETS: Mapping[str, ClientPreset] = MappingProxyType(
    {
        # The offline_access scope isn't used: refresh tokens require access_type=offline, and are returned again only
        # after consent. Desktop applications have a client secret, but service accounts don't. Only Google can read its
        # access tokens.
        "google": ClientPreset(
            pattern=_hosts("accounts.google.com", path="/?"),
            issuer="https://accounts.google.com",
            scope="openid email profile",
            authorize_params=(("access_type", "offline"), ("prompt", "consent")),
            secret_is_native=True,
        ),
        # Refresh tokens don't need a consent page, which isn't available if only administrators may consent.
        "entra": ClientPreset(
            pattern=_hosts(*_MICROSOFT, "sts.windows.net"),
            authorize_params=(("prompt", "select_account"),),
            sends_access_token=_requests_token_for_own_api,
        ),
        # Okta support: the audience must be exactly the endpoint that receives the assertion. Only Okta can read the
        # org server's access tokens; those from /oauth2/... can be read by anyone.
        "okta": ClientPreset(
            pattern=_hosts("*.okta.com", "*.oktapreview.com", "*.okta-emea.com"),
            private_key_audience=AssertionAudience.CALLED_ENDPOINT,
            sends_access_token=lambda settings: settings.issuer is not None and "/oauth2/" in settings.issuer,
        ),
        # Auth0, "Authenticate with Private Key JWT": the audience is the URL of the tenant or custom domain, including
        # the slash. Without an audience, its access tokens are opaque.
        "auth0": ClientPreset(
            pattern=_hosts("*.auth0.com"),
            private_key_audience=AssertionAudience.ISSUER,
            sends_access_token=lambda settings: settings.audience is not None,
        ),
        # Access tokens contain the server's audience if an audience mapper is configured.
        "keycloak": ClientPreset(
            pattern=re.compile(r"https?://[^/]+(?:/[^/]+)*/realms/[^/]+/?"), sends_access_token=lambda _settings: True
        ),
        # The offline_access scope isn't used: refresh tokens are returned without it. Access tokens contain the
        # application and the groups.
        "cognito": ClientPreset(
            pattern=_hosts("cognito-idp.*.amazonaws.com"),
            scope="openid email profile",
            sends_access_token=lambda _settings: True,
        ),
        "dex": ClientPreset(),  # Dex is designed for ID tokens
        "generic": ClientPreset(),
    }
)


def recognize_preset(issuer: str) -> str | None:
    """Return the name of the preset for an issuer, or None."""
    matching = (name for name, preset in CLIENT_PRESETS.items() if preset.pattern and preset.pattern.fullmatch(issuer))
    return next(matching, None)


def apply_preset(settings: ClientSettings, *, named: str | None) -> ClientSettings:
    """Return the settings with the provider preset's additions.

    A recognized preset doesn't change the bearer, because environments for the ID token, which upstream sends, must
    keep working. An explicitly configured preset sets the bearer like the server's preset of the same name.
    """
    if named == NO_PRESET:
        return replace(settings, preset=None)
    origins = dict(settings.origins)
    name = named or (None if settings.issuer is None else recognize_preset(settings.issuer))
    if name is None:
        return settings
    preset, origin = CLIENT_PRESETS[name], f"{PRESET_ORIGIN}{name}"
    origins.setdefault("preset", RECOGNIZED)
    filled = replace(settings, preset=name)
    if settings.issuer is None and preset.issuer is not None:
        filled = replace(filled, issuer=preset.issuer)
        origins["issuer"] = origin
    if "scope" not in origins and preset.scope is not None:
        filled = replace(filled, scope=preset.scope)
        origins["scope"] = origin
    given = dict(settings.authorize_params)
    added = [(parameter, value) for parameter, value in preset.authorize_params if parameter not in given]
    if added:
        filled = replace(filled, authorize_params=tuple(sorted([*settings.authorize_params, *added])))
        origins["authorize_params"] = ", ".join(filter(None, (origins.get("authorize_params"), origin)))
    if preset.secret_is_native:
        filled = replace(filled, secret_is_native=True)
        origins["secret_is_native"] = origin
    if filled.private_key is not None and preset.private_key_audience and "private_key.audience" not in origins:
        filled = replace(filled, private_key=replace(filled.private_key, audience=preset.private_key_audience))
        origins["private_key.audience"] = origin
    if named is not None and "bearer" not in origins and preset.sends_access_token(filled):
        filled = replace(filled, bearer=Bearer.ACCESS_TOKEN)
        origins["bearer"] = origin
    return replace(filled, origins=tuple(sorted(origins.items())))
