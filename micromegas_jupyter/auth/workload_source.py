"""What every platform that vouches for its programs offers here: one token at a time.

Each platform has a module of its own; what becomes of the token is `workload_provider`'s.
"""

from typing import Protocol

from micromegas_jupyter.auth.service_token import ServiceToken


class WorkloadSource(Protocol):
    """Gets the platform's token for this program."""

    @property
    def is_read_each_time(self) -> bool:
        """Whether the platform itself keeps the token fresh where it is read, so that it is not kept here."""
        ...

    @property
    def name(self) -> str:
        """The platform's name."""
        ...

    def fetch(self) -> ServiceToken:
        """Return the platform's token.

        Raises:
            MicromegasError: The platform gives none.
        """
        ...
