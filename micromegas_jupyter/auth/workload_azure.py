"""Azure: the managed identity of a virtual machine, a container or an app, as access tokens for one resource.

Source: Microsoft Learn, "How to use managed identities for Azure resources on an Azure VM to acquire an access token"
and "How to use managed identities for App Service and Azure Functions". Azure Arc and Service Fabric, which prove
themselves differently, are not covered. What becomes of the token is left to others.
"""

import ipaddress
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from urllib.parse import urlencode, urlsplit

from micromegas_jupyter.auth.service_token import ServiceToken, checked_token, clock_offset, opaque_service_token
from micromegas_jupyter.core.http.platform_http import Platform, PlatformAnswer, PlatformHttp
from micromegas_jupyter.core.protocols import Secret
from micromegas_jupyter.core.system import Clock
from micromegas_jupyter.errors import ConfigurationError, LoginFailed, ProviderUnavailable
from micromegas_jupyter.oidc.discovery import describe_provider_error

# App Service, Functions and Container Apps set both; elsewhere the machine's metadata service answers.
APP_ENDPOINT_VARIABLE = "IDENTITY_ENDPOINT"
APP_HEADER_VARIABLE = "IDENTITY_HEADER"
MACHINE_HOST_VARIABLE = "AZURE_POD_IDENTITY_AUTHORITY_HOST"
DEFAULT_MACHINE_HOST = "http://169.254.169.254"

_MACHINE_PATH = "/metadata/identity/oauth2/token"
_MACHINE_VERSION = "2018-02-01"
_APP_VERSION = "2019-08-01"
# The metadata service is being updated and will be back: Microsoft's page, "Error handling".
_PASSING = frozenset({404, 410})
_DIGITS = re.compile(r"[0-9]{1,10}")
_MAX_LIFETIME_SECONDS = 7 * 24 * 3600
_REMEDY = (
    "This works on Azure only, where a managed identity is assigned; name it with MICROMEGAS_OIDC_WORKLOAD_CLIENT_ID "
    "when there are several."
)


class AzureManagedIdentitySource:
    """Asks for an access token of the managed identity.

    Args:
        environ: Says whether this is an app, and where it asks.
        resource: What the token is for: the application id (URI) of the API.
        client_id: Which of several identities.
        http: Makes the call.
        clock: Tells the time.
    """

    is_read_each_time = False
    name = "azure"

    def __init__(
        self,
        environ: Mapping[str, str],
        *,
        resource: str,
        client_id: str | None,
        http: PlatformHttp,
        clock: Clock,
    ) -> None:
        endpoint, secret = environ.get(APP_ENDPOINT_VARIABLE), environ.get(APP_HEADER_VARIABLE)
        self._is_app = bool(endpoint and secret)
        asked = {"api-version": _APP_VERSION if self._is_app else _MACHINE_VERSION, "resource": resource}
        if client_id:
            asked["client_id"] = client_id
        machine = (environ.get(MACHINE_HOST_VARIABLE) or DEFAULT_MACHINE_HOST).rstrip("/") + _MACHINE_PATH
        self._url = f"{endpoint if self._is_app else machine}?{urlencode(asked)}"
        self._secrets = (Secret(secret),) if self._is_app and secret else ()
        self._headers: dict[str, str | Secret] = (
            {"X-IDENTITY-HEADER": self._secrets[0]} if self._secrets else {"Metadata": "true"}
        )
        self._platform = Platform(
            name="Azure's managed identity endpoint",
            setting=APP_ENDPOINT_VARIABLE if self._is_app else MACHINE_HOST_VARIABLE,
            remedy=_REMEDY,
        )
        self._http = http
        self._clock = clock

    def fetch(self) -> ServiceToken:
        """Return an access token.

        Raises:
            LoginFailed: There is no such identity, or it may not have a token for the resource.
            ProviderUnavailable: The endpoint does not answer, or is being updated.
            ProviderMisbehaved: The answer holds no token.
            ConfigurationError: The endpoint is not inside this machine or its network.
        """
        if self._is_app and not _is_local(self._url):
            raise ConfigurationError(
                "The address of Azure's managed identity endpoint is not local, so the app's secret is not sent there.",
                key=APP_ENDPOINT_VARIABLE,
                remedy=_REMEDY,
            )
        answer = self._http.get(self._url, headers=self._headers, platform=self._platform)
        body = answer.json_object()
        if answer.status in _PASSING and not self._is_app:
            raise ProviderUnavailable(
                f"Azure's managed identity endpoint answered with status {answer.status}.", remedy=_REMEDY
            )
        if not answer.is_success:
            code, description = body.get("error"), body.get("error_description")
            why = describe_provider_error(code, description, secrets=self._secrets) if body else "no reason"
            raise LoginFailed(f"Azure gave no token (status {answer.status}, {why}).", remedy=_REMEDY)
        token = checked_token(body.get("access_token"), giver=self._platform.name)
        now = self._clock.now()
        return opaque_service_token(token, now=now, expires_at=_expiry(body, answer, now))


def _is_local(url: str) -> bool:
    """Whether an app's endpoint is where Azure puts it: Microsoft's page calls it the URL to the local token service.

    App Service and Functions have a loopback or link-local address, Container Apps `localhost`; private addresses are
    taken as well. A name would lead wherever its owner likes.
    """
    try:
        host = urlsplit(url).hostname or ""
        if host == "localhost":
            return True
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return address.is_loopback or address.is_link_local or address.is_private


def _expiry(body: Mapping[str, object], answer: PlatformAnswer, now: datetime) -> datetime | None:
    """Return when the token ends: a machine says for how long it holds, an app only until when."""
    lifetime = _whole_number(body.get("expires_in"))
    if lifetime is not None:
        return now + timedelta(seconds=min(lifetime, _MAX_LIFETIME_SECONDS))
    moment = _whole_number(body.get("expires_on"))
    return None if moment is None else datetime.fromtimestamp(moment, UTC) - clock_offset(answer.date, now)


def _whole_number(value: object) -> int | None:
    # Microsoft writes numbers as text.
    text = str(value) if type(value) is int else value
    return int(text) if isinstance(text, str) and _DIGITS.fullmatch(text) else None
