"""Kubernetes, and Azure's own Kubernetes: a token in a file that the platform renews.

Source: Kubernetes, "Configure Service Accounts for Pods", section on projected tokens. The file is read each time,
because the kubelet replaces it well before its token ends; it is a symbolic link there, so links are followed. Who
else may read it is the platform's business. What becomes of the token is left to others.
"""

from pathlib import Path

from micromegas_jupyter.auth.service_token import ServiceToken, jwt_service_token
from micromegas_jupyter.core.files import FileProblem, read_shared_file
from micromegas_jupyter.core.protocols import Secret
from micromegas_jupyter.core.system import Clock
from micromegas_jupyter.errors import ConfigurationError, LoginFailed, ProviderMisbehaved

MAX_TOKEN_FILE_BYTES = 64 * 1024

_REMEDY = (
    "This works where the platform puts a token into a file, as a projected volume (serviceAccountToken) does; set "
    "MICROMEGAS_OIDC_WORKLOAD_TOKEN_FILE to that file."
)


class TokenFileSource:
    """Reads the platform's token from its file.

    Args:
        path: The file.
        audience: What the token has to be for; None when that is for its receiver to say.
        setting: Names the file in errors.
        name: The platform's name.
        clock: Tells the time.
    """

    is_read_each_time = True

    def __init__(self, path: Path, *, audience: str | None, setting: str, name: str, clock: Clock) -> None:
        self.name = name
        self._path = path
        self._audience = audience
        self._setting = setting
        self._clock = clock

    def fetch(self) -> ServiceToken:
        """Return the token that the file holds now.

        Raises:
            ConfigurationError: The file is not there, cannot be read, or is too large.
            LoginFailed: It holds no JWT, or one for another audience, or one that has ended.
        """
        now = self._clock.now()
        giver = f"The file that {self._setting} names"
        try:
            token = jwt_service_token(self._read(), audience=self._audience, now=now, giver=giver)
        except ProviderMisbehaved as problem:
            raise LoginFailed(problem.what, remedy=_REMEDY) from None
        if token.expires_at is not None and token.expires_at <= now:
            raise LoginFailed(
                f"{giver} holds a token that has ended.",
                remedy="Check that the platform renews the file, and the clock of this machine.",
            )
        return token

    def _read(self) -> Secret:
        try:
            content, _ = read_shared_file(self._path, max_bytes=MAX_TOKEN_FILE_BYTES)
        except FileProblem as problem:
            raise ConfigurationError(
                f"The file that {self._setting} names {problem.args[0]}.", key=self._setting, remedy=_REMEDY
            ) from None
        return Secret(content.decode("utf-8", "replace").strip())
