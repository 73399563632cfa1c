"""`StaticTokenAuthProvider`: an API key, or any other token that the caller manages."""

import logging
import os
from dataclasses import dataclass, field
from pathlib import Path

from micromegas_jupyter.core.files import (
    FileProblem,
    find_foreign_writer,
    is_mounted_read_only,
    is_readable_by_others,
    read_shared_file,
)
from micromegas_jupyter.core.system import HiddenText, Secret
from micromegas_jupyter.errors import ConfigurationError

API_KEY_FILE_SETTING = "api_key_file"
# Restricting the file isn't enough: other users may already have read the key.
OPEN_FILE_REMEDY = "Restrict its permissions: chmod 600. If others use this machine, also replace the key."

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKeyFile:
    """The contents of an API key file, its base name, and whether other users (except root) can read it."""

    name: str
    text: Secret = field(repr=False)
    is_readable_by_others: bool


def read_api_key_file(path: str | os.PathLike[str]) -> ApiKeyFile:
    """Read the file, following symbolic links; `~` is expanded to the home directory.

    Upstream does not check the mode, so a file that others can only read is accepted, and the caller warns.
    """
    path = Path(path).expanduser()
    try:
        text, found = _read(path)
    except FileProblem as problem:
        raise ConfigurationError(
            f"The API key file {path.name} {problem.args[0]}.",
            key=API_KEY_FILE_SETTING,
            remedy="Correct the path or the file.",
        ) from None
    writer = find_foreign_writer(found)
    if writer is not None:
        raise ConfigurationError(
            f"The API key file {path.name} {writer}.",
            key=API_KEY_FILE_SETTING,
            remedy="Check its contents, take ownership of it (chown), and restrict its permissions (chmod 600).",
        )
    is_open = is_readable_by_others(found, is_mounted_read_only=is_mounted_read_only(path))
    return ApiKeyFile(name=path.name, text=text, is_readable_by_others=is_open)


class StaticTokenAuthProvider:
    """Always returns the same token.

    Args:
        token: The token; surrounding white space is stripped.

    Raises:
        ConfigurationError: The token is empty, contains characters other than printable ASCII or spaces, or is not a
            string, such as the value of an unset variable.
    """

    def __init__(self, token: str | Secret) -> None:
        if not isinstance(token, str | Secret):
            raise ConfigurationError(
                f"The token is {type(token).__name__}, not a string.",
                key="token",
                remedy="Pass the token as a string; check that the variable it comes from is set.",
            )
        token = token if isinstance(token, Secret) else Secret(token)  # keeps it out of tracebacks
        self._token = _checked(token, key="token")

    @classmethod
    def from_file(cls, path: str | os.PathLike[str]) -> "StaticTokenAuthProvider":
        """Read the token from a file; logs a warning if others can read it.

        Raises:
            ConfigurationError: The file cannot be read, is too large, contains no valid token, or is writable by
                others.
        """
        file = read_api_key_file(path)
        if file.is_readable_by_others:
            _log.warning("Others can read the API key file. %s", OPEN_FILE_REMEDY, extra={"file": file.name})
        return cls(_checked(file.text, key=API_KEY_FILE_SETTING))

    def get_token(self) -> str:
        """Return the token."""
        return self._token.reveal()

    def __repr__(self) -> str:
        return "StaticTokenAuthProvider(***)"

    def __reduce__(self) -> str:
        raise TypeError("a token cannot be pickled")


def _read(path: Path) -> tuple[Secret, os.stat_result]:
    # A separate function, so that the raising frame doesn't contain plain text for a verbose traceback to show.
    content, found = read_shared_file(path)
    return Secret(content.decode("utf-8", "replace")), found


def _checked(token: Secret, *, key: str) -> Secret:
    stripped = Secret(token.reveal().strip())
    text = HiddenText(stripped.reveal())
    if not text or not text.isascii() or not text.isprintable() or " " in text:
        raise ConfigurationError("The token isn't a single word of printable ASCII characters.", key=key)
    return stripped
