"""The client half's settings: where to connect and how to sign in."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePath

from micromegas_jupyter.contracts import Secret
from micromegas_jupyter.errors import ConfigurationError
from micromegas_jupyter.settings.decoding import as_list, as_object, as_text, decode_setting
from micromegas_jupyter.settings.urls import check_issuer_url

DEFAULT_URI = "grpc://localhost:50051"
DEFAULT_SCOPE = "openid email profile offline_access"
CONFIG_FILE = "config.json"

_PROFILE_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientSettings:
    """Where to connect and how to sign in.

    Attributes:
        uri: The Flight SQL server.
        issuer: The OpenID provider; None means no sign-in.
        client_id: The application's id at that provider; None means no sign-in.
        client_secret: For service accounts, and for providers that want one from native applications.
        audience: Asked for when signing in, for providers that need it.
        scope: What is asked for when signing in.
        api_key_file: A file that holds an API key, instead of signing in.
        profile: The chosen profile's name, None for the flat configuration.
    """

    uri: str = DEFAULT_URI
    issuer: str | None = None
    client_id: str | None = None
    client_secret: Secret | None = field(default=None, repr=False)
    audience: str | None = None
    scope: str = DEFAULT_SCOPE
    api_key_file: PurePath | None = None
    profile: str | None = None

    @property
    def token_file_name(self) -> str:
        """The token file's name in the configuration folder: upstream's name for the same profile."""
        return "tokens.json" if self.profile is None else f"tokens-{self.profile}.json"


def parse_client_settings(
    environ: Mapping[str, str], *, config_text: str | None = None, profile: str | None = None
) -> ClientSettings:
    """Combine the environment with `config.json`; a variable that is set wins over the profile's value.

    Args:
        environ: The process environment.
        config_text: The content of `config.json`, None when there is no such file.
        profile: A profile asked for by argument; wins over `MICROMEGAS_PROFILE` and `default_profile`.

    Raises:
        ConfigurationError: The file or a variable is malformed, or the profile does not exist.
    """
    config = {} if config_text is None else as_object(decode_setting(config_text, CONFIG_FILE), CONFIG_FILE)
    name, values = _select_profile(config, profile or environ.get("MICROMEGAS_PROFILE") or None)
    first_issuer = _first_issuer(values)

    def setting(variable: str, source: Mapping[str, object], key: str) -> str | None:
        if environ.get(variable):
            return as_text(environ[variable], variable)
        return None if source.get(key) is None else as_text(source[key], f"{CONFIG_FILE}: {key}")

    issuer = setting("MICROMEGAS_OIDC_ISSUER", first_issuer, "issuer")
    client_id = setting("MICROMEGAS_OIDC_CLIENT_ID", values, "client_id")
    client_secret = setting("MICROMEGAS_OIDC_CLIENT_SECRET", {}, "")
    api_key_file = setting("", values, "api_key_file")
    if issuer is not None:
        variable = "MICROMEGAS_OIDC_ISSUER"
        check_issuer_url(issuer, key=variable if environ.get(variable) else f"{CONFIG_FILE}: issuers[0].issuer")
    if api_key_file and issuer and client_id:
        raise ConfigurationError(
            "Both api_key_file and an OpenID provider are set.",
            key="api_key_file",
            remedy="Keep one of the two.",
        )
    return ClientSettings(
        uri=setting("MICROMEGAS_ANALYTICS_URI", values, "uri") or DEFAULT_URI,
        issuer=issuer,
        client_id=client_id,
        client_secret=Secret(client_secret) if client_secret else None,
        audience=setting("MICROMEGAS_OIDC_AUDIENCE", first_issuer, "audience"),
        scope=setting("MICROMEGAS_OIDC_SCOPE", {}, "") or DEFAULT_SCOPE,
        api_key_file=PurePath(api_key_file) if api_key_file else None,
        profile=name,
    )


def _select_profile(config: Mapping[str, object], wanted: str | None) -> tuple[str | None, Mapping[str, object]]:
    if wanted is not None and (not _PROFILE_NAME.fullmatch(wanted) or wanted in {".", ".."}):
        raise ConfigurationError(f"The profile name {wanted!r} is not valid.", key="profile")
    if "profiles" not in config:
        if wanted is not None:
            raise ConfigurationError(
                f"The profile {wanted!r} was asked for, but {CONFIG_FILE} has no profiles.", key="profiles"
            )
        return None, config
    profiles = as_object(config["profiles"], f"{CONFIG_FILE}: profiles")
    default = config.get("default_profile")
    name = wanted or (None if default is None else as_text(default, f"{CONFIG_FILE}: default_profile"))
    known = ", ".join(sorted(filter(_PROFILE_NAME.fullmatch, profiles))) or "none"
    if name is None:
        raise ConfigurationError(
            f"{CONFIG_FILE} has profiles ({known}) and none was chosen.",
            key="default_profile",
            remedy=f"Give --profile, set MICROMEGAS_PROFILE, or set default_profile in {CONFIG_FILE}.",
        )
    if name not in profiles or not _PROFILE_NAME.fullmatch(name):
        raise ConfigurationError(f"{CONFIG_FILE} has no profile {name!r}; it has: {known}.", key="profiles")
    return name, as_object(profiles[name], f"{CONFIG_FILE}: profiles.{name}")


def _first_issuer(values: Mapping[str, object]) -> dict[str, object]:
    if values.get("issuers") is None:
        return {}
    listed = as_list(values["issuers"], f"{CONFIG_FILE}: issuers")
    if not listed:
        raise ConfigurationError(f"{CONFIG_FILE}: issuers is empty.", key="issuers")
    return as_object(listed[0], f"{CONFIG_FILE}: issuers[0]")
