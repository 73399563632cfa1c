"""`StaticTokenAuthProvider`: an API key, or any other token that somebody else looks after."""

import logging
import os

from micromegas_jupyter.auth.api_key_file import OPEN_REMEDY, SETTING, read_api_key_file
from micromegas_jupyter.core.protocols import Secret
from micromegas_jupyter.errors import ConfigurationError

_log = logging.getLogger(__name__)


class StaticTokenAuthProvider:
    """Gives the same token each time.

    Args:
        token: The token; white space around it is dropped.

    Raises:
        ConfigurationError: Nothing is left, it holds anything but printable ASCII without spaces, or it is no text, as
            of a variable that is not set.
    """

    def __init__(self, token: str | Secret) -> None:
        if not isinstance(token, str | Secret):
            raise ConfigurationError(
                f"The token is no text but {type(token).__name__}.",
                key="token",
                remedy="Give the token as a text; is the variable that it comes from set?",
            )
        token = token if isinstance(token, Secret) else Secret(token)  # or a traceback would show it
        self._token = _checked(token, key="token")

    @classmethod
    def from_file(cls, path: str | os.PathLike[str]) -> "StaticTokenAuthProvider":
        """Read the token from a file; one that others can read is taken with a warning.

        Raises:
            ConfigurationError: The file cannot be read, is too large, holds no usable token, or others can change it.
        """
        file = read_api_key_file(path)
        if file.is_readable_by_others:
            _log.warning("Others can read the API key file. %s", OPEN_REMEDY, extra={"file": file.name})
        return cls(_checked(file.text, key=SETTING))

    def get_token(self) -> str:
        """Return the token."""
        return self._token.reveal()

    def __repr__(self) -> str:
        return "StaticTokenAuthProvider(***)"

    def __reduce__(self) -> str:
        raise TypeError("a token cannot be pickled")


def _checked(token: Secret, *, key: str) -> Secret:
    stripped = Secret(token.reveal().strip())
    if not _is_one_word(stripped.reveal()):
        raise ConfigurationError("The token is not one word of printable ASCII characters.", key=key)
    return stripped


def _is_one_word(token: str) -> bool:
    return token != "" and token.isascii() and token.isprintable() and " " not in token
