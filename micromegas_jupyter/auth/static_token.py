"""`StaticTokenAuthProvider`: an API key, or any other token that somebody else looks after."""

import os
from pathlib import Path

from micromegas_jupyter.auth.private_files import MAX_FILE_BYTES
from micromegas_jupyter.contracts import Secret
from micromegas_jupyter.errors import ConfigurationError


class StaticTokenAuthProvider:
    """Gives the same token each time.

    Args:
        token: The token; white space around it is dropped.

    Raises:
        ConfigurationError: Nothing is left, or it holds anything but printable ASCII without spaces.
    """

    def __init__(self, token: str | Secret) -> None:
        self._token = _checked(token.reveal() if isinstance(token, Secret) else token, key="token")

    @classmethod
    def from_file(cls, path: str | os.PathLike[str]) -> "StaticTokenAuthProvider":
        """Read the token from a file.

        Raises:
            ConfigurationError: The file cannot be read, is too large, or holds no usable token.
        """
        place = Path(path).expanduser()
        try:
            if not place.is_file():
                raise ConfigurationError(f"The API key file {place.name} does not exist.", key="api_key_file")
            with place.open("rb") as file:
                content = file.read(MAX_FILE_BYTES + 1)
        except OSError:
            raise ConfigurationError(f"The API key file {place.name} cannot be read.", key="api_key_file") from None
        if len(content) > MAX_FILE_BYTES:
            raise ConfigurationError(f"The API key file {place.name} is too large.", key="api_key_file")
        return cls(_checked(content.decode("utf-8", "replace"), key="api_key_file"))

    def get_token(self) -> str:
        """Return the token."""
        return self._token.reveal()

    def __repr__(self) -> str:
        return "StaticTokenAuthProvider(***)"

    def __reduce__(self) -> str:
        raise TypeError("a token cannot be pickled")


def _checked(text: str, *, key: str) -> Secret:
    token = text.strip()
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise ConfigurationError("The token is not one word of printable ASCII characters.", key=key)
    return Secret(token)
