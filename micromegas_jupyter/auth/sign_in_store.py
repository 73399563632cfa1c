"""What a place that keeps one sign-in offers: the file (`token_store`) and the system's keyring do."""

from contextlib import AbstractContextManager
from typing import Protocol

from micromegas_jupyter.auth.private_files import FileMark
from micromegas_jupyter.auth.token_format import StoredLogin

LOCK_WAIT_SECONDS = 45.0  # longer than one renewal can take: three calls of ten seconds


class SignInStore(Protocol):
    """Keeps one sign-in for all programs of a person; safe to use from several threads and processes.

    Attributes:
        label: Where that is, for people.
    """

    @property
    def label(self) -> str:
        """Where the sign-in is kept, in a few words for people."""
        ...

    def mark(self) -> FileMark | None:
        """Return a mark that changes with every change of what is kept; None when nothing is. Cheap."""
        ...

    def load(self) -> tuple[StoredLogin, FileMark]:
        """Return what is kept, with the mark that belongs to it.

        Raises:
            LoginRequired: Nothing is kept, or what is there is damaged.
            TokenStoreError: The place cannot be used safely.
        """
        ...

    def check_usable(self) -> None:
        """Check, before a person is sent to sign in, that the result can be kept.

        Raises:
            TokenStoreError: It cannot.
        """
        ...

    def locked(self, *, wait_seconds: float = LOCK_WAIT_SECONDS) -> AbstractContextManager[None]:
        """Hold the lock that all writers share; it ends with the process that holds it.

        Raises:
            Unavailable: Another program holds it for longer than `wait_seconds`.
            TokenStoreError: The lock cannot be used safely.
        """
        ...

    def save(self, login: StoredLogin) -> FileMark:
        """Keep a sign-in in place of any other; only for the holder of the lock.

        Raises:
            TokenStoreError: It cannot be kept; what was there before still is.
        """
        ...

    def replace(self, login: StoredLogin, *, known: FileMark | None) -> FileMark | None:
        """Keep the successor of a sign-in, unless it is gone or was changed since `known`; only under the lock.

        Returns:
            The new mark, or None when nothing was written.

        Raises:
            TokenStoreError: It cannot be kept.
        """
        ...

    def remove(self) -> int:
        """Remove what is kept; returns how many files or entries there were.

        Raises:
            TokenStoreError: It cannot be removed.
        """
        ...
