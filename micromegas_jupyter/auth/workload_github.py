"""GitHub Actions: the runner's own address gives a job an OpenID Connect token.

Source: GitHub Docs, "OpenID Connect reference", and the variables that `@actions/core` reads. What becomes of the
token is left to others.
"""

from collections.abc import Mapping
from urllib.parse import quote

from micromegas_jupyter.auth.service_token import ServiceToken, checked_token, jwt_service_token
from micromegas_jupyter.core.http import Platform, PlatformHttp
from micromegas_jupyter.core.protocols import Secret
from micromegas_jupyter.core.system import Clock
from micromegas_jupyter.errors import ConfigurationError, LoginFailed

URL_VARIABLE = "ACTIONS_ID_TOKEN_REQUEST_URL"
TOKEN_VARIABLE = "ACTIONS_ID_TOKEN_REQUEST_TOKEN"  # noqa: S105 - a variable's name, not a token

_REMEDY = "This works in GitHub Actions only, in a job that has `permissions: id-token: write`."
_PLATFORM = Platform(name="GitHub Actions", setting=URL_VARIABLE, remedy=_REMEDY)


class GithubActionsSource:
    """Asks the runner for the job's token.

    Args:
        environ: Holds the variables of the runner.
        audience: What the token is for.
        http: Makes the call.
        clock: Tells the time.

    Raises:
        ConfigurationError: The variables are not there.
    """

    is_read_each_time = False
    name = "github-actions"

    def __init__(self, environ: Mapping[str, str], *, audience: str, http: PlatformHttp, clock: Clock) -> None:
        missing = [variable for variable in (URL_VARIABLE, TOKEN_VARIABLE) if not environ.get(variable)]
        if missing:
            raise ConfigurationError(f"{missing[0]} is not set.", key=missing[0], remedy=_REMEDY)
        self._url = Secret(environ[URL_VARIABLE])
        self._request_token = Secret(environ[TOKEN_VARIABLE])
        self._audience = audience
        self._http = http
        self._clock = clock

    def fetch(self) -> ServiceToken:
        """Return the job's token.

        Raises:
            LoginFailed: The job may not have one.
            ProviderUnavailable: The runner does not answer.
            ProviderMisbehaved: The answer holds no JWT for the audience.
            ConfigurationError: The runner's address is not https.
        """
        url = self._url.reveal()
        joint = "&" if "?" in url else "?"
        answer = self._http.get(
            f"{url}{joint}audience={quote(self._audience, safe='')}",
            headers={"Authorization": Secret(f"Bearer {self._request_token.reveal()}"), "Accept": "application/json"},
            platform=_PLATFORM,
        )
        if not answer.is_success:
            raise LoginFailed(f"GitHub Actions gave no token (status {answer.status}).", remedy=_REMEDY)
        token = checked_token(answer.json_object().get("value"), giver=_PLATFORM.name)
        return jwt_service_token(
            token, audience=self._audience, now=self._clock.now(), giver=_PLATFORM.name, date=answer.date
        )
