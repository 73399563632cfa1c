"""What is known about signing in at common identity providers, as data: it fills in what was not set.

A provider is recognized by its issuer, or named. What a server accepts is in `presets`.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from micromegas_jupyter.config.client import PRESET_ORIGIN, AssertionAudience, Bearer, ClientSettings
from micromegas_jupyter.config.decoding import as_text, shown
from micromegas_jupyter.errors import ConfigurationError

NO_PRESET = "none"
RECOGNIZED = "recognized by the issuer"


def _asks_for_own_api(settings: ClientSettings) -> bool:
    # Names of APIs are URIs or ids with a path; tokens for Graph cannot be checked by anybody else.
    return any("/" in name and not name.startswith("https://graph.microsoft.") for name in settings.scope.split())


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientPreset:
    """One provider.

    Attributes:
        pattern: What its issuers look like; None when they cannot be told from others.
        issuer: Its only issuer, when it has just one.
        scope: The scope to request.
        authorize_params: Further parameters of the authorization request.
        secret_is_native: Whether a client secret belongs to an application that people sign in with.
        private_key_audience: The audience of a private key's assertions.
        sends_access_token: Whether the access token is the bearer, once the preset is named.
    """

    pattern: re.Pattern[str] | None = None
    issuer: str | None = None
    scope: str | None = None
    authorize_params: tuple[tuple[str, str], ...] = ()
    secret_is_native: bool = False
    private_key_audience: AssertionAudience | None = None
    sends_access_token: Callable[[ClientSettings], bool] = lambda _settings: False


def _hosts(*names: str, path: str = "(?:/.*)?") -> re.Pattern[str]:
    """Return what issuers at these hosts look like; `*` stands for labels, case and a port do not matter."""
    hosts = "|".join(re.escape(name).replace(r"\*", r"[a-z0-9.-]+") for name in names)
    return re.compile(rf"https://(?:{hosts})(?::443)?{path}", flags=re.IGNORECASE)


_MICROSOFT = ("login.microsoftonline.com", "login.microsoftonline.us", "login.partner.microsoftonline.cn")
CLIENT_PRESETS: Mapping[str, ClientPreset] = MappingProxyType(
    {
        # No scope offline_access: a refresh token needs access_type=offline, and comes again only after consent.
        # Desktop applications have a client secret, service accounts do not. Only Google can read its access tokens.
        "google": ClientPreset(
            pattern=_hosts("accounts.google.com", path="/?"),
            issuer="https://accounts.google.com",
            scope="openid email profile",
            authorize_params=(("access_type", "offline"), ("prompt", "consent")),
            secret_is_native=True,
        ),
        # Refresh tokens need no consent page, which is closed where administrators consent.
        "entra": ClientPreset(
            pattern=_hosts(*_MICROSOFT, "sts.windows.net"),
            authorize_params=(("prompt", "select_account"),),
            sends_access_token=_asks_for_own_api,
        ),
        # Okta's support: the audience is exactly the endpoint that the assertion goes to. Access tokens of the org
        # server can be read by Okta only, those of /oauth2/... by all.
        "okta": ClientPreset(
            pattern=_hosts("*.okta.com", "*.oktapreview.com", "*.okta-emea.com"),
            private_key_audience=AssertionAudience.CALLED_ENDPOINT,
            sends_access_token=lambda settings: settings.issuer is not None and "/oauth2/" in settings.issuer,
        ),
        # Auth0, "Authenticate with Private Key JWT": the URL of the tenant or custom domain, slash included. Without
        # an audience, its access tokens are opaque.
        "auth0": ClientPreset(
            pattern=_hosts("*.auth0.com"),
            private_key_audience=AssertionAudience.ISSUER,
            sends_access_token=lambda settings: settings.audience is not None,
        ),
        # Access tokens name the server once an audience mapper is there.
        "keycloak": ClientPreset(
            pattern=re.compile(r"https?://[^/]+(?:/[^/]+)*/realms/[^/]+/?"), sends_access_token=lambda _settings: True
        ),
        # No scope offline_access: refresh tokens come without it. Access tokens name the application and the groups.
        "cognito": ClientPreset(
            pattern=_hosts("cognito-idp.*.amazonaws.com"),
            scope="openid email profile",
            sends_access_token=lambda _settings: True,
        ),
        "dex": ClientPreset(),  # the ID token is what Dex is for
        "generic": ClientPreset(),
    }
)


def recognize_preset(issuer: str) -> str | None:
    """Return the name of the preset for an issuer, None when it looks like none."""
    for name, preset in CLIENT_PRESETS.items():
        if preset.pattern is not None and preset.pattern.fullmatch(issuer):
            return name
    return None


def apply_preset(settings: ClientSettings, *, named: str | None) -> ClientSettings:
    """Return the settings with what the provider's preset adds to what was set.

    A preset that is recognized leaves the bearer alone: an environment that was made for the ID token, as upstream
    sends it, must keep working. One that is named chooses it as the server's preset of that name does.

    Args:
        settings: What was set; `origins` says which of its fields were.
        named: The preset that a person named; None leaves it to the issuer.
    """
    if named == NO_PRESET:
        return settings
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


def as_preset_name(value: object, key: str) -> str:
    """Return a preset's name, or `none`."""
    name = as_text(value, key)
    if name not in {*CLIENT_PRESETS, NO_PRESET}:
        raise ConfigurationError(
            f"{key} names the unknown preset {shown(name)}.",
            key=key,
            remedy=f"Known: {', '.join(sorted((*CLIENT_PRESETS, NO_PRESET)))}.",
        )
    return name
