"""Google Cloud: the metadata server of a machine, a pod or a service gives ID tokens of its service account.

Source: Google Cloud, "Verify VM identity" and "Metadata server"; `GCE_METADATA_HOST` as its client libraries read it.
What becomes of the token is left to others.
"""

from collections.abc import Mapping
from urllib.parse import urlencode

from micromegas_jupyter.auth.service_token import ServiceToken, checked_token, jwt_service_token
from micromegas_jupyter.core.http import Platform, PlatformHttp
from micromegas_jupyter.core.system import Clock
from micromegas_jupyter.errors import LoginFailed, ProviderMisbehaved

HOST_VARIABLE = "GCE_METADATA_HOST"
DEFAULT_HOST = "metadata.google.internal"

# The header that tells the metadata server from anything else that may sit at its address.
_FLAVOR_HEADER = "Metadata-Flavor"
_FLAVOR = "Google"
_PATH = "/computeMetadata/v1/instance/service-accounts/default/identity"
_REMEDY = (
    "This works on Google Cloud only, where a service account is attached; elsewhere set "
    "MICROMEGAS_OIDC_SERVICE_ACCOUNT_FILE."
)
_PLATFORM = Platform(name="Google's metadata server", setting=HOST_VARIABLE, remedy=_REMEDY)


class GoogleMetadataSource:
    """Asks the metadata server for an ID token of the attached service account.

    Args:
        environ: May name another address of the metadata server.
        audience: What the token is for.
        http: Makes the call.
        clock: Tells the time.
    """

    is_read_each_time = False
    name = "google"

    def __init__(self, environ: Mapping[str, str], *, audience: str, http: PlatformHttp, clock: Clock) -> None:
        query = urlencode({"audience": audience, "format": "full"})
        self._url = f"http://{environ.get(HOST_VARIABLE) or DEFAULT_HOST}{_PATH}?{query}"
        self._audience = audience
        self._http = http
        self._clock = clock

    def fetch(self) -> ServiceToken:
        """Return an ID token.

        Raises:
            LoginFailed: No service account is attached.
            ProviderUnavailable: The metadata server does not answer.
            ProviderMisbehaved: Something else answers, or with no JWT for the audience.
            ConfigurationError: The address is not one of a metadata server.
        """
        answer = self._http.get(self._url, headers={_FLAVOR_HEADER: _FLAVOR}, platform=_PLATFORM)
        if answer.headers.get(_FLAVOR_HEADER.lower()) != _FLAVOR:
            raise ProviderMisbehaved("What answered is not Google's metadata server.", remedy=_REMEDY)
        if not answer.is_success:
            raise LoginFailed(f"Google's metadata server gave no token (status {answer.status}).", remedy=_REMEDY)
        token = checked_token(answer.text().strip(), giver=_PLATFORM.name)
        return jwt_service_token(
            token, audience=self._audience, now=self._clock.now(), giver=_PLATFORM.name, date=answer.date
        )
